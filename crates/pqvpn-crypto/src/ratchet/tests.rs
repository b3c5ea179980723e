// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hash chain against the model's vectors, and the state machine in every order of events.

mod enumerate;

use super::*;
use crate::schedule::Role;
use crate::schedule::tests::{array, bytes, derive, vectors};

#[test]
fn chains_and_data_keys_equal_the_model() {
    for vector in vectors() {
        let mut seed = derive(&vector).into_parts(Role::Initiator).ratchet;
        assert_chains(&seed, &vector["epoch0"]["chains"]);
        for step in vector["steps"].as_array().unwrap() {
            let (x25519, kem) = (array(&step["x25519"]), array(&step["kem"]));
            let (r1, r2) = (bytes(&step["r1"]), bytes(&step["r2_covered"]));
            let inputs = crate::schedule::StepInputs { x25519: &x25519, kem: &kem, r1: &r1, r2: &r2 };
            seed = crate::schedule::Step::derive(&seed, &inputs).into_next();
            assert_chains(&seed, &step["after"]["chains"]);
        }
    }
}

fn assert_chains(seed: &crate::schedule::RatchetSeed, expected: &serde_json::Value) {
    for entry in expected.as_array().unwrap() {
        let direction = match entry["direction"].as_u64() {
            Some(0) => Direction::InitiatorToResponder,
            _ => Direction::ResponderToInitiator,
        };
        let mut chain = EpochChain::start(&seed.root, seed.sid, direction, seed.epoch);
        for _ in 0..entry["phase"].as_u64().unwrap() {
            chain.advance();
        }
        assert_eq!(chain.key.expose(), &array(&entry["chain"]));
        assert_eq!(*chain.key_bytes(&chain.key, chain.phase), array::<32>(&entry["data_key"]));
    }
}

#[test]
fn packets_equal_the_model() {
    for vector in vectors() {
        let seed = derive(&vector).into_parts(Role::Initiator).ratchet;
        for packet in vector["packets"].as_array().unwrap() {
            let aead = AeadId::from_u8(packet["aead"].as_u64().unwrap() as u8).unwrap();
            let direction = match packet["direction"].as_u64() {
                Some(0) => Direction::InitiatorToResponder,
                _ => Direction::ResponderToInitiator,
            };
            let chain = EpochChain::start(&seed.root, seed.sid, direction, 0);
            let key = chain.peek_key(aead, packet["phase"].as_u64().unwrap() as u16);
            let mut text = bytes(&packet["plaintext"]);
            let tag = key.seal_in_place(packet["counter"].as_u64().unwrap(), &array(&packet["header"]), &mut text);
            text.extend_from_slice(&tag.unwrap());
            assert_eq!(text, bytes(&packet["wire"])[16..]);
        }
    }
}

#[test]
fn peeking_gives_the_keys_that_advancing_gives() {
    let seed = derive(&vectors()[0]).into_parts(Role::Initiator).ratchet;
    let mut chain = EpochChain::start(&seed.root, seed.sid, Direction::InitiatorToResponder, 0);
    let start = EpochChain::start(&seed.root, seed.sid, Direction::InitiatorToResponder, 0);
    for ahead in 0..12 {
        let aad = [0; 16];
        let sealed = |key: DataKey| key.seal_in_place(1, &aad, &mut [0; 64]).unwrap();
        assert_eq!(
            sealed(start.peek_key(AeadId::ChaCha20Poly1305, ahead)),
            sealed(chain.data_key(AeadId::ChaCha20Poly1305))
        );
        chain.advance();
    }
    assert_eq!(start.phase(), 0);
}

#[test]
fn debug_shows_no_key() {
    let parts = derive(&vectors()[0]).into_parts(Role::Initiator);
    let shown = format!("{:?} {:?} {:?}", parts.tx, parts.tx.data_key(AeadId::Aes256Gcm), parts.tx_header);
    assert_eq!(
        shown,
        "EpochChain { direction: InitiatorToResponder, epoch: 0, phase: 0, .. } DataKey(..) HeaderSecret(..)"
    );
}
