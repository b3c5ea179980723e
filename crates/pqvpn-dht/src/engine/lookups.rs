// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running lookups, and what a put or a get does with their outcome.

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Distance, Point, Record, Request, Token};

use super::{Dht, Finished, MAX_LOOKUPS, Notice, Output, Purpose};
use crate::{
    Now,
    counters::Attack,
    eclipse::{EclipseTest, Verdict},
    estimate::REGION_NODES,
    lookup::{Goal, Lookup, LookupConfig, LookupId, LookupOutcome, LookupReply, Step, TRIES},
};

/// Most nodes one put stores at: the region of 30 and twice a hundred Sybils in it.
const MAX_REPLICAS: usize = 240;
/// Candidates a lookup starts with, as a multiple of its paths.
const SEEDS_PER_PATH: usize = 4;

/// A lookup and what it is for.
#[derive(Debug)]
pub(super) struct Running {
    /// `None` while stores are under way.
    lookup: Option<Lookup>,
    target: Point,
    goal: Goal,
    record: Option<Arc<Record>>,
    /// The newest acceptable record so far, by seq and heartbeat.
    best: Option<(u64, u8)>,
    wake: Option<Duration>,
    widened: bool,
    storing: Option<Storing>,
    /// Nobody outside waits for it.
    internal: bool,
}

/// The second half of a put.
#[derive(Debug)]
struct Storing {
    outcome: LookupOutcome,
    verdict: Verdict,
    open: usize,
    asked: usize,
    replicas: Vec<Arc<Contact>>,
}

impl Running {
    pub(super) const fn wake(&self) -> Option<Duration> {
        self.wake
    }

    /// The newest acceptable record of a get so far.
    pub(super) const fn found(&self) -> Option<&Arc<Record>> {
        match self.goal {
            Goal::Value { .. } => self.record.as_ref(),
            Goal::Nodes | Goal::Region => None,
        }
    }
}

/// How wide a lookup is cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Usual,
    /// After signs of an eclipse (security.md 7.4): twice the region, twice the paths.
    Doubled,
    /// Upkeep: few paths, no region.
    Narrow,
}

impl Dht {
    pub(super) fn start(
        &mut self,
        now: Now,
        target: Point,
        goal: Goal,
        record: Option<Arc<Record>>,
    ) -> Option<LookupId> {
        let seeds = self.seeds(now, &target);
        self.begin(now, target, goal, record, seeds, Width::Usual)
    }

    /// A lookup of our own, which fills the table.
    pub(super) fn start_internal(&mut self, now: Now, target: Point, door: Option<Arc<Contact>>) -> Option<LookupId> {
        let mut seeds = self.seeds(now, &target);
        seeds.extend(door);
        let id = self.begin(now, target, Goal::Nodes, None, seeds, Width::Narrow)?;
        if let Some(running) = self.lookups.get_mut(&id) {
            running.internal = true;
        }
        Some(id)
    }

    /// Puts under way.
    pub(super) fn puts(&self) -> usize {
        self.lookups.values().filter(|running| matches!(running.goal, Goal::Region)).count()
    }

    pub(super) fn internal_lookups(&self) -> usize {
        self.lookups.values().filter(|running| running.internal).count()
    }

    fn begin(
        &mut self,
        now: Now,
        target: Point,
        goal: Goal,
        record: Option<Arc<Record>>,
        seeds: Vec<Arc<Contact>>,
        width: Width,
    ) -> Option<LookupId> {
        if self.lookups.len() >= MAX_LOOKUPS {
            self.counters.count(Attack::LookupsFull);
            return None;
        }
        let id = LookupId(self.next_id());
        let lookup = self.lookup(now, id, target, goal, seeds, width);
        let running = Running {
            lookup: Some(lookup),
            target,
            goal,
            record,
            best: None,
            wake: Some(now.mono),
            widened: width == Width::Doubled,
            storing: None,
            internal: false,
        };
        self.lookups.insert(id, running);
        self.lookups_begun += 1;
        self.own_replica(now, id);
        self.pump(now, id);
        Some(id)
    }

