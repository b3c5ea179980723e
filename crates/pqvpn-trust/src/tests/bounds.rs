// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is bounded, and what it costs.

use std::time::Instant;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, NewMember, Serial, Statement, StatementBody, StatementId};

use super::support::{
    Fake, World, add, add_admin, add_by_invite, leave, new_member, params, peer, remove_admin, revoke, rotate, signed,
};
use crate::{
    CHECKPOINT_EVERY, Inserted, MAX_AUTHORITY_ACTS_ALONE, MAX_MEMBERS, MAX_OWN_ACTS, MAX_PROPOSALS,
    MAX_PROPOSALS_ALONE, MAX_VOID, MAX_WAITING, MAX_WAITING_BYTES, Refusal,
};

fn somebody(number: u32) -> PeerId {
    let mut bytes = [0x5a; 32];
    bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    PeerId::from_bytes(bytes)
}

pub(super) fn add_somebody(number: u32) -> Act {
    Act::AddMember(NewMember { peer: somebody(number), ..new_member(5, "x") })
}

#[test]
fn the_waiting_room_is_bounded_and_the_oldest_goes() {
    let mut world = World::new(1);
    let waiting = |number: usize| {
        let mut parent = [1; 32];
        parent[..8].copy_from_slice(&number.to_be_bytes());
        let parents = vec![StatementId::from_bytes(parent)];
        signed(StatementBody { parents, seq: 7, ..world.constitution.draft(1, add(5, "x")) }, &[(0, true)])
    };
    let statements: Vec<Statement> = (0..MAX_WAITING + 10).map(waiting).collect();
    for statement in &statements {
        assert!(matches!(world.insert(statement), Ok(Inserted::Waiting { .. })));
    }
    assert_eq!(world.constitution.waiting(), MAX_WAITING);
    assert_eq!(world.constitution.counters().waiting_evicted, 10);
}

#[test]
fn long_statements_that_wait_are_bounded_by_their_bytes() {
    let mut world = World::new(1);
    let signers: Vec<_> = (0..16).map(|signer| (signer, true)).collect();
    for number in 0..u8::try_from(MAX_WAITING / 2).unwrap() {
        let parents = vec![StatementId::from_bytes([number | 1; 32])];
        let at_ms = u64::from(number);
        let body = StatementBody { parents, seq: 7, at_ms, ..world.constitution.draft(1, add(5, "x")).clone() };
        assert!(matches!(world.insert(&signed(body, &signers)), Ok(Inserted::Waiting { .. })));
        assert!(world.constitution.waiting_bytes() <= MAX_WAITING_BYTES);
    }
    assert!(world.constitution.waiting() > 0 && world.constitution.counters().waiting_evicted > 0);
}

#[test]
fn who_lost_statements_from_the_waiting_room_holds_the_same_when_it_has_heard_them_again() {
    let (mut told, mut late) = (World::new(1), World::new(1));
    for number in 0..3 * u32::try_from(MAX_WAITING).unwrap() {
        told.say(&[0], add_somebody(number % 64));
        told.now += 1;
    }
    let mut all: Vec<Statement> =
        told.constitution.after(&[], usize::MAX).statements.into_iter().map(std::sync::Arc::unwrap_or_clone).collect();
    all.reverse();
    let mut rounds = 0;
    while late.constitution.head() != told.constitution.head() {
        late.constitution.insert_all(all.clone(), &Fake);
        rounds += 1;
        assert!(rounds <= 5, "{} of {} held", late.constitution.len(), told.constitution.len());
    }
    assert!(rounds > 1 && late.constitution.counters().waiting_evicted > 0);
    assert_eq!((late.constitution.waiting(), late.constitution.waiting_bytes()), (0, 0));
    assert_eq!(late.constitution.view(), told.constitution.view());
}

#[test]
fn a_bundle_of_signatures_seals_what_stands_on_them_once() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let said: Vec<Statement> = (0..200).map(|number| world.say(&[0], add_somebody(number))).collect();
    let signed_again: Vec<Statement> = said.iter().take(100).map(|s| signed(s.body().clone(), &[(1, true)])).collect();
    let new = world.draft(&[0], add(5, "x"));
    let answers = world.constitution.insert_all(signed_again.into_iter().chain([new]), &Fake);
    assert_eq!(answers.iter().filter(|answer| **answer == Ok(Inserted::Merged)).count(), 100);
    assert!(matches!(answers.last(), Some(Ok(Inserted::New { .. }))));
    assert_eq!(world.constitution.counters().resealed, 201);
    assert!(world.constitution.graph.seals_hold());
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    assert!(world.constitution.seals_truly(&checkpoint.id()) && !world.is_void(&checkpoint));
}

