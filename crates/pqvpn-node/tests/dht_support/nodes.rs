// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes in one process that form a small DHT of their own over loopback.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use pqvpn_crypto::{
    identity::{Identity, IdentitySeed},
    keystore::KdfParams,
    peer_id::PeerId,
};
use pqvpn_dataplane::{Offloads, mem::MemTun};
use pqvpn_node::{
    Interface, Node, StartOptions,
    config::{Config, PeerConfig},
    dht::{DhtReport, DhtState},
    handle::NodeHandle,
    link::Backend,
    store::KeystoreFile,
    supervisor::Supervised,
};
use tokio::task::JoinHandle;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One node, and what it takes to start it again.
pub(crate) struct TestNode {
    pub(crate) handle: NodeHandle,
    pub(crate) id: PeerId,
    pub(crate) at: SocketAddr,
    task: JoinHandle<()>,
    state: Option<tempfile::TempDir>,
    _tuns: Tuns,
}

/// The devices of all runs of a node.
type Tuns = Arc<Mutex<Vec<MemTun>>>;

fn device(tuns: &Tuns) -> Interface {
    let (tun, reader, writer) = MemTun::new(Offloads::default()).unwrap();
    tuns.lock().unwrap().push(tun);
    Interface::Given(vec![(Box::new(reader), Box::new(writer))])
}

/// How a node is started.
pub(crate) struct Plan {
    pub(crate) seed: IdentitySeed,
    pub(crate) config: Config,
    pub(crate) state: tempfile::TempDir,
    pub(crate) backend: Backend,
}

/// A DHT of its own for each test, so that tests never meet.
pub(crate) fn network() -> [u8; 32] {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let mut id = [0; 32];
    id[0] = NEXT.fetch_add(1, Ordering::Relaxed);
    id[1..5].copy_from_slice(&std::process::id().to_be_bytes());
    id
}

/// Reserves a loopback port; the socket is closed again so that the node can bind it.
pub(crate) fn free_port() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Plan {
    /// A node of the DHT `network` that knows `doors`; admission costs it two evaluations.
    pub(crate) fn new(network: [u8; 32], doors: &[&TestNode]) -> Self {
        let mut config = Config::default();
        config.node.listen = vec![free_port()];
        config.dht.network = Some(network);
        config.dht.difficulty = Some(2);
        config.bootstrap.lan = false;
        config.bootstrap.nodes =
            doors.iter().map(|door| format!("pqvpn://{}@{}", door.id, door.at).parse().unwrap()).collect();
        let state = tempfile::tempdir().unwrap();
        Self { seed: IdentitySeed::generate().unwrap(), config, state, backend: Backend::Noq }
    }

    pub(crate) fn id(&self) -> PeerId {
        Identity::from_seed(&self.seed).unwrap().peer_id()
    }

    /// Pins a peer, with an endpoint or to be found.
    pub(crate) fn pin(&mut self, peer: PeerId, at: Option<SocketAddr>) {
        let mut peer = PeerConfig::new(peer);
        peer.endpoints = at.iter().map(|at| at.to_string().parse().unwrap()).collect();
        self.config.peers.push(peer);
    }

    pub(crate) async fn start(self) -> TestNode {
        let identity = Identity::from_seed(&self.seed).unwrap();
        let (id, at) = (identity.peer_id(), self.config.node.listen[0]);
        let tuns = Tuns::default();
        let options = StartOptions {
            config: self.config,
            identity,
            state_dir: self.state.path().to_owned(),
            kept_in: None,
            interface: device(&tuns),
            backend: self.backend,
        };
        let (handle, task) = Node::start(options).await.unwrap();
        TestNode { handle, id, at, task, state: Some(self.state), _tuns: tuns }
    }

    /// Starts a node that keeps its key, so that it can be rotated.
    pub(crate) async fn start_kept(self) -> TestNode {
        let keystore = KeystoreFile::new(self.state.path(), KdfParams { memory_kib: 8, passes: 1, lanes: 1 });
        keystore.create(&self.seed, None).unwrap();
        let (id, at, tuns) = (self.id(), self.config.node.listen[0], Tuns::default());
        let devices = Arc::clone(&tuns);
        let supervised = Supervised {
            config: self.config,
            identity: Identity::from_seed(&self.seed).unwrap(),
            state_dir: self.state.path().to_owned(),
            kept_in: None,
            interface: Box::new(move || device(&devices)),
            backend: self.backend,
            keystore: Some(keystore),
        };
        let (handle, running) = Node::supervise(supervised).await.unwrap();
        let task = tokio::spawn(async move { running.await.unwrap().unwrap() });
        TestNode { handle, id, at, task, state: Some(self.state), _tuns: tuns }
    }
}

impl TestNode {
    /// Stops the node; what it kept on disk stays.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        self.handle.shutdown().await;
        self.task.await.unwrap();
        self.state.take().unwrap()
    }

    pub(crate) fn state_file(&self, name: &str) -> PathBuf {
        self.state.as_ref().unwrap().path().join(name)
    }

    pub(crate) async fn status(&self) -> DhtReport {
        self.handle.dht_status().await.unwrap()
    }

    /// Waits until `done` holds of the node's part in the DHT; polls, because the node has no other door.
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&DhtReport) -> bool) -> DhtReport {
        let start = Instant::now();
        loop {
            let report = self.status().await;
            if done(&report) {
                return report;
            }
            assert!(start.elapsed() < PATIENCE, "never {what}: {report:#?}");
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the node is in the DHT and its own record with somebody.
    pub(crate) async fn until_published(&self) -> DhtReport {
        self.until("published", |report| {
            report.state == DhtState::Joined
                && report.own_records.iter().any(|own| own.stored.is_some_and(|nodes| nodes > 0))
        })
        .await
    }
}

/// The count of refusals under a name.
pub(crate) fn counter(report: &DhtReport, name: &str) -> u64 {
    report.counters.iter().find(|(counted, _)| *counted == name).map(|(_, count)| *count).unwrap()
}
