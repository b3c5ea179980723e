// SPDX-License-Identifier: MIT OR Apache-2.0
//! Joins hold on one link, for one joiner, with the secret of one invite.

use ciborium::Value;
use pqvpn_crypto::{
    identity::SignatureLabel,
    proofs::schnorr::{JoinContext, ProofError},
};
use pqvpn_wire::network::{JoinRequest, JoinRequestError, NetworkId, PendingJoin};

use crate::samples::{NETWORK, NOW_MS, admin, context, join_request, member, pending, secret, serial};

fn point() -> [u8; 32] {
    secret().key().point()
}

#[test]
fn a_join_holds_in_its_own_context() {
    assert_eq!(join_request().verify(&point(), &context()), Ok(()));
}

#[test]
fn a_join_does_not_hold_on_another_link() {
    let (joiner, verifier) = (member().peer_id(), admin().peer_id());
    let other = |network: &[u8; 32], serial: &[u8; 16], verifier, joiner, exporter: &[u8; 32]| {
        let context = JoinContext::new(network, serial, verifier, joiner, exporter);
        join_request().verify(&point(), &context)
    };
    let serial = secret().serial();
    let bad = Err(JoinRequestError::Signature);
    assert_eq!(other(NETWORK.as_bytes(), serial.as_bytes(), &verifier, &joiner, &[0x33; 32]), Ok(()));
    assert_eq!(other(NETWORK.as_bytes(), serial.as_bytes(), &verifier, &joiner, &[0; 32]), bad, "exporter");
    assert_eq!(other(NETWORK.as_bytes(), serial.as_bytes(), &joiner, &joiner, &[0x33; 32]), bad, "verifier");
    assert_eq!(other(NETWORK.as_bytes(), serial.as_bytes(), &verifier, &verifier, &[0x33; 32]), bad, "joiner");
    assert_eq!(other(&[0; 32], serial.as_bytes(), &verifier, &joiner, &[0x33; 32]), bad, "network");
    assert_eq!(other(NETWORK.as_bytes(), &[0; 16], &verifier, &joiner, &[0x33; 32]), bad, "serial");
}

#[test]
fn both_the_secret_and_the_key_are_needed() {
    let (key, id) = (secret().key(), secret().serial());
    let make =
        |key: &_, who| JoinRequest::make(who, (id, key), &context(), "phone".to_owned(), NOW_MS, &[4; 32]).unwrap();
    // Whoever breaks discrete logarithms holds every secret, but signs with a key of its own only.
    let forged = JoinRequest { key: member().public().clone(), ..make(&key, admin()) };
    assert_eq!(forged.verify(&point(), &context()), Err(JoinRequestError::Signature));
    // The right key without the secret.
    let other = pqvpn_crypto::proofs::schnorr::InviteKey::from_secret(&[0; 16]);
    let guessed = make(&other, member());
    assert_eq!(guessed.verify(&point(), &context()), Err(JoinRequestError::Proof(ProofError::Equation)));
}

#[test]
fn every_field_of_a_join_is_signed() {
    let bent = [
        JoinRequest { serial: serial(0), ..join_request() },
        JoinRequest { name: "other".to_owned(), ..join_request() },
        JoinRequest { sent_ms: NOW_MS + 1, ..join_request() },
        JoinRequest { key: admin().public().clone(), ..join_request() },
        JoinRequest { proof: secret().key().prove(&context(), &[5; 32]), ..join_request() },
    ];
    for join in bent {
        assert_eq!(join.verify(&point(), &context()), Err(JoinRequestError::Signature), "{join:?}");
    }
}

#[test]
fn a_pending_join_is_vouched_for_by_one_admin() {
    let waiting = pending();
    assert!(waiting.verify(&NETWORK, admin().public()));
    assert!(!waiting.verify(&NetworkId::from_bytes([0; 32]), admin().public()), "another network");
    assert!(!waiting.verify(&NETWORK, member().public()), "another admin's key");
    let bent = [
        PendingJoin { ticket: [0; 16], ..pending() },
        PendingJoin { serial: serial(0), ..pending() },
        PendingJoin { key: admin().public().clone(), ..pending() },
        PendingJoin { name: "other".to_owned(), ..pending() },
        PendingJoin { asked_ms: NOW_MS + 1, ..pending() },
        PendingJoin { denied: true, ..pending() },
        PendingJoin { via: member().peer_id(), ..pending() },
    ];
    for pending in bent {
        assert!(!pending.verify(&NETWORK, admin().public()), "{pending:?}");
    }
}

#[test]
fn a_good_signature_of_another_does_not_vouch_in_an_admin_s_name() {
    let mut waiting = pending();
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let fields = Value::Array(vec![
        bytes(NETWORK.as_bytes()),
        bytes(&waiting.ticket),
        bytes(waiting.serial.as_bytes()),
        bytes(waiting.key.peer_id().as_bytes()),
        Value::Text(waiting.name.clone()),
        waiting.asked_ms.into(),
        waiting.denied.into(),
        bytes(waiting.via.as_bytes()),
    ]);
    let mut signed = Vec::new();
    ciborium::into_writer(&fields, &mut signed).unwrap();
    waiting.signature = admin().sign(SignatureLabel::NetworkPending, &signed).unwrap();
    assert!(waiting.verify(&NETWORK, admin().public()), "the documented bytes");
    waiting.signature = member().sign(SignatureLabel::NetworkPending, &signed).unwrap();
    assert!(!waiting.verify(&NETWORK, member().public()) && !waiting.verify(&NETWORK, admin().public()));
}
