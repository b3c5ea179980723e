// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whoever was put out does not learn what members' places in the DHT follow from afterwards, whoever it asks.

use super::*;
use pqvpn_wire::network::{Cover, CoverSecret, NetRequest, NetResponse};

/// Alice founded it; bob, carol and dave are members; as each of them holds it.
fn four() -> [Network; 4] {
    let mut alice = home();
    for (n, name) in [(1, "bob"), (2, "carol"), (3, "dave")] {
        do_act(&mut alice, member(n, name));
    }
    let mut all = [0, 1, 2, 3].map(|own| founded(own, Params::default()));
    all[0] = alice;
    let (alice, others) = all.split_first_mut().unwrap();
    for other in others {
        pull_all(other, alice, moment(NOW));
        other.look_at_covers(moment(NOW).mono);
    }
    alice.look_at_covers(moment(NOW).mono);
    all
}

fn revoke(network: &mut Network, n: usize) {
    do_act(network, Act::Revoke { peer: who(n).peer_id(), reason: String::new() });
    network.cover(who(0), moment(NOW), true);
}

/// Where a network looks for a peer first, and where it may look at all.
fn name(network: &Network) -> Option<String> {
    network.blind().map(|blind| blind.name(&who(0).peer_id(), 1))
}

fn names(network: &Network) -> Vec<String> {
    network.blinds(NOW).iter().map(|blind| blind.name(&who(0).peer_id(), 1)).collect()
}

fn sync(network: &mut Network, with: &Network) {
    pull_all(network, with, moment(NOW));
    network.look_at_covers(moment(NOW).mono);
}

#[test]
fn members_get_a_new_secret_when_somebody_is_put_out_and_he_gets_it_from_nobody() {
    let [mut alice, mut bob, mut carol, mut dave] = four();
    let before = name(&alice);
    assert!(before.is_some() && [&bob, &carol, &dave].iter().all(|other| name(other) == before));
    revoke(&mut alice, 2);
    let after = name(&alice);
    assert!(after.is_some() && after != before);
    // At the first contact.
    sync(&mut bob, &alice);
    assert_eq!(name(&bob), after);
    assert_eq!(
        names(&bob),
        [after.clone().unwrap(), before.clone().unwrap()],
        "who was away is found under the old one"
    );
    // Not by asking, whatever it asks.
    let nothing = SyncState { held: Some(Vec::new()), invites: [1; 32], cursor: Some(0), ..SyncState::default() };
    for request in [nothing, carol.state(), SyncState { invites: [2; 32], cursor: Some(0), ..carol.state() }] {
        let answer = alice.answer_outsider(moment(NOW), &who(2).peer_id(), &NetRequest::Sync(request));
        let NetResponse::PutOut(proof) = answer else { panic!("{answer:?}") };
        assert!(proof.covers.is_empty() && proof.records.is_empty() && proof.invites.is_empty());
        carol.absorb(NOW, Some(who(0).peer_id()), *proof);
    }
    carol.look_at_covers(moment(NOW).mono);
    assert!(carol.constitution.view().revoked.contains_key(&who(2).peer_id()));
    assert_eq!(carol.covers.held.len(), 0);
    assert!(!names(&carol).contains(after.as_ref().unwrap()));
    // Not by being sent what is for members: it is nobody that news go to.
    assert!(!alice.is_member(NOW, &who(2).peer_id()) && !bob.is_member(NOW, &who(2).peer_id()));
    // Not by a third that has not heard of the revocation: that one does not take the secret, so it has none to pass on.
    let cover = alice.cover_in_use().cloned().unwrap();
    let alone = Bundle { covers: vec![cover], ..Bundle::default() };
    assert!(!dave.absorb(NOW, Some(who(1).peer_id()), alone).news);
    assert_eq!((dave.counters.early_covers, dave.covers.held.len()), (1, 0));
    assert!(
        dave.is_member(NOW, &who(2).peer_id())
            && dave.answer(&SyncState { invites: [1; 32], ..SyncState::default() }).unwrap().covers.is_empty()
    );
    assert_eq!(name(&dave), before, "all that it knows says that this is right");
    sync(&mut dave, &bob);
    assert_eq!(name(&dave), after);
    // An outsider learns nothing at all.
    let answer = alice.answer_outsider(moment(NOW), &who(6).peer_id(), &NetRequest::Sync(SyncState::default()));
    assert_eq!(answer, NetResponse::UnknownNetwork);
}

