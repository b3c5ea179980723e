// SPDX-License-Identifier: MIT OR Apache-2.0
//! What counts as slow in one lookup, from the round trips it has seen.

use std::{collections::VecDeque, time::Duration};

/// Before enough is known, and at most: an answer that takes longer is not waited for alone.
const STALL: Duration = Duration::from_millis(500);
const SHORTEST_STALL: Duration = Duration::from_millis(50);
/// Before enough is known: a node silent for longer is not counted on any more.
const OVERDUE: Duration = Duration::from_secs(1);
const SHORTEST_OVERDUE: Duration = Duration::from_millis(250);
/// Round trips remembered, and how many make a median.
const TIMES: usize = 16;
const ENOUGH: usize = 3;

/// The round trips of one lookup.
#[derive(Debug, Default)]
pub(super) struct Pace {
    times: VecDeque<Duration>,
}

impl Pace {
    pub(super) fn note(&mut self, rtt: Duration) {
        if self.times.len() >= TIMES {
            self.times.pop_front();
        }
        self.times.push_back(rtt);
    }

    fn median(&self) -> Option<Duration> {
        if self.times.len() < ENOUGH {
            return None;
        }
        let mut times: Vec<Duration> = self.times.iter().copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }

    /// After so long the next candidate is asked as well: twice the usual round trip.
    pub(super) fn stall(&self) -> Duration {
        self.median().map_or(STALL, |median| (median * 2).clamp(SHORTEST_STALL, STALL))
    }

    /// After so long a node counts as silent until it answers after all: four times the usual round trip.
    pub(super) fn overdue(&self) -> Duration {
        self.median().map_or(OVERDUE, |median| (median * 4).max(SHORTEST_OVERDUE))
    }
}
