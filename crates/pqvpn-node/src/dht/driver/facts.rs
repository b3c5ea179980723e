// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts about keys: those of this node are told, those of pinned peers kept in mind.

use std::sync::{Arc, PoisonError};

use pqvpn_wire::dht::Fact;

use super::Driver;

/// Own facts told again; of more, the oldest are left to those who have heard them.
const MAX_OWN: usize = 8;

impl Driver {
    /// Tells a fact of our own.
    pub(super) fn announce(&mut self, fact: Arc<Fact>) {
        let now = self.now();
        let _kept_like_any_other = self.parts.dht.watch(*fact.subject());
        match self.parts.dht.announce(now, &fact) {
            Ok(_) => {
                self.own_facts.push(fact);
                let excess = self.own_facts.len().saturating_sub(MAX_OWN);
                self.own_facts.drain(..excess);
            }
            Err(refusal) => tracing::warn!(%refusal, "a rotation of this node's key is not told in the DHT"),
        }
    }

    /// Says again what there was nobody to be said to.
    pub(super) fn repeat_facts(&mut self) {
        for fact in &self.own_facts {
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
