// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the node and its people ask of the DHT, and their answers.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::{Finished, LookupId, admission::week, eclipse::Verdict};
use pqvpn_wire::dht::{Contact, Payload, Point, Record, peer_record_key, value_key};
use tokio::sync::oneshot;

use super::{
    super::{
        event::{Order, Reply, ValueAs, Wanted},
        records::{Signed, record_report, sign_as},
        report::{
            BucketReport, ContactReport, DhtError, DhtReport, DhtState, EclipseReport, GetReport, LookupReport,
            PutReport, RecordReport, TableReport,
        },
    },
    Driver,
};
use crate::{clock, config::DhtMode, handle::NodeError};

/// Lookups of people under way at once.
const MAX_WAITERS: usize = 32;
/// Peers sought at once or lately: more than that are configured nowhere.
const MAX_SOUGHT: usize = 1024;
/// How long a search waits for the DHT to be joined.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long an answer is good for whoever asks next.
const FRESH: Duration = Duration::from_secs(5);
/// First and longest pause before a peer that was not found is sought again.
const SEEK_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// A verdict of this age is told no more.
const VERDICT_LASTS: Duration = Duration::from_secs(3600);
/// How long records last: under a week's key nothing is found longer than this after the week.
const RECORD_LASTS_MS: u64 = 24 * 3_600_000;

/// Who waits for a lookup.
pub(super) enum Waiter {
    /// A person.
    Get(Get),
    Lookup(Reply<LookupReport>),
    Put(RecordReport, Reply<PutReport>),
    /// The node itself, for a peer it wants to dial; further keys to try.
    Find(PeerId, Vec<Point>),
    /// Nobody: an own record was published.
    Own(Point),
    /// The networks: a value of theirs was published.
    PutAs(Reply<usize>),
}

/// A person's get: further keys to try, when it began, and when it had a first record.
pub(super) struct Get {
    answer: Reply<GetReport>,
    /// Whose record it is, where that is known.
    of: Option<PeerId>,
    rest: Vec<Point>,
    started: Instant,
    first: Option<Duration>,
}

/// A peer looked for.
pub(in crate::dht) struct Sought {
    askers: Vec<oneshot::Sender<Vec<SocketAddr>>>,
    stage: Stage,
    /// Pause after the next time it is not found.
    pause: Duration,
}

enum Stage {
    /// Until the DHT is joined, or patience ends.
    Parked(Instant),
    Running,
    /// What was found, until when it is not looked for again.
    Known(Vec<SocketAddr>, Instant),
}

impl Driver {
    pub(super) fn on_order(&mut self, order: Order) {
        match order {
            Order::Incoming(incoming) => self.on_incoming(*incoming),
            Order::Find(peer, answer) => self.seek(peer, answer),
            Order::Retry(peer) => {
                if let Some(Sought { stage: Stage::Known(..), .. }) = self.sought.get(&peer) {
                    self.sought.remove(&peer);
                }
            }
            Order::Known(peer, answer) => drop(answer.send(self.known(&peer))),
            Order::Reached(peer) => self.reached(peer),
            Order::Pause(paused) => self.pause(paused),
            Order::NetworkChanged => self.on_network_change(),
            Order::Status(answer) => drop(answer.send(self.report())),
            Order::Get(wanted, answer) => self.get(&wanted, answer),
            Order::Put(name, value, answer) => self.put(&name, &value, answer),
            Order::PutAs(value, answer) => self.put_as(&value, answer),
            Order::DropAs(owner, name) => {
                let key = value_key(&owner, &self.parts.shared.network, &name);
                self.parts.dht.forget(&key);
            }
            Order::Lookup(wanted, answer) => self.lookup(&wanted, answer),
            Order::Announce(fact) => self.announce(fact),
            Order::Table(answer) => drop(answer.send(Ok(self.table_report()))),
            Order::Doors(answer) => drop(answer.send(Ok(self.parts.doors.report(clock::now())))),
            Order::AddDoors(doors, answer) => {
                drop(answer.send(self.parts.doors.add(clock::now(), doors).map_err(NodeError::from)));
            }
            Order::RemoveDoors(doors, answer) => drop(answer.send(Ok(self.parts.doors.remove(&doors)))),
            // The run loop has taken this one already.
            Order::Stop(done) => drop(done),
        }
    }

