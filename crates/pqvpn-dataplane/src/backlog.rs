// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits in a socket because we are slower than those who send, and when to tell them.
//!
//! A sender that meets no loss fills whatever buffers there are, and everybody's packets wait behind its own. The kernel's
//! buffer has to be large for bursts; a queue that stands in it for a while is kept short by giving packets up.

use std::time::{Duration, Instant};

use crate::{
    codel::{Codel, INTERVAL},
    udp::{RecvBatch, Socket, sys::waiting_bytes},
};

/// How often the kernel is asked while there is always something.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// What a message of some length takes more of the kernel's memory, about.
const OVERHEAD: usize = 1024;

/// The backlog of one socket.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    codel: Codel,
    /// When it was looked at last, and the bytes taken since.
    since: Option<(Instant, usize)>,
}

impl Backlog {
    /// Whether a packet is to be given up, after `batch` was received from `socket`.
    pub(crate) fn is_too_long(&mut self, socket: &Socket, batch: &RecvBatch, now: Instant) -> bool {
        let mean = batch.bytes() / batch.len().max(1);
        let payload = |waiting: usize| waiting.saturating_mul(mean) / (mean + OVERHEAD);
        self.look(batch.is_last(), batch.bytes(), now, || waiting_bytes(socket.fd()).map(payload))
    }

    fn look(&mut self, is_empty: bool, taken: usize, now: Instant, waiting: impl FnOnce() -> Option<usize>) -> bool {
        if is_empty {
            self.since = None;
            return self.codel.is_due(Duration::ZERO, now);
        }
        let (since, bytes) = self.since.get_or_insert((now, 0));
        *bytes += taken;
        let time = now.saturating_duration_since(*since);
        if time < ASK_EVERY {
            return false;
        }
        if time > INTERVAL {
            // Nobody came meanwhile, or not this thread: nothing is known of the time between.
            self.since = None;
            return self.codel.is_due(Duration::ZERO, now);
        }
        let bytes = std::mem::take(bytes).max(1);
        *since = now;
        // What waits now will have waited for as long as it takes to take that much.
        let sojourn = waiting().map(|waiting| time.mul_f64(waiting as f64 / bytes as f64));
        sojourn.is_some_and(|sojourn| self.codel.is_due(sojourn, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `taken` bytes each 100 us for `millis`, while `waiting` bytes wait; gives the packets given up.
    fn run(backlog: &mut Backlog, now: &mut Instant, taken: usize, waiting: Option<usize>, millis: u32) -> usize {
        let step = |_| {
            *now += Duration::from_micros(100);
            backlog.look(false, taken, *now, || waiting)
        };
        (0..millis * 10).map(step).filter(|&due| due).count()
    }

    #[test]
    fn what_waits_is_judged_by_how_fast_it_is_taken() {
        let mut now = Instant::now();
        // 10 kB each 100 us are 100 kB in a millisecond.
        assert_eq!(run(&mut Backlog::default(), &mut now, 10_000, Some(45_000), 1000), 0);
        assert!(run(&mut Backlog::default(), &mut now, 10_000, Some(55_000), 1000) > 10);
        assert_eq!(run(&mut Backlog::default(), &mut now, 20_000, Some(55_000), 1000), 0);
        assert_eq!(run(&mut Backlog::default(), &mut now, 10_000, None, 1000), 0, "a kernel that does not tell");
    }

    #[test]
    fn a_pause_says_nothing() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(run(&mut backlog, &mut now, 10_000, Some(1 << 20), 18), 0);
            now += Duration::from_secs(5);
        }
    }

    #[test]
    fn a_socket_that_was_emptied_begins_anew() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        for _ in 0..100 {
            assert_eq!(run(&mut backlog, &mut now, 10_000, Some(1 << 20), 18), 0);
            assert!(!backlog.look(true, 100, now, || panic!("nobody has to be asked")));
        }
    }
}
