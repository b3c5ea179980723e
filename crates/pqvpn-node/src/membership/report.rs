// SPDX-License-Identifier: MIT OR Apache-2.0
//! What networks show of themselves and what a person may ask of them: plain values, without any JSON in sight.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::NetworkId;

use crate::snapshot::HealthItem;

mod relay;

pub use self::relay::{RelayPairReport, RelayReport, RelayTotal};
pub use super::error::NetworkError;

/// How a person names a network: its name, a unique prefix of its id (at least 4 digits), or nothing at all when there
/// is only one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetRef(pub Option<String>);

impl fmt::Display for NetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("(the only one)"))
    }
}

/// What became of the rotation of this node's key in one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotatedNetwork {
    /// What people call it.
    pub network: String,
    /// What this node is called in it, before and after.
    pub name: String,
    /// Members that have heard of it.
    pub told: usize,
    /// Members besides this node.
    pub others: usize,
    /// Whether this node may sign for it, before and after.
    pub admin: bool,
    /// Invites of this node whose codes work no longer, because only codes of admins do.
    pub invites: usize,
}

/// One network as the state task and the data plane need it, at one moment; whole views replace each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// Which network it is.
    pub id: NetworkId,
    /// What people call it.
    pub name: String,
    /// IPv6 addresses of all its members.
    pub prefix_v6: Ipv6Net,
    /// IPv4 addresses of all its members.
    pub pool: Ipv4Net,
    /// This node in it.
    pub own: MemberView,
    /// The other live members, sorted by PeerID; revoked, expired and silent ephemeral ones are not here.
    pub members: Vec<MemberView>,
    /// Who was revoked, by a statement that this node holds; their sessions end and their links are refused.
    pub revoked: Vec<PeerId>,
    /// Whether sessions may start: synced with another member since the start, or waited for one long enough.
    pub ready: bool,
    /// How often the node had been down when this was so: what was heard before says nothing of now.
    pub downs: u64,
    /// Whether the network carries traffic: not switched off by a person, not disabled for good, and we are a member.
    pub enabled: bool,
    /// What an operator should know of it.
    pub health: Vec<HealthItem>,
}

/// One member of a network as the state task needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Who it is.
    pub peer: PeerId,
    /// Its name in this network, after arbitration.
    pub name: String,
    /// Its addresses in this network, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// Where it can be dialled, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Whether it was heard of lately: a link of the gossip, or a fresh record of its own.
    pub online: bool,
    /// Whether it may sign statements.
    pub admin: bool,
    /// Highest trust level it may reach.
    pub level_cap: u8,
    /// Its tags.
    pub tags: Vec<String>,
}

/// What a new network is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateNetwork {
    /// Its name: a DNS label.
    pub name: String,
    /// Our name in it; none: the name of this node.
    pub member_name: Option<String>,
    /// Its IPv4 addresses; none: a pool this host does not route yet.
    pub pool: Option<Ipv4Net>,
    /// Whether joins wait for an admin's word, unless the invite is pre-approved.
    pub approval: bool,
    /// How many admins must sign what concerns admins; 0 counts as 1.
    pub quorum: u8,
}

/// One network as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkReport {
    /// Which network it is.
    pub id: NetworkId,
    /// What people call it.
    pub name: String,
    /// Our name in it.
    pub own_name: String,
    /// Our addresses in it, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// IPv6 addresses of all its members.
    pub prefix_v6: Ipv6Net,
    /// IPv4 addresses of all its members.
    pub pool: Ipv4Net,
    /// How many members it has, this node included.
    pub members: usize,
    /// How many of them are online, this node included.
    pub online: usize,
    /// Whether this node may sign statements.
    pub admin: bool,
    /// How this node stands in it.
    pub state: NetworkState,
    /// Requests to join that wait for an admin.
    pub waiting: usize,
    /// Digest over everything that the network has said, hex: equal at two nodes means that they hold the same.
    pub head: String,
    /// Secret that disables the network for good, hex: shown once, by the node that made it, when it was made.
    pub disable_secret: Option<String>,
    /// What an operator should know of it.
    pub health: Vec<HealthItem>,
    /// Gossip of this network since the start.
    pub gossip: GossipReport,
}

