// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets added while the plane runs: what comes on one leaves by it.

use std::net::{SocketAddr, UdpSocket};

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::{
    DropReason, Event, GuestTransmit, ProbeKind as Sent, SendError, SessionId, SessionInstall, SocketId,
};
use pqvpn_packet::{
    header::PacketKind,
    inner::{Probe, ProbeKind},
};

use crate::{
    harness::{Keys, Node, PEER, RawPeer, assert_silence, eventually, indices, raw_peer, socket},
    packets::{EXPERIMENT, ip, payload, plain},
};

fn to_node() -> Vec<u8> {
    ip("10.9.0.1", "10.9.0.2", EXPERIMENT, &payload(40, 1))
}

fn from_node() -> Vec<u8> {
    ip("10.9.0.2", "10.9.0.1", EXPERIMENT, &payload(40, 2))
}

fn add(node: &Node) -> (SocketId, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    (node.control.add_socket(socket).unwrap(), addr)
}

/// The next datagram and the node's address that it came from.
fn receive_from(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buf = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buf).unwrap();
    buf.truncate(len);
    (buf, from)
}

/// A peer whose first packet came on an added socket.
fn on_an_added_socket() -> (RawPeer, Node, SocketId, SocketAddr) {
    let (mut peer, node) = raw_peer();
    let (id, addr) = add(&node);
    let datagram = peer.seal(PacketKind::Data, &to_node());
    peer.socket.send_to(&datagram, addr).unwrap();
    assert_eq!(node.collect(), plain(&to_node()));
    (peer, node, id, addr)
}

#[test]
fn data_probes_and_quic_leave_by_the_socket_the_peer_came_on() {
    let (mut peer, node, id, addr) = on_an_added_socket();
    let remote = peer.socket.local_addr().unwrap();
    eventually(|| node.control.socket_towards(remote), |&socket| socket == Some(id));
    node.tun.inject(&plain(&from_node()));
    let (datagram, from) = receive_from(&peer.socket);
    assert_eq!((peer.open(datagram).1, from), (from_node(), addr));
    node.control.send_probe(PEER, 1).unwrap();
    assert_eq!(receive_from(&peer.socket).1, addr);
    let contents = [0x41; 300];
    let transmit = GuestTransmit { dst: remote, src_ip: None, ecn: None, contents: &contents, segment_size: Some(100) };
    node.guest.try_send(&transmit).unwrap();
    for _ in 0..3 {
        assert_eq!(receive_from(&peer.socket), (vec![0x41; 100], addr));
    }
    assert_eq!(node.guest.socket_for(remote), None);
    assert_eq!(node.events.count(|event| matches!(event, Event::Roamed { .. })), 0, "the peer is where it was");
}

#[test]
fn what_comes_by_the_first_sockets_again_leaves_by_them() {
    let (mut peer, node, ..) = on_an_added_socket();
    let remote = peer.socket.local_addr().unwrap();
    peer.send(&to_node());
    node.collect();
    eventually(|| node.control.socket_towards(remote), Option::is_none);
    node.tun.inject(&plain(&from_node()));
    assert_eq!(receive_from(&peer.socket).1, node.addr);
}

/// Another peer whose packets come from the address of this one and go to `to`.
fn forger_of(peer: &RawPeer, node: &Node, to: SocketAddr) -> RawPeer {
    let Keys { initiator, responder } = Keys::new(2);
    node.control
        .install_session(SessionInstall {
            id: SessionId(2),
            peer: PEER + 1,
            tx: responder.tx,
            rx: responder.rx,
            local_indices: indices(2, Role::Responder),
            remote_indices: indices(2, Role::Initiator),
            path: socket().local_addr().unwrap(),
            tx_active: false,
        })
        .unwrap();
    let socket = peer.socket.try_clone().unwrap();
    RawPeer { tx: initiator.tx, rx: initiator.rx, socket, id: 2, to }
}

#[test]
fn a_peer_that_forges_the_address_of_another_gives_it_a_socket_for_a_moment_only() {
    let (mut peer, node) = raw_peer();
    peer.send(&to_node());
    node.collect();
    let (id, addr) = add(&node);
    let remote = peer.socket.local_addr().unwrap();
    forger_of(&peer, &node, addr).send(&to_node());
    eventually(|| node.control.socket_towards(remote), |&socket| socket == Some(id));
    peer.send(&to_node());
    eventually(|| node.control.socket_towards(remote), Option::is_none);
    node.tun.inject(&plain(&from_node()));
    assert_eq!(receive_from(&peer.socket).1, node.addr);
}

#[test]
fn who_asks_much_is_not_always_answered() {
    let (mut peer, node) = raw_peer();
    let probe = Probe { kind: ProbeKind::Check, id: 3 }.encode();
    peer.socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    // One by one, so that no flood in one run hides it.
    let answered = (0..5000).take_while(|_| {
        peer.send(&probe);
        peer.socket.recv(&mut [0; 2000]).is_ok()
    });
    let answered = answered.count();
    assert!((512..5000).contains(&answered), "{answered}");
    assert!(node.control.drops().get(DropReason::RateLimited) > 0);
}

