// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: control_socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pqvpn_api::server::fuzz_control_socket(data));
