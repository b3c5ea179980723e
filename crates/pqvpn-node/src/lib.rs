// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PQVPN node: one task owns the state, links and the data plane feed it, the host is changed in one place.

pub mod clock;
pub mod config;
mod entropy;
pub mod handle;
pub mod host;
pub mod life;
pub mod link;
pub mod negotiate;
pub mod node;
pub mod overlay;
mod session;
pub mod snapshot;
mod state;
pub mod store;
mod underlay;

pub use node::{Interface, Node, StartError, StartOptions};
