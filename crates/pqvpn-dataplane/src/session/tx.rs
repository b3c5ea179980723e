// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sending half: one key, one counter that never resets, phase steps between batches.

use super::{COUNTER_MAX, EPOCH_HARD, EPOCH_PKTS, EpochMismatch, PHASE_PKTS, PHASE_TIME, keys};
use pqvpn_crypto::aead::{AeadId, DataKey};
use pqvpn_crypto::header::{HeaderKey, HeaderSecret, LANES};
use pqvpn_crypto::kdf::Sid;
use pqvpn_crypto::ratchet::EpochChain;
use pqvpn_crypto::schedule::Direction;
use pqvpn_packet::header::{HEADER_LEN, Header, OVERHEAD, PacketKind, TAG_LEN, apply_mask, sample_of};
use std::{ops::Range, time::Instant};

/// Why a packet may not be sealed. The caller keeps it or drops it, and asks for what the variant says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealRefused {
    /// No ratchet step for [`EPOCH_HARD`]: a full handshake is due.
    #[error("the ratchet epoch is too old to send under")]
    EpochExpired,
    /// The counter reached [`COUNTER_MAX`]: a full handshake is due.
    #[error("the packet counter is used up")]
    CounterExhausted,
    /// More packets than [`TxSession::begin_batch`] announced (caller at fault).
    #[error("packet was not announced by begin_batch")]
    NotAnnounced,
    /// The buffer cannot hold header and tag, or its text is too long to seal (caller at fault).
    #[error("packet buffer has no room for header and tag, or is too long")]
    BadLength,
}

/// The sending half of a session.
pub struct TxSession {
    aead: AeadId,
    header_key: HeaderKey,
    /// Stands one phase ahead of `key`: the chain key of the phase in use is gone.
    chain: EpochChain,
    key: DataKey,
    phase: u32,
    /// The next packet's counter.
    counter: u64,
    /// Packets of the running batch that are still to come.
    announced: u32,
    phase_started: Instant,
    phase_packets: u64,
    epoch_started: Instant,
    epoch_packets: u64,
}

impl TxSession {
    /// Starts at the chain's epoch and phase with counter 0.
    #[must_use]
    pub fn new(aead: AeadId, header: HeaderSecret, mut chain: EpochChain, now: Instant) -> Self {
        let (phase, key) = (chain.phase(), chain.data_key(aead));
        chain.advance();
        Self {
            aead,
            header_key: HeaderKey::new(aead, header),
            chain,
            key,
            phase,
            counter: 0,
            announced: 0,
            phase_started: now,
            phase_packets: 0,
            epoch_started: now,
            epoch_packets: 0,
        }
    }

    /// Switches to the next epoch, after the ratchet said that the peer can decrypt it. The counter goes on.
    ///
    /// # Errors
    /// [`EpochMismatch`] when the chain is not the next one of this session; nothing changes then.
    pub fn start_epoch(&mut self, chain: EpochChain, now: Instant) -> Result<(), EpochMismatch> {
        keys::check_follows(&self.chain, &chain, self.epoch())?;
        self.chain = chain;
        self.step_phase(now);
        self.epoch_started = now;
        self.epoch_packets = 0;
        Ok(())
    }

    /// Announces up to `packets` calls of [`Self::seal`]; steps the hash phase when packets or time ask for it.
    ///
    /// # Errors
    /// [`SealRefused::EpochExpired`] or [`SealRefused::CounterExhausted`]: nothing may be sent any more.
    pub fn begin_batch(&mut self, now: Instant, packets: u32) -> Result<(), SealRefused> {
        self.announced = 0;
        if now.saturating_duration_since(self.epoch_started) >= EPOCH_HARD {
            return Err(SealRefused::EpochExpired);
        }
        if self.counter + u64::from(packets) > COUNTER_MAX {
            return Err(SealRefused::CounterExhausted);
        }
        if self.phase_packets + u64::from(packets) > PHASE_PKTS && self.phase_packets > 0 {
            self.step_phase(now);
        }
        self.retire_phase(now);
        self.announced = packets;
        Ok(())
    }

    /// Seals nothing any more, also of a batch already announced.
    pub(crate) const fn close(&mut self) {
        (self.announced, self.counter) = (0, COUNTER_MAX + 1);
    }

    /// Steps the hash phase when the current one was used and is older than [`PHASE_TIME`]. [`Self::begin_batch`]
    /// does this too; an idle sender calls it so that the key of its last packets does not linger.
    pub fn retire_phase(&mut self, now: Instant) {
        if self.phase_packets > 0 && now.saturating_duration_since(self.phase_started) >= PHASE_TIME {
            self.step_phase(now);
        }
    }

