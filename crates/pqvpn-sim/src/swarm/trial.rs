// SPDX-License-Identifier: MIT OR Apache-2.0
//! The experiment behind most tables: owners put records, others get them, all while colluders do their worst.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use pqvpn_dht::eclipse::Verdict;
use pqvpn_wire::dht::{Point, Record};

use super::{End, Swarm};
use crate::{
    reference::{self, Finding},
    stats::Share,
    world::{Index, atlas::Atlas},
};

/// Replicas lie in a region of 30 nodes, or twice that after an alarm; farther out nobody is asked for them.
const NEAR: usize = 200;

/// The size of a trial.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Disjoint paths of the asking nodes; `None` leaves their engines as they are.
    pub paths: Option<usize>,
    /// Nodes that put and get.
    pub actors: usize,
    /// Records each of them puts, and gets of another, and random points it looks for.
    pub each: usize,
    /// Random lookups each actor makes before, by which it learns the size of the network.
    pub warm_up: usize,
    /// Rest between two operations of one actor.
    pub rest: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self { paths: Some(8), actors: 10, each: 4, warm_up: 4, rest: Duration::from_secs(5) }
    }
}

/// What came out of a trial.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Gets that returned the newest record.
    pub get: Share,
    /// Finds that had the truly nearest honest node in their result.
    pub find: Share,
    /// Puts that left at least one replica with an honest node.
    pub put: Share,
    /// Records accepted that must never be.
    pub poison: u64,
    /// Records accepted that their owner had replaced.
    pub stale: u64,
    /// Finds judged suspect or worse.
    pub suspect: Share,
    /// Time until a get had its first acceptable record, in ms.
    pub found_ms: Vec<f64>,
    /// Time a get took until its end, in ms.
    pub get_ms: Vec<f64>,
    /// Dependent rounds of a get.
    pub get_rounds: Vec<f64>,
    /// Time a find took, in ms.
    pub find_ms: Vec<f64>,
    /// Requests of a find.
    pub requests: Vec<f64>,
    /// Dependent rounds of a find.
    pub rounds: Vec<f64>,
    /// Honest replicas of each put.
    pub replicas: Vec<f64>,
}

impl Swarm {
    /// Runs a trial among the honest nodes, which are reached as the colluders allow.
    pub fn trial(&mut self, plan: Plan) -> Outcome {
        self.trial_with(plan, |_, _| ())
    }

    /// A trial in which something happens between the puts and the gets: `meanwhile` is told the keys.
    pub fn trial_with(&mut self, plan: Plan, meanwhile: impl FnOnce(&mut Self, &[Point])) -> Outcome {
        let honest = self.honest();
        let actors = self.choose(&honest, plan.actors);
        self.prepare(&actors, plan);
        let mut outcome = Outcome::default();
        let records = self.put_all(&actors, plan, &mut outcome);
        let keys: Vec<Point> = records.iter().map(|record| *record.key()).collect();
        meanwhile(self, &keys);
        self.get_all(&actors, plan, &records, &mut outcome);
        self.find_all(&actors, plan, &mut outcome);
        outcome
    }

    /// Fresh engines for the actors, and some lookups by which they learn how large the network is.
    pub(crate) fn prepare(&mut self, actors: &[Index], plan: Plan) {
        if let Some(paths) = plan.paths {
            let atlas = reference::atlas(&self.world, |_| true);
            for actor in actors {
                self.renew(*actor, paths, &atlas);
            }
        }
        for _ in 0..plan.warm_up {
            for actor in actors {
                let target = self.point();
                self.find(*actor, target);
            }
            self.finish();
            self.world.run_for(plan.rest);
        }
    }

    /// Every actor puts records of its own: an older version that only the coven keeps, and the newest.
    fn put_all(&mut self, actors: &[Index], plan: Plan, outcome: &mut Outcome) -> Vec<Arc<Record>> {
        let mut records = Vec::new();
        for round in 0..plan.each {
            for actor in actors {
                let name = format!("{}-{round}", self.world.now().mono.as_nanos());
                let old = self.value(*actor, &name, 1);
                let new = self.value(*actor, &name, 2);
                self.world.coven.learn(&old);
                self.world.coven.learn(&new);
                self.put(*actor, &new);
                records.push(new);
            }
            self.finish();
            self.world.run_for(plan.rest);
        }
        let honest = self.honest_atlas();
        for record in &records {
            let replicas = self.replicas(record, &honest);
            outcome.put.count(replicas > 0);
            outcome.replicas.push(crate::stats::float(replicas));
        }
        records
    }

