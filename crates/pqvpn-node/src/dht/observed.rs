// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address others see us at: what enough of them, independent of each other, agree on (security.md 7.5).

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::votes::{Vote, decide};
use pqvpn_wire::dht::Response;

use crate::path::is_relayed;

/// Answers remembered, one for each peer.
const MAX_VOTES: usize = 32;

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
    votes: VecDeque<(PeerId, SocketAddr, SocketAddr)>,
}

impl Observed {
    /// Takes down where `peer`, asked at `at`, sees us.
    pub(super) fn note(&mut self, peer: PeerId, at: SocketAddr, sees: SocketAddr) {
        if sees == UNSEEN {
            return;
        }
        self.votes.retain(|(voter, ..)| *voter != peer);
        self.votes.push_back((peer, at, sees));
        if self.votes.len() > MAX_VOTES {
            self.votes.pop_front();
        }
    }

    /// The address agreed on in a family, if any.
    pub(super) fn decide(&self, v4: bool) -> Option<SocketAddr> {
        let family = self.votes.iter().filter(|(_, _, sees)| sees.is_ipv4() == v4);
        let vote = |(path, (_, at, sees)): (u32, &(PeerId, SocketAddr, SocketAddr))| Vote {
            value: *sees,
            source: at.ip(),
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
        let mut observed = Observed::default();
        for n in 1..=4 {
            let (peer, at) = voter(n);
            observed.note(peer, at, here);
            observed.note(peer, at, here);
        }
        assert_eq!(observed.decide(true), None);
        for n in 0..10 {
            observed.note(PeerId::from_bytes([100 + n; 32]), SocketAddr::from(([50, 50, n, 1], 1)), liar);
        }
        assert_eq!(observed.decide(true), Some(here), "ten voices from one network are one");
        assert_eq!(observed.decide(false), None);
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
