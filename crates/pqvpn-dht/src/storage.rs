// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records this node keeps for others: who may store, how much, for how long, and what goes when there is no room.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Distance, Equivocation, Heartbeat, Point, Record, Refusal, Token};

use crate::{
    Now, WallClock,
    address::Subnet,
    counters::Attack,
    rules::{BeatRefusal, SKEW_MS, check_heartbeat},
};

mod token;

use token::Tokens;

/// How long a copy left on a lookup's path is kept.
pub const CACHE_MS: u64 = 10 * 60 * 1000;

/// Bounds of a [`Storage`] (security.md 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageConfig {
    /// Most records.
    pub records: usize,
    /// Most bytes of records, as encoded.
    pub bytes: usize,
    /// Most records of one owner.
    pub per_owner: u32,
    /// Most records from one /24 (/48), or from one private address.
    pub per_subnet: u32,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { records: 4096, bytes: 32 << 20, per_owner: 64, per_subnet: 256 }
    }
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreRefusal {
    /// No longer valid.
    #[error("no longer valid")]
    Expired,
    /// A newer one is kept.
    #[error("a record with seq {kept} is kept")]
    Stale {
        /// Its seq.
        kept: u64,
    },
    /// Another one with the same seq is kept: the proof that its owner signed both.
    #[error("the owner signed two records with one seq")]
    Equivocation(Box<Equivocation>),
    /// The owner has its share.
    #[error("the owner's quota is used up")]
    OwnerQuota,
    /// The subnet has its share.
    #[error("the subnet's quota is used up")]
    SubnetQuota,
    /// There is no room, and everything kept is nearer to this node.
    #[error("no room")]
    Full,
}

impl StoreRefusal {
    fn equivocation(proof: Equivocation) -> Self {
        Self::Equivocation(Box::new(proof))
    }

    /// What to count.
    #[must_use]
    pub const fn attack(&self) -> Attack {
        match self {
            Self::Expired => Attack::RecordExpired,
            Self::Stale { .. } => Attack::RecordStale,
            Self::Equivocation(_) => Attack::Equivocation,
            Self::OwnerQuota => Attack::QuotaOwner,
            Self::SubnetQuota => Attack::QuotaSubnet,
            Self::Full => Attack::StorageFull,
        }
    }

    /// What to answer.
    #[must_use]
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::Expired => Refusal::Record,
            Self::Stale { .. } => Refusal::Stale,
            Self::Equivocation(_) => Refusal::Revoked,
            Self::OwnerQuota | Self::SubnetQuota | Self::Full => Refusal::Quota,
        }
    }
}

/// A record as it is kept.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    /// The record.
    pub record: &'a Arc<Record>,
    /// The newest heartbeat known.
    pub heartbeat: Option<Heartbeat>,
    /// When it goes, ms since 1970.
    pub until_ms: u64,
    /// Whether it is only a copy left on a lookup's path.
    pub cached: bool,
}

#[derive(Debug)]
struct Slot {
    record: Arc<Record>,
    heartbeat: Option<Heartbeat>,
    until_ms: u64,
    bytes: usize,
    /// Whose quota it counts against; `None` for this node's own records.
    payer: Option<Subnet>,
    cached: bool,
}

/// What goes first when there is no room: copies, then what is farthest away. The last of this order goes.
type Rank = (bool, Distance);

/// Bounded by [`StorageConfig`] in every dimension; nothing is allocated before the first record.
#[derive(Debug)]
pub struct Storage {
    config: StorageConfig,
    position: Point,
    tokens: Tokens,
    slots: BTreeMap<Point, Slot>,
    ranks: BTreeSet<Rank>,
    ends: BTreeSet<(u64, Point)>,
    owners: BTreeMap<PeerId, u32>,
    payers: BTreeMap<Subnet, u32>,
    bytes: usize,
    /// From the first look at it on.
    clock: Option<WallClock>,
}

impl Storage {
    /// Empty. `position` is this node's, `secret` makes the tokens and must be unknown to everybody else.
    #[must_use]
    pub fn new(config: StorageConfig, position: Point, secret: [u8; 32]) -> Self {
        Self {
            config,
            position,
            tokens: Tokens::new(&secret),
            slots: BTreeMap::new(),
            ranks: BTreeSet::new(),
            ends: BTreeSet::new(),
            owners: BTreeMap::new(),
            payers: BTreeMap::new(),
            bytes: 0,
            clock: None,
        }
    }

    /// The token that lets this peer, from this subnet, store here for 10 to 20 minutes.
    #[must_use]
    pub fn token(&self, now: Now, peer: &PeerId, from: IpAddr) -> Token {
        self.tokens.make(now, peer, from)
    }

