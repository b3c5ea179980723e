// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: config_yaml.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_node::fuzz::run("config_yaml", data));
