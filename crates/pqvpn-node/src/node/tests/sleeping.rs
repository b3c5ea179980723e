// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions whose links sleep: packets flow, keys are renewed, and whatever ends a session still reaches it.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::net;

use super::*;

/// The links of these sleep after a second.
const REKEY_SECONDS: u32 = 6;

async fn sleepy<const N: usize>() -> [TestNode; N] {
    let mut nodes = Vec::new();
    for _ in 0..N {
        let identity = Identity::generate().unwrap();
        nodes.push(start_with(identity, |config| config.crypto.rekey_seconds = REKEY_SECONDS).await);
    }
    nodes.try_into().ok().expect("as many as asked for")
}

fn is_asleep(snapshot: &Snapshot, peer: PeerId) -> bool {
    let mut peers = snapshot.peers.iter().filter(|other| other.peer_id == peer);
    peers.any(|peer| peer.session.as_ref().is_some_and(|session| session.link_asleep))
}

/// Two members of a network with a session whose link sleeps.
async fn asleep() -> [TestNode; 2] {
    let [a, b] = sleepy().await;
    gather(1, &[&a, &b]).await;
    a.ping(&b).await.unwrap();
    for (node, other) in [(&a, b.id), (&b, a.id)] {
        node.until("asleep", |snapshot| is_asleep(snapshot, other)).await;
    }
    [a, b]
}

async fn sessions(node: &TestNode, other: &TestNode) -> u64 {
    node.peer(other).await.unwrap().counts.sessions
}

