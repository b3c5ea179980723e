// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions whose links sleep: packets flow, keys are renewed, and whatever ends a session still reaches it.

use super::{on_path::OnPath, *};

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

/// Two members with a session that the first has made through somebody.
async fn with_somebody_between() -> ([TestNode; 2], OnPath) {
    let [a, b] = sleepy().await;
    let path = OnPath::to(&b).await;
    let mut view = network(1, &a, &[&a, &b]);
    view.members[0].endpoints = vec![path.at];
    a.show(vec![view]).await;
    let mut view = network(1, &b, &[&a, &b]);
    view.members[0].endpoints = Vec::new();
    b.show(vec![view]).await;
    a.ping(&b).await.unwrap();
    ([a, b], path)
}

/// Two members of which the second has let the link sleep, and the first has not heard of it. `long`: the second does not even
/// know of the link any more.
async fn of_different_mind(long: bool) -> ([TestNode; 2], OnPath) {
    let ([a, b], path) = with_somebody_between().await;
    path.mute(true);
    b.until("asleep", |snapshot| is_asleep(snapshot, a.id)).await;
    // The first says it again and again, with longer and longer pauses.
    let (start, before) = (Instant::now(), path.muted());
    while long && path.muted() < before + 6 {
        assert!(start.elapsed() < PATIENCE, "nothing is said");
        tokio::task::yield_now().await;
    }
    assert!(!is_asleep(&a.handle.snapshot().await.unwrap(), b.id));
    ([a, b], path)
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

#[tokio::test]
async fn a_step_that_is_asked_for_while_the_link_falls_asleep_wakes_it() {
    for long in [false, true] {
        let ([a, b], path) = of_different_mind(long).await;
        let before = sessions(&a, &b).await;
        a.handle.rekey(PeerRef(b.id.to_string())).await.unwrap();
        path.mute(false);
        for (node, other) in [(&a, b.id), (&b, a.id)] {
            let renewed = |snapshot: &Snapshot| {
                let mut peers = snapshot.peers.iter().filter(|peer| peer.peer_id == other);
                peers.any(|peer| peer.session.is_some() && peer.counts.sessions == before + 1)
            };
            node.until("renewed", renewed).await;
        }
        a.stop().await;
        b.stop().await;
    }
}

#[tokio::test]
async fn whoever_is_revoked_while_its_link_may_sleep_is_told() {
    let ([a, b], _path) = of_different_mind(false).await;
    let mut view = network(1, &a, &[&a]);
    view.revoked = vec![b.id];
    a.show(vec![view]).await;
    let revoked = Instant::now();
    b.until("told", |snapshot| snapshot.peers.iter().all(|peer| peer.session.is_none())).await;
    assert!(revoked.elapsed() < Duration::from_secs(5), "its own probes would have told it as well, and later");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn one_handshake_is_enough_where_the_path_is_silent_while_the_link_is_woken() {
    let ([a, b], path) = with_somebody_between().await;
    a.until("asleep", |snapshot| is_asleep(snapshot, b.id)).await;
    path.cut();
    let (begun, cut) = (path.begun(), Instant::now());
    let mut packets = tokio::time::interval(Duration::from_millis(20));
    // After two seconds at the earliest a link would be made because of the silence alone.
    while cut.elapsed() < Duration::from_secs(1) {
        a.send(a.address(1), b.address(1), b"is anybody there");
        packets.tick().await;
    }
    let asked = Instant::now();
    a.handle.rekey(PeerRef(b.id.to_string())).await.unwrap();
    // So long it may be answered; after that the peer may have been started again.
    while asked.elapsed() < Duration::from_millis(2900) {
        assert!(path.begun() <= begun + 1, "a second one after {:?}", asked.elapsed());
        a.send(a.address(1), b.address(1), b"is anybody there");
        packets.tick().await;
    }
    a.until("two", |_| path.begun() == begun + 2).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn in_place_of_a_session_that_is_over_another_comes_at_once() {
    let [a, b] = sleepy().await;
    gather(1, &[&a, &b]).await;
    for _ in 0..3 {
        let start = Instant::now();
        a.ping(&b).await.unwrap();
        assert!(
            start.elapsed() < Duration::from_millis(1500),
            "of two at once only one is confirmed; this one is alone"
        );
        a.handle.disconnect(PeerRef(b.id.to_string())).await.unwrap();
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn whoever_forges_refusals_on_the_path_ends_no_session_whose_link_sleeps() {
    let ([a, b], path) = with_somebody_between().await;
    a.until("asleep", |snapshot| is_asleep(snapshot, b.id)).await;
    let before = sessions(&a, &b).await;
    path.forge(true);
    a.handle.rekey(PeerRef(b.id.to_string())).await.unwrap();
    let start = Instant::now();
    while path.forged() < 2 {
        assert!(start.elapsed() < PATIENCE, "nobody tries again");
        tokio::task::yield_now().await;
    }
    assert!(start.elapsed() > Duration::from_millis(900), "with pauses");
    let peer = a.peer(&b).await.unwrap();
    assert_eq!((peer.counts.sessions, peer.session.map(|session| session.link_asleep)), (before, Some(true)));
    a.send(a.address(1), b.address(1), b"still there");
    assert_eq!(b.receive().await, b"still there");
    path.forge(false);
    a.until("renewed", |snapshot| snapshot.peers.iter().any(|peer| peer.counts.sessions == before + 1)).await;
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
