// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who tells each part of a network as much as one key may say, each something else, does not keep the parts apart.

use std::cell::Cell;
use std::sync::Arc;

use pqvpn_crypto::identity::PublicIdentity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Statement, StatementBody};

use super::bounds::add_somebody;
use super::support::{Fake, World, add, add_admin, crowded, genesis, leave, remove_admin, rotate, signed};
use crate::{
    Constitution, Inserted, MAX_OWN_ACTS, MAX_PARENTS, MAX_STATEMENTS_ALONE, MAX_VOID, Refusal, StatementVerifier,
};

/// What is said, at which times from the first, and how often.
type Words = (Act, u64, usize);

/// What `signer` says so often on one statement, each time at another time from `at_ms` on.
fn beside(world: &World, on: &Statement, signer: usize, (act, at_ms, count): Words) -> Vec<Statement> {
    let one = world.fork(&[on], &[signer], act.clone());
    let at = |at_ms| signed(StatementBody { at_ms, ..one.body().clone() }, &[(signer, true)]);
    (at_ms..).take(count).map(at).collect()
}

/// The same, each on the one before.
fn in_line(world: &World, on: &Statement, signer: usize, (act, at_ms, count): Words) -> Vec<Statement> {
    let mut all = vec![on.clone()];
    for at_ms in (at_ms..).take(count) {
        let next = world.fork(&all[all.len() - 1..].iter().collect::<Vec<_>>(), &[signer], act.clone());
        all.push(signed(StatementBody { at_ms, ..next.body().clone() }, &[(signer, true)]));
    }
    all.split_off(1)
}

/// Three admins, of which each is in another part, and a member.
fn parts() -> (Vec<World>, Statement) {
    let mut parts: Vec<World> = (0..3).map(|_| World::new(1)).collect();
    let mut last = Vec::new();
    for world in &mut parts {
        let said = [add_admin(1), add_admin(2), add(5, "x")].map(|act| world.say(&[0], act));
        last.push(said[2].clone());
    }
    (parts, last.remove(0))
}

fn tell(world: &mut World, statements: &[Statement]) {
    for statement in statements {
        world.insert(statement).unwrap();
    }
}

/// An admin goes on until it stands on everything.
fn stand_on_all(world: &mut World, admin: usize) {
    let mut number = 0;
    while number < 2 || world.constitution.tips().len() > 1 {
        world.say(&[admin], add_somebody(u32::try_from(10 * admin + number).unwrap()));
        number += 1;
    }
}

fn all(constitution: &Constitution) -> Vec<Statement> {
    constitution.after(&[], usize::MAX).statements.into_iter().map(Arc::unwrap_or_clone).collect()
}

fn told(constitution: &Constitution) -> Vec<Statement> {
    constitution.told_after(&[], usize::MAX).statements.into_iter().map(Arc::unwrap_or_clone).collect()
}

/// Everybody hears all that the others hold, in this order, twice or until that brings nothing new; gives how often.
fn exchange(parts: &mut [World], order: impl Fn(&Constitution) -> Vec<Statement>) -> usize {
    let held: Vec<Vec<Statement>> = parts.iter().map(|world| order(&world.constitution)).collect();
    for round in 1.. {
        let mut news = false;
        for (at, world) in parts.iter_mut().enumerate() {
            for statements in held.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, held)| held) {
                let before = world.constitution.len();
                world.constitution.insert_all(statements.clone(), &Fake);
                news |= world.constitution.len() > before;
            }
        }
        if !news && round > 1 {
            return round;
        }
    }
    0
}

fn agree(parts: &[World], what: &str) {
    for world in parts {
        assert_eq!(world.constitution.head(), parts[0].constitution.head(), "{what}");
        assert_eq!(world.constitution.view(), parts[0].constitution.view(), "{what}");
        assert_eq!(world.constitution.waiting(), 0, "{what}");
    }
}

