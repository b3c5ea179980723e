// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links that are made beside the one there is: where packets go now, and where they might while the path does not answer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Action, OTHER_CHOOSES, Paths, TRY_AGAIN, is_relayed};

/// How long a check over a new way may take until a link is made over it.
pub(super) const LINK_BESIDE_CHECK: Duration = Duration::from_millis(200);
/// How long the path is suspect until a link is made where it leads: most that do not answer do so again soon.
const DOUBTED: Duration = Duration::from_secs(1);
/// Addresses at which links are made until the path answers or another is found.
pub(super) const MAX_BESIDE: usize = 4;
/// The second link at one of them begins so long after the first, the third twice as long after that, and so on.
const BESIDE_AGAIN: Duration = Duration::from_millis(500);
/// Links at one of them.
const MAX_BESIDE_EACH: u32 = 6;
/// The pauses go on when the path answers and is suspect again, unless none was made for so long beyond the last.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// Links at an address.
#[derive(Debug)]
pub(super) struct Beside {
    at: SocketAddr,
    made: u32,
    /// When the next one may be made.
    again: Instant,
}

impl Paths {
    /// Where packets go, if it is known that the peer can be reached there: what it sent from another address proves only
    /// that it sends, and whoever is on its path can send that from anywhere.
    pub(crate) fn reachable(&self) -> Option<SocketAddr> {
        self.current.filter(|at| is_relayed(*at) || self.answered == Some(*at))
    }

    /// Whether a link beside the one there is would be of use.
    pub(crate) fn wants_link(&self) -> bool {
        self.suspect.is_some() || self.current.is_some_and(|at| self.needs_link(at))
    }

    /// A link where packets go that get no answer: the peer may have been started again there.
    pub(super) fn link_again(&mut self, now: Instant) {
        let doubted = self.suspect.is_some_and(|since| now + LINK_BESIDE_CHECK >= since + DOUBTED);
        if let Some(at) = self.reachable().filter(|at| doubted && !is_relayed(*at) && self.other_way().is_none()) {
            self.link_beside(now, at);
        }
    }

    /// The newest way by a relay that came since the path is suspect.
    fn other_way(&self) -> Option<SocketAddr> {
        let since = self.suspect?;
        self.way.filter(|way| self.beside.iter().any(|beside| beside.at == *way && beside.again > since))
    }

    /// A link at an address, beside the check there: the peer may have been restarted, and then knows nothing of this session
    /// and answers no check. Again after a while, for the first may have been lost in a peer that was starting; the same way
    /// comes many times meanwhile.
    pub(super) fn link_beside(&mut self, now: Instant, at: SocketAddr) {
        self.beside.retain(|beside| now < beside.again + FORGOTTEN);
        if !self.beside.iter().any(|beside| beside.at == at) && self.beside.len() < MAX_BESIDE {
            self.beside.push(Beside { at, made: 0, again: now });
        }
        let Some(links) = self.beside.iter_mut().find(|beside| beside.at == at) else { return };
        if now < links.again || links.made >= MAX_BESIDE_EACH {
            return;
        }
        links.again = now + BESIDE_AGAIN * (1 << links.made);
        links.made += 1;
        let due = now + LINK_BESIDE_CHECK;
        self.link_due = Some(self.link_due.map_or(due, |at| at.min(due)));
    }

    /// Whether the link there is goes another way than packets to `at`: not if both go straight, for QUIC follows a peer
    /// to another address by itself.
    pub(super) fn needs_link(&self, at: SocketAddr) -> bool {
        self.link.is_some_and(|link| link != at && (is_relayed(link) || is_relayed(at)))
    }

    /// Makes a link where packets go, or where they might, and says when to look again.
    pub(super) fn make_link(&mut self, now: Instant) -> Option<Instant> {
        let beside = self.other_way().or(self.reachable()).filter(|_| self.suspect.is_some());
        let moved = self.current.filter(|at| self.needs_link(*at));
        let Some(at) = beside.or(self.reachable().filter(|_| moved.is_some())) else {
            return moved.map(|_| now + OTHER_CHOOSES);
        };
        self.actions.push_back(Action::Link(at));
        Some(now + TRY_AGAIN[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)), 7);

    /// When links are made there, in ms after `start`.
    fn links(paths: &mut Paths, start: Instant, range: std::ops::Range<u64>) -> Vec<u64> {
        let mut links = Vec::new();
        for ms in range.step_by(50) {
            paths.handle_timeout(start + Duration::from_millis(ms));
            let actions = std::iter::from_fn(|| paths.poll_action());
            links.extend(actions.filter(|action| *action == Action::Link(AT)).map(|_| ms));
        }
        links
    }

