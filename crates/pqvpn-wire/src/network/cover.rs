// SPDX-License-Identifier: MIT OR Apache-2.0
//! Covers: secrets that an admin gives the members of a network when somebody was put out, so that what members say where
//! others could look follows from nothing that he knows.

use std::fmt;

use ciborium::Value;
use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentityError, PublicIdentity, SignatureLabel},
    peer_id::PeerId,
};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    NetworkId, StatementId,
    act::{peer_from, signature_from},
};
use crate::{WireError, cbor};

/// Most statements that a cover names.
pub const MAX_AFTER: usize = 64;
/// Longest cover in bytes.
pub const MAX_COVER_LEN: usize = 8 * 1024;
/// Version of the format.
const VERSION: u8 = 1;
/// Deepest nesting of the signed bytes.
const DEPTH: usize = 3;

/// What a cover gives. Erased on drop, neither copied nor printed.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct CoverSecret([u8; 32]);

impl CoverSecret {
    /// Wraps 32 random bytes; the caller wipes its own copy.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Gives the bytes to whoever derives keys from them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A cover of legal shape, with its issuer's signature; that is not yet judged.
pub struct Cover {
    network: NetworkId,
    number: u64,
    at_ms: u64,
    after: Vec<StatementId>,
    issuer: PeerId,
    secret: CoverSecret,
    signature: CompositeSignature,
}

/// Why a cover cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoverError {
    /// It must name 1 to 64 statements.
    #[error("a cover names 1 to 64 statements")]
    After,
    /// The cryptographic library failed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Cover {
    /// Signs a secret. `after`: the tips its issuer knows; whoever does not hold all of them neither takes it nor passes it on.
    ///
    /// # Errors
    /// [`CoverError`].
    pub fn sign(
        network: NetworkId,
        (number, at_ms): (u64, u64),
        mut after: Vec<StatementId>,
        secret: CoverSecret,
        identity: &Identity,
    ) -> Result<Self, CoverError> {
        after.sort_unstable();
        after.dedup();
        if !(1..=MAX_AFTER).contains(&after.len()) {
            return Err(CoverError::After);
        }
        let issuer = identity.peer_id();
        let signed = signed_bytes(&network, (number, at_ms), &after, &issuer, &secret);
        let signature = identity.sign(SignatureLabel::NetworkCover, &signed)?;
        Ok(Self { network, number, at_ms, after, issuer, secret, signature })
    }

    /// Whether `key` is the issuer's and signed it. Says nothing about the issuer's rights.
    #[must_use]
    pub fn verify(&self, key: &PublicIdentity) -> bool {
        key.peer_id() == self.issuer
            && key.verify(SignatureLabel::NetworkCover, &self.signed_bytes(), &self.signature).is_ok()
    }

    /// Which network it is for.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.network
    }

    /// Higher replaces lower.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// When it was made, ms since 1970.
    #[must_use]
    pub const fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// What its issuer knew; strictly ascending.
    #[must_use]
    pub fn after(&self) -> &[StatementId] {
        &self.after
    }

    /// Who made it.
    #[must_use]
    pub const fn issuer(&self) -> PeerId {
        self.issuer
    }

    /// What it gives.
    #[must_use]
    pub const fn secret(&self) -> &CoverSecret {
        &self.secret
    }

    /// Its name, which tells nothing of the secret: SHA-256("pqvpn cover" || signed bytes).
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"pqvpn cover");
        hash.update(self.signed_bytes());
        hash.finalize().into()
    }

    /// What is signed: deterministic CBOR `[1, network, number, at_ms, [after], issuer, secret]`.
    fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(&self.network, (self.number, self.at_ms), &self.after, &self.issuer, &self.secret)
    }

    /// Deterministic CBOR: `[signed bytes, signature]`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![Value::Bytes(self.signed_bytes()), cbor::bytes(self.signature.as_bytes())]))
    }

    /// Reads the one encoding of a cover of legal shape; the signature is not judged.
    ///
    /// # Errors
    /// [`WireError::TooLong`] above [`MAX_COVER_LEN`], else [`WireError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_COVER_LEN {
            return Err(WireError::TooLong(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        let cover = cbor::array_from(bytes, 2).and_then(|[signed, signature]| {
            let [version, network, number, at_ms, after, issuer, secret] =
                cbor::array_from(&signed.into_bytes().ok()?, DEPTH)?;
            let after = cbor::list(after, MAX_AFTER, StatementId::from_value)?;
            let is_legal =
                cbor::integer::<u8>(&version)? == VERSION && !after.is_empty() && after.is_sorted_by(|a, b| a < b);
            is_legal.then_some(())?;
            Some(Self {
                network: NetworkId::from_bytes(cbor::fixed(network)?),
                number: cbor::integer(&number)?,
                at_ms: cbor::integer(&at_ms)?,
                after,
                issuer: peer_from(issuer)?,
                secret: CoverSecret(cbor::fixed(secret)?),
                signature: signature_from(signature)?,
            })
        });
        cover.filter(|cover| cover.encode() == bytes).ok_or(WireError::Malformed("cover"))
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        Self::decode(&value.into_bytes().ok()?).ok()
    }
}

fn signed_bytes(
    network: &NetworkId,
    (number, at_ms): (u64, u64),
    after: &[StatementId],
    issuer: &PeerId,
    secret: &CoverSecret,
) -> Vec<u8> {
    cbor::encode(&Value::Array(vec![
        VERSION.into(),
        cbor::bytes(network.as_bytes()),
        number.into(),
        at_ms.into(),
        Value::Array(after.iter().map(|id| id.to_value()).collect()),
        cbor::bytes(issuer.as_bytes()),
        cbor::bytes(&secret.0),
    ]))
}

impl PartialEq for Cover {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id() && self.signature == other.signature
    }
}

impl Eq for Cover {}

impl fmt::Debug for Cover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, issuer) = (self.number, self.issuer);
        f.debug_struct("Cover").field("number", &number).field("issuer", &issuer).finish_non_exhaustive()
    }
}
