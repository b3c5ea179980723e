// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statements: signed acts of a network's constitution, each standing on those its author knew.

use std::{collections::BTreeMap, fmt};

use ciborium::Value;
use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentityError, PublicIdentity, SignatureLabel},
    peer_id::PeerId,
};
use sha2::{Digest, Sha512_256};

use super::{
    Act, MAX_PARENTS, MAX_SIGNERS, NetworkId, StatementId,
    act::{peer_from, signature_from},
};
use crate::{WireError, cbor};

/// Longest statement in bytes: the longest body (a rotation) with [`MAX_SIGNERS`] signatures.
pub const MAX_STATEMENT_LEN: usize = 96 * 1024;
/// Longest body in bytes.
pub const MAX_BODY_LEN: usize = 12 * 1024;
/// Version of the format.
const VERSION: u8 = 1;
/// Deepest nesting of a body: body, act, params, pool.
const BODY_DEPTH: usize = 5;
/// Deepest nesting of a statement around its body.
const DEPTH: usize = 4;

/// What is signed: an act, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementBody {
    /// Which network; all zero in the genesis, whose id is the network's.
    pub network: NetworkId,
    /// One more than the highest of the parents; 0 in the genesis.
    pub seq: u64,
    /// All tips its author knew, strictly ascending, 1 to 16; none in the genesis.
    pub parents: Vec<StatementId>,
    /// When, by its author's clock, ms since 1970.
    pub at_ms: u64,
    /// What.
    pub act: Act,
}

/// A statement of legal shape, with the signatures it came with; they are not yet judged.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement {
    body: StatementBody,
    bytes: Vec<u8>,
    id: StatementId,
    /// `None` where the bytes were shed after they had been checked.
    signatures: BTreeMap<PeerId, Option<CompositeSignature>>,
}

/// Why a body is no legal statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// A genesis with network, seq or parents, or another statement without.
    #[error("the statement does not stand where its act must stand")]
    Place,
    /// More than 16 parents.
    #[error("the statement has more than 16 parents")]
    Parents,
    /// A name is not a label.
    #[error("a name has 1 to 63 of a-z, 0-9 and \"-\", and does not begin or end with \"-\"")]
    Name,
    /// Too many tags, or one that is not legal.
    #[error("at most 8 different tags, each 1 to 32 of a-z, 0-9, \"-\", \"_\" and \".\"")]
    Tags,
    /// The reason is too long or holds control characters.
    #[error("a reason has at most 128 bytes and no control characters")]
    Reason,
    /// The quorum is not 1 to 16.
    #[error("the quorum is 1 to 16 admins")]
    Quorum,
    /// The IPv4 pool is too wide, too narrow, has host bits or belongs to somebody on the Internet.
    #[error(
        "the IPv4 pool is a prefix of length 8 to 30 without host bits in 10/8, 100.64/10, 172.16/12 or 192.168/16"
    )]
    Pool,
    /// The age allowed for the head is too short.
    #[error("the head's greatest age is 60 s or more")]
    HeadAge,
    /// No such trust level.
    #[error("trust levels are 0 to 4")]
    Level,
    /// An invite that nobody may use.
    #[error("an invite can be used at least once")]
    Uses,
    /// A rotation from a key to itself.
    #[error("the new key is the old one")]
    SameKey,
}

impl StatementBody {
    /// Deterministic CBOR: `[1, network, seq, [parent], at_ms, [kind, field, ...]]`.
    fn encode(&self) -> Vec<u8> {
        cbor::encode(&Value::Array(vec![
            VERSION.into(),
            cbor::bytes(self.network.as_bytes()),
            self.seq.into(),
            Value::Array(self.parents.iter().map(|parent| parent.to_value()).collect()),
            self.at_ms.into(),
            self.act.to_value(),
        ]))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let [version, network, seq, parents, at_ms, act] = cbor::array_from(bytes, BODY_DEPTH)?;
        if cbor::integer::<u8>(&version)? != VERSION {
            return None;
        }
        Some(Self {
            network: NetworkId::from_bytes(cbor::fixed(network)?),
            seq: cbor::integer(&seq)?,
            parents: cbor::list(parents, MAX_PARENTS, StatementId::from_value)?,
            at_ms: cbor::integer(&at_ms)?,
            act: Act::from_value(act)?,
        })
    }

