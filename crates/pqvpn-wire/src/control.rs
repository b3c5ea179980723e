// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages of the control stream, each a deterministic CBOR array (RFC 8949 §4.2.1).

use std::net::SocketAddr;

use ciborium::Value;

use crate::{
    WireError,
    cbor::{address, address_from, array_from, encode as cbor, fixed, integer, list, optional},
};

/// Most receiver indices one message may carry: the list of `security.md` 1.5, used up by address changes.
pub const MAX_INDICES: usize = 8;
/// Most AEAD ids a hello may offer.
const MAX_AEADS: usize = 8;
/// Most addresses one end may name as candidates.
pub const MAX_CANDIDATES: usize = 16;
/// The sleep of links as it is described in `docs/protocol.md` 3.4.
pub const SLEEP_VERSION: u8 = 1;
/// Deepest nesting of a control message.
const DEPTH: usize = 4;

/// One control message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The dialer opens a session.
    Hello(Hello),
    /// The listener answers, with its key confirmation.
    HelloAck(HelloAck),
    /// The dialer's key confirmation.
    Confirm(Confirm),
    /// A message of the ratchet, opaque here: its exact bytes are hashed into the transcript.
    Ratchet(Vec<u8>),
    /// Where the sender may be reached, for both to try at once.
    Candidates(Candidates),
    /// The sender needs the link no longer for now. Who agrees closes it with [`CloseReason::Asleep`].
    Sleep {
        /// What sleep means: [`SLEEP_VERSION`]. Nobody agrees to one it does not know.
        version: u8,
    },
}

/// Where one end of a session may be reached besides the way it is reached now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Counts the sender's tries; what answers a try carries its number.
    pub round: u32,
    /// Whether this answers the other end's candidates.
    pub answer: bool,
    /// Whether the sender's NAT gives each of its peers another port.
    pub varies: bool,
    /// Best first, at most [`MAX_CANDIDATES`], distinct.
    pub addresses: Vec<SocketAddr>,
}

/// Opens a session on a fresh link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// AEAD ids the dialer can use, best first; never empty.
    pub aeads: Vec<u8>,
    /// Receiver indices the listener shall put into its packets, in order of use; 1 to [`MAX_INDICES`], distinct.
    pub indices: Vec<u32>,
    /// Names the resumption secret both ends may hold from an earlier session.
    pub psk_id: Option<[u8; 16]>,
    /// Largest inner packet the dialer takes, in bytes.
    pub inner_mtu: u16,
}

/// Answers a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloAck {
    /// The AEAD chosen from the offer.
    pub aead: u8,
    /// Receiver indices the dialer shall put into its packets; 1 to [`MAX_INDICES`], distinct.
    pub indices: Vec<u32>,
    /// Whether the resumption secret named by the hello is mixed in.
    pub psk_used: bool,
    /// Largest inner packet the listener takes, in bytes.
    pub inner_mtu: u16,
    /// Key confirmation of the listener.
    pub mac: [u8; 32],
}

/// Confirms the session's keys to the listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirm {
    /// Key confirmation of the dialer.
    pub mac: [u8; 32],
}

/// Why a session ends: the application close code of the link (RFC 9000 §19.19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// Nobody used it for a while.
    Idle = 1,
    /// The node stops or goes down.
    Shutdown = 2,
    /// Another session with the same peer is kept.
    Duplicate = 3,
    /// An operator or a rule asked for a new one.
    Replaced = 4,
    /// The other end broke the protocol.
    Protocol = 5,
    /// The ratchet failed: keys may be known to a third party.
    Ratchet = 6,
    /// No AEAD in common.
    NoCommonAead = 7,
    /// The node makes sessions with the peers it knows only.
    NotAdmitted = 8,
    /// The node has no room for the link.
    Busy = 9,
    /// The other end was revoked in a network. A mere word: what counts is the statement it was sent before.
    Revoked = 10,
    /// The session goes on without the link.
    Asleep = 11,
}

impl CloseReason {
    const ALL: [Self; 11] = [
        Self::Idle,
        Self::Shutdown,
        Self::Duplicate,
        Self::Replaced,
        Self::Protocol,
        Self::Ratchet,
        Self::NoCommonAead,
        Self::NotAdmitted,
        Self::Busy,
        Self::Revoked,
        Self::Asleep,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Reads the number on the wire.
    #[must_use]
    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| u64::from(reason.code()) == code)
    }

    /// One or two words for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Shutdown => "shutting down",
            Self::Duplicate => "duplicate",
            Self::Replaced => "replaced",
            Self::Protocol => "protocol error",
            Self::Ratchet => "ratchet failure",
            Self::NoCommonAead => "no common AEAD",
            Self::NotAdmitted => "not admitted",
            Self::Busy => "busy",
            Self::Revoked => "revoked",
            Self::Asleep => "asleep",
        }
    }
}

