// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver by itself: what it remembers, when it wakes, whom it believes.

mod admin;
mod joins;

use std::{
    sync::atomic::{AtomicI64, AtomicUsize, Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use pqvpn_crypto::identity::{CompositeSignature, Identity, SIGNATURE_LEN};
use pqvpn_wire::network::{Act, Bundle, Door, Statement, SyncState};

use super::{
    super::{
        command::NetworkCommand,
        error::NetworkError,
        links::tests::{link, link_at, link_from},
        members::Members,
        network::{
            Lacks,
            tests::attacks::{identity, member, network},
        },
        overlay,
        relaying::{Willing, tests::Written},
        report::NetRef,
        store::tests::Failing,
    },
    *,
};
use crate::{carrier::Rung, link::fake::Nowhere};

struct Rig {
    driver: Driver,
    id: NetworkId,
    _state: tempfile::TempDir,
    _events: mpsc::Receiver<Event>,
    _views: mpsc::Receiver<Arc<Vec<NetworkView>>>,
}

/// The node of identity 2, in a network that identity 1 has founded; others are members too.
fn rig() -> Rig {
    let (founder, own) = (identity(1), identity(2));
    let mut founders = network(&founder);
    for number in 2..5 {
        founders.act(&founder, Moment::now().unix_ms, member(identity(number).peer_id(), None)).unwrap();
    }
    let statements = founders.constitution.after(&[], usize::MAX).statements.into_iter();
    let constitution = super::super::network::constitution(
        &founders.id,
        statements.map(|statement| Statement::clone(&statement)),
        &pqvpn_trust::CompositeVerifier,
    );
    let held = Network::new(own.peer_id(), constitution.unwrap(), founders.head.clone(), Moment::now());
    let state = tempfile::tempdir().unwrap();
    let (events, waiting) = mpsc::channel(16);
    let (views, shown) = mpsc::channel(16);
    let shared = Arc::new(Shared {
        endpoint: Arc::new(Nowhere::default()),
        own: own.peer_id(),
        identity: Arc::new(own),
        events,
        members: ArcSwap::from_pointee(Members::default()),
        ways: ArcSwap::default(),
        nearby: ArcSwap::default(),
        joining: AtomicUsize::new(0),
        health: ArcSwap::default(),
        counts: super::super::rpc::Counts::default(),
    });
    let parts = Parts {
        shared,
        store: Store::open(state.path()).unwrap().0,
        networks: vec![held],
        waiting: Vec::new(),
        listen: Vec::new(),
        overlay: OwnAddresses::default(),
        name: "desk".to_owned(),
        dht: None,
        views,
        pools: Arc::new(|_| Box::pin(async { None })),
        relaying: Relaying::new(Arc::new(Written::default()), Willing::default()),
        reflexive: Reflexive::default(),
        mapped: Mapped::none(),
        carriers: Carriers::of_tests(Arc::new(Nowhere::default())),
        standing: Vec::new(),
        unread: BTreeMap::new(),
    };
    let driver = Driver::new(parts, Links::default());
    Rig { driver, id: founders.id, _state: state, _events: waiting, _views: shown }
}

#[tokio::test]
async fn a_network_that_is_gone_leaves_no_call_behind_that_is_waited_for() {
    let Rig { mut driver, id, .. } = rig();
    let peer = identity(3).peer_id();
    let at = driver.links.insert(link(peer, clock::now())).unwrap();
    let held = driver.networks.remove(&id).unwrap();
    driver.sync(id, at);
    assert!(driver.syncing.is_empty());
    driver.networks.insert(id, held);
    driver.sync(id, at);
    assert!(driver.syncing.contains(&(id, at)) && driver.tasks.len() == 1, "it is compared when it is back");
}

#[tokio::test]
async fn each_time_nobody_relays_to_a_peer_it_is_looked_for_elsewhere() {
    let Rig { mut driver, .. } = rig();
    let peer = identity(3).peer_id();
    for misses in 1..4 {
        let (reply, answer) = oneshot::channel();
        driver.find_relay(peer, reply);
        assert!(answer.await.unwrap().is_err());
        assert_eq!(driver.missed.get(&peer), Some(&misses));
    }
}

#[tokio::test]
async fn what_a_dead_link_owes_is_asked_for_on_the_next_one() {
    let Rig { mut driver, id, .. } = rig();
    let peer = identity(3).peer_id();
    let lacks = Lacks { statements: true, ..Lacks::default() };
    for calls in [2, 4] {
        // The member was started again, or somebody else has its key: the first link gives no answer any more.
        let at = driver.links.insert(link(peer, clock::now())).unwrap();
        driver.sync(id, at);
        driver.pull(id, peer, at, SyncState::default(), lacks);
        driver.sync(id, at);
        driver.pull(id, peer, at, SyncState::default(), lacks);
        assert_eq!(driver.tasks.len(), calls, "once on each link");
    }
}

#[tokio::test]
async fn a_node_at_the_end_of_its_run_waits_for_nothing_that_it_does_not_do() {
    let Rig { mut driver, .. } = rig();
    driver.untold = false;
    driver.endpoints_at = clock::now() - Duration::from_secs(3600);
    let soon = clock::now() + Duration::from_secs(1);
    assert!(driver.deadline().is_some_and(|at| at < soon), "something is due");
    driver.retired = true;
    assert!(driver.deadline().is_none_or(|at| at > soon), "and is not done any more");
}

#[tokio::test]
async fn a_member_that_nobody_listens_to_proves_nothing() {
    let Rig { mut driver, id, .. } = rig();
    let (liar, now) = (identity(3).peer_id(), Moment::now());
    let at = driver.links.insert(link(liar, now.mono)).unwrap();
    let held = driver.networks.get_mut(&id).unwrap();
    let statement = |good: bool, number: u8| {
        let act = member(PeerId::from_bytes([number; 32]), None);
        let mut statement = Statement::draft(held.constitution.draft(now.unix_ms, act)).unwrap();
        if good {
            statement.sign(&identity(1)).unwrap();
        } else {
            let wrong = CompositeSignature::from_bytes(&[7; SIGNATURE_LEN]).unwrap();
            statement.add_signature(identity(1).peer_id(), wrong);
        }
        Arc::new(statement)
    };
    let (lies, proof): (Vec<_>, _) = ((0..16).map(|number| statement(false, number)).collect(), statement(true, 99));
    held.absorb(now.unix_ms, Some(liar), Bundle { statements: lies, ..Bundle::default() });
    assert!(held.is_deaf_to(clock::now(), &liar));
    let before = held.constitution.len();
    let proof = NetResponse::PutOut(Box::new(Bundle { statements: vec![proof], ..Bundle::default() }));
    driver.on_called(id, liar, at, &Call::Sync, Ok(proof.clone()));
    assert_eq!(driver.networks[&id].constitution.len(), before);
    // From another it is looked at.
    driver.on_called(id, identity(4).peer_id(), at, &Call::Sync, Ok(proof));
    assert_eq!(driver.networks[&id].constitution.len(), before + 1);
}

#[tokio::test]
async fn members_that_send_us_on_make_us_dial_few_and_nobody_who_is_no_member() {
    let Rig { mut driver, id, .. } = rig();
    let peer = identity(3).peer_id();
    let at = driver.links.insert(link(peer, clock::now())).unwrap();
    let doors = |n: u8, who: u8| {
        let addresses = vec![SocketAddr::from(([192, 0, 2, n], 7))];
        let admins = vec![Door { peer: identity(who).peer_id(), addresses }];
        Ok(NetResponse::Elsewhere { admins })
    };
    // There may be a link to somebody who is a member of another network only.
    let stranger = driver.links.insert(link(identity(9).peer_id(), clock::now())).unwrap();
    driver.on_called(id, peer, at, &Call::Pull, doors(1, 9));
    assert!(driver.dialing.is_empty() && driver.networks[&id].hints.is_empty(), "no member");
    assert!(!driver.syncing.contains(&(id, stranger)), "what a network is like is for its members");
    let mut sent_on = BTreeSet::new();
    for n in 0..100 {
        driver.on_called(id, peer, at, &Call::Pull, doors(n, 1));
        sent_on.extend(driver.networks[&id].hints.values().flatten().copied());
    }
    assert!(driver.dialing.contains(&identity(1).peer_id()));
    assert!(sent_on.len() <= 4, "{sent_on:?}");
}

#[tokio::test]
async fn nobody_is_dialled_where_no_member_can_be() {
    let Rig { mut driver, id, .. } = rig();
    let peer = identity(3).peer_id();
    let told =
        ["224.0.0.1:7", "0.0.0.0:7", "255.255.255.255:7", "169.254.1.1:7", "[ff02::1]:7", "192.0.2.1:0", "192.0.2.1:7"];
    driver.networks.get_mut(&id).unwrap().hint(peer, told.map(|at| at.parse().unwrap()).to_vec());
    assert_eq!(driver.endpoints_of(&peer), ["192.0.2.1:7".parse().unwrap()]);
}

#[tokio::test]
async fn whoever_should_dial_us_is_dialled_where_it_does_not_after_a_start() {
    let Rig { mut driver, id, .. } = rig();
    let now = Moment::now();
    let others: Vec<PeerId> = [1, 3, 4].map(|number| identity(number).peer_id()).to_vec();
    let caller = overlay::callers(&id, &driver.shared.own, &others)[0];
    let dialled = |driver: &mut Driver, after: Duration| {
        let at = Moment { mono: now.mono + after, ..now };
        driver.dial_wanted(at, &BTreeSet::new());
        std::mem::take(&mut driver.dialing)
    };
    let network = driver.networks.get_mut(&id).unwrap();
    network.started = now.mono;
    network.hint(caller, vec![SocketAddr::from(([192, 0, 2, 1], 7))]);
    assert!(dialled(&mut driver, Duration::from_millis(900)).is_empty(), "it has time to");
    assert!(driver.deadline().is_some_and(|at| at <= now.mono + Duration::from_millis(1100)), "and is waited for");
    assert!(dialled(&mut driver, Duration::from_millis(1100)).contains(&caller));
    assert!(dialled(&mut driver, Duration::from_secs(60)).is_empty(), "links of the ring are its own affair later");
    driver.links.insert(link(caller, clock::now())).unwrap();
    assert!(!dialled(&mut driver, Duration::from_millis(1100)).contains(&caller), "it has dialled");
}

#[tokio::test]
async fn a_proof_that_has_more_is_asked_for_with_what_we_hold() {
    let Rig { mut driver, id, .. } = rig();
    let peer = identity(3).peer_id();
    let at = driver.links.insert(link(peer, clock::now())).unwrap();
    let known = driver.networks[&id].constitution.log(1)[0].statement.clone();
    let page = || {
        Ok(NetResponse::PutOut(Box::new(Bundle { statements: vec![known.clone()], more: true, ..Bundle::default() })))
    };
    driver.on_called(id, peer, at, &Call::Sync, page());
    assert_eq!((driver.tasks.len(), driver.networks[&id].counters.unproven), (1, 0), "asked once more, by waymarks");
    driver.on_called(id, peer, at, &Call::Prove, page());
    assert_eq!((driver.tasks.len(), driver.networks[&id].counters.unproven), (1, 1), "and not for ever");
}

#[tokio::test]
async fn what_a_page_stands_on_is_asked_for_by_name_and_not_for_ever() {
    let Rig { mut driver, id, .. } = rig();
    let peer = identity(3).peer_id();
    let at = driver.links.insert(link(peer, clock::now())).unwrap();
    let lacks = Lacks { statements: true, ..Lacks::default() };
    driver.pull(id, peer, at, SyncState::default(), lacks);
    let held = &driver.networks[&id];
    let mut draft = held.constitution.draft(1, member(PeerId::from_bytes([9; 32]), None));
    draft.parents = vec![pqvpn_wire::network::StatementId::from_bytes([5; 32])];
    let mut statement = Statement::draft(draft).unwrap();
    statement.sign(&identity(1)).unwrap();
    let page = || {
        Ok(NetResponse::Bundle(Box::new(Bundle { statements: vec![Arc::new(statement.clone())], ..Bundle::default() })))
    };
    driver.on_called(id, peer, at, &Call::Pull, page());
    assert_eq!(driver.tasks.len(), 2, "once more");
    driver.on_called(id, peer, at, &Call::Pull, page());
    assert!(driver.pulling.is_empty() && driver.networks[&id].missing.is_empty(), "it has no more to say");
}

#[tokio::test]
async fn where_a_page_brings_nothing_and_there_is_more_the_end_is_asked_for_by_name() {
    let Rig { mut driver, id, .. } = rig();
    let peer = identity(3).peer_id();
    let at = driver.links.insert(link(peer, clock::now())).unwrap();
    let end = pqvpn_wire::network::StatementId::from_bytes([5; 32]);
    let known = driver.networks[&id].constitution.log(1)[0].statement.clone();
    let theirs = SyncState { tips: vec![known.id(), end], ..SyncState::default() };
    driver.pull(id, peer, at, theirs, Lacks { statements: true, ..Lacks::default() });
    let page = || {
        Ok(NetResponse::Bundle(Box::new(Bundle { statements: vec![known.clone()], more: true, ..Bundle::default() })))
    };
    driver.on_called(id, peer, at, &Call::Pull, page());
    assert_eq!(
        (driver.tasks.len(), &driver.networks[&id].missing),
        (2, &[end].into()),
        "once more, and what is not held"
    );
    driver.on_called(id, peer, at, &Call::Pull, page());
    assert!(driver.pulling.is_empty() && driver.networks[&id].missing.is_empty(), "once");
}

#[tokio::test]
async fn what_brought_nothing_is_asked_for_ever_more_rarely_until_somebody_holds_something_else() {
    let Rig { mut driver, id, .. } = rig();
    let peer = identity(3).peer_id();
    let at = driver.links.insert(link(peer, clock::now())).unwrap();
    let unknown = pqvpn_wire::network::StatementId::from_bytes([5; 32]);
    let theirs = SyncState { tips: vec![unknown], head: [5; 32], ..driver.networks[&id].state() };
    let asks = |driver: &mut Driver, after: u64, theirs: &SyncState| {
        let (before, now) = (driver.tasks.len(), Moment::now());
        driver.compare(Moment { mono: now.mono + Duration::from_secs(after), ..now }, id, peer, at, theirs.clone());
        let asked = driver.tasks.len() > before;
        driver.on_called(id, peer, at, &Call::Pull, Ok(NetResponse::Bundle(Box::default())));
        asked
    };
    assert!(asks(&mut driver, 0, &theirs));
    for length in [20, 40, 80, 160, 320, 600, 600] {
        assert!(!asks(&mut driver, length / 2, &theirs), "{length}");
        assert!(asks(&mut driver, length, &theirs), "{length}");
    }
    // What else it holds is asked for all the same.
    assert!(asks(&mut driver, 0, &SyncState { records: [1; 32], ..theirs.clone() }));
    assert!(!asks(&mut driver, 0, &theirs));
    assert!(asks(&mut driver, 0, &SyncState { head: [6; 32], ..theirs.clone() }));
    assert!(asks(&mut driver, 0, &theirs), "it may have come back");
    let network = driver.networks.get_mut(&id).unwrap();
    network.begin_anew(clock::now());
    assert!(asks(&mut driver, 0, &theirs), "and after an order");
    let network = driver.networks.get_mut(&id).unwrap();
    let draft = network.constitution.draft(1, member(PeerId::from_bytes([9; 32]), None));
    let mut statement = Statement::draft(draft).unwrap();
    statement.sign(&identity(1)).unwrap();
    network.absorb(1, None, Bundle { statements: vec![Arc::new(statement)], ..Bundle::default() });
    assert!(asks(&mut driver, 0, &theirs), "or where we hold something else");
}

#[tokio::test]
async fn who_comes_to_udp_port_443_learns_its_outside_and_says_nothing_of_ours() {
    let Rig { mut driver, .. } = rig();
    let (now, outside) = (Moment::now(), "203.0.113.7:4000".parse().unwrap());
    let ours = Some("198.51.100.1:443".parse().unwrap());
    let (by_udp, _udp) = driver.carriers.guest(Rung::Quic, outside);
    let (by_tcp, _tcp) = driver.carriers.guest(Rung::Wss, outside);
    for (remote, told) in [(by_udp, Some(outside)), (by_tcp, None), (outside, Some(outside))] {
        let peer = identity(3).peer_id();
        let at = driver.links.insert(link_at(peer, now.mono, remote)).unwrap();
        assert_eq!(driver.sight(at), told);
        driver.note_sight(now, peer, at, ours);
        let noted = driver.reflexive.addresses(now.mono);
        assert_eq!(noted.is_empty(), remote != outside, "port 443 is not the socket that others see");
    }
}

#[tokio::test]
async fn what_is_not_on_disk_is_not_said_and_the_disk_is_tried_again() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    let disk = tempfile::tempdir().unwrap();
    drop(Store::open(disk.path()).unwrap());
    let (peer, left) = (identity(3).peer_id(), Arc::new(AtomicI64::new(i64::MAX)));
    driver.store = Store::on(Failing::on(disk.path(), &left, false)).unwrap();
    let link = driver.links.insert(link(peer, clock::now())).unwrap();
    left.store(0, Ordering::Relaxed);
    // A record of our own is due at the start.
    let (reply, mut answer) = oneshot::channel();
    driver.answer_later(reply, ());
    driver.settle().await;
    let records = |bundle: &Bundle| bundle.records.len();
    assert!(driver.refusing.is_some() && answer.try_recv().is_err(), "it is answered");
    let held = &driver.networks[&id];
    assert_eq!((records(&held.news.bundle), held.records.len()), (1, 1), "it is told");
    assert!(driver.own_health().iter().any(|item| item.code == "networks-store"));
    // Nor does who asks hear of it.
    let asks = || NetRequest::Sync(SyncState { cursor: Some(0), held: Some(Vec::new()), ..SyncState::default() });
    let ask = |driver: &mut Driver| {
        let (answer, mut response) = oneshot::channel();
        let remote = "192.0.2.1:1".parse().unwrap();
        let key = identity(3).public().clone();
        driver.on_asked(Asked {
            link,
            from: peer,
            key,
            remote,
            network: id,
            request: asks(),
            exporter: [0; 32],
            answer,
        });
        let NetResponse::Bundle(bundle) = response.try_recv().unwrap() else { panic!("no answer") };
        bundle
    };
    let bundle = ask(&mut driver);
    assert!(records(&bundle) == 0 && bundle.statements.len() == 4, "{bundle:?}");
    // Nothing is signed, and a person is told why.
    let (reply, refused) = oneshot::channel();
    driver.on_order(Order::Command(NetworkCommand::NetEnable(NetRef(None), false, reply)));
    assert!(matches!(refused.await.unwrap(), Err(NetworkError::Store(_))));
    let seq = driver.networks[&id].head.seq;
    driver.networks.get_mut(&id).unwrap().records.clear();
    driver.save_now();
    driver.settle().await;
    assert!(driver.refusing.is_some() && driver.networks[&id].head.seq == seq, "it is signed");
    // The disk takes it again: everything is written down, and only then told.
    left.store(i64::MAX, Ordering::Relaxed);
    driver.save_now();
    driver.settle().await;
    driver.settle().await;
    assert!(driver.refusing.is_none() && answer.try_recv().is_ok());
    assert_eq!(records(&driver.networks[&id].news.bundle), 0, "not told");
    assert_eq!(records(&ask(&mut driver)), 1);
    let kept = driver.store.load().unwrap();
    assert_eq!(kept[&id].records.len(), 1);
}

#[tokio::test]
async fn a_name_says_which_network_is_meant() {
    let Rig { driver, id, .. } = rig();
    let home = driver.networks[&id].head.name.clone();
    let (no, named) = (|| NetRef(None), || NetRef(Some(home.clone())));
    let said = format!("dee.{home}");
    for who in [said.clone(), format!("{said}."), format!("{said}.pqvpn"), format!("{said}.PQVPN.")] {
        assert_eq!(driver.meant(no(), &who), (named(), "dee"));
    }
    for who in ["dee", "dee.nowhere", "10.0.0.1", &format!("10.0.0.{home}")] {
        let network = if who.ends_with(&home) { named() } else { no() };
        assert_eq!(driver.meant(no(), who).0, network, "{who}");
    }
    let other = NetRef(Some("work".into()));
    assert_eq!(driver.meant(other.clone(), &said), (other, said.as_str()), "what is said with an option counts");
}

#[tokio::test]
async fn the_answer_to_a_push_ends_no_pull() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    let peer = identity(3).peer_id();
    let at = driver.links.insert(link(peer, clock::now())).unwrap();
    let lacks = Lacks { statements: true, ..Lacks::default() };
    driver.pull(id, peer, at, SyncState::default(), lacks);
    driver.on_called(id, peer, at, &Call::Push(None), Ok(NetResponse::Done));
    assert!(driver.pulling.contains_key(&(id, at)), "it goes on");
    driver.on_called(id, peer, at, &Call::Pull, Ok(NetResponse::Done));
    assert!(driver.pulling.is_empty());
}