type Order = (&'static str, fn(&Constitution) -> Vec<Statement>);
const ORDERS: [Order; 3] = [
    ("parents first", all),
    ("children first", |constitution| all(constitution).into_iter().rev().collect()),
    ("as it is told", told),
];

#[test]
fn a_member_that_tells_each_part_other_words_of_itself_does_not_keep_them_apart() {
    for (act, many) in
        [(leave(5), beside as fn(&World, &Statement, usize, Words) -> _), (rotate(5, 10), beside), (leave(5), in_line)]
    {
        for (order, statements) in ORDERS {
            let (mut parts, last) = parts();
            for (number, world) in parts.iter_mut().enumerate() {
                let words = many(world, &last, 5, (act.clone(), 1_000 * number as u64, MAX_OWN_ACTS));
                tell(world, &words);
                stand_on_all(world, number);
            }
            let rounds = exchange(&mut parts, statements);
            agree(&parts, order);
            assert!(rounds <= 3, "{order}: {rounds}");
            assert!(parts.iter().all(|world| world.constitution.counters().vouched == 2 * MAX_OWN_ACTS as u64));
            // All three lines fill one room, for which nobody stands any more.
            let more = beside(&parts[0], &last, 5, (act.clone(), 7_000, 1));
            assert_eq!(parts[0].insert(&more[0]), Err(Refusal::OwnFull), "{order}");
        }
    }
}

#[test]
fn what_a_removed_admin_tells_each_part_does_not_keep_them_apart() {
    for (order, statements) in ORDERS {
        let (mut parts, _) = parts();
        let grant = parts[0].constitution.log(10)[2].statement.clone();
        let removal = parts[0].say(&[0], remove_admin(1));
        for (world, number) in parts.iter_mut().zip(0..) {
            world.insert(&removal).unwrap();
            let forks = beside(world, &grant, 1, (add(7, "x"), 10_000 * number, MAX_VOID));
            assert!(world.constitution.insert_all(forks.clone(), &Fake).iter().all(Result::is_ok));
            let [one, two] = [&forks[0], &forks[1]].map(|fork| vec![fork, &removal]);
            let admin = [0, 2, 2][number as usize];
            for (on, who) in [(one, 50), (two, 51)] {
                let on = world.fork(&on, &[admin], add_somebody(100 * number as u32 + who));
                world.insert(&on).unwrap();
            }
        }
        let heads: Vec<_> = parts.iter().map(|world| world.constitution.len()).collect();
        exchange(&mut parts, statements);
        for (world, before) in parts.iter().zip(heads) {
            assert_eq!(world.constitution.len(), before + 2 * 4, "{order}: what admins stand on, and no more");
            assert_eq!(world.constitution.view().members, parts[0].constitution.view().members, "{order}");
        }
    }
}

/// Each statement of a member over the bound, and one of an admin that stands on all of them.
fn over_and_on(world: &mut World, last: &Statement, signers: &[usize]) -> (Vec<Statement>, Statement) {
    tell(world, &beside(world, last, 5, (leave(5), 0, MAX_OWN_ACTS)));
    let over = beside(world, last, 5, (leave(5), 500, MAX_PARENTS));
    let on = world.fork(&over.iter().collect::<Vec<_>>(), signers, add(6, "y"));
    (over, on)
}

#[test]
fn whoever_stands_on_more_than_there_is_room_for_pays_for_it() {
    let (mut parts, last) = parts();
    let world = &mut parts[0];
    let (over, on) = over_and_on(world, &last, &[1]);
    assert_eq!(world.insert(&over[0]), Err(Refusal::OwnFull));
    assert_eq!(world.constitution.waiting(), 1, "until somebody stands on it");
    // All that it can pay but for three.
    for _ in world.constitution.graph.alone(&super::support::peer(1)).0 + 3..MAX_STATEMENTS_ALONE {
        world.constitution.graph.charge(&super::support::peer(1));
    }
    assert!(matches!(world.insert(&on), Ok(Inserted::Waiting { adopted, .. }) if adopted == [over[0].id()]));
    assert!(matches!(world.insert(&over[1]), Ok(Inserted::New { .. })));
    assert!(matches!(world.insert(&over[2]), Ok(Inserted::New { .. })));
    assert_eq!(world.insert(&over[3]), Err(Refusal::OwnFull), "it has no more");
    assert_eq!(world.insert(&world.draft(&[1], add(7, "z"))), Err(Refusal::Full));
    // Another admin has.
    let both = world.fork(&over.iter().collect::<Vec<_>>(), &[2], add(6, "z"));
    assert!(matches!(world.insert(&both), Ok(Inserted::Waiting { adopted, .. }) if adopted == [over[3].id()]));
    tell(world, &over[4..]);
    assert!(world.constitution.contains(&both.id()));
}

#[test]
fn nobody_but_an_admin_makes_room_and_none_for_itself() {
    let (mut parts, last) = parts();
    let world = &mut parts[0];
    let (over, _) = over_and_on(world, &last, &[1]);
    let refused = world.insert(&over[0]);
    assert_eq!(refused, Err(Refusal::OwnFull));
    // The member, somebody without a say, an admin's name with a false signature, one that was an admin.
    world.say(&[0], remove_admin(2));
    for signers in [[(5, true)].as_slice(), &[(9, true)], &[(0, false)], &[(0, false), (5, true)], &[(2, true)]] {
        let on = signed(world.fork(&[&over[0]], &[], leave(5)).body().clone(), signers);
        assert!(
            matches!(world.insert(&on), Ok(Inserted::Waiting { adopted, .. }) if adopted.is_empty()),
            "{signers:?}"
        );
        assert_eq!(world.insert(&over[0]), Err(Refusal::OwnFull), "{signers:?}");
    }
    // An admin that is the member.
    let base = world.say(&[0], add_admin(5));
    let of_admin = beside(world, &base, 5, (leave(5), 900, 1));
    let on = world.fork(&[&of_admin[0]], &[5], add(6, "y"));
    assert_eq!(world.insert(&of_admin[0]), Err(Refusal::OwnFull));
    assert!(matches!(world.insert(&on), Ok(Inserted::Waiting { adopted, .. }) if adopted.is_empty()));
    assert_eq!(world.insert(&of_admin[0]), Err(Refusal::OwnFull));
    // One that is an admin by now makes room once it is asked for again, and nothing stays behind.
    let soon = beside(world, &last, 5, (leave(5), 950, 1)).remove(0);
    let on = world.fork(&[&soon], &[6], add(6, "y"));
    assert_eq!(world.insert(&soon), Err(Refusal::OwnFull));
    let before = world.constitution.waiting();
    assert!(matches!(world.insert(&on), Ok(Inserted::Waiting { adopted, .. }) if adopted.is_empty()));
    world.say(&[0], add_admin(6));
    assert!(matches!(world.insert(&soon), Ok(Inserted::New { .. })));
    assert_eq!(world.constitution.waiting(), before - 1);
    // By way of others that wait, and whatever these are.
    let way = signed(world.fork(&[&over[0]], &[], leave(5)).body().clone(), &[(9, true)]);
    let end = world.fork(&[&way], &[0], add(6, "y"));
    let adopted = vec![over[0].id(), way.id()];
    assert_eq!(world.insert(&end), Ok(Inserted::New { adopted }));
}

/// Counts how often a signature was looked at.
struct Counting(Cell<usize>);

impl StatementVerifier for Counting {
    fn signature(&self, statement: &Statement, signer: &PeerId, key: &PublicIdentity) -> bool {
        self.0.set(self.0.get() + 1);
        Fake.signature(statement, signer, key)
    }

    fn rotation(&self, statement: &Statement) -> bool {
        Fake.rotation(statement)
    }
}

#[test]
fn a_signature_on_what_waits_is_looked_at_where_it_decides_and_once() {
    let (mut parts, last) = parts();
    let world = &mut parts[0];
    let (over, on) = over_and_on(world, &last, &[1]);
    let checked = Counting(Cell::new(0));
    world.constitution.insert(on, &checked).unwrap();
    let on = over.iter().collect::<Vec<_>>();
    for number in 0..20 {
        let forged = world.fork(&on, &[], add_somebody(number));
        let forged = signed(forged.body().clone(), &[(0, false), (1, false), (2, false)]);
        world.constitution.insert(forged, &checked).unwrap();
    }
    assert_eq!(checked.0.get(), 0, "nothing was refused");
    let fewer = over.len() - 1;
    for over in &over[..fewer] {
        world.constitution.insert(over.clone(), &checked).unwrap();
    }
    // Each its own, and each of those above that were false at most once.
    assert!(checked.0.get() <= fewer + 21, "{}", checked.0.get());
}

#[test]
fn what_was_let_in_over_a_bound_is_there_after_a_start_and_still_paid_for() {
    let (mut parts, last) = parts();
    let world = &mut parts[0];
    let (over, on) = over_and_on(world, &last, &[1]);
    tell(world, &[on]);
    tell(world, &over);
    let held = all(&world.constitution);
    let mut again = Constitution::found(genesis(1, "10.100.0.0/24"), &Fake, crowded).unwrap();
    assert!(again.insert_kept(held[1..].to_vec(), &Fake).iter().all(Result::is_ok));
    assert_eq!((again.head(), again.view()), (world.constitution.head(), world.constitution.view()));
    let paid = |constitution: &Constitution| constitution.graph.alone(&super::support::peer(1)).0;
    assert_eq!(paid(&world.constitution), MAX_PARENTS + 1);
    assert_eq!(paid(&again), paid(&world.constitution));
    // Only what was held before has that freedom.
    assert_eq!(again.insert(beside(world, &last, 5, (leave(5), 900, 1)).remove(0), &Fake), Err(Refusal::OwnFull));
}

#[test]
fn after_a_start_nobody_pays_for_what_an_admin_said_before_it_was_removed() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let mut last = world.say(&[0], add_admin(2));
    for number in 0..=u32::try_from(MAX_VOID).unwrap() {
        last = world.fork(&[&last], &[1], add_somebody(number % 64));
        world.constitution.insert_all([last.clone()], &Fake);
    }
    world.say(&[0], remove_admin(1));
    let mut again = Constitution::found(genesis(1, "10.100.0.0/24"), &Fake, crowded).unwrap();
    again.insert_kept(all(&world.constitution).split_off(1), &Fake);
    assert_eq!(again.head(), world.constitution.head());
    let paid = |constitution: &Constitution| constitution.graph.alone(&super::support::peer(0)).0;
    assert_eq!((paid(&again), paid(&world.constitution)), (4, 4));
}

