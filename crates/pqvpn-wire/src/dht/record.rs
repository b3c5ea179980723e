// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records: what an owner says of itself, signed, versioned and limited in time (security.md 7.2).

use std::{fmt, net::SocketAddr};

use ciborium::Value;
use pqvpn_crypto::{
    identity::{Identity, IdentityError, SIGNATURE_LEN, SPKI_LEN, SignatureLabel},
    peer_id::PeerId,
};
use sha2::{Digest, Sha256};

use super::{
    point::{NetworkId, Point},
    verify::Verifier,
};
use crate::{WireError, cbor};

/// Longest record in bytes, key and signature included.
pub const MAX_RECORD_LEN: usize = 8 * 1024;
/// Most endpoints a peer record may name.
pub const MAX_ENDPOINTS: usize = 8;
/// Longest value in bytes.
pub const MAX_VALUE_LEN: usize = 512;
/// Longest name of a value in bytes.
pub const MAX_NAME_LEN: usize = 64;
/// Steps of a heartbeat chain: one an hour for a day.
pub const HEARTBEATS: u8 = 24;
/// Version of the record format.
const VERSION: u8 = 1;
/// Deepest nesting of a record's signed bytes.
const DEPTH: usize = 5;
const KIND_PEER: u8 = 1;
const KIND_VALUE: u8 = 2;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payload {
    /// Where the owner can be reached.
    Peer(Endpoints),
    /// Something the owner wants kept under a name of its own.
    Value {
        /// 1 to [`MAX_NAME_LEN`] bytes.
        name: String,
        /// At most [`MAX_VALUE_LEN`] bytes.
        value: Vec<u8>,
    },
}

/// Where a peer can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoints {
    /// Best first; at most [`MAX_ENDPOINTS`].
    pub addresses: Vec<SocketAddr>,
    /// Bit set of what the peer offers; unknown bits are kept and ignored.
    pub capabilities: u32,
}

/// What an owner fills in before signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordDraft {
    /// Which DHT it is for.
    pub network: NetworkId,
    /// Who owns it.
    pub owner: PeerId,
    /// The owner's week the key is computed for (peer records).
    pub week: u32,
    /// Higher replaces lower.
    pub seq: u64,
    /// Valid from, ms since 1970.
    pub not_before_ms: u64,
    /// Valid until, ms since 1970; at most 24 h after `not_before_ms`.
    pub not_after_ms: u64,
    /// What it says.
    pub payload: Payload,
    /// End of the heartbeat chain: h^24(seed).
    pub heartbeat_anchor: [u8; 32],
}

/// A decoded record: its shape is legal, its signature is not yet judged.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    draft: RecordDraft,
    owner_key: Vec<u8>,
    signature: Vec<u8>,
    key: Point,
    digest: [u8; 32],
    encoded_len: usize,
}

/// One step of a record's heartbeat chain: h^(24-hour)(seed), which only the owner could know before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Hours since the record's `not_before_ms`, 1 to 24.
    pub hour: u8,
    /// Hashes to the anchor in `hour` steps.
    pub preimage: [u8; 32],
}

/// Where the peer record of `peer` lives: SHA-256("pqvpn rec" || PeerID || u32 week || network id) (security.md 7.1).
#[must_use]
pub fn peer_record_key(peer: &PeerId, week: u32, network: &NetworkId) -> Point {
    let mut hash = Sha256::new();
    hash.update(b"pqvpn rec");
    hash.update(peer.as_bytes());
    hash.update(week.to_be_bytes());
    hash.update(network.as_bytes());
    Point::from_bytes(hash.finalize().into())
}

/// Where a value of `peer` lives: SHA-256("pqvpn val" || PeerID || network id || name).
#[must_use]
pub fn value_key(peer: &PeerId, network: &NetworkId, name: &str) -> Point {
    let mut hash = Sha256::new();
    hash.update(b"pqvpn val");
    hash.update(peer.as_bytes());
    hash.update(network.as_bytes());
    hash.update(name.as_bytes());
    Point::from_bytes(hash.finalize().into())
}

