// SPDX-License-Identifier: MIT OR Apache-2.0
//! The queue of things to happen: earliest first, and first come first served within one instant.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

/// A queue of events by virtual time. The heap holds 24 bytes an event; the events themselves lie still in a slab.
#[derive(Debug)]
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    slab: Vec<Option<T>>,
    free: Vec<u32>,
    pushed: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), slab: Vec::new(), free: Vec::new(), pushed: 0 }
    }
}

impl<T> Queue<T> {
    /// Adds an event. Resolution is 1 ns; times beyond 584 years saturate.
    pub fn push(&mut self, at: Duration, event: T) {
        let slot = if let Some(slot) = self.free.pop() {
            self.slab[slot as usize] = Some(event);
            slot
        } else {
            self.slab.push(Some(event));
            u32::try_from(self.slab.len() - 1).expect("fewer than 2^32 events wait at once")
        };
        self.pushed += 1;
        self.heap.push(Reverse((u64::try_from(at.as_nanos()).unwrap_or(u64::MAX), self.pushed, slot)));
    }

    /// When the next event is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, ..))| Duration::from_nanos(*at))
    }

    /// Takes the next event.
    pub fn pop(&mut self) -> Option<(Duration, T)> {
        let Reverse((at, _, slot)) = self.heap.pop()?;
        let event = self.slab[slot as usize].take();
        self.free.push(slot);
        event.map(|event| (Duration::from_nanos(at), event))
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_then_of_arrival() {
        let mut queue = Queue::default();
        let at = Duration::from_millis;
        for (time, name) in [(5, "c"), (1, "a"), (5, "d"), (3, "b"), (5, "e")] {
            queue.push(at(time), name);
        }
        assert_eq!(queue.next_at(), Some(at(1)));
        assert_eq!(queue.pop(), Some((at(1), "a")));
        queue.push(at(2), "late");
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(rest, ["late", "b", "c", "d", "e"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn slots_are_reused() {
        let mut queue = Queue::default();
        for round in 0..1000_u64 {
            queue.push(Duration::from_nanos(round), round);
            assert_eq!(queue.pop().map(|(_, event)| event), Some(round));
        }
        assert_eq!(queue.slab.len(), 1);
    }
}
