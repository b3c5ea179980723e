// SPDX-License-Identifier: MIT OR Apache-2.0
//! Garbage on the UDP port: silence, each datagram counted, and the tunnel goes on.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use pqvpn_lab::topology::lan;

use crate::{
    proc::UdpCounters,
    relay::Relay,
    rig::{Node, Outer, PORT, Pair, ms_since, poll, usable},
    traffic::{Numbered, next, noise, udp},
};

/// Random datagrams sent.
const RANDOM: u64 = 100_000;
/// Mutated and replayed copies of real datagrams sent.
const MUTATED: u64 = 40_000;
/// Empty knocks: first packets of QUIC that hold nothing.
const KNOCKS: u64 = 2000;
/// The one kind of answer a stranger may get (RFC 9000 8.1.2).
const RETRY: &str = "retry";
/// Datagrams sent before their receipt is waited for, so that no buffer runs over unseen.
const BURST: u64 = 250;
/// Plain text that must not be seen on the wire.
const SECRET: &[u8] = b"nobody on the path may read this sentence";

#[test]
fn garbage_is_met_with_silence_and_counted_while_the_tunnel_goes_on() {
    if !usable() {
        return;
    }
    let (_switch, hosts) = lan(&["a", "b", "relay"]).unwrap();
    let [host_a, host_b, host_r] = &hosts[..] else { panic!("three hosts") };
    let (mut a, mut b) = (Node::new(&host_a.namespace, "a"), Node::new(&host_b.namespace, "b"));
    let at = |ip: std::net::Ipv4Addr, port| SocketAddr::new(ip.into(), port);
    a.configure(&[b.as_peer(Some(at(host_r.ipv4, 1000)))], "");
    // b cannot dial back through the relay's other face by itself; it does not have to.
    b.configure(&[a.as_peer(None)], "");
    let relay =
        Relay::start(&host_r.namespace, host_r.ipv4, (1000, 1001), at(host_a.ipv4, PORT), at(host_b.ipv4, PORT));
    b.start_up();
    a.start_up();
    a.meet(&b);
    b.wait("a verified peer", || Some(b.peer(&a).path?.remote).filter(|remote| *remote == at(host_r.ipv4, 1001)));
    secrets_stay_secret(&a, &b, &relay);

    let numbered = Numbered::start(&a.namespace, &b.namespace, b.v4.into(), Duration::from_millis(2), 200);
    let stranger = udp(&host_r.namespace, at(host_r.ipv4, 0));
    stranger.set_nonblocking(true).unwrap();
    let start = Instant::now();
    let (mut replies, before) = (Replies::default(), drops(&b));
    shower(&b, RANDOM, |number| {
        let datagram = random_datagram(number);
        stranger.send_to(&datagram, at(host_b.ipv4, PORT)).unwrap();
        replies.take(&stranger);
    });
    poll("the last datagram", || quiet(&b));
    replies.take(&stranger);
    let counted = report("random", RANDOM, &before, &drops(&b), start);
    eprintln!("FIGURE replies_to_garbage={} kinds={:?}", replies.count, replies.kinds);
    assert_eq!(replies.count, 0, "somebody was answered: {:?}", replies.kinds);
    // Each datagram once, but for those the kernel had no room for.
    let overflows = UdpCounters::of(&b.namespace).receive_overflows;
    assert!((RANDOM - overflows..=RANDOM).contains(&counted), "{counted} counted of {RANDOM}");
    knock(&b, &stranger, at(host_b.ipv4, PORT));

    let (before, start) = (drops(&b), Instant::now());
    let (seen_a, seen_b) = relay.captured();
    assert!(seen_a.tunnel.len() > 50 && seen_a.quic.len() > 2, "too little was captured");
    let samples: Vec<&Vec<u8>> =
        [&seen_a.tunnel, &seen_a.quic, &seen_b.tunnel, &seen_b.quic].into_iter().flatten().collect();
    shower(&b, MUTATED, |number| {
        let datagram = mutated(&samples, number);
        relay.inject_to_b(&datagram);
        if number % 8 == 0 {
            relay.inject_to_a(&datagram);
        }
    });
    poll("the last datagram", || quiet(&b));
    report("mutated", MUTATED, &before, &drops(&b), start);
    let after = drops(&b);
    for reason in ["auth", "replay", "no_session"] {
        assert!(after[reason] > before[reason], "{reason} was not counted: {after:?}");
    }

    let alive = numbered.echoed();
    poll("the tunnel after all that", || (numbered.echoed() > alive + 200).then_some(()));
    let tally = numbered.finish();
    eprintln!("FIGURE tunnel_beside_garbage sent={} lost={}", tally.sent, tally.lost_there() + tally.lost_back());
    assert_eq!(tally.far.duplicates + tally.near.duplicates, 0, "a replayed packet was taken");
    assert_eq!((a.sessions_made(), b.sessions_made()), (1, 1), "the session was lost");
    assert!(b.daemon().exited().unwrap().is_none() && a.ping(&b).is_ok());
}

