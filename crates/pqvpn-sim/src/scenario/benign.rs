// SPDX-License-Identifier: MIT OR Apache-2.0
//! No attack: how fast a network of a thousand converges, how fast and sure lookups are, and what idling costs.
//!
//! - *Converged*: a node knows at least nine tenths of all nodes that fall into buckets of at most k members (its
//!   neighbours), and half a bucket of those in every larger one. The figure is when 99 % of the nodes have converged,
//!   counted from the last one's start.
//! - LAN: 0.25 ms one way. A *lookup* is a get until it has its first acceptable record, which is when a node dials; its
//!   rounds are at most its time over the shortest round trip. The end of a get (all paths, for a newer record) and finds
//!   (every unknown node of the result costs a proof of work, 9.5 ms) are given besides.

use std::{collections::BTreeSet, time::Duration};

use pqvpn_dht::{Dht, DhtConfig};
use serde_json::json;

use super::{Collected, Findings, Options, Scenario};
use crate::{
    reference,
    report::{Op, Report},
    seed::Seed,
    stats::{float, mean, percentile, round},
    swarm::{Plan, Swarm},
    world::{Index, KINDS, World, atlas::Atlas, net::NetConfig},
};

/// The shortest round trip in the LAN: twice 0.25 ms and 0.5 ms of work; so many fit at most into a time.
const LAN_ROUND_MS: f64 = 1.0;
/// Time in which all nodes start.
const START: Duration = Duration::from_secs(5);
/// Bootstrap nodes.
const DOORS: usize = 5;
/// Nodes behind NAT, one in so many.
const NAT_ONE_IN: usize = 10;
/// Idle time over which traffic is measured.
const IDLE: Duration = Duration::from_secs(1800);

/// Convergence, speed, loss, idle traffic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Benign;

impl Scenario for Benign {
    fn name(&self) -> &'static str {
        "benign"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        let size = options.size(1_000);
        let net = NetConfig::constant(Duration::from_millis(50));
        let nats = size / NAT_ONE_IN;
        let mut swarm = Swarm::joining(seed, size, (DOORS, nats), START, net, DhtConfig::open());
        findings.sample("converged_s", [converge(&mut swarm)]);
        swarm.world.run_for(Duration::from_secs(60));
        findings.trial("joined/", &swarm.trial(Plan { paths: None, ..Plan::default() }));
        idle(&mut swarm, &mut findings);

        let lan = NetConfig { jitter: 0.2, ..NetConfig::constant(Duration::from_micros(250)) };
        let mut swarm = Swarm::converged(seed, size, lan, DhtConfig::open());
        findings.trial("lan/", &swarm.trial(Plan { each: 8, warm_up: 10, ..Plan::default() }));

