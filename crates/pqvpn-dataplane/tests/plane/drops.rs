// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does not belong is dropped in silence, under its own reason.

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::{DropReason, SessionId};
use pqvpn_packet::header::PacketKind;

use crate::{
    harness::{Keys, PEER, assert_silence, connected, indices, nodes, raw_peer, socket},
    packets::{EXPERIMENT, ip, payload, plain},
};

fn good() -> Vec<u8> {
    ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(40, 3))
}

#[test]
fn garbage_on_the_port_is_answered_with_silence() {
    let (_peer, node) = raw_peer();
    let stranger = socket();
    for (datagram, reason) in [
        (&[0xa0; 40][..], DropReason::Garbage),
        (&[0x80; 8], DropReason::Short),
        (&[0x9f; 40], DropReason::RelayUnknownChannel),
        (&[0x10; 1], DropReason::Garbage),
        (&[0xc0; 1200], DropReason::Garbage),
        (&[0x40; 20], DropReason::Garbage),
        (&[0xc0, 0, 0, 0], DropReason::Garbage),
        (&[0xc0, 0, 0, 0, 0, 0, 0, 0], DropReason::Garbage),
        (&[0x00, 0x01, 0, 0], DropReason::Stun),
        (&[0x24; 31], DropReason::Short),
        (&[0x3f; 1], DropReason::Short),
        (&[], DropReason::Short),
        (&[0x24; 200], DropReason::NoSession),
    ] {
        let before = node.drops(reason);
        stranger.send_to(datagram, node.addr).unwrap();
        node.expect_drops(reason, before + 1);
    }
    assert_silence(&stranger);
    assert_eq!(node.control.drops().total(), 13);
}

#[test]
fn an_unknown_receiver_index_is_silent_and_counted() {
    let (mut peer, node) = raw_peer();
    let mut datagram = peer.seal(PacketKind::Data, &good());
    datagram[4] ^= 1;
    peer.send_raw(&datagram);
    node.expect_drops(DropReason::NoSession, 1);
    assert_silence(&peer.socket);
    node.assert_nothing_collected();
}

#[test]
fn replayed_packets_are_counted_and_not_delivered_again() {
    let (mut peer, node) = raw_peer();
    let datagram = peer.send(&good());
    assert_eq!(node.collect(), plain(&good()));
    for _ in 0..3 {
        peer.send_raw(&datagram);
    }
    node.expect_drops(DropReason::Replay, 3);
    node.assert_nothing_collected();
    assert_silence(&peer.socket);
}

#[test]
fn a_packet_behind_the_window_is_too_old() {
    let (mut peer, node) = raw_peer();
    let old = peer.seal(PacketKind::Data, &good());
    let mut newest = Vec::new();
    for _ in 0..9000 {
        newest = peer.seal(PacketKind::Data, &good());
    }
    peer.send_raw(&newest);
    node.collect();
    peer.send_raw(&old);
    node.expect_drops(DropReason::TooOld, 1);
}

#[test]
fn any_changed_bit_is_refused_and_the_session_goes_on() {
    let (mut peer, node) = raw_peer();
    let datagram = peer.seal(PacketKind::Data, &good());
    let mut refused = 0;
    for bit in (0..datagram.len() * 8).step_by(7).filter(|bit| !(32..64).contains(bit) && bit / 8 != 0) {
        let mut forged = datagram.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        peer.send_raw(&forged);
        refused += 1;
    }
    crate::harness::eventually(|| node.control.drops().total(), |&dropped| dropped == refused);
    node.assert_nothing_collected();
    peer.send_raw(&datagram);
    assert_eq!(node.collect(), plain(&good()));
}

#[test]
fn an_inner_source_of_somebody_else_is_spoofed() {
    let (mut peer, node) = raw_peer();
    for (src, dst) in [
        ("10.9.0.7", "10.9.0.2"),
        ("10.9.0.2", "10.9.0.2"),
        ("192.0.2.1", "10.9.0.2"),
        ("fd09::2", "fd09::2"),
        ("fd09::7", "fd09::2"),
    ] {
        let before = node.drops(DropReason::Spoof);
        peer.send(&ip(src, dst, EXPERIMENT, &payload(40, 0)));
        node.expect_drops(DropReason::Spoof, before + 1);
    }
    node.assert_nothing_collected();
    peer.send(&good());
    assert_eq!(node.collect(), plain(&good()));
}

#[test]
fn nobody_speaks_about_packets_to_somebody_else() {
    let (mut peer, node) = raw_peer();
    let nets = [("10.9.0.0/31", PEER), ("10.9.0.7/32", PEER + 1)];
    node.control.set_routes(nets.map(|(net, peer)| (net.parse().unwrap(), peer)).to_vec());
    let unreachable = |quoted: &[u8]| {
        let l4 = [&[3, 4, 0, 0, 0, 0, 2, 40], quoted].concat();
        ip("10.9.0.1", "10.9.0.2", 1, &l4)
    };
    let to = |dst: &str| ip("10.9.0.2", dst, 17, &payload(8, 0));
    for foreign in [&to("10.9.0.7")[..], &to("10.9.0.7")[..19], &[]] {
        let before = node.drops(DropReason::Spoof);
        peer.send(&unreachable(foreign));
        node.expect_drops(DropReason::Spoof, before + 1);
    }
    node.assert_nothing_collected();
    for own in ["10.9.0.1", "192.0.2.1"] {
        peer.send(&unreachable(&to(own)));
        assert_eq!(node.collect(), plain(&unreachable(&to(own))));
    }
}

