// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the allocator of a daemon keeps at hand. glibc looks for it in the environment when a program starts, and nowhere
//! else: the program starts once more, as the same process.

use std::{env, os::unix::process::CommandExt as _, process::Command};

/// The process that was started once more: it is not again, whatever becomes of the other variable. The loader keeps that one
/// from programs with privileges of their own.
const STARTED_AGAIN: &str = "PQVPN_STARTED_AGAIN";
const TUNABLES: &str = "GLIBC_TUNABLES";
/// No freed blocks that each thread keeps for itself. They become a megabyte over hours, and 5 kB for each peer; handshakes
/// are no faster with them (docs/performance.md).
const FRUGAL: &str = "glibc.malloc.tcache_count=0";

/// Has the allocator keep little, unless whoever starts the program has told it something. To be called before anything
/// is open or read.
pub(crate) fn keep_little() {
    let own = std::process::id().to_string();
    let is_second = env::var_os(STARTED_AGAIN).is_some_and(|process| process == *own);
    if !cfg!(all(target_os = "linux", target_env = "gnu")) || is_second || env::var_os(TUNABLES).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut words = env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = words.next() {
        again.arg0(name);
    }
    // Returns only if it cannot be: then it is as glibc likes it.
    let _not_started = again.args(words).env(STARTED_AGAIN, own).env(TUNABLES, FRUGAL).exec();
}
