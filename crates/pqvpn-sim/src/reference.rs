// SPDX-License-Identifier: MIT OR Apache-2.0
//! What should be found: the naive model every result is held against.
//!
//! It sees the whole world at once, knows every record its owner put, and keeps one list of living nodes.
//!
//! - A *find* succeeds when the living honest node truly nearest to the target is in its result.
//! - A *get* succeeds when it returns the newest record its owner put.
//! - A record is *poison* when its owner did not sign it, its time is over, or it is of another key: it must never be
//!   returned. It is *stale* when its owner has replaced it since.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use pqvpn_dht::Dht;
use pqvpn_wire::dht::{Contact, Distance, MAX_CONTACTS, Point, Record, Verifier};

use crate::{
    engine::Engine,
    world::{Index, World, atlas::Atlas},
};

/// What a get returned, by the model's judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The newest record.
    Newest,
    /// One its owner has replaced.
    Stale,
    /// One that must never be accepted.
    Poison,
    /// Nothing.
    Missing,
}

/// Everything that was put.
#[derive(Debug, Default)]
pub struct Reference {
    newest: BTreeMap<Point, Arc<Record>>,
}

impl Reference {
    /// Notes that the owner put a record; one with a higher seq replaces it.
    pub fn put(&mut self, record: &Arc<Record>) {
        let newest = self.newest.entry(*record.key()).or_insert_with(|| Arc::clone(record));
        if newest.seq() < record.seq() {
            *newest = Arc::clone(record);
        }
    }

    /// All keys anything was put under.
    pub fn keys(&self) -> impl Iterator<Item = &Point> {
        self.newest.keys()
    }

    /// Judges what a get under `key` returned at `unix_ms`.
    #[must_use]
    pub fn judge(&self, key: &Point, found: Option<&Record>, unix_ms: u64, verifier: &dyn Verifier) -> Finding {
        let Some(found) = found else { return Finding::Missing };
        let in_time = found.draft().not_before_ms <= unix_ms + 120_000 && unix_ms < found.draft().not_after_ms;
        if found.key() != key || !in_time || !found.verify(verifier) {
            return Finding::Poison;
        }
        match self.newest.get(key) {
            Some(newest) if newest.digest() == found.digest() => Finding::Newest,
            Some(newest) if newest.seq() > found.seq() => Finding::Stale,
            // The owner's own second version, or one the model never saw: nobody but a lying owner has it.
            Some(_) | None => Finding::Poison,
        }
    }
}

/// All living nodes that serve and pass `keep`, by position.
#[must_use]
pub fn atlas<E: Engine>(world: &World<E>, keep: impl Fn(Index) -> bool) -> Atlas {
    let living = world.living(|node| !node.place.nat);
    living
        .into_iter()
        .filter(|index| keep(*index))
        .map(|index| (*world.nodes[index as usize].contact.node_id(), index))
        .collect()
}

/// Whether the plainest iterative search leads from `from` to `to` over the tables as they are: always ask the nearest
/// k known, all at once, as long as they name somebody nearer. Nothing is changed by it.
#[must_use]
pub fn leads_to(world: &World<Dht>, from: Index, to: Index) -> bool {
    let target = *world.nodes[to as usize].contact.node_id();
    let place = world.nodes[from as usize].place;
    let near = |index: Index| {
        let engine = world.nodes[index as usize].engine.as_ref();
        engine.map_or_else(Vec::new, |engine| engine.table().closest(&target, MAX_CONTACTS))
    };
    let mut asked = BTreeSet::from([from]);
    let mut known: BTreeMap<Distance, Index> = BTreeMap::new();
    let learn = |known: &mut BTreeMap<Distance, Index>, contacts: Vec<Arc<Contact>>| {
        for contact in contacts {
            if let Some(index) = world.index_of(contact.peer()) {
                let node = &world.nodes[index as usize];
                if node.alive && !node.place.nat && world.net.connected(&place, &node.place) {
                    known.insert(contact.node_id().distance(&target), index);
                }
            }
        }
    };
    learn(&mut known, near(from));
    loop {
        if known.values().next() == Some(&to) {
            return true;
        }
        let next = known.values().take(MAX_CONTACTS).copied().find(|index| !asked.contains(index));
        let Some(next) = next else { return false };
        asked.insert(next);
        learn(&mut known, near(next));
    }
}
