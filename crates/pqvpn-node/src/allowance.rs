// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bursts and rates (generic cell rate algorithm).

use std::time::{Duration, Instant};

/// How often something may be done: so many at once, and one more each period.
#[derive(Debug, Default)]
pub(crate) struct Allowance(Option<Instant>);

impl Allowance {
    /// Takes one; `false` if none is left.
    pub(crate) fn take(&mut self, now: Instant, burst: u32, period: Duration) -> bool {
        let has = self.has(now, burst, period);
        if has {
            self.0 = Some(self.0.map_or(now, |busy_until| busy_until.max(now)) + period);
        }
        has
    }

    /// Whether one is left.
    pub(crate) fn has(&self, now: Instant, burst: u32, period: Duration) -> bool {
        self.0.is_none_or(|busy_until| busy_until <= now + period * (burst - 1))
    }

    /// Whether nothing of it is used any more.
    pub(crate) fn is_whole(&self, now: Instant) -> bool {
        self.0.is_none_or(|busy_until| busy_until <= now)
    }
}
