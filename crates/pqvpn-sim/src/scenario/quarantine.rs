// SPDX-License-Identifier: MIT OR Apache-2.0
//! Slander and quarantine: liars make honest nodes look dead or odd; nobody may lose an honest majority of its table.
//!
//! Upkeep runs; watchers look up and read all the time, so that their detectors have something to see. After every
//! minute each watcher's table is looked at: which of its honest contacts are in quarantine?

use std::{collections::BTreeSet, time::Duration};

use pqvpn_dht::DhtConfig;
use pqvpn_wire::dht::Point;
use serde_json::json;

use super::{Collected, Findings, Options, Scenario};
use crate::{
    adversary,
    report::{Op, Report},
    seed::Seed,
    stats::{float, mean, percentile, round},
    swarm::Swarm,
    world::{Index, net::NetConfig},
};

/// Liars in per cent, and what they do.
const CASES: [(u32, &str); 5] = [(0, "none"), (30, "slander"), (50, "slander"), (30, "hijack"), (50, "poison-forged")];
/// Virtual minutes of each case; shorter than the first term of a quarantine.
const MINUTES: u32 = 10;
/// Nodes whose tables are looked at.
const WATCHERS: usize = 20;

/// Quarantine under slander.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quarantine;

impl Scenario for Quarantine {
    fn name(&self) -> &'static str {
        "quarantine"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        for (share, attack) in CASES {
            let mut swarm = Swarm::converged(seed, options.size(500), NetConfig::default(), DhtConfig::open());
            swarm.set_upkeep(true);
            swarm.corrupt(f64::from(share) / 100.0, adversary::strategy(attack));
            let honest = swarm.honest();
            let watchers = swarm.choose(&honest, WATCHERS);
            let at = format!("{attack} {share}/");
            let mut keys = Vec::new();
            for watcher in watchers.iter().take(20) {
                let record = swarm.value(*watcher, "watched", 1);
                swarm.world.coven.learn(&record);
                swarm.put(*watcher, &record);
                keys.push(*record.key());
            }
            swarm.finish();
            for _ in 0..MINUTES {
                minute(&mut swarm, &watchers, &keys);
                for watcher in &watchers {
                    look(&swarm, *watcher, &at, &mut findings);
                }
            }
            let wrong = swarm.world.quarantines.iter().filter(|(_, peer, _)| !colludes(&swarm, peer)).count();
            findings.count(&format!("{at}honest_quarantined"), wrong as u64);
            findings.count(&format!("{at}quarantined"), swarm.world.quarantines.len() as u64);
        }
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        let mut worst = 0.0_f64;
        let mut fullest = 0.0_f64;
        for (share, attack) in CASES {
            let at = format!("{attack} {share}/");
            let lost = all.samples(&format!("{at}lost"));
            let held = all.samples(&format!("{at}held"));
            let (most, full) = (percentile(lost, 1.0), percentile(held, 1.0));
            worst = worst.max(most);
            fullest = fullest.max(full);
            report.row([
                ("quarantine", json!(at.trim_end_matches('/'))),
                ("honest_of_table_held_max_percent", json!(round(most))),
                ("table_held_max_percent", json!(round(full))),
                ("table_held_mean_percent", json!(round(mean(held)))),
                ("terms", json!(all.count(&format!("{at}quarantined")))),
                ("terms_of_honest", json!(all.count(&format!("{at}honest_quarantined")))),
                ("contacts_mean", json!(round(mean(all.samples(&format!("{at}contacts")))))),
                ("table_honest_mean_percent", json!(round(mean(all.samples(&format!("{at}honest")))))),
            ]);
        }
        report.figure("quarantine_honest_worst_percent", round(worst));
        report.figure("quarantine_table_worst_percent", round(fullest));
        report.bar("quarantine_honest_worst_percent", Op::Below, 50.0);
        report.bar("quarantine_table_worst_percent", Op::AtMost, 20.0);
    }
}

/// A minute in which every watcher makes two finds and two gets.
fn minute(swarm: &mut Swarm, watchers: &[Index], keys: &[Point]) {
    for turn in 0..4 {
        for (at, watcher) in watchers.iter().enumerate() {
            if turn % 2 == 0 {
                let target = swarm.point();
                swarm.find(*watcher, target);
            } else {
                let key = keys[(at + turn) % keys.len()];
                swarm.get(*watcher, key);
            }
        }
        swarm.world.run_for(Duration::from_secs(15));
        swarm.world.take_ended();
    }
}

/// Per cent of a watcher's honest contacts, and of all, that are in quarantine.
fn look(swarm: &Swarm, watcher: Index, at: &str, findings: &mut Findings) {
    let Some(engine) = &swarm.world.nodes[watcher as usize].engine else { return };
    let now = swarm.world.now();
    let held: BTreeSet<_> = engine.table().iter().map(|entry| *entry.contact().peer()).collect();
    let held: BTreeSet<_> = held.into_iter().filter(|peer| engine.quarantined(now, peer)).collect();
    let (mut honest, mut honest_held) = (0_u64, 0_u64);
    for entry in engine.table().iter() {
        let peer = entry.contact().peer();
        if !colludes(swarm, peer) {
            honest += 1;
            honest_held += u64::from(held.contains(peer));
        }
    }
    let all = engine.table().len() as u64;
    findings.sample(&format!("{at}lost"), [100.0 * float(honest_held) / float(honest.max(1))]);
    findings.sample(&format!("{at}held"), [100.0 * float(held.len() as u64) / float(all.max(1))]);
    findings.sample(&format!("{at}contacts"), [float(all)]);
    findings.sample(&format!("{at}honest"), [100.0 * float(honest) / float(all.max(1))]);
}

fn colludes(swarm: &Swarm, peer: &pqvpn_crypto::peer_id::PeerId) -> bool {
    swarm.world.index_of(peer).is_some_and(|index| swarm.world.nodes[index as usize].colluder)
}
