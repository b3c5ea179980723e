// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the decoder of: request find value.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::check::run("request_find_value", data));
