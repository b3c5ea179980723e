// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node with a memory TUN, and a peer of it played by hand.

use std::{
    fmt::Debug,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use pqvpn_crypto::{
    aead::AeadId,
    schedule::{Exporter, RatchetSeed, Role, SessionSecrets, Transcript},
};
use pqvpn_dataplane::{
    Control, DataPlane, DataPlaneConfig, DropReason, Event, Guest, Offloads, PeerSlot, SessionId, SessionInstall,
    mem::MemTun,
    session::{RxSession, TxSession},
};
use pqvpn_packet::header::{HEADER_LEN, PacketKind, TAG_LEN};

/// Far longer than anything takes; only a failing test waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Every node calls its only peer this.
pub(crate) const PEER: PeerSlot = 1;
/// Inner MTU of every node.
pub(crate) const MTU: u16 = 1420;
/// Inner addresses of the initiator's and the responder's side.
pub(crate) const ADDRESSES: [[&str; 2]; 2] = [["10.9.0.1", "fd09::1"], ["10.9.0.2", "fd09::2"]];

/// Both sides of a session, as a handshake would leave them.
pub(crate) struct Keys {
    pub(crate) initiator: Half,
    pub(crate) responder: Half,
}

/// One side of a session.
pub(crate) struct Half {
    pub(crate) tx: TxSession,
    pub(crate) rx: RxSession,
    pub(crate) ratchet: RatchetSeed,
}

impl Keys {
    pub(crate) fn new(seed: u8) -> Self {
        Self::at(seed, Instant::now())
    }

    /// Keys of a handshake at another time.
    pub(crate) fn at(seed: u8, now: Instant) -> Self {
        Self { initiator: half(seed, Role::Initiator, now), responder: half(seed, Role::Responder, now) }
    }
}

fn half(seed: u8, role: Role, now: Instant) -> Half {
    let secrets = SessionSecrets::derive(Exporter::from_bytes([seed; 64]), Transcript::from_bytes([!seed; 64]), None);
    let parts = secrets.into_parts(role);
    let aead = AeadId::ChaCha20Poly1305;
    Half {
        tx: TxSession::new(aead, parts.tx_header, parts.tx, now),
        rx: RxSession::new(aead, parts.rx_header, parts.rx, 8192, now),
        ratchet: parts.ratchet,
    }
}

/// Events in the order they came.
#[derive(Default)]
pub(crate) struct Events {
    list: Mutex<Vec<Event>>,
    came: Condvar,
}

impl Events {
    /// Takes the first event that `pick` makes something of, waiting for it.
    pub(crate) fn expect<T>(&self, pick: impl Fn(&Event) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut list = self.list.lock().unwrap();
        loop {
            if let Some((i, value)) = list.iter().enumerate().find_map(|(i, event)| Some((i, pick(event)?))) {
                list.remove(i);
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the event did not come; there are {list:?}");
            list = self.came.wait_timeout(list, left).unwrap().0;
        }
    }

    /// How many of the events so far satisfy `which`.
    pub(crate) fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.list.lock().unwrap().iter().filter(|event| which(event)).count()
    }
}

/// A running data plane.
pub(crate) struct Node {
    pub(crate) plane: Option<DataPlane>,
    pub(crate) control: Control,
    pub(crate) guest: Guest,
    pub(crate) tun: MemTun,
    pub(crate) events: Arc<Events>,
    pub(crate) addr: SocketAddr,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(Offloads { tso: true, uso: true }, "127.0.0.1:0")
    }

    pub(crate) fn with(offloads: Offloads, bind: &str) -> Self {
        let (tun, reader, writer) = MemTun::new(offloads).unwrap();
        let socket = UdpSocket::bind(bind).unwrap();
        let addr = socket.local_addr().unwrap();
        let events = Arc::new(Events::default());
        let sink = Arc::clone(&events);
        let config =
            DataPlaneConfig { tun: vec![(Box::new(reader), Box::new(writer))], sockets: vec![socket], inner_mtu: MTU };
        let plane = DataPlane::start(
            config,
            Arc::new(move |event| {
                sink.list.lock().unwrap().push(event);
                sink.came.notify_all();
            }),
        )
        .unwrap();
        Self { control: plane.control(), guest: plane.guest(), plane: Some(plane), tun, events, addr }
    }

    /// Routes the addresses of the other side to [`PEER`].
    pub(crate) fn route_to(&self, other: Role) {
        let nets = ADDRESSES[other as usize].map(|addr| (addr.parse::<IpAddr>().unwrap().into(), PEER));
        self.control.set_routes(nets.to_vec());
    }

    /// Installs one side of a session; the index lists are those of [`indices`].
    pub(crate) fn install(&self, id: u64, half: Half, role: Role, path: SocketAddr, tx_active: bool) -> RatchetSeed {
        let Half { tx, rx, ratchet } = half;
        let install = SessionInstall {
            id: SessionId(id),
            peer: PEER,
            tx,
            rx,
            local_indices: indices(id, role),
            remote_indices: indices(id, role.peer()),
            path,
            tx_active,
        };
        self.control.install_session(install).unwrap();
        ratchet
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.control.drops().get(reason)
    }

    /// Waits until `count` packets were dropped for a reason.
    pub(crate) fn expect_drops(&self, reason: DropReason, count: u64) {
        eventually(|| self.drops(reason), |&dropped| dropped >= count);
        assert_eq!(self.drops(reason), count, "{reason}");
    }

    /// The next packet (virtio header included) for the kernel.
    pub(crate) fn collect(&self) -> Vec<u8> {
        self.tun.collect(PATIENCE).unwrap_or_else(|| panic!("no packet came; {:?}", self.control.drops()))
    }

    /// Asserts that nothing is waiting for the kernel, after everything sent so far was dealt with.
    pub(crate) fn assert_nothing_collected(&self) {
        assert_eq!(self.tun.collect(Duration::ZERO), None);
    }
}

