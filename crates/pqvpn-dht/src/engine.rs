// SPDX-License-Identifier: MIT OR Apache-2.0
//! One node of the DHT: commands and messages in, [`Output`]s out.

mod commands;
mod config;
mod lookups;
mod newcomers;
mod output;
mod replies;
mod serve;
mod upkeep;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Fact, Point, Record, Request, Verifier};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

pub use config::DhtConfig;
pub use output::{DhtStatus, Finished, Notice, Output, QueryFailure, QueryId};

use crate::{
    Now,
    admission::Admitted,
    anomaly::Judge,
    counters::{Attack, Counters},
    estimate::SizeEstimate,
    facts::{FactRefusal, Facts},
    limit::{Bucket, Rate, RateLimiter},
    lookup::LookupId,
    reputation::{Deed, Reputation},
    storage::{Storage, StorageConfig},
    table::{Table, TableConfig},
    votes::{self, Vote},
};
use lookups::Running;
use upkeep::Upkeep;

/// Requests that may wait for an answer at once.
const MAX_QUERIES: usize = 2048;
/// Lookups that may run at once.
const MAX_LOOKUPS: usize = 64;
/// Proofs of work that may wait for their evaluation.
const MAX_WAITING: usize = 256;
/// Own records kept alive.
const MAX_OWN_RECORDS: usize = 64;
/// Sightings of our address remembered.
const MAX_SIGHTINGS: usize = 32;
/// Facts passed on: a node that hears more tells those who ask. Else a thousand made-up identities that revoke themselves
/// would keep the whole network busy, and more facts than fit would go round for ever.
const GOSSIP_RATE: Rate = Rate { burst: 16.0, per_second: 1.0 / 30.0 };
/// Doors remembered.
const MAX_DOORS: usize = 64;

/// A node of the DHT as a pure state machine.
///
/// The caller delivers messages, evaluates proofs of work and calls [`Dht::on_timeout`] when [`Dht::next_timeout`] has
/// come; after every call it takes [`Dht::poll_output`] until that is empty.
#[derive(Debug)]
pub struct Dht {
    config: DhtConfig,
    own: PeerId,
    verifier: Arc<dyn Verifier>,
    rng: StdRng,
    contact: Option<Arc<Contact>>,
    table: Table,
    storage: Storage,
    facts: Facts,
    reputation: Reputation,
    judge: Judge,
    estimate: SizeEstimate,
    limiter: RateLimiter,
    admitted: Admitted,
    counters: Counters,
    lookups_begun: u64,
    outputs: VecDeque<Output>,
    queries: BTreeMap<QueryId, Pending>,
    lookups: BTreeMap<LookupId, Running>,
    waiting: BTreeMap<PeerId, Waiting>,
    own_records: BTreeMap<Point, OwnRecord>,
    doors: Vec<(PeerId, Vec<SocketAddr>)>,
    fact_cursors: BTreeMap<PeerId, u64>,
    gossip: Bucket,
    /// Where peers saw us, newest last.
    sightings: VecDeque<Vote<SocketAddr>>,
    upkeep: Upkeep,
    joined: bool,
    served: u64,
    last_id: u64,
}

/// A request under way.
#[derive(Debug)]
struct Pending {
    to: Arc<Contact>,
    purpose: Purpose,
}

/// What an answer is for.
#[derive(Debug, Clone)]
enum Purpose {
    /// A step of a lookup.
    Lookup {
        id: LookupId,
        value: bool,
        /// What to ask again, and how often at most, should no answer come in time.
        again: Option<(Point, u8)>,
    },
    /// A replica of a put.
    Store { id: LookupId },
    /// A copy on the path of a get.
    Cache,
    /// The first word with a bootstrap node.
    Door,
    /// Whether a newcomer, or a known peer's new address, can be reached.
    Newcomer,
    /// Whether the least recently seen of a full bucket still lives, else `Contact` gets its place.
    Probe,
    /// Whether a contact of old still lives.
    Liveness,
    /// Whether a lost contact is back.
    Lost,
    /// One question into a quiet bucket.
    Refresh,
    /// A heartbeat for an own record.
    Beat { key: Point },
    /// Passing a fact on.
    Announce,
    /// Asking for facts.
    Facts,
    /// Whether a peer in quarantine behaves again.
    Parole,
}

