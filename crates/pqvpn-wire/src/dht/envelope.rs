// SPDX-License-Identifier: MIT OR Apache-2.0
//! The envelope of every DHT message: signed, and bound to its sender, its receiver, its network and its moment.

use ciborium::Value;
use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentityError, PublicIdentity, SignatureLabel},
    peer_id::PeerId,
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    contact::Contact,
    message::{self, Request, Response},
    point::NetworkId,
};
use crate::{WireError, cbor, frame::FRAME_HEADER_LEN};

mod replay;

pub use replay::{REPLAY_PER_PEER, REPLAY_TOTAL, ReplayError, ReplayGuard};

/// Frame type of a request.
pub const REQUEST_TYPE: u8 = 16;
/// Frame type of a response.
pub const RESPONSE_TYPE: u8 = 17;
/// Longest message in bytes, without the frame header.
pub const MAX_MESSAGE: usize = 32 * 1024;
/// How far two clocks may differ, in ms: older and newer messages are refused.
pub const MAX_SKEW_MS: u64 = 120_000;
/// Version of the envelope.
const VERSION: u8 = 1;
/// Deepest nesting of the signed bytes: signed array, body, message.
const DEPTH: usize = 2 + message::DEPTH;

/// Who speaks to whom, when, about what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Which DHT.
    pub network: NetworkId,
    /// The sender.
    pub from: PeerId,
    /// The receiver.
    pub to: PeerId,
    /// When it was signed, ms since 1970.
    pub ts_ms: u64,
    /// Random; tells two messages of one moment apart.
    pub nonce: [u8; 16],
    /// The hash of the request that is answered; absent in requests.
    pub re: Option<[u8; 32]>,
}

/// A signed message, ready for a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What goes into the frame.
    pub bytes: Vec<u8>,
    /// SHA-256 of the signed bytes: the answer's `re`.
    pub hash: [u8; 32],
}

/// Why a message could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// It would be longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    /// The cryptographic library failed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// What an opener expects of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The DHT of this node.
    pub network: NetworkId,
    /// This node.
    pub me: PeerId,
    /// Wall clock, ms since 1970.
    pub now_ms: u64,
    /// The hash of the request sent, when a response is expected.
    pub re: Option<[u8; 32]>,
}

/// A message that stood every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<T> {
    /// Who, to whom, when.
    pub header: Header,
    /// What.
    pub body: T,
    /// SHA-256 of the signed bytes: the `re` of an answer.
    pub hash: [u8; 32],
}

/// Why a message is refused; always the sender's fault, or a clock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Longer than [`MAX_MESSAGE`].
    #[error("the message is too long")]
    TooLong,
    /// Not the one encoding of a legal message.
    #[error("the message is malformed")]
    Malformed,
    /// A version that is not spoken here.
    #[error("the message has an unknown version")]
    Version,
    /// Made for another DHT.
    #[error("the message belongs to another network")]
    Network,
    /// The sender named is not the peer at the other end of the link.
    #[error("the message does not come from the link's peer")]
    NotFromLink,
    /// Made for another receiver.
    #[error("the message is for somebody else")]
    Misdirected,
    /// Signed more than [`MAX_SKEW_MS`] ago.
    #[error("the message is too old")]
    Expired,
    /// Signed more than [`MAX_SKEW_MS`] ahead.
    #[error("the message comes from the future")]
    Future,
    /// The answer to another request, an answer where a request is due, or the reverse.
    #[error("the message answers another request")]
    WrongAnswer,
    /// The signature does not hold.
    #[error("the message's signature is wrong")]
    Signature,
    /// The contact enclosed is not the sender's.
    #[error("the message encloses somebody else's contact")]
    Sender,
}

impl EnvelopeError {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::TooLong,
        Self::Malformed,
        Self::Version,
        Self::Network,
        Self::NotFromLink,
        Self::Misdirected,
        Self::Expired,
        Self::Future,
        Self::WrongAnswer,
        Self::Signature,
        Self::Sender,
    ];

    /// A short name for counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Network => "network",
            Self::NotFromLink => "not-from-link",
            Self::Misdirected => "misdirected",
            Self::Expired => "expired",
            Self::Future => "future",
            Self::WrongAnswer => "wrong-answer",
            Self::Signature => "signature",
            Self::Sender => "sender",
        }
    }
}

