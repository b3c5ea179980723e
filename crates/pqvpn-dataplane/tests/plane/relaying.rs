// SPDX-License-Identifier: MIT OR Apache-2.0
//! Being a relay: what is sent on, to whom, how much, and that nothing else is.

use std::{net::UdpSocket, sync::Arc};

use pqvpn_dataplane::{
    DropReason, GuestTransmit,
    way::{Forward, ForwardLimit, Way, WayError, WayId},
};
use pqvpn_packet::relay::Channel;

use crate::{
    harness::{Node, assert_silence, connected, eventually, receive_on, socket},
    packets::{payload, split, tcp, tso},
};

/// Channels of the two directions, as the relay sees them.
pub(crate) const A_TO_B: u64 = 0x11;
const B_TO_A: u64 = 0x22;
/// The same, as the ends see them.
const AT_B: u64 = 0x33;
const AT_A: u64 = 0x44;
/// The way of both ends to each other.
const WAY: WayId = WayId(0xfeed);

fn unlimited() -> Arc<ForwardLimit> {
    Arc::new(ForwardLimit::new(1 << 40, 1 << 40))
}

/// A node that relays between two others, which know each other as [`WAY`].
pub(crate) fn relay_between(a: &Node, b: &Node) -> Node {
    let relay = Node::new();
    let forward = |from, to, out_channel| Forward { from, to, out_channel, limit: unlimited() };
    relay.control.set_forward(A_TO_B, forward(a.addr, b.addr, AT_B)).unwrap();
    relay.control.set_forward(B_TO_A, forward(b.addr, a.addr, AT_A)).unwrap();
    for (node, out_channel, in_channel) in [(a, A_TO_B, AT_A), (b, B_TO_A, AT_B)] {
        node.control.set_way(WAY, Way::Relay { relay: relay.addr, out_channel, in_channel }).unwrap();
    }
    relay
}

/// Two plain sockets and a relay for datagrams from the first to the second.
fn ends(limit: ForwardLimit) -> (UdpSocket, UdpSocket, Node) {
    let (from, to, relay) = (socket(), socket(), Node::new());
    let limit = Arc::new(limit);
    let (from_addr, to_addr) = (from.local_addr().unwrap(), to.local_addr().unwrap());
    let forward = Forward { from: from_addr, to: to_addr, out_channel: AT_B, limit };
    relay.control.set_forward(A_TO_B, forward).unwrap();
    (from, to, relay)
}

fn on(channel: u64, rest: &[u8]) -> Vec<u8> {
    [&Channel::new(channel).unwrap().header()[..], rest].concat()
}

#[test]
fn datagrams_are_sent_on_with_another_channel_and_nothing_else_changed() {
    let (from, to, relay) = ends(ForwardLimit::new(1 << 40, 1 << 40));
    let mut bytes = 0;
    for len in [1, 2, 100, 1400, 9000] {
        let rest = payload(len, len);
        from.send_to(&on(A_TO_B, &rest), relay.addr).unwrap();
        assert_eq!(receive_on(&to), on(AT_B, &rest));
        bytes += len as u64 + 8;
    }
    let stats = eventually(|| relay.control.forward_stats(A_TO_B).unwrap(), |stats| stats.packets == 5);
    assert_eq!((stats.bytes, stats.dropped), (bytes, 0));
    assert!(stats.last.is_some());
    assert_eq!(relay.control.drops().total(), 0);
    assert_eq!(relay.control.forward_stats(B_TO_A), None);
}

#[test]
fn only_the_end_a_channel_belongs_to_may_use_it() {
    let (from, to, relay) = ends(ForwardLimit::new(1 << 40, 1 << 40));
    let stranger = socket();
    stranger.send_to(&on(A_TO_B, b"not mine"), relay.addr).unwrap();
    relay.expect_drops(DropReason::RelaySource, 1);
    to.send_to(&on(A_TO_B, b"the wrong end"), relay.addr).unwrap();
    relay.expect_drops(DropReason::RelaySource, 2);
    from.send_to(&on(AT_B, b"no such channel"), relay.addr).unwrap();
    relay.expect_drops(DropReason::RelayUnknownChannel, 1);
    from.send_to(&on(A_TO_B, b""), relay.addr).unwrap();
    relay.expect_drops(DropReason::Short, 1);
    assert!(relay.control.remove_forward(A_TO_B) && !relay.control.remove_forward(A_TO_B));
    from.send_to(&on(A_TO_B, b"no longer"), relay.addr).unwrap();
    relay.expect_drops(DropReason::RelayUnknownChannel, 2);
    for socket in [from, to, stranger] {
        assert_silence(&socket);
    }
}

#[test]
fn an_end_that_roams_is_followed_by_setting_the_forward_again() {
    let (from, to, relay) = ends(ForwardLimit::new(1 << 40, 1 << 40));
    from.send_to(&on(A_TO_B, b"before"), relay.addr).unwrap();
    assert_eq!(receive_on(&to), on(AT_B, b"before"));
    let moved = socket();
    let forward = Forward {
        from: moved.local_addr().unwrap(),
        to: to.local_addr().unwrap(),
        out_channel: AT_B,
        limit: unlimited(),
    };
    relay.control.set_forward(A_TO_B, forward).unwrap();
    moved.send_to(&on(A_TO_B, b"after"), relay.addr).unwrap();
    assert_eq!(receive_on(&to), on(AT_B, b"after"));
    from.send_to(&on(A_TO_B, b"gone"), relay.addr).unwrap();
    relay.expect_drops(DropReason::RelaySource, 1);
    eventually(|| relay.control.forward_stats(A_TO_B).unwrap().packets, |&packets| packets == 2);
}