impl Message {
    /// The frame type of this message.
    #[must_use]
    pub const fn type_byte(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::HelloAck(_) => 2,
            Self::Confirm(_) => 3,
            Self::Ratchet(_) => 4,
            Self::Candidates(_) => 5,
            Self::Sleep { .. } => 6,
        }
    }

    pub(crate) fn encode_payload(&self) -> Vec<u8> {
        match self {
            Self::Ratchet(bytes) => bytes.clone(),
            Self::Hello(hello) => cbor(&Value::Array(vec![
                Value::Bytes(hello.aeads.clone()),
                indices_value(&hello.indices),
                hello.psk_id.map_or(Value::Null, |id| Value::Bytes(id.to_vec())),
                hello.inner_mtu.into(),
            ])),
            Self::HelloAck(ack) => cbor(&Value::Array(vec![
                ack.aead.into(),
                indices_value(&ack.indices),
                ack.psk_used.into(),
                ack.inner_mtu.into(),
                Value::Bytes(ack.mac.to_vec()),
            ])),
            Self::Confirm(confirm) => cbor(&Value::Array(vec![Value::Bytes(confirm.mac.to_vec())])),
            Self::Candidates(candidates) => cbor(&Value::Array(vec![
                candidates.round.into(),
                candidates.answer.into(),
                candidates.varies.into(),
                Value::Array(candidates.addresses.iter().map(address).collect()),
            ])),
            Self::Sleep { version } => cbor(&Value::Array(vec![(*version).into()])),
        }
    }

    /// Decodes a payload of the given frame type.
    ///
    /// # Errors
    /// The type is unknown, or the payload is not the one deterministic encoding of a legal message.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, WireError> {
        let message = match kind {
            1 => Hello::decode(payload).map(Self::Hello).ok_or(WireError::Malformed("hello")),
            2 => HelloAck::decode(payload).map(Self::HelloAck).ok_or(WireError::Malformed("hello-ack")),
            3 => Confirm::decode(payload).map(Self::Confirm).ok_or(WireError::Malformed("confirm")),
            4 => return Ok(Self::Ratchet(payload.to_vec())),
            5 => Candidates::decode(payload).map(Self::Candidates).ok_or(WireError::Malformed("candidates")),
            6 => sleep_from(payload).ok_or(WireError::Malformed("sleep")),
            unknown => return Err(WireError::Type(unknown)),
        }?;
        // One message has one encoding: what re-encodes differently was not deterministic CBOR.
        if message.encode_payload() == payload { Ok(message) } else { Err(WireError::Malformed("non-canonical")) }
    }
}

impl Hello {
    fn decode(payload: &[u8]) -> Option<Self> {
        let [aeads, indices, psk_id, inner_mtu] = array_from(payload, DEPTH)?;
        let aeads = aeads.into_bytes().ok().filter(|ids| (1..=MAX_AEADS).contains(&ids.len()))?;
        Some(Self {
            aeads,
            indices: indices_from(indices)?,
            psk_id: optional(psk_id, fixed)?,
            inner_mtu: integer(&inner_mtu)?,
        })
    }
}

impl HelloAck {
    fn decode(payload: &[u8]) -> Option<Self> {
        let [aead, indices, psk_used, inner_mtu, mac] = array_from(payload, DEPTH)?;
        Some(Self {
            aead: integer(&aead)?,
            indices: indices_from(indices)?,
            psk_used: psk_used.as_bool()?,
            inner_mtu: integer(&inner_mtu)?,
            mac: fixed(mac)?,
        })
    }
}

impl Confirm {
    fn decode(payload: &[u8]) -> Option<Self> {
        let [mac] = array_from(payload, DEPTH)?;
        Some(Self { mac: fixed(mac)? })
    }
}

impl Candidates {
    fn decode(payload: &[u8]) -> Option<Self> {
        let [round, answer, varies, addresses] = array_from(payload, DEPTH)?;
        let addresses = list(addresses, MAX_CANDIDATES, address_from)?;
        let distinct = addresses.iter().enumerate().all(|(at, address)| !addresses[..at].contains(address));
        let (answer, varies) = (answer.as_bool()?, varies.as_bool()?);
        distinct.then_some(Self { round: integer(&round)?, answer, varies, addresses })
    }
}

