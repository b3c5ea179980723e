// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a thread lets packets gather before it looks for them again, as network cards do (interrupt moderation).
//!
//! Where many packets come one by one, whoever sleeps until the next is woken for a few of them each time, and so is the
//! peer that receives them. A pause that nobody notices makes a batch of them, at both ends.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

/// A pause; the system makes up to 50 us more of it.
const PAUSE: Duration = Duration::from_micros(200);
/// How often it is judged whether pauses are worth while.
const JUDGED_EVERY: Duration = Duration::from_millis(5);
/// Packets in a millisecond from which they are (240 Mbit/s of 1500 bytes).
const CROWD: usize = 20;
/// Lengths of those that count. Shorter ones are acknowledgements above all, for which a sender may wait; longer ones are
/// super-packets, each a batch by itself.
pub(crate) const LONE: Range<usize> = 256..2048;

/// What came lately, one by one.
pub(crate) struct Moderation {
    since: Instant,
    lone: usize,
    is_crowded: bool,
}

impl Moderation {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, lone: 0, is_crowded: false }
    }

    /// Notes packets of such a length.
    pub(crate) fn note(&mut self, packets: usize) {
        self.lone += packets;
    }

    /// How long to let packets gather, after the last that was there.
    pub(crate) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let time = now.saturating_duration_since(self.since);
        if time >= JUDGED_EVERY {
            self.is_crowded = self.lone as u128 * 1000 > CROWD as u128 * time.as_micros();
            (self.since, self.lone) = (now, 0);
        }
        self.is_crowded.then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tun::ReadBatch;

    #[test]
    fn many_single_packets_gather_and_few_do_not() {
        let pauses = |packets| {
            let now = Instant::now();
            let mut moderation = Moderation::new(now);
            moderation.note(packets);
            moderation.pause(now + Duration::from_millis(10)).is_some()
        };
        assert!(pauses(201) && !pauses(200));
    }

    #[test]
    fn neither_super_packets_nor_acknowledgements_count() {
        let mut batch = ReadBatch::new();
        for len in [62, 1210, 64_000, 62, 1210] {
            assert!(batch.space().is_some());
            batch.commit(len);
        }
        assert_eq!(batch.count_of(LONE), 2);
    }

    #[test]
    fn pauses_go_on_until_judged_and_end_with_the_crowd() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut moderation = Moderation::new(start);
        moderation.note(500);
        assert!(moderation.pause(at(4)).is_none(), "too early to say");
        assert!(moderation.pause(at(5)).is_some());
        assert!(moderation.pause(at(9)).is_some());
        assert!(moderation.pause(at(10)).is_none(), "nothing came since");
    }
}
