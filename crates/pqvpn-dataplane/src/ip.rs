// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two addresses of an inner packet, without a further look at it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The source address of an IP packet.
pub(crate) fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(12..)?.first_chunk().map(|&octets: &[u8; 4]| Ipv4Addr::from(octets).into()),
        6 => packet.get(8..)?.first_chunk().map(|&octets: &[u8; 16]| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// The destination address of an IP packet.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..)?.first_chunk().map(|&octets: &[u8; 4]| Ipv4Addr::from(octets).into()),
        6 => packet.get(24..)?.first_chunk().map(|&octets: &[u8; 16]| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}
