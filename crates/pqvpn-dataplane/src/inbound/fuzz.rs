// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything between the sockets and the TUN under any bytes: what strangers send, and what only a peer can seal.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::{
    aead::AeadId,
    schedule::{Exporter, Role, SessionSecrets, Transcript},
};
use pqvpn_packet::{
    header::{HEADER_LEN, PacketKind, TAG_LEN},
    ip::IpView,
    segment::Segmenter,
    virtio::{VIRTIO_NET_HDR_LEN, VirtioNetHdr},
};

use super::{Inbound, PIECES, Pass, Reassembly};
use crate::{
    Control, SessionId, SessionInstall, clock,
    mem::MemTun,
    plane::Shared,
    session::{RxSession, TxSession},
    tun::Offloads,
    udp::{RecvMeta, Sockets},
    way::{Forward, ForwardLimit, Way, WayId},
};

const PEER: u32 = 1;
/// The index that datagrams of the peer's session carry.
pub(super) const INDEX: u32 = 0x3132_3334;
/// What the peer may speak from, and what it may not.
const PREFIXES: [(&str, u32); 2] = [("10.9.0.2/32", PEER), ("fd09::2/128", PEER)];
/// Channels of a way to us and of what we relay.
const WAY_CHANNEL: u64 = 0x31_3131_3131_3131;
const FORWARD_CHANNEL: u64 = 0x32_3232_3232_3232;
/// Most bytes of one input that are looked at: what a batch holds.
const MOST: usize = 64 * 1024;

pub(super) struct Rig {
    pub(super) inbound: Inbound,
    control: Control,
    pub(super) tun: MemTun,
    next: u64,
}

thread_local! {
    static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
}

/// Takes a batch of messages, each `u8 how || u16 length || bytes`: from a stranger, the peer or a relay, as it is or sealed
/// with the peer's keys first. What reaches the TUN is whole and from the peer's own addresses.
///
/// # Panics
/// When it is not.
pub fn datagrams(data: &[u8]) {
    RIG.with_borrow_mut(|rig| rig.get_or_insert_with(Rig::new).run(data));
}

fn at(last: u8) -> SocketAddr {
    // Nobody listens there: what is answered is lost.
    SocketAddr::new(Ipv4Addr::new(127, 0, 0, last).into(), 9)
}

impl Rig {
    pub(super) fn new() -> Self {
        let (tun, _reader, writer) = MemTun::new(Offloads { tso: true, uso: true }).expect("a descriptor");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let sockets = Sockets::new(vec![socket]).expect("a socket that takes the options");
        let shared = Arc::new(Shared::new(1, sockets, 1420, Arc::new(|_| {})).expect("a descriptor"));
        let control = Control::new(Arc::clone(&shared));
        control.set_routes(PREFIXES.iter().map(|(prefix, peer)| (prefix.parse().expect("a prefix"), *peer)).collect());
        let way = Way::Relay { relay: at(4), out_channel: 1, in_channel: WAY_CHANNEL };
        control.set_way(WayId(1), way).expect("a way");
        let limit = Arc::new(ForwardLimit::new(u64::MAX, u64::MAX));
        let forward = Forward { from: at(3), to: at(5), out_channel: 2, limit };
        control.set_forward(FORWARD_CHANNEL, forward).expect("a forward");
        Self { inbound: Inbound::new(shared, 0, Box::new(writer)), control, tun, next: 1 }
    }

    /// Makes a session; gives what the peer seals with.
    pub(super) fn install(&self, id: SessionId, now: Instant) -> TxSession {
        let ((tx, rx), (peer, _)) = (half(Role::Initiator, now), half(Role::Responder, now));
        let install = SessionInstall {
            id,
            peer: PEER,
            tx,
            rx,
            local_indices: vec![INDEX],
            remote_indices: vec![7],
            path: at(3),
            tx_active: true,
        };
        self.control.install_session(install).expect("the one before is gone");
        peer
    }

