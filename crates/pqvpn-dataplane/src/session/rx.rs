// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiving half: the algorithm of security.md 1.6 in its order, state changes only after an authentic packet.

use super::keys::{EpochKeys, Fading, READY, check_follows};
use super::{COUNTER_MAX, DEEP_JUMPS_PER_SEC, EpochMismatch, FORGERY_LIMIT, PHASE_JUMP_MAX, PREV_KEEP};
use pqvpn_crypto::aead::AeadId;
use pqvpn_crypto::header::{HeaderKey, HeaderSecret, LANES, MASK_LEN, SAMPLE_LEN};
use pqvpn_crypto::ratchet::EpochChain;
use pqvpn_packet::header::{HEADER_LEN, Header, OVERHEAD, PacketKind, apply_mask, sample_of};
use pqvpn_packet::replay::{ReplayError, ReplayWindow};
use std::time::{Duration, Instant};

/// Why a received packet is dropped, silently but counted. The network or the peer is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Shorter than header and tag.
    #[error("packet is shorter than header and tag")]
    Short,
    /// A packet with this counter was accepted before.
    #[error("packet is a replay")]
    Replay,
    /// The counter lies behind the replay window.
    #[error("packet counter is behind the replay window")]
    TooOld,
    /// No key is held for the packet's epoch and phase: not yet, or not any more.
    #[error("no key for the packet's epoch and phase")]
    UnknownEpoch,
    /// The phase lies more than [`PHASE_JUMP_MAX`] ahead.
    #[error("packet phase is too far ahead")]
    PhaseJump,
    /// The packet would need a derivation that the session's budget does not allow now.
    #[error("too many packets far ahead")]
    RateLimited,
    /// Not authentic; also an unknown kind or a counter no sender reaches.
    #[error("packet is not authentic")]
    Auth,
    /// The session saw [`FORGERY_LIMIT`] packets that were not authentic: it must be closed.
    #[error("session reached its forgery limit")]
    ForgeryLimit,
}

/// An authentic packet, decrypted in place.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'p> {
    /// What the plaintext is.
    pub kind: PacketKind,
    /// The plaintext within the caller's buffer.
    pub plaintext: &'p mut [u8],
    /// The packet's counter.
    pub counter: u64,
    /// Whether no authentic packet had a higher counter: only such a packet may move the peer's path.
    pub newest: bool,
    /// The epoch, when this is its first authentic packet.
    pub first_of_epoch: Option<u32>,
}

/// The receiving half of a session.
pub struct RxSession {
    aead: AeadId,
    header_key: HeaderKey,
    window: ReplayWindow,
    current: EpochKeys,
    /// The next epoch, from the ratchet's staging until its first authentic packet.
    staged: Option<EpochKeys>,
    /// The epoch before and its end: what it still sent may be under way, in phases not seen yet too.
    ending: Option<(EpochKeys, Instant)>,
    fading: Fading,
    prev_keep: Duration,
    deep_jumps: TokenBucket,
    /// Later phases that authentic packets may bring it to.
    steps: TokenBucket,
    forged: u64,
}

/// Where the key of a packet was found.
#[derive(Clone, Copy)]
enum Slot {
    /// Current epoch, this many phases ahead.
    Current(u16),
    /// Staged epoch, this many phases ahead.
    Staged(u16),
    /// Ending epoch, this many phases ahead.
    Ending(u16),
    /// A phase before the current one of its epoch.
    Fading,
}

impl Slot {
    /// Whether a packet of it, if authentic, is followed to another phase.
    const fn steps(self) -> bool {
        matches!(self, Self::Current(1..) | Self::Staged(1..) | Self::Ending(1..))
    }
}

impl RxSession {
    /// Starts at the chain's epoch and phase with an empty replay window of `window_bits`.
    #[must_use]
    pub fn new(aead: AeadId, header: HeaderSecret, chain: EpochChain, window_bits: usize, now: Instant) -> Self {
        Self {
            aead,
            header_key: HeaderKey::new(aead, header),
            window: ReplayWindow::new(window_bits),
            current: EpochKeys::new(aead, chain),
            staged: None,
            ending: None,
            fading: Fading::new(),
            prev_keep: *PREV_KEEP.start(),
            deep_jumps: TokenBucket::full(now),
            steps: TokenBucket::full(now),
            forged: 0,
        }
    }

    /// Makes the next epoch receivable beside the current one, which ends with the first authentic packet of the next.
    ///
    /// # Errors
    /// [`EpochMismatch`] when the chain is not the next one of this session; nothing changes then.
    pub fn stage_epoch(&mut self, chain: EpochChain, now: Instant) -> Result<(), EpochMismatch> {
        let newest = self.staged.as_ref().unwrap_or(&self.current).epoch();
        check_follows(self.current.chain(), &chain, newest)?;
        // A peer that steps again has left the epoch before, even if it never sent in the one between.
        self.adopt_staged(now);
        self.staged = Some(EpochKeys::new(self.aead, chain));
        Ok(())
    }

