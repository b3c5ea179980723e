// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address others see us at: what enough of them, independent of each other, agree on (security.md 7.5).

use std::{collections::VecDeque, net::SocketAddr};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::votes::{Vote, decide};

/// Answers remembered, one for each peer.
const MAX_VOTES: usize = 32;

/// What peers said, newest last.
#[derive(Debug, Default)]
pub(super) struct Observed {
    votes: VecDeque<(PeerId, SocketAddr, SocketAddr)>,
}

impl Observed {
    /// Takes down where `peer`, asked at `at`, sees us.
    pub(super) fn note(&mut self, peer: PeerId, at: SocketAddr, sees: SocketAddr) {
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
}
