// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes: no panic, and what decodes encodes to the same bytes. Shared with the fuzz targets.

use std::sync::OnceLock;

use pqvpn_crypto::identity::{Identity, IdentitySeed, SEED_LEN};
use pqvpn_wire::{
    control,
    dht::{
        Contact, Fact, NetworkId, Record, Request, Response,
        envelope::{self, Expect, Opened},
    },
    frame,
};

/// The moment all samples are made at, ms since 1970.
pub const NOW_MS: u64 = 1_795_000_000_000;
/// The hash of the request that the response samples answer.
pub const ASKED: [u8; 32] = [0x5a; 32];

/// A check and the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// Every check.
pub const TARGETS: [Target; 23] = [
    ("contact", contact),
    ("record", record),
    ("fact", fact),
    ("request_ping", |data| request(1, 0, data)),
    ("request_find_node", |data| request(2, 1, data)),
    ("request_find_value", |data| request(3, 2, data)),
    ("request_store", |data| request(4, 3, data)),
    ("request_beat", |data| request(5, 2, data)),
    ("request_exchange", |data| request(6, 0, data)),
    ("request_announce", |data| request(7, 1, data)),
    ("request_facts", |data| request(8, 1, data)),
    ("response_pong", |data| response(1, 1, data)),
    ("response_nodes", |data| response(2, 2, data)),
    ("response_value", |data| response(3, 4, data)),
    ("response_stored", |data| response(4, 1, data)),
    ("response_noted", |data| response(5, 0, data)),
    ("response_facts", |data| response(6, 2, data)),
    ("response_refused", |data| response(7, 1, data)),
    ("response_busy", |data| response(8, 1, data)),
    ("envelope_request", |data| {
        envelope_request(data);
    }),
    ("envelope_response", |data| {
        envelope_response(data);
    }),
    ("frame", stream),
    ("control", control_message),
];

/// Runs the check of one target.
pub fn run(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("the target exists");
    check(data);
}

/// The sender of all envelope samples.
pub fn sender() -> &'static Identity {
    static SENDER: OnceLock<Identity> = OnceLock::new();
    SENDER.get_or_init(|| identity(1))
}

/// The receiver of all envelope samples.
pub fn receiver() -> &'static Identity {
    static RECEIVER: OnceLock<Identity> = OnceLock::new();
    RECEIVER.get_or_init(|| identity(2))
}

/// An identity made from one byte.
pub fn identity(byte: u8) -> Identity {
    Identity::from_seed(&IdentitySeed::from_bytes(&[byte; SEED_LEN])).expect("any seed gives an identity")
}

/// What the receiver expects of the samples.
pub fn expect(re: Option<[u8; 32]>) -> Expect {
    Expect { network: NetworkId::OPEN, me: receiver().peer_id(), now_ms: NOW_MS, re }
}

fn contact(data: &[u8]) {
    if let Ok(contact) = Contact::decode(data) {
        assert_eq!(contact.encode(), data);
    }
}

fn record(data: &[u8]) {
    if let Ok(record) = Record::decode(data) {
        assert_eq!(record.encode(), data);
        assert_eq!(record.encoded_len(), data.len());
    }
}

fn fact(data: &[u8]) {
    if let Ok(fact) = Fact::decode(data) {
        assert_eq!(fact.encode(), data);
    }
}

fn request(kind: u8, fields: u8, data: &[u8]) {
    let data = headed(kind, fields, data);
    if let Ok(request) = Request::decode(&data) {
        assert_eq!(request.encode(), data);
    }
}

fn response(kind: u8, fields: u8, data: &[u8]) {
    let data = headed(kind, fields, data);
    if let Ok(response) = Response::decode(&data) {
        assert_eq!(response.encode(), data);
    }
}

/// The same bytes with the array head and kind of one message, so that a target keeps to its message.
fn headed(kind: u8, fields: u8, data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    if let Some(head) = data.first_chunk_mut::<2>() {
        *head = [0x81 + fields, kind];
    }
    data
}

/// Opens a request; what opens is sealed again, and its signed bytes must have the same hash.
pub fn envelope_request(data: &[u8]) -> bool {
    let opened = envelope::open_request(data, sender().public(), &expect(None));
    opened.is_ok_and(|Opened { header, body: (contact, request), hash }| {
        let again = envelope::seal_request(sender(), &header, &request, contact.as_ref()).expect("it was short enough");
        assert_eq!(again.hash, hash);
        true
    })
}

/// Opens a response; what opens is sealed again, and its signed bytes must have the same hash.
pub fn envelope_response(data: &[u8]) -> bool {
    let opened = envelope::open_response(data, sender().public(), &expect(Some(ASKED)));
    opened.is_ok_and(|Opened { header, body: (contact, response), hash }| {
        let again =
            envelope::seal_response(sender(), &header, &response, contact.as_ref()).expect("it was short enough");
        assert_eq!(again.hash, hash);
        true
    })
}

/// Both readers of the stream: the DHT's frame header, and the control stream.
fn stream(data: &[u8]) {
    if let Some((header, _)) = data.split_first_chunk::<8>()
        && let Ok((kind, length)) = envelope::parse_frame_header(header)
    {
        assert!(length <= envelope::MAX_MESSAGE);
        assert_eq!(envelope::frame(kind, &vec![0; length])[..8], *header);
    }
    let mut reader = frame::FrameReader::new();
    reader.push(data);
    let mut read = Vec::new();
    while let Ok(Some(message)) = reader.next_message() {
        read.extend(frame::encode(&message));
    }
    assert!(data.starts_with(&read));
}

fn control_message(data: &[u8]) {
    if let Some((kind, payload)) = data.split_first()
        && let Ok(message) = control::Message::decode(*kind, payload)
    {
        assert_eq!(frame::encode(&message)[frame::FRAME_HEADER_LEN..], *payload);
    }
}