    fn lookup(
        &mut self,
        now: Now,
        id: LookupId,
        target: Point,
        goal: Goal,
        seeds: Vec<Arc<Contact>>,
        width: Width,
    ) -> Lookup {
        let radius = self.estimate.region_radius();
        let (paths, region) = match width {
            Width::Usual => (self.config.paths, radius),
            Width::Doubled => {
                let doubled = self.estimate.radius_for(2.0 * REGION_NODES);
                (self.config.paths * 2, doubled)
            }
            Width::Narrow => (self.config.paths.min(3), None),
        };
        let config = LookupConfig {
            k: self.config.k,
            paths,
            alpha: self.config.alpha,
            region,
            sources: self.config.sources,
            deadline: self.config.lookup_deadline,
            query_timeout: self.config.query_timeout,
            own: Some(self.own),
            ..LookupConfig::default()
        };
        let seed = rand::RngExt::random(&mut self.rng);
        Lookup::new(now, id, target, goal, seeds, config, seed)
    }

    /// Whom to begin with: the nearest contacts, the trusted before the doubtful (security.md 7.6).
    fn seeds(&mut self, now: Now, target: &Point) -> Vec<Arc<Contact>> {
        let wanted = (self.config.paths * SEEDS_PER_PATH).max(self.config.k);
        let mut seeds = self.table.closest(target, wanted);
        seeds.retain(|contact| !self.shunned(now, contact.peer()));
        let (mut trusted, doubtful): (Vec<_>, Vec<_>) =
            seeds.into_iter().partition(|contact| self.reputation.lower_bound(contact.peer()) >= DOUBTFUL);
        trusted.extend(doubtful);
        trusted
    }

    /// A record we keep ourselves is an answer like any other.
    fn own_replica(&mut self, now: Now, id: LookupId) {
        let Some(running) = self.lookups.get(&id) else { return };
        let Goal::Value { want_seq } = running.goal else { return };
        let Some(kept) = self.storage.get(now, &running.target) else { return };
        let (record, heartbeat) = (Arc::clone(kept.record), kept.heartbeat);
        if record.seq() >= want_seq && self.fresh(now, &record, heartbeat) {
            self.found(id, &record, heartbeat.map_or(0, |beat| beat.hour));
        }
    }

    /// Notes an acceptable record; `true` if it is the newest so far.
    pub(super) fn found(&mut self, id: LookupId, record: &Arc<Record>, hour: u8) -> bool {
        let Some(running) = self.lookups.get_mut(&id) else { return false };
        let age = (record.seq(), hour);
        let first = running.best.is_none();
        if running.best.is_some_and(|best| best > age) {
            return false;
        }
        let newer = running.best.is_none_or(|(seq, _)| record.seq() > seq);
        running.best = Some(age);
        if newer && matches!(running.goal, Goal::Value { .. }) {
            running.record = Some(Arc::clone(record));
        }
        if first {
            self.outputs.push_back(Output::Found { id, record: Arc::clone(record) });
        }
        true
    }

    pub(super) fn reply(&mut self, now: Now, id: LookupId, from: &PeerId, reply: LookupReply) {
        if let Some(lookup) = self.lookups.get_mut(&id).and_then(|running| running.lookup.as_mut()) {
            lookup.on_reply(now, from, reply);
            self.pump(now, id);
        }
    }

    pub(super) fn no_reply(&mut self, now: Now, id: LookupId, from: &PeerId) {
        if let Some(lookup) = self.lookups.get_mut(&id).and_then(|running| running.lookup.as_mut()) {
            lookup.on_failure(now, from);
            self.pump(now, id);
        }
    }

    pub(super) fn lookup_target(&self, id: LookupId) -> Option<Point> {
        self.lookups.get(&id).map(|running| running.target)
    }

    /// Whether the answers of this lookup decide where something is kept, so that positions must be proven.
    pub(super) fn needs_positions(&self, id: LookupId) -> bool {
        self.lookups.get(&id).is_some_and(|running| !matches!(running.goal, Goal::Value { .. }))
    }