    fn check(&self) -> Result<(), BodyError> {
        let first = self.network.as_bytes() == &[0; 32] && self.seq == 0 && self.parents.is_empty();
        let later = self.network.as_bytes() != &[0; 32] && self.seq > 0 && !self.parents.is_empty();
        let placed = if matches!(self.act, Act::Genesis(_)) { first } else { later };
        if !placed {
            return Err(BodyError::Place);
        }
        if self.parents.len() > MAX_PARENTS || !self.parents.is_sorted_by(|a, b| a < b) {
            return Err(BodyError::Parents);
        }
        self.act.check()
    }
}

impl Statement {
    /// Makes an unsigned statement; parents and tags are put into order, and named once.
    ///
    /// # Errors
    /// [`BodyError`] if no reader would take it.
    pub fn draft(mut body: StatementBody) -> Result<Self, BodyError> {
        body.parents.sort_unstable();
        body.parents.dedup();
        if let Act::AddMember(member) = &mut body.act {
            member.tags.sort_unstable();
            member.tags.dedup();
        }
        body.check()?;
        let bytes = body.encode();
        Ok(Self::assemble(body, bytes, BTreeMap::new()))
    }

    /// Signs it as well, in place of an earlier signature of the same key.
    ///
    /// # Errors
    /// The cryptographic library cannot sign.
    pub fn sign(&mut self, identity: &Identity) -> Result<(), IdentityError> {
        let signature = identity.sign(SignatureLabel::NetworkStatement, &self.bytes)?;
        self.signatures.insert(identity.peer_id(), Some(signature));
        Ok(())
    }

    /// Adds a signature made elsewhere, unless there is one of this signer or there are [`MAX_SIGNERS`].
    pub fn add_signature(&mut self, signer: PeerId, signature: CompositeSignature) {
        if self.signatures.len() < MAX_SIGNERS {
            self.signatures.entry(signer).or_insert(Some(signature));
        }
    }

    /// Puts a signature back that was shed; says whether one was.
    pub fn restore_signature(&mut self, signer: &PeerId, signature: CompositeSignature) -> bool {
        let shed = self.signatures.get_mut(signer).filter(|held| held.is_none());
        shed.map(|held| *held = Some(signature)).is_some()
    }

    /// Sheds the bytes of all signatures; who signed stays. For whoever has checked them and need convince nobody.
    pub fn shed_signatures(&mut self) {
        self.signatures.values_mut().for_each(|signature| *signature = None);
    }

