// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start, refusals at the start, and the end.

use std::{
    io,
    net::UdpSocket,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, mpsc},
};

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::{
    DataPlane, DataPlaneConfig, DataPlaneError, Event, InstallError, Offloads, ReadBatch, SessionId, SessionInstall,
    TunReader, TunWriter,
    mem::{MemReader, MemTun},
};

use crate::harness::{Keys, Node, PATIENCE, PEER, connected, indices};

#[test]
fn shutdown_wakes_and_joins_every_thread() {
    let (mut a, b) = connected();
    let control = a.control.clone();
    let addr = a.addr;
    a.plane.take().unwrap().shutdown();
    // With the handles gone too, nobody holds the sockets.
    drop((a, control));
    UdpSocket::bind(addr).unwrap();
    drop(b);
}

#[test]
fn handles_outlive_the_data_plane_without_harm() {
    let (mut a, _b) = connected();
    a.plane.take().unwrap().shutdown();
    a.control.set_routes(Vec::new());
    assert!(a.control.remove_session(SessionId(1)));
    assert_eq!(a.control.drops().total(), 0);
}

#[test]
fn several_queues_and_sockets_are_shared_out() {
    let sockets = vec![UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap()];
    let mut tun: Vec<(Box<dyn TunReader>, Box<dyn TunWriter>)> = Vec::new();
    for _ in 0..3 {
        let (_, reader, writer) = MemTun::new(Offloads::default()).unwrap();
        tun.push((Box::new(reader), Box::new(writer)));
    }
    let plane = DataPlane::start(DataPlaneConfig { tun, sockets, inner_mtu: 1280 }, Arc::new(|_| ())).unwrap();
    assert_eq!(format!("{plane:?}"), "DataPlane { threads: 6, .. }");
    assert!(plane.guest().local_addr().unwrap().is_ipv6());
    plane.shutdown();
}

#[test]
fn nothing_starts_without_device_or_socket() {
    let none = DataPlaneConfig { tun: Vec::new(), sockets: Vec::new(), inner_mtu: 1280 };
    assert!(matches!(DataPlane::start(none, Arc::new(|_| ())), Err(DataPlaneError::NoTun)));
    let (_, reader, writer) = MemTun::new(Offloads::default()).unwrap();
    let tun = DataPlaneConfig { tun: vec![(Box::new(reader), Box::new(writer))], sockets: Vec::new(), inner_mtu: 1280 };
    assert!(matches!(DataPlane::start(tun, Arc::new(|_| ())), Err(DataPlaneError::NoSocket)));
}

#[test]
fn a_session_that_does_not_fit_changes_nothing() {
    let node = Node::new();
    let path = node.addr;
    node.install(1, Keys::new(1).initiator, Role::Initiator, path, true);
    let attempt = |id: u64, local: Vec<u32>, remote: Vec<u32>| {
        let half = Keys::new(9).initiator;
        let install = SessionInstall {
            id: SessionId(id),
            peer: PEER + 1,
            tx: half.tx,
            rx: half.rx,
            local_indices: local,
            remote_indices: remote,
            path,
            tx_active: true,
        };
        node.control.install_session(install)
    };
    let taken = indices(1, Role::Initiator)[2];
    assert_eq!(attempt(2, vec![5, taken], vec![1]), Err(InstallError::IndexInUse(taken)));
    assert_eq!(attempt(1, vec![5], vec![1]), Err(InstallError::DuplicateId(SessionId(1))));
    assert_eq!(attempt(2, vec![], vec![1]), Err(InstallError::NoIndices));
    assert_eq!(attempt(2, vec![5], vec![]), Err(InstallError::NoIndices));
    assert!(!node.control.index_in_use(5));
    assert_eq!(node.control.path(PEER + 1), None);
    assert_eq!(attempt(2, vec![5], vec![1]), Ok(()));
}

#[test]
fn a_session_that_may_not_send_yet_does_not_move_the_path_of_one_that_does() {
    let node = Node::new();
    let at = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let path = || node.control.path(PEER);
    node.install(1, Keys::new(1).initiator, Role::Responder, at(1), false);
    assert_eq!(path(), Some(at(1)), "nobody else says where the peer is");
    node.control.activate_tx(SessionId(1));
    node.install(2, Keys::new(2).initiator, Role::Responder, at(2), false);
    assert_eq!(path(), Some(at(1)));
    node.control.remove_session(SessionId(2));
    assert_eq!(path(), Some(at(1)), "it came to nothing");
    node.install(3, Keys::new(3).initiator, Role::Responder, at(3), false);
    node.control.activate_tx(SessionId(3));
    assert_eq!(path(), Some(at(3)));
    node.install(4, Keys::new(4).initiator, Role::Initiator, at(4), true);
    assert_eq!(path(), Some(at(4)), "it sends at once");
    node.install(5, Keys::new(5).initiator, Role::Responder, at(5), false);
    node.install(6, Keys::new(6).initiator, Role::Initiator, at(6), true);
    node.control.activate_tx(SessionId(5));
    assert_eq!(path(), Some(at(6)), "a newer one sends");
}

/// A device whose driver goes mad at the first packet.
struct Mad(MemReader);

impl TunReader for Mad {
    fn read_batch(&mut self, _batch: &mut ReadBatch) -> io::Result<()> {
        panic!("on purpose");
    }

    fn poll_fd(&self) -> BorrowedFd<'_> {
        self.0.poll_fd()
    }
}

#[test]
fn a_packet_thread_that_panics_is_reported() {
    let (tun, reader, writer) = MemTun::new(Offloads::default()).unwrap();
    assert!(tun.inject(b"a packet"));
    let sockets = vec![UdpSocket::bind("127.0.0.1:0").unwrap()];
    let config = DataPlaneConfig { tun: vec![(Box::new(Mad(reader)), Box::new(writer))], sockets, inner_mtu: 1280 };
    let (sender, events) = mpsc::channel();
    let sink = Mutex::new(sender);
    let plane = DataPlane::start(config, Arc::new(move |event| sink.lock().unwrap().send(event).unwrap())).unwrap();
    let event = events.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(event, Event::Failed { what: "packet", .. }), "{event:?}");
    plane.shutdown();
}