    /// Asks a node again that did not answer in time, if the result may hang on it: one lost packet too many must not
    /// cost a lookup the very node it looks for. False if it is not worth it.
    pub(super) fn ask_again(
        &mut self,
        id: LookupId,
        to: &Arc<Contact>,
        value: bool,
        (point, left): (Point, u8),
    ) -> bool {
        let Some(running) = self.lookups.get(&id).filter(|running| running.lookup.is_some()) else { return false };
        let target = running.target;
        let near = |radius: Distance| to.node_id().distance(&target) < radius;
        if !to.is_proven() || !self.estimate.region_radius().is_none_or(near) {
            return false;
        }
        let again = (left > 1).then(|| (point, left - 1));
        let request = match running.goal {
            Goal::Value { want_seq } if value => Request::FindValue { key: target, want_seq },
            Goal::Value { .. } | Goal::Nodes | Goal::Region => Request::FindNode { target: point },
        };
        self.query(Arc::clone(to), request, Purpose::Lookup { id, value, again }).is_some()
    }

    /// Lets a lookup ask until it waits or ends.
    pub(super) fn pump(&mut self, now: Now, id: LookupId) {
        loop {
            let Some(running) = self.lookups.get_mut(&id) else { return };
            let Some(lookup) = running.lookup.as_mut() else { return };
            match lookup.next(now) {
                Step::Ask { to, ask, .. } => {
                    let want_seq = match running.goal {
                        Goal::Value { want_seq } => want_seq,
                        Goal::Nodes | Goal::Region => 0,
                    };
                    let request = if ask.value {
                        Request::FindValue { key: running.target, want_seq }
                    } else {
                        Request::FindNode { target: ask.target }
                    };
                    let peer = *to.peer();
                    if self.shunned(now, &peer)
                        || self
                            .query(
                                to,
                                request,
                                Purpose::Lookup { id, value: ask.value, again: Some((ask.target, TRIES - 1)) },
                            )
                            .is_none()
                    {
                        let running = self.lookups.get_mut(&id);
                        if let Some(lookup) = running.and_then(|running| running.lookup.as_mut()) {
                            lookup.on_failure(now, &peer);
                        }
                    }
                }
                Step::Wait { until } => {
                    running.wake = Some(until);
                    return;
                }
                Step::Done => {
                    self.looked_up(now, id);
                    return;
                }
            }
        }
    }

    fn looked_up(&mut self, now: Now, id: LookupId) {
        let Some(running) = self.lookups.get_mut(&id) else { return };
        let Some(lookup) = running.lookup.take() else { return };
        running.wake = None;
        self.table.looked_up(now, &running.target);
        let mut outcome = lookup.finish();
        if outcome.stats.cut {
            self.counters.count(Attack::LookupDeadline);
        }
        if matches!(running.goal, Goal::Value { .. }) {
            outcome.record.clone_from(&running.record);
        }
        let (target, goal, internal, widened) = (running.target, running.goal, running.internal, running.widened);
        let put = if matches!(goal, Goal::Region) { running.record.clone() } else { None };
        let verdict = self.judge_density(&target, goal, &outcome, internal);
        if verdict != Verdict::Normal && !internal {
            self.notice(Notice::Eclipse { target, verdict });
        }
        let nothing = matches!(goal, Goal::Value { .. }) && outcome.record.is_none();
        if nothing && verdict != Verdict::Normal && !widened {
            let seeds = self.seeds(now, &target);
            let lookup = self.lookup(now, id, target, goal, seeds, Width::Doubled);
            if let Some(running) = self.lookups.get_mut(&id) {
                (running.lookup, running.widened, running.wake) = (Some(lookup), true, Some(now.mono));
            }
            self.pump(now, id);
            return;
        }
        // A copy comes without heartbeats: one that is stale without them is of no use to anybody.
        if let (Some(record), Some((to, token))) = (&outcome.record, &outcome.missed)
            && self.fresh(now, record, None)
        {
            let request = Request::Store { record: Arc::clone(record), token: *token, cache: true };
            self.query(Arc::clone(to), request, Purpose::Cache);
        }
        if internal {
            self.lookups.remove(&id);
            self.settle(now);
            return;
        }
        match put {
            Some(record) => self.store(now, id, &record, outcome, verdict),
            None => self.done(id, outcome, verdict, 0, 0),
        }
    }

