// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may join, and what everybody else is told.

use super::*;

#[test]
fn a_join_is_bound_to_its_link_its_verifier_its_joiner_and_its_secret() {
    let mut ours = home();
    invite(&mut ours, &SECRET, |_| ());
    let good = request(&ours, 1, "bob", NOW);
    assert!(
        matches!(judge(&ours, NOW, 1, &good), Judged::Add(member) if member.name == "bob" && member.level_cap == 2)
    );
    let bad = Judged::Refused(JoinRefusal::BadProof);
    let other_link = JoinFacts { now_ms: NOW, key: who(1).public(), exporter: &[6; 32] };
    assert_eq!(ours.judge_join(other_link, &good), bad, "another exporter");
    assert_eq!(judge(&ours, NOW, 2, &good), bad, "handed on by another peer");
    let elsewhere = request_with(&ours, 1, "bob", NOW, &who(3).peer_id(), &EXPORTER, &SECRET);
    assert_eq!(judge(&ours, NOW, 1, &elsewhere), bad, "made for another verifier");
    let guessed = InviteSecret::from_bytes([10; 16]);
    let guess = request_with(&ours, 1, "bob", NOW, &ours.own, &EXPORTER, &guessed);
    assert_eq!(judge(&ours, NOW, 1, &guess), bad, "without the secret");
    let mut renamed = good.clone();
    renamed.name = "root".to_owned();
    assert_eq!(judge(&ours, NOW, 1, &renamed), bad, "the name is signed");
    let context =
        JoinContext::new(ours.id.as_bytes(), SECRET.serial().as_bytes(), &ours.own, &who(1).peer_id(), &EXPORTER);
    let proof = (SECRET.serial(), &SECRET.key());
    let lent = JoinRequest::make(who(2), proof, &context, "bob".to_owned(), NOW, &[3; 32]).unwrap();
    assert_eq!(judge(&ours, NOW, 1, &lent), bad, "signed by a key that is not the link's");
    let mut swapped = good;
    swapped.key = who(2).public().clone();
    assert_eq!(judge(&ours, NOW, 1, &swapped), bad, "another key");
}

#[test]
fn whoever_has_no_invite_learns_nothing() {
    let ours = home();
    let asks = request(&ours, 1, "bob", NOW);
    assert_eq!(judge(&ours, NOW, 1, &asks), Judged::Unknown);
}

#[test]
fn each_reason_to_refuse_a_join_has_its_own_answer() {
    let refused = |refusal| Judged::Refused(refusal);
    let mut ours = home();
    invite(&mut ours, &SECRET, |_| ());
    let asks = request(&ours, 1, "bob", NOW);
    let late = NOW + HOUR;
    let at_end = request(&ours, 1, "bob", late);
    assert_eq!(judge(&ours, late, 1, &at_end), refused(JoinRefusal::Expired { now_ms: late }));
    let hour_off = request(&ours, 1, "bob", NOW - HOUR);
    assert_eq!(judge(&ours, NOW, 1, &hour_off), refused(JoinRefusal::ClockSkew { now_ms: NOW }));
    let ahead = request(&ours, 1, "bob", NOW + HOUR);
    assert_eq!(judge(&ours, NOW, 1, &ahead), refused(JoinRefusal::ClockSkew { now_ms: NOW }));
    let taken = request(&ours, 1, "alice", NOW);
    let suggestion = "alice-2".to_owned();
    assert_eq!(judge(&ours, NOW, 1, &taken), refused(JoinRefusal::NameTaken { suggestion }));
    // Used up, but who used it is told that it is in.
    let Judged::Add(added) = judge(&ours, NOW, 1, &asks) else { panic!("good") };
    do_act(&mut ours, Act::AddMember(*added));
    assert_eq!(judge(&ours, NOW, 1, &asks), Judged::Member);
    let second = request(&ours, 2, "carol", NOW);
    assert_eq!(judge(&ours, NOW, 2, &second), refused(JoinRefusal::UsedUp));
    do_act(&mut ours, Act::Revoke { peer: who(1).peer_id(), reason: String::new() });
    assert_eq!(judge(&ours, NOW, 1, &asks), refused(JoinRefusal::Revoked));
    do_act(&mut ours, Act::CancelInvite { serial: SECRET.serial() });
    assert_eq!(judge(&ours, NOW, 2, &second), refused(JoinRefusal::Cancelled));
}

