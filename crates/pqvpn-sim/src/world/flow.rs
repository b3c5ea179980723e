// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a request and its answer travel.

use std::{sync::Arc, time::Duration};

use pqvpn_wire::dht::{Contact, Request, Response};

use super::{Event, Index, Ticket, World};
use crate::{
    adversary::{Case, Reaction},
    engine::{Engine, Failure},
};

/// A composite signature and the envelope around a message.
const ENVELOPE: u64 = 4_900;
/// A record with key and signature.
const RECORD: u64 = 7_700;
/// A contact.
const CONTACT: u64 = 100;
/// A post-quantum handshake, both ways.
const HANDSHAKE: u64 = 20_000;
/// The query of a deed that no engine waits for.
pub(super) const UNASKED: u64 = u64::MAX;
/// Payload of a packet.
const PACKET: u64 = 1_200;

/// Whom a dial takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Whom it is for.
    ByName,
    /// Whoever answers.
    Open,
}

impl<E: Engine> World<E> {
    /// Sends a query to whoever is at the contact's addresses.
    pub(super) fn send(
        &mut self,
        from: Index,
        query: u64,
        to: &Arc<Contact>,
        request: Request,
        timeout: Duration,
        dial: bool,
    ) {
        let ticket = Ticket { query, sent: self.now, deadline: self.now + timeout };
        self.tally.requests += 1;
        self.tally.kinds[super::kind(&request)] += 1;
        let peer = self.by_peer.get(to.peer()).copied();
        let linked = peer.filter(|peer| !dial && self.nodes[*peer as usize].alive && self.warm(from, *peer));
        let how = if linked.is_none() && query != UNASKED { self.how_to_dial(from, to) } else { Some(How::Open) };
        let Some(how) = how else {
            self.fail_at(self.now, from, query, Failure::Local);
            return;
        };
        let Some(target) = linked.or_else(|| self.dialled(to, peer)) else {
            self.fail_at(ticket.deadline, from, query, Failure::Timeout);
            return;
        };
        let (here, there) = (self.nodes[from as usize].place, self.nodes[target as usize].place);
        let silent = !self.nodes[target as usize].alive || !self.net.connected(&here, &there);
        let behind_nat = linked.is_none() && there.nat;
        let mut at = self.now;
        if dial || !self.warm(from, target) {
            self.tally.dials += 1;
            self.account(from, HANDSHAKE);
            if silent || behind_nat {
                self.fail_at(ticket.deadline, from, query, Failure::Timeout);
                return;
            }
            at += self.net.handshake(&here, &there);
        }
        if linked.is_none() {
            self.note_met(from, to, target, how);
        }
        if Some(target) != peer {
            // The handshake names somebody else: the dialler hangs up.
            self.fail_at(at.min(ticket.deadline), from, query, Failure::Unreachable);
            return;
        }
        let bytes = request_bytes(&request);
        self.account(from, bytes);
        if silent {
            self.fail_at(ticket.deadline, from, query, Failure::Timeout);
            return;
        }
        at += self.net.message(&here, &there, packets(bytes));
        self.touch(from, target);
        self.queue.push(at, Event::Request { from, to: target, ticket, request });
    }

    /// As the node's driver does: no address is dialled twice a minute because somebody named it; doors and contacts of
    /// the node's own are. Whom strangers name is dialled by its name only where it was met. `None`: not now.
    fn how_to_dial(&mut self, from: Index, to: &Contact) -> Option<How> {
        let now = self.now();
        let node = &mut self.nodes[from as usize];
        if !to.is_proven() || node.engine.as_ref().is_some_and(|engine| engine.remembers(to)) {
            return Some(How::ByName);
        }
        let mut allowed = to.addresses().to_vec();
        allowed.retain(|address| node.dials.allow(now, to.peer(), *address));
        let is_met = allowed.iter().all(|address| node.dials.is_met(to.peer(), *address));
        (!allowed.is_empty()).then_some(if is_met { How::ByName } else { How::Open })
    }

    /// As the node's driver does: who answered is known from now on, or that it is another.
    fn note_met(&mut self, from: Index, to: &Contact, target: Index, how: How) {
        let who = Arc::clone(&self.nodes[target as usize].contact);
        if who.peer() == to.peer() {
            let dials = &mut self.nodes[from as usize].dials;
            return who.addresses().iter().for_each(|address| dials.met(*who.peer(), *address));
        }
        for address in to.addresses() {
            let Some(there) = self.by_address.get(address).map(|index| &self.nodes[*index as usize]) else { continue };
            let (who, here) = (*there.contact.peer(), &self.nodes[from as usize].place);
            if !there.alive || there.place.nat || !self.net.connected(here, &there.place) {
                continue;
            }
            let dials = &mut self.nodes[from as usize].dials;
            match how {
                How::Open => dials.met(who, *address),
                How::ByName => dials.met_another(to.peer(), *address),
            }
        }
    }

