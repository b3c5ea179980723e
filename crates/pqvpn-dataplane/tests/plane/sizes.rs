// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths that carry less than the interface takes: pieces, words to local senders, and links in pieces.

use std::net::UdpSocket;

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::{DropReason, Event, GuestTransmit, Offloads, PathSize, SURE_LEN};
use pqvpn_packet::{
    checksum::complete,
    fragment::{FRAGMENT_LEN, Fragment, Place},
    header::{OVERHEAD, PacketKind},
    ip::IpView,
    piece::{Piece, pieces},
    segment::Segmenter,
};

use crate::{
    guest::{mapped, receive},
    harness::{ADDRESSES, Keys, MTU, Node, PEER, RawPeer, assert_silence, connected, raw_peer, receive_on, socket},
    packets::{EXPERIMENT, TCP, checksum_is_right, ip, payload, plain, split, tcp, tso},
};

const CARRY: PathSize = PathSize { carry: 900, advise: u16::MAX, narrow: false };

fn set_size(node: &Node, size: PathSize) {
    node.control.set_path_size(PEER, node.control.path(PEER).unwrap(), size);
}

fn packet(side: usize, family: usize, len: usize) -> Vec<u8> {
    let (src, dst) = (ADDRESSES[side][family], ADDRESSES[1 - side][family]);
    ip(src, dst, EXPERIMENT, &payload(len - [20, 40][family], len))
}

#[test]
fn what_the_path_does_not_carry_whole_crosses_in_pieces_that_it_carries() {
    let (mut peer, node) = raw_peer();
    peer.send(&packet(0, 0, 100));
    node.collect();
    set_size(&node, CARRY);
    for (len, count) in [(900 - OVERHEAD, 1), (900 - OVERHEAD + 1, 2), (usize::from(MTU), 2)] {
        let sent = packet(1, 0, len);
        assert!(node.tun.inject(&plain(&sent)));
        let mut whole = vec![0; len];
        for _ in 0..count {
            let datagram = receive_on(&peer.socket);
            assert!(datagram.len() <= 900, "{}", datagram.len());
            let (_, inner) = peer.open(datagram);
            if count == 1 {
                whole = inner;
            } else {
                let (head, bytes) = Fragment::decode(&inner).unwrap();
                whole[head.place.offset()..][..bytes.len()].copy_from_slice(bytes);
            }
        }
        assert_eq!(whole, sent, "{len}");
    }
    node.events.expect(|event| matches!(event, Event::LongInUse { peer: PEER }).then_some(()));
    assert_silence(&peer.socket);
}

#[test]
fn where_nothing_longer_passes_the_control_side_hears_that_it_is_wanted() {
    let (a, b) = connected();
    set_size(&a, PathSize { carry: 500, ..CARRY });
    let sent = packet(0, 0, 1000);
    assert!(a.tun.inject(&plain(&sent)));
    assert_eq!(b.collect(), plain(&sent));
    a.events.expect(|event| matches!(event, Event::LongInUse { peer: PEER }).then_some(()));
}

#[test]
fn packets_and_super_packets_cross_in_pieces_in_both_families() {
    let (a, b) = connected();
    set_size(&a, PathSize { carry: 600, ..CARRY });
    for family in 0..2 {
        let (src, dst) = (ADDRESSES[0][family], ADDRESSES[1][family]);
        for len in [300, 568, 569, 1280, usize::from(MTU)] {
            let sent = packet(0, family, len);
            assert!(a.tun.inject(&plain(&sent)));
            assert_eq!(b.collect(), plain(&sent));
        }
        let data = payload(10 * 1300, 1);
        assert!(a.tun.inject(&tso(&tcp(src, dst, 7, &data), 1300)));
        let mut got = Vec::new();
        while got.len() < data.len() {
            let written = b.collect();
            // Merged again as far as they came together, and cut as the kernel would.
            let (header, packet) = split(&written);
            let segments = Segmenter::new(&header, packet).unwrap();
            for i in 0..segments.count() {
                let mut segment = vec![0; segments.len(i)];
                segments.write(i, &mut segment);
                let (start, offset) = (usize::from(header.csum_start), usize::from(header.csum_offset));
                assert!(header.needs_csum() && complete(&mut segment, start, offset));
                assert!(checksum_is_right(&segment, TCP));
                got.extend_from_slice(&segment[[40, 60][family]..]);
            }
        }
        assert_eq!(got, data);
    }
    assert_eq!(a.control.drops().total() + b.control.drops().total(), 0);
}

