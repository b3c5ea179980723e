// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of peers and paths: of those there is a session with, so that what is over does not stay.

use super::{Figures, Labels, number, seconds, size};
use crate::model::{MetricKind, Path, PathKind, Peer, PeerState, Session};

/// Peers with figures of their own; the rest is counted.
pub(in crate::server) const MOST: usize = 1000;

/// A figure of one of `T`: kind, name, what it says, where it is.
type Figure<T> = (MetricKind, &'static str, &'static str, fn(&T) -> Option<f64>);

use MetricKind::{Counter, Gauge};

const OF_PATHS: [Figure<Path>; 6] = [
    (Gauge, "pqvpn_path_rtt_seconds", "Smoothed round trip inside the tunnel.", |path| path.rtt_ms.map(seconds)),
    (Gauge, "pqvpn_path_jitter_seconds", "Smoothed difference of one round trip to the next.", |path| {
        path.jitter_ms.map(seconds)
    }),
    (Gauge, "pqvpn_path_loss_ratio", "Share of probes lost, 0 to 1.", |path| Some(path.loss)),
    (Gauge, "pqvpn_path_transmit_bytes_per_second", "Delivery rate out, smoothed.", |path| Some(path.tx_rate)),
    (Gauge, "pqvpn_path_receive_bytes_per_second", "Delivery rate in, smoothed.", |path| Some(path.rx_rate)),
    (Gauge, "pqvpn_path_mtu_bytes", "Longest inner packet that goes whole.", |path| Some(f64::from(path.mtu))),
];

const OF_SESSIONS: [Figure<Session>; 4] = [
    (Gauge, "pqvpn_session_epoch", "Epoch of the post-quantum ratchet.", |session| Some(f64::from(session.epoch))),
    (Gauge, "pqvpn_session_phase", "Hash phase inside the epoch.", |session| Some(f64::from(session.phase))),
    (Gauge, "pqvpn_session_rekey_age_seconds", "Time since the last ratchet step or handshake.", |session| {
        Some(number(session.rekey_age_s))
    }),
    (Gauge, "pqvpn_session_handshake_seconds", "How long the handshake of the link took.", |session| {
        Some(seconds(session.handshake_ms))
    }),
];

const OF_PEERS: [Figure<Peer>; 12] = [
    (Gauge, "pqvpn_peer_verified", "Whether a round trip inside the tunnel succeeded less than 30 s ago.", |peer| {
        Some(f64::from(peer.state == PeerState::Verified))
    }),
    (Gauge, "pqvpn_peer_verified_age_seconds", "Time since the newest round trip inside the tunnel.", |peer| {
        peer.verified_age_s
    }),
    (Counter, "pqvpn_peer_transmit_bytes_total", "Bytes of tunnel datagrams sent.", |peer| Some(number(peer.tx_bytes))),
    (Counter, "pqvpn_peer_receive_bytes_total", "Bytes of authentic tunnel datagrams received.", |peer| {
        Some(number(peer.rx_bytes))
    }),
    (Counter, "pqvpn_peer_transmit_packets_total", "Tunnel datagrams sent.", |peer| Some(number(peer.tx_packets))),
    (Counter, "pqvpn_peer_receive_packets_total", "Authentic tunnel datagrams received.", |peer| {
        Some(number(peer.rx_packets))
    }),
    (Counter, "pqvpn_peer_sessions_total", "Handshakes that made a session, whoever dialed.", |peer| {
        Some(number(peer.counts.sessions))
    }),
    (Counter, "pqvpn_peer_dial_failures_total", "Dials that came to nothing.", |peer| {
        Some(number(peer.counts.dials_failed))
    }),
    (Counter, "pqvpn_peer_rekeys_total", "Steps of the post-quantum ratchet.", |peer| Some(number(peer.counts.rekeys))),
    (Counter, "pqvpn_peer_path_changes_total", "Changes of the path.", |peer| Some(number(peer.counts.path_changes))),
    (Counter, "pqvpn_peer_failovers_total", "Changes made because the path before had fallen silent.", |peer| {
        Some(number(peer.counts.failovers))
    }),
    (Counter, "pqvpn_peer_mtu_holes_total", "Times that long packets began to vanish on the way.", |peer| {
        peer.path.as_ref().map(|path| number(path.mtu_holes))
    }),
];

pub(super) fn tell(figures: &mut Figures, peers: &[Peer]) {
    let mut shown: Vec<&Peer> = peers.iter().filter(|peer| peer.session.is_some()).collect();
    let omitted = shown.len().saturating_sub(MOST);
    // Whose figures are left out shall not change with every look.
    shown.sort_by_key(|peer| &peer.peer_id);
    shown.truncate(MOST);
    figures.gauge(
        "pqvpn_peers_omitted",
        "Peers with a session but, being too many, without figures here.",
        size(omitted),
    );
    each(figures, &OF_PEERS, &shown, |peer| Some(peer));
    each(figures, &OF_SESSIONS, &shown, |peer| peer.session.as_ref());
    each(figures, &OF_PATHS, &shown, |peer| peer.path.as_ref());
    let ways = shown.iter().filter_map(|peer| {
        let (path, session) = (peer.path.as_ref()?, peer.session.as_ref()?);
        let mut labels = labels(peer);
        labels.push(("kind", kind(path.kind).to_owned()));
        labels.push(("carrier", path.carrier.clone()));
        labels.push(("cipher", session.aead.clone()));
        Some((labels, 1.0))
    });
    figures.gauges(
        "pqvpn_path_info",
        "What kind of path it is, what carries it, and what seals what goes there.",
        ways,
    );
}

fn each<T>(figures: &mut Figures, table: &[Figure<T>], peers: &[&Peer], part: fn(&Peer) -> Option<&T>) {
    for (kind, name, help, of) in table {
        let samples = peers.iter().filter_map(|peer| Some((labels(peer), of(part(peer)?)?)));
        figures.family(*kind, name, help, samples);
    }
}

fn labels(peer: &Peer) -> Labels {
    vec![("peer_id", peer.peer_id.clone()), ("name", peer.name.clone())]
}

const fn kind(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
        PathKind::Circuit => "circuit",
    }
}
