// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks are kept apart: what comes out of one goes neither into another one nor to what lies behind the host.

use ipnet::IpNet;
use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::{DropReason, RealmSet};

use crate::{
    harness::{Keys, Node, PEER, assert_silence, connected, raw_peer},
    packets::{EXPERIMENT, ip, payload, plain},
};

/// The other end and this node, in the pinned realm and in two networks.
const OTHER: [[&str; 2]; 3] = [["10.9.0.1", "fd09::1"], ["10.1.0.1", "fd01::1"], ["10.2.0.1", "fd02::1"]];
const OURS: [[&str; 2]; 3] = [["10.9.0.2", "fd09::2"], ["10.1.0.2", "fd01::2"], ["10.2.0.2", "fd02::2"]];

fn realm(number: usize) -> RealmSet {
    RealmSet::only(number).unwrap()
}

/// Routes everything of the other end to it, and says which realm each address is of.
fn route(node: &Node, other: &[[&str; 2]; 3], realms_of_other: &[usize]) {
    let address = |text: &str| IpNet::from(text.parse::<std::net::IpAddr>().unwrap());
    let routes = realms_of_other.iter().flat_map(|&number| other[number]).map(|text| (address(text), PEER)).collect();
    let both = OTHER.iter().zip(&OURS).enumerate();
    let hosts = both.flat_map(|(number, (a, b))| a.iter().chain(b).map(move |text| (address(text), realm(number))));
    let pools = ["10.1.0.0/16", "fd01::/48", "10.2.0.0/16", "fd02::/48"].into_iter().zip([1, 1, 2, 2]);
    let pools = pools.map(|(net, number)| (net.parse().unwrap(), realm(number)));
    node.control.set_routes_in_realms(routes, hosts.chain(pools).collect());
}

fn packet(from: &str, to: &str, seed: usize) -> Vec<u8> {
    ip(from, to, EXPERIMENT, &payload(40, seed))
}

/// Every way from one realm into another, in both families.
fn crossing(from: &[[&'static str; 2]], to: &[[&'static str; 2]]) -> Vec<(&'static str, &'static str)> {
    let ways = from.iter().enumerate().flat_map(|(here, from)| {
        let others = to.iter().enumerate().filter(move |(there, _)| *there != here);
        others.flat_map(move |(_, to)| from.iter().copied().zip(to.iter().copied()))
    });
    ways.collect()
}

#[test]
fn packets_inside_each_realm_pass_both_ways() {
    let (a, b) = connected();
    route(&a, &OURS, &[0, 1, 2]);
    route(&b, &OTHER, &[0, 1, 2]);
    for number in 0..3 {
        for family in 0..2 {
            let there = packet(OTHER[number][family], OURS[number][family], number);
            assert!(a.tun.inject(&plain(&there)));
            assert_eq!(b.collect(), plain(&there));
            let back = packet(OURS[number][family], OTHER[number][family], number);
            assert!(b.tun.inject(&plain(&back)));
            assert_eq!(a.collect(), plain(&back));
        }
    }
    assert_eq!(a.control.drops().total() + b.control.drops().total(), 0);
}

#[test]
fn a_packet_of_one_network_to_an_address_of_another_is_dropped_on_its_way_in() {
    let (mut peer, node) = raw_peer();
    route(&node, &OTHER, &[0, 1, 2]);
    for (from, to) in crossing(&OTHER, &OURS) {
        peer.send(&packet(from, to, 1));
    }
    let crossing = 12;
    node.expect_drops(DropReason::Realm, crossing);
    // Between two that pass: what was found of the packet before does not count for this one.
    for to in [1, 2, 1] {
        peer.send(&packet(OTHER[1][0], OURS[to][0], to));
    }
    assert_eq!(node.collect(), plain(&packet(OTHER[1][0], OURS[1][0], 1)));
    assert_eq!(node.collect(), plain(&packet(OTHER[1][0], OURS[1][0], 1)));
    node.expect_drops(DropReason::Realm, crossing + 1);
    node.assert_nothing_collected();
    assert_silence(&peer.socket);
}

#[test]
fn what_was_found_of_one_packet_of_a_batch_does_not_count_for_the_next() {
    let (a, b) = connected();
    // The other end does not keep to the realms: all of it arrives as one batch of one session.
    let ours = OURS.iter().flatten().map(|text| (text.parse::<std::net::IpAddr>().unwrap().into(), PEER));
    a.control.set_routes(ours.collect());
    route(&b, &OTHER, &[0, 1, 2]);
    let pairs = [(1, 1), (2, 1), (1, 1), (1, 2), (2, 2), (2, 1), (1, 2), (1, 1)];
    let packets: Vec<_> = pairs.map(|(from, to)| packet(OTHER[from][0], OURS[to][0], from * 3 + to)).into();
    assert!(a.tun.inject_all(packets.iter().map(|packet| plain(packet))));
    for at in [0, 2, 4, 7] {
        assert_eq!(b.collect(), plain(&packets[at]));
    }
    b.expect_drops(DropReason::Realm, 4);
    b.assert_nothing_collected();
}

