// SPDX-License-Identifier: MIT OR Apache-2.0
//! A Kademlia that survives liars, as a pure state machine (Maymounkov & Mazières 2002; Baumgart & Mies, "S/Kademlia", 2007).
//!
//! PURE: no IO, no clock, no entropy source; `now` and a seed are arguments. [`Dht`] is the whole node; everything else
//! is one of its parts and can be driven alone.
//!
//! ```text
//!  command ─► lookup ─► Output::Query ─► (a stream of a link, elsewhere) ─► on_response / on_failure ─► Output::Done
//!  on_request(from, request) ─► rules, table, storage ─► response
//! ```
#![forbid(unsafe_code)]

pub mod address;
pub mod admission;
pub mod anomaly;
pub mod counters;
pub mod eclipse;
pub mod engine;
pub mod estimate;
pub mod facts;
pub mod forest;
pub mod limit;
pub mod lookup;
pub mod now;
pub mod quarantine;
pub mod reputation;
pub mod rules;
pub mod storage;
pub mod table;
pub mod votes;

pub use engine::{Dht, DhtConfig, DhtStatus, Finished, Notice, Output, QueryFailure, QueryId};
pub use lookup::LookupId;
pub use now::Now;
pub(crate) use now::WallClock;
