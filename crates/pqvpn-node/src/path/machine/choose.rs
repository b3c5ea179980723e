// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of the addresses that answer is used, and where the link of the session is made.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Action, OTHER_CHOOSES, OTHER_RESCUES, Paths, is_relayed};

/// How much shorter the round trip of another address must be to change over to it, in eighths.
const BETTER_EIGHTHS: u32 = 6;

impl Paths {
    /// An address answers: whether it is better than the path there is.
    pub(super) fn consider(&mut self, now: Instant, at: SocketAddr, rtt: Duration) {
        let Some(current) = self.current else { return };
        let current_rtt = self.tried.get(&current).and_then(|tried| tried.rtt);
        let dead = self.suspect.is_some();
        let upgrade = is_relayed(current) && !is_relayed(at);
        let shorter = is_relayed(current) == is_relayed(at)
            && current_rtt.is_some_and(|present| rtt < present * BETTER_EIGHTHS / 8);
        if self.chooses && (dead || upgrade || shorter) {
            self.use_path(now, at);
        } else if dead || upgrade {
            let due = now + if dead { OTHER_RESCUES } else { OTHER_CHOOSES };
            self.choose_at = Some(self.choose_at.map_or(due, |at| at.min(due)));
        }
    }

    pub(super) fn wants_other(&self) -> bool {
        self.suspect.is_some() || self.current.is_some_and(is_relayed)
    }

    pub(super) fn best(&self) -> Option<(SocketAddr, Duration)> {
        let answered = self.tried.iter().filter_map(|(&at, tried)| Some((at, tried.rtt?)));
        answered.min_by_key(|&(at, rtt)| (is_relayed(at), rtt))
    }

    pub(super) fn use_path(&mut self, now: Instant, at: SocketAddr) {
        self.choose_at = None;
        self.actions.push_back(Action::Use(at));
        self.on_path(now, at);
    }

    /// Who chooses the path makes the link as well, once the other end has followed.
    pub(super) fn want_link(&mut self, now: Instant) {
        let elsewhere = self.current.is_some_and(|at| self.needs_link(at));
        if elsewhere && self.link_due.is_none() {
            let after = if self.chooses { Duration::from_millis(200) } else { OTHER_CHOOSES * 4 };
            self.link_due = Some(now + after);
        }
    }
}
