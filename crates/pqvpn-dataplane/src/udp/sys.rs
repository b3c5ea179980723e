// SPDX-License-Identifier: MIT OR Apache-2.0
//! Batched receiving and sending of UDP datagrams with the kernel's segmentation offloads.
#![expect(
    unsafe_code,
    reason = "recvmmsg(2), sendmmsg(2) and control messages have no safe wrapper in the standard library"
)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    ptr,
};

use libc::{c_int, c_void, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

/// Most messages per receive call.
pub(crate) const RECV_SLOTS: usize = 64;
/// Messages asked for when the call before brought next to none: preparing slots costs time on the way of each packet.
const RECV_LEAST: usize = 4;
/// Bytes after which what is received should be dealt with: packets that leave wait meanwhile.
const BATCH_BYTES: usize = 256 * 1024;
/// The same of datagrams, which cost something however short they are.
const BATCH_DATAGRAMS: usize = 512;
/// Bytes per received message: the largest a GRO buffer can be, rounded up.
pub(crate) const SLOT_LEN: usize = 65_536;
/// Messages per send call.
pub(crate) const SEND_RUNS: usize = 64;

const CONTROL_LEN: usize = 160;

/// Room for control messages, aligned as `cmsghdr` must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct ControlBuf([u8; CONTROL_LEN]);

const EMPTY_CONTROL: ControlBuf = ControlBuf([0; CONTROL_LEN]);

/// What the kernel tells about one received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecvMeta {
    /// Sender, with mapped IPv4 addresses made plain.
    pub(crate) addr: SocketAddr,
    /// The local address it was sent to, likewise.
    pub(crate) local: Option<IpAddr>,
    /// Bytes received, datagrams back to back.
    pub(crate) len: usize,
    /// Bytes of each datagram but the last.
    pub(crate) stride: usize,
    /// The two ECN bits.
    pub(crate) ecn: u8,
    /// It did not fit the buffer.
    pub(crate) truncated: bool,
    /// Index of the interface it came by, 0 when that is not known.
    pub(crate) interface: u32,
}

impl RecvMeta {
    /// Datagrams in it.
    pub(crate) const fn datagrams(&self) -> usize {
        if self.stride == 0 { 1 } else { self.len.div_ceil(self.stride) }
    }
}

/// Never fragment, and never believe ICMP about it: the node probes the path itself.
fn never_fragment(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    let fd = fd.as_raw_fd();
    if v6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)?;
        // For mapped IPv4 on a dual-stack socket; an IPv6-only one may refuse.
        let _ = set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
        return Ok(());
    }
    set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
}

/// Sets the options of a socket that the data plane needs, and asks for big buffers.
///
/// Fails only if path-MTU probing or the non-blocking mode cannot be set; the rest is a matter of speed.
pub(super) fn configure(fd: BorrowedFd<'_>, v6: bool, buffer_bytes: c_int) -> io::Result<()> {
    never_fragment(fd, v6)?;
    let fd = fd.as_raw_fd();
    if v6 {
        let _ = set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1);
        let _ = set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1);
    } else {
        let _ = set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
    }
    let _ = set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1);
    let _ = set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
    // Whoever may not set it may not set the rule that looks at it either.
    let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_MARK, crate::MARK as c_int);
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        if set_option(fd, libc::SOL_SOCKET, forced, buffer_bytes).is_err() {
            let _ = set_option(fd, libc::SOL_SOCKET, plain, buffer_bytes);
        }
    }
    Ok(())
}

/// Whether the kernel knows `UDP_SEGMENT` at all (Linux 4.18).
pub(super) fn knows_gso(fd: BorrowedFd<'_>) -> bool {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let out = (&raw mut value).cast::<c_void>();
    // SAFETY: `out` and `len` describe one `int` that outlives the call.
    unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, out, &raw mut len) == 0 }
}

/// Bytes of kernel memory taken by datagrams that wait to be received, and up to as much again by those just received, which
/// the kernel counts out late; `None` where the kernel does not tell (before Linux 4.12).
pub(crate) fn waiting_bytes(fd: BorrowedFd<'_>) -> Option<usize> {
    // linux/sock_diag.h: SK_MEMINFO_RMEM_ALLOC is the first of SK_MEMINFO_VARS words.
    let mut words = [0u32; 16];
    let mut len = size_of_val(&words) as socklen_t;
    let out = words.as_mut_ptr().cast::<c_void>();
    // SAFETY: `out` and `len` describe `words`, which outlives the call.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, out, &raw mut len) };
    (result == 0 && len as usize >= size_of::<u32>()).then_some(words[0] as usize)
}

/// Whether an IPv6 socket refuses IPv4.
pub(super) fn is_v6_only(fd: BorrowedFd<'_>) -> bool {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let out = (&raw mut value).cast::<c_void>();
    // SAFETY: `out` and `len` describe one `int` that outlives the call.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, out, &raw mut len) };
    result == 0 && value != 0
}

