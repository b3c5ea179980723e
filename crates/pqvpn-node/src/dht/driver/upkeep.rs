// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the node does for its own place in the DHT: addresses, position, own records, doors, files, health.

use std::{
    net::SocketAddr,
    sync::PoisonError,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::address::{Class, Realm, class};
use pqvpn_wire::dht::{Admission, Contact, Point};
use tokio::{net::lookup_host, time::timeout};

use super::{
    super::{
        addresses::dialable,
        doors::{Knock, MAX_DOOR_ADDRESSES},
        files::{MAX_SAMPLE, Remembered},
        records::Signed,
        report::{AdmissionState, DhtState, DoorSource, NewDoor},
    },
    Driver,
    orders::Waiter,
    queries::TaskDone,
};
use crate::{
    clock,
    config::DhtMode,
    entropy,
    snapshot::{HealthItem, HealthLevel},
};

/// How often the addresses of the interfaces are looked at.
const LOOK: Duration = Duration::from_secs(300);
/// Shortest time between two writes of the table sample.
const SAVE: Duration = Duration::from_secs(600);
/// A first sample is written sooner: a node that is killed young shall find back too.
const FIRST_SAVE: Duration = Duration::from_secs(30);
/// How long doors may take to answer before the DHT counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a name of a door may take to resolve.
const RESOLVE: Duration = Duration::from_secs(10);
/// Shortest and longest time until an own record that nobody took is published again.
const PUBLISH_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Nodes that keep a record and are enough, as long as they live: those that a lookup ends with (dht.md).
const ENOUGH_KEEPERS: usize = 20;
/// Shortest time between two publications because the table has grown.
const PUBLISH_PAUSE: Duration = Duration::from_secs(15);

/// Timers of upkeep.
pub(super) struct Upkeep {
    started: Instant,
    look_at: Instant,
    /// Interfaces as of the last look.
    interfaces: Vec<SocketAddr>,
    /// What others are told, and with which proof.
    told: (Vec<SocketAddr>, Option<Admission>),
    save_at: Option<Instant>,
    saved: bool,
    /// Own records that nobody took, or not yet.
    publish_at: Option<Instant>,
    publish_pause: Duration,
    /// Contacts known when own records were last published, and when that was.
    published_among: usize,
    published_last: Option<Instant>,
    values_signed: bool,
    position_at: Option<Instant>,
}

impl Upkeep {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            started: now,
            look_at: now,
            interfaces: Vec::new(),
            told: (Vec::new(), None),
            save_at: None,
            saved: false,
            publish_at: None,
            publish_pause: PUBLISH_AGAIN.0,
            published_among: 0,
            published_last: None,
            values_signed: false,
            position_at: None,
        }
    }

    pub(super) fn joined(&mut self) {
        let now = clock::now();
        self.publish_at = Some(now);
        self.publish_pause = PUBLISH_AGAIN.0;
        self.save_at = Some(now + if self.saved { SAVE } else { FIRST_SAVE });
    }

    pub(super) fn addresses_may_have_changed(&mut self) {
        self.look_at = clock::now();
    }

    /// Whether it is too early to say that nobody answers.
    pub(super) fn is_patient(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.started) < PATIENCE
    }
}

impl Driver {
    /// Does what is due; called after everything that happens.
    pub(super) fn keep_up(&mut self) {
        let now = clock::now();
        if self.upkeep.look_at <= now {
            self.upkeep.look_at = now + LOOK;
            self.upkeep.interfaces = dialable(&self.parts.listen, self.parts.realm, &self.parts.overlay.get());
        }
        self.keep_position(now);
        self.keep_contact();
        self.keep_records(now);
        self.keep_facts(now);
        self.knock(now);
        if self.upkeep.save_at.is_some_and(|at| at <= now) {
            self.upkeep.save_at = Some(now + SAVE);
            self.save_table();
        }
    }

    pub(super) fn next_upkeep(&self) -> Option<Instant> {
        let upkeep = &self.upkeep;
        let doors = if self.parts.dht.table().is_empty() { self.parts.doors.next_round() } else { None };
        let patience = (doors.is_some() && upkeep.is_patient(clock::now())).then(|| upkeep.started + PATIENCE);
        let publish = upkeep.publish_at.filter(|_| !self.parts.dht.table().is_empty());
        // A node that nobody knows and that knows nobody has nothing to keep up.
        let look = (!self.is_alone()).then_some(upkeep.look_at);
        let facts = self.own_facts.next();
        let doubt = self.observed.doubt_ends(clock::now());
        [doubt, look, upkeep.save_at, publish, upkeep.position_at, doors, patience, facts].into_iter().flatten().min()
    }

    // ---- position and contact -------------------------------------------------------------------------------------

