// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may say what: signatures, quorum, removals, forks.

use pqvpn_crypto::identity::{Identity, PublicIdentity};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, NetworkId, Statement, StatementBody, StatementId};

use super::support::{
    Fake, World, add, add_admin, crowded, genesis, leave, params, peer, remove_admin, revoke, rotate, signature, signed,
};
use crate::{CompositeVerifier, Constitution, Inserted, NotAllowed, Refusal, StatementVerifier};

fn genesis_of(world: &World) -> Statement {
    (*world.constitution.get(&StatementId::from_bytes(*world.constitution.id().as_bytes())).unwrap()).clone()
}

#[test]
fn the_founder_is_the_first_admin_and_the_first_member() {
    let world = World::new(1);
    assert!(world.is_admin(0));
    assert_eq!(world.member(0).unwrap().name, "a");
    assert!(world.constitution.view().void.is_empty());
}

#[test]
fn a_genesis_needs_the_signature_of_its_founder() {
    let body = genesis(1, "10.100.0.0/24").body().clone();
    let found = |signers: &[(usize, bool)]| Constitution::found(signed(body.clone(), signers), &Fake, crowded).err();
    assert_eq!(found(&[(0, false)]), Some(Refusal::BadSignature));
    assert_eq!(found(&[(1, true)]), Some(Refusal::NoAuthority));
    assert_eq!(found(&[]), Some(Refusal::NoAuthority));
}

#[test]
fn there_is_one_genesis() {
    let mut world = World::new(1);
    let other = genesis(2, "10.100.0.0/24");
    assert_eq!(world.insert(&other), Err(Refusal::SecondGenesis));
    assert_eq!(world.constitution.counters().refused("second_genesis"), 1);
}

#[test]
fn a_wrong_signature_is_refused() {
    let mut world = World::new(1);
    let statement = signed(world.constitution.draft(1, add(5, "x")), &[(0, false)]);
    assert_eq!(world.insert(&statement), Err(Refusal::BadSignature));
    assert!(!world.constitution.contains(&statement.id()));
}

#[test]
fn a_stranger_has_no_say_and_neither_has_a_member() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    for signer in [5, 6] {
        let statement = world.draft(&[signer], add(7, "y"));
        assert_eq!(world.insert(&statement), Err(Refusal::NoAuthority));
    }
}

/// Stands on what nobody knows.
fn on_nothing_known(world: &World, act: Act, signers: &[(usize, bool)]) -> Statement {
    let parents = vec![StatementId::from_bytes([7; 32])];
    signed(StatementBody { parents, seq: 9, ..world.constitution.draft(1, act) }, signers)
}

#[test]
fn what_nobody_signed_who_may_have_a_say_does_not_wait_for_its_parents() {
    let mut world = World::new(1);
    world.say(&[0], add(5, "x"));
    let unsigned = [add(7, "y"), add_admin(1), leave(5), rotate(5, 6)].map(|act| on_nothing_known(&world, act, &[]));
    let by_others = on_nothing_known(&world, rotate(5, 6), &[(0, true), (6, true)]);
    for statement in unsigned.iter().chain([&by_others]) {
        assert_eq!(world.insert(statement), Err(Refusal::NoAuthority));
    }
    assert_eq!(world.constitution.waiting(), 0);
    let by_itself = on_nothing_known(&world, rotate(5, 6), &[(5, true)]);
    // Whoever knows the secret needs no key.
    let disable = on_nothing_known(&world, Act::Disable { secret: [5; 32] }, &[]);
    for statement in [by_itself, disable] {
        assert!(matches!(world.insert(&statement), Ok(Inserted::Waiting { .. })));
    }
}