/// Signs a request. `header.re` must be absent; `sender` is how this node can be dialled, if it serves.
///
/// # Errors
/// The request is too long, or the cryptographic library cannot sign.
pub fn seal_request(
    identity: &Identity,
    header: &Header,
    request: &Request,
    sender: Option<&Contact>,
) -> Result<Sealed, SealError> {
    seal(identity, header, request.to_value(), sender)
}

/// Signs a response. `header.re` must be the hash of the request it answers.
///
/// # Errors
/// The response is too long, or the cryptographic library cannot sign.
pub fn seal_response(
    identity: &Identity,
    header: &Header,
    response: &Response,
    sender: Option<&Contact>,
) -> Result<Sealed, SealError> {
    seal(identity, header, response.to_value(), sender)
}

/// Opens a request that came over a link of `peer`.
///
/// # Errors
/// The first check that failed; the signature is checked last, being the dearest.
pub fn open_request(
    bytes: &[u8],
    peer: &PublicIdentity,
    expect: &Expect,
) -> Result<Opened<(Option<Contact>, Request)>, EnvelopeError> {
    open(bytes, peer, expect)
}

/// Opens a response that came over a link of `peer`; `expect.re` is the hash of the request.
///
/// # Errors
/// The first check that failed; the signature is checked last, being the dearest.
pub fn open_response(
    bytes: &[u8],
    peer: &PublicIdentity,
    expect: &Expect,
) -> Result<Opened<(Option<Contact>, Response)>, EnvelopeError> {
    open(bytes, peer, expect)
}

/// Frames a message: `"PQ" | 1 | kind | u32 length | message`.
#[must_use]
pub fn frame(kind: u8, message: &[u8]) -> Vec<u8> {
    crate::frame::wrap(kind, message)
}

/// Reads a frame header: the type, 16 or 17, and the length of the message, at most [`MAX_MESSAGE`].
///
/// # Errors
/// The frame is not one of the DHT, or too long.
pub fn parse_frame_header(header: &[u8; FRAME_HEADER_LEN]) -> Result<(u8, usize), WireError> {
    crate::frame::parse_header(header, [REQUEST_TYPE, RESPONSE_TYPE], MAX_MESSAGE)
}

fn seal(identity: &Identity, header: &Header, message: Value, sender: Option<&Contact>) -> Result<Sealed, SealError> {
    let signed = signed_bytes(header, message, sender);
    let signature = identity.sign(SignatureLabel::DhtMessage, &signed)?;
    let hash = Sha256::digest(&signed).into();
    let bytes = cbor::encode(&Value::Array(vec![Value::Bytes(signed), Value::Bytes(signature.into_bytes())]));
    if bytes.len() > MAX_MESSAGE { Err(SealError::TooLong(bytes.len())) } else { Ok(Sealed { bytes, hash }) }
}

/// `[1, network, from, to, ts_ms, nonce, re or null, [sender contact or null, message]]`
fn signed_bytes(header: &Header, message: Value, sender: Option<&Contact>) -> Vec<u8> {
    cbor::encode(&Value::Array(vec![
        VERSION.into(),
        cbor::bytes(header.network.as_bytes()),
        cbor::bytes(header.from.as_bytes()),
        cbor::bytes(header.to.as_bytes()),
        header.ts_ms.into(),
        cbor::bytes(&header.nonce),
        cbor::option(header.re, |re| cbor::bytes(&re)),
        Value::Array(vec![cbor::option(sender, Contact::to_value), message]),
    ]))
}

/// What an envelope can hold.
trait Message: Sized {
    fn to_value(&self) -> Value;
    fn from_value(value: Value) -> Option<Self>;
}

impl Message for Request {
    fn to_value(&self) -> Value {
        self.to_value()
    }

    fn from_value(value: Value) -> Option<Self> {
        Self::from_value(value)
    }
}

