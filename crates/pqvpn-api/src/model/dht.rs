// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the `dht` resources take and answer. Points, keys and PeerIDs are 64 hex digits; times are ms since 1970.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// The node's part in the DHT at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DhtStatus {
    /// Schema number, 1.
    pub schema: u32,
    /// Whether the DHT runs; when not, everything below is empty.
    pub enabled: bool,
    /// How the node stands with the others.
    pub state: DhtState,
    /// What the configuration asks for: `auto`, `server` or `client`.
    pub mode: String,
    /// Whether the node serves others.
    pub serving: bool,
    /// Why it serves or does not.
    pub why: String,
    /// Which DHT: `open`, or 64 hex digits.
    pub network: String,
    /// Tries the weekly proof of work is expected to take.
    pub difficulty: u32,
    /// How far the proof of work is.
    pub admission: DhtAdmission,
    /// The node's position this week.
    pub node_id: Option<String>,
    /// Where others are told to dial, best first.
    pub addresses: Vec<SocketAddr>,
    /// The address others see, once enough of them agree.
    pub observed: Option<SocketAddr>,
    /// Contacts in the table.
    pub contacts: usize,
    /// How many nodes the DHT seems to have.
    pub size_estimate: Option<f64>,
    /// Whether the surroundings of a lookup of the last hour looked besieged.
    pub eclipse: DhtEclipse,
    /// Links in use.
    pub links: DhtLinks,
    /// Messages since the start.
    pub rpc: DhtRpc,
    /// Lookups since the start.
    #[serde(default)]
    pub lookups: DhtLookups,
    /// Bytes of messages sent, without the link's own.
    pub tx_bytes: u64,
    /// Bytes of messages received, without the link's own.
    pub rx_bytes: u64,
    /// Records kept for others.
    pub stored_records: usize,
    /// Bytes of them.
    pub stored_bytes: usize,
    /// Own records.
    pub own_records: Vec<DhtOwnRecord>,
    /// Bootstrap nodes.
    pub doors: DhtDoors,
    /// Refusals and attacks by name, every name present.
    pub counters: BTreeMap<String, u64>,
}

/// How the node stands with the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DhtState {
    /// Switched off.
    Off,
    /// Nobody is known: a first node.
    Alone,
    /// Others are known, none has answered yet.
    Joining,
    /// Others answer.
    Joined,
    /// None of those known answers any more.
    Unreachable,
}

/// How far this week's proof of work is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum DhtAdmission {
    /// Not begun: the node only asks, or nobody is there.
    None,
    /// Under way, in idle time.
    Solving {
        /// Seconds since it began.
        elapsed_s: f64,
        /// Tries so far.
        tried: u64,
    },
    /// Done.
    Solved {
        /// The week it is for.
        week: u32,
        /// When that week ends.
        until_ms: u64,
    },
}

/// What the density of nodes around a target says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DhtEclipse {
    /// As dense as anywhere.
    Normal,
    /// Denser than 99 % of honest surroundings.
    Suspect,
    /// Denser than 99.9 % of them.
    Eclipse,
}

/// Links in use for the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhtLinks {
    /// Dialed by this node.
    pub outbound: usize,
    /// Dialed by others.
    pub inbound: usize,
    /// Dials under way.
    pub dialing: usize,
}

/// Messages since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhtRpc {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests that came to nothing.
    pub failed: u64,
    /// Requests of others answered.
    pub served: u64,
    /// Requests of others refused.
    pub refused: u64,
}

/// Lookups since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhtLookups {
    /// Begun.
    pub begun: u64,
    /// Under way now.
    pub running: usize,
}

/// Bootstrap nodes, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhtDoors {
    /// Known.
    pub known: usize,
    /// Those of them that answered and have not failed since.
    pub working: usize,
}

/// A record of this node's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhtOwnRecord {
    /// What it says.
    #[serde(flatten)]
    pub record: DhtRecord,
    /// Nodes that took it at the last publication; null before the first.
    pub stored: Option<usize>,
}

