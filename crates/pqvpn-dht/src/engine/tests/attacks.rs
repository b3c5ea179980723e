// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lie, one rule: each of these was seen to succeed with its rule taken out.

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Admission, Contact, Distance, Equivocation, Fact, Point, Record, Refusal, Request, Response};

use super::world::{World, address, sign};
use crate::{Output, counters::Attack};

/// Makes every node but the reader and the owner answer a search with this record.
fn everybody_serves(world: &mut World, reader: usize, forged: &Arc<Record>) {
    for index in (0..world.nodes.len()).filter(|index| *index != reader) {
        let forged = Arc::clone(forged);
        world.liars.insert(
            index,
            Box::new(move |_, request, honest| {
                if !matches!(request, Request::FindValue { .. }) {
                    return honest;
                }
                Response::Value { record: Arc::clone(&forged), heartbeat: None, contacts: Vec::new(), token: None }
            }),
        );
    }
}

#[test]
fn a_record_that_its_owner_did_not_sign_is_never_accepted() {
    let mut world = World::joined(11, 24);
    let (record, _) = world.record(5, 9);
    let forged = Record::assemble(record.draft().clone(), record.owner_key().to_vec(), vec![0; 32]);
    everybody_serves(&mut world, 0, &Arc::new(forged));
    let got = world.get(0, *record.key());
    assert!(got.outcome.record.is_none());
    assert!(world.nodes[0].counters().get(Attack::PoisonedRecord) > 0);
}

#[test]
fn somebody_elses_valid_record_is_no_answer() {
    let mut world = World::joined(12, 24);
    let (other, _) = world.record(6, 1);
    let (asked, _) = world.record(5, 1);
    everybody_serves(&mut world, 0, &other);
    assert!(world.get(0, *asked.key()).outcome.record.is_none());
    assert!(world.nodes[0].counters().get(Attack::KeyMismatch) > 0);
}

#[test]
fn an_old_record_without_a_sign_of_life_is_not_accepted() {
    let mut world = World::joined(13, 24);
    let (old, _) = world.record(5, 1);
    everybody_serves(&mut world, 0, &old);
    assert!(world.get(0, *old.key()).outcome.record.is_some(), "as long as it is fresh");
    world.run(Duration::from_secs(6 * 3600));
    assert!(world.get(0, *old.key()).outcome.record.is_none(), "its owner beats for it no more");
    assert!(world.nodes[0].counters().get(Attack::StaleRecord) > 0);
}

#[test]
fn two_records_with_one_seq_convict_their_owner_everywhere() {
    let mut world = World::joined(14, 24);
    let (one, put) = world.publish(5, 7);
    assert!(put.stored > 10);
    let mut draft = one.draft().clone();
    draft.not_after_ms -= 1;
    let two = Arc::new(sign(draft));
    let id = world.nodes[5].put(world.now, two).expect("room");
    world.finish(5, id);
    world.run(Duration::from_secs(30));
    let owner = world.peer(5);
    let convinced = world.nodes.iter().filter(|node| node.facts().revoked(&owner)).count();
    assert!(convinced >= 20, "{convinced} of 24 know");
    assert!(world.get(0, *one.key()).outcome.record.is_none());
}

#[test]
fn a_position_without_proof_of_work_decides_nothing() {
    let mut world = World::joined(15, 24);
    world.proofs_hold = false;
    let intruder = world.add();
    world.introduce(intruder, 0);
    world.run(Duration::from_secs(30));
    let known = (0..24).filter(|index| world.nodes[*index].table().get(&world.peer(intruder)).is_some()).count();
    assert_eq!(known, 0);
    assert!(world.nodes[0].counters().get(Attack::AdmissionFalse) > 0);
}

#[test]
fn a_stranger_names_a_reflectors_victim_in_vain() {
    let mut world = World::joined(16, 24);
    let node = 0;
    let peer = PeerId::from_bytes([7; 32]);
    let at = "127.0.0.1:53".parse().expect("an address");
    let bait = Arc::new(Contact::new(peer, Admission { week: 0, nonce: 0, out: [0; 32] }, vec![at]));
    let before = world.queries;
    let now = world.now;
    let answer = world.nodes[node].on_request(now, &peer, address(200), Some(bait), Request::Ping);
    assert!(matches!(answer, Response::Pong { .. }));
    world.run(Duration::from_millis(100));
    assert_eq!(world.queries, before, "nobody is dialled");
}

#[test]
fn storing_needs_a_token_of_ones_own() {
    let mut world = World::joined(17, 24);
    let (record, _) = world.record(5, 1);
    let (one, other) = (world.peer(5), world.peer(6));
    let now = world.now;
    let target = *record.key();
    let Response::Nodes { token: Some(token), .. } =
        world.nodes[0].on_request(now, &one, address(5), None, Request::FindNode { target })
    else {
        panic!("a node that serves gives tokens");
    };
    let store = |record: &Arc<Record>| Request::Store { record: Arc::clone(record), token, cache: false };
    let stolen = world.nodes[0].on_request(now, &other, address(6), None, store(&record));
    assert_eq!(stolen, Response::Refused(Refusal::Token));
    let own = world.nodes[0].on_request(now, &one, address(5), None, store(&record));
    assert!(matches!(own, Response::Stored { .. }), "{own:?}");
}

