// SPDX-License-Identifier: MIT OR Apache-2.0
//! One daemon per state directory: two would be the same node twice.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::ErrorKind,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nix::fcntl::OFlag;

use crate::failure::Failure;

/// As [`take`], for who only cleans up: where no daemon ever was there is nothing to lock, and nothing is made that would
/// be of another user than the daemon.
pub(super) fn take_existing(state_dir: &Path) -> Result<Option<File>, Failure> {
    if state_dir.join("lock").symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(None);
    }
    take(state_dir).map(Some)
}

/// Locks the state directory until the file returned is closed; the kernel lets go when the process dies.
pub(super) fn take(state_dir: &Path) -> Result<File, Failure> {
    let path = state_dir.join("lock");
    let what = "the daemon did not start";
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
        .open(&path)
        .map_err(|error| Failure::file(what, &path, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failure::failed(
            super::IN_USE,
            what,
            format!("another daemon uses {}", state_dir.display()),
            "stop it, or give this one its own `--state DIR` and `--socket PATH`",
        )),
        Err(TryLockError::Error(error)) => Err(Failure::file(what, &path, &error)),
    }
}
