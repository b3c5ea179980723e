// SPDX-License-Identifier: MIT OR Apache-2.0
//! A map whose entries have deadlines, and that knows which of them were touched: of a thousand peers one has something to
//! do at a time, and the others are not asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// The map. Whoever borrows an entry to change it touches it; its deadline has to be set again then.
#[derive(Debug)]
pub(crate) struct Timed<K, V> {
    all: BTreeMap<K, Entry<V>>,
    touched: BTreeSet<K>,
    queue: BTreeSet<(Instant, K)>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    due: Option<Instant>,
}

impl<K, V> Default for Timed<K, V> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), touched: BTreeSet::new(), queue: BTreeSet::new() }
    }
}

impl<K: Copy + Ord, V> Timed<K, V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.all.get(key).map(|entry| &entry.value)
    }

    /// Borrows an entry to change it.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.all.get_mut(key)?;
        self.touched.insert(*key);
        Some(&mut entry.value)
    }

    /// Borrows an entry without touching it: to take what it has ready.
    pub(crate) fn peek_mut(&mut self, key: &K) -> Option<&mut V> {
        self.all.get_mut(key).map(|entry| &mut entry.value)
    }

    pub(crate) fn keys(&self) -> Vec<K> {
        self.all.keys().copied().collect()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.all.values().map(|entry| &entry.value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.all.iter().map(|(key, entry)| (*key, &entry.value))
    }

    /// Borrows every entry to change it.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.touched.extend(self.all.keys());
        self.peek_all()
    }

    /// Borrows every entry without touching any.
    pub(crate) fn peek_all(&mut self) -> impl Iterator<Item = &mut V> {
        self.all.values_mut().map(|entry| &mut entry.value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        self.all.insert(key, Entry { value, due: None });
        self.touched.insert(key);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.touched.remove(key);
        let Entry { value, due } = self.all.remove(key)?;
        if let Some(at) = due {
            self.queue.remove(&(at, *key));
        }
        Some(value)
    }

    /// Those that were touched since this was last asked.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.touched)
    }

    /// Sets when an entry has something to do.
    pub(crate) fn set_due(&mut self, key: K, at: Option<Instant>) {
        let Some(entry) = self.all.get_mut(&key) else { return };
        if entry.due == at {
            return;
        }
        if let Some(before) = entry.due.take() {
            self.queue.remove(&(before, key));
        }
        entry.due = at;
        self.queue.extend(at.map(|at| (at, key)));
    }

    /// When the first has.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Those that have something to do by now; each of them is touched, so that it gets another deadline.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<K> {
        let due: Vec<K> = self.queue.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key).collect();
        self.touched.extend(&due);
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn three() -> (Instant, Timed<u8, char>) {
        let mut timed = Timed::default();
        for (key, value) in [(1, 'a'), (2, 'b'), (3, 'c')] {
            timed.insert(key, value);
        }
        (Instant::now(), timed)
    }

    #[test]
    fn who_is_changed_is_touched_and_who_is_looked_at_is_not() {
        let (_, mut timed) = three();
        assert_eq!(timed.take_touched().into_iter().collect::<Vec<_>>(), [1, 2, 3], "new");
        *timed.get_mut(&2).unwrap() = 'x';
        *timed.peek_mut(&1).unwrap() = 'y';
        assert!(timed.get_mut(&9).is_none());
        assert_eq!((timed.get(&1), timed.values().collect::<String>().as_str()), (Some(&'y'), "yxc"));
        assert_eq!(timed.take_touched().into_iter().collect::<Vec<_>>(), [2]);
        assert!(timed.take_touched().is_empty());
        assert_eq!(timed.values_mut().count(), 3);
        assert_eq!(timed.take_touched().len(), 3);
    }

    #[test]
    fn deadlines_come_in_order_move_and_go_with_their_entries() {
        let (now, mut timed) = three();
        let _new = timed.take_touched();
        for (key, after) in [(1, 3), (2, 1), (3, 2)] {
            timed.set_due(key, Some(now + S * after));
        }
        assert_eq!(timed.next_due(), Some(now + S));
        assert_eq!(timed.take_due(now), [] as [u8; 0]);
        timed.set_due(2, Some(now + S * 9));
        assert_eq!(timed.take_due(now + S * 3), [3, 1]);
        assert_eq!(timed.take_touched().into_iter().collect::<Vec<_>>(), [1, 3], "they get another one");
        timed.set_due(3, None);
        assert_eq!(timed.remove(&1), Some('a'));
        assert_eq!(timed.next_due(), Some(now + S * 9));
        timed.insert(2, 'z');
        assert_eq!(timed.next_due(), None, "the deadline was that of the one before");
    }
}
