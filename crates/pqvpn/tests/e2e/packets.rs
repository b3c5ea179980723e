// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packets of every size and TCP in bulk, both IP versions inside and outside.

use std::net::IpAddr;

use crate::{
    icmp,
    rig::{Outer, Pair, usable},
    traffic::{echo_sizes, tcp_transfer},
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
