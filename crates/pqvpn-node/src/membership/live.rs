// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes with a DHT of their own: members that have lost each other meet again, and nobody else can look where.

use std::{
    future::Future,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use pqvpn_crypto::{
    identity::{Identity, IdentitySeed},
    peer_id::PeerId,
};
use pqvpn_dataplane::{Offloads, mem::MemTun};
use pqvpn_dht::admission::week;
use pqvpn_wire::network::NetworkId;
use tokio::{task::JoinHandle, time::sleep};

use super::{
    CreateNetwork, InviteOptions, NetRef,
    blinded::Blind,
    network::{Moment, Network},
    report::{NetworkReport, NetworkState},
    store::Store,
};
use crate::{
    Interface, Node, StartOptions, clock,
    config::{Config, DhtMode},
    dht::{DhtState, RecordContent, RecordRef},
    handle::{NodeHandle, PeerRef},
    link::Backend,
};

const PATIENCE: Duration = Duration::from_secs(120);
const ANY: NetRef = NetRef(None);

struct Plan {
    seed: IdentitySeed,
    config: Config,
    state: tempfile::TempDir,
}

struct TestNode {
    handle: NodeHandle,
    id: PeerId,
    at: SocketAddr,
    plan: Plan,
    task: JoinHandle<()>,
    _tun: MemTun,
}

fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Plan {
    fn new(name: &str, dht: [u8; 32], mode: DhtMode, door: Option<&TestNode>) -> Self {
        let mut config = Config::default();
        config.node.listen = vec![free_port()];
        config.node.name = Some(name.to_owned());
        (config.dht.network, config.dht.difficulty, config.dht.mode) = (Some(dht), Some(2), mode);
        config.bootstrap.lan = false;
        config.bootstrap.nodes =
            door.iter().map(|door| format!("pqvpn://{}@{}", door.id, door.at).parse().unwrap()).collect();
        Self { seed: IdentitySeed::generate().unwrap(), config, state: tempfile::tempdir().unwrap() }
    }

    async fn start(self) -> TestNode {
        let identity = Identity::from_seed(&self.seed).unwrap();
        let (id, at) = (identity.peer_id(), self.config.node.listen[0]);
        let (tun, reader, writer) = MemTun::new(Offloads::default()).unwrap();
        let options = StartOptions {
            config: self.config.clone(),
            identity,
            state_dir: self.state.path().to_owned(),
            kept_in: None,
            interface: Interface::Given(vec![(Box::new(reader), Box::new(writer))]),
            backend: Backend::Noq,
        };
        let (handle, task) = Node::start(options).await.unwrap();
        TestNode { handle, id, at, plan: self, task, _tun: tun }
    }

    /// Starts at another address than before: whatever others remember of it is wrong.
    async fn start_elsewhere(mut self) -> TestNode {
        self.config.node.listen = vec![free_port()];
        self.start().await
    }

    /// The network as it is kept on the disk of a node that has stopped.
    fn network(&self, own: PeerId) -> Network {
        let (store, _) = Store::open(self.state.path()).unwrap();
        let (id, kept) = store.load().unwrap().pop_first().unwrap();
        Network::load(own, id, kept, Moment::now()).unwrap()
    }
}

impl TestNode {
    async fn stop(self) -> Plan {
        self.handle.shutdown().await;
        self.task.await.unwrap();
        self.plan
    }

    async fn network(&self) -> NetworkReport {
        self.handle.net_list().await.unwrap().remove(0)
    }

    async fn knows_contact(&self, peer: &PeerId) -> bool {
        let table = self.handle.dht_table().await.unwrap();
        table.buckets.iter().flat_map(|bucket| &bucket.contacts).any(|contact| contact.peer == *peer)
    }

    /// What lies in the DHT where a secret says that a member's record is.
    async fn look(&self, blind: &Blind, peer: &PeerId) -> Option<Vec<u8>> {
        let week = week(peer, clock::unix_millis());
        let owner = PeerRef(blind.owner(peer, week).unwrap().peer_id().to_string());
        let what = RecordRef::Value { owner: Some(owner), name: blind.name(peer, week) };
        match self.handle.dht_get(what).await.ok()?.record?.content {
            RecordContent::Value { value, .. } => Some(value),
            RecordContent::Peer { .. } | RecordContent::Other => None,
        }
    }
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "never {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A DHT of three strangers.
async fn strangers(dht: [u8; 32]) -> Vec<TestNode> {
    let door = Plan::new("door", dht, DhtMode::Server, None).start().await;
    let mut all = vec![door];
    for name in ["one", "two"] {
        let node = Plan::new(name, dht, DhtMode::Server, Some(&all[0])).start().await;
        all.push(node);
    }
    for node in &all {
        eventually("joined", || async { node.handle.dht_status().await.unwrap().state == DhtState::Joined }).await;
    }
    all
}

/// A network of these members, who take part in the DHT as clients: no table names them.
async fn members(dht: [u8; 32], door: &TestNode, names: &[&str]) -> (NetworkId, Vec<TestNode>) {
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(Plan::new(name, dht, DhtMode::Client, Some(door)).start().await);
    }
    let create = CreateNetwork { name: "home".to_owned(), ..CreateNetwork::default() };
    let id = nodes[0].handle.net_create(create).await.unwrap().id;
    let options = InviteOptions { uses: 8, ..InviteOptions::default() };
    let code = nodes[0].handle.invite_create(ANY, options).await.unwrap().code.unwrap();
    for node in &nodes[1..] {
        node.handle.join(code.clone(), None, PATIENCE).await.unwrap();
    }
    eventually("equal", || async {
        let mut heads = std::collections::BTreeSet::new();
        for node in &nodes {
            heads.insert(node.network().await.head);
        }
        heads.len() == 1
    })
    .await;
    (id, nodes)
}

fn dht_id(number: u8) -> [u8; 32] {
    let mut id = [number; 32];
    id[1..5].copy_from_slice(&std::process::id().to_be_bytes());
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_lost_every_address_of_each_other_meet_by_blinded_records_alone() {
    let strangers = strangers(dht_id(101)).await;
    let (id, mut nodes) = members(dht_id(101), &strangers[0], &["alice", "bob", "carol"]).await;
    let ids: Vec<PeerId> = nodes.iter().map(|node| node.id).collect();
    let carol = nodes.pop().unwrap().stop().await;
    let (bob, alice) = (nodes.pop().unwrap().stop().await, nodes.pop().unwrap().stop().await);
    let (alice, bob) = (alice.start_elsewhere().await, bob.start_elsewhere().await);
    for (node, other) in [(&alice, &bob), (&bob, &alice)] {
        eventually("met again", || async {
            let members = node.handle.members(ANY).await.unwrap();
            let met = members.iter().any(|member| member.peer == other.id && member.endpoints.contains(&other.at));
            met && node.network().await.gossip.synced.is_some()
        })
        .await;
        assert!(!node.knows_contact(&other.id).await, "no table of the DHT told where the other is");
    }

    // Members know where the record lies, and what it says; who knows everything but the secret knows neither.
    let blind = carol.network(ids[2]).blind().unwrap();
    eventually("said", || async { strangers[2].look(&blind, &bob.id).await.is_some() }).await;
    let value = strangers[2].look(&blind, &bob.id).await.unwrap();
    let this_week = week(&bob.id, clock::unix_millis());
    assert_eq!(blind.open(&bob.id, this_week, &value), Some(vec![bob.at]));
    assert!(!value.windows(2).any(|bytes| *bytes == bob.at.port().to_be_bytes()), "nothing is said in clear");
    for guess in [[0; 32], *id.as_bytes(), *bob.id.as_bytes()] {
        let outsider = Blind::new(&guess, id);
        assert_eq!(strangers[2].look(&outsider, &bob.id).await, None);
        assert_eq!(outsider.open(&bob.id, this_week, &value), None);
    }
    for node in [alice, bob].into_iter().chain(strangers) {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_revoked_does_not_find_those_that_still_find_each_other() {
    let strangers = strangers(dht_id(102)).await;
    let (_, mut nodes) = members(dht_id(102), &strangers[0], &["alice", "bob", "carol"]).await;
    let ids: Vec<PeerId> = nodes.iter().map(|node| node.id).collect();
    let (carol, bob, alice) = (nodes.pop().unwrap(), nodes.pop().unwrap(), nodes.pop().unwrap());
    let revoked = alice.handle.revoke(ANY, PeerRef(carol.id.to_string()), "lost".to_owned()).await.unwrap();
    assert_eq!(revoked.pushed_to, 1, "bob has the statement, and the secret with it");
    eventually("told", || async { carol.network().await.state == NetworkState::Revoked }).await;
    let (alice, bob, carol) = (alice.stop().await, bob.stop().await, carol.stop().await);
    let (alice, bob) = (alice.start_elsewhere().await, bob.start_elsewhere().await);
    for (node, other) in [(&alice, &bob), (&bob, &alice)] {
        eventually("met again", || async {
            let members = node.handle.members(ANY).await.unwrap();
            members
                .iter()
                .any(|member| member.peer == other.id && member.online && member.endpoints.contains(&other.at))
        })
        .await;
    }
    // What carol knows leads to nothing that is of now; what alice knows does.
    let alice = alice.stop().await;
    let now_ms = clock::unix_millis();
    let this_week = week(&bob.id, now_ms);
    let [knows, knew] = [(&alice, ids[0]), (&carol, ids[2])].map(|(plan, own)| {
        let mut network = plan.network(own);
        network.look_at_covers(clock::now());
        network.blinds(now_ms)
    });
    let value = strangers[2].look(&knows[0], &bob.id).await.expect("it lies there");
    assert_eq!(knows[0].open(&bob.id, this_week, &value), Some(vec![bob.at]));
    assert!(!knew.is_empty());
    for blind in &knew {
        assert_eq!(blind.open(&bob.id, this_week, &value), None);
        let old = strangers[2].look(blind, &bob.id).await;
        let said = old.and_then(|value| blind.open(&bob.id, this_week, &value));
        assert!(said.is_none_or(|said| !said.contains(&bob.at)), "what was said before, at most");
    }
    for node in std::iter::once(bob).chain(strangers) {
        node.stop().await;
    }
}
