// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes wrong on the way: paths that fail for a moment, networks that change, events that are lost, peers that lie.

use super::*;

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, last], 41641))
}

fn actions(paths: &mut Paths) -> Vec<Action> {
    std::iter::from_fn(|| paths.poll_action()).collect()
}

fn links(paths: &mut Paths) -> Vec<SocketAddr> {
    actions(paths)
        .into_iter()
        .filter_map(|action| if let Action::Link(at) = action { Some(at) } else { None })
        .collect()
}

/// The newest check sent to an address, of those not looked at yet.
fn check_to(paths: &mut Paths, to: SocketAddr) -> Option<u64> {
    let id = |action| if let Action::Check { id, to: sent } = action { (sent == to).then_some(id) } else { None };
    actions(paths).into_iter().filter_map(id).next_back()
}

/// A session by a relay that is direct now: the address was told, checked and has answered.
fn direct(start: Instant, chooses: bool) -> Paths {
    let mut paths = Paths::new(chooses, &[7; 32]);
    paths.on_session(start, way());
    assert!(paths.on_told(start, told(true), &[at(1)]));
    let id = check_to(&mut paths, at(1)).unwrap();
    assert!(paths.on_ack(start + 20 * MS, id, at(1), start + 20 * MS).is_some());
    paths.on_path(start + 20 * MS, at(1));
    paths
}

/// Lets time pass from one deadline to the next; fails if one is over already.
fn pass(paths: &mut Paths, mut now: Instant, time: Duration) -> Instant {
    let until = now + time;
    while let Some(next) = paths.poll_timeout().filter(|next| *next <= until) {
        now = now.max(next);
        // What is done may be followed by something at once.
        (0..2).for_each(|_| paths.handle_timeout(now));
        assert!(paths.poll_timeout().is_none_or(|next| next > now), "due again and again");
    }
    until
}

/// Found by the simulation of whole nodes: the event of a move may stand in the queue when the session ends.
#[test]
fn a_move_that_is_told_of_after_the_session_has_gone_begins_nothing() {
    let start = Instant::now();
    let mut paths = direct(start, true);
    paths.on_gone();
    actions(&mut paths);
    paths.on_path(start + 40 * MS, at(2));
    assert!(paths.is_gone() && paths.poll_timeout().is_none());
    paths.on_suspect(start + 50 * MS);
    assert_eq!(actions(&mut paths), [], "no relay is asked for");
}

#[test]
fn a_path_in_use_that_answers_no_check_keeps_nobody_awake() {
    let start = Instant::now();
    for calms in [true, false] {
        let mut paths = direct(start, true);
        let mut now = pass(&mut paths, start + 20 * MS, Duration::from_secs(10));
        paths.on_suspect(now);
        now = pass(&mut paths, now, Duration::from_millis(2500));
        if calms {
            paths.on_alive(at(1));
        }
        pass(&mut paths, now, Duration::from_secs(10));
        assert_eq!(paths.current, Some(at(1)));
    }
    // A member chose an address of its own, from which it answers nothing.
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(start, way());
    paths.on_heard(start, at(2));
    paths.on_path(start, at(2));
    pass(&mut paths, start, Duration::from_secs(10));
    assert_eq!(paths.current, Some(at(2)));
}

#[test]
fn a_move_that_nobody_told_of_is_noticed_and_one_under_way_is_not() {
    let start = Instant::now();
    let mut paths = direct(start, true);
    let later = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(paths.on_seen(later(1), at(1)), None);
    assert_eq!(paths.on_seen(later(2), way()), None, "the event may be on its way");
    assert_eq!(paths.on_seen(later(3), at(1)), None);
    assert_eq!(paths.on_seen(later(4), way()), None, "another move");
    assert_eq!(paths.on_seen(later(6), way()), Some(at(1)));
    paths.on_path(later(6), way());
    assert_eq!(paths.on_seen(later(7), way()), None);
    paths.handle_timeout(later(7));
    assert!(
        actions(&mut paths).iter().any(|action| matches!(action, Action::Tell { .. })),
        "direct ways are tried again"
    );
    paths.on_gone();
    assert_eq!(paths.on_seen(later(60), at(9)), None, "nobody has a path");
}

#[test]
fn in_another_network_a_relayed_peer_is_tried_directly_at_once() {
    for suspects in [false, true] {
        let start = Instant::now();
        let mut paths = Paths::new(true, &[7; 32]);
        paths.on_session(start, way());
        let mut now = pass(&mut paths, start, Duration::from_secs(3600));
        if suspects {
            paths.on_suspect(now);
            now += MS;
        }
        while paths.poll_action().is_some() {}
        paths.on_network(now);
        paths.handle_timeout(now);
        assert!(actions(&mut paths).iter().any(|action| matches!(action, Action::Tell { answer: false, .. })));
        pass(&mut paths, now, Duration::from_secs(2));
        let told = actions(&mut paths).iter().filter(|action| matches!(action, Action::Tell { .. })).count();
        assert_eq!(told, 1, "again, when members have said where they see us");
    }
}

