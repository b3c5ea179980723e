// SPDX-License-Identifier: MIT OR Apache-2.0
//! Honest nodes: joining, finding, keeping, parting and meeting again.

use std::{collections::BTreeSet, time::Duration};

use pqvpn_wire::dht::{Request, Response};

use super::{solo::Solo, world::World};
use crate::votes::QUORUM;

#[test]
fn everybody_finds_the_record_of_everybody() {
    let mut world = World::joined(1, 40);
    let records: Vec<_> = (0..40).map(|owner| world.publish(owner, 1)).collect();
    for (owner, (record, put)) in records.iter().enumerate() {
        assert!(put.stored >= 20, "{} replicas of {owner}'s record", put.stored);
        for reader in [(owner + 1) % 40, (owner + 17) % 40] {
            let got = world.get(reader, *record.key());
            let got = got.outcome.record.expect("the record is found");
            assert_eq!(got.digest(), record.digest());
        }
    }
}

#[test]
fn a_first_node_without_any_bootstrap_is_one_that_others_can_join() {
    let mut world = World::new(2);
    let first = world.add();
    world.run(Duration::from_secs(600));
    assert_eq!((world.queries, world.nodes[first].next_timeout()), (0, None), "nobody to ask, nothing to do");
    let second = world.add();
    world.introduce(second, first);
    world.run(Duration::from_secs(10));
    assert_eq!(world.nodes[first].table().len(), 1);
    assert_eq!(world.nodes[second].table().len(), 1);
}

#[test]
fn an_idle_network_is_nearly_silent() {
    let mut world = World::joined(3, 40);
    world.run(Duration::from_secs(600));
    let before = world.queries;
    world.run(Duration::from_secs(3600));
    let per_node = (world.queries - before) / 40;
    // One round trip of two signed messages is 10 kB at each end: 100 B/s are 36 of them an hour.
    assert!(per_node <= 18, "{per_node} requests a node and hour");
}

#[test]
fn a_newer_record_replaces_the_old_one_everywhere() {
    let mut world = World::joined(4, 30);
    let (old, _) = world.publish(3, 1);
    world.run(Duration::from_secs(60));
    let (new, put) = world.publish(3, 2);
    assert!(put.stored >= 15);
    for reader in [0, 9, 29] {
        let got = world.get(reader, *old.key()).outcome.record.expect("found");
        assert_eq!(got.seq(), new.seq());
    }
}

#[test]
fn after_a_change_of_the_network_enough_for_a_vote_are_asked_at_once() {
    let (mut solo, _world) = Solo::joined(5);
    solo.drain(&mut |to, _| Some((Some(to.clone()), Response::Pong { observed: to.addresses()[0] })));
    solo.asked.clear();
    solo.node.on_network(solo.now);
    solo.drain(&mut |to, _| Some((Some(to.clone()), Response::Pong { observed: to.addresses()[0] })));
    let pinged: BTreeSet<_> =
        solo.asked.iter().filter(|(_, request, _)| *request == Request::Ping).map(|(to, ..)| *to.peer()).collect();
    assert!(pinged.len() >= 2 * QUORUM, "{}", pinged.len());
}

#[test]
fn halves_that_were_apart_find_each_other_again() {
    let mut world = World::joined(5, 40);
    let records: Vec<_> = (0..40).map(|owner| world.publish(owner, 1).0).collect();
    for index in 0..40 {
        world.groups[index] = u8::from(index % 2 == 1);
    }
    // Lookups during the parting make nodes forget whom they cannot reach.
    for index in 0..40 {
        world.get(index, *records[(index + 1) % 40].key());
    }
    world.run(Duration::from_secs(600));
    world.groups.fill(0);
    world.run(Duration::from_secs(60));
    for index in 0..40 {
        let got = world.get(index, *records[(index + 1) % 40].key());
        assert!(got.outcome.record.is_some(), "{index} finds its neighbour");
    }
}

#[test]
fn dead_nodes_leave_the_table_and_hold_up_nobody() {
    let mut world = World::joined(6, 40);
    let (record, _) = world.publish(2, 1);
    world.dead.extend((20..40).filter(|index| *index != 2));
    let begun = world.now.mono;
    let id = world.nodes[0].get(world.now, *record.key(), 0).expect("room");
    let got = world.finish(0, id);
    assert!(got.outcome.record.is_some());
    assert!(got.outcome.stats.elapsed <= Duration::from_secs(10), "{:?} since {begun:?}", got.outcome.stats.elapsed);
}
