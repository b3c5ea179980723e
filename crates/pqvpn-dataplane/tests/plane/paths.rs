// SPDX-License-Identifier: MIT OR Apache-2.0
//! Probes, roaming, and what must not move a path.

use std::time::Instant;

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::{
    DropReason, Event, ProbeKind as Sent, SendError, SessionId,
    way::{Way, WayId},
};
use pqvpn_packet::{
    header::{OVERHEAD, PacketKind},
    inner::{End, PROBE_LEN, Probe, ProbeKind},
    relay::Channel,
};

use crate::{
    harness::{
        Keys, PEER, RawPeer, assert_silence, connected, eventually, indices, nodes, raw_peer, receive_on, socket,
    },
    packets::{EXPERIMENT, ip, payload, plain},
};

fn to_node() -> Vec<u8> {
    ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(40, 1))
}

fn from_node() -> Vec<u8> {
    ip("10.9.0.2", "10.9.0.1", EXPERIMENT, &payload(40, 2))
}

#[test]
fn a_probe_is_answered_by_the_other_data_plane() {
    let (a, b) = connected();
    a.control.send_probe(PEER, 0xfeed).unwrap();
    let (id, from) = a.events.expect(|event| {
        let Event::ProbeAck { peer: PEER, id, from, .. } = *event else { return None };
        Some((id, from))
    });
    assert_eq!((id, from), (0xfeed, b.addr));
    b.assert_nothing_collected();
}

#[test]
fn the_end_of_a_session_is_told_once_and_moves_nothing() {
    let (mut peer, node) = raw_peer();
    peer.send(&to_node());
    node.collect();
    let path = node.control.path(PEER);
    let word = peer.seal(PacketKind::Data, &End { reason: 2 }.encode());
    assert_eq!(word.len(), PROBE_LEN + OVERHEAD, "as long as a probe");
    let other = socket();
    for _ in 0..2 {
        other.send_to(&word, node.addr).unwrap();
    }
    let told =
        |event: &Event| if let Event::Ended { session, reason } = *event { Some((session, reason)) } else { None };
    assert_eq!(node.events.expect(told).1, 2);
    node.expect_drops(DropReason::Replay, 1);
    assert_eq!(node.events.count(|event| told(event).is_some()), 0, "the second is a replay");
    assert_eq!(node.control.path(PEER), path);
    for reason in 0..100 {
        let word = peer.seal(PacketKind::Data, &End { reason }.encode());
        peer.send_raw(&word);
        // Each alone: of a run the last counts.
        peer.send(&to_node());
        node.collect();
    }
    assert_eq!(node.events.count(|event| told(event).is_some()), 0, "it is over once");
    // A forged one is nobody's.
    let mut forged = peer.seal(PacketKind::Data, &End { reason: 2 }.encode());
    *forged.last_mut().unwrap() ^= 1;
    peer.send_raw(&forged);
    node.expect_drops(DropReason::Auth, 1);
    assert_eq!(node.events.count(|event| told(event).is_some()), 0);
}

#[test]
fn the_end_that_is_told_arrives() {
    let (a, b) = connected();
    let session = SessionId(1);
    assert!(a.control.session_info(session).is_some());
    a.control.send_end(session, 1).unwrap();
    let told = b.events.expect(|event| if let Event::Ended { reason, .. } = *event { Some(reason) } else { None });
    assert_eq!(told, 1);
    assert!(matches!(a.control.send_end(SessionId(77), 1), Err(SendError::NoSession)));
}

#[test]
fn a_probe_needs_a_session() {
    let (a, _b) = nodes();
    assert!(matches!(a.control.send_probe(PEER, 1), Err(SendError::NoSession)));
    assert!(matches!(a.control.send_probe(77, 1), Err(SendError::NoSession)));
}

