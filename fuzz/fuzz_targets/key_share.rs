// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: key_share.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::crypto_check::run("key_share", data));
