// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whoever was put out is told so with a proof, and believes nothing less.

use super::*;
use pqvpn_wire::network::{NetRequest, NetResponse};

fn revoked(network: &Network) -> bool {
    network.constitution.view().revoked.contains_key(&network.own)
}

#[test]
fn a_proof_is_what_the_revocation_stands_on_and_comes_in_pages() {
    let mut alice = home();
    do_act(&mut alice, member(1, "bob"));
    let mut bob = founded(1, Params::default());
    pull_all(&mut bob, &alice, moment(NOW));
    for n in 2..5 {
        do_act(&mut alice, member(n, &format!("m{n}")));
    }
    do_act(&mut alice, Act::Revoke { peer: who(1).peer_id(), reason: "lost".to_owned() });
    let statements = alice.constitution.len();
    do_act(&mut alice, member(5, "later"));
    let peer = who(1).peer_id();
    let answer = alice.answer_outsider(moment(NOW), &peer, &NetRequest::Sync(bob.state()));
    let NetResponse::PutOut(proof) = answer else { panic!("{answer:?}") };
    assert_eq!((proof.statements.len(), proof.more), (4, false), "what bob lacks, and nothing that came later");
    assert_eq!(alice.proof_for(&peer, &[]).unwrap().statements.len(), statements);
    assert_eq!(alice.farewell(&peer).unwrap().statements.len(), statements, "few enough to send them all");
    assert!(!revoked(&bob) && bob.standing(moment(NOW)) != crate::membership::report::NetworkState::Revoked);
    bob.absorb(NOW, Some(who(0).peer_id()), *proof);
    assert!(revoked(&bob) && !bob.is_enabled(NOW));
    assert_eq!(bob.standing(moment(NOW)), crate::membership::report::NetworkState::Revoked);
    assert!(bob.health(moment(NOW)).iter().any(|item| item.text.contains("has revoked this node: lost; it")));
    // Who was never a member gets no proof of anything.
    assert_eq!(alice.proof_for(&who(7).peer_id(), &[]), None);
    // Proofs are rationed: they are long.
    let asked = (0..100).filter(|_| {
        let answer = alice.answer_outsider(moment(NOW), &peer, &NetRequest::Sync(SyncState::default()));
        matches!(answer, NetResponse::PutOut(_))
    });
    assert_eq!(asked.count(), 7);
}

#[test]
fn a_key_that_was_rotated_away_is_shown_the_rotation_and_believes_nothing_less() {
    let mut alice = home();
    do_act(&mut alice, member(1, "bob"));
    let mut bob = founded(1, Params::default());
    pull_all(&mut bob, &alice, moment(NOW));
    // Whoever has a copy of the disk; and what others, an admin among them, say in bob's place.
    let mut copy = founded(1, Params::default());
    pull_all(&mut copy, &alice, moment(NOW));
    let old = who(1).peer_id();
    for signer in [who(6), who(0)] {
        let rotation = Act::rotate(&alice.id, who(1).public().clone(), who(6)).unwrap();
        let mut forged = Statement::draft(alice.constitution.draft(NOW, rotation)).unwrap();
        forged.sign(signer).unwrap();
        let lie = Bundle { statements: vec![Arc::new(forged)], ..Bundle::default() };
        copy.absorb(NOW, Some(who(0).peer_id()), lie);
        assert!(copy.put_out_by(&old).is_none() && copy.is_enabled(NOW), "signed by another");
    }

    bob.rotate(NOW, who(1), who(6)).unwrap();
    pull_all(&mut alice, &bob, moment(NOW));
    assert!(alice.is_out(NOW, &old) && alice.has_put_out(NOW, &old) && !alice.has_put_out(NOW, &who(6).peer_id()));
    let answer = alice.answer_outsider(moment(NOW), &old, &NetRequest::Sync(copy.state()));
    let NetResponse::PutOut(proof) = answer else { panic!("{answer:?}") };
    assert_eq!((proof.statements.len(), proof.more), (1, false), "what the copy lacks");
    assert_eq!(alice.farewell(&old).unwrap().statements.len(), alice.constitution.len(), "few enough to send them all");
    let ping = alice.answer_outsider(moment(NOW), &old, &NetRequest::Ping);
    assert_eq!(ping, NetResponse::NotAMember, "a word");
    assert!(copy.is_enabled(NOW));
    copy.absorb(NOW, Some(who(0).peer_id()), *proof);
    assert!(!copy.is_enabled(NOW) && copy.constitution.len() == alice.constitution.len(), "it keeps what it had");
    assert_eq!(copy.standing(moment(NOW)), crate::membership::report::NetworkState::Revoked);
    assert!(copy.health(moment(NOW)).iter().any(|item| item.code == "network-revoked"));
    // Also when nobody is there under the key that came after it.
    do_act(&mut alice, Act::Revoke { peer: who(6).peer_id(), reason: String::new() });
    assert!(alice.farewell(&old).is_some() && alice.farewell(&who(6).peer_id()).is_some());
}

