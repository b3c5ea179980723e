// SPDX-License-Identifier: MIT OR Apache-2.0
//! A rotation on a store that fails: it is decided, or nothing of it is left, or nobody is told which.

use std::{
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

use pqvpn_crypto::keystore::KdfParams;

use super::*;
use crate::membership::{
    rotation::{Interrupted, RotationError, decide, finish_rotation},
    store::{FILE, KeptRotation, Store, tests},
};

const KEY_FILE: [u8; 32] = [8; 32];

/// Bob's network, with something that waits to be written and told.
fn bobs() -> BTreeMap<NetworkId, Network> {
    let mut alice = home();
    do_act(&mut alice, member(1, "bob"));
    let mut bob = founded(1, Params::default());
    pull_all(&mut bob, &alice, moment(NOW));
    bob.keep_head();
    BTreeMap::from([(bob.id, bob)])
}

fn is_told(network: &Network) -> bool {
    network.news.bundle.statements.iter().any(|statement| matches!(statement.body().act, Act::Rotate { .. }))
}

fn is_written(dir: &Path) -> bool {
    let store = Store::open_as_it_is(dir).unwrap();
    let rotated = store.rotations().unwrap().kept.iter().any(|rotation| rotation.file == KEY_FILE);
    let statements = store.load().unwrap().into_values().flat_map(|kept| kept.statements);
    let says = statements
        .filter(|bytes| matches!(Statement::decode_kept(bytes).unwrap().body().act, Act::Rotate { .. }))
        .count();
    assert_eq!(says, usize::from(rotated), "both or neither");
    rotated
}

#[tokio::test]
async fn a_store_that_fails_at_any_step_never_has_a_rotation_told_that_is_not_in_force() {
    let (mut undecided, mut refused, mut decided) = (0, 0, 0);
    for once in [false, true] {
        for step in 0.. {
            let dir = tempfile::tempdir().unwrap();
            drop(Store::open(dir.path()).unwrap());
            let left = Arc::new(AtomicI64::new(i64::MAX));
            let store = Store::on(tests::Failing::on(dir.path(), &left, once)).unwrap();
            let mut networks = bobs();
            let before = networks.values().next().unwrap().constitution.head();
            left.store(step, Ordering::Relaxed);
            let outcome = decide(&mut networks, &store, (who(1), who(6)), (KEY_FILE, NOW)).await;
            let failed = left.load(Ordering::Relaxed) < 0;
            drop(store);
            let bob = networks.values().next().unwrap();
            match outcome {
                Ok(told) => {
                    assert!(told.told.len() == 1 && is_told(bob) && is_written(dir.path()), "{step}");
                    decided += 1;
                }
                Err(error) => {
                    assert!(
                        !is_told(bob) && bob.constitution.head() == before && bob.is_enabled(NOW),
                        "{step}: {error}"
                    );
                    assert!(!bob.changes.is_empty(), "what else there was is still to be written");
                    if matches!(error, RotationError::Undecided) {
                        undecided += 1;
                        continue;
                    }
                    // The next key's file is removed: it must not be in force.
                    assert!(matches!(error, RotationError::Store(_)) && !is_written(dir.path()), "{step}: {error}");
                    refused += 1;
                }
            }
            if !failed {
                break;
            }
        }
    }
    assert!(decided >= 2 && refused + undecided > 4, "{decided} {refused} {undecided}");
}

#[tokio::test]
async fn one_network_that_refuses_leaves_all_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(dir.path()).unwrap();
    let mut networks = bobs();
    // In this one somebody else speaks.
    let secret = Params { max_head_age_s: 61, ..Params::default() };
    let mut other = founded(0, secret);
    do_act(&mut other, member(1, "bob"));
    networks.insert(other.id, other);
    let heads = |networks: &BTreeMap<_, Network>| -> Vec<[u8; 32]> {
        networks.values().map(|network| network.constitution.head()).collect()
    };
    let before = heads(&networks);
    let outcome = decide(&mut networks, &store, (who(1), who(6)), (KEY_FILE, NOW)).await;
    assert!(matches!(outcome, Err(RotationError::Network(_))));
    assert!(heads(&networks) == before && !networks.values().any(is_told));
    drop(store);
    assert!(!is_written(dir.path()));
}

/// A state directory as a crash leaves it: a key, the next one (SHA-256 of its file), and a store without networks.
fn interrupted() -> (tempfile::TempDir, crate::store::KeystoreFile, [u8; 32]) {
    let dir = tempfile::tempdir().unwrap();
    let key = crate::store::KeystoreFile::new(dir.path(), KdfParams { memory_kib: 8, passes: 1, lanes: 1 });
    key.create(&IdentitySeed::generate().unwrap(), None).unwrap();
    let file = key.prepare_next(&IdentitySeed::generate().unwrap(), None).unwrap();
    drop(Store::open(dir.path()).unwrap());
    (dir, key, file)
}

#[test]
fn a_damaged_store_undoes_no_rotation() {
    let (dir, key, _) = interrupted();
    std::fs::write(dir.path().join(FILE), vec![7; 4096]).unwrap();
    for _ in 0..2 {
        let ended = finish_rotation(dir.path(), &key);
        assert!(matches!(ended, Err(RotationError::Store(_))), "{ended:?}");
        assert!(key.next_digest().unwrap().is_some(), "it may be the key that is in force");
    }
}

#[test]
fn a_rotation_that_cannot_be_read_undoes_none_and_one_that_can_is_finished() {
    let (dir, key, file) = interrupted();
    tests::alter(dir.path(), "rotations", &[1; 32], Some(br#"{"of":"a newer version"}"#));
    for _ in 0..2 {
        let ended = finish_rotation(dir.path(), &key);
        let Err(RotationError::Unread(why)) = ended else { panic!("{ended:?}") };
        assert!(why.contains("cannot be read") && why.contains("left as it is"), "{why}");
        assert_eq!(key.next_digest().unwrap(), Some(file), "it may be the key that is in force");
    }
    let decided = KeptRotation { old: [2; 32], new: [3; 32], file, at_ms: 1, fact: String::new() };
    let decided = serde_json::to_vec(&decided).unwrap();
    tests::alter(dir.path(), "rotations", &[2; 32], Some(&decided));
    assert_eq!(finish_rotation(dir.path(), &key).unwrap(), Some(Interrupted::Finished));
}

#[test]
fn a_store_of_a_newer_version_undoes_no_rotation() {
    let (dir, key, _) = interrupted();
    tests::alter(dir.path(), "meta", b"version", Some(&2_u32.to_be_bytes()));
    let ended = finish_rotation(dir.path(), &key);
    let Err(RotationError::Unread(why)) = ended else { panic!("{ended:?}") };
    assert!(why.contains("a newer version of PQVPN"), "{why}");
    assert!(key.next_digest().unwrap().is_some(), "it may be the key that is in force");
}
