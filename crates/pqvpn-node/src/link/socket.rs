// SPDX-License-Identifier: MIT OR Apache-2.0
//! The socket a link runs on: the data plane's guest port, a plain UDP socket, or a virtual wire in tests.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Most buffers a back end offers to one [`LinkSocket::poll_recv`].
pub const MAX_BATCH: usize = 32;

/// A future that resolves when a send is worth another attempt.
pub type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// A datagram socket as QUIC needs it. Addresses are canonical: never an IPv4-mapped IPv6 address.
pub trait LinkSocket: Send + Sync + fmt::Debug + 'static {
    /// Receives into `bufs` and describes each filled buffer in `meta`; returns how many were filled.
    ///
    /// Only one task calls this. An error ends the endpoint.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [LinkRecv],
    ) -> Poll<io::Result<usize>>;

    /// Sends without waiting; `WouldBlock` makes the caller wait for [`Self::writable`].
    ///
    /// # Errors
    /// Any other error loses the datagram and nothing else: QUIC recovers as from a loss.
    fn try_send(&self, transmit: &LinkTransmit<'_>) -> io::Result<()>;

    /// A handshake of ours begins there: long datagrams that get no answer may be sent otherwise too.
    fn on_dial(&self, _to: SocketAddr) {}

    /// Waits until a send is worth another attempt. Several tasks may wait at once.
    fn writable(self: Arc<Self>) -> Writable;

    /// The local address; an IPv6 one if the socket reaches IPv6 peers (it may reach IPv4 peers as well).
    ///
    /// # Errors
    /// Whatever the operating system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// Segments one [`LinkTransmit`] may hold.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    /// Segments one filled receive buffer may hold.
    fn max_receive_segments(&self) -> usize {
        1
    }

    /// Whether datagrams might be fragmented on the way.
    fn may_fragment(&self) -> bool {
        true
    }
}

/// What a link wants sent.
#[derive(Debug, Clone, Copy)]
pub struct LinkTransmit<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// Where from, if it matters.
    pub src_ip: Option<IpAddr>,
    /// The two ECN bits (RFC 3168), if any.
    pub ecn: Option<u8>,
    /// One datagram, or several of `segment_size` bytes each but the last.
    pub contents: &'a [u8],
    /// Bytes per segment; `None` if `contents` is one datagram.
    pub segment_size: Option<usize>,
}

/// What a filled receive buffer holds.
#[derive(Debug, Clone, Copy)]
pub struct LinkRecv {
    /// Where from.
    pub from: SocketAddr,
    /// The address it was sent to, if known.
    pub dst_ip: Option<IpAddr>,
    /// The two ECN bits, if known.
    pub ecn: Option<u8>,
    /// Bytes in the buffer.
    pub len: usize,
    /// Bytes of each datagram in the buffer but the last; equals `len` for one datagram.
    pub stride: usize,
}

impl Default for LinkRecv {
    fn default() -> Self {
        Self { from: SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), dst_ip: None, ecn: None, len: 0, stride: 0 }
    }
}

/// The address in the form QUIC compares: IPv4 peers of an IPv6 endpoint are IPv4-mapped.
pub(super) fn to_quic(addr: SocketAddr, endpoint_is_v6: bool) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if endpoint_is_v6 => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
        SocketAddr::V4(_) | SocketAddr::V6(_) => addr,
    }
}

/// The address in the form people and sockets use. Keeps an IPv6 scope.
pub(super) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::from((v4, addr.port())),
        IpAddr::V6(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_into_quic_and_back() {
        for text in ["192.0.2.1:7", "[2001:db8::1]:7", "[fe80::1%3]:7"] {
            let addr: SocketAddr = text.parse().expect("an address");
            assert_eq!(canonical(to_quic(addr, true)), addr);
            assert!(to_quic(addr, true).is_ipv6());
        }
    }

    #[test]
    fn an_ipv4_endpoint_maps_nothing() {
        let addr: SocketAddr = "192.0.2.1:7".parse().expect("an address");
        assert_eq!(to_quic(addr, false), addr);
    }
}