    fn keep_position(&mut self, now: Instant) {
        if self.parts.mode == DhtMode::Client {
            return;
        }
        // A proof that nobody would ever see is not worth the electricity.
        if self.met || !self.parts.doors.is_empty() {
            self.parts.position.want();
            let until_next = self.parts.position.until_next(self.now().unix_ms);
            self.upkeep.position_at = Some(now + until_next + Duration::from_secs(1));
        }
        let unix_ms = self.now().unix_ms;
        if let Some(week) = self.parts.position.begin(now, unix_ms)
            && let Err(error) = self.parts.work.solve(self.parts.shared.own, week, entropy::u64())
        {
            tracing::warn!(%error, "the proof of work cannot be searched for");
            self.parts.position.give_up();
            self.upkeep.position_at = Some(now + LOOK);
        }
    }

    pub(super) fn on_solved(&mut self, admission: Admission) {
        tracing::info!(week = admission.week, tried = self.parts.work.tried(), "admitted to the DHT for a week");
        self.parts.position.found(admission);
        let files = self.parts.files.clone();
        crate::blocking::run(move || {
            if let Err(error) = files.save_admission(&admission) {
                tracing::warn!(%error, "the proof of work is not kept; the next start searches again");
            }
        });
    }

    fn own_addresses(&self) -> Vec<SocketAddr> {
        let now = clock::now();
        let mut addresses: Vec<SocketAddr> =
            [true, false].into_iter().filter_map(|v4| self.observed.decide(now, v4)).collect();
        for at in &self.upkeep.interfaces {
            if !addresses.contains(at) {
                addresses.push(*at);
            }
        }
        addresses
    }

    /// Tells the DHT how we can be dialed, when that has changed.
    fn keep_contact(&mut self) {
        if self.observed.is_in_doubt(clock::now()) {
            return;
        }
        let now = self.now();
        let addresses = self.own_addresses();
        let admission = self.parts.position.admission(now.unix_ms);
        if self.upkeep.told == (addresses.clone(), admission) {
            return;
        }
        let contact = admission
            .filter(|_| !addresses.is_empty() && self.parts.mode != DhtMode::Client)
            .map(|admission| Contact::new(self.parts.shared.own, admission, addresses.clone()));
        self.parts.dht.set_contact(now, contact);
        self.parts.shared.set_contact(self.parts.dht.contact().cloned());
        // Other addresses are news to tell; another week has another key to tell them under.
        self.upkeep.publish_at = Some(clock::now());
        self.upkeep.told = (addresses, admission);
    }

    // ---- own records ----------------------------------------------------------------------------------------------

    fn keep_records(&mut self, now: Instant) {
        let contacts = self.parts.dht.table().len();
        if contacts == 0 {
            return;
        }
        if self.parts.records.drop_untimely(self.now()) {
            self.upkeep.values_signed = false;
            self.upkeep.publish_at = Some(now);
        }
        if contacts >= self.upkeep.published_among.saturating_mul(2) && self.upkeep.published_among > 0 {
            // Of the nodes known now, few may have been asked to keep our records.
            let soonest = self.upkeep.published_last.map_or(now, |at| at + PUBLISH_PAUSE);
            self.upkeep.publish_at = Some(self.upkeep.publish_at.map_or(soonest, |at| at.min(soonest)));
        }
        if self.upkeep.publish_at.is_none_or(|at| at > now) {
            return;
        }
        self.upkeep.publish_at = None;
        let grown = contacts >= self.upkeep.published_among.saturating_mul(2);
        self.upkeep.published_last = Some(now);
        self.upkeep.published_among = contacts;
        let now = self.now();
        if !std::mem::replace(&mut self.upkeep.values_signed, true) {
            let _in_force = self.parts.records.values_again(now);
        }
        self.renew_peer_record();
        // A record with as many nodes as a lookup finds is found, however many more are known now: to publish is some
        // hundred kB, here and elsewhere.
        let enough = if grown { ENOUGH_KEEPERS } else { 1 };
        for signed in self.parts.records.kept_by_less_than(enough) {
            self.publish(signed);
        }
    }

