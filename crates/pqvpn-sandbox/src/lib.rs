// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the daemon takes away from itself once it is set up, whoever started it.
//!
//! [`confine`] is for the whole process: no new privileges, few capabilities, and with Landlock only the files the daemon
//! works with. Each is of the calling thread and of those it starts later, so it comes before there are others.
//! [`packet_thread`] is for one packet thread: the system calls its loop makes, and no others. Nothing of it can be taken
//! back, and what the kernel does not know is reported, not fatal.

#![forbid(unsafe_code)]

mod capabilities;
mod files;
mod memory;
mod packet;

use std::{fs, io};

use rustix::thread::set_no_new_privs;

use self::capabilities::Left;
pub use self::{
    files::Places,
    memory::{Locked, keep_to_ourselves},
    packet::packet_thread,
};

/// What is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Capabilities that are left, like `net_admin`.
    pub capabilities: Vec<&'static str>,
    /// Whether the process and its children see only the files they need.
    pub files: bool,
    /// Whether packet threads may make only the system calls of their loop.
    pub packet_threads: bool,
    /// Whether no memory is ever swapped.
    pub memory: bool,
    /// What is not in force, and why.
    pub missing: Vec<String>,
}

/// Confines this process; `locked` is what became of [`keep_to_ourselves`].
///
/// # Errors
/// It has other threads already, which would keep what is taken away here.
pub fn confine(places: &Places, locked: Locked) -> io::Result<Confinement> {
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(io::Error::other(format!("{threads} threads run already")));
    }
    let by_right = locked == Locked::ByRight;
    let mut now = Confinement { memory: by_right || locked == Locked::All, ..Confinement::default() };
    if let Locked::Nothing(why) = locked {
        now.missing.push(format!("memory lock: {why}"));
    }
    let mut missing = |what: &str, error: &dyn std::fmt::Display| now.missing.push(format!("{what}: {error}"));
    if let Err(error) = set_no_new_privs(true) {
        missing("no new privileges", &error);
    }
    // Landlock first: while there are rights to open all places with.
    now.files = files::restrict(places).inspect_err(|why| missing("landlock", why)).is_ok();
    match capabilities::drop_most(by_right, || places.are_open()) {
        Ok(Left { names, failed }) => {
            if let Some(error) = failed {
                missing("capabilities of programs started from here", &error);
            }
            if names.contains(&"dac_override") {
                missing("capabilities", &"a folder of the daemon's is below one of another user: dac_override stays");
            }
            now.capabilities = names;
        }
        Err(error) => missing("capabilities", &error),
    }
    now.packet_threads = packet::is_possible().inspect_err(|why| missing("seccomp", why)).is_ok();
    Ok(now)
}
