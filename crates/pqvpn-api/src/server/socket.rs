// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control socket as a file: bound where nobody else can reach, narrowed, and only then moved into place.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    process,
};

use thiserror::Error;
use tokio::net::UnixListener;

use super::Access;

/// Owner and group may read and write, others nothing.
const SOCKET_MODE: u32 = 0o660;
/// Longest path one can connect to in bytes: `sun_path` holds 108 with the zero at its end (unix(7)).
const MAX_PATH: usize = 107;

/// A listening control socket; the file goes when this is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
    /// Held while the socket is: two daemons cannot both find a stale socket and replace it.
    _lock: File,
}

/// Why the control socket could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// A daemon already answers there.
    #[error("a daemon already answers at {0}")]
    InUse(PathBuf),
    /// Something that is not a socket has that name.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The path has no file name or directory.
    #[error("{0} does not name a file in a directory")]
    BadPath(PathBuf),
    /// Nobody could connect to a socket of that name.
    #[error("{} is longer than the {MAX_PATH} bytes the path of a socket may have", .0.display())]
    TooLong(PathBuf),
    /// The operating system refused.
    #[error("cannot {doing} {path}: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
}

impl ControlSocket {
    /// Binds the socket at `path`, makes its directory when missing, and removes a socket nobody answers at.
    ///
    /// The socket is bound in a fresh directory of mode 0700 and renamed into place after mode and group are set, so
    /// that there is no moment in which others could connect.
    ///
    /// # Errors
    /// A daemon answers there, the name is taken by something else, or the system refuses.
    pub fn bind(path: &Path, access: &Access) -> Result<Self, SocketError> {
        Self::bind_in(path, access, false)
    }

    /// As [`Self::bind`], for the default place: its directory may be from before there was an operator group, and is
    /// given to it then.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_default(path: &Path, access: &Access) -> Result<Self, SocketError> {
        Self::bind_in(path, access, true)
    }

    fn bind_in(path: &Path, access: &Access, is_default: bool) -> Result<Self, SocketError> {
        let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let (Some(directory), Some(_name)) = (directory, path.file_name()) else {
            return Err(SocketError::BadPath(path.to_owned()));
        };
        // Found out here: below it is bound under a shorter name.
        if path.as_os_str().len() > MAX_PATH {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        make_directory(directory, access, is_default)?;
        let lock = take_lock(path)?;
        remove_stale(path)?;
        let (listener, inode) = bind_narrow(directory, path, access)?;
        Ok(Self { listener, path: path.to_owned(), inode, _lock: lock })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let still_ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.inode);
        if still_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "control socket left behind");
        }
    }
}

/// Makes the directory when it is missing: others may not enter, the operator group may. One that is there stays as it is,
/// but for a private one of ours in the default place.
fn make_directory(directory: &Path, access: &Access, is_default: bool) -> Result<(), SocketError> {
    if directory.is_dir() {
        let is_private = |meta: fs::Metadata| meta.is_dir() && access.is_own(meta.uid()) && meta.mode() & 0o077 == 0;
        if !(is_default && fs::symlink_metadata(directory).is_ok_and(is_private)) {
            return Ok(());
        }
    } else {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_error("create", directory))?;
    }
    if give_to_operators(directory, access) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o750)).map_err(io_error("open up", directory))?;
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let no_follow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(no_follow)
        .open(&lock_path)
        .map_err(io_error("open", &lock_path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &lock_path)(error)),
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("look at", path)(error)),
    };
    if !meta.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_error("remove", path))
        }
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) => Err(io_error("connect to", path)(error)),
    }
}

fn bind_narrow(directory: &Path, path: &Path, access: &Access) -> Result<(UnixListener, (u64, u64)), SocketError> {
    let nursery = directory.join(format!(".{}", process::id()));
    match fs::remove_dir_all(&nursery) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("remove", &nursery)(error)),
    }
    DirBuilder::new().mode(0o700).create(&nursery).map_err(io_error("create", &nursery))?;
    let bound = bind_in(&nursery, path, access);
    if let Err(error) = fs::remove_dir_all(&nursery) {
        tracing::warn!(path = %nursery.display(), %error, "directory left behind");
    }
    bound
}

