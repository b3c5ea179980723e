// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members: revocation, invites, names, addresses, rotation, departure, expiry.

use pqvpn_wire::network::{Act, NewMember, Serial};

use super::support::{
    Fake, World, add, add_admin, add_by_invite, crowded, genesis, leave, new_member, peer, revoke, rotate, signature,
    signed,
};
use crate::{Constitution, Event, NotAllowed, Presence, Refusal};

fn expiring(number: usize, name: &str, expires_ms: u64) -> Act {
    Act::AddMember(NewMember { expires_ms: Some(expires_ms), ..new_member(number, name) })
}

fn ephemeral(number: usize, name: &str, seconds: u32) -> Act {
    Act::AddMember(NewMember { ephemeral_s: Some(seconds), ..new_member(number, name) })
}

#[test]
fn a_revocation_beats_every_addition_that_does_not_know_it() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let base = world.say(&[0], add(5, "x"));
    world.say(&[0], revoke(5));
    let beside = world.fork(&[&base], &[1], add(5, "again"));
    world.insert(&beside).unwrap();
    assert!(world.is_void(&beside) && world.member(5).is_none());
    assert!(world.constitution.view().revoked.contains_key(&peer(5)));
    world.say(&[1], add(5, "x"));
    assert!(world.member(5).is_some() && world.constitution.view().revoked.is_empty());
}

#[test]
fn a_revocation_from_before_the_addition_counts_if_the_addition_did_not_know_it() {
    let mut world = World::new(1);
    let base = world.say(&[0], add_admin(1));
    let addition = world.say(&[0], add(6, "y"));
    let late = world.fork(&[&addition], &[0], add(5, "x"));
    let early = world.fork(&[&base], &[1], revoke(5));
    world.insert(&late).unwrap();
    assert!(world.member(5).is_some());
    world.insert(&early).unwrap();
    assert!(world.member(5).is_none());
}

#[test]
fn a_revoked_admin_does_not_bring_itself_back() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    let base = world.say(&[0], add(5, "x"));
    // Made an admin by two while two others revoke it as a member: it may sign, but not for itself.
    let revocation = world.fork(&[&base], &[0, 1], revoke(5));
    let promotion = world.fork(&[&base], &[0, 1], add_admin(5));
    world.insert(&revocation).unwrap();
    world.insert(&promotion).unwrap();
    assert!(world.is_admin(5) && world.member(5).is_none());
    let back = world.say(&[5], add(5, "x"));
    assert!(world.is_void(&back) && world.member(5).is_none());
    assert_eq!(world.constitution.allowed(&peer(5), &add(5, "x")), Err(NotAllowed::Revoked));
    world.say(&[0], add(5, "x"));
    assert!(world.member(5).is_some());
}

#[test]
fn an_invite_admits_as_many_as_it_says_whatever_the_order_of_arrival() {
    for swap in [false, true] {
        let mut world = World::new(1);
        let base = world.say(&[0], add_admin(1));
        let pair = [
            world.fork(&[&base], &[0], add_by_invite(5, "x", 1, 1)),
            world.fork(&[&base], &[1], add_by_invite(6, "y", 1, 1)),
        ];
        let mut order: Vec<_> = pair.iter().collect();
        order.sort_by_key(|statement| statement.id());
        let winner = order[0].id();
        if swap {
            order.reverse();
        }
        order.iter().for_each(|statement| drop(world.insert(statement).unwrap()));
        let members: Vec<_> = [5, 6].iter().filter_map(|number| world.member(*number)).collect();
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].statement, winner);
        let third = add_by_invite(7, "z", 1, 1);
        assert_eq!(world.constitution.allowed(&peer(0), &third), Err(NotAllowed::UsedUp));
    }
}

#[test]
fn the_same_peer_admitted_twice_uses_an_invite_once() {
    let mut world = World::new(1);
    let base = world.say(&[0], add_admin(1));
    for admin in [0, 1] {
        world.now = admin as u64;
        let statement = world.fork(&[&base], &[admin], add_by_invite(5, "x", 1, 2));
        world.insert(&statement).unwrap();
    }
    assert_eq!(world.constitution.view().uses_of(&Serial::from_bytes([1; 16])), 1);
    world.say(&[0], add_by_invite(6, "y", 1, 2));
    assert!(world.member(6).is_some());
}

