// SPDX-License-Identifier: MIT OR Apache-2.0
//! Thousands of PQVPN nodes in one process under one virtual clock, honest and not.
//!
//! ```text
//! scenario ──► world (queue, net, nodes) ──► engine (pqvpn-dht) of each honest node
//!     │             └──► strategy (adversary) of the colluders
//!     └──► reference: what should be found      stats ──► report: figures, bars, rows
//! ```
//! `whole` has worlds of a few real nodes each, with everything above the sockets.
//! Everything follows from one seed: the same seed gives the same events whatever the number of threads.
#![forbid(unsafe_code)]

pub mod adversary;
pub mod crypto;
pub mod engine;
pub mod node;
pub mod queue;
pub mod reference;
pub mod report;
pub mod scenario;
pub mod seed;
pub mod stats;
pub mod swarm;
pub mod whole;
pub mod world;
