// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of the addresses that answer is used, and where the link of the session is made.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Action, OTHER_CHOOSES, OTHER_RESCUES, Paths, TRY_AGAIN, is_relayed};

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

    /// Makes a link where packets go, or where they might, and says when to look again.
    pub(super) fn make_link(&mut self, now: Instant) -> Option<Instant> {
        let beside = self.way.or(self.current).filter(|_| self.suspect.is_some());
        let moved = self.current.filter(|at| self.needs_link(*at));
        let at = beside.or(moved)?;
        self.actions.push_back(Action::Link(at));
        Some(now + TRY_AGAIN[2])
    }

    /// Whether the link there is goes another way than packets to `at`: not if both go straight, for QUIC follows a peer
    /// to another address by itself.
    pub(super) fn needs_link(&self, at: SocketAddr) -> bool {
        self.link.is_some_and(|link| link != at && (is_relayed(link) || is_relayed(at)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_path_without_answers_gets_a_few_links_beside_the_checks_and_none_when_it_answers_again() {
        let (at, start) = (SocketAddr::from(([203, 0, 113, 1], 7)), Instant::now());
        let mut paths = Paths::new(true, &[7; 32]);
        paths.on_session(start, at);
        assert!(paths.is_at_rest());
        paths.on_suspect(start);
        assert!(!paths.is_at_rest());
        let mut links = Vec::new();
        for ms in (0..15_000).step_by(50) {
            paths.handle_timeout(start + Duration::from_millis(ms));
            let actions = std::iter::from_fn(|| paths.poll_action());
            links.extend(actions.filter(|action| *action == Action::Link(at)).map(|_| ms));
        }
        assert_eq!(links.first(), Some(&200), "the peer may have been started again");
        assert!((2..=6).contains(&links.len()), "{links:?}");
        paths.on_alive();
        paths.on_suspect(start + Duration::from_secs(60));
        paths.on_alive();
        while paths.poll_action().is_some() {}
        assert!(paths.is_at_rest());
    }
}