#[test]
fn a_cancelled_invite_keeps_those_it_knew_and_admits_nobody_else() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let base = world.say(&[0], add_by_invite(5, "x", 1, 9));
    let serial = Serial::from_bytes([1; 16]);
    world.say(&[0], Act::CancelInvite { serial });
    let beside = world.fork(&[&base], &[1], add_by_invite(6, "y", 1, 9));
    world.insert(&beside).unwrap();
    let after = world.say(&[0], add_by_invite(7, "z", 1, 9));
    assert!(world.is_void(&beside) && world.is_void(&after));
    assert_eq!([5, 6, 7].map(|number| world.member(number).is_some()), [true, false, false]);
    assert_eq!(world.constitution.allowed(&peer(0), &add_by_invite(7, "z", 1, 9)), Err(NotAllowed::Cancelled));
}

#[test]
fn a_taken_name_gets_a_number_and_a_long_one_is_cut() {
    let mut world = World::new(1);
    let long = "a".repeat(63);
    for number in 5..8 {
        world.say(&[0], add(number, "nas"));
    }
    world.say(&[0], add(8, &long));
    world.say(&[0], add(9, &long));
    let names = [5, 6, 7].map(|number| world.member(number).unwrap().name.clone());
    assert_eq!(names, ["nas", "nas-2", "nas-3"]);
    assert_eq!(world.member(9).unwrap().name, format!("{}-2", "a".repeat(61)));
    assert_eq!(world.constitution.view().free_name("nas"), "nas-4");
}

#[test]
fn no_two_members_share_an_address_and_a_full_pool_is_no_obstacle() {
    let mut world = World::new(1);
    world.constitution = Constitution::found(genesis(1, "10.100.0.0/29"), &Fake, crowded).unwrap();
    for number in 1..9 {
        world.say(&[0], add(number, "x"));
    }
    let mut addresses: Vec<_> = world.constitution.view().members.values().filter_map(|m| m.ipv4).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 6, "all of a /29");
    assert_eq!(world.constitution.view().members.len(), 9);
}

#[test]
fn the_address_of_a_revoked_member_stays_reserved() {
    let mut world = World::new(1);
    world.constitution = Constitution::found(genesis(1, "10.100.0.0/30"), &Fake, crowded).unwrap();
    world.say(&[0], add(5, "x"));
    let address = world.member(5).unwrap().ipv4.unwrap();
    world.say(&[0], revoke(5));
    world.say(&[0], add(6, "y"));
    assert_eq!(world.member(6).unwrap().ipv4, None);
    assert_eq!(world.constitution.view().by_address(address), None);
    world.say(&[0], add(5, "x"));
    assert_eq!(world.member(5).unwrap().ipv4, Some(address), "back, it has its own again");
}

#[test]
fn who_leaves_frees_name_and_address() {
    let mut world = World::new(1);
    world.constitution = Constitution::found(genesis(1, "10.100.0.0/30"), &Fake, crowded).unwrap();
    world.say(&[0], add(5, "x"));
    let address = world.member(5).unwrap().ipv4;
    world.say(&[5], leave(5));
    world.say(&[0], add(6, "x"));
    assert_eq!((world.member(6).unwrap().name.as_str(), world.member(6).unwrap().ipv4), ("x", address));
}

#[test]
fn nobody_leaves_in_the_name_of_another() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    world.say(&[0], add(6, "y"));
    let by_member = world.draft(&[6], leave(5));
    assert_eq!(world.insert(&by_member), Err(Refusal::NoAuthority));
    let by_admin = world.say(&[0], leave(5));
    assert!(world.is_void(&by_admin) && world.member(5).is_some());
    let stranger = world.draft(&[7], leave(7));
    assert_eq!(world.insert(&stranger), Err(Refusal::NoAuthority));
}

