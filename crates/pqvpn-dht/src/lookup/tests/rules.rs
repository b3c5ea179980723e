// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of the walk: who is asked, when, and what is ignored.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{network::Network, *};

fn target() -> Point {
    Point::from_bytes([0x5a; 32])
}

fn seeds(n: u64) -> Vec<Arc<Contact>> {
    (0..n).map(contact).collect()
}

#[test]
fn eight_paths_begin_with_one_query_each() {
    let mut lookup = lookup_of(Goal::Nodes, target(), seeds(24), LookupConfig::default());
    let asked = asks(&mut lookup, START);
    assert_eq!(asked.len(), 8);
    assert!(asked.iter().all(|(_, ask)| *ask == Ask { target: target(), value: false }));
    let different: BTreeSet<_> = asked.iter().map(|(to, _)| *to.peer()).collect();
    assert_eq!(different.len(), 8);
}

#[test]
fn no_node_is_asked_by_two_paths_and_no_path_asks_what_another_was_told() {
    let far: Vec<_> = ladder(&target(), 2, 1).into_iter().chain(ladder(&target(), 2, 2)).collect();
    let config = LookupConfig { paths: 2, ..LookupConfig::default() };
    let mut lookup = lookup_of(Goal::Value { want_seq: 0 }, target(), far, config);
    let first = asks(&mut lookup, START);
    assert_eq!(first.len(), 2);
    let told = ladder(&target(), 9, 3);
    let (one, other) = (told[8].clone(), told[7].clone());
    lookup.on_reply(after(10), first[0].0.peer(), names(vec![Arc::clone(&one), Arc::clone(&other)]));
    let second = asks(&mut lookup, after(10));
    assert_eq!(second.len(), 1, "only the path that was told: {second:?}");
    assert_eq!(second[0].0, one);
    let own = Arc::clone(&told[4]);
    lookup.on_reply(after(11), first[1].0.peer(), names(vec![one, Arc::clone(&own)]));
    let third = asks(&mut lookup, after(11));
    assert_eq!(third.len(), 1);
    assert_eq!(third[0].0, own, "neither whom the other path asked nor whom only the other was told of");
}

#[test]
fn for_a_path_that_leads_nowhere_another_begins() {
    let config = LookupConfig { paths: 2, k: 2, ..LookupConfig::default() };
    for seed in 0..20 {
        let seeds = (0..3).map(contact).collect();
        let mut lookup = Lookup::new(START, LookupId(1), target(), Goal::Nodes, seeds, config, seed);
        let first = asks(&mut lookup, START);
        assert_eq!(first.len(), 2);
        lookup.on_reply(after(1), first[1].0.peer(), names(ladder(&target(), 12, 1).split_off(9)));
        asks(&mut lookup, after(1));
        lookup.on_reply(after(2), first[0].0.peer(), names(vec![]));
        let next = asks(&mut lookup, after(2));
        let third = (0..3).map(contact).find(|seed| first.iter().all(|(to, _)| to != seed)).expect("one is left");
        assert!(next.iter().any(|(to, _)| *to == third), "whoever names nobody must not end a path");
    }
}

#[test]
fn new_paths_are_opened_when_the_value_is_missing_at_the_end_of_the_first() {
    let config = LookupConfig { paths: 1, k: 2, ..LookupConfig::default() };
    let seeds = ladder(&target(), 2, 1);
    let mut lookup = lookup_of(Goal::Value { want_seq: 0 }, target(), seeds.clone(), config);
    let crowd = ladder(&target(), 10, 2).split_off(8);
    let mut asked = BTreeSet::new();
    for time in 0..20 {
        for (to, _) in asks(&mut lookup, after(time)) {
            asked.insert(*to.peer());
            lookup.on_reply(after(time), to.peer(), names(crowd.clone()));
        }
    }
    assert_eq!(lookup.next(after(20)), Step::Done);
    assert!(seeds.iter().chain(&crowd).all(|one| asked.contains(one.peer())), "the crowd had named only itself");
    assert_eq!(lookup.finish().stats.paths, 2);
}

