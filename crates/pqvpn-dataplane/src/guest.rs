// SPDX-License-Identifier: MIT OR Apache-2.0
//! The QUIC endpoint's virtual socket: a guest on the sockets of the data plane (link.md 5).

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use pqvpn_packet::piece;

use crate::{
    clock,
    narrow::{self, Shape},
    stats::{DropCounters, DropReason},
    table::lock,
    udp::{
        Chosen, MAX_GSO_BYTES, MAX_GSO_SEGMENTS, Socket, canonical, gso_refused, source_refused,
        sys::{Message, send_one},
    },
    underlay::Underlay,
    way::{By, WayId},
};

/// What is known about a received QUIC datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestMeta {
    /// Sender, or the way it came: always IPv6, an IPv4 address is given as a mapped one.
    pub addr: SocketAddr,
    /// Bytes written to the buffer.
    pub len: usize,
    /// Size of each datagram in the buffer (always `len`: one datagram per buffer).
    pub stride: usize,
    /// The two ECN bits of the IP header.
    pub ecn: Option<u8>,
    /// The local address the datagram was sent to, in the same form as `addr`.
    pub dst_ip: Option<IpAddr>,
}

/// QUIC datagrams to send.
#[derive(Debug, Clone, Copy)]
pub struct GuestTransmit<'a> {
    /// Receiver, or the way to it; IPv4 may be given plain or mapped.
    pub dst: SocketAddr,
    /// The local address to send from, where it matters.
    pub src_ip: Option<IpAddr>,
    /// The two ECN bits to set.
    pub ecn: Option<u8>,
    /// One datagram, or several of `segment_size` bytes (the last may be shorter).
    pub contents: &'a [u8],
    /// Size of the datagrams in `contents` if there are several.
    pub segment_size: Option<usize>,
}

/// The guest's socket. Cheap to clone; no runtime inside: wake-ups of receiving come through the task's waker, readiness
/// to send through [`clone_fds`](Self::clone_fds).
#[derive(Clone)]
pub struct Guest {
    ring: Arc<GuestRing>,
    underlay: Arc<Underlay>,
}

impl Guest {
    pub(crate) fn new(ring: Arc<GuestRing>, underlay: Arc<Underlay>) -> Self {
        Self { ring, underlay }
    }