fn set_option(fd: RawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = size_of::<c_int>() as socklen_t;
    // SAFETY: the value is one `int` that outlives the call.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Buffers of one receive call. The pages of a slot exist only once a message of that length was in it.
pub(crate) struct RecvBatch {
    /// `RECV_SLOTS * SLOT_LEN` bytes, owned; raw because the headers keep pointers into it.
    storage: ptr::NonNull<[u8]>,
    names: Box<[sockaddr_storage]>,
    controls: Box<[ControlBuf]>,
    vectors: Box<[iovec]>,
    headers: Box<[mmsghdr]>,
    received: usize,
    /// Bytes of the last call.
    bytes: usize,
    /// Datagrams of it, as [`note_datagrams`](Self::note_datagrams) was told.
    datagrams: usize,
    /// Messages the last call asked for.
    asked: usize,
}

// SAFETY: the raw pointers lead only to memory this value owns, and every access goes through `&mut self` or `&self`.
unsafe impl Send for RecvBatch {}

impl RecvBatch {
    pub(crate) fn new() -> Self {
        let storage = Box::into_raw(vec![0u8; RECV_SLOTS * SLOT_LEN].into_boxed_slice());
        // SAFETY: `into_raw` never gives null.
        let storage = unsafe { ptr::NonNull::new_unchecked(storage) };
        // SAFETY: `sockaddr_storage`, `iovec` and `mmsghdr` are plain data for which all zeros are valid.
        let (name, vector, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            storage,
            names: vec![name; RECV_SLOTS].into(),
            controls: vec![EMPTY_CONTROL; RECV_SLOTS].into(),
            vectors: vec![vector; RECV_SLOTS].into(),
            headers: vec![header; RECV_SLOTS].into(),
            received: 0,
            bytes: 0,
            datagrams: 0,
            asked: 0,
        }
    }

    /// Receives what there is, up to [`RECV_SLOTS`] messages, twice as many as the last time, and [`BATCH_BYTES`] if they are
    /// as long as then ([`BATCH_DATAGRAMS`], if as many), without blocking.
    pub(crate) fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let received = self.received.max(1);
        let as_long = BATCH_BYTES / (self.bytes / received).max(1);
        let as_many = BATCH_DATAGRAMS / (self.datagrams / received).max(1);
        let asked = (2 * self.received).min(as_long).min(as_many).clamp(RECV_LEAST, RECV_SLOTS);
        (self.received, self.asked) = (0, asked);
        let base = self.storage.as_ptr().cast::<u8>();
        for i in 0..asked {
            self.vectors[i] = iovec { iov_base: base.wrapping_add(i * SLOT_LEN).cast(), iov_len: SLOT_LEN };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_iov = &raw mut self.vectors[i];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[i]).cast();
            header.msg_controllen = CONTROL_LEN;
        }
        let (headers, count) = (self.headers.as_mut_ptr(), asked as libc::c_uint);
        // SAFETY: the first `count` headers were just filled with pointers to disjoint memory of the given lengths,
        // owned by `self`.
        let result = unsafe { libc::recvmmsg(fd.as_raw_fd(), headers, count, libc::MSG_DONTWAIT, ptr::null_mut()) };
        match usize::try_from(result) {
            Ok(received) => {
                self.received = received;
                self.bytes = self.headers[..received].iter().map(|header| header.msg_len as usize).sum();
                Ok(received)
            }
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// The messages of the last call held so many datagrams.
    pub(crate) const fn note_datagrams(&mut self, datagrams: usize) {
        self.datagrams = datagrams;
    }

    /// Bytes of the last call.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages of the last call.
    pub(crate) fn len(&self) -> usize {
        self.received
    }

    /// Whether the last call found less than it asked for: nothing is left.
    pub(crate) fn is_last(&self) -> bool {
        self.received < self.asked
    }

    /// What is known about message `i` of the last call; its bytes start at `i * SLOT_LEN` of
    /// [`storage`](Self::storage). `None` for a sender that is not an internet address.
    pub(crate) fn meta(&self, i: usize) -> Option<RecvMeta> {
        if i >= self.received {
            return None;
        }
        let header = &self.headers[i];
        let len = (header.msg_len as usize).min(SLOT_LEN);
        let truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let addr = decode_addr(&self.names[i])?;
        let mut meta = RecvMeta { addr, local: None, len, stride: len, ecn: 0, truncated, interface: 0 };
        // SAFETY: the kernel filled the control buffer that `msg_hdr` describes; both live as long as `self`.
        unsafe { read_controls(&header.msg_hdr, &mut meta) };
        Some(meta)
    }

    /// All slots, back to back.
    pub(crate) fn storage(&mut self) -> &mut [u8] {
        // SAFETY: `storage` is owned, initialised, and borrowed for as long as `self` is.
        unsafe { self.storage.as_mut() }
    }
}

impl Drop for RecvBatch {
    fn drop(&mut self) {
        // SAFETY: `storage` came from `Box::into_raw` and is released once, here.
        drop(unsafe { Box::from_raw(self.storage.as_ptr()) });
    }
}

/// Reads the control messages of a received message into `meta`.
///
/// # Safety
/// `header` must describe a control buffer that the kernel filled.
unsafe fn read_controls(header: &msghdr, meta: &mut RecvMeta) {
    // SAFETY: by this function's contract the buffer holds well-formed control messages up to `msg_controllen`.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !at.is_null() {
        // SAFETY: `at` points to a whole `cmsghdr` inside the buffer, as the CMSG functions guarantee.
        let (control, data) = unsafe { (&*at, libc::CMSG_DATA(at)) };
        // SAFETY (all arms): the kernel writes exactly these types for these levels and kinds; reads are unaligned.
        match (control.cmsg_level, control.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: see above.
                let stride = unsafe { data.cast::<c_int>().read_unaligned() };
                meta.stride = usize::try_from(stride).unwrap_or(0);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: see above.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                // A datagram that was queued before the option was set comes with an empty answer.
                let local = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                meta.local = (!local.is_unspecified()).then(|| local.into());
                meta.interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: see above.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                let local = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // A link-local source is refused without its interface: left to the system's choice.
                let is_usable = !local.is_unicast_link_local() && !local.is_unspecified();
                meta.local = is_usable.then(|| IpAddr::from(local).to_canonical());
                meta.interface = info.ipi6_ifindex;
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                // SAFETY: see above.
                meta.ecn = unsafe { data.read_unaligned() } & 3;
            }
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // SAFETY: see above.
                let class = unsafe { data.cast::<c_int>().read_unaligned() };
                meta.ecn = class.to_le_bytes()[0] & 3;
            }
            _ => {}
        }
        // SAFETY: `header` and `at` belong together.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
}

