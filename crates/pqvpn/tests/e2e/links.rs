// SPDX-License-Identifier: MIT OR Apache-2.0
//! The underlay misbehaves: addresses change, packets get lost, both ends dial at once, a peer lies about its source.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pqvpn_api::model::PeerState;
use pqvpn_lab::{
    impair::{Direction, random_loss},
    netns::Namespace,
    process::run,
    topology::{Host, Interface, add_route, remove_route, veth},
};

use crate::{
    rig::{LIMIT, Node, Outer, PORT, Pair, TUN, has, ms_since, poll, tail, usable},
    traffic::{Numbered, tcp_transfer, udp},
};

/// Rounds of both ends dialing at once.
const ROUNDS: u32 = 20;

#[test]
fn a_session_survives_a_change_of_address() {
    if !usable() {
        return;
    }
    let pair = Pair::met(Outer::V4);
    let (a, b) = (&pair.a, &pair.b);
    let handshakes = |node: &Node, peer: &Node| node.peer(peer).session.unwrap().handshake_ms;
    let before = (handshakes(a, b), handshakes(b, a));
    let numbered = Numbered::start(&a.namespace, &b.namespace, b.v4.into(), Duration::from_millis(1), 200);
    poll("echoes", || (numbered.echoed() > 200).then_some(()));

    let old = IpNet::V4(Ipv4Net::new_assert(pair.host_a.ipv4, 24));
    for last in [11, 12] {
        let new = Ipv4Addr::new(203, 0, 113, last);
        let current = if last == 11 { old } else { IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 11), 24)) };
        let changed = Instant::now();
        pair.host_a.interface.remove_address(current).unwrap();
        pair.host_a.interface.add_address(IpNet::V4(Ipv4Net::new_assert(new, 24))).unwrap();
        let (mark, sent) = (numbered.echoed(), numbered.sent());
        poll("echoes from the new address", || (numbered.echoed() > mark + 100).then_some(()));
        let expected = SocketAddr::new(new.into(), PORT);
        b.wait("the new remote", || (b.peer(a).path?.remote == expected).then_some(()));
        eprintln!(
            "FIGURE roamed_ms={:.0} to {expected} (100 echoes later; {sent} were sent before)",
            ms_since(changed)
        );
    }
    let tally = numbered.finish();
    eprintln!(
        "FIGURE roaming sent={} refused={} lost_there={} lost_back={} longest_gap_ms there={:.1} back={:.1}",
        tally.sent,
        tally.refused,
        tally.lost_there(),
        tally.lost_back(),
        tally.far.longest_gap.as_secs_f64() * 1000.0,
        tally.near.longest_gap.as_secs_f64() * 1000.0
    );
    // The same session: the same handshake, and only one was ever made.
    let same = (handshakes(a, b), handshakes(b, a)) == before;
    assert!(same && a.sessions_made() == 1 && b.sessions_made() == 1, "{}", tail(&b.daemon().stderr()));
    // The link below roamed as well: a ratchet step still passes, whoever asks.
    for (step, (asking, other)) in (1..).zip(pair.both()) {
        asking.rekey(other).unwrap();
        for (node, peer) in pair.both() {
            node.wait("a ratchet step after roaming", || (node.epoch(peer)? >= step).then_some(()));
        }
    }
    assert_eq!((a.sessions_made(), b.sessions_made()), (1, 1));
}

