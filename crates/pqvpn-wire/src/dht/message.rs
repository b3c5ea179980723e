// SPDX-License-Identifier: MIT OR Apache-2.0
//! The requests and responses of the DHT.

use std::{net::SocketAddr, sync::Arc};

use ciborium::Value;

use super::{
    contact::{Contact, MAX_CONTACTS},
    fact::{Fact, MAX_FACTS_LEN},
    point::Point,
    record::{Heartbeat, Record},
};
use crate::{WireError, cbor};

/// Deepest nesting of a request or response: response, contacts, contact, addresses.
pub(crate) const DEPTH: usize = 6;

/// Lets its holder store at the node that gave it, for a short while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

/// What a node asks another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Are you there, and where do you see me?
    Ping,
    /// Whom do you know nearest to the target?
    FindNode {
        /// The point searched for.
        target: Point,
    },
    /// Do you hold the record under this key? Else as [`Request::FindNode`].
    FindValue {
        /// The record's key.
        key: Point,
        /// Answer with the record only if its seq is at least this.
        want_seq: u64,
    },
    /// Keep this record.
    Store {
        /// The record; its key follows from it.
        record: Arc<Record>,
        /// From a recent answer of the same node.
        token: Token,
        /// Whether this is a copy left on a lookup's path: kept for a short while only.
        cache: bool,
    },
    /// The owner of a stored record is alive: one step of its heartbeat chain.
    Beat {
        /// The record's key.
        key: Point,
        /// The step.
        heartbeat: Heartbeat,
    },
    /// Tell me some contacts at random (peer exchange).
    Exchange,
    /// Something everybody should know: a rotation, a revocation, an equivocation.
    Announce(Arc<Fact>),
    /// Which facts came after this number of yours?
    Facts {
        /// The answerer's own counter, from its last answer; 0 at first.
        after: u64,
    },
}

/// What the other answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Response {
    /// Here I am.
    Pong {
        /// The UDP address the request's link comes from.
        observed: SocketAddr,
    },
    /// Contacts nearest to the target, or at random for [`Request::Exchange`].
    Nodes {
        /// At most [`super::MAX_CONTACTS`].
        contacts: Vec<Arc<Contact>>,
        /// For a store under the target soon; absent where none is given.
        token: Option<Token>,
    },
    /// The record, and contacts nearer to its key.
    Value {
        /// The record.
        record: Arc<Record>,
        /// The newest heartbeat known.
        heartbeat: Option<Heartbeat>,
        /// At most [`super::MAX_CONTACTS`].
        contacts: Vec<Arc<Contact>>,
        /// For a store of a newer record.
        token: Option<Token>,
    },
    /// The record is kept until then (ms since 1970), or the heartbeat was taken.
    Stored {
        /// When it will be forgotten.
        until_ms: u64,
    },
    /// The fact was new, or known already.
    Noted,
    /// Facts after the number asked for, oldest first.
    Facts {
        /// Ask for what comes after this next time.
        next: u64,
        /// As many as fit.
        facts: Vec<Arc<Fact>>,
    },
    /// No, and it is no use to repeat it.
    Refused(Refusal),
    /// Not now.
    Busy {
        /// When to try again, in ms.
        retry_ms: u32,
    },
}

/// Why a request is refused for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The message broke a rule of the protocol.
    #[error("malformed")]
    Malformed = 1,
    /// The token is not ours or too old.
    #[error("the token is not valid")]
    Token = 2,
    /// The record is not acceptable: signature, times, size, endpoints.
    #[error("the record is not acceptable")]
    Record = 3,
    /// A record with a higher seq is known.
    #[error("a newer record is known")]
    Stale = 4,
    /// The owner, or the sender's subnet, stores too much here already.
    #[error("the quota is used up")]
    Quota = 5,
    /// The key is too far from this node.
    #[error("the key is not near this node")]
    Far = 6,
    /// The owner or the sender has been revoked, or has equivocated.
    #[error("revoked")]
    Revoked = 7,
    /// The heartbeat does not fit the record.
    #[error("the heartbeat does not fit")]
    Heartbeat = 8,
    /// The fact is not proven.
    #[error("the fact is not proven")]
    Fact = 9,
    /// This node only asks and does not serve.
    #[error("this node does not serve")]
    Client = 10,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Token,
        Self::Record,
        Self::Stale,
        Self::Quota,
        Self::Far,
        Self::Revoked,
        Self::Heartbeat,
        Self::Fact,
        Self::Client,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Reads the number on the wire.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.code() == code)
    }
}

