// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sybils around one key: does the region store still reach an honest node, and is the eclipse seen?
//! (security.md 7.3, 7.4)
//!
//! The Sybils stand in a /24 each (the strongest operator), are known to the hundred honest nodes nearest to the key,
//! answer with each other only, acknowledge stores and forget them. Owner, key and reader are new for every trial.
//!
//! - `get`: the reader gets the record, put while the Sybils were there.
//! - `k_closest`: the k nearest that answered the reader's find hold an honest node: what a store at the k nearest needs.
//! - `detected`: the find's verdict is at least "suspect", the test's 1 % threshold.

use std::{sync::Arc, time::Duration};

use pqvpn_dht::{DhtConfig, eclipse::Verdict};
use serde_json::json;

use super::{Collected, Findings, Options, Scenario};
use crate::{
    adversary::{self, Coven},
    crypto::KeyRing,
    reference::Finding,
    report::{Op, Report},
    seed::Seed,
    stats::{Share, float, mean, round},
    swarm::{Placement, Plan, Swarm},
    world::{Index, net::NetConfig},
};

/// Keys attacked in each world.
const KEYS: usize = 8;
/// Sybils of the greedy attack, one step after the other around the same key.
const GREEDY: [usize; 5] = [5, 10, 20, 45, 100];
/// Sybils of the stealthy attack.
const STEALTH: [usize; 3] = [10, 20, 45];
/// Finds without any attack in each world, for the rate of false alarms.
const QUIET: usize = 100;

/// Targeted Sybils and the detection of eclipses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sybils;

impl Scenario for Sybils {
    fn name(&self) -> &'static str {
        "sybils"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        let mut swarm = Swarm::converged(seed, options.size(10_000), NetConfig::default(), DhtConfig::open());
        quiet(&mut swarm, &mut findings);
        for _ in 0..KEYS {
            let (owner, reader) = actors(&mut swarm);
            for (kind, placement, counts) in
                [("greedy", Placement::Greedy, &GREEDY[..]), ("stealth", Placement::Stealth, &STEALTH[..])]
            {
                let prefix = |count: usize| format!("{kind}/{count}/");
                siege(&mut swarm, (owner, reader), placement, (counts, &prefix), &mut findings);
            }
        }
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        let attacks =
            GREEDY.iter().map(|count| ("greedy", *count)).chain(STEALTH.iter().map(|count| ("stealth", *count)));
        for (kind, count) in attacks {
            let at = format!("{kind}/{count}/");
            let text = |what: &str| json!(all.shares(&format!("{at}{what}")).text());
            report.row([
                ("sybils", json!(format!("{kind} {count}"))),
                ("get", text("get")),
                ("k_closest", text("k_closest")),
                ("detected", text("detected")),
                ("requests_put_mean", json!(round(mean(all.samples(&format!("{at}put_requests")))))),
                ("honest_replicas_mean", json!(round(mean(all.samples(&format!("{at}replicas")))))),
            ]);
        }
        for count in [20, 45, 100] {
            let figure = format!("sybils_{count}_region");
            report.figure(&figure, round(all.shares(&format!("greedy/{count}/get")).total().percent()));
            report.bar(&figure, Op::AtLeast, 99.0);
        }
        report.figure("eclipse_detected", round(all.shares("greedy/20/detected").total().percent()));
        report.bar("eclipse_detected", Op::AtLeast, 99.0);
        let quiet = all.shares("quiet");
        report.figure("eclipse_false_alarms", round(quiet.total().percent()));
        report.row([
            ("eclipse_test", json!("false alarms without attack")),
            ("percent", json!(quiet.text())),
            ("verdict_eclipse_percent", json!(round(all.shares("quiet_eclipse").total().percent()))),
            ("finds", json!(quiet.total().tries)),
        ]);
        // 1 % with the sampling error of the finds made: three standard deviations.
        let slack = 300.0 * (0.01 * 0.99 / float(quiet.total().tries.max(1))).sqrt();
        report.bar("eclipse_false_alarms", Op::AtMost, round(1.0 + slack));
    }
}

/// An owner and a reader with fresh engines that know the size of the network.
fn actors(swarm: &mut Swarm) -> (Index, Index) {
    let honest = swarm.honest();
    let chosen = swarm.choose(&honest, 2);
    swarm.prepare(&chosen, Plan { warm_up: 6, ..Plan::default() });
    (chosen[0], chosen[1])
}