    /// Takes received datagrams, one per buffer, or registers `cx` to be woken when there are some (the last task to
    /// ask is the one that is woken). Datagrams longer than their buffer are cut.
    ///
    /// # Errors
    /// `BrokenPipe` once the data plane has ended.
    pub fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [GuestMeta],
    ) -> Poll<io::Result<usize>> {
        self.ring.poll_take(cx, bufs, meta)
    }

    /// A handshake of ours begins with an address or way: what of it is not answered goes in pieces too. A carrier has no
    /// path whose length counts.
    pub fn on_dial(&self, to: SocketAddr) {
        let to = canonical(to);
        if WayId::of(to).is_none_or(|way| !self.underlay.ways().is_carried(way)) {
            self.underlay.narrow.on_dial(to, clock::now());
        }
    }

    /// Sends at once.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full: wait for `POLLOUT` on the one of [`clone_fds`](Self::clone_fds) that
    /// [`socket_for`](Self::socket_for) names. `AddrNotAvailable`
    /// when there is no socket of the destination's family, and for a way that is not there. Errors that a network may cure by itself, and datagrams too
    /// big for the path, are counted and swallowed: QUIC sees them as loss.
    pub fn try_send(&self, transmit: &GuestTransmit<'_>) -> io::Result<()> {
        let size = transmit.segment().unwrap_or(transmit.contents.len()).max(1);
        let longest = transmit.contents.get(..size).unwrap_or(transmit.contents);
        if self.underlay.narrow.is_empty() {
            return self.send_whole(transmit);
        }
        match self.underlay.narrow.shape(canonical(transmit.dst), longest, clock::now()) {
            Shape::Whole => self.send_whole(transmit),
            Shape::Pieces => self.send_pieces(transmit, size),
            Shape::Both => self.send_whole(transmit).and_then(|()| self.send_pieces(transmit, size)),
        }
    }

    /// Sends each datagram in pieces, which the path carries where it does not carry QUIC.
    fn send_pieces(&self, transmit: &GuestTransmit<'_>, size: usize) -> io::Result<()> {
        for datagram in transmit.contents.chunks(size) {
            if datagram.len() <= narrow::LONG {
                self.send_or_lose(transmit, datagram);
            }
            for piece in piece::pieces(datagram, self.underlay.narrow.next_id(), narrow::LONG) {
                self.send_or_lose(transmit, &piece);
            }
        }
        Ok(())
    }

    /// Sends one datagram of several; one that is missing is loss, which the guest repairs.
    fn send_or_lose(&self, transmit: &GuestTransmit<'_>, contents: &[u8]) {
        if self.send_whole(&GuestTransmit { contents, segment_size: None, ..*transmit }).is_err() {
            self.ring.drops.count(DropReason::GuestSendError);
        }
    }

    fn send_whole(&self, transmit: &GuestTransmit<'_>) -> io::Result<()> {
        if WayId::of(transmit.dst).is_some() {
            return self.send_way(transmit);
        }
        let src = transmit.src_ip.map(|src| src.to_canonical());
        // Not by what is stale: a dialer takes answers from nowhere else than the address it dialled (RFC 9000 §9).
        self.send_udp(transmit.dst, src, transmit.ecn, transmit.contents, transmit.segment())
    }

    fn send_udp(
        &self,
        dst: SocketAddr,
        src: Option<IpAddr>,
        ecn: Option<u8>,
        contents: &[u8],
        segment: Option<usize>,
    ) -> io::Result<()> {
        let chosen = self.underlay.sockets.choose(dst, 0)?;
        let socket: &Socket = &chosen;
        let message = Message {
            dst: socket.to_family(dst),
            src,
            ecn,
            contents,
            segment: segment.and_then(|size| u16::try_from(size).ok()),
            hops: None,
        };
        match self.send(socket, &message) {
            Err(error) if message.src.is_some() && source_refused(&error) => {
                self.send(socket, &Message { src: None, ..message })
            }
            result => result,
        }
        .or_else(|error| match chosen {
            // Nobody could wait for an added one: its descriptor is not among those given out.
            Chosen::Extra(_) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ring.drops.count(DropReason::GuestSendError);
                Ok(())
            }
            Chosen::Extra(_) | Chosen::Fixed(..) => self.swallow(error),
        })
    }

    /// Sends a way, datagram by datagram or with as many in a message as it holds with their headers.
    fn send_way(&self, transmit: &GuestTransmit<'_>) -> io::Result<()> {
        let ways = self.underlay.ways();
        let exit = ways.exit(transmit.dst).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let size = transmit.segment().unwrap_or(transmit.contents.len()).max(1);
        let header = exit.channel.map(|channel| channel.header());
        let header = header.as_ref().map_or(&[][..], |header| header);
        let whole = header.len() + size;
        let at_once = (MAX_GSO_BYTES / whole).clamp(1, MAX_GSO_SEGMENTS);
        for (i, group) in transmit.contents.chunks(size * at_once).enumerate() {
            let datagrams = group.chunks(size);
            let By::Udp(to) = exit.by else {
                datagrams.for_each(|datagram| self.send_carrier(exit.by, &[header, datagram].concat()));
                continue;
            };
            let contents = datagrams.flat_map(|datagram| [header, datagram]).collect::<Vec<_>>().concat();
            let segment = Some(whole).filter(|&whole| whole < contents.len());
            match self.send_udp(to, None, transmit.ecn, &contents, segment) {
                // Before the first datagram the whole can be tried again; later the rest is loss.
                Err(_) if i > 0 => self.ring.drops.count(DropReason::GuestSendError),
                result => result?,
            }
        }
        Ok(())
    }

    fn send_carrier(&self, by: By<'_>, datagram: &[u8]) {
        if let By::Carrier(carrier) = by
            && !carrier.send(datagram)
        {
            self.ring.drops.count(DropReason::CarrierFull);
        }
    }

    /// Which of [`clone_fds`](Self::clone_fds) a datagram for `dst` leaves by; `None` for a carrier, for a
    /// socket that was added later (being full is loss there), or when nothing reaches it.
    pub fn socket_for(&self, dst: SocketAddr) -> Option<usize> {
        match self.underlay.ways().exit(dst)?.by {
            By::Udp(to) => match self.underlay.sockets.choose(to, 0).ok()? {
                Chosen::Fixed(i, _) => Some(i),
                Chosen::Extra(_) => None,
            },
            By::Carrier(_) => None,
        }
    }

    /// Duplicates of the sockets' descriptors, for `POLLOUT` registration.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn clone_fds(&self) -> io::Result<Vec<OwnedFd>> {
        self.underlay.sockets.fixed().iter().map(|socket| socket.fd().try_clone_to_owned()).collect()
    }

    /// Address of the first IPv6 socket, or else of the first socket as a mapped one: always IPv6, as ways are.
    ///
    /// # Errors
    /// None in practice: a data plane has at least one socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let local = self.underlay.sockets.local_addr().ok_or(io::ErrorKind::NotConnected)?;
        Ok(if local.is_ipv6() { local } else { SocketAddr::new(mapped(local.ip()), local.port()) })
    }

    /// How many datagrams one [`GuestTransmit`] may hold; 1 where the kernel knows no segmentation.
    pub fn max_gso_segments(&self) -> NonZeroUsize {
        let all = self.underlay.sockets.fixed().iter().all(|socket| socket.knows_gso());
        NonZeroUsize::new(if all { MAX_GSO_SEGMENTS } else { 1 }).unwrap_or(NonZeroUsize::MIN)
    }

    fn send(&self, socket: &Socket, message: &Message<'_>) -> io::Result<()> {
        if message.segment.is_some() && !socket.gso(message.dst) {
            return self.send_singly(socket, message).map(drop);
        }
        let result = send_one(socket.fd(), message);
        // EINVAL may be about the source address too: that is tried without first.
        let refused = |error: &io::Error| message.segment.is_some() && message.src.is_none() && gso_refused(error);
        match result {
            Err(error) if refused(&error) => {
                // The same error comes when a datagram is longer than the path takes; then the singles fail too.
                if self.send_singly(socket, message)? > 0 {
                    socket.give_up_gso(message.dst, &error);
                }
                Ok(())
            }
            result => result,
        }
    }

    /// Sends datagram by datagram; gives how many went.
    fn send_singly(&self, socket: &Socket, message: &Message<'_>) -> io::Result<usize> {
        let size = usize::from(message.segment.unwrap_or(u16::MAX));
        let mut went = 0;
        for (i, contents) in message.contents.chunks(size).enumerate() {
            match send_one(socket.fd(), &Message { contents, segment: None, ..*message }) {
                Ok(()) => went += 1,
                // Before the first datagram the whole can be tried again; later the rest is loss.
                Err(error) if i == 0 && error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => self.ring.drops.count(DropReason::GuestSendError),
            }
        }
        Ok(went)
    }

    fn swallow(&self, error: io::Error) -> io::Result<()> {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Err(error);
        }
        self.ring.drops.count(DropReason::GuestSendError);
        Ok(())
    }
}