#[test]
fn who_may_not_sign_names_those_who_may_and_approval_waits() {
    let mut ours = home();
    do_act(&mut ours, member(1, "bob"));
    invite(&mut ours, &SECRET, |_| ());
    let mut bobs = founded(1, Params::default());
    pull_all(&mut bobs, &ours, moment(NOW));
    let asks = request(&bobs, 2, "carol", NOW);
    assert_eq!(judge(&bobs, NOW, 2, &asks), Judged::Elsewhere);
    ours.renew(who(0), NOW, &["1.2.3.4:5".parse().unwrap()], false);
    pull_all(&mut bobs, &ours, moment(NOW));
    let doors = bobs.doors(&["9.9.9.9:9".parse().unwrap()]);
    assert_eq!(doors.iter().map(|door| door.peer).collect::<Vec<_>>(), [who(0).peer_id()], "not itself");

    let mut club = founded(0, Params { approval: true, ..Params::default() });
    invite(&mut club, &SECRET, |_| ());
    let asks = request(&club, 1, "bob", NOW);
    assert_eq!(judge(&club, NOW, 1, &asks), Judged::Wait);
    let pending = club.queue_join(who(0), NOW, &asks).unwrap();
    assert_eq!(club.queue_join(who(0), NOW + 1, &asks).unwrap().ticket, pending.ticket, "one request, one place");
    let act = club.approval(NOW + 2 * HOUR, &who(1).peer_id()).unwrap();
    do_act(&mut club, act);
    club.prune(NOW);
    assert!(club.pending.is_empty());
    assert!(club.is_member(NOW, &who(1).peer_id()), "also when the invite ended while it waited");

    let mut club = founded(0, Params { approval: true, ..Params::default() });
    invite(&mut club, &SECRET, |_| ());
    let asks = request(&club, 1, "bob", NOW);
    club.queue_join(who(0), NOW, &asks).unwrap();
    club.deny(who(0), &who(1).peer_id()).unwrap();
    assert_eq!(judge(&club, NOW, 1, &asks), Judged::Refused(JoinRefusal::Denied));
}

#[test]
fn of_two_admins_who_use_one_invite_at_once_one_learns_that_it_was_second() {
    let mut one = home();
    do_act(&mut one, member(1, "bob"));
    do_act(&mut one, Act::AddAdmin { key: who(1).public().clone() });
    invite(&mut one, &SECRET, |_| ());
    let mut other = founded(1, Params::default());
    pull_all(&mut other, &one, moment(NOW));
    let (first, second) = (request(&one, 2, "carol", NOW), request(&other, 3, "dave", NOW));
    let Judged::Add(carol) = judge(&one, NOW, 2, &first) else { panic!("good") };
    let Judged::Add(dave) = judge(&other, NOW, 3, &second) else { panic!("good") };
    one.act(who(0), NOW, Act::AddMember(*carol)).unwrap();
    other.act(who(1), NOW, Act::AddMember(*dave)).unwrap();
    pull_all(&mut one, &other, moment(NOW));
    pull_all(&mut other, &one, moment(NOW));
    let members =
        |network: &Network| [2, 3].map(|n| network.constitution.view().members.contains_key(&who(n).peer_id()));
    assert_eq!(members(&one), members(&other));
    assert_eq!(members(&one).iter().filter(|is_in| **is_in).count(), 1, "one use, one member");
}

