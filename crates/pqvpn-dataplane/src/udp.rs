// SPDX-License-Identifier: MIT OR Apache-2.0
//! The UDP sockets: choosing one for a destination, sending batches, and what to do when the kernel refuses.

mod batch;
pub(crate) mod sys;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use self::sys::Message;
pub(crate) use self::{
    batch::{SendBatch, SendRuns},
    sys::{RecvBatch, RecvMeta, SLOT_LEN},
};
use crate::sys::{Waited, wait};

/// Most datagrams the kernel cuts one message into.
pub(crate) const MAX_GSO_SEGMENTS: usize = 64;
/// Most bytes of one message: an IPv4 datagram's payload.
pub(crate) const MAX_GSO_BYTES: usize = 65_507;

/// Kernel memory asked for per socket and direction; enough for some milliseconds at 10 Gbit/s.
const BUFFER_BYTES: i32 = 4 << 20;
/// How long a thread waits for room in a socket before it drops, in milliseconds.
const FULL_WAIT_MS: i32 = 50;

/// A socket and what was learnt about it.
#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    local: SocketAddr,
    /// Whether it also carries IPv4, as mapped addresses.
    dual_stack: bool,
    /// Cleared when the kernel refuses segmentation.
    gso: AtomicBool,
}

/// All sockets of the data plane.
#[derive(Debug)]
pub(crate) struct Sockets(Vec<Socket>);

impl Sockets {
    /// Takes over bound sockets and sets their options.
    pub(crate) fn new(sockets: Vec<UdpSocket>) -> io::Result<Self> {
        let has_v4 = sockets.iter().filter_map(|s| s.local_addr().ok()).any(|addr| addr.is_ipv4());
        let open = |socket: UdpSocket| {
            let local = socket.local_addr()?;
            socket.set_nonblocking(true)?;
            sys::configure(socket.as_fd(), local.is_ipv6(), BUFFER_BYTES)?;
            let gso = AtomicBool::new(sys::knows_gso(socket.as_fd()));
            let dual_stack = local.is_ipv6() && !has_v4 && !sys::is_v6_only(socket.as_fd());
            Ok(Socket { socket, local, dual_stack, gso })
        };
        sockets.into_iter().map(open).collect::<io::Result<Vec<_>>>().map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn fd(&self, i: usize) -> BorrowedFd<'_> {
        self.0[i].socket.as_fd()
    }

    /// Address of the first IPv6 socket, or else of the first.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        let v6 = self.0.iter().find(|socket| socket.local.is_ipv6());
        v6.or(self.0.first()).map(|socket| socket.local)
    }

    /// The socket for a destination; of several, the one of `queue`.
    pub(crate) fn choose(&self, dst: SocketAddr, queue: usize) -> io::Result<usize> {
        let v4 = dst.ip().to_canonical().is_ipv4();
        let usable = |socket: &Socket| {
            if v4 { socket.local.is_ipv4() || socket.dual_stack } else { socket.local.is_ipv6() }
        };
        let count = self.0.iter().filter(|socket| usable(socket)).count();
        if count == 0 {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let nth = self.0.iter().enumerate().filter(|(_, socket)| usable(socket)).nth(queue % count);
        nth.map(|(i, _)| i).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Whether messages of several datagrams may be sent.
    pub(crate) fn gso(&self, i: usize) -> bool {
        self.0[i].gso.load(Ordering::Relaxed)
    }

    /// Gives up segmentation on a socket after the kernel refused it.
    pub(crate) fn give_up_gso(&self, i: usize, error: &io::Error) {
        if self.0[i].gso.swap(false, Ordering::Relaxed) {
            tracing::warn!(%error, "UDP segmentation offload refused, sending datagrams one by one");
        }
    }

    /// The destination in the form this socket wants.
    pub(crate) fn to_family(&self, i: usize, dst: SocketAddr) -> SocketAddr {
        match (dst, self.0[i].local) {
            (SocketAddr::V4(v4), SocketAddr::V6(_)) => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            (SocketAddr::V6(v6), SocketAddr::V4(_)) => match v6.ip().to_ipv4_mapped() {
                Some(ip) => SocketAddr::new(ip.into(), v6.port()),
                None => dst,
            },
            (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => dst,
        }
    }

    /// Sends one datagram, or says why not. A source address that the system refuses is left to its choice.
    pub(crate) fn send_one(
        &self,
        dst: SocketAddr,
        src: Option<IpAddr>,
        ecn: Option<u8>,
        contents: &[u8],
    ) -> io::Result<()> {
        let i = self.choose(dst, 0)?;
        let src = src.map(|src| src.to_canonical());
        let message = Message { dst: self.to_family(i, dst), src, ecn, contents, segment: None };
        match sys::send_one(self.fd(i), &message) {
            Err(error) if src.is_some() && source_refused(&error) => {
                sys::send_one(self.fd(i), &Message { src: None, ..message })
            }
            result => result,
        }
    }

    /// Waits a while for room in a socket.
    pub(crate) fn wait_writable(&self, i: usize) -> io::Result<bool> {
        let mut waited = [Waited::writable(self.fd(i))];
        wait(&mut waited, FULL_WAIT_MS)?;
        Ok(waited[0].ready)
    }
}

/// Whether an error may be about the source address we asked for.
pub(crate) fn source_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::EHOSTUNREACH))
}

/// Whether an error may be about segmentation: no checksum offload on the way (EIO), or an old kernel.
pub(crate) fn gso_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}
