// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the decoder of: bundle.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::network_check::run("bundle", data));
