// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a peer becomes a contact: its word about itself, its proof of work, its answer at its address, its place.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use pqvpn_wire::dht::{Contact, Request};

use super::{Dht, MAX_WAITING, Notice, Output, Purpose, Waiting};
use crate::{
    Now, admission,
    counters::Attack,
    lookup::{LookupId, LookupReply},
    reputation::Deed,
    table::{Inserted, TableRefusal},
};

/// Newcomers that may be looked at while the table is filled by others too.
const MAX_NEWCOMERS: usize = 32;
/// Contacts that wait for a place in a full bucket before no more are proven for it: a proof costs 10 ms.
const SPARE_ROOM: usize = 4;

impl Dht {
    /// The evaluation asked for by [`Output::VerifyAdmission`] is done.
    pub fn on_admission(&mut self, now: Now, contact: &Contact, valid: bool) {
        let Some(waiting) = self.waiting.remove(contact.peer()) else { return };
        if *waiting.contact != *contact {
            return;
        }
        if !valid {
            self.counters.count(Attack::AdmissionFalse);
            self.reputation.note(now, contact.peer(), Deed::Malformed);
            self.expel(now, contact.peer());
            for (id, _) in waiting.replies {
                self.no_reply(now, id, contact.peer());
            }
            return;
        }
        self.admitted.insert(now, contact);
        if waiting.answered {
            self.enter(now, waiting.contact);
        } else if !self.is_known(&waiting.contact) {
            self.query(waiting.contact, Request::Ping, Purpose::Newcomer);
        }
        for (id, reply) in waiting.replies {
            self.reply(now, id, contact.peer(), reply);
        }
    }

    /// Has a peer dialled where it says it is, to be let into the table or moved there; strangers get a share of our time
    /// and no more.
    pub(super) fn welcome(&mut self, now: Now, contact: Arc<Contact>) {
        let peer = contact.peer();
        let at_its_place = |place: &Contact| place.node_id() == contact.node_id();
        let updates = self.table.get(peer).is_some_and(|entry| at_its_place(entry.contact()));
        if self.waiting.contains_key(peer) || !(updates || self.has_room(&contact)) {
            return;
        }
        let mut newcomers = self.queries.values().filter(|pending| matches!(pending.purpose, Purpose::Newcomer));
        if newcomers.clone().any(|pending| pending.to.peer() == peer) || newcomers.nth(MAX_NEWCOMERS - 1).is_some() {
            return;
        }
        if !self.admitted.may_welcome(now) {
            self.counters.count(Attack::AdmissionRate);
        } else if self.admitted.contains(&contact) {
            self.query(contact, Request::Ping, Purpose::Newcomer);
        } else {
            self.prove(now, contact, false, None);
        }
    }

    /// Whether the contact in an answer speaks of the answerer, and plausibly.
    pub(super) fn is_own_word(&mut self, now: Now, to: &Contact, sender: &Contact, told_by: Option<IpAddr>) -> bool {
        if sender.peer() != to.peer() {
            self.counters.count(Attack::ForeignContact);
            return false;
        }
        self.plausible(now, sender, told_by)
    }

    /// The answerer's word about itself, where it answers or at the addresses it was asked at; another one is dialled
    /// before it counts.
    ///
    /// Else one host could take places in the name of a hundred networks, and have its victims dialled.
    pub(super) fn attested(&mut self, now: Now, to: &Contact, at: SocketAddr, sender: Arc<Contact>) -> Arc<Contact> {
        let asked_there = sender.addresses().first().is_some_and(|first| to.addresses().contains(first));
        if asked_there || !to.is_proven() || met_at(&sender, at).is_some() || self.is_known(&sender) {
            return sender;
        }
        self.welcome(now, Arc::clone(&sender));
        Arc::new(Contact::new(*sender.peer(), *sender.admission(), to.addresses().to_vec()))
    }

    pub(super) fn plausible(&mut self, now: Now, contact: &Contact, told_by: Option<IpAddr>) -> bool {
        let origin = self.origin(told_by);
        match admission::plausible(contact, now, self.config.difficulty, origin) {
            Ok(()) => true,
            Err(refusal) => {
                self.counters.count(refusal.attack());
                false
            }
        }
    }

