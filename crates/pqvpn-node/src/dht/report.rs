// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the DHT shows of itself and what a person may ask of it: plain values, without any JSON in sight.

use std::{net::SocketAddr, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{NetworkId, Point};
use thiserror::Error;

use crate::{config::DhtMode, handle::PeerRef};

/// The node's part in the DHT at one moment.
#[derive(Debug, Clone)]
pub struct DhtReport {
    /// Whether the DHT runs at all; when not, everything below is empty.
    pub enabled: bool,
    /// How it stands with the others.
    pub state: DhtState,
    /// What the config asks for.
    pub mode: DhtMode,
    /// Which DHT it is.
    pub network: NetworkId,
    /// Expected evaluations one week's admission costs.
    pub difficulty: u32,
    /// How far the proof of work is.
    pub admission: AdmissionState,
    /// Our position this week, once admitted.
    pub node_id: Option<Point>,
    /// Where others are told to dial us, best first.
    pub addresses: Vec<SocketAddr>,
    /// The address others see us at, once enough of them agree.
    pub observed: Option<SocketAddr>,
    /// Contacts in the table.
    pub contacts: usize,
    /// How many nodes the DHT seems to have.
    pub size_estimate: Option<f64>,
    /// Links in use for the DHT.
    pub links: LinkReport,
    /// Messages so far.
    pub rpc: RpcReport,
    /// Lookups begun so far, and those under way.
    pub lookups: (u64, usize),
    /// Bytes of requests and answers sent, without the link's own.
    pub tx_bytes: u64,
    /// Bytes of requests and answers received, without the link's own.
    pub rx_bytes: u64,
    /// Whether others are told of this node, so that they may ask it and store here.
    pub serving: bool,
    /// The worst that a lookup of the last hour found around its target.
    pub eclipse: EclipseReport,
    /// Records kept for others.
    pub stored_records: usize,
    /// Bytes of them.
    pub stored_bytes: usize,
    /// Our own records.
    pub own_records: Vec<OwnRecord>,
    /// Doors known, and those of them that work.
    pub doors: (usize, usize),
    /// Refusals and attacks by name, every name present, in a fixed order.
    pub counters: Vec<(&'static str, u64)>,
}

/// How the node stands with the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhtState {
    /// Switched off by the config.
    Off,
    /// Nobody to ask and nobody has asked: a first node.
    Alone,
    /// Doors are known, none has answered yet.
    Joining,
    /// Others answer.
    Joined,
    /// Others are known and none of them answers any more.
    Unreachable,
}

impl DhtState {
    /// One word for people and scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Alone => "alone",
            Self::Joining => "joining",
            Self::Joined => "joined",
            Self::Unreachable => "unreachable",
        }
    }
}

/// How far the proof of work for this week's position is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionState {
    /// Not begun: the node only asks, or nobody is there to prove anything to.
    None,
    /// Being searched for, in a thread that takes only idle time.
    Solving {
        /// Since when.
        elapsed: Duration,
        /// Evaluations so far.
        tried: u64,
    },
    /// Found, now or before the last start.
    Solved {
        /// The peer's week it is for.
        week: u32,
        /// When the week ends, ms since 1970.
        until_ms: u64,
    },
}

/// Links in use for the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkReport {
    /// Dialed by us.
    pub outbound: usize,
    /// Dialed by others.
    pub inbound: usize,
    /// Dials under way.
    pub dialing: usize,
}

/// Messages since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RpcReport {
    /// Requests sent.
    pub sent: u64,
    /// Requests answered with a valid response.
    pub answered: u64,
    /// Requests that came to nothing.
    pub failed: u64,
    /// Requests of others answered.
    pub served: u64,
    /// Requests of others refused: malformed, replayed, not signed, too many.
    pub refused: u64,
}

/// A record of our own that is kept in the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRecord {
    /// What it says.
    pub record: RecordReport,
    /// Nodes that took it at the last publication; `None` before the first.
    pub stored: Option<usize>,
}

