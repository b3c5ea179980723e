// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `status` and `peers` answer.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A peer counts as verified this long after an authenticated round trip inside the tunnel, and no longer.
pub const VERIFIED_WITHIN: Duration = Duration::from_secs(30);

/// The whole node at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Schema number, 1.
    pub schema: u32,
    /// Version of the daemon.
    pub version: String,
    /// Identity of the node, 64 hex digits.
    pub peer_id: String,
    /// Name of the node.
    pub name: String,
    /// Whether the node carries traffic.
    pub state: NodeState,
    /// Overlay addresses, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// Name of the TUN interface, once there is one.
    pub interface: Option<String>,
    /// Underlay sockets.
    pub listen: Vec<SocketAddr>,
    /// Networks the node belongs to.
    pub networks: Vec<Network>,
    /// Every peer.
    pub peers: Vec<Peer>,
    /// Dropped packets by reason.
    pub drops: BTreeMap<String, u64>,
    /// What an operator should know, worst first.
    pub health: Vec<Health>,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// What the router of this network forwards to the node.
    #[serde(default)]
    pub port_mapping: super::PortMapping,
    /// Links since the node started.
    #[serde(default)]
    pub links: Links,
    /// Events of the packet threads that the control side was too slow for.
    #[serde(default)]
    pub lost_events: u64,
    /// What the daemon took away from itself; none where it is no daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    /// Tasks of the control side that have not ended.
    #[serde(default)]
    pub tasks: usize,
    /// Bytes that the daemon has asked the allocator for and not given back, and what its threads keep at hand, as far as the
    /// allocator tells; what is resident is more, by what lies between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated_bytes: Option<u64>,
}

/// How the daemon is confined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Capabilities it has, like `net_admin`.
    pub capabilities: Vec<String>,
    /// Whether it and its children see only the files they need (Landlock).
    pub files: bool,
    /// Whether packet threads make only the system calls of their loop (seccomp).
    pub packet_threads: bool,
    /// Whether no memory is ever swapped.
    pub memory: bool,
    /// What of it is not in force, and why.
    pub missing: Vec<String>,
}

/// Links of every kind since the node started: of sessions, of networks, of the DHT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// Handshakes begun as the dialer.
    pub dialed: u64,
    /// Handshakes of others that succeeded.
    pub accepted: u64,
    /// Handshakes of others that failed.
    pub failed: u64,
    /// Links of others that were refused, or that no session came of.
    pub refused: u64,
    /// First packets answered with a Retry instead of state.
    pub retried: u64,
    /// First packets answered with silence: too many.
    pub ignored: u64,
    /// Unfinished handshakes of others that had to make room.
    #[serde(default)]
    pub displaced: u64,
    /// Sends cut short or held back: an unproven address would have got more than three times what it sent, or links move, or
    /// answer probes, too often.
    #[serde(default)]
    pub withheld: u64,
    /// Links and handshakes that hold state now.
    pub open: usize,
    /// Incoming handshakes under way now.
    pub unfinished: usize,
}

/// The peers alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// Schema number, 1.
    pub schema: u32,
    /// Every peer.
    pub peers: Vec<Peer>,
}

/// Whether the node carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Sockets and interface are being made.
    Starting,
    /// Carrying traffic.
    Up,
    /// Told to be down.
    Down,
}

/// A network the node is a member of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Name of the network.
    pub name: String,
    /// Network id, hex.
    pub id: String,
    /// Members known.
    pub members: u32,
    /// Members seen lately.
    pub online: u32,
    /// What this node is called in it.
    #[serde(default)]
    pub own_name: String,
    /// Whether it carries traffic, or would if the node were up.
    #[serde(default)]
    pub enabled: bool,
    /// Whether its newest statements have been heard since the start.
    #[serde(default)]
    pub ready: bool,
}

/// What a peer is called in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkName {
    /// Name of the network.
    pub network: String,
    /// Name of the peer in it.
    pub name: String,
}

/// One peer at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Identity, 64 hex digits.
    pub peer_id: String,
    /// Name it has here.
    pub name: String,
    /// Overlay addresses, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// Connection state.
    pub state: PeerState,
    /// Seconds since the newest authenticated round trip inside the tunnel.
    pub verified_age_s: Option<f64>,
    /// The path in use.
    pub path: Option<Path>,
    /// The session in use.
    pub session: Option<Session>,
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
    /// Whether the configuration names it.
    #[serde(default)]
    pub pinned: bool,
    /// What it is called in each network it shares with this node.
    #[serde(default)]
    pub networks: Vec<NetworkName>,
    /// What happened with it since it was first known.
    #[serde(default)]
    pub counts: PeerCounts,
}

/// What happened with a peer since it was first known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// An authenticated round trip succeeded within [`VERIFIED_WITHIN`].
    Verified,
    /// There is a session, but no recent round trip.
    Stale,
    /// A link is being made.
    Connecting,
    /// No session, and nobody asked for one.
    Idle,
    /// One side refused the link.
    Refused,
}

/// The way packets take to a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// What kind of path it is.
    pub kind: PathKind,
    /// Underlay address packets go to.
    pub remote: SocketAddr,
    /// Relay or first hop, when there is one.
    pub via: Option<String>,
    /// What carries packets there, or to the relay: `udp`, `quic` (UDP port 443) or `wss`.
    #[serde(default)]
    pub carrier: String,
    /// Why this path and not a better one.
    pub why: String,
    /// Smoothed in-tunnel round-trip time in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Smoothed difference of one round trip to the next in milliseconds.
    #[serde(default)]
    pub jitter_ms: Option<f64>,
    /// Share of probes lost, 0.0 to 1.0.
    pub loss: f64,
    /// Bytes a second sent, smoothed.
    #[serde(default)]
    pub tx_rate: f64,
    /// Bytes a second received, smoothed.
    #[serde(default)]
    pub rx_rate: f64,
    /// Longest inner packet in bytes that goes whole; longer ones go in pieces.
    pub mtu: u16,
    /// Times that long packets began to vanish on the way.
    #[serde(default)]
    pub mtu_holes: u64,
}

/// Kind of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// Straight to the peer.
    Direct,
    /// Over a relay.
    Relay,
    /// Over an onion circuit.
    Circuit,
}

/// The session in use with a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Key exchange and signatures, [`super::SUITE`].
    pub suite: String,
    /// Data-plane AEAD.
    pub aead: String,
    /// Asymmetric epoch of the ratchet.
    pub epoch: u32,
    /// Hash phase inside the epoch.
    pub phase: u32,
    /// Seconds since the last completed ratchet step or handshake.
    pub rekey_age_s: u64,
    /// How long the handshake of the link took, in milliseconds.
    pub handshake_ms: f64,
    /// Whether the session's link sleeps until something needs it; packets do not.
    #[serde(default)]
    pub link_asleep: bool,
}

/// One thing an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How bad it is.
    pub level: HealthLevel,
    /// Stable code for scripts.
    pub code: String,
    /// One line for people.
    pub text: String,
}

/// Severity of a [`Health`] item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthLevel {
    /// Worth knowing.
    Info,
    /// Something works less well than it should.
    Warn,
    /// Something does not work.
    Error,
}
