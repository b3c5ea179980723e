// SPDX-License-Identifier: MIT OR Apache-2.0
//! One daemon per state directory: two would be the same node twice.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
};

use nix::{fcntl::OFlag, unistd::geteuid};

use crate::failure::Failure;

const WHAT: &str = "the daemon did not start";
/// Longer than what a daemon writes: a number, and a path one can connect to.
const MAX_TEXT: u64 = 512;
/// Stands for a socket whose path is not plain.
const UNTOLD: &str = "?";

/// As [`take`], for who only cleans up: where no daemon ever was there is nothing to lock, and nothing is made that would
/// be of another user than the daemon.
pub(super) fn take_existing(state_dir: &Path) -> Result<Option<File>, Failure> {
    if state_dir.join("lock").symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(None);
    }
    let lock = lock(state_dir, OpenOptions::new().read(true).write(true), Taker::CleansUp)?;
    sign(&lock, "");
    Ok(Some(lock))
}

/// Says who has the lock. On a full disk whoever comes second is told less.
fn sign(mut lock: &File, socket: &str) {
    let _untold = lock.set_len(0).and_then(|()| writeln!(lock, "{}\n{socket}", process::id()));
}

/// Locks the state directory until the file returned is closed; the kernel lets go when the process dies. The file says who
/// has it, and at which socket that daemon answers.
pub(super) fn take(state_dir: &Path, socket: Option<&Path>) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let lock = lock(state_dir, &mut options, Taker::Starts)?;
    let socket = socket.map_or("", |socket| socket.to_str().filter(|path| is_plain(path)).unwrap_or(UNTOLD));
    sign(&lock, socket);
    Ok(lock)
}

/// Where the daemon answers that has the state directory, if one has it and has said so.
pub(super) fn holder_socket(state_dir: &Path) -> Option<PathBuf> {
    let lock = open(state_dir, OpenOptions::new().read(true)).ok()?;
    match Holder::of(lock)? {
        Holder::Daemon { socket, .. } => socket,
        Holder::Other { .. } => None,
    }
}

fn lock(state_dir: &Path, options: &mut OpenOptions, taker: Taker) -> Result<File, Failure> {
    let lock = open(state_dir, options)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(in_use(state_dir, Holder::of(lock).as_ref(), taker)),
        Err(TryLockError::Error(error)) => Err(Failure::file(WHAT, &state_dir.join("lock"), &error)),
    }
}

/// Opens the lock. Root may do so in a directory of another user, who may have put anything there: a FIFO to wait at, or
/// another name of a file that is to be emptied.
fn open(state_dir: &Path, options: &mut OpenOptions) -> Result<File, Failure> {
    let path = state_dir.join("lock");
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let opened = options.custom_flags(flags.bits()).open(&path).and_then(|lock| Ok((lock.metadata()?, lock)));
    let (meta, lock) = opened.map_err(|error| Failure::file(WHAT, &path, &error))?;
    let is_owner = |uid: u32| fs::metadata(state_dir).is_ok_and(|directory| directory.uid() == uid);
    let is_known = meta.uid() == geteuid().as_raw() || meta.uid() == 0 || is_owner(meta.uid());
    if meta.is_file() && meta.nlink() == 1 && is_known {
        return Ok(lock);
    }
    let why = format!("{} is not what a daemon makes: one regular file, of the user it runs as", path.display());
    Err(Failure::refused("permission", WHAT, why, "look at what it is; where no daemon runs, remove it"))
}

/// Who wants a state directory.
#[derive(Clone, Copy)]
enum Taker {
    Starts,
    /// Another state directory would not be the one to clean.
    CleansUp,
}

/// Who has a state directory.
enum Holder {
    Daemon {
        pid: u32,
        /// None where its path is not plain.
        socket: Option<PathBuf>,
    },
    Other {
        pid: u32,
    },
}

impl Holder {
    /// Reads who has it; none where that is from before the file said so.
    fn of(lock: File) -> Option<Self> {
        let mut text = String::new();
        lock.take(MAX_TEXT).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.parse().ok()?;
        match lines.next() {
            None | Some("") => Some(Self::Other { pid }),
            Some(path) => Some(Self::Daemon { pid, socket: is_plain(path).then(|| path.into()) }),
        }
    }
}

/// Whether a path can be shown in a hint that is copied into a shell: nothing in it that a terminal or a shell follows, or
/// that reads as other than it is (bidi and format characters).
fn is_plain(path: &str) -> bool {
    path.starts_with('/') && path.chars().all(|c| c.is_alphanumeric() || "/._-+@:,=%".contains(c))
}

