// SPDX-License-Identifier: MIT OR Apache-2.0
//! One peer's life on a virtual clock.

use super::*;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn actions(life: &mut PeerLife) -> Vec<Action> {
    std::iter::from_fn(|| life.poll_action()).collect()
}

fn up(now: Instant) -> PeerLife {
    let mut life = PeerLife::new(None, 0);
    life.want(now);
    assert_eq!(actions(&mut life), [Action::Dial]);
    life.on_session_up(now);
    assert_eq!(actions(&mut life), [Action::Probe(0)]);
    life.on_probe_ack(0, now + MS);
    life
}

/// Runs the machine for `span`; `heard` tells what the data plane saw at each step. Returns (offset, action).
fn run(
    life: &mut PeerLife,
    start: Instant,
    span: Duration,
    mut seen: impl FnMut(Instant) -> Activity,
    answer: bool,
) -> Vec<(Duration, Action)> {
    let mut out = Vec::new();
    let mut now = start;
    while now - start < span {
        life.handle_timeout(now, seen(now));
        for action in actions(life) {
            if let (Action::Probe(id), true) = (action, answer) {
                life.on_probe_ack(id, now + MS);
            }
            out.push((now - start, action));
        }
        now = life.poll_timeout(now).unwrap_or(now + S).max(now + 10 * MS);
    }
    out
}

#[test]
fn a_peer_nobody_wants_does_nothing() {
    let now = Instant::now();
    let mut life = PeerLife::new(None, 0);
    assert_eq!(life.poll_timeout(now), None);
    life.handle_timeout(now + 100 * S, Activity::default());
    assert_eq!(actions(&mut life), []);
}

#[test]
fn an_unused_session_is_silent_and_then_closed() {
    let now = Instant::now();
    let mut life = up(now);
    let log = run(&mut life, now + S, 400 * S, |_| Activity::default(), true);
    let probes = log.iter().filter(|(_, action)| matches!(action, Action::Probe(_))).count();
    assert!(probes <= 2, "one refresh while it still counts as in use: {log:?}");
    let closed: Vec<_> = log.iter().filter(|(_, action)| *action == Action::CloseIdle).collect();
    assert_eq!(closed.len(), 1);
    assert!(closed[0].0 >= 178 * S && closed[0].0 <= 182 * S, "{closed:?}");
    assert!(!life.is_up());
}

#[test]
fn a_session_that_takes_the_place_of_another_ends_when_that_would_have_unless_it_is_used() {
    let now = Instant::now();
    for (used, kept_alive) in [(false, false), (true, false), (false, true)] {
        let mut life = up(now);
        let renewed = now + 120 * S;
        let mut log = run(&mut life, now + S, 119 * S, |_| Activity::default(), true);
        life.on_session_up(renewed);
        let seen = |at: Instant| Activity {
            // The probe of the new session and the search for its size.
            last_rx: Some(if kept_alive { at.max(renewed) } else { at.clamp(renewed, renewed + 8 * S) }),
            last_data_tx: used.then_some(renewed - S),
            ..Activity::default()
        };
        log.extend(run(&mut life, renewed, 200 * S, seen, true).into_iter().map(|(at, what)| (at + 120 * S, what)));
        let closed = log.iter().find(|(_, action)| *action == Action::CloseIdle).map(|(at, _)| *at);
        match (used, kept_alive) {
            (_, true) => assert_eq!(closed, None),
            (true, _) => assert!(closed.is_some_and(|at| (298 * S..=301 * S).contains(&at)), "{closed:?}"),
            (false, _) => assert!(closed.is_some_and(|at| (178 * S..=182 * S).contains(&at)), "{closed:?}"),
        }
    }
}

#[test]
fn a_session_in_use_stays_verified() {
    let now = Instant::now();
    let mut life = up(now);
    let mut worst = Duration::ZERO;
    let mut at = now;
    while at < now + 300 * S {
        at += 500 * MS;
        let seen = Activity { last_rx: Some(at), last_tx: Some(at), last_data_rx: Some(at), last_data_tx: Some(at) };
        life.handle_timeout(at, seen);
        worst = worst.max(life.verified_age(at).expect("was verified"));
        for action in actions(&mut life) {
            let Action::Probe(id) = action else { panic!("unexpected {action:?}") };
            life.on_probe_ack(id, at + MS);
        }
    }
    assert!(worst < VERIFIED_WITHIN, "{worst:?}");
}

