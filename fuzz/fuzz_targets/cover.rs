// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: cover.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::network_check::run("cover", data));