#[test]
fn of_two_revocations_at_once_neither_secret_is_used_and_a_new_one_is_known_to_neither() {
    let [mut alice, mut bob, mut carol, mut dave] = four();
    do_act(&mut alice, Act::AddAdmin { key: who(1).public().clone() });
    for other in [&mut bob, &mut carol, &mut dave] {
        sync(other, &alice);
    }
    // Alice puts carol out, bob dave; each gives the other's victim a secret.
    revoke(&mut alice, 2);
    bob.act(who(1), NOW, Act::Revoke { peer: who(3).peer_id(), reason: String::new() }).unwrap();
    bob.cover(who(1), moment(NOW), true);
    sync(&mut dave, &alice);
    sync(&mut carol, &bob);
    let known = [names(&dave), names(&carol)].concat();
    assert!(known.contains(&name(&alice).unwrap()) && known.contains(&name(&bob).unwrap()));
    sync(&mut alice, &bob);
    sync(&mut bob, &alice);
    assert_eq!((name(&alice), name(&bob)), (None, None), "what somebody knows who was put out is not used");
    // The admin on duty waits a moment for another's, and draws one.
    alice.cover(who(0), moment(NOW), false);
    assert_eq!(name(&alice), None);
    assert!(alice.cover_due().is_some_and(|at| at == moment(NOW + 5000).mono));
    alice.cover(who(0), moment(NOW + 5000), false);
    sync(&mut bob, &alice);
    assert!(name(&alice).is_some() && name(&bob) == name(&alice));
    assert!(!known.contains(&name(&alice).unwrap()));
    // Two draw at once: the same one wins everywhere.
    let mut other = founded(1, Params::default());
    sync(&mut other, &alice);
    let mut revoked_again = Vec::new();
    for (network, signer) in [(&mut alice, 0), (&mut other, 1)] {
        network.covers.held.clear();
        (network.covers.stale, network.covers.lacking) = (true, None);
        network.cover(who(signer), moment(NOW), true);
        revoked_again.push(name(network));
    }
    assert_ne!(revoked_again[0], revoked_again[1]);
    sync(&mut alice, &other);
    sync(&mut other, &alice);
    assert!(name(&alice) == name(&other) && revoked_again.contains(&name(&alice)));
}

#[test]
fn a_cover_counts_only_from_an_admin_of_now_and_is_kept() {
    let [mut alice, mut bob, ..] = four();
    let tips = alice.constitution.tips();
    let id = alice.id;
    let cover = |signer: usize, network, at_ms| {
        let secret = CoverSecret::from_bytes([4; 32]);
        Arc::new(Cover::sign(network, (1, at_ms), tips.clone(), secret, who(signer)).unwrap())
    };
    let foreign = NetworkId::from_bytes([9; 32]);
    for bad in [cover(1, id, NOW), cover(6, id, NOW), cover(0, foreign, NOW), cover(0, id, NOW + HOUR)] {
        assert!(!bob.absorb(NOW, None, Bundle { covers: vec![bad], ..Bundle::default() }).news);
    }
    assert_eq!(bob.counters.bad_covers, 4);
    revoke(&mut alice, 2);
    sync(&mut bob, &alice);
    let mut extras = Vec::new();
    for change in &bob.changes {
        if let Change::Extra(_, _, Some(bytes)) = change {
            extras.push(bytes.clone());
        }
    }
    let statements = bob.constitution.log(usize::MAX).iter().map(|entry| entry.statement.encode()).collect();
    let kept = Kept { head: Some(head()), statements, extras, ..Kept::default() };
    let mut again = Network::load(who(1).peer_id(), id, kept, moment(NOW)).unwrap();
    again.look_at_covers(moment(NOW).mono);
    assert_eq!(name(&again), name(&alice));
    // Only so many are kept, and what was replaced long ago is looked under no more.
    for n in 3..8 {
        do_act(&mut alice, member(n, &format!("m{n}")));
        revoke(&mut alice, n);
    }
    assert_eq!((alice.covers.held.len(), names(&alice).len()), (4, 3));
    assert_eq!(alice.blinds(NOW + 31 * 24 * HOUR).len(), 1);
}