/// The receiver indices that `role` gave session `id`.
pub(crate) fn indices(id: u64, role: Role) -> Vec<u32> {
    let base = 0x1000_0000 * (role as u32 + 1) + u32::try_from(id).unwrap() * 16;
    (base..base + 8).collect()
}

/// Two nodes with routes to each other: the first is the initiator.
pub(crate) fn nodes() -> (Node, Node) {
    let (a, b) = (Node::new(), Node::new());
    a.route_to(Role::Responder);
    b.route_to(Role::Initiator);
    (a, b)
}

/// Two nodes with a session on which both may send.
pub(crate) fn connected() -> (Node, Node) {
    let (a, b) = nodes();
    let keys = Keys::new(1);
    a.install(1, keys.initiator, Role::Initiator, b.addr, true);
    b.install(1, keys.responder, Role::Responder, a.addr, true);
    (a, b)
}

/// The initiator played by hand: its session and a plain socket.
pub(crate) struct RawPeer {
    pub(crate) tx: TxSession,
    pub(crate) rx: RxSession,
    pub(crate) socket: UdpSocket,
    pub(crate) id: u64,
    pub(crate) to: SocketAddr,
}

/// A node (responder) and its peer played by hand.
pub(crate) fn raw_peer() -> (RawPeer, Node) {
    raw_peer_with(Offloads { tso: true, uso: true })
}

/// [`raw_peer`] with a choice of what the device takes.
pub(crate) fn raw_peer_with(offloads: Offloads) -> (RawPeer, Node) {
    let node = Node::with(offloads, "127.0.0.1:0");
    node.route_to(Role::Initiator);
    let socket = socket();
    let Keys { initiator, responder } = Keys::new(1);
    node.install(1, responder, Role::Responder, socket.local_addr().unwrap(), false);
    (RawPeer { tx: initiator.tx, rx: initiator.rx, socket, id: 1, to: node.addr }, node)
}

/// A plain socket on the loopback interface.
pub(crate) fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

impl RawPeer {
    /// Seals an inner packet into a datagram.
    pub(crate) fn seal(&mut self, kind: PacketKind, inner: &[u8]) -> Vec<u8> {
        let mut datagram = [&[0; HEADER_LEN], inner, &[0; TAG_LEN]].concat();
        self.tx.begin_batch(Instant::now(), 1).unwrap();
        self.tx.seal(indices(self.id, Role::Responder)[0], kind, &mut datagram).unwrap();
        datagram
    }

    /// Seals and sends an inner packet.
    pub(crate) fn send(&mut self, inner: &[u8]) -> Vec<u8> {
        let datagram = self.seal(PacketKind::Data, inner);
        self.send_raw(&datagram);
        datagram
    }

    pub(crate) fn send_raw(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.to).unwrap();
    }

    /// Receives and opens a datagram: its receiver index and what is in it.
    pub(crate) fn receive(&mut self) -> (u32, Vec<u8>) {
        let datagram = receive_on(&self.socket);
        self.open(datagram)
    }

    pub(crate) fn open(&mut self, mut datagram: Vec<u8>) -> (u32, Vec<u8>) {
        let index = pqvpn_packet::header::receiver_of(&datagram).unwrap();
        let opened = self.rx.open(Instant::now(), &mut datagram).unwrap();
        (index, opened.plaintext.to_vec())
    }
}

/// The next datagram on a socket.
pub(crate) fn receive_on(socket: &UdpSocket) -> Vec<u8> {
    let mut buf = vec![0; 65_536];
    let (len, _) = socket.recv_from(&mut buf).unwrap();
    buf.truncate(len);
    buf
}

/// Asserts that nothing came to a socket so far.
pub(crate) fn assert_silence(socket: &UdpSocket) {
    socket.set_nonblocking(true).unwrap();
    assert_eq!(socket.recv_from(&mut [0; 2048]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    socket.set_nonblocking(false).unwrap();
}

/// Looks at a value until it is as wanted.
pub(crate) fn eventually<T: Debug>(look: impl Fn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let value = look();
        if wanted(&value) {
            return value;
        }
        assert!(Instant::now() < deadline, "still {value:?}");
        std::thread::yield_now();
    }
}