#[tokio::test]
async fn packets_need_no_link_and_new_keys_wake_it_without_the_loss_of_one() {
    let [a, b] = asleep().await;
    let before = sessions(&a, &b).await;
    a.send(a.address(1), b.address(1), b"there");
    assert_eq!(b.receive().await, b"there");
    b.send(b.address(1), a.address(1), b"back");
    assert_eq!(a.receive().await, b"back");
    assert_eq!(sessions(&a, &b).await, before, "these passed under the keys there were");
    assert!(is_asleep(&a.handle.snapshot().await.unwrap(), b.id));
    // Both ends send all the time while the keys grow old and a new session takes over.
    let (start, mut n) = (Instant::now(), 0_u32);
    while sessions(&a, &b).await == before || sessions(&b, &a).await == before || n % 512 != 0 {
        for (from, to) in [(&a, &b), (&b, &a)] {
            from.send(from.address(1), to.address(1), &n.to_be_bytes());
        }
        for node in [&a, &b] {
            assert_eq!(node.receive().await, n.to_be_bytes(), "none is lost, none comes out of order");
        }
        n += 1;
        assert!(start.elapsed() < PATIENCE, "the link never wakes");
    }
    for (node, other) in [(&a, &b), (&b, &a)] {
        let peer = node.peer(other).await.unwrap();
        assert_eq!(peer.session.unwrap().epoch, 0, "a handshake made these keys");
        assert_eq!(sessions(node, other).await, before + 1, "one was enough");
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn whoever_is_revoked_while_its_link_sleeps_is_cut_off_at_once_and_told() {
    let [a, b] = asleep().await;
    let mut view = network(1, &a, &[&a]);
    view.revoked = vec![b.id];
    a.show(vec![view]).await;
    for n in 0..50_u32 {
        b.send(b.address(1), a.address(1), &n.to_be_bytes());
    }
    b.until("told", |snapshot| snapshot.peers.iter().all(|peer| peer.session.is_none())).await;
    let refused = b.ping(&a).await;
    assert!(matches!(&refused, Err(NodeError::Refused { .. })), "{refused:?}");
    assert_eq!(a.tun.collect(Duration::ZERO), None, "nothing of it came out");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_while_links_sleep_says_so() {
    let [a, b] = asleep().await;
    let stopped = Instant::now();
    a.stop().await;
    // Nobody sends anything: nothing else would end it for three minutes.
    b.until("told", |snapshot| snapshot.peers.iter().all(|peer| peer.session.is_none())).await;
    assert!(stopped.elapsed() < PATIENCE);
    b.stop().await;
}

#[tokio::test]
async fn a_step_that_is_asked_for_wakes_the_link() {
    let [a, b] = asleep().await;
    let before = sessions(&a, &b).await;
    a.handle.rekey(PeerRef(b.id.to_string())).await.unwrap();
    for (node, other) in [(&a, b.id), (&b, a.id)] {
        node.until("renewed", |snapshot| {
            let mut peers = snapshot.peers.iter().filter(|peer| peer.peer_id == other);
            peers.any(|peer| peer.counts.sessions == before + 1)
        })
        .await;
    }
    a.stop().await;
    b.stop().await;
}

/// Somebody on the path between two nodes: passes on what it sees, or answers handshakes as if no version were in common.
struct OnPath {
    at: SocketAddr,
    forges: Arc<AtomicBool>,
    /// The handshakes that were answered so, by their connection ids.
    forged: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    task: JoinHandle<()>,
}

/// The first packet of a handshake, and any other with a long header (RFC 9000 17.2).
fn is_handshake(datagram: &[u8]) -> bool {
    datagram.len() > 100 && datagram[0] & 0xc0 == 0xc0 && datagram[1..5] == [0, 0, 0, 1]
}

/// The connection id that its sender has chosen.
fn scid(initial: &[u8]) -> &[u8] {
    let at = 6 + usize::from(initial[5]);
    &initial[at + 1..][..usize::from(initial[at])]
}

/// Version Negotiation (RFC 9000 17.2.1), which nobody can authenticate.
fn no_common_version(initial: &[u8]) -> Vec<u8> {
    let (dcid, scid) = (&initial[6..6 + usize::from(initial[5])], scid(initial));
    let length = |id: &[u8]| u8::try_from(id.len()).unwrap();
    let mut answer = vec![0xc0, 0, 0, 0, 0, length(scid)];
    answer.extend(scid);
    answer.push(length(dcid));
    answer.extend(dcid);
    answer.extend([0xba; 4]);
    answer
}

impl OnPath {
    async fn to(node: &TestNode) -> Self {
        let [near, far] = [net::UdpSocket::bind("127.0.0.1:0").await, net::UdpSocket::bind("127.0.0.1:0").await];
        let (near, far, behind) = (near.unwrap(), far.unwrap(), node.at);
        let (forges, forged) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<BTreeSet<_>>>::default());
        let (at, lies, lied) = (near.local_addr().unwrap(), Arc::clone(&forges), Arc::clone(&forged));
        let task = tokio::spawn(async move {
            let (mut client, mut up, mut down) = (behind, [0; 65536], [0; 65536]);
            loop {
                let (from, to, to_addr, len, back) = tokio::select! {
                    Ok((len, addr)) = near.recv_from(&mut up) => {
                        client = addr;
                        (&near, &far, behind, len, addr)
                    }
                    Ok((len, addr)) = far.recv_from(&mut down) => (&far, &near, client, len, addr),
                };
                let datagram = if to_addr == behind { &up[..len] } else { &down[..len] };
                if !lies.load(Ordering::Relaxed) || !is_handshake(datagram) {
                    to.send_to(datagram, to_addr).await.unwrap();
                } else {
                    from.send_to(&no_common_version(datagram), back).await.unwrap();
                    lied.lock().unwrap().insert(scid(datagram).to_vec());
                }
            }
        });
        Self { at, forges, forged, task }
    }
}

#[tokio::test]
async fn whoever_forges_refusals_on_the_path_ends_no_session_whose_link_sleeps() {
    let [a, b] = sleepy().await;
    let path = OnPath::to(&b).await;
    let mut view = network(1, &a, &[&a, &b]);
    view.members[0].endpoints = vec![path.at];
    a.show(vec![view]).await;
    let mut view = network(1, &b, &[&a, &b]);
    view.members[0].endpoints = Vec::new();
    b.show(vec![view]).await;
    a.ping(&b).await.unwrap();
    a.until("asleep", |snapshot| is_asleep(snapshot, b.id)).await;
    let before = sessions(&a, &b).await;
    path.forges.store(true, Ordering::Relaxed);
    a.handle.rekey(PeerRef(b.id.to_string())).await.unwrap();
    let start = Instant::now();
    while path.forged.lock().unwrap().len() < 3 {
        assert!(start.elapsed() < PATIENCE, "nobody tries again: {:?} {:?} {:?}", path.forged, a.peer(&b).await, b.peer(&a).await);
        tokio::task::yield_now().await;
    }
    assert!(start.elapsed() > Duration::from_secs(2), "with pauses");
    let peer = a.peer(&b).await.unwrap();
    assert_eq!((peer.counts.sessions, peer.session.map(|session| session.link_asleep)), (before, Some(true)));
    a.send(a.address(1), b.address(1), b"still there");
    assert_eq!(b.receive().await, b"still there");
    path.forges.store(false, Ordering::Relaxed);
    a.until("renewed", |snapshot| snapshot.peers.iter().any(|peer| peer.counts.sessions == before + 1)).await;
    path.task.abort();
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_session_that_its_peer_ends_is_over_for_whatever_reason() {
    for code in [2, 250] {
        let [a, b] = asleep().await;
        a.handle.say_end(PeerRef(b.id.to_string()), code).await.unwrap();
        b.until("ended", |snapshot| snapshot.peers.iter().all(|peer| peer.session.is_none())).await;
        a.stop().await;
        b.stop().await;
    }
}
