// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invites: what an admin signs so that whoever holds a secret may join.

use std::fmt;

use ciborium::Value;
use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentityError, PublicIdentity, SignatureLabel},
    peer_id::PeerId,
    proofs::schnorr::InviteKey,
};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{
    NetworkId, Serial,
    act::{MAX_LEVEL, peer_from, signature_from, tags_from, tags_to},
    name::are_tags,
    statement::BodyError,
};
use crate::{WireError, cbor};

/// Longest signed invite in bytes.
pub const MAX_INVITE_LEN: usize = 6 * 1024;
/// Version of the format.
const VERSION: u8 = 1;
/// Deepest nesting of the signed bytes.
const DEPTH: usize = 3;

/// The secret in a code. Erased on drop; never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InviteSecret([u8; 16]);

impl InviteSecret {
    /// Wraps 16 random bytes; the caller wipes its own copy.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Gives the bytes to whoever writes the code.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    /// The invite it belongs to: SHA-256("pqvpn invite serial" || secret), the first 16 bytes.
    #[must_use]
    pub fn serial(&self) -> Serial {
        let mut hash = Sha256::new();
        hash.update(b"pqvpn invite serial");
        hash.update(self.0);
        let digest: [u8; 32] = hash.finalize().into();
        let (serial, _) = digest.split_first_chunk().expect("a digest is longer than a serial");
        Serial::from_bytes(*serial)
    }

    /// The key that proves it without showing it.
    #[must_use]
    pub fn key(&self) -> InviteKey {
        InviteKey::from_secret(&self.0)
    }
}

impl fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteSecret(redacted)")
    }
}

/// Whom an invite admits, how often, until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invite {
    /// Which network.
    pub network: NetworkId,
    /// Its name.
    pub serial: Serial,
    /// `P = xG` of the secret in the code, compressed.
    pub point: [u8; 32],
    /// The admin who signed it.
    pub issuer: PeerId,
    /// Tags of whoever joins; at most 8, strictly ascending.
    pub tags: Vec<String>,
    /// Highest trust level of whoever joins, 0 to [`MAX_LEVEL`].
    pub level_cap: u8,
    /// Until when it may be used, ms since 1970.
    pub not_after_ms: u64,
    /// How often it may be used; at least 1.
    pub max_uses: u32,
    /// Silent for longer, who joined is no member any more; in s.
    pub ephemeral_s: Option<u32>,
    /// How long a membership lasts, in s.
    pub member_expires_s: Option<u32>,
    /// Whether a join with it needs no further approval.
    pub preapproved: bool,
}

/// An invite of legal shape, with its issuer's signature; that is not yet judged.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedInvite {
    invite: Invite,
    signature: CompositeSignature,
}

/// Why an invite cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// A field is not legal.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// The issuer named is not who signs.
    #[error("the invite names another issuer")]
    Issuer,
    /// The cryptographic library failed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Invite {
    fn check(&self) -> Result<(), BodyError> {
        if !are_tags(&self.tags) {
            return Err(BodyError::Tags);
        }
        if self.level_cap > MAX_LEVEL {
            return Err(BodyError::Level);
        }
        if self.max_uses == 0 { Err(BodyError::Uses) } else { Ok(()) }
    }

    /// What the issuer signs: deterministic CBOR `[1, network, serial, point, issuer, [tag], level_cap, not_after_ms,
    /// max_uses, ephemeral_s or null, member_expires_s or null, preapproved]`.
    fn signed_bytes(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            VERSION.into(),
            cbor::bytes(self.network.as_bytes()),
            self.serial.to_value(),
            cbor::bytes(&self.point),
            cbor::bytes(self.issuer.as_bytes()),
            tags_to(&self.tags),
            self.level_cap.into(),
            self.not_after_ms.into(),
            self.max_uses.into(),
            cbor::option(self.ephemeral_s, Value::from),
            cbor::option(self.member_expires_s, Value::from),
            self.preapproved.into(),
        ]))
    }

    fn from_signed_bytes(bytes: &[u8]) -> Option<Self> {
        let [version, network, serial, point, issuer, tags, level_cap, not_after_ms, max_uses, rest @ ..]: [Value; 12] =
            cbor::array_from(bytes, DEPTH)?;
        let [ephemeral_s, member_expires_s, preapproved] = rest;
        if cbor::integer::<u8>(&version)? != VERSION {
            return None;
        }
        let invite = Self {
            network: NetworkId::from_bytes(cbor::fixed(network)?),
            serial: Serial::from_value(serial)?,
            point: cbor::fixed(point)?,
            issuer: peer_from(issuer)?,
            tags: tags_from(tags)?,
            level_cap: cbor::integer(&level_cap)?,
            not_after_ms: cbor::integer(&not_after_ms)?,
            max_uses: cbor::integer(&max_uses)?,
            ephemeral_s: cbor::optional(ephemeral_s, |value| cbor::integer(&value))?,
            member_expires_s: cbor::optional(member_expires_s, |value| cbor::integer(&value))?,
            preapproved: preapproved.as_bool()?,
        };
        invite.check().is_ok().then_some(invite)
    }
}

impl SignedInvite {
    /// Signs an invite as its issuer; tags are put into order, and named once.
    ///
    /// # Errors
    /// A field is not legal, the issuer is somebody else, or the cryptographic library cannot sign.
    pub fn sign(mut invite: Invite, identity: &Identity) -> Result<Self, InviteError> {
        invite.tags.sort_unstable();
        invite.tags.dedup();
        invite.check()?;
        if invite.issuer != identity.peer_id() {
            return Err(InviteError::Issuer);
        }
        let signature = identity.sign(SignatureLabel::NetworkInvite, &invite.signed_bytes())?;
        Ok(Self { invite, signature })
    }

    /// Whether `key` is the issuer's and signed it. Says nothing about the issuer's rights, times or uses.
    #[must_use]
    pub fn verify(&self, key: &PublicIdentity) -> bool {
        key.peer_id() == self.invite.issuer
            && key.verify(SignatureLabel::NetworkInvite, &self.invite.signed_bytes(), &self.signature).is_ok()
    }

    /// What the issuer filled in.
    #[must_use]
    pub const fn invite(&self) -> &Invite {
        &self.invite
    }

    /// Its name.
    #[must_use]
    pub const fn serial(&self) -> Serial {
        self.invite.serial
    }

    /// The issuer's signature.
    #[must_use]
    pub const fn signature(&self) -> &CompositeSignature {
        &self.signature
    }

    /// Deterministic CBOR: `[signed bytes, signature]`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            Value::Bytes(self.invite.signed_bytes()),
            cbor::bytes(self.signature.as_bytes()),
        ]))
    }

    /// Reads the one encoding of an invite of legal shape; the signature is not judged.
    ///
    /// # Errors
    /// [`WireError::TooLong`] above [`MAX_INVITE_LEN`], else [`WireError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_INVITE_LEN {
            return Err(WireError::TooLong(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        let invite = cbor::array_from(bytes, 2).and_then(|[signed, signature]| {
            let invite = Invite::from_signed_bytes(&signed.into_bytes().ok()?)?;
            Some(Self { invite, signature: signature_from(signature)? })
        });
        invite.filter(|invite| invite.encode() == bytes).ok_or(WireError::Malformed("invite"))
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        Self::decode(&value.into_bytes().ok()?).ok()
    }
}

impl fmt::Debug for SignedInvite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedInvite").field("invite", &self.invite).finish_non_exhaustive()
    }
}
