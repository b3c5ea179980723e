// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the decoder of: response pong.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::check::run("response_pong", data));
