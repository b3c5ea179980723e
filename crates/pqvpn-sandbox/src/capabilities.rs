// SPDX-License-Identifier: MIT OR Apache-2.0
//! Capabilities: two are kept, and a third where memory could not stay locked without it.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities,
};

/// The TUN device, addresses, routes, nftables and `SO_MARK`; names on port 53 of overlay addresses, a relay on port 443.
const KEPT: [(CapabilitySet, &str); 2] =
    [(CapabilitySet::NET_ADMIN, "net_admin"), (CapabilitySet::NET_BIND_SERVICE, "net_bind_service")];

/// See [`Locked::ByRight`](crate::Locked::ByRight).
const LOCK: (CapabilitySet, &str) = (CapabilitySet::IPC_LOCK, "ipc_lock");

/// Drops all others, for programs started from here as well; gives the names of those that are left.
pub(crate) fn drop_most(keep_lock: bool) -> io::Result<Vec<&'static str>> {
    let wanted = || KEPT.iter().chain(keep_lock.then_some(&LOCK));
    let kept = wanted().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    let now = capabilities(None)?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        shrink_bounding_set(kept)?;
    }
    let permitted = now.permitted & kept;
    // What is not inheritable cannot be ambient.
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: now.inheritable & kept };
    // Where a service manager has seen to it, its filter may refuse the call.
    if sets != now {
        set_capabilities(None, sets)?;
    }
    Ok(wanted().filter(|(one, _)| permitted.contains(*one)).map(|(_, name)| *name).collect())
}

/// Root gets no others back by starting a program.
fn shrink_bounding_set(kept: CapabilitySet) -> io::Result<()> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // The kernel knows no more of them.
        let Ok(there) = capability_is_in_bounding_set(one) else { return Ok(()) };
        if there && !kept.contains(one) {
            remove_capability_from_bounding_set(one)?;
        }
    }
    Ok(())
}
