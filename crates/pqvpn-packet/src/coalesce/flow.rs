// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which packets belong to one flow, and which continue one another.

use super::{CWR, FIN, GSO_ECN, IpView, PSH, TCP, TCP_CSUM, transport_header_len};
use crate::ip::UDP;

/// Longest IP and transport header a mergeable packet may have: 40 + 60, the most without extension headers.
const MAX_HEADER: usize = 100;
/// TCP flag: acknowledgement field is valid.
const ACK: u8 = 0x10;
/// TCP flag: ECN echo.
const ECE: u8 = 0x40;

/// What merging needs to know of a packet besides its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Hash of addresses, protocol and ports, as a quick "no".
    hash: u64,
    /// Source and destination port, 0 for what has none.
    ports: u32,
    pub(super) l4_offset: usize,
    /// IP and transport header.
    pub(super) header_len: usize,
    pub(super) payload_len: usize,
    pub(super) protocol: u8,
    pub(super) v6: bool,
    /// Whether it may be part of a super-packet at all.
    pub(super) mergeable: bool,
}

/// A packet about to be merged or not.
#[derive(Debug)]
pub(super) struct Candidate<'p> {
    packet: &'p [u8],
    pub(super) shape: Shape,
}

/// The first packet of a super-packet, its headers copied: later packets are compared with them.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) shape: Shape,
    header: [u8; MAX_HEADER],
}

impl<'p> Candidate<'p> {
    /// Looks at a packet; `partial` says whether its kind (and the caller) allows merging.
    pub(super) fn new(view: &IpView<'p>, partial: bool) -> Self {
        let packet = view.bytes();
        let l4_offset = view.l4_offset();
        let header_len = l4_offset + transport_header_len(view).unwrap_or(0);
        let ports = view.ports().map_or(0, |(src, dst)| u32::from(src) << 16 | u32::from(dst));
        let mut shape = Shape {
            hash: hash(view.addresses(), u64::from(view.protocol()) << 32 | u64::from(ports)),
            ports,
            l4_offset,
            header_len,
            payload_len: packet.len() - header_len,
            protocol: view.protocol(),
            v6: view.is_v6(),
            mergeable: false,
        };
        shape.mergeable = partial && shape.can_merge(view);
        Self { packet, shape }
    }

    /// TCP flags; 0 for everything else.
    pub(super) fn flags(&self) -> u8 {
        let Shape { l4_offset, header_len, protocol, .. } = self.shape;
        if protocol == TCP && header_len > l4_offset { self.packet[l4_offset + 13] } else { 0 }
    }
}

impl Template {
    pub(super) fn of(candidate: &Candidate<'_>) -> Self {
        let mut header = [0; MAX_HEADER];
        // Beyond MAX_HEADER only packets reach that are never merged; of those the addresses are enough.
        let least = if candidate.shape.v6 { 40 } else { 20 };
        let kept = candidate.shape.header_len.clamp(least, MAX_HEADER);
        header[..kept].copy_from_slice(&candidate.packet[..kept]);
        Self { shape: candidate.shape, header }
    }

    /// Whether both have the same addresses, protocol and ports.
    pub(super) fn same_flow(&self, other: &Candidate<'_>) -> bool {
        let addresses = if self.shape.v6 { 8..40 } else { 12..20 };
        self.shape.hash == other.shape.hash
            && self.shape.ports == other.shape.ports
            && self.shape.protocol == other.shape.protocol
            && self.shape.v6 == other.shape.v6
            && self.header[addresses.clone()] == other.packet[addresses]
    }

    /// Whether `next`, mergeable as this, directly continues a super-packet of `len` bytes that began with this packet.
    pub(super) fn continued_by(&self, next: &Candidate<'_>, len: usize) -> bool {
        let Shape { l4_offset, header_len, protocol, .. } = self.shape;
        if header_len != next.shape.header_len || l4_offset != next.shape.l4_offset || !self.same_ip(next.packet) {
            return false;
        }
        protocol != TCP
            || tcp_continues(
                &self.header[l4_offset..header_len],
                &next.packet[l4_offset..header_len],
                (len - header_len) as u32,
            )
    }

    /// [`GSO_ECN`] where the first segment of a mergeable TCP packet has CWR set.
    pub(super) const fn ecn(&self) -> u8 {
        if self.header[self.shape.l4_offset + 13] & CWR != 0 { GSO_ECN } else { 0 }
    }

    /// Everything of the IP header that a super-packet has only once: all but length, id, header checksum, and the
    /// addresses, which the flow already has in common.
    fn same_ip(&self, other: &[u8]) -> bool {
        let mine = &self.header;
        if self.shape.v6 {
            mine[..4] == other[..4] && mine[6..8] == other[6..8]
        } else {
            mine[..2] == other[..2] && mine[6..10] == other[6..10]
        }
    }
}

impl Shape {
    /// Whether the packet, taken alone, looks like one segment of a super-packet.
    fn can_merge(&self, view: &IpView<'_>) -> bool {
        let plain_ip = self.l4_offset == if self.v6 { 40 } else { 20 };
        if !plain_ip || view.is_fragment() || self.payload_len == 0 || self.header_len == self.l4_offset {
            return false;
        }
        let l4 = view.l4();
        match self.protocol {
            TCP => l4[13] & ACK != 0 && l4[13] & !(ACK | PSH | FIN | CWR | ECE) == 0,
            UDP => usize::from(u16::from_be_bytes([l4[4], l4[5]])) == l4.len(),
            _ => false,
        }
    }
}

/// Whether the TCP header `next` follows `first` after `sent` bytes of payload, and says the same otherwise.
fn tcp_continues(first: &[u8], next: &[u8], sent: u32) -> bool {
    let sequence = |tcp: &[u8]| u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    sequence(next) == sequence(first).wrapping_add(sent)
        && next[13] & CWR == 0
        && (first[13] ^ next[13]) & !(CWR | FIN | PSH) == 0
        // Acknowledgement, data offset and reserved bits; window; urgent pointer and options.
        && first[8..13] == next[8..13]
        && first[14..TCP_CSUM] == next[14..TCP_CSUM]
        && first[18..] == next[18..]
}

/// A cheap mix of the flow's identity; a collision costs a compare, never a wrong merge.
fn hash(addresses: &[u8], rest: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, _) = addresses.as_chunks::<8>();
    words
        .iter()
        .fold(rest.wrapping_mul(ODD), |hash, word| (hash.rotate_left(29) ^ u64::from_ne_bytes(*word)).wrapping_mul(ODD))
}
