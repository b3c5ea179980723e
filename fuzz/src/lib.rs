// SPDX-License-Identifier: MIT OR Apache-2.0
//! The checks behind the fuzz targets; the tests of their crates replay the corpus through the same ones.

#[path = "../../crates/pqvpn-wire/tests/carrier/check.rs"]
pub mod carrier_check;
#[path = "../../crates/pqvpn-wire/tests/dht/check.rs"]
pub mod check;
#[path = "../../crates/pqvpn-crypto/tests/parsers/check.rs"]
pub mod crypto_check;
#[path = "../../crates/pqvpn-wire/tests/network/check.rs"]
pub mod network_check;
#[path = "../../crates/pqvpn-packet/tests/pieces/check.rs"]
pub mod packet_check;
#[path = "../../crates/pqvpn-packet/tests/traffic/check.rs"]
pub mod traffic_check;