fn bind_in(nursery: &Path, path: &Path, access: &Access) -> Result<(UnixListener, (u64, u64)), SocketError> {
    let unborn = nursery.join("s");
    let listener = UnixListener::bind(&unborn).map_err(io_error("bind", path))?;
    give_to_operators(&unborn, access);
    fs::set_permissions(&unborn, fs::Permissions::from_mode(SOCKET_MODE)).map_err(io_error("narrow", path))?;
    let meta = fs::symlink_metadata(&unborn).map_err(io_error("look at", path))?;
    fs::rename(&unborn, path).map_err(io_error("move into place", path))?;
    Ok((listener, (meta.dev(), meta.ino())))
}

/// Whether the operator group now owns `path`; a daemon outside that group cannot give files to it.
fn give_to_operators(path: &Path, access: &Access) -> bool {
    let Some(group) = access.operators() else { return false };
    // The service's own group, which it cannot give files to and need not.
    if fs::metadata(path).is_ok_and(|now| now.gid() == group.as_raw()) {
        return true;
    }
    match chown(path, None, Some(group.as_raw())) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "not given to the operator group");
            false
        }
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |error| SocketError::Io { doing, path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access::new(nix::unistd::geteuid().as_raw(), None)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn a_path_nobody_could_connect_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let room = MAX_PATH - dir.path().as_os_str().len() - 1;
        let longest = dir.path().join("s".repeat(room));
        let _socket = ControlSocket::bind(&longest, &access()).unwrap();
        StdUnixStream::connect(&longest).unwrap();
        let longer = dir.path().join("t".repeat(room + 1));
        assert!(matches!(ControlSocket::bind(&longer, &access()), Err(SocketError::TooLong(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[tokio::test]
    async fn socket_is_0660_in_a_directory_others_cannot_enter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/pqvpn.sock");
        let socket = ControlSocket::bind(&path, &access()).unwrap();
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        StdUnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_default_directory_of_before_the_group_is_given_to_it_and_no_other_is() {
        let dir = tempfile::tempdir().unwrap();
        let group = nix::unistd::getegid().as_raw();
        let access = Access::new(nix::unistd::geteuid().as_raw(), Some(group));
        let run = dir.path().join("run");
        let path = run.join("pqvpn.sock");
        let with_mode = |mode| fs::set_permissions(&run, fs::Permissions::from_mode(mode)).unwrap();
        fs::create_dir(&run).unwrap();
        with_mode(0o700);
        drop(ControlSocket::bind(&path, &access).unwrap());
        assert_eq!(mode(&run), 0o700, "somebody chose it");
        drop(ControlSocket::bind_default(&path, &self::access()).unwrap());
        assert_eq!(mode(&run), 0o700, "there is no group");
        drop(ControlSocket::bind_default(&path, &access).unwrap());
        assert_eq!((mode(&run), fs::metadata(&run).unwrap().gid()), (0o750, group));
        with_mode(0o755);
        drop(ControlSocket::bind_default(&path, &access).unwrap());
        assert_eq!(mode(&run), 0o755, "it is open already");
    }

    #[tokio::test]
    async fn a_socket_nobody_answers_at_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pqvpn.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = ControlSocket::bind(&path, &access()).unwrap();
    }

    #[tokio::test]
    async fn a_socket_somebody_answers_at_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pqvpn.sock");
        let _foreign = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path, &access()), Err(SocketError::InUse(_))));
        StdUnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn a_second_daemon_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pqvpn.sock");
        let _first = ControlSocket::bind(&path, &access()).unwrap();
        assert!(matches!(ControlSocket::bind(&path, &access()), Err(SocketError::InUse(_))));
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pqvpn.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&path, &access()), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn nothing_is_left_after_a_path_too_long_for_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(120)).join("pqvpn.sock");
        assert!(matches!(ControlSocket::bind(&path, &access()), Err(SocketError::TooLong(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
