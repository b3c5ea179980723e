// SPDX-License-Identifier: MIT OR Apache-2.0
//! The privilege to make network namespaces: given, or taken by entering a user namespace.

use std::fs;
use std::io;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};

use super::NetnsError;

/// CAP_NET_ADMIN and CAP_SYS_ADMIN as bits of `CapEff` (linux/capability.h).
const NEEDED_CAPABILITIES: u64 = 1 << 12 | 1 << 21;

/// How this process came to be allowed to make namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// It had the capabilities.
    Given,
    /// It is root of a user namespace it entered.
    UserNamespace,
}

/// Makes sure this process may make namespaces: does nothing when it may, else enters a user namespace.
/// Call it first thing in `main`, before any thread starts.
///
/// # Errors
/// Those of [`enter_user_namespace`].
pub fn acquire() -> Result<Privilege, NetnsError> {
    if effective_capabilities()? & NEEDED_CAPABILITIES == NEEDED_CAPABILITIES {
        return Ok(Privilege::Given);
    }
    enter_user_namespace()?;
    Ok(Privilege::UserNamespace)
}

/// Moves the process into a new user, network and mount namespace in which it is root.
///
/// # Errors
/// [`NetnsError::Threads`] when threads run already, [`NetnsError::UserNamespaceForbidden`] when the kernel says no.
pub fn enter_user_namespace() -> Result<(), NetnsError> {
    let threads = read_dir_count("/proc/self/task")?;
    if threads != 1 {
        return Err(NetnsError::Threads(threads));
    }
    let (uid, gid) = (getuid(), getgid());
    let forbidden = |error: io::Error| NetnsError::UserNamespaceForbidden(error);
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .map_err(|error| forbidden(error.into()))?;
    // setgroups must be given up before an unprivileged gid map is accepted (user_namespaces(7)).
    write("/proc/self/setgroups", "deny").map_err(forbidden)?;
    write("/proc/self/uid_map", &format!("0 {uid} 1")).map_err(forbidden)?;
    write("/proc/self/gid_map", &format!("0 {gid} 1")).map_err(forbidden)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|error| forbidden(error.into()))
}

/// The `CapEff` bits of this process.
fn effective_capabilities() -> Result<u64, NetnsError> {
    let path = "/proc/self/status";
    let proc_error = |error| NetnsError::Proc { path: path.to_owned(), error };
    let status = fs::read_to_string(path).map_err(proc_error)?;
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .ok_or_else(|| proc_error(io::Error::new(io::ErrorKind::InvalidData, "no CapEff line")))
}

fn read_dir_count(path: &str) -> Result<usize, NetnsError> {
    fs::read_dir(path).map(Iterator::count).map_err(|error| NetnsError::Proc { path: path.to_owned(), error })
}

/// Writes a file of /proc, naming it in the error.
fn write(path: &str, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}
