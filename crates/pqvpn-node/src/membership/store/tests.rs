// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store on files that are whole, damaged, another's, or out of reach.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

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
        Change::Seen(ONE, PEER, seen.clone()),
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
    let kept: Vec<u64> = store.rotations().unwrap().iter().map(|rotation| rotation.at_ms).collect();
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
    assert!(matches!(failed(redb::DatabaseError::UpgradeRequired(1)), StoreError::Damaged(_)));
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
