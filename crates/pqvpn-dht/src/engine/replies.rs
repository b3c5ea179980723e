// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of answers, and of their absence.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Equivocation, Fact, Heartbeat, Payload, Point, Record, Refusal, Request, Response};

use super::{Dht, MAX_SIGHTINGS, Notice, Purpose, QueryFailure, QueryId, lookups::Running, newcomers::met_at};
use crate::{
    Now,
    address::{Origin, Wide},
    anomaly::Observation,
    counters::Attack,
    facts::FactRefusal,
    lookup::{LookupId, LookupReply},
    reputation::Deed,
    rules,
    table::Failed,
    votes::Vote,
};

impl Dht {
    /// An authenticated answer has come. `at` is the UDP address it came from, as the link has proven it; `sender` the
    /// contact the answerer gave for itself.
    pub fn on_response(
        &mut self,
        now: Now,
        query: QueryId,
        at: SocketAddr,
        sender: Option<Arc<Contact>>,
        response: Response,
        rtt: Duration,
    ) {
        let Some(pending) = self.queries.remove(&query) else {
            self.counters.count(Attack::UnaskedReply);
            return;
        };
        let (to, purpose) = (pending.to, pending.purpose);
        self.table.seen(now, to.peer());
        self.upkeep.went_well();
        // Not where it was asked: whoever named it chose that.
        let told_by = Some(at.ip());
        let sender = sender.filter(|sender| self.is_own_word(now, &to, sender, told_by));
        let sender = sender.map(|sender| self.attested(now, &to, at, sender));
        self.judge.observe(now, to.peer(), &Observation { rtt: Some(rtt), ..Observation::default() });
        self.close_window(now);
        // Who is asked by something that has no address of ours sees none.
        if let Response::Pong { observed } = &response
            && observed.port() != 0
        {
            self.sighted(to.peer(), *observed, at.ip());
        }
        let answered = sender.as_ref().map_or(&to, |sender| sender);
        match purpose {
            Purpose::Lookup { id, value, .. } if to.is_proven() && answered.node_id() != to.node_id() => {
                let answered = Arc::clone(answered);
                self.answer_from_elsewhere(now, id, value, answered, at, response);
            }
            Purpose::Lookup { id, value, .. } => {
                let answered = Arc::clone(answered);
                self.lookup_answer(now, id, value, &answered, at, response);
            }
            Purpose::Store { id } => {
                let kept = matches!(response, Response::Stored { .. }).then(|| Arc::clone(&to));
                self.stored(now, id, kept);
                self.learn(now, at, sender);
            }
            Purpose::Door => self.door_opened(now, &to, at, sender, &response),
            Purpose::Refresh => self.refreshed(now, told_by, &response),
            Purpose::Facts => self.take_facts(now, to.peer(), response),
            Purpose::Lost => {
                self.learn(now, at, sender.or(Some(to)));
                self.upkeep.returned(now);
                self.seek_more(now);
            }
            Purpose::Parole => {
                let good = self.behaves(now, told_by, &response);
                self.judge.probed(now, to.peer(), good);
            }
            Purpose::Newcomer => {
                // One that is elsewhere after all is not dialled for ever.
                let found = sender.or(Some(to)).and_then(|contact| met_at(&contact, at));
                self.learn(now, at, found);
            }
            Purpose::Liveness | Purpose::Probe => self.learn(now, at, sender.or(Some(to))),
            Purpose::Beat { key } => {
                if matches!(response, Response::Refused(Refusal::Heartbeat)) {
                    self.lost_replica(now, &key);
                }
                self.learn(now, at, sender);
            }
            Purpose::Cache | Purpose::Announce => self.learn(now, at, sender),
        }
    }

