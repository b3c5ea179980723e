// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments compared with what the kernel would have sent, and refusals.

use super::*;
use crate::testpackets::{Super, any_super, assert_checksums_after_completion};
use crate::virtio::{F_NEEDS_CSUM, GSO_UDP};
use proptest::prelude::*;

fn segments(virtio: &VirtioNetHdr, packet: &[u8]) -> Vec<Vec<u8>> {
    let segmenter = Segmenter::new(virtio, packet).unwrap();
    (0..segmenter.count())
        .map(|i| {
            let mut out = vec![0xee; segmenter.max_len()];
            let len = segmenter.write(i, &mut out);
            assert_eq!(len, segmenter.len(i));
            out.truncate(len);
            out
        })
        .collect()
}

#[test]
fn tcp_flags_sequence_and_id_per_segment() {
    let mut whole = Super::tcp(3);
    whole.flags = 0x99; // CWR, ACK, PSH, FIN
    whole.sequence = u32::MAX - 150;
    whole.id = 0xffff;
    whole.payload.truncate(250);
    let cut = segments(&whole.virtio(), &whole.packet());
    let tcp = |i: usize| &cut[i][20..];
    assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [152, 152, 102]);
    assert_eq!([tcp(0)[13], tcp(1)[13], tcp(2)[13]], [0x90, 0x10, 0x19]);
    let sequence = |i: usize| u32::from_be_bytes(tcp(i)[4..8].try_into().unwrap());
    assert_eq!([sequence(0), sequence(1), sequence(2)], [u32::MAX - 150, u32::MAX - 50, 49]);
    assert_eq!([&cut[0][4..6], &cut[1][4..6], &cut[2][4..6]], [[255, 255], [0, 0], [0, 1]]);
    assert_eq!(cut[2][2..4], [0, 102]);
    assert_eq!(Segmenter::new(&whole.virtio(), &whole.packet()).unwrap().kind(), PacketKind::DataPartial);
}

#[test]
fn plain_packets_pass_unchanged_and_lose_padding() {
    let mut packet = Super::tcp(1).packet();
    let segmenter = Segmenter::new(&VirtioNetHdr::default(), &packet).unwrap();
    assert_eq!((segmenter.count(), segmenter.kind()), (1, PacketKind::Data));
    let original = packet.clone();
    packet.extend([9; 6]);
    assert_eq!(segments(&VirtioNetHdr::default(), &packet), std::slice::from_ref(&original));
    let partial = Super::tcp(1).virtio();
    assert_eq!(Segmenter::new(&partial, &packet).unwrap().kind(), PacketKind::DataPartial);
    assert_eq!(segments(&partial, &packet), [original]);
}

#[test]
fn a_partial_checksum_that_is_not_tcp_or_udp_is_finished_here() {
    let mut packet = Super { udp: true, ..Super::tcp(1) }.packet();
    packet[9] = 1; // ICMP
    packet[22..24].fill(0);
    let virtio = VirtioNetHdr { flags: F_NEEDS_CSUM, csum_start: 20, csum_offset: 2, ..VirtioNetHdr::default() };
    assert_eq!(Segmenter::new(&virtio, &packet).unwrap().kind(), PacketKind::Data);
    let cut = segments(&virtio, &packet);
    assert_eq!(crate::testpackets::naive_sum(&cut[0][20..]), 0xffff);
}

#[test]
fn contradictions_are_refused() {
    let whole = Super::tcp(3);
    let (good, packet) = (whole.virtio(), whole.packet());
    let refuse = |virtio: VirtioNetHdr, packet: &[u8]| Segmenter::new(&virtio, packet).unwrap_err();
    assert_eq!(refuse(VirtioNetHdr { gso_type: GSO_UDP, ..good }, &packet), SegmentError::GsoType(GSO_UDP));
    for gso_type in [GSO_TCPV6, GSO_UDP_L4] {
        assert_eq!(refuse(VirtioNetHdr { gso_type, ..good }, &packet), SegmentError::Mismatch(gso_type));
    }
    assert_eq!(refuse(VirtioNetHdr { gso_size: 0, ..good }, &packet), SegmentError::Mismatch(GSO_TCPV4));
    let mut fragment = packet.clone();
    fragment[6] = 0x20;
    assert_eq!(refuse(good, &fragment), SegmentError::Mismatch(GSO_TCPV4));
    let mut short_tcp = packet.clone();
    short_tcp[32] = 0x40;
    assert_eq!(refuse(good, &short_tcp), SegmentError::Mismatch(GSO_TCPV4));
    let outside = VirtioNetHdr { gso_type: GSO_NONE, csum_start: packet.len() as u16, ..good };
    assert!(matches!(refuse(outside, &packet), SegmentError::Checksum { .. }));
    assert_eq!(refuse(good, &packet[..30]), SegmentError::Ip(IpError::Truncated));
}

#[test]
fn a_checksum_that_would_change_addresses_or_ports_is_refused() {
    for packet in [Super::tcp(1), Super { v6: true, ..Super::tcp(1) }, Super { udp: true, ..Super::tcp(1) }] {
        let (bytes, l4) = (packet.packet(), packet.l4_offset() as u16);
        let virtio = |csum_start, csum_offset| VirtioNetHdr {
            flags: F_NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..VirtioNetHdr::default()
        };
        for (start, offset) in
            [(0, 2), (0, 8), (0, 12), (0, 16), (0, l4 - 2), (8, 8), (l4 - 2, 0), (l4, 0), (l4, 2), (l4 + 2, 0)]
        {
            let refused = Segmenter::new(&virtio(start, offset), &bytes).unwrap_err();
            assert_eq!(refused, SegmentError::Checksum { start, offset });
        }
        let behind = packet.header_len() as u16;
        assert!(Segmenter::new(&virtio(behind, 6), &bytes).is_ok(), "a tunnel's own inner header");
    }
}

proptest! {
    #[test]
    fn every_segment_has_valid_checksums_and_the_right_bytes(whole in any_super()) {
        let cut = segments(&whole.virtio(), &whole.packet());
        prop_assert_eq!(cut.len(), whole.count());
        let mut payload = Vec::new();
        for segment in &cut {
            assert_checksums_after_completion(segment, whole.csum_offset());
            prop_assert!(segment.len() <= whole.header_len() + whole.mss);
            payload.extend_from_slice(&segment[whole.header_len()..]);
        }
        prop_assert_eq!(payload, whole.payload);
    }

    #[test]
    fn any_header_and_bytes_never_panic(
        header: [u8; 10], mut bytes in proptest::collection::vec(any::<u8>(), 1..200), six: bool, gso in 0_u8..6,
        ecn: bool, tcp: bool,
    ) {
        let len = bytes.len();
        let protocol = if tcp { 6 } else { 17 };
        bytes[0] = if six { 0x60 } else { 0x45 };
        if len > 40 {
            if six {
                bytes[4..7].copy_from_slice(&[0, (len - 40) as u8, protocol]);
            } else {
                bytes[2..4].copy_from_slice(&[0, len as u8]);
                bytes[6..10].copy_from_slice(&[0, 0, 9, protocol]);
            }
        }
        let mut virtio = VirtioNetHdr::decode(&header).unwrap();
        virtio.gso_type = gso | if ecn { GSO_ECN } else { 0 };
        virtio.gso_size %= 300;
        if let Ok(segmenter) = Segmenter::new(&virtio, &bytes) {
            let mut out = vec![0; segmenter.max_len()];
            for i in 0..segmenter.count() {
                prop_assert_eq!(segmenter.write(i, &mut out), segmenter.len(i));
            }
        }
    }
}
