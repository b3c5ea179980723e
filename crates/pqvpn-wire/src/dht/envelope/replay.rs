// SPDX-License-Identifier: MIT OR Apache-2.0
//! Remembers the nonces of recent messages, so that none counts twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pqvpn_crypto::peer_id::PeerId;
use thiserror::Error;

use super::MAX_SKEW_MS;

/// Most nonces remembered of one peer: 17 messages a second for as long as they are remembered.
pub const REPLAY_PER_PEER: usize = 4096;
/// Most nonces remembered in all.
pub const REPLAY_TOTAL: usize = 64 * 1024;
/// How long a nonce is remembered: as long as its message could still pass for fresh.
const KEPT_MS: u64 = 2 * MAX_SKEW_MS;

/// Why a nonce is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The message came before.
    #[error("the message was seen before")]
    Replayed,
    /// The peer sends faster than its messages can be remembered.
    #[error("too many messages to remember")]
    Full,
}

impl ReplayError {
    /// A short name for counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Full => "replay-full",
        }
    }
}

/// The nonces of the last [`MAX_SKEW_MS`] twice over, bounded per peer and in all.
///
/// A full table makes room at the cost of the peer that fills most of it: a hundred loud identities do not silence the
/// rest. What that peer could replay then are its own messages, over its own link.
#[derive(Debug)]
pub struct ReplayGuard {
    per_peer: usize,
    total: usize,
    peers: BTreeMap<PeerId, Nonces>,
    /// Number of nonces, and whose: the loudest is last.
    by_count: BTreeSet<(usize, PeerId)>,
    /// Arrival of the oldest nonce, and whose: the next to forget is first.
    by_age: BTreeSet<(u64, PeerId)>,
    len: usize,
}

#[derive(Debug, Default)]
struct Nonces {
    seen: BTreeSet<[u8; 16]>,
    order: VecDeque<(u64, [u8; 16])>,
}

impl Default for ReplayGuard {
    fn default() -> Self {
        Self::with_bounds(REPLAY_PER_PEER, REPLAY_TOTAL)
    }
}

impl ReplayGuard {
    /// Makes an empty guard with the bounds [`REPLAY_PER_PEER`] and [`REPLAY_TOTAL`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty guard that remembers at most `per_peer` nonces of one peer and `total` of all; both at least 1.
    #[must_use]
    pub fn with_bounds(per_peer: usize, total: usize) -> Self {
        Self {
            per_peer: per_peer.max(1),
            total: total.max(1),
            peers: BTreeMap::new(),
            by_count: BTreeSet::new(),
            by_age: BTreeSet::new(),
            len: 0,
        }
    }

    /// Takes note of a message whose envelope stood every check; `now_ms` is the wall clock the envelope was judged by.
    ///
    /// # Errors
    /// [`ReplayError::Replayed`] if the peer's nonce is known, [`ReplayError::Full`] if the peer has used up its share.
    pub fn check(&mut self, now_ms: u64, from: &PeerId, nonce: &[u8; 16]) -> Result<(), ReplayError> {
        self.forget(now_ms);
        let count = self.peers.get(from).map_or(0, |nonces| nonces.order.len());
        if self.peers.get(from).is_some_and(|nonces| nonces.seen.contains(nonce)) {
            return Err(ReplayError::Replayed);
        }
        if count >= self.per_peer {
            return Err(ReplayError::Full);
        }
        if self.len >= self.total {
            let (most, loudest) = self.by_count.last().copied().ok_or(ReplayError::Full)?;
            if most <= count.saturating_add(1) {
                return Err(ReplayError::Full);
            }
            self.change(&loudest, Nonces::drop_oldest);
        }
        self.change(from, |nonces| {
            nonces.seen.insert(*nonce);
            nonces.order.push_back((now_ms, *nonce));
        });
        Ok(())
    }

    /// How many nonces are remembered.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn forget(&mut self, now_ms: u64) {
        let old = |at: u64| now_ms.saturating_sub(at) > KEPT_MS;
        while let Some((_, peer)) = self.by_age.first().copied().filter(|(at, _)| old(*at)) {
            self.change(&peer, |nonces| {
                nonces.drop_oldest();
                while nonces.order.front().is_some_and(|(at, _)| old(*at)) {
                    nonces.drop_oldest();
                }
            });
        }
    }

    /// Changes the nonces of one peer and keeps the indices true.
    fn change(&mut self, peer: &PeerId, change: impl FnOnce(&mut Nonces)) {
        let mut nonces = self.peers.remove(peer).unwrap_or_default();
        let before = nonces.order.len();
        self.by_count.remove(&(before, *peer));
        if let Some((oldest, _)) = nonces.order.front() {
            self.by_age.remove(&(*oldest, *peer));
        }
        change(&mut nonces);
        let after = nonces.order.len();
        self.len = (self.len + after).saturating_sub(before);
        if let Some((oldest, _)) = nonces.order.front() {
            self.by_count.insert((after, *peer));
            self.by_age.insert((*oldest, *peer));
            self.peers.insert(*peer, nonces);
        }
    }
}

impl Nonces {
    fn drop_oldest(&mut self) {
        if let Some((_, nonce)) = self.order.pop_front() {
            self.seen.remove(&nonce);
        }
    }
}