fn quiet(swarm: &mut Swarm, findings: &mut Findings) {
    let honest = swarm.honest();
    let chosen = swarm.choose(&honest, 10);
    swarm.prepare(&chosen, Plan { warm_up: 6, ..Plan::default() });
    for _ in 0..QUIET / chosen.len() {
        for node in &chosen {
            let target = swarm.point();
            swarm.find(*node, target);
        }
        for end in swarm.finish() {
            let mut alarm = Share::default();
            alarm.count(end.done.verdict != Verdict::Normal);
            findings.share("quiet", alarm);
            let mut sure = Share::default();
            sure.count(end.done.verdict == Verdict::Eclipse);
            findings.share("quiet_eclipse", sure);
        }
        swarm.world.run_for(Duration::from_secs(5));
    }
}

/// Puts, gets and finds one key among ever more Sybils; they are gone at the end.
fn siege(
    swarm: &mut Swarm,
    (owner, reader): (Index, Index),
    placement: Placement,
    (counts, prefix): (&[usize], &dyn Fn(usize) -> String),
    findings: &mut Findings,
) {
    let name = format!("besieged-{}", swarm.world.now().mono.as_nanos());
    let target = *swarm.value(owner, &name, 1).key();
    let mut placed: Vec<Index> = Vec::new();
    for (step, count) in (1..).zip(counts) {
        let more = swarm.place_sybils(&target, count - placed.len(), placement, None);
        swarm.introduce(&more, &target);
        placed.extend(more);
        conspire(swarm, &placed);
        let record = swarm.value(owner, &name, step);
        let at = prefix(*count);
        swarm.put(owner, &record);
        for end in swarm.finish() {
            findings.sample(&format!("{at}put_requests"), [f64::from(end.done.outcome.stats.asked)]);
        }
        findings.sample(&format!("{at}replicas"), [float(swarm.replicas(&record, &swarm.honest_atlas()))]);
        swarm.world.run_for(Duration::from_secs(5));
        swarm.get(reader, target);
        let mut got = Share { hits: 0, tries: 1 };
        for end in swarm.finish() {
            let unix_ms = swarm.world.now().unix_ms;
            let record = end.done.outcome.record.as_deref();
            let finding = swarm.reference.judge(&target, record, unix_ms, &*swarm.registry);
            got.hits = u64::from(finding == Finding::Newest);
        }
        findings.share(&format!("{at}get"), got);
        swarm.world.run_for(Duration::from_secs(5));
        swarm.find(reader, target);
        for end in swarm.finish() {
            let honest = end.done.outcome.closest.iter().any(|(contact, _)| {
                swarm.world.index_of(contact.peer()).is_some_and(|index| !swarm.world.nodes[index as usize].colluder)
            });
            let share = |hit: bool| Share { hits: u64::from(hit), tries: 1 };
            findings.share(&format!("{at}k_closest"), share(honest));
            // Only a placement that came about as described is a test of the test.
            if placed.len() == *count {
                findings.share(&format!("{at}detected"), share(end.done.verdict != Verdict::Normal));
            }
        }
        swarm.world.run_for(Duration::from_secs(5));
    }
    for sybil in placed {
        swarm.world.kill(sybil);
        swarm.world.nodes[sybil as usize].colluder = false;
    }
}

/// The Sybils are a coven of their own.
fn conspire(swarm: &mut Swarm, placed: &[Index]) {
    let members: Vec<_> = placed.iter().map(|index| Arc::clone(&swarm.world.nodes[*index as usize].contact)).collect();
    let ring = KeyRing::new(Arc::clone(&swarm.registry), members.iter().map(|member| *member.peer()));
    swarm.world.coven = Coven::new(members, Vec::new(), ring);
    swarm.world.conspire(adversary::strategy("hijack"));
}

/// The trial of a single point with Sybils nearest to every key: puts, gets and finds of attacked keys only.
pub(super) fn around_keys(swarm: &mut Swarm, count: usize, keys: usize) -> Findings {
    let mut findings = Findings::default();
    for _ in 0..keys {
        let (owner, reader) = actors(swarm);
        siege(swarm, (owner, reader), Placement::Greedy, (&[count], &|_| String::new()), &mut findings);
    }
    findings
}
