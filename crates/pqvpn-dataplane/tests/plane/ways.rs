// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ways: through a relay and by a carrier, for the tunnel and for QUIC, and what they refuse.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
};

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::{
    DropReason, Event, GuestTransmit, ProbeKind, SendError,
    way::{CarrierSink, Way, WayId},
};
use pqvpn_packet::{header::PacketKind, relay::Channel};

use crate::{
    guest::receive,
    harness::{Keys, Node, PEER, RawPeer, assert_silence, connected, nodes, raw_peer, receive_on, socket},
    packets::{EXPERIMENT, ip, payload, plain},
};

/// The channel a node writes, and the one it sees.
const OUT: u64 = 0x00ab_cdef_0123_4567;
const IN: u64 = 0x0012_3456_789a_bcde;
/// The way under test.
const WAY: WayId = WayId(0xfeed);

fn to_node() -> Vec<u8> {
    ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(40, 1))
}

fn from_node() -> Vec<u8> {
    ip("10.9.0.2", "10.9.0.1", EXPERIMENT, &payload(40, 2))
}

/// A datagram with a relay header in front.
fn on(channel: u64, datagram: &[u8]) -> Vec<u8> {
    [&Channel::new(channel).unwrap().header()[..], datagram].concat()
}

/// A node whose way to its peer leads through a relay, which is the peer's socket.
fn relayed_peer() -> (RawPeer, Node, UdpSocket) {
    let (peer, node) = raw_peer();
    let relay = socket();
    let way = Way::Relay { relay: relay.local_addr().unwrap(), out_channel: OUT, in_channel: IN };
    node.control.set_way(WAY, way).unwrap();
    (peer, node, relay)
}

/// A carrier that keeps what it is given, as much as there is room for.
#[derive(Default)]
struct Kept {
    datagrams: Mutex<Vec<Vec<u8>>>,
    full: bool,
}

impl CarrierSink for Kept {
    fn send(&self, datagram: &[u8]) -> bool {
        if !self.full {
            self.datagrams.lock().unwrap().push(datagram.to_vec());
        }
        !self.full
    }
}

impl Kept {
    fn next(&self) -> Vec<u8> {
        crate::harness::eventually(|| self.datagrams.lock().unwrap().len(), |&len| len > 0);
        self.datagrams.lock().unwrap().remove(0)
    }
}

fn carried_peer(full: bool) -> (RawPeer, Node, Arc<Kept>) {
    let (peer, node) = raw_peer();
    let sink = Arc::new(Kept { full, ..Kept::default() });
    node.control.set_way(WAY, Way::Carried(Arc::clone(&sink) as Arc<dyn CarrierSink>)).unwrap();
    (peer, node, sink)
}

fn quic(len: usize, seed: usize) -> Vec<u8> {
    [&[0x41][..], &payload(len - 1, seed)].concat()
}

fn transmit(dst: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> GuestTransmit<'_> {
    GuestTransmit { dst, src_ip: None, ecn: None, contents, segment_size }
}

#[test]
fn a_tunnel_packet_from_the_relay_is_the_ways_and_answers_go_the_way() {
    let (mut peer, node, relay) = relayed_peer();
    node.control.set_path(PEER, WAY.address());
    let sealed = peer.seal(PacketKind::Data, &to_node());
    relay.send_to(&on(IN, &sealed), node.addr).unwrap();
    assert_eq!(node.collect(), plain(&to_node()));
    node.tun.inject(&plain(&from_node()));
    let datagram = receive_on(&relay);
    assert_eq!(Channel::of(&datagram), Channel::new(OUT));
    assert_eq!(peer.open(datagram[8..].to_vec()).1, from_node());
    assert_eq!(node.control.path_heard(PEER).unwrap().0, WAY.address());
    assert_eq!(node.control.drops().total(), 0);
}

#[test]
fn the_low_bits_of_a_relay_header_mean_nothing() {
    let (mut peer, node, relay) = relayed_peer();
    for low in 0..32 {
        let mut datagram = on(IN, &peer.seal(PacketKind::Data, &to_node()));
        datagram[0] |= low;
        relay.send_to(&datagram, node.addr).unwrap();
        assert_eq!(node.collect(), plain(&to_node()));
    }
}

#[test]
fn quic_goes_the_way_in_both_directions_and_keeps_its_datagrams_apart() {
    let (_peer, node, relay) = relayed_peer();
    relay.send_to(&on(IN, &quic(300, 1)), node.addr).unwrap();
    let (bytes, meta) = receive(&node.guest);
    assert_eq!((bytes, meta.addr, meta.dst_ip), (quic(300, 1), WAY.address(), None));
    let contents = [quic(1200, 1), quic(1200, 2), quic(1200, 3), quic(50, 4)].concat();
    node.guest.try_send(&transmit(WAY.address(), &contents, Some(1200))).unwrap();
    node.guest.try_send(&transmit(WAY.address(), &quic(77, 5), None)).unwrap();
    for datagram in contents.chunks(1200).chain([&quic(77, 5)[..]]) {
        assert_eq!(receive_on(&relay), on(OUT, datagram));
    }
    assert_eq!(node.guest.socket_for(WAY.address()), Some(0));
}