    /// Where a record may lie, best first.
    fn keys(&self, wanted: &Wanted) -> Vec<Point> {
        let network = &self.parts.shared.network;
        match wanted {
            Wanted::Key(key) => vec![*key],
            Wanted::Value(owner, name) => vec![value_key(owner, network, name)],
            Wanted::Peer(peer) => {
                let unix_ms = self.now().unix_ms;
                let mut weeks = vec![week(peer, unix_ms), week(peer, unix_ms.saturating_sub(RECORD_LASTS_MS))];
                weeks.dedup();
                weeks.into_iter().map(|week| peer_record_key(peer, week, network)).collect()
            }
        }
    }

    fn may_ask(&self) -> Result<(), NodeError> {
        if self.paused {
            Err(NodeError::Down)
        } else if self.is_alone() {
            Err(DhtError::Alone.into())
        } else if self.parts.dht.table().is_empty() {
            Err(DhtError::NoAnswer.into())
        } else if self.waiters.len() >= MAX_WAITERS {
            Err(DhtError::Busy.into())
        } else {
            Ok(())
        }
    }

    fn get(&mut self, wanted: &Wanted, answer: Reply<GetReport>) {
        if let Err(error) = self.may_ask() {
            return drop(answer.send(Err(error)));
        }
        let mut keys = self.keys(wanted);
        let first = keys.remove(0);
        let now = self.now();
        let of = match wanted {
            Wanted::Peer(peer) | Wanted::Value(peer, _) => Some(*peer),
            Wanted::Key(_) => None,
        };
        match self.parts.dht.get(now, first, 0) {
            Some(id) => {
                let get = Get { answer, of, rest: keys, started: clock::now(), first: None };
                self.waiters.insert(id, Waiter::Get(get));
            }
            None => drop(answer.send(Err(DhtError::Busy.into()))),
        }
    }

    fn lookup(&mut self, wanted: &Wanted, answer: Reply<LookupReport>) {
        if let Err(error) = self.may_ask() {
            return drop(answer.send(Err(error)));
        }
        let (now, target) = (self.now(), self.keys(wanted).remove(0));
        match self.parts.dht.find(now, target) {
            Some(id) => drop(self.waiters.insert(id, Waiter::Lookup(answer))),
            None => drop(answer.send(Err(DhtError::Busy.into()))),
        }
    }

    fn put(&mut self, name: &str, value: &[u8], answer: Reply<PutReport>) {
        if let Err(error) = self.may_ask() {
            return drop(answer.send(Err(error)));
        }
        let now = self.now();
        let signed = match self.parts.records.value(now, name, value) {
            Ok(signed) => signed,
            Err(error) => return drop(answer.send(Err(error.into()))),
        };
        let report = record_report(&signed.record);
        match self.parts.dht.keep(now, signed.record, signed.heartbeat_seed) {
            Some(id) => {
                self.parts.records.offered(&report.key);
                self.waiters.insert(id, Waiter::Put(report, answer));
            }
            None => drop(answer.send(Err(DhtError::Busy.into()))),
        }
    }

    /// A value of somebody we also are.
    fn put_as(&mut self, value: &ValueAs, answer: Reply<usize>) {
        if let Err(error) = self.may_ask() {
            return drop(answer.send(Err(error)));
        }
        let now = self.now();
        let kept = sign_as(&self.parts.shared.network, now, value)
            .map(|Signed { record, heartbeat_seed }| self.parts.dht.keep(now, record, heartbeat_seed));
        match kept {
            Ok(Some(id)) => drop(self.waiters.insert(id, Waiter::PutAs(answer))),
            Ok(None) => drop(answer.send(Err(DhtError::Busy.into()))),
            Err(error) => drop(answer.send(Err(error.into()))),
        }
    }