    /// No answer has come.
    pub fn on_failure(&mut self, now: Now, query: QueryId, failure: QueryFailure) {
        let Some(pending) = self.queries.remove(&query) else { return };
        let peer = *pending.to.peer();
        if let (QueryFailure::Timeout, Purpose::Lookup { id, value, again: Some(again) }) = (failure, &pending.purpose)
            && self.ask_again(*id, &pending.to, *value, *again)
        {
            return;
        }
        match failure {
            // Silence at an address that somebody else named says nothing about the peer.
            QueryFailure::Timeout | QueryFailure::Unreachable if !self.is_known(&pending.to) => {}
            QueryFailure::Timeout | QueryFailure::Unreachable => {
                self.reputation.note(now, &peer, Deed::Timeout);
                self.judge.observe(now, &peer, &Observation { timeout: true, ..Observation::default() });
                self.lost_touch(now, &peer);
            }
            QueryFailure::Malformed | QueryFailure::BadSignature => {
                self.reputation.note(now, &peer, Deed::Malformed);
                self.judge.observe(now, &peer, &Observation { invalid_signature: true, ..Observation::default() });
                self.lost_touch(now, &peer);
            }
            QueryFailure::Local => {}
        }
        match pending.purpose {
            Purpose::Lookup { id, .. } => self.no_reply(now, id, &peer),
            Purpose::Store { id } => self.stored(now, id, None),
            Purpose::Door
            | Purpose::Cache
            | Purpose::Newcomer
            | Purpose::Probe
            | Purpose::Liveness
            | Purpose::Lost
            | Purpose::Refresh
            | Purpose::Beat { .. }
            | Purpose::Announce
            | Purpose::Facts
            | Purpose::Parole => {}
        }
    }

    /// Notes what costs a peer its name, and when that was the last of it.
    pub(super) fn misdeed(&mut self, now: Now, peer: &PeerId, deed: Deed) {
        let banned = self.reputation.banned(peer);
        self.reputation.note(now, peer, deed);
        if !banned && self.reputation.banned(peer) {
            self.counters.count(Attack::ReputationBan);
        }
    }

    fn sighted(&mut self, peer: &PeerId, observed: SocketAddr, source: IpAddr) {
        // One word per network, or whoever gets himself asked most often would push all others out.
        let network = Wide::of(source);
        self.sightings.retain(|vote| Wide::of(vote.source) != network);
        if self.sightings.len() >= MAX_SIGHTINGS {
            self.sightings.pop_front();
        }
        self.last_id += 1;
        // Each answer was asked for on its own: a path of its own.
        let path = u32::try_from(self.last_id % u64::from(u32::MAX)).unwrap_or(0);
        let weight = self.reputation.lower_bound(peer).max(MIN_WEIGHT);
        self.sightings.push_back(Vote { value: observed, source, path, weight });
    }

    /// Whether a peer in quarantine gives contacts that no rule objects to.
    fn behaves(&mut self, now: Now, told_by: Option<IpAddr>, response: &Response) -> bool {
        let Response::Nodes { contacts, .. } = response else { return false };
        contacts.len() <= pqvpn_wire::dht::MAX_CONTACTS
            && contacts.iter().all(|contact| self.plausible(now, contact, told_by))
    }

    fn lost_touch(&mut self, now: Now, peer: &PeerId) {
        match self.table.failed(now, peer) {
            Failed::Removed { .. } => {
                self.judge.table_changed(now, self.table.len());
                self.upkeep.went_wrong(now);
                if self.table.is_empty() && self.joined {
                    self.joined = false;
                    self.notice(Notice::Lonely);
                    self.upkeep.rejoin(now);
                }
            }
            Failed::Kept => self.upkeep.went_wrong(now),
            Failed::Unknown => {}
        }
    }

    /// A node counts at the position it was named at. One that turns out to be elsewhere, or has moved with its week, is
    /// no answer there: only the record it hands over, which proves itself, is of use.
    fn answer_from_elsewhere(
        &mut self,
        now: Now,
        id: LookupId,
        value: bool,
        from: Arc<Contact>,
        at: SocketAddr,
        response: Response,
    ) {
        self.counters.count(Attack::PositionMoved);
        let peer = *from.peer();
        if let Response::Value { record, heartbeat, .. } = response
            && value
        {
            self.judge_record(now, id, &peer, Some(at.ip()), record, heartbeat);
        }
        self.learn(now, at, Some(from));
        self.no_reply(now, id, &peer);
    }