    /// Who answers at the contact's addresses; an address of nobody is silence, and of a victim a count.
    fn dialled(&mut self, to: &Contact, peer: Option<Index>) -> Option<Index> {
        for address in to.addresses() {
            if let Some(count) = self.bait.get_mut(address) {
                *count += 1;
            }
        }
        let mut at = to.addresses().iter().filter_map(|address| self.by_address.get(address).copied());
        let first = at.next()?;
        // A node tries all addresses; the right peer at any of them is found.
        if Some(first) == peer { Some(first) } else { at.find(|other| Some(*other) == peer).or(Some(first)) }
    }

    /// A request reaches its node.
    pub(super) fn arrive(&mut self, from: Index, to: Index, ticket: Ticket, request: Request) {
        if !self.nodes[to as usize].alive {
            self.fail_at(ticket.deadline, from, ticket.query, Failure::Timeout);
            return;
        }
        let at = self.occupy(to, self.net.config.service);
        let Some((response, delay)) = self.react(from, to, request) else {
            self.fail_at(ticket.deadline, from, ticket.query, Failure::Timeout);
            return;
        };
        if matches!(response, Response::Busy { .. }) {
            self.tally.busy += 1;
        }
        let (here, there) = (self.nodes[to as usize].place, self.nodes[from as usize].place);
        let bytes = response_bytes(&response);
        self.account(to, bytes);
        let at = at + delay + self.net.message(&here, &there, packets(bytes));
        if at > ticket.deadline || !self.net.connected(&here, &there) {
            self.fail_at(ticket.deadline, from, ticket.query, Failure::Timeout);
        } else {
            self.queue.push(at, Event::Answer { from: to, to: from, ticket, response });
        }
        self.pump(to);
    }

    /// What a node makes of a request: its engine's answer, or its coven's. `None` is silence.
    fn react(&mut self, from: Index, to: Index, request: Request) -> Option<(Response, Duration)> {
        let now = self.now();
        let asker = &self.nodes[from as usize];
        let (peer, observed) = (*asker.contact.peer(), asker.contact.addresses()[0]);
        let sender = (!asker.place.nat).then(|| Arc::clone(&asker.contact));
        let node = &mut self.nodes[to as usize];
        let coven = &self.coven;
        let me = Arc::clone(&node.contact);
        let engine = &mut node.engine;
        let mut honest = |request: Request| match engine {
            Some(engine) => engine.on_request(now, &peer, observed, sender.clone(), request),
            None => coven.polite(&request, observed),
        };
        match self.strategy.as_mut().filter(|_| node.colluder) {
            Some(strategy) => {
                let case = Case { now, me: &me, from: &peer, observed, request: &request };
                match strategy.answer(&case, coven, &mut honest) {
                    Reaction::Silence => None,
                    Reaction::Say(response) => Some((response, Duration::ZERO)),
                    Reaction::Later(response, delay) => Some((response, delay)),
                }
            }
            None => Some((honest(request), Duration::ZERO)),
        }
    }

    /// An answer reaches the asker.
    pub(super) fn deliver(&mut self, from: Index, to: Index, ticket: Ticket, response: Response) {
        if ticket.query == UNASKED || self.nodes[to as usize].engine.is_none() {
            return;
        }
        self.tally.answers += 1;
        self.touch(to, from);
        let answerer = &self.nodes[from as usize];
        let at = answerer.contact.addresses()[0];
        let sender = (!answerer.place.nat).then(|| Arc::clone(&answerer.contact));
        let rtt = self.now.saturating_sub(ticket.sent);
        self.with(to, |engine, now| engine.on_response(now, ticket.query, at, sender, response, rtt));
    }

    fn fail_at(&mut self, at: Duration, node: Index, query: u64, failure: Failure) {
        if query != UNASKED && self.nodes[node as usize].engine.is_some() {
            self.queue.push(at, Event::Fail { node, query, failure });
        }
    }

    fn warm(&self, a: Index, b: Index) -> bool {
        self.nodes[a as usize].links.warm(self.now, b, &self.net.config)
    }

    fn touch(&mut self, a: Index, b: Index) {
        let now = self.now;
        self.nodes[a as usize].links.touch(now, b, &self.net.config);
        self.nodes[b as usize].links.touch(now, a, &self.net.config);
    }

    fn account(&mut self, node: Index, bytes: u64) {
        self.tally.bytes += bytes;
        self.nodes[node as usize].sent += bytes;
    }
}

const fn request_bytes(request: &Request) -> u64 {
    ENVELOPE
        + match request {
            Request::Store { .. } => RECORD,
            Request::Announce(_) => 2 * RECORD,
            Request::Ping | _ => 0,
        }
}

const fn response_bytes(response: &Response) -> u64 {
    ENVELOPE
        + match response {
            Response::Nodes { contacts, .. } => CONTACT * contacts.len() as u64,
            Response::Value { contacts, .. } => RECORD + CONTACT * contacts.len() as u64,
            Response::Facts { facts, .. } => 2 * RECORD * facts.len() as u64,
            Response::Noted | _ => 0,
        }
}

fn packets(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PACKET)).unwrap_or(u32::MAX)
}
