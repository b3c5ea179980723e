// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything survives its own codec, and has one encoding.

use pqvpn_wire::{
    WireError,
    network::{
        Bundle, MemberRecord, NetResponse, REQUEST_TYPE, RESPONSE_TYPE, Serial, SignedInvite, Statement, StatementId,
        decode_request, decode_response, encode_request, encode_response, frame, parse_frame_header,
    },
};

use crate::samples::{NETWORK, bundle, member_record, requests, responses, secret, signed_invite, statements};

#[test]
fn statements_survive_their_codec() {
    for statement in statements() {
        let bytes = statement.encode();
        assert_eq!(Statement::decode(&bytes).as_ref(), Ok(&statement), "{}", statement.body().act.name());
        assert_eq!(statement.encoded_len(), bytes.len());
        assert!(!statement.body_bytes().is_empty());
    }
}

#[test]
fn records_invites_and_bundles_survive_their_codecs() {
    let record = member_record();
    assert_eq!(MemberRecord::decode(&record.encode()).as_ref(), Ok(&record));
    assert_eq!(record.encode().len(), record.encoded_len());
    let invite = signed_invite();
    assert_eq!(SignedInvite::decode(&invite.encode()).as_ref(), Ok(&invite));
    assert_eq!(Bundle::decode(&bundle().encode()).map(|bundle| bundle.statements.len()), Ok(1));
    assert_eq!(Bundle::decode(&Bundle::default().encode()), Ok(Bundle::default()));
}

#[test]
fn requests_and_responses_survive_their_codecs() {
    for request in requests() {
        let bytes = encode_request(&NETWORK, &request).unwrap();
        assert_eq!(decode_request(&bytes), Ok((NETWORK, request)));
    }
    for response in responses() {
        let bytes = encode_response(&NETWORK, &response).unwrap();
        assert_eq!(decode_response(&bytes), Ok((NETWORK, response)));
    }
}

#[test]
fn what_follows_a_message_is_refused() {
    for mut bytes in [
        encode_response(&NETWORK, &NetResponse::Done).unwrap(),
        encode_request(&NETWORK, &requests().pop().unwrap()).unwrap(),
    ] {
        bytes.push(0);
        assert!(decode_request(&bytes).is_err() && decode_response(&bytes).is_err());
    }
    for statement in statements() {
        let mut bytes = statement.encode();
        bytes.push(0xf6);
        assert_eq!(Statement::decode(&bytes), Err(WireError::Malformed("statement")));
    }
}

#[test]
fn another_spelling_of_a_number_is_refused() {
    // `done` is 7; 0x18 0x07 means the same in one byte more.
    let mut bytes = encode_response(&NETWORK, &NetResponse::Done).unwrap();
    assert_eq!(bytes.split_off(bytes.len() - 2), [0x81, 0x07]);
    bytes.extend([0x81, 0x18, 0x07]);
    assert_eq!(decode_response(&bytes), Err(WireError::Malformed("network response")));
}

#[test]
fn a_frame_is_one_of_a_network() {
    let message = encode_response(&NETWORK, &NetResponse::Done).unwrap();
    let framed = frame(RESPONSE_TYPE, &message);
    let (header, rest) = framed.split_first_chunk().unwrap();
    assert_eq!(parse_frame_header(header), Ok((RESPONSE_TYPE, rest.len())));
    assert_eq!(*header, [b'P', b'Q', 1, 33, 0, 0, 0, u8::try_from(rest.len()).unwrap()]);
    let bad = |at: usize, byte: u8| {
        let mut header = *header;
        header[at] = byte;
        parse_frame_header(&header)
    };
    assert_eq!(bad(0, 0), Err(WireError::Magic));
    assert_eq!(bad(2, 2), Err(WireError::Version(2)));
    assert_eq!(bad(3, 31), Err(WireError::Type(31)));
    assert_eq!(bad(3, 16), Err(WireError::Type(16)));
    assert_eq!(bad(3, REQUEST_TYPE), Ok((REQUEST_TYPE, rest.len())));
    assert_eq!(bad(5, 0x08), Err(WireError::TooLong(0x0008_0000 + u32::try_from(rest.len()).unwrap())));
    let most = [b'P', b'Q', 1, 32, 0, 8, 0, 0];
    assert_eq!(parse_frame_header(&most), Ok((REQUEST_TYPE, 512 * 1024)));
    assert_eq!(parse_frame_header(&[b'P', b'Q', 1, 32, 0, 8, 0, 1]), Err(WireError::TooLong(512 * 1024 + 1)));
}

#[test]
fn ids_and_serials_are_written_in_hex() {
    let id = StatementId::from_bytes([0xab; 32]);
    assert_eq!(id.to_string(), "ab".repeat(32));
    assert_eq!(id.network().to_string(), "ab".repeat(32));
    let serial = secret().serial();
    assert_eq!(serial.to_string().parse(), Ok(serial));
    assert_eq!(serial.to_string().len(), 32);
    for bad in ["", "5a", &serial.to_string().to_uppercase(), &format!("{serial}00")] {
        assert!(bad.parse::<Serial>().is_err(), "{bad}");
    }
}
