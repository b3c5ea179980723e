// SPDX-License-Identifier: MIT OR Apache-2.0
//! Private files and directories, and replacing a file in one step.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2},
    libc,
    unistd::geteuid,
};
use zeroize::Zeroizing;

use super::StoreError;
use crate::entropy;

/// Permission bits of a secret file.
pub(super) const FILE_MODE: u32 = 0o600;
/// Permission bits of the state directory.
const DIR_MODE: u32 = 0o700;
/// Hexadecimal digits at the end of a twin's name.
const TWIN_DIGITS: usize = 16;
/// Bits no secret file may have: anything for group and others.
const FOREIGN_ACCESS: u32 = 0o077;
/// Bits no directory of ours may have: who can write to it can exchange the files in it.
const FOREIGN_WRITE: u32 = 0o022;

/// Makes the directory with mode 0700 when it is missing; in an existing one only this user may make files.
///
/// # Errors
/// The directory is not ours, writable by others, no directory, or cannot be made.
pub fn ensure_private_dir(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(path);
    match made {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(StoreError::NotADirectory(path.to_owned()));
        }
        Err(error) => return Err(io_error("create", path)(error)),
    }
    let meta = fs::metadata(path).map_err(io_error("look at", path))?;
    refuse_foreign(path, &meta, FOREIGN_WRITE, DIR_MODE)
}

/// Reads a secret file of at most `limit` bytes; the bytes are wiped when dropped.
///
/// # Errors
/// The file is missing, a link, not ours, open to others, too large, or cannot be read.
pub fn read_private(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    // O_NONBLOCK: a FIFO under that name must not block the daemon.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(open_error(path))?;
    // The checks look at the open file, so the name cannot be exchanged in between.
    let meta = file.metadata().map_err(io_error("look at", path))?;
    if !meta.is_file() {
        return Err(StoreError::NotARegularFile(path.to_owned()));
    }
    refuse_foreign(path, &meta, FOREIGN_ACCESS, FILE_MODE)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len().min(limit)).unwrap_or(0) + 1));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io_error("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(bytes)
}

/// Creates a file that must not exist yet, synced to disk; a crash leaves the whole of it or nothing under that name.
///
/// # Errors
/// The name is taken, also by a dangling link, or the system refuses.
pub(super) fn create_private(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let twin = twin_of(path);
    let mut file = open_new(&twin, FILE_MODE).map_err(open_error(path))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io_error("write", path));
    let named = written.and_then(|()| name_new(&twin, path).map_err(open_error(path)));
    let _second_name = fs::remove_file(&twin);
    named.and_then(|()| sync_directory_of(path))
}

/// Replaces the file (or creates it) so that every reader, also after a crash, sees the old bytes or the new.
///
/// A symbolic link under that name is replaced, not followed.
///
/// # Errors
/// The directory cannot be written to; then the old file is untouched.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let twin = twin_of(path);
    // Errors name the file that was asked for: of its twin nobody has heard.
    let mut file = open_new(&twin, mode).map_err(io_error("write", path))?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", path))
        .and_then(|()| fs::rename(&twin, path).map_err(io_error("replace", path)));
    if let Err(error) = written {
        let _half = fs::remove_file(&twin);
        return Err(error);
    }
    sync_directory_of(path)
}

/// Gives a file a name that nothing has. Unlike a rename, a link takes none that is in use; file systems without links, as
/// those of memory sticks, know a rename that does not either.
fn name_new(twin: &Path, path: &Path) -> io::Result<()> {
    let linked = fs::hard_link(twin, path);
    let is_unknown = |error: &io::Error| {
        matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS | libc::EMLINK))
    };
    match linked {
        Err(error) if is_unknown(&error) => {
            renameat2(AT_FDCWD, twin, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE).map_err(|_| error)
        }
        other => other,
    }
}

fn open_new(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    OpenOptions::new().write(true).create_new(true).mode(mode).custom_flags(flags.bits()).open(path)
}

/// A name next to `path` nobody can guess and occupy.
pub(crate) fn twin_of(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:0TWIN_DIGITS$x}", entropy::u64()));
    path.with_file_name(name)
}

/// The file that a name is a twin's of.
fn original_of(twin: &str) -> Option<&str> {
    let (name, digits) = twin.strip_prefix('.')?.rsplit_once('.')?;
    (digits.len() == TWIN_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// Removes what crashes left of files that were being written in a directory of ours, keys among them; only while nobody
/// else writes there. Gives how many there were.
pub fn remove_twins(directory: &Path) -> usize {
    remove(directory, |_| true)
}

/// The same of one file, in a directory that may be anybody's.
pub fn remove_twins_of(path: &Path) -> usize {
    path.parent().map_or(0, |directory| remove(directory, |name| path.file_name().is_some_and(|file| file == name)))
}

fn remove(directory: &Path, of: impl Fn(&str) -> bool) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let is_left = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let original = name.to_str().and_then(original_of);
        entry.file_type().is_ok_and(|kind| kind.is_file()) && original.is_some_and(&of)
    };
    let removed = entries.flatten().filter(is_left).map(|entry| fs::remove_file(entry.path()));
    removed.filter(Result::is_ok).count()
}