    /// Whether the bytes of a signature were shed: others cannot check it.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.signatures.values().any(Option::is_none)
    }

    /// Takes over the signatures of the same statement signed by others; of another statement none.
    pub fn merge(&mut self, other: &Self) {
        if other.id == self.id {
            for (signer, signature) in &other.signatures {
                if let Some(signature) = signature {
                    self.add_signature(*signer, signature.clone());
                }
            }
        }
    }

    /// Takes a signature away, one that does not hold.
    pub fn remove_signature(&mut self, signer: &PeerId) -> Option<CompositeSignature> {
        self.signatures.remove(signer).flatten()
    }

    /// Whether `key` is the key of `signer` and its signature here holds.
    #[must_use]
    pub fn verify_signer(&self, signer: &PeerId, key: &PublicIdentity) -> bool {
        key.peer_id() == *signer
            && self
                .signature(signer)
                .is_some_and(|signature| key.verify(SignatureLabel::NetworkStatement, &self.bytes, signature).is_ok())
    }

    /// What is signed.
    #[must_use]
    pub const fn body(&self) -> &StatementBody {
        &self.body
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn body_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-512/256 of the body bytes.
    #[must_use]
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// The network it belongs to: its own id for a genesis.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        if matches!(self.body.act, Act::Genesis(_)) { self.id.network() } else { self.body.network }
    }

    /// Who signed, ascending.
    pub fn signers(&self) -> impl ExactSizeIterator<Item = &PeerId> {
        self.signatures.keys()
    }

    /// One signature, unless it was shed.
    #[must_use]
    pub fn signature(&self, signer: &PeerId) -> Option<&CompositeSignature> {
        self.signatures.get(signer)?.as_ref()
    }

    /// Length of [`Statement::encode`] in bytes, without encoding.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let signature = 1 + cbor::bytes_len(32) + cbor::bytes_len(pqvpn_crypto::identity::SIGNATURE_LEN);
        let bare = 1 + cbor::bytes_len(32) + 1;
        let pairs = self.signatures.values().map(|held| if held.is_some() { signature } else { bare });
        2 + cbor::bytes_len(self.bytes.len()) + pairs.sum::<usize>()
    }

    /// Deterministic CBOR: `[body, [[signer, signature], ...]]`, signers strictly ascending. One that was shed is null, which
    /// [`Statement::decode`] refuses.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let signatures = self.signatures.iter().map(|(signer, signature)| {
            let signature = cbor::option(signature.as_ref(), |signature| cbor::bytes(signature.as_bytes()));
            Value::Array(vec![cbor::bytes(signer.as_bytes()), signature])
        });
        cbor::encode(&Value::Array(vec![cbor::bytes(&self.bytes), Value::Array(signatures.collect())]))
    }

    /// Reads the one encoding of a statement of legal shape; no signature is judged.
    ///
    /// # Errors
    /// [`WireError::TooLong`] above [`MAX_STATEMENT_LEN`], else [`WireError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        Self::decode_kept(bytes).and_then(|statement| match statement.is_bare() {
            true => Err(WireError::Malformed("statement")),
            false => Ok(statement),
        })
    }

    /// As [`Statement::decode`], from the own disk: signatures may have been shed.
    ///
    /// # Errors
    /// The same.
    pub fn decode_kept(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_STATEMENT_LEN {
            return Err(WireError::TooLong(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        let statement = cbor::array_from(bytes, DEPTH).and_then(|[body, signatures]| {
            let body = body.into_bytes().ok().filter(|body| body.len() <= MAX_BODY_LEN)?;
            let signatures = cbor::list(signatures, MAX_SIGNERS, |pair| {
                let [signer, signature] = cbor::array(pair)?;
                Some((peer_from(signer)?, cbor::optional(signature, signature_from)?))
            })?;
            Self::from_parts(body, signatures)
        });
        statement.filter(|statement| statement.encode() == bytes).ok_or(WireError::Malformed("statement"))
    }

    fn from_parts(bytes: Vec<u8>, signatures: Vec<(PeerId, Option<CompositeSignature>)>) -> Option<Self> {
        let body = StatementBody::decode(&bytes)?;
        body.check().ok()?;
        // One body has one encoding: an id names one act.
        (body.encode() == bytes).then(|| Self::assemble(body, bytes, signatures.into_iter().collect()))
    }

    fn assemble(body: StatementBody, bytes: Vec<u8>, signatures: BTreeMap<PeerId, Option<CompositeSignature>>) -> Self {
        let id = StatementId::from_bytes(Sha512_256::digest(&bytes).into());
        Self { body, bytes, id, signatures }
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        Self::decode(&value.into_bytes().ok()?).ok()
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("id", &self.id)
            .field("body", &self.body)
            .field("signers", &self.signatures.keys().collect::<Vec<_>>())
            .finish()
    }
}
