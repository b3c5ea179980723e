// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bursts and rates (generic cell rate algorithm).

use std::time::{Duration, Instant};

/// How often something may be done: so many at once, and one more each period.
#[derive(Debug, Default)]
pub(in crate::membership) struct Allowance(Option<Instant>);

impl Allowance {
    /// Takes one; `false` if none is left.
    pub(in crate::membership) fn take(&mut self, now: Instant, burst: u32, period: Duration) -> bool {
        let busy_until = self.0.unwrap_or(now).max(now);
        if busy_until > now + period * (burst - 1) {
            return false;
        }
        self.0 = Some(busy_until + period);
        true
    }

    /// Whether nothing of it is used any more.
    pub(in crate::membership) fn is_whole(&self, now: Instant) -> bool {
        self.0.is_none_or(|busy_until| busy_until <= now)
    }
}
