// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a DHT node is told at its start.

use std::time::Duration;

use pqvpn_wire::dht::NetworkId;

use crate::address::Realm;

/// Settings of a [`Dht`](crate::Dht); [`DhtConfig::open`] gives the values `dht.md` decides.
#[derive(Debug, Clone, PartialEq)]
pub struct DhtConfig {
    /// Which DHT.
    pub network: NetworkId,
    /// Mean number of evaluations of the admission proof of work.
    pub difficulty: u32,
    /// Contacts in a bucket, in a response, in a result.
    pub k: usize,
    /// Disjoint paths of a lookup.
    pub paths: usize,
    /// Most requests under way inside one path.
    pub alpha: usize,
    /// Agreeing newest answers after which a get stops early. Without a limit it goes on to the end: with fewer, liars
    /// that answer first could pass an older record off as the newest.
    pub sources: usize,
    /// How long a peer may take over one request.
    pub query_timeout: Duration,
    /// How long a whole lookup may take.
    pub lookup_deadline: Duration,
    /// Time between two acts of upkeep while nothing is wrong. An act is one or two signed round trips, 10 kB each.
    pub upkeep: Duration,
    /// Time between two acts of upkeep while contacts fail or answers are missing.
    pub urgent_upkeep: Duration,
    /// A contact not heard of for so long is probed.
    pub stale_after: Duration,
    /// Own records are stored again after this.
    pub republish: Duration,
    /// Heartbeats of own records are sent after this; readers take a record for fresh one hour longer.
    pub beat: Duration,
    /// What kind of underlay it runs over.
    pub realm: Realm,
    /// Whether this node keeps records and is named to others.
    pub serve: bool,
}

impl DhtConfig {
    /// The open DHT with its common parameters.
    #[must_use]
    pub const fn open() -> Self {
        Self {
            network: NetworkId::OPEN,
            difficulty: 512,
            k: 20,
            paths: 8,
            alpha: 3,
            sources: usize::MAX,
            query_timeout: Duration::from_secs(2),
            lookup_deadline: Duration::from_secs(10),
            upkeep: Duration::from_secs(300),
            urgent_upkeep: Duration::from_secs(10),
            stale_after: Duration::from_secs(20 * 60),
            republish: Duration::from_secs(8 * 3600),
            beat: Duration::from_secs(4 * 3600),
            realm: Realm::Open,
            serve: true,
        }
    }

    /// How old the newest sign of life of a peer record may be.
    #[must_use]
    pub const fn freshness(&self) -> Duration {
        self.beat.saturating_add(Duration::from_secs(3600))
    }
}
