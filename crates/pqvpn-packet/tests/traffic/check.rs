// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold for any bytes on the data path: no panic, and every packet that comes out is whole and of the addresses
//! that went in. Shared with the fuzz targets.

use pqvpn_packet::{
    checksum,
    coalesce::{Coalescer, Merged},
    header::{self, HEADER_LEN, Header, MASK_LEN, PacketKind},
    inner::{Inner, PROBE_LEN, Probe},
    ip::{IpView, TCP},
    relay::{Channel, RELAY_LEN, is_relay},
    segment::Segmenter,
    virtio::{VIRTIO_NET_HDR_LEN, VirtioNetHdr},
};

/// A check and the name of its fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// Every check.
pub const TARGETS: [Target; 5] = [
    ("tunnel_header", tunnel_header),
    ("relay_header", relay_header),
    ("inner", inner),
    ("segment", segment),
    ("coalesce", coalesce),
];

/// Runs the check of one target.
pub fn run(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("the target exists");
    check(data);
}

/// The header of a datagram, and the mask on it: 12 bytes of mask, then the datagram.
fn tunnel_header(data: &[u8]) {
    let Some((mask, datagram)) = data.split_first_chunk::<MASK_LEN>() else { return };
    if let Some(sample) = header::sample_of(datagram) {
        assert_eq!(sample[..], datagram[HEADER_LEN..][..sample.len()]);
    }
    if let Ok(read) = Header::decode(datagram) {
        assert_eq!(read.encode()[..], datagram[..HEADER_LEN]);
        assert!(header::receiver_of(datagram).is_none_or(|receiver| receiver == read.receiver));
    }
    if let Some(bytes) = datagram.first_chunk::<HEADER_LEN>() {
        let mut masked = *bytes;
        header::apply_mask(&mut masked, mask);
        assert_eq!((masked[0] & 0xe0, &masked[4..8]), (bytes[0] & 0xe0, &bytes[4..8]));
        header::apply_mask(&mut masked, mask);
        assert_eq!(masked, *bytes);
    }
}

fn relay_header(data: &[u8]) {
    let read = Channel::of(data);
    assert_eq!(read.is_some(), data.len() > RELAY_LEN && is_relay(data[0]));
    if let Some(channel) = read {
        assert_eq!(Channel::new(channel.get()), Some(channel));
        let mut sent = data.to_vec();
        channel.write(&mut sent);
        assert_eq!((&sent[1..], sent[0] & 0xe0), (&data[1..], data[0] & 0xe0));
    }
}

/// What comes out of a sealed packet.
fn inner(data: &[u8]) {
    if let Ok(Inner::Probe) = Inner::classify(data)
        && let Ok(probe) = Probe::decode(data)
    {
        assert_eq!(probe.encode()[..], data[..PROBE_LEN]);
    }
    if let Ok(view) = IpView::parse(data) {
        assert!(view.l4_offset() <= view.total_len() && view.total_len() <= data.len());
        assert_eq!(view.l4().len(), view.total_len() - view.l4_offset());
        let _ = (view.src(), view.dst(), view.ports(), view.ttl());
        assert_eq!(IpView::parse(view.bytes()), Ok(view), "what is padding changes nothing");
    }
}

/// A virtio header and a packet, as the kernel gives them: whatever the header says, the packets cut from it are whole and
/// have its addresses.
fn segment(data: &[u8]) {
    let Some(virtio) = VirtioNetHdr::decode(data) else { return };
    let packet = &data[VIRTIO_NET_HDR_LEN..];
    let Ok(segments) = Segmenter::new(&virtio, packet) else { return };
    let whole = IpView::parse(packet).expect("it was cut");
    let cut = segments.count() > 1 || virtio.gso_type != 0;
    let mut payload = Vec::new();
    for i in 0..segments.count() {
        let mut out = vec![0xee; segments.len(i)];
        assert!(out.len() <= segments.max_len());
        assert_eq!(segments.write(i, &mut out), out.len());
        let part = IpView::parse(&out).expect("each is a packet");
        assert_eq!(part.total_len(), out.len());
        same_ends(&part, &whole);
        if cut {
            whole_checksums(&part);
            payload.extend_from_slice(&out[header_len(&part)..]);
        }
    }
    if cut {
        assert_eq!(payload, whole.bytes()[header_len(&whole)..]);
    }
}

