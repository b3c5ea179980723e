// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bad days: nobody there yet, answers that never come, everything at once, and what is left after a long time.

use std::{sync::Arc, time::Duration};

use pqvpn_wire::dht::{Request, Response, Token};

use super::{
    solo::Solo,
    world::{World, sign},
};
use crate::{Output, counters::Attack, engine::OwnRecord};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_record_kept_before_anybody_was_known_is_found_soon_after_joining() {
    let mut world = World::joined(51, 24);
    let late = world.add();
    let (record, put) = world.publish(late, 1);
    assert_eq!(put.stored, 0);
    world.introduce(late, 0);
    world.run(Duration::from_secs(120));
    let keepers = (0..24).filter(|node| world.nodes[*node].storage().get(world.now, record.key()).is_some()).count();
    assert!(keepers >= 15, "{keepers} of 24, not only at the next time to republish");
}

#[test]
fn an_own_record_that_has_ended_is_let_go() {
    let mut world = World::new(52);
    let node = world.add();
    world.publish(node, 1);
    world.run(23 * HOUR);
    assert_eq!(world.nodes[node].status(world.now).own_records, 1);
    world.run(2 * HOUR);
    assert_eq!(world.nodes[node].status(world.now).own_records, 0);
}

#[test]
fn a_replica_that_came_later_is_as_fresh_as_the_others() {
    let mut world = World::joined(53, 24);
    let (record, _) = world.publish(3, 1);
    world.run(6 * HOUR);
    let late = world.add();
    world.introduce(late, 0);
    world.run(3 * HOUR);
    let kept = world.nodes[late].storage().get(world.now, record.key()).expect("stored again after 8 h");
    assert!(kept.heartbeat.is_some_and(|beat| beat.hour >= 8), "{:?}", kept.heartbeat);
}

#[test]
fn a_driver_that_forgets_a_query_or_a_proof_blocks_nothing_for_ever() {
    let (mut solo, mut world) = Solo::joined(54);
    let (record, _) = world.record(5, 1);
    solo.node.put(solo.now, record).expect("room");
    let silent = |request: &Request| matches!(request, Request::Store { .. });
    for _ in 0..400 {
        while let Some(output) = solo.node.poll_output() {
            match output {
                Output::Query { id, to, request, .. } if !silent(&request) => {
                    let response = Response::Nodes { contacts: Vec::new(), token: Some(Token([0; 16])) };
                    solo.node.on_response(
                        solo.now,
                        id,
                        to.addresses()[0],
                        Some(to),
                        response,
                        Duration::from_millis(20),
                    );
                }
                Output::Done(finished) => solo.finished.push(*finished),
                Output::Query { .. } | Output::VerifyAdmission { .. } | Output::Found { .. } | Output::Notice(_) => {}
            }
        }
        let due = solo.node.next_timeout().expect("upkeep");
        solo.now.unix_ms += u64::try_from(due.saturating_sub(solo.now.mono).as_millis()).expect("short");
        solo.now.mono = due.max(solo.now.mono);
        solo.node.on_timeout(solo.now);
    }
    let status = solo.node.status(solo.now);
    assert_eq!((solo.finished.len(), status.lookups), (1, 0), "the put has ended");
    assert!(status.queries <= 2, "{} queries open", status.queries);
}

#[test]
fn records_due_at_once_are_published_a_few_at_a_time() {
    let (mut solo, mut world) = Solo::joined(55);
    for seq in 1..=60_u64 {
        let (record, heartbeat_seed) = world.record(usize::try_from(seq % 23).expect("small"), seq);
        let mut draft = record.draft().clone();
        draft.week += u32::try_from(seq / 23).expect("small");
        let record = Arc::new(sign(draft));
        let due = solo.now.mono;
        let own = OwnRecord {
            record: Arc::clone(&record),
            heartbeat_seed,
            replicas: Vec::new(),
            publish_at: due,
            beat_at: due + HOUR,
            renewal_asked: false,
            early_at: due,
            refused: 0,
        };
        solo.node.own_records.insert(*record.key(), own);
    }
    solo.node.on_timeout(solo.now);
    let at_once = solo.node.status(solo.now).lookups;
    let mut stored = 0;
    solo.run(Duration::from_secs(1200), &mut |to, request| {
        let response = if matches!(request, Request::Store { .. }) {
            stored += 1;
            Response::Stored { until_ms: 0 }
        } else {
            Response::Nodes { contacts: Vec::new(), token: Some(Token([0; 16])) }
        };
        Some((Some(Arc::clone(to)), response))
    });
    let counters = solo.node.counters();
    assert_eq!((counters.get(Attack::LookupsFull), counters.get(Attack::QueriesFull)), (0, 0));
    assert!(at_once <= 8, "{at_once} puts at once");
    assert!(stored >= 60 * 20, "{stored} replicas");
}

#[test]
fn an_owner_does_not_contradict_itself() {
    let mut world = World::joined(56, 4);
    let (record, seed) = world.record(2, 5);
    assert!(world.nodes[2].keep(world.now, Arc::clone(&record), seed).is_some());
    let mut draft = record.draft().clone();
    draft.not_after_ms -= 1;
    assert!(world.nodes[2].keep(world.now, Arc::new(sign(draft.clone())), seed).is_none(), "two truths with one seq");
    draft.seq = 4;
    assert!(world.nodes[2].keep(world.now, Arc::new(sign(draft)), seed).is_none(), "an older one");
    assert!(world.nodes[2].keep(world.now, record, seed).is_some(), "the same again");
}

#[test]
fn a_record_kept_hours_after_it_was_signed_is_shown_alive_in_time() {
    let mut world = World::joined(57, 24);
    let (record, seed) = world.record(3, 1);
    world.run(3 * HOUR);
    let id = world.nodes[3].keep(world.now, Arc::clone(&record), seed).expect("room");
    assert!(world.finish(3, id).stored > 10);
    world.run(HOUR * 5 / 2);
    assert!(world.get(9, *record.key()).outcome.record.is_some(), "5.5 h old, and its owner is there");
}
