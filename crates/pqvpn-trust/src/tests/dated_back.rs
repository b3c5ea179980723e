// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one key of a quorum says of fellow admins where they were none yet.

use pqvpn_wire::network::{Act, NewMember, Serial, Statement};

use super::bounds::add_somebody;
use super::support::{Fake, World, add, add_admin, add_by_invite, genesis, new_member, remove_admin, revoke, rotate};
use crate::{Constitution, MAX_MEMBERS};

/// Three admins of whom two must sign; all are members, and what the founder said last alone is there.
fn three() -> (World, Statement) {
    let mut world = World::new(2);
    let alone = world.say(&[0], add(5, "x"));
    world.say(&[0], add_admin(1));
    world.say(&[0], add(1, "b"));
    world.say(&[0, 1], add_admin(2));
    world.say(&[0, 1], add(2, "c"));
    (world, alone)
}

#[test]
fn one_key_puts_no_admin_out_by_a_revocation_from_before_it_was_one() {
    let (mut world, alone) = three();
    for number in [1, 2] {
        let revocation = world.fork(&[&alone], &[0], revoke(number));
        world.insert(&revocation).unwrap();
        assert!(world.is_void(&revocation) && world.is_admin(number) && world.member(number).is_some());
        assert!(world.constitution.view().revoked.is_empty());
    }
    // What stands later is no different.
    let junk = (0..20).fold(alone, |last, number| {
        world.now += 1;
        let next = world.fork(&[&last], &[0], add(6 + number % 2, "y"));
        world.insert(&next).unwrap();
        next
    });
    let late = world.fork(&[&junk], &[0], revoke(2));
    world.insert(&late).unwrap();
    assert!(world.is_void(&late) && world.member(2).is_some());
}

#[test]
fn nor_by_one_from_where_it_was_only_proposed_or_an_admin_no_longer() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    let proposal = world.say(&[1], add_admin(2));
    world.say(&[0, 1], add_admin(3));
    let proposed = world.fork(&[&proposal], &[1], revoke(2));
    world.say(&[0, 1], add_admin(2));
    let removal = world.say(&[0, 1], remove_admin(2));
    let removed = world.fork(&[&removal], &[1], revoke(2));
    world.say(&[0, 1], add_admin(2));
    world.say(&[0, 1], add(2, "c"));
    for revocation in [proposed, removed] {
        world.insert(&revocation).unwrap();
        assert!(world.is_void(&revocation) && world.is_admin(2) && world.member(2).is_some());
    }
}

#[test]
fn nor_by_one_of_a_key_it_has_rotated_away_from() {
    // Key 5 goes on as 10 before it is made an admin, and as 11 afterwards.
    let mut world = World::new(2);
    let alone = world.say(&[0], add(6, "y"));
    world.say(&[0], add_admin(1));
    let base = world.say(&[0], add(5, "x"));
    world.say(&[5], rotate(5, 10));
    world.say(&[0, 1], add_admin(10));
    world.say(&[10], rotate(10, 11));
    assert!(world.is_admin(11) && world.member(11).is_some());
    for number in [5, 10, 11] {
        for (parent, signer) in [(&alone, 0), (&base, 1)] {
            let revocation = world.fork(&[parent], &[signer], revoke(number));
            world.insert(&revocation).unwrap();
            assert!(world.is_void(&revocation), "{number}");
            assert_eq!(world.member(11).map(|member| member.name.as_str()), Some("x"), "{number}");
        }
    }
    // Whoever is let in under an old key is a member like others: this is known to the revocation.
    world.say(&[0], add(5, "z"));
    assert!(world.member(5).is_some());
    world.say(&[1], revoke(5));
    assert!(world.member(5).is_none() && world.member(11).is_some());
}

#[test]
fn as_many_as_the_quorum_put_an_admin_out_from_anywhere() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    let base = world.say(&[0], add(5, "x"));
    world.say(&[0, 1], add_admin(5));
    let revocation = world.fork(&[&base], &[1], revoke(5));
    world.insert(&revocation).unwrap();
    assert!(world.member(5).is_some());
    world.insert(&world.fork(&[&base], &[0], revoke(5))).unwrap();
    assert!(world.member(5).is_none() && world.is_admin(5));
}

