// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packets cross unharmed, single ones and super-packets.

use std::time::Duration;

use pqvpn_dataplane::{DropReason, Offloads};
use pqvpn_packet::{
    header::{OVERHEAD, PacketKind},
    virtio::{F_NEEDS_CSUM, GSO_TCPV4, GSO_TCPV6},
};

use crate::{
    harness::{ADDRESSES, MTU, Node, PEER, connected, eventually, raw_peer_with},
    packets::{EXPERIMENT, TCP, UDP, checksum_is_right, ip, needs_csum, payload, plain, split, tcp, tso, udp},
};

/// Sends packets of every length class from one node to the other and compares them byte by byte.
fn all_sizes(from: &Node, to: &Node, side: usize, family: usize) {
    let (src, dst) = (ADDRESSES[side][family], ADDRESSES[1 - side][family]);
    let header = [20, 40][family];
    for len in (header..usize::from(MTU)).step_by(61).chain([usize::from(MTU)]) {
        let packet = ip(src, dst, EXPERIMENT, &payload(len - header, len));
        assert!(from.tun.inject(&plain(&packet)));
        assert_eq!(to.collect(), plain(&packet), "{len} bytes");
    }
}

#[test]
fn packets_of_all_sizes_cross_both_ways_in_both_families() {
    let (a, b) = connected();
    for family in 0..2 {
        all_sizes(&a, &b, 0, family);
        all_sizes(&b, &a, 1, family);
    }
    assert_eq!(a.control.drops().total() + b.control.drops().total(), 0);
}

#[test]
fn the_underlay_may_be_ipv6_or_dual_stack() {
    use crate::harness::Keys;
    use pqvpn_crypto::schedule::Role;
    for (bind_a, bind_b, localhost) in [("[::1]:0", "[::1]:0", "::1"), ("[::]:0", "127.0.0.1:0", "127.0.0.1")] {
        let offloads = Offloads { tso: true, uso: true };
        let (a, b) = (Node::with(offloads, bind_a), Node::with(offloads, bind_b));
        a.route_to(Role::Responder);
        b.route_to(Role::Initiator);
        let keys = Keys::new(2);
        let ip: std::net::IpAddr = localhost.parse().unwrap();
        a.install(1, keys.initiator, Role::Initiator, (ip, b.addr.port()).into(), true);
        b.install(1, keys.responder, Role::Responder, (ip, a.addr.port()).into(), true);
        all_sizes(&a, &b, 0, 0);
        all_sizes(&b, &a, 1, 1);
        let roamed = |e: &pqvpn_dataplane::Event| matches!(e, pqvpn_dataplane::Event::Roamed { .. });
        assert_eq!(a.events.count(roamed) + b.events.count(roamed), 0, "mapped addresses are no other addresses");
    }
}

#[test]
fn a_partial_checksum_arrives_as_a_partial_checksum() {
    let (a, b) = connected();
    let packet = udp("10.9.0.1", "10.9.0.2", &payload(300, 1));
    a.tun.inject(&needs_csum(&packet, UDP));
    let written = b.collect();
    let (header, arrived) = split(&written);
    assert_eq!(arrived, packet);
    assert_eq!((header.flags, header.csum_start, header.csum_offset), (F_NEEDS_CSUM, 20, 6));
}

/// Sends a TCP super-packet and puts together what the other kernel gets; gives the number of writes.
fn super_packet(from: &Node, to: &Node, family: usize, len: usize) -> usize {
    let (src, dst) = (ADDRESSES[0][family], ADDRESSES[1][family]);
    let (start, gso_type) = [(20, GSO_TCPV4), (40, GSO_TCPV6)][family];
    let sent = payload(len, 7);
    let size = MTU - start - 20;
    assert!(from.tun.inject(&tso(&tcp(src, dst, 1000, &sent), size)));
    let (mut got, mut writes) = (Vec::new(), 0);
    while got.len() < sent.len() {
        let written = to.collect();
        let (header, packet) = split(&written);
        let (start, data) = (usize::from(start), usize::from(start) + 20);
        let sequence = u32::from_be_bytes(packet[start + 4..start + 8].try_into().unwrap());
        assert_eq!(usize::try_from(sequence).unwrap(), 1000 + got.len());
        if packet.len() - data > usize::from(size) {
            assert_eq!((header.gso_type, header.gso_size), (gso_type, size));
        }
        got.extend_from_slice(&packet[data..]);
        writes += 1;
    }
    assert_eq!(got, sent);
    writes
}

