// SPDX-License-Identifier: MIT OR Apache-2.0
//! Upkeep: joining, probing, refreshing, finding back, keeping own records alive. While nothing is wrong it is one or
//! two round trips every five minutes.

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Distance, Heartbeat, Point, Record, Request};
use rand::{RngExt as _, rngs::StdRng};

use super::{Dht, DhtConfig, Notice, OwnRecord, Purpose, QueryFailure, QueryId};
use crate::{Now, WallClock, anomaly::WINDOW, counters::Attack, quarantine::Sentence, rules, votes};

/// Contacts a new fact is passed on to.
pub(super) const GOSSIP: usize = 4;
/// First and longest wait between two tries of the doors.
const DOOR_BACKOFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// Failed contacts within the window that make upkeep urgent.
const TROUBLE: u32 = 3;
/// How long failures count.
const TROUBLE_WINDOW: Duration = Duration::from_secs(300);
/// Contacts asked after a change of the network: enough for a vote when some are gone or share a network.
const LOOK_AROUND: usize = 3 * votes::QUORUM;
/// Lost contacts asked at once.
const LOST_AT_ONCE: usize = 3;
/// All lost contacts are tried at once, because one came back, no more often than this.
const HURRY_PAUSE: Duration = Duration::from_secs(300);
/// Time between joining and the second look at our own neighbourhood.
const SECOND_LOOK: Duration = Duration::from_secs(12);
/// Doors tried at once.
const DOORS_AT_ONCE: usize = 8;
/// Time between two sweeps over the buckets.
const SWEEP_PAUSE: Duration = Duration::from_secs(30);
/// The longest such pause, and the quiet after which it is short again.
const LONGEST_SWEEP_PAUSE: Duration = Duration::from_secs(4 * 3600);
const SWEEP_CALM: Duration = Duration::from_secs(2 * 3600);
/// Own records stored again at once; the others wait a little.
const PUTS_AT_ONCE: usize = 4;
const PUT_PAUSE: Duration = Duration::from_secs(5);
/// An own record that nobody took is offered again after this; ever more rarely while it is refused.
const UNSTORED_PAUSE: Duration = Duration::from_secs(60);
/// A query or a proof without an outcome for so long was forgotten by the caller.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Time before the end of an own record at which its owner is asked for a new one.
const RENEWAL_MS: u64 = 6 * 3_600_000;

/// Timers of upkeep.
#[derive(Debug)]
pub(super) struct Upkeep {
    next: Duration,
    doors_at: Option<Duration>,
    door_backoff: Duration,
    /// Prefix lengths still to be filled by a lookup after joining, longest last.
    sweep: Vec<u32>,
    swept_at: Option<Duration>,
    sweep_pause: Duration,
    /// When our own neighbourhood is looked at once more after a sweep: those who came with us, or came back with us, were
    /// not in their places the first time.
    again_at: Option<Duration>,
    /// Queries up to this number were open at that time.
    open_since: (Duration, u64),
    troubles: u32,
    trouble_until: Duration,
    turn: u32,
    window_at: Duration,
    sought_at: Duration,
    hurried_at: Duration,
    clock: WallClock,
}

impl Upkeep {
    pub(super) fn new(now: Now, config: &DhtConfig, rng: &mut StdRng) -> Self {
        Self {
            // Nodes started together do not tick together.
            next: now.mono + config.upkeep.mul_f64(rng.random_range(0.2..1.0)),
            doors_at: None,
            door_backoff: DOOR_BACKOFF.0,
            sweep: Vec::new(),
            swept_at: None,
            sweep_pause: SWEEP_PAUSE,
            again_at: None,
            open_since: (now.mono, 0),
            troubles: 0,
            trouble_until: Duration::ZERO,
            turn: 0,
            window_at: now.mono,
            sought_at: now.mono,
            hurried_at: Duration::ZERO,
            clock: WallClock::new(now),
        }
    }