/// h^steps(seed), where h(x) = SHA-256("pqvpn beat" || x); 24 steps make the anchor of a record.
#[must_use]
pub fn heartbeat_chain(seed: &[u8; 32], steps: u8) -> [u8; 32] {
    let mut link = *seed;
    for _ in 0..steps {
        let mut hash = Sha256::new();
        hash.update(b"pqvpn beat");
        hash.update(link);
        link = hash.finalize().into();
    }
    link
}

impl Heartbeat {
    /// The step for one hour, 1 to [`HEARTBEATS`], of the chain that `seed` begins.
    #[must_use]
    pub fn at(seed: &[u8; 32], hour: u8) -> Option<Self> {
        let steps = HEARTBEATS.checked_sub(hour).filter(|_| hour > 0)?;
        Some(Self { hour, preimage: heartbeat_chain(seed, steps) })
    }

    /// Whether it hashes to the anchor in `hour` steps, 1 to [`HEARTBEATS`].
    #[must_use]
    pub fn fits(&self, anchor: &[u8; 32]) -> bool {
        (1..=HEARTBEATS).contains(&self.hour) && heartbeat_chain(&self.preimage, self.hour) == *anchor
    }

    pub(crate) fn to_value(self) -> Value {
        Value::Array(vec![self.hour.into(), cbor::bytes(&self.preimage)])
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        let [hour, preimage] = cbor::array(value)?;
        let hour = cbor::integer(&hour).filter(|hour| (1..=HEARTBEATS).contains(hour))?;
        Some(Self { hour, preimage: cbor::fixed(preimage)? })
    }
}

impl RecordDraft {
    /// Where the record lives.
    #[must_use]
    pub fn key(&self) -> Point {
        match &self.payload {
            Payload::Peer(_) => peer_record_key(&self.owner, self.week, &self.network),
            Payload::Value { name, .. } => value_key(&self.owner, &self.network, name),
        }
    }

    /// What the owner signs under [`SignatureLabel::DhtRecord`]: deterministic CBOR
    /// `[1, kind, network, owner, week, seq, not_before_ms, not_after_ms, payload, heartbeat_anchor]`.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let (kind, payload) = match &self.payload {
            Payload::Peer(endpoints) => (KIND_PEER, endpoints.to_value()),
            Payload::Value { name, value } => {
                (KIND_VALUE, Value::Array(vec![Value::Text(name.clone()), cbor::bytes(value)]))
            }
        };
        cbor::encode(&Value::Array(vec![
            VERSION.into(),
            kind.into(),
            cbor::bytes(self.network.as_bytes()),
            cbor::bytes(self.owner.as_bytes()),
            self.week.into(),
            self.seq.into(),
            self.not_before_ms.into(),
            self.not_after_ms.into(),
            payload,
            cbor::bytes(&self.heartbeat_anchor),
        ]))
    }

    /// Reads signed bytes of legal shape; whether theirs is the one encoding shows when they are encoded again.
    fn from_signed_bytes(bytes: &[u8]) -> Option<Self> {
        let [version, kind, network, owner, week, seq, not_before, not_after, payload, anchor] =
            cbor::array_from(bytes, DEPTH)?;
        if cbor::integer::<u8>(&version)? != VERSION {
            return None;
        }
        let payload = match cbor::integer(&kind)? {
            KIND_PEER => Payload::Peer(Endpoints::from_value(payload)?),
            KIND_VALUE => value_payload(payload)?,
            _ => return None,
        };
        let draft = Self {
            network: NetworkId::from_bytes(cbor::fixed(network)?),
            owner: PeerId::from_bytes(cbor::fixed(owner)?),
            week: cbor::integer(&week)?,
            seq: cbor::integer(&seq)?,
            not_before_ms: cbor::integer(&not_before)?,
            not_after_ms: cbor::integer(&not_after)?,
            payload,
            heartbeat_anchor: cbor::fixed(anchor)?,
        };
        // A value's key has no week in it: another number there would be a second record under the same key.
        let week_fits = draft.week == 0 || matches!(draft.payload, Payload::Peer(_));
        week_fits.then_some(draft)
    }
}

impl Endpoints {
    fn to_value(&self) -> Value {
        let addresses = self.addresses.iter().map(cbor::address).collect();
        Value::Array(vec![Value::Array(addresses), self.capabilities.into()])
    }

