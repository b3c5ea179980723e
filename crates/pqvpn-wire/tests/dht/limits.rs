// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every limit of the wire: the largest legal message decodes, one more does not.

use std::sync::Arc;

use pqvpn_crypto::identity::{SIGNATURE_LEN, SPKI_LEN};
use pqvpn_wire::{
    WireError,
    dht::{
        Contact, Endpoints, Fact, Heartbeat, MAX_ENDPOINTS, MAX_FACTS_LEN, MAX_NAME_LEN, MAX_RECORD_LEN, MAX_VALUE_LEN,
        Payload, Record, RecordDraft, Request, Response, Rotation, envelope,
    },
};

use crate::{
    check::{NOW_MS, identity, sender},
    samples::{contacts, facts, header, peer_draft, record, v4, v6, value_draft},
};

/// A record with a key and a signature of the right lengths and no meaning.
fn unsigned(draft: RecordDraft) -> Record {
    Record::assemble(draft, vec![1; SPKI_LEN], vec![2; SIGNATURE_LEN])
}

fn decodes(draft: RecordDraft) -> bool {
    let bytes = unsigned(draft).encode();
    match Record::decode(&bytes) {
        Ok(record) => record.encode() == bytes,
        Err(error) => {
            assert_eq!(error, WireError::Malformed("record"));
            false
        }
    }
}

#[test]
fn a_response_names_twenty_contacts_at_most() {
    let decodes = |count| {
        let nodes = Response::Nodes { contacts: contacts(count), token: None };
        let value = Response::Value { record: record(), heartbeat: None, contacts: contacts(count), token: None };
        (Response::decode(&nodes.encode()).is_ok(), Response::decode(&value.encode()).is_ok())
    };
    assert_eq!(decodes(20), (true, true));
    assert_eq!(decodes(21), (false, false));
}

#[test]
fn a_contact_names_four_addresses_at_most() {
    let many: Vec<_> = (0..5).map(v4).collect();
    let contact = Contact::new([1; 32].into(), *crate::samples::contact(1).admission(), many);
    assert_eq!(contact.addresses().len(), 4, "more are cut off");
    let mut bytes = contact.encode();
    assert!(Contact::decode(&bytes).is_ok());
    let head = bytes.len() - 4 * 7 - 1;
    assert_eq!(bytes[head], 0x84);
    bytes[head] = 0x85;
    bytes.extend([0x46, 1, 2, 3, 4, 5, 6]);
    assert_eq!(Contact::decode(&bytes), Err(WireError::Malformed("contact")));
}

#[test]
fn a_record_names_eight_endpoints_at_most() {
    let draft = |count: usize| {
        let addresses = (0..count).map(|at| v6(u16::try_from(at).unwrap())).collect();
        RecordDraft { payload: Payload::Peer(Endpoints { addresses, capabilities: u32::MAX }), ..peer_draft(u64::MAX) }
    };
    assert!(decodes(draft(MAX_ENDPOINTS)));
    assert!(!decodes(draft(MAX_ENDPOINTS + 1)));
    assert!(decodes(draft(0)));
}

#[test]
fn a_value_and_its_name_are_short() {
    let draft = |name: usize, value: usize| RecordDraft {
        payload: Payload::Value { name: "n".repeat(name), value: vec![0; value] },
        ..value_draft(b"")
    };
    assert!(decodes(draft(MAX_NAME_LEN, MAX_VALUE_LEN)));
    assert!(decodes(draft(1, 0)));
    assert!(!decodes(draft(0, 1)));
    assert!(!decodes(draft(MAX_NAME_LEN + 1, 1)));
    assert!(!decodes(draft(1, MAX_VALUE_LEN + 1)));
}

#[test]
fn a_value_has_no_week() {
    assert!(!decodes(RecordDraft { week: 1, ..value_draft(b"") }));
}

#[test]
fn keys_and_signatures_have_their_exact_lengths() {
    for (key, signature) in [
        (SPKI_LEN - 1, SIGNATURE_LEN),
        (SPKI_LEN + 1, SIGNATURE_LEN),
        (SPKI_LEN, SIGNATURE_LEN - 1),
        (SPKI_LEN, SIGNATURE_LEN + 1),
        (0, 0),
    ] {
        let record = Record::assemble(peer_draft(1), vec![0; key], vec![0; signature]);
        assert_eq!(Record::decode(&record.encode()), Err(WireError::Malformed("record")), "{key} {signature}");
    }
}

#[test]
fn a_record_is_refused_by_its_length_before_it_is_read() {
    let long = vec![0x83; MAX_RECORD_LEN + 1];
    assert_eq!(Record::decode(&long), Err(WireError::TooLong(8193)));
    assert_eq!(Record::decode(&long[1..]), Err(WireError::Malformed("record")));
}

#[test]
fn a_heartbeat_has_an_hour_of_the_day() {
    for (hour, legal) in [(0, false), (1, true), (24, true), (25, false)] {
        let beat = Request::Beat { key: *record().key(), heartbeat: Heartbeat { hour, preimage: [0; 32] } };
        assert_eq!(Request::decode(&beat.encode()).is_ok(), legal, "{hour}");
    }
}

#[test]
fn facts_fill_24_kib_at_most() {
    let [rotation, revocation, _] = facts();
    let (long, short) = (rotation.encoded_len(), revocation.encoded_len());
    assert!(long + short <= MAX_FACTS_LEN && 2 * long > MAX_FACTS_LEN, "{long} {short}");
    let decodes = |facts: Vec<Arc<Fact>>| Response::decode(&Response::Facts { next: 0, facts }.encode()).is_ok();
    assert!(decodes(vec![rotation.clone(), revocation]));
    let other = Rotation::sign(sender(), &identity(4), 2, NOW_MS).unwrap();
    assert!(!decodes(vec![rotation, Arc::new(Fact::Rotation(other))]));
}

#[test]
fn a_message_too_long_is_not_sealed() {
    let [rotation, ..] = facts();
    let request = Response::Facts { next: 0, facts: vec![rotation.clone(), rotation] };
    let sealed = envelope::seal_response(sender(), &header(None), &request, None);
    assert!(matches!(sealed, Err(envelope::SealError::TooLong(len)) if len > envelope::MAX_MESSAGE), "{sealed:?}");
}

#[test]
fn deep_nesting_is_refused_without_recursion() {
    for depth in [8, 1000, 30_000] {
        let mut bytes = vec![0x81; depth];
        bytes.push(0);
        assert!(Request::decode(&bytes).is_err() && Response::decode(&bytes).is_err());
        assert!(Fact::decode(&bytes).is_err() && Contact::decode(&bytes).is_err());
    }
}

#[test]
fn huge_lengths_in_small_messages_are_refused() {
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        let bytes = [&[0x82, 2, head][..], &[0x7f; 8], &[0; 40]].concat();
        assert!(Request::decode(&bytes).is_err() && Response::decode(&bytes).is_err(), "{head:x}");
    }
}
