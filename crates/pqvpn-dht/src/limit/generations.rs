// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bounded map that forgets what was longest unused, in two generations: no list to keep in order, no memory until used.

use std::{collections::HashMap, hash::Hash, mem};

/// At most `capacity` entries, of which the half used last is certain to be there. Never iterated, so hashing may be random.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    forgotten: u64,
}

impl<K: Hash + Eq + Copy, V> Generations<K, V> {
    /// `capacity` is at least 2.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { half: (capacity / 2).max(1), young: HashMap::new(), old: HashMap::new(), forgotten: 0 }
    }

    /// The entry, without counting as a use.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The entry, made if it is not there. Counts as a use.
    pub(crate) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let kept = if self.young.contains_key(&key) {
            None
        } else {
            let kept = self.old.remove(&key);
            if self.young.len() >= self.half {
                let gone = mem::replace(&mut self.old, mem::take(&mut self.young));
                self.forgotten += gone.len() as u64;
            }
            kept
        };
        let place = self.young.entry(key);
        match kept {
            Some(value) => place.or_insert(value),
            None => place.or_insert_with(make),
        }
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.young.remove(key).or_else(|| self.old.remove(key))
    }

    /// Entries forgotten since the last call.
    pub(crate) const fn take_forgotten(&mut self) -> u64 {
        mem::replace(&mut self.forgotten, 0)
    }

    /// Entries there are.
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