#[test]
fn after_a_start_what_a_removed_admin_said_over_its_bound_is_paid_for() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    world.say(&[0], remove_admin(1));
    let words = in_line(&world, &grant, 1, (add(7, "x"), 0, MAX_VOID + 8));
    let on = world.fork(&[&words[MAX_VOID + 7]], &[0], add(6, "y"));
    world.insert(&on).unwrap();
    world.constitution.insert_all(words.clone(), &Fake);
    world.constitution.insert_all(words.clone(), &Fake);
    assert!(world.constitution.contains(&on.id()));
    let mut again = Constitution::found(genesis(1, "10.100.0.0/24"), &Fake, crowded).unwrap();
    again.insert_kept(all(&world.constitution).split_off(1), &Fake);
    assert_eq!(again.head(), world.constitution.head());
    let paid = |constitution: &Constitution| constitution.graph.alone(&super::support::peer(0)).0;
    assert_eq!(paid(&world.constitution), 4 + 8);
    assert_eq!(paid(&again), paid(&world.constitution));
}

#[test]
fn what_there_may_be_no_room_for_is_told_just_before_what_an_admin_says_on_it() {
    let (mut parts, last) = parts();
    let world = &mut parts[0];
    tell(world, &beside(world, &last, 5, (leave(5), 0, MAX_OWN_ACTS)));
    let first = world.say(&[0], add(6, "y"));
    let second = world.say(&[0], add(7, "z"));
    tell(world, &beside(world, &second, 7, (leave(7), 0, 1)));
    let told: Vec<_> = told(&world.constitution).iter().map(Statement::id).collect();
    let at = |of: &Statement| told.iter().position(|id| *id == of.id()).unwrap();
    let begin = at(&last);
    assert_eq!((at(&first), at(&second)), (begin + MAX_PARENTS + 1, begin + 2 * MAX_PARENTS + 1));
    assert_eq!(told.len(), world.constitution.len());
    let mut seen = std::collections::BTreeSet::new();
    for id in told {
        let parents = &world.constitution.get(&id).unwrap().body().parents.clone();
        assert!(parents.iter().all(|parent| seen.contains(parent)), "parents come first");
        seen.insert(id);
    }
}

