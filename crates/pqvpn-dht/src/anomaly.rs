// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which peers behave oddly: robust statistics over what all peers do, and a small forest as a second opinion
//! (security.md 7.7).
//!
//! ```text
//!  observe(peer, ..) ─► tally of the window ─► close_window: features ─► robust z ─┐
//!                                                          │          ─► CUSUM  ───┼─► above? ─► 3 of 5 and a hard
//!                                                          └► forest (hourly) ─────┘              event ─► quarantine
//! ```
//! Scores are hints. A peer loses its place only if something happened that no statistics is needed for, and never more
//! than a fifth of the table does.

pub mod features;
pub mod study;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use pqvpn_crypto::peer_id::PeerId;

use crate::Now;
use crate::forest::{Forest, TREES};
use crate::quarantine::{Quarantine, Sentence};
pub use features::Observation;
use features::{Baseline, FEATURES, FOREST_ODD, Features, Tally, Z_ODD};

/// Length of a window.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Windows of a peer that are looked at together; only those in which it was observed count.
const HISTORY: u32 = 5;
/// The bits of those windows.
const RECENT: u8 = (1 << HISTORY) - 1;
/// So many of them above the threshold, and one hard event among them, make a quarantine.
const CONSPICUOUS: u32 = 3;
/// Samples before anybody is scored.
const FEW: usize = 32;
/// The forest is trained again after so long.
const RETRAIN: Duration = Duration::from_secs(3600);
/// A peer not observed for so long is forgotten.
const IDLE: Duration = Duration::from_secs(6 * 3600);
/// A peer's share of failures above the usual one and this adds to its sum.
const CUSUM_SLACK: f32 = 0.2;
/// The sum at which it is conspicuous.
const CUSUM_LIMIT: f32 = 1.0;

/// How much a [`Judge`] remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgeConfig {
    /// Peers watched.
    pub peers: usize,
    /// Samples (one per peer and window, 32 bytes) kept as the baseline and to train the forest.
    pub samples: usize,
    /// Trees of the forest (about 3 KiB each); 0 for none.
    pub trees: usize,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self { peers: 1024, samples: 2000, trees: TREES }
    }
}

/// What one window says about a peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// Whom.
    pub peer: PeerId,
    /// How many robust standard deviations it is off.
    pub z: f64,
    /// The forest's score, if there is a forest.
    pub forest: Option<f64>,
    /// Its sum of unusual failures.
    pub cusum: f64,
    /// Whether any of them is above its threshold.
    pub above: bool,
    /// Whether it did something in this window that no statistics is needed for.
    pub hard: bool,
    /// What follows; `None`: nothing.
    pub sentence: Option<Sentence>,
}

/// Watches peers and keeps the quarantine.
#[derive(Debug, Clone)]
pub struct Judge {
    config: JudgeConfig,
    seed: u64,
    peers: BTreeMap<PeerId, Watch>,
    samples: VecDeque<Features>,
    /// Samples taken since the baseline was made.
    fresh: usize,
    baseline: Option<Baseline>,
    forest: Option<(Duration, Forest<FEATURES>)>,
    quarantine: Quarantine,
    forgotten: u64,
}

#[derive(Debug, Clone, Copy)]
struct Watch {
    tally: Tally,
    /// In seconds of the monotonic clock.
    first_seen: u32,
    last_seen: u32,
    cusum: f32,
    /// One bit per window, the last one lowest.
    above: u8,
    hard: u8,
}

impl Watch {
    /// Three windows of the last five above the threshold *and* a hard event in one of the five.
    const fn guilty(&self) -> bool {
        (self.above & RECENT).count_ones() >= CONSPICUOUS && self.hard & RECENT != 0
    }
}

fn seconds(now: Now) -> u32 {
    u32::try_from(now.mono.as_secs()).unwrap_or(u32::MAX)
}

