// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lie, one rule: each of these was seen to succeed with its rule taken out.

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Admission, Contact, Record, Refusal, Request, Response};

use super::world::{World, address, sign};
use crate::counters::Attack;

/// Makes every node but the reader and the owner answer a search with this record.
fn everybody_serves(world: &mut World, reader: usize, forged: &Arc<Record>) {
    for index in (0..world.nodes.len()).filter(|index| *index != reader) {
        let forged = Arc::clone(forged);
        world.liars.insert(
            index,
            Box::new(move |_, request, honest| match request {
                Request::FindValue { .. } => Response::Value {
                    record: Arc::clone(&forged),
                    heartbeat: None,
                    contacts: Vec::new(),
                    token: None,
                },
                _ => honest,
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
