// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links that a carrier leads over, and the way back to UDP.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Instant};

use pqvpn_crypto::peer_id::PeerId;

use super::{Driver, TaskDone, dial, gossip::MAX_TASKS};
use crate::{carrier::is_carried, clock, config::CARRIER_PORT, link::Connection};

/// Members that are tried by UDP at a time.
const TRIED: usize = 2;

impl Driver {
    /// Sees now and then whether members that a carrier leads to can be reached by UDP.
    pub(super) fn look_for_udp(&mut self, now: Instant) {
        if !self.carriers.is_look_due(now) {
            return;
        }
        let carried = |peer: &PeerId, at: SocketAddr| {
            // A link by UDP port 443 has an address like any other.
            is_carried(at) || at.port() == CARRIER_PORT && !self.endpoints_of(peer).contains(&at)
        };
        let links = self.links.iter().filter(|(_, link)| link.is_outbound()).map(|(_, link)| &link.connection);
        let peers = links.filter(|link| carried(&link.peer(), link.remote())).map(|link| link.peer());
        let peers: BTreeSet<PeerId> = peers.collect();
        if peers.is_empty() {
            return self.carriers.on_nothing_carried();
        }
        let known = peers.into_iter().map(|peer| (peer, self.endpoints_of(&peer)));
        let known: Vec<_> = known.filter(|(_, addresses)| !addresses.is_empty()).collect();
        for (peer, addresses) in in_turn(known, &mut self.udp_tried, TRIED) {
            if self.tasks.len() >= MAX_TASKS {
                break;
            }
            let plain = self.carriers.plain();
            self.tasks.spawn(async move {
                match dial(&plain, peer, None, addresses).await {
                    Ok(link) => TaskDone::UdpBack { peer, link },
                    Err(_missed) => TaskDone::NoUdp,
                }
            });
        }
    }

    /// A member is reached by UDP again: its link moves, and what goes through it follows.
    pub(super) fn on_udp_back(&mut self, peer: PeerId, link: Arc<dyn Connection>) {
        self.carriers.on_udp(clock::now(), link.remote());
        self.on_dialed(peer, Ok(link));
    }

    /// Where a member may be dialled, without what our own tunnels lead to.
    pub(super) fn endpoints_of(&self, peer: &PeerId) -> Vec<SocketAddr> {
        let mut all: Vec<SocketAddr> = Vec::new();
        for at in self.networks.values().flat_map(|network| network.endpoints(peer)) {
            if !all.contains(&at) && !self.networks.values().any(|network| network.is_overlay(at.ip())) {
                all.push(at);
            }
        }
        all
    }
}

/// Some of all, beginning where the last turn ended.
fn in_turn<T>(mut all: Vec<T>, turn: &mut usize, most: usize) -> Vec<T> {
    if !all.is_empty() {
        let start = *turn % all.len();
        all.rotate_left(start);
        all.truncate(most);
        *turn = start + all.len();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn() {
        let mut turn = 0;
        let turns: Vec<Vec<u8>> = (0..4).map(|_| in_turn(vec![1, 2, 3], &mut turn, TRIED)).collect();
        assert_eq!(turns, [vec![1, 2], vec![3, 1], vec![2, 3], vec![1, 2]]);
        assert!(in_turn(Vec::<u8>::new(), &mut turn, TRIED).is_empty());
    }
}
