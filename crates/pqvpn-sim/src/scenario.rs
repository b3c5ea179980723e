// SPDX-License-Identifier: MIT OR Apache-2.0
//! Experiments: what is done in the world of one seed, and how all seeds together become figures, bars and tables.

mod attacks;
mod benign;
mod churn;
mod partition;
mod poison;
mod quarantine;
mod scale;
mod single;
mod success;
mod sybils;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    report::Report,
    seed::Seed,
    stats::{Share, Shares},
    swarm::Outcome,
};

/// What an experiment is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes; `None` leaves the choice to the scenario.
    pub nodes: Option<usize>,
    /// Share of colluders.
    pub malicious: f64,
    /// Disjoint paths of the asking nodes.
    pub paths: usize,
    /// Worlds per point.
    pub seeds: usize,
    /// What the seeds of the worlds follow from.
    pub seed: Seed,
    /// Share of the nodes that leaves, and is replaced, per hour.
    pub churn: f64,
    /// The colluders' strategy.
    pub attack: String,
    /// Sybils around each key.
    pub sybils: usize,
    /// Worker threads; results do not depend on it.
    pub threads: usize,
}

impl Options {
    /// The number of nodes asked for, or the scenario's own.
    #[must_use]
    pub fn size(&self, own: usize) -> usize {
        self.nodes.unwrap_or(own)
    }
}

/// An experiment.
pub trait Scenario: Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// One world.
    fn run(&self, seed: Seed, options: &Options) -> Findings;

    /// All worlds together.
    fn report(&self, all: &Collected, options: &Options, report: &mut Report);
}

/// All scenarios, in the order of the suite.
#[must_use]
pub fn all() -> Vec<Box<dyn Scenario>> {
    vec![
        Box::new(success::Success),
        Box::new(churn::Churn),
        Box::new(sybils::Sybils),
        Box::new(poison::PoisonedValues),
        Box::new(quarantine::Quarantine),
        Box::new(attacks::Attacks),
        Box::new(benign::Benign),
        Box::new(partition::Partition),
        Box::new(scale::Scale),
    ]
}

/// The scenario of the plain command: one point, as the options say.
#[must_use]
pub fn single() -> Box<dyn Scenario> {
    Box::new(single::Single)
}

/// Runs one scenario over its seeds into `report`.
pub fn run(scenario: &dyn Scenario, options: &Options, report: &mut Report) {
    let all = over_seeds(options, |seed| scenario.run(seed, options));
    scenario.report(&all, options, report);
}

/// Runs `world` for every seed on the worker threads; the result is in the order of the seeds.
pub fn over_seeds(options: &Options, world: impl Fn(Seed) -> Findings + Sync) -> Collected {
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, Findings>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, options.seeds.max(1)) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= options.seeds {
                        return;
                    }
                    let findings = world(options.seed.child(number as u64));
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(number, findings);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.into_values().collect()
}

/// What one world showed, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    shares: BTreeMap<String, Share>,
    samples: BTreeMap<String, Vec<f64>>,
    counts: BTreeMap<String, u64>,
}

impl Findings {
    /// Adds a share.
    pub fn share(&mut self, name: &str, share: Share) {
        let entry = self.shares.entry(name.to_owned()).or_default();
        *entry = entry.plus(share);
    }

    /// Adds measurements.
    pub fn sample(&mut self, name: &str, values: impl IntoIterator<Item = f64>) {
        self.samples.entry(name.to_owned()).or_default().extend(values);
    }

    /// Adds to a count.
    pub fn count(&mut self, name: &str, many: u64) {
        *self.counts.entry(name.to_owned()).or_default() += many;
    }

    /// Adds all of a trial's results, each name after `prefix`.
    pub fn trial(&mut self, prefix: &str, outcome: &Outcome) {
        for (name, share) in
            [("get", outcome.get), ("find", outcome.find), ("put", outcome.put), ("suspect", outcome.suspect)]
        {
            self.share(&format!("{prefix}{name}"), share);
        }
        let samples = [
            ("found_ms", &outcome.found_ms),
            ("get_ms", &outcome.get_ms),
            ("get_rounds", &outcome.get_rounds),
            ("find_ms", &outcome.find_ms),
            ("requests", &outcome.requests),
            ("rounds", &outcome.rounds),
            ("replicas", &outcome.replicas),
        ];
        for (name, values) in samples {
            self.sample(&format!("{prefix}{name}"), values.iter().copied());
        }
        self.count(&format!("{prefix}poison"), outcome.poison);
        self.count(&format!("{prefix}stale"), outcome.stale);
    }
}

/// What all worlds showed, by name.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    shares: BTreeMap<String, Vec<Share>>,
    samples: BTreeMap<String, Vec<f64>>,
    counts: BTreeMap<String, u64>,
}

impl FromIterator<Findings> for Collected {
    fn from_iter<T: IntoIterator<Item = Findings>>(worlds: T) -> Self {
        let mut all = Self::default();
        for world in worlds {
            for (name, share) in world.shares {
                all.shares.entry(name).or_default().push(share);
            }
            for (name, values) in world.samples {
                all.samples.entry(name).or_default().extend(values);
            }
            for (name, many) in world.counts {
                *all.counts.entry(name).or_default() += many;
            }
        }
        all
    }
}

impl Collected {
    /// The shares of that name, one per seed; none under an unknown name.
    #[must_use]
    pub fn shares(&self, name: &str) -> Shares {
        self.shares.get(name).into_iter().flatten().copied().collect()
    }

    /// The measurements of that name, all seeds together.
    #[must_use]
    pub fn samples(&self, name: &str) -> &[f64] {
        self.samples.get(name).map_or(&[], Vec::as_slice)
    }

    /// The count of that name, all seeds together.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}
