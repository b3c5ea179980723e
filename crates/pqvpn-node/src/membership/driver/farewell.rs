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
        let mut todo: Vec<(LinkId, PeerId, NetworkId, bool)> = Vec::new();
        for (link, held) in self.links.iter() {
            let (peer, dialled_us) = (held.connection.peer(), !held.is_outbound());
            let out = self.networks.values().filter(|network| network.has_put_out(now.unix_ms, &peer));
            todo.extend(out.map(|network| (link, peer, network.id, dialled_us)));
        }
        todo.retain(|(link, _, id, _)| !self.farewells.contains(&(*link, *id)));
        for (link, peer, id, dialled_us) in todo {
            self.farewells.insert((link, id));
            let Some(network) = self.networks.get_mut(&id) else { continue };
            // A proof is large: who dials for it has as many as who asks for it.
            if dialled_us && !network.may_prove(now.mono, &peer) {
                self.part(link);
                continue;
            }
            let Some(proof) = network.farewell(&peer) else { continue };
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
        self.part(link);
    }

    /// Closes the link of who was put out and is no member of another network of ours, unless it is being told so.
    fn part(&mut self, link: LinkId) {
        if self.parting.contains_key(&link) {
            return;
        }
        let peer = self.links.get(link).map(|link| link.connection.peer());
        if peer.is_some_and(|peer| !self.shared.members.load().contains(&peer)) {
            self.links.close(link, CloseReason::Revoked);
        }
    }

    /// A session with somebody who is no peer any more has ended: it may have no other way to learn why.
    pub(super) fn had_session(&mut self, now: Moment, peer: PeerId, remotes: Vec<SocketAddr>) {
        // Whoever rotated its key knows.
        let revokes = |network: &Network| network.constitution.view().revoked.contains_key(&peer);
        let out = self.networks.values().any(|network| revokes(network) && network.is_enabled(now.unix_ms));
        if out && !self.links.one_each().contains_key(&peer) {
            self.dial_at(peer, None, remotes);
        }
    }
}

impl Network {
    /// Whether we are a member, and the peer was put out.
    pub(in crate::membership) fn has_put_out(&self, now_ms: u64, peer: &PeerId) -> bool {
        self.put_out_by(peer).is_some() && self.is_enabled(now_ms)
    }
}
