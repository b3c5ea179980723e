// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whom the driver dials, and where, on whose word.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use pqvpn_crypto::{
    identity::{Identity, PublicIdentity},
    schedule::Role,
    tls::Refusal,
};
use pqvpn_dht::{DhtConfig as EngineConfig, QueryId, counters::Attack};
use pqvpn_wire::dht::{Admission, CompositeVerifier, Contact, NetworkId, Request};
use tokio::time::timeout;

use super::*;
use crate::{
    dht::{
        places::MAX_STRANGERS,
        report::{DoorSource, DoorState},
    },
    link::{Endpoint, EndpointStats, LinkError, fake::Fake},
};

/// An endpoint that reaches a peer at each of a few addresses, and remembers where it tried.
#[derive(Debug, Default)]
struct Web {
    there: Mutex<BTreeMap<SocketAddr, PeerId>>,
    dialled: Mutex<Vec<SocketAddr>>,
    /// Whom it dials it dials by name.
    by_name: AtomicBool,
}

impl Web {
    fn is_there(&self, peer: PeerId, at: SocketAddr) {
        self.there.lock().unwrap().insert(at, peer);
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        std::mem::take(&mut self.dialled.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Endpoint for Web {
    fn connect(
        &self,
        at: SocketAddr,
        named: PeerId,
        _: Option<PublicIdentity>,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        let there = self.there.lock().unwrap().get(&at).copied();
        if there.is_none_or(|peer| peer == named) {
            return self.connect_anybody(at);
        }
        self.dialled.lock().unwrap().push(at);
        async { Err(LinkError::RefusedByUs(Refusal::WrongPeerId)) }.boxed()
    }

    fn connect_anybody(&self, at: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        self.dialled.lock().unwrap().push(at);
        let Some(peer) = self.there.lock().unwrap().get(&at).copied() else { return pending().boxed() };
        let link: Box<dyn Connection> = Box::new(Fake::new(peer, at, Role::Initiator));
        async { Ok(link) }.boxed()
    }

    fn connect_named(
        &self,
        at: SocketAddr,
        peer: PeerId,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        if self.meets_anybody(at, peer) { self.connect_anybody(at) } else { self.connect(at, peer, None) }
    }

    fn meets_anybody(&self, _: SocketAddr, _: PeerId) -> bool {
        !self.by_name.load(Relaxed)
    }

    fn accept(&self) -> BoxFuture<'_, Option<Result<Box<dyn Connection>, LinkError>>> {
        pending().boxed()
    }

    fn close(&self) {}

    fn drained(&self) -> BoxFuture<'_, ()> {
        pending().boxed()
    }

    fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        Err(LinkError::ClosedByUs)
    }

    fn stats(&self) -> EndpointStats {
        EndpointStats::default()
    }
}