impl GuestTransmit<'_> {
    /// Size of the datagrams if there are several.
    fn segment(&self) -> Option<usize> {
        self.segment_size.filter(|&size| size > 0 && size < self.contents.len())
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("sockets", &self.underlay.sockets).finish_non_exhaustive()
    }
}

/// Bytes of datagrams that wait for the guest.
const RING_BYTES: usize = 1 << 20;
/// Datagrams that wait for the guest.
const RING_DATAGRAMS: usize = 1024;
/// Of them, Initial packets, the dearest that strangers can send: what goes on after them has the rest. The first answers to our
/// own dials are among them, and come again.
const RING_FIRSTS: usize = RING_DATAGRAMS / 2;
const RING_FIRST_BYTES: usize = RING_BYTES / 2;

/// The bounded queue between the inbound threads and the guest.
#[derive(Debug)]
pub(crate) struct GuestRing {
    ring: Mutex<Ring>,
    drops: Arc<DropCounters>,
}

#[derive(Debug)]
struct Ring {
    /// Grows to [`RING_BYTES`] only when the guest is slow; begins anew at the front whenever it is empty.
    bytes: Vec<u8>,
    waiting: VecDeque<(usize, GuestMeta)>,
    /// Initial packets among them, and their bytes.
    firsts: (usize, usize),
    /// Where the next datagram goes.
    head: usize,
    waker: Option<Waker>,
    closed: bool,
}

