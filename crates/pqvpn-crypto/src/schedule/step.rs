// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key derivation of one ratchet step, from two shared secrets and two messages to the next epoch's seed.

use super::{Psk, RatchetSeed, Transcript};
use crate::kdf::{self, Label, Secret};
use zeroize::Zeroizing;

/// What a step mixes into the current epoch.
pub(crate) struct StepInputs<'a> {
    /// `X25519(a, b)`.
    pub(crate) x25519: &'a [u8; 32],
    /// ML-KEM-1024 shared secret.
    pub(crate) kem: &'a [u8; 32],
    /// R1 as sent.
    pub(crate) r1: &'a [u8],
    /// R2 as sent, without its `mac_b`.
    pub(crate) r2: &'a [u8],
}

/// A step both sides can compute; not confirmed by the peer until one of the MACs was checked.
pub(crate) struct Step {
    next: RatchetSeed,
    mac_a: [u8; 32],
    mac_b: [u8; 32],
}

impl Step {
    /// Runs the derivation of security.md 1.4 from epoch e (`seed`) to e + 1. `PRK'` and `KC` do not outlive it.
    pub(crate) fn derive(seed: &RatchetSeed, inputs: &StepInputs<'_>) -> Self {
        let (sid, epoch) = (seed.sid, seed.epoch + 1);
        let number: [&[u8]; 1] = [&epoch.to_be_bytes()];
        let th = kdf::hash(b"ratchet", &[&seed.transcript.0, inputs.r1, inputs.r2]);
        let prk = Secret::extract(
            seed.root.expose(),
            &[&kdf::lp_len(32), inputs.x25519, &kdf::lp_len(32), inputs.kem, &kdf::lp_len(64), &th],
        );
        let confirm = prk.expand_secret(&sid, Label::Confirm, &number);
        let mac_a = kdf::mac(confirm.expose(), &[b"I", &th]);
        let mac_b = kdf::mac(confirm.expose(), &[b"R", &th]);
        let symmetric = prk.expand_secret(&sid, Label::Symmetric, &[]);
        let session = Secret::extract(seed.session.expose(), &[&mac_a, &mac_b, symmetric.expose()]);
        let next = RatchetSeed {
            sid,
            epoch,
            root: prk.expand_secret(&sid, Label::Root, &number),
            session: session.expand_secret(&sid, Label::Session, &number),
            transcript: Transcript(th),
        };
        Self { next, mac_a, mac_b }
    }

    /// The leader's confirmation, sent in R3.
    pub(crate) const fn mac_a(&self) -> &[u8; 32] {
        &self.mac_a
    }

    /// The follower's confirmation, the end of R2.
    pub(crate) const fn mac_b(&self) -> &[u8; 32] {
        &self.mac_b
    }

    /// The seed of the new epoch, for its chains.
    pub(crate) const fn next(&self) -> &RatchetSeed {
        &self.next
    }

    /// The seed of the new epoch; the old one is the caller's to drop.
    pub(crate) fn into_next(self) -> RatchetSeed {
        self.next
    }
}

impl RatchetSeed {
    /// `S_prev' = Expand(S_e, L("resume", ""), 32)`.
    pub(crate) fn resume_psk(&self) -> Psk {
        Psk(*self.session.expand::<32>(&self.sid, Label::Resume, &[]))
    }

    /// `HMAC-SHA-512(K_ctrl, message)[0..32]` with `K_ctrl = Expand(S_e, L("ctrl mac", ""), 32)`.
    pub(crate) fn control_mac(&self, message: &[u8]) -> [u8; 32] {
        kdf::mac(&self.control_key()[..], &[message])
    }

    /// `K_ctrl`.
    pub(crate) fn control_key(&self) -> Zeroizing<[u8; 32]> {
        self.session.expand::<32>(&self.sid, Label::Control, &[])
    }
}