    #[test]
    fn a_direct_path_without_answers_gets_a_few_links_beside_the_checks_and_none_when_it_answers_again() {
        let start = Instant::now();
        let mut paths = Paths::new(true, &[7; 32]);
        paths.on_session(start, AT);
        assert!(paths.is_at_rest());
        paths.on_suspect(start);
        assert!(!paths.is_at_rest() && paths.wants_link());
        let made = links(&mut paths, start, 0..15_000);
        assert_eq!(made.first(), Some(&1000), "the peer may have been started again");
        assert!((2..=6).contains(&made.len()), "{made:?}");
        paths.on_alive(AT);
        assert!(!paths.wants_link());
        assert_eq!(links(&mut paths, start, 15_000..60_000), [0; 0]);
        assert!(paths.is_at_rest());
    }

    #[test]
    fn a_path_that_is_silent_for_a_moment_over_and_over_gets_links_ever_more_rarely() {
        let start = Instant::now();
        let mut paths = Paths::new(true, &[7; 32]);
        paths.on_session(start, AT);
        let mut made = Vec::new();
        for turn in 0..60 {
            let at = turn * 3000;
            paths.on_suspect(start + Duration::from_millis(at));
            made.extend(links(&mut paths, start, at..at + 1500));
            paths.on_alive(AT);
            made.extend(links(&mut paths, start, at + 1500..at + 3000));
        }
        assert!(made.len() <= 20, "{made:?}");
        let late = start + Duration::from_secs(600);
        paths.on_suspect(late);
        assert_eq!(links(&mut paths, late, 0..1500).first(), Some(&1000), "forgotten");
        let mut brief = Paths::new(true, &[7; 32]);
        brief.on_session(start, AT);
        brief.on_suspect(start);
        assert_eq!(links(&mut brief, start, 0..950), [0; 0]);
        brief.on_alive(AT);
        assert_eq!(links(&mut brief, start, 950..5000), [0; 0], "most answer again soon");
    }

    #[test]
    fn one_end_wakes_the_link_to_tell_candidates_and_the_other_if_that_comes_to_nothing() {
        let (start, relay) = (Instant::now(), pqvpn_dataplane::way::WayId(3).address());
        for chooses in [true, false] {
            let mut paths = Paths::new(chooses, &[7; 32]);
            // What came of tries before does not count.
            paths.on_session(start, relay);
            paths.handle_timeout(start + TRY_AGAIN[0]);
            paths.on_session(start + TRY_AGAIN[0], AT);
            let mut moved = start + Duration::from_secs(60);
            paths.on_path(moved, relay);
            for (told, pause) in TRY_AGAIN.into_iter().enumerate().take(3) {
                std::iter::from_fn(|| paths.poll_action()).for_each(drop);
                paths.handle_timeout(moved);
                let tells =
                    std::iter::from_fn(|| paths.poll_action()).any(|action| matches!(action, Action::Tell { .. }));
                assert!(tells, "{chooses} {told}");
                assert_eq!(paths.wakes_link(), chooses || told > 0, "{told}");
                moved += pause;
            }
        }
    }

    #[test]
    fn no_link_is_made_where_nothing_has_answered_yet() {
        let (start, first) = (Instant::now(), SocketAddr::from(([203, 0, 113, 9], 9)));
        let mut paths = Paths::new(true, &[7; 32]);
        paths.on_session(start, first);
        // Somebody on the path sent on from there what the peer had sealed.
        paths.on_path(start, AT);
        assert_eq!((paths.current, paths.reachable()), (Some(AT), None));
        paths.on_suspect(start);
        assert_eq!(links(&mut paths, start, 0..15_000), [0; 0]);
        paths.on_alive(AT);
        assert_eq!(paths.reachable(), Some(AT));
        paths.on_suspect(start + Duration::from_secs(20));
        assert_ne!(links(&mut paths, start, 20_000..25_000), [0; 0]);
        // Nor where the path leads from a relay.
        let mut moved = Paths::new(true, &[7; 32]);
        moved.on_session(start, pqvpn_dataplane::way::WayId(3).address());
        moved.on_path(start, AT);
        assert_eq!(links(&mut moved, start, 0..5000), [0; 0]);
        moved.on_alive(AT);
        assert_eq!(links(&mut moved, start, 5000..8000).len(), 1);
    }
}
