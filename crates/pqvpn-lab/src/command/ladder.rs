// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab ladder`: networks that let less and less through, and links that get worse and worse.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pqvpn_lab::impair;
use pqvpn_lab::nat::Kind;
use pqvpn_lab::report::{Op, Report};
use pqvpn_lab::topology::Interface;
use serde_json::Value;

use super::bench::{iperf, tools};
use super::network::{quantile, rounded, say, sorted};
use super::trio::{Plan, Trio};
use proxy::Proxy;

mod degrade;
mod proxy;

/// How long the first packet may take; the bar is shorter.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a path may take to become direct when everything is let through again; the bar is shorter.
const BACK: Duration = Duration::from_secs(120);
/// Seconds of a transfer.
const SECONDS: u32 = 4;
/// Least Mbit/s where only TCP to port 443 gets out.
const CARRIER_MBIT: f64 = 300.0;

/// Which half, how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only one half.
    #[arg(long, value_enum)]
    only: Option<Half>,
    /// How often each network without UDP is met.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=100))]
    repeat: u8,
    /// How often each worse link is met.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=100))]
    link_repeat: u8,
    /// Of the worse links only this one; may be given several times [default: all nine]
    #[arg(long, value_name = "NAME", value_parser = degrade::names())]
    link: Vec<String>,
    /// Lines for the end of the relay's configuration, in its `[relay]` section.
    #[arg(long, default_value = "", value_name = "TOML")]
    relay_config: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Half {
    /// Networks that let little through.
    Carriers,
    /// Links that lose, delay and are slow.
    Degrade,
}

/// What a network lets out of the first host's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    /// TCP to ports 443 and 80.
    Tcp443,
    /// UDP to port 443.
    Udp443,
    /// TCP to a proxy that knows CONNECT.
    Proxy,
}

impl Carrier {
    const ALL: [Self; 3] = [Self::Tcp443, Self::Udp443, Self::Proxy];

    const fn name(self) -> &'static str {
        match self {
            Self::Tcp443 => "tcp-443",
            Self::Udp443 => "udp-443",
            Self::Proxy => "proxy",
        }
    }

    /// What is let out and in at the router of the internet, as `nft` matches.
    fn lets_through(self, proxy: &Proxy) -> [String; 2] {
        match self {
            Self::Tcp443 => ["tcp dport { 80, 443 }".to_owned(), "tcp sport { 80, 443 }".to_owned()],
            Self::Udp443 => ["udp dport 443".to_owned(), "udp sport 443".to_owned()],
            Self::Proxy => {
                let (ip, port) = (proxy.address.ip(), proxy.address.port());
                [format!("ip daddr {ip} tcp dport {port}"), format!("ip saddr {ip} tcp sport {port}")]
            }
        }
    }
}

/// What meeting over a carrier came to.
#[derive(Debug, Default)]
struct Met {
    connected: Vec<f64>,
    mbit: Vec<f64>,
    /// Seconds from when everything is let through again to a direct path.
    back: Option<f64>,
    path: String,
    trouble: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("ladder");
    let program = tools::pqvpn()?;
    tools::need_iperf3()?;
    if args.only != Some(Half::Degrade) {
        for carrier in Carrier::ALL {
            let mut met = Met::default();
            if let Err(error) = meet(&program, carrier, args, &mut met) {
                met.trouble = format!("{error:#}");
                say(&format!("{}: {}", carrier.name(), met.trouble));
            }
            tell(carrier, met, args.repeat, &mut report);
        }
    }
    if args.only != Some(Half::Carriers) {
        degrade::run(&program, args, &mut report)?;
    }
    Ok(report)
}

fn meet(program: &Path, carrier: Carrier, args: &Args, met: &mut Met) -> anyhow::Result<()> {
    let relay = &args.relay_config;
    let plan = Plan { spare: 1, relay, ..Plan::new(program, Some([Kind::Home, Kind::Home])) };
    let mut trio = Trio::build(&plan)?;
    let proxy = Proxy::start(trio.internet.hosts.last().context("a spare host")?)?;
    trio.found()?;
    let port = Interface::find(&trio.internet.router, "port0")?;
    let [out, back] = carrier.lets_through(&proxy);
    let only = impair::only(&port, &[&out], &[&back])?;
    if carrier == Carrier::Proxy {
        // As programs are told of one everywhere.
        let address = format!("http://{}", proxy.address);
        trio.ends[0].node.environment = vec![("HTTPS_PROXY".to_owned(), address)];
    }
    for _ in 0..args.repeat {
        trio.halt()?;
        let start = Instant::now();
        trio.resume()?;
        trio.first_packet(PATIENCE)?;
        met.connected.push(start.elapsed().as_secs_f64());
        let seen = trio.seen(0)?;
        met.path = format!("{} {} {}", seen.kind, seen.path["carrier"].as_str().unwrap_or_default(), seen.why);
        let wanted = if carrier == Carrier::Udp443 { "quic" } else { "wss" };
        anyhow::ensure!(seen.path["carrier"] == wanted, "the status names another rung: {}", met.path);
        let [one, two] = trio.ends.each_ref().map(|end| &end.node.host);
        met.mbit.push(iperf::tcp(one, two, trio.inner(1)?, SECONDS, 1)?.gbit_s * 1000.0);
    }
    drop(only);
    let start = Instant::now();
    trio.wait_for_path("direct", BACK)?;
    met.back = Some(start.elapsed().as_secs_f64());
    trio.stop()
}

fn tell(carrier: Carrier, met: Met, repeat: u8, report: &mut Report) {
    let (connected, mbit) = (sorted(met.connected), sorted(met.mbit));
    let figure = |what: &str| format!("{}_{what}", carrier.name().replace('-', "_"));
    report.figure(&figure("connected"), connected.len());
    report.bar(&figure("connected"), Op::Equal, repeat.into());
    report.figure(&figure("connected_max_s"), quantile(&connected, 1.0));
    report.bar(&figure("connected_max_s"), Op::Below, 5.0);
    report.figure(&figure("mbit_s"), quantile(&mbit, 0.5));
    if carrier == Carrier::Tcp443 {
        report.bar(&figure("mbit_s"), Op::AtLeast, CARRIER_MBIT);
    }
    report.figure(&figure("back_s"), met.back.map_or(Value::Null, rounded));
    report.bar(&figure("back_s"), Op::Below, 60.0);
    report.row([
        ("rung", carrier.name().into()),
        ("n", repeat.into()),
        ("connected", connected.len().into()),
        ("connected_p50_s", quantile(&connected, 0.5)),
        ("connected_max_s", quantile(&connected, 1.0)),
        ("bottleneck_mbit_s", Value::Null),
        ("rtt_ms", Value::Null),
        ("loss_percent", Value::Null),
        ("udp_mbit_s", Value::Null),
        ("udp_share", Value::Null),
        ("tcp_mbit_s", mbit.get(mbit.len() / 2).copied().map_or(Value::Null, rounded)),
        ("bare_tcp_mbit_s", Value::Null),
        ("path", met.path.into()),
        ("trouble", met.trouble.into()),
    ]);
}