/// One message to send: a datagram, or several of equal size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    /// Receiver in the family of the socket.
    pub(crate) dst: SocketAddr,
    /// Local address to send from, in the family of the destination.
    pub(crate) src: Option<IpAddr>,
    /// The two ECN bits to set.
    pub(crate) ecn: Option<u8>,
    /// The bytes.
    pub(crate) contents: &'a [u8],
    /// Size of the datagrams if there are several.
    pub(crate) segment: Option<u16>,
    /// Routers that may pass it on, plus one; `None`: as many as is usual.
    pub(crate) hops: Option<u8>,
}

/// Headers of one send call, kept so that nothing is allocated or cleared per call.
pub(crate) struct SendScratch {
    names: Box<[sockaddr_storage]>,
    controls: Box<[ControlBuf]>,
    vectors: Box<[iovec]>,
    headers: Box<[mmsghdr]>,
}

// SAFETY: the pointers in the headers are written before and read during one call only.
unsafe impl Send for SendScratch {}

impl SendScratch {
    pub(crate) fn new() -> Self {
        // SAFETY: `sockaddr_storage`, `iovec` and `mmsghdr` are plain data for which all zeros are valid.
        let (name, vector, header) = unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
        Self {
            names: vec![name; SEND_RUNS].into(),
            controls: vec![EMPTY_CONTROL; SEND_RUNS].into(),
            vectors: vec![vector; SEND_RUNS].into(),
            headers: vec![header; SEND_RUNS].into(),
        }
    }

    /// Sends messages in order and returns how many went; the error is that of the first.
    pub(crate) fn send<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        messages: impl Iterator<Item = Message<'a>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for message in messages.take(SEND_RUNS) {
            let header = &mut self.headers[count].msg_hdr;
            fill(header, &mut self.names[count], &mut self.vectors[count], &mut self.controls[count], &message);
            count += 1;
        }
        let headers = self.headers.as_mut_ptr();
        // SAFETY: the first `count` headers were just filled; what they point to is owned by `self` or borrowed as
        // `contents`, and only read.
        let result = unsafe { libc::sendmmsg(fd.as_raw_fd(), headers, count as libc::c_uint, libc::MSG_DONTWAIT) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }
}