impl GuestRing {
    /// An empty ring.
    pub(crate) fn new(drops: Arc<DropCounters>) -> Self {
        let (bytes, waiting) = (Vec::new(), VecDeque::new());
        let ring = Ring { bytes, waiting, firsts: (0, 0), head: 0, waker: None, closed: false };
        Self { ring: Mutex::new(ring), drops }
    }

    /// Appends a copy of a datagram and wakes the guest; `false` when there is no room.
    pub(crate) fn push(&self, datagram: &[u8], addr: SocketAddr, local: Option<IpAddr>, ecn: u8) -> bool {
        let meta = GuestMeta {
            // An IPv6 address stays whole: a link-local one is nothing without its scope.
            addr: if addr.is_ipv6() { addr } else { SocketAddr::new(mapped(addr.ip()), addr.port()) },
            len: datagram.len(),
            stride: datagram.len(),
            ecn: (ecn != 0).then_some(ecn),
            dst_ip: local.map(mapped),
        };
        let mut ring = lock(&self.ring);
        if !ring.append(datagram, meta) {
            return false;
        }
        let waker = ring.waker.take();
        drop(ring);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// Ends the ring: the guest gets an error from now.
    pub(crate) fn close(&self) {
        let waker = {
            let mut ring = lock(&self.ring);
            ring.closed = true;
            ring.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_take(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [GuestMeta],
    ) -> Poll<io::Result<usize>> {
        let mut ring = lock(&self.ring);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some((start, found)) = ring.next() else {
                break;
            };
            let len = found.len.min(buf.len());
            buf[..len].copy_from_slice(&ring.bytes[start..start + len]);
            *meta = GuestMeta { len, stride: len, ..found };
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        if ring.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ring.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Whether a QUIC datagram begins with an Initial packet (RFC 9000 §17.2).
fn is_first(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xb0 == 0x80)
}

/// The IPv6 form of an address.
fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

impl Ring {
    fn append(&mut self, datagram: &[u8], meta: GuestMeta) -> bool {
        if self.waiting.len() >= RING_DATAGRAMS || datagram.len() > RING_BYTES {
            return false;
        }
        let (firsts, bytes) = self.firsts;
        let is_first = is_first(datagram);
        if is_first && (firsts >= RING_FIRSTS || bytes + datagram.len() > RING_FIRST_BYTES) {
            return false;
        }
        let Some(start) = self.place(datagram.len()) else {
            return false;
        };
        let end = start + datagram.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(datagram);
        self.head = end;
        self.waiting.push_back((start, meta));
        if is_first {
            self.firsts = (firsts + 1, bytes + datagram.len());
        }
        true
    }

    fn next(&mut self) -> Option<(usize, GuestMeta)> {
        let (start, meta) = self.waiting.pop_front()?;
        if is_first(&self.bytes[start..start + meta.len]) {
            let (firsts, bytes) = self.firsts;
            self.firsts = (firsts.saturating_sub(1), bytes.saturating_sub(meta.len));
        }
        Some((start, meta))
    }

    /// Where `len` bytes fit behind the newest datagram, or at the front before the oldest.
    fn place(&self, len: usize) -> Option<usize> {
        let Some(&(tail, _)) = self.waiting.front() else {
            return Some(0);
        };
        if self.head > tail {
            if self.head + len <= RING_BYTES {
                return Some(self.head);
            }
            return (len < tail).then_some(0);
        }
        (self.head + len < tail).then_some(self.head)
    }
}

#[cfg(test)]
mod tests;