        let lossy = NetConfig { loss: 0.05, ..NetConfig::default() };
        let mut swarm = Swarm::converged(seed, size, lossy, DhtConfig::open());
        findings.trial("loss/", &swarm.trial(Plan::default()));
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        for case in ["joined", "lan", "loss"] {
            let of = |what: &str| all.samples(&format!("{case}/{what}")).to_vec();
            let text = |what: &str| json!(all.shares(&format!("{case}/{what}")).text());
            report.row([
                ("benign", json!(case)),
                ("get", text("get")),
                ("find", text("find")),
                ("found_p50_ms", json!(round(percentile(&of("found_ms"), 0.5)))),
                ("found_p95_ms", json!(round(percentile(&of("found_ms"), 0.95)))),
                ("get_p95_ms", json!(round(percentile(&of("get_ms"), 0.95)))),
                ("get_rounds_p95", json!(percentile(&of("get_rounds"), 0.95))),
                ("find_p95_ms", json!(round(percentile(&of("find_ms"), 0.95)))),
                ("find_rounds_p95", json!(percentile(&of("rounds"), 0.95))),
                ("requests_mean", json!(round(mean(&of("requests"))))),
            ]);
        }
        let converged = all.samples("converged_s");
        report.figure("converged_s_max", round(percentile(converged, 1.0)));
        report.figure("converged_s_p50", round(percentile(converged, 0.5)));
        report.bar("converged_s_max", Op::Below, 30.0);
        let found = percentile(all.samples("lan/found_ms"), 0.95);
        report.figure("lan_lookup_p95_ms", round(found));
        report.bar("lan_lookup_p95_ms", Op::Below, 100.0);
        report.figure("lan_lookup_rounds_p95", (found / LAN_ROUND_MS).floor());
        report.bar("lan_lookup_rounds_p95", Op::AtMost, 4.0);
        report.figure("lan_find_rounds_p95", percentile(all.samples("lan/rounds"), 0.95));
        report.bar("lan_find_rounds_p95", Op::AtMost, 4.0);
        report.figure("lan_get_end_p95_ms", round(percentile(all.samples("lan/get_ms"), 0.95)));
        report.bar("lan_get_end_p95_ms", Op::Below, 100.0);
        report.figure("lan_find_p95_ms", round(percentile(all.samples("lan/find_ms"), 0.95)));
        for case in ["joined", "loss"] {
            let figure = format!("{case}_success");
            report.figure(&figure, round(super::success::lower(all, &format!("{case}/"))));
            report.bar(&figure, Op::AtLeast, 100.0);
        }
        for name in KINDS.iter().chain(&["dials"]) {
            report.row([("idle", json!(name)), ("count", json!(all.count(&format!("idle_{name}"))))]);
        }
        report.figure("idle_bytes_per_node_s", round(mean(all.samples("idle_bytes"))));
        report.figure("idle_requests_per_node_min", round(mean(all.samples("idle_requests"))));
    }
}

/// Seconds until 99 % of the nodes have converged; 120 when they have not by then.
fn converge(swarm: &mut Swarm) -> f64 {
    let began = swarm.world.now().mono;
    let atlas = reference::atlas(&swarm.world, |_| true);
    let mut open = swarm.world.living(|node| node.engine.is_some());
    let allowed = open.len() / 100;
    loop {
        open.retain(|index| !has_converged(&swarm.world, *index, &atlas));
        let passed = swarm.world.now().mono - began;
        if open.len() <= allowed || passed >= Duration::from_secs(120) {
            return passed.as_secs_f64();
        }
        swarm.world.run_for(Duration::from_millis(500));
    }
}

fn has_converged(world: &World<Dht>, index: Index, atlas: &Atlas) -> bool {
    let Some(engine) = &world.nodes[index as usize].engine else { return true };
    let (own, k) = (engine.table().own(), engine.config().k);
    let known: BTreeSet<_> = engine.table().iter().map(|entry| *entry.contact().peer()).collect();
    let (mut near, mut near_known) = (0, 0);
    for bits in 0..64 {
        let members = atlas.bucket(own, bits);
        let knows = members.iter().filter(|(_, other)| known.contains(world.nodes[*other as usize].contact.peer()));
        let count = knows.count();
        if members.len() > k {
            if count < k / 2 {
                return false;
            }
        } else {
            near += members.len();
            near_known += count;
        }
    }
    near_known * 10 >= near * 9
}

/// What a node sends while nobody asks anything of it.
fn idle(swarm: &mut Swarm, findings: &mut Findings) {
    swarm.world.run_for(Duration::from_secs(600));
    let before = swarm.world.tally;
    swarm.world.run_for(IDLE);
    let after = swarm.world.tally;
    let nodes = float(swarm.world.living(|_| true).len() as u64);
    findings.sample("idle_bytes", [float(after.bytes - before.bytes) / nodes / IDLE.as_secs_f64()]);
    for (name, (now, then)) in KINDS.iter().zip(after.kinds.iter().zip(before.kinds)) {
        findings.count(&format!("idle_{name}"), now - then);
    }
    findings.count("idle_dials", after.dials - before.dials);
    findings.sample("idle_requests", [float(after.requests - before.requests) / nodes / IDLE.as_secs_f64() * 60.0]);
}
