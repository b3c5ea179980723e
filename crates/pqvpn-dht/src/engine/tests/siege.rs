// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adversaries with any number of keys against one node: what they must not get out of it.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{
    Contact, Endpoints, Equivocation, Fact, NetworkId, Payload, Point, RecordDraft, Request, Response,
};

use super::{
    solo::{Answer, Solo, claimed_near, nobody},
    world::{address, sign},
};
use crate::{Output, QueryFailure, admission, engine::Purpose};

fn stranger(solo: &Solo, n: usize) -> Arc<Contact> {
    let mut name = [0xc3; 32];
    name[..8].copy_from_slice(&u64::try_from(n).expect("small").to_be_bytes());
    let peer = PeerId::from_bytes(name);
    let week = admission::week(&peer, solo.now.unix_ms);
    let claimed = pqvpn_wire::dht::Admission { week, nonce: 0, out: name };
    Arc::new(Contact::new(peer, claimed, vec![address(100 + n)]))
}

/// The contact of the table farthest from a point.
fn farthest(solo: &Solo, target: &Point) -> Arc<Contact> {
    solo.node.table().closest(target, 100).pop().expect("a table of 23")
}

#[test]
fn an_admitted_peer_counts_at_its_own_position_only() {
    let (mut solo, _) = Solo::joined(31);
    let target = Point::from_bytes([0x5a; 32]);
    let sybil = stranger(&solo, 1);
    let pretended = claimed_near(&sybil, &target, 1e-3);
    solo.forged.push(Arc::clone(&pretended));
    let mut answer = |to: &Arc<Contact>, _: &Request| -> Answer {
        if to.peer() == sybil.peer() {
            return nobody(&sybil);
        }
        let contacts = vec![Arc::clone(&pretended)];
        Some((Some(Arc::clone(to)), Response::Nodes { contacts, token: None }))
    };
    solo.node.find(solo.now, target).expect("room");
    solo.run(Duration::from_secs(20), &mut answer);
    let found = &solo.finished[0].outcome.closest;
    assert!(!found.is_empty() && solo.asked.iter().any(|(to, ..)| to.peer() == sybil.peer()));
    assert!(found.iter().all(|(contact, _)| contact.node_id() != pretended.node_id()), "a position without its proof");
}

#[test]
fn a_proof_under_way_vouches_for_its_own_position_only() {
    let (mut solo, _) = Solo::joined(32);
    let target = Point::from_bytes([0x5a; 32]);
    let sybil = stranger(&solo, 1);
    let pretended = claimed_near(&sybil, &target, 1e-3);
    solo.forged.push(Arc::clone(&pretended));
    // The proof of its true position is being evaluated while it answers from another one.
    solo.node.on_request(solo.now, sybil.peer(), sybil.addresses()[0], Some(Arc::clone(&sybil)), Request::Ping);
    solo.node.find(solo.now, target).expect("room");
    let mut under_way = Vec::new();
    while let Some(output) = solo.node.poll_output() {
        match output {
            Output::Query { id, to, .. } => {
                let contacts = if to.peer() == sybil.peer() { Vec::new() } else { vec![Arc::clone(&pretended)] };
                let response = Response::Nodes { contacts, token: None };
                solo.node.on_response(solo.now, id, to.addresses()[0], Some(to), response, Duration::from_millis(20));
            }
            Output::VerifyAdmission { contact } => under_way.push(contact),
            Output::Done(finished) => solo.finished.push(*finished),
            Output::Found { .. } | Output::Notice(_) => {}
        }
    }
    for contact in under_way {
        solo.node.on_admission(solo.now, &contact, contact == sybil);
    }
    solo.run(Duration::from_secs(20), &mut |to, _| nobody(to));
    let found = &solo.finished[0].outcome.closest;
    assert!(found.iter().all(|(contact, _)| contact.node_id() != pretended.node_id()));
}