#[test]
fn a_flood_is_told_to_wait_and_costs_others_nothing() {
    let mut world = World::joined(18, 24);
    let (flooder, other) = (world.peer(5), world.peer(6));
    let now = world.now;
    let mut busy = 0;
    for _ in 0..1000 {
        let answer = world.nodes[0].on_request(now, &flooder, address(5), None, Request::Ping);
        busy += u32::from(matches!(answer, Response::Busy { .. }));
    }
    assert!(busy > 900, "{busy} refused");
    let answer = world.nodes[0].on_request(now, &other, address(6), None, Request::Ping);
    assert!(matches!(answer, Response::Pong { .. }));
}

#[test]
fn nobody_gets_into_a_table_under_another_name() {
    let mut world = World::joined(19, 24);
    let stranger = PeerId::from_bytes([8; 32]);
    let victim = PeerId::from_bytes([9; 32]);
    let claimed = Arc::new(world.contact_of(victim, 60));
    let now = world.now;
    world.nodes[0].on_request(now, &stranger, address(60), Some(claimed), Request::Ping);
    world.run(Duration::from_secs(10));
    assert!(world.nodes[0].table().get(&victim).is_none());
    assert_eq!(world.nodes[0].counters().get(Attack::ForeignContact), 1);
}

#[test]
fn an_answerer_speaks_for_itself_only() {
    let mut world = World::joined(20, 24);
    let victim = PeerId::from_bytes([9; 32]);
    let claimed = Arc::new(world.contact_of(victim, 60));
    let now = world.now;
    let mut node = world.nodes.swap_remove(0);
    let id = node.find(now, *claimed.node_id()).expect("room");
    let mut answered = 0;
    while let Some(output) = node.poll_output() {
        if let Output::Query { id, .. } = output {
            let empty = Response::Nodes { contacts: Vec::new(), token: None };
            node.on_response(now, id, Some(Arc::clone(&claimed)), empty, Duration::from_millis(1));
            answered += 1;
        }
    }
    assert!(answered > 0 && node.table().get(&victim).is_none());
    assert_eq!(node.counters().get(Attack::ForeignContact), answered);
    node.cancel(id);
}

#[test]
fn a_key_far_away_is_not_kept_but_a_copy_on_a_path_is() {
    let mut world = World::joined(21, 24);
    // A network of a million, as far as this node knows.
    for part in 0..8_u8 {
        let target = Point::from_bytes([part << 5; 32]);
        let distances: Vec<_> = (1..=20).map(|n| Distance::from_fraction(f64::from(n) * 1e-6)).collect();
        world.nodes[0].estimate.add(&target, &distances);
    }
    let (record, _) = world.record(5, 1);
    let (now, owner, target) = (world.now, world.peer(5), *record.key());
    let Response::Nodes { token: Some(token), .. } =
        world.nodes[0].on_request(now, &owner, address(5), None, Request::FindNode { target })
    else {
        panic!("a node that serves gives tokens");
    };
    let mut store = |cache| {
        let request = Request::Store { record: Arc::clone(&record), token, cache };
        world.nodes[0].on_request(now, &owner, address(5), None, request)
    };
    assert_eq!(store(false), Response::Refused(Refusal::Far));
    assert!(matches!(store(true), Response::Stored { .. }));
}

#[test]
fn a_forged_record_is_not_stored_and_a_revoked_peer_is_not_served() {
    let mut world = World::joined(22, 24);
    let (record, _) = world.record(5, 1);
    let (now, owner, target) = (world.now, world.peer(5), *record.key());
    let forged = Arc::new(Record::assemble(record.draft().clone(), record.owner_key().to_vec(), vec![0; 32]));
    let Response::Nodes { token: Some(token), .. } =
        world.nodes[0].on_request(now, &owner, address(5), None, Request::FindNode { target })
    else {
        panic!("a node that serves gives tokens");
    };
    let request = Request::Store { record: forged, token, cache: false };
    let answer = world.nodes[0].on_request(now, &owner, address(5), None, request);
    assert_eq!(answer, Response::Refused(Refusal::Record));
    assert!(world.nodes[0].storage().get(now, &target).is_none());

    let mut draft = record.draft().clone();
    draft.not_after_ms -= 1;
    let proof = Equivocation::new(Arc::clone(&record), Arc::new(sign(draft))).expect("two truths with one seq");
    assert_eq!(world.nodes[0].announce(now, &Arc::new(Fact::Equivocation(proof))), Ok(true));
    let answer = world.nodes[0].on_request(now, &owner, address(5), None, Request::Ping);
    assert_eq!(answer, Response::Refused(Refusal::Revoked));
    world.run(Duration::from_secs(10));
    let told = world.nodes.iter().filter(|node| node.facts().revoked(&owner)).count();
    assert!(told >= 20, "{told} of 24 were told");
}
