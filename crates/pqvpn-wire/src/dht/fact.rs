// SPDX-License-Identifier: MIT OR Apache-2.0
//! Facts: statements that prove themselves and that every node may pass on (security.md 7.2).

use std::{fmt, sync::Arc};

use ciborium::Value;
use pqvpn_crypto::{
    identity::{Identity, IdentityError, SIGNATURE_LEN, SPKI_LEN, SignatureLabel},
    peer_id::PeerId,
};
use sha2::{Digest, Sha256};

use super::{record::Record, verify::Verifier};
use crate::{WireError, cbor};

/// Most bytes of facts in one response.
pub const MAX_FACTS_LEN: usize = 24 * 1024;
/// Version of the statements.
const VERSION: u8 = 1;
const KIND_ROTATION: u8 = 1;
const KIND_REVOCATION: u8 = 2;
const KIND_EQUIVOCATION: u8 = 3;

/// Something everybody should know of an identity, and its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// An identity continues under new keys.
    Rotation(Rotation),
    /// An identity is no longer to be trusted.
    Revocation(Revocation),
    /// An owner signed two different records under one number.
    Equivocation(Equivocation),
}

/// `old` continues as `new`; both sign `[1, old, new, seq, at_ms]` under [`SignatureLabel::DhtRotation`].
#[derive(Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The identity that ends.
    pub old: PeerId,
    /// Its public key.
    pub old_key: Vec<u8>,
    /// The identity that begins.
    pub new: PeerId,
    /// Its public key.
    pub new_key: Vec<u8>,
    /// Counts the rotations of one identity.
    pub seq: u64,
    /// When, ms since 1970.
    pub at_ms: u64,
    /// The old identity's signature.
    pub old_signature: Vec<u8>,
    /// The new identity's signature: nobody can be named successor without knowing.
    pub new_signature: Vec<u8>,
}

/// `peer` declares itself void; it signs `[1, peer, at_ms, reason]` under [`SignatureLabel::DhtRevocation`].
#[derive(Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Who is revoked.
    pub peer: PeerId,
    /// Its public key.
    pub key: Vec<u8>,
    /// When, ms since 1970.
    pub at_ms: u64,
    /// Why.
    pub reason: RevocationReason,
    /// Its own signature.
    pub signature: Vec<u8>,
}

/// Why an identity is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RevocationReason {
    /// Its keys may be known to somebody else.
    Compromised = 1,
    /// Another identity took its place.
    Superseded = 2,
    /// Nobody uses it any more.
    Retired = 3,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Compromised, Self::Superseded, Self::Retired];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Reads the number on the wire.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// Two records of one owner, key and seq that say different things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivocation {
    /// The record with the lower digest.
    pub a: Arc<Record>,
    /// The other one.
    pub b: Arc<Record>,
}

impl Rotation {
    /// Signs a rotation with both identities.
    ///
    /// # Errors
    /// The cryptographic library cannot sign.
    pub fn sign(old: &Identity, new: &Identity, seq: u64, at_ms: u64) -> Result<Self, IdentityError> {
        let statement = rotation_statement(&old.peer_id(), &new.peer_id(), seq, at_ms);
        Ok(Self {
            old: old.peer_id(),
            old_key: old.public().to_spki(),
            new: new.peer_id(),
            new_key: new.public().to_spki(),
            seq,
            at_ms,
            old_signature: old.sign(SignatureLabel::DhtRotation, &statement)?.into_bytes(),
            new_signature: new.sign(SignatureLabel::DhtRotation, &statement)?.into_bytes(),
        })
    }

    fn statement(&self) -> Vec<u8> {
        rotation_statement(&self.old, &self.new, self.seq, self.at_ms)
    }

    fn verify(&self, verifier: &dyn Verifier) -> bool {
        let statement = self.statement();
        let signed =
            |peer, key, signature| verifier.verify(peer, key, SignatureLabel::DhtRotation, &statement, signature);
        self.old != self.new
            && signed(&self.old, &self.old_key, &self.old_signature)
            && signed(&self.new, &self.new_key, &self.new_signature)
    }

