// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory: no dump, no tracing, no swap.

use rustix::{
    mm::{MlockAllFlags, mlockall, munlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
    thread::{CapabilitySet, capabilities},
};

/// Whether memory may be swapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locked {
    /// Nothing of it, ever.
    All,
    /// The same, for as long as the process keeps `CAP_IPC_LOCK`: it may not raise its limit.
    ByRight,
    /// It may, for this reason.
    Nothing(String),
}

/// Keeps keys out of core dumps and swap, and other processes of this user out of our memory.
///
/// All memory is locked or none: keys are in the objects of the cryptographic library, in its stacks and in ours, and a
/// limit that is for less than all makes later allocations fail.
#[must_use]
pub fn keep_to_ourselves() -> Locked {
    // Neither can fail for a process that lowers its own rights; without them the daemon still works.
    let _still_dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _limit_stands = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let endless = Rlimit { current: None, maximum: None };
    // Raised while there is the right to: that to lock without a limit is given up later.
    let raised = setrlimit(Resource::Memlock, endless).is_ok();
    let by_right = capabilities(None).is_ok_and(|now| now.effective.contains(CapabilitySet::IPC_LOCK));
    if !raised && !by_right {
        let limit = getrlimit(Resource::Memlock).maximum.unwrap_or(u64::MAX);
        return Locked::Nothing(format!("RLIMIT_MEMLOCK is {limit} bytes; keys may get to swap"));
    }
    // On fault: nothing is touched early.
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) if raised => Locked::All,
        Ok(()) if is_beyond_the_limit() => Locked::ByRight,
        Ok(()) => {
            // The right is one of another user namespace than the first, where it does not count.
            let _nothing_else_is_locked = munlockall();
            Locked::Nothing("CAP_IPC_LOCK does not count in this user namespace".to_owned())
        }
        Err(error) => Locked::Nothing(error.to_string()),
    }
}

/// Whether more can be locked than the limit says: tried with an allocation that is never touched.
fn is_beyond_the_limit() -> bool {
    let limit = getrlimit(Resource::Memlock).current.unwrap_or(0);
    let Ok(more) = usize::try_from(limit.saturating_add(1 << 20)) else { return false };
    Vec::<u8>::new().try_reserve_exact(more).is_ok()
}
