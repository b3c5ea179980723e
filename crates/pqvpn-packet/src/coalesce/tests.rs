// SPDX-License-Identifier: MIT OR Apache-2.0
//! What merges, what must not, order inside a flow, and the round trip with the segmenter.

use super::*;
use crate::segment::Segmenter;
use crate::testpackets::{Super, any_super, assert_checksums_after_completion};
use proptest::prelude::*;

const PARTIAL: PacketKind = PacketKind::DataPartial;

fn cut(whole: &Super) -> Vec<Vec<u8>> {
    let packet = whole.packet();
    let segmenter = Segmenter::new(&whole.virtio(), &packet).unwrap();
    (0..segmenter.count())
        .map(|i| {
            let mut out = vec![0; segmenter.len(i)];
            segmenter.write(i, &mut out);
            out
        })
        .collect()
}

/// Pushes packets (each in a buffer of its own, at offset 3) and returns what is written to the TUN.
fn merge(coalescer: &mut Coalescer, packets: &[(PacketKind, Vec<u8>)]) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    let mut buffers: Vec<Vec<u8>> = packets.iter().map(|(_, packet)| [&[9, 9, 9], &packet[..]].concat()).collect();
    for (i, (kind, _)) in packets.iter().enumerate() {
        coalescer.push(*kind, &buffers[i][3..], i as u32, 3).unwrap();
    }
    let mut written = Vec::new();
    while let Some(merged) = coalescer.pop(&mut buffers) {
        written.push((merged.virtio, merged.pieces.to_vec()));
    }
    assert!(coalescer.is_empty());
    written
        .into_iter()
        .map(|(virtio, pieces)| (virtio, pieces.iter().flat_map(|piece| piece.of(&buffers).to_vec()).collect()))
        .collect()
}

fn merge_partial(packets: Vec<Vec<u8>>) -> Vec<(VirtioNetHdr, Vec<u8>)> {
    let packets: Vec<_> = packets.into_iter().map(|packet| (PARTIAL, packet)).collect();
    merge(&mut Coalescer::new(4096), &packets)
}

#[test]
fn two_interleaved_flows_merge_apart_and_leave_in_order_of_their_first_packets() {
    let (one, two) = (Super::tcp(4), Super { port: 80, udp: true, v6: true, ..Super::tcp(4) });
    let packets = cut(&one).into_iter().zip(cut(&two)).flat_map(|(a, b)| [a, b]).collect();
    let written = merge_partial(packets);
    assert_eq!(written, [(one.virtio(), one.packet()), (two.virtio(), two.packet())]);
}

#[test]
fn a_difference_in_any_header_field_separates() {
    // Offsets in the second packet (IPv4, 12 bytes of TCP options): TOS, DF, TTL, sequence, acknowledgement, reserved
    // bits, ECE, window, urgent pointer, options.
    for at in [1, 6, 8, 27, 31, 32, 33, 35, 39, 40, 51] {
        let mut packets = cut(&Super::tcp(2));
        packets[1][at] ^= if at == 33 || at == 6 { 0x40 } else { 1 };
        let expected: Vec<_> = packets.clone();
        let written = merge_partial(packets);
        assert_eq!(written.len(), 2, "offset {at}");
        assert!(written.iter().zip(expected).all(|(written, packet)| written.1 == packet));
    }
}

#[test]
fn syn_rst_urg_and_empty_segments_never_merge() {
    for flags in [0x12, 0x14, 0x30, 0x00] {
        let written = merge_partial(cut(&Super { flags, ..Super::tcp(3) }));
        assert_eq!(written.len(), 3, "flags {flags:#x}");
    }
    let empty = Super { payload: Vec::new(), ..Super::tcp(1) }.packet();
    assert_eq!(merge_partial(vec![empty.clone(), empty]).len(), 2);
}

#[test]
fn push_cwr_short_and_long_segments_bound_a_super_packet() {
    let continued = |sequence| Super { sequence, ..Super::tcp(2) };
    // PSH ends: the next packet starts anew although it is consecutive.
    let pushed = Super { flags: 0x18, ..Super::tcp(2) };
    let written = merge_partial([cut(&pushed), cut(&continued(1200))].concat());
    assert_eq!(written[0], (pushed.virtio(), pushed.packet()));
    assert_eq!(written.len(), 2);
    // CWR starts.
    let reduced = Super { flags: 0x90, sequence: 1200, ..Super::tcp(2) };
    let written = merge_partial([cut(&continued(1000)), cut(&reduced)].concat());
    assert_eq!(written[1], (reduced.virtio(), reduced.packet()));
    assert_eq!(written.len(), 2);
    // A short segment ends, a longer one starts.
    let mut short = continued(1000);
    short.payload.truncate(150);
    assert_eq!(merge_partial([cut(&short), cut(&continued(1150))].concat()).len(), 2);
    let longer = Super { mss: 150, sequence: 1200, payload: vec![1; 300], ..Super::tcp(1) };
    assert_eq!(merge_partial([cut(&continued(1000)), cut(&longer)].concat()).len(), 2);
}

