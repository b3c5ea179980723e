// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address others see us at: what enough of them, independent of each other, agree on (security.md 7.5).

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::votes::{Vote, decide};
use pqvpn_wire::dht::Response;

use crate::path::is_relayed;

/// Answers remembered, one for each peer.
const MAX_VOTES: usize = 32;

/// How long a change of the network leaves what was seen before in force while contacts are asked anew.
const DOUBT: Duration = Duration::from_secs(10);

/// What is said instead of an address where none is seen.
const UNSEEN: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// An answer that crosses the link to `remote`, either way, without what it says of a way: its address is one node's own
/// and nobody's, and what is seen at its end is no address of who asks.
pub(super) fn without_ways(mut response: Response, remote: SocketAddr) -> Response {
    if let Response::Pong { observed } = &mut response
        && (is_relayed(remote) || is_relayed(*observed))
    {
        *observed = UNSEEN;
    }
    response
}

/// What peers said, newest last.
#[derive(Debug, Default)]
pub(super) struct Observed {
    votes: VecDeque<Sight>,
    doubt: Option<Doubt>,
}

/// Where a peer, asked at `at`, saw us.
#[derive(Debug)]
struct Sight {
    voter: PeerId,
    at: SocketAddr,
    sees: SocketAddr,
    /// Since the network last changed.
    fresh: bool,
}

/// The network has changed: what was seen before holds until enough say something else, or for so long.
#[derive(Debug)]
struct Doubt {
    until: Instant,
    /// Whether there was an address to doubt, by family: IPv4, IPv6.
    known: [bool; 2],
}

impl Observed {
    /// Takes down where `peer`, asked at `at`, sees us.
    pub(super) fn note(&mut self, peer: PeerId, at: SocketAddr, sees: SocketAddr) {
        if sees == UNSEEN {
            return;
        }
        self.votes.retain(|sight| sight.voter != peer);
        self.votes.push_back(Sight { voter: peer, at, sees, fresh: true });
        if self.votes.len() > MAX_VOTES {
            self.votes.pop_front();
        }
    }

    /// The host's network has changed.
    pub(super) fn on_network(&mut self, now: Instant) {
        let known = [true, false].map(|v4| self.decide(now, v4).is_some());
        // Those of the network before the last, unless they are all there is yet.
        if !self.is_in_doubt(now) {
            self.votes.retain(|sight| sight.fresh);
        }
        self.votes.iter_mut().for_each(|sight| sight.fresh = false);
        self.doubt = Some(Doubt { until: now + DOUBT, known });
    }

    /// Whether an address that was agreed on may be ours no more, and it is too early to say so.
    pub(super) fn is_in_doubt(&self, now: Instant) -> bool {
        self.doubt.as_ref().is_some_and(|doubt| {
            let open = |v4: bool, known| known && self.agreed(v4, true).is_none();
            now < doubt.until && (open(true, doubt.known[0]) || open(false, doubt.known[1]))
        })
    }

    /// When [`Self::is_in_doubt`] ends at the latest.
    pub(super) fn doubt_ends(&self, now: Instant) -> Option<Instant> {
        self.doubt.as_ref().map(|doubt| doubt.until).filter(|until| now < *until)
    }

    /// The address agreed on in a family, if any.
    pub(super) fn decide(&self, now: Instant, v4: bool) -> Option<SocketAddr> {
        let holds = self.doubt.as_ref().is_some_and(|doubt| now < doubt.until);
        self.agreed(v4, true).or_else(|| if holds { self.agreed(v4, false) } else { None })
    }

    fn agreed(&self, v4: bool, fresh: bool) -> Option<SocketAddr> {
        let family = self.votes.iter().filter(|sight| sight.sees.is_ipv4() == v4 && sight.fresh == fresh);
        let vote = |(path, sight): (u32, &Sight)| Vote {
            value: sight.sees,
            source: sight.at.ip(),
            // Each was asked directly.
            path,
            weight: 1.0,
        };
        decide(&(0..).zip(family).map(vote).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use pqvpn_dataplane::way::WayId;

    use super::*;

    fn voter(n: u8) -> (PeerId, SocketAddr) {
        (PeerId::from_bytes([n; 32]), SocketAddr::from(([n, n, 0, 1], 1)))
    }

    #[test]
    fn five_networks_must_agree_and_one_peer_has_one_voice() {
        let (here, liar) = (SocketAddr::from(([1, 2, 3, 4], 9)), SocketAddr::from(([9, 9, 9, 9], 9)));
        let (mut observed, now) = (Observed::default(), Instant::now());
        for n in 1..=4 {
            let (peer, at) = voter(n);
            observed.note(peer, at, here);
            observed.note(peer, at, here);
        }
        assert_eq!(observed.decide(now, true), None);
        for n in 0..10 {
            observed.note(PeerId::from_bytes([100 + n; 32]), SocketAddr::from(([50, 50, n, 1], 1)), liar);
        }
        assert_eq!(observed.decide(now, true), Some(here), "ten voices from one network are one");
        assert_eq!(observed.decide(now, false), None);
    }

    #[test]
    fn after_a_change_of_the_network_only_what_is_seen_since_counts() {
        let (here, there) = (SocketAddr::from(([1, 2, 3, 4], 9)), SocketAddr::from(([5, 6, 7, 8], 9)));
        let (mut observed, start) = (Observed::default(), Instant::now());
        let see = |observed: &mut Observed, voters: std::ops::RangeInclusive<u8>, sees| {
            for (peer, at) in voters.map(voter) {
                observed.note(peer, at, sees);
            }
        };
        observed.on_network(start);
        assert!(!observed.is_in_doubt(start), "nothing was known");
        see(&mut observed, 1..=12, here);
        observed.on_network(start + DOUBT);
        let soon = start + DOUBT + Duration::from_secs(1);
        see(&mut observed, 1..=4, there);
        assert_eq!((observed.decide(soon, true), observed.is_in_doubt(soon)), (Some(here), true));
        see(&mut observed, 5..=5, there);
        assert_eq!((observed.decide(soon, true), observed.is_in_doubt(soon)), (Some(there), false));
        observed.on_network(soon);
        assert_eq!((observed.decide(soon, true), observed.is_in_doubt(soon)), (Some(there), true));
        let late = observed.doubt_ends(soon).unwrap();
        assert_eq!((observed.decide(late, true), observed.is_in_doubt(late)), (None, false), "nobody said so again");
        assert_eq!(observed.doubt_ends(late), None);
    }

    #[test]
    fn what_is_seen_of_a_way_or_over_one_is_not_said_and_not_heard() {
        let [here, there] = [SocketAddr::from(([1, 2, 3, 4], 9)), SocketAddr::from(([9, 9, 9, 9], 9))];
        let way = WayId(7).address();
        let after = |observed, remote| {
            let Response::Pong { observed } = without_ways(Response::Pong { observed }, remote) else { unreachable!() };
            observed
        };
        assert_eq!(after(here, there), here);
        assert_eq!(after(way, there), UNSEEN, "its address is no place");
        assert_eq!(after(here, way), UNSEEN, "and who is at its end sees no address of ours");
    }

    #[test]
    fn who_sees_nothing_has_no_voice() {
        let (mut observed, (peer, at)) = (Observed::default(), voter(1));
        observed.note(peer, at, UNSEEN);
        assert!(observed.votes.is_empty());
    }
}
