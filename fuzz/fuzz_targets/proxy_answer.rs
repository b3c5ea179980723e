// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the decoder of: proxy_answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::carrier_check::run("proxy_answer", data));
