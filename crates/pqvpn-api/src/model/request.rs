// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests, and the small answers to them.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use super::{NodeState, PathKind};

/// Names one peer: PeerID, unique prefix of it, name or overlay address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerRequest {
    /// How the caller names the peer.
    pub peer: String,
}

/// Asks for one in-tunnel round trip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PingRequest {
    /// How the caller names the peer.
    pub peer: String,
    /// How long to wait, in milliseconds; the server caps it at 60 s.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

/// Changes one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRequest {
    /// `section.key` of the config.
    pub key: String,
    /// Value as it would stand in the config.
    pub value: String,
}

/// Done, and nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Schema number, 1.
    pub schema: u32,
}

/// Version of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Schema number, 1.
    pub schema: u32,
    /// Version of the daemon.
    pub version: String,
}

/// Identity the daemon runs under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Schema number, 1.
    pub schema: u32,
    /// Identity of the node, 64 hex digits.
    pub peer_id: String,
    /// Name of the node.
    pub name: String,
    /// Overlay addresses, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// Fingerprint of both public keys.
    pub fingerprint: String,
    /// Where the daemon keeps its state; tells daemons of one machine apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
}

/// What the daemon was started with: a command beside it may have been given other places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Schema number, 1.
    pub schema: u32,
    /// Process of the daemon.
    pub pid: u32,
    /// Where it keeps its state.
    pub state_dir: PathBuf,
    /// The key is in memory only.
    pub ephemeral: bool,
    /// Its configuration file, whether it exists or not.
    pub config: Option<PathBuf>,
    /// Every setting with the value in force, as TOML; no passwords.
    pub settings: String,
}

/// The node's state after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Schema number, 1.
    pub schema: u32,
    /// State the node is in now.
    pub state: NodeState,
}

/// One answered ping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// Schema number, 1.
    pub schema: u32,
    /// Who answered, 64 hex digits.
    pub peer_id: String,
    /// The name it has here.
    pub name: String,
    /// In-tunnel round-trip time in milliseconds.
    pub rtt_ms: f64,
    /// Kind of the path the answer came over.
    pub kind: PathKind,
    /// Underlay address the answer came from; that of the relay where one is between.
    pub remote: SocketAddr,
    /// Through whom it went.
    #[serde(default)]
    pub via: Option<String>,
    /// Why this path and not a better one.
    pub why: String,
}

/// What became of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Schema number, 1.
    pub schema: u32,
    /// The setting.
    pub key: String,
    /// Its value now.
    pub value: String,
    /// From when it is in force.
    pub outcome: SetOutcome,
}

/// From when a setting is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetOutcome {
    /// Now.
    Applied,
    /// From the next start.
    AfterRestart,
}

const fn default_timeout_ms() -> u64 {
    5_000
}
