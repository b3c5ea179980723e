// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each stage of the packet path costs by itself: `cargo bench -p pqvpn-dataplane --bench stages [-- FILTER]`.
//!
//! One element is one wire-sized packet of a 60 kB super-packet of TCP; `seal` and `open` include header protection.
//! The cipher `none` is what is left of them without encryption.
#![expect(clippy::unwrap_used, reason = "a bench stops at the first surprise")]

use std::{hint::black_box, net::UdpSocket, sync::Arc, time::Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pqvpn_crypto::{
    aead::AeadId,
    schedule::{Exporter, Role, SessionParts, SessionSecrets, Transcript},
};
use pqvpn_dataplane::{
    DataPlane, DataPlaneConfig, Offloads, SessionId, SessionInstall,
    mem::MemTun,
    session::{RxSession, TxSession},
};
use pqvpn_packet::{
    coalesce::Coalescer,
    header::{HEADER_LEN, OVERHEAD, PacketKind, is_tunnel, receiver_of},
    piece::is_piece,
    relay::is_relay,
    replay::{ReplayWindow, WINDOW_BITS},
    segment::Segmenter,
    virtio::{F_NEEDS_CSUM, GSO_TCPV4, VirtioNetHdr},
};

/// Payload of a segment on a path of 1500 bytes.
const SEGMENT: u16 = 1380;
/// Segments of a super-packet.
const SEGMENTS: usize = 44;

/// Receiver indices of a session.
const INDICES: u32 = 8;

const CIPHERS: [(&str, Option<AeadId>); 3] =
    [("none", None), ("aes-256-gcm", Some(AeadId::Aes256Gcm)), ("chacha20-poly1305", Some(AeadId::ChaCha20Poly1305))];

/// A super-packet of TCP, without and with its virtio header.
fn super_packet() -> (VirtioNetHdr, Vec<u8>) {
    let payload = SEGMENTS * usize::from(SEGMENT);
    let virtio = VirtioNetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 40,
        gso_size: SEGMENT,
        csum_start: 20,
        csum_offset: 16,
    };
    let mut packet = vec![0x45, 0];
    packet.extend(u16::try_from(40 + payload).unwrap().to_be_bytes());
    packet.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    packet.extend([0x1f, 0x90, 0xc0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
    packet.resize(packet.len() + payload, 7);
    (virtio, packet)
}

/// The segments, each with room for header and tag.
fn segments() -> Vec<Vec<u8>> {
    let (virtio, packet) = super_packet();
    let segmenter = Segmenter::new(&virtio, &packet).unwrap();
    let cut = |i| {
        let mut segment = vec![0; segmenter.len(i) + OVERHEAD];
        segmenter.write(i, &mut segment[HEADER_LEN..]);
        segment
    };
    (0..segmenter.count()).map(cut).collect()
}

fn parts(role: Role, cipher: Option<AeadId>) -> SessionParts {
    let secrets = SessionSecrets::derive(Exporter::from_bytes([7; 64]), Transcript::from_bytes([8; 64]), None);
    let mut parts = secrets.into_parts(role);
    if cipher.is_none() {
        parts.tx = parts.tx.without_encryption();
        parts.rx = parts.rx.without_encryption();
        parts.tx_header = parts.tx_header.without_encryption();
        parts.rx_header = parts.rx_header.without_encryption();
    }
    parts
}

fn sender(cipher: Option<AeadId>, now: Instant) -> TxSession {
    let parts = parts(Role::Initiator, cipher);
    TxSession::new(cipher.unwrap_or(AeadId::Aes256Gcm), parts.tx_header, parts.tx, now)
}

fn receiver(cipher: Option<AeadId>, now: Instant) -> RxSession {
    let parts = parts(Role::Responder, cipher);
    RxSession::new(cipher.unwrap_or(AeadId::Aes256Gcm), parts.rx_header, parts.rx, WINDOW_BITS, now)
}

fn seal_all(tx: &mut TxSession, now: Instant, packets: &mut [Vec<u8>]) {
    tx.begin_batch(now, SEGMENTS as u32).unwrap();
    for packet in packets {
        tx.seal(1, PacketKind::DataPartial, packet).unwrap();
    }
}

fn segment(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    let (virtio, packet) = super_packet();
    let mut out = vec![0; 1500];
    group.bench_function("tcp", |bencher| {
        bencher.iter(|| {
            let segmenter = Segmenter::new(&virtio, black_box(&packet)).unwrap();
            for i in 0..segmenter.count() {
                black_box(segmenter.write(i, &mut out));
            }
        });
    });
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    let now = Instant::now();
    for (name, cipher) in CIPHERS {
        let (mut tx, mut packets) = (sender(cipher, now), segments());
        group.bench_function(name, |bencher| bencher.iter(|| seal_all(&mut tx, now, black_box(&mut packets))));
    }
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    let now = Instant::now();
    for (name, cipher) in CIPHERS {
        let (mut tx, mut rx) = (sender(cipher, now), receiver(cipher, now));
        let mut sealed = || {
            let mut packets = segments();
            seal_all(&mut tx, now, &mut packets);
            packets
        };
        let mut open = |packets: &mut Vec<Vec<u8>>| {
            for packet in packets {
                black_box(rx.open(now, packet).unwrap().counter);
            }
        };
        group.bench_function(name, |bencher| bencher.iter_batched_ref(&mut sealed, &mut open, BatchSize::PerIteration));
    }
}

fn window(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("window");
    group.throughput(Throughput::Elements(1));
    for (name, stride) in [("in order", 0), ("pairs exchanged", 1)] {
        let (mut window, mut next) = (ReplayWindow::new(WINDOW_BITS), 0_u64);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let counter = next ^ stride;
                next += 1;
                window.check(black_box(counter)).unwrap();
                window.mark(counter);
            });
        });
    }
}