    /// Opens `packet` (a whole datagram) in place. `now` is read once per batch.
    ///
    /// The order is security.md 1.6: window, key, AEAD, and only then any change of state.
    ///
    /// # Errors
    /// [`OpenError`]; the packet's bytes are unspecified then.
    pub fn open<'p>(&mut self, now: Instant, packet: &'p mut [u8]) -> Result<Opened<'p>, OpenError> {
        self.open_with(now, packet, None)
    }

    /// [`Self::open`] where the packet's header mask may be there already, from [`Self::masks`].
    pub(crate) fn open_with<'p>(
        &mut self,
        now: Instant,
        packet: &'p mut [u8],
        mask: Option<[u8; MASK_LEN]>,
    ) -> Result<Opened<'p>, OpenError> {
        if self.forged >= FORGERY_LIMIT {
            return Err(OpenError::ForgeryLimit);
        }
        let (aad, header) = self.unmask(packet, mask)?;
        self.window.check(header.counter)?;
        let slot = self.find_slot(now, &header)?;
        let sealed = &mut packet[HEADER_LEN..];
        let (opened, is_ready) = match self.ready_key(slot, &header) {
            Some(key) => (key.open_in_place(header.counter, &aad, sealed), true),
            None => (self.derive_key(now, slot)?.open_in_place(header.counter, &aad, sealed), false),
        };
        let Ok(plaintext) = opened else {
            return Err(self.count_forgery());
        };
        // Keys that are at hand cost as much to replace: a peer may not step with each packet. What others forge takes
        // nothing from this.
        if is_ready && slot.steps() && !self.steps.take(now) {
            return Err(OpenError::RateLimited);
        }
        let newest = self.window.is_newest(header.counter);
        self.window.mark(header.counter);
        let first_of_epoch = self.commit(now, slot);
        Ok(Opened { kind: header.kind, plaintext, counter: header.counter, newest, first_of_epoch })
    }

    /// Opens nothing any more, from now on.
    pub(crate) const fn close(&mut self) {
        self.forged = FORGERY_LIMIT;
    }

    /// Sets how long the keys before a change are kept, clamped to [`PREV_KEEP`].
    pub fn set_prev_keep(&mut self, keep: Duration) {
        self.prev_keep = keep.clamp(*PREV_KEEP.start(), *PREV_KEEP.end());
    }

    /// Erases previous keys whose time is over. [`Self::open`] does this too; an idle receiver calls it at
    /// [`Self::next_expiry`].
    pub fn erase_expired(&mut self, now: Instant) {
        self.fading.expire(now);
        if self.ending.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.ending = None;
        }
    }

    /// When the next previous key is to be erased.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        let ending = self.ending.as_ref().map(|(_, until)| *until);
        ending.into_iter().chain(self.fading.next_expiry()).min()
    }

    /// The epoch of the newest authentic packet.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.current.epoch()
    }

    /// The hash phase of the newest authentic packet.
    #[must_use]
    pub const fn phase(&self) -> u32 {
        self.current.phase()
    }

    /// How many packets failed to open under a key of this session.
    #[must_use]
    pub const fn forged(&self) -> u64 {
        self.forged
    }

    /// The header masks of packets that are looked at soon, made side by side.
    pub(crate) fn masks(&self, samples: [&[u8; SAMPLE_LEN]; LANES]) -> [[u8; MASK_LEN]; LANES] {
        self.header_key.masks(samples)
    }

    /// Removes header protection; returns the header as authenticated and as decoded.
    fn unmask(&self, packet: &[u8], mask: Option<[u8; MASK_LEN]>) -> Result<([u8; HEADER_LEN], Header), OpenError> {
        if packet.len() < OVERHEAD {
            return Err(OpenError::Short);
        }
        let (Some(sample), Some(masked)) = (sample_of(packet), packet.first_chunk::<HEADER_LEN>()) else {
            return Err(OpenError::Short);
        };
        let mut bytes = *masked;
        apply_mask(&mut bytes, &mask.unwrap_or_else(|| self.header_key.mask(sample)));
        match Header::decode(&bytes) {
            Ok(header) if header.counter < COUNTER_MAX => Ok((bytes, header)),
            // Garbage: no key was tried, so it takes nothing from the forgery limit.
            Ok(_) | Err(_) => Err(OpenError::Auth),
        }
    }

    /// Which key the header asks for; derives nothing.
    fn find_slot(&mut self, now: Instant, header: &Header) -> Result<Slot, OpenError> {
        self.erase_expired(now);
        let ahead = |keys: Option<&EpochKeys>| {
            keys.filter(|keys| keys.epoch() as u8 == header.epoch_lo)?.ahead(header.phase_lo)
        };
        let slot = ahead(self.staged.as_ref())
            .map(Slot::Staged)
            .or_else(|| ahead(Some(&self.current)).map(Slot::Current))
            .or_else(|| ahead(self.ending.as_ref().map(|(keys, _)| keys)).map(Slot::Ending));
        match slot {
            Some(Slot::Staged(ahead) | Slot::Current(ahead) | Slot::Ending(ahead)) if ahead > PHASE_JUMP_MAX => {
                Err(OpenError::PhaseJump)
            }
            Some(slot) => Ok(slot),
            None if self.fading.find(header.epoch_lo, header.phase_lo).is_some() => Ok(Slot::Fading),
            None => Err(OpenError::UnknownEpoch),
        }
    }

    /// The key of a slot when it is at hand; `None` when it must be derived.
    fn ready_key(&self, slot: Slot, header: &Header) -> Option<&pqvpn_crypto::aead::DataKey> {
        match slot {
            Slot::Current(ahead) => self.current.ready(ahead),
            Slot::Staged(ahead) => self.staged.as_ref()?.ready(ahead),
            Slot::Ending(ahead) => self.ending.as_ref()?.0.ready(ahead),
            Slot::Fading => self.fading.find(header.epoch_lo, header.phase_lo),
        }
    }

    /// Derives the key of a slot far ahead, if the budget allows.
    fn derive_key(&mut self, now: Instant, slot: Slot) -> Result<pqvpn_crypto::aead::DataKey, OpenError> {
        let (keys, ahead) = match slot {
            Slot::Current(ahead) => (Some(&self.current), ahead),
            Slot::Staged(ahead) => (self.staged.as_ref(), ahead),
            Slot::Ending(ahead) => (self.ending.as_ref().map(|(keys, _)| keys), ahead),
            Slot::Fading => (None, 0),
        };
        let keys = keys.filter(|_| ahead >= READY).ok_or(OpenError::UnknownEpoch)?;
        if !self.deep_jumps.take(now) {
            return Err(OpenError::RateLimited);
        }
        Ok(keys.derive(ahead))
    }

    /// Moves phase and epoch to where an authentic packet was; returns the epoch it opened.
    fn commit(&mut self, now: Instant, slot: Slot) -> Option<u32> {
        match slot {
            Slot::Fading | Slot::Current(0) => None,
            Slot::Current(ahead) => {
                self.current.commit(ahead, &mut self.fading, now + self.prev_keep);
                None
            }
            Slot::Staged(ahead) => {
                self.adopt_staged(now);
                self.current.commit(ahead, &mut self.fading, now + self.prev_keep);
                Some(self.current.epoch())
            }
            Slot::Ending(ahead) => {
                if let Some((keys, until)) = &mut self.ending {
                    keys.commit(ahead, &mut self.fading, *until);
                }
                None
            }
        }
    }

    /// Makes the staged epoch the current one, if there is one.
    fn adopt_staged(&mut self, now: Instant) {
        if let Some(next) = self.staged.take() {
            let ended = std::mem::replace(&mut self.current, next);
            self.ending = Some((ended, now + self.prev_keep));
        }
    }

    /// Counts a failed open.
    const fn count_forgery(&mut self) -> OpenError {
        self.forged += 1;
        OpenError::Auth
    }

    /// Sets the forgery count: a test cannot forge 2^32 packets.
    #[cfg(test)]
    pub(super) const fn set_forged(&mut self, forged: u64) {
        self.forged = forged;
    }
}

impl From<ReplayError> for OpenError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Replayed => Self::Replay,
            ReplayError::TooOld => Self::TooOld,
        }
    }
}

impl std::fmt::Debug for RxSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RxSession")
            .field("aead", &self.aead)
            .field("epoch", &self.epoch())
            .field("phase", &self.phase())
            .field("forged", &self.forged)
            .finish_non_exhaustive()
    }
}

/// [`DEEP_JUMPS_PER_SEC`] tokens a second, at most a tenth of a second's worth saved up.
struct TokenBucket {
    tokens: u32,
    filled: Instant,
}

impl TokenBucket {
    const BURST: u32 = DEEP_JUMPS_PER_SEC / 10;

    const fn full(now: Instant) -> Self {
        Self { tokens: Self::BURST, filled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let interval = Duration::from_secs(1) / DEEP_JUMPS_PER_SEC;
        let earned = now.saturating_duration_since(self.filled).as_nanos() / interval.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(Self::BURST);
            // What is left of an interval is not lost, what overflows the bucket is.
            self.filled = if self.tokens == Self::BURST { now } else { self.filled + interval * earned };
        }
        let Some(left) = self.tokens.checked_sub(1) else {
            return false;
        };
        self.tokens = left;
        true
    }
}