    /// Whether a token was given to this peer in this subnet in the current or the last 10 minutes.
    #[must_use]
    pub fn token_valid(&self, now: Now, peer: &PeerId, from: IpAddr, token: &Token) -> bool {
        self.tokens.check(now, peer, from, token)
    }

    /// Keeps a record that has passed [`check_record`](crate::rules::check_record), and returns until when (ms since 1970).
    ///
    /// The highest seq stays. A copy (`cached`) is kept for [`CACHE_MS`] only, but a newer copy takes over the place and
    /// the time of an older record that was stored: else a copy would be a way to make the record vanish soon.
    ///
    /// # Errors
    /// [`StoreRefusal`]; nothing has changed.
    pub fn put(&mut self, now: Now, record: Arc<Record>, from: IpAddr, cached: bool) -> Result<u64, StoreRefusal> {
        self.put_for(now, record, Some(Subnet::billed(from)), cached)
    }

    /// Keeps an own record; it counts against its owner's quota, but against no subnet's.
    ///
    /// # Errors
    /// [`StoreRefusal`]; nothing has changed.
    pub fn put_own(&mut self, now: Now, record: Arc<Record>) -> Result<u64, StoreRefusal> {
        self.put_for(now, record, None, false)
    }

    fn put_for(
        &mut self,
        now: Now,
        record: Arc<Record>,
        payer: Option<Subnet>,
        cached: bool,
    ) -> Result<u64, StoreRefusal> {
        self.expire(now);
        let not_after = record.draft().not_after_ms;
        if not_after <= now.unix_ms {
            return Err(StoreRefusal::Expired);
        }
        let key = *record.key();
        // Taken while the clock was ahead: nobody takes it from us, and it would keep the true one out.
        if self.slots.get(&key).is_some_and(|kept| is_untimely(now, &kept.record)) {
            self.remove(&key);
        }
        let mut cached = cached;
        if let Some(kept) = self.slots.get(&key) {
            cached &= kept.cached;
            if record.seq() < kept.record.seq() {
                return Err(StoreRefusal::Stale { kept: kept.record.seq() });
            }
            if record.seq() == kept.record.seq() {
                if record.digest() == kept.record.digest() {
                    return Ok(self.prolong(&key, until(now, not_after, cached), cached));
                }
                let proof = Equivocation::new(Arc::clone(&kept.record), record);
                return Err(proof.map_or(StoreRefusal::Stale { kept: kept.record.seq() }, StoreRefusal::equivocation));
            }
        }
        self.check_quotas(&key, record.owner(), payer)?;
        let bytes = record.encoded_len();
        let victims = self.victims(&key, (cached, self.position.distance(&key)), bytes)?;
        for victim in victims {
            self.remove(&victim);
        }
        self.remove(&key);
        let until_ms = until(now, not_after, cached);
        self.insert(key, Slot { record, heartbeat: None, until_ms, bytes, payer, cached });
        Ok(until_ms)
    }

    /// Whether owner and payer have room for one more under this key; a record that is replaced, of the same owner by
    /// its key, does not count.
    fn check_quotas(&self, key: &Point, owner: &PeerId, payer: Option<Subnet>) -> Result<(), StoreRefusal> {
        let replaced = self.slots.get(key);
        let owned = self.owners.get(owner).copied().unwrap_or(0);
        if owned >= self.config.per_owner && replaced.is_none() {
            return Err(StoreRefusal::OwnerQuota);
        }
        let Some(payer) = payer else { return Ok(()) };
        let paid = self.payers.get(&payer).copied().unwrap_or(0);
        if paid >= self.config.per_subnet && replaced.is_none_or(|slot| slot.payer != Some(payer)) {
            return Err(StoreRefusal::SubnetQuota);
        }
        Ok(())
    }

    /// What must go so that a record of `bytes` fits under `key`: only what ranks behind it.
    fn victims(&self, key: &Point, rank: Rank, bytes: usize) -> Result<Vec<Point>, StoreRefusal> {
        let replaced = self.slots.get(key).map(|slot| slot.bytes);
        let mut count = self.slots.len() - usize::from(replaced.is_some());
        let mut used = self.bytes - replaced.unwrap_or(0);
        let mut victims = Vec::new();
        let mut last_first = self.ranks.iter().rev();
        while count >= self.config.records || used.saturating_add(bytes) > self.config.bytes {
            let worst = last_first.next().filter(|worst| **worst > rank).ok_or(StoreRefusal::Full)?;
            let victim = self.position.at(&worst.1);
            let Some(slot) = self.slots.get(&victim).filter(|_| victim != *key) else { continue };
            count -= 1;
            used -= slot.bytes;
            victims.push(victim);
        }
        Ok(victims)
    }

