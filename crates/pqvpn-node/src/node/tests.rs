// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes in one process whose networks are what the test says: peers come, change and are cut off.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use pqvpn_crypto::{identity::IdentitySeed, peer_id::PeerId};
use pqvpn_dataplane::{Offloads, mem::MemTun};
use pqvpn_packet::addr::{NetworkHash, ipv4_candidate, ula};
use pqvpn_wire::dht::NetworkId;

mod heard;
mod on_path;
mod sleeping;

use super::*;
use crate::{
    config::PeerConfig,
    handle::{NodeError, PeerRef},
    membership::{MemberView, NetworkView},
    snapshot::{PeerSnapshot, PeerState, Snapshot},
};

const PATIENCE: Duration = Duration::from_secs(20);

struct TestNode {
    handle: NodeHandle,
    task: JoinHandle<()>,
    tun: MemTun,
    views: mpsc::Sender<Views>,
    at: SocketAddr,
    id: PeerId,
    _state: tempfile::TempDir,
}

fn seed() -> IdentitySeed {
    IdentitySeed::generate().unwrap()
}

async fn start(identity: Identity, peers: Vec<PeerConfig>) -> TestNode {
    start_with(identity, |config| config.peers = peers).await
}

async fn start_with(identity: Identity, change: impl FnOnce(&mut Config)) -> TestNode {
    let state = tempfile::tempdir().unwrap();
    let (tun, reader, writer) = MemTun::new(Offloads::default()).unwrap();
    let at = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = Config::default();
    config.node.listen = vec![at];
    config.dht.enabled = false;
    config.bootstrap.lan = false;
    change(&mut config);
    let id = identity.peer_id();
    let options = StartOptions {
        config,
        identity,
        state_dir: state.path().to_owned(),
        kept_in: None,
        interface: Interface::Given(vec![(Box::new(reader), Box::new(writer))]),
        backend: Backend::Noq,
    };
    let (views, receiver) = mpsc::channel(8);
    let (handle, _networks, task) = Node::start_with(options, NodeState::Up, None, receiver).await.unwrap();
    TestNode { handle, task, tun, views, at, id, _state: state }
}

async fn nodes<const N: usize>() -> [TestNode; N] {
    let mut nodes = Vec::new();
    for _ in 0..N {
        nodes.push(start(Identity::generate().unwrap(), Vec::new()).await);
    }
    nodes.try_into().ok().expect("as many as asked for")
}

/// A network of these nodes, as `own` sees it.
fn network(number: u8, own: &TestNode, all: &[&TestNode]) -> NetworkView {
    let id = NetworkId::from_bytes([number; 32]);
    let pool: Ipv4Net = format!("10.{}.0.0/16", 100 + number).parse().unwrap();
    let hash = NetworkHash::of_network(id.as_bytes());
    let member = |node: &TestNode| MemberView {
        peer: node.id,
        name: format!("node-{}", node.at.port()),
        addresses: vec![ula(hash, node.id.as_bytes()).into(), ipv4_candidate(pool, node.id.as_bytes(), 0).into()],
        endpoints: vec![node.at],
        online: true,
        admin: false,
        level_cap: 3,
        tags: Vec::new(),
    };
    let mut members: Vec<MemberView> = all.iter().filter(|node| node.id != own.id).map(|node| member(node)).collect();
    members.sort_by_key(|member| member.peer);
    NetworkView {
        id,
        name: format!("net-{number}"),
        prefix_v6: ipnet::Ipv6Net::new_assert(ula(hash, own.id.as_bytes()), 48).trunc(),
        pool,
        own: member(own),
        members,
        revoked: Vec::new(),
        ready: true,
        downs: 0,
        enabled: true,
        health: Vec::new(),
    }
}

/// Makes one network of all nodes, at each of them.
async fn gather(number: u8, all: &[&TestNode]) {
    for node in all {
        node.show(vec![network(number, node, all)]).await;
    }
}

impl TestNode {
    /// Shows the node its networks, and waits until it has taken them.
    async fn show(&self, views: Vec<NetworkView>) {
        let ids: Vec<_> =
            views.iter().map(|view| (view.id, view.members.len() + 1, view.enabled, view.ready)).collect();
        self.views.send(Arc::new(views)).await.unwrap();
        let taken = |snapshot: &Snapshot| {
            let networks = snapshot.networks.iter();
            networks.map(|network| (network.id, network.members, network.enabled, network.ready)).collect::<Vec<_>>()
        };
        self.until("shown", |snapshot| taken(snapshot) == ids).await;
    }

