// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bounded queue of datagrams that carriers received, on their way to an inbound thread.

use std::ops::Range;

use crate::{sync::Mutex, table::lock, way::WayId};

/// Bytes that wait for one inbound thread: some tens of milliseconds of what a carrier brings.
pub(crate) const INJECT_BYTES: usize = 2 << 20;
/// Datagrams that wait for one inbound thread.
pub(crate) const INJECT_DATAGRAMS: usize = 4096;

/// Datagrams back to back, and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Injected {
    pub(crate) bytes: Vec<u8>,
    pub(crate) datagrams: Vec<(WayId, Range<usize>)>,
}

impl Injected {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.datagrams.clear();
    }

    /// Appends a copy of a datagram; `false` when there is no room.
    fn push(&mut self, way: WayId, datagram: &[u8]) -> bool {
        let start = self.bytes.len();
        if self.datagrams.len() >= INJECT_DATAGRAMS || start + datagram.len() > INJECT_BYTES {
            return false;
        }
        self.bytes.extend_from_slice(datagram);
        self.datagrams.push((way, start..self.bytes.len()));
        true
    }
}

/// What the control side fills and one inbound thread empties.
#[derive(Debug, Default)]
pub(crate) struct InjectQueue(Mutex<Injected>);

impl InjectQueue {
    /// Appends copies of datagrams; gives how many there was room for.
    pub(crate) fn push(&self, way: WayId, datagrams: &[&[u8]]) -> usize {
        let mut queue = lock(&self.0);
        datagrams.iter().filter(|datagram| queue.push(way, datagram)).count()
    }

    /// Takes everything, in exchange for an empty buffer.
    pub(crate) fn take(&self, into: &mut Injected) {
        into.clear();
        std::mem::swap(&mut *lock(&self.0), into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_out_in_order_with_their_way() {
        let queue = InjectQueue::default();
        assert_eq!(queue.push(WayId(1), &[b"one", b""]), 2);
        assert_eq!(queue.push(WayId(2), &[b"three"]), 1);
        let mut taken = Injected::default();
        queue.take(&mut taken);
        assert_eq!(taken.datagrams, [(WayId(1), 0..3), (WayId(1), 3..3), (WayId(2), 3..8)]);
        assert_eq!(taken.bytes, b"onethree");
        queue.take(&mut taken);
        assert!(taken.datagrams.is_empty() && taken.bytes.is_empty());
    }

    #[test]
    fn the_queue_is_bounded_in_datagrams_and_bytes() {
        let queue = InjectQueue::default();
        assert_eq!(queue.push(WayId(1), &vec![&b"x"[..]; INJECT_DATAGRAMS + 9]), INJECT_DATAGRAMS);
        queue.take(&mut Injected::default());
        let large = vec![0; 60_000];
        assert_eq!(queue.push(WayId(1), &vec![&large[..]; 100]), INJECT_BYTES / large.len());
    }
}
