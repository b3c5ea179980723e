// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a daemon with a key in memory keeps: nobody else would have a use for it, and it is no business of the node whose
//! state directory that is.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pqvpn_node::store;

use crate::failure::Failure;

/// Name of the directory, within the state directory.
const DIRECTORY: &str = "pqvpn-ephemeral";

/// A directory for one run; it ends with it.
pub(super) struct ThisRun(Option<PathBuf>);

impl ThisRun {
    /// Removes what a killed run left; makes one if this run is `ephemeral`. The caller holds the state directory.
    pub(super) fn begin(state_dir: &Path, ephemeral: bool) -> Result<Self, Failure> {
        let path = state_dir.join(DIRECTORY);
        let removed = remove(&path);
        if !ephemeral {
            if let Err(error) = removed {
                tracing::warn!(path = %path.display(), %error, "what an ephemeral run left is not removed");
            }
            return Ok(Self(None));
        }
        removed.map_err(|error| Failure::file("what an ephemeral run left is not removed", &path, &error))?;
        store::ensure_private_dir(&path)
            .map_err(|error| Failure::from(error).while_doing("no directory for this run"))?;
        Ok(Self(Some(path)))
    }

    /// Where to keep what ends with the run.
    pub(super) fn dir(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl Drop for ThisRun {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = remove(path)
        {
            tracing::warn!(path = %path.display(), %error, "not removed; the next start tries again");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_a_run_keeps_is_its_own_and_ends_with_it() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(DIRECTORY);
        let run = ThisRun::begin(state.path(), true).unwrap();
        assert_eq!(run.dir(), Some(&*path));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("left"), "").unwrap();
        drop(run);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let (state, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (path, kept) = (state.path().join(DIRECTORY), elsewhere.path().join("kept"));
        fs::create_dir(&path).unwrap();
        fs::write(&kept, "").unwrap();
        symlink(elsewhere.path(), path.join("link")).unwrap();
        assert_eq!(ThisRun::begin(state.path(), false).unwrap().dir(), None);
        assert!(!path.exists() && kept.exists());
        symlink(elsewhere.path(), &path).unwrap();
        assert!(ThisRun::begin(state.path(), true).is_err() || !path.is_symlink());
        assert!(kept.exists());
    }
}
