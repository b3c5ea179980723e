// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that must be right or absent: the keystore, and everything else that is replaced in one step.
//!
//! A secret file is created with mode 0600 at `open`, in a directory only this user can write to, never through a
//! symbolic link, and never over an existing name. It is read only when its owner is this user and nobody else can
//! read it. A file is replaced by a synced twin in the same directory, so a crash leaves the old one or the new one.

mod error;
mod file;
mod keystore;
mod next;

pub(crate) use self::file::twin_of;
pub use self::{
    error::StoreError,
    file::{ensure_private_dir, read_private, remove_twins, remove_twins_of, write_atomic},
    keystore::{KEYSTORE_FILE, KeystoreFile},
    next::{NEXT_FILE, OLD_FILE, OVERLAP},
};
