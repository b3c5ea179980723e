// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes in one process that share networks over loopback; no DHT unless asked for.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
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
    config::Config,
    handle::{NodeError, NodeHandle, PeerRef},
    link::Backend,
    membership::{CreateNetwork, InviteOptions, JoinReport, MemberReport, NetRef, NetworkError, NetworkReport},
    store::KeystoreFile,
    supervisor::Supervised,
};
use tokio::task::JoinHandle;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const ANY: NetRef = NetRef(None);

/// One node, and what it takes to start it again.
pub(crate) struct TestNode {
    pub(crate) handle: NodeHandle,
    pub(crate) id: PeerId,
    pub(crate) plan: Plan,
    task: JoinHandle<()>,
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
}

/// Reserves a loopback port; the socket is closed again so that the node can bind it.
pub(crate) fn free_port() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Plan {
    pub(crate) fn new(name: &str) -> Self {
        let mut config = Config::default();
        config.node.listen = vec![free_port()];
        config.node.name = Some(name.to_owned());
        config.dht.enabled = false;
        config.bootstrap.lan = false;
        let state = tempfile::tempdir().unwrap();
        Self { seed: IdentitySeed::generate().unwrap(), config, state }
    }

    pub(crate) async fn start(self) -> TestNode {
        let identity = Identity::from_seed(&self.seed).unwrap();
        let id = identity.peer_id();
        let tuns = Tuns::default();
        let options = StartOptions {
            config: self.config.clone(),
            identity,
            state_dir: self.state.path().to_owned(),
            kept_in: None,
            interface: device(&tuns),
            backend: Backend::Noq,
        };
        let (handle, task) = Node::start(options).await.unwrap();
        TestNode { handle, id, plan: self, task, _tuns: tuns }
    }

    /// Where the key is kept; made with the first call.
    pub(crate) fn keystore(&self) -> KeystoreFile {
        let keystore = KeystoreFile::new(self.state.path(), KdfParams { memory_kib: 8, passes: 1, lanes: 1 });
        if !keystore.exists().unwrap() {
            keystore.create(&self.seed, None).unwrap();
        }
        keystore
    }

    /// Starts the node that the keystore says, so that its key can be rotated.
    pub(crate) async fn start_kept(self) -> TestNode {
        let keystore = self.keystore();
        let identity = Identity::from_seed(&keystore.load(None).unwrap()).unwrap();
        let (id, tuns) = (identity.peer_id(), Tuns::default());
        let devices = Arc::clone(&tuns);
        let supervised = Supervised {
            config: self.config.clone(),
            identity,
            state_dir: self.state.path().to_owned(),
            kept_in: None,
            interface: Box::new(move || device(&devices)),
            backend: Backend::Noq,
            keystore: Some(keystore),
        };
        let (handle, running) = Node::supervise(supervised).await.unwrap();
        let task = tokio::spawn(async move { running.await.unwrap().unwrap() });
        TestNode { handle, id, plan: self, task, _tuns: tuns }
    }
}

impl TestNode {
    /// Starts a node.
    pub(crate) async fn new(name: &str) -> Self {
        Plan::new(name).start().await
    }

    /// Stops the node; what it kept on disk stays.
    pub(crate) async fn stop(self) -> Plan {
        self.handle.shutdown().await;
        self.task.await.unwrap();
        let port = self.plan.config.node.listen[0];
        let start = Instant::now();
        // The QUIC endpoint of a stopped node lets go of its port in its own time.
        while std::net::UdpSocket::bind(port).is_err() {
            assert!(start.elapsed() < PATIENCE, "{port} is never free");
            tokio::task::yield_now().await;
        }
        self.plan
    }

    pub(crate) async fn create(&self, network: &str) -> NetworkReport {
        self.create_with(CreateNetwork { name: network.to_owned(), ..CreateNetwork::default() }).await
    }

    pub(crate) async fn create_with(&self, network: CreateNetwork) -> NetworkReport {
        self.handle.net_create(network).await.unwrap()
    }

    pub(crate) async fn invite(&self, options: InviteOptions) -> String {
        self.handle.invite_create(ANY, options).await.unwrap().code.unwrap()
    }

    pub(crate) async fn join(&self, code: &str) -> Result<JoinReport, NetworkError> {
        self.join_as(code, None).await
    }

    pub(crate) async fn join_as(&self, code: &str, name: Option<&str>) -> Result<JoinReport, NetworkError> {
        let joined = self.handle.join(code.to_owned(), name.map(str::to_owned), Duration::from_secs(20)).await;
        joined.map_err(network_error)
    }

    pub(crate) async fn network(&self) -> NetworkReport {
        self.handle.net_list().await.unwrap().remove(0)
    }

    pub(crate) async fn members(&self) -> Vec<MemberReport> {
        self.handle.members(ANY).await.unwrap()
    }

    pub(crate) async fn revoke(&self, who: &Self) -> Result<(), NetworkError> {
        let revoked = self.handle.revoke(ANY, PeerRef(who.id.to_string()), "gone".to_owned()).await;
        revoked.map(drop).map_err(network_error)
    }

    pub(crate) async fn ping(&self, who: &Self) -> Result<Duration, NodeError> {
        self.handle.ping(PeerRef(who.id.to_string()), PATIENCE).await.map(|reply| reply.rtt)
    }

    /// Waits until `done` holds of the node's first network; polls, because the node has no other door.
    pub(crate) async fn until(&self, what: &str, done: impl Fn(&NetworkReport) -> bool) -> NetworkReport {
        let start = Instant::now();
        loop {
            let report = self.network().await;
            if done(&report) {
                return report;
            }
            assert!(start.elapsed() < PATIENCE, "never {what}: {report:#?}");
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn has_health(&self, code: &str) -> bool {
        self.network().await.health.iter().any(|item| item.code == code)
    }

    pub(crate) fn counter(report: &NetworkReport, name: &str) -> u64 {
        report.gossip.counters.iter().find(|(counted, _)| *counted == name).map(|(_, count)| *count).unwrap()
    }
}

/// The network's own error in a node's.
pub(crate) fn network_error(error: NodeError) -> NetworkError {
    let NodeError::Network(error) = error else { panic!("not an error of networks: {error}") };
    error
}

/// Waits until a condition holds that asks several nodes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < PATIENCE, "never {what}");
        tokio::task::yield_now().await;
    }
}

/// Waits until all nodes hold the same.
pub(crate) async fn until_equal(nodes: &[&TestNode]) {
    eventually("equal", || async {
        let mut heads = Vec::new();
        for node in nodes {
            heads.push(node.network().await.head);
        }
        heads.iter().all(|head| *head == heads[0])
    })
    .await;
}