#[test]
fn an_admin_may_clear_away_an_ephemeral_member() {
    let mut world = World::new(1);
    world.say(&[0], ephemeral(5, "ci", 60));
    world.say(&[0], leave(5));
    world.say(&[0], ephemeral(6, "ci", 60));
    assert_eq!(world.member(6).unwrap().name, "ci", "no ghosts with numbers");
}

#[test]
fn an_ephemeral_member_that_is_silent_or_gone_is_no_member() {
    let mut world = World::new(1);
    world.now = 1_000;
    world.say(&[0], ephemeral(5, "ci", 60));
    let view = world.constitution.view();
    let at = |now_ms, record_ms, left| view.is_member(&peer(5), &Presence { now_ms, record_ms, left });
    assert!(at(61_000, None, false));
    assert!(!at(61_001, None, false));
    assert!(at(100_000, Some(40_000), false));
    assert!(!at(100_001, Some(40_000), false));
    assert!(!at(50_000, Some(40_000), true), "it said goodbye");
    assert!(at(2_000, Some(500), true), "a goodbye from before it was added again");
    assert!(view.is_member(&peer(0), &Presence { now_ms: u64::MAX, ..Default::default() }), "others are not asked");
}

#[test]
fn an_expired_member_is_out_and_its_name_and_address_can_be_had() {
    let mut world = World::new(1);
    world.constitution = Constitution::found(genesis(1, "10.100.0.0/30"), &Fake, crowded).unwrap();
    world.say(&[0], expiring(5, "x", 5_000));
    let view = world.constitution.view();
    let at = |now_ms| view.is_member(&peer(5), &Presence { now_ms, ..Default::default() });
    assert_eq!((at(4_999), at(5_000)), (true, false));
    let address = world.member(5).unwrap().ipv4;
    world.now = 4_999;
    world.say(&[0], add(6, "x"));
    assert_eq!((world.member(6).unwrap().name.as_str(), world.member(6).unwrap().ipv4), ("x-2", None));
    world.now = 5_000;
    world.say(&[0], add(7, "x"));
    assert_eq!((world.member(7).unwrap().name.as_str(), world.member(7).unwrap().ipv4), ("x", address));
    assert!(world.member(5).is_none());
}

#[test]
fn a_member_renewed_in_time_keeps_name_and_address() {
    let mut world = World::new(1);
    world.say(&[0], expiring(5, "x", 5_000));
    let (name, ipv4) = (world.member(5).unwrap().name.clone(), world.member(5).unwrap().ipv4);
    world.now = 6_000;
    world.say(&[0], expiring(5, "x", 9_000));
    let member = world.member(5).unwrap();
    assert_eq!((&member.name, member.ipv4, member.expires_ms), (&name, ipv4, Some(9_000)));
}

#[test]
fn a_rotation_carries_the_membership_to_the_new_key() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    let old = world.member(5).unwrap().ipv4.unwrap();
    world.say(&[5], rotate(5, 10));
    let member = world.member(10).unwrap();
    assert_eq!(member.name, "x");
    assert_ne!(member.ipv4, Some(old));
    assert!(world.member(5).is_none());
    assert_eq!(world.constitution.view().by_address(old), None, "the old address is nobody's");
    let again = world.say(&[5], rotate(5, 11));
    assert!(world.is_void(&again) && world.member(11).is_none(), "a key is followed once");
}

#[test]
fn a_member_s_past_keeps_one_address_however_often_it_rotates() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "nas"));
    let first = world.member(5).unwrap().ipv4;
    for key in 10..20 {
        let before = if key == 10 { 5 } else { key - 1 };
        let address = world.member(before).unwrap().ipv4.unwrap();
        world.say(&[before], rotate(before, key));
        let view = world.constitution.view();
        assert_eq!(view.addresses.get(&address), Some(&peer(before)), "that of the key before is nobody else's");
    }
    let view = world.constitution.view();
    assert_eq!(view.addresses.len(), 3, "the founder's, the member's, and that of its key before");
    assert_eq!(view.addresses.len(), view.reserved.len());
    world.say(&[19], leave(19));
    assert_eq!(world.constitution.view().addresses.len(), 1);
    world.say(&[0], add(5, "nas"));
    assert_eq!(world.member(5).unwrap().ipv4, first, "it was free again");
}

