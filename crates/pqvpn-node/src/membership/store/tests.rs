// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store on files that are whole, damaged, another's, or out of reach.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicI64, Ordering},
};

use redb::{StorageBackend, backends::FileBackend};

use super::*;

/// A file that takes so many writes and then fails, for good or once.
#[derive(Debug)]
pub(in crate::membership) struct Failing {
    file: FileBackend,
    left: Arc<AtomicI64>,
    once: bool,
}

impl Failing {
    /// Opens the file in a directory, as often as asked. `left`: changes until it fails.
    pub(in crate::membership) fn on(
        dir: &Path,
        left: &Arc<AtomicI64>,
        once: bool,
    ) -> impl Fn() -> Self + Send + Sync + use<> {
        let (path, left) = (dir.join(FILE), Arc::clone(left));
        move || {
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            Self { file: FileBackend::new(file).unwrap(), left: Arc::clone(&left), once }
        }
    }

    fn take(&self) -> io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        if left == 0 || left < 0 && !self.once { Err(io::Error::other("no space")) } else { Ok(()) }
    }
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.take().and_then(|()| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.take().and_then(|()| self.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.take().and_then(|()| self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

/// Puts an entry into the file as it is, or takes it out, as another version would.
pub(in crate::membership) fn alter(dir: &Path, table: &str, key: &[u8], bytes: Option<&[u8]>) {
    let database = Database::create(dir.join(FILE)).unwrap();
    let write = database.begin_write().unwrap();
    set(&mut write.open_table(TableDefinition::new(table)).unwrap(), key, bytes).unwrap();
    write.commit().unwrap();
}

/// What the file holds, as it is.
fn entry(dir: &Path, table: &str, key: &[u8]) -> Option<Vec<u8>> {
    let read = Database::create(dir.join(FILE)).unwrap().begin_read().unwrap();
    let found = items(&read, TableDefinition::new(table)).unwrap();
    found.into_iter().find(|(found, _)| found == key).map(|(_, bytes)| bytes)
}

mod unread;

const ONE: NetworkId = NetworkId::from_bytes([1; 32]);
const TWO: NetworkId = NetworkId::from_bytes([2; 32]);
const PEER: PeerId = PeerId::from_bytes([9; 32]);

fn head(name: &str) -> Head {
    Head { name: name.to_owned(), enabled: true, seq: 7, waiting: None, since_ms: 1 }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_networks_do_not_mix() {
    let dir = tempfile::tempdir().unwrap();
    let (store, aside) = Store::open(dir.path()).unwrap();
    assert_eq!(aside, None);
    let seen = Seen { addresses: vec!["1.2.3.4:5".parse().unwrap()], at_ms: 3 };
    let changes = vec![
        Change::Head(ONE, head("one")),
        Change::Head(TWO, head("two")),
        Change::Statement(ONE, [3; 32], vec![1]),
        Change::Statement(TWO, [3; 32], vec![2]),
        Change::Record(ONE, PEER, Some(vec![4])),
        Change::Extra(ONE, [5; 16], Some(vec![6])),
        Change::Seen(ONE, PEER, Some(seen.clone())),
    ];
    store.write(changes).await.unwrap();
    drop(store);
    let (store, _) = Store::open(dir.path()).unwrap();
    let kept = store.load().unwrap();
    assert_eq!(kept[&ONE].head, Some(head("one")));
    assert_eq!((kept[&ONE].statements.clone(), kept[&TWO].statements.clone()), (vec![vec![1]], vec![vec![2]]));
    assert_eq!(kept[&ONE].records, [[4]]);
    assert_eq!(kept[&ONE].seen, [(PEER, seen)]);
    store.write(vec![Change::Forget(ONE), Change::Extra(TWO, [1; 16], None)]).await.unwrap();
    let kept = store.load().unwrap();
    assert_eq!(kept.keys().collect::<Vec<_>>(), [&TWO]);
    assert_eq!(kept[&TWO].statements, [[2]]);
}

#[tokio::test]
async fn the_newest_rotations_of_this_node_are_kept_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    for at in 0..12_u8 {
        let kept =
            KeptRotation { old: [at; 32], new: [at + 1; 32], file: [7; 32], at_ms: at.into(), fact: String::new() };
        store.write(vec![Change::Rotation(Box::new(kept))]).await.unwrap();
    }
    let kept: Vec<u64> = store.rotations().unwrap().kept.iter().map(|rotation| rotation.at_ms).collect();
    assert_eq!(kept, [4, 5, 6, 7, 8, 9, 10, 11]);
    assert!(store.load().unwrap().is_empty(), "a rotation is no network");
}

#[test]
fn only_this_user_can_read_it_and_only_one_daemon_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse(_))));
    drop(store);
    fs::set_permissions(dir.path().join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(StoreError::NotPrivate(_))));
}