/// A contact whose proof of work is being evaluated, and what waits for it.
#[derive(Debug)]
struct Waiting {
    contact: Arc<Contact>,
    /// It answered us: it may enter the table at once. Else it is asked first.
    answered: bool,
    replies: Vec<(LookupId, crate::lookup::LookupReply)>,
    /// Counts with the queries: tells how long it has waited.
    number: u64,
}

/// A record of ours that is kept alive.
#[derive(Debug)]
struct OwnRecord {
    record: Arc<Record>,
    heartbeat_seed: [u8; 32],
    replicas: Vec<Arc<Contact>>,
    publish_at: Duration,
    beat_at: Duration,
    renewal_asked: bool,
    /// Puts in a row that nobody took.
    refused: u32,
}

impl Dht {
    /// Makes a node that knows nobody. `seed` must come from a real entropy source: tokens hang on it.
    #[must_use]
    pub fn new(now: Now, config: DhtConfig, own: PeerId, verifier: Arc<dyn Verifier>, seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let position = Point::from_bytes(rng.random());
        let table = Table::new(position, TableConfig { k: config.k, ..TableConfig::default() });
        let storage = Storage::new(StorageConfig::default(), position, rng.random());
        Self {
            own,
            verifier,
            contact: None,
            table,
            storage,
            facts: Facts::default(),
            reputation: Reputation::default(),
            judge: Judge::new(rng.random()),
            estimate: SizeEstimate::default(),
            limiter: RateLimiter::default(),
            admitted: Admitted::default(),
            counters: Counters::default(),
            lookups_begun: 0,
            outputs: VecDeque::new(),
            queries: BTreeMap::new(),
            lookups: BTreeMap::new(),
            waiting: BTreeMap::new(),
            own_records: BTreeMap::new(),
            doors: Vec::new(),
            fact_cursors: BTreeMap::new(),
            gossip: Bucket::full(&GOSSIP_RATE, now.mono),
            sightings: VecDeque::new(),
            upkeep: Upkeep::new(now, &config, &mut rng),
            joined: false,
            served: 0,
            last_id: 0,
            rng,
            config,
        }
    }

