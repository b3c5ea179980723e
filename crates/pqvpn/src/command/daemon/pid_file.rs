// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file that tells scripts which process the daemon is.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use pqvpn_node::store::write_atomic;

use crate::failure::Failure;

/// Gone when dropped.
pub(super) struct PidFile(PathBuf);

impl PidFile {
    pub(super) fn write(path: &Path) -> Result<Self, Failure> {
        write_atomic(path, format!("{}\n", process::id()).as_bytes(), 0o644).map_err(|error| Failure {
            what: "the pid file was not written".into(),
            hint: "name another file in a directory that exists with `--pid-file FILE`".into(),
            ..Failure::from(error)
        })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A daemon started since has its own number in there.
        let ours = fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == process::id().to_string());
        if ours && let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "pid file left behind");
        }
    }
}