    fn from_fields(fields: Vec<Value>) -> Option<Self> {
        let [statement, old_key, new_key, old_signature, new_signature] = fields.try_into().ok()?;
        let [version, old, new, seq, at] = cbor::array_from(&statement.into_bytes().ok()?, 2)?;
        version_fits(&version)?;
        Some(Self {
            old: PeerId::from_bytes(cbor::fixed(old)?),
            old_key: sized(old_key, SPKI_LEN)?,
            new: PeerId::from_bytes(cbor::fixed(new)?),
            new_key: sized(new_key, SPKI_LEN)?,
            seq: cbor::integer(&seq)?,
            at_ms: cbor::integer(&at)?,
            old_signature: sized(old_signature, SIGNATURE_LEN)?,
            new_signature: sized(new_signature, SIGNATURE_LEN)?,
        })
    }
}

impl Revocation {
    /// Signs the revocation of an identity with that identity.
    ///
    /// # Errors
    /// The cryptographic library cannot sign.
    pub fn sign(identity: &Identity, at_ms: u64, reason: RevocationReason) -> Result<Self, IdentityError> {
        let statement = revocation_statement(&identity.peer_id(), at_ms, reason);
        Ok(Self {
            peer: identity.peer_id(),
            key: identity.public().to_spki(),
            at_ms,
            reason,
            signature: identity.sign(SignatureLabel::DhtRevocation, &statement)?.into_bytes(),
        })
    }

    fn statement(&self) -> Vec<u8> {
        revocation_statement(&self.peer, self.at_ms, self.reason)
    }

    fn from_fields(fields: Vec<Value>) -> Option<Self> {
        let [statement, key, signature] = fields.try_into().ok()?;
        let [version, peer, at, reason] = cbor::array_from(&statement.into_bytes().ok()?, 2)?;
        version_fits(&version)?;
        Some(Self {
            peer: PeerId::from_bytes(cbor::fixed(peer)?),
            key: sized(key, SPKI_LEN)?,
            at_ms: cbor::integer(&at)?,
            reason: RevocationReason::from_code(cbor::integer(&reason)?)?,
            signature: sized(signature, SIGNATURE_LEN)?,
        })
    }
}

impl Equivocation {
    /// Puts the two records in order, or nothing if they do not contradict each other.
    #[must_use]
    pub fn new(a: Arc<Record>, b: Arc<Record>) -> Option<Self> {
        let proof = if a.digest() < b.digest() { Self { a, b } } else { Self { a: b, b: a } };
        proof.contradicts().then_some(proof)
    }

    /// One owner, one key, one seq, two contents.
    fn contradicts(&self) -> bool {
        let (a, b) = (&self.a, &self.b);
        a.owner() == b.owner() && a.key() == b.key() && a.seq() == b.seq() && a.digest() < b.digest()
    }

    fn from_fields(fields: Vec<Value>) -> Option<Self> {
        let [key, a, a_signature, b, b_signature] = fields.try_into().ok()?;
        let key = sized(key, SPKI_LEN)?;
        let record = |signed: Value, signature: Value| {
            let record = Record::from_parts(&signed.into_bytes().ok()?, key.clone(), signature.into_bytes().ok()?)?;
            Some(Arc::new(record))
        };
        let proof = Self { a: record(a, a_signature)?, b: record(b, b_signature)? };
        proof.contradicts().then_some(proof)
    }
}

impl Fact {
    /// Whom it is about: the old identity, the revoked one, the owner who equivocated.
    #[must_use]
    pub fn subject(&self) -> &PeerId {
        match self {
            Self::Rotation(rotation) => &rotation.old,
            Self::Revocation(revocation) => &revocation.peer,
            Self::Equivocation(proof) => proof.a.owner(),
        }
    }