/// A cable is put in while the Wi-Fi stays: what leaves by the cable with the Wi-Fi's address is let pass by nobody.
#[test]
fn a_session_goes_on_when_the_way_out_moves_and_the_old_address_stays() {
    if !usable() {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    let everywhere = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
    let wifi_router = IpAddr::V4(pair.host_b.ipv4);
    add_route(&pair.a.namespace, everywhere, wifi_router).unwrap();
    // Strict reverse paths, as a router has them (RFC 3704 §2.2): the larger of the two settings counts.
    pair.b.namespace.sysctl("net.ipv4.conf.all.rp_filter", "1").unwrap();
    pair.a.start_up();
    pair.b.start_up();
    let (a, b) = (&pair.a, &pair.b);
    a.meet(b);
    let numbered = Numbered::start(&a.namespace, &b.namespace, b.v4.into(), Duration::from_millis(1), 200);
    poll("echoes", || (numbered.echoed() > 200).then_some(()));

    let (cable, cable_router) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
    let (near, far) = veth((&a.namespace, "eth1"), (&b.namespace, "eth1")).unwrap();
    for (end, address) in [(near, cable), (far, cable_router)] {
        end.add_address(IpNet::V4(Ipv4Net::new_assert(address, 24))).unwrap();
    }
    // Whoever brings a cable up asks its router something first, and knows the neighbour by then.
    let at = |namespace: &Namespace, address| namespace.run(move || UdpSocket::bind((address, 9)).unwrap()).unwrap();
    let (asking, asked) = (at(&a.namespace, cable), at(&b.namespace, cable_router));
    asked.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    poll("the cable", || {
        asking.send_to(&[0], (cable_router, 9)).ok()?;
        asked.recv(&mut [0]).ok()
    });
    let to_b = IpNet::V4(Ipv4Net::new_assert(pair.host_b.ipv4, 32));
    add_route(&a.namespace, to_b, cable_router.into()).unwrap();
    remove_route(&a.namespace, everywhere, wifi_router).unwrap();
    add_route(&a.namespace, everywhere, cable_router.into()).unwrap();
    let mark = numbered.echoed();
    poll("echoes by the cable", || (numbered.echoed() > mark + 100).then_some(()));
    let by_cable = SocketAddr::new(cable.into(), PORT);
    b.wait("the new remote", || (b.peer(a).path?.remote == by_cable).then_some(()));
    let tally = numbered.finish();
    eprintln!("FIGURE way_out_moved lost_there={} lost_back={}", tally.lost_there(), tally.lost_back());
    assert_eq!((a.sessions_made(), b.sessions_made()), (1, 1), "{}", tail(&b.daemon().stderr()));
}

#[test]
fn a_lossy_underlay_carries_a_session_and_tcp() {
    if !usable() || !has("nft") {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    for host in [&pair.host_a, &pair.host_b] {
        cut_before_the_wire(host);
    }
    let _there = random_loss(&pair.host_b.interface, Direction::In, 50).unwrap();
    let _back = random_loss(&pair.host_a.interface, Direction::In, 50).unwrap();
    pair.a.start_up();
    pair.b.start_up();
    let start = Instant::now();
    // A ping is one probe, which may be lost; the session is not.
    let ping = || pair.a.ask(async |client| client.ping(&pair.b.id, Duration::from_secs(2)).await);
    let up = poll("a session over a lossy underlay", || ping().ok().map(|_| ms_since(start)));
    eprintln!("FIGURE lossy_first_ping_ms={up:.0} at 5 % loss each way");
    let rate = tcp_transfer(&pair.a.namespace, &pair.b.namespace, pair.b.v4.into(), 8 << 20);
    eprintln!("FIGURE lossy_tcp_mbit_s={rate:.1} at 5 % loss each way");
    assert!(pair.a.rekey(&pair.b).is_ok());
    for (node, peer) in pair.both() {
        node.wait("a ratchet step over a lossy underlay", || (node.epoch(peer)? >= 1).then_some(()));
    }
}

/// Makes the kernel cut super-packets before they cross the veth, so that loss strikes single packets.
fn cut_before_the_wire(host: &Host) {
    if !has("ip") {
        return;
    }
    let mut command = Command::new("ip");
    command.args(["link", "set", "dev", host.interface.name(), "gso_max_segs", "1"]);
    let set = run(&host.namespace, command, LIMIT).unwrap();
    assert!(set.status.success(), "{}", set.stderr);
}

#[test]
fn both_ends_dialing_at_once_end_with_one_session() {
    if !usable() {
        return;
    }
    let pair = Pair::met(Outer::V4);
    let (a, b) = (&pair.a, &pair.b);
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        // Down and up again, because a session that ends young holds the next dial back.
        for (node, _) in pair.both() {
            node.ask(async |client| client.down().await).unwrap();
        }
        for (node, _) in pair.both() {
            node.ask(async |client| client.up().await).unwrap();
        }
        let barrier = Barrier::new(2);
        let start = Instant::now();
        let answers = thread::scope(|scope| {
            pair.both()
                .map(|(node, peer)| {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        barrier.wait();
                        node.ping(peer)
                    })
                })
                .map(|end| end.join().unwrap())
        });
        slowest = slowest.max(start.elapsed());
        for (answer, (node, _)) in answers.iter().zip(pair.both()) {
            assert!(answer.is_ok(), "round {round} at {}: {answer:?}\n{}", node.name, tail(&node.daemon().stderr()));
        }
        // One session: a step asked for here is seen there.
        let (asking, other) = if round % 2 == 0 { (a, b) } else { (b, a) };
        poll("a common epoch", || {
            let ours = asking.epoch(other)?;
            if ours == 0 {
                // A session that has just gone says so.
                _ = asking.rekey(other);
                return None;
            }
            (ours >= 1 && other.epoch(asking) == Some(ours)).then_some(())
        });
        assert!(a.ping(b).is_ok() && b.ping(a).is_ok());
    }
    for (node, peer) in pair.both() {
        assert_eq!(node.peer(peer).state, PeerState::Verified);
        eprintln!("{} made {} sessions in {ROUNDS} rounds", node.name, node.sessions_made());
    }
    eprintln!("FIGURE simultaneous_dial slowest_round_ms={:.0} of {ROUNDS}", slowest.as_secs_f64() * 1000.0);
}

#[test]
fn a_foreign_inner_source_is_dropped_and_counted() {
    if !usable() {
        return;
    }
    let pair = Pair::met(Outer::V4);
    let (a, b) = (&pair.a, &pair.b);
    let tun = Interface::find(&a.namespace, TUN).unwrap();
    let liar4 = Ipv4Addr::new(10, 100, 250, 250);
    let liar6 = std::net::Ipv6Addr::from(u128::from(a.v6) ^ 0xff);
    tun.add_address(IpNet::V4(Ipv4Net::new_assert(liar4, 32))).unwrap();
    tun.add_address(IpNet::V6(Ipv6Net::new_assert(liar6, 128))).unwrap();
    let cases: [(IpAddr, IpAddr, IpAddr); 2] =
        [(a.v4.into(), liar4.into(), b.v4.into()), (a.v6.into(), liar6.into(), b.v6.into())];
    for (honest, liar, target) in cases {
        let server = udp(&b.namespace, SocketAddr::new(target, 0));
        let to = server.local_addr().unwrap();
        let before = b.dropped("spoof");
        let lying = udp(&a.namespace, SocketAddr::new(liar, 0));
        for _ in 0..10 {
            lying.send_to(b"not mine", to).unwrap();
        }
        b.wait("counted spoofs", || (b.dropped("spoof") == before + 10).then_some(()));
        // What is honest passes, and is the first to arrive.
        udp(&a.namespace, SocketAddr::new(honest, 0)).send_to(b"mine", to).unwrap();
        let mut buffer = [0; 64];
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], from.ip()), (&b"mine"[..], honest));
    }
    assert_eq!(b.dropped("spoof"), 20);
}