/// A piece of a packet of `total` bytes, as the peer seals it.
fn fragment(id: u32, total: u16, unit: u16, index: u8, bytes: &[u8]) -> Vec<u8> {
    let head = Fragment { kind: PacketKind::Data, id, place: Place { total, unit, index } };
    [&head.encode()[..], bytes].concat()
}

fn send_whole(peer: &mut RawPeer, id: u32, sent: &[u8]) {
    for (index, bytes) in (0..).zip(sent.chunks(500)) {
        peer.send(&fragment(id, u16::try_from(sent.len()).unwrap(), 500, index, bytes));
    }
}

#[test]
fn pieces_that_lie_come_twice_or_never_end_are_dropped_and_counted() {
    let (mut peer, node) = raw_peer();
    let sent = packet(0, 0, 1200);
    peer.send(&fragment(1, 1200, 500, 0, &sent[..500]));
    peer.send(&fragment(1, 1200, 500, 0, &sent[..500]));
    node.expect_drops(DropReason::FragmentTwice, 1);
    for (count, bad) in (1..).zip([
        fragment(1, 1200, 500, 1, &sent[500..999]),
        fragment(1, 1201, 500, 1, &sent[500..1000]),
        fragment(1, 1200, 501, 1, &sent[501..1002]),
        fragment(1, 1200, 500, 3, &sent[..500]),
        fragment(1, 65_535, 128, 0, &sent[..128]),
        fragment(3, MTU + 1, 711, 0, &sent[..711]),
        fragment(4, 500, 500, 0, &sent[..500]),
        sent[..FRAGMENT_LEN - 1].iter().map(|_| 3).collect(),
    ]) {
        peer.send(&bad);
        node.expect_drops(DropReason::Fragment, count);
    }
    peer.send(&fragment(1, 1200, 500, 2, &sent[1000..]));
    peer.send(&fragment(1, 1200, 500, 1, &sent[500..1000]));
    assert_eq!(node.collect(), plain(&sent), "none of that harmed the packet");
    for id in 100..264 {
        peer.send(&fragment(id, 1200, 500, 0, &sent[..500]));
    }
    node.expect_drops(DropReason::FragmentLost, 100);
    send_whole(&mut peer, 500, &sent);
    assert_eq!(node.collect(), plain(&sent));
}

#[test]
fn what_comes_in_pieces_is_looked_at_like_what_comes_whole() {
    let (mut peer, node) = raw_peer();
    let spoofed = ip("10.9.0.77", ADDRESSES[1][0], EXPERIMENT, &payload(1200, 1));
    send_whole(&mut peer, 1, &spoofed);
    node.expect_drops(DropReason::Spoof, 1);
    let nested = fragment(9, 600, 500, 0, &[7; 1189]);
    send_whole(&mut peer, 2, &nested);
    node.expect_drops(DropReason::MalformedInner, 1);
    node.assert_nothing_collected();
}

#[test]
fn a_local_sender_is_told_what_goes_whole_and_its_packet_still_goes() {
    for family in 0..2 {
        // Anew: a sender is told now and then only.
        let (a, b) = connected();
        set_size(&a, PathSize { carry: 1332, advise: 1300, narrow: false });
        let sent = packet(0, family, 1400);
        assert!(a.tun.inject(&plain(&sent)));
        assert_eq!(b.collect(), plain(&sent));
        let told = a.collect();
        let (_, told) = split(&told);
        let view = IpView::parse(told).unwrap();
        assert_eq!(view.dst().to_string(), ADDRESSES[0][family]);
        assert_eq!(view.l4()[..2], [[3, 4], [2, 0]][family]);
        assert_eq!(u16::from_be_bytes([view.l4()[6], view.l4()[7]]), 1300);
    }
    let (a, b) = connected();
    set_size(&a, PathSize { carry: 1332, advise: 1300, narrow: false });
    assert!(a.tun.inject(&plain(&packet(0, 0, 1300))));
    b.collect();
    a.assert_nothing_collected();
}