#[test]
fn a_liar_who_leads_on_for_ever_does_not_hold_up_the_others() {
    let config = LookupConfig { paths: 2, ..LookupConfig::default() };
    let rungs = near(&target(), &Distance::from_fraction(0.001), 60, 3);
    let mut rungs: Vec<_> = rungs.into_iter().collect();
    rungs.sort_by_key(|one| std::cmp::Reverse(target().distance(one.node_id())));
    let honest = ladder(&target(), 6, 4);
    let mut lookup = lookup_of(Goal::Value { want_seq: 0 }, target(), vec![contact(1), contact(2)], config);
    let mut asked = BTreeSet::new();
    let mut rungs = rungs.into_iter();
    for time in 0..20 {
        for (to, _) in asks(&mut lookup, after(time)) {
            let told = if asked.is_empty() { honest.clone() } else { rungs.next().into_iter().collect() };
            let told = if honest.contains(&to) { vec![] } else { told };
            asked.insert(*to.peer());
            lookup.on_reply(after(time), to.peer(), names(told));
        }
    }
    assert!(honest.iter().all(|one| asked.contains(one.peer())), "{}", asked.len());
}

#[test]
fn seeds_of_one_subnet_go_to_one_path() {
    let crowd = (0..10_u8).map(|n| network::contact_at(([20, 1, 1, n], 1).into(), u64::from(n)));
    let lone = network::contact_at(([20, 1, 2, 1], 1).into(), 99);
    let mut lookup = lookup_of(Goal::Nodes, target(), crowd.chain([lone]).collect(), LookupConfig::default());
    assert_eq!(asks(&mut lookup, START).len(), 2, "one path for the crowd, one for the other");
    let private = (0..10_u8).map(|n| network::contact_at(([10, 1, 1, n], 1).into(), u64::from(n)));
    let mut lookup = lookup_of(Goal::Nodes, target(), private.collect(), LookupConfig::default());
    assert_eq!(asks(&mut lookup, START).len(), 8, "a private network lives in one subnet");
}

#[test]
fn a_silent_node_costs_its_path_one_slot_and_no_more() {
    let config = LookupConfig { paths: 1, alpha: 3, ..LookupConfig::default() };
    let mut lookup = lookup_of(Goal::Nodes, target(), seeds(1), config);
    let first = asks(&mut lookup, START);
    lookup.on_reply(after(1), first[0].0.peer(), names(ladder(&target(), 12, 1)));
    assert_eq!(asks(&mut lookup, after(1)).len(), 1);
    assert_eq!(asks(&mut lookup, after(400)).len(), 0);
    assert_eq!(asks(&mut lookup, after(502)).len(), 1, "half a second later the next is asked as well");
    assert_eq!(asks(&mut lookup, after(900)).len(), 0);
    assert_eq!(asks(&mut lookup, after(1003)).len(), 1);
}

#[test]
fn a_late_answer_counts_until_its_time_is_over() {
    let config = LookupConfig { paths: 1, ..LookupConfig::default() };
    let mut lookup = lookup_of(Goal::Nodes, target(), seeds(2), config);
    let first = asks(&mut lookup, START);
    asks(&mut lookup, after(1500));
    lookup.on_reply(after(1600), first[0].0.peer(), names(vec![]));
    let outcome = lookup.finish();
    assert_eq!((outcome.stats.answered, outcome.stats.stray), (1, 0));
    assert_eq!(outcome.closest[0].0, first[0].0);

    let mut lookup = lookup_of(Goal::Nodes, target(), seeds(2), config);
    let first = asks(&mut lookup, START);
    asks(&mut lookup, after(6150));
    lookup.on_reply(after(6200), first[0].0.peer(), names(vec![]));
    let outcome = lookup.finish();
    assert_eq!((outcome.stats.answered, outcome.stats.stray), (0, 1));
}

