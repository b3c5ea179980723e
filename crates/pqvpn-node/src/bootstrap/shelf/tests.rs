// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is put on the shelf is there after a restart, and only what may be believed is.

use std::os::unix::fs::PermissionsExt;

use pqvpn_crypto::identity::{Identity, IdentitySeed};
use tempfile::TempDir;

use super::{super::ListDraft, *};

const NOW_MS: u64 = 1_800_000_000_000;
const DAY_MS: u64 = 86_400_000;

struct Place {
    dir: TempDir,
    config: Config,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), config: Config::default() }
    }

    /// The shelf as a daemon started now would see it.
    fn shelf(&self) -> Shelf {
        Shelf::of(&self.config, self.dir.path())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(DIRECTORY).join(name)
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&IdentitySeed::from_bytes(&[seed; 64])).unwrap()
}

fn entry(number: u16) -> BootstrapEntry {
    format!("pqvpn://{}@seed.example:{}", "ab".repeat(32), number + 1).parse().unwrap()
}

fn list(signer: u8, issued_ms: u64, number: u16) -> Vec<u8> {
    let draft = ListDraft {
        network: NetworkId::OPEN,
        issued_ms,
        expires_ms: issued_ms + 30 * DAY_MS,
        entries: vec![entry(number)],
    };
    draft.sign(&identity(signer)).unwrap().as_bytes().to_vec()
}

fn sources(doors: &[NewDoor]) -> Vec<(DoorSource, String)> {
    doors.iter().map(|door| (door.source, door.endpoints.join(" "))).collect()
}

#[test]
fn a_node_without_any_bootstrap_has_no_doors_and_no_errors() {
    let place = Place::new();
    assert_eq!(place.shelf().doors(NOW_MS), []);
    assert_eq!(place.shelf().added().unwrap(), []);
    assert!(place.shelf().lists().is_empty());
    assert!(!place.dir.path().join(DIRECTORY).exists());
}

