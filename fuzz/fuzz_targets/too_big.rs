// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: too_big.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::packet_check::run("too_big", data));