#[test]
fn a_silent_peer_is_found_dead_within_four_seconds_and_dialed_again() {
    let now = Instant::now();
    let mut life = up(now);
    let died = now + 10 * S;
    let log = run(
        &mut life,
        now + S,
        60 * S,
        |at| Activity {
            last_rx: Some(at.min(died)),
            last_tx: Some(at),
            last_data_rx: Some(at.min(died)),
            last_data_tx: Some(at),
        },
        false,
    );
    let dead = log.iter().find(|(_, action)| *action == Action::Dead).expect("found dead");
    assert!(dead.0 + S <= 10 * S + 4500 * MS, "{log:?}");
    assert!(log.iter().any(|(at, action)| *action == Action::Dial && *at == dead.0), "{log:?}");
}

#[test]
fn probes_of_one_moment_are_one_sign_of_death() {
    let now = Instant::now();
    for heard in [None, Some(now - S)] {
        let mut life = PeerLife::new(None, 0);
        life.on_session_up(now);
        // Pings that waited for the session.
        for _ping in 0..PROBES_UNTIL_DEAD {
            life.probe(now);
        }
        let seen = Activity { last_rx: heard, ..Activity::default() };
        life.handle_timeout(now + MS, seen);
        assert!(!life.is_suspicious(), "nothing could be heard yet");
        life.handle_timeout(now + PROBE_RETRY, seen);
        let done = actions(&mut life);
        assert!(life.is_up() && !done.contains(&Action::Dead), "{done:?}");
        // Silence goes on: it is found dead when any other would be, though more pings come.
        let mut at = now + PROBE_RETRY;
        while life.is_up() {
            at += 100 * MS;
            assert!(at <= now + 4500 * MS, "never dead");
            life.probe(at);
            life.handle_timeout(at, seen);
        }
        assert!(at >= now + PROBE_RETRY * 7, "{:?}", at - now);
    }
}

#[test]
fn what_was_decided_of_a_dead_session_does_not_end_the_next_one() {
    let now = Instant::now();
    let mut life = up(now);
    let silent = Activity { last_tx: Some(now + 60 * S), last_data_tx: Some(now + 60 * S), ..Activity::default() };
    let mut at = now;
    // Nobody has looked at what is to be done yet when the peer has made another session.
    while !life.actions.contains(&Action::Dead) {
        at += 100 * MS;
        assert!(at < now + 60 * S, "never dead");
        life.handle_timeout(at, silent);
    }
    life.on_session_up(at);
    let left: Vec<Action> = std::iter::from_fn(|| life.poll_action()).collect();
    assert!(life.is_up() && left.iter().all(|action| matches!(action, Action::Probe(_))), "{left:?}");
}

#[test]
fn a_path_that_falls_silent_is_suspicious_soon_and_one_that_is_heard_never() {
    for (offset, falls_silent) in (0..30).flat_map(|step| [(step * 10 * MS, true), (step * 10 * MS, false)]) {
        let now = Instant::now();
        let mut life = up(now);
        let died = now + 10 * S + offset;
        let (mut at, mut suspicious) = (now, None);
        while at < now + 20 * S && suspicious.is_none() {
            let heard = if falls_silent { at.min(died) } else { at };
            let seen =
                Activity { last_rx: Some(heard), last_tx: Some(at), last_data_rx: Some(heard), last_data_tx: Some(at) };
            // A datagram every 20 ms; the answer to the last one is still on its way.
            life.handle_timeout(at, Activity { last_data_tx: Some(at + MS), ..seen });
            if at < died {
                for action in actions(&mut life) {
                    if let Action::Probe(id) = action {
                        life.on_probe_ack(id, at + MS);
                    }
                }
            }
            suspicious = life.is_suspicious().then_some(at);
            at = life.poll_timeout(at).unwrap().max(at + MS);
        }
        let after = suspicious.map(|at| at.saturating_duration_since(died));
        if falls_silent {
            assert!(after.is_some_and(|after| after >= SUSPECT_AFTER && after <= 1500 * MS), "{offset:?}: {after:?}");
        } else {
            assert_eq!(after, None);
        }
    }
}

