// SPDX-License-Identifier: MIT OR Apache-2.0
//! Impairments bite while they are held, and only then.

use super::*;
use crate::netns::tests::namespace;
use crate::process::wait_until;
use crate::topology::tests::{reaches, reaches_with};
use crate::topology::{Host, Interface, Internet, internet, pair};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// How long nothing has to arrive for "lost". Too short could only make the test pass wrongly, never fail.
const SILENCE: Duration = Duration::from_millis(300);

fn hosts() -> Option<(Host, Host)> {
    namespace("probe")?;
    Some(pair("one", "two").unwrap())
}

/// Unwraps an impairment, or skips loudly where its program is missing.
fn or_skip<T>(outcome: Result<T, ImpairError>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error @ ImpairError::Missing { .. }) => {
            _ = writeln!(io::stderr(), "SKIP: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_black_hole_swallows_until_it_is_dropped() {
    let Some((one, two)) = hosts() else { return };
    for direction in [Direction::Out, Direction::In] {
        let end = if direction == Direction::Out { &one } else { &two };
        let Some(hole) = or_skip(black_hole(&end.interface, direction)) else {
            return;
        };
        assert!(!reaches_with(&one.namespace, &two.namespace, two.ipv4.into(), 100, SILENCE), "{direction:?}");
        drop(hole);
        assert!(reaches(&one.namespace, &two.namespace, two.ipv4.into()), "{direction:?}");
    }
}

#[test]
fn an_mtu_black_hole_swallows_long_packets_only() {
    let Some((one, two)) = hosts() else { return };
    let Some(hole) = or_skip(mtu_black_hole(&two.interface, Direction::In, 1300)) else {
        return;
    };
    let target = two.ipv4.into();
    assert!(reaches_with(&one.namespace, &two.namespace, target, 1300 - 28, Duration::from_secs(20)));
    assert!(!reaches_with(&one.namespace, &two.namespace, target, 1301 - 28, SILENCE));
    hole.end().unwrap();
    assert!(reaches_with(&one.namespace, &two.namespace, target, 1301 - 28, Duration::from_secs(20)));
}

#[test]
fn random_loss_takes_a_share() {
    let Some((one, two)) = hosts() else { return };
    let Some(_loss) = or_skip(random_loss(&two.interface, Direction::In, 300)) else {
        return;
    };
    let target = two.ipv4;
    let receiver = two.namespace.run(move || UdpSocket::bind((target, 0))).unwrap().unwrap();
    let sender = one.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    receiver.set_nonblocking(true).unwrap();
    // Numbered datagrams until a late one arrives: the link keeps order, so by then every earlier one came or is lost.
    let (mut number, mut arrived) = (0_u32, 0);
    wait_until("a late datagram", Duration::from_secs(20), || {
        for _ in 0..20 {
            sender.send_to(&number.to_be_bytes(), receiver.local_addr().unwrap()).unwrap();
            number += 1;
        }
        let mut buffer = [0; 4];
        while receiver.recv(&mut buffer).is_ok() {
            if u32::from_be_bytes(buffer) >= 400 {
                return Some(());
            }
            arrived += 1;
        }
        None
    })
    .unwrap();
    // Expected 280 +- 9; the lower bound leaves room for what waited for address resolution.
    assert!((100..390).contains(&arrived), "{arrived} of 400");
}

#[test]
fn blocked_udp_is_blocked() {
    let Some((one, two)) = hosts() else { return };
    let Some(_block) = or_skip(block_udp(&one.interface, Direction::Out)) else {
        return;
    };
    assert!(!reaches_with(&one.namespace, &two.namespace, two.ipv6.into(), 100, SILENCE));
}

#[test]
fn rate_limits_and_offloads_are_accepted() {
    let Some((one, two)) = hosts() else { return };
    if or_skip(rate_limit(&one.interface, "10mbit", 20)).is_some() {
        assert!(reaches(&one.namespace, &two.namespace, two.ipv4.into()));
    }
    for offloads in [Offloads::Gro, Offloads::Off, Offloads::Default] {
        if or_skip(set_offloads(&one.interface, offloads)).is_some() {
            assert!(reaches(&one.namespace, &two.namespace, two.ipv4.into()));
        }
    }
}

#[test]
fn what_nft_says_is_passed_on() {
    let Some(ns) = namespace("nonsense") else { return };
    let Err(error) = nft(&ns, "add nonsense\n") else { panic!("accepted nonsense") };
    assert!(matches!(error, ImpairError::Missing { .. }) || error.to_string().contains("nonsense"), "{error}");
}

/// An internet of two hosts, whose router can be worked on.
fn routed() -> Option<Internet> {
    namespace("probe")?;
    Some(internet(2).unwrap())
}

#[test]
fn a_cut_swallows_between_two_addresses_only() {
    let Some(net) = routed() else { return };
    let [one, two] = net.hosts.as_slice() else { panic!("two hosts") };
    let Some(cut) = or_skip(cut(&net.router, one.ipv4, two.ipv4)) else { return };
    for (from, to) in [(one, two), (two, one)] {
        assert!(!reaches_with(&from.namespace, &to.namespace, to.ipv4.into(), 100, SILENCE));
        assert!(reaches(&from.namespace, &to.namespace, to.ipv6.into()));
    }
    cut.end().unwrap();
    assert!(reaches(&one.namespace, &two.namespace, two.ipv4.into()));
}

#[test]
fn a_strict_network_lets_through_what_is_named_and_nothing_else() {
    let Some(net) = routed() else { return };
    let [one, two] = net.hosts.as_slice() else { panic!("two hosts") };
    let port = Interface::find(&net.router, "port0").unwrap();
    let all = only(&port, &["meta l4proto udp"], &["meta l4proto udp"]);
    let Some(all) = or_skip(all) else { return };
    assert!(reaches(&one.namespace, &two.namespace, two.ipv4.into()));
    all.end().unwrap();
    let _none = only(&port, &["tcp dport 443"], &["tcp sport 443"]).unwrap();
    for (from, to) in [(one, two), (two, one)] {
        assert!(!reaches_with(&from.namespace, &to.namespace, to.ipv4.into(), 100, SILENCE));
    }
}

#[test]
fn bursts_are_lost_one_after_the_other() {
    let Some(net) = routed() else { return };
    let [one, two] = net.hosts.as_slice() else { panic!("two hosts") };
    let port = Interface::find(&net.router, "port0").unwrap();
    // Five, then five that come, and so on.
    let Some(_loss) = or_skip(burst_loss(&port, 5, 500)) else { return };
    let target = two.ipv4;
    let receiver = two.namespace.run(move || UdpSocket::bind((target, 0))).unwrap().unwrap();
    let sender = one.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    for number in 0..100_u8 {
        sender.send_to(&[number], receiver.local_addr().unwrap()).unwrap();
    }
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    let (mut buffer, mut came) = ([0], Vec::new());
    while receiver.recv(&mut buffer).is_ok() {
        came.push(buffer[0]);
    }
    assert_eq!(came.len(), 50, "{came:?}");
    assert!(came.windows(2).all(|pair| [1, 6].contains(&(pair[1] - pair[0]))), "{came:?}");
}

#[test]
fn a_delay_delays_both_ways_and_ends() {
    let Some(net) = routed() else { return };
    let [one, two] = net.hosts.as_slice() else { panic!("two hosts") };
    let port = Interface::find(&net.router, "port0").unwrap();
    let round_trip = Duration::from_millis(60);
    let delay = match delay(&port, round_trip) {
        Err(error @ (ImpairError::Run { .. } | ImpairError::Failed { .. })) => {
            _ = writeln!(io::stderr(), "SKIP: no NFQUEUE in this kernel: {error}");
            return;
        }
        other => or_skip(other),
    };
    let Some(delay) = delay else { return };
    let took = |from: &Host, to: &Host| {
        let start = Instant::now();
        assert!(reaches(&from.namespace, &to.namespace, to.ipv4.into()));
        start.elapsed()
    };
    assert!(took(one, two) >= round_trip / 2);
    assert!(took(two, one) >= round_trip / 2);
    drop(delay);
    // A machine may be slow now and then, but not each time.
    assert!((0..20).any(|_| took(one, two) < round_trip / 2));
}

#[test]
fn slow_links_are_slow_for_short_transfers_too() {
    let Some((one, two)) = hosts() else { return };
    if or_skip(set_offloads(&one.interface, Offloads::Off)).is_none()
        || or_skip(slow_link(&one.interface, 800, 2000)).is_none()
    {
        return;
    }
    let target = two.ipv4;
    let receiver = two.namespace.run(move || UdpSocket::bind((target, 0))).unwrap().unwrap();
    let sender = one.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let start = Instant::now();
    for _ in 0..40 {
        sender.send_to(&[0; 1000], receiver.local_addr().unwrap()).unwrap();
    }
    let mut buffer = [0; 1000];
    for _ in 0..40 {
        receiver.recv(&mut buffer).unwrap();
    }
    // 40 kB at 100 kB/s, less the bucket.
    assert!(start.elapsed() > Duration::from_millis(250), "{:?}", start.elapsed());
}
