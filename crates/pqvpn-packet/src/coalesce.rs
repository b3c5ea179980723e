// SPDX-License-Identifier: MIT OR Apache-2.0
//! Joins the inner packets of a receive batch into super-packets for the TUN, without copying a payload byte.
//!
//! Feed every opened packet of a batch to [`Coalescer::push`], then drain with [`Coalescer::pop`]. The coalescer keeps
//! places in the caller's buffers, not bytes; `pop` patches the first packet's headers where they lie and returns the
//! virtio header and the pieces of one `writev`.
//!
//! Super-packets leave in the order of their first packets, and a packet joins only the newest super-packet of its
//! flow, so a flow's packets never overtake each other. Fragments have no ports and count as a flow of their own.

use crate::checksum;
use crate::header::PacketKind;
use crate::ip::{IpError, IpView, TCP};
use crate::segment::{CWR, FIN, PSH, TCP_CSUM, UDP_CSUM, partial_offset, transport_header_len};
use crate::virtio::{F_NEEDS_CSUM, GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VirtioNetHdr};

use flow::{Candidate, Shape, Template};

mod flow;

/// Most packets in one super-packet; with the virtio header well below `IOV_MAX` (1024) pieces.
pub const MAX_SEGMENTS: usize = 512;
/// Most datagrams in one super-packet of UDP: Linux refuses the whole of it above 128, before 6.10 above 64
/// (`UDP_MAX_SEGMENTS`).
pub const MAX_UDP_SEGMENTS: usize = 64;
/// Most bytes in one super-packet, headers included: what an IPv4 length field holds.
pub const MAX_SUPER_PACKET: usize = 65535;
/// How many of the newest super-packets a packet is compared with; bounds the work per packet in a batch of many flows.
const SCAN: usize = 32;
/// End of a packet list.
const END: u32 = u32::MAX;

/// Why a packet is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoalesceError {
    /// Not an IP packet that can be parsed; the peer is at fault.
    #[error(transparent)]
    Ip(#[from] IpError),
    /// Marked checksum-partial, but no whole TCP or UDP header is there; the peer is at fault.
    #[error("checksum-partial packet without a TCP or UDP header")]
    NotPartial,
    /// As many packets as the coalescer was made for are waiting: drain it, then push again.
    #[error("batch is full")]
    Full,
}

/// A run of bytes in one of the caller's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Index of the buffer.
    pub buffer: u32,
    /// First byte within it.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Piece {
    /// The piece's bytes.
    ///
    /// # Panics
    /// When it does not lie in `buffers`: they are not those it was pushed from.
    #[must_use]
    pub fn of<'b, B: AsRef<[u8]>>(&self, buffers: &'b [B]) -> &'b [u8] {
        &buffers[self.buffer as usize].as_ref()[self.offset as usize..][..self.len as usize]
    }

    fn of_mut<'b, B: AsMut<[u8]>>(&self, buffers: &'b mut [B]) -> &'b mut [u8] {
        &mut buffers[self.buffer as usize].as_mut()[self.offset as usize..][..self.len as usize]
    }
}

/// One write to the TUN: the virtio header, then the pieces in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Merged<'a> {
    /// Goes in front of the pieces.
    pub virtio: VirtioNetHdr,
    /// The first holds headers and payload, the others payload only; never empty.
    pub pieces: &'a [Piece],
}

/// A waiting packet (of a super-packet's later packets: its payload only).
#[derive(Debug, Clone, Copy)]
struct Entry {
    piece: Piece,
    next: u32,
}

/// A super-packet in the making.
#[derive(Debug)]
struct Group {
    template: Template,
    kind: PacketKind,
    first: u32,
    last: u32,
    packets: usize,
    /// Length of the whole super-packet in bytes.
    len: usize,
    /// FIN and PSH of the newest packet.
    end_flags: u8,
    /// No further packet may join.
    closed: bool,
}

/// Collects a receive batch; see the module's text. Reused batch after batch, it allocates only while it grows.
#[derive(Debug)]
pub struct Coalescer {
    entries: Vec<Entry>,
    groups: Vec<Group>,
    /// Groups already popped.
    popped: usize,
    capacity: usize,
    merge_udp: bool,
    scratch: Vec<Piece>,
}