    /// When something is due; an `idle` node has nobody to ask.
    pub(super) fn wake(&self, idle: bool) -> Option<Duration> {
        if idle {
            return None;
        }
        [Some(self.next), self.doors_at, self.again_at].into_iter().flatten().min()
    }

    /// The doors and the buckets are gone through again, soon.
    pub(super) fn rejoin(&mut self, now: Now) {
        self.doors_at = Some(now.mono);
        self.door_backoff = DOOR_BACKOFF.0;
        if self.swept_at.is_some_and(|at| now.mono >= at + SWEEP_PAUSE) {
            self.swept_at = None;
        }
    }

    /// A lost contact is back, and perhaps half of the network with it: as [`Self::rejoin`], but ever more rarely while
    /// contacts come and go.
    pub(super) fn returned(&mut self, now: Now) {
        let Some(at) = self.swept_at else { return };
        if now.mono >= at + SWEEP_CALM {
            self.sweep_pause = SWEEP_PAUSE;
        }
        if now.mono >= at + self.sweep_pause {
            self.sweep_pause = (self.sweep_pause * 4).min(LONGEST_SWEEP_PAUSE);
            self.swept_at = None;
            self.doors_at = Some(now.mono);
        }
    }

    /// Our position is another: the buckets around it are gone through again.
    pub(super) const fn moved(&mut self, now: Now) {
        self.swept_at = None;
        self.doors_at = Some(now.mono);
    }

    /// The table is full from the start.
    pub(super) const fn settled(&mut self) {
        self.swept_at = Some(Duration::ZERO);
        self.doors_at = None;
    }

    pub(super) const fn door_opened(&mut self) {
        self.door_backoff = DOOR_BACKOFF.0;
    }

    pub(super) const fn went_well(&mut self) {
        self.troubles = self.troubles.saturating_sub(1);
    }

    pub(super) fn went_wrong(&mut self, now: Now) {
        if now.mono > self.trouble_until {
            self.troubles = 0;
        }
        self.troubles = self.troubles.saturating_add(2).min(16);
        self.trouble_until = now.mono + TROUBLE_WINDOW;
        if self.urgent(now) {
            self.next = self.next.min(now.mono + Duration::from_secs(1));
        }
    }

    fn urgent(&self, now: Now) -> bool {
        self.troubles >= TROUBLE && now.mono <= self.trouble_until
    }
}

impl Dht {
    pub(super) fn upkeep_table(&mut self, now: Now) {
        if self.upkeep.doors_at.is_some_and(|at| at <= now.mono) {
            self.try_doors(now);
        }
        self.seek_lost(now);
        if self.upkeep.again_at.is_some_and(|at| at <= now.mono) {
            self.upkeep.again_at = None;
            let target = self.position();
            self.start_internal(now, target, None);
        }
        if now.mono < self.upkeep.next {
            return;
        }
        let urgent = self.upkeep.urgent(now);
        let pause = if urgent { self.config.urgent_upkeep } else { self.config.upkeep };
        self.upkeep.next = now.mono + pause.mul_f64(self.rng.random_range(0.8..1.2));
        self.storage.expire(now);
        self.close_forgotten(now);
        let forgotten = self.limiter.take_forgotten() + self.admitted.take_forgotten();
        self.counters.add(Attack::TableForgot, forgotten);
        self.counters.add(Attack::FactsFull, self.facts.take_displaced());
        self.close_window(now);
        if let Some(peer) = self.judge.next_probe(now)
            && let Some(contact) = self.table.get(&peer).map(|entry| Arc::clone(entry.contact()))
        {
            let target = self.position();
            self.query(contact, Request::FindNode { target }, Purpose::Parole);
        }
        self.act(now, urgent);
    }