    /// A peer that answered us from `at` becomes a contact, as soon as its position is proven: by the address it answered
    /// at, or, if it names none such, by its first one once it was dialled there.
    pub(super) fn learn(&mut self, now: Now, at: SocketAddr, contact: Option<Arc<Contact>>) {
        let Some(contact) = contact.filter(|contact| contact.is_proven()) else { return };
        if self.shunned(now, contact.peer()) || self.is_known(&contact) {
            return;
        }
        let Some(contact) = met_at(&contact, at) else { return self.welcome(now, contact) };
        if self.admitted.contains(&contact) {
            self.enter(now, contact);
        } else if self.has_room(&contact) {
            self.prove(now, contact, true, None);
        }
    }

    /// Whether the contact's bucket has a place, or a place to wait for one.
    pub(super) fn has_room(&self, contact: &Contact) -> bool {
        let (contacts, waiting) = self.table.bucket_load(contact.node_id());
        contacts < self.config.k || waiting < SPARE_ROOM
    }

    /// Whether the table has just this contact; in what order it names its addresses does not matter.
    pub(super) fn is_known(&self, contact: &Contact) -> bool {
        self.table.get(contact.peer()).is_some_and(|entry| is_alike(entry.contact(), contact))
    }

    fn enter(&mut self, now: Now, contact: Arc<Contact>) {
        match self.table.insert(now, contact) {
            Inserted::Added => {
                if !self.joined {
                    self.joined = true;
                    self.upkeep.rejoin(now);
                    self.notice(Notice::Joined);
                }
            }
            Inserted::Full { probe } => {
                if !self.queries.values().any(|pending| pending.to.peer() == probe.peer()) {
                    self.query(probe, Request::Ping, Purpose::Probe);
                }
            }
            Inserted::Updated | Inserted::Waiting => {}
            Inserted::Refused(refusal) => self.counters.count(table_attack(refusal)),
        }
    }

    /// Has a position proven; an answer of a lookup may wait for it.
    pub(super) fn prove(
        &mut self,
        now: Now,
        contact: Arc<Contact>,
        answered: bool,
        reply: Option<(LookupId, LookupReply)>,
    ) {
        let peer = *contact.peer();
        if let Some(waiting) = self.waiting.get_mut(&peer) {
            // The proof under way vouches for one position; an answer from another must not count by it.
            if waiting.contact.node_id() == contact.node_id() {
                waiting.answered |= answered && waiting.contact.addresses() == contact.addresses();
                waiting.replies.extend(reply);
            } else if let Some((id, _)) = reply {
                self.no_reply(now, id, &peer);
            }
            return;
        }
        if self.waiting.len() >= MAX_WAITING || !self.admitted.may_evaluate(now) {
            self.counters.count(Attack::AdmissionRate);
            if let Some((id, _)) = reply {
                self.no_reply(now, id, &peer);
            }
            return;
        }
        let replies = reply.into_iter().collect();
        let number = self.next_id();
        self.waiting.insert(peer, Waiting { contact: Arc::clone(&contact), answered, replies, number });
        self.outputs.push_back(Output::VerifyAdmission { contact });
    }
}

/// A contact as it was met: the address it answered at first, since the table counts it by the network of that one
/// (security.md 7.3). `None` if it names no such address.
///
/// Else a host would take places in the name of every network it cares to name first. Which one answered is up to us: a
/// node without IPv4 meets a peer of both families at its IPv6 address.
pub(super) fn met_at(contact: &Arc<Contact>, at: SocketAddr) -> Option<Arc<Contact>> {
    let here = |address: &SocketAddr| canonical(*address) == canonical(at);
    let place = contact.addresses().iter().position(here)?;
    if place == 0 {
        return Some(Arc::clone(contact));
    }
    let mut addresses = contact.addresses().to_vec();
    addresses.get_mut(..=place)?.rotate_right(1);
    Some(Arc::new(Contact::new(*contact.peer(), *contact.admission(), addresses)))
}

/// IPv4 inside IPv6 is IPv4.
const fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// Whether two contacts say the same, but for the order of the addresses.
fn is_alike(a: &Contact, b: &Contact) -> bool {
    let names_all = |a: &Contact, b: &Contact| a.addresses().iter().all(|address| b.addresses().contains(address));
    a.peer() == b.peer() && a.admission() == b.admission() && names_all(a, b) && names_all(b, a)
}

const fn table_attack(refusal: TableRefusal) -> Attack {
    match refusal {
        TableRefusal::Subnet => Attack::TableSubnetBucket,
        TableRefusal::SubnetTable => Attack::TableSubnet,
        TableRefusal::Wide => Attack::TableWide,
        TableRefusal::Private => Attack::TablePrivate,
        TableRefusal::Own => Attack::TableOwn,
        TableRefusal::Replacements => Attack::TableFull,
    }
}