#[test]
fn nobody_holds_a_lookup_beyond_its_deadline() {
    let net = Network::new(200, 1);
    for goal in [Goal::Nodes, Goal::Value { want_seq: 0 }, Goal::Region] {
        // All are silent: every query runs into its own time limit, on a clock that only `Wait` moves.
        let config = LookupConfig { region: Some(net.radius()), ..LookupConfig::default() };
        let mut lookup = lookup_of(goal, target(), net.seeds(0, &target(), 24), config);
        let mut now = START;
        loop {
            match lookup.next(now) {
                Step::Ask { timeout, .. } => assert!(now.mono + timeout <= START.mono + config.deadline),
                Step::Wait { until } => {
                    assert!(until > now.mono && until <= START.mono + config.deadline);
                    now.mono = until;
                }
                Step::Done => break,
            }
        }
        assert!(now.mono <= START.mono + config.deadline);
        assert!(lookup.finish().closest.is_empty());
    }
    // Answers that always name somebody new keep it busy: the deadline ends that too.
    let config = LookupConfig { k: usize::MAX, max_queries: usize::MAX, ..LookupConfig::default() };
    let mut lookup = lookup_of(Goal::Nodes, target(), seeds(8), config);
    let mut now = START;
    let mut number = 1 << 40;
    let mut pending = Vec::new();
    while let Some(step) = Some(lookup.next(now)).filter(|step| *step != Step::Done) {
        if let Step::Ask { to, .. } = step {
            pending.push(to);
            continue;
        }
        now.mono += Duration::from_millis(100);
        for to in pending.drain(..) {
            number += 1;
            lookup.on_reply(now, to.peer(), names(vec![contact(number)]));
        }
    }
    assert!(now.mono <= START.mono + config.deadline + Duration::from_millis(100));
}

#[test]
fn the_bound_on_queries_ends_a_lookup() {
    let net = Network::new(300, 1);
    let mut run = network::Run::new(target(), Goal::Region, 1);
    for bound in [5, 20, 33] {
        run.config.max_queries = bound;
        let outcome = net.run(0, &run);
        assert_eq!(usize::try_from(outcome.stats.asked), Ok(bound));
        assert!(outcome.stats.cut);
    }
}

#[test]
fn floods_of_contacts_and_replies_are_ignored() {
    let own = contact(500);
    let config = LookupConfig { paths: 2, own: Some(*own.peer()), ..LookupConfig::default() };
    let mut lookup = lookup_of(Goal::Nodes, target(), seeds(2), config);
    let first = asks(&mut lookup, START);
    let (to, other) = (first[0].0.peer(), first[1].0.peer());
    let mut flood: Vec<_> = (1000..1019).map(contact).collect();
    flood.push(Arc::clone(&own));
    flood.extend((1019..5000).map(contact));
    lookup.on_reply(after(1), to, names(flood));
    assert_eq!(lookup.stats.surplus, 3982, "all beyond 20, and ourselves among the 20");
    lookup.on_reply(after(1), to, names((6000..6010).map(contact).collect()));
    lookup.on_reply(after(1), contact(77).peer(), names((6000..6010).map(contact).collect()));
    lookup.on_failure(after(1), contact(78).peer());
    lookup.on_failure(after(2), other);
    lookup.on_reply(after(3), other, names((6000..6010).map(contact).collect()));
    assert_eq!(lookup.stats.stray, 4, "answered already, never asked twice over, failed already");
    let strangers: BTreeSet<_> = (6000..6010).map(|seed| *contact(seed).peer()).collect();
    let mut now = after(3);
    for _ in 0..200 {
        for (to, _) in asks(&mut lookup, now) {
            assert!(!strangers.contains(to.peer()), "contacts of an answer nobody waited for");
            assert_ne!(to.peer(), own.peer(), "ourselves");
            lookup.on_reply(now, to.peer(), names(vec![Arc::clone(&to), Arc::clone(&to), Arc::clone(&own)]));
        }
        now.mono += Duration::from_millis(10);
    }
    assert_eq!(lookup.next(now), Step::Done);
    let outcome = lookup.finish();
    assert_eq!(outcome.closest.len(), 20);
    assert!(
        outcome
            .closest
            .windows(2)
            .all(|pair| { target().distance(pair[0].0.node_id()) < target().distance(pair[1].0.node_id()) })
    );
    assert!(!outcome.stats.cut);
}

#[test]
fn without_seeds_it_is_over_at_once() {
    for goal in [Goal::Nodes, Goal::Value { want_seq: 0 }, Goal::Region] {
        let config = LookupConfig { region: Some(Distance::MAX), ..LookupConfig::default() };
        let mut lookup = lookup_of(goal, target(), vec![], config);
        assert_eq!(lookup.next(START), Step::Done);
        assert_eq!(lookup.finish().stats.asked, 0);
    }
}

