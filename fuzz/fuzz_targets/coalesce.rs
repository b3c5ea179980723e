// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: coalesce.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::traffic_check::run("coalesce", data));