#[test]
fn naming_an_honest_contact_at_a_wrong_address_does_not_cost_it_its_place() {
    let (mut solo, _) = Solo::joined(33);
    let mut victims = BTreeSet::new();
    for round in 1..=4_u8 {
        let target = Point::from_bytes([0x11; 32]);
        let victim = farthest(&solo, &target);
        victims.insert(*victim.peer());
        let moved = Contact::new(*victim.peer(), *victim.admission(), vec![address(990 + usize::from(round))]);
        let bait = claimed_near(&moved, &target, 1e-3);
        let id = solo.node.find(solo.now, target).expect("room");
        let mut failed = 0;
        while let Some(output) = solo.node.poll_output() {
            let Output::Query { id, to, .. } = output else { continue };
            if to.peer() == victim.peer() && to == bait {
                failed += 1;
                solo.node.on_failure(solo.now, id, QueryFailure::Unreachable);
                break;
            }
            let response = Response::Nodes { contacts: vec![Arc::clone(&bait)], token: None };
            solo.node.on_response(solo.now, id, to.addresses()[0], Some(to), response, Duration::from_millis(20));
        }
        assert_eq!(failed, 1, "the bait is taken");
        solo.node.cancel(id);
        while solo.node.poll_output().is_some() {}
    }
    assert_eq!(victims.len(), 1);
    assert!(victims.iter().all(|victim| solo.node.table().get(victim).is_some()), "slandered out of the table");
}

#[test]
fn who_asks_but_never_answers_loses_its_place() {
    let (mut solo, _) = Solo::joined(34);
    let mute = farthest(&solo, &Point::from_bytes([0; 32]));
    for _ in 0..3 {
        solo.node.query(Arc::clone(&mute), Request::Ping, Purpose::Liveness);
        solo.drain(&mut |to, _| if to.peer() == mute.peer() { None } else { nobody(to) });
        solo.node.on_request(solo.now, mute.peer(), mute.addresses()[0], Some(Arc::clone(&mute)), Request::Ping);
    }
    assert!(solo.node.table().get(mute.peer()).is_none(), "requests are no answers");
}

#[test]
fn a_flood_of_facts_is_not_passed_on_without_end() {
    let (mut solo, _) = Solo::joined(35);
    for n in 0..200_u8 {
        let owner = PeerId::from_bytes([n; 32]);
        let mut draft = RecordDraft {
            network: NetworkId::OPEN,
            owner,
            week: 0,
            seq: 1,
            not_before_ms: solo.now.unix_ms,
            not_after_ms: solo.now.unix_ms + 1000,
            payload: Payload::Peer(Endpoints::default()),
            heartbeat_anchor: [0; 32],
        };
        let one = Arc::new(sign(draft.clone()));
        draft.not_after_ms += 1;
        let proof = Equivocation::new(one, Arc::new(sign(draft))).expect("two truths");
        let herald = stranger(&solo, usize::from(n));
        let news = Request::Announce(Arc::new(Fact::Equivocation(proof)));
        let answer = solo.node.on_request(solo.now, herald.peer(), herald.addresses()[0], None, news);
        assert_eq!(answer, Response::Noted);
    }
    solo.run(Duration::from_secs(1), &mut |_, _| Some((None, Response::Noted)));
    let told = solo.asked.iter().filter(|(_, request, _)| matches!(request, Request::Announce(_))).count();
    assert!(told <= 64, "200 messages made {told} more");
    assert_eq!(solo.node.facts().len(), 200);
}

#[test]
fn strangers_do_not_use_up_the_proofs_our_own_lookups_need() {
    let (mut solo, _) = Solo::joined(36);
    solo.run(Duration::from_secs(10), &mut |to, _| nobody(to));
    solo.to_prove.clear();
    for n in 0..300 {
        let bogus = stranger(&solo, n);
        solo.forged.push(Arc::clone(&bogus));
        solo.node.on_request(solo.now, bogus.peer(), bogus.addresses()[0], Some(bogus.clone()), Request::Ping);
    }
    solo.run(Duration::from_millis(100), &mut |to, _| nobody(to));
    assert!(solo.to_prove.len() <= 48, "{} evaluations of 10 ms for strangers", solo.to_prove.len());
    let (target, honest) = (Point::from_bytes([0x5a; 32]), stranger(&solo, 1000));
    let mut answer = |to: &Arc<Contact>, _: &Request| -> Answer {
        let contacts = vec![Arc::clone(&honest)];
        Some((Some(Arc::clone(to)), Response::Nodes { contacts, token: None }))
    };
    solo.node.find(solo.now, target).expect("room");
    solo.run(Duration::from_secs(20), &mut answer);
    assert!(solo.finished[0].outcome.closest.iter().any(|(contact, _)| *contact == honest));
}

