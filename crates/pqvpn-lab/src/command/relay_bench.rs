// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab relay-bench`: how much goes through one relay, and what the relay pays for it.

use std::time::Duration;

use anyhow::Context as _;
use pqvpn_lab::process::{Daemon, Usage};
use pqvpn_lab::report::{Op, Report};

use super::bench::{iperf, tools};
use super::network::{quantile, rounded, say, sorted};
use super::node::PATIENCE;
use super::trio::{Plan, Trio};

/// Least Gbit/s through one relay.
const BAR: f64 = 1.0;

/// How long and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds of each transfer.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Transfers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let mut report = Report::new("relay-bench");
    let program = tools::pqvpn()?;
    tools::need_iperf3()?;
    // Three hosts on the internet: the relay's work is looked at, not that of translating routers.
    let mut trio = Trio::build(&Plan::new(&program, None))?;
    let cut = trio.cut_direct_path()?;
    trio.found()?;
    // A network that does not relay at all is a result: every bar is missed, nothing is left out.
    let outcome = through_relay(&trio, args, &mut report);
    report.figure("relayed", u8::from(outcome.is_ok()));
    if let Err(error) = outcome {
        say(&format!("{error:#}"));
        report.figure("trouble", format!("{error:#}"));
    }
    report.bar("relayed", Op::Equal, 1.0);
    report.bar("gbit_s", Op::AtLeast, BAR);
    cut.end()?;
    trio.stop()?;
    Ok(report)
}

fn through_relay(trio: &Trio, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    trio.first_packet(PATIENCE)?;
    trio.wait_for_path("relay", PATIENCE)?;
    let target = trio.inner(1)?;
    let [one, two] = trio.ends.each_ref().map(|end| &end.node.host);
    let daemons = [&trio.relays[0], &trio.ends[0], &trio.ends[1]].map(|member| member.daemon.as_ref());
    let mut rates = Vec::new();
    let (mut costs, mut gigabytes) = ([0.0; 3], 0.0);
    for number in 1..=args.repeat {
        let before = usages(daemons)?;
        let transfer = iperf::tcp(one, two, target, args.seconds, 1)?;
        let after = usages(daemons)?;
        gigabytes += transfer.gigabytes;
        for ((cost, before), after) in costs.iter_mut().zip(before).zip(after) {
            *cost += after.cpu.saturating_sub(before.cpu).as_secs_f64();
        }
        rates.push(transfer.gbit_s);
        let still = trio.seen(0)?;
        anyhow::ensure!(still.kind == "relay", "the path became {}: {}", still.kind, still.why);
        report.row([
            ("transfer", number.into()),
            ("gbit_s", rounded(transfer.gbit_s)),
            ("gigabytes", rounded(transfer.gigabytes)),
            ("retransmits", transfer.retransmits.into()),
        ]);
    }
    let rates = sorted(rates);
    report.figure("gbit_s", quantile(&rates, 0.5));
    for (name, cost) in ["relay", "sender", "receiver"].iter().zip(costs) {
        report.figure(&format!("{name}_cpu_s_per_gb"), rounded(cost / gigabytes));
    }
    report.figure("seconds", args.seconds);
    Ok(())
}

fn usages(daemons: [Option<&Daemon>; 3]) -> anyhow::Result<[Usage; 3]> {
    let mut usages = [Usage { cpu: Duration::ZERO, rss: 0, anonymous: 0, peak_rss: 0, threads: 0 }; 3];
    for (usage, daemon) in usages.iter_mut().zip(daemons) {
        *usage = daemon.context("a daemon that runs")?.usage()?;
    }
    Ok(usages)
}