    fn from_value(value: Value) -> Option<Self> {
        let [addresses, capabilities] = cbor::array(value)?;
        let addresses = cbor::list(addresses, MAX_ENDPOINTS, cbor::address_from)?;
        Some(Self { addresses, capabilities: cbor::integer(&capabilities)? })
    }
}

fn value_payload(value: Value) -> Option<Payload> {
    let [name, value] = cbor::array(value)?;
    let name = name.into_text().ok().filter(|name| (1..=MAX_NAME_LEN).contains(&name.len()))?;
    let value = value.into_bytes().ok().filter(|value| value.len() <= MAX_VALUE_LEN)?;
    Some(Payload::Value { name, value })
}

impl Record {
    /// Puts a record together; neither key nor signature is looked at.
    #[must_use]
    pub fn assemble(draft: RecordDraft, owner_key: Vec<u8>, signature: Vec<u8>) -> Self {
        let signed = draft.signed_bytes();
        let encoded_len =
            1 + [signed.len(), owner_key.len(), signature.len()].into_iter().map(cbor::bytes_len).sum::<usize>();
        Self { key: draft.key(), digest: Sha256::digest(&signed).into(), draft, owner_key, signature, encoded_len }
    }

    /// Signs a draft as its owner. The draft's `owner` must be this identity, else the record never verifies.
    ///
    /// # Errors
    /// The cryptographic library cannot sign.
    pub fn sign(draft: RecordDraft, identity: &Identity) -> Result<Self, IdentityError> {
        let signature = identity.sign(SignatureLabel::DhtRecord, &draft.signed_bytes())?;
        Ok(Self::assemble(draft, identity.public().to_spki(), signature.into_bytes()))
    }

    /// Whether the owner signed it. Says nothing about times, network or endpoints.
    #[must_use]
    pub fn verify(&self, verifier: &dyn Verifier) -> bool {
        let signed = self.draft.signed_bytes();
        verifier.verify(&self.draft.owner, &self.owner_key, SignatureLabel::DhtRecord, &signed, &self.signature)
    }

    /// What the owner filled in.
    #[must_use]
    pub const fn draft(&self) -> &RecordDraft {
        &self.draft
    }

    /// Who owns it.
    #[must_use]
    pub const fn owner(&self) -> &PeerId {
        &self.draft.owner
    }

    /// The owner's public key as it came (SubjectPublicKeyInfo).
    #[must_use]
    pub fn owner_key(&self) -> &[u8] {
        &self.owner_key
    }

    /// The composite signature as it came.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// Where it lives.
    #[must_use]
    pub const fn key(&self) -> &Point {
        &self.key
    }

    /// Higher replaces lower.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.draft.seq
    }

    /// SHA-256 of the signed bytes: tells two records of one seq apart, whoever signed how often.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Length of [`Record::encode`] in bytes, without encoding.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// Deterministic CBOR: `[signed bytes, owner key, signature]`, three byte strings.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            Value::Bytes(self.draft.signed_bytes()),
            cbor::bytes(&self.owner_key),
            cbor::bytes(&self.signature),
        ]))
    }

    /// Reads the one encoding of a record of legal shape; the signature is not judged.
    ///
    /// # Errors
    /// [`WireError::TooLong`] above [`MAX_RECORD_LEN`], else [`WireError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_RECORD_LEN {
            return Err(WireError::TooLong(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        let record = cbor::array_from(bytes, 2).and_then(|[signed, key, signature]| {
            Self::from_parts(&signed.into_bytes().ok()?, key.into_bytes().ok()?, signature.into_bytes().ok()?)
        });
        record.filter(|record| record.encode() == bytes).ok_or(WireError::Malformed("record"))
    }

    /// Puts a record together from wire bytes; key and signature have their exact lengths.
    pub(crate) fn from_parts(signed: &[u8], owner_key: Vec<u8>, signature: Vec<u8>) -> Option<Self> {
        if owner_key.len() != SPKI_LEN || signature.len() != SIGNATURE_LEN {
            return None;
        }
        Some(Self::assemble(RecordDraft::from_signed_bytes(signed)?, owner_key, signature))
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        Self::decode(&value.into_bytes().ok()?).ok()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("draft", &self.draft).field("key", &self.key).finish_non_exhaustive()
    }
}
