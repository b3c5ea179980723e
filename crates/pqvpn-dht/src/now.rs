// SPDX-License-Identifier: MIT OR Apache-2.0
//! What time it is: handed in by the caller, never read here.

use std::time::Duration;

use crate::rules::SKEW_MS;

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Time since an origin of the caller's choice; never runs backwards. Every timer uses it.
    pub mono: Duration,
    /// Wall clock, ms since 1970. Only validity windows and weeks use it.
    pub unix_ms: u64,
}

/// What the wall clock does against the monotonic one: it is set, or the machine slept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    /// The last moment at which both were believed.
    base: Now,
    /// Since when the wall clock is ahead of what is believed.
    ahead_since: Option<Duration>,
}

/// How long a wall clock must have been ahead before what is irreversible is done by it.
const BELIEVED_AFTER: Duration = Duration::from_secs(3600);

impl WallClock {
    pub(crate) const fn new(now: Now) -> Self {
        Self { base: now, ahead_since: None }
    }

    fn expected_ms(&self, now: Now) -> u64 {
        let since = now.mono.saturating_sub(self.base.mono).as_millis();
        self.base.unix_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Whether the wall clock was set, either way, since it was asked last.
    pub(crate) fn stepped(&mut self, now: Now) -> bool {
        let stepped = self.expected_ms(now).abs_diff(now.unix_ms) > SKEW_MS;
        self.base = now;
        stepped
    }

    /// The wall clock, ms since 1970, without steps forward that have not lasted for [`BELIEVED_AFTER`].
    pub(crate) fn steady_ms(&mut self, now: Now) -> u64 {
        let expected = self.expected_ms(now);
        if now.unix_ms > expected.saturating_add(SKEW_MS) {
            let since = *self.ahead_since.get_or_insert(now.mono);
            if now.mono < since + BELIEVED_AFTER {
                return expected;
            }
        }
        *self = Self::new(now);
        now.unix_ms
    }
}