    /// Ends what the caller has not told the outcome of: it must not hold up a put, or a place, for ever.
    fn close_forgotten(&mut self, now: Now) {
        let (since, mark) = self.upkeep.open_since;
        if now.mono < since + FORGOTTEN {
            return;
        }
        self.upkeep.open_since = (now.mono, self.last_id);
        let queries: Vec<QueryId> = self.queries.range(..=QueryId(mark)).map(|(id, _)| *id).collect();
        for id in queries {
            self.on_failure(now, id, QueryFailure::Local);
        }
        let proofs: Vec<PeerId> =
            self.waiting.iter().filter(|(_, waiting)| waiting.number <= mark).map(|(peer, _)| *peer).collect();
        for peer in proofs {
            let replies = self.waiting.remove(&peer).map(|waiting| waiting.replies);
            for (id, _) in replies.unwrap_or_default() {
                self.no_reply(now, id, &peer);
            }
        }
    }

    /// One act of upkeep.
    fn act(&mut self, now: Now, urgent: bool) {
        self.upkeep.turn = self.upkeep.turn.wrapping_add(1);
        let stale_after = if urgent { self.config.urgent_upkeep } else { self.config.stale_after };
        let facts_turn = self.upkeep.turn.is_multiple_of(12);
        if facts_turn && let Some(contact) = self.any_contact(now) {
            let after = self.fact_cursors.get(contact.peer()).copied().unwrap_or(0);
            self.query(contact, Request::Facts { after }, Purpose::Facts);
        } else if let Some(contact) = self.table.stalest(now, stale_after)
            && (urgent || self.upkeep.turn % 2 == 1)
        {
            self.query(contact, Request::Ping, Purpose::Liveness);
        } else if let Some(target) = self.table.idle_bucket_target(now, self.config.stale_after, &mut self.rng) {
            self.refresh(now, target);
        } else if self.table.len() < self.config.k && !self.doors.is_empty() {
            self.upkeep.doors_at = Some(now.mono);
            self.try_doors(now);
        }
    }

    fn any_contact(&mut self, now: Now) -> Option<Arc<Contact>> {
        let contacts = self.table.sample(4, &mut self.rng);
        contacts.into_iter().find(|contact| !self.shunned(now, contact.peer()))
    }

    fn refresh(&mut self, now: Now, target: Point) {
        let near = self.table.closest(&target, 4);
        if let Some(contact) = near.into_iter().find(|contact| !self.shunned(now, contact.peer())) {
            self.query(contact, Request::FindNode { target }, Purpose::Refresh);
        }
    }

    /// Asks contacts that vanished whether they are back: this is how a healed partition is noticed.
    fn seek_lost(&mut self, now: Now) {
        if self.seek_at().is_none_or(|at| at > now.mono) {
            return;
        }
        self.upkeep.sought_at = now.mono;
        self.ask_lost(now);
    }

    /// A lost contact is back: where one comes back, others do, each of them leading to the next.
    pub(super) fn seek_more(&mut self, now: Now) {
        if now.mono >= self.upkeep.hurried_at + HURRY_PAUSE {
            self.upkeep.hurried_at = now.mono;
            self.table.hurry_lost(now);
        }
        self.ask_lost(now);
    }

    fn ask_lost(&mut self, now: Now) {
        for _ in 0..LOST_AT_ONCE {
            if let Some(lost) = self.table.next_lost(now) {
                self.query(lost, Request::Ping, Purpose::Lost);
            }
        }
    }

    /// When lost contacts are asked next.
    pub(super) fn seek_at(&self) -> Option<Duration> {
        Some(self.table.lost_due()?.max(self.upkeep.sought_at + self.config.urgent_upkeep))
    }

    /// The host has another address or another way out: contacts in many networks are asked where they see us now, and those
    /// that were lost whether they can be reached from here.
    pub fn on_network(&mut self, now: Now) {
        self.sightings.clear();
        for contact in self.table.sample(LOOK_AROUND, &mut self.rng) {
            if !self.shunned(now, contact.peer()) {
                self.query(contact, Request::Ping, Purpose::Liveness);
            }
        }
        self.seek_more(now);
    }

