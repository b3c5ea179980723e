// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links that a carrier leads over, and the way back to UDP.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use pqvpn_crypto::peer_id::PeerId;

use super::{Driver, TaskDone, dial, gossip::MAX_TASKS};
use crate::{carrier::is_carried, clock, link::Connection};

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
            is_carried(at) || self.carriers.is_udp_blocked() && !self.endpoints_of(peer).contains(&at)
        };
        let links = self.links.iter().filter(|(_, link)| link.is_outbound()).map(|(_, link)| &link.connection);
        let peers = links.filter(|link| carried(&link.peer(), link.remote())).map(|link| link.peer());
        let mut peers: Vec<PeerId> = peers.collect();
        peers.dedup();
        peers.truncate(TRIED);
        for peer in peers {
            let addresses = self.endpoints_of(&peer);
            if addresses.is_empty() || self.tasks.len() >= MAX_TASKS {
                continue;
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

    fn endpoints_of(&self, peer: &PeerId) -> Vec<SocketAddr> {
        let mut all: Vec<SocketAddr> = Vec::new();
        for at in self.networks.values().flat_map(|network| network.endpoints(peer)) {
            if !all.contains(&at) {
                all.push(at);
            }
        }
        all
    }
}
