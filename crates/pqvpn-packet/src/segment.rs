// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cuts a super-packet from the TUN into wire-sized inner packets, each written once, into its send buffer.
//!
//! What the kernel would do in `tcp_gso_segment` and `__udp_gso_segment`, except that the transport checksum stays
//! partial (pseudo-header sum only): the tunnel's AEAD protects the packet, and the kernel at the far end finishes
//! the checksum only if the packet leaves that machine.

use crate::checksum;
use crate::header::PacketKind;
use crate::ip::{IpError, IpView, TCP, UDP};
use crate::virtio::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VirtioNetHdr};

/// Offset of the checksum in a TCP header.
pub(crate) const TCP_CSUM: usize = 16;
/// Offset of the checksum in a UDP header.
pub(crate) const UDP_CSUM: usize = 6;
/// TCP flag: no more data from the sender.
pub(crate) const FIN: u8 = 0x01;
/// TCP flag: push.
pub(crate) const PSH: u8 = 0x08;
/// TCP flag: congestion window reduced.
pub(crate) const CWR: u8 = 0x80;

/// Why a packet from the TUN cannot be sent. The kernel that handed it over is at fault, or the TUN's offload flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// Not a packet that can be parsed.
    #[error(transparent)]
    Ip(#[from] IpError),
    /// A segmentation type the device was not asked for.
    #[error("unsupported segmentation type {0}")]
    GsoType(u8),
    /// The segmentation type does not fit the packet, or its segment size is zero.
    #[error("segmentation type {0} does not fit the packet")]
    Mismatch(u8),
    /// The checksum to be finished lies outside the packet, or in headers that are no checksum.
    #[error("no checksum can be at {start}+{offset} of the packet")]
    Checksum {
        /// Where the checksummed range begins.
        start: u16,
        /// Where the checksum lies within the range.
        offset: u16,
    },
}

/// How the segments come about.
#[derive(Debug, Clone, Copy)]
enum Plan {
    /// One packet as it is.
    Whole(PacketKind),
    /// One packet whose checksum is finished here, because the far end could not tell where it is.
    Complete { start: usize, offset: usize },
    /// TCP segmentation.
    Tcp,
    /// UDP segmentation.
    Udp,
}

/// A super-packet and the plan to cut it. Holds no buffer of its own.
#[derive(Debug)]
pub struct Segmenter<'a> {
    packet: &'a [u8],
    plan: Plan,
    l4_offset: usize,
    /// Bytes of IP and transport header repeated in front of each piece; 0 for one packet as it is.
    header_len: usize,
    /// Payload bytes per segment (the last may have fewer).
    size: usize,
    count: usize,
    /// Sum of the IPv4 header without length, id and checksum; 0 for IPv6.
    ip_sum: u64,
    /// Sum of the pseudo-header without the length.
    pseudo: u64,
}

impl<'a> Segmenter<'a> {
    /// Checks a packet against its virtio header and plans its segments.
    ///
    /// # Errors
    /// [`SegmentError`] when the two contradict each other.
    pub fn new(virtio: &VirtioNetHdr, packet: &'a [u8]) -> Result<Self, SegmentError> {
        let view = IpView::parse(packet)?;
        if virtio.gso_type == GSO_NONE {
            return Self::single(virtio, view);
        }
        let protocol = match virtio.gso_type & !GSO_ECN {
            GSO_TCPV4 | GSO_TCPV6 => TCP,
            GSO_UDP_L4 => UDP,
            _ => return Err(SegmentError::GsoType(virtio.gso_type)),
        };
        let mismatch = SegmentError::Mismatch(virtio.gso_type);
        let family_fits = match virtio.gso_type & !GSO_ECN {
            GSO_TCPV4 => !view.is_v6(),
            GSO_TCPV6 => view.is_v6(),
            _ => true,
        };
        if !family_fits || view.protocol() != protocol || virtio.gso_size == 0 {
            return Err(mismatch);
        }
        let l4_len = transport_header_len(&view).ok_or(mismatch)?;
        Ok(Self::super_packet(view, l4_len, usize::from(virtio.gso_size)))
    }

    fn single(virtio: &VirtioNetHdr, view: IpView<'a>) -> Result<Self, SegmentError> {
        let packet = view.bytes();
        let plan = if virtio.needs_csum() {
            let (start, offset) = (usize::from(virtio.csum_start), usize::from(virtio.csum_offset));
            let is_partial = start == view.l4_offset() && partial_offset(&view) == Some(offset);
            // Written elsewhere in the headers, a checksum would change addresses or ports after they were looked at.
            // Of a header that is cut short the ports were.
            let seen = || transport_header_len(&view).unwrap_or(if view.ports().is_some() { 4 } else { 0 });
            let headers = view.l4_offset() + if is_partial { 0 } else { seen() };
            if start < view.l4_offset() || start + offset < headers || start + offset + 2 > packet.len() {
                return Err(SegmentError::Checksum { start: virtio.csum_start, offset: virtio.csum_offset });
            }
            if is_partial { Plan::Whole(PacketKind::DataPartial) } else { Plan::Complete { start, offset } }
        } else {
            Plan::Whole(PacketKind::Data)
        };
        let (l4_offset, size) = (view.l4_offset(), packet.len());
        Ok(Self { packet, plan, l4_offset, header_len: 0, size, count: 1, ip_sum: 0, pseudo: 0 })
    }

