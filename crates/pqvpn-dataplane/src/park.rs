// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bounded queue of packets that wait for a peer's session.

use std::collections::VecDeque;

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

/// Packets of one peer, virtio header included, in the order they were read.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    /// Lets the packet path see "nothing parked" without the lock.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    packets: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Parked {
    /// Packets waiting.
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Appends a copy of a packet; `false` when it does not fit.
    pub(crate) fn park(&self, packet: &[u8]) -> bool {
        let mut queue = lock(&self.queue);
        if queue.packets.len() >= PARKED_PACKETS || queue.bytes + packet.len() > PARKED_BYTES {
            return false;
        }
        queue.bytes += packet.len();
        queue.packets.push_back(packet.into());
        self.waiting.store(queue.packets.len(), Ordering::Release);
        true
    }

    /// Hands every waiting packet to `each`, oldest first. Nobody else takes or parks meanwhile, so order is kept.
    pub(crate) fn drain(&self, mut each: impl FnMut(&[u8])) {
        let mut queue = lock(&self.queue);
        while let Some(packet) = queue.packets.pop_front() {
            each(&packet);
        }
        *queue = Queue::default();
        self.waiting.store(0, Ordering::Release);
    }
}
