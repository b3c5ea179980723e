// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes in one process: memory devices above, loopback UDP below, everything between is real.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use pqvpn_crypto::identity::{Identity, IdentitySeed};
use pqvpn_dataplane::{Offloads, mem::MemTun};
use pqvpn_node::{
    Interface, Node, StartOptions,
    config::{Config, PeerConfig},
    handle::{NodeError, NodeHandle, PeerRef},
    link::Backend,
    snapshot::{PeerSnapshot, PeerState, Snapshot},
};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

struct TestNode {
    handle: NodeHandle,
    task: JoinHandle<()>,
    tun: MemTun,
    _state: tempfile::TempDir,
}

/// Reserves a loopback port; the socket is closed again so that the node can bind it.
fn free_port() -> SocketAddr {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until the QUIC endpoint of a stopped node has let go of its port, which it does in its own time.
async fn until_free(port: SocketAddr) {
    let start = Instant::now();
    while std::net::UdpSocket::bind(port).is_err() {
        assert!(start.elapsed() < PATIENCE, "{port} is never free");
        tokio::task::yield_now().await;
    }
}

async fn start(identity: Identity, listen: SocketAddr, peers: Vec<PeerConfig>, backend: Backend) -> TestNode {
    let state = tempfile::tempdir().unwrap();
    let (tun, reader, writer) = MemTun::new(Offloads::default()).unwrap();
    let mut config = Config::default();
    config.node.listen = vec![listen];
    config.peers = peers;
    let options = StartOptions {
        config,
        identity,
        state_dir: state.path().to_owned(),
        kept_in: None,
        interface: Interface::Given(vec![(Box::new(reader), Box::new(writer))]),
        backend,
    };
    let (handle, task) = Node::start(options).await.unwrap();
    TestNode { handle, task, tun, _state: state }
}

impl TestNode {
    async fn stop(self) {
        self.handle.shutdown().await;
        self.task.await.unwrap();
    }

    async fn snapshot(&self) -> Snapshot {
        self.handle.snapshot().await.unwrap()
    }

    async fn peer(&self) -> PeerSnapshot {
        self.snapshot().await.peers.remove(0)
    }

    async fn ping(&self) -> Result<Duration, NodeError> {
        let peer = self.peer().await.peer_id.to_string();
        self.handle.ping(PeerRef(peer), PATIENCE).await.map(|reply| reply.rtt)
    }

    /// Waits until `done` holds of the only peer; polls, because the node has no other door.
    async fn until(&self, what: &str, done: impl Fn(&PeerSnapshot) -> bool) -> PeerSnapshot {
        let start = Instant::now();
        loop {
            let peer = self.peer().await;
            if done(&peer) {
                return peer;
            }
            assert!(start.elapsed() < PATIENCE, "never {what}: {peer:?}");
            tokio::task::yield_now().await;
        }
    }
}

fn pinned(identity: &Identity, at: SocketAddr) -> PeerConfig {
    let mut peer = PeerConfig::new(identity.peer_id());
    peer.endpoints = vec![at.to_string().parse().unwrap()];
    peer
}

async fn pair(backend: Backend) -> (TestNode, TestNode) {
    let (alice, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (at_alice, at_bob) = (free_port(), free_port());
    let (to_alice, to_bob) = (pinned(&alice, at_alice), pinned(&bob, at_bob));
    let alice = start(alice, at_alice, vec![to_bob], backend).await;
    let bob = start(bob, at_bob, vec![to_alice], backend).await;
    (alice, bob)
}

/// A UDP packet with a virtio header in front, from one overlay address to another.
fn packet(from: &Snapshot, to: &Snapshot, payload: &[u8]) -> Vec<u8> {
    let v6 = |node: &Snapshot| -> Ipv6Addr {
        let first = node.addresses.iter().find_map(|address| match address {
            IpAddr::V6(v6) => Some(*v6),
            IpAddr::V4(_) => None,
        });
        first.unwrap()
    };
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut bytes = vec![0; 10];
    bytes.extend([0x60, 0, 0, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([17, 64]);
    bytes.extend(v6(from).octets());
    bytes.extend(v6(to).octets());
    bytes.extend([0x30, 0x39, 0x30, 0x39]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

async fn collect(tun: &MemTun) -> Vec<u8> {
    let tun = tun.clone();
    tokio::task::spawn_blocking(move || tun.collect(PATIENCE)).await.unwrap().expect("a packet arrives")
}

#[tokio::test]
async fn the_first_packet_makes_a_session_and_arrives() {
    for backend in [Backend::Noq, Backend::Quinn] {
        let (alice, bob) = pair(backend).await;
        let sent = packet(&alice.snapshot().await, &bob.snapshot().await, b"the very first packet");
        assert!(alice.tun.inject(&sent));
        assert_eq!(collect(&bob.tun).await[10..], sent[10..]);
        let back = packet(&bob.snapshot().await, &alice.snapshot().await, b"and back");
        assert!(bob.tun.inject(&back));
        assert_eq!(collect(&alice.tun).await[10..], back[10..]);
        alice.until("verified", |peer| peer.state == PeerState::Verified).await;
        bob.until("verified", |peer| peer.state == PeerState::Verified).await;
        alice.stop().await;
        bob.stop().await;
    }
}

#[tokio::test]
async fn both_ends_agree_on_one_session_when_they_dial_at_once() {
    let (alice, bob) = pair(Backend::Noq).await;
    let (there, back) = tokio::join!(alice.ping(), bob.ping());
    assert!(there.is_ok() && back.is_ok(), "{there:?} {back:?}");
    // Whichever session was kept, packets still pass both ways.
    let (there, back) = tokio::join!(alice.ping(), bob.ping());
    assert!(there.is_ok() && back.is_ok(), "{there:?} {back:?}");
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn twenty_ratchet_steps_lose_no_packet() {
    let (alice, bob) = pair(Backend::Noq).await;
    alice.ping().await.unwrap();
    let (from, to) = (alice.snapshot().await, bob.snapshot().await);
    let name = PeerRef(to.peer_id.to_string());
    let mut sent = 0_u32;
    for epoch in 1..=20 {
        // The leader alternates; asking either end is enough.
        alice.handle.rekey(name.clone()).await.unwrap();
        loop {
            assert!(alice.tun.inject(&packet(&from, &to, &sent.to_be_bytes())));
            assert_eq!(collect(&bob.tun).await[58..], sent.to_be_bytes(), "in order, exactly once");
            sent += 1;
            if alice.peer().await.session.is_some_and(|session| session.epoch >= epoch) {
                break;
            }
        }
    }
    let session = alice.peer().await.session.unwrap();
    assert!(session.epoch >= 20, "{session:?}");
    let drops: u64 = bob.snapshot().await.drops.iter().filter(|(reason, _)| *reason == "auth").map(|(_, n)| n).sum();
    assert_eq!(drops, 0);
    assert!(bob.peer().await.rx_packets >= u64::from(sent));
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_restarted_peer_is_found_dead_and_reached_again() {
    let seed = IdentitySeed::generate().unwrap();
    let (alice, bob) = (Identity::generate().unwrap(), Identity::from_seed(&seed).unwrap());
    let (at_alice, at_bob) = (free_port(), free_port());
    let (to_alice, to_bob) = (pinned(&alice, at_alice), pinned(&bob, at_bob));
    let again = Identity::from_seed(&seed).unwrap();
    let alice = start(alice, at_alice, vec![to_bob], Backend::Noq).await;
    let bob = start(bob, at_bob, vec![to_alice.clone()], Backend::Noq).await;
    alice.ping().await.unwrap();
    bob.stop().await;
    until_free(at_bob).await;
    let bob = start(again, at_bob, vec![to_alice], Backend::Noq).await;
    alice.ping().await.unwrap();
    bob.ping().await.unwrap();
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn a_node_that_does_not_know_us_refuses_and_says_so() {
    let (alice, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (at_alice, at_bob) = (free_port(), free_port());
    let to_bob = pinned(&bob, at_bob);
    let alice = start(alice, at_alice, vec![to_bob], Backend::Noq).await;
    let bob = start(bob, at_bob, vec![], Backend::Noq).await;
    let refused = alice.ping().await;
    assert!(matches!(refused, Err(NodeError::Refused { .. })), "{refused:?}");
    assert_eq!(alice.peer().await.state, PeerState::Refused);
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn down_is_silent_and_up_comes_back() {
    let (alice, bob) = pair(Backend::Noq).await;
    alice.ping().await.unwrap();
    alice.handle.down().await.unwrap();
    assert!(matches!(alice.ping().await, Err(NodeError::Down)));
    bob.until("told", |peer| peer.session.is_none()).await;
    let name = PeerRef(alice.snapshot().await.peer_id.to_string());
    let through = bob.handle.ping(name, Duration::from_millis(1500)).await;
    assert!(matches!(through, Err(NodeError::NoAnswer { .. })), "a node that is down answers nobody: {through:?}");
    assert!(bob.peer().await.session.is_none(), "nor does it make sessions");
    alice.handle.up().await.unwrap();
    alice.ping().await.unwrap();
    alice.stop().await;
    bob.stop().await;
}

#[tokio::test]
async fn an_inner_source_of_somebody_else_is_dropped_and_counted() {
    let (alice, bob) = pair(Backend::Noq).await;
    alice.ping().await.unwrap();
    let (from, to) = (alice.snapshot().await, bob.snapshot().await);
    let spoofed = packet(&to, &to, b"I am you");
    assert!(alice.tun.inject(&spoofed));
    let honest = packet(&from, &to, b"I am me");
    assert!(alice.tun.inject(&honest));
    assert_eq!(collect(&bob.tun).await[10..], honest[10..], "only the honest one arrives");
    let drops = bob.snapshot().await.drops;
    assert!(drops.contains(&("spoof", 1)), "{drops:?}");
    alice.stop().await;
    bob.stop().await;
}
