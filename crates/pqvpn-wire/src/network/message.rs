// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests and responses members exchange over streams of a link.

use std::{net::SocketAddr, sync::Arc};

use ciborium::Value;
use pqvpn_crypto::peer_id::PeerId;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    Cover, Door, JoinRequest, MAX_DOORS, MAX_MEMBERS, MemberRecord, NetworkId, PendingJoin, SignedInvite, Statement,
    StatementId,
    act::peer_from,
    relay::{RelayOpened, RelayPair, RelayRefusal},
};
use crate::{WireError, cbor, frame::FRAME_HEADER_LEN};

mod refusal;

pub use refusal::JoinRefusal;

/// Frame type of a request.
pub const REQUEST_TYPE: u8 = 32;
/// Frame type of a response.
pub const RESPONSE_TYPE: u8 = 33;
/// Longest message in bytes, without the frame header.
pub const MAX_NET_MESSAGE: usize = 512 * 1024;
/// Most rotations in one introduction.
pub const MAX_LINE: usize = 4;
/// Longest message worth reading from somebody who is no member: an introduction of [`MAX_LINE`] rotations.
pub const MAX_STRANGER_MESSAGE: usize = 64 * 1024;
/// Most tips, or ids wanted, in one message.
pub const MAX_IDS: usize = 256;
/// Most statements, and most records, in one bundle.
pub const MAX_BUNDLE: usize = 512;
/// Most invites, and most pending joins, in one bundle.
pub const MAX_BUNDLE_SMALL: usize = 64;
/// Most covers in one bundle.
pub const MAX_BUNDLE_COVERS: usize = 4;
/// Length of the digest of a beat, in bytes.
pub const DIGEST_LEN: usize = 16;
/// Version of the messages.
const VERSION: u8 = 1;
/// Deepest nesting: message, request, bundle or answer, list, element, addresses.
const DEPTH: usize = 7;

/// What a node asks another about a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetRequest {
    /// Take me in.
    Join(Box<JoinRequest>),
    /// This is what I have; what have you?
    Sync(SyncState),
    /// Send me these statements.
    Pull {
        /// At most [`MAX_IDS`].
        ids: Vec<StatementId>,
    },
    /// Here is something new.
    Push(Box<Bundle>),
    /// Are you there?
    Ping,
    /// I have still what this is the digest of; have you? [`SyncState::digest`].
    Beat(Beat),
    /// You know me by another key: these rotations led to the one that the link proves, oldest first.
    Introduce {
        /// At most [`MAX_LINE`].
        line: Vec<Arc<Statement>>,
    },
    /// Forward between me and another member.
    RelayOpen(RelayPair),
    /// Another member wants me to forward between it and you.
    RelayOffer(RelayPair),
}

/// A word on a quiet link, and its answer by who holds the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// Of what the sender holds.
    pub digest: [u8; DIGEST_LEN],
    /// Where the sender sees the receiver.
    pub observed: Option<SocketAddr>,
    /// As in [`SyncState::alive`].
    pub alive: Vec<u8>,
}

/// What a node holds of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncState {
    /// Hash over the ids and signers of all statements held.
    pub head: [u8; 32],
    /// Statements nobody stands on yet; at most [`MAX_IDS`], the newest ones.
    pub tips: Vec<StatementId>,
    /// Digest over the member records held.
    pub records: [u8; 32],
    /// Digest over the invites and pending joins held.
    pub invites: [u8; 32],
    /// Which records are held in which version, when digests differ; strictly ascending, at most one a member.
    pub held: Option<Vec<(PeerId, u64)>>,
    /// Statements wanted; at most [`MAX_IDS`].
    pub want: Vec<StatementId>,
    /// Where the last bundle ended that had more to come.
    pub cursor: Option<u64>,
    /// The sender's clock, ms since 1970.
    pub sent_ms: u64,
    /// Where the sender sees the receiver.
    pub observed: Option<SocketAddr>,
    /// How long ago the sender heard of each member of the constitution with this head, in order of PeerID: in half seconds,
    /// 255 for not at all or too long ago. What is missing at the end is 255.
    pub alive: Vec<u8>,
}

