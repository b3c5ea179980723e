// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks of this node: one task owns their constitutions, records and gossip.
//!
//! ```text
//!  accepted link, first frame a network's request ─► Port ─► Driver ─► Network ─► answer on the same stream
//!  ring of members ─► Driver ─► links it keeps ─► compare heads, pull what is missing, push what is new
//!  Network ─► Store (redb) before anything is told ─► views to the state task
//! ```

mod blinded;
mod command;
mod driver;
mod error;
mod event;
mod join;
mod links;
#[cfg(test)]
mod live;
mod members;
mod nearby;
mod network;
mod overlay;
mod port;
mod presence;
mod relaying;
pub mod report;
mod rotation;
mod rpc;
mod store;

pub use command::{NetworkCommand, Reply};
pub use port::MembershipError;
pub use report::*;
pub use rotation::{Interrupted, RotationError, finish_rotation};

pub(crate) use error::RelayError;
pub(crate) use event::{Order, Rotating};
pub(crate) use port::{Guest, PoolChooser, Port, Setup, start};
pub(crate) use relaying::{Forwarder, Willing};
pub(crate) use rotation::decide_at_rest;
pub(crate) use rpc::is_request;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use store::fuzz::file as fuzz_store;
