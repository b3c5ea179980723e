// SPDX-License-Identifier: MIT OR Apache-2.0
//! Maps the node's snapshot to the JSON model; the only place that knows both.

use std::{collections::BTreeMap, time::Duration};

use data_encoding::HEXLOWER;
use pqvpn_node::{
    handle::{self, RotationReport},
    link::EndpointStats,
    membership::RotatedNetwork,
    snapshot,
};
use pqvpn_wire::dht::NetworkId;

use super::{
    Health, HealthLevel, Links, Network, NetworkName, NodeState, Path, PathKind, Peer, PeerCounts, PeerState, Peers,
    Ping, Rotated, RotatedIn, SUITE, Session, SetOutcome, Status, VERIFIED_WITHIN,
};
use crate::SCHEMA;

/// Reasons `cli.md` promises, present even while a node does not report them.
const PROMISED_DROPS: [&str; 5] = ["replay", "auth", "policy", "no_session", "spoof"];

impl From<RotationReport> for Rotated {
    fn from(report: RotationReport) -> Self {
        Self {
            schema: SCHEMA,
            old_peer_id: report.old.to_string(),
            peer_id: report.new.to_string(),
            fingerprint: report.fingerprint,
            addresses: report.addresses,
            networks: report.networks.into_iter().map(RotatedIn::from).collect(),
        }
    }
}

impl From<RotatedNetwork> for RotatedIn {
    fn from(network: RotatedNetwork) -> Self {
        let RotatedNetwork { network, name, told, others, admin, invites } = network;
        Self { network, name, told, others, admin, void_invites: invites }
    }
}

impl From<snapshot::Snapshot> for Status {
    fn from(node: snapshot::Snapshot) -> Self {
        let mut drops: BTreeMap<String, u64> = PROMISED_DROPS.iter().map(|reason| ((*reason).into(), 0)).collect();
        drops.extend(node.drops.into_iter().map(|(reason, count)| (reason.to_owned(), count)));
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            peer_id: node.peer_id.to_string(),
            name: node.name,
            state: node.state.into(),
            addresses: node.addresses,
            interface: node.interface,
            listen: node.listen,
            networks: node.networks.into_iter().map(Network::from).collect(),
            peers: node.peers.into_iter().map(Peer::from).collect(),
            drops,
            health: node.health.into_iter().map(Health::from).collect(),
            uptime_s: node.uptime.as_secs(),
            port_mapping: node.port_mapping.into(),
            links: node.links.into(),
            lost_events: node.lost_events,
            confinement: None,
            tasks: 0,
            allocated_bytes: None,
        }
    }
}

impl From<snapshot::Snapshot> for Peers {
    fn from(node: snapshot::Snapshot) -> Self {
        Self { schema: SCHEMA, peers: node.peers.into_iter().map(Peer::from).collect() }
    }
}

impl From<snapshot::PeerSnapshot> for Peer {
    fn from(peer: snapshot::PeerSnapshot) -> Self {
        Self {
            peer_id: peer.peer_id.to_string(),
            name: peer.name,
            addresses: peer.addresses,
            state: proven_state(peer.state, peer.verified_age),
            verified_age_s: peer.verified_age.map(|age| rounded(age.as_secs_f64(), 10.0)),
            path: peer.path.map(Path::from),
            session: peer.session.map(Session::from),
            tx_bytes: peer.tx_bytes,
            rx_bytes: peer.rx_bytes,
            tx_packets: peer.tx_packets,
            rx_packets: peer.rx_packets,
            last_error: peer.last_error,
            pinned: peer.pinned,
            networks: peer.networks.into_iter().map(|(network, name)| NetworkName { network, name }).collect(),
            counts: peer.counts.into(),
        }
    }
}

impl From<snapshot::PeerCounts> for PeerCounts {
    fn from(counts: snapshot::PeerCounts) -> Self {
        let snapshot::PeerCounts { sessions, dials_failed, rekeys, path_changes, failovers } = counts;
        Self { sessions, dials_failed, rekeys, path_changes, failovers }
    }
}

impl From<snapshot::LinksSnapshot> for Links {
    fn from(links: snapshot::LinksSnapshot) -> Self {
        let EndpointStats { dialed, accepted, failed, retried, ignored, displaced, withheld, unfinished, open, .. } =
            links.endpoint;
        let refused = links.refused;
        Self { dialed, accepted, failed, refused, retried, ignored, displaced, withheld, open, unfinished }
    }
}