    fn super_packet(view: IpView<'a>, l4_len: usize, size: usize) -> Self {
        let packet = view.bytes();
        let l4_offset = view.l4_offset();
        let header_len = l4_offset + l4_len;
        let ip_sum = if view.is_v6() {
            0
        } else {
            let header = &packet[..l4_offset];
            let sum = checksum::add(0, &header[..2]) + checksum::add(0, &header[6..10]);
            sum + checksum::add(0, &header[12..])
        };
        Self {
            packet,
            plan: if view.protocol() == TCP { Plan::Tcp } else { Plan::Udp },
            l4_offset,
            header_len,
            size,
            count: (packet.len() - header_len).div_ceil(size).max(1),
            ip_sum,
            pseudo: checksum::pseudo_header(view.addresses(), view.protocol()),
        }
    }

    /// How many inner packets come out.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Length of the longest of them, in bytes. All but the last have this length.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.packet.len().min(self.header_len + self.size)
    }

    /// Length of inner packet `i` in bytes.
    #[must_use]
    pub fn len(&self, i: usize) -> usize {
        self.header_len + self.payload(i).len()
    }

    /// The kind all of them are sent as.
    #[must_use]
    pub const fn kind(&self) -> PacketKind {
        match self.plan {
            Plan::Whole(kind) => kind,
            Plan::Complete { .. } => PacketKind::Data,
            Plan::Tcp | Plan::Udp => PacketKind::DataPartial,
        }
    }

    /// Writes inner packet `i` to the start of `out` and returns its length.
    ///
    /// # Panics
    /// When `out` is shorter than [`Segmenter::len`] of `i`.
    pub fn write(&self, i: usize, out: &mut [u8]) -> usize {
        let payload = self.payload(i);
        let len = self.header_len + payload.len();
        let out = &mut out[..len];
        let (header, body) = out.split_at_mut(self.header_len);
        header.copy_from_slice(&self.packet[..self.header_len]);
        body.copy_from_slice(payload);
        match self.plan {
            Plan::Whole(_) => {}
            // The range was checked when the plan was made.
            Plan::Complete { start, offset } => _ = checksum::complete(out, start, offset),
            Plan::Tcp => self.fix_tcp(i, header, len),
            Plan::Udp => self.fix_udp(i, header, len),
        }
        len
    }

    /// The payload of inner packet `i`; for a packet as it is, all of it.
    fn payload(&self, i: usize) -> &'a [u8] {
        let all = &self.packet[self.header_len..];
        let start = (i * self.size).min(all.len());
        &all[start..(start + self.size).min(all.len())]
    }

    fn fix_tcp(&self, i: usize, header: &mut [u8], len: usize) {
        self.fix_ip(i, header, len);
        let tcp = &mut header[self.l4_offset..];
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add((i * self.size) as u32);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if i + 1 < self.count {
            tcp[13] &= !(FIN | PSH);
        }
        if i > 0 {
            tcp[13] &= !CWR;
        }
        tcp[TCP_CSUM..TCP_CSUM + 2].copy_from_slice(&self.partial_sum(len));
    }

    fn fix_udp(&self, i: usize, header: &mut [u8], len: usize) {
        self.fix_ip(i, header, len);
        let udp = &mut header[self.l4_offset..];
        udp[4..6].copy_from_slice(&((len - self.l4_offset) as u16).to_be_bytes());
        udp[UDP_CSUM..UDP_CSUM + 2].copy_from_slice(&self.partial_sum(len));
    }

    /// Length, identification (one more per segment, as the kernel does) and header checksum of IPv4; length of IPv6.
    fn fix_ip(&self, i: usize, header: &mut [u8], len: usize) {
        if header[0] >> 4 == 6 {
            header[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            return;
        }
        let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(i as u16);
        let sum = !checksum::fold(self.ip_sum + len as u64 + u64::from(id));
        header[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        header[4..6].copy_from_slice(&id.to_be_bytes());
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// The pseudo-header sum of a segment of `len` bytes, not complemented, as the kernel leaves it.
    fn partial_sum(&self, len: usize) -> [u8; 2] {
        checksum::fold(self.pseudo + (len - self.l4_offset) as u64).to_be_bytes()
    }
}

/// Offset of the transport checksum from the transport header, `None` where a partial one cannot be found again.
#[must_use]
pub fn partial_offset(view: &IpView<'_>) -> Option<usize> {
    transport_header_len(view)?;
    match view.protocol() {
        TCP => Some(TCP_CSUM),
        UDP => Some(UDP_CSUM),
        _ => None,
    }
}

/// Length of a TCP (with options) or UDP header that lies wholly in the packet; `None` for anything else.
pub(crate) fn transport_header_len(view: &IpView<'_>) -> Option<usize> {
    if view.is_fragment() {
        return None;
    }
    let l4 = view.l4();
    let len = match view.protocol() {
        TCP => usize::from(l4.get(12)? >> 4) * 4,
        UDP => 8,
        _ => return None,
    };
    let least = if view.protocol() == TCP { 20 } else { 8 };
    (len >= least && len <= l4.len()).then_some(len)
}

#[cfg(test)]
mod tests;
