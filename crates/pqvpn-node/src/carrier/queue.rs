// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits for a carrier: few bytes for a short time. A stream that stalls must not deliver old datagrams afterwards.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pqvpn_dataplane::way::CarrierSink;
use pqvpn_wire::carrier as frame;
use tokio::sync::Notify;

use crate::clock;

/// Bytes that wait at most.
const MAX_BYTES: usize = 256 * 1024;
/// A datagram that waited longer is dropped.
const MAX_AGE: Duration = Duration::from_millis(200);
/// Bytes that leave as one message, about: what a TLS record holds, so that a slow stream holds back little.
const BATCH: usize = 16 * 1024;

/// Datagrams in the form they leave in.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    /// How much of `bytes` has left.
    head: usize,
    /// When each came, and its length with its prefix.
    datagrams: VecDeque<(Instant, usize)>,
    /// Dropped because they waited too long.
    pub(super) stale: u64,
}

impl Queue {
    /// Appends a copy of a datagram; `false` when there is no room, or it is longer than any datagram.
    pub(super) fn push(&mut self, now: Instant, datagram: &[u8]) -> bool {
        let before = self.bytes.len();
        if before - self.head + frame::PREFIX + datagram.len() > MAX_BYTES {
            return false;
        }
        if !frame::append(&mut self.bytes, datagram) {
            return false;
        }
        self.datagrams.push_back((now, self.bytes.len() - before));
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// The next message: the oldest datagrams that are not too old; `None` when nothing waits.
    pub(super) fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        while let Some((came, len)) = self.datagrams.front().copied() {
            if now.saturating_duration_since(came) <= MAX_AGE {
                break;
            }
            self.datagrams.pop_front();
            self.head += len;
            self.stale += 1;
        }
        let start = self.head;
        while let Some((_, len)) = self.datagrams.front() {
            if self.head > start && self.head - start + len > BATCH {
                break;
            }
            self.head += len;
            self.datagrams.pop_front();
        }
        let message = self.bytes.get(start..self.head).filter(|message| !message.is_empty()).map(<[u8]>::to_vec);
        if self.datagrams.is_empty() {
            self.bytes.clear();
            self.head = 0;
        } else if self.head > MAX_BYTES {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        message
    }
}

/// The data plane's end of a carrier: packet threads fill it, the carrier's task empties it.
#[derive(Debug, Default)]
pub(super) struct Sink {
    queue: Mutex<Queue>,
    filled: Notify,
    /// Datagrams there was no room for.
    full: AtomicU64,
    /// Messages taken.
    taken: AtomicU64,
}

impl Sink {
    /// The next message, when there is one. Cancel-safe.
    pub(super) async fn next(&self) -> Vec<u8> {
        loop {
            let taken = self.lock().take(clock::now());
            match taken {
                Some(message) => {
                    self.taken.fetch_add(1, Ordering::Relaxed);
                    return message;
                }
                None => self.filled.notified().await,
            }
        }
    }

    /// How many messages were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Until something waits. Cancel-safe.
    pub(super) async fn filled(&self) {
        while self.lock().is_empty() {
            self.filled.notified().await;
        }
    }

    /// Datagrams dropped because they waited too long, or found no room.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().stale + self.full.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CarrierSink for Sink {
    fn send(&self, datagram: &[u8]) -> bool {
        let now = clock::now();
        let mut queue = self.lock();
        let was_empty = queue.is_empty();
        let taken = queue.push(now, datagram);
        drop(queue);
        if !taken {
            self.full.fetch_add(1, Ordering::Relaxed);
        } else if was_empty {
            self.filled.notify_one();
        }
        taken
    }

    fn max_datagram(&self) -> Option<usize> {
        Some(frame::MAX_DATAGRAM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = b"the first of the datagrams";
    const TWO: &[u8] = b"the second of the datagrams";
    const OLD: &[u8] = b"a datagram that is old";
    const NEW: &[u8] = b"a datagram that is new";
    const ALL: &[u8] = b"all that is to be sent";
    const SHORT: &[u8] = b"a datagram that is short";
    const HELLO: &[u8] = b"hello to whoever reads it";

    fn taken(queue: &mut Queue, now: Instant) -> Vec<Vec<u8>> {
        queue
            .take(now)
            .map(|message| frame::parse(&message).unwrap().into_iter().map(<[u8]>::to_vec).collect())
            .unwrap_or_default()
    }

    #[test]
    fn datagrams_leave_in_order_and_together() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert!(queue.push(now, ONE) && queue.push(now, TWO));
        assert_eq!(taken(&mut queue, now), [ONE, TWO]);
        assert!(queue.is_empty() && queue.take(now).is_none());
    }

    #[test]
    fn what_waited_too_long_is_dropped_and_counted() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(now, OLD);
        queue.push(now + MAX_AGE, NEW);
        assert_eq!(taken(&mut queue, now + MAX_AGE + Duration::from_millis(1)), [NEW]);
        assert_eq!(queue.stale, 1);
        queue.push(now, ALL);
        assert!(queue.take(now + MAX_AGE * 2).is_none());
        assert_eq!((queue.stale, queue.is_empty()), (2, true));
    }

    #[test]
    fn the_queue_is_bounded_however_long_it_runs() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let datagram = [7; 1400];
        let room = MAX_BYTES / (datagram.len() + frame::PREFIX);
        assert_eq!((0..room + 50).filter(|_| queue.push(now, &datagram)).count(), room);
        for _ in 0..2000 {
            let message = queue.take(now).unwrap();
            assert!(message.len() <= BATCH);
            while queue.push(now, &datagram) {}
            assert!(queue.bytes.len() <= 2 * MAX_BYTES + BATCH, "{}", queue.bytes.len());
        }
    }

    #[test]
    fn a_long_datagram_leaves_alone() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(now, &[1; 60_000]);
        queue.push(now, SHORT);
        assert_eq!(taken(&mut queue, now), [vec![1; 60_000]]);
        assert_eq!(taken(&mut queue, now), [SHORT]);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let sink = std::sync::Arc::new(Sink::default());
        let waiting = tokio::spawn({
            let sink = std::sync::Arc::clone(&sink);
            async move { sink.next().await }
        });
        tokio::task::yield_now().await;
        assert!(sink.send(HELLO));
        assert_eq!(frame::parse(&waiting.await.unwrap()).unwrap(), [HELLO]);
        while sink.send(&[0; 1000]) {}
        assert_eq!(sink.dropped(), 1);
    }
}
