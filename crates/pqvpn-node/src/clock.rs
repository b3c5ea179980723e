// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one module that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use pqvpn_dht::Now;

/// A difference between two clocks larger than this means that the machine slept, or was copied and revived.
const JUMP: Duration = Duration::from_secs(60);

/// The monotonic clock: every timer and every age uses it.
#[must_use]
pub fn now() -> Instant {
    #[cfg(feature = "sim")]
    if let Some(now) = crate::sim::now() {
        return now;
    }
    Instant::now()
}

/// Seconds since 1970, for validity windows and file stamps only; 0 when the clock stands before 1970.
#[must_use]
pub fn unix_seconds() -> u64 {
    wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Milliseconds since 1970, for validity windows only; 0 when the clock stands before 1970.
#[must_use]
pub fn unix_millis() -> u64 {
    wall().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn wall() -> SystemTime {
    #[cfg(feature = "sim")]
    if let Some(unix_ms) = crate::sim::unix_millis() {
        return UNIX_EPOCH + Duration::from_millis(unix_ms);
    }
    SystemTime::now()
}

/// How old a file is by its stamp; one from the future is new.
#[must_use]
pub fn age_of(stamp: SystemTime) -> Duration {
    wall().duration_since(stamp).unwrap_or_default()
}

/// Where a machine that counts from zero began.
#[derive(Debug, Clone, Copy)]
pub struct Origin(Instant);

impl Origin {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(now())
    }

    /// This moment in the machine's terms.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: now().saturating_duration_since(self.0), unix_ms: unix_millis() }
    }

    /// A moment of the machine in the terms of timers.
    #[must_use]
    pub fn instant(&self, mono: Duration) -> Instant {
        self.0 + mono
    }
}

/// One reading of the three clocks that must run alike.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    monotonic: Instant,
    boottime: Duration,
    wall: SystemTime,
}

impl Reading {
    /// Reads the clocks.
    #[must_use]
    pub fn take() -> Self {
        let boottime = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
        #[cfg(feature = "sim")]
        let boottime = crate::sim::uptime().unwrap_or(boottime);
        Self { monotonic: now(), boottime, wall: wall() }
    }

    /// As if the machine had slept since.
    #[cfg(test)]
    pub(crate) fn before_a_night(self) -> Self {
        Self { wall: self.wall - Duration::from_secs(8 * 3600), ..self }
    }

    /// Whether the machine slept, or was suspended and revived from a copy, between two readings: then session keys
    /// must not be used again (a revived copy would repeat nonces).
    #[must_use]
    pub fn jumped_since(&self, earlier: &Self) -> bool {
        let monotonic = self.monotonic.saturating_duration_since(earlier.monotonic);
        let boottime = self.boottime.saturating_sub(earlier.boottime);
        let wall = match self.wall.duration_since(earlier.wall) {
            Ok(forward) => forward,
            Err(backward) => return backward.duration() > JUMP,
        };
        boottime.abs_diff(monotonic) > JUMP || wall.abs_diff(boottime) > JUMP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_run_alike_are_no_jump() {
        let earlier = Reading::take();
        assert!(!Reading::take().jumped_since(&earlier));
        let minutes = Duration::from_secs(600);
        let later = Reading {
            monotonic: earlier.monotonic + minutes,
            boottime: earlier.boottime + minutes,
            wall: earlier.wall + minutes,
        };
        assert!(!later.jumped_since(&earlier));
    }

    #[test]
    fn a_sleep_and_a_revived_copy_are_jumps() {
        let earlier = Reading::take();
        let night = Duration::from_secs(8 * 3600);
        let slept = Reading { boottime: earlier.boottime + night, wall: earlier.wall + night, ..earlier };
        assert!(slept.jumped_since(&earlier));
        let revived = Reading { wall: earlier.wall + night, ..earlier };
        assert!(revived.jumped_since(&earlier));
        let set_back = Reading { wall: earlier.wall - night, ..earlier };
        assert!(set_back.jumped_since(&earlier));
    }
}
