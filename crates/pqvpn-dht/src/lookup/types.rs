// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a lookup is given, what it asks for, and what it comes back with.

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Distance, Point, Record, Token};

/// Names one lookup, get or put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LookupId(pub u64);

/// What a lookup is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Goal {
    /// The k nearest nodes.
    Nodes,
    /// The newest record under the target.
    Value {
        /// Records with a lower seq do not count.
        want_seq: u64,
    },
    /// Every node nearer than the region's radius, each with a token (to store there).
    Region,
}

/// Sizes and times of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupConfig {
    /// How many nearest nodes are wanted.
    pub k: usize,
    /// Disjoint paths (security.md 7.3).
    pub paths: usize,
    /// Most queries one path has under way.
    pub alpha: usize,
    /// Radius of the region around the target that holds 30 nodes on average.
    pub region: Option<Distance>,
    /// A value lookup ends after so many nodes gave the newest record; 1 = the first valid one.
    pub sources: usize,
    /// The lookup ends then, whoever is silent.
    pub deadline: Duration,
    /// A query without an answer for so long has failed.
    pub query_timeout: Duration,
    /// Most queries of the whole lookup.
    pub max_queries: usize,
    /// Ourselves: never asked.
    pub own: Option<PeerId>,
}

impl Default for LookupConfig {
    fn default() -> Self {
        Self {
            k: 20,
            paths: 8,
            alpha: 3,
            region: None,
            sources: 1,
            deadline: Duration::from_secs(10),
            query_timeout: Duration::from_secs(2),
            max_queries: 256,
            own: None,
        }
    }
}

/// What to ask a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whose neighbours are wanted: usually the lookup's target, in a sweep another point of its region.
    pub target: Point,
    /// Whether to ask for the value (`FindValue` under the target) or for nodes only (`FindNode`).
    pub value: bool,
}

/// What a lookup wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask this node; tell the outcome by `on_reply` or `on_failure`.
    Ask {
        /// The node.
        to: Arc<Contact>,
        /// The question.
        ask: Ask,
        /// Give up on it after so long.
        timeout: Duration,
    },
    /// Nothing to do before an answer comes, or before this moment of the monotonic clock.
    Wait {
        /// When to call `next` again.
        until: Duration,
    },
    /// Over: call `finish`.
    Done,
}

/// A node's answer, as far as the rules let it through.
#[derive(Debug, Clone, Default)]
pub struct LookupReply {
    /// Contacts it named, plausible ones only; those beyond 20 are ignored.
    pub contacts: Vec<Arc<Contact>>,
    /// The record it holds. Verified: signature, owner, times.
    pub record: Option<Arc<Record>>,
    /// For a store at this node.
    pub token: Option<Token>,
}

/// A node that answered, with its token.
pub type Answered = (Arc<Contact>, Option<Token>);

/// What a lookup came back with.
#[derive(Debug, Clone, Default)]
pub struct LookupOutcome {
    /// The k nearest that answered, nearest first.
    pub closest: Vec<Answered>,
    /// All within the region that answered, nearest first; empty without a region.
    pub region: Vec<Answered>,
    /// The newest record.
    pub record: Option<Arc<Record>>,
    /// How many nodes gave it.
    pub sources: usize,
    /// Another record with the same seq: with `record` it proves that the owner equivocated.
    pub rival: Option<Arc<Record>>,
    /// The nearest node that answered a value query without the newest record: for a copy on the path.
    pub missed: Option<(Arc<Contact>, Token)>,
    /// The lookup in numbers.
    pub stats: LookupStats,
}

/// A lookup in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LookupStats {
    /// Queries sent.
    pub asked: u32,
    /// Answered.
    pub answered: u32,
    /// Not answered in time, or the caller said so.
    pub failed: u32,
    /// Longest chain of round trips each of which had to wait for the one before.
    pub rounds: u32,
    /// Paths opened, those opened later because something was missing included.
    pub paths: u32,
    /// Answers of nodes not asked, or not asked any more.
    pub stray: u32,
    /// Contacts ignored: more than 20 in an answer, repeated, or ourselves.
    pub surplus: u32,
    /// Whether the deadline or the bound on queries ended it.
    pub cut: bool,
    /// From the start to the end.
    pub elapsed: Duration,
}