/// What nodes pass on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bundle {
    /// Ancestors first; at most [`MAX_BUNDLE`].
    pub statements: Vec<Arc<Statement>>,
    /// At most [`MAX_BUNDLE`].
    pub records: Vec<Arc<MemberRecord>>,
    /// At most [`MAX_BUNDLE_SMALL`].
    pub invites: Vec<SignedInvite>,
    /// At most [`MAX_BUNDLE_SMALL`].
    pub pending: Vec<PendingJoin>,
    /// Whether there is more to ask for.
    pub more: bool,
    /// At most [`MAX_BUNDLE_COVERS`]; for members only.
    pub covers: Vec<Arc<Cover>>,
}

/// What the other answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetResponse {
    /// You are a member; this is the constitution, or its first part.
    Joined(Box<Bundle>),
    /// An admin must look at it; ask again with a new join.
    Pending {
        /// Names the join for people.
        ticket: [u8; 16],
    },
    /// I cannot take you in; these can. At most 4.
    Elsewhere {
        /// Admins.
        admins: Vec<Door>,
    },
    /// No.
    Refused(JoinRefusal),
    /// This is what I have.
    State(SyncState),
    /// This is what you asked for, or lack.
    Bundle(Box<Bundle>),
    /// Taken, or here I am.
    Done,
    /// You are no member of this network.
    NotAMember,
    /// I know no such network.
    UnknownNetwork,
    /// You were put out; these statements say so, or the first of them.
    PutOut(Box<Bundle>),
    /// So do I.
    Beat(Beat),
    /// Datagrams are forwarded from now, or will be taken.
    RelayOpened(RelayOpened),
    /// They are not.
    RelayRefused(RelayRefusal),
}

/// A message longer than [`MAX_NET_MESSAGE`], or with a list longer than allowed: the sender must split it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the message is too long: {0} bytes")]
pub struct TooLong(pub usize);

/// Encodes a request about a network: `[1, network, [kind, ...]]`.
///
/// # Errors
/// [`TooLong`] if no receiver would take it.
pub fn encode_request(network: &NetworkId, request: &NetRequest) -> Result<Vec<u8>, TooLong> {
    bounded(encode(network, request.to_value()))
}

/// Encodes a response about a network: `[1, network, [kind, ...]]`.
///
/// # Errors
/// [`TooLong`] if no receiver would take it.
pub fn encode_response(network: &NetworkId, response: &NetResponse) -> Result<Vec<u8>, TooLong> {
    bounded(encode(network, response.to_value()))
}

/// Reads the one encoding of a request.
///
/// # Errors
/// [`WireError::TooLong`] above [`MAX_NET_MESSAGE`], else [`WireError::Malformed`].
pub fn decode_request(bytes: &[u8]) -> Result<(NetworkId, NetRequest), WireError> {
    decode(bytes, NetRequest::from_value, NetRequest::to_value, "network request")
}

/// Reads the one encoding of a response.
///
/// # Errors
/// [`WireError::TooLong`] above [`MAX_NET_MESSAGE`], else [`WireError::Malformed`].
pub fn decode_response(bytes: &[u8]) -> Result<(NetworkId, NetResponse), WireError> {
    decode(bytes, NetResponse::from_value, NetResponse::to_value, "network response")
}

/// Frames a message: `"PQ" | 1 | kind | u32 length | message`.
#[must_use]
pub fn frame(kind: u8, message: &[u8]) -> Vec<u8> {
    crate::frame::wrap(kind, message)
}

/// Reads a frame header: the type, 32 or 33, and the length of the message, at most [`MAX_NET_MESSAGE`].
///
/// # Errors
/// The frame is not one of a network, or too long.
pub fn parse_frame_header(header: &[u8; FRAME_HEADER_LEN]) -> Result<(u8, usize), WireError> {
    crate::frame::parse_header(header, [REQUEST_TYPE, RESPONSE_TYPE], MAX_NET_MESSAGE)
}

