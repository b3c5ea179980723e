// SPDX-License-Identifier: MIT OR Apache-2.0
//! What another version wrote: nothing of it is passed over in silence, and nothing of it is lost.

use super::{
    super::super::port::{MembershipError, load, load_from},
    *,
};

/// A file with a network.
fn written(dir: &Path) {
    let (store, _) = Store::open(dir).unwrap();
    store.apply(&[Change::Head(ONE, head("one"))]).unwrap();
}

/// The file as a daemon that is killed leaves it.
fn kill(dir: &Path) {
    let open = Database::create(dir.join(FILE)).unwrap();
    let as_it_was = fs::read(dir.join(FILE)).unwrap();
    drop(open);
    fs::write(dir.join(FILE), as_it_was).unwrap();
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_not_a_byte_of_it_changes() {
    for killed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        alter(dir.path(), "meta", b"version", Some(&2_u32.to_be_bytes()));
        if killed {
            kill(dir.path());
        }
        let before = fs::read(dir.path().join(FILE)).unwrap();
        for _ in 0..2 {
            assert!(matches!(Store::open(dir.path()), Err(StoreError::Newer(2))), "{killed}");
            assert!(matches!(Store::open_as_it_is(dir.path()), Err(StoreError::Newer(2))), "{killed}");
        }
        // The node does not start, and says why.
        let refused = MembershipError::from(load(dir.path(), PEER).err().unwrap());
        let said = "networks.redb was written by a newer version of PQVPN (format 2; this one reads 1)";
        assert!(refused.is_of_another_version() && refused.to_string().contains(said), "{refused}");
        assert!(fs::read(dir.path().join(FILE)).unwrap() == before, "it was changed; killed: {killed}");
        assert_eq!(files(dir.path()), 1, "moved aside");
    }
}

#[test]
fn a_version_that_there_is_not_is_no_reason_to_move_the_file_aside() {
    for version in [&[0; 4][..], &[1], b""] {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        alter(dir.path(), "meta", b"version", Some(version));
        let before = fs::read(dir.path().join(FILE)).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Unreadable(_))), "{version:?}");
        assert!(fs::read(dir.path().join(FILE)).unwrap() == before && files(dir.path()) == 1, "{version:?}");
    }
}

#[test]
fn a_new_file_has_the_version_and_one_from_before_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    assert_eq!(entry(dir.path(), "meta", b"version").as_deref(), Some(&[0, 0, 0, 1][..]));
    for killed in [false, true] {
        let database = Database::create(dir.path().join(FILE)).unwrap();
        let write = database.begin_write().unwrap();
        assert!(write.delete_table(TableDefinition::<&[u8], &[u8]>::new("meta")).unwrap());
        write.commit().unwrap();
        drop(database);
        if killed {
            kill(dir.path());
        }
        let (store, aside) = Store::open(dir.path()).unwrap();
        assert_eq!((aside, store.load().unwrap()[&ONE].head.clone()), (None, Some(head("one"))));
        drop(store);
        assert_eq!(entry(dir.path(), "meta", b"version").as_deref(), Some(&[0, 0, 0, 1][..]), "{killed}");
    }
}

#[test]
fn a_network_whose_head_has_a_field_more_is_said_and_kept_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let newer = br#"{"name":"two","enabled":true,"seq":7,"waiting":null,"since_ms":1,"colour":"red"}"#;
    alter(dir.path(), "heads", TWO.as_bytes(), Some(newer));
    let (store, aside) = Store::open(dir.path()).unwrap();
    assert_eq!(aside, None);
    // Of the other one only the wish to join is there.
    let waiting = Some(WaitingJoin { code: "code".to_owned(), name: "desk".to_owned() });
    store.apply(&[Change::Head(ONE, Head { waiting, ..head("one") })]).unwrap();
    let loaded = load_from(store, PEER).unwrap();
    assert_eq!(loaded.waiting.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [ONE]);
    let [said] = &loaded.standing[..] else { panic!("{:?}", loaded.standing) };
    assert!(said.code == "networks-store" && said.text.contains(&TWO.to_string()), "{}", said.text);
    assert!(said.text.contains("colour") && said.text.contains("stays in the file"), "{}", said.text);
    loaded.store.apply(&[Change::Head(ONE, head("one")), Change::Record(ONE, PEER, None)]).unwrap();
    drop(loaded);
    assert_eq!(entry(dir.path(), "heads", TWO.as_bytes()).as_deref(), Some(&newer[..]));
}

#[test]
fn a_rotation_that_cannot_be_read_is_said_and_outlives_those_that_come() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    alter(dir.path(), "rotations", &[50; 32], Some(b"{}"));
    let loaded = load(dir.path(), PEER).unwrap();
    assert!(loaded.standing.iter().any(|item| item.text.contains("a rotation of this node's key cannot be read")));
    for n in 0..12 {
        let kept = KeptRotation { old: [n; 32], new: [n + 1; 32], file: [n; 32], at_ms: 1, fact: String::new() };
        loaded.store.apply(&[Change::Rotation(Box::new(kept))]).unwrap();
    }
    let found = || loaded.store.rotations().unwrap();
    assert_eq!(found().kept.len(), 8);
    // One that can be read says what is decided; where none does, nobody knows.
    assert_eq!(found().naming(&[11; 32]).unwrap().unwrap().old, [11; 32]);
    assert!(matches!(found().naming(&[99; 32]), Err(StoreError::Unreadable(_))));
    drop(loaded);
    assert_eq!(entry(dir.path(), "rotations", &[50; 32]).as_deref(), Some(&b"{}"[..]));
}
