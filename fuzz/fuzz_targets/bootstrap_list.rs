// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: bootstrap_list.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_node::fuzz::run("bootstrap_list", data));
