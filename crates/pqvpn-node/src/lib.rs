// SPDX-License-Identifier: MIT OR Apache-2.0
//! The PQVPN node: one task owns the state, links and the data plane feed it, the host is changed in one place.

/// As [`tokio::select`]: fair, but under virtual time in the order of its arms, so that a run can be repeated.
#[cfg(feature = "sim")]
macro_rules! select {
    ($($arms:tt)*) => {
        if crate::sim::now().is_some() {
            tokio::select! { biased; $($arms)* }
        } else {
            tokio::select! { $($arms)* }
        }
    };
}
#[cfg(feature = "sim")]
pub(crate) use select;
#[cfg(not(feature = "sim"))]
pub(crate) use tokio::select;

mod allowance;
mod blocking;
pub mod bootstrap;
mod carrier;
pub mod clock;
pub mod config;
pub mod dht;
mod entropy;
mod events;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzz;
pub mod handle;
pub mod host;
pub mod lan;
pub mod life;
pub mod link;
pub mod membership;
mod memory;
pub mod names;
pub mod negotiate;
pub mod netcheck;
pub mod node;
pub mod overlay;
mod path;
mod plane;
mod session;
#[cfg(feature = "sim")]
pub mod sim;
mod sleep;
pub mod snapshot;
mod state;
pub mod store;
pub mod supervisor;
mod underlay;

pub use node::{Interface, Node, StartError, StartOptions};
/// Has every packet thread started from now on call this first.
pub use pqvpn_dataplane::confine_packet_threads;
pub use pqvpn_dataplane::{allocated, keep_out_of_swap};
