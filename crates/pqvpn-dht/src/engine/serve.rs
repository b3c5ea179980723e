// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answering other nodes.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Fact, Heartbeat, MAX_CONTACTS, Point, Record, Refusal, Request, Response, Token};

use super::Dht;
use crate::{
    Now,
    address::{self, Class},
    counters::Attack,
    facts::FactRefusal,
    limit::cost,
    reputation::Deed,
    rules,
    storage::StoreRefusal,
};

/// How much farther than the region's edge a key may be and still be stored: estimates of its size differ.
const REGION_SLACK: f64 = 16.0;
/// Most bytes of facts in one response.
const MAX_FACT_BYTES: usize = 24 * 1024;
impl Dht {
    /// Answers an authenticated request. `observed` is the UDP address of the link it came over, `sender` the contact the
    /// requester gave for itself.
    pub fn on_request(
        &mut self,
        now: Now,
        from: &PeerId,
        observed: SocketAddr,
        sender: Option<Arc<Contact>>,
        request: Request,
    ) -> Response {
        self.watch_clock(now);
        if let Err(limited) = self.limiter.check(now, from, observed.ip(), cost(&request)) {
            self.counters.count(limited.attack);
            return Response::Busy { retry_ms: limited.retry_ms() };
        }
        if self.facts.revoked(from) {
            return self.refuse(Attack::RecordRevoked, Refusal::Revoked);
        }
        self.served += 1;
        if let Some(sender) = sender {
            self.consider(now, from, observed, sender);
        }
        match request {
            Request::Ping => Response::Pong { observed },
            Request::FindNode { target } => self.nodes_near(now, from, observed.ip(), &target),
            Request::FindValue { key, want_seq } => self.value_or_nodes(now, from, observed.ip(), &key, want_seq),
            Request::Store { record, token, cache } => self.keep_for(now, from, observed.ip(), record, token, cache),
            Request::Beat { key, heartbeat } => self.hear_beat(now, &key, heartbeat),
            Request::Exchange => self.exchange(now, from, observed.ip()),
            Request::Announce(fact) => self.hear_fact(now, from, &fact),
            Request::Facts { after } => {
                let (next, facts) = self.facts.after(after, MAX_FACT_BYTES);
                Response::Facts { next, facts }
            }
            _ => Response::Refused(Refusal::Malformed),
        }
    }

    fn refuse(&mut self, attack: Attack, refusal: Refusal) -> Response {
        self.counters.count(attack);
        Response::Refused(refusal)
    }

    /// A requester that serves is worth knowing, if its position is proven and others can reach it.
    fn consider(&mut self, now: Now, from: &PeerId, observed: SocketAddr, sender: Arc<Contact>) {
        if sender.peer() != from {
            self.counters.count(Attack::ForeignContact);
            return;
        }
        if self.shunned(now, from) {
            self.counters.count(Attack::QuarantineRefused);
            return;
        }
        if !sender.is_proven() || !self.plausible(now, &sender, Some(observed.ip())) {
            return;
        }
        if let Some(entry) = self.table.get(from).filter(|_| self.is_known(&sender)) {
            // A question is a sign of life, but no answer: who only asks does not keep its place by that.
            if entry.failures() == 0 {
                self.table.seen(now, from);
            }
            return;
        }
        self.welcome(now, sender);
    }

    fn near(&mut self, now: Now, asker: &PeerId, ip: IpAddr, target: &Point) -> Vec<Arc<Contact>> {
        let mut contacts = self.table.closest(target, MAX_CONTACTS + 4);
        self.tellable(now, asker, ip, &mut contacts);
        contacts.truncate(MAX_CONTACTS);
        contacts
    }

    /// Private addresses are told to who is at one himself; nobody is told of himself or of whom we shun.
    fn tellable(&self, now: Now, asker: &PeerId, ip: IpAddr, contacts: &mut Vec<Arc<Contact>>) {
        let private_asker = address::class(&SocketAddr::new(ip, 1)) == Class::Private;
        contacts.retain(|contact| {
            let private = contact.addresses().iter().any(|address| address::class(address) == Class::Private);
            contact.peer() != asker && (private_asker || !private) && !self.shunned(now, contact.peer())
        });
    }

    fn nodes_near(&mut self, now: Now, from: &PeerId, ip: IpAddr, target: &Point) -> Response {
        let contacts = self.near(now, from, ip, target);
        let token = self.token(now, from, ip, target);
        Response::Nodes { contacts, token }
    }

