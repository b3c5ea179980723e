// SPDX-License-Identifier: MIT OR Apache-2.0
//! How seldom direct paths are tried while a WebSocket carries: most likely no UDP gets out, but it may be that only the
//! relay's lets none in. Pure, time is an argument.

use std::time::{Duration, Instant};

/// The first try begins so long after it was first wanted, and later ones so long after the one before.
const FIRST: Duration = Duration::from_secs(20);
const PERIOD: Duration = Duration::from_secs(600);
/// How long a try lasts: what both ends tell, and the answers.
const TRY: Duration = Duration::from_secs(5);

/// The tries with one peer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hush {
    opens_at: Option<Instant>,
    /// When the try began that is under way, or the last one.
    began: Option<Instant>,
}

impl Hush {
    /// Whether candidates may be taken that the peer tells now. Its tries begin when it likes, and what is not taken is
    /// not answered: one of them in a while is one of ours too.
    pub(crate) fn lets_in(&mut self, now: Instant) -> bool {
        if !self.lets(now) && self.began.is_none_or(|began| now >= began + PERIOD) {
            (self.began, self.opens_at) = (Some(now), Some(now + PERIOD));
        }
        self.lets(now)
    }

    /// Whether candidates may be told now.
    pub(crate) fn lets(&mut self, now: Instant) -> bool {
        if self.began.is_some_and(|began| now < began + TRY) {
            return true;
        }
        let opens_at = *self.opens_at.get_or_insert(now + FIRST);
        if now < opens_at {
            return false;
        }
        (self.began, self.opens_at) = (Some(now), Some(now + PERIOD));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_few_and_each_has_its_time() {
        let (mut hush, start) = (Hush::default(), Instant::now());
        let let_through: Vec<u64> =
            (0..2000).filter(|second| hush.lets(start + Duration::from_secs(*second))).collect();
        let tries = [20, 620, 1220, 1820].into_iter().flat_map(|begins| begins..begins + 5);
        assert_eq!(let_through, tries.collect::<Vec<_>>());
    }

    #[test]
    fn the_tries_of_both_ends_meet() {
        let (mut ours, mut theirs, start) = (Hush::default(), Hush::default(), Instant::now());
        let mut met = Vec::new();
        for second in 0..1900 {
            let now = start + Duration::from_secs(second);
            if theirs.lets(now) && ours.lets_in(now) {
                met.push(second);
            }
        }
        assert_eq!(met.len(), 4 * 5, "each of its tries, {met:?}");
    }

    #[test]
    fn who_tells_without_end_is_heard_seldom() {
        let (mut hush, start) = (Hush::default(), Instant::now());
        let taken = (0..1800).filter(|second| hush.lets_in(start + Duration::from_secs(*second)));
        assert_eq!(taken.collect::<Vec<_>>(), [0, 600, 1200].into_iter().flat_map(|at| at..at + 5).collect::<Vec<_>>());
    }

    #[test]
    fn a_try_that_nobody_wants_in_time_is_not_lost() {
        let (mut hush, start) = (Hush::default(), Instant::now());
        assert!(!hush.lets(start));
        let later = start + FIRST * 9;
        assert!(hush.lets(later) && hush.lets(later + TRY / 2) && !hush.lets(later + TRY));
    }
}