    /// The next thing to be done or told.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::on_timeout`] is due, on the monotonic clock.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let lookups = self.lookups.values().filter_map(Running::wake);
        let records = self.own_records.values().map(|own| own.publish_at.min(own.beat_at));
        lookups.chain(records).chain(self.upkeep.wake(self.idle())).chain(self.seek_at()).min()
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, now: Now) {
        self.watch_clock(now);
        let due: Vec<LookupId> = self
            .lookups
            .iter()
            .filter(|(_, running)| running.wake().is_some_and(|wake| wake <= now.mono))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.pump(now, id);
        }
        self.upkeep_records(now);
        self.upkeep_table(now);
    }

    /// Our settings.
    #[must_use]
    pub const fn config(&self) -> &DhtConfig {
        &self.config
    }

    /// The table.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// The records kept for others.
    #[must_use]
    pub const fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Whether we know from our own experience that this peer is, or was, at these addresses: then it is not on another's
    /// word alone that they are dialled.
    #[must_use]
    pub fn remembers(&self, contact: &Contact) -> bool {
        self.is_known(contact) || self.table.has_lost(contact)
    }

    /// What has been refused and suspected so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts an attack that was noticed outside (envelopes, links).
    pub fn count(&mut self, attack: Attack) {
        self.counters.count(attack);
    }

    /// What is known of rotated and revoked keys.
    #[must_use]
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Our own contact, once admitted.
    #[must_use]
    pub const fn contact(&self) -> Option<&Arc<Contact>> {
        self.contact.as_ref()
    }

    /// The estimated size of the network.
    #[must_use]
    pub const fn estimate(&self) -> &SizeEstimate {
        &self.estimate
    }

    /// Our UDP address as others see it, if enough of them, in different networks, agree (security.md 7.5).
    pub fn external_address(&mut self) -> Option<SocketAddr> {
        let votes: Vec<_> = self.sightings.iter().cloned().collect();
        let decision = votes::decide(&votes);
        if decision.is_none() && votes.len() >= votes::QUORUM {
            self.counters.count(Attack::VoteUndecided);
        }
        decision
    }

    /// Up to `n` contacts at random, for the next start.
    pub fn table_sample(&mut self, n: usize) -> Vec<Arc<Contact>> {
        self.table.sample(n, &mut self.rng)
    }

    /// The node in numbers.
    #[must_use]
    pub fn status(&self, now: Now) -> DhtStatus {
        DhtStatus {
            node_id: self.contact.as_ref().map(|contact| *contact.node_id()),
            joined: self.joined,
            contacts: self.table.len(),
            estimate: self.estimate.nodes(),
            records: self.storage.len(),
            record_bytes: self.storage.bytes(),
            own_records: self.own_records.len(),
            queries: self.queries.len(),
            lookups: self.lookups.len(),
            lookups_begun: self.lookups_begun,
            facts: self.facts.len(),
            quarantined: self.judge.quarantine().len(now),
            served: self.served,
        }
    }

    /// Whether a peer is in quarantine now.
    #[must_use]
    pub fn quarantined(&self, now: Now, peer: &PeerId) -> bool {
        self.judge.quarantined(now, peer)
    }

    fn idle(&self) -> bool {
        self.table.is_empty() && self.doors.is_empty()
    }

    fn position(&self) -> Point {
        *self.table.own()
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends a request, if there is room for one more.
    fn query(&mut self, to: Arc<Contact>, request: Request, purpose: Purpose) -> Option<QueryId> {
        if self.queries.len() >= MAX_QUERIES {
            self.counters.count(Attack::QueriesFull);
            return None;
        }
        let id = QueryId(self.next_id());
        let dial = matches!(purpose, Purpose::Newcomer);
        let timeout = self.config.query_timeout;
        self.queries.insert(id, Pending { to: Arc::clone(&to), purpose });
        self.outputs.push_back(Output::Query { id, to, request, timeout, dial });
        Some(id)
    }

    fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }

    /// Takes a proven fact in: its subject is forgotten.
    fn note_fact(&mut self, now: Now, fact: &Arc<Fact>) -> Result<bool, FactRefusal> {
        let new = self.facts.add(now, Arc::clone(fact), &*self.verifier)?;
        if new {
            let subject = *fact.subject();
            if matches!(**fact, Fact::Equivocation(_)) {
                self.reputation.note(now, &subject, Deed::Equivocation);
                let _by_the_bound_or_not = self.judge.prove(now, &subject, self.table.len());
            }
            if self.facts.revoked(&subject) {
                self.expel(now, &subject);
                self.storage.remove_owner(&subject);
            }
            self.notice(Notice::Fact(Arc::clone(fact)));
        }
        Ok(new)
    }

    /// Takes in a fact that somebody told, and passes on what is new as far as the budget for that goes.
    fn hear(&mut self, now: Now, fact: &Arc<Fact>) -> Result<bool, FactRefusal> {
        let new = self.note_fact(now, fact)?;
        if new && self.gossip.wait(&GOSSIP_RATE, now.mono, 1.0).is_zero() {
            self.gossip.take(&GOSSIP_RATE, 1.0);
            self.pass_on(fact);
        }
        Ok(new)
    }

    fn pass_on(&mut self, fact: &Arc<Fact>) {
        for contact in self.table.sample(upkeep::GOSSIP, &mut self.rng) {
            self.query(contact, Request::Announce(Arc::clone(fact)), Purpose::Announce);
        }
    }

    /// Takes a peer out of the table for good.
    fn expel(&mut self, now: Now, peer: &PeerId) {
        if self.table.remove(peer) {
            self.judge.table_changed(now, self.table.len());
        }
    }

    /// Whether a peer is neither asked nor believed now.
    fn shunned(&self, now: Now, peer: &PeerId) -> bool {
        *peer == self.own
            || self.judge.quarantined(now, peer)
            || self.reputation.banned(peer)
            || self.facts.revoked(peer)
    }
}
