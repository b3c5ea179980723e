// SPDX-License-Identifier: MIT OR Apache-2.0
//! What messages weigh: the figures of docs/protocol.md.

use pqvpn_wire::dht::{
    Endpoints, MAX_FACTS_LEN, MAX_NAME_LEN, MAX_RECORD_LEN, MAX_VALUE_LEN, Payload, RecordDraft, Request, Response,
    Token,
    envelope::{MAX_MESSAGE, seal_request, seal_response},
};

use crate::{
    check::sender,
    samples::{
        answer_header, contact, contacts, facts, header, heartbeat, own_contact, peer_draft, sign, v6, value_draft,
    },
};

#[test]
fn requests_and_responses_weigh_what_is_documented() {
    let ping = seal_request(sender(), &header(None), &Request::Ping, None).unwrap().bytes.len();
    let ping_with = seal_request(sender(), &header(None), &Request::Ping, Some(&own_contact())).unwrap().bytes.len();
    let nodes = Response::Nodes { contacts: contacts(20), token: Some(Token([1; 16])) };
    let nodes = seal_response(sender(), &answer_header(), &nodes, None).unwrap().bytes.len();
    println!("ping {ping} B, with the sender's contact {ping_with} B, 20 contacts {nodes} B");
    assert_eq!(ping, 4832);
    assert_eq!(ping_with, 4920);
    assert_eq!(nodes, 7044);
    assert!(contact(1).encode().len() <= 130, "a contact with two addresses: {}", contact(1).encode().len());
}

#[test]
fn the_largest_legal_records_fit() {
    let addresses = (0..8).map(|at| v6(0xff00 + at)).collect();
    let payload = Payload::Peer(Endpoints { addresses, capabilities: u32::MAX });
    let peer = sign(RecordDraft { payload, week: u32::MAX, seq: u64::MAX, not_after_ms: u64::MAX, ..peer_draft(1) });
    let payload = Payload::Value { name: "n".repeat(MAX_NAME_LEN), value: vec![0; MAX_VALUE_LEN] };
    let value = sign(RecordDraft { payload, seq: u64::MAX, not_after_ms: u64::MAX, ..value_draft(b"") });
    println!("peer record with 8 IPv6 endpoints {} B, largest value {} B", peer.encoded_len(), value.encoded_len());
    assert!(peer.encoded_len() <= MAX_RECORD_LEN && value.encoded_len() <= MAX_RECORD_LEN);

    let response = Response::Value {
        record: value,
        heartbeat: Some(heartbeat()),
        contacts: contacts(20),
        token: Some(Token([1; 16])),
    };
    let sealed = seal_response(sender(), &answer_header(), &response, Some(&own_contact())).unwrap();
    println!("largest value response {} B", sealed.bytes.len());
    assert!(sealed.bytes.len() <= MAX_MESSAGE);
}

#[test]
fn every_fact_fits_a_response_and_a_full_response_a_message() {
    for fact in facts() {
        println!("fact {} B", fact.encoded_len());
        assert!(fact.encoded_len() <= MAX_FACTS_LEN);
    }
    let [rotation, revocation, _] = facts();
    let response = Response::Facts { next: u64::MAX, facts: vec![rotation, revocation] };
    let sealed = seal_response(sender(), &answer_header(), &response, Some(&own_contact())).unwrap();
    assert!(sealed.bytes.len() + MAX_FACTS_LEN < MAX_MESSAGE + response.encode().len(), "the rest leaves room enough");
}
