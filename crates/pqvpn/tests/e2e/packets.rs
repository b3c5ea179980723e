// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packets of every size and TCP in bulk, both IP versions inside and outside.

use std::net::{IpAddr, SocketAddr};

use nix::sys::signal::Signal;

use crate::{
    icmp,
    rig::{Outer, Pair, poll, usable},
    traffic::{any, echo_sizes, noise, tcp_transfer, udp},
};

/// Inner MTU on a path of 1500 bytes (performance.md).
const MTU: usize = 1420;
/// Bytes of the IPv4 and UDP headers.
const V4_UDP: usize = 28;
/// The same for IPv6.
const V6_UDP: usize = 48;
/// Bytes of one TCP transfer.
const BULK: usize = 64 << 20;

#[test]
fn packets_of_every_size_and_tcp_pass_over_ipv4() {
    if usable() {
        everything_passes(Outer::V4);
    }
}

#[test]
fn packets_of_every_size_and_tcp_pass_over_ipv6() {
    if usable() {
        everything_passes(Outer::V6);
    }
}

#[test]
fn a_burst_that_had_to_wait_is_delivered_whole() {
    if !usable() {
        return;
    }
    let pair = Pair::met(Outer::V4);
    let (a, b) = (&pair.a, &pair.b);
    let cases: [(IpAddr, usize); 3] = [(b.v4.into(), 300), (b.v6.into(), 300), (b.v4.into(), 1)];
    for (address, len) in cases {
        let server = udp(&b.namespace, SocketAddr::new(address, 0));
        let client = udp(&a.namespace, any(address));
        client.connect(server.local_addr().unwrap()).unwrap();
        for burst in [2, 63, 64, 65, 127, 128, 129, 200, 400] {
            // A daemon that was not scheduled for a while finds many datagrams of one flow at once.
            b.daemon().signal(Signal::SIGSTOP).unwrap();
            let before = a.peer(b).tx_packets;
            for number in 0..burst {
                client.send(&noise(number, len)).unwrap();
            }
            poll("the burst on the wire", || (a.peer(b).tx_packets >= before + burst).then_some(()));
            b.daemon().signal(Signal::SIGCONT).unwrap();
            let mut buffer = [0; 2048];
            for number in 0..burst {
                let got = server.recv(&mut buffer).unwrap_or_else(|error| {
                    let drops: Vec<_> = b.status().drops.into_iter().filter(|(_, count)| *count > 0).collect();
                    panic!("{number} of {burst} datagrams of {len} bytes to {address} arrived: {error}; {drops:?}")
                });
                assert!(buffer[..got] == noise(number, len), "datagram {number} of {burst} to {address} changed");
            }
        }
    }
}

fn everything_passes(outer: Outer) {
    let pair = Pair::met(outer);
    for (from, to) in pair.both() {
        let (v4, v6) = (IpAddr::V4(to.v4), IpAddr::V6(to.v6));
        for (address, headers, largest) in [(v4, V4_UDP, 65_507), (v6, V6_UDP, 65_487)] {
            let full = MTU - headers;
            let lengths = [0, 1, 7, 100, 1200, full - 1, full, full + 1, 2 * MTU, 9000, 30_000, largest];
            echo_sizes(&from.namespace, &to.namespace, address, &lengths);
            // Echo requests carry 8 bytes of ICMP header where UDP has its 8.
            icmp::echo(&from.namespace, address, &[0, 56, full - 1, full, full + 1, 4000, 20_000]);
        }
        for address in [v4, v6] {
            let rate = tcp_transfer(&from.namespace, &to.namespace, address, BULK);
            let inner = if address.is_ipv4() { 4 } else { 6 };
            eprintln!("FIGURE tcp_mbit_s={rate:.0} {} to {} inner v{inner} outer {outer:?}", from.name, to.name);
        }
    }
    for (node, _) in pair.both() {
        let drops = node.status().drops;
        let dropped: Vec<_> = drops.iter().filter(|(_, count)| **count > 0).collect();
        eprintln!("drops of {}: {dropped:?}", node.name);
        for reason in ["auth", "replay", "too_old", "spoof", "malformed_inner", "too_big", "malformed_local"] {
            assert_eq!(drops.get(reason).copied().unwrap_or(0), 0, "{reason} at {}", node.name);
        }
    }
}
