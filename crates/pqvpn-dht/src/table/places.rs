// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who gets a place in a bucket, and who waits for one.

use std::{sync::Arc, time::Duration};

use pqvpn_wire::dht::Contact;

use super::{Entry, Inserted, Net, RETRY, Table, TableRefusal, bucket::Bucket};

/// A spare heard of within this time is worth a place; one silent longer may be displaced.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// A contact seen within this time needs no probe (as the liveness checks of discv5).
const FRESH: Duration = Duration::from_secs(5 * 60);
/// Below so many contacts there is no cap per /16: a small network may well live in one.
const WIDE_FROM: usize = 50;

impl Table {
    pub(super) fn insert_inner(&mut self, now: Duration, contact: Arc<Contact>) -> Inserted {
        if contact.node_id() == &self.own {
            return Inserted::Refused(TableRefusal::Own);
        }
        let index = self.index(contact.node_id());
        while self.buckets.len() <= index {
            self.buckets.push(Bucket::default());
        }
        if let Some((old, at)) = self.position(contact.peer()) {
            if self.buckets.get(old).and_then(|bucket| bucket.find_place(contact.node_id())) == Some(at) {
                return self.update(now, old, at, contact);
            }
            // It moved with its week: its old position is void.
            self.take(old, at);
            if let Some(next) = self.successor(now, old, None, false) {
                self.promote(now, old, &next);
            }
        }
        for (other, bucket) in self.buckets.iter_mut().enumerate() {
            if other != index {
                bucket.spares.retain(|spare| spare.contact.peer() != contact.peer());
            }
        }
        self.lost.forget(contact.peer());
        if let Err(why) = self.admits(index, Net::of(&contact), None) {
            return Inserted::Refused(why);
        }
        let k = self.config.k;
        let Some(bucket) = self.buckets.get_mut(index) else { return Inserted::Waiting };
        if bucket.entries.len() < k {
            bucket.spares.retain(|spare| spare.contact.peer() != contact.peer());
            bucket.push(Entry::new(contact, now));
            self.len += 1;
            return Inserted::Added;
        }
        self.wait(now, index, contact)
    }

    fn wait(&mut self, now: Duration, index: usize, contact: Arc<Contact>) -> Inserted {
        let net = Net::of(&contact);
        let config = self.config;
        let Some(bucket) = self.buckets.get_mut(index) else { return Inserted::Waiting };
        let alike = bucket.spares.iter().filter(|spare| spare.contact.peer() != contact.peer());
        let alike = alike.filter(|spare| Net::of(&spare.contact) == net).count();
        if !net.is_private() && alike >= config.subnet_per_bucket {
            return Inserted::Refused(TableRefusal::Subnet);
        }
        if !bucket.wait(contact, now, config.replacements, PATIENCE) {
            return Inserted::Refused(TableRefusal::Replacements);
        }
        // One probe at a time and bucket, or a crowd of strangers makes us ask all day.
        let quiet = |entry: &Entry, time| now.saturating_sub(entry.last_touched()) >= time;
        let probing = bucket.entries.iter().any(|entry| entry.probing() && !quiet(entry, RETRY));
        let Some(oldest) = bucket.entries.first_mut().filter(|oldest| !probing && quiet(oldest, FRESH)) else {
            return Inserted::Waiting;
        };
        oldest.set_probing(true);
        oldest.try_at(now);
        Inserted::Full { probe: Arc::clone(oldest.contact()) }
    }

    fn update(&mut self, now: Duration, index: usize, at: usize, contact: Arc<Contact>) -> Inserted {
        let net = Net::of(&contact);
        let same = self.buckets.get(index).and_then(|bucket| bucket.entries.get(at)).is_some_and(|e| e.net() == net);
        if !same && let Err(why) = self.admits(index, net, Some((index, at))) {
            return Inserted::Refused(why);
        }
        if let Some(bucket) = self.buckets.get_mut(index) {
            if let Some(entry) = bucket.entries.get_mut(at) {
                *entry = Entry::new(contact, now);
            }
            bucket.freshen(at, now);
        }
        Inserted::Updated
    }

    /// Whether the caps allow one more contact of a subnet in a bucket, not counting the one it takes the place of.
    fn admits(&self, index: usize, net: Net, except: Option<(usize, usize)>) -> Result<(), TableRefusal> {
        let mut in_bucket = 0;
        let mut in_table = 0;
        let mut in_wide = 0;
        let mut total = 0;
        for (bucket_at, bucket) in self.buckets.iter().enumerate() {
            for (at, entry) in bucket.entries.iter().enumerate() {
                if except == Some((bucket_at, at)) {
                    continue;
                }
                total += 1;
                in_table += usize::from(entry.net() == net);
                in_bucket += usize::from(entry.net() == net && bucket_at == index);
                in_wide += usize::from(entry.net().wide() == net.wide());
            }
        }
        let config = &self.config;
        if net.is_private() {
            return if in_table < config.private { Ok(()) } else { Err(TableRefusal::Private) };
        }
        if in_bucket >= config.subnet_per_bucket {
            return Err(TableRefusal::Subnet);
        }
        if in_table >= config.subnet_per_table {
            return Err(TableRefusal::SubnetTable);
        }
        if total >= WIDE_FROM && (in_wide + 1) * 10 > total {
            return Err(TableRefusal::Wide);
        }
        Ok(())
    }

    /// Who of those that wait may take a free place of a bucket, or that of the entry `except`.
    pub(super) fn successor(
        &self,
        now: Duration,
        index: usize,
        except: Option<usize>,
        public: bool,
    ) -> Option<Arc<Contact>> {
        let bucket = self.buckets.get(index)?;
        let except = except.map(|at| (index, at));
        bucket.candidates(now, PATIENCE).into_iter().find(|contact| {
            let net = Net::of(contact);
            !(public && net.is_private()) && self.admits(index, net, except).is_ok()
        })
    }

    pub(super) fn promote(&mut self, now: Duration, index: usize, contact: &Arc<Contact>) {
        let Some(bucket) = self.buckets.get_mut(index) else { return };
        let Some(at) = bucket.find_spare(contact.peer()) else { return };
        let spare = bucket.spares.remove(at);
        // It stands where its last answer puts it, not among those just seen.
        let mut entry = Entry::new(Arc::clone(&spare.contact), spare.last_seen().min(now));
        entry.set_probing(false);
        let place = bucket.entries.partition_point(|other| other.last_seen() <= entry.last_seen());
        if bucket.entries.len() == bucket.entries.capacity() {
            bucket.entries.reserve_exact(4);
        }
        bucket.entries.insert(place, entry);
        self.len += 1;
    }
}