impl Judge {
    /// Knows nobody; the seed is for the forest only.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_config(seed, JudgeConfig::default())
    }

    /// As [`Judge::new`], with other bounds.
    #[must_use]
    pub fn with_config(seed: u64, config: JudgeConfig) -> Self {
        let (peers, samples) = (BTreeMap::new(), VecDeque::new());
        let (baseline, forest, quarantine) = (None, None, Quarantine::new());
        Self { config, seed, peers, samples, fresh: 0, baseline, forest, quarantine, forgotten: 0 }
    }

    /// Takes one exchange with a peer into account.
    pub fn observe(&mut self, now: Now, peer: &PeerId, observation: &Observation) {
        self.make_room(peer);
        let at = seconds(now);
        let new = Watch { tally: Tally::default(), first_seen: at, last_seen: at, cusum: 0.0, above: 0, hard: 0 };
        let watch = self.peers.entry(*peer).or_insert(new);
        watch.last_seen = at;
        watch.tally.add(observation);
    }

    /// Ends the window: judges all peers observed in it and puts into quarantine whom it must. Call every [`WINDOW`].
    pub fn close_window(&mut self, now: Now, table_len: usize) -> Vec<Judgement> {
        self.quarantine.fit(now, table_len);
        let idle = seconds(now).saturating_sub(u32::try_from(IDLE.as_secs()).unwrap_or(u32::MAX));
        self.peers.retain(|_, watch| watch.last_seen >= idle);
        let seen: Vec<(PeerId, Features)> = self.collect(now);
        self.learn(now, &seen);
        seen.iter().filter_map(|(peer, features)| self.judge(now, table_len, peer, features)).collect()
    }

    /// A peer is proven to have lied, by its own signatures: quarantine at once, in a suspect's place if need be.
    pub fn prove(&mut self, now: Now, peer: &PeerId, table_len: usize) -> Sentence {
        self.quarantine.hold(now, peer, true, table_len)
    }

    /// Whether the peer is left out of lookups, and its contacts ignored.
    #[must_use]
    pub fn quarantined(&self, now: Now, peer: &PeerId) -> bool {
        self.quarantine.holds(now, peer)
    }

    /// To be told whenever contacts leave the table, so that the quarantine never is more than a fifth of it.
    pub fn table_changed(&mut self, now: Now, table_len: usize) {
        self.quarantine.fit(now, table_len);
    }

    /// A peer to be asked something checkable before its release, if one is due.
    pub fn next_probe(&mut self, now: Now) -> Option<PeerId> {
        self.quarantine.next_probe(now)
    }

    /// The answer to that: good, or wrong. Silence is not told.
    pub fn probed(&mut self, now: Now, peer: &PeerId, good: bool) {
        self.quarantine.probed(now, peer, good);
    }

    /// The quarantine, to be looked at.
    #[must_use]
    pub const fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// How many peers are watched.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.peers.len()
    }

    /// How many peers were dropped because too many were watched.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether a forest was trained.
    #[must_use]
    pub const fn has_forest(&self) -> bool {
        self.forest.is_some()
    }

    /// Takes the tallies of all peers observed in this window, in the order of their PeerIDs.
    fn collect(&mut self, now: Now) -> Vec<(PeerId, Features)> {
        let at = seconds(now);
        let observed = self.peers.iter_mut().filter(|(_, watch)| !watch.tally.is_empty());
        observed
            .map(|(peer, watch)| {
                watch.above <<= 1;
                watch.hard = (watch.hard << 1) | u8::from(watch.tally.hard());
                let features = watch.tally.features(at.saturating_sub(watch.first_seen));
                watch.tally = Tally::default();
                (*peer, features)
            })
            .collect()
    }

    /// Adds a window's samples and renews the baseline and the forest when they are old.
    fn learn(&mut self, now: Now, seen: &[(PeerId, Features)]) {
        for (_, features) in seen.iter().take(self.config.samples) {
            if self.samples.len() >= self.config.samples {
                self.samples.pop_front();
            }
            self.samples.push_back(*features);
            self.fresh += 1;
        }
        let stale = self.fresh * 8 >= self.samples.len();
        if self.samples.len() >= FEW && (stale || self.baseline.is_none()) {
            self.baseline = Some(Baseline::of(self.samples.make_contiguous()));
            self.fresh = 0;
        }
        let due = self.forest.as_ref().is_none_or(|(at, _)| now.mono >= at.saturating_add(RETRAIN));
        if due && self.config.trees > 0 {
            self.train(now);
        }
    }

    fn train(&mut self, now: Now) {
        let Some(baseline) = &self.baseline else { return };
        if self.samples.len() < crate::forest::SAMPLES {
            return;
        }
        let filled: Vec<Features> = self.samples.iter().map(|sample| baseline.excess(sample)).collect();
        // Another seed each time: nobody can learn the cuts by trying.
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        self.forest = Forest::train(&filled, self.config.trees, self.seed).map(|forest| (now.mono, forest));
    }

    fn judge(&mut self, now: Now, table_len: usize, peer: &PeerId, features: &Features) -> Option<Judgement> {
        let baseline = self.baseline.as_ref()?;
        let z = baseline.z(features);
        let forest = self.forest.as_ref().map(|(_, forest)| forest.score(&baseline.excess(features)));
        let watch = self.peers.get_mut(peer)?;
        watch.cusum = (watch.cusum + baseline.excess_failures(features) - CUSUM_SLACK).clamp(0.0, 2.0 * CUSUM_LIMIT);
        let above = z > Z_ODD || forest.is_some_and(|score| score > FOREST_ODD) || watch.cusum >= CUSUM_LIMIT;
        watch.above |= u8::from(above);
        let (hard, cusum) = (watch.hard & 1 == 1, f64::from(watch.cusum));
        let guilty = watch.guilty() && !self.quarantine.holds(now, peer);
        let sentence = guilty.then(|| self.quarantine.hold(now, peer, false, table_len));
        if matches!(sentence, Some(Sentence::Held { .. })) {
            // After its term it starts afresh.
            (watch.above, watch.hard, watch.cusum) = (0, 0, 0.0);
        }
        Some(Judgement { peer: *peer, z, forest, cusum, above, hard, sentence })
    }

    /// Drops the eighth that was observed longest ago when a new peer finds the memory full.
    fn make_room(&mut self, peer: &PeerId) {
        if self.peers.len() < self.config.peers.max(8) || self.peers.contains_key(peer) {
            return;
        }
        let mut oldest: Vec<(u32, PeerId)> = self.peers.iter().map(|(peer, watch)| (watch.last_seen, *peer)).collect();
        oldest.sort_unstable();
        oldest.truncate((oldest.len() / 8).max(1));
        for (_, peer) in &oldest {
            self.peers.remove(peer);
        }
        self.forgotten += oldest.len() as u64;
    }
}

#[cfg(test)]
mod tests;
