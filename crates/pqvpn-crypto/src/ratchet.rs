// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ratchets of a session: a hash chain per direction inside an epoch, a post-quantum step between epochs.
//!
//! An [`EpochChain`] yields the AEAD key of each hash phase and forgets the phase before; [`machine::Ratchet`] runs
//! the X25519 + ML-KEM-1024 step over the control stream that starts a new epoch (security.md 1.4, 1.7, 1.8).

pub mod machine;
mod message;
mod state;
#[cfg(test)]
mod tests;
mod timing;

use crate::aead::{AeadId, DataKey, KEY_LEN};
use crate::kdf::{Label, Secret, Sid};
use crate::schedule::Direction;
use zeroize::Zeroizing;

/// The hash chain of one direction in one epoch, standing at one phase (`CK[d,e,p]`).
///
/// A chain only moves forward: what an earlier phase was cannot be computed from it.
pub struct EpochChain {
    sid: Sid,
    direction: Direction,
    epoch: u32,
    phase: u32,
    key: Secret,
    #[cfg(feature = "no-encryption")]
    none: bool,
}

impl EpochChain {
    /// `CK[d,e,0] = Expand(RK_e, L("chain 0", d || u32 e), 64)`.
    pub(crate) fn start(root: &Secret, sid: Sid, direction: Direction, epoch: u32) -> Self {
        let key = root.expand_secret(&sid, Label::ChainStart, &[&[direction as u8], &epoch.to_be_bytes()]);
        Self {
            sid,
            direction,
            epoch,
            phase: 0,
            key,
            #[cfg(feature = "no-encryption")]
            none: false,
        }
    }

    /// From here on its keys neither encrypt nor authenticate. For benches alone: no program but theirs has the feature.
    #[cfg(feature = "no-encryption")]
    #[must_use]
    pub fn without_encryption(self) -> Self {
        Self { none: true, ..self }
    }

    /// The session this chain belongs to.
    #[must_use]
    pub const fn sid(&self) -> Sid {
        self.sid
    }

    /// Which way its packets travel.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// The ratchet epoch.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The hash phase whose key [`Self::data_key`] gives.
    #[must_use]
    pub const fn phase(&self) -> u32 {
        self.phase
    }

    /// The AEAD key of the current phase.
    #[must_use]
    pub fn data_key(&self, aead: AeadId) -> DataKey {
        self.key_of(&self.key, self.phase, aead)
    }

    /// Steps one phase forward and erases the phase before.
    pub fn advance(&mut self) {
        self.key = self.key_after(&self.key, self.phase);
        self.phase += 1;
    }

    /// The AEAD key `ahead` phases from here, without moving: for a packet that is not authenticated yet.
    /// Costs `ahead + 1` derivations.
    #[must_use]
    pub fn peek_key(&self, aead: AeadId, ahead: u16) -> DataKey {
        let mut walked: Option<Secret> = None;
        let mut phase = self.phase;
        for _ in 0..ahead {
            walked = Some(self.key_after(walked.as_ref().unwrap_or(&self.key), phase));
            phase += 1;
        }
        self.key_of(walked.as_ref().unwrap_or(&self.key), phase, aead)
    }

    fn key_of(&self, chain: &Secret, phase: u32, aead: AeadId) -> DataKey {
        #[cfg(feature = "no-encryption")]
        if self.none {
            return DataKey::none();
        }
        DataKey::new(aead, &self.key_bytes(chain, phase))
    }

    /// `DK[d,e,p] = Expand(CK[d,e,p], L("data key", d || u32 e || u32 p), 64)[0..32]`.
    fn key_bytes(&self, chain: &Secret, phase: u32) -> Zeroizing<[u8; KEY_LEN]> {
        // Both lengths are one HKDF block, so the first 32 bytes are the same.
        chain.expand(&self.sid, Label::DataKey, &[&self.context(phase)])
    }

    /// `d || u32 e || u32 p`.
    fn context(&self, phase: u32) -> [u8; 9] {
        let mut context = [self.direction as u8; 9];
        context[1..5].copy_from_slice(&self.epoch.to_be_bytes());
        context[5..].copy_from_slice(&phase.to_be_bytes());
        context
    }

    /// `CK[d,e,p+1] = Expand(CK[d,e,p], L("chain", d || u32 e || u32 p), 64)`.
    fn key_after(&self, chain: &Secret, phase: u32) -> Secret {
        chain.expand_secret(&self.sid, Label::Chain, &[&self.context(phase)])
    }
}

impl std::fmt::Debug for EpochChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EpochChain")
            .field("direction", &self.direction)
            .field("epoch", &self.epoch)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}