    fn value_or_nodes(&mut self, now: Now, from: &PeerId, ip: IpAddr, key: &Point, want_seq: u64) -> Response {
        let contacts = self.near(now, from, ip, key);
        let token = self.token(now, from, ip, key);
        let kept = self.storage.get(now, key).filter(|kept| !self.facts.revoked(kept.record.owner()));
        let kept = kept.map(|kept| (Arc::clone(kept.record), kept.heartbeat));
        // Nobody knows better what we say than we do, whatever became of the copies.
        let own = self.own_records.get(key).filter(|own| own.is_timely(now));
        let own = own.map(|own| (Arc::clone(&own.record), own.heartbeat(now)));
        match kept.into_iter().chain(own).max_by_key(|(record, _)| record.seq()) {
            Some((record, heartbeat)) if record.seq() >= want_seq => {
                Response::Value { record, heartbeat, contacts, token }
            }
            Some(_) | None => Response::Nodes { contacts, token },
        }
    }

    fn token(&self, now: Now, from: &PeerId, ip: IpAddr, _near: &Point) -> Option<Token> {
        self.config.serve.then(|| self.storage.token(now, from, ip))
    }

    fn keep_for(
        &mut self,
        now: Now,
        from: &PeerId,
        ip: IpAddr,
        record: Arc<Record>,
        token: Token,
        cache: bool,
    ) -> Response {
        if !self.config.serve {
            return Response::Refused(Refusal::Client);
        }
        if !self.storage.token_valid(now, from, ip, &token) {
            return self.refuse(Attack::StoreToken, Refusal::Token);
        }
        if !cache && !self.responsible(record.key()) {
            return self.refuse(Attack::StoreFar, Refusal::Far);
        }
        if let Err(refusal) =
            rules::check_record(now, &record, &self.config.network, self.origin(Some(ip)), &*self.verifier)
        {
            if refusal.is_hostile() {
                self.misdeed(now, from, Deed::ForwardedBadSignature);
            }
            return self.refuse(refusal.attack(), Refusal::Record);
        }
        if self.facts.revoked(record.owner()) {
            return self.refuse(Attack::RecordRevoked, Refusal::Revoked);
        }
        match self.storage.put(now, record, ip, cache) {
            Ok(until_ms) => Response::Stored { until_ms },
            Err(StoreRefusal::Equivocation(proof)) => {
                self.counters.count(Attack::Equivocation);
                let _known_already = self.hear(now, &Arc::new(Fact::Equivocation(*proof)));
                Response::Refused(Refusal::Revoked)
            }
            Err(refusal) => {
                self.counters.count(refusal.attack());
                Response::Refused(refusal.refusal())
            }
        }
    }

    /// Whether a key is near enough to be kept here.
    fn responsible(&self, key: &Point) -> bool {
        let Some(radius) = self.estimate.region_radius() else { return true };
        self.position().distance(key).fraction() <= radius.fraction() * REGION_SLACK
    }

    fn hear_beat(&mut self, now: Now, key: &Point, heartbeat: Heartbeat) -> Response {
        match self.storage.beat(now, key, heartbeat) {
            Ok(until_ms) => Response::Stored { until_ms },
            Err(refusal) => {
                if let Some(attack) = refusal.attack() {
                    self.counters.count(attack);
                }
                Response::Refused(Refusal::Heartbeat)
            }
        }
    }

    fn exchange(&mut self, now: Now, from: &PeerId, ip: IpAddr) -> Response {
        let mut contacts = self.table.sample(MAX_CONTACTS, &mut self.rng);
        self.tellable(now, from, ip, &mut contacts);
        Response::Nodes { contacts, token: None }
    }

    fn hear_fact(&mut self, now: Now, from: &PeerId, fact: &Arc<Fact>) -> Response {
        match self.hear(now, fact) {
            Ok(_new) => Response::Noted,
            Err(FactRefusal::Full) => {
                self.counters.count(Attack::FactsFull);
                Response::Busy { retry_ms: 60_000 }
            }
            Err(refusal) => {
                if refusal == FactRefusal::Unproven {
                    self.misdeed(now, from, Deed::ForwardedBadSignature);
                }
                self.refuse(refusal.attack(), refusal.refusal())
            }
        }
    }
}
