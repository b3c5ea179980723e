// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts about keys: those of this node are told, those of pinned peers kept in mind.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use pqvpn_wire::dht::Fact;

use super::Driver;
use crate::clock;

/// Own facts told again; of more, the oldest are left to those who have heard them.
const MAX_OWN: usize = 8;
/// When they are told again, each time to some contacts more: nobody says that it has heard them.
const AGAIN: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(8),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
];

/// Facts about keys of this node.
#[derive(Debug, Default)]
pub(super) struct OwnFacts {
    facts: Vec<Arc<Fact>>,
    /// How often they were told since there was news, and when that will be again.
    told: usize,
    again: Option<Instant>,
}

impl OwnFacts {
    fn add(&mut self, now: Instant, fact: Arc<Fact>) {
        self.facts.push(fact);
        let excess = self.facts.len().saturating_sub(MAX_OWN);
        self.facts.drain(..excess);
        self.begin(now);
    }

    /// They were told just now: the pauses begin anew.
    fn begin(&mut self, now: Instant) {
        self.told = 0;
        self.again = (!self.facts.is_empty()).then(|| now + AGAIN[0]);
    }

    /// When they are told again.
    pub(super) const fn next(&self) -> Option<Instant> {
        self.again
    }

    /// Whether they are to be told now.
    fn take_due(&mut self, now: Instant) -> bool {
        let due = self.again.is_some_and(|at| at <= now);
        if due {
            self.told += 1;
            self.again = AGAIN.get(self.told).map(|pause| now + *pause);
        }
        due
    }
}

impl Driver {
    /// Tells a fact of our own.
    pub(super) fn announce(&mut self, fact: Arc<Fact>) {
        let now = self.now();
        let _kept_like_any_other = self.parts.dht.watch(*fact.subject());
        match self.parts.dht.announce(now, &fact) {
            Ok(_) => self.own_facts.add(clock::now(), fact),
            Err(refusal) => tracing::warn!(%refusal, "a rotation of this node's key is not told in the DHT"),
        }
    }

    /// Says again what there was nobody to be said to.
    pub(super) fn repeat_facts(&mut self) {
        self.own_facts.begin(clock::now());
        self.tell_own_facts();
    }

    /// Says again what may not have been heard.
    pub(super) fn keep_facts(&mut self, now: Instant) {
        if self.own_facts.take_due(now) {
            self.tell_own_facts();
        }
    }

    fn tell_own_facts(&mut self) {
        for fact in &self.own_facts.facts {
            self.parts.dht.repeat(fact);
        }
    }

    pub(super) fn on_fact(&mut self, fact: &Fact) {
        tracing::info!(peer = %fact.subject().short(), "a fact about a key became known");
        // Any link of a chain may decide where it ends.
        let facts = self.parts.dht.facts();
        let successors = self.parts.watched.iter().filter_map(|peer| Some((*peer, facts.successor(peer)?))).collect();
        *self.parts.successors.lock().unwrap_or_else(PoisonError::into_inner) = successors;
    }
}

#[cfg(test)]
mod tests {
    use pqvpn_crypto::identity::Identity;
    use pqvpn_wire::dht::Rotation;

    use super::*;

    #[test]
    fn own_facts_are_told_again_a_few_times_and_anew_when_there_are_others_to_hear_them() {
        let (mut own, start) = (OwnFacts::default(), Instant::now());
        assert!(own.next().is_none() && !own.take_due(start + AGAIN[4]), "there is nothing to tell");
        let [old, new] = [(); 2].map(|()| Identity::generate().unwrap());
        own.add(start, Arc::new(Fact::Rotation(Rotation::sign(&old, &new, 1, 0).unwrap())));
        let mut times = Vec::new();
        while let Some(at) = own.next() {
            assert!(!own.take_due(at - Duration::from_millis(1)));
            assert!(own.take_due(at));
            times.push(at);
        }
        assert_eq!(times.len(), AGAIN.len());
        assert_eq!(times.last().unwrap().duration_since(start), AGAIN.iter().sum::<Duration>());
        own.begin(start);
        assert_eq!(own.next(), Some(start + AGAIN[0]));
    }
}