#[test]
fn a_peer_that_is_heard_is_not_probed_although_data_goes_to_it_all_the_time() {
    let now = Instant::now();
    for (every, most) in [(200 * MS, 1), (500 * MS, 25)] {
        let mut life = up(now);
        let log = run(
            &mut life,
            now + S,
            10 * S,
            |at| {
                let since = at.saturating_duration_since(now);
                let heard = now + every * u32::try_from(since.as_millis() / every.as_millis()).unwrap();
                Activity {
                    last_rx: Some(heard),
                    last_tx: Some(at + MS),
                    last_data_rx: Some(heard),
                    last_data_tx: Some(at + MS),
                }
            },
            true,
        );
        let probes = log.iter().filter(|(_, action)| matches!(action, Action::Probe(_))).count();
        assert!(probes <= most, "{every:?}: {log:?}");
    }
}

#[test]
fn lost_probes_alone_do_not_kill_a_peer_that_is_heard() {
    let now = Instant::now();
    let mut life = up(now);
    let log = run(
        &mut life,
        now + S,
        120 * S,
        |at| Activity { last_rx: Some(at), last_tx: Some(at), last_data_rx: Some(at), last_data_tx: Some(at) },
        false,
    );
    assert!(log.iter().all(|(_, action)| matches!(action, Action::Probe(_))), "{log:?}");
    assert!(life.loss() > 0.2, "{}", life.loss());
    assert!(life.verified_age(now + 121 * S).expect("once") > VERIFIED_WITHIN);
}

#[test]
fn failed_dials_back_off_while_there_is_demand_and_stop_without_it() {
    let start = Instant::now();
    let mut life = PeerLife::new(None, 0);
    let mut now = start;
    let mut dials = Vec::new();
    life.want(now);
    while let Some(next) = {
        for action in actions(&mut life) {
            assert_eq!(action, Action::Dial);
            dials.push(now - start);
            life.on_dial_failed(now, false);
        }
        life.poll_timeout(now)
    } {
        now = next;
        life.handle_timeout(now, Activity::default());
    }
    let pauses: Vec<_> = dials.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [500 * MS, S, 2 * S, 4 * S, 8 * S]);
    assert!(now - start <= DEMAND_LASTS + BACKOFF.1);
}

#[test]
fn a_refusal_is_shown_and_not_hammered() {
    let now = Instant::now();
    let mut life = PeerLife::new(None, 0);
    life.want(now);
    actions(&mut life);
    life.on_dial_failed(now, true);
    assert!(life.is_refused());
    life.want(now + 5 * S);
    assert_eq!(actions(&mut life), []);
    life.want(now + REFUSED_PAUSE);
    assert_eq!(actions(&mut life), [Action::Dial]);
}

#[test]
fn a_member_that_has_not_heard_of_us_is_asked_again_soon() {
    let mut now = Instant::now();
    let mut life = PeerLife::new(None, 0);
    life.on_dial_premature(now);
    assert!(!life.is_refused(), "nobody dialed");
    for pause in [500 * MS, S, 2 * S] {
        life.want(now);
        assert_eq!(actions(&mut life), [Action::Dial]);
        life.on_dial_premature(now);
        assert!(life.is_refused());
        now += pause * 2;
    }
}

#[test]
fn a_keepalive_peer_is_held_open_at_its_own_pace() {
    let now = Instant::now();
    let mut life = PeerLife::new(Some(25 * S), 0);
    life.handle_timeout(now, Activity::default());
    assert_eq!(actions(&mut life), [Action::Dial]);
    life.on_session_up(now);
    actions(&mut life);
    life.on_probe_ack(0, now + MS);
    let mut last_tx = now;
    let mut sent = 0;
    let mut at = now;
    while at < now + 600 * S {
        at += S;
        let seen = Activity { last_rx: Some(last_tx), last_tx: Some(last_tx), ..Activity::default() };
        life.handle_timeout(at, seen);
        for action in actions(&mut life) {
            let Action::Probe(id) = action else { panic!("unexpected {action:?}") };
            life.on_probe_ack(id, at + MS);
            last_tx = at;
            sent += 1;
        }
    }
    assert!((22..=26).contains(&sent), "{sent} keepalives in 600 s");
}

#[test]
fn two_probes_of_the_same_moment_are_both_answered() {
    let now = Instant::now();
    let mut life = PeerLife::new(None, 0);
    life.on_session_up(now);
    let ping = life.probe(now);
    assert_eq!(life.on_probe_ack(0, now + MS), Some(MS));
    assert_eq!(life.on_probe_ack(ping, now + MS), Some(MS));
}