#[test]
fn the_ancestors_are_not_walked_through_for_a_signature_that_does_not_hold() {
    let mut world = World::new(1);
    let before = world.say(&[0], add(6, "early"));
    world.say(&[0], add(5, "x"));
    world.say(&[0], add(7, "y"));
    let walks = |world: &World| world.constitution.graph.walks.load(std::sync::atomic::Ordering::Relaxed);
    let start = walks(&world);
    for act in [leave(5), rotate(5, 8)] {
        for (signers, refusal) in [
            (&[][..], Refusal::NoAuthority),
            (&[(5, false)], Refusal::BadSignature),
            (&[(6, true)], Refusal::NoAuthority),
        ] {
            let statement = signed(world.constitution.draft(1, act.clone()), signers);
            assert_eq!(world.insert(&statement), Err(refusal), "{act:?}");
        }
    }
    assert_eq!(walks(&world), start);
    // Whose signature holds is looked for, and found only where it was taken in.
    let too_early = world.fork(&[&before], &[5], leave(5));
    assert_eq!(world.insert(&too_early), Err(Refusal::NoAuthority));
    assert!(walks(&world) > start);
    world.say(&[5], leave(5));
}

/// Counts what it is told has no signer with a say.
#[derive(Default)]
struct Hears(std::cell::Cell<usize>);

impl StatementVerifier for Hears {
    fn signature(&self, statement: &Statement, signer: &PeerId, key: &PublicIdentity) -> bool {
        Fake.signature(statement, signer, key)
    }

    fn rotation(&self, statement: &Statement) -> bool {
        Fake.rotation(statement)
    }

    fn unfounded(&self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn only_of_what_is_offered_now_is_said_that_nobody_with_a_say_signed_it() {
    let (mut world, hears) = (World::new(1), Hears::default());
    let parent = world.draft(&[0], add(5, "x"));
    let child = world.fork(&[&parent], &[6], add(7, "y"));
    let mut offer = |statement: &Statement| drop(world.constitution.insert(statement.clone(), &hears));
    offer(&child);
    offer(&parent);
    assert_eq!(hears.0.get(), 0, "it waited: who offered it is not known any more");
    offer(&child);
    assert_eq!(hears.0.get(), 1);
    let wrong = signed(child.body().clone(), &[(0, false)]);
    drop(world.constitution.insert(wrong, &hears));
    assert_eq!(hears.0.get(), 1, "a false signature is another matter");
    assert_eq!(world.constitution.waiting(), 0);
}

#[test]
fn signatures_that_cannot_count_are_not_kept() {
    let mut world = World::new(1);
    let body = world.constitution.draft(1, add(5, "x"));
    let statement = signed(body, &[(0, true), (6, true), (7, false)]);
    world.insert(&statement).unwrap();
    let kept = world.constitution.get(&statement.id()).unwrap();
    assert_eq!(kept.signers().copied().collect::<Vec<_>>(), [peer(0)]);
    assert_eq!(world.constitution.counters().signatures_dropped, 2);
}

#[test]
fn a_statement_of_another_network_is_refused() {
    let mut world = World::new(1);
    let body = StatementBody { network: NetworkId::from_bytes([3; 32]), ..world.constitution.draft(1, add(5, "x")) };
    assert_eq!(world.insert(&signed(body, &[(0, true)])), Err(Refusal::ForeignNetwork));
}

#[test]
fn a_seq_that_does_not_follow_is_refused() {
    let mut world = World::new(1);
    for seq in [2, 100, u64::MAX] {
        let body = StatementBody { seq, ..world.constitution.draft(1, add(5, "x")) };
        assert_eq!(world.insert(&signed(body, &[(0, true)])), Err(Refusal::BadSeq));
    }
}

#[test]
fn two_of_three_must_sign_what_changes_admins() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    assert!(world.is_admin(1), "alone, the founder is everybody");
    let proposal = world.say(&[0], add_admin(2));
    assert!(!world.is_admin(2), "one of two");
    let open = world.constitution.proposals();
    assert_eq!(open.iter().map(|p| (p.statement.id(), p.have, p.need)).collect::<Vec<_>>(), [(proposal.id(), 1, 2)]);
    let head = world.constitution.head();
    let mut signed_too = proposal.clone();
    signed_too.add_signature(peer(1), signature(true));
    assert_eq!(world.insert(&signed_too), Ok(Inserted::Merged));
    assert!(world.is_admin(2));
    assert!(world.constitution.proposals().is_empty());
    assert_ne!(world.constitution.head(), head, "the head covers the signers");
    assert_eq!(world.insert(&signed_too), Ok(Inserted::Known));
}

#[test]
fn a_wrong_signature_does_not_complete_a_proposal() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    let proposal = world.say(&[0], add_admin(2));
    for (signer, good) in [(1, false), (2, true), (5, true)] {
        let mut copy = proposal.clone();
        copy.add_signature(peer(signer), signature(good));
        assert_eq!(world.insert(&copy), Ok(Inserted::Known));
    }
    assert!(!world.is_admin(2));
}

