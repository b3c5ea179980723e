// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records: keys, signatures and heartbeats against known answers (computed with Python's hashlib) and forgeries.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use pqvpn_crypto::{identity::SignatureLabel, peer_id::PeerId};
use pqvpn_wire::dht::{
    Admission, CompositeVerifier, Contact, Endpoints, Heartbeat, NetworkId, Payload, Point, Record, RecordDraft,
    heartbeat_chain, peer_record_key, value_key,
};

use crate::{
    check::{identity, sender},
    samples::{BEAT_SEED, peer_draft, record, v4, value, value_draft},
};

fn counting() -> PeerId {
    PeerId::from_bytes(std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

fn bytes(hex: &str) -> [u8; 32] {
    HEXLOWER.decode(hex.as_bytes()).unwrap().try_into().unwrap()
}

fn known(hex: &str) -> Point {
    Point::from_bytes(bytes(hex))
}

#[test]
fn positions_and_keys_are_the_documented_hashes() {
    let out = bytes("05c8f0fdbda65af09b1ace8ad56d9fb93e6bbbbaf0b8f316f550fe03a81f42e3");
    let contact = Contact::new(counting(), Admission { week: 2968, nonce: 0, out }, vec![]);
    assert_eq!(*contact.node_id(), known("731a1e61ca4b85d39bfe3ffab54cfa3ea016b6189cac7d1aeae332dfea0e7c30"));
    assert_eq!(
        peer_record_key(&counting(), 2968, &NetworkId::OPEN),
        known("9789e5a43ceaa83b8377f2c40003ec7d6198d361ec663ccd4cec30b267afa47e"),
    );
    assert_eq!(
        value_key(&counting(), &NetworkId::OPEN, "motd"),
        known("6931c3dbe6e3f4794d172b3b2be5c3c2ba278cf2dd26091c587f609f741f9a05"),
    );
}

#[test]
fn a_record_lives_where_its_draft_says() {
    let (peer, value) = (record(), value());
    assert_eq!(*peer.key(), peer_record_key(peer.owner(), 2968, &NetworkId::OPEN));
    assert_eq!(*value.key(), value_key(value.owner(), &NetworkId::OPEN, "motd"));
    let elsewhere = RecordDraft { network: NetworkId::from_bytes([1; 32]), ..peer_draft(1) };
    assert_ne!(elsewhere.key(), *peer.key());
    assert_ne!(RecordDraft { week: 2969, ..peer_draft(1) }.key(), *peer.key());
}

#[test]
fn the_owner_alone_can_sign() {
    let verifier = CompositeVerifier;
    let good = record();
    assert!(good.verify(&verifier) && value().verify(&verifier));

    let thief = identity(9);
    let stolen = Record::sign(peer_draft(1), &thief).unwrap();
    assert!(!stolen.verify(&verifier), "another key under the owner's name");
    let mixed = Record::assemble(peer_draft(1), good.owner_key().to_vec(), stolen.signature().to_vec());
    assert!(!mixed.verify(&verifier), "the owner's key, another's signature");
    let cut = &good.signature()[..4627];
    assert!(!Record::assemble(peer_draft(1), good.owner_key().to_vec(), cut.to_vec()).verify(&verifier), "one half");
    let label = sender().sign(SignatureLabel::DhtMessage, &peer_draft(1).signed_bytes()).unwrap().into_bytes();
    assert!(!Record::assemble(peer_draft(1), good.owner_key().to_vec(), label).verify(&verifier), "another purpose");
}

#[test]
fn every_field_is_signed() {
    let good = record();
    let changed = [
        RecordDraft { network: NetworkId::from_bytes([1; 32]), ..peer_draft(1) },
        RecordDraft { week: 1, ..peer_draft(1) },
        RecordDraft { seq: 2, ..peer_draft(1) },
        RecordDraft { not_before_ms: 0, ..peer_draft(1) },
        RecordDraft { not_after_ms: u64::MAX, ..peer_draft(1) },
        RecordDraft { heartbeat_anchor: [0; 32], ..peer_draft(1) },
        RecordDraft { payload: Payload::Peer(Endpoints { addresses: vec![v4(66)], capabilities: 5 }), ..peer_draft(1) },
        RecordDraft { payload: value_draft(b"x").payload, ..peer_draft(1) },
    ];
    for draft in changed {
        let forged = Record::assemble(draft, good.owner_key().to_vec(), good.signature().to_vec());
        assert_ne!(forged.digest(), good.digest());
        assert!(!forged.verify(&CompositeVerifier), "{:?}", forged.draft());
    }
}

#[test]
fn the_digest_is_of_the_content_and_not_of_the_signature() {
    let again = Record::sign(peer_draft(1), sender()).unwrap();
    assert_ne!(again.signature(), record().signature(), "signatures are hedged");
    assert_eq!(again.digest(), record().digest());
    assert_ne!(Arc::new(again), record());
}

#[test]
fn heartbeats_fit_their_hour_only() {
    let anchor = heartbeat_chain(&BEAT_SEED, 24);
    assert_eq!(anchor, bytes("08e95fe95626001de1d09f11f3ef42f4c6bf95032d52d9a1db824d4dce2fcab3"));
    for hour in 1..=24 {
        let beat = Heartbeat::at(&BEAT_SEED, hour).unwrap();
        assert!(beat.fits(&anchor), "{hour}");
        for other in (0..=255).filter(|other| *other != hour) {
            assert!(!Heartbeat { hour: other, ..beat }.fits(&anchor), "{hour} as {other}");
        }
        assert!(!beat.fits(&[0; 32]));
    }
    assert_eq!(Heartbeat::at(&BEAT_SEED, 24).unwrap().preimage, BEAT_SEED);
    assert_eq!((Heartbeat::at(&BEAT_SEED, 0), Heartbeat::at(&BEAT_SEED, 25)), (None, None));
    assert!(!Heartbeat { hour: 0, preimage: anchor }.fits(&anchor), "the anchor itself is public");
}