    // ---- peers the node wants to dial -----------------------------------------------------------------------------

    /// Where a peer was met, or announces itself. A neighbour with private addresses only has no record on the open DHT.
    fn known(&self, peer: &PeerId) -> Vec<String> {
        let contact = self.parts.dht.table().get(peer).map(|entry| entry.contact().addresses());
        let mut endpoints: Vec<String> = contact.unwrap_or_default().iter().map(ToString::to_string).collect();
        for endpoint in self.parts.doors.endpoints(peer) {
            if !endpoints.contains(endpoint) {
                endpoints.push(endpoint.clone());
            }
        }
        endpoints
    }

    fn seek(&mut self, peer: PeerId, answer: oneshot::Sender<Vec<SocketAddr>>) {
        let now = clock::now();
        if self.paused || self.is_alone() || (self.sought.len() >= MAX_SOUGHT && !self.sought.contains_key(&peer)) {
            return drop(answer.send(Vec::new()));
        }
        let sought = self.sought.entry(peer).or_insert_with(|| Sought {
            askers: Vec::new(),
            stage: Stage::Parked(now + PATIENCE),
            pause: SEEK_AGAIN.0,
        });
        if let Stage::Known(addresses, until) = &sought.stage {
            if now < *until {
                return drop(answer.send(addresses.clone()));
            }
            sought.stage = Stage::Parked(now + PATIENCE);
        }
        sought.askers.retain(|asker| !asker.is_closed());
        sought.askers.push(answer);
        self.seek_parked();
    }

    /// Begins the searches that waited for the DHT.
    pub(super) fn seek_parked(&mut self) {
        if self.parts.dht.table().is_empty() {
            return;
        }
        let is_parked = |sought: &Sought| matches!(sought.stage, Stage::Parked(_));
        let parked: Vec<PeerId> =
            self.sought.iter().filter(|(_, sought)| is_parked(sought)).map(|(peer, _)| *peer).collect();
        for peer in parked {
            let mut keys = self.keys(&Wanted::Peer(peer));
            let (now, first) = (self.now(), keys.remove(0));
            // With no room now it stays parked, and patience ends.
            if let Some(id) = self.parts.dht.get(now, first, 0) {
                self.waiters.insert(id, Waiter::Find(peer, keys));
                if let Some(sought) = self.sought.get_mut(&peer) {
                    sought.stage = Stage::Running;
                }
            }
        }
    }

    pub(super) fn expire_sought(&mut self, now: Instant) {
        let is_over = |sought: &Sought| matches!(sought.stage, Stage::Parked(until) if until <= now);
        let over: Vec<PeerId> =
            self.sought.iter().filter(|(_, sought)| is_over(sought)).map(|(peer, _)| *peer).collect();
        for peer in over {
            // Not the peer's fault: it is sought again as soon as somebody asks.
            if let Some(sought) = self.sought.remove(&peer) {
                sought.askers.into_iter().for_each(|asker| drop(asker.send(Vec::new())));
            }
        }
    }

    pub(super) fn next_sought(&self) -> Option<Instant> {
        let until = self.sought.values().filter_map(|sought| match sought.stage {
            Stage::Parked(until) => Some(until),
            Stage::Running | Stage::Known(..) => None,
        });
        until.min()
    }

    /// The search for a peer has an answer; `addresses` is empty if it has no record.
    fn sought(&mut self, peer: PeerId, addresses: &[SocketAddr]) {
        let Some(sought) = self.sought.get_mut(&peer) else { return };
        let now = clock::now();
        let good_for = if addresses.is_empty() {
            let pause = sought.pause;
            sought.pause = (pause * 2).min(SEEK_AGAIN.1);
            pause
        } else {
            sought.pause = SEEK_AGAIN.0;
            FRESH
        };
        sought.stage = Stage::Known(addresses.to_vec(), now + good_for);
        for asker in sought.askers.drain(..) {
            let _gave_up = asker.send(addresses.to_vec());
        }
    }

    // ---- the DHT's answers ----------------------------------------------------------------------------------------

