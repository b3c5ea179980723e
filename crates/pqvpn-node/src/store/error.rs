// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a file was not read or written: what, why, what to try.

use std::{io, path::PathBuf};

use pqvpn_crypto::{identity::IdentityError, keystore::KeystoreError};
use thiserror::Error;

/// Why a file of the store was not read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Others can read or write the file.
    #[error("{path} has mode {mode:04o}: others than its owner have access")]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits it must not exceed.
        wanted: u32,
    },
    /// The file belongs to another user.
    #[error("{path} belongs to user {owner}, not to user {expected}")]
    ForeignOwner {
        /// The file or directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who should.
        expected: u32,
    },
    /// The name is a symbolic link, a directory or a device.
    #[error("{0} is not a regular file")]
    NotARegularFile(PathBuf),
    /// A directory was expected.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// There is no such file.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// There is such a file already, and it is not replaced without being told to.
    #[error("{0} exists already")]
    Exists(PathBuf),
    /// A rotation of the key was interrupted, and it is not decided yet which key the keystore holds.
    #[error("a rotation of the key was interrupted: {0} is there")]
    Rotating(PathBuf),
    /// The file is larger than any of its kind.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The content is not a usable keystore.
    #[error("{path}: {error}")]
    Keystore {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: KeystoreError,
    },
    /// No key could be made.
    #[error("{0}")]
    Identity(#[from] IdentityError),
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

impl StoreError {
    /// One line that says what to try.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::TooOpen { path, wanted, .. } => {
                format!("`chmod {wanted:04o} {}`; if others may have read a key, make a new one", path.display())
            }
            Self::ForeignOwner { path, expected, .. } => {
                format!("run as the owner, or `chown {expected} {}` if the file is yours", path.display())
            }
            Self::NotARegularFile(_) | Self::NotADirectory(_) => "move it away, or name another state directory".into(),
            Self::Missing(_) => "`pqvpn id` makes an identity, `pqvpn keys restore FILE` brings one back".into(),
            Self::Exists(_) => "name another file, or move this one away".into(),
            Self::Rotating(_) => "start the daemon: it ends the rotation by itself; then once more".into(),
            Self::TooLarge { .. } => "check that this is the file you meant".into(),
            Self::Keystore { error, .. } => keystore_hint(error).into(),
            Self::Identity(_) => {
                "the system's random generator or the cryptographic library fails; look at the kernel log".into()
            }
            Self::Io { error, .. } => io_hint(error).into(),
        }
    }

    /// Whether the reason is that somebody may not do this, rather than that it failed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::TooOpen { .. } | Self::ForeignOwner { .. } | Self::NotARegularFile(_) => true,
            Self::Io { error, .. } => error.kind() == io::ErrorKind::PermissionDenied,
            Self::Keystore { error, .. } => {
                matches!(error, KeystoreError::PassphraseNeeded | KeystoreError::WrongPassphrase)
            }
            Self::NotADirectory(_)
            | Self::Missing(_)
            | Self::Exists(_)
            | Self::Rotating(_)
            | Self::TooLarge { .. }
            | Self::Identity(_) => false,
        }
    }

    /// Whether the passphrase is missing or wrong.
    #[must_use]
    pub fn is_passphrase(&self) -> bool {
        let wrong =
            |error: &KeystoreError| matches!(error, KeystoreError::PassphraseNeeded | KeystoreError::WrongPassphrase);
        matches!(self, Self::Keystore { error, .. } if wrong(error))
    }

    /// Whether a passphrase would help.
    #[must_use]
    pub fn needs_passphrase(&self) -> bool {
        matches!(self, Self::Keystore { error: KeystoreError::PassphraseNeeded, .. })
    }
}

fn keystore_hint(error: &KeystoreError) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "whatever else is wrong with a file, only another one helps")]
    match error {
        KeystoreError::PassphraseNeeded => "run in a terminal, or give `--passphrase-file FILE`",
        KeystoreError::WrongPassphrase => "check the passphrase; a forgotten one cannot be recovered",
        KeystoreError::EmptyPassphrase => "give a passphrase that is not empty",
        KeystoreError::Memory => "free some memory",
        KeystoreError::Version(_) | KeystoreError::Mode(_) => "use the version of pqvpn that wrote it",
        _ => "bring a backup back: `pqvpn keys restore FILE --force`",
    }
}

fn io_hint(error: &io::Error) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the kinds of IO errors are endless")]
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run as the owner of the state directory, or give `--state DIR`",
        io::ErrorKind::StorageFull => "free some space",
        io::ErrorKind::ReadOnlyFilesystem => "give a writable directory with `--state DIR`",
        _ => "check the path, or give another with `--state DIR`",
    }
}
