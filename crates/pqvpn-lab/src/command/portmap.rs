// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab portmap`: two members behind symmetric routers, of which one opens ports when it is asked.
//!
//! Without that they never meet. The router runs Debian's `miniupnpd`, and is open to one way of asking at a time.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pqvpn_lab::nat::{Asking, Forwarding, Kind};
use pqvpn_lab::report::{Op, Report};
use serde_json::Value;

use super::bench::tools;
use super::network::{LOOK, look, rounded, say};
use super::node::{PATIENCE, PORT};
use super::trio::{Plan, Trio};

/// How long two members may take to meet, on a machine that does something else besides.
const WINDOW: Duration = Duration::from_secs(20);

/// Which ways of asking, how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this way of asking, like `PCP`; may be given several times [default: all three].
    #[arg(long, value_name = "PROTOCOL")]
    protocol: Vec<Asking>,
    /// Runs of each, each with daemons and routers that start anew.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
}

/// One run.
#[derive(Debug, Default)]
struct Run {
    /// Seconds from the start of the daemon until the router forwarded.
    mapped: Option<f64>,
    /// Seconds from the first demand until both ends knew a direct path; the member behind the mapping began, or the other.
    direct: [Option<f64>; 2],
    /// Ports still open after the daemon had stopped.
    left: Option<usize>,
    why: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("portmap");
    let program = tools::pqvpn()?;
    let ways = if args.protocol.is_empty() { Asking::ALL.to_vec() } else { args.protocol.clone() };
    let (mut failed, mut left) = (0, 0);
    for asking in ways {
        for _ in 0..args.repeat {
            let mut run = Run::default();
            if let Err(error) = one(&program, asking, &mut run) {
                run.why = format!("{error:#}");
                say(&format!("{asking}: {}", run.why));
            }
            failed += usize::from(run.mapped.is_none() || run.direct.contains(&None));
            left += run.left.unwrap_or(1);
            let seconds = |value: Option<f64>| value.map_or(Value::Null, rounded);
            report.row([
                ("asked_by", asking.name().into()),
                ("mapped_s", seconds(run.mapped)),
                ("direct_from_inside_s", seconds(run.direct[0])),
                ("direct_from_outside_s", seconds(run.direct[1])),
                ("left_open", run.left.into()),
                ("why", run.why.into()),
            ]);
        }
    }
    report.figure("repeat", args.repeat);
    report.figure("not_direct", failed);
    report.bar("not_direct", Op::Equal, 0.0);
    report.figure("left_open", left);
    report.bar("left_open", Op::Equal, 0.0);
    Ok(report)
}

fn one(program: &Path, asking: Asking, run: &mut Run) -> anyhow::Result<()> {
    let mut trio = Trio::build(&Plan::new(program, Some([Kind::Symmetric; 2])))?;
    let router = trio.sites[0].routers[0].namespace.clone();
    let forwarding = Forwarding::start(&router, asking)?;
    let outcome = meet(&mut trio, &forwarding, asking, run);
    outcome.with_context(|| format!("the router said: {}", tail(&forwarding.said())))
}

fn meet(trio: &mut Trio, forwarding: &Forwarding, asking: Asking, run: &mut Run) -> anyhow::Result<()> {
    trio.found()?;
    for begins in [0, 1] {
        trio.halt()?;
        let start = Instant::now();
        trio.resume()?;
        wait_for_mapping(trio, asking)?;
        run.mapped.get_or_insert(start.elapsed().as_secs_f64());
        anyhow::ensure!(forwarding.open_ports()? > 0, "the router has no open port");
        run.direct[begins] = Some(direct(trio, begins)?);
        netcheck(trio, asking)?;
    }
    trio.ends.iter_mut().try_for_each(super::network::Member::stop)?;
    run.left = Some(forwarding.open_ports()?);
    Ok(())
}

/// Waits until the first end's daemon reports what its router forwards, asked as it should be.
fn wait_for_mapping(trio: &Trio, asking: Asking) -> anyhow::Result<()> {
    let outside = SocketAddr::V4(SocketAddrV4::new(trio.outside(0), PORT));
    let mut last = Value::Null;
    let found = look("a port mapping", PATIENCE, || {
        last = trio.ends[0].json(&["status"]).ok()?["port_mapping"].clone();
        let fits = last["state"] == "mapped"
            && last["protocol"] == asking.name()
            && last["external"] == outside.to_string()
            && last["public"] == true;
        fits.then_some(())
    });
    found.with_context(|| format!("last reported: {last}"))
}

/// What the first end says of its network is what the lab made of it.
fn netcheck(trio: &Trio, asking: Asking) -> anyhow::Result<()> {
    let check = trio.ends[0].json(&["netcheck"])?;
    let outside = trio.outside(0).to_string();
    let seen = |one: &Value| one["address"].as_str().is_some_and(|at| at.starts_with(&outside));
    let fits = check["schema"] == 1
        && check["udp"]["value"] == "yes"
        && check["ipv6"]["value"] == "no"
        && check["port_mapping"]["protocol"] == asking.name()
        && check["outside"].as_array().is_some_and(|all| all.iter().any(seen))
        && check["relays"].as_array().is_some_and(|all| all.iter().any(|relay| relay["name"] == trio.relays[0].name));
    anyhow::ensure!(fits, "netcheck says something else: {check}");
    Ok(())
}

/// One end sends to the other until both know a direct path; gives how long that took.
fn direct(trio: &Trio, begins: usize) -> anyhow::Result<f64> {
    let start = Instant::now();
    let met = look("a direct path", WINDOW, || {
        _ = trio.ends[begins].ping(&trio.ends[1 - begins].name, LOOK * 20);
        let direct = |end| trio.seen(end).is_ok_and(|seen| seen.is_direct());
        (direct(0) && direct(1)).then(|| start.elapsed().as_secs_f64())
    });
    met.with_context(|| format!("last seen: {:?} and {:?}", trio.seen(0), trio.seen(1)))
}

/// The last lines of what a daemon said.
fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