#[test]
fn whose_membership_has_ended_waits_like_anybody() {
    let params = Params { approval: true, ..Params::default() };
    let mut club = founded(0, params);
    do_act(&mut club, member(1, "bob"));
    do_act(&mut club, Act::AddAdmin { key: who(1).public().clone() });
    // One has run out, the other was silent for too long.
    for (n, name) in [(2, "carol"), (3, "dave")] {
        let Act::AddMember(mut new) = member(n, name) else { unreachable!() };
        (new.expires_ms, new.ephemeral_s) = if n == 2 { (Some(NOW + HOUR), None) } else { (None, Some(60)) };
        do_act(&mut club, Act::AddMember(new));
    }
    let late = NOW + HOUR;
    invite(&mut club, &SECRET, |invite| (invite.not_after_ms, invite.max_uses) = (late + HOUR, 2));
    let mut other = founded(1, params);
    pull_all(&mut other, &club, moment(NOW));
    for (n, name) in [(2, "carol"), (3, "dave")] {
        let peer = who(n).peer_id();
        assert!(!club.is_member(late, &peer));
        let asks = request(&club, n, name, late);
        assert_eq!(judge(&club, late, n, &asks), Judged::Wait);
        club.queue_join(who(0), late, &asks).unwrap();
        club.prune(late);
        assert!(club.pending.contains_key(&peer), "{name} is not asked about any more");
        pull_all(&mut other, &club, moment(late));
        other.prune(late);
        assert!(other.pending.contains_key(&peer), "another admin does not hear of {name}");
        assert_eq!(club.state().invites, other.state().invites);
        let act = other.approval(late, &peer).unwrap();
        other.act(who(1), late, act).unwrap();
        other.prune(late);
        pull_all(&mut club, &other, moment(late));
        assert!(club.is_member(late, &peer) && club.pending.is_empty() && other.pending.is_empty());
    }
}

#[test]
fn a_question_counts_for_more_than_an_older_no_at_every_admin() {
    let params = Params { approval: true, ..Params::default() };
    let mut club = founded(0, params);
    do_act(&mut club, member(1, "bob"));
    do_act(&mut club, Act::AddAdmin { key: who(1).public().clone() });
    let second = InviteSecret::from_bytes([8; 16]);
    invite(&mut club, &SECRET, |_| ());
    invite(&mut club, &second, |_| ());
    let carol = who(2).peer_id();
    let mut asks = request(&club, 2, "carol", NOW);
    club.queue_join(who(0), NOW, &asks).unwrap();
    club.deny(who(0), &carol).unwrap();
    let mut other = founded(1, params);
    pull_all(&mut other, &club, moment(NOW));
    assert!(other.pending[&carol].denied);
    // With another code, by the clock of an admin that is behind.
    asks.serial = second.serial();
    let new = other.queue_join(who(1), NOW - 1000, &asks).unwrap();
    pull_all(&mut other, &club, moment(NOW));
    pull_all(&mut club, &other, moment(NOW));
    for network in [&club, &other] {
        let held = &network.pending[&carol];
        assert_eq!((held.ticket, held.denied), (new.ticket, false));
    }
    assert_eq!(club.state().invites, other.state().invites);
    // And a new no holds at both.
    club.deny(who(0), &carol).unwrap();
    pull_all(&mut other, &club, moment(NOW));
    assert!(other.pending[&carol].denied && club.state().invites == other.state().invites);
}

#[test]
fn what_cannot_be_used_any_more_makes_room_for_invites_first() {
    let mut ours = home();
    let secret =
        |n: u64| InviteSecret::from_bytes([(n / 256) as u8, n as u8, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    for n in 0..MAX_INVITES as u64 {
        invite(&mut ours, &secret(n), |invite| invite.not_after_ms = NOW + 2 * HOUR + n);
    }
    let (last, new) = (secret(MAX_INVITES as u64 - 1).serial(), secret(999));
    do_act(&mut ours, Act::CancelInvite { serial: last });
    invite(&mut ours, &new, |invite| invite.not_after_ms = NOW + HOUR);
    assert!(ours.invites.contains_key(&new.serial()) && !ours.invites.contains_key(&last));
    // Of others that hold it, it does not come back.
    let mut other = founded(0, Params::default());
    invite(&mut other, &secret(MAX_INVITES as u64 - 1), |invite| invite.not_after_ms = NOW + 2 * HOUR + 255);
    pull_all(&mut ours, &other, moment(NOW));
    assert!(ours.invites.contains_key(&new.serial()) && !ours.invites.contains_key(&last));
    // Among those that can be used, what ends first goes.
    invite(&mut ours, &secret(1000), |invite| invite.not_after_ms = NOW + 3 * HOUR);
    assert!(!ours.invites.contains_key(&new.serial()) && ours.invites.len() == MAX_INVITES);
}
