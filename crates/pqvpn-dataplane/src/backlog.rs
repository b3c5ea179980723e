// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits in a socket because we are slower than those who send, and when to tell them.
//!
//! A sender that meets no loss fills whatever buffers there are, and everybody's packets wait behind its own. The kernel's
//! buffer has to be large for bursts; a queue that stands in it for a while is kept short by giving packets up.

use std::time::{Duration, Instant};

use crate::{
    codel::{Codel, INTERVAL, TARGET},
    udp::{RecvBatch, Socket, sys::waiting_bytes},
};

/// How often the kernel is asked while there is always something.
const ASK_EVERY: Duration = Duration::from_millis(1);

/// What a message of some length takes more of the kernel's memory, about.
const OVERHEAD: usize = 1024;

/// What waits longer than this although senders have been told for an [`INTERVAL`] comes from who does not listen.
const DEAF: Duration = TARGET.saturating_mul(20);
/// How much longer it waits where next to all of it is given up.
const WORST: Duration = DEAF.saturating_mul(2);
/// Parts of what those send who send the most that are given up, of this many; never all.
const PARTS: u32 = 64;

/// What is to be given up of a batch, by those who send the most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Excess {
    /// One packet, by which senders that listen hear of it.
    pub(crate) one: bool,
    /// So many of [`PARTS`] messages, unopened.
    share: u32,
}

impl Excess {
    #[cfg(test)]
    pub(crate) const fn for_tests(one: bool, share: u32) -> Self {
        Self { one, share }
    }

    pub(crate) const fn is_none(self) -> bool {
        !self.one && self.share == 0
    }
}

/// The backlog of one socket.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    codel: Codel,
    deaf: Deaf,
    /// When it was looked at last, and the bytes taken since.
    since: Option<(Instant, usize)>,
}

impl Backlog {
    /// What is to be given up, after `batch` was received from `socket`.
    pub(crate) fn excess(&mut self, socket: &Socket, batch: &RecvBatch, now: Instant) -> Excess {
        let mean = batch.bytes() / batch.len().max(1);
        let payload = |waiting: usize| waiting.saturating_mul(mean) / (mean + OVERHEAD);
        self.look(batch.is_last(), batch.bytes(), now, || waiting_bytes(socket.fd()).map(payload))
    }

    /// Whether the next message of those who send the most is one that is given up.
    pub(crate) const fn gives_up(&mut self, excess: Excess) -> bool {
        self.deaf.gives_up(excess.share)
    }

    fn look(&mut self, is_empty: bool, taken: usize, now: Instant, waiting: impl FnOnce() -> Option<usize>) -> Excess {
        let (one, share) = match self.sojourn(is_empty, taken, now, waiting) {
            Some(sojourn) => (self.codel.is_due(sojourn, now), self.deaf.look(sojourn, now)),
            None => (false, self.deaf.share),
        };
        Excess { one, share }
    }

    /// How long what waits now will have waited when it is taken; `None` before there is something new to say.
    fn sojourn(
        &mut self,
        is_empty: bool,
        taken: usize,
        now: Instant,
        waiting: impl FnOnce() -> Option<usize>,
    ) -> Option<Duration> {
        if is_empty {
            self.since = None;
            return Some(Duration::ZERO);
        }
        let (since, bytes) = self.since.get_or_insert((now, 0));
        *bytes += taken;
        let time = now.saturating_duration_since(*since);
        if time < ASK_EVERY {
            return None;
        }
        if time > INTERVAL {
            // Nobody came meanwhile, or not this thread: nothing is known of the time between.
            self.since = None;
            return Some(Duration::ZERO);
        }
        let bytes = std::mem::take(bytes).max(1);
        *since = now;
        // As long as it takes to take that much.
        waiting().map(|waiting| time.mul_f64(waiting as f64 / bytes as f64))
    }
}

/// How much is given up of what comes from those who do not slow down when they lose packets: the more the longer what is left
/// waits (as RED has it, Floyd and Jacobson 1993, for the queue of now), so that it settles where as much comes as goes.
#[derive(Debug, Default)]
struct Deaf {
    share: u32,
    /// When what waits will have been too much for an interval.
    ripe: Option<Instant>,
    /// Parts of a message that are still to be given up.
    debt: u32,
}

impl Deaf {
    fn look(&mut self, sojourn: Duration, now: Instant) -> u32 {
        let excess = sojourn.saturating_sub(DEAF);
        if excess.is_zero() {
            (self.ripe, self.share) = (None, 0);
        } else if now >= *self.ripe.get_or_insert(now + INTERVAL) {
            self.share = (excess.div_duration_f64(WORST) * f64::from(PARTS)).min(f64::from(PARTS - 1)) as u32;
        }
        self.share
    }

    const fn gives_up(&mut self, share: u32) -> bool {
        self.debt += share;
        let is_due = self.debt >= PARTS;
        if is_due {
            self.debt -= PARTS;
        }
        is_due
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
        (0..millis * 10).map(step).filter(|excess| excess.one).count()
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
            assert!(backlog.look(true, 100, now, || panic!("nobody has to be asked")).is_none());
        }
    }

    #[test]
    fn who_does_not_listen_loses_more_the_longer_what_is_left_waits() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        let mut share = |waiting: usize, millis: u32| {
            run(&mut backlog, &mut now, 10_000, Some(waiting), millis);
            backlog.deaf.share
        };
        // 100 kB go in a millisecond, so that 1.1 MB wait for 11.
        assert_eq!(share(900_000, 1000), 0, "what CoDel deals with alone");
        assert_eq!(share(2_000_000, 19), 0, "a burst");
        assert_eq!(share(2_000_000, 10), PARTS / 2);
        assert_eq!(share(1_500_000, 2), PARTS / 4);
        assert_eq!(share(9_000_000, 2), PARTS - 1, "never all");
        assert_eq!(share(900_000, 2), 0);
        assert_eq!(share(2_000_000, 19), 0, "anew");
    }

    #[test]
    fn a_share_of_the_messages_is_given_up() {
        let mut deaf = Deaf::default();
        for (share, given_up) in [(0, 0), (1, 10), (32, 320), (PARTS - 1, 630)] {
            deaf.debt = 0;
            assert_eq!((0..640).filter(|_| deaf.gives_up(share)).count(), given_up);
        }
    }
}
