// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nuisances: colluders that drop, delay, slander, flood one node or aim others at a victim; lookups must go on.

use std::{net::SocketAddr, time::Duration};

use pqvpn_dht::DhtConfig;
use serde_json::json;

use super::{Collected, Findings, Options, Scenario};
use crate::{
    adversary,
    report::{Op, Report},
    seed::Seed,
    stats::{float, percentile, round},
    swarm::{Plan, Swarm},
    world::net::NetConfig,
};

const ATTACKS: [&str; 6] = ["none", "drop", "slow", "slander", "flood", "reflector"];
/// Colluders, in per cent.
const SHARE: u32 = 30;
/// An address of nobody in the network, at which the reflector aims.
const VICTIM: ([u8; 4], u16) = ([99, 1, 2, 3], 443);

/// One row for each nuisance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attacks;

impl Scenario for Attacks {
    fn name(&self) -> &'static str {
        "attacks"
    }

    fn run(&self, seed: Seed, options: &Options) -> Findings {
        let mut findings = Findings::default();
        for attack in ATTACKS {
            // Each attack begins in a network that has not suffered from another.
            let mut swarm = Swarm::converged(seed, options.size(2_000), NetConfig::default(), DhtConfig::open());
            let victim = SocketAddr::from(VICTIM);
            swarm.world.bait.insert(victim, 0);
            swarm.corrupt(f64::from(SHARE) / 100.0, adversary::strategy(attack));
            swarm.world.coven.aim(victim);
            if attack == "flood" {
                keep_few_flooders(&mut swarm);
            }
            let began = swarm.world.now().mono;
            let outcome = swarm.trial(Plan { actors: 8, each: 3, ..Plan::default() });
            let at = format!("{attack}/");
            let minutes = (swarm.world.now().mono - began).as_secs_f64() / 60.0;
            let longest = outcome.get_ms.iter().chain(&outcome.find_ms).copied().fold(0.0, f64::max);
            findings.sample(&format!("{at}longest"), [longest]);
            // Once a minute, at once included.
            let allowed = 8.0 * (minutes.floor() + 1.0);
            findings.sample(&format!("{at}dials"), [float(swarm.world.bait[&victim]) / allowed]);
            findings.count(&format!("{at}busy"), swarm.world.tally.busy);
            findings.trial(&at, &outcome);
        }
        findings
    }

    fn report(&self, all: &Collected, _: &Options, report: &mut Report) {
        let mut longest = 0.0_f64;
        for attack in ATTACKS {
            let of = |what: &str| all.samples(&format!("{attack}/{what}")).to_vec();
            let text = |what: &str| json!(all.shares(&format!("{attack}/{what}")).text());
            longest = longest.max(percentile(&of("longest"), 1.0));
            report.row([
                ("attack_30_percent", json!(attack)),
                ("get", text("get")),
                ("find", text("find")),
                ("found_p95_ms", json!(round(percentile(&of("found_ms"), 0.95)))),
                ("get_p95_ms", json!(round(percentile(&of("get_ms"), 0.95)))),
                ("find_p95_ms", json!(round(percentile(&of("find_ms"), 0.95)))),
                ("longest_ms", json!(round(percentile(&of("longest"), 1.0)))),
                ("busy", json!(all.count(&format!("{attack}/busy")))),
            ]);
        }
        report.figure("attacks_longest_lookup_ms", round(longest));
        // The engine's deadline is 10 s, of a widened lookup as well.
        let deadline = Duration::from_secs(10).as_secs_f64() * 1000.0;
        report.bar("attacks_longest_lookup_ms", Op::AtMost, deadline);
        let dials = percentile(all.samples("reflector/dials"), 1.0);
        report.figure("reflector_dials_per_actor_minute", round(dials));
        report.bar("reflector_dials_per_actor_minute", Op::AtMost, 1.0);
        for attack in ["drop", "slow", "slander", "flood", "reflector"] {
            let figure = format!("attack_{attack}_success");
            report.figure(&figure, round(super::success::lower(all, &format!("{attack}/"))));
            report.bar(&figure, Op::AtLeast, 97.0);
        }
        let poison: u64 = ATTACKS.iter().map(|attack| all.count(&format!("{attack}/poison"))).sum();
        report.figure("attacks_poison_accepted", poison);
        report.bar("attacks_poison_accepted", Op::Equal, 0.0);
    }
}

/// Twenty flooders at fifty requests a second are a thousand a second at one node: half of its processor.
fn keep_few_flooders(swarm: &mut Swarm) {
    let colluders = swarm.world.living(|node| node.colluder);
    for index in colluders.into_iter().skip(20) {
        swarm.world.nodes[index as usize].colluder = false;
    }
    swarm.brief();
}