    /// Somebody who wants to dial need not wait for the rest of the lookup.
    pub(super) fn on_found(&mut self, id: LookupId, record: &Record) {
        match self.waiters.get_mut(&id) {
            Some(Waiter::Get(get)) => get.first = get.first.or_else(|| Some(get.started.elapsed())),
            Some(Waiter::Find(peer, _)) => {
                let peer = *peer;
                let addresses = addresses_of(record, &peer);
                if !addresses.is_empty() {
                    self.sought(peer, &addresses);
                }
            }
            _ => {}
        }
    }

    /// A peer was reached: the rest of the lookup would only cost.
    fn reached(&mut self, peer: PeerId) {
        let is_for_it = |waiter: &Waiter| matches!(waiter, Waiter::Find(sought, _) if *sought == peer);
        let running: Vec<LookupId> =
            self.waiters.iter().filter(|(_, waiter)| is_for_it(waiter)).map(|(id, _)| *id).collect();
        for id in running {
            self.waiters.remove(&id);
            self.parts.dht.cancel(id);
        }
        // It may have been reached without any record: whoever asks next begins anew.
        if self.sought.get(&peer).is_some_and(|sought| !matches!(sought.stage, Stage::Known(..))) {
            self.sought.remove(&peer);
        }
    }

    pub(super) fn on_done(&mut self, finished: Finished) {
        let verdict = eclipse(finished.verdict);
        let now = clock::now();
        let is_old = self.eclipse.1.is_none_or(|at| now.saturating_duration_since(at) >= VERDICT_LASTS);
        if verdict > self.eclipse.0 || is_old {
            self.eclipse = (verdict, (verdict > EclipseReport::Normal).then_some(now));
        }
        match self.waiters.remove(&finished.id) {
            Some(Waiter::Get(get)) => self.got(&finished, get),
            Some(Waiter::Lookup(answer)) => drop(answer.send(Ok(lookup_report(&finished)))),
            Some(Waiter::Put(record, answer)) => {
                self.published(&record.key, finished.stored);
                let report = PutReport { record, stored: finished.stored, lookup: lookup_report(&finished) };
                drop(answer.send(Ok(report)));
            }
            Some(Waiter::Find(peer, rest)) => self.found(&finished, peer, rest),
            Some(Waiter::Own(key)) => self.published(&key, finished.stored),
            Some(Waiter::PutAs(answer)) => drop(answer.send(Ok(finished.stored))),
            // A republication by the machine itself.
            None => self.parts.records.stored(&finished.target, finished.stored),
        }
    }

    fn got(&mut self, finished: &Finished, mut get: Get) {
        if finished.outcome.record.is_none() && !get.rest.is_empty() {
            let (now, next) = (self.now(), get.rest.remove(0));
            if let Some(id) = self.parts.dht.get(now, next, 0) {
                self.waiters.insert(id, Waiter::Get(get));
                return;
            }
        }
        let record = finished.outcome.record.as_deref().map(record_report);
        let sources = u32::try_from(finished.outcome.sources).unwrap_or(u32::MAX);
        let successor = get.of.and_then(|peer| self.parts.dht.facts().successor(&peer));
        let report = GetReport { record, sources, first: get.first, successor, lookup: lookup_report(finished) };
        drop(get.answer.send(Ok(report)));
    }

    fn found(&mut self, finished: &Finished, peer: PeerId, mut rest: Vec<Point>) {
        let addresses = finished.outcome.record.as_deref().map_or_else(Vec::new, |record| addresses_of(record, &peer));
        if addresses.is_empty() && !rest.is_empty() {
            let (now, next) = (self.now(), rest.remove(0));
            if let Some(id) = self.parts.dht.get(now, next, 0) {
                self.waiters.insert(id, Waiter::Find(peer, rest));
                return;
            }
        }
        self.sought(peer, &addresses);
    }

    // ---- reports --------------------------------------------------------------------------------------------------

