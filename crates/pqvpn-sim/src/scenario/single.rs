// SPDX-License-Identifier: MIT OR Apache-2.0
//! One point, as the command line says: `pqvpn-sim dht --nodes 10000 --malicious 0.3 --paths 8 --seeds 30`.

use std::time::Duration;

use pqvpn_dht::DhtConfig;
use serde_json::{Value, json};

use super::{Collected, Findings, Options, Scenario, sybils};
use crate::{
    adversary,
    report::{Op, Report},
    seed::Seed,
    stats::{mean, percentile, round},
    swarm::{Plan, Swarm},
    world::net::NetConfig,
};

/// Time under churn before anything is measured.
const CHURNING: Duration = Duration::from_secs(1800);

/// Keys attacked in each world, when there are Sybils.
const KEYS: usize = 10;

/// Success of puts, gets and finds under one attack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Single;

impl Scenario for Single {
    fn name(&self) -> &'static str {
        "single"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        let config = DhtConfig { paths: options.paths, ..DhtConfig::open() };
        let mut swarm = Swarm::converged(seed, options.size(10_000), NetConfig::default(), config);
        if options.churn > 0.0 {
            swarm.set_upkeep(true);
            let everybody = swarm.honest();
            let doors = swarm.choose(&everybody, 20);
            swarm.churn(options.churn, CHURNING, &doors, |_, _| ());
        }
        swarm.corrupt(options.malicious, adversary::strategy(&options.attack));
        let mut plan = Plan { paths: Some(options.paths), ..Plan::default() };
        if options.churn > 0.0 {
            plan.paths = None;
        }
        if options.sybils > 0 {
            return sybils::around_keys(&mut swarm, options.sybils, KEYS);
        } else {
            findings.trial("", &swarm.trial(plan));
        }
        findings.count("events", swarm.world.tally.events);
        findings
    }

    fn report(&self, all: &Collected, options: &Options, report: &mut Report) {
        for (name, value) in [
            ("nodes", json!(options.size(10_000))),
            ("malicious", json!(options.malicious)),
            ("paths", json!(options.paths)),
            ("churn_percent_per_hour", json!(options.churn * 100.0)),
            ("attack", json!(options.attack)),
            ("sybils", json!(options.sybils)),
        ] {
            report.figure(name, value);
        }
        let whats = if options.sybils > 0 { ["get", "k_closest", "detected"] } else { ["get", "find", "put"] };
        for what in whats {
            let shares = all.shares(what);
            report.row([
                ("success", Value::from(what)),
                ("percent", json!(round(shares.total().percent()))),
                ("confidence", json!(shares.json())),
            ]);
            report.figure(&format!("{what}_percent"), round(shares.total().percent()));
        }
        report.figure("poison_accepted", all.count("poison"));
        if options.sybils > 0 {
            report.bar("get_percent", Op::AtLeast, 99.0);
            return;
        }
        report.figure("stale_accepted", all.count("stale"));
        report.figure("requests_per_find", round(mean(all.samples("requests"))));
        report.figure("rounds_p95", percentile(all.samples("rounds"), 0.95));
        report.figure("find_p50_ms", round(percentile(all.samples("find_ms"), 0.5)));
        report.figure("find_p95_ms", round(percentile(all.samples("find_ms"), 0.95)));
        report.figure("found_p50_ms", round(percentile(all.samples("found_ms"), 0.5)));
        report.figure("honest_replicas_mean", round(mean(all.samples("replicas"))));
        report.figure("events", all.count("events"));
        report.bar("poison_accepted", Op::Equal, 0.0);
        let bar = super::success::bar(options.malicious);
        if let Some(bar) = bar.filter(|_| options.attack == "hijack" && options.paths >= 8) {
            let bar = if options.churn > 0.0 { bar - 2.0 } else { bar };
            report.bar("get_percent", Op::AtLeast, bar);
            report.bar("find_percent", Op::AtLeast, bar);
        }
    }
}