    fn run(&mut self, data: &[u8]) {
        let (id, now) = (SessionId(self.next), clock::now());
        self.next += 1;
        self.inbound.pieces = [(); 2].map(|()| Reassembly::new(PIECES));
        let mut peer = self.install(id, now);
        let (mut storage, mut messages) = (Vec::new(), Vec::new());
        let mut rest = &data[..data.len().min(MOST)];
        while let Some((&[how, a, b], after)) = rest.split_first_chunk::<3>() {
            let (bytes, after) = after.split_at(usize::from(u16::from_be_bytes([a, b])).min(after.len()));
            rest = after;
            messages.push(message(how, bytes, &mut peer, now, &mut storage));
        }
        let tables = self.inbound.shared.tables.load_full();
        let mut pass = Pass { tables: &tables, now, socket: None, run: None };
        for (range, meta) in messages {
            self.inbound.message(&mut pass, &mut storage, range.start, &RecvMeta { len: range.len(), ..meta });
        }
        self.inbound.end(pass, &mut storage);
        self.control.remove_session(id);
        while let Some(written) = self.tun.collect(Duration::ZERO) {
            is_of_the_peer(&written);
        }
    }
}

/// One side of the session.
fn half(role: Role, now: Instant) -> (TxSession, RxSession) {
    let secrets = SessionSecrets::derive(Exporter::from_bytes([1; 64]), Transcript::from_bytes([2; 64]), None);
    let (parts, aead) = (secrets.into_parts(role), AeadId::ChaCha20Poly1305);
    let tx = TxSession::new(aead, parts.tx_header, parts.tx, now);
    (tx, RxSession::new(aead, parts.rx_header, parts.rx, 1024, now))
}

/// Puts one message into the storage. Bits of `how`: 0-1 from whom, 2 sealed, 3 checksum partial, 4-5 how many of its size
/// the kernel glued together.
fn message(
    how: u8,
    bytes: &[u8],
    peer: &mut TxSession,
    now: Instant,
    storage: &mut Vec<u8>,
) -> (Range<usize>, RecvMeta) {
    let start = storage.len();
    let glued = 1 + usize::from(how >> 4 & 3);
    let stride = if how & 4 == 0 { bytes.len().div_ceil(glued) } else { HEADER_LEN + bytes.len() + TAG_LEN };
    if how & 4 == 0 {
        storage.extend_from_slice(bytes);
    } else {
        let kind = if how & 8 == 0 { PacketKind::Data } else { PacketKind::DataPartial };
        for _ in 0..glued {
            let mut datagram = [&[0; HEADER_LEN], bytes, &[0; TAG_LEN]].concat();
            if peer.begin_batch(now, 1).is_ok() && peer.seal(INDEX, kind, &mut datagram).is_ok() {
                storage.extend_from_slice(&datagram);
            }
        }
    }
    let addr = [at(2), at(3), at(4), WayId(1).address()][usize::from(how & 3)];
    let range = start..storage.len();
    let meta = RecvMeta { addr, local: None, len: range.len(), stride, ecn: 0, truncated: false, interface: 0 };
    (range, meta)
}

/// What was written to the TUN, cut as the kernel would: packets of the peer and of nobody else.
fn is_of_the_peer(written: &[u8]) {
    let virtio = VirtioNetHdr::decode(written).expect("a virtio header");
    let packet = &written[VIRTIO_NET_HDR_LEN..];
    let segments = Segmenter::new(&virtio, packet).expect("the kernel would take it");
    for i in 0..segments.count() {
        let mut out = vec![0; segments.len(i)];
        segments.write(i, &mut out);
        let source = IpView::parse(&out).expect("each is a packet").src();
        let own: [IpAddr; 2] = ["10.9.0.2", "fd09::2"].map(|own| own.parse().expect("an address"));
        assert!(own.contains(&source), "{source} spoke through the peer's session");
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_corpus_is_harmless() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/datagrams");
        for file in fs::read_dir(folder).expect("the target has a corpus") {
            let data = fs::read(file.unwrap().path()).unwrap();
            (0..=data.len()).for_each(|len| super::datagrams(&data[..len]));
        }
    }
}
