// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packets for tests: builders of super-packets as a kernel hands them over, and slow, obvious checksums.

use proptest::prelude::*;

use crate::checksum;
use crate::virtio::{F_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VirtioNetHdr};

/// Everything that makes a super-packet.
#[derive(Debug, Clone)]
pub(crate) struct Super {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) id: u16,
    /// Bytes of TCP options, a multiple of four.
    pub(crate) options: usize,
    pub(crate) payload: Vec<u8>,
    pub(crate) mss: usize,
    pub(crate) port: u16,
}

impl Super {
    /// A TCP/IPv4 super-packet of `segments` full segments of 100 bytes.
    pub(crate) fn tcp(segments: usize) -> Self {
        let payload = (0..segments * 100).map(|i| i as u8).collect();
        Self { v6: false, udp: false, flags: 0x10, sequence: 1000, id: 7, options: 12, payload, mss: 100, port: 443 }
    }

    pub(crate) fn header_len(&self) -> usize {
        self.l4_offset() + if self.udp { 8 } else { 20 + self.options }
    }

    pub(crate) fn l4_offset(&self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    pub(crate) fn count(&self) -> usize {
        self.payload.len().div_ceil(self.mss).max(1)
    }

    /// The packet with its partial checksum.
    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut packet = vec![0; self.header_len()];
        packet.extend_from_slice(&self.payload);
        let (total, l4) = (packet.len(), self.l4_offset());
        let protocol = if self.udp { 17 } else { 6 };
        if self.v6 {
            packet[0] = 0x60;
            packet[1] = 0x12;
            packet[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
            packet[6..8].copy_from_slice(&[protocol, 64]);
            packet[8..40].copy_from_slice(&std::array::from_fn::<u8, 32, _>(|i| 0xfd ^ i as u8));
        } else {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            packet[4..6].copy_from_slice(&self.id.to_be_bytes());
            packet[6..10].copy_from_slice(&[0x40, 0, 63, protocol]);
            packet[12..20].copy_from_slice(&[10, 100, 0, 1, 10, 100, 0, 2]);
            let sum = checksum::checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        packet[l4..l4 + 4].copy_from_slice(&[0x1f, 0x90, (self.port >> 8) as u8, self.port as u8]);
        if self.udp {
            packet[l4 + 4..l4 + 6].copy_from_slice(&((total - l4) as u16).to_be_bytes());
        } else {
            packet[l4 + 4..l4 + 8].copy_from_slice(&self.sequence.to_be_bytes());
            packet[l4 + 8..l4 + 12].copy_from_slice(&[1, 2, 3, 4]);
            packet[l4 + 12] = ((20 + self.options) as u8 / 4) << 4;
            packet[l4 + 13] = self.flags;
            packet[l4 + 14..l4 + 16].copy_from_slice(&[0x20, 0]);
            packet[l4 + 20..l4 + 20 + self.options].fill(1);
        }
        let partial = naive_partial(&packet, l4);
        let at = l4 + self.csum_offset();
        packet[at..at + 2].copy_from_slice(&partial);
        packet
    }

    pub(crate) fn csum_offset(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    /// The header a kernel puts before it: no segmentation where one segment holds everything.
    pub(crate) fn virtio(&self) -> VirtioNetHdr {
        let partial = VirtioNetHdr {
            flags: F_NEEDS_CSUM,
            csum_start: self.l4_offset() as u16,
            csum_offset: self.csum_offset() as u16,
            ..VirtioNetHdr::default()
        };
        if self.count() == 1 {
            return VirtioNetHdr { gso_type: GSO_NONE, ..partial };
        }
        let ecn = if !self.udp && self.flags & 0x80 != 0 { GSO_ECN } else { 0 };
        let gso_type = match (self.udp, self.v6) {
            (true, _) => GSO_UDP_L4,
            (false, false) => GSO_TCPV4 | ecn,
            (false, true) => GSO_TCPV6 | ecn,
        };
        VirtioNetHdr { gso_type, hdr_len: self.header_len() as u16, gso_size: self.mss as u16, ..partial }
    }
}

/// Any super-packet of at most 400 segments.
pub(crate) fn any_super() -> impl Strategy<Value = Super> {
    let flags = prop_oneof![Just(0x10_u8), Just(0x18), Just(0x11), Just(0x19), Just(0x90), Just(0xd8), Just(0x50),];
    let shape = (any::<bool>(), any::<bool>(), 0_usize..=10, 1_usize..3000, any::<u16>());
    (shape, flags, any::<u32>(), any::<u16>(), any::<u8>(), 1_usize..60_000).prop_map(
        |((v6, udp, options, mss, port), flags, sequence, id, fill, len)| {
            // No more than fits one super-packet on the way back (coalesce.rs).
            let len = len.min(mss * if udp { 64 } else { 400 });
            let payload = (0..len).map(|i| (i as u8).wrapping_mul(31) ^ fill ^ (i >> 8) as u8).collect();
            Super { v6, udp, flags, sequence, id, options: options * 4, payload, mss, port }
        },
    )
}

/// Pseudo-header sum by the book, 16 bits at a time.
pub(crate) fn naive_partial(packet: &[u8], l4: usize) -> [u8; 2] {
    let (addresses, protocol) = if packet[0] >> 4 == 6 { (8..40, packet[6]) } else { (12..20, packet[9]) };
    let mut words = packet[addresses].to_vec();
    words.extend([0, protocol]);
    words.extend(((packet.len() - l4) as u32).to_be_bytes());
    naive_sum(&words).to_be_bytes()
}

/// One's-complement sum, 16 bits at a time, not complemented.
pub(crate) fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Finishes the partial transport checksum, then verifies IPv4 header and transport checksum as a receiver would.
pub(crate) fn assert_checksums_after_completion(packet: &[u8], csum_offset: usize) {
    let v6 = packet[0] >> 4 == 6;
    let l4 = if v6 { 40 } else { 20 };
    if !v6 {
        assert_eq!(naive_sum(&packet[..20]), 0xffff, "IPv4 header checksum");
    }
    let mut packet = packet.to_vec();
    assert!(checksum::complete(&mut packet, l4, csum_offset));
    let mut words = naive_partial(&packet, l4).to_vec();
    words.extend_from_slice(&packet[l4..]);
    assert_eq!(naive_sum(&words), 0xffff, "transport checksum");
}
