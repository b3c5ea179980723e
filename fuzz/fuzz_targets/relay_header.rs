// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: relay_header.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::traffic_check::run("relay_header", data));