#[test]
fn a_peer_that_forges_the_address_of_another_takes_its_socket_away_for_a_moment_only() {
    let (mut peer, node, id, addr) = on_an_added_socket();
    let remote = peer.socket.local_addr().unwrap();
    eventually(|| node.control.socket_towards(remote), |&socket| socket == Some(id));
    forger_of(&peer, &node, node.addr).send(&to_node());
    eventually(|| node.control.socket_towards(remote), Option::is_none);
    let datagram = peer.seal(PacketKind::Data, &to_node());
    peer.socket.send_to(&datagram, addr).unwrap();
    assert_eq!(node.collect(), plain(&to_node()));
    eventually(|| node.control.socket_towards(remote), |&socket| socket == Some(id));
    node.tun.inject(&plain(&from_node()));
    assert_eq!(receive_from(&peer.socket).1, addr);
}

#[test]
fn a_removed_socket_is_closed_and_the_others_take_over() {
    let (peer, node, id, addr) = on_an_added_socket();
    assert!(node.control.remove_socket(id) && !node.control.remove_socket(id));
    assert_eq!(node.control.socket_towards(peer.socket.local_addr().unwrap()), None);
    node.tun.inject(&plain(&from_node()));
    assert_eq!(receive_from(&peer.socket).1, node.addr);
    eventually(|| UdpSocket::bind(addr).is_ok(), |&closed| closed);
    assert!(matches!(node.control.send_probe_from(id, PEER, 1, addr, Sent::Check, 0), Err(SendError::Io(_))));
}

#[test]
fn a_probe_by_a_named_socket_is_answered_to_it() {
    let (mut peer, node) = raw_peer();
    node.control.activate_tx(SessionId(1));
    let remote = peer.socket.local_addr().unwrap();
    let (id, addr) = add(&node);
    node.control.send_probe_from(id, PEER, 9, remote, Sent::Check, 0).unwrap();
    let (datagram, from) = receive_from(&peer.socket);
    assert_eq!(from, addr);
    let probe = Probe::decode(&peer.open(datagram).1).unwrap();
    assert_eq!(probe, Probe { kind: ProbeKind::Check, id: 9 });
    let answer = peer.seal(PacketKind::Data, &probe.answer().encode());
    peer.socket.send_to(&answer, from).unwrap();
    node.events.expect(|event| matches!(event, Event::ProbeAck { id: 9, .. }).then_some(()));
    assert_eq!(node.control.socket_towards(remote), Some(id));
}

#[test]
fn a_check_on_an_added_socket_is_answered_from_there() {
    let (mut peer, node) = raw_peer();
    peer.send(&to_node());
    node.collect();
    let (id, addr) = add(&node);
    let elsewhere = socket();
    let check = peer.seal(PacketKind::Data, &Probe { kind: ProbeKind::Check, id: 3 }.encode());
    elsewhere.send_to(&check, addr).unwrap();
    assert_eq!(receive_from(&elsewhere).1, addr);
    assert_eq!(node.control.socket_towards(elsewhere.local_addr().unwrap()), Some(id));
    assert_eq!(node.control.path(PEER), peer.socket.local_addr().ok());
}

#[test]
fn what_does_not_authenticate_binds_nothing_to_a_socket() {
    let (mut peer, node) = raw_peer();
    let (_, addr) = add(&node);
    let sent = peer.send(&to_node());
    node.collect();
    peer.socket.send_to(&sent, addr).unwrap();
    node.expect_drops(DropReason::Replay, 1);
    let mut forged = peer.seal(PacketKind::Data, &to_node());
    forged[20] ^= 1;
    peer.socket.send_to(&forged, addr).unwrap();
    node.expect_drops(DropReason::Auth, 1);
    peer.socket.send_to(&[0x41; 100], addr).unwrap();
    assert_eq!(crate::guest::receive(&node.guest).0, [0x41; 100]);
    assert_eq!(node.control.socket_towards(peer.socket.local_addr().unwrap()), None);
    node.tun.inject(&plain(&from_node()));
    assert_eq!(receive_from(&peer.socket).1, node.addr);
}

#[test]
fn many_sockets_are_received_on_at_once_and_their_number_is_bounded() {
    let (mut peer, node) = raw_peer();
    let added: Vec<_> = (0..512).map(|_| add(&node)).collect();
    let more = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(node.control.add_socket(more).unwrap_err().kind(), std::io::ErrorKind::QuotaExceeded);
    for at in [0, 30, 31, 137, 511] {
        let datagram = peer.seal(PacketKind::Data, &to_node());
        peer.socket.send_to(&datagram, added[at].1).unwrap();
        assert_eq!(node.collect(), plain(&to_node()));
    }
    for (id, _) in &added[..511] {
        assert!(node.control.remove_socket(*id));
    }
    node.tun.inject(&plain(&from_node()));
    assert_eq!(receive_from(&peer.socket).1, added[511].1);
    peer.send(&to_node());
    node.collect();
    assert_silence(&peer.socket);
}
