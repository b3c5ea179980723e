// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: network_store.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_node::fuzz::run("network_store", data));
