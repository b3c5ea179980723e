// SPDX-License-Identifier: MIT OR Apache-2.0
//! A few nodes, a constant latency, and an ideal signature.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use pqvpn_crypto::{identity::SignatureLabel, peer_id::PeerId};
use pqvpn_wire::dht::{
    Admission, Contact, Endpoints, NetworkId, Payload, Point, Record, RecordDraft, Request, Response, Verifier,
    record::{HEARTBEATS, heartbeat_chain},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sha2::{Digest as _, Sha256};

use crate::{Dht, DhtConfig, Finished, LookupId, Now, Output, QueryFailure, admission};

/// One way.
pub(super) const LATENCY: Duration = Duration::from_millis(25);
/// The world begins in November 2026.
const EPOCH_MS: u64 = 1_795_000_000_000;

/// SHA-256 keyed by the owner's name: nobody in these tests signs for somebody else but on purpose.
#[derive(Debug)]
pub(super) struct Ideal;

pub(super) fn signature(owner: &PeerId, label: SignatureLabel, message: &[u8]) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(b"secret of ");
    hash.update(owner.as_bytes());
    hash.update(label.as_bytes());
    hash.update(message);
    hash.finalize().to_vec()
}

impl Verifier for Ideal {
    fn verify(&self, owner: &PeerId, key: &[u8], label: SignatureLabel, message: &[u8], given: &[u8]) -> bool {
        key == owner.as_bytes() && given == signature(owner, label, message)
    }
}

enum Event {
    Request { to: usize, from: usize, query: crate::QueryId, request: Request },
    Response { to: usize, from: usize, query: crate::QueryId, response: Response, sent: Duration },
    Failure { to: usize, query: crate::QueryId },
}

/// Answers instead of an honest node.
pub(super) type Liar = Box<dyn FnMut(&PeerId, &Request, Response) -> Response>;

pub(super) struct World {
    pub(super) nodes: Vec<Dht>,
    pub(super) now: Now,
    pub(super) rng: StdRng,
    pub(super) finished: BTreeMap<(usize, LookupId), Finished>,
    pub(super) found: BTreeMap<(usize, LookupId), Arc<Record>>,
    pub(super) dead: BTreeSet<usize>,
    pub(super) groups: Vec<u8>,
    pub(super) liars: BTreeMap<usize, Liar>,
    pub(super) queries: u64,
    /// Requests by what they are.
    pub(super) kinds: BTreeMap<&'static str, u64>,
    /// Whether evaluated proofs of work hold.
    pub(super) proofs_hold: bool,
    by_peer: BTreeMap<PeerId, usize>,
    events: BTreeMap<(Duration, u64), Event>,
    serial: u64,
}

