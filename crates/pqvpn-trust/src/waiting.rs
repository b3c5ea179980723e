// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statements that came before their parents, and statements there was no room for, until somebody stands on them.

use std::collections::{BTreeMap, BTreeSet};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Statement, StatementId};
use sha2::{Digest, Sha256};

use crate::{MAX_WAITING, MAX_WAITING_BYTES};

/// Copies of one statement with different signatures wait side by side: none is verified yet, so a wrong signature
/// must not push out a right one.
pub(crate) type Key = (StatementId, [u8; 32]);

fn key_of(statement: &Statement) -> (Key, usize) {
    let encoded = statement.encode();
    ((statement.id(), Sha256::digest(&encoded).into()), encoded.len())
}

/// All copies of a statement.
fn copies(of: &StatementId) -> std::ops::RangeInclusive<Key> {
    (*of, [0; 32])..=(*of, [255; 32])
}

/// A statement, and what it waits for.
#[derive(Debug)]
struct Waiter {
    statement: Statement,
    /// Encoded size in bytes.
    len: usize,
    arrival: u64,
    /// Of one that was refused for want of room: nothing.
    missing: BTreeSet<StatementId>,
    /// Whose signature on it was found right while it waited.
    right: BTreeSet<PeerId>,
}

/// A room bounded in number and bytes; the oldest goes first.
///
/// Where what was refused for want of room has more than a quarter of it, the oldest of that goes first.
///
/// What went is not lost: it is still among what others hold and this node lacks, and is asked for again.
#[derive(Debug, Default)]
pub(crate) struct WaitingRoom {
    waiters: BTreeMap<Key, Waiter>,
    by_arrival: BTreeMap<u64, Key>,
    /// (missing parent, who waits for it): whoever comes in looks at nobody else.
    by_parent: BTreeSet<(StatementId, Key)>,
    /// Those that there was no room for, by arrival, and their bytes.
    refused: BTreeMap<u64, Key>,
    refused_bytes: usize,
    arrivals: u64,
    bytes: usize,
}

impl WaitingRoom {
    /// Lets a statement wait for parents; says how many others had to go.
    pub(crate) fn enter(&mut self, statement: Statement, missing: BTreeSet<StatementId>) -> u64 {
        let (key, len) = key_of(&statement);
        if missing.is_empty() || self.waiters.contains_key(&key) {
            return 0;
        }
        let mut evicted = 0;
        while self.is_full(len) {
            let many = self.refused.len() > MAX_WAITING / 4 || self.refused_bytes > MAX_WAITING_BYTES / 4;
            let from = if many { &self.refused } else { &self.by_arrival };
            let Some(oldest) = from.first_key_value().map(|(_, oldest)| *oldest) else { break };
            self.remove(&oldest);
            evicted += 1;
        }
        self.take(key, Waiter { statement, len, arrival: 0, missing, right: BTreeSet::new() });
        evicted
    }

    /// Lets a statement that was refused for want of room wait until an admin stands on it, in half of this room at most and
    /// where nobody waits for parents: whoever makes many of them sends nobody away but them.
    pub(crate) fn refuse(&mut self, statement: Statement) {
        let (key, len) = key_of(&statement);
        if self.waiters.contains_key(&key) {
            return;
        }
        while self.is_full(len)
            || self.refused.len() >= MAX_WAITING / 2
            || self.refused_bytes.saturating_add(len) > MAX_WAITING_BYTES / 2
        {
            let Some(oldest) = self.refused.first_key_value().map(|(_, oldest)| *oldest) else { return };
            self.remove(&oldest);
        }
        self.take(key, Waiter { statement, len, arrival: 0, missing: BTreeSet::new(), right: BTreeSet::new() });
    }

    fn take(&mut self, key: Key, waiter: Waiter) {
        self.arrivals += 1;
        self.by_arrival.insert(self.arrivals, key);
        self.by_parent.extend(waiter.missing.iter().map(|parent| (*parent, key)));
        self.bytes += waiter.len;
        if waiter.missing.is_empty() {
            self.refused.insert(self.arrivals, key);
            self.refused_bytes += waiter.len;
        }
        self.waiters.insert(key, Waiter { arrival: self.arrivals, ..waiter });
    }

