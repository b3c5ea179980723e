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
    blocking::spawn,
    carrier::{Rung, is_carried},
    dht::{dialable, realm},
    host::watch::News,
    membership,
    path::{Action, Relayed, Told, is_relayed, sift},
    session::{self, LinkEvent, Wanted},
};

/// How far an opener goes: past one router. Behind two it opens only the nearer; the outer one belongs to a provider, who
/// does not let an early packet take ports away, while one hop more would reach the router of a peer close by.
pub(super) const OPENER_HOPS: u8 = 2;

impl State {
    /// Does what the machine of a peer's paths asks for.
    pub(super) fn act_on_path(&mut self, now: Instant, slot: PeerSlot, action: Action) {
        match action {
            Action::Tell { .. } if !self.may_try(now, slot) => {}
            Action::Tell { round, answer } => self.tell_candidates(now, slot, round, answer),
            Action::Open(to) => self.open_towards(now, slot, to),
            Action::Check { id, to } => {
                if let Err(error) = self.control.send_probe_to(slot, id, to, ProbeKind::Check, 0) {
                    tracing::trace!(%error, %to, peer = %self.peers.label(slot), "check not sent");
                }
            }
            Action::Use(at) => self.use_path(now, slot, at),
            Action::Link(at) => self.link_at(now, slot, at),
            Action::Relay => self.ask_for_way(slot),
            Action::Guess => self.guess(now, slot),
            Action::OpenSockets(to) => self.open_sockets(now, slot, to),
            Action::CheckFromAll { id, to } => self.check_from_all(slot, id, to),
        }
    }

    /// Whether a direct way may be tried: seldom where no UDP seems to pass.
    fn may_try(&mut self, now: Instant, slot: PeerSlot) -> bool {
        !self.carriers.is_hushed() || self.peers.get_mut(slot).is_some_and(|peer| peer.hush.lets(now))
    }

    /// Opens the router that is before us, if there is one: a packet that passes one router and is gone at the next.
    fn open_towards(&self, now: Instant, slot: PeerSlot, to: SocketAddr) {
        if !self.is_translated(now) {
            return;
        }
        if let Err(error) = self.control.send_opener(slot, None, to, OPENER_HOPS) {
            tracing::trace!(%error, %to, peer = %self.peers.label(slot), "opener not sent");
        }
    }

    /// Whether members see this host at an address that it does not have.
    pub(super) fn is_translated(&self, now: Instant) -> bool {
        let own = self.addresses_of_host();
        self.reflexive.addresses(now).iter().any(|seen| seen.is_ipv4() && !own.contains(seen))
    }

    fn addresses_of_host(&self) -> Vec<SocketAddr> {
        let listen = &self.underlay.listen;
        dialable(listen, realm(listen, true), &self.addresses.get())
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
        self.search_size(now, slot, at, true);
    }

    /// A link of its own where the path leads: the one by a relay ends with it.
    fn link_at(&mut self, now: Instant, slot: PeerSlot, at: SocketAddr) {
        if self.is_waking_at(now, slot, at) {
            return;
        }
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let wanted = Arc::clone(peer.link_wanted.get_or_insert_with(|| Arc::new(Wanted::new())));
        if wanted.wait() {
            tracing::debug!(peer = %peer.label(), %at, "a link where the path leads");
            spawn(session::dial_at(Arc::clone(&self.context), slot, peer.id, at, wanted));
        }
    }

    /// Asks for a way through another member; it comes as an event.
    fn ask_for_way(&self, slot: PeerSlot) {
        let Some(peer) = self.peers.get(slot) else { return };
        let (context, id) = (Arc::clone(&self.context), peer.id);
        spawn(async move {
            match context.networks.relay(id).await {
                Ok(way) => context.tell(LinkEvent::Way { slot, way }).await,
                Err(error) => tracing::debug!(peer = %id.short(), %error, "no way by a relay"),
            }
        });
    }

    /// What carries to an address, and why, where it is not UDP to the port of the peer.
    fn carried_because(&self, at: SocketAddr) -> Option<String> {
        let by = match self.carriers.rung(at) {
            Rung::Udp => return None,
            Rung::Quic => "quic (UDP port 443)",
            Rung::Wss => "wss (WebSocket over TLS, TCP port 443)",
        };
        Some(format!("{by}: UDP to its own port does not get through"))
    }

    fn tell_candidates(&mut self, now: Instant, slot: PeerSlot, round: u32, answer: bool) {
        let Some(peer) = self.peers.get(slot) else { return };
        let Some(id) = peer.sessions.last().copied() else { return };
        let candidates =
            Candidates { round, answer, varies: self.reflexive.varies(now), addresses: self.own_candidates(now) };
        let wakes = peer.paths.wakes_link();
        let Some(live) = self.live.get_mut(&id) else { return };
        live.sleep.on_spoken(now);
        let Some(link) = &live.link else {
            if wakes {
                // The session that comes with the new link tells them again.
                self.want_link(now, id);
            }
            return;
        };
        // A full outbox belongs to a link that is stuck; the next try tells again.
        if link.outbox.try_send(Message::Candidates(candidates)).is_err() {
            tracing::debug!(peer = %self.peers.label(slot), "candidates not told");
        }
    }

