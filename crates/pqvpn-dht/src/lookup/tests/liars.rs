// SPDX-License-Identifier: MIT OR Apache-2.0
//! Liars: they name nodes that do not exist, name real ones wrongly, or crowd around the target.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    network::{Network, Run},
    *,
};

fn target() -> Point {
    Point::from_bytes([0x5a; 32])
}

#[test]
fn a_node_named_at_a_wrong_address_by_one_path_is_still_found_by_another() {
    let config = LookupConfig { paths: 2, ..LookupConfig::default() };
    let mut lookup = lookup_of(Goal::Nodes, target(), vec![contact(1), contact(2)], config);
    let first = asks(&mut lookup, START);
    let honest = ladder(&target(), 9, 1).remove(8);
    let elsewhere = SocketAddr::from(([66, 6, 6, 6], 6));
    let wrong = Arc::new(Contact::new(*honest.peer(), *honest.admission(), vec![elsewhere]));
    lookup.on_reply(after(1), first[0].0.peer(), names(vec![Arc::clone(&wrong)]));
    assert_eq!(asks(&mut lookup, after(1)), [(wrong, Ask { target: target(), value: false })]);
    lookup.on_failure(after(2), honest.peer());
    lookup.on_reply(after(3), first[1].0.peer(), names(vec![Arc::clone(&honest)]));
    let again = asks(&mut lookup, after(3));
    assert_eq!(again[0].0, honest);
    lookup.on_reply(after(4), honest.peer(), names(vec![]));
    assert_eq!(lookup.finish().closest[0].0, honest);
}

#[test]
fn a_node_at_a_claimed_position_does_not_block_its_true_one() {
    let config = LookupConfig { paths: 2, ..LookupConfig::default() };
    let mut lookup = lookup_of(Goal::Nodes, target(), vec![contact(1), contact(2)], config);
    let first = asks(&mut lookup, START);
    let honest = ladder(&target(), 5, 1).remove(4);
    let mut claim = Admission { week: 9, ..*honest.admission() };
    while target().distance(Contact::new(*honest.peer(), claim, vec![]).node_id()).leading_zeros() < 8 {
        claim.week += 1;
    }
    let nearer = Arc::new(Contact::new(*honest.peer(), claim, honest.addresses().to_vec()));
    lookup.on_reply(after(1), first[0].0.peer(), names(vec![nearer]));
    assert_eq!(asks(&mut lookup, after(1)).len(), 1);
    lookup.on_failure(after(2), honest.peer());
    lookup.on_reply(after(3), first[1].0.peer(), names(vec![Arc::clone(&honest)]));
    assert_eq!(asks(&mut lookup, after(3))[0].0, honest);
}

#[test]
fn who_names_nodes_that_do_not_exist_is_soon_not_believed() {
    let config = LookupConfig { paths: 1, ..LookupConfig::default() };
    let mut lookup = lookup_of(Goal::Nodes, target(), vec![contact(1)], config);
    let liar = asks(&mut lookup, START).remove(0).0;
    let lies = near(&target(), &Distance::from_fraction(0.01), 20, 5);
    lookup.on_reply(after(1), liar.peer(), names(lies));
    let mut now = after(1);
    let mut wasted = 0;
    while lookup.next(now) != Step::Done {
        for (to, _) in asks(&mut lookup, now) {
            wasted += 1;
            lookup.on_failure(now, to.peer());
        }
        now.mono += Duration::from_millis(10);
    }
    assert!(lookup.finish().stats.asked <= 5, "{wasted} questions wasted");
}

#[test]
fn fabricated_contacts_cost_queries_but_hide_nobody() {
    let mut net = Network::new(600, 1);
    net.corrupt(0.3, 9);
    for seed in 0..12 {
        let record = record(seed, 1);
        for goal in [Goal::Value { want_seq: 0 }, Goal::Nodes] {
            let mut run = Run::new(*record.key(), goal, seed);
            run.record = Some(&record);
            run.holders = net.holders(&run.target);
            run.lies = near(&run.target, &net.radius(), 60, seed);
            let from = net.honest(seed);
            let outcome = net.run(from, &run);
            assert!(outcome.stats.elapsed < Duration::from_secs(5), "{:?}", outcome.stats);
            if goal == Goal::Nodes {
                let near = net.k_nearest(&run.target, 20);
                let honest = near.iter().map(|at| &net.nodes[*at]).filter(|node| !net.is_bad(node.peer()));
                let missing = honest.filter(|node| node.peer() != net.nodes[from].peer());
                let found: BTreeSet<_> = outcome.closest.iter().map(|(contact, _)| *contact.peer()).collect();
                let missing = missing.filter(|node| !found.contains(node.peer())).count();
                assert!(missing <= 1, "{missing} missing: {:?}", outcome.stats);
            } else {
                assert!(outcome.record.is_some(), "{:?}", outcome.stats);
            }
        }
    }
}

/// With 20, 45 and 100 Sybils nearer to the key than any honest node, the honest part of the region is still found
/// (security.md 7.3: at least one replica in 99 %).
#[test]
fn a_sweep_finds_the_honest_nodes_behind_a_crowd_of_sybils() {
    for (sybils, seeds) in [(20, 0..4), (45, 4..8), (100, 8..14)] {
        for seed in seeds {
            let record = record(seed, 1);
            let net = Network::with_sybils(400, seed, record.key(), sybils);
            let from = net.honest(seed);
            for goal in [Goal::Value { want_seq: 0 }, Goal::Region] {
                let mut run = Run::new(*record.key(), goal, seed);
                run.record = Some(&record);
                run.holders = net.holders(&run.target);
                let outcome = net.run(from, &run);
                assert!(outcome.stats.asked <= 110, "{:?}", outcome.stats);
                if goal == Goal::Region {
                    let reached = outcome.region.iter().filter(|(one, _)| run.holders.contains(one.peer())).count();
                    assert!(reached * 4 > run.holders.len(), "{reached} of {} at {sybils}", run.holders.len());
                } else {
                    assert!(outcome.record.is_some(), "{sybils} Sybils, seed {seed}: {:?}", outcome.stats);
                }
            }
        }
    }
}

#[test]
fn half_of_the_nodes_may_be_silent() {
    let net = Network::new(800, 1);
    let silent: BTreeSet<_> = net.nodes.iter().step_by(2).map(|node| *node.peer()).collect();
    for seed in 0..10 {
        let mut run = Run::new(*contact(seed + 9000).node_id(), Goal::Nodes, seed);
        run.silent = silent.clone();
        let outcome = net.run(1, &run);
        assert!(outcome.stats.elapsed < Duration::from_secs(8), "{:?}", outcome.stats);
        let live = net.k_nearest(&run.target, 60).into_iter().map(|at| *net.nodes[at].peer());
        let live: Vec<_> = live.filter(|peer| !silent.contains(peer) && peer != net.nodes[1].peer()).take(10).collect();
        let found: Vec<_> = outcome.closest.iter().map(|(one, _)| *one.peer()).collect();
        let missing = live.iter().filter(|peer| !found.contains(peer)).count();
        assert!(missing <= 1, "{missing} missing: {:?}", outcome.stats);
    }
}
