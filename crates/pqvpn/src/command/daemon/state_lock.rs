// SPDX-License-Identifier: MIT OR Apache-2.0
//! One daemon per state directory: two would be the same node twice.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
};

use nix::fcntl::OFlag;

use crate::failure::Failure;

/// Longer than what a daemon writes: a number, and a path one can connect to.
const MAX_TEXT: u64 = 512;

/// As [`take`], for who only cleans up: where no daemon ever was there is nothing to lock, and nothing is made that would
/// be of another user than the daemon.
pub(super) fn take_existing(state_dir: &Path) -> Result<Option<File>, Failure> {
    if state_dir.join("lock").symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(None);
    }
    take(state_dir, None).map(Some)
}

/// Locks the state directory until the file returned is closed; the kernel lets go when the process dies. The file says who
/// has it, and at which socket that daemon answers.
pub(super) fn take(state_dir: &Path, socket: Option<&Path>) -> Result<File, Failure> {
    let path = state_dir.join("lock");
    let what = "the daemon did not start";
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
        .open(&path)
        .map_err(|error| Failure::file(what, &path, &error))?;
    match lock.try_lock() {
        Ok(()) => {
            let socket = socket.map_or_else(String::new, |socket| socket.display().to_string());
            // On a full disk whoever comes second is told less.
            let _untold = lock.set_len(0).and_then(|()| writeln!(lock, "{}\n{socket}", process::id()));
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => Err(in_use(what, state_dir, Holder::of(lock).as_ref())),
        Err(TryLockError::Error(error)) => Err(Failure::file(what, &path, &error)),
    }
}

/// Where the daemon answers that has the state directory, if one has it and has said so.
pub(super) fn holder_socket(state_dir: &Path) -> Option<PathBuf> {
    let lock =
        OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(state_dir.join("lock")).ok()?;
    Holder::of(lock)?.socket
}

/// Who has a state directory.
struct Holder {
    pid: u32,
    /// None where it is no daemon.
    socket: Option<PathBuf>,
}

impl Holder {
    /// Reads who has it; none where that is from before the file said so.
    fn of(lock: File) -> Option<Self> {
        let mut text = String::new();
        lock.take(MAX_TEXT).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.parse().ok()?;
        Some(Self { pid, socket: lines.next().filter(|line| !line.is_empty()).map(PathBuf::from) })
    }
}

fn in_use(what: &str, state_dir: &Path, holder: Option<&Holder>) -> Failure {
    let dir = state_dir.display();
    let apart = "give this one its own `--state DIR` and `--socket PATH`";
    let (why, hint) = match holder {
        Some(Holder { pid, socket: Some(socket) }) => {
            let socket = socket.display();
            (
                format!("another daemon, process {pid}, uses {dir}; it answers at {socket}"),
                format!("`--socket {socket}` talks to that one; else stop it, or {apart}"),
            )
        }
        Some(Holder { pid, socket: None }) => {
            (format!("process {pid} uses {dir}"), format!("wait until it has ended, or {apart}"))
        }
        None => (format!("another daemon uses {dir}"), format!("stop it, or {apart}")),
    };
    Failure::failed(super::IN_USE, what, why, hint)
}
