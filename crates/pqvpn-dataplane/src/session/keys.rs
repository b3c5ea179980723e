// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiver's keys: a few phases of one epoch ready, the last used ones fading out.

use super::EpochMismatch;
use pqvpn_crypto::aead::{AeadId, DataKey};
use pqvpn_crypto::ratchet::EpochChain;
use std::collections::VecDeque;
use std::time::Instant;

/// Keys held ready from the current phase on: the current one and two ahead.
pub(super) const READY: u16 = 3;
/// Most keys that fade out at a time; one is usual, more after phases of which every packet was lost.
const FADING: usize = 4;

/// Refuses a chain that is not the epoch after `current` of the same session and direction.
pub(super) fn check_follows(of: &EpochChain, next: &EpochChain, current: u32) -> Result<(), EpochMismatch> {
    if next.sid() != of.sid() {
        return Err(EpochMismatch::Session);
    }
    if next.direction() != of.direction() {
        return Err(EpochMismatch::Direction(next.direction()));
    }
    if current.checked_add(1) != Some(next.epoch()) || next.phase() != 0 {
        return Err(EpochMismatch::Epoch { current, got: next.epoch() });
    }
    Ok(())
}

/// The keys of one epoch from its current phase on. The chain stands behind the ready keys, so that no chain key of
/// a phase that can be received is left in memory.
pub(super) struct EpochKeys {
    aead: AeadId,
    phase: u32,
    ready: [DataKey; READY as usize],
    chain: EpochChain,
}

impl EpochKeys {
    pub(super) fn new(aead: AeadId, mut chain: EpochChain) -> Self {
        let phase = chain.phase();
        let ready = std::array::from_fn(|_| next_key(aead, &mut chain));
        Self { aead, phase, ready, chain }
    }

    pub(super) const fn epoch(&self) -> u32 {
        self.chain.epoch()
    }

    pub(super) const fn phase(&self) -> u32 {
        self.phase
    }

    pub(super) const fn chain(&self) -> &EpochChain {
        &self.chain
    }

    /// How many phases ahead of the current one `phase_lo` lies; `None` when it lies behind.
    pub(super) fn ahead(&self, phase_lo: u16) -> Option<u16> {
        let ahead = phase_lo.wrapping_sub(self.phase as u16);
        (ahead < 1 << 15).then_some(ahead)
    }

    /// The key `ahead` phases ahead when it is ready.
    pub(super) fn ready(&self, ahead: u16) -> Option<&DataKey> {
        self.ready.get(usize::from(ahead))
    }

    /// Derives the key of a phase beyond the ready ones; nothing is kept.
    pub(super) fn derive(&self, ahead: u16) -> DataKey {
        self.chain.peek_key(self.aead, ahead - READY)
    }

    /// Moves `ahead` phases on after an authentic packet; the keys passed over fade out.
    pub(super) fn commit(&mut self, ahead: u16, fading: &mut Fading, until: Instant) {
        for _ in 0..ahead {
            let fresh = next_key(self.aead, &mut self.chain);
            self.ready.rotate_left(1);
            let [.., last] = &mut self.ready;
            let passed = std::mem::replace(last, fresh);
            fading.push(self.chain.epoch(), self.phase, passed, until);
            self.phase += 1;
        }
    }
}

/// Takes the key the chain stands at and moves it on.
fn next_key(aead: AeadId, chain: &mut EpochChain) -> DataKey {
    let key = chain.data_key(aead);
    chain.advance();
    key
}

/// Keys of the phases before the current one, each until its time: packets sent under them may still be under way.
pub(super) struct Fading(VecDeque<(u32, u32, DataKey, Instant)>);

impl Fading {
    pub(super) fn new() -> Self {
        Self(VecDeque::with_capacity(FADING))
    }

    fn push(&mut self, epoch: u32, phase: u32, key: DataKey, until: Instant) {
        if self.0.len() == FADING {
            self.0.pop_front();
        }
        self.0.push_back((epoch, phase, key, until));
    }

    /// The key for the low bits of an epoch and phase.
    pub(super) fn find(&self, epoch_lo: u8, phase_lo: u16) -> Option<&DataKey> {
        let mut newest_first = self.0.iter().rev();
        newest_first.find(|(e, p, ..)| *e as u8 == epoch_lo && *p as u16 == phase_lo).map(|(_, _, key, _)| key)
    }

    /// Erases the keys whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|(.., until)| *until > now);
    }

    /// When the next key is to be erased.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        // Phases of two epochs end in no order.
        self.0.iter().map(|(.., until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pqvpn_crypto::schedule::{Exporter, Role, SessionSecrets, Transcript};

    use super::*;

    #[test]
    fn keys_of_two_epochs_end_each_at_its_own_time() {
        let secrets = SessionSecrets::derive(Exporter::from_bytes([1; 64]), Transcript::from_bytes([2; 64]), None);
        let mut chain = secrets.into_parts(Role::Initiator).rx;
        let mut key = || next_key(AeadId::ChaCha20Poly1305, &mut chain);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut fading = Fading::new();
        // A packet of the epoch that ends moves its phases on after the new one has.
        fading.push(1, 0, key(), at(15));
        fading.push(0, 7, key(), at(10));
        assert_eq!(fading.next_expiry(), Some(at(10)));
        fading.expire(at(10));
        assert!(fading.find(0, 7).is_none() && fading.find(1, 0).is_some());
        fading.expire(at(15));
        assert_eq!(fading.next_expiry(), None);
    }
}