fn encode(network: &NetworkId, message: Value) -> Vec<u8> {
    cbor::encode(&Value::Array(vec![VERSION.into(), cbor::bytes(network.as_bytes()), message]))
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, TooLong> {
    if bytes.len() > MAX_NET_MESSAGE { Err(TooLong(bytes.len())) } else { Ok(bytes) }
}

fn decode<T>(
    bytes: &[u8],
    read: impl Fn(Value) -> Option<T>,
    write: impl Fn(&T) -> Value,
    what: &'static str,
) -> Result<(NetworkId, T), WireError> {
    if bytes.len() > MAX_NET_MESSAGE {
        return Err(WireError::TooLong(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
    }
    let message = cbor::array_from(bytes, DEPTH).and_then(|[version, network, message]| {
        (cbor::integer::<u8>(&version)? == VERSION)
            .then_some((NetworkId::from_bytes(cbor::fixed(network)?), read(message)?))
    });
    message.filter(|(network, message)| encode(network, write(message)) == bytes).ok_or(WireError::Malformed(what))
}

impl NetRequest {
    fn to_value(&self) -> Value {
        Value::Array(match self {
            Self::Join(join) => std::iter::once(1.into()).chain(join.to_values()).collect(),
            Self::Sync(state) => vec![2.into(), state.to_value()],
            Self::Pull { ids } => vec![3.into(), ids_to(ids)],
            Self::Push(bundle) => vec![4.into(), bundle.to_value()],
            Self::Ping => vec![5.into()],
            Self::Beat(beat) => std::iter::once(6.into()).chain(beat.to_values()).collect(),
            Self::Introduce { line } => vec![7.into(), statements_to(line)],
            Self::RelayOpen(pair) => std::iter::once(16.into()).chain(pair.to_values()).collect(),
            Self::RelayOffer(pair) => std::iter::once(17.into()).chain(pair.to_values()).collect(),
        })
    }

    fn from_value(value: Value) -> Option<Self> {
        let (kind, fields) = kind_of(value)?;
        match kind {
            1 => JoinRequest::from_values(fields.try_into().ok()?).map(|join| Self::Join(Box::new(join))),
            2 => one(fields).and_then(SyncState::from_value).map(Self::Sync),
            3 => one(fields).and_then(ids_from).map(|ids| Self::Pull { ids }),
            4 => one(fields).and_then(Bundle::from_value).map(|bundle| Self::Push(Box::new(bundle))),
            5 => fields.is_empty().then_some(Self::Ping),
            6 => Beat::from_values(fields).map(Self::Beat),
            7 => one(fields).and_then(|line| statements_from(line, MAX_LINE)).map(|line| Self::Introduce { line }),
            16 => RelayPair::from_values(fields).map(Self::RelayOpen),
            17 => RelayPair::from_values(fields).map(Self::RelayOffer),
            _ => None,
        }
    }
}

impl NetResponse {
    fn to_value(&self) -> Value {
        Value::Array(match self {
            Self::Joined(bundle) => vec![1.into(), bundle.to_value()],
            Self::Pending { ticket } => vec![2.into(), cbor::bytes(ticket)],
            Self::Elsewhere { admins } => {
                vec![3.into(), Value::Array(admins.iter().map(Door::to_value).collect())]
            }
            Self::Refused(refusal) => std::iter::once(4.into()).chain(refusal.to_values()).collect(),
            Self::State(state) => vec![5.into(), state.to_value()],
            Self::Bundle(bundle) => vec![6.into(), bundle.to_value()],
            Self::Done => vec![7.into()],
            Self::NotAMember => vec![8.into()],
            Self::UnknownNetwork => vec![9.into()],
            Self::PutOut(proof) => vec![10.into(), proof.to_value()],
            Self::Beat(beat) => std::iter::once(11.into()).chain(beat.to_values()).collect(),
            Self::RelayOpened(opened) => std::iter::once(16.into()).chain(opened.to_values()).collect(),
            Self::RelayRefused(refusal) => vec![17.into(), refusal.to_value()],
        })
    }

    fn from_value(value: Value) -> Option<Self> {
        let (kind, fields) = kind_of(value)?;
        let empty = fields.is_empty();
        match kind {
            1 => one(fields).and_then(Bundle::from_value).map(|bundle| Self::Joined(Box::new(bundle))),
            2 => one(fields).and_then(cbor::fixed).map(|ticket| Self::Pending { ticket }),
            3 => one(fields)
                .and_then(|doors| cbor::list(doors, MAX_DOORS, Door::from_value))
                .map(|admins| Self::Elsewhere { admins }),
            4 => JoinRefusal::from_values(fields).map(Self::Refused),
            5 => one(fields).and_then(SyncState::from_value).map(Self::State),
            6 => one(fields).and_then(Bundle::from_value).map(|bundle| Self::Bundle(Box::new(bundle))),
            7 => empty.then_some(Self::Done),
            8 => empty.then_some(Self::NotAMember),
            9 => empty.then_some(Self::UnknownNetwork),
            10 => one(fields).and_then(Bundle::from_value).map(|proof| Self::PutOut(Box::new(proof))),
            11 => Beat::from_values(fields).map(Self::Beat),
            16 => RelayOpened::from_values(fields).map(Self::RelayOpened),
            17 => RelayRefusal::from_value(&one(fields)?).map(Self::RelayRefused),
            _ => None,
        }
    }
}

impl Beat {
    /// `digest, observed or null, alive`
    fn to_values(&self) -> [Value; 3] {
        [cbor::bytes(&self.digest), cbor::option(self.observed.as_ref(), cbor::address), cbor::bytes(&self.alive)]
    }

    fn from_values(fields: Vec<Value>) -> Option<Self> {
        let [digest, observed, alive] = <[Value; 3]>::try_from(fields).ok()?;
        let alive = alive.into_bytes().ok().filter(|alive| alive.len() <= MAX_MEMBERS)?;
        Some(Self { digest: cbor::fixed(digest)?, observed: cbor::optional(observed, cbor::address_from)?, alive })
    }
}

impl SyncState {
    /// Digest of what is held, for two that held the same before: SHA-256(`"pqvpn beat"`, head, records, invites), its
    /// first bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; DIGEST_LEN] {
        let mut hash = Sha256::new_with_prefix(b"pqvpn beat");
        [self.head, self.records, self.invites].iter().for_each(|part| hash.update(part));
        let mut digest = [0; DIGEST_LEN];
        digest.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        digest
    }

    /// `[head, [tip], records, invites, [[peer, seq], ...] or null, [want], cursor or null, sent_ms, observed or null]`, and
    /// `alive` where there is any.
    fn to_value(&self) -> Value {
        let pair = |(peer, seq): &(PeerId, u64)| Value::Array(vec![cbor::bytes(peer.as_bytes()), (*seq).into()]);
        let alive = (!self.alive.is_empty()).then(|| cbor::bytes(&self.alive));
        let fields = vec![
            cbor::bytes(&self.head),
            ids_to(&self.tips),
            cbor::bytes(&self.records),
            cbor::bytes(&self.invites),
            cbor::option(self.held.as_ref(), |held| Value::Array(held.iter().map(pair).collect())),
            ids_to(&self.want),
            cbor::option(self.cursor, Value::from),
            self.sent_ms.into(),
            cbor::option(self.observed.as_ref(), cbor::address),
        ];
        Value::Array(fields.into_iter().chain(alive).collect())
    }

    fn from_value(value: Value) -> Option<Self> {
        let (fields, alive) = with_last::<9>(value)?;
        let [head, tips, records, invites, held, want, cursor, sent_ms, observed] = fields;
        let alive = alive.map_or(Some(Vec::new()), |alive| {
            alive.into_bytes().ok().filter(|alive| (1..=MAX_MEMBERS).contains(&alive.len()))
        })?;
        let held = cbor::optional(held, |held| {
            let held = cbor::list(held, MAX_MEMBERS, |pair| {
                let [peer, seq] = cbor::array(pair)?;
                Some((peer_from(peer)?, cbor::integer(&seq)?))
            })?;
            held.is_sorted_by(|(a, _): &(PeerId, u64), (b, _)| a < b).then_some(held)
        })?;
        Some(Self {
            head: cbor::fixed(head)?,
            tips: ids_from(tips)?,
            records: cbor::fixed(records)?,
            invites: cbor::fixed(invites)?,
            held,
            want: ids_from(want)?,
            cursor: cbor::optional(cursor, |cursor| cbor::integer(&cursor))?,
            sent_ms: cbor::integer(&sent_ms)?,
            observed: cbor::optional(observed, cbor::address_from)?,
            alive,
        })
    }
}

impl Bundle {
    /// Reads the one encoding of a bundle, as a store or a file may hold it.
    ///
    /// # Errors
    /// [`WireError::TooLong`] above [`MAX_NET_MESSAGE`], else [`WireError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_NET_MESSAGE {
            return Err(WireError::TooLong(u32::try_from(bytes.len()).unwrap_or(u32::MAX)));
        }
        let bundle = cbor::decode(bytes, DEPTH).and_then(Self::from_value);
        bundle.filter(|bundle| bundle.encode() == bytes).ok_or(WireError::Malformed("bundle"))
    }

    /// Deterministic CBOR: `[[statement], [record], [invite], [pending], more]`, and `[cover]` where there is any.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&self.to_value())
    }

    fn to_value(&self) -> Value {
        let covers = || Value::Array(self.covers.iter().map(|cover| Value::Bytes(cover.encode())).collect());
        let fields = vec![
            statements_to(&self.statements),
            Value::Array(self.records.iter().map(|record| Value::Bytes(record.encode())).collect()),
            Value::Array(self.invites.iter().map(|invite| Value::Bytes(invite.encode())).collect()),
            Value::Array(self.pending.iter().map(PendingJoin::to_value).collect()),
            self.more.into(),
        ];
        Value::Array(fields.into_iter().chain((!self.covers.is_empty()).then(covers)).collect())
    }

    fn from_value(value: Value) -> Option<Self> {
        let ([statements, records, invites, pending, more], covers) = with_last::<5>(value)?;
        let covers = covers.map_or(Some(Vec::new()), |covers| {
            let covers = cbor::list(covers, MAX_BUNDLE_COVERS, |value| Cover::from_value(value).map(Arc::new))?;
            (!covers.is_empty()).then_some(covers)
        })?;
        Some(Self {
            statements: statements_from(statements, MAX_BUNDLE)?,
            records: cbor::list(records, MAX_BUNDLE, |value| MemberRecord::from_value(value).map(Arc::new))?,
            invites: cbor::list(invites, MAX_BUNDLE_SMALL, SignedInvite::from_value)?,
            pending: cbor::list(pending, MAX_BUNDLE_SMALL, PendingJoin::from_value)?,
            more: more.as_bool()?,
            covers,
        })
    }
}