#[test]
fn more_quic_than_one_message_holds_with_its_headers_leaves_in_several() {
    let (_peer, node, relay) = relayed_peer();
    let contents: Vec<u8> = (0..64).flat_map(|seed| quic(1020, seed)).collect();
    node.guest.try_send(&transmit(WAY.address(), &contents, Some(1020))).unwrap();
    for datagram in contents.chunks(1020) {
        assert_eq!(receive_on(&relay), on(OUT, datagram));
    }
    assert_eq!(node.drops(DropReason::GuestSendError), 0);
}

#[test]
fn a_way_that_is_not_there_is_an_error_and_an_empty_path() {
    let (mut peer, node) = raw_peer();
    peer.send(&to_node());
    node.collect();
    assert!(node.guest.try_send(&transmit(WAY.address(), b"x", None)).is_err());
    assert!(matches!(node.control.send_probe_to(PEER, 1, WAY.address(), ProbeKind::Check, 0), Err(SendError::Io(_))));
    node.control.set_path(PEER, WAY.address());
    assert_eq!(node.control.peer_stats(PEER).last_data_tx, None);
    node.tun.inject(&plain(&from_node()));
    node.expect_drops(DropReason::NoPath, 1);
    assert!(node.control.peer_stats(PEER).last_data_tx.is_some(), "or nobody looks for another path");
    assert_silence(&peer.socket);
}

#[test]
fn only_the_relay_may_use_the_channel_of_a_way() {
    let (mut peer, node, relay) = relayed_peer();
    let stranger = socket();
    let sealed = peer.seal(PacketKind::Data, &to_node());
    stranger.send_to(&on(IN, &sealed), node.addr).unwrap();
    node.expect_drops(DropReason::RelaySource, 1);
    stranger.send_to(&on(IN, &quic(100, 1)), node.addr).unwrap();
    node.expect_drops(DropReason::RelaySource, 2);
    relay.send_to(&on(OUT, &sealed), node.addr).unwrap();
    node.expect_drops(DropReason::RelayUnknownChannel, 1);
    relay.send_to(&on(IN, &on(IN, &sealed)), node.addr).unwrap();
    node.expect_drops(DropReason::RelayNested, 1);
    relay.send_to(&on(IN, b""), node.addr).unwrap();
    node.expect_drops(DropReason::Short, 1);
    node.assert_nothing_collected();
    assert_eq!(node.events.count(|event| matches!(event, Event::FirstPacket { .. } | Event::Heard { .. })), 0);
    assert!(node.control.remove_way(WAY));
    relay.send_to(&on(IN, &sealed), node.addr).unwrap();
    node.expect_drops(DropReason::RelayUnknownChannel, 2);
    assert_silence(&relay);
    assert_silence(&stranger);
}

#[test]
fn what_is_inside_a_relay_datagram_is_looked_at_as_any_other() {
    let (mut peer, node, relay) = relayed_peer();
    let mut forged = peer.seal(PacketKind::Data, &to_node());
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for (inside, reason) in [
        (forged, DropReason::Auth),
        (vec![0x24; 200], DropReason::NoSession),
        (vec![0x24; 20], DropReason::Short),
        (vec![0xa0; 40], DropReason::Garbage),
        (vec![0x00; 40], DropReason::Stun),
        (vec![0x40; 20], DropReason::Garbage),
    ] {
        let before = node.drops(reason);
        relay.send_to(&on(IN, &inside), node.addr).unwrap();
        node.expect_drops(reason, before + 1);
    }
    assert_silence(&relay);
}

#[test]
fn one_buffer_may_mix_a_way_with_plain_packets_of_the_same_sender() {
    let (mut peer, node) = raw_peer();
    let sender = Node::new();
    node.control.set_way(WAY, Way::Relay { relay: sender.addr, out_channel: OUT, in_channel: IN }).unwrap();
    let inner: Vec<_> =
        (0..6).map(|i| ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(400 + 8 * (i % 2), i))).collect();
    let seal = |(i, inner): (usize, &Vec<u8>)| {
        let sealed = peer.seal(PacketKind::Data, inner);
        if i % 2 == 0 { on(IN, &sealed) } else { sealed }
    };
    let datagrams: Vec<_> = inner.iter().enumerate().map(seal).collect();
    assert!(datagrams.iter().all(|datagram| datagram.len() == datagrams[0].len()));
    sender.guest.try_send(&transmit(node.addr, &datagrams.concat(), Some(datagrams[0].len()))).unwrap();
    for inner in inner {
        assert_eq!(node.collect(), plain(&inner));
    }
    assert_eq!(node.control.drops().total(), 0);
}