#[test]
fn one_admin_alone_cannot_fill_the_room_for_statements_about_admins() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    for number in 2..MAX_AUTHORITY_ACTS_ALONE {
        world.now = number as u64;
        world.say(&[0], Act::SetParams(params(1, "10.100.0.0/24")));
    }
    world.now = 0;
    let one_more = world.draft(&[0], Act::SetParams(params(1, "10.100.0.0/24")));
    assert_eq!(world.insert(&one_more), Err(Refusal::AuthorityFull));
    let both = world.draft(&[0, 1], remove_admin(0));
    world.insert(&both).unwrap();
    assert!(!world.is_admin(0));
}

#[test]
fn a_member_cannot_fill_the_constitution_with_words_about_itself() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    world.say(&[5], rotate(5, 10));
    for number in 1..MAX_OWN_ACTS {
        world.now = number as u64;
        world.say(&[10], leave(10));
    }
    world.now = 0;
    let one_more = world.draft(&[10], rotate(10, 11));
    assert_eq!(world.insert(&one_more), Err(Refusal::OwnFull), "all keys of a line share one room");
}

#[test]
fn a_removed_admin_cannot_fill_the_constitution() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    world.say(&[0], remove_admin(1));
    let mut forks = (0..).map(|number| {
        let body = StatementBody { at_ms: number, ..world.fork(&[&grant], &[1], add(5, "x")).body().clone() };
        signed(body, &[(1, true)])
    });
    let batch: Vec<_> = forks.by_ref().take(MAX_VOID).collect();
    let one_more = forks.next().unwrap();
    drop(forks);
    assert!(world.constitution.insert_all(batch, &Fake).iter().all(Result::is_ok));
    assert_eq!(world.insert(&one_more), Err(Refusal::VoidFull));
    world.say(&[0], add(6, "y"));
    assert!(world.member(6).is_some());
}

#[test]
fn a_full_network_takes_nobody_until_somebody_expires() {
    let mut world = World::new(1);
    world.constitution = crate::Constitution::found(
        super::support::genesis(1, "10.0.0.0/16"),
        &Fake,
        pqvpn_packet::addr::ipv4_candidate,
    )
    .unwrap();
    let all = u32::try_from(MAX_MEMBERS).unwrap() - 2;
    for number in 0..all {
        world.say(&[0], add_somebody(number));
    }
    world.now = 1;
    let last = NewMember { expires_ms: Some(50), ..new_member(7, "guest") };
    world.say(&[0], Act::AddMember(last));
    let refused = world.say(&[0], add(6, "y"));
    assert!(world.is_void(&refused));
    world.now = 50;
    world.say(&[0], add(6, "y"));
    assert!(world.member(6).is_some() && world.member(7).is_none());
    assert_eq!(world.constitution.view().members.len(), MAX_MEMBERS);
}

#[test]
fn a_checkpoint_is_due_each_sixty_four_statements() {
    let mut world = World::new(1);
    let many = u32::try_from(CHECKPOINT_EVERY).unwrap();
    for number in 1..many {
        world.say(&[0], add_somebody(number));
    }
    let due = |world: &World| world.constitution.checkpoint_due(&peer(0), 1000);
    assert!(!due(&world));
    world.say(&[0], add_somebody(many));
    assert!(due(&world));
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    assert!(!due(&world));
    assert_eq!(world.constitution.view().checkpoint.as_ref().unwrap().statement, checkpoint.id());
}

#[test]
fn a_signature_that_voids_checkpoints_does_not_have_them_made_without_end() {
    const HOUR: u64 = 3_600_000;
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let old: Vec<Statement> = (0..3).map(|number| world.say(&[0], add_somebody(number))).collect();
    for number in 3..=u32::try_from(CHECKPOINT_EVERY).unwrap() {
        world.say(&[0], add_somebody(number));
    }
    world.say(&[0], remove_admin(1));
    let due = |world: &World, at_ms: u64| world.constitution.checkpoint_due(&peer(0), at_ms);
    assert!(due(&world, world.now));
    let checkpoint = world.checkpoint(&[0]);
    world.insert(&checkpoint).unwrap();
    // The removed admin signs what was said while it was one; that is kept, and the checkpoint says something else.
    let late = signed(old[0].body().clone(), &[(1, true)]);
    assert_eq!(world.insert(&late), Ok(Inserted::Merged));
    assert!(world.is_void(&checkpoint) && world.constitution.view().checkpoint.is_none());
    assert!(!due(&world, world.now + 2 * HOUR), "nothing was said since");
    // However much is said, one an hour.
    for number in 100..=100 + u32::try_from(CHECKPOINT_EVERY).unwrap() {
        world.say(&[0], add_somebody(number));
    }
    assert!(!due(&world, world.now + HOUR - 1) && due(&world, world.now + HOUR));
    world.now += 10 * HOUR;
    let early = world.checkpoint(&[0]);
    world.insert(&early).unwrap();
    world.insert(&signed(old[1].body().clone(), &[(1, true)])).unwrap();
    for number in 200..=200 + u32::try_from(CHECKPOINT_EVERY).unwrap() {
        world.say(&[0], add_somebody(number));
    }
    assert!(due(&world, world.now - 5 * HOUR), "a clock that was wrong once does not keep checkpoints away");
}