    /// Equal for facts that say the same: SHA-256("pqvpn fact" || kind || statement).
    ///
    /// Of revocations and equivocations one per subject is enough, so only the subject's PeerID is hashed there: nobody
    /// can make room be spent on a hundred ways to say it.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"pqvpn fact");
        hash.update([self.kind()]);
        match self {
            Self::Rotation(rotation) => hash.update(rotation.statement()),
            Self::Revocation(_) | Self::Equivocation(_) => hash.update(self.subject().as_bytes()),
        }
        hash.finalize().into()
    }

    /// Whether the proof holds: every key belongs to its PeerID and every signature verifies.
    #[must_use]
    pub fn verify(&self, verifier: &dyn Verifier) -> bool {
        match self {
            Self::Rotation(rotation) => rotation.verify(verifier),
            Self::Revocation(fact) => {
                let label = SignatureLabel::DhtRevocation;
                verifier.verify(&fact.peer, &fact.key, label, &fact.statement(), &fact.signature)
            }
            Self::Equivocation(proof) => proof.contradicts() && proof.a.verify(verifier) && proof.b.verify(verifier),
        }
    }

    /// Deterministic CBOR: `[kind, fields ...]`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&self.to_value())
    }

    /// Length of [`Fact::encode`] in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.encode().len()
    }

    /// Reads the one encoding of a fact of legal shape; its proof is not judged.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fact = cbor::decode(bytes, 3).and_then(Self::from_value);
        fact.filter(|fact| fact.encode() == bytes).ok_or(WireError::Malformed("fact"))
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Rotation(_) => KIND_ROTATION,
            Self::Revocation(_) => KIND_REVOCATION,
            Self::Equivocation(_) => KIND_EQUIVOCATION,
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        let mut fields = vec![self.kind().into()];
        match self {
            Self::Rotation(rotation) => fields.extend([
                Value::Bytes(rotation.statement()),
                cbor::bytes(&rotation.old_key),
                cbor::bytes(&rotation.new_key),
                cbor::bytes(&rotation.old_signature),
                cbor::bytes(&rotation.new_signature),
            ]),
            Self::Revocation(revocation) => fields.extend([
                Value::Bytes(revocation.statement()),
                cbor::bytes(&revocation.key),
                cbor::bytes(&revocation.signature),
            ]),
            Self::Equivocation(proof) => fields.extend([
                cbor::bytes(proof.a.owner_key()),
                Value::Bytes(proof.a.draft().signed_bytes()),
                cbor::bytes(proof.a.signature()),
                Value::Bytes(proof.b.draft().signed_bytes()),
                cbor::bytes(proof.b.signature()),
            ]),
        }
        Value::Array(fields)
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        let mut fields = value.into_array().ok()?;
        if fields.is_empty() {
            return None;
        }
        let kind = cbor::integer(&fields.remove(0))?;
        match kind {
            KIND_ROTATION => Rotation::from_fields(fields).map(Self::Rotation),
            KIND_REVOCATION => Revocation::from_fields(fields).map(Self::Revocation),
            KIND_EQUIVOCATION => Equivocation::from_fields(fields).map(Self::Equivocation),
            _ => None,
        }
    }
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = (&self.old, &self.new, self.seq, self.at_ms);
        f.debug_tuple("Rotation").field(&fields).finish()
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Revocation").field(&(&self.peer, self.at_ms, self.reason)).finish()
    }
}

fn rotation_statement(old: &PeerId, new: &PeerId, seq: u64, at_ms: u64) -> Vec<u8> {
    cbor::encode(&Value::Array(vec![
        VERSION.into(),
        cbor::bytes(old.as_bytes()),
        cbor::bytes(new.as_bytes()),
        seq.into(),
        at_ms.into(),
    ]))
}

fn revocation_statement(peer: &PeerId, at_ms: u64, reason: RevocationReason) -> Vec<u8> {
    cbor::encode(&Value::Array(vec![VERSION.into(), cbor::bytes(peer.as_bytes()), at_ms.into(), reason.code().into()]))
}

fn version_fits(version: &Value) -> Option<()> {
    (cbor::integer::<u8>(version)? == VERSION).then_some(())
}

fn sized(value: Value, len: usize) -> Option<Vec<u8>> {
    value.into_bytes().ok().filter(|bytes| bytes.len() == len)
}
