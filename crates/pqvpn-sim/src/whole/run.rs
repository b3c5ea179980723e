// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs: one seed, many seeds, and what is left of a failing one when everything that does not matter is taken out.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use pqvpn_node::sim::VirtualTime;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use tokio::{runtime::Builder, time::sleep};

use super::{Op, Violation, World};
use crate::{seed::Seed, world::BEGIN_UNIX_MS};

/// A run as it can be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Seeds everything that is drawn besides the operations.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// What happens, in this order.
    pub operations: Vec<Op>,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What must not be; the run ended with the first.
    pub violations: Vec<Violation>,
    /// Operations done.
    pub done: usize,
    /// Tells two runs apart.
    pub hash: u64,
    /// Virtual time that passed.
    pub lasted: Duration,
    /// Packets sent and delivered, datagrams, seals, sessions, links, links that fell asleep.
    pub counts: [u64; 7],
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: Seed, operations: usize) -> Self {
        let mut dice = seed.rng("plan", 0);
        // Mostly small: what goes wrong among many goes wrong among few.
        let nodes = match dice.random_range(0..100) {
            0..90 => dice.random_range(3..6),
            90..98 => dice.random_range(6..9),
            _ => dice.random_range(9..=super::MAX_NODES),
        };
        Self { seed: seed.0, nodes, operations: Op::plan(&mut dice, nodes, operations) }
    }
}

/// Runs a plan on this thread.
///
/// # Panics
/// When there is no runtime to be had.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let outcome = runtime.block_on(live(plan));
    runtime.shutdown_background();
    outcome
}

async fn live(plan: &Plan) -> Outcome {
    let seed = Seed(plan.seed);
    let _virtual = VirtualTime::begin(seed.0, BEGIN_UNIX_MS);
    let began = tokio::time::Instant::now();
    let mut world = match World::begin(seed, plan.nodes).await {
        Ok(world) => world,
        Err(what) => {
            let violations = vec![Violation { rule: "begins", what }];
            return Outcome { violations, done: 0, hash: 0, lasted: began.elapsed(), counts: [0; 7] };
        }
    };
    let mut done = 0;
    for op in &plan.operations {
        world.fabric.lock().log.trace(&format!("{done} {op:?} at {:?}", began.elapsed()));
        world.perform(op).await;
        let pause = world.dice.random_range(0..120);
        sleep(Duration::from_millis(pause)).await;
        world.check();
        done += 1;
        if !world.fabric.lock().log.violations.is_empty() {
            break;
        }
    }
    let outcome = {
        let inner = world.fabric.lock();
        let log = &inner.log;
        Outcome {
            violations: log.violations.clone(),
            done,
            hash: log.hash(),
            lasted: began.elapsed(),
            counts: [log.sent, log.delivered, log.datagrams, log.seals, log.sessions, log.links, log.slept],
        }
    };
    for number in 0..plan.nodes {
        world.kill(number).await;
    }
    outcome
}

/// Many runs.
#[derive(Debug, Default)]
pub struct Campaign {
    /// Runs done.
    pub runs: usize,
    /// Operations done.
    pub operations: u64,
    /// Virtual seconds.
    pub virtual_s: u64,
    /// As in [`Outcome`].
    pub counts: [u64; 7],
    /// Those that failed, by seed.
    pub failed: Vec<(u64, Outcome)>,
}

/// Runs the seeds `0..seeds` of a series on some threads; results do not depend on how many. `told` hears of each.
pub fn campaign(
    series: Seed,
    seeds: usize,
    operations: usize,
    threads: usize,
    told: &(dyn Fn(usize, &Plan, &Outcome) + Sync),
) -> Campaign {
    let (next, sum) = (AtomicUsize::new(0), Mutex::new(Campaign::default()));
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds {
                        return;
                    }
                    let plan = Plan::of(series.child(number as u64), operations);
                    let outcome = run(&plan);
                    told(number, &plan, &outcome);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.runs += 1;
                    sum.operations += outcome.done as u64;
                    sum.virtual_s += outcome.lasted.as_secs();
                    sum.counts.iter_mut().zip(outcome.counts).for_each(|(sum, count)| *sum += count);
                    if !outcome.violations.is_empty() {
                        sum.failed.push((plan.seed, outcome));
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.failed.sort_by_key(|(seed, _)| *seed);
    sum
}

/// Takes operations out of a failing plan as long as it fails by the same rule, for so long at most.
#[must_use]
pub fn minimise(plan: &Plan, rule: &str, limit: Duration) -> Plan {
    let began = Instant::now();
    let fails = |plan: &Plan| run(plan).violations.first().is_some_and(|first| first.rule == rule);
    let mut least = plan.clone();
    let mut size = least.operations.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < least.operations.len() {
            if began.elapsed() > limit {
                return least;
            }
            let mut shorter = least.clone();
            let end = (at + size).min(shorter.operations.len());
            shorter.operations.drain(at..end);
            if fails(&shorter) {
                least = shorter;
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    least
}
