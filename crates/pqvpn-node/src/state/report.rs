// SPDX-License-Identifier: MIT OR Apache-2.0
//! Snapshots and health in the state task.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::DropReason;

use super::{
    State,
    peer::{Counts, Peer},
};
use crate::{
    carrier::{Rung, is_by_member},
    dht,
    life::VERIFIED_WITHIN,
    membership::NetworkView,
    path::Moves,
    snapshot::{
        HealthItem, HealthLevel, LinksSnapshot, NetworkSnapshot, NodeState, PathKind, PathSnapshot, PeerCounts,
        PeerSnapshot, PeerState, SessionSnapshot, Snapshot,
    },
};

/// Sessions that went to another are told of for so long.
const TAKEN_TOLD: Duration = Duration::from_secs(3600);

impl State {
    pub(super) fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            peer_id: self.own,
            name: self.name.clone(),
            state: self.running,
            addresses: self.host.addresses(),
            interface: self.host.interface.clone(),
            listen: self.underlay.listen.clone(),
            networks: self.views.iter().map(|view| self.network_snapshot(view)).collect(),
            peers: self.peers.iter().map(|peer| self.peer_snapshot(now, peer)).collect(),
            drops: self.drops(),
            health: self.health(now),
            uptime: now.saturating_duration_since(self.started),
            port_mapping: self.mapped.report(now),
            links: LinksSnapshot { endpoint: self.context.endpoint.stats(), refused: self.refused.links },
            lost_events: self.overflow.lost(),
        }
    }

    /// What the packet threads dropped, with what only the QUIC endpoint could tell to be garbage.
    fn drops(&self) -> Vec<(&'static str, u64)> {
        let strangers = self.context.endpoint.stats().strangers;
        let counted = |(reason, count): (DropReason, u64)| {
            (reason.name(), if reason == DropReason::Garbage { count + strangers } else { count })
        };
        let mut all: Vec<_> = self.control.drops().iter().map(counted).collect();
        all.extend([("candidate", self.refused.candidates), ("stray_answer", self.refused.answers)]);
        all
    }

    fn peer_snapshot(&self, now: Instant, peer: &Peer) -> PeerSnapshot {
        let stats = self.control.peer_stats(peer.slot);
        let verified_age = peer.life.verified_age(now);
        let state = match verified_age {
            _ if peer.quarantined => PeerState::Refused,
            Some(age) if peer.life.is_up() && age < VERIFIED_WITHIN => PeerState::Verified,
            _ if peer.life.is_up() => PeerState::Stale,
            _ if peer.life.is_dialing() => PeerState::Connecting,
            _ if peer.life.is_refused() => PeerState::Refused,
            _ => PeerState::Idle,
        };
        let session = peer.sessions.last().and_then(|id| Some((*id, self.live.get(id)?)));
        PeerSnapshot {
            peer_id: peer.id,
            name: peer.name.clone(),
            pinned: peer.pinned,
            networks: peer.names.clone(),
            addresses: peer.addresses.clone(),
            state,
            verified_age,
            path: session.and_then(|(_, live)| {
                let at = peer.last_remote?;
                let (kind, remote, via) = self.seen_path(at);
                Some(PathSnapshot {
                    kind,
                    remote,
                    via,
                    carrier: self.carrier(at).name(),
                    why: self.why(now, peer, at),
                    rtt: peer.life.rtt(),
                    jitter: peer.quality.jitter(),
                    loss: peer.life.loss(),
                    rates: peer.quality.rates(now, [stats.tx_bytes, stats.rx_bytes]),
                    mtu: peer.mtu.inner().map_or(live.inner_mtu, |mtu| mtu.min(live.inner_mtu)),
                    holes: peer.mtu.holes(),
                })
            }),
            session: session.map(|(id, live)| {
                let info = self.control.session_info(id);
                SessionSnapshot {
                    aead: live.aead,
                    epoch: info.map_or(0, |info| info.epoch),
                    phase: info.map_or(0, |info| info.phase),
                    rekey_age: now.saturating_duration_since(live.rekeyed),
                    handshake: live.handshake,
                    link_asleep: live.link.is_none(),
                }
            }),
            tx_bytes: stats.tx_bytes,
            rx_bytes: stats.rx_bytes,
            tx_packets: stats.tx_packets,
            rx_packets: stats.rx_packets,
            last_error: peer.last_error.clone(),
            counts: counts(peer),
        }
    }

    /// What carries to an address, or to the relay before it.
    pub(super) fn carrier(&self, at: SocketAddr) -> Rung {
        self.carriers.rung(self.context.networks.via(at).map_or(at, |(_, relay_at)| relay_at))
    }

    /// A path as people see it: kind, address, through whom.
    pub(super) fn seen_path(&self, at: SocketAddr) -> (PathKind, SocketAddr, Option<String>) {
        let place = |at| self.carriers.place(at).map_or(at, |place| place.at);
        if !is_by_member(at) {
            return (PathKind::Direct, place(at), None);
        }
        let via = self.context.networks.via(at);
        let name =
            via.map(|(relay, _)| self.peers.of(&relay).map_or_else(|| relay.short(), |slot| self.peers.label(slot)));
        (PathKind::Relay, via.map_or(at, |(_, relay_at)| place(relay_at)), name)
    }

    fn network_snapshot(&self, view: &NetworkView) -> NetworkSnapshot {
        let up = self.running == NodeState::Up && view.enabled;
        // Who has a session with us is there, whatever the gossip has heard.
        let has_session = |member: &PeerId| {
            let peer = self.peers.of(member).and_then(|slot| self.peers.get(slot));
            peer.is_some_and(|peer| !peer.sessions.is_empty())
        };
        let online = view.members.iter().filter(|member| member.online || has_session(&member.peer)).count();
        NetworkSnapshot {
            id: view.id,
            name: view.name.clone(),
            own_name: view.own.name.clone(),
            members: view.members.len() + 1,
            online: if up { online + 1 } else { 0 },
            enabled: view.enabled,
            ready: view.ready,
        }
    }

    fn health(&self, now: Instant) -> Vec<HealthItem> {
        let mut items = self.standing.clone();
        items.extend(self.mesh.collisions.iter().cloned());
        items.extend(self.twins.map(|(count, remote)| {
            let text = format!(
                "another node runs with this node's identity (links: {count}, the last from {remote}): stop one of them, \
                 or give it an identity of its own"
            );
            HealthItem { level: HealthLevel::Error, code: "identity-twice", text }
        }));
        // The word of a peer and no proof; a link or a record of the other is one.
        let taken = self.taken_over.is_some_and(|at| now.saturating_duration_since(at) < TAKEN_TOLD);
        if taken && self.twins.is_none() {
            let text = "peers end sessions of this node for others that it does not have: another daemon may use its identity; \
                        stop one of them, or give it an identity of its own"
                .to_owned();
            items.push(HealthItem { level: HealthLevel::Warn, code: "identity-twice", text });
        }
        items.extend(self.context.networks.health());
        items.extend(self.views.iter().flat_map(|view| view.health.iter().cloned()));
        items.extend(self.host.health());
        items.extend(self.dns.health());
        items.extend(self.listening.health());
        items.extend(self.context.dht.iter().flat_map(dht::Port::health));
        let lost = self.overflow.lost();
        if lost > 0 {
            let text = format!("{lost} events of the packet threads were lost: the control side was too slow");
            items.push(HealthItem { level: HealthLevel::Warn, code: "events-lost", text });
        }
        for peer in self.peers.iter().filter(|peer| peer.quarantined) {
            let text =
                format!("{}: the ratchet failed twice within a day; `pqvpn up` lifts the quarantine", peer.label());
            items.push(HealthItem { level: HealthLevel::Error, code: "ratchet-quarantine", text });
        }
        for peer in self.peers.iter().filter(|peer| peer.pinned) {
            let dht = self.context.dht.as_ref();
            let Some(successor) = dht.and_then(|dht| dht.successor(&peer.id)) else { continue };
            // Whom to trust is for the config to say: a thief of the old key could have signed this as well.
            let text = format!(
                "{} rotated its key: ask whoever runs it, then write id = \"{successor}\" into its [[peers]]",
                peer.label()
            );
            items.push(HealthItem { level: HealthLevel::Warn, code: "peer-rotated", text });
        }
        for live in self.live.values().filter(|live| live.continuity_lost) {
            let peer = self.peers.label(live.slot);
            let text =
                format!("{peer} does not remember the earlier session; it was restarted, or it is not who it was");
            items.push(HealthItem { level: HealthLevel::Info, code: "continuity-lost", text });
        }
        items.sort_by_key(|item| std::cmp::Reverse(item.level));
        items
    }

    pub(super) fn on_failed(&mut self, what: &'static str, error: &io::Error) {
        tracing::error!(what, %error, "a packet thread ended");
        let text = format!("the {what} packet thread ended: {error}; restart the daemon");
        self.standing.push(HealthItem { level: HealthLevel::Error, code: "packet-thread", text });
    }
}

fn counts(peer: &Peer) -> PeerCounts {
    let (Counts { sessions, dials_failed, rekeys }, Moves { changes, failovers }) = (peer.counts, peer.paths.moves());
    PeerCounts { sessions, dials_failed, rekeys, path_changes: changes, failovers }
}