pub(super) fn sync_directory_of(path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(io_error("sync", directory))
}

fn refuse_foreign(path: &Path, meta: &Metadata, forbidden: u32, wanted: u32) -> Result<(), StoreError> {
    let expected = geteuid().as_raw();
    if meta.uid() != expected {
        return Err(StoreError::ForeignOwner { path: path.to_owned(), owner: meta.uid(), expected });
    }
    let mode = meta.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(StoreError::TooOpen { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

fn open_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of IO errors are endless")]
    move |error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::Missing(path),
        io::ErrorKind::AlreadyExists => StoreError::Exists(path),
        // ELOOP: O_NOFOLLOW met a link.
        _ if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => StoreError::NotARegularFile(path),
        _ => StoreError::Io { doing: "open", path, error },
    }
}

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { doing, path, error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_new_directory_is_private_and_one_others_can_write_to_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/state");
        ensure_private_dir(&state).unwrap();
        assert_eq!(mode(&state), 0o700);
        chmod(&state, 0o755);
        ensure_private_dir(&state).unwrap();
        for mode in [0o770, 0o702, 0o1777] {
            chmod(&state, mode);
            assert!(matches!(ensure_private_dir(&state), Err(StoreError::TooOpen { .. })), "{mode:o}");
        }
    }

    #[test]
    fn a_file_in_the_way_of_the_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::write(&state, "").unwrap();
        assert!(matches!(ensure_private_dir(&state), Err(StoreError::NotADirectory(_))));
    }

    #[test]
    fn every_bit_for_group_or_others_refuses_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        create_private(&path, b"secret").unwrap();
        assert_eq!(mode(&path), 0o600);
        for bit in [0o001, 0o002, 0o004, 0o010, 0o020, 0o040] {
            chmod(&path, 0o600 | bit);
            assert!(matches!(read_private(&path, 64), Err(StoreError::TooOpen { .. })), "{bit:o}");
        }
        chmod(&path, 0o400);
        assert_eq!(read_private(&path, 64).unwrap().as_slice(), b"secret");
    }

    #[test]
    fn a_foreign_owner_refuses_the_file() {
        if !geteuid().is_root() {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        create_private(&path, b"secret").unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert!(matches!(read_private(&path, 64), Err(StoreError::ForeignOwner { owner: 65534, .. })));
    }

    #[test]
    fn links_are_neither_read_nor_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        create_private(&target, b"secret").unwrap();
        symlink(&target, &link).unwrap();
        assert!(matches!(read_private(&link, 64), Err(StoreError::NotARegularFile(_))));
        assert!(matches!(create_private(&link, b"x"), Err(StoreError::Exists(_))));
        let dangling = dir.path().join("dangling");
        symlink(dir.path().join("nowhere"), &dangling).unwrap();
        assert!(matches!(create_private(&dangling, b"x"), Err(StoreError::Exists(_))));
        assert!(!dir.path().join("nowhere").exists());
    }

    #[test]
    fn a_fifo_is_refused_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
        assert!(matches!(read_private(&path, 64), Err(StoreError::NotARegularFile(_))));
    }

    #[test]
    fn a_file_above_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        create_private(&path, &[0; 65]).unwrap();
        assert!(matches!(read_private(&path, 64), Err(StoreError::TooLarge { limit: 64, .. })));
    }

    #[test]
    fn a_new_file_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        create_private(&path, b"old").unwrap();
        assert!(matches!(create_private(&path, b"new"), Err(StoreError::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn what_a_crash_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keystore");
        let kept = [".keystore", ".keystore.12", ".keystore.00112233445566xy", "keystore.0011223344556677", "keystore"];
        for name in kept {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join(".d.0011223344556677")).unwrap();
        fs::write(twin_of(&path), "half").unwrap();
        fs::write(twin_of(&dir.path().join("dht-table.json")), "half").unwrap();
        assert_eq!(remove_twins_of(&dir.path().join("table.json")), 0);
        assert_eq!(remove_twins_of(&dir.path().join("dht-table.json")), 1);
        assert_eq!((remove_twins(dir.path()), remove_twins(dir.path())), (1, 0));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), kept.len() + 1);
    }

    #[test]
    fn a_file_that_cannot_be_written_whole_is_not_there_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        create_private(&path, b"whole").unwrap();
        assert_eq!((fs::metadata(&path).unwrap().nlink(), fs::read_dir(dir.path()).unwrap().count()), (1, 1));
        assert!(matches!(create_private(&path, b"again"), Err(StoreError::Exists(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "its twin is gone");
    }

    #[test]
    fn replacing_keeps_mode_and_leaves_no_twin() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        write_atomic(&path, b"old", 0o600).unwrap();
        write_atomic(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file_and_no_twin() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::create_dir_all(path.join("not-empty")).unwrap();
        assert!(matches!(write_atomic(&path, b"new", 0o600), Err(StoreError::Io { doing: "replace", .. })));
        assert!(path.join("not-empty").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn replacing_a_link_leaves_its_target_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "precious").unwrap();
        symlink(&target, &link).unwrap();
        write_atomic(&link, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert_eq!(fs::read(&link).unwrap(), b"new");
    }
}