    fn is_full(&self, len: usize) -> bool {
        self.waiters.len() >= MAX_WAITING || self.bytes.saturating_add(len) > MAX_WAITING_BYTES
    }

    /// Those that wait for a statement, and those that wait for these, the nearest first.
    pub(crate) fn above(&self, statement: &StatementId) -> Vec<Key> {
        let (mut found, mut seen, mut at) = (Vec::new(), BTreeSet::new(), 0);
        let mut on = *statement;
        loop {
            found.extend(self.waiting_for(&on).filter(|key| seen.insert(*key)));
            let Some((next, _)) = found.get(at) else { return found };
            (on, at) = (*next, at + 1);
        }
    }

    /// Refused statements that one which waits stands on, by way of others that wait or not.
    pub(crate) fn refused_under(&self, statement: &StatementId) -> Vec<Key> {
        let (mut found, mut seen, mut open) = (Vec::new(), BTreeSet::new(), vec![*statement]);
        while let Some(on) = if self.refused.is_empty() { None } else { open.pop() } {
            for (key, waiter) in self.waiters.range(copies(&on)) {
                if waiter.missing.is_empty() {
                    found.push(*key);
                }
                open.extend(waiter.missing.iter().filter(|missing| seen.insert(**missing)));
            }
        }
        found
    }

    /// Whether any copy of a statement waits.
    pub(crate) fn has(&self, id: &StatementId) -> bool {
        self.first_copy(id).is_some()
    }

    fn first_copy(&self, of: &StatementId) -> Option<&Waiter> {
        self.waiters.range(copies(of)).next().map(|(_, waiter)| waiter)
    }

    /// What has to come for these: themselves, or of what waits already what it waits for, by way of others that wait.
    pub(crate) fn lacking(&self, these: &[StatementId]) -> BTreeSet<StatementId> {
        let (mut lacking, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<StatementId> = these.iter().filter(|id| seen.insert(**id)).copied().collect();
        while let Some(on) = open.pop() {
            match self.first_copy(&on) {
                Some(waiter) => open.extend(waiter.missing.iter().filter(|missing| seen.insert(**missing))),
                None => drop(lacking.insert(on)),
            }
        }
        lacking
    }

    /// Of those of `these` that wait, and for nothing but others of these that wait, the ones that none of them waits for.
    pub(crate) fn tops(&self, these: &BTreeSet<StatementId>) -> BTreeSet<StatementId> {
        let mut waiting: Vec<_> = these.iter().filter_map(|id| Some((*id, self.first_copy(id)?))).collect();
        // Parents first; one that lies about its place waits for more than these.
        waiting.sort_by_key(|(id, waiter)| (waiter.statement.body().seq, *id));
        let (mut whole, mut tops) = (BTreeSet::new(), BTreeSet::new());
        for (id, waiter) in waiting {
            if waiter.missing.is_subset(&whole) {
                whole.insert(id);
                tops.retain(|top| !waiter.missing.contains(top));
                tops.insert(id);
            }
        }
        tops
    }

    pub(crate) fn copies(&self, of: &StatementId) -> Vec<Key> {
        self.waiters.range(copies(of)).map(|(key, _)| *key).collect()
    }

    pub(crate) fn statement(&self, key: &Key) -> Option<&Statement> {
        self.waiters.get(key).map(|waiter| &waiter.statement)
    }

    /// Whether a signature was found right before; else `check` says it, once.
    pub(crate) fn is_right(&mut self, key: &Key, signer: &PeerId, check: impl FnOnce(&Statement) -> bool) -> bool {
        let Some(waiter) = self.waiters.get_mut(key) else { return false };
        let right = waiter.right.contains(signer) || check(&waiter.statement);
        if right {
            waiter.right.insert(*signer);
        }
        right
    }

    /// Forgets what was refused of a statement that is held now.
    pub(crate) fn forget_refused(&mut self, statement: &StatementId) {
        let here = self.waiters.range(copies(statement)).filter(|(_, waiter)| waiter.missing.is_empty());
        let keys: Vec<Key> = here.map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| drop(self.remove(key)));
    }