#[test]
fn super_packets_cross_and_come_out_merged() {
    let (a, b) = connected();
    for family in 0..2 {
        for len in [1, 1380, 1381, 20_000, 64_000] {
            let writes = super_packet(&a, &b, family, len);
            // One socket buffer may be split over two receive calls, never one packet per write.
            assert!(writes <= 6, "{len} bytes came in {writes} writes");
        }
    }
    assert_eq!(a.control.drops().total() + b.control.drops().total(), 0);
}

#[test]
fn a_device_without_offloads_gets_whole_packets_with_whole_checksums() {
    let (mut peer, node) = raw_peer_with(Offloads::default());
    for i in 0..3u32 {
        let packet = tcp("10.9.0.1", "10.9.0.2", i * 100, &payload(100, 0));
        let datagram = peer.seal(PacketKind::DataPartial, &packet);
        peer.send_raw(&datagram);
        let written = node.collect();
        let (header, arrived) = split(&written);
        assert_eq!(header, pqvpn_packet::virtio::VirtioNetHdr::default());
        assert_eq!(arrived.len(), packet.len());
        assert!(!checksum_is_right(&packet, TCP) && checksum_is_right(arrived, TCP));
    }
}

#[test]
fn many_packets_at_once_arrive_in_order_whatever_their_sizes() {
    let (a, b) = connected();
    let packets: Vec<_> =
        (0..3000usize).map(|i| plain(&ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(i * 7919 % 1400, i)))).collect();
    for chunk in packets.chunks(100) {
        assert!(a.tun.inject_all(chunk.to_vec()));
        for packet in chunk {
            assert_eq!(b.collect(), *packet);
        }
    }
}

#[test]
fn padding_behind_the_inner_packet_is_dropped() {
    let (mut peer, node) = raw_peer_with(Offloads { tso: true, uso: true });
    let packet = ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(50, 1));
    peer.send(&[packet.as_slice(), &[0xaa; 33]].concat());
    assert_eq!(node.collect(), plain(&packet));
}

#[test]
fn traffic_is_counted_on_both_sides_and_data_apart_from_probes() {
    let (a, b) = connected();
    let packet = ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(100, 1));
    for _ in 0..5 {
        a.tun.inject(&plain(&packet));
        b.collect();
    }
    let wire = 5 * (packet.len() + OVERHEAD) as u64;
    let sent = eventually(|| a.control.peer_stats(PEER), |stats| stats.tx_packets == 5);
    let got = eventually(|| b.control.peer_stats(PEER), |stats| stats.rx_packets == 5);
    assert_eq!((sent.tx_bytes, got.rx_bytes), (wire, wire));
    assert!(sent.last_data_tx.is_some() && got.last_data_rx.is_some());
    assert!(sent.last_rx.is_none() && got.last_tx.is_none());
    b.control.send_probe(PEER, 1).unwrap();
    let probed = eventually(|| b.control.peer_stats(PEER), |stats| stats.last_rx > got.last_rx);
    assert!(probed.last_tx.is_some() && probed.last_data_tx.is_none());
    assert_eq!(probed.last_data_rx, got.last_data_rx);
}

#[test]
fn what_is_longer_than_the_mtu_is_dropped_and_counted() {
    let (a, b) = connected();
    a.tun.inject(&plain(&ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(usize::from(MTU) - 19, 0))));
    a.expect_drops(DropReason::TooBig, 1);
    assert_eq!(b.tun.collect(Duration::ZERO), None);
}