/// How a node stands in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkState {
    /// A member; traffic flows.
    Up,
    /// A member, but no other member has been heard since the start; traffic starts after a grace time.
    Syncing,
    /// Switched off by a person (`pqvpn net down`).
    Down,
    /// Asked to join, waits for an admin.
    Waiting,
    /// Revoked by an admin.
    Revoked,
    /// Membership ended: it had an end, or the ephemeral node was silent for too long.
    Expired,
    /// Disabled for good by whoever held the secret.
    Disabled,
}

impl NetworkState {
    /// One word for people and scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Syncing => "syncing",
            Self::Down => "down",
            Self::Waiting => "waiting",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
        }
    }
}

/// What the gossip of a network does, since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GossipReport {
    /// Links to other members in use.
    pub links: usize,
    /// Bytes of requests and answers sent.
    pub tx_bytes: u64,
    /// Bytes of requests and answers received.
    pub rx_bytes: u64,
    /// Age of the newest word from another member.
    pub synced: Option<Duration>,
    /// What was refused and why, every name present, in a fixed order.
    pub counters: Vec<(&'static str, u64)>,
}

/// What an invite allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteOptions {
    /// How long the code works.
    pub expires: Duration,
    /// How many nodes may join by it, 1 to 65535.
    pub uses: u32,
    /// Tags its members get.
    pub tags: Vec<String>,
    /// Whether its members are ephemeral, and after how much silence they vanish.
    pub ephemeral: Option<Duration>,
    /// When membership itself ends after joining; none: never.
    pub member_expires: Option<Duration>,
    /// Joins by it wait for nobody's word.
    pub preapproved: bool,
    /// Highest trust level its members may reach, 0 to 4.
    pub level_cap: u8,
}

impl Default for InviteOptions {
    fn default() -> Self {
        Self {
            expires: Duration::from_secs(24 * 3600),
            uses: 1,
            tags: Vec::new(),
            ephemeral: None,
            member_expires: None,
            preapproved: false,
            level_cap: 3,
        }
    }
}

/// One invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteReport {
    /// The network it leads to.
    pub network: String,
    /// What the other person types; only in the answer to its creation, it is not kept.
    pub code: Option<String>,
    /// What names it, hex; a unique prefix is enough to cancel it.
    pub serial: String,
    /// Who signed it.
    pub issuer: PeerId,
    /// When it ends, ms since 1970.
    pub not_after_ms: u64,
    /// How many nodes may join by it.
    pub max_uses: u32,
    /// How many have.
    pub uses: u32,
    /// Tags its members get.
    pub tags: Vec<String>,
    /// Whether its members vanish after silence.
    pub ephemeral: Option<Duration>,
    /// Joins by it wait for nobody's word.
    pub preapproved: bool,
    /// Highest trust level its members may reach.
    pub level_cap: u8,
    /// What has become of it.
    pub state: InviteState,
}

/// What has become of an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteState {
    /// It works.
    Open,
    /// All its uses are gone.
    UsedUp,
    /// Its time is over.
    Expired,
    /// An admin took it back.
    Cancelled,
}

impl InviteState {
    /// One word for people and scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::UsedUp => "used up",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What came of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinReport {
    /// The network.
    pub id: NetworkId,
    /// What people call it.
    pub network: String,
    /// Our name in it; another than asked for when that was taken.
    pub name: String,
    /// Our addresses in it, IPv6 first; none while waiting.
    pub addresses: Vec<IpAddr>,
    /// How many members it has, this node included; 0 while waiting.
    pub members: usize,
    /// An admin has to approve first; the node goes on asking by itself.
    pub waiting_for_approval: bool,
}

/// A node that wants to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingReport {
    /// The network.
    pub network: String,
    /// Who it is.
    pub peer: PeerId,
    /// The name it asks for.
    pub name: String,
    /// The invite it came with, hex.
    pub serial: String,
    /// When it asked first, ms since 1970.
    pub since_ms: u64,
    /// Tags it would get.
    pub tags: Vec<String>,
}

