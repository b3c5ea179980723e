// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the pages of one member go on behind what waits here.
//!
//! What there is no room for waits until an admin stands on it, and that may be pages later. Whoever named only what it holds
//! would be sent the same page for ever.

use std::collections::BTreeSet;

use pqvpn_trust::Constitution;
use pqvpn_wire::network::{StatementId, message::MAX_IDS};

/// Pages one after the other of which nothing was taken in: more than fill the waiting room.
const MAX_WAITING_PAGES: u32 = 8;

/// Statements of one member's pages that wait.
///
/// Only its own count: nothing of them is checked, and who claims to have sent what another holds keeps nothing but its own
/// pages from us.
#[derive(Debug, Default)]
pub(in crate::membership) struct Onward {
    waiting: BTreeSet<StatementId>,
    /// Pages since the last of which something was taken in.
    pages: u32,
}

impl Onward {
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
        let mut tips = held(MAX_IDS - waiting.len());
        tips.extend(waiting);
        tips
    }
}
