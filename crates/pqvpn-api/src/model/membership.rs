// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the resources of invites and members take and answer. Ids are hex digits; times are ms since 1970.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// Makes an invite.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// How long it can be used, in seconds; a day when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
    /// How many may join with it; one when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Tags its members get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its members leave after so many seconds of silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral_s: Option<u64>,
    /// Their membership ends so many seconds after joining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_expires_s: Option<u64>,
    /// Joins with it wait for nobody.
    #[serde(default)]
    pub preapproved: bool,
    /// Highest trust level its members may reach, 0 to 4; 3 when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level_cap: Option<u8>,
}

/// A new invite. The code is a secret until it is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteCreated {
    /// Schema number, 1.
    pub schema: u32,
    /// The invite, with its code.
    #[serde(flatten)]
    pub invite: Invite,
}

/// The invites of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invites {
    /// Schema number, 1.
    pub schema: u32,
    /// The invites, none with its code: that is not kept.
    pub invites: Vec<Invite>,
}

/// One invite.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Name of the network.
    pub network: String,
    /// What the other person types; only in the answer to its making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What names it.
    pub serial: String,
    /// Who signed it.
    pub issuer: String,
    /// When it ends.
    pub not_after_ms: u64,
    /// How many may join with it.
    pub max_uses: u32,
    /// How many have.
    pub uses: u32,
    /// Tags its members get.
    pub tags: Vec<String>,
    /// Its members leave after so many seconds of silence.
    pub ephemeral_s: Option<u64>,
    /// Joins with it wait for nobody.
    pub preapproved: bool,
    /// Highest trust level its members may reach.
    pub level_cap: u8,
    /// What became of it: `open`, `used up`, `expired` or `cancelled`.
    pub state: String,
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("network", &self.network)
            .field("serial", &self.serial)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Names one invite of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its serial number, or the beginning of it.
    pub serial: String,
}

/// Joins a network.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The code: a secret.
    pub code: String,
    /// What this node is to be called; the node's name when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long to wait for an answer, in milliseconds; the server caps it at an hour.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What came of a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Schema number, 1.
    pub schema: u32,
    /// Name of the network.
    pub network: String,
    /// Network id.
    pub id: String,
    /// What this node is called in it.
    pub name: String,
    /// Its addresses in it, IPv6 first; none while it waits.
    pub addresses: Vec<IpAddr>,
    /// Members, this node included; 0 while it waits.
    pub members: usize,
    /// An admin has to approve first; the node goes on asking by itself.
    pub waiting_for_approval: bool,
}

/// Who waits to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Schema number, 1.
    pub schema: u32,
    /// The requests, oldest first.
    pub requests: Vec<Pending>,
}

/// Somebody who waits to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Name of the network.
    pub network: String,
    /// Identity, 64 hex digits.
    pub peer_id: String,
    /// The name asked for.
    pub name: String,
    /// Serial number of the invite used.
    pub serial: String,
    /// When it asked first.
    pub since_ms: u64,
    /// Tags it would get.
    pub tags: Vec<String>,
}

/// Names somebody in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhoRequest {
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Name, PeerID or the beginning of it.
    pub who: String,
}

/// Who was let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// Schema number, 1.
    pub schema: u32,
    /// Name of the network.
    pub network: String,
    /// Identity, 64 hex digits.
    pub peer_id: String,
    /// Name in the network.
    pub name: String,
    /// Whether it has been told already; it asks again by itself.
    pub told: bool,
}

/// Who was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// Schema number, 1.
    pub schema: u32,
    /// The request.
    #[serde(flatten)]
    pub request: Pending,
}

/// The members of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Schema number, 1.
    pub schema: u32,
    /// The members, this node among them.
    pub members: Vec<Member>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Name of the network.
    pub network: String,
    /// Identity, 64 hex digits.
    pub peer_id: String,
    /// Name in the network.
    pub name: String,
    /// Addresses in the network, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// Where it can be dialled, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Whether it was heard of lately.
    pub online: bool,
    /// Whether it is this node.
    pub own: bool,
    /// Whether it may sign.
    pub admin: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Highest trust level it may reach.
    pub level_cap: u8,
    /// Whether it leaves when it is silent for long.
    pub ephemeral: bool,
    /// When it was added.
    pub added_ms: u64,
    /// When its membership ends.
    pub expires_ms: Option<u64>,
    /// When its newest record was made.
    pub seen_ms: Option<u64>,
    /// When its newest record ends.
    pub record_until_ms: Option<u64>,
    /// Digest over everything it has heard of the network.
    pub head: Option<String>,
}

/// Throws a member out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Name, PeerID or the beginning of it, or overlay address.
    pub who: String,
    /// Why, for the log of the network.
    #[serde(default)]
    pub reason: String,
}

/// What a revocation reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Schema number, 1.
    pub schema: u32,
    /// Name of the network.
    pub network: String,
    /// Identity, 64 hex digits.
    pub peer_id: String,
    /// The name it had.
    pub name: String,
    /// Members that have it already, and have cut the peer off.
    pub pushed_to: usize,
    /// Members online, without this node.
    pub online: usize,
    /// It was an admin: what it signed and nobody here knew of is void.
    pub was_admin: bool,
    /// Id of the statement.
    #[serde(default)]
    pub id: String,
    /// Whether it is in force; when not, further admins have to sign it, and nothing has happened yet.
    #[serde(default = "yes")]
    pub in_force: bool,
    /// Signatures it has.
    #[serde(default)]
    pub have: usize,
    /// Signatures it needs.
    #[serde(default)]
    pub need: usize,
}

const fn yes() -> bool {
    true
}

const fn default_timeout_ms() -> u64 {
    60_000
}