    fn report(&self) -> DhtReport {
        let (now, instant) = (self.now(), clock::now());
        let status = self.parts.dht.status(now);
        let contact = self.parts.dht.contact();
        let counts = &self.parts.shared.counts;
        let (tx_bytes, rx_bytes) = counts.bytes();
        let mut counters = counts.named(self.parts.dht.counters());
        let (evicted, refused) = self.parts.places.counts();
        counters.extend([("stranger-evicted", evicted), ("stranger-refused", refused)]);
        DhtReport {
            enabled: true,
            state: if self.paused { DhtState::Off } else { self.state() },
            mode: self.parts.mode,
            network: self.parts.shared.network,
            difficulty: self.parts.difficulty,
            admission: self.parts.position.report(instant, now.unix_ms, self.parts.work.tried()),
            node_id: status.node_id,
            addresses: contact.map_or_else(Vec::new, |contact| contact.addresses().to_vec()),
            observed: self.observed.decide(instant, true).or_else(|| self.observed.decide(instant, false)),
            contacts: status.contacts,
            size_estimate: status.estimate,
            links: self.links.counts(self.dialing.len()),
            rpc: counts.report(),
            lookups: (status.lookups_begun, status.lookups),
            tx_bytes,
            rx_bytes,
            serving: contact.is_some() && self.parts.mode != DhtMode::Client,
            eclipse: self.eclipse.0,
            stored_records: status.records,
            stored_bytes: status.record_bytes,
            own_records: self.parts.records.report(),
            doors: self.parts.doors.counts(),
            counters,
        }
    }

    fn table_report(&self) -> TableReport {
        let (now, table) = (self.now(), self.parts.dht.table());
        let own = self.parts.dht.contact().map(|contact| *contact.node_id());
        let mut buckets: Vec<BucketReport> = table
            .buckets()
            .into_iter()
            .filter(|bucket| bucket.contacts + bucket.replacements > 0)
            .map(|bucket| BucketReport {
                prefix_bits: u32::try_from(bucket.prefix).unwrap_or(u32::MAX),
                contacts: Vec::new(),
                replacements: bucket.replacements,
            })
            .collect();
        for entry in table.iter() {
            let seen = now.mono.saturating_sub(entry.last_seen());
            let contact = contact_report(entry.contact(), table.own(), Some(seen));
            if let Some(bucket) = buckets.iter_mut().find(|bucket| bucket.prefix_bits == contact.prefix_bits) {
                bucket.contacts.push(contact);
            }
        }
        for bucket in &mut buckets {
            bucket.contacts.sort_by_key(|contact| contact.seen);
        }
        TableReport { own, buckets }
    }
}

fn addresses_of(record: &Record, peer: &PeerId) -> Vec<SocketAddr> {
    match &record.draft().payload {
        Payload::Peer(endpoints) if record.owner() == peer => endpoints.addresses.clone(),
        Payload::Peer(_) | Payload::Value { .. } | _ => Vec::new(),
    }
}

fn lookup_report(finished: &Finished) -> LookupReport {
    let stats = finished.outcome.stats;
    let closest = finished.outcome.closest.iter();
    LookupReport {
        target: finished.target,
        closest: closest.map(|(contact, _)| contact_report(contact, &finished.target, None)).collect(),
        asked: stats.asked,
        answered: stats.answered,
        failed: stats.failed,
        rounds: stats.rounds,
        elapsed: stats.elapsed,
        eclipse: eclipse(finished.verdict),
    }
}

fn contact_report(contact: &Arc<Contact>, from: &Point, seen: Option<Duration>) -> ContactReport {
    ContactReport {
        peer: *contact.peer(),
        node_id: *contact.node_id(),
        addresses: contact.addresses().to_vec(),
        prefix_bits: contact.node_id().distance(from).leading_zeros(),
        seen,
    }
}

const fn eclipse(verdict: Verdict) -> EclipseReport {
    match verdict {
        Verdict::Normal => EclipseReport::Normal,
        Verdict::Suspect => EclipseReport::Suspect,
        Verdict::Eclipse => EclipseReport::Eclipse,
    }
}
