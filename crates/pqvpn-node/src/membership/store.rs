// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept of networks on disk: one redb file, changed in transactions that are whole or absent after a crash.
//!
//! Everything but the small head of a network is kept in its one encoding, as it was signed. The file holds the secrets
//! of the networks (the genesis) and of codes that are waited on, so only this user can read it.

mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod rotations;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, OpenOptions},
    io,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{fcntl::OFlag, unistd::geteuid};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::NetworkId;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(super) use self::rotations::{KeptRotation, Rotations, line_to};
use crate::store::twin_of;

/// Name of the file in the state directory.
pub(super) const FILE: &str = "networks.redb";
const MODE: u32 = 0o600;
/// The store is small and read once.
const CACHE: usize = 1024 * 1024;

/// By network: its head.
const HEADS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("heads");
/// By network and the item's own key: its bytes.
const STATEMENTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("statements");
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
const EXTRAS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("extras");
const SEEN: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("seen");
/// Damaged files that are kept.
const MAX_ASIDE: u32 = 16;

/// Why the store could not be used.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// Another process has it open.
    #[error("{0} is in use by another daemon")]
    InUse(PathBuf),
    /// Somebody else may read or exchange it.
    #[error("{0} is not a private file of this user")]
    NotPrivate(PathBuf),
    /// It is a file, and no store or not a whole one.
    #[error("{0}")]
    Damaged(String),
    /// It is of a later format; nothing in it was touched.
    #[error("{FILE} was written by a newer version of PQVPN (format {0}; this one reads {VERSION})", VERSION = format::VERSION)]
    Newer(u32),
    /// It is whole, and something in it is not what any version has written; nothing in it was touched.
    #[error("{0}; {FILE} is left as it is")]
    Unreadable(String),
    /// It could not be read or written; what it holds is not known.
    #[error("{0}")]
    Failed(String),
}

/// What a network is besides what was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// What people call it.
    pub(super) name: String,
    /// Not switched off by a person.
    pub(super) enabled: bool,
    /// The highest seq of a record of our own: none up to it may be signed again.
    pub(super) seq: u64,
    /// The join that waits for an admin: the code and the name asked for.
    pub(super) waiting: Option<WaitingJoin>,
    /// Since when we are in it, ms since 1970.
    pub(super) since_ms: u64,
}

/// A join that goes on after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitingJoin {
    pub(super) code: String,
    pub(super) name: String,
}

/// Where a member was last reached, best first, and when, ms since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) at_ms: u64,
}

/// One change; those of one [`Store::write`] happen together.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Head(NetworkId, Head),
    Statement(NetworkId, [u8; 32], Vec<u8>),
    Record(NetworkId, PeerId, Option<Vec<u8>>),
    Extra(NetworkId, [u8; 16], Option<Vec<u8>>),
    Seen(NetworkId, PeerId, Option<Seen>),
    Rotation(Box<KeptRotation>),
    /// Everything of a network.
    Forget(NetworkId),
}

/// Which thing a change is about; what is forgotten stands before what comes after.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Network,
    Head,
    Statement([u8; 32]),
    Record(PeerId),
    Extra([u8; 16]),
    Seen(PeerId),
    Rotation([u8; 32]),
}

impl Change {
    fn about(&self) -> (Option<NetworkId>, About) {
        match self {
            Self::Head(network, _) => (Some(*network), About::Head),
            Self::Statement(network, id, _) => (Some(*network), About::Statement(*id)),
            Self::Record(network, peer, _) => (Some(*network), About::Record(*peer)),
            Self::Extra(network, id, _) => (Some(*network), About::Extra(*id)),
            Self::Seen(network, peer, _) => (Some(*network), About::Seen(*peer)),
            Self::Rotation(rotation) => (None, About::Rotation(rotation.old)),
            Self::Forget(network) => (Some(*network), About::Network),
        }
    }
}

/// Of several changes of one thing the last: what waits for the disk grows no more than what it is about.
pub(super) fn latest(changes: Vec<Change>) -> Vec<Change> {
    let mut latest: BTreeMap<(Option<NetworkId>, About), Change> = BTreeMap::new();
    for change in changes {
        if let Change::Forget(network) = change {
            latest.retain(|(of, _), _| *of != Some(network));
        }
        latest.insert(change.about(), change);
    }
    latest.into_values().collect()
}

