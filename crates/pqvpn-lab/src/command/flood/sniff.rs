// SPDX-License-Identifier: MIT OR Apache-2.0
//! The receiver index of a session, read off the wire: what a stranger who sees packets go by knows.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use pqvpn_lab::topology::Host;

/// How long a packet is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ethernet and IPv4 headers without options, and that of UDP.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;

/// The index in the first tunnel packet that comes to `host` from an address while `traffic` makes some.
pub(super) fn index(
    host: &Host,
    from: Ipv4Addr,
    port: u16,
    traffic: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u32> {
    let socket = host.namespace.run(|| {
        let kind = SockType::Raw;
        let socket = socket(AddressFamily::Packet, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 100_000))?;
        Ok::<OwnedFd, nix::Error>(socket)
    })??;
    traffic()?;
    let (begun, mut frame) = (Instant::now(), vec![0; 65_536]);
    while begun.elapsed() < PATIENCE {
        let Ok(len) = recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) else { continue };
        if let Some(index) = read(&frame[..len], from, port) {
            return Ok(index);
        }
    }
    None.context("no tunnel packet was seen")
}

fn read(frame: &[u8], from: Ipv4Addr, port: u16) -> Option<u32> {
    let ip = frame.get(ETHERNET..)?;
    let is_udp = frame.get(12..14)? == [0x08, 0x00] && ip.first() == Some(&0x45) && ip.get(9) == Some(&17);
    let udp = ip.get(IPV4..)?;
    let fits = is_udp && ip.get(12..16)? == from.octets() && udp.get(2..4)? == port.to_be_bytes();
    let payload = udp.get(UDP..)?;
    // The three fixed bits of docs/protocol.md.
    let is_tunnel = fits && payload.first()? & 0xe0 == 0x20;
    is_tunnel.then(|| payload.get(4..8)?.try_into().ok().map(u32::from_be_bytes)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_read_from_tunnel_packets_of_the_right_source_only() {
        let from = Ipv4Addr::new(192, 0, 2, 1);
        let mut frame = vec![0; ETHERNET + IPV4 + UDP + 16];
        frame[12] = 0x08;
        frame[ETHERNET] = 0x45;
        frame[ETHERNET + 9] = 17;
        frame[ETHERNET + 12..ETHERNET + 16].copy_from_slice(&from.octets());
        frame[ETHERNET + IPV4 + 2..ETHERNET + IPV4 + 4].copy_from_slice(&7u16.to_be_bytes());
        let payload = ETHERNET + IPV4 + UDP;
        frame[payload] = 0x24;
        frame[payload + 4..payload + 8].copy_from_slice(&0xdead_beef_u32.to_be_bytes());
        assert_eq!(read(&frame, from, 7), Some(0xdead_beef));
        assert_eq!(read(&frame, Ipv4Addr::new(192, 0, 2, 2), 7), None);
        assert_eq!(read(&frame, from, 8), None);
        assert_eq!(read(&frame[..payload], from, 7), None);
        frame[payload] = 0xc0;
        assert_eq!(read(&frame, from, 7), None);
    }
}
