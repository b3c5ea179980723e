// SPDX-License-Identifier: MIT OR Apache-2.0
//! `pqvpn-lab flood`: a tunnel that is busy, strangers who send one of its ends all they can, and peers who come new.
//!
//! Four hosts on a switch: the hub, which is attacked; a peer that sends it all TCP takes; a crowd of peers of which some
//! make their first handshake in each phase (`crates/pqvpn-node/examples/swarm.rs`); and the stranger
//! (`crates/pqvpn-node/examples/flood`), who has a /15 of addresses. Each phase is one kind of flood. The tunnel is measured
//! with it and without it, by turns; all three share their machine, so that only the ratio is held against a bar.

use std::time::Duration;

use pqvpn_lab::report::{Op, Report};

use super::bench::tools;
use super::network::{rounded, say};
use phase::{Outcome, Phase};
use rig::Rig;

mod group;
mod phase;
pub(super) mod rig;
pub(super) mod sample;
mod sniff;

/// How long each phase takes, and which there are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds of each flood, 29 at least: newcomers take as long; half-open handshakes are tried nine times as long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(8..=600))]
    seconds: u32,
    /// New handshakes of honest peers in each phase.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=200))]
    newcomers: u16,
    /// Memory the attacked daemon may have, in MB (control groups of version 1, as root).
    #[arg(long, value_parser = clap::value_parser!(u64).range(32..=1_000_000))]
    memory: Option<u64>,
    /// Floods so many times as fast; the bars are for once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    times: u32,
    /// Only these phases.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Report> {
    let known = |name: &String| phase::ALL.iter().any(|phase| phase.name == name);
    if let Some(unknown) = args.only.iter().find(|name| !known(name)) {
        let names: Vec<_> = phase::ALL.iter().map(|phase| phase.name).collect();
        anyhow::bail!("no phase is called {unknown:?}; there are: {}", names.join(", "));
    }
    tools::need_iperf3()?;
    let wanted = |phase: &&Phase| args.only.is_empty() || args.only.iter().any(|name| name == phase.name);
    let phases: Vec<&Phase> = phase::ALL.iter().filter(wanted).collect();
    let crowd = args.newcomers * (u16::try_from(phases.len())? + 1);
    let mut report = Report::new("flood");
    let mut rig = Rig::build(crowd, "", args.memory)?;
    let mut all = Vec::new();
    let quiet = rig.newcomers(args.newcomers, Duration::ZERO)?;
    say(&format!("no flood: {quiet}"));
    report.figure("quiet_new_half_ms", quiet["half_ms"].clone());
    report.figure("quiet_new_last_ms", quiet["last_ms"].clone());
    for phase in phases {
        phase.warm_up(&rig, args.times)?;
        let outcome = phase.run(&mut rig, args.seconds, args.newcomers, args.times)?;
        outcome.tell(phase, &mut report);
        outcome.bars(phase, args.times, &mut report);
        all.push(outcome);
    }
    together(&all, &mut report);
    rig.finish(&mut report)?;
    Ok(report)
}

/// What counts over all phases.
fn together(all: &[Outcome], report: &mut Report) {
    let tried: u32 = all.iter().map(|outcome| outcome.tried).sum();
    let answered: u32 = all.iter().map(|outcome| outcome.answered).sum();
    report.figure("new_tried", tried);
    report.figure("new_ok_percent", rounded(100.0 * f64::from(answered) / f64::from(tried.max(1))));
    report.bar("new_ok_percent", Op::AtLeast, 99.0);
}