#[test]
fn the_mss_of_a_syn_is_lowered_on_the_way_out_and_on_the_way_in() {
    let syn = |side: usize| {
        let mut l4 = vec![0x1f, 0x90, 0xc0, 0x01, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 2, 0, 0, 0, 0, 0];
        l4.extend([2, 4, 5, 0x8c]);
        plain(&ip(ADDRESSES[side][0], ADDRESSES[1 - side][0], TCP, &l4))
    };
    let mss = |written: &[u8]| u16::from_be_bytes([split(written).1[42], split(written).1[43]]);
    let (a, b) = connected();
    set_size(&a, PathSize { carry: 1332, advise: 1300, narrow: false });
    assert!(a.tun.inject(&syn(0)));
    assert_eq!(mss(&b.collect()), 1260);
    assert!(b.tun.inject(&syn(1)));
    assert_eq!(mss(&a.collect()), 1260);
    set_size(&a, PathSize::default());
    assert!(a.tun.inject(&syn(0)));
    assert_eq!(mss(&b.collect()), 1420);
}

/// A datagram as long as those of a QUIC handshake, that says so.
fn initial() -> Vec<u8> {
    let mut initial = payload(1200, 3);
    initial[..5].copy_from_slice(&[0xc0, 0, 0, 0, 1]);
    initial
}

#[test]
fn a_link_in_pieces_is_answered_in_pieces() {
    let (node, far) = (Node::new(), socket());
    let sent = initial();
    for piece in pieces(&sent, 7, SURE_LEN) {
        far.send_to(&piece, node.addr).unwrap();
    }
    let (received, meta) = receive(&node.guest);
    assert_eq!((received, meta.addr), (sent.clone(), mapped(far.local_addr().unwrap())));
    let answer = GuestTransmit { dst: meta.addr, src_ip: None, ecn: None, contents: &sent, segment_size: None };
    node.guest.try_send(&answer).unwrap();
    let mut whole = vec![0; 1200];
    for _ in 0..3 {
        let datagram = receive_on(&far);
        assert!(datagram.len() <= SURE_LEN);
        let (head, bytes) = Piece::decode(&datagram).unwrap();
        whole[head.place.offset()..][..bytes.len()].copy_from_slice(bytes);
    }
    assert_eq!(whole, sent);
    let other = socket();
    let elsewhere = GuestTransmit { dst: other.local_addr().unwrap(), ..answer };
    node.guest.try_send(&elsewhere).unwrap();
    assert_eq!(receive_on(&other), sent, "nobody else is sent pieces");
}

#[test]
fn pieces_hold_nothing_but_quic() {
    let (node, far) = (Node::new(), socket());
    for whole in [payload(1000, 1), vec![0x20; 600], vec![0x80; 600], vec![0xa0; 600], vec![0xc0; 600]] {
        let before = node.drops(DropReason::Piece);
        let mut whole = whole;
        whole[1] = 9;
        for piece in pieces(&whole, 1, SURE_LEN) {
            far.send_to(&piece, node.addr).unwrap();
        }
        node.expect_drops(DropReason::Piece, before + 1);
    }
    let before = node.drops(DropReason::Piece);
    let longest = Piece { id: 1, place: Place { total: 2000, unit: 500, index: 0 } };
    far.send_to(&[&longest.encode()[..], &[0; 500]].concat(), node.addr).unwrap();
    node.expect_drops(DropReason::Piece, before + 1);
}

