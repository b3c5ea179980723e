// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was taken in, refused and thrown out, by reason.

use std::collections::BTreeMap;

use crate::refusal::Refusal;

/// Counters since the constitution was loaded; never part of any decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Statements taken in.
    pub inserted: u64,
    /// Statements already held that brought new signers.
    pub merged: u64,
    /// Statements already held whose signatures had been shed and are here again.
    pub restored: u64,
    /// Statements already held, with no new signer.
    pub known: u64,
    /// Statements put into the waiting room.
    pub waited: u64,
    /// Statements thrown out of a full waiting room.
    pub waiting_evicted: u64,
    /// Statements taken in over a bound of whoever made them, because an admin stands on them.
    pub vouched: u64,
    /// Signatures dropped from statements that were taken in: wrong, or of somebody without authority.
    pub signatures_dropped: u64,
    /// Times the view was computed from the beginning.
    pub refolds: u64,
    /// Seals made anew because something they cover got another signer.
    pub resealed: u64,
    refused: BTreeMap<&'static str, u64>,
}

impl Counters {
    /// Notes a refusal and gives it back.
    pub(crate) fn refuse(&mut self, refusal: Refusal) -> Refusal {
        *self.refused.entry(refusal.name()).or_default() += 1;
        refusal
    }

    /// How often something was refused for the reason of this [`Refusal::name`].
    #[must_use]
    pub fn refused(&self, reason: &str) -> u64 {
        self.refused.get(reason).copied().unwrap_or(0)
    }

    /// All reasons that occurred, with their counts.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.refused.iter().map(|(name, count)| (*name, *count))
    }
}
