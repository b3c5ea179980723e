// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node's part in the DHT: one task drives the pure machine of `pqvpn-dht` over links.
//!
//! ```text
//!  accepted link, first frame a DHT request ─► Port ─► Driver ─► Dht::on_request ─► signed answer on the same stream
//!  Dht::poll_output ─► Driver ─► warm link, or a dial ─► one stream ─► Dht::on_response / on_failure
//!  proofs of work ─► two threads ─► Driver
//! ```

mod addresses;
mod dial;
mod doors;
mod driver;
mod event;
mod files;
mod keys;
mod links;
mod observed;
mod places;
mod port;
mod position;
mod records;
pub mod report;
mod rpc;
mod usage;
mod work;

pub use doors::{MAX_DOOR_ADDRESSES, MAX_DOORS};
pub use report::*;

pub(crate) use addresses::{dialable, realm};
pub(crate) use event::{FirstStream, Order, ValueAs, Wanted};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use files::fuzz as fuzz_files;
pub(crate) use files::hand_over;
pub(crate) use places::{NoPlace, Place, Places};
pub(crate) use port::{Port, Setup, Stranger, off, start};
pub(crate) use rpc::is_request;
pub(crate) use usage::Usage;