    async fn until(&self, what: &str, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let start = Instant::now();
        loop {
            let snapshot = self.handle.snapshot().await.unwrap();
            if done(&snapshot) {
                return snapshot;
            }
            assert!(start.elapsed() < PATIENCE, "never {what}: {snapshot:?}");
            tokio::task::yield_now().await;
        }
    }

    async fn peer(&self, other: &Self) -> Option<PeerSnapshot> {
        self.handle.snapshot().await.unwrap().peers.into_iter().find(|peer| peer.peer_id == other.id)
    }

    async fn ping(&self, other: &Self) -> Result<Duration, NodeError> {
        let name = PeerRef(other.id.to_string());
        self.handle.ping(name, PATIENCE).await.map(|reply| reply.rtt)
    }

    async fn drops(&self, reason: &str) -> u64 {
        let drops = self.handle.snapshot().await.unwrap().drops;
        drops.into_iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| count)
    }

    fn address(&self, number: u8) -> IpAddr {
        ula(NetworkHash::of_network(&[number; 32]), self.id.as_bytes()).into()
    }

    /// Sends a UDP packet from one address to another into the tunnel.
    fn send(&self, from: IpAddr, to: IpAddr, payload: &[u8]) {
        assert!(self.tun.inject(&packet(from, to, payload)));
    }

    /// The payload of the next packet out of the tunnel.
    async fn receive(&self) -> Vec<u8> {
        let tun = self.tun.clone();
        let written = tokio::task::spawn_blocking(move || tun.collect(PATIENCE)).await.unwrap();
        written.expect("a packet arrives")[58..].to_vec()
    }

    async fn stop(self) {
        self.handle.shutdown().await;
        self.task.await.unwrap();
    }
}

