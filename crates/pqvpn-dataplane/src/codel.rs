// SPDX-License-Identifier: MIT OR Apache-2.0
//! Controlled delay (RFC 8289): when to give up a packet because others have waited too long for a while.

use std::time::{Duration, Instant};

/// What packets may wait.
pub(crate) const TARGET: Duration = Duration::from_micros(500);
/// How long they must have waited too long. RFC 8289 §4.4 has 100 ms for paths of the internet; a host that is slower than
/// the network in front of it is met in local ones, whose senders hear of it in this time.
pub(crate) const INTERVAL: Duration = Duration::from_millis(20);
/// Intervals within which a new phase goes on where the one before stood (RFC 8289 §5.3).
const RECENT: u32 = 16;

/// The state of one queue.
#[derive(Debug, Default)]
pub(crate) struct Codel {
    /// When packets will have waited too long for an interval.
    ripe: Option<Instant>,
    /// The next drop, while dropping.
    next: Option<Instant>,
    /// When the phase before would have gone on.
    last: Option<Instant>,
    /// Drops of this phase, and how many it began with.
    count: u32,
    began: u32,
}

impl Codel {
    /// Whether a packet is to be given up, where those that leave the queue now have waited for `sojourn`.
    pub(crate) fn is_due(&mut self, sojourn: Duration, now: Instant) -> bool {
        let is_late = self.is_late(sojourn, now);
        match self.next {
            Some(_) if !is_late => {
                self.last = self.next.take();
                false
            }
            Some(next) if now < next => false,
            Some(next) => {
                self.count = self.count.saturating_add(1);
                // Asked too seldom, it does not fall behind: a new phase could not go on where this one ended.
                self.next = Some((next + self.gap()).max(now));
                true
            }
            None if is_late => {
                let is_recent = self.last.is_some_and(|last| now < last + INTERVAL * RECENT);
                let done = self.count - self.began;
                self.count = if is_recent && done > 1 { done } else { 1 };
                self.began = self.count;
                self.next = Some(now + self.gap());
                true
            }
            None => false,
        }
    }

    fn is_late(&mut self, sojourn: Duration, now: Instant) -> bool {
        if sojourn < TARGET {
            self.ripe = None;
            return false;
        }
        now >= *self.ripe.get_or_insert(now + INTERVAL)
    }

    /// More drops come faster, so that the rate of TCP falls in a line.
    fn gap(&self) -> Duration {
        INTERVAL.div_f64(f64::from(self.count).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(1);

    /// Goes on for `steps` of a millisecond; gives when packets were given up, in milliseconds from the start.
    fn drops(codel: &mut Codel, now: &mut Instant, sojourn: Duration, steps: u32) -> Vec<u32> {
        let mut at = Vec::new();
        for step in 0..steps {
            if codel.is_due(sojourn, *now) {
                at.push(step);
            }
            *now += STEP;
        }
        at
    }

    #[test]
    fn a_burst_is_no_standing_queue() {
        let (mut codel, mut now) = (Codel::default(), Instant::now());
        for _ in 0..100 {
            assert!(drops(&mut codel, &mut now, TARGET * 50, 19).is_empty());
            assert!(drops(&mut codel, &mut now, TARGET / 2, 1).is_empty());
        }
    }

    #[test]
    fn a_standing_queue_costs_packets_faster_and_faster_until_it_is_gone() {
        let (mut codel, mut now) = (Codel::default(), Instant::now());
        let at = drops(&mut codel, &mut now, TARGET, 100);
        assert_eq!(at, [20, 40, 55, 66, 76, 85, 93]);
        assert!(drops(&mut codel, &mut now, Duration::ZERO, 100).is_empty());
        let again = drops(&mut codel, &mut now, TARGET, 40);
        assert_eq!(again[..2], [20, 29], "it goes on where it was");
        drops(&mut codel, &mut now, Duration::ZERO, 1000);
        assert_eq!(drops(&mut codel, &mut now, TARGET, 55), [20, 40], "after a while it begins anew");
    }
}
