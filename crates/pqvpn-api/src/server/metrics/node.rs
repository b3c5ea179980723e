// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of the node as a whole.

use super::{Figures, number};
use crate::model::{HealthLevel, NodeState, PeerState, Status};

pub(super) fn tell(figures: &mut Figures, status: &Status) {
    identity(figures, status);
    let peers = |(name, state): (&str, PeerState)| {
        let count = status.peers.iter().filter(|peer| peer.state == state).count();
        (vec![("state", name.to_owned())], super::size(count))
    };
    figures.gauges("pqvpn_peers", "Peers by connection state.", STATES.map(peers));
    figures.counters(
        "pqvpn_dropped_packets_total",
        "Packets, and what came in them, that were dropped, by reason.",
        status.drops.iter().map(|(reason, count)| (vec![("reason", reason.clone())], *count)),
    );
    let health = |(name, level): (&str, HealthLevel)| {
        let count = status.health.iter().filter(|item| item.level == level).count();
        (vec![("level", name.to_owned())], super::size(count))
    };
    figures.gauges(
        "pqvpn_health_items",
        "What an operator should know, by level; `status` has the words.",
        LEVELS.map(health),
    );
    figures.counter(
        "pqvpn_lost_events_total",
        "Events of the packet threads the control side was too slow for.",
        status.lost_events,
    );
    figures.gauge(
        "pqvpn_port_mapped",
        "Whether a router forwards a port to this node.",
        f64::from(status.port_mapping.state == "mapped"),
    );
    links(figures, status);
    networks(figures, status);
}

const STATES: [(&str, PeerState); 5] = [
    ("verified", PeerState::Verified),
    ("stale", PeerState::Stale),
    ("connecting", PeerState::Connecting),
    ("idle", PeerState::Idle),
    ("refused", PeerState::Refused),
];

const LEVELS: [(&str, HealthLevel); 3] =
    [("info", HealthLevel::Info), ("warn", HealthLevel::Warn), ("error", HealthLevel::Error)];

fn identity(figures: &mut Figures, status: &Status) {
    figures.gauges("pqvpn_build_info", "The program.", [(vec![("version", status.version.clone())], 1.0)]);
    figures.gauges(
        "pqvpn_node_info",
        "This node.",
        [(vec![("peer_id", status.peer_id.clone()), ("name", status.name.clone())], 1.0)],
    );
    figures.gauge("pqvpn_node_up", "Whether the node carries traffic.", f64::from(status.state == NodeState::Up));
    figures.gauge("pqvpn_tasks", "Tasks of the control side that have not ended.", super::size(status.tasks));
    if let Some(bytes) = status.allocated_bytes {
        figures.gauge("pqvpn_allocated_bytes", "Memory asked for and not given back.", number(bytes));
    }
    figures.gauge("pqvpn_uptime_seconds", "Time since the daemon started.", number(status.uptime_s));
}

fn links(figures: &mut Figures, status: &Status) {
    let links = &status.links;
    for (name, help, count) in [
        ("pqvpn_link_dials_total", "Handshakes of links begun as the dialer.", links.dialed),
        ("pqvpn_link_accepts_total", "Handshakes of others that succeeded.", links.accepted),
        ("pqvpn_link_accept_failures_total", "Handshakes of others that failed.", links.failed),
        ("pqvpn_link_refusals_total", "Links of others that were refused, or that no session came of.", links.refused),
        ("pqvpn_link_retries_total", "First packets answered with a Retry instead of state.", links.retried),
        ("pqvpn_link_ignored_total", "First packets answered with silence.", links.ignored),
        ("pqvpn_link_displaced_total", "Unfinished handshakes that had to make room.", links.displaced),
        ("pqvpn_link_withheld_total", "Sends cut short that unproven addresses were not entitled to.", links.withheld),
    ] {
        figures.counter(name, help, count);
    }
    figures.gauge("pqvpn_links_open", "Links and handshakes that hold state.", super::size(links.open));
    figures.gauge("pqvpn_link_handshakes_unfinished", "Handshakes of others under way.", super::size(links.unfinished));
}

fn networks(figures: &mut Figures, status: &Status) {
    let each = |of: fn(&crate::model::Network) -> f64| {
        status.networks.iter().map(move |network| (vec![("network", network.name.clone())], of(network)))
    };
    figures.gauges(
        "pqvpn_network_members",
        "Members of a network, this node included.",
        each(|network| f64::from(network.members)),
    );
    figures.gauges(
        "pqvpn_network_members_online",
        "Members of a network that are online, this node included.",
        each(|network| f64::from(network.online)),
    );
    figures.gauges(
        "pqvpn_network_ready",
        "Whether the newest statements of a network have been heard since the start.",
        each(|network| f64::from(network.ready)),
    );
}