struct Rig {
    driver: Driver,
    /// Dials doors.
    doors: Arc<Web>,
    /// Dials whom others name.
    strangers: Arc<Web>,
    asked: u64,
    _events: mpsc::Receiver<Event>,
    _state: tempfile::TempDir,
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

/// A contact as a responder names it.
fn named(n: u8, addresses: &[&str]) -> Arc<Contact> {
    let addresses = addresses.iter().map(|at| at.parse().unwrap()).collect();
    Arc::new(Contact::new(peer(n), Admission { week: 1, nonce: 0, out: [0; 32] }, addresses))
}

impl Rig {
    /// A driver with a door; `there` is the one peer that is reached.
    fn new(door: u8, at: &str, there: Option<(PeerId, SocketAddr)>) -> Self {
        let state = tempfile::tempdir().unwrap();
        let identity = Arc::new(Identity::generate().unwrap());
        let (own, network, difficulty, clock) = (identity.peer_id(), NetworkId::OPEN, 2, clock::Origin::start());
        let files = Files::new(state.path(), &own, &network);
        let (events, received) = mpsc::channel(64);
        let web = || {
            let web = Arc::<Web>::default();
            there.inspect(|(peer, at)| web.is_there(*peer, *at));
            web
        };
        let (to_doors, to_strangers) = (web(), web());
        let endpoints: [Arc<dyn Endpoint>; 2] =
            [Arc::clone(&to_doors) as Arc<dyn Endpoint>, Arc::clone(&to_strangers) as Arc<dyn Endpoint>];
        let mut doors = Doors::new(own);
        let source = DoorSource::Config;
        doors
            .hint(clock::now(), NewDoor { peer: peer(door), endpoints: vec![at.to_owned()], source, expires_ms: None });
        let parts = Parts {
            dht: Dht::new(clock.now(), EngineConfig::open(), own, Arc::new(CompositeVerifier), [7; 32]),
            clock,
            shared: Arc::new(Shared::new(endpoints, Arc::clone(&identity), network, events.clone())),
            places: Places::for_strangers(MAX_STRANGERS, 1),
            records: OwnRecords::new(identity, network, files.clone(), Default::default()),
            files,
            doors,
            position: Position::new(own, &network, difficulty, None, 0),
            work: Work::new(network, difficulty, events),
            mode: DhtMode::Client,
            realm: Realm::Open,
            difficulty,
            listen: Vec::new(),
            overlay: OwnAddresses::default(),
            standing: Vec::new(),
            watched: BTreeSet::new(),
            successors: Arc::default(),
        };
        let driver = Driver::new(parts, Arc::default());
        Self { driver, doors: to_doors, strangers: to_strangers, asked: 0, _events: received, _state: state }
    }

    fn ask(&mut self, to: &Arc<Contact>) -> QueryId {
        self.asked += 1;
        let query = QueryId(self.asked);
        self.driver.query(query, Arc::clone(to), Request::Ping, Duration::from_secs(60), false);
        query
    }

