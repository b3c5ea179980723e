// SPDX-License-Identifier: MIT OR Apache-2.0
//! What we have seen of each peer ourselves, as a beta distribution with forgetting (security.md 7.6; Jøsang & Ismail 2002).

use std::collections::BTreeMap;

use pqvpn_crypto::peer_id::PeerId;

use crate::Now;

/// Peers remembered.
pub const MAX_PEERS: usize = 8192;
/// Peers remembered as proven liars; a proof needs the peer's own signatures, so nobody can fill this for others.
pub const MAX_BANNED: usize = 4096;
/// What is left of old deeds after each new one: half is forgotten in 138.
const FORGETTING: f32 = 0.995;
/// A newcomer: mean 0.5, and so wide that its lower bound is low.
const PRIOR: f32 = 1.0;

/// Something a peer did, seen at first hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deed {
    /// Answered a request as it should.
    ValidAnswer,
    /// Named a contact that was new and turned out to be alive.
    UsefulContact,
    /// Did not answer in time.
    Timeout,
    /// Sent something that cannot be read.
    Malformed,
    /// Passed on a record or fact whose signature is wrong; everybody checks before passing on.
    ForwardedBadSignature,
    /// Signed two different records of one sequence number: never trusted again.
    Equivocation,
}

impl Deed {
    /// What it adds: to the good side if positive, to the bad side if negative.
    const fn weight(self) -> f32 {
        match self {
            Self::ValidAnswer => 0.2,
            Self::UsefulContact => 0.1,
            Self::Timeout => -0.3,
            Self::Malformed => -1.0,
            Self::ForwardedBadSignature => -3.0,
            Self::Equivocation => f32::NEG_INFINITY,
        }
    }
}

/// The standing of every peer we dealt with. It orders candidates and weighs votes; it never replaces a check.
#[derive(Debug, Clone)]
pub struct Reputation {
    peers: BTreeMap<PeerId, Standing>,
    banned: BTreeMap<PeerId, u64>,
    capacity: usize,
    forgotten: u64,
}

#[derive(Debug, Clone, Copy)]
struct Standing {
    good: f32,
    bad: f32,
    /// When we last dealt with it, in ms of the monotonic clock.
    touched: u64,
}

impl Standing {
    const NEW: Self = Self { good: PRIOR, bad: PRIOR, touched: 0 };

    fn note(&mut self, weight: f32) {
        self.good = self.good.mul_add(FORGETTING, weight.max(0.0));
        self.bad = self.bad.mul_add(FORGETTING, (-weight).max(0.0));
    }

    fn mean(self) -> f64 {
        f64::from(self.good) / f64::from(self.good + self.bad)
    }

    /// Mean less one standard deviation of the beta distribution, at least 0.
    fn lower_bound(self) -> f64 {
        let total = f64::from(self.good + self.bad);
        let mean = self.mean();
        (mean - (mean * (1.0 - mean) / (total + 1.0)).sqrt()).max(0.0)
    }
}

impl Default for Reputation {
    fn default() -> Self {
        Self::new()
    }
}

impl Reputation {
    /// Nobody known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_capacity(MAX_PEERS)
    }

    /// As [`Reputation::new`], remembering at most `capacity` peers (at least 8).
    #[must_use]
    pub const fn with_capacity(capacity: usize) -> Self {
        let capacity = if capacity < 8 { 8 } else { capacity };
        Self { peers: BTreeMap::new(), banned: BTreeMap::new(), capacity, forgotten: 0 }
    }

    /// Takes a deed into account.
    pub fn note(&mut self, now: Now, peer: &PeerId, deed: Deed) {
        let at = u64::try_from(now.mono.as_millis()).unwrap_or(u64::MAX);
        if deed == Deed::Equivocation {
            self.peers.remove(peer);
            self.forgotten += make_room(&mut self.banned, peer, MAX_BANNED, |at| *at);
            self.banned.entry(*peer).or_insert(at);
        } else if !self.banned(peer) {
            self.forgotten += make_room(&mut self.peers, peer, self.capacity, |standing| standing.touched);
            let standing = self.peers.entry(*peer).or_insert(Standing::NEW);
            standing.note(deed.weight());
            standing.touched = at;
        }
    }

    /// How far to trust the peer, 0 to 1: 0.21 for a stranger, 0 for a proven liar.
    #[must_use]
    pub fn lower_bound(&self, peer: &PeerId) -> f64 {
        if self.banned(peer) { 0.0 } else { self.standing(peer).lower_bound() }
    }

    /// The mean of its distribution, 0 to 1: 0.5 for a stranger.
    #[must_use]
    pub fn mean(&self, peer: &PeerId) -> f64 {
        if self.banned(peer) { 0.0 } else { self.standing(peer).mean() }
    }

    /// Whether the peer was proven to have lied under its own signature.
    #[must_use]
    pub fn banned(&self, peer: &PeerId) -> bool {
        self.banned.contains_key(peer)
    }

    /// How many peers are remembered, proven liars not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// How many peers had to be forgotten because the memory was full.
    #[must_use]
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn standing(&self, peer: &PeerId) -> Standing {
        self.peers.get(peer).copied().unwrap_or(Standing::NEW)
    }
}