/// Well-formed first packets of QUIC with noise inside: at most a Retry comes back, and less of it than was sent.
fn knock(b: &Node, stranger: &UdpSocket, target: SocketAddr) {
    let mut replies = Replies::default();
    shower(b, KNOCKS, |number| {
        // Initial, version 1, connection ids of 8 bytes, no token, and a length of the rest (RFC 9000 17.2.2).
        let mut datagram = noise(number, 1200);
        datagram[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 8]);
        datagram[14] = 8;
        datagram[23] = 0;
        datagram[24..26].copy_from_slice(&(0x4000_u16 | (1200 - 26)).to_be_bytes());
        stranger.send_to(&datagram, target).unwrap();
        replies.take(stranger);
    });
    poll("the last knock", || quiet(b));
    replies.take(stranger);
    eprintln!("FIGURE knocks={KNOCKS} replies={} bytes={} kinds={:?}", replies.count, replies.bytes, replies.kinds);
    let unexpected = replies.kinds.keys().any(|kind| *kind != RETRY);
    assert!(!unexpected && replies.bytes < KNOCKS * 1200, "{:?}", replies.kinds);
}

/// Underlay datagrams that come out of the tunnel could lead a path into it, and packets round for ever.
#[test]
fn what_comes_to_the_sockets_through_the_tunnel_is_dropped() {
    if !usable() {
        return;
    }
    let pair = Pair::met(Outer::V4);
    for (to, from) in [(pair.b.v4.into(), pair.a.v4.into()), (pair.b.v6.into(), pair.a.v6.into())] {
        let before = pair.b.dropped("loop");
        let socket = udp(&pair.a.namespace, SocketAddr::new(from, 0));
        socket.send_to(&[0xc0; 600], SocketAddr::new(to, PORT)).unwrap();
        poll("a drop", || (pair.b.dropped("loop") == before + 1).then_some(()));
    }
    pair.a.meet(&pair.b);
}

/// What goes through the tunnel is not seen on the wire.
fn secrets_stay_secret(a: &Node, b: &Node, relay: &Relay) {
    let server = udp(&b.namespace, SocketAddr::new(b.v4.into(), 0));
    let client = udp(&a.namespace, SocketAddr::new(a.v4.into(), 0));
    for _ in 0..60 {
        client.send_to(SECRET, server.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 128];
        let (len, _) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], SECRET);
    }
    let (seen, _) = relay.captured();
    assert!(seen.tunnel.len() >= 60, "{} datagrams on the wire", seen.tunnel.len());
    let address = a.v4.octets();
    for datagram in &seen.tunnel {
        assert!(!datagram.windows(SECRET.len()).any(|window| window == SECRET), "plain text on the wire");
        let clear_header = datagram.windows(8).any(|window| window[..4] == address && window[4..] == b.v4.octets());
        assert!(!clear_header, "an inner header on the wire");
    }
}