    fn lookup_answer(
        &mut self,
        now: Now,
        id: LookupId,
        value: bool,
        from: &Arc<Contact>,
        at: SocketAddr,
        response: Response,
    ) {
        let peer = *from.peer();
        let (contacts, token, record) = match response {
            Response::Nodes { contacts, token } => (contacts, token, None),
            Response::Value { record, heartbeat, contacts, token } if value => {
                let record = self.judge_record(now, id, &peer, Some(at.ip()), record, heartbeat);
                (contacts, token, record)
            }
            Response::Busy { .. } => return self.no_reply(now, id, &peer),
            Response::Value { .. }
            | Response::Pong { .. }
            | Response::Stored { .. }
            | Response::Noted
            | Response::Facts { .. }
            | Response::Refused(_) => {
                self.reputation.note(now, &peer, Deed::Malformed);
                return self.no_reply(now, id, &peer);
            }
            _ => return self.no_reply(now, id, &peer),
        };
        let contacts = self.usable(now, id, from, contacts, Some(at.ip()));
        self.reputation.note(now, &peer, Deed::ValidAnswer);
        self.deliver(now, id, from, at, LookupReply { contacts, record, token });
    }

    /// Hands an answer to its lookup; where positions decide, only after the answerer's is proven.
    fn deliver(&mut self, now: Now, id: LookupId, from: &Arc<Contact>, at: SocketAddr, reply: LookupReply) {
        let proven = !from.is_proven() || self.admitted.contains(from) || !self.needs_positions(id);
        if proven {
            self.learn(now, at, Some(Arc::clone(from)));
            self.reply(now, id, from.peer(), reply);
        } else {
            let met = met_at(from, at);
            let answered = met.is_some();
            self.prove(now, met.unwrap_or_else(|| Arc::clone(from)), answered, Some((id, reply)));
        }
    }

    /// The contacts of an answer that may be asked.
    fn usable(
        &mut self,
        now: Now,
        id: LookupId,
        from: &Contact,
        contacts: Vec<Arc<Contact>>,
        told_by: Option<IpAddr>,
    ) -> Vec<Arc<Contact>> {
        if contacts.len() > pqvpn_wire::dht::MAX_CONTACTS {
            self.counters.count(Attack::TooManyContacts);
        }
        if let Some(target) = self.lookup_target(id) {
            self.judge.observe(now, from.peer(), &contacts_seen(from, &target, &contacts, self.estimate.nodes()));
        }
        let mut usable = contacts;
        usable.truncate(pqvpn_wire::dht::MAX_CONTACTS);
        usable.retain(|contact| !self.shunned(now, contact.peer()) && self.plausible(now, contact, told_by));
        usable
    }

    /// Takes a record out of an answer if every rule allows it; whoever forwarded a bad one pays for it.
    fn judge_record(
        &mut self,
        now: Now,
        id: LookupId,
        from: &PeerId,
        told_by: Option<IpAddr>,
        record: Arc<Record>,
        heartbeat: Option<Heartbeat>,
    ) -> Option<Arc<Record>> {
        let target = self.lookup_target(id)?;
        if target != *record.key() {
            self.counters.count(Attack::KeyMismatch);
            self.reputation.note(now, from, Deed::Malformed);
            return None;
        }
        if let Err(refusal) =
            rules::check_record(now, &record, &self.config.network, self.origin(told_by), &*self.verifier)
        {
            self.counters.count(Attack::PoisonedRecord);
            self.counters.count(refusal.attack());
            // An expired record may be a matter of clocks; a forged one is not.
            if refusal.is_hostile() {
                self.misdeed(now, from, Deed::ForwardedBadSignature);
                self.judge.observe(now, from, &Observation { invalid_signature: true, ..Observation::default() });
            }
            return None;
        }
        let heartbeat = heartbeat.filter(|beat| match rules::check_heartbeat(now, &record, beat) {
            Ok(()) => true,
            Err(refusal) => {
                if let Some(attack) = refusal.attack() {
                    self.counters.count(attack);
                }
                false
            }
        });
        if self.facts.revoked(record.owner()) || !self.fresh(now, &record, heartbeat) {
            self.counters.count(Attack::StaleRecord);
            return None;
        }
        if let Some(known) = self.lookups.get(&id).and_then(Running::found).cloned()
            && known.seq() == record.seq()
            && known.digest() != record.digest()
        {
            self.counters.count(Attack::Equivocation);
            if let Some(proof) = Equivocation::new(known, record) {
                let _known_already = self.hear(now, &Arc::new(Fact::Equivocation(proof)));
            }
            return None;
        }
        self.found(id, &record, heartbeat.map_or(0, |beat| beat.hour)).then_some(record)
    }