#[test]
fn a_member_that_takes_the_name_of_its_expired_successor_keeps_its_address() {
    // Found as seed 2169608 of the random sequences: letting key 10 go frees the address of the key before it, if that
    // is no member; key 5 is one, also while its name changes.
    let mut world = World::new(1);
    world.say(&[0], expiring(5, "x", 5_000));
    world.say(&[5], rotate(5, 10));
    world.say(&[0], add(5, "y"));
    let address = world.member(5).unwrap().ipv4;
    world.now = 5_000;
    world.say(&[0], add(5, "x"));
    assert!(world.member(10).is_none(), "its name was asked for");
    assert_eq!((world.member(5).unwrap().name.as_str(), world.member(5).unwrap().ipv4), ("x", address));
    let view = world.constitution.view();
    assert_eq!(view.addresses.get(&address.unwrap()), Some(&peer(5)));
}

#[test]
fn nobody_rotates_another_or_without_the_new_key() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    for signer in [0, 6, 10] {
        let statement = world.draft(&[signer], rotate(5, 10));
        assert_eq!(world.insert(&statement), Err(Refusal::NoAuthority));
    }
    let Act::Rotate { old, key, .. } = rotate(5, 10) else { panic!() };
    let forged = world.draft(&[5], Act::Rotate { old, key, proof: signature(false) });
    assert_eq!(world.insert(&forged), Err(Refusal::BadRotation));
}

#[test]
fn a_revocation_follows_a_rotation_it_did_not_know() {
    let mut world = World::new(1);
    let base = world.say(&[0], add(5, "x"));
    world.say(&[5], rotate(5, 10));
    let meanwhile = world.fork(&[&base], &[0], add(6, "y"));
    let revocation = world.fork(&[&meanwhile], &[0], revoke(5));
    world.insert(&meanwhile).unwrap();
    world.insert(&revocation).unwrap();
    assert!(world.member(5).is_none() && world.member(10).is_none());
}

#[test]
fn a_revoked_member_has_no_second_rotation_up_its_sleeve() {
    let mut world = World::new(1);
    let base = world.say(&[0], add(5, "x"));
    let kept_back = world.fork(&[&base], &[5], rotate(5, 11));
    world.say(&[0], add(6, "y"));
    world.say(&[5], rotate(5, 10));
    world.say(&[0], revoke(10));
    world.insert(&kept_back).unwrap();
    let view = world.constitution.view();
    assert!(view.revoked.contains_key(&peer(10)), "still revoked");
    assert!(world.member(11).is_none() && world.member(5).is_none(), "and not back under another key");
}

#[test]
fn nobody_rotates_to_a_revoked_key() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    world.say(&[0], add(10, "y"));
    world.say(&[0], revoke(10));
    let statement = world.say(&[5], rotate(5, 10));
    assert!(world.is_void(&statement) && world.member(10).is_none() && world.member(5).is_some());
}

#[test]
fn an_admin_that_rotates_keeps_its_authority_and_its_place() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    world.say(&[0], add(1, "b"));
    world.say(&[0], rotate(0, 10));
    assert!(world.is_admin(10) && !world.is_admin(0) && world.member(10).is_some());
    let by_old = world.fork(&[&grant], &[0], add(5, "x"));
    world.insert(&by_old).unwrap();
    assert!(world.is_void(&by_old), "the old key has no say any more");
    // The founder's successor is still senior to everybody.
    let base = world.say(&[10], add(6, "y"));
    let removal = world.fork(&[&base], &[10], super::support::remove_admin(1));
    let revenge = world.fork(&[&base], &[1], super::support::remove_admin(10));
    world.insert(&revenge).unwrap();
    world.insert(&removal).unwrap();
    assert!(world.is_admin(10) && !world.is_admin(1));
}

#[test]
fn a_removal_beats_a_rotation_beside_it() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    world.say(&[0], super::support::remove_admin(1));
    let escape = world.fork(&[&grant], &[1], rotate(1, 10));
    world.insert(&escape).unwrap();
    assert!(!world.is_admin(10) && !world.is_admin(1));
}