    fn try_doors(&mut self, now: Now) {
        self.upkeep.doors_at = None;
        if !self.joined || self.table.len() < self.config.k {
            let open: Vec<_> = self
                .doors
                .iter()
                .filter(|(peer, _)| self.table.get(peer).is_none())
                .map(|(peer, addresses)| Arc::new(Contact::unproven(*peer, addresses.clone())))
                .collect();
            let start = if open.is_empty() { 0 } else { self.rng.random_range(0..open.len()) };
            for at in 0..open.len().min(DOORS_AT_ONCE) {
                let door = Arc::clone(&open[(start + at) % open.len()]);
                self.query(door, Request::Ping, Purpose::Door);
            }
            if !open.is_empty() && !self.joined {
                self.upkeep.doors_at = Some(now.mono + self.upkeep.door_backoff);
                self.upkeep.door_backoff = (self.upkeep.door_backoff * 2).min(DOOR_BACKOFF.1);
            }
        }
        if self.joined && self.upkeep.swept_at.is_none() && self.internal_lookups() == 0 {
            let target = self.position();
            self.start_internal(now, target, None);
        }
    }

    /// A lookup of our own has ended: the next one fills the next bucket.
    pub(super) fn settle(&mut self, now: Now) {
        if self.table.is_empty() || self.internal_lookups() > 0 {
            return;
        }
        if self.upkeep.swept_at.is_none() {
            self.upkeep.swept_at = Some(now.mono);
            self.upkeep.again_at = Some(now.mono + SECOND_LOOK.mul_f64(self.rng.random_range(0.7..1.3)));
            let near = self.table.closest(&self.position(), 1);
            let depth = near.first().map_or(0, |near| near.node_id().distance(&self.position()).leading_zeros());
            self.upkeep.sweep = (0..depth.min(64)).collect();
        }
        if let Some(prefix) = self.upkeep.sweep.pop() {
            let target = self.point_in_bucket(prefix);
            self.start_internal(now, target, None);
        }
    }

    /// A random point that shares exactly `prefix` bits with our position.
    fn point_in_bucket(&mut self, prefix: u32) -> Point {
        let mut distance: [u8; 32] = self.rng.random();
        let whole = usize::try_from(prefix / 8).unwrap_or(0).min(31);
        distance[..whole].fill(0);
        let bit = 0x80_u8 >> (prefix % 8);
        distance[whole] = (distance[whole] & (bit - 1)) | bit;
        self.position().at(&Distance::from_bytes(distance))
    }

    /// Judges what was seen in the last minute; an idle node has nothing to judge.
    pub(super) fn close_window(&mut self, now: Now) {
        if now.mono < self.upkeep.window_at + WINDOW {
            return;
        }
        self.upkeep.window_at = now.mono;
        for judgement in self.judge.close_window(now, self.table.len()) {
            match judgement.sentence {
                Some(Sentence::Held { until }) => {
                    self.counters.count(Attack::QuarantineBegun);
                    let period = until.saturating_sub(now.mono);
                    self.notice(Notice::Quarantined { peer: judgement.peer, period });
                }
                Some(Sentence::Denied) => self.counters.count(Attack::QuarantineDenied),
                None => {}
            }
        }
    }

    /// A wall clock that was set, ours here: copies elsewhere may be gone, or never have been taken.
    pub(super) fn watch_clock(&mut self, now: Now) {
        if !self.upkeep.clock.stepped(now) {
            return;
        }
        let mut renew = Vec::new();
        for (key, own) in &mut self.own_records {
            if own.is_timely(now) {
                // Whoever still has it last heard a sign of life before we slept.
                (own.publish_at, own.beat_at) = (now.mono, now.mono);
                own.renewal_asked = false;
            } else {
                own.renewal_asked = true;
                renew.push(*key);
            }
        }
        for key in renew {
            self.notice(Notice::Renew { key });
        }
    }

