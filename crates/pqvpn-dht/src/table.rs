// SPDX-License-Identifier: MIT OR Apache-2.0
//! The routing table: 256 lazy buckets that favour old, live contacts (Maymounkov & Mazières 2002, §2.2-2.4).
//!
//! Rules against liars (security.md 7.3, dht.md): a contact enters only after an authenticated round trip, never in
//! place of an older one that still answers, and no subnet gets more than its share.

mod bucket;
mod lost;
mod places;
mod subnet;
mod types;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Distance, Point};
use rand::{Rng, RngExt as _};

pub use bucket::Entry;
pub(crate) use subnet::Net;
pub use types::{BucketSummary, Failed, Inserted, TableConfig, TableCounters, TableRefusal};

use crate::Now;
use bucket::Bucket;
pub(crate) use bucket::head;
use lost::Lost;

/// A contact handed out for a liveness check is not handed out again for so long.
const RETRY: Duration = Duration::from_secs(30);
/// Failures in a row that remove a contact.
const MAX_FAILURES: u8 = 3;

/// The contacts of one node.
#[derive(Debug)]
pub struct Table {
    own: Point,
    config: TableConfig,
    /// By the length of the prefix shared with `own`; as long as the deepest contact needs.
    buckets: Vec<Bucket>,
    len: usize,
    /// The latest moment anybody was put in.
    latest: Duration,
    lost: Lost,
    counters: TableCounters,
}

impl Table {
    /// Makes an empty table around a position.
    #[must_use]
    pub fn new(own: Point, config: TableConfig) -> Self {
        Self {
            own,
            config,
            buckets: Vec::new(),
            len: 0,
            latest: Duration::ZERO,
            lost: Lost::default(),
            counters: TableCounters::default(),
        }
    }

    /// The position the table is around.
    #[must_use]
    pub const fn own(&self) -> &Point {
        &self.own
    }

    /// Moves the table to another position (a new week): the contacts stay as far as the new buckets have room.
    pub fn move_to(&mut self, now: Now, own: Point) {
        self.own = own;
        self.len = 0;
        let mut old: Vec<Entry> = std::mem::take(&mut self.buckets).into_iter().flat_map(|old| old.entries).collect();
        old.sort_by_key(Entry::last_seen);
        for entry in old {
            if matches!(self.insert(now, Arc::clone(entry.contact())), Inserted::Added) {
                self.restore(&entry);
            }
        }
    }

    /// Takes in a contact. Call it only after an authenticated round trip with it.
    pub fn insert(&mut self, now: Now, contact: Arc<Contact>) -> Inserted {
        self.latest = now.mono;
        let result = self.insert_inner(now.mono, contact);
        if let Inserted::Refused(why) = &result {
            self.count(*why);
        }
        result
    }

    /// Notes that a contact answered or asked something.
    pub fn seen(&mut self, now: Now, peer: &PeerId) {
        if let Some((bucket, at)) = self.position(peer)
            && let Some(bucket) = self.buckets.get_mut(bucket)
        {
            bucket.freshen(at, now.mono);
        }
    }

    /// Notes that a contact did not answer. The third time in a row it loses its place, and at once if that was the
    /// probe for somebody who waits.
    pub fn failed(&mut self, now: Now, peer: &PeerId) -> Failed {
        let Some((index, at)) = self.position(peer) else {
            for bucket in &mut self.buckets {
                bucket.spares.retain(|spare| spare.contact.peer() != peer);
            }
            return Failed::Unknown;
        };
        let Some(entry) = self.buckets.get_mut(index).and_then(|bucket| bucket.entries.get_mut(at)) else {
            return Failed::Unknown;
        };
        entry.fail(now.mono);
        let (probed, out) = (entry.probing(), entry.failures() >= MAX_FAILURES);
        // One failed probe is no proof that a public contact is gone; a private one does not get its place for that.
        let public_only = !out && !entry.net().is_private();
        let successor = self.successor(now.mono, index, Some(at), public_only);
        if !out && (!probed || successor.is_none()) {
            return Failed::Kept;
        }
        let lost = self.take(index, at);
        if let Some(lost) = lost {
            self.lost.note(now.mono, Arc::clone(lost.contact()));
        }
        if let Some(contact) = &successor {
            self.promote(now.mono, index, contact);
        }
        Failed::Removed { replaced_by: successor }
    }

    /// Forgets a contact for good: revoked, or caught lying. True if it was in the table.
    pub fn remove(&mut self, peer: &PeerId) -> bool {
        self.lost.forget(peer);
        for bucket in &mut self.buckets {
            bucket.spares.retain(|spare| spare.contact.peer() != peer);
        }
        let Some((index, at)) = self.position(peer) else { return false };
        self.take(index, at);
        let now = self.latest;
        if let Some(next) = self.successor(now, index, None, false) {
            self.promote(now, index, &next);
        }
        true
    }

