// SPDX-License-Identifier: MIT OR Apache-2.0
//! "I hold the code of this invite", without telling the code: Schnorr's proof over ristretto255 (security.md 2.1).
//!
//! Not post-quantum: whoever breaks discrete logarithms finds the secret behind the point. It is never the only
//! authenticator; a join is signed with the composite key as well (security.md 2.0).

use std::fmt;

use curve25519_dalek::{
    constants::RISTRETTO_BASEPOINT_TABLE,
    ristretto::{CompressedRistretto, RistrettoPoint},
    scalar::Scalar,
    traits::IsIdentity,
};
use hkdf::Hkdf;
use merlin::Transcript;
use rand_core_06::{CryptoRng, RngCore, impls};
use sha2::{Digest, Sha512};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::peer_id::PeerId;

/// Label of the TLS exporter that binds a proof to its link; 32 bytes are exported.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-pqvpn-zk-v1";
/// Length of a proof in bytes: challenge, then response.
pub const PROOF_LEN: usize = 64;
/// Separates this transcript from every other.
const TRANSCRIPT: &[u8] = b"pqvpn/zk/schnorr/v1";
/// HKDF info of the private scalar.
const KEY_INFO: &[u8] = b"pqvpn/1 invite key";

/// What a proof is bound to: one network, one invite, one verifier, one prover, one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinContext([u8; 64]);

impl JoinContext {
    /// SHA-512(network id || serial || PeerID of the verifier || PeerID of the joiner || exporter).
    ///
    /// `exporter`: 32 bytes exported from the link's TLS under [`EXPORTER_LABEL`], without context.
    #[must_use]
    pub fn new(network: &[u8; 32], serial: &[u8; 16], verifier: &PeerId, joiner: &PeerId, exporter: &[u8; 32]) -> Self {
        let mut hash = Sha512::new();
        hash.update(network);
        hash.update(serial);
        hash.update(verifier.as_bytes());
        hash.update(joiner.as_bytes());
        hash.update(exporter);
        Self(hash.finalize().into())
    }

    /// The 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

/// The private scalar of an invite, derived from the secret in its code. Erased on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct InviteKey(Scalar);

impl InviteKey {
    /// `x = HKDF-SHA-512(secret, salt "", info "pqvpn/1 invite key", 64 bytes) mod l`.
    #[must_use]
    pub fn from_secret(secret: &[u8; 16]) -> Self {
        let mut wide = Zeroizing::new([0; 64]);
        Hkdf::<Sha512>::new(None, secret)
            .expand(KEY_INFO, wide.as_mut_slice())
            .expect("64 bytes are one block of HKDF-SHA-512");
        Self(Scalar::from_bytes_mod_order_wide(&wide))
    }

    /// `P = xG`, compressed: what the signed invite shows of the secret.
    #[must_use]
    pub fn point(&self) -> [u8; 32] {
        (&self.0 * RISTRETTO_BASEPOINT_TABLE).compress().to_bytes()
    }

    /// Proves knowledge of the secret in one context.
    ///
    /// `seed`: 32 fresh random bytes; the nonce depends on the secret and the context as well, so that a bad generator
    /// alone does not give the secret away.
    #[must_use]
    pub fn prove(&self, context: &JoinContext, seed: &[u8; 32]) -> SchnorrProof {
        let point = self.point();
        let mut transcript = transcript(context, &point);
        let mut wide = Zeroizing::new([0; 64]);
        transcript
            .build_rng()
            .rekey_with_witness_bytes(b"x", self.0.as_bytes())
            .finalize(&mut SeedRng(seed))
            .fill_bytes(wide.as_mut_slice());
        let nonce = Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide));
        let commitment = (&*nonce * RISTRETTO_BASEPOINT_TABLE).compress();
        let challenge = challenge(&mut transcript, &commitment);
        let response = *nonce + challenge * self.0;
        SchnorrProof { challenge: challenge.to_bytes(), response: response.to_bytes() }
    }
}

impl fmt::Debug for InviteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteKey(redacted)")
    }
}

/// Challenge and response, 32 bytes each, scalars in little-endian order; any bytes are legal until verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SchnorrProof {
    challenge: [u8; 32],
    response: [u8; 32],
}

impl SchnorrProof {
    /// Takes a proof from the wire.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; PROOF_LEN]) -> Self {
        let (challenge, response) = bytes.split_at(32);
        let half = |bytes: &[u8]| std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default());
        Self { challenge: half(challenge), response: half(response) }
    }

    /// Challenge, then response.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PROOF_LEN] {
        let mut out = [0; PROOF_LEN];
        out[..32].copy_from_slice(&self.challenge);
        out[32..].copy_from_slice(&self.response);
        out
    }
}

impl fmt::Debug for SchnorrProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SchnorrProof(..)")
    }
}

/// Why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The invite's point is not the one encoding of a point of the group.
    #[error("the invite's point is not a point")]
    Point,
    /// The invite's point or the commitment is the neutral element.
    #[error("the proof uses the neutral element")]
    Identity,
    /// Challenge or response is not reduced modulo the order of the group.
    #[error("the proof holds a scalar that is not reduced")]
    Scalar,
    /// The equation does not hold: another secret, another context, or changed bytes.
    #[error("the proof does not hold")]
    Equation,
}

/// Verifies a proof: `R = sG - cP`, then the challenge is computed again (security.md 2.1).
///
/// # Errors
/// [`ProofError`] names the first check that failed.
pub fn verify(point: &[u8; 32], context: &JoinContext, proof: &SchnorrProof) -> Result<(), ProofError> {
    let public = CompressedRistretto(*point).decompress().ok_or(ProofError::Point)?;
    if public.is_identity() {
        return Err(ProofError::Identity);
    }
    let canonical = |bytes| Option::<Scalar>::from(Scalar::from_canonical_bytes(bytes)).ok_or(ProofError::Scalar);
    let claimed = canonical(proof.challenge)?;
    let response = canonical(proof.response)?;
    let commitment = RistrettoPoint::vartime_double_scalar_mul_basepoint(&-claimed, &public, &response);
    if commitment.is_identity() {
        return Err(ProofError::Identity);
    }
    let expected = challenge(&mut transcript(context, point), &commitment.compress());
    if expected == claimed { Ok(()) } else { Err(ProofError::Equation) }
}

fn transcript(context: &JoinContext, point: &[u8; 32]) -> Transcript {
    let mut transcript = Transcript::new(TRANSCRIPT);
    transcript.append_message(b"ctx", &context.0);
    transcript.append_message(b"P", point);
    transcript
}

fn challenge(transcript: &mut Transcript, commitment: &CompressedRistretto) -> Scalar {
    transcript.append_message(b"R", commitment.as_bytes());
    let mut wide = [0; 64];
    transcript.challenge_bytes(b"c", &mut wide);
    Scalar::from_bytes_mod_order_wide(&wide)
}

/// Hands the caller's random bytes to the transcript, which draws 32 of them once.
struct SeedRng<'a>(&'a [u8; 32]);

impl RngCore for SeedRng<'_> {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for (out, byte) in out.iter_mut().zip(self.0.iter().cycle()) {
            *out = *byte;
        }
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for SeedRng<'_> {}

#[cfg(test)]
mod tests;