/// A record for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordReport {
    /// Where it is kept.
    pub key: Point,
    /// Who signed it.
    pub owner: PeerId,
    /// Higher replaces lower.
    pub seq: u64,
    /// Valid from, ms since 1970.
    pub not_before_ms: u64,
    /// Valid until, ms since 1970.
    pub not_after_ms: u64,
    /// What it says.
    pub content: RecordContent,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordContent {
    /// Where the owner can be reached.
    Peer {
        /// Best first.
        addresses: Vec<SocketAddr>,
        /// Bit set of what it offers.
        capabilities: u32,
    },
    /// A value under a name.
    Value {
        /// The name, unique per owner.
        name: String,
        /// Its bytes.
        value: Vec<u8>,
    },
    /// A kind of record this version cannot read.
    Other,
}

/// What a lookup did.
#[derive(Debug, Clone)]
pub struct LookupReport {
    /// What was looked for.
    pub target: Point,
    /// The nearest nodes that answered, nearest first.
    pub closest: Vec<ContactReport>,
    /// Nodes asked.
    pub asked: u32,
    /// Nodes that answered.
    pub answered: u32,
    /// Nodes that did not.
    pub failed: u32,
    /// The longest chain of round trips that waited for each other.
    pub rounds: u32,
    /// How long it took.
    pub elapsed: Duration,
    /// Whether the nodes nearest to the target stand suspiciously close together.
    pub eclipse: EclipseReport,
}

/// What the density of nodes around a target says (security.md 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum EclipseReport {
    /// As dense as anywhere.
    #[default]
    Normal,
    /// Denser than 99 % of honest neighbourhoods.
    Suspect,
    /// Denser than 99.9 % of them.
    Eclipse,
}

impl EclipseReport {
    /// One word for people and scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Suspect => "suspect",
            Self::Eclipse => "eclipse",
        }
    }
}

/// Another node of the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactReport {
    /// Who it is.
    pub peer: PeerId,
    /// Its position this week.
    pub node_id: Point,
    /// Where it can be dialed.
    pub addresses: Vec<SocketAddr>,
    /// Leading bits its position shares with the target (of a lookup) or with us (in the table).
    pub prefix_bits: u32,
    /// How long ago it last proved to be there, where that is known.
    pub seen: Option<Duration>,
}

/// The result of a get.
#[derive(Debug, Clone)]
pub struct GetReport {
    /// The newest valid record, if any node had one.
    pub record: Option<RecordReport>,
    /// Nodes that gave that very record.
    pub sources: u32,
    /// How long it took until the first acceptable record was there; the rest of the lookup looks for a newer one.
    pub first: Option<Duration>,
    /// As whom its owner goes on, if it rotated its key.
    pub successor: Option<PeerId>,
    /// What the lookup did.
    pub lookup: LookupReport,
}

/// The result of a put.
#[derive(Debug, Clone)]
pub struct PutReport {
    /// What was published; it is republished until the node stops or another value takes the name.
    pub record: RecordReport,
    /// Nodes that keep it now.
    pub stored: usize,
    /// What the lookup did.
    pub lookup: LookupReport,
}

/// The routing table.
#[derive(Debug, Clone)]
pub struct TableReport {
    /// Our position, once admitted.
    pub own: Option<Point>,
    /// Buckets that are not empty, the widest first.
    pub buckets: Vec<BucketReport>,
}

/// One bucket of the table: the nodes that share exactly so many leading bits with us.
#[derive(Debug, Clone)]
pub struct BucketReport {
    /// Leading bits shared with us.
    pub prefix_bits: u32,
    /// Contacts, most recently seen first.
    pub contacts: Vec<ContactReport>,
    /// Contacts that wait for a place.
    pub replacements: usize,
}

/// A node to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDoor {
    /// The identity that must answer.
    pub peer: PeerId,
    /// `host:port` each, best first; at most [`super::MAX_DOOR_ADDRESSES`] are kept.
    pub endpoints: Vec<String>,
    /// Who says so.
    pub source: DoorSource,
    /// Not used after this moment, ms since 1970 (soft: while nothing else answers it still is).
    pub expires_ms: Option<u64>,
}

