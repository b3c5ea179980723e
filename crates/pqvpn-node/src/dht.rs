// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node's part in the DHT: one task drives the pure machine of `pqvpn-dht` over links.

pub mod report;

pub use doors::MAX_DOOR_ADDRESSES;
pub use report::*;

pub mod doors {
    //! Nodes to start from.

    /// Addresses kept of one door.
    pub const MAX_DOOR_ADDRESSES: usize = 4;
}