/// A network as it was kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) head: Option<Head>,
    /// Why the head that is there cannot be read.
    pub(super) unread: Option<String>,
    pub(super) statements: Vec<Vec<u8>>,
    pub(super) records: Vec<Vec<u8>>,
    pub(super) extras: Vec<Vec<u8>>,
    pub(super) seen: Vec<(PeerId, Seen)>,
}

type Opener = dyn Fn() -> Result<Database, StoreError> + Send + Sync;

/// The open file. redb takes nothing more after a write that failed, so it is closed then, and opened again for what comes
/// next.
#[derive(Clone)]
pub(super) struct Store {
    database: Arc<Mutex<Option<Database>>>,
    opener: Arc<Opener>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the file, or makes it. A file that is no store is moved aside; the second value says so. One that cannot be
    /// read just now, or by this version, stays: who takes it for damaged begins with no network.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open(dir: &Path) -> Result<(Self, Option<String>), StoreError> {
        let path = dir.join(FILE);
        match Self::open_file(&path) {
            Ok(store) => Ok((store, None)),
            Err(
                error @ (StoreError::InUse(_)
                | StoreError::NotPrivate(_)
                | StoreError::Newer(_)
                | StoreError::Unreadable(_)
                | StoreError::Failed(_)),
            ) => Err(error),
            Err(StoreError::Damaged(why)) => {
                let aside = put_aside(&path).map_err(|error| StoreError::Failed(format!("{why}; {error}")))?;
                let text = format!("{} was damaged ({why}) and is now {}", path.display(), aside.display());
                Ok((Self::open_file(&path)?, Some(text)))
            }
        }
    }

    /// Opens the file, or makes it, and leaves one that is no store where it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn open_as_it_is(dir: &Path) -> Result<Self, StoreError> {
        Self::open_file(&dir.join(FILE))
    }

    /// On something else than a file, that can be opened again.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn on<B: redb::StorageBackend>(
        backend: impl Fn() -> B + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let open = move || whole(|| Database::builder().create_with_backend(backend()).map_err(failed));
        Ok(Self { database: Arc::new(Mutex::new(Some(open()?))), opener: Arc::new(open) })
    }

    fn open_file(path: &Path) -> Result<Self, StoreError> {
        if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // It gets its name when it is whole: a half of one would be taken for damaged.
            let twin = twin_of(path);
            let made = Self::open_database(&twin, true).and_then(|new| Self::apply_to(&new, &[]));
            made.and_then(|()| fs::rename(&twin, path).map_err(other)).inspect_err(|_| drop(fs::remove_file(&twin)))?;
        }
        let database = Self::open_database(path, true)?;
        let path = path.to_owned();
        // One that is gone meanwhile is not made anew: it held the networks.
        let opener = Arc::new(move || Self::open_database(&path, false));
        let store = Self { database: Arc::new(Mutex::new(Some(database))), opener };
        store.apply(&[])?;
        Ok(store)
    }

    fn open_database(path: &Path, make: bool) -> Result<Database, StoreError> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(make).truncate(false).mode(MODE).custom_flags(flags.bits());
        let file = options.open(path).map_err(other)?;
        let meta = file.metadata().map_err(other)?;
        if !meta.is_file() || meta.uid() != geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(StoreError::NotPrivate(path.to_owned()));
        }
        format::look(&file)?;
        let in_use = |error: &redb::DatabaseError| matches!(error, redb::DatabaseError::DatabaseAlreadyOpen);
        whole(|| {
            let opened = Database::builder().set_cache_size(CACHE).create_file(file);
            opened.map_err(|error| match in_use(&error) {
                true => StoreError::InUse(path.to_owned()),
                false => failed(error),
            })
        })
    }

    /// Does something with the open file; where that fails it is opened again the next time.
    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match held.take() {
            Some(database) => database,
            None => (self.opener)()?,
        };
        let done = act(&database)?;
        *held = Some(database);
        Ok(done)
    }

    /// Reads everything. A network whose head cannot be read is there without one: what is passed over is forgotten.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub(super) fn load(&self) -> Result<BTreeMap<NetworkId, Kept>, StoreError> {
        self.with(Self::load_from)
    }

    fn load_from(database: &Database) -> Result<BTreeMap<NetworkId, Kept>, StoreError> {
        let mut networks: BTreeMap<NetworkId, Kept> = BTreeMap::new();
        let read = database.begin_read().map_err(failed)?;
        for (key, bytes) in items(&read, HEADS)? {
            let Some((network, _)) = split(&key) else { continue };
            let kept = networks.entry(network).or_default();
            match serde_json::from_slice(&bytes) {
                Ok(head) => kept.head = Some(head),
                Err(error) => kept.unread = Some(format!("its head: {error}")),
            }
        }
        for (key, bytes) in items(&read, STATEMENTS)? {
            if let Some(kept) = split(&key).and_then(|(network, _)| networks.get_mut(&network)) {
                kept.statements.push(bytes);
            }
        }
        for (key, bytes) in items(&read, RECORDS)? {
            if let Some(kept) = split(&key).and_then(|(network, _)| networks.get_mut(&network)) {
                kept.records.push(bytes);
            }
        }
        for (key, bytes) in items(&read, EXTRAS)? {
            if let Some(kept) = split(&key).and_then(|(network, _)| networks.get_mut(&network)) {
                kept.extras.push(bytes);
            }
        }
        for (key, bytes) in items(&read, SEEN)? {
            let Some((network, peer)) = split(&key) else { continue };
            let (Ok(peer), Ok(seen)) = (<[u8; 32]>::try_from(peer), serde_json::from_slice(&bytes)) else { continue };
            if let Some(kept) = networks.get_mut(&network) {
                kept.seen.push((PeerId::from_bytes(peer), seen));
            }
        }
        Ok(networks)
    }

    /// The rotations of this node's key.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub(super) fn rotations(&self) -> Result<Rotations, StoreError> {
        self.with(Rotations::read_from)
    }

    /// The same after a write has failed: what that left on disk is known only once another one has succeeded.
    ///
    /// # Errors
    /// [`StoreError::Failed`]: it is still not known.
    pub(super) async fn settled_rotations(&self) -> Result<Rotations, StoreError> {
        let store = self.clone();
        crate::blocking::run(move || store.apply(&[]).and_then(|()| store.rotations())).await.map_err(other)?
    }

    /// Makes changes, all or none; when this returns they are on disk. None at all tells whether the disk takes any.
    ///
    /// # Errors
    /// [`StoreError::Failed`]: nothing was changed, or, where the disk fails in the last moment, all may be.
    pub(super) async fn write(&self, changes: impl Into<Arc<Vec<Change>>>) -> Result<(), StoreError> {
        let (store, changes) = (self.clone(), changes.into());
        crate::blocking::run(move || store.apply(&changes)).await.map_err(other)?
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.with(|database| Self::apply_to(database, changes))
    }

    fn apply_to(database: &Database, changes: &[Change]) -> Result<(), StoreError> {
        let write = database.begin_write().map_err(failed)?;
        format::mark(&write)?;
        {
            let mut heads = write.open_table(HEADS).map_err(failed)?;
            let mut statements = write.open_table(STATEMENTS).map_err(failed)?;
            let mut records = write.open_table(RECORDS).map_err(failed)?;
            let mut extras = write.open_table(EXTRAS).map_err(failed)?;
            let mut seen = write.open_table(SEEN).map_err(failed)?;
            let mut rotations = write.open_table(rotations::ROTATIONS).map_err(failed)?;
            for change in changes {
                match change {
                    Change::Head(network, head) => {
                        let bytes = serde_json::to_vec(head).map_err(other)?;
                        set(&mut heads, &key(network, &[]), Some(&bytes))?;
                    }
                    Change::Statement(network, id, bytes) => set(&mut statements, &key(network, id), Some(bytes))?,
                    Change::Record(network, peer, bytes) => {
                        set(&mut records, &key(network, peer.as_bytes()), bytes.as_deref())?;
                    }
                    Change::Extra(network, id, bytes) => set(&mut extras, &key(network, id), bytes.as_deref())?,
                    Change::Seen(network, peer, at) => {
                        let bytes = at.as_ref().map(serde_json::to_vec).transpose().map_err(other)?;
                        set(&mut seen, &key(network, peer.as_bytes()), bytes.as_deref())?;
                    }
                    Change::Rotation(rotation) => rotations::keep(&mut rotations, rotation)?,
                    Change::Forget(network) => {
                        for table in [&mut heads, &mut statements, &mut records, &mut extras, &mut seen] {
                            table.retain(|key, _| !key.starts_with(network.as_bytes())).map_err(failed)?;
                        }
                    }
                }
            }
        }
        write.commit().map_err(failed)
    }
}

