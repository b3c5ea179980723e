// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the `bootstrap` resource takes and answers. Times are ms since 1970.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Where discovery starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Schema number, 1.
    pub schema: u32,
    /// Whether the DHT runs; when not, no door was tried.
    pub enabled: bool,
    /// Nodes to start from.
    pub doors: Vec<Door>,
    /// Signed lists, usable or not.
    pub lists: Vec<BootstrapList>,
}

/// A node to start from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Door {
    /// The identity that must answer, 64 hex digits.
    pub peer_id: String,
    /// `host:port` each.
    pub endpoints: Vec<String>,
    /// Who names it: `config`, `user`, `list`, `lan`, `cache`.
    pub sources: Vec<String>,
    /// When it counts as old.
    pub expires_ms: Option<u64>,
    /// What became of it.
    pub state: DoorState,
    /// Seconds since it last answered, or failed.
    pub age_s: Option<f64>,
    /// What went wrong, where it failed.
    pub why: Option<String>,
    /// When a handshake last proved that this identity answers there; kept over restarts.
    pub verified_ms: Option<u64>,
    /// Where its handshake with this node succeeded since the start; null if it did not, or if a dial has failed since.
    #[serde(default)]
    pub answered_at: Option<SocketAddr>,
}

/// What became of a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoorState {
    /// Not tried since the start.
    Untried,
    /// It answered a signed request.
    Working,
    /// It did not.
    Failed,
}

/// A signed list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapList {
    /// The file.
    pub path: PathBuf,
    /// Who signed it; null when it is not used.
    pub signer: Option<String>,
    /// When it was signed.
    pub issued_ms: Option<u64>,
    /// When it counts as old.
    pub expires_ms: Option<u64>,
    /// Entries in it.
    pub entries: usize,
    /// Why it is not used, or what to know about it.
    pub remark: Option<String>,
}

/// Adds bootstrap nodes, or a signed list of them; they are kept over restarts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapAddRequest {
    /// Entries, `pqvpn://<64 hex>@host:port` each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<String>,
    /// A list file in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Believe the signer of the list from now on.
    #[serde(default)]
    pub trust: bool,
}

/// Removes what was added, over restarts too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrapRemoveRequest {
    /// An entry, `pqvpn://<64 hex>@host:port`, or 64 hex digits: all entries of that identity, its list and the belief in
    /// it.
    pub what: String,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapRemoved {
    /// Schema number, 1.
    pub schema: u32,
    /// The entries.
    pub entries: Vec<String>,
    /// Whether a list signed by that identity was removed.
    pub list: bool,
    /// Whether lists of that identity were believed, and are no more.
    pub distrusted: bool,
    /// How many nodes the running node tries no more; null when its DHT is off or no daemon runs. A node that something
    /// else names (the configuration, the local network, the last run) is still tried.
    pub dropped: Option<usize>,
}

/// What was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapAdded {
    /// Schema number, 1.
    pub schema: u32,
    /// Nodes that were not known before.
    pub added: usize,
    /// Whether the running node tries them now; false when its DHT is off or no daemon runs.
    pub tried: bool,
    /// Who signed the list.
    pub signer: Option<String>,
    /// Whether the signer is believed from now on, and was not before.
    pub newly_trusted: bool,
    /// What to know about the list, like its age.
    pub warning: Option<String>,
}
