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

/// To folders below one that is somebody else's, like a state directory in a home, root gets only by this.
const OVERRIDE: (CapabilitySet, &str) = (CapabilitySet::DAC_OVERRIDE, "dac_override");

/// What is left.
pub(crate) struct Left {
    /// By name.
    pub(crate) names: Vec<&'static str>,
    /// What could not be dropped, and why.
    pub(crate) failed: Option<io::Error>,
}

/// Drops all others, for programs started from here as well; with `works` it is tried whether the daemon gets at its files
/// without them.
pub(crate) fn drop_most(keep_lock: bool, works: impl FnOnce() -> bool) -> io::Result<Left> {
    let now = capabilities(None)?;
    let mut wanted: Vec<_> = KEPT.into_iter().chain(keep_lock.then_some(LOCK)).collect();
    let all = |wanted: &[(CapabilitySet, &'static str)]| {
        wanted.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one)
    };
    if now.effective.contains(OVERRIDE.0) {
        set_capabilities(None, CapabilitySets { effective: now.effective & all(&wanted), ..now })?;
        if !works() {
            wanted.push(OVERRIDE);
        }
        set_capabilities(None, now)?;
    }
    let kept = all(&wanted);
    // Whatever comes of this: the process itself has them no more.
    let shrunk = if now.effective.contains(CapabilitySet::SETPCAP) { shrink_bounding_set(kept) } else { Ok(()) };
    let permitted = now.permitted & kept;
    // What is not inheritable cannot be ambient.
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: now.inheritable & kept };
    // Where a service manager has seen to it, its filter may refuse the call.
    if sets != now {
        set_capabilities(None, sets)?;
    }
    let left = capabilities(None)?.permitted;
    let names = wanted.iter().filter(|(one, _)| left.contains(*one)).map(|(_, name)| *name).collect();
    Ok(Left { names, failed: shrunk.err() })
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
