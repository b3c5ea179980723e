// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the host is looked at again: at once after news, less often where news do not end, and now and then as long as
//! something is missing.

use std::time::{Duration, Instant};

/// The first pause between two looks that follow each other, doubled with each up to the most.
const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(2);
/// After so long without news the next are the first again.
const CALM: Duration = Duration::from_secs(30);
/// How soon what could not be set is tried again.
const RETRY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Again {
    looked: Option<Instant>,
    pause: Duration,
    due: Option<Instant>,
}

impl Again {
    /// Something on the host has changed.
    pub(super) fn on_news(&mut self, now: Instant) {
        let at = self.looked.map_or(now, |looked| now.max(looked + self.pause));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// The host was looked at, and is or is not as planned.
    pub(super) fn on_look(&mut self, now: Instant, is_lacking: bool) {
        let soon = self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < CALM);
        self.pause = if soon { (self.pause * 2).clamp(FIRST, MOST) } else { FIRST };
        self.looked = Some(now);
        self.due = is_lacking.then_some(now + RETRY);
    }

    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_news_are_followed_at_once_and_endless_ones_twice_in_four_seconds() {
        let (mut again, start) = (Again::default(), Instant::now());
        again.on_news(start);
        assert_eq!(again.due(), Some(start));
        // Somebody takes away what is set as soon as it is.
        let (mut now, mut looks) = (start, 0);
        while now < start + Duration::from_secs(60) {
            now = now.max(again.due().unwrap());
            again.on_look(now, false);
            assert_eq!(again.due(), None, "nothing to do");
            again.on_news(now);
            looks += 1;
        }
        assert!((30..=40).contains(&looks), "{looks}");
        let later = now + CALM;
        again.on_look(later, false);
        again.on_news(later + FIRST);
        assert_eq!(again.due(), Some(later + FIRST), "calm again");
    }

    #[test]
    fn what_is_missing_is_tried_again_without_news_and_news_bring_it_forward() {
        let (mut again, now) = (Again::default(), Instant::now());
        again.on_look(now, true);
        assert_eq!(again.due(), Some(now + RETRY));
        again.on_news(now + FIRST);
        assert_eq!(again.due(), Some(now + FIRST));
        again.on_look(now + FIRST, false);
        assert_eq!(again.due(), None);
    }
}