/// A node to start from that is named no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneDoor {
    /// Its identity.
    pub peer: PeerId,
    /// `host:port`.
    pub endpoint: String,
    /// Who named it.
    pub source: DoorSource,
    /// Whether they name no other address of it.
    pub wholly: bool,
}

/// Where a door is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DoorSource {
    /// `bootstrap.nodes` in the config.
    Config,
    /// A signed list.
    List,
    /// Announced in the local network.
    Lan,
    /// The table sample of an earlier run.
    Cache,
    /// Added while running.
    User,
}

impl DoorSource {
    /// One word for people and scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::List => "list",
            Self::Lan => "lan",
            Self::Cache => "cache",
            Self::User => "user",
        }
    }
}

/// A door and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorReport {
    /// The identity that must answer.
    pub peer: PeerId,
    /// `host:port` each.
    pub endpoints: Vec<String>,
    /// Who names it, in a fixed order, never empty.
    pub sources: Vec<DoorSource>,
    /// Not used after this moment, ms since 1970.
    pub expires_ms: Option<u64>,
    /// What became of it.
    pub state: DoorState,
    /// When a handshake last proved that this identity answers there, ms since 1970; kept over restarts. A door never
    /// proved is not fit for a list.
    pub verified_ms: Option<u64>,
    /// Where the last handshake that this node began with it succeeded since the start; `None` if none did, or if a dial
    /// has failed since.
    pub answered_at: Option<SocketAddr>,
}

/// What became of a door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorState {
    /// Not tried since the start.
    Untried,
    /// It answered a signed request.
    Working {
        /// How long ago.
        age: Duration,
    },
    /// It did not.
    Failed {
        /// How long ago.
        age: Duration,
        /// What went wrong.
        why: String,
    },
}

/// Which record is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordRef {
    /// The peer record of a configured peer (by any of its names), or of anybody by whole PeerID.
    Peer(PeerRef),
    /// A value by owner (`None`: this node) and name.
    Value {
        /// As in [`Self::Peer`].
        owner: Option<PeerRef>,
        /// The name it was put under.
        name: String,
    },
    /// Whatever lies under this key.
    Key(Point),
}

/// What to look up: the nodes nearest to it are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupTarget {
    /// A point.
    Point(Point),
    /// The key of a peer's present record; names as in [`RecordRef::Peer`].
    Peer(PeerRef),
}

/// Why the DHT did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DhtError {
    /// `dht.enabled` is false.
    #[error("the DHT is switched off (`dht.enabled`)")]
    Off,
    /// There is nobody to ask.
    #[error("no other node of the DHT is known; add one with `pqvpn bootstrap add`")]
    Alone,
    /// Others are known and none of them answered.
    #[error("no node of the DHT answered")]
    NoAnswer,
    /// Too many lookups of people are under way.
    #[error("too many lookups are under way; try again in a moment")]
    Busy,
    /// The name of a value is empty or longer than 64 bytes.
    #[error("a name has 1 to {max} bytes, this one has {len}")]
    BadName {
        /// Its bytes.
        len: usize,
        /// Allowed.
        max: usize,
    },
    /// The value is too long.
    #[error("a value has at most {max} bytes, this one has {len}")]
    ValueTooLong {
        /// Its bytes.
        len: usize,
        /// Allowed.
        max: usize,
    },
    /// More own values than may be kept.
    #[error("at most {0} values can be kept")]
    TooManyValues(usize),
    /// More doors than may be kept.
    #[error("at most {0} bootstrap nodes can be kept")]
    TooManyDoors(usize),
    /// A door without an address, or with our own identity.
    #[error("{0}")]
    BadDoor(String),
    /// The sequence number could not be written, so nothing was published.
    #[error("the record's number could not be kept on disk: {0}")]
    Disk(String),
    /// Our own key did not sign.
    #[error("the record could not be signed")]
    Signing,
}