#[test]
fn a_flood_of_pieces_from_one_address_crowds_out_nobody_else() {
    let (node, flood) = (Node::new(), socket());
    let far = UdpSocket::bind("127.0.0.2:0").unwrap();
    let sent = initial();
    let mut rest = pieces(&sent, 7, SURE_LEN);
    far.send_to(&rest.next().unwrap(), node.addr).unwrap();
    for id in 1000..1400 {
        flood.send_to(&pieces(&sent, id, SURE_LEN).next().unwrap(), node.addr).unwrap();
    }
    // All but the eight of one address that may wait.
    node.expect_drops(DropReason::Piece, 392);
    rest.for_each(|piece| _ = far.send_to(&piece, node.addr).unwrap());
    assert_eq!(receive(&node.guest).0, sent);
}

#[test]
fn a_flood_of_pieces_from_many_addresses_crowds_out_nobody_who_is_known() {
    let (node, far) = (Node::new(), UdpSocket::bind("127.0.2.1:0").unwrap());
    node.guest.on_dial(far.local_addr().unwrap());
    let sent = initial();
    let mut rest = pieces(&sent, 7, SURE_LEN);
    far.send_to(&rest.next().unwrap(), node.addr).unwrap();
    for n in 1..=200 {
        let flood = UdpSocket::bind(format!("127.0.3.{n}:0")).unwrap();
        flood.send_to(&pieces(&sent, 7, SURE_LEN).next().unwrap(), node.addr).unwrap();
    }
    // All but the 128 of strangers that may wait.
    node.expect_drops(DropReason::Piece, 72);
    rest.for_each(|piece| _ = far.send_to(&piece, node.addr).unwrap());
    assert_eq!(receive(&node.guest).0, sent);
}

#[test]
fn a_path_known_to_be_narrow_has_its_link_in_pieces() {
    let node = Node::with(Offloads { tso: true, uso: true }, "127.0.0.1:0");
    node.route_to(Role::Initiator);
    let far = socket();
    let at = far.local_addr().unwrap();
    node.install(1, Keys::new(1).responder, Role::Responder, at, true);
    let mut sent = payload(1200, 5);
    sent[0] = 0x40;
    let transmit = GuestTransmit { dst: at, src_ip: None, ecn: None, contents: &sent, segment_size: None };
    node.guest.try_send(&transmit).unwrap();
    assert_eq!(receive_on(&far).len(), 1200);
    node.control.set_path_size(PEER, at, PathSize { carry: 972, advise: 940, narrow: true });
    node.guest.try_send(&transmit).unwrap();
    (0..3).for_each(|_| assert!(receive_on(&far).len() <= SURE_LEN));
    node.control.set_path_size(PEER, at, PathSize { carry: 1452, ..CARRY });
    node.guest.try_send(&transmit).unwrap();
    assert_eq!(receive_on(&far).len(), 1200);
    node.control.set_path_size(PEER, at, PathSize { carry: 972, advise: 940, narrow: true });
    node.control.forget_path_size(at);
    node.guest.try_send(&transmit).unwrap();
    assert_eq!(receive_on(&far).len(), 1200, "that path is gone");
    node.control.set_path_size(PEER, at, PathSize { carry: 632, ..CARRY });
    node.guest.try_send(&transmit).unwrap();
    assert_eq!(receive_on(&far).len(), 1200, "the interface is narrow, not the path");
}

#[test]
fn what_waited_for_a_first_session_is_no_longer_than_was_said_before() {
    let node = Node::with(Offloads { tso: true, uso: true }, "127.0.0.1:0");
    node.route_to(Role::Initiator);
    let far = socket();
    assert!(node.tun.inject(&plain(&packet(1, 0, usize::from(MTU)))));
    node.events.expect(|event| matches!(event, Event::NeedSession { .. }).then_some(()));
    node.control.begin_path_size(PEER, CARRY);
    node.install(1, Keys::new(1).responder, Role::Responder, far.local_addr().unwrap(), true);
    (0..2).for_each(|_| assert!(receive_on(&far).len() <= 900));
    node.control.begin_path_size(PEER, PathSize::default());
    assert!(node.tun.inject(&plain(&packet(1, 0, usize::from(MTU)))));
    (0..2).for_each(|_| assert!(receive_on(&far).len() <= 900, "there is a session that knows better"));
}
