// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stages of a lookup and when one follows the other.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pqvpn_wire::dht::{Contact, Distance};

use super::{
    Lookup,
    known::{Id, Standing},
    path::{Move, Path},
    sweep::Sweep,
    types::{Ask, Goal},
};
use crate::table::Net;

/// Value queries under way in the merge: the record is likely among the first answers.
const VALUE_WIDTH: usize = 8;
/// Nodes the region's radius encloses on average (security.md 7.3).
const REGION_NODES: f64 = 30.0;
/// One path in so many begins at a random seed instead of the best one (security.md 7.6).
const RANDOM_START: u64 = 5;

/// Where a lookup stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Paths,
    Merge,
    Sweep,
    Done,
}

impl Lookup {
    /// The next query of the present stage, if it has one now.
    pub(super) fn step(&mut self, now: Duration) -> Option<(Id, Ask)> {
        match self.stage {
            Stage::Paths => self.step_paths(now).or_else(|| self.step_early()),
            Stage::Merge => self.step_merge(),
            Stage::Sweep => self.sweep.as_mut()?.step(&self.known),
            Stage::Done => None,
        }
    }

    /// Goes to the next stage: nothing is under way and the present one has no query left.
    pub(super) fn advance(&mut self, now: Duration) {
        match self.stage {
            Stage::Paths => self.stage = Stage::Merge,
            Stage::Merge => self.after_merge(now),
            Stage::Sweep | Stage::Done => self.end(now),
        }
    }

    /// Opens up to `n` paths, each from seeds of its own.
    pub(super) fn open_paths(&mut self, n: usize) -> bool {
        let before = self.paths.len();
        for _ in 0..n {
            let Some(seeds) = self.take_seeds() else { break };
            self.open_path(seeds, false);
        }
        self.paths.len() > before
    }

    fn open_path(&mut self, seeds: Vec<Arc<Contact>>, ended: bool) {
        let at = self.paths.len();
        let mut path = Path { clock: self.clock, ended, ..Path::default() };
        self.stats.surplus += self.known.learn(at, &mut path.candidates, None, seeds);
        self.paths.push(path);
        self.stats.paths = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
    }

    fn take_seeds(&mut self) -> Option<Vec<Arc<Contact>>> {
        self.random = splitmix(self.random);
        let any = self.random.is_multiple_of(RANDOM_START);
        let len = u64::try_from(self.pool.len()).unwrap_or(1).max(1);
        let at = if any { usize::try_from((self.random >> 8) % len).unwrap_or(0) } else { 0 };
        self.pool.remove(at)
    }

    const fn wants_value(&self) -> bool {
        matches!(self.goal, Goal::Value { .. })
    }

    const fn question(&self) -> Ask {
        Ask { target: self.target, value: self.wants_value() }
    }

    fn step_paths(&mut self, now: Duration) -> Option<(Id, Ask)> {
        let stall = self.pace.stall();
        let mut at = 0;
        while let Some(path) = self.paths.get_mut(at) {
            match path.step(&self.known, at, now, stall, self.config.alpha.max(1)) {
                Move::Ask(id) => return Some((id, self.question())),
                Move::Wait => {}
                Move::End => path.ended = true,
                Move::Stuck => {
                    path.ended = true;
                    self.replace_path(at);
                }
            }
            at += 1;
        }
        None
    }

    /// Opens another path for one that got nowhere, unless it began among the k nearest: then there was nowhere to go.
    fn replace_path(&mut self, at: usize) {
        let Some(stuck) = self.paths.get(at) else { return };
        let clock = stuck.clock;
        let best = stuck.best(&self.known);
        if best.is_some_and(|best| self.known.nearest_live(self.config.k).is_some_and(|kth| best <= kth)) {
            return;
        }
        if self.open_paths(1)
            && let Some(path) = self.paths.last_mut()
        {
            path.clock = clock;
        }
    }