#[test]
fn helpers_without_authority_cannot_crowd_out_a_signature() {
    let mut by_id: Vec<usize> = (1..19).collect();
    by_id.sort_by_key(|number| peer(*number));
    for late in [by_id[0], by_id[17]] {
        let (early, helpers) = (by_id[8], by_id.iter().copied().filter(|number| ![late, by_id[8]].contains(number)));
        let helpers: Vec<usize> = helpers.collect();
        let mut world = World::new(2);
        world.say(&[0], add_admin(early));
        world.say(&[0, early], add_admin(late));
        for helper in &helpers {
            world.say(&[0], add_admin(*helper));
        }
        let removal = world.say(&[early], remove_admin(0));
        let with = |signers: &[usize]| {
            let signers: Vec<_> = signers.iter().map(|signer| (*signer, true)).collect();
            signed(removal.body().clone(), &signers)
        };
        assert_eq!(world.insert(&with(&helpers)), Ok(Inserted::Merged));
        assert_eq!(world.constitution.get(&removal.id()).unwrap().signers().len(), 16);
        assert_eq!(world.insert(&with(&[late])), Ok(Inserted::Merged));
        assert!(!world.is_admin(0));
        let head = world.constitution.head();
        assert_eq!(world.insert(&with(&helpers)), Ok(Inserted::Known));
        assert_eq!(world.constitution.head(), head);
    }
}

#[test]
fn one_admin_cannot_revoke_another_where_two_must_sign() {
    let mut world = World::new(2);
    world.say(&[0], add_admin(1));
    world.say(&[0], add(1, "b"));
    let one = world.say(&[0], revoke(1));
    assert!(world.is_void(&one) && world.is_admin(1) && world.member(1).is_some());
    world.say(&[0, 1], revoke(1));
    assert!(!world.is_admin(1) && world.member(1).is_none());
}

#[test]
fn the_last_admin_stays() {
    let mut world = World::new(1);
    for act in [remove_admin(0), revoke(0)] {
        let statement = world.say(&[0], act.clone());
        assert!(world.is_void(&statement) && world.is_admin(0) && world.member(0).is_some());
        assert_eq!(world.constitution.allowed(&peer(0), &act), Err(NotAllowed::LastAdmin));
    }
}

#[test]
fn there_are_at_most_sixteen_admins() {
    let mut world = World::new(1);
    for number in 1..16 {
        world.say(&[0], add_admin(number));
    }
    let statement = world.say(&[0], add_admin(16));
    assert!(world.is_void(&statement));
    assert_eq!(world.constitution.view().admins.len(), 16);
    assert_eq!(world.constitution.allowed(&peer(0), &add_admin(17)), Err(NotAllowed::TooManyAdmins));
}