#[test]
fn a_member_that_fills_each_part_with_other_words_does_not_keep_what_others_say_of_themselves_out() {
    for many in [beside as fn(&World, &Statement, usize, Words) -> _, in_line] {
        let (mut parts, last) = parts();
        let entry = parts[0].say(&[0], add(6, "y"));
        let grant = parts[0].say(&[0], add_admin(3));
        let removal = parts[0].say(&[0], remove_admin(3));
        // Of one that was removed, and of which no admin has said anything; one is about the member.
        let late = parts[1].fork(&[&grant], &[3], add(8, "z"));
        let again = parts[1].fork(&[&grant], &[3], add(6, "z"));
        tell(&mut parts[1], &[entry.clone(), grant, removal.clone(), late.clone(), again]);
        for (number, world) in parts.iter_mut().take(2).enumerate() {
            let words = many(world, &last, 5, (leave(5), 1_000 * number as u64, MAX_OWN_ACTS));
            tell(world, &words);
        }
        let rotated = parts[1].say(&[6], rotate(6, 11));
        assert_eq!(rotated.body().parents, [removal.id()]);
        // The next key knows how it came in, and that is more than what admins said since.
        let left = parts[1].say(&[11], leave(11));
        assert_eq!(left.body().parents, [rotated.id()]);
        for said in [&rotated, &left] {
            assert!(matches!(parts[0].insert(said), Ok(Inserted::New { .. })), "only what stands on the others waits");
        }
        assert!(parts[0].constitution.view().members.keys().all(|member| *member != super::support::peer(11)));
        // An admin's own stands on all, and lets it in where it is told.
        let admins = parts[1].draft(&[1], leave(1));
        assert!(admins.body().parents.len() > 1 && admins.body().parents.contains(&late.id()));
    }
}

