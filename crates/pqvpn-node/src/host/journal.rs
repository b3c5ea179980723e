// SPDX-License-Identifier: MIT OR Apache-2.0
//! The journal: what is to be undone, on disk before it is done.
//!
//! One file, a header line `pqvpn-host-journal 1 <SHA-256 of the rest>` and JSON. It is replaced atomically, so a torn
//! one means somebody else wrote it; then nothing in it is believed.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Change, HostError};

const FILE: &str = "host-journal";
const MAGIC: &str = "pqvpn-host-journal";
const VERSION: u64 = 1;
/// A journal has a line per route; more than this is none of ours.
const MAX_BYTES: u64 = 4 << 20;

/// Changes about to be made or in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// Boot and namespace the changes live in; nothing of them survives either.
    pub(super) boot: String,
    pub(super) namespace: u64,
    pub(super) interface: String,
    pub(super) index: u32,
    /// In the order they are made.
    pub(super) changes: Vec<Change>,
}

/// What is on disk.
#[derive(Debug)]
pub(super) enum Loaded {
    None,
    Journal(Journal),
    /// Not a journal, for this reason.
    Unreadable(String),
}

impl Journal {
    pub(super) fn new(interface: String, index: u32, changes: Vec<Change>) -> Self {
        let (boot, namespace) = here();
        Self { boot, namespace, interface, index, changes }
    }

    /// Whether it was written in this boot and network namespace.
    pub(super) fn is_of_here(&self) -> bool {
        (self.boot.as_str(), self.namespace) == (here().0.as_str(), here().1)
    }

    /// Puts it on disk, whole or not at all, and durable when this returns.
    pub(super) async fn store(&self, state_dir: &Path) -> Result<(), HostError> {
        let path = path(state_dir);
        let body = serde_json::to_string(self).map_err(|error| HostError::Journal {
            what: "encoded",
            path: path.clone(),
            source: error.into(),
        })?;
        let text = format!("{MAGIC} {VERSION} {}\n{body}\n", digest(&body));
        on_disk("written", path, move |path| replace(path, text.as_bytes())).await
    }
}

/// Where the journal of `state_dir` is.
pub(super) fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// Reads the journal.
pub(super) async fn load(state_dir: &Path) -> Result<Loaded, HostError> {
    let path = path(state_dir);
    let bytes = on_disk("read", path.clone(), |path| match File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map(|_| Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
    .await?;
    bytes.map_or(Ok(Loaded::None), |bytes| parse(&bytes, path))
}

/// Removes the journal.
pub(super) async fn remove(state_dir: &Path) -> Result<(), HostError> {
    on_disk("removed", path(state_dir), |path| match fs::remove_file(path) {
        Ok(()) => sync_dir(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    })
    .await
}

/// Moves an unreadable journal out of the way and says where.
pub(super) async fn set_aside(state_dir: &Path) -> Result<PathBuf, HostError> {
    let kept = state_dir.join(format!("{FILE}.unreadable"));
    let to = kept.clone();
    on_disk("moved", path(state_dir), move |path| fs::rename(path, &to).and_then(|()| sync_dir(path))).await?;
    Ok(kept)
}

fn parse(bytes: &[u8], path: PathBuf) -> Result<Loaded, HostError> {
    let unreadable = |why: &str| Ok(Loaded::Unreadable(format!("the journal {} {why}", path.display())));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return unreadable("is not text");
    };
    let Some((header, body)) = text.split_once('\n') else {
        return unreadable("is cut short");
    };
    let fields: Vec<&str> = header.split(' ').collect();
    let [MAGIC, version, sum] = fields[..] else {
        return unreadable("has no valid header");
    };
    let Ok(version) = version.parse::<u64>() else {
        return unreadable("has no valid header");
    };
    if version != VERSION {
        return Err(HostError::JournalVersion { path, version });
    }
    let Some(body) = body.strip_suffix('\n') else {
        return unreadable("is cut short");
    };
    if digest(body) != sum {
        return unreadable("does not match its checksum");
    }
    match serde_json::from_str(body) {
        Ok(journal) => Ok(Loaded::Journal(journal)),
        Err(_) => unreadable("holds something else"),
    }
}

/// Reads any bytes as a journal: as they are, and under a header that fits them.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(data: &[u8]) {
    let read = |bytes: &[u8]| parse(bytes, PathBuf::new());
    let _as_it_is = read(data);
    let Ok(body) = std::str::from_utf8(data) else { return };
    let headed = format!("{MAGIC} {VERSION} {}\n{body}\n", digest(body));
    if let Ok(Loaded::Journal(journal)) = read(headed.as_bytes()) {
        let written = serde_json::to_string(&journal).expect("it was read");
        assert_eq!(serde_json::from_str::<Journal>(&written).expect("it was written"), journal);
    }
}

fn digest(body: &str) -> String {
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Boot id (empty where /proc hides it) and inode of this thread's network namespace.
fn here() -> (String, u64) {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::metadata("/proc/thread-self/ns/net").map_or(0, |meta| meta.ino());
    (boot.trim().to_owned(), namespace)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        let _half = fs::remove_file(&new);
        return Err(error);
    }
    sync_dir(path)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

async fn on_disk<T: Send + 'static>(
    what: &'static str,
    path: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, HostError> {
    let shown = path.clone();
    let result = tokio::task::spawn_blocking(move || work(&path)).await;
    let result = result.unwrap_or_else(|error| Err(io::Error::other(error)));
    result.map_err(|source| HostError::Journal { what, path: shown, source })
}