#[test]
fn what_an_admin_said_before_its_removal_stays_and_the_rest_is_void() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    let before = world.say(&[1], add(5, "before"));
    let removal = world.say(&[0], remove_admin(1));
    let beside = world.fork(&[&before], &[1], add(6, "beside"));
    let dated_back = world.fork(&[&grant], &[1], add(7, "back"));
    let after = world.fork(&[&removal], &[1], add(8, "after"));
    for statement in [&beside, &dated_back, &after] {
        world.insert(statement).unwrap();
        assert!(world.is_void(statement));
    }
    assert!(!world.is_void(&before) && world.member(5).is_some());
    assert_eq!([6, 7, 8].map(|number| world.member(number).is_some()), [false; 3]);
}

#[test]
fn a_removed_admin_that_is_added_again_may_sign_again() {
    let mut world = World::new(1);
    world.say(&[0], add_admin(1));
    world.say(&[0], remove_admin(1));
    world.say(&[0], add_admin(1));
    world.say(&[1], add(5, "x"));
    assert!(world.is_admin(1) && world.member(5).is_some());
}

#[test]
fn a_statement_with_another_good_signer_survives_the_removal() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    world.say(&[0], add_admin(2));
    world.say(&[0], remove_admin(1));
    let fork = world.fork(&[&grant], &[1, 0], add(5, "x"));
    world.insert(&fork).unwrap();
    assert!(world.member(5).is_some());
}

#[test]
fn helpers_a_removed_admin_added_beside_its_removal_have_no_say() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    world.say(&[0], remove_admin(1));
    let helper = world.fork(&[&grant], &[1], add_admin(2));
    let by_helper = world.fork(&[&helper], &[2], add(5, "x"));
    world.insert(&helper).unwrap();
    world.insert(&by_helper).unwrap();
    assert!(!world.is_admin(2) && world.is_void(&helper) && world.is_void(&by_helper));
}

#[test]
fn renewing_its_own_grant_does_not_save_a_removed_admin() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    world.say(&[0], remove_admin(1));
    let again = world.fork(&[&grant], &[1], add_admin(1));
    world.insert(&again).unwrap();
    assert!(!world.is_admin(1));
}

#[test]
fn a_junior_cannot_remove_its_senior_by_dating_back() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    world.say(&[0], add(5, "x"));
    world.say(&[0], add(6, "y"));
    let removal = world.say(&[0], remove_admin(1));
    // Two keys against one, and earlier: seniority decides, not number or date.
    let helper = world.fork(&[&grant], &[1], add_admin(2));
    let revenge = world.fork(&[&helper], &[1, 2], remove_admin(0));
    world.insert(&helper).unwrap();
    world.insert(&revenge).unwrap();
    assert!(world.is_admin(0) && !world.is_admin(1) && !world.is_admin(2));
    assert!(!world.is_void(&removal) && world.is_void(&revenge));
}

#[test]
fn of_two_admins_that_remove_each_other_one_stays_whoever_is_heard_first() {
    for swap in [false, true] {
        let mut world = World::new(1);
        world.say(&[0], add_admin(1));
        let base = world.say(&[0], add_admin(2));
        let pair = [world.fork(&[&base], &[1], remove_admin(2)), world.fork(&[&base], &[2], remove_admin(1))];
        let (first, second) = if swap { (1, 0) } else { (0, 1) };
        world.insert(&pair[first]).unwrap();
        world.insert(&pair[second]).unwrap();
        assert!(world.is_admin(1) && !world.is_admin(2), "the senior one stays");
    }
}

/// Three admins, and the key of the first in the hands of a thief.
struct Coup {
    world: World,
    /// What the admins said last together.
    last: Statement,
    helper: Statement,
    coup: Statement,
}

impl Coup {
    /// The thief makes himself a helper where the founder was alone, and comes back with a majority of his own; nobody
    /// knows of either yet.
    fn begin() -> Self {
        let mut world = World::new(2);
        let first = genesis_of(&world);
        world.say(&[0], add_admin(1));
        let last = world.say(&[0, 1], add_admin(2));
        let helper = world.fork(&[&first], &[0], add_admin(9));
        let coup = world.fork(&[&helper, &last], &[0, 9], remove_admin(1));
        Self { world, last, helper, coup }
    }
}

