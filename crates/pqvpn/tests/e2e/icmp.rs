// SPDX-License-Identifier: MIT OR Apache-2.0
//! Echo requests by raw sockets: answered by the far kernel, no `ping` program needed.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use pqvpn_lab::netns::Namespace;

use crate::{rig::LIMIT, traffic::noise};

/// Type numbers of request and reply in ICMP (RFC 792) and ICMPv6 (RFC 4443).
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// Sends one echo request with each payload length to `address`; each must come back unchanged.
pub(crate) fn echo(namespace: &Namespace, address: IpAddr, lengths: &[usize]) {
    let (family, protocol, (request, reply)) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, V4),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, V6),
    };
    let fd: OwnedFd =
        namespace.run(move || socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)).unwrap().unwrap();
    // The standard library's calls work on any datagram-like socket.
    let socket = UdpSocket::from(fd);
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = vec![0; 65_536];
    for (sequence, &len) in (1_u16..).zip(lengths) {
        let mut message = vec![request, 0, 0, 0, 0x50, 0x51];
        message.extend(sequence.to_be_bytes());
        message.extend(noise(sequence.into(), len));
        if address.is_ipv4() {
            // The kernel fills this in for ICMPv6 only.
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        socket.send_to(&message, SocketAddr::new(address, 0)).unwrap();
        loop {
            let received = socket.recv_from(&mut buffer);
            let (got, from) = received.unwrap_or_else(|error| panic!("echo of {len} bytes from {address}: {error}"));
            // A raw IPv4 socket shows the IP header as well.
            let header = if address.is_ipv4() { usize::from(buffer[0] & 0x0f) * 4 } else { 0 };
            let answer = &buffer[header..got];
            if from.ip() == address && answer[0] == reply && answer[4..8] == message[4..8] {
                assert!(answer[8..] == message[8..], "the echo of {len} bytes from {address} changed");
                break;
            }
        }
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