impl Coalescer {
    /// A coalescer for batches of up to `capacity` packets.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.min(END as usize - 1);
        Self {
            entries: Vec::with_capacity(capacity),
            groups: Vec::with_capacity(capacity.min(256)),
            popped: 0,
            capacity,
            merge_udp: true,
            scratch: Vec::with_capacity(MAX_SEGMENTS),
        }
    }

    /// Whether UDP datagrams are merged too; kernels before 6.2 refuse such super-packets. On by default.
    #[must_use]
    pub const fn merge_udp(mut self, merge: bool) -> Self {
        self.merge_udp = merge;
        self
    }

    /// Whether nothing waits to be popped.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.popped == self.groups.len()
    }

    /// Whether it takes no further packet.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.entries.len() >= self.capacity
    }

    /// Takes an opened packet of which `packet` are the bytes, at `offset` of the caller's `buffer`.
    ///
    /// Bytes after the packet's own length (padding) are left out.
    ///
    /// # Errors
    /// [`CoalesceError`]; the packet is then not taken, all others stay.
    pub fn push(&mut self, kind: PacketKind, packet: &[u8], buffer: u32, offset: u32) -> Result<(), CoalesceError> {
        if self.is_full() {
            return Err(CoalesceError::Full);
        }
        let view = IpView::parse(packet)?;
        if kind == PacketKind::DataPartial && partial_offset(&view).is_none() {
            return Err(CoalesceError::NotPartial);
        }
        let udp_allowed = self.merge_udp || view.protocol() == TCP;
        let candidate = Candidate::new(&view, kind == PacketKind::DataPartial && udp_allowed);
        let piece = Piece { buffer, offset, len: view.total_len() as u32 };
        let entry = self.entries.len() as u32;
        let group = newest_of_flow(&mut self.groups[self.popped..], &candidate);
        if let Some(group) = group.filter(|group| group.admits(&candidate)) {
            let last = group.join(&candidate, entry);
            self.entries[last as usize].next = entry;
            let header = candidate.shape.header_len as u32;
            let piece = Piece { buffer, offset: offset + header, len: piece.len - header };
            self.entries.push(Entry { piece, next: END });
            return Ok(());
        }
        self.groups.push(Group::open(&candidate, kind, view.total_len(), self.entries.len() as u32));
        self.entries.push(Entry { piece, next: END });
        Ok(())
    }

    /// The next super-packet, with its headers patched in `buffers`; `None` (and ready for the next batch) when there
    /// is no more.
    ///
    /// # Panics
    /// When `buffers` are not those the batch was pushed from.
    pub fn pop<B: AsMut<[u8]>>(&mut self, buffers: &mut [B]) -> Option<Merged<'_>> {
        let Some(group) = self.groups.get(self.popped) else {
            self.clear();
            return None;
        };
        self.popped += 1;
        self.scratch.clear();
        let mut at = group.first;
        while at != END {
            let entry = self.entries[at as usize];
            self.scratch.push(entry.piece);
            at = entry.next;
        }
        let virtio = if group.packets == 1 {
            group.plain_header()
        } else {
            group.patch(self.scratch[0].of_mut(buffers));
            group.super_header()
        };
        Some(Merged { virtio, pieces: &self.scratch })
    }

    /// Forgets everything that waits.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.groups.clear();
        self.popped = 0;
    }
}

/// The newest super-packet of the candidate's flow among the last few.
fn newest_of_flow<'g>(groups: &'g mut [Group], candidate: &Candidate<'_>) -> Option<&'g mut Group> {
    groups.iter_mut().rev().take(SCAN).find(|group| group.template.same_flow(candidate))
}

impl Group {
    fn open(first: &Candidate<'_>, kind: PacketKind, len: usize, entry: u32) -> Self {
        let end_flags = first.flags() & (FIN | PSH);
        let closed = !first.shape.mergeable || end_flags != 0;
        Self { template: Template::of(first), kind, first: entry, last: entry, packets: 1, len, end_flags, closed }
    }

    /// Whether a packet of this flow continues the super-packet.
    fn admits(&self, next: &Candidate<'_>) -> bool {
        !self.closed
            && next.shape.mergeable
            && self.packets < if next.shape.protocol == TCP { MAX_SEGMENTS } else { MAX_UDP_SEGMENTS }
            && next.shape.payload_len <= self.template.shape.payload_len
            && self.len + next.shape.payload_len <= MAX_SUPER_PACKET
            && self.template.continued_by(next, self.len)
    }

    /// Adds a packet as entry `entry`; returns the entry it follows.
    fn join(&mut self, next: &Candidate<'_>, entry: u32) -> u32 {
        self.packets += 1;
        self.len += next.shape.payload_len;
        self.end_flags = next.flags() & (FIN | PSH);
        self.closed = self.end_flags != 0 || next.shape.payload_len < self.template.shape.payload_len;
        std::mem::replace(&mut self.last, entry)
    }

    /// Makes the first packet's headers those of the super-packet.
    fn patch(&self, packet: &mut [u8]) {
        let Shape { l4_offset, protocol, v6, .. } = self.template.shape;
        if v6 {
            packet[4..6].copy_from_slice(&((self.len - 40) as u16).to_be_bytes());
        } else {
            packet[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum::checksum(&packet[..l4_offset]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let addresses = if v6 { 8..40 } else { 12..20 };
        let l4_len = (self.len - l4_offset) as u64;
        let pseudo = checksum::pseudo_header(&packet[addresses], protocol) + l4_len;
        let transport = &mut packet[l4_offset..];
        if protocol == TCP {
            transport[13] |= self.end_flags;
        } else {
            transport[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes());
        }
        let at = self.csum_offset();
        transport[at..at + 2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    }

    /// The virtio header of a packet that stayed alone.
    fn plain_header(&self) -> VirtioNetHdr {
        match self.kind {
            PacketKind::Data => VirtioNetHdr::default(),
            PacketKind::DataPartial => self.partial_header(),
        }
    }

    /// The virtio header of several packets in one.
    fn super_header(&self) -> VirtioNetHdr {
        let Shape { header_len, payload_len, protocol, v6, .. } = self.template.shape;
        let gso_type = match (protocol, v6) {
            (TCP, false) => GSO_TCPV4 | self.template.ecn(),
            (TCP, true) => GSO_TCPV6 | self.template.ecn(),
            _ => GSO_UDP_L4,
        };
        VirtioNetHdr { gso_type, hdr_len: header_len as u16, gso_size: payload_len as u16, ..self.partial_header() }
    }

    /// Tells the kernel where the partial checksum is.
    fn partial_header(&self) -> VirtioNetHdr {
        VirtioNetHdr {
            flags: F_NEEDS_CSUM,
            csum_start: self.template.shape.l4_offset as u16,
            csum_offset: self.csum_offset() as u16,
            ..VirtioNetHdr::default()
        }
    }

    const fn csum_offset(&self) -> usize {
        if self.template.shape.protocol == TCP { TCP_CSUM } else { UDP_CSUM }
    }
}

#[cfg(test)]
mod tests;
