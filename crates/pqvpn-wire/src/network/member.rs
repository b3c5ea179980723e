// SPDX-License-Identifier: MIT OR Apache-2.0
//! Member records: what a member says of itself, signed, for 24 h at most.

use std::{fmt, net::SocketAddr};

use ciborium::Value;
use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentityError, PublicIdentity, SIGNATURE_LEN, SPKI_LEN, SignatureLabel},
    peer_id::PeerId,
};

use super::{
    MAX_ENDPOINTS, MAX_RECORD_LIFE_MS, NetworkId,
    act::{key_from, peer_from, signature_from},
};
use crate::{WireError, cbor};

/// Longest member record in bytes, key and signature included.
pub const MAX_MEMBER_RECORD_LEN: usize = 8 * 1024;
/// Version of the format.
const VERSION: u8 = 1;
/// Deepest nesting of the signed bytes.
const DEPTH: usize = 3;

/// What a member fills in before signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDraft {
    /// Which network it is for.
    pub network: NetworkId,
    /// Higher replaces lower.
    pub seq: u64,
    /// When it was made, ms since 1970.
    pub issued_ms: u64,
    /// Valid until, ms since 1970; after `issued_ms`, at most 24 h.
    pub not_after_ms: u64,
    /// Where the member can be dialled, best first; at most 8.
    pub endpoints: Vec<SocketAddr>,
    /// The head of the constitution the member knew.
    pub head: [u8; 32],
    /// Whether the member goes.
    pub left: bool,
}

/// A decoded member record: its shape is legal and its key is the member's; its signature is not yet judged.
#[derive(Clone, PartialEq, Eq)]
pub struct MemberRecord {
    draft: MemberDraft,
    key: PublicIdentity,
    signature: CompositeSignature,
}

/// Why a draft cannot be a member record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemberRecordError {
    /// It ends before it begins, or lives longer than 24 h.
    #[error("a member record lives more than 0 and at most 24 h")]
    Life,
    /// More than 8 endpoints.
    #[error("a member record names at most 8 endpoints")]
    Endpoints,
    /// The cryptographic library failed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl MemberDraft {
    fn check(&self) -> Result<(), MemberRecordError> {
        let life = self.not_after_ms.checked_sub(self.issued_ms);
        if !life.is_some_and(|life| (1..=MAX_RECORD_LIFE_MS).contains(&life)) {
            return Err(MemberRecordError::Life);
        }
        if self.endpoints.len() > MAX_ENDPOINTS { Err(MemberRecordError::Endpoints) } else { Ok(()) }
    }

    /// What is signed: deterministic CBOR
    /// `[1, network, peer, seq, issued_ms, not_after_ms, [endpoint], head, left]`.
    fn signed_bytes(&self, peer: &PeerId) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            VERSION.into(),
            cbor::bytes(self.network.as_bytes()),
            cbor::bytes(peer.as_bytes()),
            self.seq.into(),
            self.issued_ms.into(),
            self.not_after_ms.into(),
            Value::Array(self.endpoints.iter().map(cbor::address).collect()),
            cbor::bytes(&self.head),
            self.left.into(),
        ]))
    }

    fn from_signed_bytes(bytes: &[u8]) -> Option<(PeerId, Self)> {
        let [version, network, peer, seq, issued, not_after, endpoints, head, left] = cbor::array_from(bytes, DEPTH)?;
        if cbor::integer::<u8>(&version)? != VERSION {
            return None;
        }
        let draft = Self {
            network: NetworkId::from_bytes(cbor::fixed(network)?),
            seq: cbor::integer(&seq)?,
            issued_ms: cbor::integer(&issued)?,
            not_after_ms: cbor::integer(&not_after)?,
            endpoints: cbor::list(endpoints, MAX_ENDPOINTS, cbor::address_from)?,
            head: cbor::fixed(head)?,
            left: left.as_bool()?,
        };
        Some((peer_from(peer)?, draft))
    }
}

impl MemberRecord {
    /// Signs a draft; the member is whoever signs.
    ///
    /// # Errors
    /// The draft is not legal, or the cryptographic library cannot sign.
    pub fn sign(draft: MemberDraft, identity: &Identity) -> Result<Self, MemberRecordError> {
        draft.check()?;
        let signature = identity.sign(SignatureLabel::MemberRecord, &draft.signed_bytes(&identity.peer_id()))?;
        Ok(Self { draft, key: identity.public().clone(), signature })
    }

    /// Whether the member signed it. Says nothing about times, network or membership.
    #[must_use]
    pub fn verify(&self) -> bool {
        let signed = self.draft.signed_bytes(&self.peer());
        self.key.verify(SignatureLabel::MemberRecord, &signed, &self.signature).is_ok()
    }

    /// What the member filled in.
    #[must_use]
    pub const fn draft(&self) -> &MemberDraft {
        &self.draft
    }

    /// Whose it is.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.key.peer_id()
    }

    /// The member's key.
    #[must_use]
    pub const fn key(&self) -> &PublicIdentity {
        &self.key
    }

    /// Higher replaces lower.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.draft.seq
    }

    /// Length of [`MemberRecord::encode`] in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let signed = self.draft.signed_bytes(&self.peer()).len();
        1 + [signed, SPKI_LEN, SIGNATURE_LEN].into_iter().map(cbor::bytes_len).sum::<usize>()
    }

    /// Deterministic CBOR: `[signed bytes, key, signature]`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            Value::Bytes(self.draft.signed_bytes(&self.peer())),
            Value::Bytes(self.key.to_spki()),
            cbor::bytes(self.signature.as_bytes()),
        ]))
    }

    /// Reads the one encoding of a member record of legal shape whose key is the member's; the signature is not judged.
    ///
    /// # Errors
    /// [`WireError::TooLong`] above [`MAX_MEMBER_RECORD_LEN`], else [`WireError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_MEMBER_RECORD_LEN {
            return Err(WireError::TooLong(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        let record = cbor::array_from(bytes, 2).and_then(|[signed, key, signature]| {
            let (peer, draft) = MemberDraft::from_signed_bytes(&signed.into_bytes().ok()?)?;
            draft.check().ok()?;
            let record = Self { draft, key: key_from(key)?, signature: signature_from(signature)? };
            (record.peer() == peer).then_some(record)
        });
        record.filter(|record| record.encode() == bytes).ok_or(WireError::Malformed("member record"))
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        Self::decode(&value.into_bytes().ok()?).ok()
    }
}

impl fmt::Debug for MemberRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberRecord").field("peer", &self.peer()).field("draft", &self.draft).finish_non_exhaustive()
    }
}