#[test]
fn two_nodes_find_each_other_and_twenty_find_all() {
    for n in [2, 20] {
        let net = Network::new(n, 3);
        let outcome = net.run(0, &network::Run::new(target(), Goal::Nodes, 1));
        assert_eq!(outcome.closest.len(), n - 1);
        assert!(outcome.stats.rounds <= 4);
    }
}

#[test]
fn the_same_seed_makes_the_same_lookup() {
    let net = Network::new(500, 1);
    let mut run = network::Run::new(target(), Goal::Region, 5);
    run.jitter = 0.8;
    let (one, two) = (net.run(3, &run), net.run(3, &run));
    assert_eq!(one.stats, two.stats);
    assert_eq!(one.region, two.region);
}

#[derive(Debug, Clone)]
enum Event {
    Reply { who: usize, contacts: Vec<u64> },
    Fail { who: usize },
    Stray { who: u64, contacts: Vec<u64> },
    Pass { ms: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let contacts = || prop::collection::vec(0..400_u64, 0..30);
    prop_oneof![
        6 => (any::<usize>(), contacts()).prop_map(|(who, contacts)| Event::Reply { who, contacts }),
        2 => any::<usize>().prop_map(|who| Event::Fail { who }),
        1 => (0..400_u64, contacts()).prop_map(|(who, contacts)| Event::Stray { who, contacts }),
        2 => (1..700_u64).prop_map(|ms| Event::Pass { ms }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_answers_come_each_peer_is_asked_once_and_it_ends(
        events in prop::collection::vec(event(), 0..200),
        goal in prop_oneof![Just(Goal::Nodes), Just(Goal::Value { want_seq: 1 }), Just(Goal::Region)],
        region in prop_oneof![Just(None), Just(Some(Distance::ZERO)), Just(Some(Distance::from_fraction(0.1)))],
    ) {
        let config = LookupConfig { region, k: 5, ..LookupConfig::default() };
        let mut lookup = lookup_of(goal, target(), seeds(20), config);
        let mut now = START;
        let mut asked: BTreeMap<PeerId, u32> = BTreeMap::new();
        let mut pending: Vec<PeerId> = Vec::new();
        for event in events {
            for (to, ask) in asks(&mut lookup, now) {
                // A sweep may ask once more, about a point.
                let probe = !ask.value && ask.target != target();
                if !probe {
                    let times = asked.entry(*to.peer()).or_default();
                    *times += 1;
                    prop_assert_eq!(*times, 1);
                }
                prop_assert!(!pending.contains(to.peer()), "one question at a time");
                pending.push(*to.peer());
            }
            match event {
                Event::Reply { who, contacts } if !pending.is_empty() => {
                    let peer = pending.remove(who % pending.len());
                    lookup.on_reply(now, &peer, names(contacts.into_iter().map(contact).collect()));
                }
                Event::Fail { who } if !pending.is_empty() => {
                    let peer = pending.remove(who % pending.len());
                    lookup.on_failure(now, &peer);
                }
                Event::Stray { who, contacts } if !pending.contains(contact(who).peer()) => {
                    lookup.on_reply(now, contact(who).peer(), names(contacts.into_iter().map(contact).collect()));
                }
                Event::Pass { ms } => {
                    now.mono += Duration::from_millis(ms);
                    // Whoever was silent beyond the time limit may be asked something else.
                    asks(&mut lookup, now);
                    if ms > 500 {
                        break;
                    }
                }
                Event::Reply { .. } | Event::Fail { .. } | Event::Stray { .. } => {}
            }
        }
        let mut steps = 0;
        loop {
            match lookup.next(now) {
                Step::Ask { .. } => {}
                Step::Wait { until } => now.mono = until,
                Step::Done => break,
            }
            steps += 1;
            prop_assert!(steps < 2000);
        }
        let outcome = lookup.finish();
        prop_assert!(outcome.closest.len() <= 5);
        prop_assert!(outcome.stats.elapsed <= config.deadline + Duration::from_millis(700));
    }
}
