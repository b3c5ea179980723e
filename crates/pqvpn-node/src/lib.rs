// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PQVPN node: one task owns the state, links and the data plane feed it, the host is changed in one place.

pub mod bootstrap;
mod carrier;
pub mod clock;
pub mod config;
pub mod dht;
mod entropy;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod handle;
pub mod host;
pub mod lan;
pub mod life;
pub mod link;
pub mod membership;
pub mod names;
pub mod negotiate;
pub mod netcheck;
pub mod node;
pub mod overlay;
mod path;
mod session;
pub mod snapshot;
mod state;
pub mod store;
pub mod supervisor;
mod underlay;

pub use node::{Interface, Node, StartError, StartOptions};
