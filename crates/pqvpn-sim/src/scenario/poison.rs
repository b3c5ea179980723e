// SPDX-License-Identifier: MIT OR Apache-2.0
//! Poisoned values under 50 % liars: how many are accepted by readers or kept by honest nodes (both must be none).
//!
//! Every lie is told in answers to gets and is also stored, with valid tokens, at honest nodes of the region. Liars
//! route honestly so that their lies are heard; `hijack` liars lead to liars only. `stale` counts records whose owner
//! had replaced them: honest holders of the newest are reached unless lookups are hijacked, and then a lie can hide.

use std::{sync::Arc, time::Duration};

use pqvpn_dht::{DhtConfig, counters::Attack};
use pqvpn_wire::dht::Point;
use serde_json::json;

use super::{Collected, Findings, Options, Scenario};
use crate::{
    adversary,
    reference::Finding,
    report::{Op, Report},
    seed::Seed,
    swarm::{Plan, Swarm},
    world::net::NetConfig,
};

const LIES: [&str; 6] = ["unsigned", "forged", "stale", "equivocating", "expired", "hijack"];
/// Liars, in per cent.
const SHARE: u32 = 50;

/// Poison in answers and in stores.
#[derive(Debug, Clone, Copy)]
pub(super) struct PoisonedValues;

impl Scenario for PoisonedValues {
    fn name(&self) -> &'static str {
        "poison"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        let mut swarm = Swarm::converged(seed, options.size(2_000), NetConfig::default(), DhtConfig::open());
        for lie in LIES {
            swarm.corrupt(f64::from(SHARE) / 100.0, adversary::strategy(&format!("poison-{lie}")));
            let plan = Plan { actors: 8, each: 3, ..Plan::default() };
            let outcome = swarm.trial_with(plan, spread);
            findings.trial(&format!("{lie}/"), &outcome);
            kept(&swarm, &format!("{lie}/"), &mut findings);
        }
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        let (mut accepted, mut stale, mut kept, mut hidden) = (0, 0, 0, 0);
        for lie in LIES {
            let count = |what: &str| all.count(&format!("{lie}/{what}"));
            report.row([
                ("poison", json!(lie)),
                ("get", json!(all.shares(&format!("{lie}/get")).text())),
                ("accepted", json!(count("poison"))),
                ("stale_accepted", json!(count("stale"))),
                ("kept_by_honest", json!(count("kept"))),
                ("refused_by_honest", json!(count("refused"))),
            ]);
            accepted += count("poison");
            kept += count("kept");
            if lie == "hijack" { hidden += count("stale") } else { stale += count("stale") }
        }
        report.figure("poison_accepted", accepted);
        report.figure("poison_stale_accepted", stale);
        report.figure("poison_stale_accepted_hijacked", hidden);
        report.figure("poison_kept_by_honest", kept);
        report.bar("poison_accepted", Op::Equal, 0.0);
        report.bar("poison_stale_accepted", Op::Equal, 0.0);
        report.bar("poison_kept_by_honest", Op::Equal, 0.0);
    }
}

/// Liars store their lies at honest nodes, by the protocol.
fn spread(swarm: &mut Swarm, keys: &[Point]) {
    let now = swarm.world.now();
    let liars = swarm.world.living(|node| node.colluder);
    for (at, key) in keys.iter().enumerate() {
        for offset in 0..2 {
            let liar = liars[(at * 2 + offset) % liars.len()];
            let told = swarm.world.lie(now.unix_ms, key);
            if let Some(record) = told {
                swarm.world.begin(liar, |dht, now| dht.put(now, Arc::clone(&record)).map(|id| id.0));
            }
        }
        swarm.finish();
    }
    swarm.world.run_for(Duration::from_secs(5));
}

/// What honest nodes keep that they must not, and how often they refused a record, told or stored, since the start.
fn kept(swarm: &Swarm, at: &str, findings: &mut Findings) {
    let now = swarm.world.now();
    let refusals = [
        Attack::RecordUnsigned,
        Attack::RecordBadSignature,
        Attack::RecordExpired,
        Attack::RecordStale,
        Attack::StaleRecord,
        Attack::Equivocation,
    ];
    for index in swarm.honest() {
        let Some(engine) = &swarm.world.nodes[index as usize].engine else { continue };
        let refused: u64 = refusals.iter().map(|attack| engine.counters().get(*attack)).sum();
        findings.count(&format!("{at}refused"), refused);
        for key in swarm.reference.keys() {
            let Some(kept) = engine.storage().get(now, key) else { continue };
            let finding = swarm.reference.judge(key, Some(kept.record), now.unix_ms, &*swarm.registry);
            findings.count(&format!("{at}kept"), u64::from(finding == Finding::Poison));
        }
    }
}