#[test]
fn a_reason_is_shown_as_plain_text() {
    let mut alice = home();
    do_act(&mut alice, member(1, "bob"));
    do_act(&mut alice, Act::Revoke { peer: who(1).peer_id(), reason: "a\u{202e}b".to_owned() });
    assert!(alice.log_reports(1)[0].what.ends_with("is revoked: a\\u{202e}b"));
    let mut bob = founded(1, Params::default());
    pull_all(&mut bob, &alice, moment(NOW));
    assert!(bob.health(moment(NOW)).iter().any(|item| item.text.contains("a\\u{202e}b")));
}

#[test]
fn one_word_that_is_not_an_admins_is_not_enough_for_sessions_to_start() {
    let mut alice = home();
    for n in 1..4 {
        do_act(&mut alice, member(n, &format!("m{n}")));
    }
    let mut ours = founded(1, Params::default());
    pull_all(&mut ours, &alice, moment(NOW));
    let same = ours.state();
    assert!(!ours.is_ready(moment(NOW)));
    for _ in 0..3 {
        ours.hear(moment(NOW), who(2).peer_id(), &same);
    }
    assert!(ours.synced.is_some() && !ours.is_ready(moment(NOW)), "one member that says it three times");
    ours.hear(moment(NOW), who(3).peer_id(), &same);
    assert!(ours.is_ready(moment(NOW)));
    ours.begin_anew(moment(NOW).mono);
    assert!(!ours.is_ready(moment(NOW)));
    ours.hear(moment(NOW), who(0).peer_id(), &same);
    assert!(ours.is_ready(moment(NOW)), "an admin");
}

fn bytes(bundle: &Bundle) -> usize {
    bundle.statements.iter().map(|statement| statement.encoded_len()).sum()
}

#[test]
fn a_proof_comes_in_pages_also_to_who_has_heard_something_that_nobody_else_has() {
    let mut alice = home();
    do_act(&mut alice, member(1, "bob"));
    for n in 0..120_u32 {
        let mut peer = [0; 32];
        peer[..4].copy_from_slice(&n.to_be_bytes());
        let Act::AddMember(mut member) = member(1, &format!("m{n}")) else { unreachable!() };
        member.peer = PeerId::from_bytes(peer);
        do_act(&mut alice, Act::AddMember(member));
    }
    let mut bob = founded(1, Params::default());
    pull_all(&mut bob, &alice, moment(NOW));
    bob.act(who(1), NOW, Act::Leave { key: who(1).public().clone() }).unwrap();
    do_act(&mut alice, Act::Revoke { peer: who(1).peer_id(), reason: String::new() });
    let mut ask = |state: SyncState| {
        let answer = alice.answer_outsider(moment(NOW), &who(1).peer_id(), &NetRequest::Sync(state));
        if let NetResponse::PutOut(proof) = answer { *proof } else { panic!("{answer:?}") }
    };
    let first = ask(bob.state());
    assert!(first.more && !bob.absorb(NOW, Some(who(0).peer_id()), first).news, "all of it is known");
    let rest = ask(bob.pull(Lacks { statements: true, ..Lacks::default() }, 0));
    assert!(!rest.more && rest.statements.len() == 1);
    bob.absorb(NOW, Some(who(0).peer_id()), rest);
    assert!(revoked(&bob));
}

