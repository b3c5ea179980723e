// SPDX-License-Identifier: MIT OR Apache-2.0
//! Folders for what a run needs on disk, gone with it, also when it is interrupted.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Folders that exist now.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Tells the folders of one process apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A private folder in the system's temporary one; removed with its contents on drop and on Ctrl-C
/// ([`crate::process::kill_children_on_interrupt`]).
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes a new folder of mode 0700; `name` is part of its name.
    ///
    /// # Errors
    /// The system refuses, or something of that name is there already.
    pub fn create(name: &str) -> io::Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{name}-{}-{number}", std::process::id()));
        let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
        // Never an existing one: somebody else could have laid it out.
        DirBuilder::new().mode(0o700).create(&path)?;
        folders.push(path.clone());
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        FOLDERS.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
        remove(&self.0);
    }
}

/// Removes every folder of this process, for when nothing will be dropped any more.
pub(crate) fn remove_all() {
    let folders = std::mem::take(&mut *FOLDERS.lock().unwrap_or_else(PoisonError::into_inner));
    folders.iter().for_each(|path| remove(path));
}

/// Best effort: the system clears its temporary folder in the end.
fn remove(path: &Path) {
    _ = fs::remove_dir_all(path);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_is_private_and_goes_with_its_contents() {
        let folder = Folder::create("pqvpn-lab-test").expect("made");
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
        fs::write(path.join("file"), "x").expect("written");
        drop(folder);
        assert!(!path.exists());
    }
}