#[test]
fn a_stolen_key_does_not_hide_the_proposals_of_others() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    world.say(&[0, 1], add_admin(2));
    let honest = world.say(&[0], remove_admin(2));
    for number in 0..3 * u8::try_from(MAX_PROPOSALS).unwrap() {
        world.say(&[2], Act::SetPolicy { hash: [number; 32], schema: 1 });
    }
    let shown = world.constitution.proposals();
    assert_eq!(shown.len(), MAX_PROPOSALS_ALONE + 1);
    assert!(shown.iter().any(|proposal| proposal.statement.id() == honest.id()));
    assert_eq!(
        world.constitution.as_proposal(&honest.id()).map(|proposal| (proposal.have, proposal.need)),
        Some((1, 2))
    );
    let mut open = world.constitution.open(|act| matches!(act, Act::RemoveAdmin { .. }));
    assert_eq!(open.next().map(|proposal| proposal.statement.id()), Some(honest.id()));
}

#[test]
fn a_thousand_members_are_evaluated_in_no_time() {
    let mut world = World::new(1);
    world.constitution = crate::Constitution::found(
        super::support::genesis(1, "10.0.0.0/16"),
        &Fake,
        pqvpn_packet::addr::ipv4_candidate,
    )
    .unwrap();
    world.say(&[0], add_admin(1));
    let start = Instant::now();
    for number in 0..1_000 {
        world.say(&[usize::from(number % 2 == 0)], add_somebody(number));
    }
    let one_by_one = start.elapsed();
    assert_eq!(world.constitution.counters().refolds, 2, "all but the first two stand on all tips");
    let statements = world.constitution.after(&[], usize::MAX).statements;
    let mut other =
        crate::Constitution::found((*statements[0]).clone(), &Fake, pqvpn_packet::addr::ipv4_candidate).unwrap();
    let start = Instant::now();
    let answers = other.insert_all(statements[1..].iter().map(|statement| (**statement).clone()), &Fake);
    let at_once = start.elapsed();
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(other.view(), world.constitution.view());
    println!(
        "1,000 members: {one_by_one:?} one by one, {at_once:?} at once, {} bytes each on disk",
        other.bytes() / 1_001
    );
    assert!(world.constitution.view().members.contains_key(&peer(0)));
}

/// The dearest set an attacker can make: every act of authority contradicts every other.
#[test]
fn contradicting_removals_do_not_stop_the_clock() {
    let mut world = World::new(1);
    let mut last = world.say(&[0], add_admin(1));
    for number in 2..12 {
        last = world.say(&[0], add_admin(number));
    }
    let batch: Vec<_> = (0..200_usize)
        .map(|number| {
            let signer = 1 + number % 11;
            let target = 1 + (signer + number / 11 % 10) % 11;
            let fork = world.fork(&[&last], &[signer], remove_admin(target));
            let body = StatementBody { at_ms: number as u64, ..fork.body().clone() };
            signed(body, &[(signer, true)])
        })
        .collect();
    let start = Instant::now();
    drop(world.constitution.insert_all(batch, &Fake));
    println!("200 contradicting removals: {:?}", start.elapsed());
    assert!(world.is_admin(0) && world.is_admin(1));
}

/// Admins that come and go as often as the bound allows, each signing something: quadratic, not worse.
#[test]
fn admins_that_come_and_go_do_not_stop_the_clock() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let start = Instant::now();
    for round in 0..200 {
        world.now = round;
        world.say(&[0], add_admin(2));
        world.say(&[2], Act::SetParams(params(1, "10.100.0.0/24")));
        world.say(&[0, 1], remove_admin(2));
    }
    println!("600 acts of authority: {:?}", start.elapsed());
    assert!(!world.is_admin(2) && world.constitution.view().void.is_empty());
}

#[test]
fn statements_of_an_admin_that_come_in_all_at_once_are_not_late() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    for number in 0..=u32::try_from(MAX_VOID).unwrap() {
        world.say(&[1], add_somebody(number % 64));
        world.now += 1;
    }
    let all = world.constitution.after(&[], usize::MAX).statements;
    let mut all = all.into_iter().map(std::sync::Arc::unwrap_or_clone);
    let mut fresh = crate::Constitution::found(all.next().unwrap(), &Fake, super::support::crowded).unwrap();
    let answers = fresh.insert_all(all, &Fake);
    assert_eq!(answers.iter().find(|answer| answer.is_err()), None);
    assert_eq!(fresh.head(), world.constitution.head());
    assert_eq!(fresh.counters().refolds, 2, "one at the founding and one for all");
}