/// A record, its signature verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhtRecord {
    /// Where it is kept.
    pub key: String,
    /// Who signed it.
    pub owner: String,
    /// Higher replaces lower.
    pub seq: u64,
    /// Valid from.
    pub not_before_ms: u64,
    /// Valid until.
    pub not_after_ms: u64,
    /// What it says.
    #[serde(flatten)]
    pub content: DhtContent,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DhtContent {
    /// Where the owner can be reached.
    Peer {
        /// Best first.
        addresses: Vec<SocketAddr>,
        /// Bit set of what the owner offers.
        capabilities: u32,
    },
    /// A value under a name.
    Value {
        /// The name.
        name: String,
        /// The value, where it is UTF-8 text.
        value: Option<String>,
        /// Its bytes in hex.
        value_hex: String,
    },
    /// A kind this version cannot read.
    Other,
}

/// Another node of the DHT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DhtContact {
    /// Who it is.
    pub peer_id: String,
    /// Its position this week.
    pub node_id: String,
    /// Where it can be dialed.
    pub addresses: Vec<SocketAddr>,
    /// Leading bits its position shares with the target, or with this node.
    pub prefix_bits: u32,
    /// Seconds since it last proved to be there, where that is known.
    pub seen_s: Option<f64>,
}

/// What a lookup did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DhtLookup {
    /// What was looked for.
    pub target: String,
    /// The nearest nodes that answered, nearest first.
    pub closest: Vec<DhtContact>,
    /// Nodes asked.
    pub asked: u32,
    /// Nodes that answered.
    pub answered: u32,
    /// Nodes that did not.
    pub failed: u32,
    /// Longest chain of round trips that waited for each other.
    pub rounds: u32,
    /// How long all of it took, in milliseconds.
    pub elapsed_ms: f64,
    /// Whether the nodes nearest to the target stand suspiciously close together.
    pub eclipse: DhtEclipse,
}

/// Answer to a lookup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DhtFound {
    /// Schema number, 1.
    pub schema: u32,
    /// What it did.
    #[serde(flatten)]
    pub lookup: DhtLookup,
}

/// Answer to a get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DhtGot {
    /// Schema number, 1.
    pub schema: u32,
    /// The newest record; null when nobody has one.
    pub record: Option<DhtRecord>,
    /// Nodes that gave that very record.
    pub sources: u32,
    /// Milliseconds until the first acceptable record was there.
    pub first_ms: Option<f64>,
    /// As whom its owner goes on, if it rotated its key: 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_to: Option<String>,
    /// What the lookup did.
    pub lookup: DhtLookup,
}

/// Answer to a put.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DhtPut {
    /// Schema number, 1.
    pub schema: u32,
    /// What was published.
    pub record: DhtRecord,
    /// Nodes that keep it now.
    pub stored: usize,
    /// What the lookup did.
    pub lookup: DhtLookup,
}

/// The routing table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DhtTable {
    /// Schema number, 1.
    pub schema: u32,
    /// This node's position, once admitted.
    pub own: Option<String>,
    /// Buckets that are not empty, the widest first.
    pub buckets: Vec<DhtBucket>,
}

/// One bucket: the nodes that share exactly so many leading bits with this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DhtBucket {
    /// Leading bits shared.
    pub prefix_bits: u32,
    /// Contacts, most recently seen first.
    pub contacts: Vec<DhtContact>,
    /// Contacts that wait for a place.
    pub replacements: usize,
}

/// Asks for a record: `key` alone, `owner` for a peer record, `name` with `owner` (or without: this node's) for a value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhtGetRequest {
    /// PeerID, or what a configured peer is called by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Name of a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the record lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Publishes a value under a name: `value` or `value_hex`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhtPutRequest {
    /// The name, 1 to 64 bytes.
    pub name: String,
    /// The value as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value as hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_hex: Option<String>,
}

/// Looks for the nodes nearest to a key, or to the key of a peer's record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DhtLookupRequest {
    /// PeerID, or what a configured peer is called by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// A point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
