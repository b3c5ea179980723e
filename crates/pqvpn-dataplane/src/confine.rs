// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a packet thread gives up before its first packet: said once for the process, by whoever confines it.

use std::sync::OnceLock;

static CONFINE: OnceLock<fn()> = OnceLock::new();

/// Has every packet thread started from now on call this first. Only the first call counts.
pub fn confine_packet_threads(confine: fn()) {
    let _the_first_counts = CONFINE.set(confine);
}

/// Confines the calling thread, if so wished.
pub(crate) fn this_thread() {
    if let Some(confine) = CONFINE.get() {
        confine();
    }
}