#[test]
fn order_inside_a_flow_survives_what_cannot_merge() {
    let packets = cut(&Super::tcp(6));
    let mut batch: Vec<_> = packets.iter().cloned().map(|packet| (PARTIAL, packet)).collect();
    batch[2].0 = PacketKind::Data; // complete checksum: passes alone
    let written = merge(&mut Coalescer::new(64), &batch);
    let lengths: Vec<_> = written.iter().map(|(_, packet)| packet.len()).collect();
    assert_eq!(lengths, [52 + 200, 152, 52 + 300]);
    assert_eq!(written[1], (VirtioNetHdr::default(), packets[2].clone()));
}

#[test]
fn reordered_segments_pass_but_do_not_merge_backwards() {
    let mut packets = cut(&Super::tcp(4));
    packets.swap(1, 2);
    let expected = packets.clone();
    let written: Vec<_> = merge_partial(packets).into_iter().map(|(_, packet)| packet).collect();
    assert_eq!(written, expected);
}

#[test]
fn udp_merges_only_where_allowed_and_only_with_an_honest_length() {
    let whole = Super { udp: true, ..Super::tcp(3) };
    let packets: Vec<_> = cut(&whole).into_iter().map(|packet| (PARTIAL, packet)).collect();
    assert_eq!(merge(&mut Coalescer::new(64).merge_udp(false), &packets).len(), 3);
    let mut lying = cut(&whole);
    lying[1][25] -= 1;
    assert_eq!(merge_partial(lying).len(), 3);
}

#[test]
fn limits_split_a_super_packet() {
    let many = Super { payload: vec![5; 2 * MAX_SEGMENTS], mss: 1, ..Super::tcp(1) };
    assert_eq!(merge_partial(cut(&many)).len(), 2);
    let datagrams = Super { udp: true, payload: vec![5; 2 * MAX_UDP_SEGMENTS + 1], mss: 1, ..Super::tcp(1) };
    assert_eq!(merge_partial(cut(&datagrams)).len(), 3);
    let halves = [cut(&Super { payload: vec![5; 40_000], mss: 1000, ..Super::tcp(1) }), {
        cut(&Super { payload: vec![5; 40_000], mss: 1000, sequence: 41_000, ..Super::tcp(1) })
    }];
    let written = merge_partial(halves.concat());
    assert_eq!(written.len(), 2);
    assert!(written.iter().all(|(_, packet)| packet.len() <= MAX_SUPER_PACKET));
}

#[test]
fn refusals_are_typed_and_leave_the_rest() {
    let mut coalescer = Coalescer::new(1);
    let packet = Super::tcp(1).packet();
    assert_eq!(coalescer.push(PARTIAL, &[0x45; 10], 0, 0), Err(CoalesceError::Ip(IpError::Truncated)));
    let mut icmp = packet.clone();
    icmp[9] = 1;
    assert_eq!(coalescer.push(PARTIAL, &icmp, 0, 0), Err(CoalesceError::NotPartial));
    let mut fragment = packet.clone();
    fragment[6] = 0x20;
    assert_eq!(coalescer.push(PARTIAL, &fragment, 0, 0), Err(CoalesceError::NotPartial));
    assert_eq!(coalescer.push(PARTIAL, &packet, 0, 0), Ok(()));
    assert_eq!(coalescer.push(PARTIAL, &packet, 0, 0), Err(CoalesceError::Full));
    let mut buffers = [packet.clone()];
    assert_eq!(coalescer.pop(&mut buffers).unwrap().pieces, [Piece { buffer: 0, offset: 0, len: packet.len() as u32 }]);
    assert_eq!(coalescer.pop(&mut buffers), None);
    assert_eq!(coalescer.push(PARTIAL, &packet, 0, 0), Ok(()));
}

