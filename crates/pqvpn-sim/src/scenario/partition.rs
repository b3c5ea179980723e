// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network cut in two halves for ten minutes: how long after it is whole again until every pair is found?
//!
//! A pair (a, b) is *found* when an iterative search over the tables as they are leads from a to b; sampled pairs
//! across the cut are tried every second and, once all are found, twenty times as many. At the end real engines look
//! for real nodes.

use std::{collections::BTreeSet, time::Duration};

use pqvpn_dht::DhtConfig;
use rand::RngExt;
use serde_json::json;

use super::{Collected, Findings, Options, Scenario};
use crate::{
    reference,
    report::{Op, Report},
    seed::Seed,
    stats::{Share, percentile, round},
    swarm::Swarm,
    world::{Index, net::NetConfig},
};

/// How long the network is cut.
const CUT: Duration = Duration::from_secs(600);
/// How often every node looks for something meanwhile: without traffic nobody would notice the cut.
const EVERY: Duration = Duration::from_secs(120);
/// Pairs tried each second.
const PAIRS: usize = 200;
/// Longest wait.
const LIMIT: Duration = Duration::from_secs(300);

/// Partition and healing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partition;

impl Scenario for Partition {
    fn name(&self) -> &'static str {
        "partition"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        let mut swarm = Swarm::converged(seed, options.size(1_000), NetConfig::default(), DhtConfig::open());
        swarm.set_upkeep(true);
        swarm.world.run_for(Duration::from_secs(120));
        for (at, node) in swarm.world.nodes.iter_mut().enumerate() {
            node.place.group = u8::from(at % 2 == 1);
        }
        swarm.world.net.parted = true;
        for _ in 0..CUT.as_secs() / EVERY.as_secs() {
            for index in swarm.honest() {
                let target = swarm.point();
                swarm.find(index, target);
            }
            swarm.world.run_for(EVERY);
            swarm.world.take_ended();
        }
        findings.share("cut_pairs", found(&mut swarm, PAIRS));
        swarm.world.net.parted = false;
        findings.sample("healed_s", [heal(&mut swarm)]);
        findings.share("real_finds", real(&mut swarm));
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        let healed = all.samples("healed_s");
        report.figure("partition_healed_p50_s", round(percentile(healed, 0.5)));
        report.figure("partition_healed_p95_s", round(percentile(healed, 0.95)));
        report.figure("partition_real_finds_percent", round(all.shares("real_finds").total().percent()));
        report.bar("partition_healed_p95_s", Op::Below, 60.0);
        report.bar("partition_real_finds_percent", Op::AtLeast, 100.0);
        report.row([
            ("partition", json!("50/50, 10 min")),
            ("healed_p50_s", json!(round(percentile(healed, 0.5)))),
            ("healed_p95_s", json!(round(percentile(healed, 0.95)))),
            ("healed_max_s", json!(round(percentile(healed, 1.0)))),
            ("pairs_found_while_cut", json!(all.shares("cut_pairs").text())),
            ("real_finds", json!(all.shares("real_finds").text())),
        ]);
    }
}

/// Seconds until all sampled pairs across the cut are found.
fn heal(swarm: &mut Swarm) -> f64 {
    let began = swarm.world.now().mono;
    loop {
        let all = |share: Share| share.hits == share.tries;
        if all(found(swarm, PAIRS)) && all(found(swarm, 20 * PAIRS)) {
            return (swarm.world.now().mono - began).as_secs_f64();
        }
        if swarm.world.now().mono - began >= LIMIT {
            return LIMIT.as_secs_f64();
        }
        swarm.world.run_for(Duration::from_secs(1));
    }
}

/// Pairs of different groups that are found over the tables as they are.
fn found(swarm: &mut Swarm, pairs: usize) -> Share {
    let mut share = Share::default();
    let count = u32::try_from(swarm.world.nodes.len()).unwrap_or(u32::MAX);
    for _ in 0..pairs {
        let from: Index = swarm.world.rng.random_range(0..count);
        let to = (swarm.world.rng.random_range(0..count) & !1) | (1 - (from & 1));
        let to = to.min(count - 1);
        share.count(reference::leads_to(&swarm.world, from, to));
    }
    share
}

/// Real finds of real nodes across the cut, one each from a hundred nodes.
fn real(swarm: &mut Swarm) -> Share {
    let mut share = Share::default();
    let honest = swarm.honest();
    let seekers = swarm.choose(&honest, 100);
    let mut sought = BTreeSet::new();
    for seeker in seekers {
        let other = honest.iter().copied().find(|other| other % 2 != seeker % 2 && !sought.contains(other));
        let Some(other) = other else { continue };
        sought.insert(other);
        let target = *swarm.world.nodes[other as usize].contact.node_id();
        swarm.find(seeker, target);
    }
    let all = reference::atlas(&swarm.world, |_| true);
    for end in swarm.finish() {
        share.count(swarm.has_nearest(&end, &all));
    }
    share
}