    /// Whether a peer record shows a recent sign of life: its issue or a heartbeat. Old seqs that liars keep alive have
    /// none, because their owner stopped beating for them.
    pub(super) fn fresh(&self, now: Now, record: &Record, heartbeat: Option<Heartbeat>) -> bool {
        let draft = record.draft();
        if !matches!(draft.payload, Payload::Peer(_)) {
            return true;
        }
        let hours = u64::from(heartbeat.map_or(0, |beat| beat.hour));
        let sign_of_life = draft.not_before_ms.saturating_add(hours * 3_600_000);
        let freshness = u64::try_from(self.config.freshness().as_millis()).unwrap_or(u64::MAX);
        now.unix_ms <= sign_of_life.saturating_add(freshness) && sign_of_life <= now.unix_ms.saturating_add(3_720_000)
    }

    fn door_opened(
        &mut self,
        now: Now,
        to: &Arc<Contact>,
        at: SocketAddr,
        sender: Option<Arc<Contact>>,
        response: &Response,
    ) {
        if !matches!(response, Response::Pong { .. }) {
            return;
        }
        self.upkeep.door_opened();
        let door = sender.clone().unwrap_or_else(|| Arc::clone(to));
        self.learn(now, at, sender);
        if self.internal_lookups() < upkeep_lookups(self.joined) {
            let target = self.position();
            self.start_internal(now, target, Some(door));
        }
    }

    fn refreshed(&mut self, now: Now, told_by: Option<IpAddr>, response: &Response) {
        let Response::Nodes { contacts, .. } = response else { return };
        let mut asked = 0;
        for contact in contacts.iter().take(pqvpn_wire::dht::MAX_CONTACTS) {
            let wanted = self.table.get(contact.peer()).is_none()
                && !self.shunned(now, contact.peer())
                && self.has_room(contact)
                && self.plausible(now, contact, told_by);
            if wanted && asked < 2 {
                asked += 1;
                self.query(Arc::clone(contact), Request::Ping, Purpose::Liveness);
            }
        }
    }

    fn take_facts(&mut self, now: Now, from: &PeerId, response: Response) {
        let Response::Facts { next, facts } = response else { return };
        for fact in facts {
            if let Err(refusal) = self.hear(now, &fact) {
                self.counters.count(refusal.attack());
                if refusal == FactRefusal::Unproven {
                    self.misdeed(now, from, Deed::ForwardedBadSignature);
                }
            }
        }
        if self.fact_cursors.len() >= MAX_CURSORS && !self.fact_cursors.contains_key(from) {
            self.fact_cursors.pop_first();
        }
        self.fact_cursors.insert(*from, next);
    }

    /// Where a claim about addresses comes from.
    pub(super) const fn origin(&self, told_by: Option<IpAddr>) -> Origin {
        Origin { realm: self.config.realm, told_by }
    }
}

/// What the word of an unknown peer weighs.
const MIN_WEIGHT: f64 = 0.01;
/// Peers whose fact counters are remembered.
const MAX_CURSORS: usize = 64;

const fn upkeep_lookups(joined: bool) -> usize {
    if joined { 1 } else { 2 }
}

/// What the contacts of one answer say about the answerer (security.md 7.7).
fn contacts_seen(from: &Contact, target: &Point, contacts: &[Arc<Contact>], nodes: Option<f64>) -> Observation {
    let mut distances: Vec<f64> =
        contacts.iter().map(|contact| contact.node_id().distance(target).fraction()).filter(|d| *d > 0.0).collect();
    distances.sort_by(f64::total_cmp);
    let own = from.node_id().distance(target).fraction();
    let gain = distances.first().map(|nearest| (own / nearest).log2()).filter(|gain| gain.is_finite());
    let density = match (distances.last(), nodes) {
        (Some(farthest), Some(nodes)) if distances.len() >= 4 => {
            #[expect(clippy::cast_precision_loss, reason = "at most 20")]
            let count = distances.len() as f64;
            Some((count / farthest / nodes).log2())
        }
        (Some(_) | None, _) => None,
    };
    let mut wide: Vec<Wide> = Vec::with_capacity(contacts.len());
    wide.extend(
        contacts.iter().filter_map(|contact| contact.addresses().first()).map(|address| Wide::of(address.ip())),
    );
    wide.sort_unstable();
    let most = wide.chunk_by(PartialEq::eq).map(<[Wide]>::len).max().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "at most 20")]
    let share = (wide.len() >= 4).then(|| most as f64 / wide.len() as f64);
    Observation { contacts_same_16_share: share, closeness_gain_bits: gain, density, ..Observation::default() }
}
