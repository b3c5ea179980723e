// SPDX-License-Identifier: MIT OR Apache-2.0
//! The four messages of the ratchet on the control stream (security.md 1.4): fixed lengths, no options.

use super::machine::RatchetAbort;

/// Length of an X25519 public key.
pub(super) const X25519_LEN: usize = 32;
/// Length of an ML-KEM-1024 encapsulation key, and of its ciphertext.
pub(super) const KEM_LEN: usize = 1568;
/// Length of a nonce and of a MAC.
pub(super) const WORD_LEN: usize = 32;
/// `kind || u32 epoch`.
const HEAD_LEN: usize = 5;
/// Length of R2 without its MAC, and of R1.
pub(super) const OFFER_LEN: usize = HEAD_LEN + X25519_LEN + KEM_LEN + WORD_LEN;
/// Length of R1 in bytes.
pub const R1_LEN: usize = OFFER_LEN;
/// Length of R2 in bytes.
pub const R2_LEN: usize = OFFER_LEN + WORD_LEN;
/// Length of R3 in bytes.
pub const R3_LEN: usize = HEAD_LEN + WORD_LEN;
/// Length of RATCHET_REQ in bytes.
pub const REQUEST_LEN: usize = HEAD_LEN;

const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const REQUEST: u8 = 4;

/// A well-formed message, naming the epoch it steps to.
pub(super) enum Message<'m> {
    /// The leader's offer.
    R1 { epoch: u32, offer: Offer<'m> },
    /// The follower's answer.
    R2 { epoch: u32, answer: Answer<'m> },
    /// The leader's confirmation.
    R3 { epoch: u32, mac: &'m [u8; WORD_LEN] },
    /// The follower asks the leader for a step.
    Request { epoch: u32 },
}

/// R1 taken apart.
#[derive(Clone, Copy)]
pub(super) struct Offer<'m> {
    /// R1 as it came.
    pub(super) bytes: &'m [u8; R1_LEN],
    /// `X_a`.
    pub(super) x25519: &'m [u8],
    /// `EK_a`.
    pub(super) kem_key: &'m [u8],
}

/// R2 taken apart.
#[derive(Clone, Copy)]
pub(super) struct Answer<'m> {
    /// R2 as it came.
    pub(super) bytes: &'m [u8; R2_LEN],
    /// R2 without its MAC: what the transcript covers.
    pub(super) covered: &'m [u8],
    /// `X_b`.
    pub(super) x25519: &'m [u8],
    /// `CT`.
    pub(super) kem_ciphertext: &'m [u8],
    /// `mac_b`.
    pub(super) mac: &'m [u8; WORD_LEN],
}

/// The bytes between head and nonce: key exchange share, then KEM key or ciphertext.
fn shares(body: &[u8]) -> (&[u8], &[u8]) {
    body[HEAD_LEN..HEAD_LEN + X25519_LEN + KEM_LEN].split_at(X25519_LEN)
}

impl<'m> Message<'m> {
    /// The epoch the message steps to.
    pub(super) const fn epoch(&self) -> u32 {
        match self {
            Self::R1 { epoch, .. } | Self::R2 { epoch, .. } | Self::R3 { epoch, .. } | Self::Request { epoch } => {
                *epoch
            }
        }
    }

    /// Takes a message apart.
    ///
    /// # Errors
    /// [`RatchetAbort::Malformed`]: unknown kind or wrong length.
    pub(super) fn decode(bytes: &'m [u8]) -> Result<Self, RatchetAbort> {
        let (&[kind, e0, e1, e2, e3], rest) = bytes.split_first_chunk().ok_or(RatchetAbort::Malformed)?;
        let epoch = u32::from_be_bytes([e0, e1, e2, e3]);
        match kind {
            R1 => {
                let bytes: &[u8; R1_LEN] = bytes.try_into().map_err(|_| RatchetAbort::Malformed)?;
                let (x25519, kem_key) = shares(bytes);
                Ok(Self::R1 { epoch, offer: Offer { bytes, x25519, kem_key } })
            }
            R2 => {
                let bytes: &[u8; R2_LEN] = bytes.try_into().map_err(|_| RatchetAbort::Malformed)?;
                let (covered, mac) = bytes.split_last_chunk().ok_or(RatchetAbort::Malformed)?;
                let (x25519, kem_ciphertext) = shares(covered);
                Ok(Self::R2 { epoch, answer: Answer { bytes, covered, x25519, kem_ciphertext, mac } })
            }
            R3 => Ok(Self::R3 { epoch, mac: rest.try_into().map_err(|_| RatchetAbort::Malformed)? }),
            REQUEST if rest.is_empty() => Ok(Self::Request { epoch }),
            _ => Err(RatchetAbort::Malformed),
        }
    }
}

/// Writes R1.
pub(super) fn r1(epoch: u32, x25519: &[u8], kem_key: &[u8], nonce: &[u8; WORD_LEN]) -> Vec<u8> {
    join(R1, epoch, &[x25519, kem_key, nonce])
}

/// Writes R2 without its MAC, which the caller appends.
pub(super) fn r2_covered(epoch: u32, x25519: &[u8], kem_ciphertext: &[u8], nonce: &[u8; WORD_LEN]) -> Vec<u8> {
    join(R2, epoch, &[x25519, kem_ciphertext, nonce])
}

/// Writes R3.
pub(super) fn r3(epoch: u32, mac: &[u8; WORD_LEN]) -> Vec<u8> {
    join(R3, epoch, &[mac])
}

/// Writes RATCHET_REQ.
pub(super) fn request(epoch: u32) -> Vec<u8> {
    join(REQUEST, epoch, &[])
}

fn join(kind: u8, epoch: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut message = Vec::with_capacity(R2_LEN);
    message.push(kind);
    message.extend_from_slice(&epoch.to_be_bytes());
    for part in parts {
        message.extend_from_slice(part);
    }
    message
}
