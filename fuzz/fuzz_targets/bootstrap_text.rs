// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: bootstrap_text.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_node::fuzz::run("bootstrap_text", data));
