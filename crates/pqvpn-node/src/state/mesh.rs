// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mesh in the state task: peers, routes, door and host are made equal to what config and networks say.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::PeerSlot;
use pqvpn_wire::control::CloseReason;

use super::{Live, State, Views, peer::Peer};
use crate::{
    clock, entropy,
    host::HostError,
    life::PeerLife,
    membership::NetworkView,
    overlay::{Mesh, MeshPeer},
    path::{Mtu, Paths},
    snapshot::NodeState,
};

impl State {
    /// Sets up what is known at the start, the host included.
    pub(crate) async fn begin(&mut self, running: NodeState) -> Result<(), HostError> {
        if running == NodeState::Down {
            self.rest().await;
        }
        let mesh = Mesh::plan(&self.config, self.own, &self.views);
        self.host.plan(&mesh);
        self.context.door.set_clocks(self.clocks);
        self.open_for_networks();
        self.take_mesh(clock::now(), mesh);
        if self.running == NodeState::Down {
            return self.host.undo().await;
        }
        self.host.apply().await?;
        self.dns.follow(&self.views, &self.mesh, self.own).await;
        Ok(())
    }

    /// Whoever is in a network takes links of strangers, who may want to join, and looks for members nearby; whoever joins
    /// looks for the one that lets it in.
    fn open_for_networks(&mut self) {
        let in_network = !self.views.is_empty();
        self.context.slots.let_strangers_in(self.context.dht.is_some() || in_network);
        self.lan.needed(in_network || self.context.networks.is_joining());
    }

    /// The networks have changed. Whoever is no peer any more is cut off before anything else happens.
    pub(super) async fn on_views(&mut self, now: Instant, views: Views) {
        self.views = self.of_now(views);
        let mesh = Mesh::plan(&self.config, self.own, &self.views);
        self.open_for_networks();
        // Mostly only somebody's being online has changed.
        if mesh != self.mesh {
            self.take_mesh(now, mesh);
        }
        self.host.follow(&self.mesh).await;
        if self.running == NodeState::Up {
            self.dns.follow(&self.views, &self.mesh, self.own).await;
        }
    }

    /// Views that were told before the node was last down: since then somebody may have been put out, so their networks have
    /// to be heard first.
    fn of_now(&self, mut views: Views) -> Views {
        if views.iter().any(|view| view.ready && view.downs != self.downs) {
            let old = |view: &mut NetworkView| view.ready &= view.downs == self.downs;
            Arc::make_mut(&mut views).iter_mut().for_each(old);
        }
        views
    }

    /// Whom sessions have to wait for after the node was down, or slept.
    pub(super) fn forget_who_is_ready(&mut self, now: Instant) {
        let views = std::mem::take(&mut self.views);
        self.views = self.of_now(views);
        self.take_mesh(now, Mesh::plan(&self.config, self.own, &self.views));
    }

    /// Makes everything but the host equal to the mesh.
    fn take_mesh(&mut self, now: Instant, mesh: Mesh) {
        for slot in self.peers.slots() {
            let gone = self.peers.get(slot).map(|peer| peer.id).filter(|id| !mesh.peers.contains_key(id));
            if let Some(id) = gone {
                let revoked = mesh.revoked.contains(&id);
                self.cut_off(slot, id, if revoked { CloseReason::Revoked } else { CloseReason::NotAdmitted });
            }
        }
        let not_ready = mesh.peers.iter().filter(|(_, peer)| !peer.ready).map(|(&id, _)| id);
        let by_network = mesh.peers.iter().filter(|(_, peer)| !peer.pinned).map(|(&id, _)| id);
        let revoked = mesh.revoked.iter().copied().collect();
        self.context.door.set_members(revoked, not_ready.collect(), by_network.collect());
        // Routes before slots: a session may begin as soon as its peer has one.
        let new = self.update_peers(now, &mesh);
        self.set_routes(&mesh);
        for (id, slot) in new {
            self.context.slots.insert(id, slot);
        }
        self.addresses.set(mesh.own.clone());
        self.mesh = mesh;
    }

    /// Ends everything with a peer: no session can be made, none carries a packet, its links are closed, and nothing of
    /// it is remembered.
    fn cut_off(&mut self, slot: PeerSlot, id: PeerId, reason: CloseReason) {
        tracing::info!(peer = %self.peers.label(slot), "no peer any more: cut off");
        self.context.slots.remove(&id);
        // Before nothing can be said any more.
        self.say_end(slot, reason);
        let reached = self.reached_at(slot);
        self.control.remove_peer(slot);
        if !reached.is_empty() {
            self.rounds.untold.add_put_out(id, reached);
            self.tell_discovery();
        }
        self.close_peer(slot, reason);
        self.fail_pings(slot, "it is in no network with this node any more");
        self.peers.remove(slot);
        self.context.forget(id);
    }

    /// Where a peer was reached: where packets go, and where its link was, which may be long ago.
    fn reached_at(&self, slot: PeerSlot) -> Vec<SocketAddr> {
        let Some(peer) = self.peers.get(slot) else { return Vec::new() };
        let link = peer.sessions.last().and_then(|id| self.live.get(id)).map(Live::remote);
        places(peer.paths.reachable(), link)
    }

    /// Takes over what is said of each peer; gives the new ones, who have no slot in the shared map yet.
    fn update_peers(&mut self, now: Instant, mesh: &Mesh) -> Vec<(PeerId, PeerSlot)> {
        let mut new = Vec::new();
        for (&id, plan) in &mesh.peers {
            match self.peers.of(&id).and_then(|slot| self.peers.get_mut(slot)) {
                Some(peer) => update(now, peer, plan),
                None => {
                    let life = PeerLife::new(plan.keepalive, entropy::u64());
                    let paths = Paths::new(self.own < id, &entropy::bytes());
                    let sizes = entropy::bytes();
                    let added = self.peers.add(|slot| {
                        let mut peer = Peer::new(id, slot, life, paths);
                        peer.mtu = Mtu::new(&sizes);
                        peer.take(plan);
                        peer
                    });
                    new.extend(added.map(|slot| (id, slot)));
                }
            }
        }
        new
    }

    fn set_routes(&self, mesh: &Mesh) {
        let of_peer = |peer: &Peer| peer.prefixes.iter().map(|&prefix| (prefix, peer.slot)).collect::<Vec<_>>();
        let routes = self.peers.iter().flat_map(of_peer).collect();
        match &mesh.realms {
            Some(realms) => self.control.set_routes_in_realms(routes, realms.clone()),
            None => self.control.set_routes(routes),
        }
    }
}

fn places(path: Option<SocketAddr>, link: Option<SocketAddr>) -> Vec<SocketAddr> {
    path.into_iter().chain(link.filter(|_| link != path)).collect()
}

fn update(now: Instant, peer: &mut Peer, plan: &MeshPeer) {
    // A dial under way knows the old endpoints only; the next one takes the new ones.
    let news = (plan.ready && !peer.ready) || plan.endpoints.iter().any(|endpoint| !peer.endpoints.contains(endpoint));
    peer.take(plan);
    peer.life.set_keepalive(plan.keepalive);
    if news {
        peer.life.on_obstacle_gone(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_put_out_is_told_where_it_is_and_where_it_was() {
        let [here, there] = [1, 2].map(|port| SocketAddr::from(([203, 0, 113, 1], port)));
        for (path, link, at) in [
            (Some(here), Some(there), vec![here, there]),
            (Some(here), Some(here), vec![here]),
            (None, Some(there), vec![there]),
            (None, None, vec![]),
        ] {
            assert_eq!(places(path, link), at);
        }
    }
}