    /// Addresses of a site are of no use to who looks us up from elsewhere, and would have the record refused.
    fn record_addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = self.own_addresses();
        if self.parts.realm == Realm::Open {
            addresses.retain(|at| class(at) == Class::Public);
        }
        addresses
    }

    /// Signs another peer record if there is something new to say.
    fn renew_peer_record(&mut self) {
        let (now, addresses) = (self.now(), self.record_addresses());
        match self.parts.records.peer_record(now, addresses, false) {
            Ok(Some((_in_force, Some(old)))) => self.forget(&old),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "the node's own record is not published");
                self.publish_again_later();
            }
        }
    }

    fn publish(&mut self, signed: Signed) {
        let (now, key) = (self.now(), *signed.record.key());
        match self.parts.dht.keep(now, signed.record, signed.heartbeat_seed) {
            Some(id) => {
                self.parts.records.offered(&key);
                self.waiters.insert(id, Waiter::Own(key));
            }
            None => self.publish_again_later(),
        }
    }

    pub(super) fn published(&mut self, key: &Point, nodes: usize) {
        self.parts.records.stored(key, nodes);
        if nodes == 0 {
            self.publish_again_later();
        } else {
            tracing::debug!(%key, nodes, "own record published");
            self.upkeep.publish_pause = PUBLISH_AGAIN.0;
        }
    }

    fn publish_again_later(&mut self) {
        self.upkeep.publish_at = Some(clock::now() + self.upkeep.publish_pause);
        self.upkeep.publish_pause = (self.upkeep.publish_pause * 2).min(PUBLISH_AGAIN.1);
    }

    pub(super) fn renew(&mut self, key: &Point) {
        let now = self.now();
        // A clock that was set is noticed here as well, and may have been before.
        if self.parts.records.is_lasting(now, key) {
            return;
        }
        match self.parts.records.renewed(now, key) {
            Ok(Some((signed, replaced))) => {
                if let Some(old) = replaced {
                    self.forget(&old);
                }
                self.publish(signed);
            }
            Ok(None) => self.forget(key),
            Err(error) => {
                tracing::warn!(%error, "an own record was not renewed");
                self.publish_again_later();
            }
        }
    }

    // ---- doors ----------------------------------------------------------------------------------------------------

    fn knock(&mut self, now: Instant) {
        if !self.parts.dht.table().is_empty() {
            return;
        }
        for Knock { peer, endpoints } in self.parts.doors.round(now, clock::unix_millis()) {
            self.tasks.spawn(async move { TaskDone::Resolved { peer, addresses: resolve(endpoints).await } });
        }
    }

    pub(super) fn on_resolved(&mut self, peer: PeerId, addresses: Result<Vec<SocketAddr>, String>) {
        let now = self.now();
        match addresses {
            Ok(addresses) => self.parts.dht.bootstrap(now, vec![(peer, addresses)]),
            Err(why) => self.parts.doors.failed(clock::now(), &peer, why),
        }
    }

    // ---- files ----------------------------------------------------------------------------------------------------

    fn sample(&mut self) -> Vec<Remembered> {
        let contacts = self.parts.dht.table_sample(MAX_SAMPLE);
        let line = |contact: &std::sync::Arc<Contact>| Remembered {
            peer: *contact.peer(),
            addresses: contact.addresses().to_vec(),
            verified_ms: self.parts.doors.verified_ms(contact.peer()),
        };
        contacts.iter().map(line).collect()
    }

    fn save_table(&mut self) {
        let (files, sample) = (self.parts.files.clone(), self.sample());
        if sample.is_empty() {
            // What was known before is worth more than nothing.
            return;
        }
        self.upkeep.saved = true;
        crate::blocking::run(move || {
            if let Err(error) = files.save_table(sample) {
                tracing::warn!(%error, "the table sample of the DHT is not kept");
            }
        });
    }

    pub(super) async fn save_table_now(&mut self) {
        let (files, sample) = (self.parts.files.clone(), self.sample());
        if sample.is_empty() {
            return;
        }
        let saved = crate::blocking::run(move || files.save_table(sample)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the table sample of the DHT is not kept");
        }
    }

    // ---- health ---------------------------------------------------------------------------------------------------

    pub(super) fn tell_health(&self) {
        let mut items = self.parts.standing.clone();
        let now = clock::now();
        match self.state() {
            DhtState::Unreachable => items.push(HealthItem {
                level: HealthLevel::Warn,
                code: "dht-unreachable",
                text: "no bootstrap node of the DHT answers; `pqvpn bootstrap list` says why".to_owned(),
            }),
            DhtState::Alone => items.push(HealthItem {
                level: HealthLevel::Info,
                code: "dht-alone",
                text: "no other node of the DHT is known: peers without an address cannot be found".to_owned(),
            }),
            DhtState::Off | DhtState::Joining | DhtState::Joined => {}
        }
        let unix_ms = self.now().unix_ms;
        let admission = self.parts.position.report(now, unix_ms, 0);
        if matches!(admission, AdmissionState::Solving { .. }) {
            let text = "the week's proof of work for the DHT is being searched for".to_owned();
            items.push(HealthItem { level: HealthLevel::Info, code: "dht-admission", text });
        }
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *health != items {
            *health = items;
        }
    }
}

/// Every address of a door's endpoints, a few.
async fn resolve(endpoints: Vec<String>) -> Result<Vec<SocketAddr>, String> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut why = "it has no address".to_owned();
    for endpoint in endpoints {
        match timeout(RESOLVE, lookup_host(&endpoint)).await {
            Ok(Ok(found)) => addresses.extend(found),
            Ok(Err(error)) => why = format!("{endpoint} does not resolve: {error}"),
            Err(_elapsed) => why = format!("{endpoint} does not resolve in time"),
        }
    }
    addresses.dedup();
    addresses.truncate(MAX_DOOR_ADDRESSES);
    if addresses.is_empty() { Err(why) } else { Ok(addresses) }
}

/// A contact of an earlier run as a door.
pub(in crate::dht) fn remembered_door(contact: &Remembered) -> NewDoor {
    let endpoints = contact.addresses.iter().map(ToString::to_string).collect();
    NewDoor { peer: contact.peer, endpoints, source: DoorSource::Cache, expires_ms: None }
}