    /// Looks at how close together the nearest nodes stand, and learns the size of the network.
    fn judge_density(&mut self, target: &Point, goal: Goal, outcome: &LookupOutcome, internal: bool) -> Verdict {
        let distances: Vec<_> = outcome.closest.iter().map(|(contact, _)| contact.node_id().distance(target)).collect();
        let verdict = match self.estimate.nodes() {
            Some(nodes) if distances.len() >= self.config.k => EclipseTest::default().judge(nodes, &distances),
            Some(_) | None => Verdict::Normal,
        };
        match verdict {
            Verdict::Normal => {}
            Verdict::Suspect => self.counters.count(Attack::EclipseSuspected),
            Verdict::Eclipse => self.counters.count(Attack::EclipseDetected),
        }
        // Targets of our own choice are nobody's aim, and a network that grows looks like an eclipse everywhere. The
        // positions in a get are not proven: liars could make them up a little denser each time.
        let proven = !matches!(goal, Goal::Value { .. });
        if proven && (internal || verdict != Verdict::Eclipse) {
            self.estimate.add(target, &distances);
        }
        verdict
    }

    fn store(&mut self, now: Now, id: LookupId, record: &Arc<Record>, outcome: LookupOutcome, verdict: Verdict) {
        let mut chosen: Vec<(Arc<Contact>, Token)> = Vec::new();
        for (contact, token) in outcome.region.iter().chain(&outcome.closest) {
            let known = chosen.iter().any(|(other, _)| other.peer() == contact.peer());
            if let (Some(token), false, true) = (token, known, contact.is_proven()) {
                chosen.push((Arc::clone(contact), *token));
            }
        }
        chosen.truncate(MAX_REPLICAS);
        let mut open = 0;
        for (contact, token) in chosen {
            let request = Request::Store { record: Arc::clone(record), token, cache: false };
            if self.query(contact, request, Purpose::Store { id }).is_some() {
                open += 1;
            }
        }
        self.store_here(now, record);
        if open == 0 {
            self.published(now, record, Vec::new(), 0);
            self.done(id, outcome, verdict, 0, 0);
        } else if let Some(running) = self.lookups.get_mut(&id) {
            running.storing = Some(Storing { outcome, verdict, open, asked: open, replicas: Vec::new() });
        }
    }

    /// A node inside the region keeps a replica of its own record too: others will ask it.
    fn store_here(&mut self, now: Now, record: &Arc<Record>) {
        let here = self.position().distance(record.key());
        if self.contact.is_some() && self.estimate.region_radius().is_none_or(|radius| here < radius) {
            let _kept_elsewhere_anyway = self.storage.put_own(now, Arc::clone(record));
        }
    }

    pub(super) fn stored(&mut self, now: Now, id: LookupId, replica: Option<Arc<Contact>>) {
        let Some(running) = self.lookups.get_mut(&id) else { return };
        let Some(storing) = running.storing.as_mut() else { return };
        storing.open = storing.open.saturating_sub(1);
        storing.replicas.extend(replica);
        if storing.open > 0 {
            return;
        }
        let (Some(storing), Some(record)) = (running.storing.take(), running.record.take()) else { return };
        let stored = storing.replicas.len();
        self.published(now, &record, storing.replicas, storing.asked);
        self.done(id, storing.outcome, storing.verdict, stored, storing.asked);
    }

    fn done(&mut self, id: LookupId, outcome: LookupOutcome, verdict: Verdict, stored: usize, asked: usize) {
        let Some(running) = self.lookups.remove(&id) else { return };
        let target = running.target;
        let finished = Finished { id, target, outcome, verdict, stored, asked_to_store: asked };
        self.outputs.push_back(Output::Done(Box::new(finished)));
    }
}

/// Below this lower bound of its reputation a contact is asked after all others. A newcomer stands above it.
const DOUBTFUL: f64 = 0.1;