#[test]
fn a_stolen_founder_key_that_forks_the_past_loses_to_the_quorum() {
    let Coup { mut world, last, helper, coup } = Coup::begin();
    let removal = world.fork(&[&last], &[1, 2], remove_admin(0));
    for statement in [&helper, &coup, &removal] {
        world.insert(statement).unwrap();
    }
    assert_eq!([0, 1, 2, 9].map(|number| world.is_admin(number)), [false, true, true, false]);
    assert!(world.is_void(&coup) && world.is_void(&helper));
}

#[test]
fn who_lost_authority_to_a_coup_answers_beside_it() {
    let Coup { mut world, last, helper, coup } = Coup::begin();
    world.insert(&helper).unwrap();
    world.insert(&coup).unwrap();
    assert!(!world.is_admin(1), "until somebody answers");
    let body = world.constitution.draft_beside(1, remove_admin(0), &[helper.id()]);
    assert_eq!(body.parents, [last.id()]);
    world.insert(&signed(body, &[(1, true), (2, true)])).unwrap();
    assert_eq!([0, 1, 2, 9].map(|number| world.is_admin(number)), [false, true, true, false]);
}

#[test]
fn who_was_an_admin_beside_a_coup_sees_what_to_sign() {
    let Coup { mut world, helper, coup, .. } = Coup::begin();
    world.insert(&helper).unwrap();
    world.insert(&coup).unwrap();
    let constitution = &mut world.constitution;
    assert_eq!(constitution.allowed(&peer(1), &remove_admin(0)), Err(NotAllowed::NotAdmin));
    assert_eq!(constitution.allowed_beside(&peer(1), &peer(0), &[helper.id()]), Ok(()));
    for (signer, subject, beside, why) in [
        (9, 0, helper.id(), NotAllowed::NotAdmin),
        (1, 9, helper.id(), NotAllowed::SubjectNotAdmin),
        (0, 0, genesis_of(&world).id(), NotAllowed::NotAdmin),
    ] {
        let refused = world.constitution.allowed_beside(&peer(signer), &peer(subject), &[beside]);
        assert_eq!(refused, Err(why), "{signer} {subject}");
    }
    let answer = signed(world.constitution.draft_beside(1, remove_admin(0), &[helper.id()]), &[(1, true)]);
    world.insert(&answer).unwrap();
    // One of two: neither in force nor a proposal like others, for who signed it has no say now.
    assert!(world.is_void(&answer) && world.constitution.proposals().is_empty());
    assert_eq!(world.constitution.tally(&answer.id()), Some((1, 2)));
    let sees = |world: &World, number| {
        let answers = world.constitution.answers(&peer(number));
        answers.iter().map(|answer| (answer.statement.id(), answer.have, answer.need)).collect::<Vec<_>>()
    };
    assert_eq!(sees(&world, 2), [(answer.id(), 1, 2)]);
    assert_eq!([sees(&world, 1), sees(&world, 9)], [[], []], "it has signed, and he was no admin there");
    world.insert(&signed(answer.body().clone(), &[(2, true)])).unwrap();
    assert_eq!([0, 1, 2, 9].map(|number| world.is_admin(number)), [false, true, true, false]);
    assert_eq!(sees(&world, 2), []);
}

#[test]
fn parameters_are_those_of_the_last_statement_in_force() {
    let mut world = World::new(1);
    let grant = world.say(&[0], add_admin(1));
    world.say(&[0], Act::SetParams(params(2, "10.100.0.0/24")));
    let stale = world.fork(&[&grant], &[1], Act::SetParams(params(1, "10.200.0.0/24")));
    world.insert(&stale).unwrap();
    world.say(&[0, 1], Act::SetParams(params(3, "10.100.0.0/24")));
    assert_eq!(world.constitution.view().params.quorum, 3);
    assert_eq!(world.constitution.view().quorum(), 2, "never more than there are admins");
}

