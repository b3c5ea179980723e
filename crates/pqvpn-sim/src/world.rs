// SPDX-License-Identifier: MIT OR Apache-2.0
//! A world of nodes under one virtual clock: a seeded discrete-event loop.
//!
//! Two runs with the same seed and the same calls process the same events in the same order; [`World::event_hash`]
//! tells two runs apart.

pub mod atlas;
mod flow;
pub mod net;
pub mod population;

use std::{collections::BTreeMap, collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::{Now, limit::DialLimiter};
use pqvpn_wire::dht::{Contact, Point, Record, Request, Response};
use rand::{RngExt, rngs::SmallRng};

use crate::{
    adversary::{Coven, Strategy},
    engine::{Effect, Engine, Failure},
    queue::Queue,
    seed::Seed,
};
use net::{Links, Net, NetConfig, Place};

/// A node's number in its world; never used twice.
pub type Index = u32;

/// When every world begins: 2026-11-20T00:00:00Z.
pub const BEGIN_UNIX_MS: u64 = 1_795_132_800_000;

/// One node as the world sees it.
#[derive(Debug)]
pub struct Node<E> {
    /// Who and where it is.
    pub contact: Arc<Contact>,
    /// Its state machine; Sybils of a placed attack have none.
    pub engine: Option<Box<E>>,
    /// Where it is in the network.
    pub place: Place,
    /// Whether it runs.
    pub alive: bool,
    /// Whether it answers as the adversary wants.
    pub colluder: bool,
    /// Whether its timers run while no operation of ours does; off in static experiments.
    pub upkeep: bool,
    /// Bytes it has sent, as estimated by the flow (messages and handshakes it began).
    pub sent: u64,
    wake: Option<Duration>,
    watched: u32,
    links: Links,
    dials: DialLimiter,
    busy_until: Duration,
}

/// What happens.
#[derive(Debug)]
enum Event {
    Wake(Index),
    Request { from: Index, to: Index, ticket: Ticket, request: Request },
    Answer { from: Index, to: Index, ticket: Ticket, response: Response },
    Fail { node: Index, query: u64, failure: Failure },
    Admission { node: Index, contact: Arc<Contact> },
    Act,
}

/// A query under way.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    query: u64,
    sent: Duration,
    deadline: Duration,
}

/// What has happened so far, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events processed.
    pub events: u64,
    /// Requests sent.
    pub requests: u64,
    /// Answers delivered in time.
    pub answers: u64,
    /// Requests that ended in silence.
    pub timeouts: u64,
    /// Requests that met somebody else.
    pub unreachable: u64,
    /// Requests not sent because their address was dialled less than a minute ago.
    pub undialled: u64,
    /// Handshakes begun.
    pub dials: u64,
    /// Bytes of all messages and handshakes, estimated.
    pub bytes: u64,
    /// Proofs of work evaluated.
    pub proofs: u64,
    /// Answers `Busy`.
    pub busy: u64,
    /// Requests by kind, in the order of [`KINDS`].
    pub kinds: [u64; KINDS.len()],
}

/// Kinds of requests.
pub const KINDS: [&str; 8] = ["ping", "find-node", "find-value", "store", "beat", "exchange", "announce", "facts"];

const fn kind(request: &Request) -> usize {
    match request {
        Request::FindNode { .. } => 1,
        Request::FindValue { .. } => 2,
        Request::Store { .. } => 3,
        Request::Beat { .. } => 4,
        Request::Exchange => 5,
        Request::Announce(_) => 6,
        Request::Facts { .. } => 7,
        // Ping, and what nobody sends yet.
        Request::Ping | _ => 0,
    }
}

/// The end of an operation that was watched.
#[derive(Debug)]
pub struct Ended<D> {
    /// Whose.
    pub node: Index,
    /// Which.
    pub operation: u64,
    /// When it began.
    pub began: Duration,
    /// When a get had its first acceptable record.
    pub found: Option<Duration>,
    /// When it ended.
    pub ended: Duration,
    /// What came out.
    pub done: D,
}

