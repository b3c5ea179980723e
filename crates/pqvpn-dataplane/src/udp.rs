// SPDX-License-Identifier: MIT OR Apache-2.0
//! The UDP sockets: choosing one for a destination, sending batches, and what to do when the kernel refuses.

mod batch;
pub(crate) mod extra;
pub(crate) mod port;
pub(crate) mod sys;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket},
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub(crate) use self::{
    batch::{Full, SendBatch, SendRuns},
    sys::{RecvBatch, RecvMeta, SLOT_LEN},
};
use self::{extra::ExtraSockets, sys::Message};
use crate::{
    clock,
    sys::{Waited, wait},
    table::lock,
};

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
pub(crate) struct Socket {
    socket: UdpSocket,
    local: SocketAddr,
    /// Whether it also carries IPv4, as mapped addresses.
    dual_stack: bool,
    /// Whether the kernel cuts messages into datagrams.
    knows_gso: bool,
    /// Where to it does not.
    uncut: Uncut,
}

/// Destinations that are reached without segmentation for a while: a route that leads through a device or a policy which
/// cannot have it says nothing of the others, nor of itself later.
#[derive(Debug, Default)]
struct Uncut {
    /// Lets the packet path see "none" without the lock.
    any: AtomicBool,
    told: AtomicBool,
    list: Mutex<Vec<(IpAddr, Instant)>>,
}

/// How long one is remembered, and how many.
const UNCUT_FOR: Duration = Duration::from_secs(60);
const MAX_UNCUT: usize = 64;

impl Uncut {
    fn holds(&self, dst: IpAddr, now: impl FnOnce() -> Instant) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let (mut list, now) = (lock(&self.list), now());
        list.retain(|(_, until)| now < *until);
        self.any.store(!list.is_empty(), Ordering::Relaxed);
        list.iter().any(|(known, _)| *known == dst)
    }

    fn add(&self, dst: IpAddr, now: Instant) {
        let mut list = lock(&self.list);
        list.retain(|(known, _)| *known != dst);
        if list.len() >= MAX_UNCUT {
            list.remove(0);
        }
        list.push((dst, now + UNCUT_FOR));
        self.any.store(true, Ordering::Relaxed);
    }
}

impl Socket {
    /// Takes over a bound socket and sets its options; `has_v4` when IPv4 has sockets of its own.
    fn open(socket: UdpSocket, has_v4: bool) -> io::Result<Self> {
        let local = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        sys::configure(socket.as_fd(), local.is_ipv6(), BUFFER_BYTES)?;
        let knows_gso = sys::knows_gso(socket.as_fd());
        let dual_stack = local.is_ipv6() && !has_v4 && !sys::is_v6_only(socket.as_fd());
        Ok(Self { socket, local, dual_stack, knows_gso, uncut: Uncut::default() })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the kernel takes messages of several datagrams.
    pub(crate) const fn knows_gso(&self) -> bool {
        self.knows_gso
    }

    /// Whether messages of several datagrams may be sent there.
    pub(crate) fn gso(&self, dst: SocketAddr) -> bool {
        self.knows_gso && !self.uncut.holds(dst.ip().to_canonical(), clock::now)
    }

    /// Gives up segmentation towards `dst` for a while, after the kernel refused it.
    pub(crate) fn give_up_gso(&self, dst: SocketAddr, error: &io::Error) {
        self.uncut.add(dst.ip().to_canonical(), clock::now());
        if !self.uncut.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "UDP segmentation offload refused, sending datagrams one by one there");
        }
    }

    fn reaches(&self, v4: bool) -> bool {
        if v4 { self.local.is_ipv4() || self.dual_stack } else { self.local.is_ipv6() }
    }

    /// The destination in the form this socket wants.
    pub(crate) fn to_family(&self, dst: SocketAddr) -> SocketAddr {
        match (dst, self.local) {
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
    pub(crate) fn send_one(&self, dst: SocketAddr, src: Option<IpAddr>, contents: &[u8]) -> io::Result<()> {
        self.send_within(dst, src, contents, None)
    }

    /// [`Self::send_one`] that lives no longer than `hops` say.
    pub(crate) fn send_within(
        &self,
        dst: SocketAddr,
        src: Option<IpAddr>,
        contents: &[u8],
        hops: Option<u8>,
    ) -> io::Result<()> {
        let src = src.map(|src| src.to_canonical());
        let message = Message { dst: self.to_family(dst), src, ecn: None, contents, segment: None, hops };
        match sys::send_one(self.fd(), &message) {
            Err(error) if src.is_some() && source_refused(&error) => {
                sys::send_one(self.fd(), &Message { src: None, ..message })
            }
            result => result,
        }
    }

    /// Waits a while for room.
    pub(crate) fn wait_writable(&self) -> io::Result<bool> {
        let mut waited = [Waited::writable(self.fd())];
        wait(&mut waited, FULL_WAIT_MS)?;
        Ok(waited[0].ready)
    }
}

/// All sockets of the data plane.
#[derive(Debug)]
pub(crate) struct Sockets {
    fixed: Vec<Arc<Socket>>,
    /// Those added later, see [`extra`].
    pub(crate) extra: ExtraSockets,
}

/// The socket that was chosen for a destination.
pub(crate) enum Chosen<'a> {
    /// One of those the data plane began with, and which.
    Fixed(usize, &'a Socket),
    /// One that was added.
    Extra(Arc<Socket>),
}

impl Deref for Chosen<'_> {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        match self {
            Self::Fixed(_, socket) => socket,
            Self::Extra(socket) => socket,
        }
    }
}

impl Sockets {
    /// Takes over bound sockets and sets their options.
    pub(crate) fn new(sockets: Vec<UdpSocket>) -> io::Result<Self> {
        let has_v4 = sockets.iter().filter_map(|s| s.local_addr().ok()).any(|addr| addr.is_ipv4());
        let open = |socket: UdpSocket| Socket::open(socket, has_v4).map(Arc::new);
        let fixed = sockets.into_iter().map(open).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { fixed, extra: ExtraSockets::default() })
    }

    /// The sockets the data plane began with.
    pub(crate) fn fixed(&self) -> &[Arc<Socket>] {
        &self.fixed
    }

    /// Address of the first IPv6 socket, or else of the first.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        let v6 = self.fixed.iter().find(|socket| socket.local.is_ipv6());
        v6.or(self.fixed.first()).map(|socket| socket.local)
    }

    /// The socket for a destination: the one it is pinned to, or else of several the one of `queue`.
    pub(crate) fn choose(&self, dst: SocketAddr, queue: usize) -> io::Result<Chosen<'_>> {
        if let Some(pinned) = self.extra.pinned_to(dst) {
            return Ok(Chosen::Extra(pinned));
        }
        let v4 = dst.ip().to_canonical().is_ipv4();
        let count = self.fixed.iter().filter(|socket| socket.reaches(v4)).count();
        if count == 0 {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let nth = self.fixed.iter().enumerate().filter(|(_, socket)| socket.reaches(v4)).nth(queue % count);
        nth.map(|(i, socket)| Chosen::Fixed(i, socket)).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Whether two destinations leave by the same socket for sure.
    pub(crate) fn alike(&self, one: SocketAddr, other: SocketAddr) -> bool {
        one == other || one.is_ipv4() == other.is_ipv4() && !self.extra.any_pinned()
    }
}

/// An address as the sockets report it: mapped IPv4 made plain, no flow label.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), v6.port()),
            None => SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into(),
        },
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
