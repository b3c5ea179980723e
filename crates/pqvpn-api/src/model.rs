// SPDX-License-Identifier: MIT OR Apache-2.0
//! The JSON values of the control API: `cli.md` schema 1, field for field.

mod bootstrap;
mod dht;
mod dns;
#[cfg(feature = "server")]
mod from_dht;
#[cfg(feature = "server")]
mod from_netcheck;
#[cfg(feature = "server")]
mod from_network;
#[cfg(feature = "server")]
mod from_node;
mod keys;
mod membership;
mod metrics;
mod netcheck;
mod network;
mod request;
mod status;

pub use bootstrap::{
    Bootstrap, BootstrapAddRequest, BootstrapAdded, BootstrapList, BootstrapRemoveRequest, BootstrapRemoved, Door,
    DoorState,
};
pub use dht::{
    DhtAdmission, DhtBucket, DhtContact, DhtContent, DhtDoors, DhtEclipse, DhtFound, DhtGetRequest, DhtGot, DhtLinks,
    DhtLookup, DhtLookupRequest, DhtLookups, DhtOwnRecord, DhtPut, DhtPutRequest, DhtRecord, DhtRpc, DhtState,
    DhtStatus, DhtTable,
};
pub use dns::{Dns, DnsName, DnsQueries, DnsServer};
#[cfg(feature = "server")]
pub(crate) use from_node::rounded;
pub use keys::{RotateRequest, Rotated, RotatedIn, SecretBytes};
pub use membership::{
    Approved, CancelRequest, Denied, Invite, InviteCreated, InviteRequest, Invites, JoinRequest, Joined, Member,
    Members, Pending, Requests, RevokeRequest, Revoked, WhoRequest,
};
pub use metrics::{METRICS_TEXT, MetricFamily, MetricKind, MetricSample, Metrics};
pub use netcheck::{Finding, NetCheck, Outside, PortMapping, Relay, RelayedPair, RelayedTotal, Relaying, Visitors};
pub use network::{
    Act, Admin, ContestRequest, DisableRequest, Gossip, Lock, LockLog, LockLogRequest, NetCreateRequest, NetRequest,
    NetworkAnswer, NetworkInfo, Networks, Proposal, SignRequest, Statement,
};
pub use request::{
    Done, Identity, PeerRequest, Ping, PingRequest, SetOutcome, SetRequest, Setting, Started, State, Version,
};
pub use status::{
    Confinement, Health, HealthLevel, Links, Network, NetworkName, NodeState, Path, PathKind, Peer, PeerCounts,
    PeerState, Peers, Session, Status, VERIFIED_WITHIN,
};

/// Name of the only suite: hybrid key exchange and hybrid signatures, never one half.
pub const SUITE: &str = "X25519MLKEM1024/MLDSA87-Ed25519";
