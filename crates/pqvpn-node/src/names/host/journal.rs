// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to be taken back, on disk before it is done: `dns-journal` in the state directory, JSON.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{DnsError, resolv_conf};
use crate::store::write_atomic;

const FILE: &str = "dns-journal";
const VERSION: u32 = 1;
/// Twice a resolv.conf in hex, and some words; more is none of ours.
const MAX_BYTES: u64 = 512 << 10;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Change {
    /// systemd-resolved has settings of ours for this link.
    Resolved {
        interface: String,
    },
    ResolvConf(resolv_conf::Change),
}

#[derive(Serialize, Deserialize)]
struct Journal {
    version: u32,
    change: Change,
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Change {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Resolved { interface } => format!("the DNS settings of {interface} in systemd-resolved"),
            Self::ResolvConf(change) => format!("our line in {}", change.path.display()),
        }
    }
}

pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Puts it on disk, whole or not at all, and durable when this returns.
pub(super) fn store(state_dir: &Path, change: &Change) -> Result<(), DnsError> {
    let path = path(state_dir);
    let journal = Journal { version: VERSION, change: change.clone() };
    let text = serde_json::to_vec(&journal).map_err(|error| failed(&path)(error.into()))?;
    Ok(write_atomic(&path, &text, 0o600)?)
}

/// Reads it. One that nobody can read is moved aside: nothing in it is believed.
pub(super) fn load(state_dir: &Path) -> Result<Option<Change>, DnsError> {
    let path = path(state_dir);
    let mut bytes = Vec::new();
    match File::open(&path) {
        Ok(file) => file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed(&path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&path)(error)),
    };
    match parse(&bytes) {
        Read::Change(change) => return Ok(Some(change)),
        Read::Later => return Err(DnsError::LaterJournal(path)),
        Read::Nothing => {}
    }
    let aside = path.with_extension("bad");
    fs::rename(&path, &aside).map_err(failed(&path))?;
    tracing::warn!(kept = %aside.display(), "the journal of DNS changes was unreadable and has been moved aside");
    Ok(None)
}

/// What a journal says.
enum Read {
    Change(Change),
    /// It is of a version to come.
    Later,
    Nothing,
}

fn parse(bytes: &[u8]) -> Read {
    match serde_json::from_slice(bytes) {
        Ok(Journal { version: VERSION, change }) => Read::Change(change),
        Ok(_) | Err(_) => match serde_json::from_slice::<Versioned>(bytes) {
            Ok(journal) if journal.version > VERSION => Read::Later,
            Ok(_) | Err(_) => Read::Nothing,
        },
    }
}

/// Reads any bytes as a journal.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    if let Read::Change(change) = parse(data) {
        let _line = change.describe();
        let written = serde_json::to_vec(&Journal { version: VERSION, change: change.clone() }).expect("it was read");
        assert!(matches!(parse(&written), Read::Change(again) if again == change));
    }
}

pub(super) fn remove(state_dir: &Path) -> Result<(), DnsError> {
    let path = path(state_dir);
    match fs::remove_file(&path) {
        Ok(()) => File::open(state_dir).and_then(|dir| dir.sync_all()).map_err(failed(&path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(&path)(error)),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> DnsError {
    let path = path.to_owned();
    move |source| DnsError::File { path, source }
}