    /// A replica refuses a sign of life, perhaps because it has no copy: the record is stored again before its time, but no
    /// more often than signs of life are due, whoever says what.
    pub(super) fn lost_replica(&mut self, now: Now, key: &Point) {
        if let Some(own) = self.own_records.get_mut(key).filter(|own| own.early_at <= now.mono) {
            own.early_at = now.mono + self.config.beat;
            own.publish_at = own.publish_at.min(now.mono + PUT_PAUSE);
        }
    }

    pub(super) fn upkeep_records(&mut self, now: Now) {
        let mut publish = Vec::new();
        let mut beats = Vec::new();
        let mut renew = Vec::new();
        let mut room = PUTS_AT_ONCE.saturating_sub(self.puts());
        self.own_records.retain(|_, own| now.unix_ms < own.record.draft().not_after_ms);
        for (key, own) in &mut self.own_records {
            let draft = own.record.draft();
            if own.publish_at <= now.mono && room == 0 {
                own.publish_at = now.mono + PUT_PAUSE;
            } else if own.publish_at <= now.mono {
                room -= 1;
                own.publish_at = now.mono + self.config.republish;
                publish.push(Arc::clone(&own.record));
            }
            if own.beat_at <= now.mono {
                own.beat_at = now.mono + self.config.beat;
                if let Some(heartbeat) = own.heartbeat(now) {
                    beats.push((*key, heartbeat, own.replicas.clone()));
                }
                if draft.not_after_ms.saturating_sub(now.unix_ms) < RENEWAL_MS && !own.renewal_asked {
                    own.renewal_asked = true;
                    renew.push(*key);
                }
            }
        }
        for (key, heartbeat, replicas) in beats {
            let _not_kept_here = self.storage.beat(now, &key, heartbeat);
            for replica in replicas {
                self.query(replica, Request::Beat { key, heartbeat }, Purpose::Beat { key });
            }
        }
        for record in publish {
            let key = *record.key();
            if self.put(now, record).is_none()
                && let Some(own) = self.own_records.get_mut(&key)
            {
                own.publish_at = now.mono + UNSTORED_PAUSE;
            }
        }
        for key in renew {
            self.notice(Notice::Renew { key });
        }
    }

    /// A put of an own record has ended. Whoever keeps it only now needs to know that its owner is alive; if nobody took
    /// it, it is offered again soon.
    pub(super) fn published(&mut self, now: Now, record: &Record, replicas: Vec<Arc<Contact>>, asked: usize) {
        let Some(own) = self.own_records.get_mut(record.key()) else { return };
        if own.record.digest() != record.digest() {
            return;
        }
        if replicas.is_empty() {
            let pause = UNSTORED_PAUSE * (1 << own.refused.min(6));
            own.refused = if asked > 0 { own.refused.saturating_add(1) } else { 0 };
            own.publish_at = own.publish_at.min(now.mono + pause);
            return;
        }
        let before = std::mem::replace(&mut own.replicas, replicas);
        own.refused = 0;
        let Some(heartbeat) = own.heartbeat(now) else { return };
        let key = *record.key();
        let new = |replica: &&Arc<Contact>| before.iter().all(|known| known.peer() != replica.peer());
        let new: Vec<Arc<Contact>> = own.replicas.iter().filter(new).cloned().collect();
        for replica in new {
            self.query(replica, Request::Beat { key, heartbeat }, Purpose::Beat { key });
        }
    }
}

impl OwnRecord {
    /// Whether others would take it now.
    pub(super) fn is_timely(&self, now: Now) -> bool {
        let draft = self.record.draft();
        now.unix_ms < draft.not_after_ms && draft.not_before_ms <= now.unix_ms.saturating_add(rules::SKEW_MS)
    }

    /// The sign of life for the present hour, if the record's first hour is over and its last is not.
    pub(super) fn heartbeat(&self, now: Now) -> Option<Heartbeat> {
        let hour = rules::heartbeat_hour(now, self.record.draft().not_before_ms)?;
        Heartbeat::at(&self.heartbeat_seed, hour)
    }
}