/// Statements of each kind that one admin makes to have them compared with each other.
const QUARRELS: u64 = 2_000;

/// What `turns` cost when they are heard one by one, and evaluated from the beginning once more.
fn work(world: &mut World, turns: impl IntoIterator<Item = Act>) -> usize {
    world.say(&[0], add_admin(1));
    let base = world.say(&[0], add_admin(2));
    for act in turns {
        world.now += 1;
        world.say(&[1], act);
    }
    let beside = world.fork(&[&base], &[2], add(9, "z"));
    world.insert(&beside).unwrap();
    world.constitution.graph.work.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn who_takes_one_peer_in_and_out_without_end_makes_nobody_compare_all_with_all() {
    let mut world = World::new(1);
    let work = work(&mut world, (0..QUARRELS).flat_map(|_| [add(5, "x"), revoke(5)]));
    let held = world.constitution.len();
    assert!(work < 100 * held, "{work} for {held} statements");
    // What was said so often still counts, and what another says of it.
    assert!(world.member(5).is_none() && world.constitution.view().void.is_empty());
    let last = world.say(&[1], add(5, "x"));
    assert!(world.member(5).is_some());
    let beside = world.fork(&[&last], &[0], revoke(5));
    world.say(&[1], add(5, "x"));
    world.insert(&beside).unwrap();
    assert!(world.member(5).is_none(), "another admin's word");
}

#[test]
fn who_uses_and_cancels_one_invite_without_end_makes_nobody_compare_all_with_all() {
    let mut world = World::new(1);
    let cancel = Act::CancelInvite { serial: Serial::from_bytes([1; 16]) };
    let work = work(&mut world, (0..QUARRELS).flat_map(|_| [add_by_invite(5, "x", 1, 9), cancel.clone()]));
    let held = world.constitution.len();
    assert!(work < 100 * held, "{work} for {held} statements");
    assert!(world.member(5).is_some(), "the first use came before");
}

#[test]
fn who_rotates_and_is_revoked_without_end_makes_nobody_walk_for_each() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    world.say(&[5], rotate(5, 10));
    let work = work(&mut world, (0..QUARRELS).map(|_| revoke(10)));
    let held = world.constitution.len();
    assert!(work < 100 * held, "{work} for {held} statements");
    assert!(world.member(10).is_none() && world.member(5).is_none());
}

/// Statements visited for each that is held when all is evaluated once more.
fn visits(world: &mut World, base: &Statement) -> usize {
    let work = |world: &World| world.constitution.graph.work.load(std::sync::atomic::Ordering::Relaxed);
    let (before, beside) = (work(world), world.fork(&[base], &[2], add(9, "z")));
    world.insert(&beside).unwrap();
    (work(world) - before) / world.constitution.len()
}

/// An admin's words beside each other, all on one statement.
fn beside(world: &World, base: &Statement, act: &Act, count: usize) -> Vec<Statement> {
    let one = world.fork(&[base], &[1], act.clone());
    (0_u64..).take(count).map(|at_ms| signed(StatementBody { at_ms, ..one.body().clone() }, &[(1, true)])).collect()
}

#[test]
fn many_revocations_of_one_peer_beside_each_other_are_looked_at_from_the_side_of_what_they_beat() {
    const MANY: usize = 64 * 128;
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    world.say(&[0], add_admin(2));
    let known = world.say(&[0], add(5, "x"));
    let used = world.say(&[0], add_by_invite(6, "y", 1, 9));
    for (act, on) in [(revoke(5), &known), (Act::CancelInvite { serial: Serial::from_bytes([1; 16]) }, &used)] {
        let many = beside(&world, on, &act, MANY);
        assert!(world.constitution.insert_all(many, &Fake).iter().all(Result::is_ok));
    }
    let visits = visits(&mut world, &used);
    assert!(visits <= 10, "{visits} for each");
    // What they know stays, and what they do not know is beaten.
    assert!(world.member(5).is_none() && world.member(6).is_some());
    let beaten = world.fork(&[&known], &[0], add(5, "z"));
    world.insert(&beaten).unwrap();
    assert!(world.is_void(&beaten) && !world.is_void(&known));
}

#[test]
fn many_additions_beside_more_revocations_are_beaten_by_the_first() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let base = world.say(&[0], add_admin(2));
    for (act, count) in [(add(5, "x"), 32), (revoke(5), 33)] {
        let many = beside(&world, &base, &act, count * 128);
        assert!(world.constitution.insert_all(many, &Fake).iter().all(Result::is_ok));
    }
    let visits = visits(&mut world, &base);
    assert!(visits <= 4, "{visits} for each");
    assert_eq!(world.constitution.view().void.len(), 32 * 128);
}
