// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who belongs to a network and who decides: the constitution, a set of signed statements and what it evaluates to.
//!
//! PURE: no IO, no clock, no entropy; `now` is an argument, signatures are checked through [`StatementVerifier`].
//! Statements form a DAG; the [`View`] is a function of the set of statements and of nothing else, so two nodes with
//! equal heads see the same network, in whatever order they heard of it (security.md 3.2; the rules in prose are in
//! docs/networks.md).
//!
//! ```text
//!  insert(statement) ─► waiting (parents unknown) ─► graph (set, signers) ─► authority (whose signatures count)
//!                                                                               └─► fold (members, names, addresses) ─► View
//! ```
#![forbid(unsafe_code)]

mod authority;
mod bits;
mod constitution;
mod counters;
mod fold;
mod graph;
mod refusal;
mod sync;
mod verify;
pub mod view;
mod waiting;

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "the model names only what it is about")]
mod reference;
#[cfg(test)]
mod tests;

pub use constitution::{Constitution, Inserted, LogEntry, Proposal};
pub use counters::Counters;
pub use refusal::{NotAllowed, Refusal};
pub use sync::Missing;
pub use verify::{CompositeVerifier, StatementVerifier};
pub use view::{Event, Member, Presence, Revocation, View};

/// Statements one network holds at most, void ones included.
pub const MAX_STATEMENTS: usize = 65_536;
/// Statements about admins and parameters one network holds at most: each may ask for an evaluation of all others.
pub const MAX_AUTHORITY_ACTS: usize = 1_024;
/// Statements and authority acts with one signer alone: the rest is kept for those who have to remove it.
pub const MAX_STATEMENTS_ALONE: usize = 61_440;
/// See [`MAX_STATEMENTS_ALONE`].
pub const MAX_AUTHORITY_ACTS_ALONE: usize = 768;
/// Rotations and departures of one member under all its keys.
pub const MAX_OWN_ACTS: usize = 64;
/// Admins at one time.
pub const MAX_ADMINS: usize = 16;
/// Members at one time.
pub const MAX_MEMBERS: usize = 4_096;
/// Statements whose parents are not known yet; the oldest goes first.
pub const MAX_WAITING: usize = 256;
/// Encoded size of all that wait, in bytes: nobody has checked a signature on them. As many with one signature fit.
pub const MAX_WAITING_BYTES: usize = 1536 * 1024;
/// Statements by former admins alone, held because they may become valid again; more are refused.
pub const MAX_VOID: usize = 4_096;
/// Proposals shown at one time, the newest.
pub const MAX_PROPOSALS: usize = 64;
/// And of those that one admin alone has signed.
pub const MAX_PROPOSALS_ALONE: usize = 8;
/// Parents of one statement.
pub const MAX_PARENTS: usize = 16;
/// A checkpoint is due after this many statements.
pub const CHECKPOINT_EVERY: usize = 64;

/// The `i`-th IPv4 address a peer may take in a pool (`pqvpn_packet::addr::ipv4_candidate`).
pub type CandidateFn = fn(ipnet::Ipv4Net, &[u8; 32], u32) -> std::net::Ipv4Addr;