#[test]
fn added_entries_survive_a_restart_and_are_kept_once() {
    let mut place = Place::new();
    place.config.bootstrap.nodes = vec![entry(0)];
    assert_eq!(place.shelf().add_entries(&[entry(0), entry(1), entry(1)]).unwrap(), [entry(1)]);
    assert_eq!(place.shelf().add_entries(&[entry(1)]).unwrap(), []);
    assert_eq!(place.shelf().added().unwrap(), [entry(1)]);
    let doors = place.shelf().doors(NOW_MS);
    let expected = [(DoorSource::Config, "seed.example:1".to_owned()), (DoorSource::User, "seed.example:2".to_owned())];
    assert_eq!(sources(&doors), expected);
    let mode = fs::metadata(place.path("nodes")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_shelf_has_an_end() {
    let place = Place::new();
    let many: Vec<BootstrapEntry> = (0..64).map(entry).collect();
    place.shelf().add_entries(&many).unwrap();
    let error = place.shelf().add_entries(&[entry(64)]).unwrap_err();
    assert!(matches!(error, ShelfError::Full { limit: 64, .. }), "{error}");
    assert_eq!(place.shelf().added().unwrap().len(), 64);
}

#[test]
fn several_endpoints_of_one_node_are_one_door() {
    let place = Place::new();
    place.shelf().add_entries(&[entry(1), entry(2)]).unwrap();
    let doors = place.shelf().doors(NOW_MS);
    assert_eq!(sources(&doors), [(DoorSource::User, "seed.example:2 seed.example:3".to_owned())]);
}

#[test]
fn a_list_needs_a_believed_signer_and_trust_lasts() {
    let place = Place::new();
    let (first, second) = (list(1, NOW_MS, 1), list(1, NOW_MS + 1, 2));
    let error = place.shelf().add_list(&first, false, NOW_MS).unwrap_err();
    assert!(matches!(error, ShelfError::List(ListError::Signer(_))), "{error}");
    assert!(place.shelf().lists().is_empty());
    let added = place.shelf().add_list(&first, true, NOW_MS).unwrap();
    assert!(added.newly_trusted && added.freshness == Freshness::Fresh);
    assert!(!place.shelf().add_list(&second, false, NOW_MS).unwrap().newly_trusted);
    assert_eq!(sources(&place.shelf().doors(NOW_MS)), [(DoorSource::List, "seed.example:3".to_owned())]);
}

#[test]
fn an_older_list_does_not_replace_a_newer_one() {
    let mut place = Place::new();
    place.config.bootstrap.signers = vec![identity(1).peer_id()];
    place.shelf().add_list(&list(1, NOW_MS, 1), false, NOW_MS).unwrap();
    let error = place.shelf().add_list(&list(1, NOW_MS - 1, 2), false, NOW_MS).unwrap_err();
    assert!(matches!(error, ShelfError::List(ListError::Superseded(_))), "{error}");
    assert_eq!(sources(&place.shelf().doors(NOW_MS)), [(DoorSource::List, "seed.example:2".to_owned())]);
}

#[test]
fn a_list_in_the_config_counts_against_an_older_one_too() {
    let mut place = Place::new();
    let path = place.dir.path().join("community.list");
    fs::write(&path, list(1, NOW_MS, 1)).unwrap();
    place.config.bootstrap.signers = vec![identity(1).peer_id()];
    place.config.bootstrap.lists = vec![path];
    let error = place.shelf().add_list(&list(1, NOW_MS - 1, 2), false, NOW_MS).unwrap_err();
    assert!(matches!(error, ShelfError::List(ListError::Superseded(_))), "{error}");
}

#[test]
fn old_lists_are_used_last_and_for_ever() {
    let mut place = Place::new();
    place.config.bootstrap.signers = vec![identity(1).peer_id(), identity(2).peer_id()];
    let later = NOW_MS + 4000 * DAY_MS;
    let added = place.shelf().add_list(&list(1, NOW_MS, 1), false, later).unwrap();
    assert!(matches!(added.freshness, Freshness::Expired { .. }));
    place.shelf().add_list(&list(2, later, 2), false, later).unwrap();
    let doors = place.shelf().doors(later);
    let expected = [(DoorSource::List, "seed.example:3".to_owned()), (DoorSource::List, "seed.example:2".to_owned())];
    assert_eq!(sources(&doors), expected);
    assert_eq!(doors[1].expires_ms, Some(NOW_MS + 30 * DAY_MS));
}

#[test]
fn a_list_on_disk_is_checked_each_time() {
    let mut place = Place::new();
    place.config.bootstrap.signers = vec![identity(1).peer_id()];
    place.shelf().add_list(&list(1, NOW_MS, 1), false, NOW_MS).unwrap();
    let path = place.path(&format!("{}.list", identity(1).peer_id()));
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[good.len() - 1] ^= 1;
    fs::write(&path, &bad).unwrap();
    assert!(matches!(place.shelf().lists()[0].list, Err(ShelfError::List(ListError::Signature(_)))));
    assert_eq!(place.shelf().doors(NOW_MS), []);
    fs::write(&path, vec![0; MAX_LIST + 7]).unwrap();
    assert!(matches!(place.shelf().lists()[0].list, Err(ShelfError::List(ListError::TooLarge))));
    fs::write(&path, &good).unwrap();
    assert_eq!(place.shelf().doors(NOW_MS).len(), 1);
    place.config.bootstrap.signers.clear();
    assert!(matches!(place.shelf().lists()[0].list, Err(ShelfError::List(ListError::Signer(_)))));
    assert_eq!(place.shelf().doors(NOW_MS), []);
}

#[test]
fn a_missing_or_odd_list_file_leaves_the_other_doors() {
    let mut place = Place::new();
    place.config.bootstrap.nodes = vec![entry(0)];
    let fifo = place.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    place.config.bootstrap.lists = vec![place.dir.path().join("none"), fifo, place.dir.path().to_owned()];
    assert!(place.shelf().lists().iter().all(|list| matches!(list.list, Err(ShelfError::Read { .. }))));
    assert_eq!(place.shelf().doors(NOW_MS).len(), 1);
}

#[test]
fn damaged_files_of_the_shelf_are_named_and_not_overwritten() {
    let place = Place::new();
    place.shelf().add_entries(&[entry(1)]).unwrap();
    fs::write(place.path("nodes"), "nonsense\n").unwrap();
    let error = place.shelf().add_entries(&[entry(2)]).unwrap_err();
    assert!(error.to_string().contains("nodes: line 1: expected"), "{error}");
    assert_eq!(fs::read_to_string(place.path("nodes")).unwrap(), "nonsense\n");
    assert_eq!(place.shelf().doors(NOW_MS), []);
    fs::write(place.path("signers"), "alice\n").unwrap();
    assert_eq!(place.shelf().trusted(), []);
    let error = place.shelf().add_list(&list(1, NOW_MS, 1), true, NOW_MS).unwrap_err();
    assert!(matches!(error, ShelfError::Entries { .. }), "{error}");
}

#[test]
fn what_was_added_can_be_removed_and_stays_removed() {
    let mut place = Place::new();
    place.config.bootstrap.nodes = vec![entry(0)];
    let peer = entry(1).id;
    place.shelf().add_entries(&[entry(1), entry(2), entry(3)]).unwrap();
    let one = place.shelf().remove(&peer, Some(&entry(2))).unwrap();
    assert_eq!(one, Removed { entries: vec![entry(2)], ..Removed::default() });
    assert_eq!(place.shelf().added().unwrap(), [entry(1), entry(3)]);
    assert_eq!(place.shelf().remove(&peer, None).unwrap().entries, [entry(1), entry(3)]);
    assert_eq!(place.shelf().added().unwrap(), []);
    // What the configuration says is for the configuration to unsay.
    for entry in [None, Some(entry(0))] {
        let refused = place.shelf().remove(&peer, entry.as_ref()).unwrap_err();
        assert!(refused.to_string().contains("bootstrap.nodes"), "{refused}");
    }
    let refused = place.shelf().remove(&peer, Some(&entry(2))).unwrap_err();
    assert!(matches!(refused, ShelfError::NotHere { configured: false, .. }), "{refused}");

    let signer = identity(5).peer_id();
    place.shelf().add_list(&list(5, NOW_MS, 7), true, NOW_MS).unwrap();
    let removed = place.shelf().remove(&signer, None).unwrap();
    assert!(removed.distrusted && removed.list.is_some_and(|list| *list.signer() == signer));
    assert!(place.shelf().lists().is_empty() && place.shelf().trusted().is_empty());
    let refused = place.shelf().add_list(&list(5, NOW_MS, 7), false, NOW_MS).unwrap_err();
    assert!(matches!(refused, ShelfError::List(ListError::Signer(_))), "it is not believed any more: {refused}");
}