#[test]
fn changes_are_told_as_events() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    let old = world.constitution.view().clone();
    world.say(&[0], add(6, "y"));
    world.say(&[0], add(5, "z"));
    world.say(&[0], add_admin(6));
    let renamed = Event::Renamed { peer: peer(5), from: "x".into(), to: "z".into() };
    let mut events = world.constitution.view().changes_since(&old);
    assert!(events.contains(&renamed) && events.contains(&Event::Added(peer(6))), "{events:?}");
    assert!(events.contains(&Event::AdminAdded(peer(6))));
    let old = world.constitution.view().clone();
    world.say(&[0], revoke(5));
    events = world.constitution.view().changes_since(&old);
    assert_eq!(events, [Event::Revoked(peer(5))]);
    assert_eq!(old.changes_since(&old), []);
}

#[test]
fn the_loser_of_an_address_is_told_who_has_it() {
    // Two partitions add members that want the same address; after they meet, one moves.
    let mut world = World::new(1);
    world.constitution = Constitution::found(genesis(1, "10.100.0.0/29"), &Fake, crowded).unwrap();
    let base = world.say(&[0], add_admin(1));
    let additions: Vec<_> = (5..13).map(|number| world.fork(&[&base], &[1], add(number, "x"))).collect();
    let mut moved = false;
    for (one, other) in additions.iter().flat_map(|one| additions.iter().map(move |other| (one, other))) {
        let mut world = World::new(1);
        world.constitution = Constitution::found(genesis(1, "10.100.0.0/29"), &Fake, crowded).unwrap();
        world.insert(&base).unwrap();
        world.insert(one).unwrap();
        let old = world.constitution.view().clone();
        let _known = world.insert(other);
        for event in world.constitution.view().changes_since(&old) {
            if let Event::Moved { from, winner, .. } = event {
                moved = true;
                assert_eq!(winner, from.and_then(|from| world.constitution.view().by_address(from)).map(|m| m.peer));
                assert!(winner.is_some());
            }
        }
    }
    assert!(moved);
}

#[test]
fn hashes_of_views_differ_where_views_do() {
    let mut world = World::new(1);
    let mut hashes = vec![world.constitution.view().hash()];
    for act in [add(5, "x"), add_admin(5), Act::CancelInvite { serial: Serial::from_bytes([1; 16]) }, revoke(6)] {
        world.say(&[0], act);
        hashes.push(world.constitution.view().hash());
    }
    let count = hashes.len();
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
    let _ = signed(world.constitution.draft(1, add(7, "w")), &[]);
}

#[test]
fn a_line_of_keys_is_followed_both_ways_and_only_as_far_as_it_has_an_effect() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    let first = world.say(&[5], rotate(5, 10));
    let second = world.say(&[10], rotate(10, 11));
    let line = |world: &World, number, most| -> Vec<_> {
        world.constitution.rotations_to(&peer(number), most).iter().map(|statement| statement.id()).collect()
    };
    assert_eq!(line(&world, 11, 4), [first.id(), second.id()]);
    assert_eq!(line(&world, 11, 1), [second.id()], "the newest");
    assert_eq!((line(&world, 5, 4), line(&world, 0, 4)), (vec![], vec![]), "nobody rotated to these");
    let after = |world: &World, number| world.constitution.successor(&peer(number));
    assert_eq!((after(&world, 5), after(&world, 10), after(&world, 11)), (Some(peer(11)), Some(peer(11)), None));
    let by = |world: &World, number| world.constitution.rotated_by(&peer(number));
    assert_eq!((by(&world, 5), by(&world, 10), by(&world, 11)), (Some(first.id()), Some(second.id()), None));
    // Whoever is thrown out has no successor, and a rotation of a stranger leads nowhere.
    world.say(&[0], revoke(11));
    assert_eq!((after(&world, 5), after(&world, 0)), (None, None));
    assert_eq!((by(&world, 5), by(&world, 0)), (Some(first.id()), None), "out by its own word all the same");
    // A key that is let in again is out no longer.
    world.say(&[0], add(5, "y"));
    assert_eq!(by(&world, 5), None);
}
