// SPDX-License-Identifier: MIT OR Apache-2.0
//! No attack: how fast a network of a thousand converges, how fast and sure lookups are, and what idling costs.
//!
//! - *Converged*, by two rules ([`Rule`]), each with its own figure: when 99 % of the nodes have converged, counted from
//!   the last one's start.
//! - Loss: 5 % of all packets, repaired in two ways ([`Repair`]), each with its own figure.
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
    world::{
        Index, KINDS, World,
        atlas::Atlas,
        net::{NetConfig, Repair},
    },
};

/// The shortest round trip in the LAN: twice 0.25 ms and 0.5 ms of work; so many fit at most into a time.
const LAN_ROUND_MS: f64 = 1.0;
/// Time in which all nodes start.
const START: Duration = Duration::from_secs(5);
/// Bootstrap nodes.
const DOORS: usize = 5;
/// Nodes behind NAT, one in so many.
const NAT_ONE_IN: usize = 10;
/// How many nearest nodes one of the rules of convergence asks for.
const NEAREST: usize = 20;
/// The longest wait for convergence.
const PATIENCE: Duration = Duration::from_secs(120);
/// Convergence is to take less, seconds.
const CONVERGED_BAR_S: f64 = 30.0;
/// The cases of loss, and how it is repaired.
const LOSSES: [(&str, Repair); 2] = [("loss", Repair::FastRetransmit), ("loss-pto", Repair::ProbeTimeoutOnly)];
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
        for (rule, after) in RULES.into_iter().zip(converge(&mut swarm)) {
            findings.sample(rule.figure(), [after]);
        }
        findings.trial("joined/", &swarm.trial(Plan { paths: None, ..Plan::default() }));
        idle(&mut swarm, &mut findings);

        let lan = NetConfig { jitter: 0.2, ..NetConfig::constant(Duration::from_micros(250)) };
        let mut swarm = Swarm::converged(seed, size, lan, DhtConfig::open());
        findings.trial("lan/", &swarm.trial(Plan { each: 8, warm_up: 10, ..Plan::default() }));

        for (case, repair) in LOSSES {
            let lossy = NetConfig { loss: 0.05, repair, ..NetConfig::default() };
            let mut swarm = Swarm::converged(seed, size, lossy, DhtConfig::open());
            findings.trial(&format!("{case}/"), &swarm.trial(Plan::default()));
        }
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        for case in ["joined", "lan", "loss", "loss-pto"] {
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
        for rule in RULES {
            let (converged, worst) = (all.samples(rule.figure()), format!("{}_max", rule.figure()));
            report.figure(&worst, round(percentile(converged, 1.0)));
            report.figure(&format!("{}_p50", rule.figure()), round(percentile(converged, 0.5)));
            report.bar(&worst, Op::Below, CONVERGED_BAR_S);
        }
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
        for case in ["joined", "loss", "loss-pto"] {
            let figure = format!("{}_success", case.replace('-', "_"));
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

/// When a node's table counts as converged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// It has at least nine tenths of all nodes that fall into buckets of at most k members (its neighbours), and half a
    /// bucket of those in every larger one.
    Buckets,
    /// It has at least 18 of the 20 nodes truly nearest to it, and somebody in every bucket of more than k members.
    Nearest,
}

/// Both, as they are reported.
const RULES: [Rule; 2] = [Rule::Buckets, Rule::Nearest];

impl Rule {
    const fn figure(self) -> &'static str {
        match self {
            Self::Buckets => "converged_s",
            Self::Nearest => "converged_nearest_s",
        }
    }

    fn holds(self, world: &World<Dht>, index: Index, atlas: &Atlas) -> bool {
        let Some(engine) = &world.nodes[index as usize].engine else { return true };
        let (own, k) = (engine.table().own(), engine.config().k);
        let known: BTreeSet<_> = engine.table().iter().map(|entry| *entry.contact().peer()).collect();
        let knows = |other: Index| known.contains(world.nodes[other as usize].contact.peer());
        let buckets = (0..64).map(|bits| {
            let members = atlas.bucket(own, bits);
            (members.len(), members.iter().filter(|(_, other)| knows(*other)).count())
        });
        let (large, small): (Vec<_>, Vec<_>) = buckets.partition(|(members, _)| *members > k);
        match self {
            Self::Buckets => {
                let near: usize = small.iter().map(|(members, _)| members).sum();
                let near_known: usize = small.iter().map(|(_, known)| known).sum();
                large.iter().all(|(_, known)| *known >= k / 2) && near_known * 10 >= near * 9
            }
            Self::Nearest => {
                let near = atlas.nearest(own, NEAREST + 1).into_iter().filter(|other| *other != index).take(NEAREST);
                near.filter(|other| knows(*other)).count() + 2 >= NEAREST && large.iter().all(|(_, known)| *known > 0)
            }
        }
    }
}