#[test]
fn a_replayed_probe_is_not_answered_again() {
    let (mut peer, node) = raw_peer();
    let probe = peer.send(&Probe { kind: ProbeKind::Nominate, id: 5 }.encode());
    assert_eq!(peer.receive().1, Probe { kind: ProbeKind::Answer, id: 5 }.encode());
    peer.send_raw(&probe);
    node.expect_drops(DropReason::Replay, 1);
    assert_silence(&peer.socket);
}

#[test]
fn the_control_side_hears_of_few_answers_that_nobody_asked_for() {
    let (mut peer, node) = raw_peer();
    let other = socket();
    let start = Instant::now();
    for _ in 0..30 {
        for id in 0..100 {
            // From two addresses in turn: each is a run of its own.
            let answer = peer.seal(PacketKind::Data, &Probe { kind: ProbeKind::Answer, id }.encode());
            if id % 2 == 0 { &peer.socket } else { &other }.send_to(&answer, node.addr).unwrap();
        }
        peer.send(&to_node());
        node.collect();
    }
    let heard = node.events.count(|event| matches!(event, Event::ProbeAck { .. }));
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
    assert!((100..=512 + 100 * seconds).contains(&heard), "{heard}");
    assert!(node.drops(DropReason::RateLimited) > 0);
}

#[test]
fn a_flood_of_probes_in_one_batch_is_answered_only_in_part() {
    let (mut peer, node) = raw_peer();
    let probes: Vec<_> =
        (0..40).map(|id| peer.seal(PacketKind::Data, &Probe { kind: ProbeKind::Nominate, id }.encode())).collect();
    // One message of many segments is one receive batch.
    let len = probes[0].len();
    let sender = crate::harness::Node::new();
    let contents = probes.concat();
    let transmit = pqvpn_dataplane::GuestTransmit {
        dst: node.addr,
        src_ip: None,
        ecn: None,
        contents: &contents,
        segment_size: Some(len),
    };
    sender.guest.try_send(&transmit).unwrap();
    let dropped = eventually(|| node.drops(DropReason::RateLimited), |&dropped| dropped > 0);
    assert!(dropped <= 32);
}

#[test]
fn an_authentic_packet_from_a_new_port_moves_the_path_and_the_index() {
    let (mut peer, node) = raw_peer();
    peer.send(&to_node());
    node.collect();
    node.tun.inject(&plain(&from_node()));
    assert_eq!(peer.receive(), (indices(1, Role::Initiator)[0], from_node()));
    let old = peer.socket.local_addr().unwrap();
    let left = std::mem::replace(&mut peer.socket, socket());
    let new = peer.socket.local_addr().unwrap();
    peer.send(&to_node());
    node.collect();
    let moved = node.events.expect(|event| {
        let Event::Roamed { peer: PEER, from, to } = *event else { return None };
        Some((from, to))
    });
    assert_eq!(moved, (old, new));
    assert_eq!(node.control.path(PEER), Some(new));
    node.tun.inject(&plain(&from_node()));
    assert_eq!(peer.receive(), (indices(1, Role::Initiator)[1], from_node()));
    assert_silence(&left);
}

#[test]
fn an_older_packet_that_arrives_late_does_not_move_the_path() {
    let (mut peer, node) = raw_peer();
    let late = peer.seal(PacketKind::Data, &to_node());
    peer.send(&to_node());
    node.collect();
    let elsewhere = socket();
    elsewhere.send_to(&late, node.addr).unwrap();
    node.collect();
    node.tun.inject(&plain(&from_node()));
    assert_eq!(peer.receive().1, from_node());
    assert_eq!(node.events.count(|event| matches!(event, Event::Roamed { .. })), 0);
    assert_silence(&elsewhere);
}