#[test]
fn a_farewell_fits_into_a_message_however_long_statements_are() {
    let mut alice = home();
    for n in 1..8 {
        do_act(&mut alice, Act::AddAdmin { key: who(n).public().clone() });
    }
    for n in 0..40_u8 {
        let Act::AddMember(mut new) = member(1, &format!("m{n}")) else { unreachable!() };
        new.peer = PeerId::from_bytes([n; 32]);
        let mut statement = Statement::draft(alice.constitution.draft(NOW, Act::AddMember(new))).unwrap();
        (0..8).for_each(|signer| statement.sign(who(signer)).unwrap());
        alice.author(statement).unwrap();
    }
    let peer = PeerId::from_bytes([3; 32]);
    do_act(&mut alice, Act::Revoke { peer, reason: String::new() });
    let farewell = alice.farewell(&peer).unwrap();
    let revocation = alice.constitution.log(1)[0].statement.id();
    assert_eq!(
        farewell.statements.last().map(|statement| statement.id()),
        Some(revocation),
        "the nearest it stands on"
    );
    assert!(farewell.statements.len() > 8 && bytes(&farewell) > 300 * 1024);
    let push = NetRequest::Push(Box::new(farewell));
    assert!(pqvpn_wire::network::encode_request(&alice.id, &push).is_ok());
}

#[test]
fn one_that_asks_for_proofs_all_the_time_keeps_them_from_nobody() {
    let mut alice = home();
    for n in 1..4 {
        do_act(&mut alice, member(n, &format!("m{n}")));
        do_act(&mut alice, Act::Revoke { peer: who(n).peer_id(), reason: String::new() });
    }
    let mut proven = |n: usize, at: u64| {
        let answer = alice.answer_outsider(moment(at), &who(n).peer_id(), &NetRequest::Sync(SyncState::default()));
        matches!(answer, NetResponse::PutOut(_))
    };
    assert_eq!((0..100).filter(|_| proven(1, NOW)).count(), 8);
    assert!(proven(2, NOW) && proven(3, NOW), "others are answered");
    let later = (1..=20).map(|s| NOW + s * 1000).filter(|at| proven(1, *at)).count();
    assert_eq!(later, 5, "by and by");
}

#[test]
fn a_revocation_said_twice_is_one_proposal_and_another_admins_word_signs_it() {
    let params = Params { quorum: 2, ..Params::default() };
    let (mut alice, mut bob) = (founded(0, params), founded(1, params));
    for n in [1, 2] {
        alice.act(who(0), NOW, Act::AddAdmin { key: who(n).public().clone() }).unwrap();
        let proposed = alice.constitution.proposals().first().map(|proposal| proposal.statement.id());
        if let Some(id) = proposed {
            pull_all(&mut bob, &alice, moment(NOW));
            bob.co_sign(who(1), &id).unwrap();
            pull_all(&mut alice, &bob, moment(NOW));
        }
    }
    pull_all(&mut bob, &alice, moment(NOW));
    assert_eq!((alice.constitution.view().admins.len(), bob.constitution.view().admins.len()), (3, 3));
    let carol = who(2).peer_id();
    let first = alice.revoke(who(0), NOW, carol, "lost".to_owned()).unwrap();
    let again = alice.revoke(who(0), NOW + 1, carol, "really".to_owned()).unwrap();
    assert_eq!((again, alice.constitution.proposals().len()), (first, 1));
    pull_all(&mut bob, &alice, moment(NOW));
    assert!(!bob.constitution.view().revoked.contains_key(&carol));
    assert_eq!(bob.revoke(who(1), NOW + 2, carol, String::new()).unwrap(), first);
    assert!(bob.constitution.view().revoked.contains_key(&carol) && bob.constitution.proposals().is_empty());
    // Of another it is another.
    let other = alice.revoke(who(0), NOW, who(1).peer_id(), String::new()).unwrap();
    assert_ne!(other, first);
}

/// Alice, and bob or more, who are admins by each other's word; the quorum is that of all.
fn admins(count: usize, quorum: u8) -> Vec<Network> {
    let params = Params { quorum, ..Params::default() };
    let mut all: Vec<Network> = (0..count).map(|n| founded(n, params)).collect();
    for n in 1..count {
        let key = who(n).public().clone();
        let id = all[0].act(who(0), NOW, Act::AddAdmin { key }).unwrap();
        for signer in 1..n.min(usize::from(quorum)) {
            all[0].author_as(signer, &id);
        }
        assert_eq!(all[0].constitution.view().admins.len(), n + 1);
    }
    everybody_pulls(&mut all);
    all
}

