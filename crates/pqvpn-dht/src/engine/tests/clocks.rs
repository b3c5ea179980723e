// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wall clocks that are set, and copies that are lost by it.

use std::{sync::Arc, time::Duration};

use pqvpn_wire::dht::{Point, Request, Response};

use super::world::{World, address};
use crate::{Now, Output, engine::Notice};

const DAY_MS: u64 = 24 * 3_600_000;

/// Everything that a node is about to do; what it has to say of own records.
fn renewals(world: &mut World, node: usize) -> Vec<Point> {
    let mut keys = Vec::new();
    while let Some(output) = world.nodes[node].poll_output() {
        if let Output::Notice(Notice::Renew { key }) = output {
            keys.push(key);
        }
    }
    keys
}

fn lose_all_copies(world: &mut World, owner: usize) {
    let peer = world.peer(owner);
    for node in &mut world.nodes {
        node.storage.remove_owner(&peer);
    }
}

fn keepers(world: &World, key: &Point) -> usize {
    world.nodes.iter().filter(|node| node.storage().get(world.now, key).is_some()).count()
}

#[test]
fn whoever_is_asked_for_its_own_record_has_it() {
    let mut world = World::joined(70, 2);
    let (record, _) = world.publish(0, 1);
    lose_all_copies(&mut world, 0);
    let (asker, contact) = (world.peer(1), Arc::clone(world.contact(1)));
    let mut ask = |now, want_seq| {
        let request = Request::FindValue { key: *record.key(), want_seq };
        world.nodes[0].on_request(now, &asker, address(1), Some(Arc::clone(&contact)), request)
    };
    let now = Now { mono: Duration::from_secs(1100), unix_ms: record.draft().not_before_ms + 60_000 };
    assert!(matches!(ask(now, 0), Response::Value { record: got, .. } if got.digest() == record.digest()));
    assert!(matches!(ask(now, 2), Response::Nodes { .. }), "an older one than wanted");
    let over = Now { unix_ms: record.draft().not_after_ms, ..now };
    assert!(matches!(ask(over, 0), Response::Nodes { .. }), "one that has ended");
    let early = Now { unix_ms: record.draft().not_before_ms - DAY_MS, ..now };
    assert!(matches!(ask(early, 0), Response::Nodes { .. }), "one of a time to come");
}

#[test]
fn a_replica_that_knows_nothing_of_a_record_gets_it_with_the_next_sign_of_life() {
    let mut world = World::joined(71, 24);
    let (record, _) = world.publish(3, 1);
    world.run(Duration::from_secs(600));
    lose_all_copies(&mut world, 3);
    world.run(Duration::from_secs(4 * 3600));
    let kept = keepers(&world, record.key());
    assert!(kept >= 15, "{kept} of 24, not only at the next time to republish");
}

#[test]
fn an_owner_whose_clock_was_set_stores_its_records_again() {
    let mut world = World::joined(72, 24);
    let (record, _) = world.publish(3, 1);
    lose_all_copies(&mut world, 3);
    let now = world.now;
    world.nodes[3].on_timeout(Now { unix_ms: now.unix_ms + 3_600_000, ..now });
    world.nodes[3].on_timeout(now);
    assert_eq!(renewals(&mut world, 3), [], "it is still as good as it was");
    world.run(Duration::from_secs(60));
    let kept = keepers(&world, record.key());
    assert!(kept >= 15, "{kept} of 24");
}

#[test]
fn the_owner_of_a_record_that_its_clock_made_untimely_is_asked_for_another() {
    let mut world = World::joined(73, 4);
    let (record, _) = world.publish(1, 1);
    let now = world.now;
    // A machine that slept for two days: the monotonic clock stood still.
    let mut slept = World::joined(73, 4);
    slept.publish(1, 1);
    slept.nodes[1].on_timeout(Now { unix_ms: now.unix_ms + 2 * DAY_MS, ..now });
    assert_eq!(renewals(&mut slept, 1), [*record.key()], "ended, and asked for once");
    // One signed while the clock was ahead.
    world.nodes[1].on_timeout(Now { unix_ms: now.unix_ms - DAY_MS, ..now });
    assert_eq!(renewals(&mut world, 1), [*record.key()], "of a time to come");
}