/// Opens a database and compares all of it with its checksums, which are looked at otherwise only after a crash.
fn whole(open: impl FnOnce() -> Result<Database, StoreError>) -> Result<Database, StoreError> {
    let checked = || {
        let mut database = open()?;
        if !database.check_integrity().map_err(failed)? {
            tracing::warn!("the file of networks was damaged; it is what it was before its last change");
        }
        format::check(&database)?;
        Ok(database)
    };
    // The library takes it that nobody but itself writes to its file, and panics where that shows.
    catch_unwind(AssertUnwindSafe(checked)).unwrap_or_else(|_| Err(StoreError::Damaged("it is no store".to_owned())))
}

/// What an error of redb says of the file.
fn failed(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    let is_format =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
    // A whole file of a database that is newer, or older, than the one this version has.
    let is_other = |why: &str| why.starts_with("Expected file format version");
    if matches!(&error, redb::Error::UpgradeRequired(_))
        || matches!(&error, redb::Error::Corrupted(why) if is_other(why))
    {
        return StoreError::Unreadable(error.to_string());
    }
    let damaged = matches!(&error, redb::Error::Io(error) if is_format(error))
        || matches!(
            error,
            redb::Error::Corrupted(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TableIsMultimap(_)
                | redb::Error::TableIsNotMultimap(_)
                | redb::Error::TypeDefinitionChanged { .. }
        );
    if damaged { StoreError::Damaged(error.to_string()) } else { other(error) }
}

fn other(error: impl fmt::Display) -> StoreError {
    StoreError::Failed(error.to_string())
}

/// Renames a damaged file. One that was put aside before stays: it may hold what is asked for one day.
fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let numbered = (2..=MAX_ASIDE).map(|number| format!("redb.damaged-{number}"));
    for extension in std::iter::once("redb.damaged".to_owned()).chain(numbered) {
        let aside = path.with_extension(extension);
        if fs::symlink_metadata(&aside).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::other(format!("{MAX_ASIDE} damaged files are kept beside it already")))
}

fn key(network: &NetworkId, rest: &[u8]) -> Vec<u8> {
    [network.as_bytes().as_slice(), rest].concat()
}

fn split(key: &[u8]) -> Option<(NetworkId, &[u8])> {
    let (network, rest) = key.split_first_chunk::<32>()?;
    Some((NetworkId::from_bytes(*network), rest))
}

fn set(table: &mut redb::Table<'_, &[u8], &[u8]>, key: &[u8], bytes: Option<&[u8]>) -> Result<(), StoreError> {
    match bytes {
        Some(bytes) => drop(table.insert(key, bytes).map_err(failed)?),
        None => drop(table.remove(key).map_err(failed)?),
    }
    Ok(())
}

type Items = Vec<(Vec<u8>, Vec<u8>)>;

fn items(read: &redb::ReadTransaction, table: TableDefinition<'_, &[u8], &[u8]>) -> Result<Items, StoreError> {
    let table = read.open_table(table).map_err(failed)?;
    let mut items = Vec::new();
    for item in table.iter().map_err(failed)? {
        let (key, bytes) = item.map_err(failed)?;
        items.push((key.value().to_vec(), bytes.value().to_vec()));
    }
    Ok(items)
}

#[cfg(test)]
pub(super) mod tests;