fn everybody_pulls(all: &mut [Network]) {
    let (first, others) = all.split_first_mut().unwrap();
    for other in &mut *others {
        pull_all(first, other, moment(NOW));
    }
    for other in others {
        pull_all(other, first, moment(NOW));
    }
}

impl Network {
    fn author_as(&mut self, signer: usize, id: &StatementId) {
        let mut statement = Statement::clone(&*self.constitution.get(id).unwrap());
        statement.sign(who(signer)).unwrap();
        self.author(statement).unwrap();
    }
}

#[test]
fn a_revocation_of_before_its_member_came_back_is_not_signed_for_one_of_now() {
    let mut all = admins(3, 2);
    do_act(&mut all[0], member(2, "carol"));
    let carol = who(2).peer_id();
    let before = all[0].revoke(who(0), NOW, carol, "lost".to_owned()).unwrap();
    // Carol goes and comes back by a code, on all of this.
    let leave = Statement::draft(all[0].constitution.draft(NOW, Act::Leave { key: who(2).public().clone() }));
    let mut leave = leave.unwrap();
    leave.sign(who(2)).unwrap();
    all[0].author(leave).unwrap();
    do_act(&mut all[0], member(2, "carol"));
    everybody_pulls(&mut all);
    let bob = &mut all[1];
    let now = bob.revoke(who(1), NOW + 1, carol, String::new()).unwrap();
    assert_ne!(now, before);
    assert!(bob.constitution.view().is_admin(&carol) && !bob.act_report(&now, 0).in_force, "one of two");
    bob.author_as(0, &now);
    assert!(!bob.constitution.view().members.contains_key(&carol));
    assert!(bob.constitution.view().revoked.contains_key(&carol));
}

#[test]
fn a_revocation_that_waits_for_a_quorum_is_not_signed_for_who_is_no_admin_any_more() {
    let mut all = admins(4, 3);
    do_act(&mut all[0], member(3, "dave"));
    let dave = who(3).peer_id();
    let before = all[0].revoke(who(0), NOW, dave, "lost".to_owned()).unwrap();
    let removal = all[0].act(who(0), NOW, Act::RemoveAdmin { peer: dave }).unwrap();
    (1..3).for_each(|signer| all[0].author_as(signer, &removal));
    everybody_pulls(&mut all);
    let bob = &mut all[1];
    assert!(!bob.constitution.view().is_admin(&dave) && bob.constitution.view().members.contains_key(&dave));
    let now = bob.revoke(who(1), NOW + 1, dave, String::new()).unwrap();
    assert_ne!(now, before);
    assert!(bob.act_report(&now, 0).in_force && !bob.constitution.view().members.contains_key(&dave));
}

#[test]
fn a_proposal_is_found_by_its_id_however_many_a_stolen_key_makes() {
    let mut all = admins(3, 2);
    let honest = all[0].act(who(0), NOW, Act::RemoveAdmin { peer: who(2).peer_id() }).unwrap();
    let revocation = all[0].revoke(who(0), NOW, who(2).peer_id(), String::new()).unwrap();
    everybody_pulls(&mut all);
    let thief = &mut all[2];
    for number in 0..80_u8 {
        thief.act(who(2), NOW, Act::SetPolicy { hash: [number; 32], schema: 1 }).unwrap();
    }
    everybody_pulls(&mut all);
    let bob = &mut all[1];
    assert_eq!(bob.find_proposal(&honest.to_string()).unwrap(), (honest, false));
    assert!(!bob.act_report(&honest, 0).in_force, "it lacks a signature");
    assert!(bob.lock_report(moment(NOW)).proposals.iter().any(|proposal| proposal.id == honest.to_string()));
    assert_eq!(bob.revoke(who(1), NOW, who(2).peer_id(), String::new()).unwrap(), revocation);
    assert!(!bob.constitution.view().is_admin(&who(2).peer_id()));
}