/// Drops the oldest eighth of a full map, unless `peer` is in it already; says how many went. An eighth at once, so that
/// a flood of new peers does not search the map for each.
fn make_room<V>(map: &mut BTreeMap<PeerId, V>, peer: &PeerId, capacity: usize, age: impl Fn(&V) -> u64) -> u64 {
    if map.len() < capacity || map.contains_key(peer) {
        return 0;
    }
    let mut oldest: Vec<(u64, PeerId)> = map.iter().map(|(peer, value)| (age(value), *peer)).collect();
    oldest.sort_unstable();
    oldest.truncate((capacity / 8).max(1));
    for (_, peer) in &oldest {
        map.remove(peer);
    }
    oldest.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), unix_ms: 0 }
    }

    fn peer(i: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&i.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    fn after(deeds: &[Deed]) -> f64 {
        let mut reputation = Reputation::new();
        deeds.iter().for_each(|deed| reputation.note(at(1), &peer(1), *deed));
        reputation.lower_bound(&peer(1))
    }

    #[test]
    fn a_stranger_has_the_mean_of_half_and_a_low_bound() {
        let reputation = Reputation::new();
        assert!((reputation.mean(&peer(1)) - 0.5).abs() < 1e-9);
        assert!((reputation.lower_bound(&peer(1)) - (0.5 - (1.0_f64 / 12.0).sqrt())).abs() < 1e-6);
    }

    #[test]
    fn deeds_weigh_what_the_design_says() {
        // One deed on Beta(1, 1): both sides shrink to 0.995, then the weight is added.
        for (deed, good, bad) in [
            (Deed::ValidAnswer, 0.2, 0.0),
            (Deed::UsefulContact, 0.1, 0.0),
            (Deed::Timeout, 0.0, 0.3),
            (Deed::Malformed, 0.0, 1.0),
            (Deed::ForwardedBadSignature, 0.0, 3.0),
        ] {
            let mut reputation = Reputation::new();
            reputation.note(at(1), &peer(1), deed);
            let expected = (0.995 + good) / (1.99 + good + bad);
            assert!((reputation.mean(&peer(1)) - expected).abs() < 1e-6, "{deed:?}");
        }
    }

    #[test]
    fn good_answers_raise_and_failures_lower_the_bound() {
        let stranger = after(&[]);
        assert!(after(&[Deed::ValidAnswer; 20]) > 0.6);
        assert!(after(&[Deed::ValidAnswer; 2000]) > 0.95);
        for bad in [Deed::Timeout, Deed::Malformed, Deed::ForwardedBadSignature] {
            assert!(after(&[bad; 3]) < stranger, "{bad:?}");
        }
        assert!(after(&[Deed::ForwardedBadSignature; 3]) < after(&[Deed::Timeout; 3]));
    }

    #[test]
    fn the_past_is_forgotten() {
        let mut deeds = vec![Deed::ValidAnswer; 1000];
        deeds.extend([Deed::Timeout; 500]);
        assert!(after(&deeds) < 0.15, "{}", after(&deeds));
        deeds.extend([Deed::ValidAnswer; 2000]);
        assert!(after(&deeds) > 0.9);
    }

    #[test]
    fn an_equivocator_is_never_trusted_again() {
        let mut reputation = Reputation::new();
        reputation.note(at(1), &peer(1), Deed::Equivocation);
        for _ in 0..1000 {
            reputation.note(at(2), &peer(1), Deed::ValidAnswer);
        }
        assert!(reputation.banned(&peer(1)) && !reputation.banned(&peer(2)));
        assert_eq!((reputation.lower_bound(&peer(1)), reputation.mean(&peer(1))), (0.0, 0.0));
    }

    #[test]
    fn the_oldest_are_forgotten_and_proven_liars_are_not_washed_out() {
        let mut reputation = Reputation::with_capacity(64);
        reputation.note(at(0), &peer(9999), Deed::Equivocation);
        for i in 0..1000 {
            reputation.note(at(u64::from(i) + 1), &peer(i), Deed::ValidAnswer);
            // An old acquaintance that stays in touch stays known.
            reputation.note(at(u64::from(i) + 1), &peer(5000), Deed::ValidAnswer);
            assert!(reputation.len() <= 64);
        }
        assert!(reputation.forgotten() >= 900);
        assert!(reputation.banned(&peer(9999)));
        assert!(reputation.lower_bound(&peer(5000)) > 0.9);
        assert!(reputation.lower_bound(&peer(999)) > reputation.lower_bound(&peer(0)));
    }

    #[test]
    fn even_proven_liars_are_bounded() {
        let mut reputation = Reputation::new();
        for i in 0..5000 {
            reputation.note(at(u64::from(i)), &peer(i), Deed::Equivocation);
        }
        assert!(reputation.banned.len() <= MAX_BANNED);
        assert!(reputation.banned(&peer(4999)) && !reputation.banned(&peer(0)) && reputation.forgotten() > 0);
    }
}
