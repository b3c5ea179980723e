// SPDX-License-Identifier: MIT OR Apache-2.0
//! The UDP sockets of the node: bound here, owned by the data plane from then on.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt},
};
use pqvpn_dataplane::DataPlane;
use tokio::task::spawn_blocking;

use crate::{
    node::StartError,
    snapshot::{HealthItem, HealthLevel},
};

/// The packet threads and what they listen on.
pub(crate) struct Underlay {
    pub(crate) listen: Vec<SocketAddr>,
    /// None where the packet plane is no real one.
    pub(crate) plane: Option<DataPlane>,
}

impl Underlay {
    /// Stops and joins the packet threads, away from the runtime's thread.
    pub(crate) async fn shut_down(self) {
        let Some(plane) = self.plane else { return };
        let _joined = spawn_blocking(move || plane.shutdown()).await;
    }
}

/// Binds what can be bound: a host without IPv6 still starts, and says so. With several queues each address gets one
/// socket per queue, among which the kernel deals out the peers (`SO_REUSEPORT`).
///
/// # Errors
/// An address is taken or forbidden, or none at all could be bound.
pub(crate) fn bind_all(
    addresses: &[SocketAddr],
    queues: usize,
    standing: &mut Vec<HealthItem>,
) -> Result<(Vec<UdpSocket>, Vec<SocketAddr>), StartError> {
    let (mut sockets, mut listen) = (Vec::new(), Vec::new());
    for &address in addresses {
        match bind_shared(address, queues) {
            Ok((bound, shared)) => {
                listen.push(bound);
                sockets.extend(shared);
            }
            Err(Errno::EADDRINUSE) => return Err(StartError::PortTaken(address)),
            // The host has no such address family, or it is switched off.
            Err(missing @ (Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)) if address.ip().is_unspecified() => {
                let text = format!("not listening on {address}: {}", missing.desc());
                standing.push(HealthItem { level: HealthLevel::Info, code: "family-missing", text });
            }
            Err(errno) => return Err(StartError::Listen { address, source: errno.into() }),
        }
    }
    if sockets.is_empty() {
        return Err(StartError::NoSocket);
    }
    Ok((sockets, listen))
}

/// One socket per queue at the same address; port 0 is chosen once.
fn bind_shared(address: SocketAddr, queues: usize) -> Result<(SocketAddr, Vec<UdpSocket>), Errno> {
    let first = bind_udp(address, queues > 1)?;
    let bound = first.local_addr().map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let mut sockets = vec![first];
    for _ in 1..queues {
        sockets.push(bind_udp(bound, true)?);
    }
    Ok((bound, sockets))
}

/// One socket of one family: an IPv6 socket that also took IPv4 would fight with the IPv4 socket for the port.
fn bind_udp(address: SocketAddr, share: bool) -> Result<UdpSocket, Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(family, SockType::Datagram, flags, None)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if share {
        // Another program of this user could join in, so the port is shared only when it has to be.
        setsockopt(&fd, sockopt::ReusePort, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn both_families_share_a_port() {
        let mut standing = Vec::new();
        let (first, listen) = bind_all(&[any("0.0.0.0:0")], 1, &mut standing).expect("a port");
        let v6 = SocketAddr::new(any("[::]:0").ip(), listen[0].port());
        let (second, _) = bind_all(&[v6], 1, &mut standing).expect("the same port in the other family");
        assert_eq!((first.len(), second.len()), (1, 1));
    }

    #[test]
    fn a_taken_port_is_named() {
        let (_held, listen) = bind_all(&[any("127.0.0.1:0")], 1, &mut Vec::new()).expect("a port");
        let refused = bind_all(&listen, 1, &mut Vec::new());
        assert!(matches!(refused, Err(StartError::PortTaken(address)) if address == listen[0]));
    }

    #[test]
    fn several_queues_share_one_address() {
        let (sockets, listen) = bind_all(&[any("127.0.0.1:0")], 3, &mut Vec::new()).expect("a port");
        assert_eq!((sockets.len(), listen.len()), (3, 1));
        assert!(sockets.iter().all(|socket| socket.local_addr().is_ok_and(|address| address == listen[0])));
    }

    #[test]
    fn an_address_of_somebody_else_is_an_error_not_a_missing_family() {
        let refused = bind_all(&[any("192.0.2.1:0")], 1, &mut Vec::new());
        assert!(matches!(refused, Err(StartError::Listen { .. })));
    }
}
