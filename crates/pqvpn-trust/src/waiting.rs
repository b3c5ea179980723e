// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statements that came before their parents.

use std::collections::{BTreeMap, BTreeSet};

use pqvpn_wire::network::{Statement, StatementId};
use sha2::{Digest, Sha256};

use crate::{MAX_WAITING, MAX_WAITING_BYTES};

/// Copies of one statement with different signatures wait side by side: none is verified yet, so a wrong signature
/// must not push out a right one.
type Key = (StatementId, [u8; 32]);

/// A statement, and what it waits for.
#[derive(Debug)]
struct Waiter {
    statement: Statement,
    /// Encoded size in bytes.
    len: usize,
    arrival: u64,
    /// Never empty.
    missing: BTreeSet<StatementId>,
}

/// A room bounded in number and bytes; the oldest goes first.
///
/// What went is not lost: it is still among what others hold and this node lacks, and is asked for again.
#[derive(Debug, Default)]
pub(crate) struct WaitingRoom {
    waiters: BTreeMap<Key, Waiter>,
    by_arrival: BTreeMap<u64, Key>,
    /// (missing parent, who waits for it): whoever comes in looks at nobody else.
    by_parent: BTreeSet<(StatementId, Key)>,
    arrivals: u64,
    bytes: usize,
}

impl WaitingRoom {
    /// Lets a statement wait for parents; says how many others had to go.
    pub(crate) fn enter(&mut self, statement: Statement, missing: BTreeSet<StatementId>) -> u64 {
        let encoded = statement.encode();
        let key = (statement.id(), Sha256::digest(&encoded).into());
        if missing.is_empty() || self.waiters.contains_key(&key) {
            return 0;
        }
        let len = encoded.len();
        let evicted = self.make_room(len);
        self.arrivals += 1;
        self.by_arrival.insert(self.arrivals, key);
        self.by_parent.extend(missing.iter().map(|parent| (*parent, key)));
        self.bytes += len;
        self.waiters.insert(key, Waiter { statement, len, arrival: self.arrivals, missing });
        evicted
    }

    /// Takes out those that waited for this statement and for nothing else.
    pub(crate) fn take_ready(&mut self, arrived: &StatementId) -> Vec<Statement> {
        let (first, last) =
            ((StatementId::from_bytes([0; 32]), [0; 32]), (StatementId::from_bytes([255; 32]), [255; 32]));
        let waiting = self.by_parent.range((*arrived, first)..=(*arrived, last));
        let waiting: Vec<Key> = waiting.map(|(_, key)| *key).collect();
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

    fn make_room(&mut self, len: usize) -> u64 {
        let mut evicted = 0;
        while self.waiters.len() >= MAX_WAITING || self.bytes.saturating_add(len) > MAX_WAITING_BYTES {
            let Some((_, oldest)) = self.by_arrival.first_key_value() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
            evicted += 1;
        }
        evicted
    }

    fn has_come(&mut self, arrived: &StatementId, key: &Key) -> Option<Statement> {
        self.by_parent.remove(&(*arrived, *key));
        let waiter = self.waiters.get_mut(key)?;
        waiter.missing.remove(arrived);
        if waiter.missing.is_empty() { self.remove(key) } else { None }
    }

    fn remove(&mut self, key: &Key) -> Option<Statement> {
        let waiter = self.waiters.remove(key)?;
        self.by_arrival.remove(&waiter.arrival);
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
}