/// Seconds until 99 % of the nodes have converged, by each rule; [`PATIENCE`] when they have not by then. Ends a minute
/// after the first of them, or with the last.
fn converge(swarm: &mut Swarm) -> [f64; 2] {
    let began = swarm.world.now().mono;
    let atlas = reference::atlas(&swarm.world, |_| true);
    let nodes = swarm.world.living(|node| node.engine.is_some());
    let allowed = nodes.len() / 100;
    let mut open = RULES.map(|_| nodes.clone());
    let mut after = RULES.map(|_| None);
    loop {
        let passed = swarm.world.now().mono - began;
        for ((rule, open), after) in RULES.iter().zip(&mut open).zip(&mut after) {
            open.retain(|index| after.is_none() && !rule.holds(&swarm.world, *index, &atlas));
            if after.is_none() && (open.len() <= allowed || passed >= PATIENCE) {
                *after = Some(passed);
            }
        }
        if let [Some(buckets), Some(nearest)] = after {
            let settled = began + buckets + Duration::from_secs(60);
            swarm.world.run_until(settled.max(swarm.world.now().mono));
            return [buckets, nearest].map(|after| after.as_secs_f64());
        }
        swarm.world.run_for(Duration::from_millis(500));
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of [`RULES`] hold for a node that knows its `near` nearest and `per_bucket` of each bucket of more than k.
    fn hold(near: usize, per_bucket: usize) -> [bool; 2] {
        let mut swarm = Swarm::converged(Seed(1), 400, NetConfig::default(), DhtConfig::open());
        let atlas = reference::atlas(&swarm.world, |_| true);
        let (own, k) = (*swarm.world.nodes[0].contact.node_id(), DhtConfig::open().k);
        let mut known: BTreeSet<Index> = atlas.nearest(&own, near + 1).into_iter().collect();
        for bits in 0..64 {
            let members = atlas.bucket(&own, bits);
            if members.len() > k {
                known.extend(members.iter().take(per_bucket).map(|(_, other)| *other));
            }
        }
        let contacts: Vec<_> =
            known.into_iter().map(|other| std::sync::Arc::clone(&swarm.world.nodes[other as usize].contact)).collect();
        let mut engine = swarm.engine(*swarm.world.nodes[0].contact.peer());
        engine.set_contact(swarm.world.now(), Some((*swarm.world.nodes[0].contact).clone()));
        engine.seed_table(swarm.world.now(), &contacts);
        swarm.world.nodes[0].engine = Some(Box::new(engine));
        RULES.map(|rule| rule.holds(&swarm.world, 0, &atlas))
    }

    #[test]
    fn the_rules_of_convergence_ask_for_different_things() {
        assert_eq!(hold(40, 20), [true, true]);
        assert_eq!(hold(40, 1), [false, true], "one of a large bucket is enough for the second only");
        assert_eq!(hold(40, 0), [false, false]);
        assert_eq!(hold(10, 20), [false, false], "half of the neighbours are missing");
    }
}