    /// Up to `n` contacts nearest to a point, nearest first.
    #[must_use]
    pub fn closest(&self, target: &Point, n: usize) -> Vec<Arc<Contact>> {
        self.closest_where(target, n, |_| true)
    }

    /// As [`Self::closest`], of those contacts that pass `keep` only.
    pub fn closest_where(&self, target: &Point, n: usize, keep: impl Fn(&Contact) -> bool) -> Vec<Arc<Contact>> {
        // With the target in bucket i: bucket i is nearer than the deeper ones, all of which are as far as ourselves up
        // to their lower bits, and then the shallower ones follow one by one.
        let place = usize::try_from(self.own.distance(target).leading_zeros()).unwrap_or(usize::MAX);
        let target_head = head(target.as_bytes());
        let mut found: Vec<(u64, &Entry)> = Vec::with_capacity(n.min(self.len) + self.config.k);
        let shallow = place.min(self.buckets.len());
        let (upper, lower) = self.buckets.split_at_checked(shallow).unwrap_or((&self.buckets, &[]));
        let groups = lower.split_first().map(|(here, deeper)| [std::slice::from_ref(here), deeper]);
        let groups = groups.into_iter().flatten().chain(upper.iter().rev().map(std::slice::from_ref));
        for group in groups {
            if found.len() >= n {
                break;
            }
            let start = found.len();
            let entries = group.iter().flat_map(|bucket| &bucket.entries).filter(|entry| keep(entry.contact()));
            found.extend(entries.map(|entry| (entry.nearness(target_head), entry)));
            if let Some(fresh) = found.get_mut(start..) {
                nearest_first(fresh, target, n - start);
            }
        }
        found.into_iter().take(n).map(|(_, entry)| Arc::clone(entry.contact())).collect()
    }

    /// A contact by its name.
    #[must_use]
    pub fn get(&self, peer: &PeerId) -> Option<&Entry> {
        let (bucket, at) = self.position(peer)?;
        self.buckets.get(bucket)?.entries.get(at)
    }

    /// All contacts, bucket by bucket, least recently seen first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flat_map(|bucket| &bucket.entries)
    }

    /// How many contacts there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buckets that have been used, shallow ones first.
    #[must_use]
    pub fn buckets(&self) -> Vec<BucketSummary> {
        let summary = |(prefix, bucket): (usize, &Bucket)| BucketSummary {
            prefix,
            contacts: bucket.entries.len(),
            replacements: bucket.spares.len(),
            last_seen: bucket.entries.iter().map(Entry::last_seen).max(),
        };
        self.buckets.iter().enumerate().map(summary).filter(|one| one.contacts + one.replacements > 0).collect()
    }

    /// Whether a contact was lost, at just these addresses.
    #[must_use]
    pub fn has_lost(&self, contact: &Contact) -> bool {
        self.lost.contains(contact)
    }

    /// A lost contact is back: the others are worth a try now.
    pub fn hurry_lost(&mut self, now: Now) {
        self.lost.hurry(now.mono);
    }

    /// How full the bucket of a point is: contacts in their places, and contacts that wait for one.
    #[must_use]
    pub fn bucket_load(&self, point: &Point) -> (usize, usize) {
        self.buckets.get(self.index(point)).map_or((0, 0), |bucket| (bucket.entries.len(), bucket.spares.len()))
    }

    /// How often each bound took effect.
    #[must_use]
    pub const fn counters(&self) -> TableCounters {
        TableCounters { lost: self.lost.dropped(), ..self.counters }
    }

    /// The contact silent longest, if that is longer than `older_than`; then not again for 30 s, and longer the more
    /// often it has failed.
    pub fn stalest(&mut self, now: Now, older_than: Duration) -> Option<Arc<Contact>> {
        let entry = self
            .buckets
            .iter_mut()
            .flat_map(|bucket| &mut bucket.entries)
            .filter(|entry| now.mono.saturating_sub(entry.last_seen()) > older_than)
            .filter(|entry| {
                entry.last_touched() == entry.last_seen()
                    || now.mono.saturating_sub(entry.last_touched()) >= RETRY * (1 + u32::from(entry.failures()))
            })
            .min_by_key(|entry| entry.last_seen())?;
        entry.try_at(now.mono);
        Some(Arc::clone(entry.contact()))
    }

    /// A random point in the bucket that no lookup went through longest, if that is longer than `older_than`. The
    /// buckets too deep to be half full are one neighbourhood here.
    pub fn idle_bucket_target(
        &mut self,
        now: Now,
        older_than: Duration,
        rng: &mut (impl Rng + ?Sized),
    ) -> Option<Point> {
        let half = self.config.k.div_ceil(2);
        let full = self.buckets.iter().rposition(|bucket| bucket.entries.len() >= half);
        let hood = full.map_or(0, |full| full + 1).min(255);
        while self.buckets.len() <= hood {
            self.buckets.push(Bucket::default());
        }
        let (index, bucket) =
            self.buckets.iter_mut().take(hood + 1).enumerate().min_by_key(|(_, bucket)| bucket.last_active())?;
        if now.mono.saturating_sub(bucket.last_active()) <= older_than {
            return None;
        }
        bucket.mark_active(now.mono);
        Some(self.random_point(index, index < hood, rng))
    }

    /// Notes that a lookup went towards a point: its bucket needs no refresh for a while.
    pub fn looked_up(&mut self, now: Now, target: &Point) {
        let index = self.index(target);
        let at = index.min(self.buckets.len().saturating_sub(1));
        if let Some(bucket) = self.buckets.get_mut(at) {
            bucket.mark_active(now.mono);
        }
    }

    /// Up to `n` different contacts at random.
    pub fn sample(&self, n: usize, rng: &mut (impl Rng + ?Sized)) -> Vec<Arc<Contact>> {
        let mut all: Vec<&Entry> = self.iter().collect();
        let n = n.min(all.len());
        for at in 0..n {
            let other = rng.random_range(at..all.len());
            all.swap(at, other);
        }
        all.into_iter().take(n).map(|entry| Arc::clone(entry.contact())).collect()
    }

    /// A lost contact whose turn it is to be tried again: after 15 s first, then ever more rarely down to every 30 min,
    /// for a day. While more than a fifth of the table was lost within 15 min, retries stay quick.
    pub fn next_lost(&mut self, now: Now) -> Option<Arc<Contact>> {
        self.lost.next(now.mono, self.len)
    }

    /// When [`Self::next_lost`] has something next, on the monotonic clock.
    #[must_use]
    pub fn lost_due(&self) -> Option<Duration> {
        self.lost.due()
    }

    /// How many lost contacts are remembered.
    #[must_use]
    pub const fn lost(&self) -> usize {
        self.lost.len()
    }
}

