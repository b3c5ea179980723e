// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: dns_query.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_node::fuzz::run("dns_query", data));
