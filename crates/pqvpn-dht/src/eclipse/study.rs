// SPDX-License-Identifier: MIT OR Apache-2.0
//! How well the test sees Sybils around a key, in a seeded simulation (security.md 7.4).

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::{EclipseTest, Evidence, NEAREST, Verdict};
use crate::estimate::{LOOKUPS, median, nodes_of};

/// What is put around the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Nothing.
    None,
    /// So many Sybils, all nearer than half the distance of the nearest honest node.
    Greedy(usize),
    /// So many Sybils, spread evenly inside the distance of the k-th honest node.
    Stealth(usize),
}

/// The attacks of the table of security.md 7.4.
pub const ATTACKS: [Attack; 6] = [
    Attack::Greedy(5),
    Attack::Greedy(10),
    Attack::Greedy(20),
    Attack::Stealth(10),
    Attack::Stealth(20),
    Attack::Stealth(45),
];

/// How the judging node knows the number of nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Size {
    /// Exactly: the best that any test can do.
    Known,
    /// From 16 lookups elsewhere, as it does, `poisoned` of them making the network look `factor` times as large.
    Estimated {
        /// How many of the 16 are an attacker's.
        poisoned: usize,
        /// What he makes of the size.
        factor: f64,
    },
}

impl Size {
    /// From 16 honest lookups.
    pub const HONEST: Self = Self::Estimated { poisoned: 0, factor: 1.0 };
}

/// Detection rates of one attack, 0 to 1, each at 1 % and at 0.1 % false positives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// The attack.
    pub attack: Attack,
    /// By `dense` alone, its threshold taken from honest trials of this run.
    pub dense: [f64; 2],
    /// By `scan` alone, likewise.
    pub scan: [f64; 2],
    /// By [`EclipseTest`], both together at the thresholds that nodes use: suspect, eclipse.
    pub verdict: [f64; 2],
}

/// The table of security.md 7.4 for a network of `nodes`; the first row is [`Attack::None`], the false positives.
#[must_use]
pub fn table(seed: u64, nodes: u64, trials: usize, size: Size) -> Vec<Row> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    // The threshold at 0.1 % needs more trials than a rate does.
    let honest = run(&mut rng, Attack::None, nodes, trials.saturating_mul(4), size);
    let limits = [0.01, 0.001].map(|share| {
        (quantile(honest.iter().map(|e| e.ln_dense), share), quantile(honest.iter().map(|e| e.ln_scan), share))
    });
    let row = |attack, all: &[Evidence]| {
        let share = |hit: &dyn Fn(&Evidence) -> bool| all.iter().filter(|e| hit(e)).count() as f64 / all.len() as f64;
        Row {
            attack,
            dense: limits.map(|(dense, _)| share(&|e| e.ln_dense < dense)),
            scan: limits.map(|(_, scan)| share(&|e| e.ln_scan < scan)),
            verdict: [Verdict::Suspect, Verdict::Eclipse].map(|least| share(&|e| e.verdict >= least)),
        }
    };
    let attacked = ATTACKS.map(|attack| row(attack, &run(&mut rng, attack, nodes, trials, size)));
    [row(Attack::None, &honest)].into_iter().chain(attacked).collect()
}

/// The statistics of `trials` lookups.
pub(crate) fn run(
    rng: &mut Xoshiro256PlusPlus,
    attack: Attack,
    nodes: u64,
    trials: usize,
    size: Size,
) -> Vec<Evidence> {
    let test = if size == Size::Known { EclipseTest::KNOWN } else { EclipseTest::ESTIMATED };
    (0..trials)
        .map(|_| {
            let n_hat = estimate(rng, nodes, size);
            let mut near = nearest(rng, nodes);
            place(rng, attack, &mut near);
            test.weigh(n_hat, &near)
        })
        .collect()
}

/// The number of nodes as the judging node estimates it.
pub(crate) fn estimate(rng: &mut Xoshiro256PlusPlus, nodes: u64, size: Size) -> f64 {
    let Size::Estimated { poisoned, factor } = size else { return nodes as f64 };
    let one = |lookup| {
        let near = nearest(rng, nodes);
        let honest = nodes_of(near.len() as f64, near.last().copied().unwrap_or(1.0));
        if lookup < poisoned { honest * factor } else { honest }
    };
    let mut all: Vec<f64> = (0..LOOKUPS).map(one).collect();
    median(&mut all).unwrap_or(1.0)
}

/// The distances of the nearest of `nodes` uniformly random nodes, nearest first.
fn nearest(rng: &mut Xoshiro256PlusPlus, nodes: u64) -> Vec<f64> {
    let mut last = 0.0;
    let count = (NEAREST as u64).min(nodes);
    // The least of m uniform numbers above `last` is at last + (1 - last)(1 - u^(1/m)).
    (0..count)
        .map(|taken| {
            let u: f64 = rng.random::<f64>().max(f64::MIN_POSITIVE);
            last += (1.0 - last) * -(u.ln() / (nodes - taken) as f64).exp_m1();
            last
        })
        .collect()
}

fn place(rng: &mut Xoshiro256PlusPlus, attack: Attack, near: &mut Vec<f64>) {
    let (sybils, within) = match attack {
        Attack::None => return,
        Attack::Greedy(sybils) => (sybils, near.first().map_or(1.0, |d| d / 2.0)),
        Attack::Stealth(sybils) => (sybils, near.last().copied().unwrap_or(1.0)),
    };
    near.extend((0..sybils).map(|_| rng.random::<f64>() * within));
    near.sort_unstable_by(f64::total_cmp);
    near.truncate(NEAREST);
}

/// The value that a `share` of all is below.
pub(crate) fn quantile(values: impl Iterator<Item = f64>, share: f64) -> f64 {
    let mut all: Vec<f64> = values.collect();
    all.sort_unstable_by(f64::total_cmp);
    let at = (all.len() as f64 * share) as usize;
    all.get(at).copied().unwrap_or(f64::NEG_INFINITY)
}