#[test]
fn what_is_over_the_limit_is_dropped_and_counted() {
    // 250 bytes and the headers of IPv6 and UDP, four times.
    let (from, to, relay) = ends(ForwardLimit::new(1, 1192));
    for _ in 0..10 {
        from.send_to(&on(A_TO_B, &payload(242, 1)), relay.addr).unwrap();
    }
    relay.expect_drops(DropReason::RelayLimited, 6);
    for _ in 0..4 {
        receive_on(&to);
    }
    assert_silence(&to);
    let stats = eventually(|| relay.control.forward_stats(A_TO_B).unwrap(), |stats| stats.dropped == 6);
    assert_eq!((stats.packets, stats.bytes), (4, 1000));
}

#[test]
fn forwards_that_share_a_limit_share_its_bytes() {
    let (from, to, relay) = ends(ForwardLimit::new(1, 1000));
    let limit = Arc::new(ForwardLimit::new(1, 1192));
    for channel in [A_TO_B, B_TO_A] {
        let (from, to) = (from.local_addr().unwrap(), to.local_addr().unwrap());
        let forward = Forward { from, to, out_channel: channel, limit: Arc::clone(&limit) };
        relay.control.set_forward(channel, forward).unwrap();
    }
    for turn in 0..10 {
        from.send_to(&on([A_TO_B, B_TO_A][turn % 2], &payload(242, 1)), relay.addr).unwrap();
    }
    relay.expect_drops(DropReason::RelayLimited, 6);
}

#[test]
fn a_channel_is_a_ways_or_a_forwards_never_both() {
    let (_from, to, relay) = ends(ForwardLimit::new(1, 1000));
    let way = |in_channel| Way::Relay { relay: to.local_addr().unwrap(), out_channel: 1, in_channel };
    assert_eq!(relay.control.set_way(WAY, way(A_TO_B)), Err(WayError::ChannelInUse(A_TO_B)));
    relay.control.set_way(WAY, way(B_TO_A)).unwrap();
    let addr = to.local_addr().unwrap();
    let forward = Forward { from: addr, to: addr, out_channel: 1, limit: unlimited() };
    assert_eq!(relay.control.set_forward(B_TO_A, forward), Err(WayError::ChannelInUse(B_TO_A)));
}

#[test]
fn one_message_of_several_channels_is_taken_apart() {
    let (sender, relay) = (Node::new(), Node::new());
    let receivers: Vec<_> = (0..3).map(|_| socket()).collect();
    for (channel, receiver) in (1..).zip(&receivers) {
        let to = receiver.local_addr().unwrap();
        let forward = Forward { from: sender.addr, to, out_channel: channel + 100, limit: unlimited() };
        relay.control.set_forward(channel, forward).unwrap();
    }
    let order = [1, 1, 2, 1, 3, 3, 3, 2, 9, 1, 1];
    let contents: Vec<u8> = order.iter().enumerate().flat_map(|(i, &to)| on(to, &payload(700, i))).collect();
    let transmit =
        GuestTransmit { dst: relay.addr, src_ip: None, ecn: None, contents: &contents, segment_size: Some(708) };
    sender.guest.try_send(&transmit).unwrap();
    for (i, to) in order.iter().enumerate().filter(|(_, to)| **to != 9) {
        let receiver = &receivers[usize::try_from(to - 1).unwrap()];
        assert_eq!(receive_on(receiver), on(to + 100, &payload(700, i)));
    }
    relay.expect_drops(DropReason::RelayUnknownChannel, 1);
}

#[test]
fn super_packets_cross_the_relay_whole_and_in_order() {
    let (a, b) = connected();
    let relay = relay_between(&a, &b);
    a.control.set_path(crate::harness::PEER, WAY.address());
    let bytes = payload(60_000, 1);
    a.tun.inject(&tso(&tcp("10.9.0.1", "10.9.0.2", 1, &bytes), 1380));
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        received.extend_from_slice(&split(&b.collect()).1[40..]);
    }
    assert_eq!(received, bytes);
    let stats = eventually(|| relay.control.forward_stats(A_TO_B).unwrap(), |stats| stats.packets >= 44);
    assert_eq!(stats.dropped, 0);
    assert_eq!((relay.control.drops().total(), b.control.drops().total()), (0, 0));
}

#[test]
fn what_is_sent_on_leaves_from_the_address_its_receiver_knows() {
    let relay = Node::with(pqvpn_dataplane::Offloads::default(), "0.0.0.0:0");
    let port = relay.addr.port();
    let (a, b) = (socket(), socket());
    let (at_a, at_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let forward = |from, to, out_channel| Forward { from, to, out_channel, limit: unlimited() };
    relay.control.set_forward(A_TO_B, forward(at_a, at_b, AT_B)).unwrap();
    relay.control.set_forward(B_TO_A, forward(at_b, at_a, AT_A)).unwrap();
    b.send_to(&on(B_TO_A, b"hello"), ("127.0.0.3", port)).unwrap();
    receive_on(&a);
    a.send_to(&on(A_TO_B, b"hello"), ("127.0.0.2", port)).unwrap();
    let (_, from) = b.recv_from(&mut [0; 100]).unwrap();
    assert_eq!(from, (std::net::Ipv4Addr::new(127, 0, 0, 3), port).into());
    b.send_to(&on(B_TO_A, b"again"), ("127.0.0.3", port)).unwrap();
    let (_, from) = a.recv_from(&mut [0; 100]).unwrap();
    assert_eq!(from, (std::net::Ipv4Addr::new(127, 0, 0, 2), port).into());
}