impl Request {
    /// Deterministic CBOR: `[kind, fields ...]`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&self.to_value())
    }

    /// Reads the one encoding of a legal request.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let request = cbor::decode(bytes, DEPTH).and_then(Self::from_value);
        request.filter(|request| request.encode() == bytes).ok_or(WireError::Malformed("DHT request"))
    }

    pub(crate) fn to_value(&self) -> Value {
        let fields = match self {
            Self::Ping => vec![1.into()],
            Self::FindNode { target } => vec![2.into(), point(target)],
            Self::FindValue { key, want_seq } => vec![3.into(), point(key), (*want_seq).into()],
            Self::Store { record, token, cache } => {
                vec![4.into(), Value::Bytes(record.encode()), cbor::bytes(&token.0), (*cache).into()]
            }
            Self::Beat { key, heartbeat } => vec![5.into(), point(key), heartbeat.to_value()],
            Self::Exchange => vec![6.into()],
            Self::Announce(fact) => vec![7.into(), fact.to_value()],
            Self::Facts { after } => vec![8.into(), (*after).into()],
        };
        Value::Array(fields)
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        let (kind, fields) = split(value)?;
        Some(match kind {
            1 => {
                let [] = fields.try_into().ok()?;
                Self::Ping
            }
            2 => {
                let [target] = fields.try_into().ok()?;
                Self::FindNode { target: point_from(target)? }
            }
            3 => {
                let [key, want_seq] = fields.try_into().ok()?;
                Self::FindValue { key: point_from(key)?, want_seq: cbor::integer(&want_seq)? }
            }
            4 => {
                let [record, token, cache] = fields.try_into().ok()?;
                let record = Arc::new(Record::from_value(record)?);
                Self::Store { record, token: token_from(token)?, cache: cache.as_bool()? }
            }
            5 => {
                let [key, heartbeat] = fields.try_into().ok()?;
                Self::Beat { key: point_from(key)?, heartbeat: Heartbeat::from_value(heartbeat)? }
            }
            6 => {
                let [] = fields.try_into().ok()?;
                Self::Exchange
            }
            7 => {
                let [fact] = fields.try_into().ok()?;
                Self::Announce(Arc::new(Fact::from_value(fact)?))
            }
            8 => {
                let [after] = fields.try_into().ok()?;
                Self::Facts { after: cbor::integer(&after)? }
            }
            _ => return None,
        })
    }
}

impl Response {
    /// Deterministic CBOR: `[kind, fields ...]`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(&self.to_value())
    }

    /// Reads the one encoding of a legal response.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if the bytes are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let response = cbor::decode(bytes, DEPTH).and_then(Self::from_value);
        response.filter(|response| response.encode() == bytes).ok_or(WireError::Malformed("DHT response"))
    }

    pub(crate) fn to_value(&self) -> Value {
        let token_value = |token: &Option<Token>| cbor::option(*token, |token| cbor::bytes(&token.0));
        let fields = match self {
            Self::Pong { observed } => vec![1.into(), cbor::address(observed)],
            Self::Nodes { contacts, token } => vec![2.into(), contacts_value(contacts), token_value(token)],
            Self::Value { record, heartbeat, contacts, token } => vec![
                3.into(),
                Value::Bytes(record.encode()),
                cbor::option(*heartbeat, Heartbeat::to_value),
                contacts_value(contacts),
                token_value(token),
            ],
            Self::Stored { until_ms } => vec![4.into(), (*until_ms).into()],
            Self::Noted => vec![5.into()],
            Self::Facts { next, facts } => {
                vec![6.into(), (*next).into(), Value::Array(facts.iter().map(|fact| fact.to_value()).collect())]
            }
            Self::Refused(refusal) => vec![7.into(), refusal.code().into()],
            Self::Busy { retry_ms } => vec![8.into(), (*retry_ms).into()],
        };
        Value::Array(fields)
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        let (kind, fields) = split(value)?;
        Some(match kind {
            1 => {
                let [observed] = fields.try_into().ok()?;
                Self::Pong { observed: cbor::address_from(observed)? }
            }
            2 => {
                let [contacts, token] = fields.try_into().ok()?;
                Self::Nodes { contacts: contacts_from(contacts)?, token: cbor::optional(token, token_from)? }
            }
            3 => {
                let [record, heartbeat, contacts, token] = fields.try_into().ok()?;
                Self::Value {
                    record: Arc::new(Record::from_value(record)?),
                    heartbeat: cbor::optional(heartbeat, Heartbeat::from_value)?,
                    contacts: contacts_from(contacts)?,
                    token: cbor::optional(token, token_from)?,
                }
            }
            4 => {
                let [until] = fields.try_into().ok()?;
                Self::Stored { until_ms: cbor::integer(&until)? }
            }
            5 => {
                let [] = fields.try_into().ok()?;
                Self::Noted
            }
            6 => {
                let [next, facts] = fields.try_into().ok()?;
                Self::Facts { next: cbor::integer(&next)?, facts: facts_from(facts)? }
            }
            7 => {
                let [code] = fields.try_into().ok()?;
                Self::Refused(Refusal::from_code(cbor::integer(&code)?)?)
            }
            8 => {
                let [retry] = fields.try_into().ok()?;
                Self::Busy { retry_ms: cbor::integer(&retry)? }
            }
            _ => return None,
        })
    }
}

/// Takes `[kind, fields ...]` apart.
fn split(value: Value) -> Option<(u8, Vec<Value>)> {
    let mut fields = value.into_array().ok()?.into_iter();
    let kind = cbor::integer(&fields.next()?)?;
    Some((kind, fields.collect()))
}

fn point(point: &Point) -> Value {
    cbor::bytes(point.as_bytes())
}

fn point_from(value: Value) -> Option<Point> {
    cbor::fixed(value).map(Point::from_bytes)
}

fn token_from(value: Value) -> Option<Token> {
    cbor::fixed(value).map(Token)
}

fn contacts_value(contacts: &[Arc<Contact>]) -> Value {
    Value::Array(contacts.iter().map(|contact| contact.to_value()).collect())
}

fn contacts_from(value: Value) -> Option<Vec<Arc<Contact>>> {
    cbor::list(value, MAX_CONTACTS, |contact| Contact::from_value(contact).map(Arc::new))
}

fn facts_from(value: Value) -> Option<Vec<Arc<Fact>>> {
    let facts = cbor::list(value, MAX_FACTS_LEN, |fact| Fact::from_value(fact).map(Arc::new))?;
    let bytes: usize = facts.iter().map(|fact| fact.encoded_len()).sum();
    (bytes <= MAX_FACTS_LEN).then_some(facts)
}
