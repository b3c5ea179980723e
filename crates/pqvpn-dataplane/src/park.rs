// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bounded queue of packets that wait for a peer's session.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    table::lock,
};

/// Most packets (super-packets count once) that wait for one peer.
pub(crate) const PARKED_PACKETS: usize = 64;
/// Most bytes that wait for one peer.
pub(crate) const PARKED_BYTES: usize = 256 * 1024;
/// Most bytes that wait for all peers.
pub(crate) const PARKED_IN_ALL: usize = 16 * 1024 * 1024;
/// How long a packet waits. Whoever sent it has sent it again by then, or no longer waits for an answer.
pub(crate) const PARKED_FOR: Duration = Duration::from_secs(10);

/// Packets of one peer, virtio header included, in the order they were read.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    /// Lets the packet path see "nothing parked" without the lock.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    /// Bytes that wait for all peers.
    in_all: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<(Instant, Box<[u8]>)>,
    bytes: usize,
}

/// How many packets will never be sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost {
    /// They made room for newer ones, or were too long.
    pub(crate) overflow: u64,
    /// They had waited for too long.
    pub(crate) expired: u64,
}

impl Queue {
    fn pop(&mut self) -> Option<(Instant, Box<[u8]>)> {
        let (since, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some((since, packet))
    }

    fn expire(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        while self.packets.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= PARKED_FOR) {
            self.pop();
            expired += 1;
        }
        expired
    }
}

impl Drop for Parked {
    /// A packet thread may park for a peer that has just been removed.
    fn drop(&mut self) {
        self.in_all.fetch_sub(lock(&self.queue).bytes, Ordering::Relaxed);
    }
}

impl Parked {
    /// An empty queue, one of those whose bytes are counted there.
    pub(crate) fn counted_in(in_all: Arc<AtomicUsize>) -> Self {
        Self { waiting: AtomicUsize::default(), queue: Mutex::default(), in_all }
    }

    /// Packets waiting.
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Appends a copy of a packet; the oldest make room for it.
    pub(crate) fn park(&self, packet: &[u8], now: Instant) -> Lost {
        let mut queue = lock(&self.queue);
        let before = queue.bytes;
        let mut lost = Lost { expired: queue.expire(now), overflow: 0 };
        // Of others as of now; two threads at once may go beyond by a packet.
        let others = self.in_all.load(Ordering::Relaxed).saturating_sub(before);
        let most = PARKED_BYTES.min(PARKED_IN_ALL.saturating_sub(others));
        if packet.len() > most {
            lost.overflow = 1;
        } else {
            while queue.packets.len() >= PARKED_PACKETS || queue.bytes + packet.len() > most {
                queue.pop();
                lost.overflow += 1;
            }
            queue.bytes += packet.len();
            queue.packets.push_back((now, packet.into()));
        }
        self.count(&queue, before);
        lost
    }

    /// Gives up what has waited for too long; gives how many.
    #[must_use = "what expired is counted"]
    pub(crate) fn expire(&self, now: Instant) -> u64 {
        let mut queue = lock(&self.queue);
        let before = queue.bytes;
        let expired = queue.expire(now);
        self.count(&queue, before);
        expired
    }

    /// Tells what changed in the queue.
    fn count(&self, queue: &Queue, before: usize) {
        self.in_all.fetch_add(queue.bytes, Ordering::Relaxed);
        self.in_all.fetch_sub(before, Ordering::Relaxed);
        self.waiting.store(queue.packets.len(), Ordering::Release);
    }

    /// Hands every waiting packet to `each`, oldest first. Nobody else takes or parks meanwhile, so order is kept. Gives how
    /// many had waited for too long.
    #[must_use = "what expired is counted"]
    pub(crate) fn drain(&self, now: Instant, mut each: impl FnMut(&[u8])) -> u64 {
        let mut queue = lock(&self.queue);
        let before = queue.bytes;
        let expired = queue.expire(now);
        while let Some((_, packet)) = queue.pop() {
            each(&packet);
        }
        *queue = Queue::default();
        self.count(&queue, before);
        expired
    }
}
