// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ten thousand nodes in one process: ten minutes of upkeep under churn of 10 % an hour, then puts, gets and finds; time
//! and memory are measured. A tenth as many join a network that does not exist yet, all within two minutes.

use std::time::{Duration, Instant};

use pqvpn_dht::DhtConfig;
use serde_json::json;

use super::{Collected, Findings, Options, Scenario};
use crate::{
    report::{Op, Report},
    seed::Seed,
    stats::{float, round},
    swarm::{Plan, Swarm},
    world::net::NetConfig,
};

/// Virtual time in which a tenth as many nodes join.
const JOINING: Duration = Duration::from_secs(120);
/// Virtual time of upkeep.
const SPAN: Duration = Duration::from_secs(600);

/// One large world.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale;

impl Scenario for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    /// Only the first seed is run: it is time and memory that are measured.
    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        if seed != options.seed.child(0) {
            return findings;
        }
        let began = Instant::now();
        let size = options.size(10_000);
        let mut swarm = Swarm::converged(seed, size, NetConfig::default(), DhtConfig::open());
        swarm.set_upkeep(true);
        let everybody = swarm.honest();
        let doors = swarm.choose(&everybody, 20);
        swarm.churn(0.1, SPAN, &doors, |_, _| ());
        findings.trial("scale/", &swarm.trial(Plan { paths: None, actors: 50, ..Plan::default() }));
        findings.sample("wall_s", [began.elapsed().as_secs_f64()]);
        findings.sample("rss_gb", [peak_rss_gb()]);
        findings.sample("events", [float(swarm.world.tally.events)]);
        let contacts: usize =
            swarm.world.nodes.iter().filter_map(|node| Some(node.engine.as_ref()?.table().len())).sum();
        findings.sample("contacts", [float(contacts as u64) / float(size as u64)]);
        let began = Instant::now();
        let swarm = Swarm::joining(seed, size / 10, (20, size / 100), JOINING, NetConfig::default(), DhtConfig::open());
        findings.sample("join_wall_s", [began.elapsed().as_secs_f64()]);
        findings.sample("join_events", [float(swarm.world.tally.events)]);
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        let one = |what: &str| all.samples(what).first().copied().unwrap_or(f64::NAN);
        report.figure("scale_wall_s", round(one("wall_s")));
        report.figure("scale_peak_rss_gb", round(one("rss_gb")));
        report.bar("scale_wall_s", Op::Below, 60.0);
        report.bar("scale_peak_rss_gb", Op::Below, 8.0);
        report.row([
            ("scale", json!("upkeep under churn, put, get, find")),
            ("wall_s", json!(round(one("wall_s")))),
            ("peak_rss_gb", json!(round(one("rss_gb")))),
            ("events", json!(one("events"))),
            ("contacts_mean", json!(round(one("contacts")))),
            ("join_tenth_wall_s", json!(round(one("join_wall_s")))),
            ("join_tenth_events", json!(one("join_events"))),
            ("get", json!(all.shares("scale/get").text())),
            ("find", json!(all.shares("scale/find").text())),
        ]);
    }
}

/// Peak memory of this process so far, in GB; NaN where the system does not tell.
fn peak_rss_gb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib * 1024.0 / 1e9)
}
