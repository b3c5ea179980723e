// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every message survives its own codec, has one encoding, and that encoding is the documented one.

use std::{net::SocketAddr, sync::Arc};

use data_encoding::HEXLOWER;
use pqvpn_wire::{
    WireError,
    dht::{Admission, Contact, Fact, Point, Record, Refusal, Request, Response, envelope},
};

use crate::samples::{contact, facts, record, requests, responses, v4, value};

#[test]
fn every_request_and_response_survives_its_codec() {
    for (name, request) in requests() {
        assert_eq!(Request::decode(&request.encode()), Ok(request), "{name}");
    }
    for (name, response) in responses() {
        assert_eq!(Response::decode(&response.encode()), Ok(response), "{name}");
    }
}

#[test]
fn contacts_records_and_facts_survive_their_codecs() {
    assert_eq!(Contact::decode(&contact(1).encode()), Ok(contact(1)));
    for record in [record(), value()] {
        assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&*record));
        assert_eq!(record.encode().len(), record.encoded_len());
    }
    for fact in facts() {
        assert_eq!(Fact::decode(&fact.encode()).as_ref(), Ok(&*fact));
        assert_eq!(fact.encode().len(), fact.encoded_len());
    }
}

#[test]
fn small_messages_have_the_documented_bytes() {
    let hex = |bytes: Vec<u8>| HEXLOWER.encode(&bytes);
    assert_eq!(hex(Request::Ping.encode()), "8101");
    let find = Request::FindValue { key: Point::from_bytes([0xab; 32]), want_seq: 500 };
    assert_eq!(hex(find.encode()), format!("83035820{}1901f4", "ab".repeat(32)));
    assert_eq!(hex(Response::Pong { observed: v4(7) }.encode()), "820146c6336407ca6c");
    assert_eq!(hex(Response::Nodes { contacts: vec![], token: None }.encode()), "830280f6");
    assert_eq!(hex(Response::Refused(Refusal::Client).encode()), "82070a");
    let admission = Admission { week: 1, nonce: 2, out: [3; 32] };
    let known = Contact::new([4; 32].into(), admission, vec![v4(7)]);
    let expected = format!("855820{}01025820{}8146c6336407ca6c", "04".repeat(32), "03".repeat(32));
    assert_eq!(hex(known.encode()), expected);
}

#[test]
fn a_second_encoding_of_the_same_message_is_refused() {
    // 1 as a two-byte integer, an array of indefinite length, a trailing byte.
    for bytes in [&[0x81, 0x18, 1][..], &[0x9f, 1, 0xff], &[0x81, 1, 0]] {
        assert_eq!(Request::decode(bytes), Err(WireError::Malformed("DHT request")), "{bytes:02x?}");
        assert!(Response::decode(bytes).is_err(), "{bytes:02x?}");
    }
    assert_eq!(Request::decode(&[0x81, 1]), Ok(Request::Ping));
    assert_eq!(Response::decode(&[0x81, 5]), Ok(Response::Noted));
    assert!(Response::decode(&[0x81, 0x18, 5]).is_err());
    // A bignum tag around a small number, and a negative number where a count is due.
    assert!(Request::decode(&[0x82, 8, 0xc2, 0x41, 5]).is_err());
    assert!(Request::decode(&[0x82, 8, 0x20]).is_err());
    assert!(Request::decode(&[0x82, 8, 5]).is_ok());
}

#[test]
fn unknown_kinds_and_wrong_field_counts_are_refused() {
    for kind in [0, 9, 23] {
        assert!(Request::decode(&[0x81, kind]).is_err(), "{kind}");
        assert!(Response::decode(&[0x81, kind]).is_err(), "{kind}");
    }
    assert!(Request::decode(&[0x82, 1, 0]).is_err(), "a ping has no fields");
    assert!(Request::decode(&[0x81, 2]).is_err(), "a target is missing");
    assert!(Response::decode(&[0x82, 7, 0]).is_err(), "no such refusal");
    assert!(Response::decode(&[0x82, 7, 11]).is_err(), "no such refusal");
    assert!(Request::decode(&[0x80]).is_err() && Response::decode(&[]).is_err());
}

#[test]
fn refusals_read_back() {
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::from_code(refusal.code()), Some(refusal));
    }
    assert_eq!((Refusal::from_code(0), Refusal::from_code(11)), (None, None));
}

#[test]
fn an_ipv4_address_has_one_spelling() {
    let mapped: SocketAddr = "[::ffff:198.51.100.7]:51820".parse().unwrap();
    assert_eq!(Response::Pong { observed: mapped }.encode(), Response::Pong { observed: v4(7) }.encode());
    let mut bytes = vec![0x82, 1, 0x52];
    bytes.extend([0; 10]);
    bytes.extend([0xff, 0xff, 198, 51, 100, 7, 0xca, 0x6c]);
    assert!(Response::decode(&bytes).is_err(), "the mapped form would pass by the rules for IPv4");
    bytes[13] = 0xfe;
    assert!(Response::decode(&bytes).is_ok());
}

#[test]
fn an_unproven_contact_says_so() {
    let unproven = Contact::unproven([1; 32].into(), vec![v4(1)]);
    assert!(!unproven.is_proven());
    assert!(contact(1).is_proven());
    assert_eq!(*unproven.admission(), Admission::NONE);
}

#[test]
fn a_dht_frame_has_its_own_types_and_bound() {
    let frame = envelope::frame(envelope::REQUEST_TYPE, &[1, 2, 3]);
    assert_eq!(frame, [b'P', b'Q', 1, 16, 0, 0, 0, 3, 1, 2, 3]);
    let header = |at: usize, byte: u8| {
        let mut header: [u8; 8] = frame[..8].try_into().unwrap();
        header[at] = byte;
        envelope::parse_frame_header(&header)
    };
    assert_eq!(header(0, b'P'), Ok((16, 3)));
    assert_eq!(header(3, 17), Ok((17, 3)));
    assert_eq!(header(0, b'G'), Err(WireError::Magic));
    assert_eq!(header(1, b'G'), Err(WireError::Magic));
    assert_eq!(header(2, 2), Err(WireError::Version(2)));
    for kind in [0, 1, 4, 15, 18, 255] {
        assert_eq!(header(3, kind), Err(WireError::Type(kind)));
    }
    assert_eq!(envelope::parse_frame_header(b"PQ\x01\x10\0\0\x80\0"), Ok((16, 32 * 1024)));
    assert_eq!(envelope::parse_frame_header(b"PQ\x01\x10\0\0\x80\x01"), Err(WireError::TooLong(32 * 1024 + 1)));
    assert_eq!(header(4, 0xff), Err(WireError::TooLong(0xff00_0003)));
}

#[test]
fn clones_share_what_is_large() {
    let request = Request::Announce(facts()[0].clone());
    let Request::Announce(fact) = request.clone() else { unreachable!("it was announced") };
    assert!(Arc::ptr_eq(&fact, &facts()[0]));
}