#[test]
fn a_forged_or_replayed_packet_from_elsewhere_does_not_move_the_path() {
    let (mut peer, node) = raw_peer();
    let sent = peer.send(&to_node());
    node.collect();
    let elsewhere = socket();
    elsewhere.send_to(&sent, node.addr).unwrap();
    node.expect_drops(DropReason::Replay, 1);
    let mut forged = peer.seal(PacketKind::Data, &to_node());
    let last = forged.len() - 1;
    forged[last] ^= 1;
    elsewhere.send_to(&forged, node.addr).unwrap();
    node.expect_drops(DropReason::Auth, 1);
    assert_eq!(node.control.path(PEER), Some(peer.socket.local_addr().unwrap()));
}

#[test]
fn a_packet_of_an_older_session_does_not_move_the_path_of_a_newer_one() {
    let (mut old, node) = raw_peer();
    old.send(&to_node());
    node.collect();
    let keys = Keys::new(2);
    let new_socket = socket();
    let new_addr = new_socket.local_addr().unwrap();
    node.install(2, keys.responder, Role::Responder, new_addr, false);
    let initiator = keys.initiator;
    let mut new = RawPeer { tx: initiator.tx, rx: initiator.rx, socket: new_socket, id: 2, to: node.addr };
    new.send(&to_node());
    node.collect();
    old.send(&to_node());
    node.collect();
    assert_eq!(node.control.path(PEER), Some(new_addr));
    node.tun.inject(&plain(&from_node()));
    assert_eq!(new.receive().1, from_node());
}

#[test]
fn a_session_that_outlives_a_newer_one_still_moves_the_path() {
    let (mut kept, node) = raw_peer();
    kept.send(&to_node());
    node.collect();
    let Keys { initiator, responder } = Keys::new(2);
    node.install(2, responder, Role::Responder, kept.socket.local_addr().unwrap(), false);
    let mut crossed =
        RawPeer { tx: initiator.tx, rx: initiator.rx, socket: kept.socket.try_clone().unwrap(), id: 2, to: node.addr };
    crossed.send(&to_node());
    node.collect();
    assert!(node.control.remove_session(SessionId(2)));
    kept.socket = socket();
    kept.send(&to_node());
    node.collect();
    let moved = eventually(|| node.control.path(PEER), |path| *path == kept.socket.local_addr().ok());
    assert!(moved.is_some());
    node.tun.inject(&plain(&from_node()));
    assert_eq!(kept.receive().1, from_node());
}

#[test]
fn a_session_that_stops_sending_for_an_older_one_receives_on_and_moves_no_path() {
    let (mut kept, node) = raw_peer();
    let at = kept.socket.local_addr().unwrap();
    kept.send(&to_node());
    node.collect();
    let Keys { initiator, responder } = Keys::new(2);
    node.install(2, responder, Role::Responder, at, true);
    assert!(node.control.stop_sending(SessionId(2)) && !node.control.stop_sending(SessionId(3)));
    node.tun.inject(&plain(&from_node()));
    assert_eq!(kept.receive().1, from_node());
    let mut crossed = RawPeer { tx: initiator.tx, rx: initiator.rx, socket: socket(), id: 2, to: node.addr };
    for _ in 0..2 {
        crossed.send(&to_node());
        assert_eq!(node.collect(), plain(&to_node()), "it was under way");
    }
    // Its first packet shows that the other end has its keys, and allows it nothing.
    node.tun.inject(&plain(&from_node()));
    assert_eq!(kept.receive().1, from_node());
    assert_eq!(node.control.path(PEER), Some(at));
}

#[test]
fn set_path_redirects_and_moves_the_index_on_until_the_last() {
    let (mut peer, node) = raw_peer();
    node.control.activate_tx(SessionId(1));
    for turn in 0..10 {
        if turn > 0 {
            peer.socket = socket();
            node.control.set_path(PEER, peer.socket.local_addr().unwrap());
        }
        node.tun.inject(&plain(&from_node()));
        let datagram = receive_on(&peer.socket);
        assert_eq!(peer.open(datagram).0, indices(1, Role::Initiator)[turn.min(7)]);
    }
}

