// SPDX-License-Identifier: MIT OR Apache-2.0
//! What somebody who copied a session's memory can read: nothing after a ratchet step, nothing before a phase.
//!
//! Secrets have no `Clone`; a copy is made by deriving the session again from the captured exporter bytes.

use crate::peers::{Peer, pair, step};
use pqvpn_crypto::aead::AeadId;
use pqvpn_crypto::ratchet::machine::RatchetOutput;
use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::session::{OpenError, PHASE_TIME};
use std::time::{Duration, Instant};

#[test]
fn a_copy_taken_before_a_step_decrypts_nothing_after_it() {
    let start = Instant::now();
    let mut peers = pair(AeadId::ChaCha20Poly1305, start);
    let mut copies = pair(AeadId::ChaCha20Poly1305, start);
    for side in 0..2 {
        let packet = peers[side].seal(start, b"before");
        assert!(copies[1 - side].rx.open(start, &mut packet.clone()).is_ok(), "the copy is a working one");
    }
    step(&mut peers, start);
    for i in 0..1000_u32 {
        for side in 0..2 {
            let packet = peers[side].seal(start, &i.to_be_bytes());
            assert_eq!(copies[1 - side].rx.open(start, &mut packet.clone()), Err(OpenError::UnknownEpoch));
            peers[1 - side].rx.open(start, &mut packet.clone()).unwrap();
        }
    }
}

#[test]
fn a_copy_that_answers_the_step_itself_still_decrypts_nothing() {
    let start = Instant::now();
    let mut peers = pair(AeadId::ChaCha20Poly1305, start);
    let [_, mut copy] = pair(AeadId::ChaCha20Poly1305, start);
    peers[0].ratchet.request_step(start);
    let Some(RatchetOutput::Send(r1)) = peers[0].ratchet.poll_output() else { panic!("R1") };
    copy.ratchet.handle_message(start, &r1).unwrap();
    let Some(RatchetOutput::StageRx(guess)) = copy.ratchet.poll_output() else { panic!("a staged epoch") };
    copy.rx.stage_epoch(guess, start).unwrap();
    peers[1].ratchet.handle_message(start, &r1).unwrap();
    while let Some(output) = peers[1].ratchet.poll_output() {
        match output {
            RatchetOutput::StageRx(chain) => peers[1].rx.stage_epoch(chain, start).unwrap(),
            RatchetOutput::Send(r2) => peers[0].ratchet.handle_message(start, &r2).unwrap(),
            other @ (RatchetOutput::StartTx(_) | RatchetOutput::Reconnect | RatchetOutput::Abort(_)) => {
                panic!("{other:?}")
            }
        }
    }
    while let Some(output) = peers[0].ratchet.poll_output() {
        if let RatchetOutput::StartTx(chain) = output {
            peers[0].tx.start_epoch(chain, start).unwrap();
        }
    }
    for i in 0..1000_u32 {
        let packet = peers[0].seal(start, &i.to_be_bytes());
        assert_eq!(copy.rx.open(start, &mut packet.clone()), Err(OpenError::Auth));
        assert!(peers[1].rx.open(start, &mut packet.clone()).is_ok());
    }
}

#[test]
fn a_seized_receiver_cannot_read_phases_and_epochs_that_are_over() {
    let start = Instant::now();
    let mut peers = pair(AeadId::ChaCha20Poly1305, start);
    let recorded = peers[0].seal(start, b"phase 0");
    let phase_one = peers[0].seal(start + PHASE_TIME, b"phase 1");
    let mut now = start + PHASE_TIME;
    peers[1].rx.open(now, &mut phase_one.clone()).unwrap();
    now += Duration::from_secs(1);
    peers[1].rx.erase_expired(now);
    assert_eq!(peers[1].rx.open(now, &mut recorded.clone()), Err(OpenError::UnknownEpoch));
    let unread = peers[0].seal(now, b"epoch 0");
    step(&mut peers, now);
    let next = peers[0].seal(now, b"epoch 1");
    peers[1].rx.open(now, &mut next.clone()).unwrap();
    assert!(peers[1].rx.next_expiry().is_some());
    now += Duration::from_secs(1);
    assert_eq!(peers[1].rx.open(now, &mut unread.clone()), Err(OpenError::UnknownEpoch));
}

#[test]
fn two_sessions_of_the_same_peers_share_no_key() {
    let start = Instant::now();
    let mut first = Peer::new(Role::Initiator, 1, AeadId::ChaCha20Poly1305, start);
    let mut second = Peer::new(Role::Responder, 2, AeadId::ChaCha20Poly1305, start);
    for _ in 0..1000 {
        let mut packet = first.seal(start, b"old session");
        assert!(second.rx.open(start, &mut packet).is_err());
    }
}
