// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checkpoints that say the truth and that do not, and what is shed under them.

use pqvpn_wire::network::{Act, Statement};

use super::support::{Fake, World, add, add_admin, crowded, genesis, leave, peer, revoke, rotate, signature, signed};
use crate::Inserted;

fn is_bare(world: &World, statement: &Statement) -> bool {
    world.constitution.get(&statement.id()).unwrap().is_bare()
}

#[test]
fn a_checkpoint_that_says_something_else_than_what_is_held_is_void() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "nas"));
    let wrong = world.say(&[0], Act::Checkpoint { seal: [7; 32] });
    assert!(world.is_void(&wrong) && !world.constitution.seals_truly(&wrong.id()));
    assert_eq!(world.constitution.view().checkpoint, None);
    assert!(world.constitution.shed(u64::MAX, &[]).is_empty(), "nothing is shed under it");
    let right = world.checkpoint(&[0]);
    world.insert(&right).unwrap();
    assert!(!world.is_void(&right) && world.constitution.seals_truly(&right.id()));
    assert_eq!(world.constitution.view().checkpoint.as_ref().map(|last| last.statement), Some(right.id()));
}

#[test]
fn a_checkpoint_needs_the_quorum_and_covers_the_signers_too() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    let member = world.say(&[0], add(5, "nas"));
    let alone = world.checkpoint(&[0]);
    world.insert(&alone).unwrap();
    assert!(world.is_void(&alone) && world.constitution.seals_truly(&alone.id()), "true, but one of two");
    assert!(world.constitution.shed(u64::MAX, &[]).is_empty());
    let mut both = alone.clone();
    both.add_signature(peer(1), signature(true));
    world.insert(&both).unwrap();
    assert!(!world.is_void(&both));
    // Somebody signs what lies under it afterwards: its signers did not hold that.
    let mut co_signed = member.clone();
    co_signed.add_signature(peer(1), signature(true));
    assert_eq!(world.insert(&co_signed), Ok(Inserted::Merged));
    assert!(world.is_void(&both) && !world.constitution.seals_truly(&both.id()));
    let next = world.checkpoint(&[0, 1]);
    world.insert(&next).unwrap();
    assert!(!world.is_void(&next));
}

#[test]
fn only_what_is_old_and_under_a_checkpoint_and_says_not_who_may_sign_is_shed() {
    let mut world = World::new(1);
    let (admin, early) = (world.say(&[0], add_admin(1)), world.say(&[1], add(5, "early")));
    world.now = 2000;
    let late = world.say(&[0], add(6, "late"));
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    world.now = 1000;
    let after = world.say(&[0], add(7, "after"));
    let (view, head, bytes) =
        (world.constitution.view().clone(), world.constitution.head(), world.constitution.bytes());
    let shed = world.constitution.shed(2000, &[]);
    assert_eq!(shed.iter().map(|held| held.id()).collect::<Vec<_>>(), [early.id()]);
    assert!(is_bare(&world, &early) && world.constitution.shed(2000, &[]).is_empty(), "once");
    assert!([&admin, &late, &checkpoint, &after].into_iter().all(|kept| !is_bare(&world, kept)));
    assert_eq!((world.constitution.view(), world.constitution.head()), (&view, head));
    assert!(bytes - world.constitution.bytes() > 4600, "{bytes} {}", world.constitution.bytes());
    assert_eq!(world.constitution.bare(9), [early.id()]);
}

#[test]
fn what_is_to_be_shown_is_kept() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    let rotation = world.say(&[5], rotate(5, 10));
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    assert_eq!(world.constitution.shed(u64::MAX, &[rotation.id()]).len(), 1);
    assert!(!is_bare(&world, &rotation));
    assert_eq!(world.constitution.shed(u64::MAX, &[]).len(), 1, "of somebody else it goes");
}

#[test]
fn what_was_shed_still_decides() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let fork = world.say(&[1], add(5, "x"));
    world.say(&[1], add(6, "y"));
    world.say(&[6], rotate(6, 10));
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    assert_eq!(world.constitution.shed(u64::MAX, &[]).len(), 3);
    // A removal that does not know what admin 1 said makes it void, bare or not.
    let removal = world.fork(&[&world.constitution.get(&fork.body().parents[0]).unwrap()], &[0], revoke(1));
    world.insert(&removal).unwrap();
    assert!(world.is_void(&fork) && world.member(5).is_none() && world.member(10).is_none());
    assert!(world.insert(&world.draft(&[1], add(7, "z"))).is_ok_and(|_| world.member(7).is_none()));
}

#[test]
fn signatures_come_back_only_to_who_keeps_them_and_only_if_they_are_right() {
    let mut world = World::new(1);
    let statements = [world.say(&[0], add(5, "x")), world.say(&[5], leave(5))];
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    assert_eq!(world.constitution.shed(u64::MAX, &[]).len(), 2);
    for (statement, signer) in statements.iter().zip([0, 5]) {
        assert_eq!(world.insert(statement), Ok(Inserted::Known), "a member does not want them");
        let mut wrong = statement.clone();
        wrong.remove_signature(&peer(signer));
        wrong.add_signature(peer(signer), signature(false));
        world.constitution.keep_all(true);
        assert_eq!(world.insert(&wrong), Ok(Inserted::Known));
        assert!(is_bare(&world, statement));
        assert_eq!(world.insert(statement), Ok(Inserted::Restored));
        assert!(!is_bare(&world, statement));
        world.constitution.keep_all(false);
    }
}

#[test]
fn what_comes_back_brings_its_new_signers_along() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let statement = world.say(&[0], add(5, "x"));
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    assert_eq!(world.constitution.shed(u64::MAX, &[]).len(), 1);
    world.constitution.keep_all(true);
    let both = signed(statement.body().clone(), &[(0, true), (1, true)]);
    assert_eq!(world.insert(&both), Ok(Inserted::Merged));
    let held = world.constitution.get(&statement.id()).unwrap();
    assert!(held.signers().eq(both.signers()) && !is_bare(&world, &statement));
}

#[test]
fn what_was_shed_is_read_from_the_own_disk_and_from_nobody_else() {
    let mut world = World::new(1);
    let statement = world.say(&[0], add(5, "x"));
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    let shed = world.constitution.shed(u64::MAX, &[]).remove(0);
    let bytes = shed.encode();
    assert_eq!(bytes.len(), shed.encoded_len());
    assert_eq!(Statement::decode_kept(&bytes).unwrap(), *shed);
    assert!(Statement::decode(&bytes).is_err());
    let mut other = crate::Constitution::found(genesis(1, "10.100.0.0/24"), &Fake, crowded).unwrap();
    assert!(other.insert(Statement::clone(&shed), &Fake).is_err(), "nobody is convinced by it");
    assert_eq!(shed.id(), statement.id());
}

#[test]
fn ten_thousand_statements_shrink_to_a_tenth() {
    let mut world = World::new(1);
    world.constitution =
        crate::Constitution::found(genesis(1, "10.0.0.0/16"), &Fake, pqvpn_packet::addr::ipv4_candidate).unwrap();
    for number in 0..10_000_u32 {
        world.say(&[0], super::bounds::add_somebody(number % 4000));
    }
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    let before = world.constitution.bytes();
    assert_eq!(world.constitution.shed(u64::MAX, &[]).len(), 10_000);
    let after = world.constitution.bytes();
    assert!(before > 48_000_000 && after < 3_000_000, "{before} {after}");
}
