// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whoever was put out is told so at once, with the proof, by every member that has a link or had a session with it.

use std::{net::SocketAddr, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::{
    control::CloseReason,
    network::{NetRequest, NetworkId},
};

use super::{
    super::{
        links::LinkId,
        network::{Moment, Network},
    },
    Call, Driver,
};

/// How long whoever was put out may take to hear so; its link is closed then.
const PARTING: Duration = Duration::from_secs(2);

impl Driver {
    /// Proves to everybody with a link who was put out that it was, and closes the link of who is no member of any other
    /// network of ours.
    pub(super) fn put_out(&mut self, now: Moment) {
        self.farewells.retain(|(link, _)| self.links.get(*link).is_some());
        let mut todo: Vec<(LinkId, PeerId, NetworkId)> = Vec::new();
        for (link, held) in self.links.iter() {
            let peer = held.connection.peer();
            let out = self.networks.values().filter(|network| network.has_put_out(now.unix_ms, &peer));
            todo.extend(out.map(|network| (link, peer, network.id)));
        }
        todo.retain(|(link, _, id)| !self.farewells.contains(&(*link, *id)));
        for (link, peer, id) in todo {
            self.farewells.insert((link, id));
            let proof = self.networks.get(&id).and_then(|network| network.farewell(&peer));
            let Some(proof) = proof else { continue };
            let push = NetRequest::Push(Box::new(proof));
            *self.parting.entry(link).or_default() += 1;
            if !self.call(id, link, push, Call::Farewell, PARTING) {
                self.on_parted(link);
            }
        }
    }

    /// Somebody who was put out has heard so, or not in time.
    pub(super) fn on_parted(&mut self, link: LinkId) {
        let Some(left) = self.parting.get_mut(&link) else { return };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return;
        }
        self.parting.remove(&link);
        let peer = self.links.get(link).map(|link| link.connection.peer());
        if peer.is_some_and(|peer| !self.shared.members.load().contains(&peer)) {
            self.links.close(link, CloseReason::Revoked);
        }
    }

    /// A session with somebody who is no peer any more has ended: it may have no other way to learn why.
    pub(super) fn had_session(&mut self, now: Moment, peer: PeerId, remote: SocketAddr) {
        // Whoever rotated its key knows.
        let revokes = |network: &Network| network.constitution.view().revoked.contains_key(&peer);
        let out = self.networks.values().any(|network| revokes(network) && network.is_enabled(now.unix_ms));
        if out && !self.links.one_each().contains_key(&peer) {
            self.dial_at(peer, None, vec![remote]);
        }
    }
}

impl Network {
    /// Whether we are a member, and the peer was put out.
    pub(in crate::membership) fn has_put_out(&self, now_ms: u64, peer: &PeerId) -> bool {
        self.put_out_by(peer).is_some() && self.is_enabled(now_ms)
    }
}