#[tokio::test]
async fn who_was_put_out_and_dials_again_and_again_is_not_told_each_time() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    let held = driver.networks.get_mut(&id).unwrap();
    let peer = identity(3).peer_id();
    let act = Act::Revoke { peer, reason: String::new() };
    let mut statement = Statement::draft(held.constitution.draft(Moment::now().unix_ms, act)).unwrap();
    statement.sign(&identity(1)).unwrap();
    held.author(statement).unwrap();
    let now = Moment::now();
    driver.share_members(now);
    for told in 1..=12 {
        let at = driver.links.insert(link_from(peer, now.mono)).unwrap();
        driver.put_out(now);
        assert_eq!(driver.tasks.len(), told.min(8), "told");
        if told > 8 {
            assert!(driver.links.get(at).is_none(), "its link is closed");
        } else {
            driver.links.remove(at);
        }
    }
    // One that we dialled is told all the same.
    driver.links.insert(link(peer, now.mono)).unwrap();
    driver.put_out(now);
    assert_eq!(driver.tasks.len(), 9);
}

#[tokio::test]
async fn bad_introductions_keep_nobody_elses_away() {
    let Rig { mut driver, id, _state, _events, _views } = rig();
    let now = Moment::now();
    let (old, new, thief) = (identity(3), identity(6), identity(7));
    let line = |from: &Identity, to: &Identity, by: &Identity| {
        let held = &driver.networks[&id];
        let act = Act::rotate(&id, from.public().clone(), to).unwrap();
        let mut statement = Statement::draft(held.constitution.draft(now.unix_ms, act)).unwrap();
        statement.sign(by).unwrap();
        vec![Arc::new(statement)]
    };
    let good = line(&old, &new, &old);
    let (unsigned, of_others, of_nobody) =
        (line(&old, &thief, &thief), line(&old, &new, &new), line(&identity(8), &thief, &identity(8)));
    let at = driver.links.insert(link(thief.peer_id(), now.mono)).unwrap();
    for line in [&unsigned, &of_others, &of_nobody] {
        for _ in 0..100 {
            let answer = driver.on_introduced(now, id, thief.peer_id(), at, line);
            assert_eq!(answer, NetResponse::UnknownNetwork);
        }
    }
    let at = driver.links.insert(link(new.peer_id(), now.mono)).unwrap();
    assert_eq!(driver.on_introduced(now, id, new.peer_id(), at, &good), NetResponse::Done);
}
