// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packets wait for the session, within bounds, and leave in order.

use std::time::Instant;

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::{DropReason, Event, SendError, SessionId, session::EPOCH_HARD};

use crate::{
    harness::{Keys, Node, PEER, eventually, nodes, socket},
    packets::{EXPERIMENT, ip, payload, plain},
};

fn numbered(i: usize) -> Vec<u8> {
    plain(&ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(100 + i, i)))
}

fn need_session(event: &Event) -> bool {
    matches!(event, Event::NeedSession { peer: PEER })
}

#[test]
fn parked_packets_are_bounded_asked_for_once_and_flushed_in_order() {
    let (a, b) = nodes();
    for i in 0..80 {
        a.tun.inject(&numbered(i));
    }
    a.expect_drops(DropReason::ParkedOverflow, 16);
    assert_eq!(a.control.peer_stats(PEER).parked, 64);
    assert_eq!(a.events.count(need_session), 1);
    let keys = Keys::new(1);
    b.install(1, keys.responder, Role::Responder, a.addr, false);
    a.install(1, keys.initiator, Role::Initiator, b.addr, true);
    for i in 16..80 {
        assert_eq!(b.collect(), numbered(i), "packet {i}");
    }
    eventually(|| a.control.peer_stats(PEER).parked, |&parked| parked == 0);
    a.tun.inject(&numbered(100));
    assert_eq!(b.collect(), numbered(100));
}

#[test]
fn parked_bytes_are_bounded() {
    let (a, _b) = nodes();
    let big = plain(&ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(60_000, 0)));
    for _ in 0..6 {
        a.tun.inject(&big);
    }
    a.expect_drops(DropReason::ParkedOverflow, 2);
    assert_eq!(a.control.peer_stats(PEER).parked, 4);
}

#[test]
fn a_responder_sends_nothing_before_the_peer_proved_its_keys() {
    let (a, b) = nodes();
    let keys = Keys::new(1);
    b.install(1, keys.responder, Role::Responder, a.addr, false);
    let waiting = plain(&ip("10.9.0.2", "10.9.0.1", EXPERIMENT, &payload(30, 0)));
    b.tun.inject(&waiting);
    b.events.expect(|event| need_session(event).then_some(()));
    assert!(!b.control.session_info(SessionId(1)).unwrap().tx_active);
    assert_eq!(b.control.peer_stats(PEER).tx_packets, 0);
    a.install(1, keys.initiator, Role::Initiator, b.addr, true);
    a.tun.inject(&numbered(0));
    assert_eq!(b.collect(), numbered(0));
    assert_eq!(a.collect(), waiting);
    b.events.expect(|event| matches!(event, Event::FirstPacket { session: SessionId(1) }).then_some(()));
    let info = b.control.session_info(SessionId(1)).unwrap();
    assert!(info.tx_active && info.confirmed);
}

#[test]
fn a_session_too_old_to_seal_sends_nothing_and_is_reported_once() {
    let (a, b) = nodes();
    let long_ago = Instant::now() - EPOCH_HARD;
    a.install(1, Keys::at(1, long_ago).initiator, Role::Initiator, b.addr, true);
    for i in 0..20 {
        a.tun.inject(&numbered(i));
    }
    a.expect_drops(DropReason::SealRefused, 20);
    assert_eq!(a.events.count(|event| matches!(event, Event::SealRefused { session: SessionId(1) })), 1);
    assert!(matches!(a.control.send_probe(PEER, 1), Err(SendError::Refused)));
    assert_eq!(a.control.peer_stats(PEER).tx_packets, 0);
    assert_silence_of(&b);
}

/// Asserts that no tunnel packet reached a node without sessions, after one stray of ours did.
fn assert_silence_of(node: &Node) {
    socket().send_to(&[0x24; 100], node.addr).unwrap();
    node.expect_drops(DropReason::NoSession, 1);
}

#[test]
fn key_confirmation_activates_the_responder_too() {
    let (a, b) = nodes();
    let keys = Keys::new(1);
    a.install(1, keys.initiator, Role::Initiator, b.addr, false);
    b.install(1, keys.responder, Role::Responder, a.addr, false);
    a.tun.inject(&numbered(0));
    eventually(|| a.control.peer_stats(PEER).parked, |&parked| parked == 1);
    assert!(!a.control.activate_tx(SessionId(7)));
    assert!(a.control.activate_tx(SessionId(1)));
    assert_eq!(b.collect(), numbered(0));
}

#[test]
fn the_newest_active_session_sends_and_older_ones_still_receive() {
    let (a, b) = nodes();
    for (id, seed) in [(1, 1), (2, 2)] {
        let keys = Keys::new(seed);
        b.install(id, keys.responder, Role::Responder, a.addr, false);
        a.install(id, keys.initiator, Role::Initiator, b.addr, id == 1);
    }
    a.tun.inject(&numbered(1));
    assert_eq!(b.collect(), numbered(1));
    b.events.expect(|event| matches!(event, Event::FirstPacket { session: SessionId(1) }).then_some(()));
    a.control.activate_tx(SessionId(2));
    a.tun.inject(&numbered(2));
    assert_eq!(b.collect(), numbered(2));
    b.events.expect(|event| matches!(event, Event::FirstPacket { session: SessionId(2) }).then_some(()));
    a.control.remove_session(SessionId(2));
    a.tun.inject(&numbered(3));
    assert_eq!(b.collect(), numbered(3));
}
