// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network cut in two halves for ten minutes: how long after it is whole again until every pair is found?
//!
//! Meanwhile every node looks for something every 200 s, so that the cut is noticed and contacts are lost. From
//! then on sixty nodes look for sixty others of the other half every five seconds, for ninety seconds; healed is when the
//! first round began after which none failed. At the end the plainest search over the tables as they are must find four
//! thousand more pairs.

use std::time::Duration;

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
const EVERY: Duration = Duration::from_secs(200);
/// Pairs tried over the tables.
const PAIRS: usize = 4_000;
/// Pairs looked for by real engines in a round, and the time between two rounds.
const REAL: usize = 60;
const ROUND: Duration = Duration::from_secs(5);
/// Rounds.
const ROUNDS: u32 = 18;
/// From this round on nothing may fail: 60 s after the cut is mended.
const SURE: u32 = 12;

/// Partition and healing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partition;

impl Scenario for Partition {
    fn name(&self) -> &'static str {
        "partition"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        let mut swarm = Swarm::converged(seed, options.size(500), NetConfig::default(), DhtConfig::open());
        swarm.acquaint();
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
        findings.share("cut_pairs", found(&mut swarm, REAL));
        swarm.world.net.parted = false;
        let healed = heal(&mut swarm, &mut findings);
        findings.sample("healed_s", [healed]);
        findings.share("pairs_at_the_end", found(&mut swarm, PAIRS));
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        let healed = all.samples("healed_s");
        report.figure("partition_healed_p50_s", round(percentile(healed, 0.5)));
        report.figure("partition_healed_p95_s", round(percentile(healed, 0.95)));
        report.figure("partition_real_finds_percent", round(all.shares("real_finds").total().percent()));
        report.bar("partition_healed_p95_s", Op::Below, 60.0);
        report.bar("partition_real_finds_percent", Op::AtLeast, 100.0);
        report.figure("partition_pairs_percent", round(all.shares("pairs_at_the_end").total().percent()));
        report.bar("partition_pairs_percent", Op::AtLeast, 100.0);
        report.row([
            ("partition", json!("50/50, 10 min")),
            ("healed_p50_s", json!(round(percentile(healed, 0.5)))),
            ("healed_p95_s", json!(round(percentile(healed, 0.95)))),
            ("healed_max_s", json!(round(percentile(healed, 1.0)))),
            ("found_at_once", json!(all.shares("first_round").text())),
            ("pairs_found_while_cut", json!(all.shares("cut_pairs").text())),
            ("found_after_60_s", json!(all.shares("real_finds").text())),
        ]);
    }
}

/// Seconds until no pair looked for across the cut is missed any more.
fn heal(swarm: &mut Swarm, findings: &mut Findings) -> f64 {
    let mut healed = Duration::ZERO;
    for number in 0..ROUNDS {
        let now = swarm.world.now().mono;
        let round = real(swarm);
        if round.misses() > 0 {
            healed = ROUND * (number + 1);
        }
        if number == 0 {
            findings.share("first_round", round);
        }
        if number >= SURE {
            findings.share("real_finds", round);
        }
        swarm.world.run_until(now + ROUND);
    }
    healed.as_secs_f64()
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
    let seekers = swarm.choose(&honest, REAL);
    let mut sought = swarm.choose(&honest, honest.len());
    for seeker in seekers {
        let Some(at) = sought.iter().position(|other| other % 2 != seeker % 2) else { continue };
        let other = sought.swap_remove(at);
        let target = *swarm.world.nodes[other as usize].contact.node_id();
        swarm.find(seeker, target);
    }
    let all = reference::atlas(&swarm.world, |_| true);
    for end in swarm.finish() {
        share.count(swarm.has_nearest(&end, &all));
    }
    share
}
