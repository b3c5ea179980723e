// SPDX-License-Identifier: MIT OR Apache-2.0
//! The packet path step by step, for counting instructions: `valgrind --tool=callgrind <this> STEPS [small]`.
//!
//! Each step is one super-packet of 60 kB of TCP (or one packet of 84 bytes) through two planes on the loopback
//! interface, and the next begins when it has arrived: batches are the same every time. The difference between two
//! numbers of steps is what the path costs.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench stops at the first surprise and prints")]

use std::{
    net::UdpSocket,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::{
    aead::AeadId,
    schedule::{Exporter, Role, SessionSecrets, Transcript},
};
use pqvpn_dataplane::{
    DataPlane, DataPlaneConfig, Offloads, SessionId, SessionInstall,
    mem::MemTun,
    session::{RxSession, TxSession},
};
use pqvpn_packet::virtio::{F_NEEDS_CSUM, GSO_TCPV4, VirtioNetHdr};

fn plane() -> (DataPlane, MemTun, UdpSocket) {
    let (tun, reader, writer) = MemTun::new(Offloads { tso: true, uso: true }).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let same = socket.try_clone().unwrap();
    let config =
        DataPlaneConfig { tun: vec![(Box::new(reader), Box::new(writer))], sockets: vec![socket], inner_mtu: 1420 };
    (DataPlane::start(config, Arc::new(|_| ())).unwrap(), tun, same)
}

fn install(plane: &DataPlane, role: Role, other: &str, path: &UdpSocket) {
    let parts = SessionSecrets::derive(Exporter::from_bytes([7; 64]), Transcript::from_bytes([8; 64]), None);
    let parts = parts.into_parts(role);
    let (now, aead) = (Instant::now(), AeadId::ChaCha20Poly1305);
    plane.control().set_routes(vec![(other.parse().unwrap(), 0)]);
    let install = SessionInstall {
        id: SessionId(1),
        peer: 0,
        tx: TxSession::new(aead, parts.tx_header, parts.tx, now),
        rx: RxSession::new(aead, parts.rx_header, parts.rx, 8192, now),
        local_indices: vec![1],
        remote_indices: vec![1],
        path: path.local_addr().unwrap(),
        tx_active: true,
    };
    plane.control().install_session(install).unwrap();
}

/// A TCP super-packet of `payload` bytes with its virtio header.
fn packet(payload: usize) -> Vec<u8> {
    let virtio = VirtioNetHdr {
        flags: F_NEEDS_CSUM,
        gso_type: if payload > 1380 { GSO_TCPV4 } else { 0 },
        hdr_len: 40,
        gso_size: if payload > 1380 { 1380 } else { 0 },
        csum_start: 20,
        csum_offset: 16,
    };
    let mut packet = virtio.encode().to_vec();
    packet.extend([0x45, 0]);
    packet.extend(u16::try_from(40 + payload).unwrap().to_be_bytes());
    packet.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    packet.extend([0x1f, 0x90, 0xc0, 1, 0, 0, 0, 1, 0, 0, 0, 9, 0x50, 0x10, 2, 0, 0, 0, 0, 0]);
    packet.resize(packet.len() + payload, 7);
    packet
}

fn main() {
    let steps = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(10_000_usize);
    let payload = if std::env::args().any(|argument| argument == "small") { 44 } else { 60_000 };
    let (a, tun_a, socket_a) = plane();
    let (b, tun_b, socket_b) = plane();
    install(&a, Role::Initiator, "10.9.0.2/32", &socket_b);
    install(&b, Role::Responder, "10.9.0.1/32", &socket_a);
    let packet = packet(payload);
    let started = Instant::now();
    for _ in 0..steps {
        assert!(tun_a.inject(&packet));
        let mut arrived = 0;
        while arrived < payload {
            arrived += tun_b.collect(Duration::from_secs(60)).unwrap().len() - 50;
        }
    }
    println!("{:.2} us a step", started.elapsed().as_secs_f64() * 1e6 / steps.max(1) as f64);
}
