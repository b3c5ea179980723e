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
    /// Whether candidates may be told or taken now.
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
    fn a_try_that_nobody_wants_in_time_is_not_lost() {
        let (mut hush, start) = (Hush::default(), Instant::now());
        assert!(!hush.lets(start));
        let later = start + FIRST * 9;
        assert!(hush.lets(later) && hush.lets(later + TRY / 2) && !hush.lets(later + TRY));
    }
}
