// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the node shows of itself: plain values, taken at one moment, without any JSON in sight.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use pqvpn_crypto::{aead::AeadId, peer_id::PeerId};
use pqvpn_wire::dht::NetworkId;

use crate::{link::EndpointStats, netcheck::MappingReport};

/// The whole node at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Identity of this node.
    pub peer_id: PeerId,
    /// Name from the config.
    pub name: String,
    /// Whether the interface carries traffic.
    pub state: NodeState,
    /// Overlay addresses of this node, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// Name of the TUN interface, once it exists.
    pub interface: Option<String>,
    /// Underlay sockets the node listens on.
    pub listen: Vec<SocketAddr>,
    /// Every network of this node.
    pub networks: Vec<NetworkSnapshot>,
    /// Every peer: the pinned ones and the members of the networks.
    pub peers: Vec<PeerSnapshot>,
    /// Dropped packets by reason, every reason present.
    pub drops: Vec<(&'static str, u64)>,
    /// What an operator should know, worst first.
    pub health: Vec<HealthItem>,
    /// Since the node started.
    pub uptime: Duration,
    /// What the router of this network forwards to the node.
    pub port_mapping: MappingReport,
    /// Links since the node started.
    pub links: LinksSnapshot,
    /// Events of the packet threads that the control side was too slow for.
    pub lost_events: u64,
}

/// Links of every kind: of sessions, of networks, of the DHT.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinksSnapshot {
    /// What the endpoint counts.
    pub endpoint: EndpointStats,
    /// Incoming links that were refused, or that no session came of.
    pub refused: u64,
}

/// Whether the node carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// Starting: sockets and interface are being made.
    Starting,
    /// Carrying traffic.
    Up,
    /// Told to be down: no interface addresses, no sessions.
    Down,
}

/// One network at one moment.
#[derive(Debug, Clone)]
pub struct NetworkSnapshot {
    /// Which network it is.
    pub id: NetworkId,
    /// What people call it.
    pub name: String,
    /// What this node is called in it.
    pub own_name: String,
    /// How many members it has, this node included.
    pub members: usize,
    /// How many of them are online, this node included; none while the node or the network is down.
    pub online: usize,
    /// Whether it carries traffic, or would if the node were up.
    pub enabled: bool,
    /// Whether its newest statements have been heard since the start.
    pub ready: bool,
}

/// One peer at one moment.
#[derive(Debug, Clone)]
pub struct PeerSnapshot {
    /// Identity of the peer.
    pub peer_id: PeerId,
    /// Name from the config, or that of the first network.
    pub name: String,
    /// Whether the config names the peer.
    pub pinned: bool,
    /// Its names in networks: network, name.
    pub networks: Vec<(String, String)>,
    /// Overlay addresses of the peer, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// Connection state, proved by authenticated round trips only.
    pub state: PeerState,
    /// Age of the newest authenticated round trip inside the tunnel.
    pub verified_age: Option<Duration>,
    /// The path in use, when there is a session.
    pub path: Option<PathSnapshot>,
    /// The session in use.
    pub session: Option<SessionSnapshot>,
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// Inner packets sent.
    pub tx_packets: u64,
    /// Inner packets received.
    pub rx_packets: u64,
    /// Why the last attempt to connect failed, while that is current.
    pub last_error: Option<String>,
    /// What happened with it since it was first known.
    pub counts: PeerCounts,
}

/// What happened with a peer since it was first known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Sessions that came up: handshakes that succeeded, whoever dialed.
    pub sessions: u64,
    /// Dials that came to nothing.
    pub dials_failed: u64,
    /// Steps of the post-quantum ratchet.
    pub rekeys: u64,
    /// Changes of a session's path.
    pub path_changes: u64,
    /// Those made because the path before had fallen silent.
    pub failovers: u64,
}

/// Connection state of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// An authenticated round trip succeeded less than 30 s ago.
    Verified,
    /// There is a session, but no recent round trip.
    Stale,
    /// A link is being made.
    Connecting,
    /// Nothing to do: no session and nobody asked for one.
    Idle,
    /// The peer (or we) refused the link.
    Refused,
}

/// The way packets take to a peer.
#[derive(Debug, Clone)]
pub struct PathSnapshot {
    /// Whether packets go through another member.
    pub kind: PathKind,
    /// Underlay address packets go to; that of the relay where one is between.
    pub remote: SocketAddr,
    /// Through whom they go.
    pub via: Option<String>,
    /// What carries them there, or to the relay: `udp`, `quic` (UDP port 443) or `wss`.
    pub carrier: &'static str,
    /// Why this path and not a better one.
    pub why: String,
    /// Smoothed in-tunnel round-trip time.
    pub rtt: Option<Duration>,
    /// Smoothed difference of one round trip to the next, on this path.
    pub jitter: Option<Duration>,
    /// Share of probes lost, 0.0 to 1.0.
    pub loss: f64,
    /// Bytes a second sent and received, smoothed.
    pub rates: [f64; 2],
    /// Longest inner packet that goes whole; longer ones go in pieces.
    pub mtu: u16,
    /// Times that long packets began to vanish on the way to this peer.
    pub holes: u64,
}

/// What is between this node and a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// Nobody.
    Direct,
    /// Another member, who sees sealed packets only.
    Relay,
}

/// The session in use with a peer.
#[derive(Debug, Clone)]
pub struct SessionSnapshot {
    /// Data-plane AEAD.
    pub aead: AeadId,
    /// Asymmetric epoch of the ratchet.
    pub epoch: u32,
    /// Hash phase inside the epoch (sending direction).
    pub phase: u32,
    /// Since the last completed ratchet step or handshake.
    pub rekey_age: Duration,
    /// Duration of the handshake that made the link.
    pub handshake: Duration,
    /// Whether the link sleeps.
    pub link_asleep: bool,
}

/// Severity of a health item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthLevel {
    /// Worth knowing.
    Info,
    /// Something works less well than it should.
    Warn,
    /// Something does not work.
    Error,
}

/// One thing an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthItem {
    /// How bad it is.
    pub level: HealthLevel,
    /// Stable code for scripts, like `tun-missing`.
    pub code: &'static str,
    /// One line for people.
    pub text: String,
}