#[test]
fn a_foreign_probe_ack_verifies_nothing() {
    let now = Instant::now();
    let mut life = PeerLife::new(None, 7);
    life.on_session_up(now);
    assert_eq!(life.on_probe_ack(99, now + MS), None);
    assert_eq!(life.verified_age(now + S), None);
    assert_eq!(life.on_probe_ack(7, now + MS), Some(MS));
    assert_eq!(life.on_probe_ack(7, now + 2 * MS), None, "an ack counts once");
}

#[test]
fn a_peer_that_accepts_and_closes_again_is_dialed_ever_less_often() {
    let start = Instant::now();
    let mut life = PeerLife::new(Some(25 * S), 0);
    let (mut now, mut dials) = (start, Vec::new());
    while now < start + 100 * S {
        life.handle_timeout(now, Activity::default());
        if actions(&mut life).contains(&Action::Dial) {
            dials.push(now - start);
            life.on_session_up(now);
            actions(&mut life);
            life.on_session_gone(now + MS);
            assert_eq!(actions(&mut life), [], "not at once");
            now += MS;
        }
        now = life.poll_timeout(now).expect("the keepalive wants it");
    }
    assert!((6..=10).contains(&dials.len()), "{dials:?}");
}

#[test]
fn a_session_that_lasted_is_replaced_at_once_and_ends_the_back_off() {
    let now = Instant::now();
    let mut life = PeerLife::new(None, 0);
    life.want(now);
    actions(&mut life);
    life.on_dial_failed(now, false);
    life.on_session_up(now + S);
    life.want(now + 10 * S);
    life.on_session_gone(now + 10 * S);
    assert!(actions(&mut life).contains(&Action::Dial));
    life.on_dial_failed(now + 11 * S, false);
    assert_eq!(life.poll_timeout(now + 11 * S), Some(now + 11 * S + BACKOFF.0));
}

#[test]
fn a_session_the_peer_keeps_alive_is_not_closed_for_want_of_data() {
    let now = Instant::now();
    let mut life = up(now);
    let kept_alive = |at: Instant| Activity { last_rx: Some(at - S), last_tx: Some(at - S), ..Activity::default() };
    let log = run(&mut life, now + S, 600 * S, kept_alive, true);
    assert!(log.iter().all(|(_, action)| *action != Action::CloseIdle), "{log:?}");
    assert!(life.is_up());
    let silent = run(
        &mut life,
        now + 601 * S,
        200 * S,
        |_| Activity { last_rx: Some(now + 600 * S), ..kept_alive(now + 600 * S) },
        true,
    );
    assert!(silent.iter().any(|(_, action)| *action == Action::CloseIdle), "{silent:?}");
}

#[test]
fn a_person_does_not_wait_for_the_back_off() {
    let now = Instant::now();
    let mut life = PeerLife::new(None, 0);
    life.want(now);
    actions(&mut life);
    life.on_dial_failed(now, true);
    life.want(now + MS);
    assert_eq!(actions(&mut life), [], "a parked packet waits");
    life.ask(now + 2 * MS);
    assert_eq!(actions(&mut life), [Action::Dial]);
}

#[test]
fn an_obstacle_that_is_gone_ends_the_pause_of_whoever_waits() {
    let now = Instant::now();
    for refused in [false, true] {
        let mut life = PeerLife::new(None, 0);
        life.want(now);
        assert_eq!(actions(&mut life), [Action::Dial]);
        life.on_dial_failed(now, refused);
        life.on_obstacle_gone(now + MS);
        assert_eq!(actions(&mut life), [Action::Dial]);
    }
    let mut life = PeerLife::new(None, 0);
    life.on_obstacle_gone(now);
    assert_eq!(actions(&mut life), [], "nobody waits");
}

#[test]
fn a_session_that_another_took_over_is_made_again_only_when_it_is_wanted_anew() {
    let now = Instant::now();
    let mut life = up(now);
    life.on_session_taken(now + S);
    assert_eq!(actions(&mut life), []);
    assert_eq!(life.poll_timeout(now + S), None, "a dial for the old wish would be taken over again, and so on");
    life.want(now + 60 * S);
    assert_eq!(actions(&mut life), [Action::Dial]);
}