impl Message for Response {
    fn to_value(&self) -> Value {
        self.to_value()
    }

    fn from_value(value: Value) -> Option<Self> {
        Self::from_value(value)
    }
}

fn open<T: Message>(
    bytes: &[u8],
    peer: &PublicIdentity,
    expect: &Expect,
) -> Result<Opened<(Option<Contact>, T)>, EnvelopeError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(EnvelopeError::TooLong);
    }
    let (signed, signature) = split(bytes).ok_or(EnvelopeError::Malformed)?;
    let fields = cbor::decode(&signed, DEPTH).ok_or(EnvelopeError::Malformed)?;
    let (header, body) = header_from(fields)?;
    check(&header, peer, expect)?;
    let (sender, message): (_, T) = body_from(body).ok_or(EnvelopeError::Malformed)?;
    // One message has one encoding, down to the byte strings inside it.
    if signed_bytes(&header, message.to_value(), sender.as_ref()) != signed {
        return Err(EnvelopeError::Malformed);
    }
    if sender.as_ref().is_some_and(|contact| *contact.peer() != header.from) {
        return Err(EnvelopeError::Sender);
    }
    peer.verify(SignatureLabel::DhtMessage, &signed, &signature).map_err(|_| EnvelopeError::Signature)?;
    Ok(Opened { header, body: (sender, message), hash: Sha256::digest(&signed).into() })
}

fn body_from<T: Message>(body: Value) -> Option<(Option<Contact>, T)> {
    let [sender, message] = cbor::array(body)?;
    Some((cbor::optional(sender, Contact::from_value)?, T::from_value(message)?))
}

/// Takes the outer array apart: signed bytes and signature, both halves there.
fn split(bytes: &[u8]) -> Option<(Vec<u8>, CompositeSignature)> {
    let outer = cbor::decode(bytes, 2).filter(|outer| cbor::encode(outer) == bytes)?;
    let [signed, signature] = cbor::array(outer)?;
    let signature = CompositeSignature::from_bytes(&signature.into_bytes().ok()?).ok()?;
    Some((signed.into_bytes().ok()?, signature))
}

fn header_from(fields: Value) -> Result<(Header, Value), EnvelopeError> {
    let fields = fields.into_array().map_err(|_| EnvelopeError::Malformed)?;
    // A later version may have any shape after its number.
    match fields.first().map(cbor::integer::<u64>) {
        Some(Some(version)) if version == u64::from(VERSION) => {}
        Some(Some(_)) => return Err(EnvelopeError::Version),
        _ => return Err(EnvelopeError::Malformed),
    }
    header_fields(fields).ok_or(EnvelopeError::Malformed)
}

fn header_fields(fields: Vec<Value>) -> Option<(Header, Value)> {
    let [_, network, from, to, ts, nonce, re, body] = fields.try_into().ok()?;
    let header = Header {
        network: NetworkId::from_bytes(cbor::fixed(network)?),
        from: PeerId::from_bytes(cbor::fixed(from)?),
        to: PeerId::from_bytes(cbor::fixed(to)?),
        ts_ms: cbor::integer(&ts)?,
        nonce: cbor::fixed(nonce)?,
        re: cbor::optional(re, cbor::fixed)?,
    };
    Some((header, body))
}

fn check(header: &Header, peer: &PublicIdentity, expect: &Expect) -> Result<(), EnvelopeError> {
    if header.network != expect.network {
        return Err(EnvelopeError::Network);
    }
    if header.from != peer.peer_id() {
        return Err(EnvelopeError::NotFromLink);
    }
    if header.to != expect.me {
        return Err(EnvelopeError::Misdirected);
    }
    if expect.now_ms.saturating_sub(header.ts_ms) > MAX_SKEW_MS {
        return Err(EnvelopeError::Expired);
    }
    if header.ts_ms.saturating_sub(expect.now_ms) > MAX_SKEW_MS {
        return Err(EnvelopeError::Future);
    }
    if header.re != expect.re {
        return Err(EnvelopeError::WrongAnswer);
    }
    Ok(())
}