    /// Seals `packet` (16 bytes room, plaintext, 16 bytes room) in place for the peer's index `receiver` and returns
    /// its counter.
    ///
    /// # Errors
    /// [`SealRefused::NotAnnounced`] or [`SealRefused::BadLength`].
    pub fn seal(&mut self, receiver: u32, kind: PacketKind, packet: &mut [u8]) -> Result<u64, SealRefused> {
        let counter = self.seal_unmasked(receiver, kind, packet)?;
        self.mask(packet);
        Ok(counter)
    }

    /// [`Self::seal`] without header protection, for callers that mask a whole batch afterwards with [`Self::mask`].
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_unmasked(&mut self, receiver: u32, kind: PacketKind, packet: &mut [u8]) -> Result<u64, SealRefused> {
        if packet.len() < OVERHEAD {
            return Err(SealRefused::BadLength);
        }
        self.announced = self.announced.checked_sub(1).ok_or(SealRefused::NotAnnounced)?;
        let counter = self.counter;
        // Used up even when sealing fails: a nonce is never tried twice.
        self.counter += 1;
        self.phase_packets += 1;
        self.epoch_packets += 1;
        let header =
            Header { kind, epoch_lo: self.epoch() as u8, phase_lo: self.phase as u16, receiver, counter }.encode();
        let (head, body) = packet.split_at_mut(HEADER_LEN);
        let (text, tag) = body.split_at_mut(body.len() - TAG_LEN);
        head.copy_from_slice(&header);
        tag.copy_from_slice(&self.key.seal_in_place(counter, &header, text).map_err(|_| SealRefused::BadLength)?);
        Ok(counter)
    }

    /// Masks the header of a packet that [`Self::seal_unmasked`] sealed. A packet without room stays as it is.
    pub fn mask(&self, packet: &mut [u8]) {
        let Some(mask) = sample_of(packet).map(|sample| self.header_key.mask(sample)) else {
            return;
        };
        if let Some(header) = packet.first_chunk_mut() {
            apply_mask(header, &mask);
        }
    }

    /// [`Self::mask`] of datagrams in one storage, each at its range.
    pub(crate) fn mask_all(&self, storage: &mut [u8], packets: &[Range<usize>]) {
        let (groups, rest) = packets.as_chunks::<LANES>();
        for group in groups {
            let samples = group.each_ref().map(|range| sample_of(storage.get(range.clone()).unwrap_or_default()));
            let [Some(a), Some(b), Some(c), Some(d)] = samples else {
                group.iter().for_each(|range| self.mask(&mut storage[range.clone()]));
                continue;
            };
            for (range, mask) in group.iter().zip(self.header_key.masks([a, b, c, d])) {
                if let Some(header) = storage[range.clone()].first_chunk_mut() {
                    apply_mask(header, &mask);
                }
            }
        }
        rest.iter().for_each(|range| self.mask(&mut storage[range.clone()]));
    }

    /// Which keys it seals with: no two sessions have the same, and no counter comes twice under one.
    #[must_use]
    pub const fn key_id(&self) -> (Sid, Direction) {
        (self.chain.sid(), self.chain.direction())
    }

    /// The epoch packets are sealed under.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.chain.epoch()
    }

    /// The hash phase packets are sealed under.
    #[must_use]
    pub const fn phase(&self) -> u32 {
        self.phase
    }

    /// How many packets were sealed: the next counter.
    #[must_use]
    pub const fn counter(&self) -> u64 {
        self.counter
    }

    /// Whether the epoch carried so many packets that a ratchet step is due before its time.
    #[must_use]
    pub const fn wants_step(&self) -> bool {
        self.epoch_packets >= EPOCH_PKTS
    }

    /// Takes the key the chain stands at and moves the chain past it.
    fn step_phase(&mut self, now: Instant) {
        self.phase = self.chain.phase();
        self.key = self.chain.data_key(self.aead);
        self.chain.advance();
        self.phase_started = now;
        self.phase_packets = 0;
    }

    /// Sets the next counter: tests of the limits cannot send 2^60 packets.
    #[cfg(test)]
    pub(super) fn set_counter(&mut self, counter: u64) {
        self.counter = counter;
    }

    /// Sets the packets of the phase and epoch, for the same reason.
    #[cfg(test)]
    pub(super) fn set_packets(&mut self, phase: u64, epoch: u64) {
        (self.phase_packets, self.epoch_packets) = (phase, epoch);
    }
}

impl std::fmt::Debug for TxSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxSession")
            .field("aead", &self.aead)
            .field("epoch", &self.epoch())
            .field("phase", &self.phase)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}