#[test]
fn a_revocation_stays_that_was_known_when_its_subject_became_an_admin() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    world.say(&[0], add(5, "x"));
    let revocation = world.say(&[1], revoke(5));
    world.say(&[0], add(6, "x"));
    world.say(&[0, 1], add_admin(5));
    assert!(world.is_admin(5) && world.member(5).is_none() && !world.is_void(&revocation));
    world.say(&[0], add(5, "x"));
    assert_eq!(world.member(5).map(|member| member.name.as_str()), Some("x-2"), "nobody's name moves");
}

#[test]
fn where_one_signature_is_enough_a_member_is_not_kept_by_being_made_an_admin() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let base = world.say(&[0], add(5, "x"));
    world.insert(&world.fork(&[&base], &[1], revoke(5))).unwrap();
    world.insert(&world.fork(&[&base], &[0], add_admin(5))).unwrap();
    assert!(world.is_admin(5) && world.member(5).is_none());
}

#[test]
fn one_key_puts_no_admin_out_by_the_invite_it_came_by() {
    let mut world = World::new(2);
    let alone = world.say(&[0], add(5, "x"));
    world.say(&[0], add_admin(1));
    world.say(&[0], add(6, "y"));
    world.say(&[0], add_by_invite(2, "c", 1, 1));
    world.say(&[0, 1], add_admin(2));
    let used_up = world.fork(&[&alone], &[0], add_by_invite(7, "z", 1, 1));
    let cancelled = world.fork(&[&alone], &[0], Act::CancelInvite { serial: Serial::from_bytes([1; 16]) });
    for statement in [used_up, cancelled] {
        world.insert(&statement).unwrap();
        assert!(!world.is_void(&statement) || world.member(7).is_none());
        assert!(world.member(2).is_some());
    }
    let after = world.say(&[0], add_by_invite(8, "w", 1, 9));
    assert!(world.is_void(&after), "cancelled for everybody else");
}

#[test]
fn nor_by_an_end_of_its_membership() {
    let (mut world, alone) = three();
    let expiring = |end| Act::AddMember(NewMember { expires_ms: Some(end), ..new_member(2, "c") });
    let silent = |limit| Act::AddMember(NewMember { ephemeral_s: Some(limit), ..new_member(2, "c") });
    let ends = |world: &World, number| world.member(number).map(|member| (member.expires_ms, member.ephemeral_s));
    for act in [expiring(1), silent(1)] {
        world.say(&[0], act.clone());
        world.insert(&world.fork(&[&alone], &[0], act)).unwrap();
        assert_eq!(ends(&world, 2), Some((None, None)));
    }
    world.say(&[0, 1], expiring(5_000));
    assert_eq!(ends(&world, 2), Some((Some(5_000), None)), "two may");
    world.say(&[0], expiring(4_000));
    assert_eq!(ends(&world, 2), Some((Some(5_000), None)));
    world.say(&[0], expiring(9_000));
    assert_eq!(ends(&world, 2), Some((Some(9_000), None)), "one may renew it");
    // Nor is the way of a key to the next one taken.
    world.say(&[1], rotate(1, 10));
    let before = Act::AddMember(NewMember { expires_ms: Some(1), ..new_member(10, "d") });
    world.insert(&world.fork(&[&alone], &[0], before)).unwrap();
    assert!(world.is_admin(10));
    assert_eq!(ends(&world, 10), Some((None, None)));
}

#[test]
fn nor_by_members_that_fill_the_network_before_it() {
    let mut world = World::new(2);
    let candidate = pqvpn_packet::addr::ipv4_candidate;
    world.constitution = Constitution::found(genesis(2, "10.0.0.0/16"), &Fake, candidate).unwrap();
    let alone = world.say(&[0], add(5, "x"));
    world.say(&[0], add_admin(1));
    world.say(&[0, 1], add_admin(2));
    world.say(&[0], add(2, "c"));
    world.say(&[0], add(6, "y"));
    let crowd: Vec<_> =
        (0..).take(MAX_MEMBERS).map(|number| world.fork(&[&alone], &[0], add_somebody(number))).collect();
    assert!(world.constitution.insert_all(crowd, &Fake).iter().all(Result::is_ok));
    assert!(world.member(2).is_some() && world.member(6).is_none());
    assert_eq!(world.constitution.view().members.len(), MAX_MEMBERS + 1);
}