/// Sends `count` datagrams in bursts, each read by the daemon before the next.
fn shower(target: &Node, count: u64, mut send: impl FnMut(u64)) {
    let mut number = 0;
    while number < count {
        let base = UdpCounters::of(&target.namespace);
        let burst = BURST.min(count - number);
        for _ in 0..burst {
            send(number);
            number += 1;
        }
        poll("the daemon to read them", || {
            let now = UdpCounters::of(&target.namespace);
            let arrived = now.received + now.receive_overflows - base.received - base.receive_overflows;
            (arrived >= burst).then_some(())
        });
    }
}

/// Whether the daemon's counters stand still but for the flow beside.
fn quiet(node: &Node) -> Option<()> {
    let (one, two) = (drops(node), drops(node));
    (one == two).then_some(())
}

fn drops(node: &Node) -> BTreeMap<String, u64> {
    node.status().drops
}

/// Shows what was counted since `before`; returns how many datagrams.
fn report(what: &str, sent: u64, before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, start: Instant) -> u64 {
    let new = after.iter().map(|(reason, count)| (reason, count - before.get(reason).unwrap_or(&0)));
    let new: Vec<_> = new.filter(|(_, count)| *count > 0).collect();
    let counted: u64 = new.iter().map(|(_, count)| count).sum();
    eprintln!("FIGURE {what} sent={sent} counted={counted} in {:.0} ms: {new:?}", ms_since(start));
    counted
}

/// Nothing but noise, of every length; some longer than any path's MTU.
fn random_datagram(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_add(0xbad) | 1;
    let len = match number % 100 {
        0 => next(&mut state) % 20_000,
        1..=20 => number % 64,
        _ => next(&mut state) % 1473,
    };
    noise(number.wrapping_add(77), usize::try_from(len).unwrap())
}

/// A real datagram with bits flipped, cut, extended, under another first byte, or just once more.
fn mutated(samples: &[&Vec<u8>], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(31).wrapping_add(5) | 1;
    let mut pick = |below: usize| usize::try_from(next(&mut state)).unwrap() % below.max(1);
    let mut datagram = samples[pick(samples.len())].clone();
    match number % 8 {
        0 => {}
        1 => datagram.truncate(pick(datagram.len())),
        2 => datagram.extend(noise(number, pick(100))),
        3 => datagram[0] = u8::try_from(pick(256)).unwrap(),
        4 => {
            let at = pick(datagram.len().min(20));
            datagram[at] ^= 1 << pick(8);
        }
        5 => {
            let other = samples[pick(samples.len())];
            let at = pick(datagram.len().min(other.len()));
            datagram.truncate(at);
            datagram.extend(&other[at..]);
        }
        _ => {
            for _ in 0..=pick(4) {
                let at = pick(datagram.len());
                datagram[at] ^= 1 << pick(8);
            }
        }
    }
    datagram
}

/// What came back to somebody the daemon does not know.
#[derive(Debug, Default)]
struct Replies {
    count: u64,
    bytes: u64,
    kinds: BTreeMap<&'static str, u64>,
}

impl Replies {
    fn take(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; 2048];
        while let Ok((len, _)) = socket.recv_from(&mut buffer) {
            self.count += 1;
            self.bytes += len as u64;
            let kind = match &buffer[..len] {
                [first, 0, 0, 0, 0, ..] if first & 0x80 != 0 => "version negotiation",
                [first, ..] if first & 0xf0 == 0xf0 => RETRY,
                [first, ..] if first & 0xc0 == 0xc0 => "another long header",
                [first, ..] if first & 0xc0 == 0x40 => "short header (stateless reset)",
                _ => "something else",
            };
            *self.kinds.entry(kind).or_default() += 1;
        }
    }
}
