// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole nodes under virtual time: everything above the sockets is the real node, what is below is made up by
//! `pqvpn-sim`.
//!
//! ```text
//!  NodeHandle ─► State, networks, DHT, link tasks, paths, ratchets     (the daemon's own code)
//!                   │ PacketPlane                  │ Endpoint
//!               SimPlane: real session keys,   links of the world: streams with delay,
//!               replay windows, path rules     breaks and the admission of TLS
//!                   └──────────────► Wire ◄────────┘
//! ```
//! Clock, entropy and interfaces are those of the world of this thread; where no world has begun they are the real ones.

mod context;
mod node;
mod plane;
mod proof;

pub use context::{Host, OnHost, VirtualTime};
pub(crate) use context::{addresses, fill, now, show, spawn, unix_millis, uptime};
pub use node::{Setup, SimNode};
pub use plane::{Sent, Wire};
pub(crate) use proof::{proof_is_true, proof_of};