    /// Why packets to a peer go where they go, and what would make that better.
    pub(super) fn why(&self, now: Instant, peer: &Peer, at: SocketAddr) -> String {
        if is_carried(at) {
            return self.carried_because(at).unwrap_or_default();
        }
        if !is_relayed(at) {
            return peer.why.clone();
        }
        let by = self.context.networks.via(at).and_then(|(_, relay_at)| self.carried_because(relay_at));
        if let Some(by) = by {
            return format!("the relay is reached by {by}");
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

    /// UDP gets out again: direct ways have a chance.
    pub(super) fn on_udp_back(&mut self, now: Instant) {
        for peer in self.peers.iter_mut() {
            peer.paths.try_now(now);
        }
    }

    /// The router forwards another port than before, or none any more.
    pub(super) fn on_mapping(&mut self, now: Instant) {
        if self.mapped.external().is_none() {
            return;
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.last_remote.is_some_and(is_relayed)) {
            peer.paths.try_now(now);
        }
    }

    /// Where this node may be reached: what its router forwards, its interfaces, and where members see it.
    fn own_candidates(&self, now: Instant) -> Vec<SocketAddr> {
        let mut all: Vec<SocketAddr> = self.mapped.external().into_iter().collect();
        all.extend(self.reflexive.addresses(now));
        all.extend(self.addresses_of_host());
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
        let Some(live) = self.live.get_mut(&session) else { return };
        live.sleep.on_heard(now);
        let slot = live.slot;
        let is_hushed = self.carriers.is_hushed();
        if is_hushed && !self.peers.get_mut(slot).is_some_and(|peer| peer.hush.lets_in(now)) {
            return;
        }
        // Before everybody's addresses are gone through for it.
        if let Some(peer) = self.peers.get(slot).filter(|peer| peer.paths.has_told_enough(now)) {
            self.refused.candidates += candidates.addresses.len() as u64;
            return tracing::debug!(peer = %peer.label(), "candidates told too often");
        }
        let lab = self.underlay.listen.iter().all(|at| at.ip().is_loopback());
        let sifted = sift(&candidates.addresses, lab, |ip| self.is_inside(ip));
        self.refused.candidates += sifted.refused;
        let rtt = self.live.get(&session).and_then(|live| Some(live.link.as_ref()?.connection.rtt()));
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Candidates { round, answer, varies, .. } = *candidates;
        peer.varies = Some(varies);
        let _taken = peer.paths.on_told(now, Told { round, answer, varies, rtt }, &sifted.usable);
    }

    /// Whether packets to an address go into the tunnel, so that a path must not lead there: it would lead into itself.
    pub(super) fn is_inside(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let stays = self.host.is_connected(ip);
        self.addresses.get().contains(&ip) || self.peers.iter().any(|peer| peer.leads_in(ip, stays))
    }

    /// A way through another member is there.
    pub(super) fn on_way(&mut self, now: Instant, slot: PeerSlot, way: SocketAddr) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.paths.on_way(now, way);
        }
    }

    /// Something has changed the host: it is made as planned again before anything else is.
    pub(super) fn on_host_news(&mut self, now: Instant, news: News) {
        self.control.set_stale_sources(self.host.sources.stale());
        if news.host {
            self.host.on_news(now);
        }
        if news.network {
            self.on_network_change(now);
        }
    }

    /// The host has another address or another way out: every path is in doubt, and what members saw was another place.
    pub(super) fn on_network_change(&mut self, now: Instant) {
        tracing::info!("the network has changed: every path is looked at anew");
        self.reflexive.forget();
        self.portmap.nudge();
        let (carriers, interface) = (self.carriers.clone(), self.host.interface.clone());
        spawn(async move { carriers.look_around(interface.as_deref(), true).await });
        let _told_by_its_own_look = self.context.networks.order(membership::Order::NetworkChanged);
        if let Some(dht) = &self.context.dht {
            let _votes_come_in_any_case = dht.order(crate::dht::Order::NetworkChanged);
        }
        for peer in self.peers.iter_mut() {
            if !peer.life.is_up() {
                // What could not be reached from there may be reached from here.
                peer.life.on_obstacle_gone(now);
                continue;
            }
            // Who watches both networks cannot link them by the receiver index.
            self.control.rotate_indices(peer.slot);
            peer.life.probe(now);
            peer.paths.on_network(now);
            // The longest datagrams may be others here; the addresses of peers are those they were.
            peer.mtu.on_network(now);
        }
    }

    /// Says which ways are in use, so that they are kept.
    pub(super) fn hold_ways(&self, now: Instant) {
        // What carried to somebody whose session is over carries nothing.
        let in_use = self.peers.iter().filter(|peer| !peer.sessions.is_empty());
        let paths = in_use.filter_map(|peer| self.control.path(peer.slot));
        let links = self.live.values().filter_map(|live| Some(live.link.as_ref()?.connection.remote()));
        let ways: Vec<SocketAddr> = paths.chain(links).filter(|at| is_relayed(*at)).collect();
        if ways.is_empty() {
            return;
        }
        ways.iter().for_each(|&way| self.carriers.prove(now, way));
        let _next_time = self.context.networks.order(membership::Order::Hold(ways));
    }
}