#[test]
fn a_contact_that_comes_and_goes_does_not_set_off_sweep_after_sweep() {
    let (mut solo, _) = Solo::joined(37);
    let flapping = farthest(&solo, &Point::from_bytes([0; 32]));
    solo.run(Duration::from_secs(120), &mut |to, _| nobody(to));
    solo.asked.clear();
    let peer = *flapping.peer();
    for _ in 0..30 {
        for _ in 0..3 {
            solo.node.query(Arc::clone(&flapping), Request::Ping, Purpose::Liveness);
            solo.drain(&mut |to, _| if *to.peer() == peer { None } else { nobody(to) });
        }
        solo.run(Duration::from_secs(120), &mut |to, request| {
            let pong = Response::Pong { observed: address(0) };
            if *request == Request::Ping { Some((Some(Arc::clone(to)), pong)) } else { nobody(to) }
        });
    }
    let searches = solo.asked.iter().filter(|(_, request, _)| matches!(request, Request::FindNode { .. })).count();
    assert!(searches <= 800, "{searches} questions in an hour because of one contact");
}

#[test]
fn five_networks_that_talk_much_do_not_outvote_twelve() {
    let (mut solo, _) = Solo::joined(38);
    let (truth, lie): (SocketAddr, SocketAddr) =
        ("20.1.1.1:1".parse().expect("an address"), "66.6.6.6:6".parse().expect("an address"));
    solo.node.sightings.clear();
    let say = |solo: &mut Solo, n: usize, observed| {
        let witness = stranger(solo, n);
        solo.node.query(witness, Request::Ping, Purpose::Announce);
        solo.drain(&mut |_, _| Some((None, Response::Pong { observed })));
    };
    for n in 0..12 {
        say(&mut solo, n, truth);
    }
    for n in 0..30 {
        say(&mut solo, 20 + n % 5, lie);
    }
    assert_eq!(solo.node.external_address(), Some(truth));
}

#[test]
fn made_up_positions_in_a_get_do_not_change_the_size_of_the_network() {
    let (mut solo, _) = Solo::joined(39);
    let before = solo.node.estimate().nodes().expect("joined");
    for round in 0..24_u8 {
        let target = Point::from_bytes([round.wrapping_mul(37); 32]);
        let dense = 1.0 / solo.node.estimate().nodes().expect("joined");
        let sybils: Vec<_> = (0..14_u8)
            .map(|n| claimed_near(&stranger(&solo, usize::from(n)), &target, dense * 1.4 * f64::from(n + 1)))
            .collect();
        let mut answer = |_: &Arc<Contact>, _: &Request| -> Answer {
            Some((None, Response::Nodes { contacts: sybils.clone(), token: None }))
        };
        solo.node.get(solo.now, target, 0).expect("room");
        solo.run(Duration::from_secs(21), &mut answer);
    }
    let after = solo.node.estimate().nodes().expect("still");
    assert!((0.5..2.0).contains(&(after / before)), "{before} nodes became {after}");
}

#[test]
fn a_contacts_new_address_counts_only_after_it_was_dialled() {
    let (mut solo, _) = Solo::joined(40);
    let old = farthest(&solo, &Point::from_bytes([0; 32]));
    let moved = Arc::new(Contact::new(*old.peer(), *old.admission(), vec![address(999)]));
    let known = |solo: &Solo| Arc::clone(solo.node.table().get(old.peer()).expect("known").contact());
    solo.node.query(Arc::clone(&old), Request::Ping, Purpose::Liveness);
    solo.drain(&mut |to, _| {
        let observed = address(0);
        (**to == *old).then(|| (Some(Arc::clone(&moved)), Response::Pong { observed }))
    });
    assert_eq!(known(&solo), old, "its word alone moves nothing");
    assert!(solo.asked.iter().any(|(to, _, dial)| *to == moved && *dial), "it is dialled there");
    solo.node.query(Arc::clone(&old), Request::Ping, Purpose::Liveness);
    solo.drain(&mut |_, _| Some((Some(Arc::clone(&moved)), Response::Pong { observed: address(0) })));
    assert_eq!(known(&solo), moved, "it answered there");
}
