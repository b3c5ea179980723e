// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths in the state task: candidates told and taken, checks sent, the path changed, links made anew where it leads.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use pqvpn_dataplane::{PeerSlot, ProbeKind, SessionId};
use pqvpn_wire::control::{Candidates, MAX_CANDIDATES, Message};

use super::{State, peer::Peer};
use crate::{
    dht::{dialable, realm},
    path::{Action, Relayed, is_relayed, sift},
    session::{self, LinkEvent},
};

impl State {
    /// Does what the machine of a peer's paths asks for.
    pub(super) fn act_on_path(&mut self, now: Instant, slot: PeerSlot, action: Action) {
        match action {
            Action::Tell { round, answer } => self.tell_candidates(now, slot, round, answer),
            Action::Check { id, to } => {
                if let Err(error) = self.control.send_probe_to(slot, id, to, ProbeKind::Check, 0) {
                    tracing::trace!(%error, %to, peer = %self.peers.label(slot), "check not sent");
                }
            }
            Action::Use(at) => self.use_path(now, slot, at),
            Action::Link(at) => self.link_at(slot, at),
            Action::Relay => self.ask_for_way(slot),
        }
    }

    /// Packets go there from now; the probe says so to the peer.
    fn use_path(&mut self, now: Instant, slot: PeerSlot, at: SocketAddr) {
        self.control.set_path(slot, at);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        tracing::info!(peer = %peer.label(), relayed = is_relayed(at), "path changed");
        peer.why = if is_relayed(at) {
            peer.paths.why_relayed().to_owned()
        } else {
            "both ends sent to each other at once and met".to_owned()
        };
        peer.last_remote = Some(at);
        peer.life.probe(now);
    }

    /// A link of its own where the path leads: the one by a relay ends with it.
    fn link_at(&self, slot: PeerSlot, at: SocketAddr) {
        let Some(peer) = self.peers.get(slot) else { return };
        tracing::debug!(peer = %peer.label(), %at, "a link where the path leads");
        tokio::spawn(session::dial_at(Arc::clone(&self.context), slot, peer.id, at));
    }

    /// Asks for a way through another member; it comes as an event.
    fn ask_for_way(&self, slot: PeerSlot) {
        let Some(peer) = self.peers.get(slot) else { return };
        let (context, id) = (Arc::clone(&self.context), peer.id);
        tokio::spawn(async move {
            match context.networks.relay(id).await {
                Ok(way) => context.tell(LinkEvent::Way { slot, way }).await,
                Err(error) => tracing::debug!(peer = %id.short(), %error, "no way by a relay"),
            }
        });
    }

    fn tell_candidates(&self, now: Instant, slot: PeerSlot, round: u32, answer: bool) {
        let Some(peer) = self.peers.get(slot) else { return };
        let Some(live) = peer.sessions.last().and_then(|id| self.live.get(id)) else { return };
        let candidates =
            Candidates { round, answer, varies: self.reflexive.varies(now), addresses: self.own_candidates(now) };
        // A full outbox belongs to a link that is stuck; the next try tells again.
        if live.outbox.try_send(Message::Candidates(candidates)).is_err() {
            tracing::debug!(peer = %peer.label(), "candidates not told");
        }
    }

    /// Why packets to a peer go where they go, and what would make that better.
    pub(super) fn why(&self, now: Instant, peer: &Peer, at: SocketAddr) -> String {
        if !is_relayed(at) {
            return peer.why.clone();
        }
        let facts = Relayed {
            tried: peer.paths.has_failed(),
            ours_varies: self.reflexive.varies(now),
            theirs_varies: peer.varies,
            mapping: self.mapped.report(now).state,
            port: self.underlay.listen.iter().find(|at| at.is_ipv4()).map(SocketAddr::port),
        };
        facts.text()
    }

    /// The router forwards another port than before, or none any more.
    pub(super) fn on_mapping(&mut self, now: Instant) {
        if self.mapped.external().is_none() {
            return;
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.last_remote.is_some_and(is_relayed)) {
            peer.paths.on_network(now);
        }
    }

    /// Where this node may be reached: what its router forwards, its interfaces, and where members see it.
    fn own_candidates(&self, now: Instant) -> Vec<SocketAddr> {
        let listen = &self.underlay.listen;
        let mut all: Vec<SocketAddr> = self.mapped.external().into_iter().collect();
        all.extend(self.reflexive.addresses(now));
        all.extend(dialable(listen, realm(listen, true), &self.addresses.get()));
        let mut distinct: Vec<SocketAddr> = Vec::new();
        for at in all {
            if !distinct.contains(&at) && distinct.len() < MAX_CANDIDATES {
                distinct.push(at);
            }
        }
        distinct
    }

    /// The peer says where it may be reached.
    pub(super) fn on_candidates(&mut self, now: Instant, session: SessionId, candidates: &Candidates) {
        let Some(slot) = self.live.get(&session).map(|live| live.slot) else { return };
        let lab = self.underlay.listen.iter().all(|at| at.ip().is_loopback());
        let overlay = self.addresses.get();
        let peers_own: Vec<IpAddr> = self.peers.iter().flat_map(|peer| peer.addresses.iter().copied()).collect();
        let sifted = sift(&candidates.addresses, lab, |ip| overlay.contains(&ip) || peers_own.contains(&ip));
        self.candidates_refused += sifted.refused;
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.varies = Some(candidates.varies);
        if !peer.paths.on_told(now, candidates.round, candidates.answer, &sifted.usable) {
            self.candidates_refused += sifted.usable.len() as u64;
            tracing::debug!(peer = %peer.label(), "candidates told too often");
        }
    }

    /// A way through another member is there.
    pub(super) fn on_way(&mut self, now: Instant, slot: PeerSlot, way: SocketAddr) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.paths.on_way(now, way);
        }
    }

    /// Says which ways are in use, so that they are kept.
    pub(super) fn hold_ways(&self) {
        let paths = self.peers.iter().filter_map(|peer| self.control.path(peer.slot));
        let links = self.live.values().map(|live| live.connection.remote());
        for way in paths.chain(links).filter(|at| is_relayed(*at)) {
            let _next_time = self.context.networks.order(crate::membership::Order::Hold(way));
        }
    }
}
