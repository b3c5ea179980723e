// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes: no panic, and what decodes encodes to the same bytes. Shared with the fuzz targets.

use pqvpn_wire::network::{
    Bundle, Code, Cover, MAX_NET_MESSAGE, MemberRecord, SignedInvite, Statement, decode_request, decode_response,
    encode_request, encode_response, frame, parse_frame_header,
};

/// A check and the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// Every check.
pub const TARGETS: [Target; 8] = [
    ("statement", statement),
    ("bundle", bundle),
    ("code", code),
    ("net_request", net_request),
    ("net_response", net_response),
    ("member_record", member_record),
    ("invite", invite),
    ("cover", cover),
];

/// Runs the check of one target.
pub fn run(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("the target exists");
    check(data);
}

fn statement(data: &[u8]) {
    if let Ok(statement) = Statement::decode(data) {
        assert_eq!(statement.encode(), data);
        assert_eq!(statement.encoded_len(), data.len());
        // What decodes could have been drafted: the rules are the same on both sides.
        let drafted = Statement::draft(statement.body().clone()).expect("a legal body");
        assert_eq!(drafted.id(), statement.id());
    }
    // As it was kept on a disk, without what is known of its signatures.
    if let Ok(kept) = Statement::decode_kept(data) {
        assert!(Statement::decode(data).is_ok_and(|statement| statement.id() == kept.id()));
    }
}

fn bundle(data: &[u8]) {
    if let Ok(bundle) = Bundle::decode(data) {
        assert_eq!(bundle.encode(), data);
    }
}

/// A code may be typed in many ways, but it is written in one, which reads as the same.
fn code(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(code) = text.parse::<Code>() {
        let written = code.to_string();
        assert_eq!(written.parse(), Ok(code));
        assert!(written.len() <= text.len());
    }
}

fn net_request(data: &[u8]) {
    if let Ok((network, request)) = decode_request(data) {
        assert_eq!(encode_request(&network, &request).as_deref(), Ok(data));
    }
    header(data);
}

fn net_response(data: &[u8]) {
    if let Ok((network, response)) = decode_response(data) {
        assert_eq!(encode_response(&network, &response).as_deref(), Ok(data));
    }
}

fn header(data: &[u8]) {
    if let Some((header, _)) = data.split_first_chunk::<8>()
        && let Ok((kind, length)) = parse_frame_header(header)
    {
        assert!(length <= MAX_NET_MESSAGE);
        assert_eq!(frame(kind, &vec![0; length])[..8], *header);
    }
}

fn member_record(data: &[u8]) {
    if let Ok(record) = MemberRecord::decode(data) {
        assert_eq!(record.encode(), data);
        assert_eq!(record.encoded_len(), data.len());
    }
}

fn invite(data: &[u8]) {
    if let Ok(invite) = SignedInvite::decode(data) {
        assert_eq!(invite.encode(), data);
    }
}

fn cover(data: &[u8]) {
    if let Ok(cover) = Cover::decode(data) {
        assert_eq!(cover.encode(), data);
    }
}