    /// The same record again: a copy lasts longer, or becomes a record.
    fn prolong(&mut self, key: &Point, until_ms: u64, cached: bool) -> u64 {
        let Some(mut slot) = self.remove(key) else { return until_ms };
        slot.until_ms = until_ms;
        slot.cached = cached;
        self.insert(*key, slot);
        until_ms
    }

    fn insert(&mut self, key: Point, slot: Slot) {
        self.bytes += slot.bytes;
        self.ranks.insert((slot.cached, self.position.distance(&key)));
        self.ends.insert((slot.until_ms, key));
        *self.owners.entry(*slot.record.owner()).or_default() += 1;
        if let Some(payer) = slot.payer {
            *self.payers.entry(payer).or_default() += 1;
        }
        self.slots.insert(key, slot);
    }

    fn remove(&mut self, key: &Point) -> Option<Slot> {
        let slot = self.slots.remove(key)?;
        self.bytes -= slot.bytes;
        self.ranks.remove(&(slot.cached, self.position.distance(key)));
        self.ends.remove(&(slot.until_ms, *key));
        one_less(self.owners.entry(*slot.record.owner()));
        if let Some(payer) = slot.payer {
            one_less(self.payers.entry(payer));
        }
        Some(slot)
    }

    /// The record under a key, if it is still valid.
    #[must_use]
    pub fn get(&self, now: Now, key: &Point) -> Option<Kept<'_>> {
        let slot = self.slots.get(key).filter(|slot| now.unix_ms < slot.until_ms && !is_untimely(now, &slot.record))?;
        let Slot { record, heartbeat, until_ms, cached, .. } = slot;
        Some(Kept { record, heartbeat: *heartbeat, until_ms: *until_ms, cached: *cached })
    }

    /// Takes a sign of life for a record that is kept, and returns until when the record is (ms since 1970).
    ///
    /// # Errors
    /// [`BeatRefusal`].
    pub fn beat(&mut self, now: Now, key: &Point, heartbeat: Heartbeat) -> Result<u64, BeatRefusal> {
        let slot = self.slots.get_mut(key).filter(|slot| now.unix_ms < slot.until_ms).ok_or(BeatRefusal::Unknown)?;
        check_heartbeat(now, &slot.record, &heartbeat)?;
        if slot.heartbeat.is_none_or(|known| known.hour < heartbeat.hour) {
            slot.heartbeat = Some(heartbeat);
        }
        Ok(slot.until_ms)
    }

    /// Lets go of what is no longer valid, and returns how many records that were.
    pub fn expire(&mut self, now: Now) -> usize {
        // A clock that is ahead for a while would empty the store for good.
        let over = self.clock.get_or_insert(WallClock::new(now)).steady_ms(now);
        let mut gone = 0;
        while let Some((_, key)) = self.ends.first().copied().filter(|(end, _)| *end <= over) {
            self.remove(&key);
            gone += 1;
        }
        gone
    }

    /// When the next record ends, ms since 1970.
    #[must_use]
    pub fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Lets go of everything of an owner (revoked, or caught in equivocation), and returns how many records that were.
    pub fn remove_owner(&mut self, owner: &PeerId) -> usize {
        if !self.owners.contains_key(owner) {
            return 0;
        }
        let keys: Vec<Point> =
            self.slots.iter().filter(|(_, slot)| slot.record.owner() == owner).map(|(key, _)| *key).collect();
        for key in &keys {
            self.remove(key);
        }
        keys.len()
    }

    /// This node has another position: what is far is judged anew, nothing goes because of that alone.
    pub fn move_to(&mut self, position: Point) {
        self.position = position;
        self.ranks = self.slots.iter().map(|(key, slot)| (slot.cached, position.distance(key))).collect();
    }

    /// What is kept, by key; may hold records that end now.
    pub fn iter(&self) -> impl Iterator<Item = Kept<'_>> {
        self.slots.values().map(|Slot { record, heartbeat, until_ms, cached, .. }| Kept {
            record,
            heartbeat: *heartbeat,
            until_ms: *until_ms,
            cached: *cached,
        })
    }

    /// Records kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes kept, as encoded.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

fn until(now: Now, not_after_ms: u64, cached: bool) -> u64 {
    if cached { not_after_ms.min(now.unix_ms.saturating_add(CACHE_MS)) } else { not_after_ms }
}

fn one_less<K: Ord>(entry: Entry<'_, K, u32>) {
    if let Entry::Occupied(mut entry) = entry {
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

/// Whether a record is of a time to come.
fn is_untimely(now: Now, record: &Record) -> bool {
    record.draft().not_before_ms > now.unix_ms.saturating_add(SKEW_MS)
}

#[cfg(test)]
mod tests;
