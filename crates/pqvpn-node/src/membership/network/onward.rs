// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the pages of one member go on behind what waits here.
//!
//! What there is no room for waits until an admin stands on it, and that may be pages later. Whoever named only what it holds
//! would be sent the same page for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_trust::Constitution;
use pqvpn_wire::network::{StatementId, message::MAX_IDS};

/// Pages one after the other of which nothing was taken in: more than fill the waiting room.
const MAX_WAITING_PAGES: u32 = 8;

/// What brought nothing is not asked for again so soon; each time twice as long,
const REST: Duration = Duration::from_secs(20);
/// up to this.
const MAX_REST: Duration = Duration::from_secs(600);

/// Statements of one member's pages that wait.
///
/// Only its own count: nothing of them is checked, and who claims to have sent what another holds keeps nothing but its own
/// pages from us.
#[derive(Debug, Default)]
pub(in crate::membership) struct Onward {
    waiting: BTreeSet<StatementId>,
    /// Pages since the last of which something was taken in.
    pages: u32,
    /// What the member stands on is not wanted now.
    unwanted: Vec<StatementId>,
}

impl Onward {
    /// For whatever a member holds besides what these stand on.
    pub(in crate::membership) fn beside(tips: &[StatementId]) -> Self {
        Self { unwanted: tips.to_vec(), ..Self::default() }
    }

    /// Notes what a page brought; `news`: something of it was taken in. Says whether the next may bring more.
    pub(in crate::membership) fn note(&mut self, built: &Constitution, page: &[StatementId], news: bool) -> bool {
        self.pages = if news { 0 } else { self.pages.saturating_add(1) };
        let before = self.waiting.clone();
        self.waiting.extend(page);
        self.waiting.retain(|id| built.waits(id));
        news || self.pages <= MAX_WAITING_PAGES && !self.waiting.is_subset(&before)
    }

    /// What is named as held for the next page, at most [`MAX_IDS`]: some of `held`, and what waits behind it.
    pub(in crate::membership) fn tips(
        &self,
        built: &Constitution,
        held: impl FnOnce(usize) -> Vec<StatementId>,
    ) -> Vec<StatementId> {
        let mut waiting = built.waiting_tops(&self.waiting);
        waiting.truncate(MAX_IDS / 2);
        waiting.extend(self.unwanted.iter().take(MAX_IDS / 2));
        let mut tips = held(MAX_IDS - waiting.len());
        tips.extend(waiting);
        tips
    }
}

/// Members whose statements were asked for and brought nothing: parts that have no room for each other's would send each other
/// the same for ever.
#[derive(Debug, Default)]
pub(in crate::membership) struct Rests(BTreeMap<PeerId, Rest>);

#[derive(Debug)]
struct Rest {
    /// What it held, and what we did.
    heads: ([u8; 32], [u8; 32]),
    length: Duration,
    until: Instant,
}

impl Rests {
    /// Whether what a member holds is left alone for now; `heads`: its own and ours.
    pub(in crate::membership) fn rests(&self, now: Instant, peer: &PeerId, heads: ([u8; 32], [u8; 32])) -> bool {
        self.0.get(peer).is_some_and(|rest| rest.heads == heads && now < rest.until)
    }

    /// Asking brought nothing.
    pub(in crate::membership) fn note(&mut self, now: Instant, peer: PeerId, heads: ([u8; 32], [u8; 32])) {
        let before = self.0.get(&peer).filter(|rest| rest.heads == heads);
        let length = before.map_or(REST, |rest| rest.length.saturating_mul(2).min(MAX_REST));
        self.0.insert(peer, Rest { heads, length, until: now + length });
    }

    /// Asking brought something, or all is to be asked for again.
    pub(in crate::membership) fn end(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    pub(super) fn retain(&mut self, members: &BTreeSet<PeerId>) {
        self.0.retain(|peer, _| members.contains(peer));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
