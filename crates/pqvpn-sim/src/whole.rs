// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes under virtual time: links, membership, paths, sessions and DHT together, with everything going wrong at
//! random, and invariants looked at after each step.
//!
//! ```text
//!  seed ─► operations ─► World: 3 to 16 real nodes (pqvpn_node::sim) over a Fabric (routes, delays, routers, cuts)
//!                           └─► Log: what everybody saw, judged at once ─► violations ─► minimised list of operations
//! ```
//! A run is repeated by its seed; a list of operations cut down from it is repeated by itself.

mod check;
mod fabric;
mod link;
mod log;
mod op;
mod people;
mod removals;
mod run;
mod world;

pub use log::Violation;
pub use op::Op;
pub use people::MAX_NODES;
pub use run::{Campaign, Outcome, Plan, campaign, minimise, run};
pub use world::World;
