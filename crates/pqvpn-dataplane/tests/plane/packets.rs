// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inner packets for the tests, as the kernel would hand them over.

use std::net::IpAddr;

use pqvpn_packet::{
    checksum,
    virtio::{F_NEEDS_CSUM, GSO_TCPV4, GSO_TCPV6, VIRTIO_NET_HDR_LEN, VirtioNetHdr},
};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
/// A protocol nobody looks into (RFC 3692).
pub(crate) const EXPERIMENT: u8 = 253;

/// Bytes that tell their place.
pub(crate) fn payload(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed).to_le_bytes()[0]).collect()
}

/// An IP packet from `src` to `dst` around transport bytes.
pub(crate) fn ip(src: &str, dst: &str, protocol: u8, l4: &[u8]) -> Vec<u8> {
    match (src.parse().unwrap(), dst.parse().unwrap()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
            header[2..4].copy_from_slice(&u16::try_from(20 + l4.len()).unwrap().to_be_bytes());
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = checksum::checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header.extend(l4);
            header
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            header[4..6].copy_from_slice(&u16::try_from(l4.len()).unwrap().to_be_bytes());
            header.extend(src.octets());
            header.extend(dst.octets());
            header.extend(l4);
            header
        }
        mixed => panic!("{mixed:?}"),
    }
}

/// A TCP segment without options and with a partial checksum.
pub(crate) fn tcp(src: &str, dst: &str, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut l4 = vec![0x1f, 0x90, 0xc0, 0x01];
    l4.extend(sequence.to_be_bytes());
    l4.extend([0, 0, 0, 9, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
    l4.extend(payload);
    partial(src, dst, TCP, l4, 16)
}

/// A UDP datagram with a partial checksum.
pub(crate) fn udp(src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
    let mut l4 = vec![0x1f, 0x90, 0xc0, 0x01];
    l4.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(payload);
    partial(src, dst, UDP, l4, 6)
}

fn partial(src: &str, dst: &str, protocol: u8, l4: Vec<u8>, at: usize) -> Vec<u8> {
    let len = l4.len() as u64;
    let mut packet = ip(src, dst, protocol, &l4);
    let (start, addresses) = if packet[0] >> 4 == 4 { (20, 12..20) } else { (40, 8..40) };
    let sum = checksum::fold(checksum::pseudo_header(&packet[addresses], protocol) + len);
    packet[start + at..start + at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A virtio header in front of a packet.
pub(crate) fn with_header(header: &VirtioNetHdr, packet: &[u8]) -> Vec<u8> {
    [&header.encode(), packet].concat()
}

/// A plain packet as the TUN gives it.
pub(crate) fn plain(packet: &[u8]) -> Vec<u8> {
    with_header(&VirtioNetHdr::default(), packet)
}

/// A packet whose TCP or UDP checksum is partial, as the TUN gives it.
pub(crate) fn needs_csum(packet: &[u8], protocol: u8) -> Vec<u8> {
    let csum_offset = if protocol == TCP { 16 } else { 6 };
    let csum_start = if packet[0] >> 4 == 4 { 20 } else { 40 };
    with_header(&VirtioNetHdr { flags: F_NEEDS_CSUM, csum_start, csum_offset, ..VirtioNetHdr::default() }, packet)
}

/// A TCP super-packet as the TUN gives it.
pub(crate) fn tso(packet: &[u8], gso_size: u16) -> Vec<u8> {
    let v4 = packet[0] >> 4 == 4;
    let start = if v4 { 20 } else { 40 };
    let header = VirtioNetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: if v4 { GSO_TCPV4 } else { GSO_TCPV6 },
        hdr_len: start + 20,
        gso_size,
        csum_start: start,
        csum_offset: 16,
    };
    with_header(&header, packet)
}

/// Splits what the TUN was given.
pub(crate) fn split(written: &[u8]) -> (VirtioNetHdr, &[u8]) {
    (VirtioNetHdr::decode(written).unwrap(), &written[VIRTIO_NET_HDR_LEN..])
}

/// Whether a transport checksum is complete and right.
pub(crate) fn checksum_is_right(packet: &[u8], protocol: u8) -> bool {
    let (start, addresses) = if packet[0] >> 4 == 4 { (20, 12..20) } else { (40, 8..40) };
    let l4 = &packet[start..];
    let sum = checksum::pseudo_header(&packet[addresses], protocol) + l4.len() as u64;
    checksum::fold(checksum::add(sum, l4)) == 0xffff
}
