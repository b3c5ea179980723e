// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a DHT node asks of its surroundings and tells them.

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Fact, Point, Record, Request};

use crate::{
    eclipse::Verdict,
    lookup::{LookupId, LookupOutcome},
};

/// Names one request to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryId(pub u64);

/// Something to be done or told.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Output {
    /// Send this; answer with `on_response` or `on_failure` once, at the latest after `timeout`.
    Query {
        /// Hand it back with the answer.
        id: QueryId,
        /// Whom to ask.
        to: Arc<Contact>,
        /// What to ask.
        request: Request,
        /// How long to wait, dialling included.
        timeout: Duration,
        /// Reach the peer at an address of the contact, not over a link it opened from elsewhere: this proves the address.
        dial: bool,
    },
    /// Evaluate the contact's proof of work and answer with `on_admission`.
    VerifyAdmission {
        /// The contact.
        contact: Arc<Contact>,
    },
    /// A get has its first acceptable record; a newer one may still come.
    Found {
        /// The get.
        id: LookupId,
        /// The record.
        record: Arc<Record>,
    },
    /// A lookup, get or put has ended.
    Done(Box<Finished>),
    /// Something an operator or the node wants to know.
    Notice(Notice),
}

/// The end of a lookup, get or put.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Which.
    pub id: LookupId,
    /// What it was for.
    pub target: Point,
    /// What came out.
    pub outcome: LookupOutcome,
    /// What the density of the nearest nodes says.
    pub verdict: Verdict,
    /// Nodes that keep the record (put).
    pub stored: usize,
    /// Nodes asked to keep it.
    pub asked_to_store: usize,
}

/// Events worth a line in a log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Notice {
    /// The first contacts are in the table.
    Joined,
    /// No contact answers any more.
    Lonely,
    /// The nodes nearest to a point stand too close together to be there by chance.
    Eclipse {
        /// The point.
        target: Point,
        /// How sure.
        verdict: Verdict,
    },
    /// A peer is not asked and not believed for a while.
    Quarantined {
        /// The peer.
        peer: PeerId,
        /// For how long.
        period: Duration,
    },
    /// A fact became known.
    Fact(Arc<Fact>),
    /// An own record ends soon and needs a successor from its owner.
    Renew {
        /// Its key.
        key: Point,
    },
}

/// Why a query has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryFailure {
    /// Nothing came in time.
    Timeout,
    /// No link to the peer.
    Unreachable,
    /// The answer broke the protocol.
    Malformed,
    /// The answer's signature is wrong.
    BadSignature,
    /// This node had no room for the query: not the peer's fault.
    Local,
}

/// A node's state in numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct DhtStatus {
    /// Our position, once admitted.
    pub node_id: Option<Point>,
    /// Whether any contact is known.
    pub joined: bool,
    /// Contacts in the table.
    pub contacts: usize,
    /// Estimated number of nodes.
    pub estimate: Option<f64>,
    /// Records kept for others.
    pub records: usize,
    /// Their size in bytes.
    pub record_bytes: usize,
    /// Records of our own.
    pub own_records: usize,
    /// Requests waiting for an answer.
    pub queries: usize,
    /// Lookups under way.
    pub lookups: usize,
    /// Lookups begun so far.
    pub lookups_begun: u64,
    /// Facts known.
    pub facts: usize,
    /// Peers in quarantine.
    pub quarantined: usize,
    /// Requests answered so far.
    pub served: u64,
}