fn sleep_from(payload: &[u8]) -> Option<Message> {
    let [version] = array_from(payload, DEPTH)?;
    Some(Message::Sleep { version: integer(&version)? })
}

fn indices_value(indices: &[u32]) -> Value {
    Value::Array(indices.iter().map(|&index| index.into()).collect())
}

fn indices_from(value: Value) -> Option<Vec<u32>> {
    let indices = value.into_array().ok()?.iter().map(integer).collect::<Option<Vec<u32>>>()?;
    let distinct = indices.iter().enumerate().all(|(at, index)| !indices[..at].contains(index));
    (distinct && (1..=MAX_INDICES).contains(&indices.len())).then_some(indices)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello { aeads: vec![2, 1], indices: vec![1, 0xffff_ffff], psk_id: Some([3; 16]), inner_mtu: 1420 }
    }

    fn candidates(addresses: &[&str]) -> Candidates {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Candidates { round: 3, answer: true, varies: false, addresses }
    }

    fn round_trip(message: &Message) -> Result<Message, WireError> {
        Message::decode(message.type_byte(), &message.encode_payload())
    }

    #[test]
    fn every_message_survives_its_own_codec() {
        let ack = HelloAck { aead: 2, indices: vec![9], psk_used: true, inner_mtu: 1280, mac: [5; 32] };
        for message in [
            Message::Hello(hello()),
            Message::Hello(Hello { psk_id: None, ..hello() }),
            Message::HelloAck(ack),
            Message::Confirm(Confirm { mac: [1; 32] }),
            Message::Ratchet(vec![1, 2, 3]),
            Message::Candidates(candidates(&["192.0.2.1:7", "[2001:db8::1]:7"])),
            Message::Candidates(candidates(&[])),
            Message::Sleep { version: SLEEP_VERSION },
            Message::Sleep { version: 255 },
        ] {
            assert_eq!(round_trip(&message), Ok(message));
        }
    }

    #[test]
    fn close_codes_are_distinct_and_read_back() {
        for reason in CloseReason::ALL {
            assert_eq!(CloseReason::from_code(u64::from(reason.code())), Some(reason));
        }
        assert_eq!(CloseReason::from_code(0), None);
    }

    #[test]
    fn illegal_hellos_do_not_decode() {
        for bad in [
            Hello { aeads: vec![], ..hello() },
            Hello { aeads: vec![1; MAX_AEADS + 1], ..hello() },
            Hello { indices: vec![], ..hello() },
            Hello { indices: vec![4, 4], ..hello() },
            Hello { indices: (0..9).collect(), ..hello() },
        ] {
            assert_eq!(round_trip(&Message::Hello(bad)), Err(WireError::Malformed("hello")));
        }
    }

    #[test]
    fn a_sleep_says_its_version() {
        let payload = |version: Option<u8>| cbor(&Value::Array(version.into_iter().map(Value::from).collect()));
        assert_eq!(Message::decode(6, &payload(None)), Err(WireError::Malformed("sleep")));
        assert_eq!(Message::decode(6, &payload(Some(2))), Ok(Message::Sleep { version: 2 }), "to be left alone");
    }

    #[test]
    fn too_many_or_repeated_candidates_do_not_decode() {
        let many = (1..=17).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        let bad = [Candidates { addresses: many, ..candidates(&[]) }, candidates(&["192.0.2.1:7", "192.0.2.1:7"])];
        for bad in bad {
            assert_eq!(round_trip(&Message::Candidates(bad)), Err(WireError::Malformed("candidates")));
        }
    }

    #[test]
    fn a_second_encoding_of_the_same_message_is_refused() {
        let canonical = Message::Confirm(Confirm { mac: [9; 32] }).encode_payload();
        assert_eq!(canonical[..3], [0x81, 0x58, 32]);
        let mut longer = vec![0x81, 0x59, 0, 32]; // the same length, not in its shortest form
        longer.extend_from_slice(&canonical[3..]);
        assert_eq!(Message::decode(3, &longer), Err(WireError::Malformed("non-canonical")));
        let trailing = [canonical.as_slice(), &[0]].concat();
        assert_eq!(Message::decode(3, &trailing), Err(WireError::Malformed("non-canonical")));
    }

    proptest! {
        #[test]
        fn arbitrary_payloads_never_panic(kind in 0u8..8, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::decode(kind, &payload) {
                prop_assert_eq!(message.encode_payload(), payload);
            }
        }
    }
}