pub(super) fn address(index: usize) -> SocketAddr {
    let [_, _, high, low] = u32::try_from(index).expect("a small world").to_be_bytes();
    SocketAddr::from(([20 + low % 80, high.wrapping_mul(7).wrapping_add(1 + low / 80), low, 9], 41641))
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            nodes: Vec::new(),
            now: Now { mono: Duration::from_secs(1000), unix_ms: EPOCH_MS },
            rng: StdRng::seed_from_u64(seed),
            finished: BTreeMap::new(),
            found: BTreeMap::new(),
            dead: BTreeSet::new(),
            groups: Vec::new(),
            liars: BTreeMap::new(),
            queries: 0,
            kinds: BTreeMap::new(),
            proofs_hold: true,
            by_peer: BTreeMap::new(),
            events: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Adds an admitted node that knows nobody.
    pub(super) fn add(&mut self) -> usize {
        let config = DhtConfig { difficulty: 1, ..DhtConfig::open() };
        self.add_with(config)
    }

    pub(super) fn add_with(&mut self, config: DhtConfig) -> usize {
        let peer = PeerId::from_bytes(self.rng.random());
        let index = self.nodes.len();
        let mut node = Dht::new(self.now, config, peer, Arc::new(Ideal), self.rng.random());
        let contact = self.contact_of(peer, index);
        node.set_contact(self.now, Some(contact));
        self.nodes.push(node);
        self.groups.push(0);
        self.by_peer.insert(peer, index);
        index
    }

    pub(super) fn contact_of(&mut self, peer: PeerId, index: usize) -> Contact {
        let week = admission::week(&peer, self.now.unix_ms);
        Contact::new(peer, Admission { week, nonce: 1, out: self.rng.random() }, vec![address(index)])
    }

    pub(super) fn peer(&self, index: usize) -> PeerId {
        *self.contact(index).peer()
    }

    pub(super) fn contact(&self, index: usize) -> &Arc<Contact> {
        self.nodes[index].contact().expect("nodes of this world are admitted")
    }

    /// `count` nodes that join through the first one, and time for that.
    pub(super) fn joined(seed: u64, count: usize) -> Self {
        let mut world = Self::new(seed);
        let first = world.add();
        for _ in 1..count {
            let index = world.add();
            world.introduce(index, first);
        }
        world.run(Duration::from_secs(60));
        world
    }

    /// Gives a node another one as its door.
    pub(super) fn introduce(&mut self, node: usize, door: usize) {
        let doors = vec![(self.peer(door), vec![address(door)])];
        self.nodes[node].bootstrap(self.now, doors);
    }

    /// A record of `owner`, valid from now on.
    pub(super) fn record(&mut self, owner: usize, seq: u64) -> (Arc<Record>, [u8; 32]) {
        let peer = self.peer(owner);
        let seed: [u8; 32] = self.rng.random();
        let draft = RecordDraft {
            network: NetworkId::OPEN,
            owner: peer,
            week: admission::week(&peer, self.now.unix_ms),
            seq,
            not_before_ms: self.now.unix_ms,
            not_after_ms: self.now.unix_ms + 24 * 3_600_000,
            payload: Payload::Peer(Endpoints { addresses: vec![address(owner)], capabilities: 0 }),
            heartbeat_anchor: heartbeat_chain(&seed, HEARTBEATS),
        };
        (Arc::new(sign(draft)), seed)
    }

    /// Runs for a while of virtual time.
    pub(super) fn run(&mut self, period: Duration) {
        let end = self.now.mono + period;
        loop {
            for index in 0..self.nodes.len() {
                self.drain(index);
            }
            let event = self.events.keys().next().map(|(at, _)| *at);
            let timer = self.nodes.iter().filter_map(Dht::next_timeout).min();
            let next = [event, timer].into_iter().flatten().min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.advance(at.max(self.now.mono));
            if event.is_some_and(|event| event <= at) {
                let (_, event) = self.events.pop_first().expect("seen above");
                self.deliver(event);
            } else {
                for index in 0..self.nodes.len() {
                    if self.nodes[index].next_timeout().is_some_and(|due| due <= at) {
                        self.nodes[index].on_timeout(self.now);
                    }
                }
            }
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Duration) {
        let passed = to - self.now.mono;
        self.now = Now { mono: to, unix_ms: self.now.unix_ms + u64::try_from(passed.as_millis()).expect("short") };
        // Wall time in whole ms, monotonic time finer: the rest is lost, which no rule notices.
    }

    fn drain(&mut self, index: usize) {
        while let Some(output) = self.nodes[index].poll_output() {
            match output {
                Output::Query { id, to, request, timeout, .. } => {
                    self.queries += 1;
                    *self.kinds.entry(kind(&request)).or_default() += 1;
                    let target = self.by_peer.get(to.peer()).copied();
                    let reachable =
                        target.filter(|to| !self.dead.contains(to) && self.groups[*to] == self.groups[index]);
                    match reachable {
                        Some(to) => {
                            self.schedule(LATENCY, Event::Request { to, from: index, query: id, request });
                        }
                        None => self.schedule(timeout, Event::Failure { to: index, query: id }),
                    }
                }
                Output::VerifyAdmission { contact } => {
                    let valid = self.proofs_hold;
                    self.nodes[index].on_admission(self.now, &contact, valid);
                }
                Output::Found { id, record } => drop(self.found.insert((index, id), record)),
                Output::Done(finished) => drop(self.finished.insert((index, finished.id), *finished)),
                Output::Notice(_) => {}
            }
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.now.mono + after, self.serial), event);
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Request { to, from, query, request } => {
                let (peer, contact) = (self.peer(from), Arc::clone(self.contact(from)));
                let sent = self.now.mono;
                let honest = self.nodes[to].on_request(self.now, &peer, address(from), Some(contact), request.clone());
                let response = match self.liars.get_mut(&to) {
                    Some(liar) => liar(&peer, &request, honest),
                    None => honest,
                };
                self.schedule(LATENCY, Event::Response { to: from, from: to, query, response, sent });
            }
            Event::Response { to, from, query, response, sent } => {
                let contact = Arc::clone(self.contact(from));
                let rtt = self.now.mono - sent + LATENCY;
                self.nodes[to].on_response(self.now, query, address(from), Some(contact), response, rtt);
            }
            Event::Failure { to, query } => self.nodes[to].on_failure(self.now, query, QueryFailure::Timeout),
        }
    }

    /// Runs a get to its end.
    pub(super) fn get(&mut self, node: usize, key: Point) -> Finished {
        let id = self.nodes[node].get(self.now, key, 0).expect("room for a lookup");
        self.finish(node, id)
    }

    /// Keeps a record of `owner` and waits for its replicas.
    pub(super) fn publish(&mut self, owner: usize, seq: u64) -> (Arc<Record>, Finished) {
        let (record, seed) = self.record(owner, seq);
        let id = self.nodes[owner].keep(self.now, Arc::clone(&record), seed).expect("room for a record");
        (record, self.finish(owner, id))
    }

    pub(super) fn finish(&mut self, node: usize, id: LookupId) -> Finished {
        self.run(Duration::from_secs(20));
        self.finished.remove(&(node, id)).expect("every lookup ends before its deadline")
    }
}

pub(super) fn sign(draft: RecordDraft) -> Record {
    let given = signature(&draft.owner, SignatureLabel::DhtRecord, &draft.signed_bytes());
    let key = draft.owner.as_bytes().to_vec();
    Record::assemble(draft, key, given)
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Ping => "ping",
        Request::FindNode { .. } => "find-node",
        Request::FindValue { .. } => "find-value",
        Request::Store { .. } => "store",
        Request::Beat { .. } => "beat",
        Request::Announce(_) => "announce",
        Request::Exchange | Request::Facts { .. } | _ => "other",
    }
}