    /// Lets every task come to its end.
    async fn settle(&mut self) {
        while let Some(done) = self.driver.tasks.join_next().await {
            self.driver.on_task(done.unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_door_s_name_at_an_address_that_others_made_up_is_dialled_as_anybody_s() {
    let mut rig = Rig::new(1, "192.0.2.1:7", None);
    for _ in 0..3 {
        rig.ask(&named(1, &["8.8.8.8:53"]));
        rig.settle().await;
    }
    let victim: SocketAddr = "8.8.8.8:53".parse().unwrap();
    assert_eq!((rig.strangers.dialled(), rig.doors.dialled()), (vec![victim], vec![]), "once a minute");
    let state = |rig: &Rig| rig.driver.parts.doors.report(clock::now())[0].state.clone();
    assert_eq!(state(&rig), DoorState::Untried, "that it is not there says nothing of it");
    let (door, at) = (Contact::unproven(peer(1), vec!["192.0.2.1:7".parse().unwrap()]), "192.0.2.1:7".parse().unwrap());
    for _ in 0..3 {
        rig.ask(&Arc::new(door.clone()));
        rig.settle().await;
    }
    assert_eq!((rig.doors.dialled(), rig.strangers.dialled()), (vec![at; 3], vec![]), "where we know it to be");
    assert!(matches!(state(&rig), DoorState::Failed { .. }));
}

#[tokio::test(start_paused = true)]
async fn who_asks_at_the_right_addresses_does_not_wait_for_a_dial_to_a_liar_s() {
    let there = (peer(2), "8.8.4.4:7".parse().unwrap());
    let mut rig = Rig::new(1, "192.0.2.1:7", Some(there));
    let misled = rig.ask(&named(2, &["8.8.8.8:1", "8.8.8.8:2"]));
    let honest = rig.ask(&named(2, &["8.8.4.4:7", "8.8.4.4:8"]));
    let mut done = Vec::new();
    for _ in 0..3 {
        done.push(
            timeout(Duration::from_secs(1), rig.driver.tasks.join_next()).await.expect("at once").unwrap().unwrap(),
        );
        if let Some(TaskDone::Dialed { .. }) = done.last() {
            rig.driver.on_task(done.pop().unwrap());
        }
    }
    let asked = done.iter().filter_map(|done| match done {
        TaskDone::Called { waiting, .. } => Some(waiting.query),
        TaskDone::Dialed { .. } | TaskDone::Resolved { .. } => None,
    });
    assert_eq!(asked.collect::<BTreeSet<_>>(), BTreeSet::from([misled, honest]), "who was misled is served by it too");
}

#[tokio::test(start_paused = true)]
async fn addresses_made_up_for_one_peer_take_few_places_and_not_a_door_s() {
    let mut rig = Rig::new(2, "192.0.2.1:7", None);
    for n in 0..16 {
        rig.ask(&named(2, &[&format!("9.9.{n}.9:1")]));
    }
    assert_eq!(rig.driver.dialing.len(), 4);
    rig.ask(&Arc::new(Contact::unproven(peer(2), vec!["192.0.2.1:7".parse().unwrap()])));
    rig.ask(&named(3, &["9.9.9.10:1"]));
    assert_eq!(rig.driver.dialing.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_second_request_to_an_honest_peer_waits_for_the_dial_of_the_first() {
    let (v4, v6) = ("8.8.4.4:7", "[2001:4860:4860::8844]:7");
    let mut rig = Rig::new(1, "192.0.2.1:7", Some((peer(2), v4.parse().unwrap())));
    // An earlier dial went by one of the two, and the turn of the other is taken.
    let now = rig.driver.now();
    assert!(rig.driver.dial_limiter.allow(now, &peer(2), v6.parse().unwrap()));
    let refused = |rig: &Rig| rig.driver.parts.dht.counters().get(Attack::DialLimit);
    let first = rig.ask(&named(2, &[v4, v6]));
    let second = rig.ask(&named(2, &[v4, v6]));
    assert_eq!((rig.driver.dialing.len(), refused(&rig)), (1, 0));
    let Some(Ok(done)) = rig.driver.tasks.join_next().await else { panic!("a dial") };
    rig.driver.on_task(done);
    assert_eq!(rig.driver.tasks.len(), 2, "{first:?} and {second:?} are sent");
    assert_eq!(rig.strangers.dialled(), vec![v4.parse().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn what_finds_the_dials_of_its_peer_taken_is_dialled_after_them() {
    let mut rig = Rig::new(1, "192.0.2.1:7", None);
    for n in 0..6 {
        rig.ask(&named(2, &[&format!("9.9.{n}.9:1")]));
    }
    assert_eq!((rig.driver.dialing.len(), rig.driver.backlog.len()), (4, 2));
    rig.settle().await;
    assert_eq!((rig.strangers.dialled().len(), rig.driver.backlog.len()), (6, 0));
}

/// The queries of requests that are on their way over a link, once every dial has ended.
async fn called(rig: &mut Rig) -> BTreeSet<QueryId> {
    let mut called = BTreeSet::new();
    while let Some(done) = rig.driver.tasks.join_next().await {
        match done.unwrap() {
            TaskDone::Called { waiting, .. } => drop(called.insert(waiting.query)),
            done @ (TaskDone::Dialed { .. } | TaskDone::Resolved { .. }) => rig.driver.on_task(done),
        }
    }
    called
}

const THERE: &str = "8.8.4.4:7";

#[tokio::test(start_paused = true)]
async fn a_dial_for_a_made_up_name_serves_who_is_asked_for_beside_it() {
    let there: SocketAddr = THERE.parse().unwrap();
    let mut rig = Rig::new(1, "192.0.2.1:7", Some((peer(2), there)));
    let made_up: Vec<QueryId> = (100..105).map(|n| rig.ask(&named(n, &[THERE]))).collect();
    let honest = rig.ask(&named(2, &[THERE]));
    assert_eq!(called(&mut rig).await, BTreeSet::from([honest]), "and none of {made_up:?}");
    assert_eq!(rig.strangers.dialled(), vec![there], "one dial for all");
}

#[tokio::test(start_paused = true)]
async fn made_up_names_at_an_honest_node_s_address_do_not_keep_it_from_being_reached() {
    let there: SocketAddr = THERE.parse().unwrap();
    let mut rig = Rig::new(1, "192.0.2.1:7", Some((peer(2), there)));
    let mut reached = Vec::new();
    for lookup in 0..2 {
        for n in 100..200 {
            rig.ask(&named(n, &[THERE]));
        }
        let honest = rig.ask(&named(2, &[THERE]));
        if called(&mut rig).await.contains(&honest) {
            reached.push(lookup);
        }
    }
    assert_eq!(reached, [1], "in the first all places beside the dial are taken");
    assert_eq!(rig.strangers.dialled(), vec![there; 2], "once for all the others, once by its name");
    assert_eq!(rig.driver.links.counts(0).outbound, 1, "nobody asked for the first of them");
}

/// The queries that are on their way after so long, while dials may go on.
async fn called_within(rig: &mut Rig, limit: Duration) -> BTreeSet<QueryId> {
    let (mut called, until) = (BTreeSet::new(), tokio::time::Instant::now() + limit);
    while let Ok(Some(done)) = tokio::time::timeout_at(until, rig.driver.tasks.join_next()).await {
        match done.unwrap() {
            TaskDone::Called { waiting, .. } => drop(called.insert(waiting.query)),
            done @ (TaskDone::Dialed { .. } | TaskDone::Resolved { .. }) => rig.driver.on_task(done),
        }
    }
    called
}

#[tokio::test(start_paused = true)]
async fn a_silent_address_beside_an_honest_node_s_keeps_nobody_from_being_met() {
    let silent = "9.9.9.9:9";
    let honest = ["8.8.4.4:7", "8.8.5.5:7", "8.8.6.6:7"];
    for there in [&honest[..1], &honest[..]] {
        let mut rig = Rig::new(1, "192.0.2.1:7", None);
        let nodes = || (2_u8..).zip(there).map(|(n, at)| (n, at.parse::<SocketAddr>().unwrap()));
        nodes().for_each(|(n, at)| rig.strangers.is_there(peer(n), at));
        let made_up = rig.ask(&named(100, &[there, &[silent]].concat()));
        let beside: BTreeSet<_> = nodes().map(|(n, at)| rig.ask(&named(n, &[&at.to_string()]))).collect();
        assert_eq!(rig.driver.dialing.len(), 1, "each waits beside");
        assert_eq!(called_within(&mut rig, Duration::from_secs(1)).await, beside, "while the silent one is waited for");
        assert_eq!(rig.driver.dialing.len(), 1, "{made_up:?}");
        assert!(nodes().all(|(n, at)| rig.driver.dial_limiter.is_met(&peer(n), at)));
        // Who is asked for at the same time, and is not there.
        let refused = rig.driver.parts.dht.counters().get(Attack::DialLimit);
        rig.ask(&named(101, &[there[0]]));
        assert_eq!(
            rig.driver.parts.dht.counters().get(Attack::DialLimit),
            refused + 1,
            "nobody else is waited for there"
        );
        rig.ask(&named(102, &[silent]));
        assert_eq!(
            rig.driver.parts.dht.counters().get(Attack::DialLimit),
            refused + 1,
            "but where nobody answered yet"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_beside_a_dial_where_another_answers_is_told_at_once() {
    let mut rig = Rig::new(1, "192.0.2.1:7", Some((peer(2), THERE.parse().unwrap())));
    rig.ask(&named(100, &[THERE, "9.9.9.9:9"]));
    rig.ask(&named(101, &[THERE]));
    rig.ask(&named(102, &[THERE, "9.9.9.9:9"]));
    let waiting = |rig: &Rig| rig.driver.dialing.values().map(|dialing| dialing.waiting.len()).sum::<usize>();
    assert_eq!(waiting(&rig), 3);
    called_within(&mut rig, Duration::from_secs(1)).await;
    assert_eq!(waiting(&rig), 2, "the one may still be met at the other address");
}

#[tokio::test(start_paused = true)]
async fn an_address_is_asked_when_the_one_before_it_was_silent_for_its_head_start() {
    let mut rig = Rig::new(1, "192.0.2.1:7", Some((peer(2), THERE.parse().unwrap())));
    let silent: SocketAddr = "9.9.9.9:9".parse().unwrap();
    let honest = rig.ask(&named(2, &["9.9.9.9:9", THERE, "9.9.9.9:10"]));
    assert!(called_within(&mut rig, Duration::from_millis(100)).await.is_empty());
    assert_eq!(rig.strangers.dialled(), vec![silent]);
    assert_eq!(called(&mut rig).await, BTreeSet::from([honest]));
    assert_eq!(rig.strangers.dialled(), vec![THERE.parse().unwrap()], "and none when one has answered");
}

#[tokio::test(start_paused = true)]
async fn who_takes_the_place_of_one_who_was_met_is_reached_whoever_names_the_other() {
    let there: SocketAddr = THERE.parse().unwrap();
    let mut rig = Rig::new(1, "192.0.2.1:7", Some((peer(2), there)));
    rig.driver.dial_limiter.met(peer(1), there);
    let mut reached = Vec::new();
    for minute in 0..3 {
        rig.ask(&named(1, &[THERE]));
        called_within(&mut rig, Duration::from_secs(1)).await;
        let new = rig.ask(&named(2, &[THERE]));
        if called_within(&mut rig, Duration::from_secs(60)).await.contains(&new) {
            reached.push(minute);
        }
        rig.driver.links.close_all(CloseReason::Idle);
    }
    assert_eq!(reached, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_beside_a_dial_that_meets_the_one_it_names_alone() {
    let there: SocketAddr = THERE.parse().unwrap();
    for by_name in [false, true] {
        let mut rig = Rig::new(1, "192.0.2.1:7", Some((peer(2), there)));
        rig.strangers.by_name.store(by_name, Relaxed);
        rig.ask(&named(100, &[THERE]));
        rig.ask(&named(2, &[THERE]));
        assert_eq!(rig.driver.parts.dht.counters().get(Attack::DialLimit), u64::from(by_name));
        rig.driver.dial_limiter.met(peer(100), there);
        rig.settle().await;
        assert_eq!(rig.driver.dial_limiter.is_met(&peer(100), there), by_name, "what a carrier says is not its word");
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_to_ourselves_at_an_address_that_others_made_up_is_closed() {
    let there: SocketAddr = THERE.parse().unwrap();
    let mut rig = Rig::new(1, "192.0.2.1:7", None);
    let own = rig.driver.parts.shared.own;
    let web = Arc::<Web>::default();
    web.is_there(own, there);
    let doors = Arc::clone(&rig.doors) as Arc<dyn Endpoint>;
    let shared = &rig.driver.parts.shared;
    let endpoints = [doors, Arc::clone(&web) as Arc<dyn Endpoint>];
    let shared = Shared::new(endpoints, Arc::clone(&shared.identity), shared.network, shared.events.clone());
    rig.driver.parts.shared = Arc::new(shared);
    rig.ask(&named(3, &[THERE]));
    rig.settle().await;
    assert_eq!((web.dialled(), rig.driver.links.counts(0).outbound), (vec![there], 0));
    assert!(!rig.driver.dial_limiter.is_met(&own, there));
}

#[tokio::test(start_paused = true)]
async fn a_network_that_changed_while_the_node_rested_is_new_when_it_goes_on() {
    let doubts = |meanwhile: bool| {
        let mut rig = Rig::new(1, "192.0.2.1:7", None);
        // Others agree on where we are.
        for n in 10..20 {
            rig.driver.observed.note(peer(n), SocketAddr::from(([n, n, 0, 1], 7)), "203.0.113.9:7".parse().unwrap());
        }
        rig.driver.on_order(Order::Pause(true));
        if meanwhile {
            rig.driver.on_order(Order::NetworkChanged);
        }
        let now = clock::now();
        assert!(!rig.driver.observed.is_in_doubt(now), "at rest it makes no difference");
        rig.driver.on_order(Order::Pause(false));
        rig.driver.observed.is_in_doubt(now)
    };
    assert_eq!([doubts(false), doubts(true)], [false, true]);
}