/// What came of an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApproveReport {
    /// The network.
    pub network: String,
    /// Who was let in.
    pub peer: PeerId,
    /// Its name there.
    pub name: String,
    /// Whether the node has been told already; it asks again by itself.
    pub told: bool,
}

/// One member as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReport {
    /// The network.
    pub network: String,
    /// Who it is.
    pub peer: PeerId,
    /// Its name there.
    pub name: String,
    /// Its addresses there, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// Where it can be dialled, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Whether it was heard of lately.
    pub online: bool,
    /// This node.
    pub own: bool,
    /// Whether it may sign statements.
    pub admin: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Highest trust level it may reach.
    pub level_cap: u8,
    /// Whether it vanishes after silence.
    pub ephemeral: bool,
    /// When it was added, ms since 1970.
    pub added_ms: u64,
    /// When its membership ends, ms since 1970.
    pub expires_ms: Option<u64>,
    /// When its newest record was made, ms since 1970.
    pub seen_ms: Option<u64>,
    /// When its newest record ends, ms since 1970.
    pub record_until_ms: Option<u64>,
    /// Digest over everything it has heard of the network, hex.
    pub head: Option<String>,
}

/// What a revocation reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokeReport {
    /// The network.
    pub network: String,
    /// Who was revoked.
    pub peer: PeerId,
    /// Its name there.
    pub name: String,
    /// How many members have it already, and have cut the peer off.
    pub pushed_to: usize,
    /// How many members are online, without this node.
    pub online: usize,
    /// The peer was an admin: what it signed and nobody here knew of when it was revoked is void.
    pub was_admin: bool,
    /// The act itself; of an admin it needs as many signatures as the quorum, and until then nothing has happened.
    pub act: ActReport,
}

/// How the constitution of a network stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockReport {
    /// The network.
    pub network: String,
    /// Its id.
    pub id: NetworkId,
    /// Who may sign statements, with their names.
    pub admins: Vec<(PeerId, String)>,
    /// How many of them must sign what concerns admins.
    pub quorum: u8,
    /// Statements held.
    pub statements: usize,
    /// Digest over them, hex.
    pub head: String,
    /// Age of the newest word from another member, which tells how current the above is.
    pub head_age: Option<Duration>,
    /// Acts that lack signatures.
    pub proposals: Vec<ProposalReport>,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Whether this node may sign.
    pub admin: bool,
    /// Whether the network can be disabled by a secret.
    pub can_disable: bool,
    /// Whether it has been.
    pub disabled: bool,
}

/// An act that lacks signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalReport {
    /// Id of the statement, hex; a unique prefix is enough to sign it.
    pub id: String,
    /// What it does, one line.
    pub what: String,
    /// Signatures it has.
    pub have: usize,
    /// Signatures it needs.
    pub need: usize,
    /// Who has signed it, by name where there is one.
    pub signers: Vec<String>,
    /// It answers statements in force that took authority away: it rests on none of them.
    pub contests: bool,
}

/// One statement of a constitution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementReport {
    /// Its id, hex.
    pub id: String,
    /// Its place: 1 + the greatest of its parents'.
    pub seq: u64,
    /// When its author says it was made, ms since 1970.
    pub at_ms: u64,
    /// Stable word for the act, like `add-member`.
    pub act: &'static str,
    /// What it does, one line.
    pub what: String,
    /// Who signed it, by name where there is one.
    pub signers: Vec<String>,
}

/// What came of a change that admins decide on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActReport {
    /// The network.
    pub network: String,
    /// Id of the statement, hex.
    pub id: String,
    /// What it does, one line.
    pub what: String,
    /// Whether it is in force; when not, further admins have to sign it (`pqvpn lock sign`).
    pub in_force: bool,
    /// Signatures it has.
    pub have: usize,
    /// Signatures it needs.
    pub need: usize,
    /// How many members have it already.
    pub pushed_to: usize,
}
