// SPDX-License-Identifier: MIT OR Apache-2.0
//! One bucket: contacts in the order they were last seen, and those who wait for a place.

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Point};

use super::subnet::Net;

/// Ten ticks a second: a u32 of them lasts 13 years.
const TICK_MS: u128 = 100;

/// A moment of the monotonic clock in ticks.
pub(super) fn ticks(mono: Duration) -> u32 {
    u32::try_from(mono.as_millis() / TICK_MS).unwrap_or(u32::MAX)
}

fn duration(ticks: u32) -> Duration {
    Duration::from_millis(u64::from(ticks) * 100)
}

/// The first eight bytes of a point: enough to order distances but for one case in 2^64.
pub(crate) const fn head(bytes: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *bytes;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A contact of the table. 40 bytes; the contact itself is shared.
#[derive(Debug, Clone)]
pub struct Entry {
    contact: Arc<Contact>,
    place: u64,
    tag: u64,
    net: Net,
    seen: u32,
    /// Seconds from `seen` to the last attempt that was not answered (yet).
    tried: u16,
    failures: u8,
    probing: bool,
}

impl Entry {
    pub(super) fn new(contact: Arc<Contact>, now: Duration) -> Self {
        Self {
            place: head(contact.node_id().as_bytes()),
            tag: head(contact.peer().as_bytes()),
            net: Net::of(&contact),
            contact,
            seen: ticks(now),
            tried: 0,
            failures: 0,
            probing: false,
        }
    }

    /// Who it is and where.
    #[must_use]
    pub const fn contact(&self) -> &Arc<Contact> {
        &self.contact
    }

    /// When it answered last, on the monotonic clock, to 100 ms.
    #[must_use]
    pub fn last_seen(&self) -> Duration {
        duration(self.seen)
    }

    /// Attempts in a row that were not answered.
    #[must_use]
    pub const fn failures(&self) -> u8 {
        self.failures
    }

    /// When it was seen or last tried in vain, whichever is later.
    pub(super) fn last_touched(&self) -> Duration {
        self.last_seen() + Duration::from_secs(u64::from(self.tried))
    }

    pub(super) const fn net(&self) -> Net {
        self.net
    }

    /// The first 64 bits of the distance to a point with this head.
    pub(super) const fn nearness(&self, target_head: u64) -> u64 {
        self.place ^ target_head
    }

    pub(super) fn is(&self, peer: &PeerId) -> bool {
        self.tag == head(peer.as_bytes()) && self.contact.peer() == peer
    }

    pub(super) fn see(&mut self, now: Duration) {
        self.seen = ticks(now);
        self.tried = 0;
        self.failures = 0;
        self.probing = false;
    }

    pub(super) fn try_at(&mut self, now: Duration) {
        let since = now.saturating_sub(self.last_seen()).as_secs();
        self.tried = u16::try_from(since).unwrap_or(u16::MAX);
    }

    pub(super) fn fail(&mut self, now: Duration) {
        self.try_at(now);
        self.failures = self.failures.saturating_add(1);
    }

    pub(super) const fn probing(&self) -> bool {
        self.probing
    }

    pub(super) const fn set_probing(&mut self, on: bool) {
        self.probing = on;
    }
}

/// A contact that waits for a place.
#[derive(Debug, Clone)]
pub(super) struct Spare {
    pub(super) contact: Arc<Contact>,
    seen: u32,
}

impl Spare {
    pub(super) fn last_seen(&self) -> Duration {
        duration(self.seen)
    }
}

/// Contacts that share a prefix of one length with the table's owner.
#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
    /// Least recently seen first.
    pub(super) entries: Vec<Entry>,
    /// Longest known first.
    pub(super) spares: Vec<Spare>,
    /// When a lookup or a refresh last went through it, in ticks.
    active: u32,
}

impl Bucket {
    pub(super) fn find(&self, peer: &PeerId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.is(peer))
    }

    pub(super) fn find_place(&self, id: &Point) -> Option<usize> {
        let place = head(id.as_bytes());
        self.entries.iter().position(|entry| entry.place == place && entry.contact.node_id() == id)
    }

    pub(super) fn find_spare(&self, peer: &PeerId) -> Option<usize> {
        self.spares.iter().position(|spare| spare.contact.peer() == peer)
    }

    /// Appends as most recently seen; grows by four at a time, for there are many buckets and few are full.
    pub(super) fn push(&mut self, entry: Entry) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(4);
        }
        self.entries.push(entry);
    }

    /// Moves an entry to the recently seen end.
    pub(super) fn freshen(&mut self, at: usize, now: Duration) {
        if let Some(rest) = self.entries.get_mut(at..) {
            rest.rotate_left(1);
        }
        if let Some(entry) = self.entries.last_mut() {
            entry.see(now);
        }
    }

    /// Lets a contact wait. When all places are taken, the one silent longest makes room, if that was longer than
    /// `patience`: a burst of strangers displaces nobody.
    pub(super) fn wait(&mut self, contact: Arc<Contact>, now: Duration, bound: usize, patience: Duration) -> bool {
        if let Some(at) = self.find_spare(contact.peer())
            && let Some(spare) = self.spares.get_mut(at)
        {
            *spare = Spare { contact, seen: ticks(now) };
            return true;
        }
        if self.spares.len() >= bound {
            let stale = self.spares.iter().enumerate().min_by_key(|(_, spare)| spare.seen);
            let Some((at, spare)) = stale else { return false };
            if now.saturating_sub(spare.last_seen()) < patience {
                return false;
            }
            self.spares.remove(at);
        }
        if self.spares.len() == self.spares.capacity() {
            self.spares.reserve_exact(4);
        }
        self.spares.push(Spare { contact, seen: ticks(now) });
        true
    }

    pub(super) fn last_active(&self) -> Duration {
        duration(self.active)
    }

    pub(super) fn mark_active(&mut self, now: Duration) {
        self.active = ticks(now);
    }

    /// Spares in the order they should be tried for a free place: the longest known of those heard of within
    /// `patience`, then the others, latest first.
    pub(super) fn candidates(&self, now: Duration, patience: Duration) -> Vec<Arc<Contact>> {
        let mut order: Vec<(bool, u32, usize, &Arc<Contact>)> = self
            .spares
            .iter()
            .enumerate()
            .map(|(age, spare)| {
                let stale = now.saturating_sub(spare.last_seen()) > patience;
                (stale, if stale { u32::MAX - spare.seen } else { 0 }, age, &spare.contact)
            })
            .collect();
        order.sort_unstable_by_key(|(stale, silence, age, _)| (*stale, *silence, *age));
        order.into_iter().map(|(.., contact)| Arc::clone(contact)).collect()
    }
}