#[test]
fn a_damaged_file_is_moved_aside_and_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), vec![7; 4096]).unwrap();
    fs::set_permissions(dir.path().join(FILE), fs::Permissions::from_mode(0o600)).unwrap();
    let (store, aside) = Store::open(dir.path()).unwrap();
    assert!(aside.unwrap().contains("damaged"));
    assert!(store.load().unwrap().is_empty());
    assert!(dir.path().join("networks.redb.damaged").exists());
}

#[test]
fn a_file_that_cannot_be_read_just_now_is_not_taken_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let path = dir.path().join(FILE);
    let kept = fs::read(&path).unwrap();
    // Whatever the system answers: too many links, as it would say too many files, no permission or no space.
    let away = dir.path().join("away");
    fs::rename(&path, &away).unwrap();
    std::os::unix::fs::symlink(&away, &path).unwrap();
    for _ in 0..2 {
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Failed(_))));
    }
    assert!(!dir.path().join("networks.redb.damaged").exists(), "moved aside");
    fs::remove_file(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), kept);
    Store::open(dir.path()).unwrap();
}

#[test]
fn what_errors_say_of_the_file() {
    let io = |kind: io::ErrorKind| failed(redb::StorageError::Io(kind.into()));
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::PermissionDenied, io::ErrorKind::Other] {
        assert!(matches!(io(kind), StoreError::Failed(_)), "{kind}");
    }
    for kind in [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof] {
        assert!(matches!(io(kind), StoreError::Damaged(_)), "{kind}");
    }
    assert!(matches!(failed(redb::StorageError::Corrupted(String::new())), StoreError::Damaged(_)));
    assert!(matches!(failed(redb::DatabaseError::UpgradeRequired(1)), StoreError::Unreadable(_)));
    let later = "Expected file format version <= 3, found 4";
    assert!(matches!(failed(redb::StorageError::Corrupted(later.to_owned())), StoreError::Unreadable(_)));
    assert!(matches!(failed(redb::StorageError::PreviousIo), StoreError::Failed(_)));
}

#[test]
fn a_second_damaged_file_does_not_replace_the_first() {
    let dir = tempfile::tempdir().unwrap();
    for (filler, aside) in [(7, "networks.redb.damaged"), (8, "networks.redb.damaged-2")] {
        fs::write(dir.path().join(FILE), vec![filler; 4096]).unwrap();
        fs::set_permissions(dir.path().join(FILE), fs::Permissions::from_mode(0o600)).unwrap();
        let (store, said) = Store::open(dir.path()).unwrap();
        assert!(said.unwrap().contains(aside));
        drop(store);
        assert_eq!(fs::read(dir.path().join(aside)).unwrap(), vec![filler; 4096]);
    }
    assert_eq!(fs::read(dir.path().join("networks.redb.damaged")).unwrap(), vec![7; 4096]);
}

#[tokio::test]
async fn a_store_that_has_failed_takes_what_comes_once_the_disk_does() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let store = Store::on(Failing::on(dir.path(), &left, false)).unwrap();
    store.write(vec![Change::Head(ONE, head("one"))]).await.unwrap();
    left.store(0, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(store.write(vec![Change::Head(TWO, head("two"))]).await.is_err());
    }
    left.store(i64::MAX, Ordering::Relaxed);
    assert_eq!(store.load().unwrap().keys().collect::<Vec<_>>(), [&ONE]);
    store.write(vec![Change::Head(TWO, head("two"))]).await.unwrap();
    drop(store);
    assert_eq!(Store::open(dir.path()).unwrap().0.load().unwrap().len(), 2);
}

#[tokio::test]
async fn a_store_whose_file_is_gone_does_not_begin_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    assert!(store.with(|_| Err::<(), _>(other("as if"))).is_err());
    fs::remove_file(dir.path().join(FILE)).unwrap();
    assert!(store.write(vec![Change::Head(ONE, head("one"))]).await.is_err());
    assert!(!dir.path().join(FILE).exists());
}

#[test]
fn what_waits_for_the_disk_is_of_each_thing_the_last() {
    let item = |network, id| Change::Statement(network, [id; 32], vec![id]);
    let changes = vec![
        item(ONE, 1),
        item(TWO, 1),
        Change::Head(ONE, head("one")),
        Change::Forget(ONE),
        Change::Head(ONE, head("a")),
        item(ONE, 2),
        Change::Head(ONE, head("b")),
        item(ONE, 2),
    ];
    let left: Vec<String> = latest(changes).iter().map(|change| format!("{change:?}")).collect();
    let wanted = [Change::Forget(ONE), Change::Head(ONE, head("b")), item(ONE, 2), item(TWO, 1)];
    assert_eq!(left, wanted.map(|change| format!("{change:?}")));
}