#[test]
fn a_member_names_its_own_past_however_much_admins_said_beside_it() {
    let mut world = World::new(1);
    let base = world.say(&[0], add_admin(1));
    let entry = world.say(&[0], add(6, "y"));
    for number in 0..20 {
        let beside = world.fork(&[&base], &[1], add_somebody(number));
        let on = world.fork(&[&beside], &[1], add_somebody(20 + number));
        tell(&mut world, &[beside, on]);
    }
    let rotation = world.draft(&[6], rotate(6, 11));
    assert!(rotation.body().parents.len() == MAX_PARENTS && rotation.body().parents.contains(&entry.id()));
    world.insert(&rotation).unwrap();
    assert!(world.member(11).is_some());
}

/// Says no to everything without a look.
struct Tired;

impl StatementVerifier for Tired {
    fn signature(&self, _: &Statement, _: &PeerId, _: &PublicIdentity) -> bool {
        false
    }

    fn rotation(&self, _: &Statement) -> bool {
        false
    }

    fn looks(&self, _statement: &Statement) -> bool {
        false
    }
}

#[test]
fn what_waits_is_thrown_out_only_after_a_look_at_it() {
    let (mut parts, last) = parts();
    let world = &mut parts[0];
    let (over, on) = over_and_on(world, &last, &[1]);
    assert_eq!(world.insert(&over[0]), Err(Refusal::OwnFull));
    assert!(
        matches!(world.constitution.insert(on.clone(), &Tired), Ok(Inserted::Waiting { adopted, .. }) if adopted.is_empty())
    );
    assert!(world.constitution.waits(&on.id()));
    tell(world, &over[1..]);
    assert!(matches!(world.insert(&over[0]), Ok(Inserted::New { .. })));
    assert!(world.constitution.contains(&on.id()));
}

#[test]
fn a_wrong_secret_does_not_wait() {
    let mut world = World::new(1);
    let lost = world.draft(&[0], add(5, "x"));
    let disable = world.fork(&[&lost], &[], Act::Disable { secret: [66; 32] });
    assert_eq!(world.insert(&disable), Err(Refusal::BadSecret));
    assert_eq!(world.constitution.waiting(), 0);
}

#[test]
fn what_was_said_by_an_admin_under_an_earlier_key_counts_for_who_speaks_of_itself() {
    let mut world = World::new(1);
    for act in [add(2, "x"), add_admin(1), add_admin(2)] {
        world.say(&[0], act);
    }
    world.say(&[1], add(6, "y"));
    world.say(&[0], remove_admin(2));
    let gone_on = world.say(&[0], rotate(0, 10));
    // Nobody who is an admin now knows that it is none any more; without that its rotation would be an admin's, and void.
    let rotation = world.draft(&[2], rotate(2, 12));
    assert_eq!(rotation.body().parents, [gone_on.id()]);
    world.insert(&rotation).unwrap();
    assert!(!world.is_void(&rotation) && world.member(12).is_some());
}