/// Sends a sealed probe from somewhere else, waits for its answer there if it has one, and says where the path is.
fn probe_from_elsewhere(kind: ProbeKind) -> (bool, usize) {
    let (mut peer, node) = raw_peer();
    peer.send(&to_node());
    node.collect();
    let elsewhere = socket();
    let probe = peer.seal(PacketKind::Data, &Probe { kind, id: 5 }.encode());
    elsewhere.send_to(&probe, node.addr).unwrap();
    if kind == ProbeKind::Answer {
        node.events.expect(|event| matches!(event, Event::ProbeAck { id: 5, .. }).then_some(()));
    } else {
        let answer = receive_on(&elsewhere);
        assert_eq!(peer.open(answer).1, Probe { kind: ProbeKind::Answer, id: 5 }.encode());
    }
    let moved = node.control.path(PEER) == elsewhere.local_addr().ok();
    assert!(moved || node.control.path(PEER) == peer.socket.local_addr().ok());
    let from = elsewhere.local_addr().unwrap();
    let heard = node.events.count(|event| matches!(event, Event::Heard { peer: PEER, from: heard } if *heard == from));
    let roamed = node.events.count(|event| matches!(event, Event::Roamed { .. }));
    assert_eq!(roamed, usize::from(moved));
    (moved, heard)
}

#[test]
fn a_checking_probe_moves_nothing_but_is_answered_and_told() {
    assert_eq!(probe_from_elsewhere(ProbeKind::Check), (false, 1));
}

#[test]
fn an_answer_moves_nothing() {
    assert_eq!(probe_from_elsewhere(ProbeKind::Answer), (false, 1));
}

#[test]
fn a_nominating_probe_moves_the_path() {
    assert_eq!(probe_from_elsewhere(ProbeKind::Nominate), (true, 0));
}

#[test]
fn a_forged_or_replayed_probe_moves_nothing_and_is_not_told() {
    for kind in [ProbeKind::Check, ProbeKind::Nominate, ProbeKind::Answer] {
        let (mut peer, node) = raw_peer();
        let probe = peer.send(&Probe { kind, id: 5 }.encode());
        node.events.expect(|event| matches!(event, Event::FirstPacket { .. }).then_some(()));
        let elsewhere = socket();
        elsewhere.send_to(&probe, node.addr).unwrap();
        node.expect_drops(DropReason::Replay, 1);
        let mut forged = peer.seal(PacketKind::Data, &Probe { kind, id: 6 }.encode());
        forged[OVERHEAD] ^= 1;
        elsewhere.send_to(&forged, node.addr).unwrap();
        node.expect_drops(DropReason::Auth, 1);
        // What follows is dealt with after both of them.
        peer.send(&to_node());
        node.collect();
        assert_eq!(node.control.path(PEER), peer.socket.local_addr().ok());
        assert_eq!(node.events.count(|event| matches!(event, Event::Heard { .. } | Event::Roamed { .. })), 0);
        assert_silence(&elsewhere);
    }
}

#[test]
fn a_nominating_probe_that_was_overtaken_does_not_move_the_path() {
    let (mut peer, node) = raw_peer();
    let late = peer.seal(PacketKind::Data, &Probe { kind: ProbeKind::Nominate, id: 5 }.encode());
    peer.send(&to_node());
    node.collect();
    let elsewhere = socket();
    elsewhere.send_to(&late, node.addr).unwrap();
    receive_on(&elsewhere);
    assert_eq!(node.control.path(PEER), peer.socket.local_addr().ok());
}