    /// Once half of the paths have ended, their slots serve the merge: whoever is among the k nearest must be asked
    /// anyway. Not for a value, which the other paths may find with fewer queries.
    fn step_early(&mut self) -> Option<(Id, Ask)> {
        let ended = self.paths.iter().filter(|path| path.ended).count();
        if self.wants_value() || ended * 2 < self.paths.len() { None } else { self.step_merge() }
    }

    fn step_merge(&mut self) -> Option<(Id, Ask)> {
        let width = if self.wants_value() { VALUE_WIDTH } else { self.config.k };
        if self.known.pending() >= width {
            return None;
        }
        self.draw_near_seeds();
        Some((self.next_of_nearest()?, self.question()))
    }

    /// The nearest candidate to be asked among the k nearest of all paths that are not dead.
    fn next_of_nearest(&self) -> Option<Id> {
        let mut live = 0;
        let mut last = None;
        for id in self.known.merged() {
            if live >= self.config.k {
                return None;
            }
            let distance = self.known.get(id).distance;
            match self.known.standing(id) {
                Standing::Askable => return Some(id),
                Standing::Live if last != Some(distance) => {
                    last = Some(distance);
                    live += 1;
                }
                Standing::Live | Standing::Dead => {}
            }
        }
        None
    }

    /// Brings in seeds no path has taken that belong to the k nearest.
    fn draw_near_seeds(&mut self) {
        let target = self.target;
        while !self.pool.is_empty() {
            let nearest = |group: &Vec<Arc<Contact>>| group.iter().map(|one| target.distance(one.node_id())).min();
            let groups = self.pool.iter().enumerate();
            let Some((distance, at)) = groups.filter_map(|(at, group)| Some((nearest(group)?, at))).min() else {
                break;
            };
            if self.known.nearest_live(self.config.k).is_some_and(|kth| kth <= distance) {
                break;
            }
            let Some(seeds) = self.pool.remove(at) else { break };
            self.open_path(seeds, true);
        }
    }

    /// The k nearest have answered. Liars make the region look too sparse (they name only each other) or too dense (they
    /// crowd around the target): the one calls for more paths, the other for a sweep.
    fn after_merge(&mut self, now: Duration) {
        let missing = self.wants_value() && self.record.is_none();
        let expected = self.expected_within_kth();
        let k = f64::from(u32::try_from(self.config.k).unwrap_or(u32::MAX));
        let sparse = expected.is_some_and(|expected| expected > k + 3.0 * k.sqrt());
        let dense = expected.is_some_and(|expected| expected < k / 2.0);
        if !self.reopened && (sparse || (missing && !dense)) && self.open_paths(self.config.paths) {
            self.reopened = true;
            self.stage = Stage::Paths;
            return;
        }
        match self.config.region.filter(|radius| *radius > Distance::ZERO) {
            Some(radius) if missing || dense || self.goal == Goal::Region => {
                // The nearest seeds may all be of the crowd; those left over are not.
                while let Some(seeds) = self.pool.pop_front() {
                    self.open_path(seeds, true);
                }
                self.sweep = Some(Sweep::new(self.target, radius, missing, self.random));
                self.stage = Stage::Sweep;
            }
            _ => self.end(now),
        }
    }

    /// How many nodes the estimate of the network's size lets expect within the distance of the k-th nearest.
    fn expected_within_kth(&self) -> Option<f64> {
        let radius = self.config.region?.fraction();
        let kth = self.known.nearest_live(self.config.k).map_or(1.0, |kth| kth.fraction());
        (radius > 0.0).then(|| REGION_NODES * kth / radius)
    }
}

/// One step of the SplitMix64 generator (Steele, Lea & Flood 2014).
const fn splitmix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Puts seeds of one public subnet together: a path gets all of them or none.
pub(super) fn pool(seeds: Vec<Arc<Contact>>) -> VecDeque<Vec<Arc<Contact>>> {
    let mut groups: Vec<(Net, Vec<Arc<Contact>>)> = Vec::new();
    for contact in seeds {
        let net = Net::of(&contact);
        match groups.iter_mut().find(|(other, _)| *other == net && !net.is_private()) {
            Some((_, group)) => group.push(contact),
            None => groups.push((net, vec![contact])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
