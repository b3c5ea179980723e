// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: datagrams.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_dataplane::fuzz_datagrams(data));