#[test]
fn extension_headers_pass_alone_with_the_right_checksum_place() {
    let whole = Super { v6: true, udp: true, payload: vec![1; 50], ..Super::tcp(1) };
    let plain = whole.packet();
    let mut packet = plain[..40].to_vec();
    packet[6] = 60;
    packet[4..6].copy_from_slice(&((plain.len() - 40 + 104) as u16).to_be_bytes());
    packet.extend([17, 12]);
    packet.extend([0; 102]);
    packet.extend_from_slice(&plain[40..]);
    let written = merge_partial(vec![packet.clone(), packet.clone()]);
    assert_eq!(written.len(), 2);
    assert_eq!((written[0].0.csum_start, written[0].0.csum_offset, written[0].0.gso_type), (144, 6, 0));
    assert_eq!(written[1].1, packet);
}

#[test]
fn padding_is_left_out() {
    let packet = Super::tcp(1).packet();
    let padded = [&packet[..], &[0; 12]].concat();
    assert_eq!(merge_partial(vec![padded])[0].1, packet);
}

#[test]
fn steady_state_does_not_grow() {
    let mut coalescer = Coalescer::new(64);
    let packets: Vec<_> = cut(&Super::tcp(40)).into_iter().map(|packet| (PARTIAL, packet)).collect();
    let capacities = |c: &Coalescer| (c.entries.capacity(), c.groups.capacity(), c.scratch.capacity());
    let before = capacities(&coalescer);
    for _ in 0..3 {
        assert_eq!(merge(&mut coalescer, &packets).len(), 1);
    }
    assert_eq!(capacities(&coalescer), before);
}

proptest! {
    #[test]
    fn segmenting_then_coalescing_gives_the_super_packet_back(whole in any_super()) {
        let written = merge_partial(cut(&whole));
        // UDP datagrams of a flow say nothing of where the next batch begins; here there is only one.
        prop_assert_eq!(written.len(), 1);
        prop_assert_eq!(written[0].0, whole.virtio());
        prop_assert!(written[0].1 == whole.packet());
        assert_checksums_after_completion(&written[0].1, whole.csum_offset());
    }

    #[test]
    fn any_mix_keeps_every_byte_of_every_flow_in_order(
        flows in proptest::collection::vec((any_super(), any::<bool>()), 1..5), order: Vec<u8>,
    ) {
        let mut queues: Vec<std::collections::VecDeque<_>> = Vec::new();
        for (i, (whole, partial)) in flows.iter().enumerate() {
            let whole = Super { port: i as u16, payload: whole.payload[..whole.payload.len().min(9000)].to_vec(), ..whole.clone() };
            let kind = if *partial { PARTIAL } else { PacketKind::Data };
            queues.push(cut(&whole).into_iter().map(|packet| (kind, packet)).collect());
        }
        let mut batch = Vec::new();
        for pick in order.iter().chain([0_u8; 2000].iter()) {
            let live: Vec<usize> = (0..queues.len()).filter(|i| !queues[*i].is_empty()).collect();
            let Some(queue) = live.get(usize::from(*pick) % live.len().max(1)) else { break };
            batch.extend(queues[*queue].pop_front());
        }
        let sent = streams(batch.iter().map(|(_, packet)| packet));
        let written = merge(&mut Coalescer::new(4096), &batch);
        prop_assert!(streams(written.iter().map(|(_, packet)| packet)) == sent);
    }

    #[test]
    fn any_bytes_never_panic(
        packets in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 1..160)), 1..20),
        seed in any_super(), flips in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 0..10),
    ) {
        let mut coalescer = Coalescer::new(64);
        let mut buffers: Vec<Vec<u8>> = packets.iter().map(|(_, bytes)| bytes.clone()).collect();
        buffers.extend(cut(&seed).into_iter().take(30));
        for (packet, at, value) in flips {
            let packet = usize::from(packet) % buffers.len();
            let at = usize::from(at) % buffers[packet].len().min(120);
            buffers[packet][at] ^= value;
        }
        for (i, bytes) in buffers.iter().enumerate() {
            let partial = packets.get(i).is_none_or(|(partial, _)| *partial);
            let _ = coalescer.push(if partial { PARTIAL } else { PacketKind::Data }, bytes, i as u32, 0);
        }
        while let Some(merged) = coalescer.pop(&mut buffers) {
            prop_assert!(!merged.pieces.is_empty());
        }
    }
}

/// Payload per destination port, in order of appearance.
fn streams<'p>(packets: impl Iterator<Item = &'p Vec<u8>>) -> std::collections::BTreeMap<u16, Vec<u8>> {
    let mut streams = std::collections::BTreeMap::<u16, Vec<u8>>::new();
    for packet in packets {
        let view = IpView::parse(packet).unwrap();
        let header = transport_header_len(&view).unwrap();
        let (_, port) = view.ports().unwrap();
        streams.entry(port).or_default().extend_from_slice(&view.l4()[header..]);
    }
    streams
}
