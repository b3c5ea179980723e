// SPDX-License-Identifier: MIT OR Apache-2.0
//! The states of a ratchet, one struct each, consumed by the step that leaves them: an illegal order does not compile.
//!
//! ```text
//! leader    Stable --lead--> Leading --finish(R2)--> Stable
//! follower  Stable --follow(R1)--> Staged --finish--> Stable
//! ```
//! A state owns the secrets of its epoch and nothing else; leaving it erases them.

use super::machine::RatchetAbort;
use super::message::{self, Answer, Offer, R2_LEN, WORD_LEN};
use crate::schedule::{RatchetSeed, Step, StepInputs};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_1024};
use aws_lc_rs::rand;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Between steps: the seed of the epoch and the messages that led to it.
pub(super) struct Stable {
    pub(super) seed: RatchetSeed,
    pub(super) last: LastStep,
}

/// What must be repeated, and what must not be answered differently, after a completed step.
pub(super) enum LastStep {
    /// No step yet.
    None,
    /// This side led: a repeated R2 gets the same R3.
    Led { r2: Box<[u8; R2_LEN]>, r3: Vec<u8> },
    /// This side followed: a repeated R1 gets the same R2; the R3 still to come must carry this MAC.
    Followed { r1: Vec<u8>, r2: Vec<u8>, mac_a: [u8; WORD_LEN] },
}

/// The leader after R1: fresh private keys, waiting for R2.
pub(super) struct Leading {
    pub(super) seed: RatchetSeed,
    pub(super) last: LastStep,
    pub(super) r1: Vec<u8>,
    x25519: PrivateKey,
    kem: DecapsulationKey,
}

/// The follower after R2: the next epoch is computed, the old one still sends.
pub(super) struct Staged {
    pub(super) seed: RatchetSeed,
    pub(super) last: LastStep,
    pub(super) r1: Vec<u8>,
    pub(super) r2: Vec<u8>,
    step: Step,
}

impl Stable {
    /// Draws fresh keys and a nonce from the backend's generator and writes R1.
    ///
    /// # Errors
    /// [`RatchetAbort::Entropy`] when the backend cannot make a key.
    pub(super) fn lead(self) -> Result<Leading, RatchetAbort> {
        let entropy = |_| RatchetAbort::Entropy;
        let x25519 = PrivateKey::generate(&X25519).map_err(entropy)?;
        let kem = DecapsulationKey::generate(&ML_KEM_1024).map_err(entropy)?;
        let share = x25519.compute_public_key().map_err(entropy)?;
        let kem_key = kem.encapsulation_key().and_then(|key| key.key_bytes()).map_err(entropy)?;
        let r1 = message::r1(self.seed.epoch + 1, share.as_ref(), kem_key.as_ref(), &nonce()?);
        Ok(Leading { seed: self.seed, last: self.last, r1, x25519, kem })
    }

    /// Answers a leader's R1 with fresh keys and computes the next epoch.
    ///
    /// # Errors
    /// [`RatchetAbort::BadShare`] for a key the primitives refuse, [`RatchetAbort::Entropy`].
    pub(super) fn follow(self, offer: &Offer<'_>) -> Result<Staged, RatchetAbort> {
        let private = PrivateKey::generate(&X25519).map_err(|_| RatchetAbort::Entropy)?;
        let share = private.compute_public_key().map_err(|_| RatchetAbort::Entropy)?;
        let x25519 = agree(&private, offer.x25519)?;
        let (ciphertext, kem) = EncapsulationKey::new(&ML_KEM_1024, offer.kem_key)
            .map_err(|_| RatchetAbort::BadShare)?
            .encapsulate()
            .map_err(|_| RatchetAbort::BadShare)?;
        let mut r2 = message::r2_covered(self.seed.epoch + 1, share.as_ref(), ciphertext.as_ref(), &nonce()?);
        let kem = kem_secret(kem.as_ref())?;
        let step = Step::derive(&self.seed, &StepInputs { x25519: &x25519, kem: &kem, r1: offer.bytes, r2: &r2 });
        r2.extend_from_slice(step.mac_b());
        Ok(Staged { seed: self.seed, last: self.last, r1: offer.bytes.to_vec(), r2, step })
    }
}

impl Leading {
    /// Checks R2 and enters the next epoch; returns the R3 to send.
    ///
    /// # Errors
    /// [`RatchetAbort::BadShare`], or [`RatchetAbort::MacFailure`]: what ML-KEM's implicit rejection turns a bad
    /// ciphertext into. An attack, not noise.
    pub(super) fn finish(self, answer: &Answer<'_>) -> Result<Stable, RatchetAbort> {
        let x25519 = agree(&self.x25519, answer.x25519)?;
        let kem = self.kem.decapsulate(Ciphertext::from(answer.kem_ciphertext)).map_err(|_| RatchetAbort::BadShare)?;
        let kem = kem_secret(kem.as_ref())?;
        let inputs = StepInputs { x25519: &x25519, kem: &kem, r1: &self.r1, r2: answer.covered };
        let step = Step::derive(&self.seed, &inputs);
        if !bool::from(step.mac_b().ct_eq(answer.mac)) {
            return Err(RatchetAbort::MacFailure);
        }
        let r3 = message::r3(step.next().epoch, step.mac_a());
        Ok(Stable { seed: step.into_next(), last: LastStep::Led { r2: Box::new(*answer.bytes), r3 } })
    }
}

impl Staged {
    /// The seed of the epoch being entered.
    pub(super) const fn next(&self) -> &RatchetSeed {
        self.step.next()
    }

    /// Whether `mac` is the leader's confirmation.
    pub(super) fn confirms(&self, mac: &[u8; WORD_LEN]) -> bool {
        self.step.mac_a().ct_eq(mac).into()
    }

    /// Enters the next epoch: the leader showed, by R3 or by a packet, that it is there.
    pub(super) fn finish(self) -> Stable {
        let last = LastStep::Followed { r1: self.r1, r2: self.r2, mac_a: *self.step.mac_a() };
        Stable { seed: self.step.into_next(), last }
    }
}

/// X25519, refusing the all-zero output that small-order points give (RFC 7748 §6.1).
fn agree(private: &PrivateKey, peer: &[u8]) -> Result<Zeroizing<[u8; 32]>, RatchetAbort> {
    let peer = UnparsedPublicKey::new(&X25519, peer);
    agreement::agree(private, peer, RatchetAbort::BadShare, |shared| {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(shared.get(..32).ok_or(RatchetAbort::BadShare)?);
        if bool::from(secret.ct_eq(&[0; 32])) {
            return Err(RatchetAbort::BadShare);
        }
        Ok(secret)
    })
}

/// The 32 bytes of an ML-KEM shared secret.
fn kem_secret(shared: &[u8]) -> Result<Zeroizing<[u8; 32]>, RatchetAbort> {
    let mut bytes: [u8; 32] = shared.try_into().map_err(|_| RatchetAbort::BadShare)?;
    let secret = Zeroizing::new(bytes);
    bytes.zeroize();
    Ok(secret)
}

/// A fresh nonce from the backend's generator.
fn nonce() -> Result<[u8; WORD_LEN], RatchetAbort> {
    let mut nonce = [0; WORD_LEN];
    rand::fill(&mut nonce).map_err(|_| RatchetAbort::Entropy)?;
    Ok(nonce)
}
