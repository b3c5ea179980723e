// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `bootstrap add` keeps over restarts, beside what the config names: `<state>/bootstrap/`.
//!
//! `nodes` holds entries, `signers` whom `--trust` believed, `<PeerID>.list` the newest list of each signer.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::NetworkId;
use thiserror::Error;

use super::{
    BootstrapEntry, EntriesError, Freshness, ListError, MAX_ENTRIES, MAX_LIST, SignedList, Trust, entries_from_text,
    entries_to_text, grouped,
};
use crate::{
    config::{Config, MAX_BOOTSTRAP_LISTS},
    dht::report::{DoorSource, NewDoor},
    store::{self, StoreError},
};

/// Name of the directory below the state directory.
const DIRECTORY: &str = "bootstrap";
/// Ending of a kept list.
const ENDING: &str = "list";
/// Permission bits of what is kept: nothing secret, and nobody else's business.
const MODE: u32 = 0o600;
/// Largest file of entries in bytes.
const MAX_TEXT: u64 = 64 * 1024;

/// The bootstrap nodes of one config and one state directory. Nothing is read before it is asked for.
#[derive(Debug, Clone)]
pub struct Shelf {
    directory: PathBuf,
    network: NetworkId,
    nodes: Vec<BootstrapEntry>,
    lists: Vec<PathBuf>,
    signers: Vec<PeerId>,
}

/// A list file, and whether it can be used.
#[derive(Debug)]
pub struct ShelvedList {
    /// The file.
    pub path: PathBuf,
    /// The list, or why it is not used.
    pub list: Result<SignedList, ShelfError>,
}

/// A list that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedList {
    /// The list.
    pub list: SignedList,
    /// How its dates fit today.
    pub freshness: Freshness,
    /// Whether its signer is believed from now on, and was not before.
    pub newly_trusted: bool,
}

/// What was taken off the shelf.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Entries added by hand.
    pub entries: Vec<BootstrapEntry>,
    /// The list that this identity had signed.
    pub list: Option<SignedList>,
    /// Whether it was believed by hand, and is no more.
    pub distrusted: bool,
}

