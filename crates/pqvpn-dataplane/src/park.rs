// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bounded queue of packets that wait for a peer's session.

use std::{
    collections::VecDeque,
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
/// How long a packet waits. Whoever sent it has sent it again by then, or no longer waits for an answer.
pub(crate) const PARKED_FOR: Duration = Duration::from_secs(10);

/// Packets of one peer, virtio header included, in the order they were read.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    /// Lets the packet path see "nothing parked" without the lock.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
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

impl Parked {
    /// Packets waiting.
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Appends a copy of a packet; the oldest make room for it.
    pub(crate) fn park(&self, packet: &[u8], now: Instant) -> Lost {
        let mut queue = lock(&self.queue);
        let mut lost = Lost { expired: queue.expire(now), overflow: 0 };
        if packet.len() > PARKED_BYTES {
            lost.overflow = 1;
        } else {
            while queue.packets.len() >= PARKED_PACKETS || queue.bytes + packet.len() > PARKED_BYTES {
                queue.pop();
                lost.overflow += 1;
            }
            queue.bytes += packet.len();
            queue.packets.push_back((now, packet.into()));
        }
        self.waiting.store(queue.packets.len(), Ordering::Release);
        lost
    }

    /// Hands every waiting packet to `each`, oldest first. Nobody else takes or parks meanwhile, so order is kept. Gives how
    /// many had waited for too long.
    #[must_use = "what expired is counted"]
    pub(crate) fn drain(&self, now: Instant, mut each: impl FnMut(&[u8])) -> u64 {
        let mut queue = lock(&self.queue);
        let expired = queue.expire(now);
        while let Some((_, packet)) = queue.pop() {
            each(&packet);
        }
        *queue = Queue::default();
        self.waiting.store(0, Ordering::Release);
        expired
    }
}