fn in_use(state_dir: &Path, holder: Option<&Holder>, taker: Taker) -> Failure {
    let dir = state_dir.display();
    let why = match holder {
        Some(Holder::Daemon { pid, socket: Some(socket) }) => {
            format!("another daemon, process {pid}, uses {dir}; it answers at {}", socket.display())
        }
        Some(Holder::Daemon { pid, socket: None }) => format!("another daemon, process {pid}, uses {dir}"),
        Some(Holder::Other { pid }) => format!("process {pid} uses {dir}"),
        None => format!("another daemon uses {dir}"),
    };
    let apart = "give this one its own `--state DIR` and `--socket PATH`";
    let hint = match (taker, holder) {
        (Taker::CleansUp, Some(Holder::Other { .. })) => "wait until it has ended".to_owned(),
        (Taker::CleansUp, Some(Holder::Daemon { .. }) | None) => {
            "stop the daemon first: what it has set up goes with it".to_owned()
        }
        (Taker::Starts, Some(Holder::Daemon { socket: Some(socket), .. })) => {
            format!("`--socket {}` talks to that one; else stop it, or {apart}", socket.display())
        }
        (Taker::Starts, Some(Holder::Other { .. })) => format!("wait until it has ended, or {apart}"),
        (Taker::Starts, Some(Holder::Daemon { socket: None, .. }) | None) => format!("stop it, or {apart}"),
    };
    Failure::failed(super::IN_USE, WHAT, why, hint)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::{sys::stat::Mode, unistd::mkfifo};
    use tempfile::TempDir;

    use super::*;

    fn directory() -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        (dir, lock)
    }

    /// What is said to who comes while the file, with this text, is locked by another.
    fn said_of(text: &str) -> Failure {
        let (dir, path) = directory();
        fs::write(&path, text).unwrap();
        let held = File::open(&path).unwrap();
        held.lock().unwrap();
        let cleaning = take_existing(dir.path()).unwrap_err().hint;
        let first = if text == "17\n\n" { "wait until it has ended" } else { "stop the daemon first: " };
        assert!(cleaning.starts_with(first) && !cleaning.contains("--state"), "{text:?}: {cleaning}");
        take(dir.path(), None).unwrap_err()
    }

    #[test]
    fn what_another_user_may_have_put_there_is_neither_waited_for_nor_emptied() {
        let (dir, path) = directory();
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert_eq!(take_existing(dir.path()).unwrap_err().exit, 4, "a FIFO");
        assert!(holder_socket(dir.path()).is_none());
        fs::remove_file(&path).unwrap();
        let precious = dir.path().join("precious");
        fs::write(&precious, "data").unwrap();
        fs::hard_link(&precious, &path).unwrap();
        assert_eq!(take_existing(dir.path()).unwrap_err().exit, 4, "a hard link");
        assert_eq!(take(dir.path(), None).unwrap_err().exit, 4, "a hard link");
        fs::remove_file(&path).unwrap();
        symlink(&precious, &path).unwrap();
        assert!(take(dir.path(), None).is_err(), "a link");
        assert_eq!(fs::read(&precious).unwrap(), b"data");
    }

    #[test]
    fn a_lock_of_a_third_user_is_refused_and_one_of_the_directorys_own_is_not() {
        const NOBODY: u32 = 65534;
        let (dir, path) = directory();
        fs::write(&path, "").unwrap();
        let give = |what: &Path| std::os::unix::fs::chown(what, Some(NOBODY), Some(NOBODY));
        if give(&path).is_err() {
            return;
        }
        assert_eq!(take(dir.path(), None).unwrap_err().exit, 4);
        give(dir.path()).unwrap();
        assert!(take(dir.path(), None).is_ok());
    }

    #[test]
    fn who_only_cleans_up_makes_nothing_and_does_not_pass_for_the_daemon_before() {
        let (dir, path) = directory();
        assert!(take_existing(dir.path()).unwrap().is_none());
        assert!(!path.exists());
        fs::write(&path, "17\n/x\n").unwrap();
        let taken = take_existing(dir.path()).unwrap();
        assert!(taken.is_some() && holder_socket(dir.path()).is_none());
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n\n", process::id()));
    }

    #[test]
    fn a_socket_is_named_only_where_its_path_is_plain() {
        assert!(said_of("17\n/run/pqvpn/é-1.s\n").hint.contains("`--socket /run/pqvpn/é-1.s` talks"));
        for path in ["/a\u{202e}b", "/a\u{200b}b", "/a\u{1b}[2J", "/a`b", "/a;b", "/a$(b)", "relative", UNTOLD] {
            let failure = said_of(&format!("17\n{path}\n"));
            assert!(failure.why[0].starts_with("another daemon, process 17, uses"), "{:?}", failure.why);
            let all = format!("{:?}{}", failure.why, failure.hint);
            assert!(!all.contains(path) && failure.hint.starts_with("stop it, or"), "{all}");
        }
    }

    #[test]
    fn who_cleans_up_beside_another_is_not_told_to_go_elsewhere() {
        for (text, hint) in
            [("", "stop it, or"), ("17\n\n", "wait until it has ended, or"), ("17\n/s\n", "`--socket /s`")]
        {
            let failure = said_of(text);
            assert!(failure.hint.starts_with(hint) && failure.hint.contains("--state"), "{}", failure.hint);
        }
    }

    #[test]
    fn a_socket_that_is_not_plain_is_said_to_be_there_and_no_more() {
        let (dir, path) = directory();
        for (socket, line) in [(Some("/a\nb"), UNTOLD), (Some("/a b"), UNTOLD), (Some("/a/b"), "/a/b"), (None, "")] {
            let _held = take(dir.path(), socket.map(Path::new)).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n{line}\n", process::id()));
            assert_eq!(holder_socket(dir.path()).as_deref(), (line == "/a/b").then_some(Path::new("/a/b")));
        }
    }
}
