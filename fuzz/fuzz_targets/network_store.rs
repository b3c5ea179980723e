// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fuzzes the reading of: network_store.
#![no_main]

use std::panic::{set_hook, take_hook};

/// The library of the store panics at a damaged file, and the node takes that for an answer (`store::whole`). Only there: such a
/// panic that leaves the target is a fault, and so is any other at once.
fn let_the_library_panic() {
    let ours = take_hook();
    set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|place| place.file().contains("/redb-")) {
            ours(info);
        }
    }));
}

libfuzzer_sys::fuzz_target!(init: let_the_library_panic(), |data: &[u8]| pqvpn_node::fuzz::run("network_store", data));
