// SPDX-License-Identifier: MIT OR Apache-2.0
//! Success under churn: nodes leave without a word and fresh ones join through bootstrap nodes, upkeep running.
//!
//! The tables begin as long churn leaves them: with as many dead contacts as half an hour of it was measured to leave.
//! The colluders are as in the static table: `asleep` they behave until the measurement, so that the difference to the
//! static table is that of churn alone; `awake` they hijack from the first second, and tables fill up with them.

use std::time::Duration;

use pqvpn_dht::DhtConfig;
use serde_json::json;

use super::{Collected, Findings, Options, Scenario, success};
use crate::{
    adversary,
    report::{Op, Report},
    seed::Seed,
    stats::{float, mean, percentile, round},
    swarm::{Plan, Swarm},
    world::net::NetConfig,
};

/// Shares of the nodes that leave per hour, in per cent.
const RATES: [u32; 2] = [10, 30];
/// Shares of colluders, in per cent.
const SHARES: [u32; 3] = [20, 30, 40];
/// Colluders that are awake from the start.
const AWAKE: u32 = 30;
/// Dead contacts at the start for each of [`RATES`]: what `table_state` showed after 30 minutes.
const AGED: [f64; 2] = [0.05, 0.125];
/// Time under churn before the measurement.
const SPAN: Duration = Duration::from_secs(300);
/// Nodes that stay and let others in.
const DOORS: usize = 20;

/// Churn of 10 and 30 % an hour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Churn;

impl Scenario for Churn {
    fn name(&self) -> &'static str {
        "churn"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        for (rate, aged) in RATES.into_iter().zip(AGED) {
            let mut swarm = churned(seed, options, (rate, aged), None);
            table_state(&swarm, rate, &mut findings);
            for share in SHARES {
                swarm.corrupt(f64::from(share) / 100.0, adversary::strategy("hijack"));
                findings.trial(&cell(rate, share), &swarm.trial(plan()));
            }
        }
        let mut swarm = churned(seed.child(1), options, (RATES[0], AGED[0]), Some(AWAKE));
        findings.trial("awake/", &swarm.trial(plan()));
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        for rate in RATES {
            for share in SHARES {
                let cell = cell(rate, share);
                row(all, &cell, &format!("{rate} %/h"), share, report);
                if rate == 10 && share >= 20 {
                    let figure = format!("churn_10_success_{share}");
                    report.figure(&figure, round(success::lower(all, &cell)));
                    // Not more than two points below the static figure; alone, below the static bar.
                    let fixed = report.get(&format!("success_{share}"));
                    let bar = fixed.or_else(|| success::bar(f64::from(share) / 100.0)).unwrap_or(100.0) - 2.0;
                    report.bar(&figure, Op::AtLeast, bar);
                }
            }
        }
        row(all, "awake/", "10 %/h, awake", AWAKE, report);
        for rate in RATES {
            report.figure(
                &format!("churn_{rate}_dead_contacts_percent"),
                round(mean(all.samples(&format!("{rate}/dead")))),
            );
        }
        report.figure("churn_poison_accepted", all.count("awake/poison"));
        report.bar("churn_poison_accepted", Op::Equal, 0.0);
    }
}

/// A network after [`SPAN`] of churn.
fn churned(seed: Seed, options: &Options, (rate, aged): (u32, f64), awake: Option<u32>) -> Swarm {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
    let left = (float(options.size(10_000) as u64) * aged / (1.0 - aged)).round() as usize;
    let mut swarm = Swarm::converged(seed, options.size(10_000) + left, NetConfig::default(), DhtConfig::open());
    let everybody = swarm.honest();
    for gone in swarm.choose(&everybody, left) {
        swarm.world.kill(gone);
    }
    swarm.set_upkeep(true);
    let everybody = swarm.honest();
    let doors = swarm.choose(&everybody, DOORS);
    if let Some(share) = awake {
        swarm.corrupt(f64::from(share) / 100.0, adversary::strategy("hijack"));
        for door in &doors {
            swarm.world.nodes[*door as usize].colluder = false;
        }
    }
    let share = awake.map_or(0.0, |share| f64::from(share) / 100.0);
    swarm.churn(f64::from(rate) / 100.0, SPAN, &doors, |swarm, newcomer| {
        // Of those that come, as many collude as of those that were there.
        let colludes = swarm.toss(share);
        swarm.world.nodes[newcomer as usize].colluder = colludes;
    });
    swarm.enrol();
    swarm
}

const fn plan() -> Plan {
    Plan { paths: None, actors: 8, each: 4, warm_up: 4, rest: Duration::from_secs(5) }
}

/// How many contacts of the tables are dead by now, in per cent.
fn table_state(swarm: &Swarm, rate: u32, findings: &mut Findings) {
    let (mut dead, mut all) = (0_u32, 0_u32);
    for index in swarm.honest().into_iter().step_by(50) {
        let Some(engine) = &swarm.world.nodes[index as usize].engine else { continue };
        for entry in engine.table().iter() {
            all += 1;
            dead += u32::from(!swarm.world.is_alive(entry.contact().peer()));
        }
    }
    findings.sample(&format!("{rate}/dead"), [100.0 * f64::from(dead) / f64::from(all.max(1))]);
}

fn row(all: &Collected, cell: &str, churn: &str, share: u32, report: &mut Report) {
    let text = |what: &str| json!(all.shares(&format!("{cell}{what}")).text());
    let of = |what: &str| all.samples(&format!("{cell}{what}")).to_vec();
    report.row([
        ("churn", json!(churn)),
        ("malicious_percent", json!(share)),
        ("get_d8", text("get")),
        ("find_d8", text("find")),
        ("requests_mean", json!(round(mean(&of("requests"))))),
        ("find_p95_ms", json!(round(percentile(&of("find_ms"), 0.95)))),
        ("found_p50_ms", json!(round(percentile(&of("found_ms"), 0.5)))),
        ("replicas_mean", json!(round(mean(&of("replicas"))))),
    ]);
}

fn cell(rate: u32, share: u32) -> String {
    format!("{rate}/{share}/")
}
