// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checks behind the fuzz targets; `crates/pqvpn-wire/tests` replays the corpus through the same ones.

#[path = "../../crates/pqvpn-wire/tests/dht/check.rs"]
pub mod check;
#[path = "../../crates/pqvpn-wire/tests/network/check.rs"]
pub mod network_check;