    /// Honest living nodes that keep a record, among those nearest to its key.
    #[must_use]
    pub fn replicas(&self, record: &Record, honest: &Atlas) -> u64 {
        let now = self.world.now();
        let keeps = |index: &Index| {
            let storage = self.world.nodes[*index as usize].engine.as_ref().map(|engine| engine.storage());
            let kept = storage.and_then(|storage| storage.get(now, record.key()));
            kept.is_some_and(|kept| kept.record.digest() == record.digest())
        };
        honest.nearest(record.key(), NEAR).iter().filter(|index| keeps(index)).count() as u64
    }

    /// Honest nodes by position.
    #[must_use]
    pub fn honest_atlas(&self) -> Atlas {
        reference::atlas(&self.world, |index| !self.world.nodes[index as usize].colluder)
    }

    fn get_all(&mut self, actors: &[Index], plan: Plan, records: &[Arc<Record>], outcome: &mut Outcome) {
        let mut asked: BTreeMap<(Index, u64), Point> = BTreeMap::new();
        let mut ends = Vec::new();
        for round in 0..plan.each {
            for (number, actor) in actors.iter().enumerate() {
                // The record of the next actor but `round`: never one's own as long as there are two actors.
                let owner = (number + 1 + round % (actors.len() - 1).max(1)) % actors.len();
                let record = &records[round * actors.len() + owner];
                match self.get(*actor, *record.key()) {
                    Some(operation) => _ = asked.insert((*actor, operation), *record.key()),
                    None => outcome.get.count(false),
                }
            }
            ends.extend(self.finish());
            self.world.run_for(plan.rest);
        }
        let unix_ms = self.world.now().unix_ms;
        for end in &ends {
            let Some(key) = asked.remove(&(end.node, end.operation)) else { continue };
            let finding = self.reference.judge(&key, end.done.outcome.record.as_deref(), unix_ms, &*self.registry);
            outcome.get.count(finding == Finding::Newest);
            outcome.poison += u64::from(finding == Finding::Poison);
            outcome.stale += u64::from(finding == Finding::Stale);
            outcome.get_ms.push(millis(end.ended - end.began));
            outcome.get_rounds.push(f64::from(end.done.outcome.stats.rounds));
            outcome.found_ms.extend(end.found.map(|found| millis(found - end.began)));
        }
        // What never ended is a failure too.
        asked.iter().for_each(|_| outcome.get.count(false));
    }

    fn find_all(&mut self, actors: &[Index], plan: Plan, outcome: &mut Outcome) {
        let honest = self.honest_atlas();
        let mut open = 0_u64;
        for _ in 0..plan.each {
            for actor in actors {
                let target = self.point();
                self.find(*actor, target);
                open += 1;
            }
            for end in self.finish() {
                open -= 1;
                outcome.find.count(self.has_nearest(&end, &honest));
                outcome.suspect.count(end.done.verdict != Verdict::Normal);
                let stats = &end.done.outcome.stats;
                outcome.find_ms.push(millis(end.ended - end.began));
                outcome.requests.push(f64::from(stats.asked));
                outcome.rounds.push(f64::from(stats.rounds));
            }
            self.world.run_for(plan.rest);
        }
        (0..open).for_each(|_| outcome.find.count(false));
    }

    /// Whether the honest node nearest to the target, the asker aside, is in the result.
    #[must_use]
    pub fn has_nearest(&self, end: &End, honest: &Atlas) -> bool {
        let nearest = honest.nearest(&end.done.target, 2);
        let Some(nearest) = nearest.into_iter().find(|index| *index != end.node) else { return false };
        let contact = &self.world.nodes[nearest as usize].contact;
        let outcome = &end.done.outcome;
        outcome.closest.iter().chain(&outcome.region).any(|(found, _)| found.peer() == contact.peer())
    }
}

/// A time in ms.
#[must_use]
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
