// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the resources of networks take and answer. Ids and digests are hex digits; times are ms since 1970.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::Health;

/// Every network of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Networks {
    /// Schema number, 1.
    pub schema: u32,
    /// The networks, in the order they were made or joined.
    pub networks: Vec<NetworkInfo>,
}

/// One network after a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkAnswer {
    /// Schema number, 1.
    pub schema: u32,
    /// The network.
    pub network: NetworkInfo,
    /// Secret that disables the network for good: told once, when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_secret: Option<String>,
}

/// One network of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// Name of the network.
    pub name: String,
    /// Network id, 64 hex digits.
    pub id: String,
    /// How this node stands in it: `up`, `syncing`, `down`, `waiting`, `revoked`, `expired` or `disabled`.
    pub state: String,
    /// What this node is called in it.
    pub own_name: String,
    /// Addresses of this node in it, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// IPv6 addresses of all members.
    pub prefix_v6: String,
    /// IPv4 addresses of all members.
    pub pool: String,
    /// Members, this node included.
    pub members: usize,
    /// Members heard of lately, this node included.
    pub online: usize,
    /// Whether this node may sign.
    pub admin: bool,
    /// Requests to join that wait for an admin.
    pub waiting: usize,
    /// Digest over everything the network has said; equal at two nodes that hold the same.
    pub head: String,
    /// What an operator should know of it.
    pub health: Vec<Health>,
    /// Gossip of this network since the start.
    pub gossip: Gossip,
}

/// What the gossip of a network does, since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Gossip {
    /// Links to other members in use.
    pub links: usize,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Seconds since another member was last heard.
    pub synced_s: Option<f64>,
    /// What was refused, by name, every name present.
    pub counters: BTreeMap<String, u64>,
}

/// Makes a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetCreateRequest {
    /// Its name: a DNS label in lower case.
    pub name: String,
    /// What this node is called in it; the node's name when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_name: Option<String>,
    /// Its IPv4 addresses, `a.b.c.d/len`; chosen when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Whether joins wait for an admin, unless the invite is pre-approved.
    #[serde(default)]
    pub approval: bool,
    /// How many admins must sign what concerns admins.
    #[serde(default = "one")]
    pub quorum: u8,
}

/// Names a network: its name or the beginning of its id; nothing for the only one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetRequest {
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// Who may sign for a network, and what waits for signatures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lock {
    /// Schema number, 1.
    pub schema: u32,
    /// Name of the network.
    pub network: String,
    /// Network id.
    pub id: String,
    /// Who may sign.
    pub admins: Vec<Admin>,
    /// How many of them must sign what concerns admins.
    pub quorum: u8,
    /// Statements held.
    pub statements: usize,
    /// Digest over them.
    pub head: String,
    /// Seconds since another member was last heard, which tells how current this is.
    pub head_age_s: Option<f64>,
    /// What lacks signatures.
    pub proposals: Vec<Proposal>,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Whether this node may sign.
    pub admin: bool,
    /// Whether a secret can disable the network.
    pub can_disable: bool,
    /// Whether one has.
    pub disabled: bool,
}

/// Somebody who may sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    /// Identity, 64 hex digits.
    pub peer_id: String,
    /// Name in the network.
    pub name: String,
}

/// An act that lacks signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Id of the statement.
    pub id: String,
    /// What it does.
    pub what: String,
    /// Signatures it has.
    pub have: usize,
    /// Signatures it needs.
    pub need: usize,
    /// Who has signed it.
    #[serde(default)]
    pub signers: Vec<String>,
    /// It answers statements in force that took authority away, and rests on none of them.
    #[serde(default)]
    pub contests: bool,
}

/// Asks for the newest statements of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockLogRequest {
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// How many at most.
    #[serde(default = "twenty")]
    pub limit: usize,
}

/// Statements of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockLog {
    /// Schema number, 1.
    pub schema: u32,
    /// Statements, newest first.
    pub statements: Vec<Statement>,
}

/// One signed statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Its id.
    pub id: String,
    /// Its place: 1 + the greatest of its parents'.
    pub seq: u64,
    /// When its author says it was made.
    pub at_ms: u64,
    /// Stable word for the act, like `add-member`.
    pub act: String,
    /// What it does.
    pub what: String,
    /// Who signed it.
    pub signers: Vec<String>,
}

/// Signs a statement that lacks signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignRequest {
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The statement, or the beginning of its id.
    pub statement: String,
}

/// Signs, beside statements and all that stands on them, that an admin may sign no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContestRequest {
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The statements, or the beginnings of their ids.
    pub statements: Vec<String>,
    /// Who may sign no more; the one that signed the statements when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
}

/// Ends a network for everybody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisableRequest {
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The secret.
    pub secret: String,
}

impl std::fmt::Debug for DisableRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DisableRequest").field("network", &self.network).finish_non_exhaustive()
    }
}

/// What came of a change that admins decide on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Schema number, 1.
    pub schema: u32,
    /// Name of the network.
    pub network: String,
    /// Id of the statement.
    pub id: String,
    /// What it does.
    pub what: String,
    /// Whether it is in force; when not, further admins have to sign it.
    pub in_force: bool,
    /// Signatures it has.
    pub have: usize,
    /// Signatures it needs.
    pub need: usize,
    /// Members that have it already.
    pub pushed_to: usize,
}

const fn one() -> u8 {
    1
}

const fn twenty() -> usize {
    20
}
