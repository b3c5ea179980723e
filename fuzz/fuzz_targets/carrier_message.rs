// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the decoder of: carrier_message.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::carrier_check::run("carrier_message", data));
