// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the network this node is in allows: the answer of `netcheck`, and the port mapping in `status`.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What the router of this network forwards to the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// `off`, `paused`, `not-needed`, `no-router`, `asking`, `mapped` or `refused`.
    pub state: String,
    /// The router that was asked.
    pub router: Option<IpAddr>,
    /// `PCP`, `NAT-PMP` or `UPnP`.
    pub protocol: Option<String>,
    /// The outside address that leads here.
    pub external: Option<SocketAddr>,
    /// Whether that address is of use to everybody.
    pub public: bool,
    /// How long the router keeps it without being asked again.
    pub lifetime_s: Option<u64>,
    /// Seconds since the router said so.
    pub age_s: Option<u64>,
    /// Answers that named addresses which cannot be the router's outside.
    pub lies: u64,
    /// Why there is none.
    pub why: Option<String>,
}

/// What this network allows, and how that is known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetCheck {
    /// Schema number, 1.
    pub schema: u32,
    /// Whether UDP gets through: `yes`, `no` or `unknown`.
    pub udp: Finding,
    /// Whether TCP to port 443 leads to a member: `yes` or `unknown`.
    #[serde(default)]
    pub tcp443: Option<Finding>,
    /// Where members see the node, what most of them say first.
    pub outside: Vec<Outside>,
    /// Whether the NAT keeps one port for everybody: `none`, `same`, `varies` or `unknown`.
    pub nat: Finding,
    /// Who is let in: `open` or `unknown`.
    pub filtering: Finding,
    /// What the router forwards.
    pub port_mapping: PortMapping,
    /// Whether IPv6 works: `yes`, `address-only` or `no`.
    pub ipv6: Finding,
    /// Addresses of this host that others may try.
    pub interfaces: Vec<SocketAddr>,
    /// What the inner MTU rests on: `session` or `unknown`.
    pub mtu: Finding,
    /// Inner MTU in bytes.
    pub inner_mtu: Option<u16>,
    /// Members that are linked directly and can relay, the nearest first.
    pub relays: Vec<Relay>,
    /// What would help, one line each.
    pub hints: Vec<String>,
}

/// Something that was found, how, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable word for scripts.
    pub value: String,
    /// How it was learnt, or why it is not known.
    pub learnt: String,
    /// Seconds since then.
    pub age_s: Option<u64>,
}

/// An address at which members see the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    /// The address.
    pub address: SocketAddr,
    /// How many members see it.
    pub seen_by: usize,
    /// Seconds since one of them said so.
    pub age_s: u64,
}

/// A member that can relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Relay {
    /// Identity, 64 hex digits.
    pub peer_id: String,
    /// Name in the network.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// Round-trip time of the link in milliseconds.
    pub rtt_ms: f64,
    /// Seconds since the link was used.
    pub age_s: u64,
    /// Whether it forwards traffic, and not only what introduces two members; not known until it was asked once.
    pub bulk: Option<bool>,
}

/// What this node forwards for others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relaying {
    /// Schema number, 1.
    pub schema: u32,
    /// Whether traffic is forwarded, and not only what introduces members to each other.
    pub enabled: bool,
    /// Most bits a second, all together.
    pub limit_bits: u64,
    /// The pairs of members it forwards between now.
    pub pairs: Vec<RelayedPair>,
    /// What was forwarded since the start, also between pairs that have ended.
    #[serde(default)]
    pub total: RelayedTotal,
    /// Where members come in whose network lets no UDP out, as `wss://[::]:443`.
    #[serde(default)]
    pub listen: Vec<String>,
    /// What happened there.
    #[serde(default)]
    pub visitors: Visitors,
    /// Requests refused because somebody asked for too much.
    pub refused: u64,
}

/// Connections to the carriers that carry nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitors {
    /// Closed at once: too many from one place, or in all.
    pub refused: u64,
    /// Handshakes and requests that came to nothing.
    pub broken: u64,
    /// Requests that got an ordinary page.
    pub strangers: u64,
}

/// What was forwarded between all pairs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedTotal {
    /// Datagrams sent on.
    pub packets: u64,
    /// Bytes sent on.
    pub bytes: u64,
    /// Datagrams dropped by the limit.
    pub dropped: u64,
}

/// Two members that meet here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedPair {
    /// Name of the network.
    pub network: String,
    /// PeerIDs of the two.
    pub peer_ids: [String; 2],
    /// What they are called.
    pub names: [String; 2],
    /// Datagrams sent on, in both directions.
    pub packets: u64,
    /// Bytes sent on.
    pub bytes: u64,
    /// Datagrams dropped by the limit.
    pub dropped: u64,
}
