// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the node around it tells the DHT to do.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Fact, Point, Record};

use super::{Dht, MAX_DOORS, MAX_OWN_RECORDS, OwnRecord};
use crate::{
    Now,
    facts::FactRefusal,
    lookup::{Goal, LookupId},
    rules,
};

/// A sign of life is shown so much after its hour has begun: two clocks never agree, and an hour too low is one less.
const BEAT_MARGIN: Duration = Duration::from_secs(30);

impl Dht {
    /// Takes our admitted position and addresses; `None` while there is none: then we ask, and nobody is told of us.
    ///
    /// A new position (a new week) sorts the table anew; contacts stay.
    pub fn set_contact(&mut self, now: Now, contact: Option<Contact>) {
        if let Some(contact) = &contact
            && contact.node_id() != self.table.own()
        {
            self.table.move_to(now, *contact.node_id());
            self.storage.move_to(*contact.node_id());
            self.upkeep.moved(now);
        }
        self.contact = contact.map(Arc::new);
    }

    /// Adds doors: bootstrap nodes of which only PeerID and addresses are known. They are asked while the table is empty,
    /// and now and then afterwards.
    pub fn bootstrap(&mut self, now: Now, doors: Vec<(PeerId, Vec<SocketAddr>)>) {
        for (peer, addresses) in doors {
            if peer == self.own || addresses.is_empty() {
                continue;
            }
            if let Some((_, known)) = self.doors.iter_mut().find(|(known, _)| *known == peer) {
                *known = addresses;
            } else if self.doors.len() < MAX_DOORS {
                self.doors.push((peer, addresses));
            }
        }
        self.upkeep.rejoin(now);
    }

    /// Contacts of an earlier run: their proofs are evaluated again, and they are asked before they enter the table.
    pub fn recall(&mut self, now: Now, contacts: Vec<Arc<Contact>>) {
        let doors = contacts.iter().map(|contact| (*contact.peer(), contact.addresses().to_vec())).collect();
        self.bootstrap(now, doors);
    }

    /// Fills the table with contacts that are known to be good; for simulations that start from a converged network.
    pub fn seed_table(&mut self, now: Now, contacts: &[Arc<Contact>]) {
        for contact in contacts {
            self.table.insert(now, Arc::clone(contact));
            self.admitted.insert(now, contact);
        }
        self.joined = !self.table.is_empty();
        self.upkeep.settled();
    }

    /// Looks for the nodes nearest to a point.
    pub fn find(&mut self, now: Now, target: Point) -> Option<LookupId> {
        self.start(now, target, Goal::Nodes, None)
    }

    /// Looks for the newest record under a key, not older than `want_seq`.
    pub fn get(&mut self, now: Now, key: Point, want_seq: u64) -> Option<LookupId> {
        self.start(now, key, Goal::Value { want_seq }, None)
    }

    /// Stores a record at every node of its key's region, once.
    pub fn put(&mut self, now: Now, record: Arc<Record>) -> Option<LookupId> {
        self.start(now, *record.key(), Goal::Region, Some(record))
    }

    /// Stops a lookup; it ends without [`super::Output::Done`].
    pub fn cancel(&mut self, id: LookupId) {
        self.lookups.remove(&id);
    }

    /// Stores an own record and keeps it alive: stored again, with heartbeats, until a newer one with the same key comes.
    ///
    /// `heartbeat_seed` is the start of the record's heartbeat chain. `None`: no room, or a record of that key and a seq
    /// not lower is kept already: two contents with one seq would convict their owner everywhere.
    pub fn keep(&mut self, now: Now, record: Arc<Record>, heartbeat_seed: [u8; 32]) -> Option<LookupId> {
        let key = *record.key();
        if self.own_records.len() >= MAX_OWN_RECORDS && !self.own_records.contains_key(&key) {
            return None;
        }
        let newer = |known: &Record| record.seq() > known.seq() || record.digest() == known.digest();
        if self.own_records.get(&key).is_some_and(|own| !newer(&own.record)) {
            return None;
        }
        // Readers count from the record's beginning, which may be some hours ago.
        let age = Duration::from_millis(now.unix_ms.saturating_sub(record.draft().not_before_ms));
        let own = OwnRecord {
            record: Arc::clone(&record),
            heartbeat_seed,
            replicas: Vec::new(),
            publish_at: now.mono + self.config.republish + BEAT_MARGIN,
            beat_at: now.mono + self.config.beat.saturating_sub(age) + BEAT_MARGIN,
            renewal_asked: false,
            early_at: now.mono,
            refused: 0,
        };
        self.own_records.insert(key, own);
        self.put(now, record)
    }

    /// Stops keeping an own record alive; copies elsewhere end by themselves.
    pub fn forget(&mut self, key: &Point) {
        self.own_records.remove(key);
    }

    /// Tells everybody a fact: an own rotation or revocation, or a proof against somebody.
    ///
    /// # Errors
    /// The fact is not proven, or there is no room.
    pub fn announce(&mut self, now: Now, fact: &Arc<Fact>) -> Result<bool, FactRefusal> {
        let new = self.note_fact(now, fact)?;
        if new {
            self.pass_on(fact);
        }
        Ok(new)
    }

    /// Tells some contacts a fact that is known here already: one of our own, said when there was nobody to say it to.
    pub fn repeat(&mut self, fact: &Arc<Fact>) {
        self.pass_on(fact);
    }

    /// Keeps facts about this identity, also where there are more than fit; `false`: too many are kept so already.
    pub fn watch(&mut self, subject: PeerId) -> bool {
        self.facts.pin(subject)
    }

    /// Whether a record would be accepted here now; for checks before a put.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn check(&self, now: Now, record: &Record) -> Result<(), rules::RecordRefusal> {
        rules::check_record(now, record, &self.config.network, self.origin(None), &*self.verifier)
    }
}
