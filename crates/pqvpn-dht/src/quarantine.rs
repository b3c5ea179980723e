// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is left out of lookups for a while, and why that can never become an eclipse of our own making (security.md 7.7).

use std::collections::BTreeMap;
use std::time::Duration;

use pqvpn_crypto::peer_id::PeerId;

use crate::Now;

/// The first term; each further one is twice as long.
pub const FIRST_TERM: Duration = Duration::from_secs(30 * 60);
/// No term is longer.
pub const LONGEST_TERM: Duration = Duration::from_secs(7 * 24 * 3600);
/// One in so many contacts of the table may be in quarantine: an attacker who makes honest peers look bad takes away a
/// fifth of the table and no more.
pub const ONE_IN: usize = 5;
/// After its term a peer waits for a release probe; without one it is released after so long.
pub const GRACE: Duration = Duration::from_secs(10 * 60);
/// Pause between two release probes of one peer.
pub const PROBE_EVERY: Duration = Duration::from_secs(60);
/// Peers remembered, those released included.
pub const MAX_CELLS: usize = 1024;
/// A released peer's record is clean again after so long.
pub const MEMORY: Duration = Duration::from_secs(14 * 24 * 3600);

/// What became of a call to put a peer into quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sentence {
    /// It is in quarantine until then (monotonic clock).
    Held {
        /// The end of the term.
        until: Duration,
    },
    /// A fifth of the table is in quarantine already.
    Denied,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QuarantineCounters {
    /// Terms begun.
    pub held: u64,
    /// Terms refused because of the bound.
    pub denied: u64,
    /// Peers released before their time, for a proven liar or because the table shrank.
    pub displaced: u64,
    /// Peers released by a good answer to a probe.
    pub acquitted: u64,
    /// Records of released peers dropped because the memory was full.
    pub forgotten: u64,
}

/// The quarantine of one node.
#[derive(Debug, Clone, Default)]
pub struct Quarantine {
    cells: BTreeMap<PeerId, Cell>,
    counters: QuarantineCounters,
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    until: Duration,
    term: Duration,
    proven: bool,
    released: bool,
    probed: Option<Duration>,
}

impl Cell {
    fn held(&self, now: Now) -> bool {
        !self.released && now.mono < self.until.saturating_add(GRACE)
    }

    fn clean(&self, now: Now) -> bool {
        !self.held(now) && now.mono >= self.until.saturating_add(MEMORY)
    }
}

impl Quarantine {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a peer into quarantine; `proven`: by signatures of its own, so it takes the place of a mere suspect.
    pub fn hold(&mut self, now: Now, peer: &PeerId, proven: bool, table_len: usize) -> Sentence {
        self.fit(now, table_len);
        if let Some(cell) = self.cells.get_mut(peer).filter(|cell| cell.held(now)) {
            cell.proven |= proven;
            return Sentence::Held { until: cell.until };
        }
        let room = table_len / ONE_IN;
        if room == 0 || (self.len(now) >= room && !(proven && self.displace(now, false))) {
            self.counters.denied += 1;
            return Sentence::Denied;
        }
        self.begin(now, peer, proven)
    }

    /// Whether the peer is left out of lookups now.
    #[must_use]
    pub fn holds(&self, now: Now, peer: &PeerId) -> bool {
        self.cells.get(peer).is_some_and(|cell| cell.held(now))
    }

    /// Tells how long the table is now; releases whoever is too many.
    pub fn fit(&mut self, now: Now, table_len: usize) {
        let mut excess = self.len(now).saturating_sub(table_len / ONE_IN);
        while excess > 0 && self.displace(now, true) {
            excess -= 1;
        }
    }

    /// A peer whose term is over and that should be asked something whose answer we can check, if there is one.
    pub fn next_probe(&mut self, now: Now) -> Option<PeerId> {
        let rested = |cell: &Cell| cell.probed.is_none_or(|at| now.mono >= at.saturating_add(PROBE_EVERY));
        let due = |cell: &Cell| cell.held(now) && now.mono >= cell.until && rested(cell);
        let (peer, cell) = self.cells.iter_mut().find(|(_, cell)| due(cell))?;
        cell.probed = Some(now.mono);
        Some(*peer)
    }

    /// The answer to a release probe: a good one releases, a wrong one begins the same term again. Silence is not told.
    pub fn probed(&mut self, now: Now, peer: &PeerId, good: bool) {
        let Some(cell) = self.cells.get_mut(peer).filter(|cell| cell.held(now) && now.mono >= cell.until) else {
            return;
        };
        if good {
            cell.released = true;
            self.counters.acquitted += 1;
        } else {
            cell.until = now.mono.saturating_add(cell.term);
            cell.probed = None;
        }
    }

    /// How many peers are in quarantine now.
    #[must_use]
    pub fn len(&self, now: Now) -> usize {
        self.cells.values().filter(|cell| cell.held(now)).count()
    }

    /// Whether nobody is in quarantine now.
    #[must_use]
    pub fn is_empty(&self, now: Now) -> bool {
        self.len(now) == 0
    }

    /// Who is in quarantine now and until when, in the order of their PeerIDs.
    pub fn iter(&self, now: Now) -> impl Iterator<Item = (&PeerId, Duration)> {
        self.cells.iter().filter(move |(_, cell)| cell.held(now)).map(|(peer, cell)| (peer, cell.until))
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> QuarantineCounters {
        self.counters
    }

    fn begin(&mut self, now: Now, peer: &PeerId, proven: bool) -> Sentence {
        self.make_room(now);
        let before = self.cells.get(peer).filter(|cell| !cell.clean(now));
        let term = before.map_or(FIRST_TERM, |cell| cell.term.saturating_mul(2).min(LONGEST_TERM));
        let until = now.mono.saturating_add(term);
        self.cells.insert(*peer, Cell { until, term, proven, released: false, probed: None });
        self.counters.held += 1;
        Sentence::Held { until }
    }

    /// Releases the suspect whose time is up first; a proven liar only when there is no suspect and it `must` be.
    fn displace(&mut self, now: Now, must: bool) -> bool {
        let held = self.cells.iter_mut().filter(|(_, cell)| cell.held(now) && (must || !cell.proven));
        let Some((_, cell)) = held.min_by_key(|(peer, cell)| (cell.proven, cell.until, **peer)) else {
            return false;
        };
        cell.released = true;
        self.counters.displaced += 1;
        true
    }

    /// Forgets clean records, then, if there are still too many, the released peer whose term ended first.
    fn make_room(&mut self, now: Now) {
        if self.cells.len() < MAX_CELLS {
            return;
        }
        self.cells.retain(|_, cell| !cell.clean(now));
        let free = self.cells.iter().filter(|(_, cell)| !cell.held(now));
        let oldest = free.min_by_key(|(peer, cell)| (cell.until, **peer)).map(|(peer, _)| *peer);
        if self.cells.len() >= MAX_CELLS && oldest.is_some_and(|peer| self.cells.remove(&peer).is_some()) {
            self.counters.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests;