#[derive(Debug, Clone, Copy)]
struct Watch {
    began: Duration,
    found: Option<Duration>,
}

/// The world.
#[derive(Debug)]
pub struct World<E: Engine> {
    /// All nodes that ever lived, by [`Index`].
    pub nodes: Vec<Node<E>>,
    /// The network between them.
    pub net: Net,
    /// What the colluders know and do together.
    pub coven: Coven,
    /// Numbers so far.
    pub tally: Tally,
    /// Dice for scenarios.
    pub rng: SmallRng,
    /// Dials that an address got although it was nobody's contact: what a reflector aims at.
    pub bait: BTreeMap<SocketAddr, u64>,
    /// Who was put into quarantine by whom, when.
    pub quarantines: Vec<(Index, PeerId, Duration)>,
    strategy: Option<Box<dyn Strategy>>,
    now: Duration,
    queue: Queue<Event>,
    by_address: HashMap<SocketAddr, Index>,
    by_peer: HashMap<PeerId, Index>,
    watched: BTreeMap<(Index, u64), Watch>,
    ended: Vec<Ended<E::Done>>,
    hash: u64,
}

impl<E: Engine> World<E> {
    /// An empty world.
    #[must_use]
    pub fn new(seed: Seed, net: NetConfig) -> Self {
        Self {
            nodes: Vec::new(),
            net: Net::new(net, seed.rng("net", 0)),
            coven: Coven::default(),
            tally: Tally::default(),
            rng: seed.rng("scenario", 0),
            bait: BTreeMap::new(),
            quarantines: Vec::new(),
            strategy: None,
            now: Duration::ZERO,
            queue: Queue::default(),
            by_address: HashMap::new(),
            by_peer: HashMap::new(),
            watched: BTreeMap::new(),
            ended: Vec::new(),
            hash: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// The moment, on both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.now, unix_ms: BEGIN_UNIX_MS + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX / 2) }
    }

    /// A digest of every event so far: time, kind, nodes.
    #[must_use]
    pub const fn event_hash(&self) -> u64 {
        self.hash
    }

    /// Adds a node; `engine` is its state machine.
    pub fn add(&mut self, contact: Arc<Contact>, engine: Option<E>) -> Index {
        let index = Index::try_from(self.nodes.len()).expect("fewer than 2^32 nodes ever live");
        for address in contact.addresses() {
            self.by_address.insert(*address, index);
        }
        self.by_peer.insert(*contact.peer(), index);
        let place = self.net.place();
        self.nodes.push(Node {
            contact,
            engine: engine.map(Box::new),
            place,
            alive: true,
            colluder: false,
            upkeep: true,
            sent: 0,
            wake: None,
            watched: 0,
            links: Links::default(),
            dials: DialLimiter::default(),
            busy_until: Duration::ZERO,
        });
        self.pump(index);
        index
    }

    /// Ends a node: it is silent from now on.
    pub fn kill(&mut self, index: Index) {
        let node = &mut self.nodes[index as usize];
        (node.alive, node.engine) = (false, None);
        node.links.clear();
        let gone: Vec<_> = self.watched.range((index, 0)..=(index, u64::MAX)).map(|(key, _)| *key).collect();
        for key in gone {
            self.watched.remove(&key);
        }
    }

    /// Gives a node another state machine, as after a restart; operations under way are lost.
    pub fn restart(&mut self, index: Index, engine: E) {
        let alive = self.nodes[index as usize].alive;
        self.kill(index);
        let node = &mut self.nodes[index as usize];
        (node.engine, node.alive, node.wake, node.watched) = (Some(Box::new(engine)), alive, None, 0);
        self.pump(index);
    }

    /// Lets the colluders follow a strategy, or none.
    pub fn conspire(&mut self, strategy: Option<Box<dyn Strategy>>) {
        let acts = strategy.as_ref().is_some_and(|strategy| strategy.acts());
        let acted = self.strategy.as_ref().is_some_and(|strategy| strategy.acts());
        self.strategy = strategy;
        if acts && !acted {
            self.queue.push(self.now, Event::Act);
        }
    }

    /// The false record the colluders would give under a key now, if their strategy has one.
    pub fn lie(&mut self, unix_ms: u64, key: &Point) -> Option<Arc<Record>> {
        self.strategy.as_mut()?.lie(unix_ms, key, &self.coven)
    }

    /// The number of a living or dead peer.
    #[must_use]
    pub fn index_of(&self, peer: &PeerId) -> Option<Index> {
        self.by_peer.get(peer).copied()
    }

    /// Whether a peer lives.
    #[must_use]
    pub fn is_alive(&self, peer: &PeerId) -> bool {
        self.index_of(peer).is_some_and(|index| self.nodes[index as usize].alive)
    }

    /// Notes that a node has dialled these contacts before and met them.
    pub fn has_met(&mut self, index: Index, contacts: &[Arc<Contact>]) {
        let dials = &mut self.nodes[index as usize].dials;
        for contact in contacts {
            contact.addresses().iter().for_each(|address| dials.met(*contact.peer(), *address));
        }
    }

    /// Sends a request whose answer nobody waits for.
    pub fn tell(&mut self, from: Index, to: &Arc<Contact>, request: Request) {
        self.send(from, flow::UNASKED, to, request, Duration::from_secs(2), false);
    }

    /// Numbers of all nodes that are alive and pass `keep`, ascending.
    pub fn living(&self, keep: impl Fn(&Node<E>) -> bool) -> Vec<Index> {
        (0..).zip(&self.nodes).filter(|(_, node)| node.alive && keep(node)).map(|(index, _)| index).collect()
    }

    /// Does something to a node's engine, then what the engine wants done. `None` when the node is dead or has none.
    pub fn with<T>(&mut self, index: Index, act: impl FnOnce(&mut E, Now) -> T) -> Option<T> {
        let now = self.now();
        let node = self.nodes.get_mut(index as usize)?;
        let result = act(node.engine.as_mut()?, now);
        self.pump(index);
        Some(result)
    }

    /// Begins an operation of a node; its end shows up in [`Self::take_ended`].
    pub fn begin(&mut self, index: Index, act: impl FnOnce(&mut E, Now) -> Option<u64>) -> Option<u64> {
        let now = self.now();
        let node = self.nodes.get_mut(index as usize)?;
        let operation = act(node.engine.as_mut()?, now)?;
        node.watched += 1;
        self.watched.insert((index, operation), Watch { began: now.mono, found: None });
        self.pump(index);
        Some(operation)
    }

    /// The operations that ended since the last call, in order of their end.
    pub fn take_ended(&mut self) -> Vec<Ended<E::Done>> {
        std::mem::take(&mut self.ended)
    }

    /// Processes events until every watched operation has ended or `limit` has passed; returns the ends.
    pub fn finish(&mut self, limit: Duration) -> Vec<Ended<E::Done>> {
        let until = self.now + limit;
        while !self.watched.is_empty() && self.queue.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.watched.clear();
        self.take_ended()
    }

    /// Processes all events up to `until`, which becomes the present.
    pub fn run_until(&mut self, until: Duration) {
        while self.queue.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    /// Processes all events of the next `span`.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    /// Processes one event; false when none waits.
    pub fn step(&mut self) -> bool {
        let Some((at, event)) = self.queue.pop() else { return false };
        self.now = self.now.max(at);
        self.tally.events += 1;
        match event {
            Event::Wake(index) => {
                self.mix(1, index, 0);
                self.wake(index);
            }
            Event::Request { from, to, ticket, request } => {
                self.mix(2, from, to);
                self.arrive(from, to, ticket, request);
            }
            Event::Answer { from, to, ticket, response } => {
                self.mix(3, from, to);
                self.deliver(from, to, ticket, response);
            }
            Event::Fail { node, query, failure } => {
                self.mix(4, node, 0);
                match failure {
                    Failure::Timeout => self.tally.timeouts += 1,
                    Failure::Unreachable => self.tally.unreachable += 1,
                    Failure::Local => self.tally.undialled += 1,
                }
                self.with(node, |engine, now| engine.on_failure(now, query, failure));
            }
            Event::Admission { node, contact } => {
                self.mix(5, node, 0);
                self.tally.proofs += 1;
                let valid = self
                    .by_peer
                    .get(contact.peer())
                    .is_some_and(|index| self.nodes[*index as usize].contact.admission() == contact.admission());
                self.with(node, |engine, now| engine.on_admission(now, &contact, valid));
            }
            Event::Act => {
                self.mix(6, 0, 0);
                self.act();
            }
        }
        true
    }

    fn mix(&mut self, kind: u32, a: Index, b: Index) {
        let time = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        for word in [time, u64::from(kind), u64::from(a) << 32 | u64::from(b)] {
            self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
    }

    fn wake(&mut self, index: Index) {
        let node = &mut self.nodes[index as usize];
        // Only the latest wake counts; earlier ones were overtaken.
        if node.wake != Some(self.now) {
            return;
        }
        node.wake = None;
        self.with(index, |engine, now| engine.on_timeout(now));
    }

    /// Does all an engine wants, then sets its alarm.
    fn pump(&mut self, index: Index) {
        while let Some(effect) = self.nodes[index as usize].engine.as_mut().and_then(|engine| engine.poll()) {
            match effect {
                Effect::Query { query, to, request, timeout, dial } => {
                    self.send(index, query, &to, request, timeout, dial);
                }
                Effect::Verify(contact) => {
                    let at = self.occupy(index, self.net.config.proof);
                    self.queue.push(at, Event::Admission { node: index, contact });
                }
                Effect::Found { operation } => {
                    if let Some(watch) = self.watched.get_mut(&(index, operation)) {
                        watch.found.get_or_insert(self.now);
                    }
                }
                Effect::Done { operation, done } => self.end(index, operation, done),
                Effect::Quarantined(peer) => self.quarantines.push((index, peer, self.now)),
            }
        }
        self.set_alarm(index);
    }

    fn end(&mut self, node: Index, operation: u64, done: E::Done) {
        let Some(Watch { began, found }) = self.watched.remove(&(node, operation)) else { return };
        self.nodes[node as usize].watched -= 1;
        self.ended.push(Ended { node, operation, began, found, ended: self.now, done });
    }

    fn set_alarm(&mut self, index: Index) {
        let node = &mut self.nodes[index as usize];
        if !node.upkeep && node.watched == 0 {
            return;
        }
        let Some(at) = node.engine.as_ref().and_then(|engine| engine.next_timeout()) else { return };
        let at = at.max(self.now);
        if node.wake.is_none_or(|wake| at < wake || wake < self.now) {
            node.wake = Some(at);
            self.queue.push(at, Event::Wake(index));
        }
    }

    /// One processor a node: work waits for work before it. Returns when this one is done.
    fn occupy(&mut self, index: Index, work: Duration) -> Duration {
        let node = &mut self.nodes[index as usize];
        node.busy_until = node.busy_until.max(self.now) + work;
        node.busy_until
    }

    /// The coven's unasked deeds, once a second.
    fn act(&mut self) {
        let Some(mut strategy) = self.strategy.take() else { return };
        if !strategy.acts() {
            self.strategy = Some(strategy);
            return;
        }
        let now = self.now();
        let deeds = strategy.act(now, &self.coven, &mut self.rng);
        self.strategy = Some(strategy);
        for deed in deeds {
            if let Some(from) = self.index_of(&deed.from).filter(|from| self.nodes[*from as usize].alive) {
                self.tell(from, &deed.to, deed.request);
            }
        }
        self.queue.push(self.now + Duration::from_secs(1), Event::Act);
    }

    /// A node at random among `of`.
    pub fn pick(&mut self, of: &[Index]) -> Index {
        of[self.rng.random_range(0..of.len())]
    }
}