impl Table {
    fn index(&self, id: &Point) -> usize {
        usize::try_from(self.own.distance(id).leading_zeros()).unwrap_or(usize::MAX).min(255)
    }

    fn position(&self, peer: &PeerId) -> Option<(usize, usize)> {
        self.buckets.iter().enumerate().find_map(|(index, bucket)| Some((index, bucket.find(peer)?)))
    }

    fn take(&mut self, index: usize, at: usize) -> Option<Entry> {
        let bucket = self.buckets.get_mut(index)?;
        if at >= bucket.entries.len() {
            return None;
        }
        self.len = self.len.saturating_sub(1);
        Some(bucket.entries.remove(at))
    }

    /// Gives an entry that was just inserted again its history back.
    fn restore(&mut self, old: &Entry) {
        if let Some((index, at)) = self.position(old.contact().peer())
            && let Some(entry) = self.buckets.get_mut(index).and_then(|bucket| bucket.entries.get_mut(at))
        {
            *entry = old.clone();
        }
    }

    fn random_point(&self, index: usize, exact: bool, rng: &mut (impl Rng + ?Sized)) -> Point {
        let mut distance: [u8; 32] = rng.random();
        for (at, byte) in distance.iter_mut().enumerate() {
            let kept = index.saturating_sub(at * 8).min(8);
            if kept > 0 {
                *byte = byte.checked_shr(u32::try_from(kept).unwrap_or(8)).unwrap_or(0);
            }
        }
        if exact && let Some(byte) = distance.get_mut(index / 8) {
            *byte |= 0x80 >> (index % 8);
        }
        self.own.at(&Distance::from_bytes(distance))
    }

    const fn count(&mut self, why: TableRefusal) {
        let counter = match why {
            TableRefusal::Subnet => &mut self.counters.subnet,
            TableRefusal::SubnetTable => &mut self.counters.subnet_table,
            TableRefusal::Wide => &mut self.counters.wide,
            TableRefusal::Private => &mut self.counters.private,
            TableRefusal::Own => &mut self.counters.own,
            TableRefusal::Replacements => &mut self.counters.replacements,
        };
        *counter += 1;
    }
}

/// Brings the `n` nearest of a slice to its front, in order.
fn nearest_first(found: &mut [(u64, &Entry)], target: &Point, n: usize) {
    let order = |a: &(u64, &Entry), b: &(u64, &Entry)| {
        a.0.cmp(&b.0).then_with(|| {
            let full = |entry: &Entry| target.distance(entry.contact().node_id());
            full(a.1).cmp(&full(b.1))
        })
    };
    let sorted = if n > 0 && n < found.len() {
        found.select_nth_unstable_by(n - 1, order);
        n
    } else {
        found.len()
    };
    if let Some(front) = found.get_mut(..sorted) {
        front.sort_unstable_by(order);
    }
}
