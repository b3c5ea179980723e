// SPDX-License-Identifier: MIT OR Apache-2.0
//! Somebody on the path between two nodes: passes on what it sees, or breaks handshakes off in the name of the other end, or
//! loses what one end says over its links.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustls::{
    Side,
    quic::{Keys, Version},
};
use tokio::net;

use super::*;

/// TLS alert `bad_certificate` as a QUIC error (RFC 9001 4.8).
const BAD_CERTIFICATE: u16 = 0x0100 + 42;

pub(super) struct OnPath {
    /// Where it takes what is for the node behind it.
    pub(super) at: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    forges: AtomicBool,
    /// What the node behind says over links is lost; packets of the tunnel pass.
    mutes: AtomicBool,
    /// Nothing of the node behind passes.
    cut: AtomicBool,
    muted: AtomicUsize,
    /// Handshakes with the node behind, by the connection ids that their dialers chose.
    begun: Mutex<BTreeSet<Vec<u8>>>,
    /// Those that were broken off.
    forged: Mutex<BTreeSet<Vec<u8>>>,
}

impl OnPath {
    /// Before a node.
    pub(super) async fn to(node: &TestNode) -> Self {
        let [near, far] = [net::UdpSocket::bind("127.0.0.1:0").await, net::UdpSocket::bind("127.0.0.1:0").await];
        let (near, far) = (near.unwrap(), far.unwrap());
        let (at, shared) = (near.local_addr().unwrap(), Arc::<Shared>::default());
        let task = tokio::spawn(pass_on(near, far, node.at, Arc::clone(&shared)));
        Self { at, shared, task }
    }

    pub(super) fn forge(&self, whether: bool) {
        self.shared.forges.store(whether, Ordering::Relaxed);
    }

    pub(super) fn mute(&self, whether: bool) {
        self.shared.mutes.store(whether, Ordering::Relaxed);
    }

    pub(super) fn cut(&self) {
        self.shared.cut.store(true, Ordering::Relaxed);
    }

    /// Handshakes with the node behind.
    pub(super) fn begun(&self) -> usize {
        self.shared.begun.lock().unwrap().len()
    }

    /// Datagrams that were lost of what the node behind said over links.
    pub(super) fn muted(&self) -> usize {
        self.shared.muted.load(Ordering::Relaxed)
    }

    /// Handshakes that were broken off.
    pub(super) fn forged(&self) -> usize {
        self.shared.forged.lock().unwrap().len()
    }
}

impl Drop for OnPath {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(near: net::UdpSocket, far: net::UdpSocket, behind: SocketAddr, shared: Arc<Shared>) {
    let (mut before, mut up, mut down) = (behind, [0; 65536], [0; 65536]);
    loop {
        let (came_on, from, leaves_on, to, datagram) = tokio::select! {
            Ok((len, from)) = near.recv_from(&mut up) => {
                before = from;
                (&near, from, &far, behind, &up[..len])
            }
            Ok((len, from)) = far.recv_from(&mut down) => (&far, from, &near, before, &down[..len]),
        };
        if to != behind && shared.cut.load(Ordering::Relaxed) {
            continue;
        }
        if to == behind && datagram[0] & 0xf0 == 0xc0 {
            let begun = connection_ids(datagram).1.to_vec();
            shared.begun.lock().unwrap_or_else(PoisonError::into_inner).insert(begun);
        }
        // RFC 9000 17.3.1: the fixed bit, which no packet of the tunnel has.
        if to != behind && datagram[0] & 0x40 != 0 && shared.mutes.load(Ordering::Relaxed) {
            shared.muted.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        // RFC 9000 17.2: long headers are those of handshakes.
        if !shared.forges.load(Ordering::Relaxed) || datagram[0] & 0xc0 != 0xc0 {
            let _as_lost = leaves_on.send_to(datagram, to).await;
        } else if datagram[0] & 0x30 == 0 {
            let (dcid, scid) = connection_ids(datagram);
            if to == behind {
                shared.forged.lock().unwrap_or_else(PoisonError::into_inner).insert(scid.to_vec());
            }
            let _as_lost = came_on.send_to(&refusal(dcid, scid), from).await;
        }
    }
}

fn connection_ids(initial: &[u8]) -> (&[u8], &[u8]) {
    let scid_at = 6 + usize::from(initial[5]);
    (&initial[6..scid_at], &initial[scid_at + 1..][..usize::from(initial[scid_at])])
}

/// The refusal that the listener might send: its keys follow from the connection id that the dialer sends openly
/// (RFC 9001 5.2).
fn refusal(dcid: &[u8], scid: &[u8]) -> Vec<u8> {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().unwrap().quic_suite().unwrap();
    let keys: Keys = suite.keys(dcid, Side::Server, Version::V1);
    let [high, low] = (0x4000 | BAD_CERTIFICATE).to_be_bytes();
    let mut payload = vec![0x1c, high, low, 0, 0];
    payload.resize(64, 0);
    let number = [0, 0, 0, 0];
    let length = u16::try_from(number.len() + payload.len() + 16).unwrap() | 0x4000;
    let mut packet = vec![0xc3, 0, 0, 0, 1, u8::try_from(scid.len()).unwrap()];
    packet.extend(scid);
    packet.extend([4, 1, 2, 3, 4, 0]);
    packet.extend(length.to_be_bytes());
    let number_at = packet.len();
    packet.extend(number);
    let tag = keys.local.packet.encrypt_in_place(0, &packet, &mut payload).unwrap();
    packet.extend(&payload);
    packet.extend(tag.as_ref());
    let (header, rest) = packet.split_at_mut(number_at + 4);
    let (first, header) = header.split_first_mut().unwrap();
    keys.local.header.encrypt_in_place(&rest[..16], first, &mut header[number_at - 1..]).unwrap();
    packet
}
