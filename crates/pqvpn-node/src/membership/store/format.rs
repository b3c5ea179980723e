// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which format the file has. A later one is known before anything is written, as opening a database does.

use std::{
    fs::File,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{
    BackendError, Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, TableDefinition, TableError,
    WriteTransaction, backends::FileBackend,
};

use super::{CACHE, FILE, StoreError, failed, other, set};

/// The format that is written and read; a file that says none is of this one, from before it was said.
pub(super) const VERSION: u32 = 1;
/// What holds of the whole file.
const META: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("meta");
const KEY: &[u8] = b"version";

/// Writes the format down where none is.
pub(super) fn mark(write: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = write.open_table(META).map_err(failed)?;
    let is_marked = meta.get(KEY).map_err(failed)?.is_some();
    if is_marked { Ok(()) } else { set(&mut meta, KEY, Some(&VERSION.to_be_bytes())) }
}

/// Refuses another format.
pub(super) fn check(database: &Database) -> Result<(), StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let meta = match read.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(
            error @ (TableError::TableTypeMismatch { .. }
            | TableError::TableIsMultimap(_)
            | TableError::TypeDefinitionChanged { .. }),
        ) => return Err(StoreError::Unreadable(error.to_string())),
        meta => meta.map_err(failed)?,
    };
    let Some(found) = meta.get(KEY).map_err(failed)? else { return Ok(()) };
    match <[u8; 4]>::try_from(found.value()).map(u32::from_be_bytes) {
        Ok(VERSION) => Ok(()),
        Ok(newer) if newer > VERSION => Err(StoreError::Newer(newer)),
        Ok(_) | Err(_) => Err(StoreError::Unreadable(format!("{FILE} says no format that there is"))),
    }
}

/// The same of a file that is not changed by it. What cannot be read here is for whoever opens it to say.
pub(super) fn look(file: &File) -> Result<(), StoreError> {
    let looked = || {
        let backend = Untouched::new(file.try_clone().map_err(other)?).map_err(failed)?;
        let opened = Database::builder().set_cache_size(CACHE).create_with_backend(backend);
        opened.map_err(failed).and_then(|database| check(&database))
    };
    match catch_unwind(AssertUnwindSafe(looked)) {
        Ok(Err(error @ (StoreError::Newer(_) | StoreError::Unreadable(_)))) => Err(error),
        Ok(
            Ok(())
            | Err(StoreError::InUse(_) | StoreError::NotPrivate(_) | StoreError::Damaged(_) | StoreError::Failed(_)),
        )
        | Err(_) => Ok(()),
    }
}

/// A file of which what is written to it stays in memory.
#[derive(Debug)]
struct Untouched {
    file: FileBackend,
    over: Mutex<Over>,
}

#[derive(Debug)]
struct Over {
    len: u64,
    /// So much of the file is still part of it.
    below: u64,
    /// Where and what, in the order of writing: little, since nothing is changed but what a crash left.
    written: Vec<(u64, Vec<u8>)>,
}

impl Untouched {
    fn new(file: File) -> Result<Self, redb::Error> {
        let file = FileBackend::new(file)?;
        let len = file.len()?;
        Ok(Self { file, over: Mutex::new(Over { len, below: len, written: Vec::new() }) })
    }

    fn over(&self) -> MutexGuard<'_, Over> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Untouched {
    fn len(&self) -> io::Result<u64> {
        Ok(self.over().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = self.over();
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= over.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let place = |at: u64| (at.clamp(offset, end) - offset) as usize;
        let (kept, grown) = out.split_at_mut(place(over.below));
        if !kept.is_empty() {
            self.file.read(offset, kept)?;
        }
        grown.fill(0);
        for (at, bytes) in &over.written {
            let there = &mut out[place(*at)..place(at + bytes.len() as u64)];
            let skipped = offset.saturating_sub(*at) as usize;
            there.iter_mut().zip(bytes.iter().skip(skipped)).for_each(|(there, byte)| *there = *byte);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over();
        (over.len, over.below) = (len, over.below.min(len));
        over.written.retain_mut(|(at, bytes)| {
            bytes.truncate(len.saturating_sub(*at) as usize);
            !bytes.is_empty()
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= over.len);
        end.ok_or(io::ErrorKind::UnexpectedEof)?;
        over.written.push((offset, data.to_vec()));
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}
