// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: fragment.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_fuzz::packet_check::run("fragment", data));