fn same_ends(one: &IpView<'_>, other: &IpView<'_>) {
    assert_eq!(one.addresses(), other.addresses());
    assert_eq!((one.protocol(), one.l4_offset()), (other.protocol(), other.l4_offset()));
    assert_eq!((one.ports(), one.is_fragment()), (other.ports(), other.is_fragment()));
}

fn header_len(view: &IpView<'_>) -> usize {
    let transport = if view.protocol() == TCP { usize::from(view.l4()[12] >> 4) * 4 } else { 8 };
    view.l4_offset() + transport
}

/// The IPv4 header's checksum is right, and that of the transport is the sum of its own pseudo-header.
fn whole_checksums(view: &IpView<'_>) {
    if !view.is_v6() {
        assert_eq!(checksum::checksum(&view.bytes()[..view.l4_offset()]), 0);
    }
    let at = if view.protocol() == TCP { 16 } else { 6 };
    let sum = checksum::fold(checksum::pseudo_header(view.addresses(), view.protocol()) + view.l4().len() as u64);
    assert_eq!(view.l4()[at..at + 2], sum.to_be_bytes());
}

/// Packets of a batch, each `u8 kind || u16 length || bytes`: what is merged of them comes apart into them again.
fn coalesce(data: &[u8]) {
    let (mut packets, mut storage) = (Vec::new(), Vec::new());
    let mut coalescer = Coalescer::new(64).merge_udp(data.first().is_none_or(|first| first & 2 == 0));
    let mut rest = data;
    while let Some((&[kind, a, b], after)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_be_bytes([a, b])).min(after.len());
        let (packet, after) = after.split_at(len);
        rest = after;
        let kind = if kind & 1 == 0 { PacketKind::Data } else { PacketKind::DataPartial };
        let offset = storage.len();
        storage.extend_from_slice(packet);
        if coalescer.push(kind, packet, 0, offset as u32).is_ok() {
            packets.push((offset, packet));
        }
    }
    let mut seen = 0;
    loop {
        let copy = storage.clone();
        let Some(Merged { virtio, pieces }) = coalescer.pop(&mut [&mut storage[..]]) else { break };
        let pieces = pieces.to_vec();
        seen += pieces.len();
        let super_packet: Vec<u8> = pieces.iter().flat_map(|piece| piece.of(&[&storage]).to_vec()).collect();
        let whole = IpView::parse(&super_packet).expect("a packet was made");
        assert_eq!(whole.total_len(), super_packet.len());
        if pieces.len() == 1 {
            assert_eq!(pieces[0].of(&[&copy]), super_packet, "a packet alone is left as it is");
        }
        let segments = Segmenter::new(&virtio, &super_packet).expect("what is merged can be cut");
        assert_eq!(segments.count(), pieces.len());
        for (i, piece) in pieces.iter().enumerate() {
            let (_, packet) = packets.iter().rev().find(|(at, _)| *at <= piece.offset as usize).expect("it was pushed");
            let original = IpView::parse(packet).expect("it was taken");
            let mut out = vec![0; segments.len(i)];
            segments.write(i, &mut out);
            same_packet(&IpView::parse(&out).expect("each is a packet"), &original);
        }
    }
    assert_eq!(seen, packets.len(), "each packet leaves once");
}

/// Equal but for what a super-packet has once: the IPv4 identification, and the checksums.
fn same_packet(one: &IpView<'_>, other: &IpView<'_>) {
    same_ends(one, other);
    let plain = |view: &IpView<'_>| {
        let mut bytes = view.bytes().to_vec();
        if !view.is_v6() {
            bytes[4..6].fill(0);
            bytes[10..12].fill(0);
        }
        let at = view.l4_offset() + if view.protocol() == TCP { 16 } else { 6 };
        if let Some(sum) = bytes.get_mut(at..at + 2) {
            sum.fill(0);
        }
        bytes
    };
    assert_eq!(plain(one), plain(other));
}