/// `N` fields, and one more that is left out where it says nothing.
fn with_last<const N: usize>(value: Value) -> Option<([Value; N], Option<Value>)> {
    let mut fields = value.into_array().ok()?;
    let last = if fields.len() == N + 1 { fields.pop() } else { None };
    Some((fields.try_into().ok()?, last))
}

fn statements_to(statements: &[Arc<Statement>]) -> Value {
    Value::Array(statements.iter().map(|statement| Value::Bytes(statement.encode())).collect())
}

fn statements_from(value: Value, most: usize) -> Option<Vec<Arc<Statement>>> {
    cbor::list(value, most, |value| Statement::from_value(value).map(Arc::new))
}

fn kind_of(value: Value) -> Option<(u8, Vec<Value>)> {
    let mut fields = value.into_array().ok()?;
    let rest = if fields.is_empty() { return None } else { fields.split_off(1) };
    Some((cbor::integer(fields.first()?)?, rest))
}

fn one(fields: Vec<Value>) -> Option<Value> {
    let [field] = <[Value; 1]>::try_from(fields).ok()?;
    Some(field)
}

fn ids_to(ids: &[StatementId]) -> Value {
    Value::Array(ids.iter().map(|id| id.to_value()).collect())
}

fn ids_from(value: Value) -> Option<Vec<StatementId>> {
    cbor::list(value, MAX_IDS, StatementId::from_value)
}