/// Sends one message.
pub(crate) fn send_one(fd: BorrowedFd<'_>, message: &Message<'_>) -> io::Result<()> {
    // SAFETY: all three are plain data for which all zeros are valid.
    let (mut name, mut vector, mut header): (sockaddr_storage, iovec, msghdr) =
        unsafe { (mem::zeroed(), mem::zeroed(), mem::zeroed()) };
    let mut control = EMPTY_CONTROL;
    fill(&mut header, &mut name, &mut vector, &mut control, message);
    // SAFETY: `header` points to locals that outlive the call and to `contents`, which is only read.
    let result = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn fill(
    header: &mut msghdr,
    name: &mut sockaddr_storage,
    vector: &mut iovec,
    control: &mut ControlBuf,
    message: &Message<'_>,
) {
    header.msg_namelen = encode_addr(message.dst, name);
    header.msg_name = (name as *mut sockaddr_storage).cast();
    *vector = iovec { iov_base: message.contents.as_ptr().cast_mut().cast(), iov_len: message.contents.len() };
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header.msg_control = (control as *mut ControlBuf).cast();
    header.msg_controllen = CONTROL_LEN;
    let mut writer = ControlWriter { header, used: 0, next: ptr::null_mut() };
    // SAFETY: `msg_control` and `msg_controllen` describe `control`, which is borrowed mutably.
    writer.next = unsafe { libc::CMSG_FIRSTHDR(writer.header) };
    if let Some(segment) = message.segment {
        writer.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment);
    }
    if let Some(ecn) = message.ecn {
        if is_v4(message.dst) {
            writer.push(libc::IPPROTO_IP, libc::IP_TOS, c_int::from(ecn));
        } else {
            writer.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, c_int::from(ecn));
        }
    }
    if let Some(hops) = message.hops {
        if is_v4(message.dst) {
            writer.push(libc::IPPROTO_IP, libc::IP_TTL, c_int::from(hops));
        } else {
            writer.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, c_int::from(hops));
        }
    }
    match message.src {
        Some(IpAddr::V4(src)) => {
            let src = libc::in_addr { s_addr: u32::from(src).to_be() };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: src, ipi_addr: libc::in_addr { s_addr: 0 } };
            writer.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(src)) => {
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: src.octets() }, ipi6_ifindex: 0 };
            writer.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    let used = writer.used;
    header.msg_controllen = used;
    if used == 0 {
        header.msg_control = ptr::null_mut();
    }
}

/// Appends control messages to a header.
struct ControlWriter<'a> {
    header: &'a msghdr,
    used: usize,
    next: *mut cmsghdr,
}

impl ControlWriter<'_> {
    fn push<T: Copy>(&mut self, level: c_int, kind: c_int, value: T) {
        // SAFETY: arithmetic only.
        let (len, space) = unsafe {
            (libc::CMSG_LEN(size_of::<T>() as libc::c_uint), libc::CMSG_SPACE(size_of::<T>() as libc::c_uint))
        };
        let space = space as usize;
        if self.next.is_null() || self.used + space > CONTROL_LEN {
            return;
        }
        // SAFETY: `next` came from the CMSG functions for this header, and `space` bytes are left there. The data may
        // be unaligned for `T`. The length is written first, since CMSG_NXTHDR reads it.
        unsafe {
            (*self.next).cmsg_level = level;
            (*self.next).cmsg_type = kind;
            (*self.next).cmsg_len = len as usize;
            libc::CMSG_DATA(self.next).cast::<T>().write_unaligned(value);
            self.next = self.next.cast::<u8>().add(space).cast();
        }
        self.used += space;
    }
}

fn is_v4(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_ipv4()
}

fn encode_addr(addr: SocketAddr, out: &mut sockaddr_storage) -> socklen_t {
    let out = ptr::from_mut(out);
    match addr {
        SocketAddr::V4(addr) => {
            let encoded = sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: addr.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*addr.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: `sockaddr_storage` is larger than and aligned for every socket address.
            unsafe { out.cast::<sockaddr_in>().write(encoded) };
            size_of::<sockaddr_in>() as socklen_t
        }
        SocketAddr::V6(addr) => {
            let encoded = sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: addr.port().to_be(),
                sin6_flowinfo: addr.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                sin6_scope_id: addr.scope_id(),
            };
            // SAFETY: `sockaddr_storage` is larger than and aligned for every socket address.
            unsafe { out.cast::<sockaddr_in6>().write(encoded) };
            size_of::<sockaddr_in6>() as socklen_t
        }
    }
}

fn decode_addr(from: &sockaddr_storage) -> Option<SocketAddr> {
    let at = ptr::from_ref(from);
    match c_int::from(from.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says what it is; `sockaddr_storage` is large enough and aligned.
            let addr = unsafe { &*at.cast::<sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(addr.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says what it is; `sockaddr_storage` is large enough and aligned.
            let addr = unsafe { &*at.cast::<sockaddr_in6>() };
            let (ip, port) = (Ipv6Addr::from(addr.sin6_addr.s6_addr), u16::from_be(addr.sin6_port));
            Some(match ip.to_ipv4_mapped() {
                Some(ip) => SocketAddrV4::new(ip, port).into(),
                None => SocketAddrV6::new(ip, port, 0, addr.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
}
