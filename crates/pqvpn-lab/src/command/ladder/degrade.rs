// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nine links, each worse than the one before: loss in bursts, delay, a bottleneck (testing.md B2).
//!
//! What the tunnel is answerable for is datagrams, so the share of the bottleneck is that of a UDP stream which offers
//! 88 % of it, which fills it together with the headers. TCP is shown beside TCP over the bare link, which loses as much.

use std::path::Path;
use std::time::{Duration, Instant};

use pqvpn_lab::impair::{self, Offloads};
use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::Interface;
use serde_json::Value;

use super::{Args, PATIENCE, SECONDS};
use crate::command::bench::iperf;
use crate::command::network::{quantile, rounded, say, sorted};
use crate::command::trio::{Plan, Trio};

/// Packets lost in a row.
const BURST: u32 = 10;
/// Most loss, in a thousand, at which the bottleneck still has to be filled.
const HEAVY: u32 = 20;
/// Least share of the bottleneck.
const SHARE: f64 = 0.8;
/// Milliseconds of packets a bottleneck keeps.
const QUEUE_MS: u32 = 100;

/// A link.
struct Rung {
    name: &'static str,
    rtt_ms: u32,
    /// Lost in a thousand, each way.
    per_mille: u32,
    kilobits: u32,
}

const fn rung(name: &'static str, rtt_ms: u32, per_mille: u32, kilobits: u32) -> Rung {
    Rung { name, rtt_ms, per_mille, kilobits }
}

const RUNGS: [Rung; 9] = [
    rung("good wifi", 16, 1, 100_000),
    rung("cable", 30, 2, 50_000),
    rung("good mobile", 50, 5, 20_000),
    rung("mobile", 80, 10, 10_000),
    rung("satellite", 600, 10, 5_000),
    rung("poor mobile", 120, 20, 4_000),
    rung("bad mobile", 250, 50, 1_000),
    rung("terrible", 500, 120, 384),
    rung("absurd", 800, 250, 256),
];

/// What one link came to.
#[derive(Debug, Default)]
struct Met {
    connected: Option<f64>,
    udp_mbit: Option<f64>,
    tcp_mbit: Option<f64>,
    bare_tcp_mbit: Option<f64>,
    path: String,
    trouble: String,
}

/// The names of all links.
pub(super) fn names() -> [&'static str; RUNGS.len()] {
    RUNGS.each_ref().map(|rung| rung.name)
}

pub(super) fn run(program: &Path, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let (mut connected, mut shares, mut times, mut to_bare) = (0, Vec::new(), Vec::new(), Vec::new());
    let rungs = RUNGS.iter().filter(|rung| args.link.is_empty() || args.link.iter().any(|name| name == rung.name));
    let turns: Vec<&Rung> = rungs.flat_map(|rung| std::iter::repeat_n(rung, args.link_repeat.into())).collect();
    for rung in &turns {
        let mut met = Met::default();
        if let Err(error) = meet(program, rung, &mut met) {
            met.trouble = format!("{error:#}");
        }
        say(&format!("{}: {met:?}", rung.name));
        connected += u32::from(met.connected.is_some());
        times.extend(met.connected);
        let share = met.udp_mbit.map(|mbit| mbit * 1000.0 / f64::from(rung.kilobits));
        if rung.per_mille <= HEAVY {
            shares.push(share.unwrap_or(0.0));
            to_bare.extend(met.tcp_mbit.zip(met.bare_tcp_mbit).map(|(tcp, bare)| tcp / bare));
        }
        row(rung, &met, share, report);
    }
    report.figure("degrade_rungs", turns.len());
    report.figure("degrade_connected", connected);
    report.bar("degrade_connected", Op::Equal, turns.len() as f64);
    report.figure("degrade_connected_max_s", quantile(&sorted(times), 1.0));
    if !shares.is_empty() {
        report.figure("degrade_least_share", sorted(shares).first().copied().map_or(Value::Null, rounded));
        report.bar("degrade_least_share", Op::AtLeast, SHARE);
        report.figure("degrade_least_tcp_to_bare", sorted(to_bare).first().copied().map_or(Value::Null, rounded));
    }
    Ok(())
}

fn meet(program: &Path, rung: &Rung, met: &mut Met) -> anyhow::Result<()> {
    let mut trio = Trio::build(&Plan::new(program, None))?;
    let port = Interface::find(&trio.internet.router, "port0")?;
    let far = Interface::find(&trio.internet.router, "port1")?;
    for interface in [&port, &far, &trio.ends[0].node.host.interface, &trio.ends[1].node.host.interface] {
        impair::set_offloads(interface, Offloads::Off)?;
    }
    trio.found()?;
    let round_trip = Duration::from_millis(rung.rtt_ms.into());
    let _delay = impair::delay(&port, round_trip)?;
    let _loss = impair::burst_loss(&port, BURST, rung.per_mille)?;
    impair::slow_link(&port, rung.kilobits, QUEUE_MS)?;
    impair::slow_link(&trio.ends[0].node.host.interface, rung.kilobits, QUEUE_MS)?;
    trio.halt()?;
    let start = Instant::now();
    trio.resume()?;
    // A handshake of some kilobytes takes several round trips, seconds where they fill the link, and some tries where a
    // quarter of it is lost.
    trio.first_packet(PATIENCE + round_trip * 50)?;
    met.connected = Some(start.elapsed().as_secs_f64());
    let seen = trio.seen(0)?;
    met.path = format!("{} {}", seen.kind, seen.why);
    let [one, two] = trio.ends.each_ref().map(|end| &end.node.host);
    let (inner, bare) = (trio.inner(1)?, two.ipv4.into());
    let seconds = SECONDS + rung.rtt_ms / 100;
    met.udp_mbit = Some(iperf::udp(one, two, inner, seconds, rung.kilobits / 100 * 88)?);
    met.tcp_mbit = Some(iperf::tcp(one, two, inner, seconds, 1)?.gbit_s * 1000.0);
    met.bare_tcp_mbit = Some(iperf::tcp(one, two, bare, seconds, 1)?.gbit_s * 1000.0);
    trio.stop()
}

fn row(rung: &Rung, met: &Met, share: Option<f64>, report: &mut Report) {
    let number = |value: Option<f64>| value.map_or(Value::Null, rounded);
    report.row([
        ("rung", rung.name.into()),
        ("n", 1.into()),
        ("connected", u8::from(met.connected.is_some()).into()),
        ("connected_p50_s", number(met.connected)),
        ("connected_max_s", number(met.connected)),
        ("bottleneck_mbit_s", rounded(f64::from(rung.kilobits) / 1000.0)),
        ("rtt_ms", rung.rtt_ms.into()),
        ("loss_percent", rounded(f64::from(rung.per_mille) / 10.0)),
        ("udp_mbit_s", number(met.udp_mbit)),
        ("udp_share", number(share)),
        ("tcp_mbit_s", number(met.tcp_mbit)),
        ("bare_tcp_mbit_s", number(met.bare_tcp_mbit)),
        ("path", met.path.clone().into()),
        ("trouble", met.trouble.clone().into()),
    ]);
}
