// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two nodes find out what the other lacks.

use pqvpn_wire::network::StatementId;

use super::support::{Fake, World, add, add_admin, peer, remove_admin, signature};

#[test]
fn after_tips_comes_exactly_what_is_missing_parents_first() {
    let mut full = World::new(1);
    let mut behind = World::new(1);
    let grant = full.say(&[0], add_admin(1));
    behind.insert(&grant).unwrap();
    for number in 5..9 {
        full.say(&[1], add(number, "x"));
    }
    let fork = full.fork(&[&grant], &[0], add(9, "y"));
    full.insert(&fork).unwrap();
    let missing = full.constitution.after(&behind.constitution.tips(), usize::MAX);
    assert_eq!((missing.statements.len(), missing.unknown.len(), missing.more), (5, 0, false));
    for statement in &missing.statements {
        behind.insert(statement).unwrap();
    }
    assert_eq!(behind.constitution.head(), full.constitution.head());
    assert!(full.constitution.after(&behind.constitution.tips(), usize::MAX).statements.is_empty());
}

#[test]
fn tips_that_are_not_held_are_named() {
    let world = World::new(1);
    let unknown = StatementId::from_bytes([7; 32]);
    let missing = world.constitution.after(&[unknown], usize::MAX);
    assert_eq!((missing.statements.len(), missing.unknown), (1, vec![unknown]));
}

#[test]
fn a_long_answer_comes_in_pieces() {
    let mut full = World::new(1);
    for number in 1..20 {
        full.say(&[0], add(number, "x"));
    }
    let mut behind = World::new(1);
    let mut rounds = 0;
    while behind.constitution.head() != full.constitution.head() {
        let missing = full.constitution.after(&behind.constitution.tips(), 20_000);
        let bytes: usize = missing.statements.iter().map(|statement| statement.encoded_len()).sum();
        assert!(bytes <= 20_000);
        assert_eq!(missing.more, rounds < 4 && missing.statements.len() == 4);
        missing.statements.iter().for_each(|statement| drop(behind.insert(statement).unwrap()));
        rounds += 1;
    }
    assert_eq!(rounds, 5);
    assert_eq!(full.constitution.after(&[], 1).statements.len(), 1, "at least one, however long");
}

#[test]
fn nodes_that_differ_in_signers_alone_meet_over_the_co_signed() {
    let (mut one, mut other) = (World::new(2), World::new(2));
    let first = one.say(&[0], add_admin(1));
    let proposal = one.say(&[0], add_admin(2));
    other.insert(&first).unwrap();
    other.insert(&proposal).unwrap();
    let mut copy = proposal.clone();
    copy.add_signature(peer(1), signature(true));
    one.insert(&copy).unwrap();
    assert_eq!(one.constitution.tips(), other.constitution.tips());
    assert_ne!(one.constitution.head(), other.constitution.head());
    for statement in one.constitution.multi_signed(0, usize::MAX) {
        other.constitution.insert((*statement).clone(), &Fake).unwrap();
    }
    assert_eq!(one.constitution.head(), other.constitution.head());
    assert_eq!(one.constitution.view(), other.constitution.view());
}

#[test]
fn tips_without_effect_hide_none_that_has_one() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    let removal = world.say(&[0], remove_admin(1));
    // The removed admin dates many statements back; none has an effect, each is a tip.
    for number in 5..15 {
        let late = world.fork(&[&grant], &[1], add(number, "x"));
        world.insert(&late).unwrap();
        assert!(world.is_void(&late));
    }
    assert_eq!(world.constitution.tips().len(), 11);
    assert_eq!(world.constitution.tips_within(1), [removal.id()]);
    let few = world.constitution.tips_within(4);
    assert!(few.is_sorted() && few.contains(&removal.id()) && few.len() == 4);
}

#[test]
fn in_turns_every_statement_with_several_signers_is_told() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    let both: Vec<StatementId> = (5..12).map(|number| world.say(&[0, 1], add(number, "x")).id()).collect();
    let one = world.constitution.multi_signed(0, 1);
    assert_eq!(one.iter().map(|statement| statement.id()).collect::<Vec<_>>(), [both[6]], "the newest");
    let told: std::collections::BTreeSet<_> =
        (100..107).flat_map(|turn| world.constitution.multi_signed(turn, 1)).map(|statement| statement.id()).collect();
    assert_eq!(told, both.into_iter().collect());
    assert!(World::new(1).constitution.multi_signed(3, 1).is_empty());
}

/// Two that held the same and have each heard something that the other has not.
fn parted(statements: u32) -> (World, World) {
    let (mut one, mut other) = (World::new(1), World::new(1));
    for number in 0..statements {
        let statement = one.say(&[0], super::bounds::add_somebody(number));
        other.insert(&statement).unwrap();
    }
    one.say(&[0], add(5, "left"));
    other.say(&[0], add(6, "right"));
    (one, other)
}

#[test]
fn who_knows_nothing_of_our_tips_begins_at_what_both_hold() {
    let (one, other) = parted(300);
    let from_genesis = other.constitution.told_after(&one.constitution.tips(), usize::MAX);
    assert_eq!((from_genesis.statements.len(), from_genesis.unknown.len()), (302, 1), "by the tips alone");
    let waymarks = one.constitution.waymarks(256);
    assert!(waymarks.len() <= 256 && waymarks.is_sorted() && one.constitution.waymarks(1).len() <= 33);
    let few = other.constitution.told_after(&waymarks, usize::MAX);
    assert_eq!(few.statements.len(), 1, "what the other has heard since");
}

#[test]
fn what_was_shed_is_left_out_and_that_is_said() {
    let (mut one, other) = parted(30);
    let checkpoint = one.checkpoint(&[0]);
    one.insert(&checkpoint).unwrap();
    let all = one.constitution.told_after(&other.constitution.tips(), usize::MAX);
    assert_eq!((all.statements.len(), all.bare), (33, false));
    assert_eq!(one.constitution.shed(u64::MAX, &[]).len(), 31);
    let told = one.constitution.told_after(&other.constitution.tips(), usize::MAX);
    assert_eq!((told.statements.len(), told.bare), (2, true), "genesis and checkpoint");
    assert!(!told.statements.iter().any(|statement| statement.is_bare()));
    assert_eq!(one.constitution.after(&[], usize::MAX).statements.len(), 33, "for the own disk");
    let proof = one.constitution.proof(&checkpoint.id(), &[], usize::MAX);
    assert!(proof.bare && !proof.statements.iter().any(|statement| statement.is_bare()));
}