#[test]
fn a_member_does_not_reach_a_network_it_is_not_in_nor_what_is_behind_the_host() {
    let (mut peer, node) = raw_peer();
    route(&node, &OTHER, &[1]);
    for to in ["10.2.0.2", "10.9.0.2", "192.168.1.1", "8.8.8.8"] {
        peer.send(&packet("10.1.0.1", to, 1));
    }
    for to in ["fd02::2", "fd09::2", "2600::1"] {
        peer.send(&packet("fd01::1", to, 1));
    }
    node.expect_drops(DropReason::Realm, 7);
    peer.send(&packet("10.2.0.1", "10.2.0.2", 1));
    node.expect_drops(DropReason::Spoof, 1);
    let honest = packet("10.1.0.1", "10.1.0.2", 1);
    peer.send(&honest);
    assert_eq!(node.collect(), plain(&honest));
    node.assert_nothing_collected();
}

#[test]
fn a_pinned_peer_reaches_what_is_behind_the_host_but_no_network() {
    let (mut peer, node) = raw_peer();
    route(&node, &OTHER, &[0]);
    let behind = packet("10.9.0.1", "192.168.1.1", 1);
    peer.send(&behind);
    assert_eq!(node.collect(), plain(&behind));
    peer.send(&packet("10.9.0.1", "10.1.77.7", 1));
    node.expect_drops(DropReason::Realm, 1);
}

#[test]
fn a_packet_of_one_network_to_an_address_of_another_is_dropped_on_its_way_out() {
    let (mut peer, node) = raw_peer();
    route(&node, &OTHER, &[0, 1, 2]);
    node.control.activate_tx(pqvpn_dataplane::SessionId(1));
    for (from, to) in crossing(&OURS, &OTHER) {
        assert!(node.tun.inject(&plain(&packet(from, to, 1))));
    }
    let crossing = 12;
    assert!(node.tun.inject(&plain(&packet("192.168.1.1", OTHER[1][0], 1))), "forwarded by this host");
    node.expect_drops(DropReason::Realm, crossing + 1);
    // To one destination from two sources: what was found of the packet before does not count for this one.
    for from in [1, 2, 1] {
        assert!(node.tun.inject(&plain(&packet(OURS[from][0], OTHER[1][0], from))));
    }
    for _ in 0..2 {
        let (_, inner) = peer.receive();
        assert_eq!(inner[..40], packet(OURS[1][0], OTHER[1][0], 1)[..40]);
    }
    node.expect_drops(DropReason::Realm, crossing + 2);
    assert_silence(&peer.socket);
}

#[test]
fn without_realms_everything_may_speak_with_everything() {
    let (mut peer, node) = raw_peer();
    route(&node, &OTHER, &[0, 1, 2]);
    let nets = OTHER.iter().flatten().map(|text| (text.parse::<std::net::IpAddr>().unwrap().into(), PEER));
    node.control.set_routes(nets.collect());
    let crossing = packet(OTHER[1][0], OURS[2][0], 1);
    peer.send(&crossing);
    assert_eq!(node.collect(), plain(&crossing));
}

#[test]
fn a_peer_that_was_removed_opens_and_seals_nothing_any_more() {
    let (a, b) = connected();
    let there = packet("10.9.0.1", "10.9.0.2", 1);
    assert!(a.tun.inject(&plain(&there)));
    assert_eq!(b.collect(), plain(&there));
    b.control.remove_peer(PEER);
    for _ in 0..100 {
        assert!(a.tun.inject(&plain(&there)));
    }
    b.expect_drops(DropReason::NoSession, 100);
    b.assert_nothing_collected();
    assert!(b.tun.inject(&plain(&packet("10.9.0.2", "10.9.0.1", 1))));
    b.expect_drops(DropReason::NoRoute, 1);
    // Back under a slot of its own it is a peer like any other.
    b.route_to(Role::Initiator);
    let keys = Keys::new(2);
    a.install(2, keys.initiator, Role::Initiator, b.addr, true);
    b.install(2, keys.responder, Role::Responder, a.addr, true);
    assert!(a.tun.inject(&plain(&there)));
    assert_eq!(b.collect(), plain(&there));
}