impl From<snapshot::NetworkSnapshot> for Network {
    fn from(network: snapshot::NetworkSnapshot) -> Self {
        let count = |members: usize| u32::try_from(members).unwrap_or(u32::MAX);
        Self {
            name: network.name,
            id: network_id(&network.id),
            members: count(network.members),
            online: count(network.online),
            own_name: network.own_name,
            enabled: network.enabled,
            ready: network.ready,
        }
    }
}

/// `verified` is shown only with the proof at hand: a round trip younger than [`VERIFIED_WITHIN`].
fn proven_state(state: snapshot::PeerState, verified_age: Option<Duration>) -> PeerState {
    match state {
        snapshot::PeerState::Verified if verified_age.is_some_and(|age| age < VERIFIED_WITHIN) => PeerState::Verified,
        snapshot::PeerState::Verified | snapshot::PeerState::Stale => PeerState::Stale,
        snapshot::PeerState::Connecting => PeerState::Connecting,
        snapshot::PeerState::Idle => PeerState::Idle,
        snapshot::PeerState::Refused => PeerState::Refused,
    }
}

impl From<snapshot::PathSnapshot> for Path {
    fn from(path: snapshot::PathSnapshot) -> Self {
        Self {
            kind: path.kind.into(),
            remote: path.remote,
            via: path.via,
            carrier: path.carrier.to_owned(),
            why: path.why,
            rtt_ms: path.rtt.map(millis),
            jitter_ms: path.jitter.map(millis),
            loss: rounded(path.loss, 1000.0),
            tx_rate: rounded(path.rates[0], 1.0),
            rx_rate: rounded(path.rates[1], 1.0),
            mtu: path.mtu,
            mtu_holes: path.holes,
        }
    }
}

impl From<snapshot::PathKind> for PathKind {
    fn from(kind: snapshot::PathKind) -> Self {
        match kind {
            snapshot::PathKind::Direct => Self::Direct,
            snapshot::PathKind::Relay => Self::Relay,
        }
    }
}

impl From<snapshot::SessionSnapshot> for Session {
    fn from(session: snapshot::SessionSnapshot) -> Self {
        Self {
            suite: SUITE.into(),
            aead: session.aead.name().into(),
            epoch: session.epoch,
            phase: session.phase,
            rekey_age_s: session.rekey_age.as_secs(),
            handshake_ms: millis(session.handshake),
            link_asleep: session.link_asleep,
        }
    }
}

impl From<snapshot::NodeState> for NodeState {
    fn from(state: snapshot::NodeState) -> Self {
        match state {
            snapshot::NodeState::Starting => Self::Starting,
            snapshot::NodeState::Up => Self::Up,
            snapshot::NodeState::Down => Self::Down,
        }
    }
}

impl From<snapshot::HealthItem> for Health {
    fn from(item: snapshot::HealthItem) -> Self {
        let level = match item.level {
            snapshot::HealthLevel::Info => HealthLevel::Info,
            snapshot::HealthLevel::Warn => HealthLevel::Warn,
            snapshot::HealthLevel::Error => HealthLevel::Error,
        };
        Self { level, code: item.code.into(), text: item.text }
    }
}

impl From<handle::PingReply> for Ping {
    fn from(reply: handle::PingReply) -> Self {
        Self {
            schema: SCHEMA,
            peer_id: reply.peer_id.to_string(),
            name: reply.name,
            rtt_ms: millis(reply.rtt),
            kind: reply.kind.into(),
            remote: reply.remote,
            via: reply.via,
            why: reply.why,
        }
    }
}

impl From<handle::SetOutcome> for SetOutcome {
    fn from(outcome: handle::SetOutcome) -> Self {
        match outcome {
            handle::SetOutcome::Applied => Self::Applied,
            handle::SetOutcome::AfterRestart => Self::AfterRestart,
        }
    }
}

/// Id of a network in hex digits.
pub(super) fn network_id(id: &NetworkId) -> String {
    HEXLOWER.encode(id.as_bytes())
}

/// Milliseconds with microsecond resolution.
pub(super) fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1000.0, 1000.0)
}

pub(crate) fn rounded(value: f64, steps_per_unit: f64) -> f64 {
    (value * steps_per_unit).round() / steps_per_unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verified_without_a_recent_round_trip_is_shown_as_stale() {
        use snapshot::PeerState as Node;
        assert_eq!(proven_state(Node::Verified, Some(Duration::from_secs(29))), PeerState::Verified);
        assert_eq!(proven_state(Node::Verified, Some(VERIFIED_WITHIN)), PeerState::Stale);
        assert_eq!(proven_state(Node::Verified, None), PeerState::Stale);
    }

    #[test]
    fn milliseconds_keep_three_digits() {
        assert_eq!(millis(Duration::from_nanos(11_234_567)).to_string(), "11.235");
    }
}
