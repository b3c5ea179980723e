// SPDX-License-Identifier: MIT OR Apache-2.0
//! Known answers, computed by an independent Python model: statement ids, serials, codes, messages.

use std::{collections::BTreeMap, process::Command};

use data_encoding::HEXLOWER;
use pqvpn_crypto::{
    identity::{CompositeSignature, PublicIdentity, SIGNATURE_LEN, SPKI_LEN},
    peer_id::PeerId,
};
use pqvpn_wire::network::{
    Act, Beat, Bundle, Code, Door, Genesis, JoinRefusal, NetRequest, NetResponse, NewMember, Params, Statement,
    StatementId, SyncState, encode_request, encode_response, frame,
};

use crate::samples::{NETWORK, NOW_MS, admin, body, genesis, new_member, secret, v4, v6};

const VECTORS: &str = include_str!("../vectors/network.txt");

fn vectors() -> BTreeMap<&'static str, &'static str> {
    VECTORS.lines().map(|line| line.split_once(' ').unwrap()).collect()
}

/// A key of made-up bytes in the fixed frame.
fn key(byte: u8) -> PublicIdentity {
    let mut spki = admin().public().to_spki();
    let frame = SPKI_LEN - 2592 - 32;
    spki[frame..SPKI_LEN - 32].fill(byte);
    spki[SPKI_LEN - 32..].fill(byte ^ 0xff);
    PublicIdentity::from_spki(&spki).unwrap()
}

fn peer(byte: u8) -> PeerId {
    key(byte).peer_id()
}

fn acts() -> Vec<Act> {
    let proof = CompositeSignature::from_bytes(&[5; SIGNATURE_LEN]).unwrap();
    let params =
        Params { quorum: 2, ipv4_pool: "192.168.64.0/20".parse().unwrap(), approval: true, max_head_age_s: 3600 };
    vec![
        Act::Genesis(Box::new(Genesis { founder: key(1), ..genesis() })),
        Act::AddAdmin { key: key(2) },
        Act::RemoveAdmin { peer: peer(2) },
        Act::AddMember(NewMember { peer: peer(2), ..new_member() }),
        Act::Revoke { peer: peer(2), reason: "laptop stolen".to_owned() },
        Act::CancelInvite { serial: secret().serial() },
        Act::SetParams(params),
        Act::SetPolicy { hash: [9; 32], schema: 1 },
        Act::Checkpoint { seal: [10; 32] },
        Act::Rotate { old: key(1), key: key(2), proof },
        Act::Leave { key: key(2) },
        Act::Disable { secret: [11; 32] },
    ]
}

#[test]
fn every_statement_has_the_model_s_id() {
    let vectors = vectors();
    for act in acts() {
        let name = act.name();
        let statement = Statement::draft(body(act)).unwrap();
        assert_eq!(Some(&statement.id().to_string().as_str()), vectors.get(name), "{name}");
    }
}

#[test]
fn a_statement_has_the_model_s_bytes() {
    let mut statement = Statement::draft(body(Act::Checkpoint { seal: [10; 32] })).unwrap();
    statement.add_signature(peer(1), CompositeSignature::from_bytes(&[1; SIGNATURE_LEN]).unwrap());
    assert_eq!(&HEXLOWER.encode(&statement.encode())[..600], vectors()["statement"]);
}

#[test]
fn serial_and_code_are_the_model_s() {
    assert_eq!(secret().serial().to_string(), vectors()["serial"]);
    let doors = vec![Door { peer: peer(1), addresses: vec![v4(1), v6(7)] }, Door { peer: peer(2), addresses: vec![] }];
    let code = Code { doors, ..crate::samples::code() };
    assert_eq!(code.to_string(), vectors()["code"]);
    assert_eq!(vectors()["code"].parse(), Ok(code));
}

#[test]
fn messages_have_the_model_s_bytes() {
    let state = SyncState {
        head: [1; 32],
        tips: vec![StatementId::from_bytes([2; 32])],
        records: [3; 32],
        invites: [4; 32],
        held: Some(vec![([1; 32].into(), 7)]),
        want: vec![],
        cursor: Some(12),
        sent_ms: NOW_MS,
        observed: Some(v4(1)),
        alive: vec![],
    };
    let digest = state.digest();
    let requests = [
        ("beat", NetRequest::Beat(Beat { digest, observed: Some(v4(1)), alive: vec![0, 9] })),
        ("sync", NetRequest::Sync(state)),
        ("pull", NetRequest::Pull { ids: vec![StatementId::from_bytes([9; 32])] }),
        ("ping", NetRequest::Ping),
        ("push", NetRequest::Push(Box::new(Bundle { more: true, ..Bundle::default() }))),
        ("introduce", NetRequest::Introduce { line: vec![] }),
    ];
    for (name, request) in requests {
        assert_eq!(HEXLOWER.encode(&encode_request(&NETWORK, &request).unwrap()), vectors()[name], "{name}");
    }
    let door = Door { peer: PeerId::from_bytes([2; 32]), addresses: vec![v4(1), v6(7)] };
    let taken = JoinRefusal::NameTaken { suggestion: "phone-2".to_owned() };
    let responses = [
        ("elsewhere", NetResponse::Elsewhere { admins: vec![door] }),
        ("name-taken", NetResponse::Refused(taken)),
        ("expired", NetResponse::Refused(JoinRefusal::Expired { now_ms: NOW_MS })),
        ("pending", NetResponse::Pending { ticket: [5; 16] }),
    ];
    for (name, response) in responses {
        assert_eq!(HEXLOWER.encode(&encode_response(&NETWORK, &response).unwrap()), vectors()[name], "{name}");
    }
    assert_eq!(HEXLOWER.encode(&frame(32, b"abc")), vectors()["frame"]);
}

#[test]
fn the_committed_vectors_are_what_the_model_writes() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/network.py");
    let output = match Command::new("python3").arg("-B").arg(model).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: python3 is not installed, so the vectors were NOT computed again and compared");
            return;
        }
        Err(error) => panic!("python3 does not start: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        String::from_utf8(output.stdout).unwrap() == VECTORS,
        "tests/vectors/network.txt differs from the model: run `python3 network.py > network.txt` there and review it"
    );
}
