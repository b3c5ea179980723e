// SPDX-License-Identifier: MIT OR Apache-2.0
//! Success of lookups against the share of colluders and the number of disjoint paths (security.md 7.3).
//!
//! A converged network; colluders answer only with the colluders nearest to the target, hold no value, acknowledge
//! stores and forget them. Puts and gets both happen under attack. The figure of a cell is the lower of get and find.

use pqvpn_dht::DhtConfig;
use serde_json::{Value, json};

use super::{Collected, Findings, Options, Scenario};
use crate::{
    adversary,
    report::{Op, Report},
    seed::Seed,
    stats::{mean, percentile, round},
    swarm::{Plan, Swarm},
    world::net::NetConfig,
};

/// Shares of colluders, in per cent.
const SHARES: [u32; 7] = [0, 5, 10, 20, 30, 40, 50];
/// Disjoint paths.
const PATHS: [usize; 4] = [1, 2, 4, 8];

/// The least success the issue asks for at this share of colluders, in per cent.
#[must_use]
pub(super) fn bar(malicious: f64) -> Option<f64> {
    [(0.2, 99.5), (0.3, 98.0), (0.4, 97.0)].into_iter().find(|(share, _)| malicious <= *share).map(|(_, bar)| bar)
}

/// The table fraction x d.
#[derive(Debug, Clone, Copy)]
pub(super) struct Success;

impl Scenario for Success {
    fn name(&self) -> &'static str {
        "success"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        let mut swarm = Swarm::converged(seed, options.size(10_000), NetConfig::default(), DhtConfig::open());
        for share in SHARES {
            swarm.corrupt(f64::from(share) / 100.0, adversary::strategy("hijack"));
            for paths in PATHS {
                // The bars are set for d = 8: 1200 trials over 30 seeds; the rest shows the shape with 360.
                let (actors, each) = if paths == 8 { (10, 4) } else { (4, 3) };
                let plan = Plan { paths: Some(paths), actors, each, ..Plan::default() };
                findings.trial(&cell(share, paths), &swarm.trial(plan));
            }
        }
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        for share in SHARES {
            for what in ["get", "find"] {
                let text = |paths: usize| Value::from(all.shares(&format!("{}{what}", cell(share, paths))).text());
                report.row([
                    ("success_static", json!(what)),
                    ("malicious_percent", json!(share)),
                    ("d1", text(1)),
                    ("d2", text(2)),
                    ("d4", text(4)),
                    ("d8", text(8)),
                ]);
            }
        }
        for share in SHARES {
            let cell = cell(share, 8);
            let of = |what: &str| all.samples(&format!("{cell}{what}")).to_vec();
            report.row([
                ("cost_d8", json!(share)),
                ("requests_mean", json!(round(mean(&of("requests"))))),
                ("rounds_p95", json!(percentile(&of("rounds"), 0.95))),
                ("find_p50_ms", json!(round(percentile(&of("find_ms"), 0.5)))),
                ("find_p95_ms", json!(round(percentile(&of("find_ms"), 0.95)))),
                ("found_p50_ms", json!(round(percentile(&of("found_ms"), 0.5)))),
                ("replicas_mean", json!(round(mean(&of("replicas"))))),
                ("put_percent", json!(round(all.shares(&format!("{cell}put")).total().percent()))),
            ]);
            let lower = lower(all, &cell);
            report.figure(&format!("success_{share}"), round(lower));
            if let Some(bar) = bar(f64::from(share) / 100.0).filter(|_| share >= 20) {
                report.bar(&format!("success_{share}"), Op::AtLeast, bar);
            }
        }
        let poison: u64 = SHARES.iter().map(|share| all.count(&format!("{}poison", cell(*share, 8)))).sum();
        report.figure("success_poison_accepted", poison);
        report.bar("success_poison_accepted", Op::Equal, 0.0);
    }
}

/// The lower of get and find success of a cell, in per cent.
pub(super) fn lower(all: &Collected, cell: &str) -> f64 {
    let percent = |what: &str| all.shares(&format!("{cell}{what}")).total().percent();
    percent("get").min(percent("find"))
}

fn cell(share: u32, paths: usize) -> String {
    format!("{share}/{paths}/")
}