#[test]
fn while_a_path_is_suspect_links_by_each_way_are_made_less_and_less_often_and_by_few_ways() {
    let start = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(start, at(1));
    paths.on_suspect(start);
    let (mut now, mut made) = (start, Vec::new());
    for turn in 0..50 {
        for id in [7, 8] {
            paths.on_way(now, WayId(id).address());
        }
        now = pass(&mut paths, now, ASK_AGAIN);
        made.extend(links(&mut paths).into_iter().map(|_| turn));
    }
    // A dial that was lost in a peer that was starting is made up for soon; 400 ms a turn.
    assert_eq!(made, [0, 2, 5, 10, 20, 40]);
    for id in 0..100 {
        paths.on_way(now, WayId(id).address());
        now = pass(&mut paths, now, Duration::from_millis(100));
    }
    assert!(links(&mut paths).len() <= MAX_BESIDE);
}

#[test]
fn a_path_that_answers_again_still_gets_its_link() {
    let start = Instant::now();
    let mut paths = direct(start, true);
    paths.on_suspect(start + 50 * MS);
    paths.on_alive(at(1));
    pass(&mut paths, start + 50 * MS, Duration::from_secs(1));
    assert_eq!(links(&mut paths), [at(1)], "the one by the relay ends with it");
    // Where the link is there already, none is made beside it.
    paths.on_session(start + Duration::from_secs(1), at(1));
    let now = start + Duration::from_secs(2);
    paths.on_suspect(now);
    paths.on_way(now, way());
    paths.on_alive(at(1));
    pass(&mut paths, now, Duration::from_secs(1));
    assert_eq!(links(&mut paths), []);
}

#[test]
fn who_sees_the_ids_of_its_own_checks_answers_none_that_went_elsewhere() {
    let (start, own, victim) = (Instant::now(), at(1), at(9));
    let mut paths = Paths::new(true, &[7; 32]);
    paths.on_session(start, way());
    assert!(paths.on_told(start, told(true), &[own, victim]));
    let seen = check_to(&mut paths, own).unwrap();
    for near in (1..3000).flat_map(|n| [seen.wrapping_add(n), seen.wrapping_sub(n)]) {
        assert_eq!(paths.on_ack(start + MS, near, victim, start + MS), None);
    }
    assert_eq!(actions(&mut paths).iter().find(|action| matches!(action, Action::Use(_))), None);
    // Nor any of those by which ports are guessed, whatever the port.
    let later = start + Duration::from_secs(5);
    paths.on_told(later, told(true), &[own, victim]);
    paths.aim = Some((victim, true));
    let seen = check_to(&mut paths, own).unwrap();
    assert!(paths.guess(later, false, 7));
    let guessed =
        |action| if let Action::Check { to, .. } = action { (to.ip() == victim.ip()).then_some(to) } else { None };
    let ports: Vec<_> = std::iter::from_fn(|| paths.poll_action()).filter_map(guessed).collect();
    assert!(ports.len() >= 16);
    for near in (1..200).map(|n| seen.wrapping_add(n)) {
        assert!(ports.iter().all(|port| paths.on_ack(later + MS, near, *port, later + MS).is_none()));
    }
    assert_eq!(paths.current, Some(way()));
}

#[test]
fn a_peer_that_names_addresses_all_the_time_is_not_listened_to() {
    let start = Instant::now();
    let mut paths = Paths::new(true, &[7; 32]);
    assert!(paths.has_told_enough(start), "without a session nothing is to be tried");
    paths.on_session(start, way());
    for n in 0..1000u32 {
        let now = start + MS * n;
        let enough = paths.has_told_enough(now);
        assert_eq!(enough, n > TOLD_BURST);
        assert_eq!(paths.on_told(now, told(false), &[at(1)]), !enough, "{n}");
    }
    assert!(!paths.has_told_enough(start + TOLD_EVERY * 2));
}

#[test]
fn of_two_ends_whose_path_is_dead_only_one_chooses() {
    let (start, ways) = (Instant::now(), [7, 8].map(|id| WayId(id).address()));
    for silent in [false, true] {
        let uses = [true, false].map(|chooses| {
            let mut paths = Paths::new(chooses, &[7; 32]);
            paths.on_session(start, at(1));
            paths.on_suspect(start);
            ways.iter().for_each(|way| paths.on_way(start, *way));
            let mut checks: Vec<_> = actions(&mut paths)
                .into_iter()
                .filter_map(|action| if let Action::Check { id, to } = action { Some((id, to)) } else { None })
                .collect();
            // Both answer in the same flight, and not in the same order to both.
            checks.sort_by_key(|(_, to)| (*to == ways[0]) != chooses);
            for (id, to) in checks {
                assert!(paths.on_ack(start + 60 * MS, id, to, start + 60 * MS).is_some());
            }
            if !chooses && !silent {
                paths.on_path(start + 120 * MS, ways[0]);
            }
            pass(&mut paths, start + 120 * MS, Duration::from_secs(3));
            let used = actions(&mut paths).into_iter();
            used.filter_map(|action| if let Action::Use(at) = action { Some(at) } else { None }).collect::<Vec<_>>()
        });
        let found = if silent { vec![ways[0]] } else { Vec::new() };
        assert_eq!(uses, [vec![ways[0]], found]);
    }
}