/// Why something is not on the shelf.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShelfError {
    /// The list is not one to use.
    #[error(transparent)]
    List(#[from] ListError),
    /// The file of entries is damaged.
    #[error("{}: {error}", path.display())]
    Entries {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: EntriesError,
    },
    /// No more entries, lists or signers are kept.
    #[error("at most {limit} {what} are kept; remove some from {}", path.display())]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
        /// Where they are.
        path: PathBuf,
    },
    /// Nothing of it was added by hand.
    #[error("{what} was not added by hand{}", if *configured { "; it stands in the configuration, at bootstrap.nodes or bootstrap.signers" } else { "" })]
    NotHere {
        /// The entry or identity.
        what: String,
        /// Whether the configuration names it.
        configured: bool,
    },
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Shelf {
    /// The shelf of a config and a state directory.
    #[must_use]
    pub fn of(config: &Config, state_dir: &Path) -> Self {
        Self {
            directory: Self::directory(state_dir),
            network: config.dht.network_id(),
            nodes: config.bootstrap.nodes.clone(),
            lists: config.bootstrap.lists.clone(),
            signers: config.bootstrap.signers.clone(),
        }
    }

    /// Where it keeps what was added.
    #[must_use]
    pub fn directory(state_dir: &Path) -> PathBuf {
        state_dir.join(DIRECTORY)
    }

    /// Which DHT its lists are for.
    #[must_use]
    pub const fn network(&self) -> &NetworkId {
        &self.network
    }

    /// The entries of the config.
    #[must_use]
    pub fn configured(&self) -> &[BootstrapEntry] {
        &self.nodes
    }

    /// The entries added by hand; none when there is no file.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn added(&self) -> Result<Vec<BootstrapEntry>, ShelfError> {
        let path = self.nodes_path();
        let text = read_text(&path)?;
        entries_from_text(&text).map_err(|error| ShelfError::Entries { path, error })
    }

    /// Every list there is, those of the config first: usable or not.
    #[must_use]
    pub fn lists(&self) -> Vec<ShelvedList> {
        let trusted = self.trusted();
        let kept = self.kept_lists();
        let open = |path: PathBuf| {
            let list = read_bytes(&path, MAX_LIST as u64).and_then(|bytes| {
                SignedList::open(&bytes, &self.network, Trust::Signers(&trusted)).map_err(ShelfError::from)
            });
            ShelvedList { path, list }
        };
        self.lists.iter().cloned().chain(kept).map(open).collect()
    }

    /// The nodes to start from, those of the config first, old lists last; what cannot be used is logged.
    #[must_use]
    pub fn doors(&self, now_ms: u64) -> Vec<NewDoor> {
        let mut doors = grouped(&self.nodes, DoorSource::Config, None);
        match self.added() {
            Ok(entries) => doors.extend(grouped(&entries, DoorSource::User, None)),
            Err(error) => tracing::warn!(%error, "bootstrap nodes added by hand are not used"),
        }
        let (mut fresh, mut old) = (Vec::new(), Vec::new());
        for ShelvedList { path, list } in self.lists() {
            let path = path.display();
            let list = match list {
                Ok(list) => list,
                Err(why) => {
                    tracing::warn!(%path, %why, "a list of bootstrap nodes is not used");
                    continue;
                }
            };
            let draft = list.draft();
            let found = grouped(&draft.entries, DoorSource::List, Some(draft.expires_ms));
            match list.freshness(now_ms).warning() {
                None => fresh.extend(found),
                Some(warning) => {
                    tracing::warn!(%path, %warning, "an old list of bootstrap nodes");
                    old.extend(found);
                }
            }
        }
        doors.extend(fresh);
        doors.extend(old);
        doors
    }

    /// Keeps entries; gives those that were not there yet, in the config or by hand.
    ///
    /// # Errors
    /// There is no room for all of them, or the file cannot be written; then none is kept.
    pub fn add_entries(&self, entries: &[BootstrapEntry]) -> Result<Vec<BootstrapEntry>, ShelfError> {
        let mut kept = self.added()?;
        let mut new: Vec<BootstrapEntry> = Vec::new();
        for entry in entries {
            if ![&kept, &self.nodes, &new].into_iter().any(|known| known.contains(entry)) {
                new.push(entry.clone());
            }
        }
        if new.is_empty() {
            return Ok(new);
        }
        kept.extend(new.iter().cloned());
        let path = self.nodes_path();
        if kept.len() > MAX_ENTRIES {
            return Err(ShelfError::Full { what: "bootstrap nodes", limit: MAX_ENTRIES, path });
        }
        self.write(&path, entries_to_text(&kept).as_bytes())?;
        Ok(new)
    }

    /// Keeps a list in place of an older one of the same signer; `trust` believes its signer from now on.
    ///
    /// # Errors
    /// [`ShelfError::List`] says what is wrong with the list; then nothing is kept.
    pub fn add_list(&self, bytes: &[u8], trust: bool, now_ms: u64) -> Result<AddedList, ShelfError> {
        let trusted = self.trusted();
        let whom = if trust { Trust::ThisOne } else { Trust::Signers(&trusted) };
        let list = SignedList::open(bytes, &self.network, whom)?;
        let signer = *list.signer();
        let newer = |other: &SignedList| *other.signer() == signer && other.draft().issued_ms > list.draft().issued_ms;
        if self.lists().iter().filter_map(|other| other.list.as_ref().ok()).any(newer) {
            return Err(ListError::Superseded(signer).into());
        }
        let path = self.list_path(&signer);
        let kept = self.kept_lists();
        if !kept.contains(&path) && kept.len() >= MAX_BOOTSTRAP_LISTS {
            let limit = MAX_BOOTSTRAP_LISTS;
            return Err(ShelfError::Full { what: "lists", limit, path: self.directory.clone() });
        }
        let newly_trusted = trust && !trusted.contains(&signer);
        if newly_trusted {
            self.believe(signer)?;
        }
        self.write(&path, bytes)?;
        Ok(AddedList { freshness: list.freshness(now_ms), list, newly_trusted })
    }

    /// Takes an entry off again, or everything of an identity: its entries, its list, and the belief in it.
    ///
    /// # Errors
    /// [`ShelfError::NotHere`], or a file cannot be written.
    pub fn remove(&self, peer: &PeerId, entry: Option<&BootstrapEntry>) -> Result<Removed, ShelfError> {
        let is_meant = |kept: &BootstrapEntry| entry.map_or(kept.id == *peer, |entry| kept == entry);
        let (entries, kept): (Vec<_>, Vec<_>) = self.added()?.into_iter().partition(is_meant);
        let mut removed = Removed { entries, ..Removed::default() };
        let list = self.list_path(peer);
        let believed = if entry.is_none() { self.believed()? } else { Vec::new() };
        removed.distrusted = believed.contains(peer);
        let has_list = entry.is_none() && list.exists();
        if removed.entries.is_empty() && !removed.distrusted && !has_list {
            let configured = self.nodes.iter().any(is_meant) || (entry.is_none() && self.signers.contains(peer));
            let what = entry.map_or_else(|| peer.to_string(), ToString::to_string);
            return Err(ShelfError::NotHere { what, configured });
        }
        if has_list {
            let bytes = read_bytes(&list, MAX_LIST as u64)?;
            removed.list = SignedList::open(&bytes, &self.network, Trust::ThisOne).ok();
            fs::remove_file(&list).map_err(|error| ShelfError::Read { path: list, error })?;
        }
        if removed.distrusted {
            self.keep_believed(believed.into_iter().filter(|other| other != peer))?;
        }
        if !removed.entries.is_empty() {
            self.write(&self.nodes_path(), entries_to_text(&kept).as_bytes())?;
        }
        Ok(removed)
    }

    /// Whose lists are believed: those of the config and those believed by hand.
    #[must_use]
    pub fn trusted(&self) -> Vec<PeerId> {
        let mut trusted = self.signers.clone();
        match self.believed() {
            Ok(believed) => trusted.extend(believed),
            Err(error) => tracing::warn!(%error, "signers believed by hand are not believed"),
        }
        trusted
    }

    fn believed(&self) -> Result<Vec<PeerId>, ShelfError> {
        let path = self.signers_path();
        let text = read_text(&path)?;
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        lines
            .map(|(index, line)| {
                crate::config::peer_id(line).map_err(|what| ShelfError::Entries {
                    path: path.clone(),
                    error: EntriesError::Line { line: index + 1, what },
                })
            })
            .collect()
    }

    fn believe(&self, signer: PeerId) -> Result<(), ShelfError> {
        let mut believed = self.believed()?;
        let path = self.signers_path();
        if believed.len() >= MAX_BOOTSTRAP_LISTS {
            return Err(ShelfError::Full { what: "signers", limit: MAX_BOOTSTRAP_LISTS, path });
        }
        believed.push(signer);
        self.keep_believed(believed)
    }

    fn keep_believed(&self, believed: impl IntoIterator<Item = PeerId>) -> Result<(), ShelfError> {
        let text: String = believed.into_iter().map(|signer| format!("{signer}\n")).collect();
        self.write(&self.signers_path(), text.as_bytes())
    }

    /// Paths of kept lists, sorted; at most [`MAX_BOOTSTRAP_LISTS`].
    fn kept_lists(&self) -> Vec<PathBuf> {
        let Ok(found) = fs::read_dir(&self.directory) else { return Vec::new() };
        let is_list = |path: &PathBuf| {
            path.extension().is_some_and(|ending| ending == ENDING)
                && path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| stem.parse::<PeerId>().is_ok())
        };
        let mut paths: Vec<PathBuf> = found.flatten().map(|entry| entry.path()).filter(is_list).collect();
        paths.sort();
        paths.truncate(MAX_BOOTSTRAP_LISTS);
        paths
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ShelfError> {
        store::ensure_private_dir(&self.directory)?;
        Ok(store::write_atomic(path, bytes, MODE)?)
    }

    fn list_path(&self, signer: &PeerId) -> PathBuf {
        self.directory.join(format!("{signer}.{ENDING}"))
    }

    fn nodes_path(&self) -> PathBuf {
        self.directory.join("nodes")
    }

    fn signers_path(&self) -> PathBuf {
        self.directory.join("signers")
    }
}

/// A text file of ours; empty when there is none.
fn read_text(path: &Path) -> Result<String, ShelfError> {
    let bytes = match read_bytes(path, MAX_TEXT) {
        Err(ShelfError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        read => read?,
    };
    let failed = |_| ShelfError::Read { path: path.to_owned(), error: io::Error::other("this is not UTF-8 text") };
    String::from_utf8(bytes).map_err(failed)
}

/// At most one byte more than `limit`: enough to see that it is too much.
fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, ShelfError> {
    let failed = |error| ShelfError::Read { path: path.to_owned(), error };
    // A FIFO or device under that name would block or never end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}