/// Alice and bob are admins, carol and dave members. Bob is a thief.
fn with_a_thief() -> [Network; 4] {
    let mut all = four();
    do_act(&mut all[0], Act::AddAdmin { key: who(1).public().clone() });
    let (alice, others) = all.split_first_mut().unwrap();
    others.iter_mut().for_each(|other| sync(other, alice));
    all
}

/// A cover of bob's with this number that knows what `network` holds.
fn bobs(network: &Network, number: u64, secret: u8) -> Arc<Cover> {
    let (tips, secret) = (network.constitution.tips(), CoverSecret::from_bytes([secret; 32]));
    Arc::new(Cover::sign(network.id, (number, NOW), tips, secret, who(1)).unwrap())
}

#[test]
fn a_number_says_no_more_than_what_its_issuer_knew() {
    let [mut alice, _, mut carol, _] = with_a_thief();
    let highest = 1 + alice.constitution.log(1)[0].statement.body().seq;
    for too_high in [u64::MAX, highest + 1] {
        let lie = Bundle { covers: vec![bobs(&carol, too_high, 1)], ..Bundle::default() };
        assert!(!carol.absorb(NOW, None, lie).news);
    }
    assert_eq!((carol.counters.bad_covers, carol.covers.held.len()), (2, 0));
    let highest = bobs(&carol, highest, 1);
    for network in [&mut carol, &mut alice] {
        assert!(network.absorb(NOW, None, Bundle { covers: vec![highest.clone()], ..Bundle::default() }).news);
    }
    // Whoever knows more makes a newer one.
    revoke(&mut alice, 3);
    assert!(alice.cover_in_use().is_some_and(|cover| cover.number() > highest.number()));
    sync(&mut carol, &alice);
    assert!(name(&carol).is_some() && name(&carol) == name(&alice));
}

#[test]
fn a_removed_admin_leaves_no_covers_that_keep_new_ones_out() {
    let [mut alice, bob, mut carol, _] = with_a_thief();
    // Held since nobody looked at the number, or by whatever else gets past that.
    for network in [&mut alice, &mut carol] {
        for secret in 0..4 {
            assert!(network.keep_cover(bobs(&bob, u64::MAX, secret)));
        }
    }
    do_act(&mut alice, Act::Revoke { peer: who(1).peer_id(), reason: String::new() });
    alice.cover(who(0), moment(NOW), true);
    assert!(name(&alice).is_some(), "a cover of alice's is there and in use");
    sync(&mut carol, &alice);
    assert_eq!(name(&carol), name(&alice));
    assert_eq!((carol.covers.held.len(), carol.covers.held[0].issuer()), (4, who(0).peer_id()));
    // What was in use before is looked under for a while.
    assert!(names(&carol).len() == 3);
    let before = name(&alice);
    revoke(&mut alice, 3);
    assert!(name(&alice) != before && Some(&names(&alice)[1]) == before.as_ref(), "an admin's before a thief's");
}

#[test]
fn an_admin_keeps_no_good_cover_out_by_many_that_know_less() {
    let [mut alice, bob, mut carol, _] = with_a_thief();
    for network in [&mut alice, &mut carol] {
        for secret in 0..4 {
            assert!(network.keep_cover(bobs(&bob, u64::MAX, secret)));
        }
    }
    revoke(&mut alice, 3);
    assert_eq!(alice.cover_in_use().map(|cover| cover.issuer()), Some(who(0).peer_id()));
    sync(&mut carol, &alice);
    assert!(name(&carol).is_some() && name(&carol) == name(&alice));
}