fn packet(from: IpAddr, to: IpAddr, payload: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { panic!("IPv6 only") };
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut bytes = vec![0; 10];
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([17, 64]);
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend([0x30, 0x39, 0x30, 0x39]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

#[tokio::test]
async fn members_reach_each_other_and_status_names_them() {
    let [a, b] = nodes().await;
    gather(1, &[&a, &b]).await;
    a.send(a.address(1), b.address(1), b"first");
    assert_eq!(b.receive().await, b"first");
    a.ping(&b).await.unwrap();
    let snapshot = a.handle.snapshot().await.unwrap();
    assert_eq!(snapshot.addresses[0], a.address(1), "the address of the network, and not the pinned one");
    let [network] = snapshot.networks.as_slice() else { panic!("{:?}", snapshot.networks) };
    assert_eq!((network.name.as_str(), network.members, network.online), ("net-1", 2, 2));
    let peer = a.peer(&b).await.unwrap();
    let name = format!("node-{}", b.at.port());
    assert_eq!((peer.state, peer.pinned, peer.name.as_str()), (PeerState::Verified, false, name.as_str()));
    for name in [name.clone(), format!("{name}.net-1"), b.address(1).to_string()] {
        a.handle.ping(PeerRef(name), PATIENCE).await.unwrap();
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn after_a_revocation_not_one_more_packet_of_the_peer_is_delivered_and_nobody_else_notices() {
    let [a, b, c] = nodes().await;
    gather(1, &[&a, &b, &c]).await;
    for (from, to) in [(&b, &a), (&c, &a), (&c, &b)] {
        from.ping(to).await.unwrap();
    }
    let before = a.peer(&c).await.unwrap();
    let mut view = network(1, &a, &[&a, &c]);
    view.revoked = vec![b.id];
    a.show(vec![view]).await;
    // b has heard nothing yet: it goes on sending, with the keys it has and then with new dials.
    for n in 0..200_u32 {
        b.send(b.address(1), a.address(1), &n.to_be_bytes());
    }
    let refused = b.ping(&a).await;
    assert!(matches!(&refused, Err(NodeError::Refused { .. })), "{refused:?}");
    b.until("refused", |snapshot| {
        snapshot.peers.iter().any(|peer| peer.peer_id == a.id && peer.state == PeerState::Refused)
    })
    .await;
    // Whatever came of b is dealt with before this one, and nothing of it came out.
    c.send(c.address(1), a.address(1), b"from c");
    assert_eq!(a.receive().await, b"from c");
    assert_eq!(a.tun.collect(Duration::ZERO), None);
    assert!(a.peer(&b).await.is_none());
    let after = a.peer(&c).await.unwrap();
    assert_eq!(after.state, PeerState::Verified);
    assert!(after.session.unwrap().rekey_age >= before.session.unwrap().rekey_age, "the session of c is the old one");
    b.ping(&c).await.expect("c has not heard of it yet");
    // Nor does anything leave for it.
    a.send(a.address(1), b.address(1), b"too late");
    let start = Instant::now();
    while a.drops("no_route").await == 0 {
        assert!(start.elapsed() < PATIENCE);
    }
    for node in [a, b, c] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_member_that_comes_back_is_a_peer_again() {
    let [a, b] = nodes().await;
    gather(1, &[&a, &b]).await;
    a.ping(&b).await.unwrap();
    let mut view = network(1, &a, &[&a]);
    view.revoked = vec![b.id];
    a.show(vec![view]).await;
    b.until("told", |snapshot| snapshot.peers[0].session.is_none()).await;
    gather(1, &[&a, &b]).await;
    a.ping(&b).await.unwrap();
    a.send(a.address(1), b.address(1), b"again");
    assert_eq!(b.receive().await, b"again");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_pinned_peer_stays_when_a_network_revokes_it() {
    let (alice, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (to_alice, to_bob) = (PeerConfig::new(alice.peer_id()), PeerConfig::new(bob.peer_id()));
    let (a, b) = (start(alice, vec![to_bob]).await, start(bob, vec![to_alice]).await);
    gather(1, &[&a, &b]).await;
    a.ping(&b).await.unwrap();
    let mut view = network(1, &a, &[&a]);
    view.revoked = vec![b.id];
    a.show(vec![view]).await;
    let peer = a.peer(&b).await.unwrap();
    assert!(peer.pinned && peer.session.is_some() && peer.networks.is_empty());
    a.ping(&b).await.unwrap();
    // Its address in the network is nobody's any more.
    let spoofs = a.drops("spoof").await;
    b.send(b.address(1), a.address(1), b"as a member");
    let start = Instant::now();
    while a.drops("spoof").await == spoofs {
        assert!(start.elapsed() < PATIENCE);
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn who_shares_one_network_of_two_keeps_the_session_but_not_the_other_network() {
    let [a, b] = nodes().await;
    for (node, other) in [(&a, &b), (&b, &a)] {
        node.show([1, 2].map(|number| network(number, node, &[node, other])).to_vec()).await;
    }
    a.ping(&b).await.unwrap();
    for number in [1, 2] {
        a.send(a.address(number), b.address(number), &[number]);
        assert_eq!(b.receive().await, [number]);
    }
    // From one network into the other: a drops it on its way out; b would, too.
    a.send(a.address(1), b.address(2), b"across");
    let mut left = network(2, &b, &[&b]);
    left.revoked = vec![a.id];
    b.show(vec![network(1, &b, &[&a, &b]), left]).await;
    assert_eq!(b.peer(&a).await.unwrap().networks.len(), 1);
    a.send(a.address(2), b.address(2), b"revoked here");
    a.send(a.address(1), b.address(1), b"still a member");
    assert_eq!(b.receive().await, b"still a member");
    assert_eq!((a.drops("realm").await, b.drops("spoof").await), (1, 1));
    assert!(b.peer(&a).await.unwrap().session.is_some(), "one session for both networks");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_network_that_is_switched_off_carries_nothing_until_it_is_on_again() {
    let [a, b, c] = nodes().await;
    let both = |off: bool| {
        let mut one = network(1, &a, &[&a, &b]);
        one.enabled = !off;
        vec![one, network(2, &a, &[&a, &c])]
    };
    a.show(both(false)).await;
    b.show(vec![network(1, &b, &[&a, &b])]).await;
    c.show(vec![network(2, &c, &[&a, &c])]).await;
    a.ping(&b).await.unwrap();
    a.ping(&c).await.unwrap();
    a.show(both(true)).await;
    assert!(a.peer(&b).await.is_none());
    assert!(a.peer(&c).await.unwrap().session.is_some());
    assert_eq!(a.handle.snapshot().await.unwrap().addresses[0], a.address(2));
    assert!(a.ping(&b).await.is_err());
    a.show(both(false)).await;
    a.ping(&b).await.unwrap();
    for node in [a, b, c] {
        node.stop().await;
    }
}

#[tokio::test]
async fn sessions_wait_until_the_network_has_been_heard_of() {
    let [a, b] = nodes().await;
    let mut view = network(1, &a, &[&a, &b]);
    view.ready = false;
    a.show(vec![view]).await;
    b.show(vec![network(1, &b, &[&a, &b])]).await;
    let impatient = |from: &TestNode, to: &TestNode| {
        let (handle, name) = (from.handle.clone(), PeerRef(to.id.to_string()));
        async move { handle.ping(name, Duration::from_millis(700)).await }
    };
    let (there, back) = tokio::join!(impatient(&a, &b), impatient(&b, &a));
    assert!(matches!(there, Err(NodeError::NoAnswer { .. })), "{there:?}");
    assert!(matches!(back, Err(NodeError::NoAnswer { .. })), "{back:?}");
    assert!(a.peer(&b).await.unwrap().session.is_none());
    // A packet that waits goes as soon as the network is ready.
    a.send(a.address(1), b.address(1), b"patience");
    a.show(vec![network(1, &a, &[&a, &b])]).await;
    assert_eq!(b.receive().await, b"patience");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_member_that_is_no_peer_here_is_refused_as_not_admitted() {
    let [a, b, c] = nodes().await;
    a.show(vec![network(1, &a, &[&a, &c])]).await;
    b.show(vec![network(1, &b, &[&a, &b])]).await;
    let refused = b.ping(&a).await;
    let Err(NodeError::Refused { why, .. }) = &refused else { panic!("{refused:?}") };
    assert!(why.contains("refused by the peer"), "{why}");
    assert!(a.peer(&b).await.is_none());
    for node in [a, b, c] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_link_of_our_own_identity_is_refused_and_said_once() {
    let seed = seed();
    let (one, two) = (Identity::from_seed(&seed).unwrap(), Identity::from_seed(&seed).unwrap());
    let a = start(one, Vec::new()).await;
    let mut itself = PeerConfig::new(two.peer_id());
    itself.endpoints = vec![a.at.to_string().parse().unwrap()];
    // A node does not dial itself by the config; the twin here is made to, as another program with the key may.
    let b = start(two, vec![itself]).await;
    let other = start(Identity::generate().unwrap(), Vec::new()).await;
    a.show(vec![network(1, &a, &[&a, &other])]).await;
    for _ in 0..2 {
        let refused = b.ping(&a).await;
        assert!(matches!(refused, Err(NodeError::Refused { .. })), "{refused:?}");
    }
    let said = |snapshot: &Snapshot| snapshot.health.iter().filter(|item| item.code == "identity-twice").count();
    let snapshot = a.until("said", |snapshot| said(snapshot) > 0).await;
    assert_eq!(said(&snapshot), 1);
    assert!(snapshot.peers.iter().all(|peer| peer.peer_id != a.id));
    for node in [a, b, other] {
        node.stop().await;
    }
}

#[tokio::test]
async fn after_it_was_down_a_node_waits_until_it_has_heard_its_networks_anew() {
    let [a, b] = nodes().await;
    gather(1, &[&a, &b]).await;
    a.ping(&b).await.unwrap();
    a.handle.down().await.unwrap();
    a.handle.up().await.unwrap();
    // What was on its way when the node went down comes late.
    a.views.send(Arc::new(vec![network(1, &a, &[&a, &b])])).await.unwrap();
    b.until("told", |snapshot| snapshot.peers[0].session.is_none()).await;
    let impatient = |from: &TestNode, to: &TestNode| {
        let (handle, name) = (from.handle.clone(), PeerRef(to.id.to_string()));
        async move { handle.ping(name, Duration::from_millis(700)).await }
    };
    let (there, back) = tokio::join!(impatient(&a, &b), impatient(&b, &a));
    assert!(matches!(there, Err(NodeError::NoAnswer { .. })), "{there:?}");
    assert!(matches!(back, Err(NodeError::NoAnswer { .. })), "{back:?}");
    assert!(a.peer(&b).await.unwrap().session.is_none());
    a.send(a.address(1), b.address(1), b"patience");
    a.show(vec![NetworkView { downs: 1, ..network(1, &a, &[&a, &b]) }]).await;
    assert_eq!(b.receive().await, b"patience");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn down_ends_the_sessions_of_members_too_and_up_brings_them_back() {
    let [a, b] = nodes().await;
    gather(1, &[&a, &b]).await;
    a.ping(&b).await.unwrap();
    a.handle.down().await.unwrap();
    assert_eq!(a.handle.snapshot().await.unwrap().networks[0].online, 0);
    b.until("told", |snapshot| snapshot.peers[0].session.is_none()).await;
    // What changes meanwhile counts when the node is up again.
    a.show(vec![NetworkView { downs: 1, ..network(2, &a, &[&a, &b]) }]).await;
    b.show(vec![network(2, &b, &[&a, &b])]).await;
    a.handle.up().await.unwrap();
    a.send(a.address(2), b.address(2), b"back");
    assert_eq!(b.receive().await, b"back");
    a.stop().await;
    b.stop().await;
}
