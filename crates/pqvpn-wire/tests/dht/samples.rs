// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid messages of every kind, the same in every run but for the hedged signatures.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, OnceLock},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{
    Admission, Contact, Endpoints, Equivocation, Fact, Heartbeat, NetworkId, Payload, Point, Record, RecordDraft,
    Refusal, Request, Response, Revocation, RevocationReason, Rotation, Token, envelope::Header, heartbeat_chain,
};

use crate::check::{ASKED, NOW_MS, identity, receiver, sender};

/// The seed of the heartbeat chain of every sample.
pub(crate) const BEAT_SEED: [u8; 32] = [7; 32];

pub(crate) fn v4(last: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, last)), 51820)
}

pub(crate) fn v6(last: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, last)), 51820)
}

pub(crate) fn contact(byte: u8) -> Contact {
    let admission = Admission { week: 2968, nonce: 0x0102_0304_0506, out: [byte; 32] };
    Contact::new(PeerId::from_bytes([byte; 32]), admission, vec![v4(byte), v6(u16::from(byte))])
}

/// The sender's own contact.
pub(crate) fn own_contact() -> Contact {
    Contact::new(sender().peer_id(), *contact(1).admission(), vec![v4(1)])
}

pub(crate) fn contacts(count: u8) -> Vec<Arc<Contact>> {
    (0..count).map(|byte| Arc::new(contact(byte))).collect()
}

/// A peer record of the sender.
pub(crate) fn peer_draft(seq: u64) -> RecordDraft {
    RecordDraft {
        network: NetworkId::OPEN,
        owner: sender().peer_id(),
        week: 2968,
        seq,
        not_before_ms: NOW_MS,
        not_after_ms: NOW_MS + 86_400_000,
        payload: Payload::Peer(Endpoints { addresses: vec![v4(1), v6(1)], capabilities: 5 }),
        heartbeat_anchor: heartbeat_chain(&BEAT_SEED, 24),
    }
}

/// A value of the sender.
pub(crate) fn value_draft(value: &[u8]) -> RecordDraft {
    let payload = Payload::Value { name: "motd".to_owned(), value: value.to_vec() };
    RecordDraft { week: 0, payload, ..peer_draft(1) }
}

pub(crate) fn sign(draft: RecordDraft) -> Arc<Record> {
    Arc::new(Record::sign(draft, sender()).expect("the sender can sign"))
}

pub(crate) fn record() -> Arc<Record> {
    static RECORD: OnceLock<Arc<Record>> = OnceLock::new();
    RECORD.get_or_init(|| sign(peer_draft(1))).clone()
}

pub(crate) fn value() -> Arc<Record> {
    static RECORD: OnceLock<Arc<Record>> = OnceLock::new();
    RECORD.get_or_init(|| sign(value_draft(b"hello"))).clone()
}

pub(crate) fn heartbeat() -> Heartbeat {
    Heartbeat::at(&BEAT_SEED, 3).expect("an hour of the day")
}

/// A rotation, a revocation and an equivocation of the sender.
pub(crate) fn facts() -> [Arc<Fact>; 3] {
    static FACTS: OnceLock<[Arc<Fact>; 3]> = OnceLock::new();
    let make = || {
        let rotation = Rotation::sign(sender(), &identity(3), 1, NOW_MS).expect("both can sign");
        let revocation = Revocation::sign(sender(), NOW_MS, RevocationReason::Compromised).expect("it can sign");
        let equivocation = Equivocation::new(value(), sign(value_draft(b"world"))).expect("they contradict");
        [
            Arc::new(Fact::Rotation(rotation)),
            Arc::new(Fact::Revocation(revocation)),
            Arc::new(Fact::Equivocation(equivocation)),
        ]
    };
    FACTS.get_or_init(make).clone()
}

/// Every request, with the name of its fuzz target.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let [rotation, revocation, equivocation] = facts();
    let (key, token) = (Point::from_bytes([9; 32]), Token([4; 16]));
    vec![
        ("request_ping", Request::Ping),
        ("request_find_node", Request::FindNode { target: key }),
        ("request_find_value", Request::FindValue { key, want_seq: u64::MAX }),
        ("request_store", Request::Store { record: record(), token, cache: false }),
        ("request_store", Request::Store { record: value(), token, cache: true }),
        ("request_beat", Request::Beat { key, heartbeat: heartbeat() }),
        ("request_exchange", Request::Exchange),
        ("request_announce", Request::Announce(rotation)),
        ("request_announce", Request::Announce(revocation)),
        ("request_announce", Request::Announce(equivocation)),
        ("request_facts", Request::Facts { after: 300 }),
    ]
}

/// Every response, with the name of its fuzz target.
pub(crate) fn responses() -> Vec<(&'static str, Response)> {
    let [_, revocation, equivocation] = facts();
    let token = Some(Token([4; 16]));
    vec![
        ("response_pong", Response::Pong { observed: v4(1) }),
        ("response_pong", Response::Pong { observed: v6(1) }),
        ("response_nodes", Response::Nodes { contacts: contacts(20), token }),
        ("response_nodes", Response::Nodes { contacts: vec![], token: None }),
        (
            "response_value",
            Response::Value { record: record(), heartbeat: Some(heartbeat()), contacts: contacts(3), token },
        ),
        ("response_value", Response::Value { record: value(), heartbeat: None, contacts: vec![], token: None }),
        ("response_stored", Response::Stored { until_ms: NOW_MS }),
        ("response_noted", Response::Noted),
        ("response_facts", Response::Facts { next: 7, facts: vec![revocation, equivocation] }),
        ("response_facts", Response::Facts { next: 0, facts: vec![] }),
        ("response_refused", Response::Refused(Refusal::Quota)),
        ("response_busy", Response::Busy { retry_ms: 30_000 }),
    ]
}

/// A header from the sender to the receiver, signed now.
pub(crate) fn header(re: Option<[u8; 32]>) -> Header {
    Header {
        network: NetworkId::OPEN,
        from: sender().peer_id(),
        to: receiver().peer_id(),
        ts_ms: NOW_MS,
        nonce: [6; 16],
        re,
    }
}

/// A header of a response.
pub(crate) fn answer_header() -> Header {
    header(Some(ASKED))
}