#[test]
fn data_over_a_way_leaves_a_living_plain_path_alone_and_a_nomination_does_not() {
    let (mut peer, node) = raw_peer();
    let (relay, way) = (socket(), WayId(3));
    let course = Way::Relay { relay: relay.local_addr().unwrap(), out_channel: 1, in_channel: 2 };
    node.control.set_way(way, course).unwrap();
    let direct = peer.socket.local_addr().unwrap();
    peer.send(&to_node());
    node.collect();
    let through = |datagram: &[u8]| {
        let header = Channel::new(2).unwrap().header();
        relay.send_to(&[&header[..], datagram].concat(), node.addr).unwrap();
    };
    through(&peer.seal(PacketKind::Data, &to_node()));
    node.collect();
    node.events.expect(|event| matches!(event, Event::Heard { from, .. } if *from == way.address()).then_some(()));
    assert_eq!(node.control.path(PEER), Some(direct));
    through(&peer.seal(PacketKind::Data, &Probe { kind: ProbeKind::Nominate, id: 1 }.encode()));
    let moved = node.events.expect(|event| if let Event::Roamed { to, .. } = event { Some(*to) } else { None });
    assert_eq!((moved, node.control.path(PEER)), (way.address(), Some(way.address())));
    peer.send(&to_node());
    node.collect();
    eventually(|| node.control.path(PEER), |path| *path == Some(direct));
}

#[test]
fn the_control_side_learns_when_a_path_was_last_heard() {
    let (mut peer, node) = raw_peer();
    assert_eq!(node.control.path_heard(PEER), None);
    peer.send(&Probe { kind: ProbeKind::Check, id: 1 }.encode());
    peer.receive();
    let (from, first) = node.control.path_heard(PEER).unwrap();
    assert_eq!(Some(from), peer.socket.local_addr().ok());
    peer.send(&to_node());
    node.collect();
    eventually(|| node.control.path_heard(PEER).unwrap().1, |&heard| heard > first);
    node.control.set_path(PEER, socket().local_addr().unwrap());
    assert_eq!(node.control.path_heard(PEER), None, "nothing came from there yet");
}

#[test]
fn a_probe_to_another_address_leaves_the_path_and_is_as_long_as_asked() {
    let (mut peer, node) = raw_peer();
    node.control.activate_tx(SessionId(1));
    let elsewhere = socket();
    let to = elsewhere.local_addr().unwrap();
    for (id, kind, len, expected) in [
        (1, Sent::Check, 0, PROBE_LEN + OVERHEAD),
        (2, Sent::Nominate, 0, PROBE_LEN + OVERHEAD),
        (3, Sent::Check, 1200, 1200),
        (4, Sent::Check, 5, PROBE_LEN + OVERHEAD),
        (5, Sent::Check, 9000, 9000),
    ] {
        node.control.send_probe_to(PEER, id, to, kind, len).unwrap();
        let datagram = receive_on(&elsewhere);
        assert_eq!(datagram.len(), expected);
        let probe = Probe::decode(&peer.open(datagram).1).unwrap();
        let kind = if kind == Sent::Check { ProbeKind::Check } else { ProbeKind::Nominate };
        assert_eq!(probe, Probe { kind, id });
    }
    assert_eq!(node.control.path(PEER), peer.socket.local_addr().ok());
    assert_silence(&peer.socket);
    assert!(matches!(node.control.send_probe_to(PEER, 6, to, Sent::Check, 65_500), Err(SendError::TooLong)));
}

#[test]
fn no_path_leads_through_the_tunnel() {
    let (mut peer, node) = raw_peer();
    peer.send(&to_node());
    assert_eq!(node.collect(), plain(&to_node()));
    // Loopback is what these datagrams come by.
    let by = nix::net::if_::if_nametoindex("lo").unwrap();
    node.control.set_tunnel(by);
    let path = node.control.path(PEER);
    peer.socket = socket();
    peer.send(&to_node());
    peer.socket.send_to(&[0xc0; 1200], node.addr).unwrap();
    node.expect_drops(DropReason::Loop, 2);
    node.assert_nothing_collected();
    assert_eq!(node.control.path(PEER), path);
    node.control.set_tunnel(by + 1);
    peer.send(&to_node());
    assert_eq!(node.collect(), plain(&to_node()));
}