#[test]
fn the_network_is_switched_off_by_its_secret_alone() {
    let mut world = World::new(1);
    let wrong = world.draft(&[0], Act::Disable { secret: [6; 32] });
    assert_eq!(world.insert(&wrong), Err(Refusal::BadSecret));
    let right = signed(world.constitution.draft(1, Act::Disable { secret: [5; 32] }), &[]);
    world.insert(&right).unwrap();
    assert!(world.constitution.view().disabled);
    let presence = crate::Presence { now_ms: 1, ..Default::default() };
    assert!(!world.constitution.view().is_member(&peer(0), &presence));
    assert_eq!(world.constitution.allowed(&peer(0), &add(5, "x")), Err(NotAllowed::Disabled));
}

#[test]
fn statements_may_come_before_their_parents() {
    let mut told = World::new(1);
    let statements = [told.say(&[0], add_admin(1)), told.say(&[1], add(5, "x")), told.say(&[1], add(6, "y"))];
    let mut world = World::new(1);
    let missing = |inserted: Result<Inserted, Refusal>| match inserted {
        Ok(Inserted::Waiting { missing, .. }) => missing,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(world.insert(&statements[2])), [statements[1].id()]);
    assert_eq!(missing(world.insert(&statements[1])), [statements[0].id()]);
    let adopted = vec![statements[1].id(), statements[2].id()];
    assert_eq!(world.insert(&statements[0]), Ok(Inserted::New { adopted }));
    assert_eq!(world.constitution.head(), told.constitution.head());
    assert_eq!(world.constitution.view(), told.constitution.view());
}

#[test]
fn a_wrong_copy_in_the_waiting_room_does_not_push_out_the_right_one() {
    let mut told = World::new(1);
    let parent = told.say(&[0], add(5, "x"));
    let right = told.say(&[0], add(6, "y"));
    let wrong = signed(right.body().clone(), &[(0, false)]);
    for order in [[&wrong, &right], [&right, &wrong]] {
        let mut world = World::new(1);
        for copy in order {
            world.insert(copy).unwrap();
        }
        world.insert(&parent).unwrap();
        assert!(world.member(6).is_some());
    }
}

#[test]
fn real_signatures_are_checked_with_both_halves() {
    let [founder, laptop, renewed] = [(); 3].map(|()| Identity::generate().unwrap());
    let mut body = genesis(1, "10.100.0.0/24").body().clone();
    let Act::Genesis(act) = &mut body.act else { panic!() };
    act.founder = founder.public().clone();
    let mut first = Statement::draft(body).unwrap();
    first.sign(&founder).unwrap();
    let mut constitution = Constitution::found(first, &CompositeVerifier, crowded).unwrap();
    let new = pqvpn_wire::network::NewMember { peer: laptop.peer_id(), ..super::support::new_member(5, "laptop") };
    let body = constitution.draft(1, Act::AddMember(new));
    let mut forged = Statement::draft(body.clone()).unwrap();
    forged.add_signature(founder.peer_id(), signature(true));
    assert_eq!(constitution.insert(forged, &CompositeVerifier), Err(Refusal::BadSignature));
    let mut right = Statement::draft(body).unwrap();
    right.sign(&founder).unwrap();
    constitution.insert(right, &CompositeVerifier).unwrap();
    let act = Act::rotate(&constitution.id(), laptop.public().clone(), &renewed).unwrap();
    let Act::Rotate { old, key, .. } = act.clone() else { panic!() };
    let without = Act::Rotate { old, key, proof: signature(true) };
    for (act, expected) in [(without, Err(Refusal::BadRotation)), (act, Ok(Inserted::New { adopted: Vec::new() }))] {
        let mut statement = Statement::draft(constitution.draft(2, act)).unwrap();
        statement.sign(&laptop).unwrap();
        assert_eq!(constitution.insert(statement, &CompositeVerifier), expected);
    }
    assert_eq!(constitution.view().by_name("laptop").map(|member| member.peer), Some(renewed.peer_id()));
}