    /// Takes out those that waited for this statement and for nothing else.
    pub(crate) fn take_ready(&mut self, arrived: &StatementId) -> Vec<Statement> {
        let waiting: Vec<Key> = self.waiting_for(arrived).collect();
        waiting.into_iter().filter_map(|key| self.has_come(arrived, &key)).collect()
    }

    /// Statements waiting.
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Their encoded size, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn waiting_for(&self, parent: &StatementId) -> impl Iterator<Item = Key> {
        let (first, last) =
            ((StatementId::from_bytes([0; 32]), [0; 32]), (StatementId::from_bytes([255; 32]), [255; 32]));
        self.by_parent.range((*parent, first)..=(*parent, last)).map(|(_, key)| *key)
    }

    fn has_come(&mut self, arrived: &StatementId, key: &Key) -> Option<Statement> {
        self.by_parent.remove(&(*arrived, *key));
        let waiter = self.waiters.get_mut(key)?;
        waiter.missing.remove(arrived);
        if waiter.missing.is_empty() { self.remove(key) } else { None }
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Statement> {
        let waiter = self.waiters.remove(key)?;
        self.by_arrival.remove(&waiter.arrival);
        if self.refused.remove(&waiter.arrival).is_some() {
            self.refused_bytes = self.refused_bytes.saturating_sub(waiter.len);
        }
        for parent in waiter.missing {
            self.by_parent.remove(&(parent, *key));
        }
        self.bytes = self.bytes.saturating_sub(waiter.len);
        Some(waiter.statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::support::{World, add, signed};

    fn id(number: usize) -> StatementId {
        let mut bytes = [1; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        StatementId::from_bytes(bytes)
    }

    fn waiter(world: &World, parents: &[usize], signers: usize) -> Statement {
        let mut body = world.constitution.draft(1, add(5, "x"));
        (body.parents, body.seq) = (parents.iter().map(|number| id(*number)).collect(), 7);
        signed(body, &(0..signers).map(|signer| (signer, true)).collect::<Vec<_>>())
    }

    fn enter(room: &mut WaitingRoom, statement: &Statement) -> u64 {
        room.enter(statement.clone(), statement.body().parents.iter().copied().collect())
    }

    #[test]
    fn who_waits_for_several_goes_with_the_last_and_nobody_else_is_looked_at() {
        let (world, mut room) = (World::new(1), WaitingRoom::default());
        let (one, both) = (waiter(&world, &[1], 1), waiter(&world, &[1, 2], 1));
        let copy = waiter(&world, &[1, 2], 2);
        for statement in [&one, &both, &copy, &both] {
            assert_eq!(enter(&mut room, statement), 0);
        }
        assert_eq!((room.len(), room.by_parent.len()), (3, 5), "the same twice waits once");
        assert_eq!(room.take_ready(&id(3)), []);
        assert_eq!(room.take_ready(&id(1)), [one]);
        assert_eq!(room.take_ready(&id(1)), []);
        let mut ready = room.take_ready(&id(2));
        ready.sort_by_key(|statement| statement.signers().len());
        assert_eq!(ready, [both, copy]);
        assert_eq!((room.len(), room.bytes(), room.by_parent.len(), room.by_arrival.len()), (0, 0, 0, 0));
    }

    #[test]
    fn long_statements_fill_the_room_by_their_bytes_and_the_oldest_goes() {
        let (world, mut room) = (World::new(1), WaitingRoom::default());
        let first = waiter(&world, &[1_000], 1);
        enter(&mut room, &first);
        let mut evicted = 0;
        for number in 0..MAX_WAITING / 2 {
            let long = waiter(&world, &[number, number + 1], 16);
            evicted += enter(&mut room, &long);
            assert!(room.bytes() <= MAX_WAITING_BYTES, "{}", room.bytes());
            assert_eq!(room.waiters.values().map(|waiter| waiter.statement.encoded_len()).sum::<usize>(), room.bytes());
        }
        assert_eq!(room.len() as u64 + evicted, 1 + MAX_WAITING as u64 / 2);
        assert!(room.len() >= 10, "some fit");
        assert_eq!(room.by_parent.len(), 2 * room.len(), "nothing stays of who went");
        assert_eq!(room.take_ready(&id(1_000)), [], "it came first");
        assert_eq!(room.take_ready(&id(MAX_WAITING / 2)).len() + room.len(), room.by_arrival.len());
        // A short one sends away no more than it needs.
        assert!(enter(&mut room, &first) <= 1);
        assert_eq!(room.take_ready(&id(1_000)), [first]);
    }

    #[test]
    fn of_a_full_room_what_was_refused_goes_first_down_to_a_quarter() {
        let (world, mut room) = (World::new(1), WaitingRoom::default());
        let first = waiter(&world, &[9_000], 1);
        enter(&mut room, &first);
        (0..MAX_WAITING / 2).for_each(|number| room.refuse(waiter(&world, &[number], 1)));
        for number in 1..MAX_WAITING * 3 / 4 {
            enter(&mut room, &waiter(&world, &[1_000 + number], 1));
        }
        assert_eq!((room.len(), room.refused.len()), (MAX_WAITING, MAX_WAITING / 4));
        assert!(room.has(&first.id()), "it came before them");
        enter(&mut room, &waiter(&world, &[5_000], 1));
        assert_eq!((room.has(&first.id()), room.refused.len()), (false, MAX_WAITING / 4));
        // The same by their bytes.
        let mut room = WaitingRoom::default();
        enter(&mut room, &first);
        let mut number = 0;
        while room.refused_bytes <= MAX_WAITING_BYTES / 4 {
            number += 1;
            room.refuse(waiter(&world, &[number, 7], 16));
        }
        assert!(room.refused.len() == number && number < MAX_WAITING / 4);
        let evicted =
            (1_000..).map(|number| enter(&mut room, &waiter(&world, &[number, 7], 16))).find(|evicted| *evicted > 0);
        assert_eq!((evicted, room.refused.len(), room.has(&first.id())), (Some(1), number - 1, true));
    }

    #[test]
    fn what_was_refused_has_half_the_room_and_sends_nobody_away() {
        let (world, mut room) = (World::new(1), WaitingRoom::default());
        let waiting: Vec<Statement> = (0..MAX_WAITING / 2 + 10).map(|number| waiter(&world, &[number], 1)).collect();
        assert_eq!(waiting.iter().map(|statement| enter(&mut room, statement)).sum::<u64>(), 0);
        let refused: Vec<Statement> = (1_000..1_000 + MAX_WAITING).map(|number| waiter(&world, &[number], 1)).collect();
        refused.iter().for_each(|statement| room.refuse(statement.clone()));
        assert_eq!((room.len(), room.refused.len()), (MAX_WAITING, MAX_WAITING / 2 - 10), "where nobody waits");
        assert!(waiting.iter().all(|statement| !room.copies(&statement.id()).is_empty()));
        assert!(!room.copies(&refused[MAX_WAITING - 1].id()).is_empty(), "the oldest went");
        // An empty one has no more for it, in number or bytes.
        let mut room = WaitingRoom::default();
        refused.iter().for_each(|statement| room.refuse(statement.clone()));
        assert_eq!((room.len(), room.refused.len()), (MAX_WAITING / 2, MAX_WAITING / 2));
        for number in 0..MAX_WAITING {
            room.refuse(waiter(&world, &[number, 7], 8));
            assert!(room.bytes() <= MAX_WAITING_BYTES / 2 && room.refused_bytes == room.bytes());
        }
        let last = waiter(&world, &[MAX_WAITING - 1, 7], 8);
        room.forget_refused(&last.id());
        assert!(room.copies(&last.id()).is_empty() && room.len() == room.refused.len());
    }
}