#[test]
fn a_carried_way_takes_and_brings_datagrams() {
    let (mut peer, node, sink) = carried_peer(false);
    node.control.set_path(PEER, WAY.address());
    let (first, second) = (peer.seal(PacketKind::Data, &to_node()), peer.seal(PacketKind::Data, &to_node()));
    assert_eq!(node.control.inject(WAY, &[&first, &quic(300, 1), &second]), 3);
    assert_eq!(node.collect(), plain(&to_node()));
    assert_eq!(node.collect(), plain(&to_node()));
    assert_eq!(receive(&node.guest).1.addr, WAY.address());
    node.tun.inject(&plain(&from_node()));
    assert_eq!(peer.open(sink.next()).1, from_node());
    let contents = [quic(500, 1), quic(500, 2), quic(10, 3)].concat();
    node.guest.try_send(&transmit(WAY.address(), &contents, Some(500))).unwrap();
    for datagram in contents.chunks(500) {
        assert_eq!(sink.next(), datagram);
    }
    assert_eq!(node.guest.socket_for(WAY.address()), None);
    assert_eq!(node.control.drops().total(), 0);
}

#[test]
fn a_carrier_without_room_loses_datagrams_and_they_are_counted() {
    let (mut peer, node, _sink) = carried_peer(true);
    peer.send(&to_node());
    node.collect();
    node.control.set_path(PEER, WAY.address());
    node.tun.inject(&plain(&from_node()));
    node.expect_drops(DropReason::CarrierFull, 1);
    node.guest.try_send(&transmit(WAY.address(), &quic(100, 1), None)).unwrap();
    node.expect_drops(DropReason::CarrierFull, 2);
    assert!(matches!(node.control.send_probe(PEER, 1), Err(SendError::Io(_))));
}

#[test]
fn only_a_carried_way_brings_datagrams_and_only_so_many() {
    let (mut peer, node, _relay) = relayed_peer();
    let sealed = peer.seal(PacketKind::Data, &to_node());
    assert_eq!(node.control.inject(WAY, &[&sealed]), 0);
    assert_eq!(node.control.inject(WayId(7), &[&sealed, &sealed]), 0);
    assert_eq!(node.drops(DropReason::CarrierOverflow), 3);
    let (_peer, node, _sink) = carried_peer(false);
    let large = vec![0xa0; 60_000];
    let taken = node.control.inject(WAY, &vec![&large[..]; 1000]);
    assert!((1..1000).contains(&taken));
    assert_eq!(node.drops(DropReason::CarrierOverflow), 1000 - taken as u64);
    node.expect_drops(DropReason::Garbage, taken as u64);
}

#[test]
fn a_relay_may_be_reached_by_a_carrier() {
    let (mut peer, node, sink) = carried_peer(false);
    let through = WayId(2);
    let way = Way::Relay { relay: WAY.address(), out_channel: OUT, in_channel: IN };
    node.control.set_way(through, way).unwrap();
    node.control.set_path(PEER, through.address());
    let sealed = peer.seal(PacketKind::Data, &to_node());
    node.control.inject(WAY, &[&on(IN, &sealed)]);
    assert_eq!(node.collect(), plain(&to_node()));
    node.tun.inject(&plain(&from_node()));
    let datagram = sink.next();
    assert_eq!(Channel::of(&datagram), Channel::new(OUT));
    assert_eq!(peer.open(datagram[8..].to_vec()).1, from_node());
    node.guest.try_send(&transmit(through.address(), &quic(99, 1), None)).unwrap();
    assert_eq!(sink.next(), on(OUT, &quic(99, 1)));
}

#[test]
fn a_probe_goes_the_way_and_its_answer_comes_back_by_it() {
    let (a, b) = connected();
    let relay = crate::relaying::relay_between(&a, &b);
    a.control.send_probe_to(PEER, 7, WAY.address(), ProbeKind::Check, 1000).unwrap();
    let from = a.events.expect(|event| {
        let Event::ProbeAck { id: 7, from, .. } = *event else { return None };
        Some(from)
    });
    assert_eq!(from, WAY.address());
    assert_eq!((a.control.path(PEER), b.control.path(PEER)), (Some(b.addr), Some(a.addr)));
    assert_eq!(relay.control.forward_stats(crate::relaying::A_TO_B).unwrap().bytes, 1008, "the header comes on top");
}

#[test]
fn a_session_over_a_relay_needs_no_other_address() {
    let (a, b) = nodes();
    let _relay = crate::relaying::relay_between(&a, &b);
    let keys = Keys::new(1);
    a.install(1, keys.initiator, Role::Initiator, WAY.address(), true);
    b.install(1, keys.responder, Role::Responder, WAY.address(), false);
    for turn in 0..20 {
        let inner = ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(300, turn));
        a.tun.inject(&plain(&inner));
        assert_eq!(b.collect(), plain(&inner));
        b.tun.inject(&plain(&from_node()));
        assert_eq!(a.collect(), plain(&from_node()));
    }
    assert_eq!((a.control.path(PEER), b.control.path(PEER)), (Some(WAY.address()), Some(WAY.address())));
}