fn coalesce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    let (segments, mut coalescer) = (segments(), Coalescer::new(SEGMENTS));
    let mut run = |buffers: &mut Vec<Vec<u8>>| {
        for (i, buffer) in buffers.iter().enumerate() {
            let inner = &buffer[HEADER_LEN..buffer.len() - OVERHEAD + HEADER_LEN];
            coalescer.push(PacketKind::DataPartial, inner, i as u32, HEADER_LEN as u32).unwrap();
        }
        while let Some(merged) = coalescer.pop(buffers) {
            black_box(merged.pieces.len());
        }
    };
    group.bench_function("one flow", |bencher| {
        bencher.iter_batched_ref(|| segments.clone(), &mut run, BatchSize::PerIteration);
    });
}

fn demultiplex(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("demultiplex");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    let now = Instant::now();
    let mut packets = segments();
    seal_all(&mut sender(Some(AeadId::Aes256Gcm), now), now, &mut packets);
    // One of QUIC's long headers among them.
    packets[7][0] = 0xc3;
    let kind = |packet: &[u8]| match packet[0] {
        first if is_tunnel(first) => receiver_of(packet),
        first => Some(u32::from(is_relay(first)) + u32::from(is_piece(first))),
    };
    group.bench_function("batch", |bencher| {
        bencher.iter(|| packets.iter().filter_map(|packet| kind(black_box(packet))).fold(0, u32::wrapping_add));
    });
}

/// Finding the session of a packet by its receiver index, as a peer among many has eight of; every lookup another session.
fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    group.throughput(Throughput::Elements(1));
    for sessions in [1, 1000, 10_000_u32] {
        let now = Instant::now();
        let (_kernel, reader, writer) = MemTun::new(Offloads::default()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let path = socket.local_addr().unwrap();
        let tun = vec![(Box::new(reader) as _, Box::new(writer) as _)];
        let plane = DataPlane::start(DataPlaneConfig { tun, sockets: vec![socket], inner_mtu: 1420 }, Arc::new(|_| ()));
        let plane = plane.unwrap();
        let control = plane.control();
        let index = |session: u32, which: u32| (session * INDICES + which).wrapping_mul(0x9e37_79b9);
        for session in 0..sessions {
            let install = SessionInstall {
                id: SessionId(session.into()),
                peer: session,
                tx: sender(Some(AeadId::Aes256Gcm), now),
                rx: receiver(Some(AeadId::Aes256Gcm), now),
                local_indices: (0..INDICES).map(|which| index(session, which)).collect(),
                remote_indices: vec![1],
                path,
                tx_active: false,
            };
            control.install_session(install).unwrap();
        }
        let mut next = 0_u32;
        group.bench_function(format!("{sessions} sessions"), |bencher| {
            bencher.iter(|| {
                // A stride that is prime to all three numbers.
                next = (next + 7919) % sessions;
                control.index_in_use(black_box(index(next, 0)))
            });
        });
    }
}

criterion_group!(stages, segment, seal, open, window, coalesce, demultiplex, lookup);
criterion_main!(stages);