#[test]
fn the_source_check_is_made_anew_within_one_batch() {
    let (mut peer, node) = raw_peer();
    let spoofed = ip("10.9.0.7", "10.9.0.2", EXPERIMENT, &payload(40, 0));
    for inner in [good(), spoofed.clone(), good(), spoofed, good()] {
        peer.send(&inner);
    }
    for _ in 0..3 {
        assert_eq!(node.collect(), plain(&good()));
    }
    node.expect_drops(DropReason::Spoof, 2);
    node.assert_nothing_collected();
}

#[test]
fn authentic_packets_that_mean_nothing_are_counted() {
    let (mut peer, node) = raw_peer();
    for (inner, reason) in [
        (&[][..], DropReason::MalformedInner),
        (&[0x99; 30], DropReason::MalformedInner),
        (&[0x45, 0, 0], DropReason::MalformedInner),
        (&[0x01, 9, 0, 0, 0, 0, 0, 0, 0, 0], DropReason::MalformedInner),
        (&[0x02; 60], DropReason::UnsupportedInner),
        (&[0x03; 60], DropReason::Fragment),
    ] {
        let before = node.drops(reason);
        peer.send(inner);
        node.expect_drops(reason, before + 1);
    }
    let mut truncated = good();
    truncated.truncate(30);
    peer.send(&truncated);
    node.expect_drops(DropReason::MalformedInner, 5);
    peer.send(&[0x00; 60]);
    peer.send(&good());
    assert_eq!(node.collect(), plain(&good()), "cover traffic is neither an error nor delivered");
    assert_eq!(node.control.drops().total(), 7);
}

#[test]
fn a_reflected_or_foreign_packet_is_not_accepted() {
    let (a, b) = connected();
    let (mut other, node) = raw_peer();
    // Sealed under another session, sent under an index of this one.
    let datagram = other.seal(PacketKind::Data, &good());
    let stray = socket();
    let foreign = Keys::new(99);
    let mut tx = foreign.initiator.tx;
    let mut sealed = [&[0; 16], good().as_slice(), &[0; 16]].concat();
    tx.begin_batch(std::time::Instant::now(), 1).unwrap();
    tx.seal(indices(1, Role::Responder)[0], PacketKind::Data, &mut sealed).unwrap();
    let before = b.control.drops().total();
    stray.send_to(&sealed, b.addr).unwrap();
    crate::harness::eventually(|| b.control.drops().total(), |&dropped| dropped == before + 1);
    b.assert_nothing_collected();
    // Reflected: what the peer sent, with the peer's own index put in.
    let mut reflected = datagram;
    reflected[4..8].copy_from_slice(&indices(1, Role::Initiator)[0].to_be_bytes());
    stray.send_to(&reflected, a.addr).unwrap();
    crate::harness::eventually(|| a.control.drops().total(), |&dropped| dropped == 1);
    a.assert_nothing_collected();
    drop(node);
}

#[test]
fn what_has_no_route_or_is_no_packet_does_not_leave() {
    let (a, b) = connected();
    a.tun.inject(&plain(&ip("10.9.0.1", "10.9.0.77", EXPERIMENT, &[1])));
    a.tun.inject(&plain(&ip("fd09::1", "ff02::2", 58, &[133, 0, 0, 0])));
    a.expect_drops(DropReason::NoRoute, 2);
    a.tun.inject(&plain(&[0x99; 40]));
    a.tun.inject(&[0; 4]);
    let mut short = ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(100, 0));
    short.truncate(60);
    a.tun.inject(&plain(&short));
    a.expect_drops(DropReason::MalformedLocal, 3);
    b.assert_nothing_collected();
}

#[test]
fn a_removed_session_receives_nothing_and_frees_its_indices() {
    let (mut peer, node) = raw_peer();
    peer.send(&good());
    node.collect();
    let index = indices(1, Role::Responder)[3];
    assert!(node.control.index_in_use(index));
    assert!(node.control.remove_session(SessionId(1)));
    assert!(!node.control.remove_session(SessionId(1)));
    assert!(!node.control.index_in_use(index));
    peer.send(&good());
    node.expect_drops(DropReason::NoSession, 1);
    node.assert_nothing_collected();
}

#[test]
fn a_paused_interface_passes_nothing_either_way() {
    let (a, b) = connected();
    a.control.pause(true);
    b.tun.inject(&plain(&ip("10.9.0.2", "10.9.0.1", EXPERIMENT, &[1])));
    a.expect_drops(DropReason::Paused, 1);
    a.tun.inject(&plain(&good()));
    a.expect_drops(DropReason::Paused, 2);
    a.control.pause(false);
    a.tun.inject(&plain(&good()));
    assert_eq!(b.collect(), plain(&good()));
    a.assert_nothing_collected();
}

#[test]
fn a_removed_peer_is_without_route_and_session() {
    let (a, b) = nodes();
    a.tun.inject(&plain(&good()));
    crate::harness::eventually(|| a.control.peer_stats(PEER).parked, |&parked| parked == 1);
    a.control.remove_peer(PEER);
    assert_eq!(a.drops(DropReason::ParkedExpired), 1);
    a.tun.inject(&plain(&good()));
    a.expect_drops(DropReason::NoRoute, 1);
    drop(b);
}
