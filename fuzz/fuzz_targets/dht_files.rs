// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: dht_files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_node::fuzz::run("dht_files", data));
