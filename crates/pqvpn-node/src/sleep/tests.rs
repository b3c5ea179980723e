// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;

const S: Duration = Duration::from_secs(1);
const EPOCH: Duration = Duration::from_secs(120);
const REST: Duration = Duration::from_secs(20);

/// The two ends of a session, under one clock.
struct Pair {
    now: Instant,
    ends: [Sleep; 2],
    seen: [Seen; 2],
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let end = |role| Sleep::new(role, now, EPOCH, 100);
        let seen = Seen { data: None, heard: None, at_rest: true, keyed: now };
        Self { now, ends: [end(Role::Initiator), end(Role::Responder)], seen: [seen; 2] }
    }

    /// Lets time pass up to the first thing either end does; who does what, and after how long.
    fn next(&mut self, most: Duration) -> Option<(usize, Action, Duration)> {
        let start = self.now;
        loop {
            for end in 0..2 {
                if let Some(action) = self.ends[end].handle_timeout(self.now, self.seen[end]) {
                    return Some((end, action, self.now - start));
                }
            }
            let next = (0..2).map(|end| self.ends[end].poll_timeout(self.now, self.seen[end])).min().unwrap();
            if next > start + most {
                self.now = start + most;
                return None;
            }
            assert!(next > self.now, "what is due and does nothing is due for ever");
            self.now = next;
        }
    }

    /// Both ends sleep.
    fn asleep() -> Self {
        let mut pair = Self::new();
        assert_eq!(pair.next(S * 600), Some((0, Action::Propose, REST)));
        assert!(pair.ends[1].on_proposal(pair.now, pair.seen[1]));
        assert!(pair.ends[0].on_link_end(LinkEnd::Asleep));
        pair
    }

    fn data(&mut self) {
        self.seen.iter_mut().for_each(|seen| seen.data = Some(self.now));
    }
}

#[test]
fn a_session_at_rest_lets_its_link_sleep_and_is_woken_for_nothing_before_its_keys_are_old() {
    let mut pair = Pair::asleep();
    assert!(pair.ends.iter().all(Sleep::is_asleep));
    let (end, action, after) = pair.next(S * 600).unwrap();
    assert_eq!(
        (end, action, after + REST),
        (0, Action::Wake, RENEW_AT_LEAST),
        "the dialer, when the keys are half as old as they may get"
    );
}

#[test]
fn data_wakes_no_link_before_a_step_would_be_due_and_then_soon() {
    let mut pair = Pair::asleep();
    for _ in 0..9 {
        pair.now += S * 10;
        pair.data();
        assert_eq!(pair.next(Duration::ZERO), None, "packets need no link");
    }
    assert_eq!(pair.next(S * 150), None, "nor do keys that nobody uses");
    let mut used = Pair::asleep();
    for after in [99, 100] {
        used.now = used.seen[0].keyed + S * (after + 20);
        used.data();
        // Of a thousand that are asked at once each wakes at a time of its own.
        let woken = (after == 100).then_some((0, Action::Wake, EPOCH / 8));
        assert_eq!(used.next(S * 18), woken, "{after}");
    }
}

#[test]
fn of_many_that_are_asked_at_once_few_wake_at_a_time_and_all_before_their_keys_end() {
    let now = Instant::now();
    for epoch in [S * 5, EPOCH, S * 300] {
        for role in [Role::Initiator, Role::Responder] {
            for random in [0, 50, 200] {
                let mut end = Sleep { state: State::Asleep, ..Sleep::new(role, now, epoch, random) };
                // The worst: the data comes as late as it can.
                let asked = now + end.turn(RENEW_AT_LEAST) * (900 + end.spread) / 1000 - S;
                let seen = Seen { data: Some(asked), heard: None, at_rest: true, keyed: now };
                if epoch < RENEW_AT_LEAST {
                    assert_eq!(end.poll_timeout(asked, seen), asked, "what is new is looked at");
                }
                let at_once = end.handle_timeout(asked, seen).is_some();
                let wakes = if at_once { asked } else { end.poll_timeout(asked, seen) };
                assert!(wakes <= asked + epoch / RENEW_PART, "{random}");
                assert!(wakes + GIVES_UP < now + EPOCH_HARD, "{random}");
            }
        }
    }
}

#[test]
fn a_link_that_is_woken_over_and_over_is_left_longer_and_longer_in_peace() {
    let (mut now, mut attempts, mut pauses) = (Instant::now(), Attempts::default(), Vec::new());
    let session = |now: &mut Instant, attempts: &mut Attempts| {
        let mut end = Sleep::new(Role::Initiator, *now, EPOCH, 100);
        end.go_on(*attempts);
        assert!(end.on_link_end(LinkEnd::Asleep));
        let (begun, seen) = (*now, Seen { data: None, heard: None, at_rest: true, keyed: *now });
        end.want(*now);
        while end.handle_timeout(*now, seen) != Some(Action::Wake) {
            *now = end.poll_timeout(*now, seen);
        }
        *attempts = end.attempts();
        *now - begun
    };
    for _ in 0..6 {
        pauses.push(session(&mut now, &mut attempts));
    }
    assert_eq!(pauses, [Duration::ZERO, S, S * 2, S * 4, S * 8, S * 8]);
    now += AGAIN.1 + FORGIVEN;
    assert_eq!(session(&mut now, &mut attempts), Duration::ZERO);
    assert_eq!(session(&mut now, &mut attempts), S, "forgiven");
}

#[test]
fn no_link_sleeps_while_its_session_may_have_crossed_another() {
    let mut pair = Pair::new();
    for end in &mut pair.ends {
        end.epoch_time = S * 5;
    }
    pair.now += AGE_LEAST - Duration::from_millis(1);
    assert!(!pair.ends[1].on_proposal(pair.now, pair.seen[1]));
    assert_eq!(pair.next(S), Some((0, Action::Propose, Duration::from_millis(1))));
    assert!(pair.ends[1].on_proposal(pair.now, pair.seen[1]));
}

#[test]
fn the_other_end_wakes_the_link_where_the_dialer_does_not_and_before_the_keys_end() {
    let pair = Pair::asleep();
    let [dialer, other] = [0, 1].map(|end| pair.ends[end].poll_timeout(pair.now, pair.seen[end]));
    assert_eq!(other - pair.seen[1].keyed, RENEW_AT_LEAST + RENEW_AT_LEAST / 2);
    assert!(dialer < other, "one handshake is enough");
    let used = Seen { data: Some(pair.now), ..pair.seen[1] };
    for (seen, random) in [(pair.seen[1], 0), (pair.seen[1], 200), (used, 0), (used, 200)] {
        // The longest time between two steps that can be configured.
        let end = Sleep { state: State::Asleep, ..Sleep::new(Role::Responder, pair.now, S * 300, random) };
        assert!(end.poll_timeout(pair.now, seen) + GIVES_UP < seen.keyed + EPOCH_HARD, "{random}");
    }
}

#[test]
fn who_has_something_under_way_or_was_used_lately_neither_proposes_nor_agrees() {
    let mut pair = Pair::new();
    pair.now += S * 100;
    pair.seen[1].at_rest = false;
    assert!(!pair.ends[1].on_proposal(pair.now, pair.seen[1]));
    assert_eq!(pair.ends[1].handle_timeout(pair.now, pair.seen[1]), None);
    pair.seen[1].at_rest = true;
    pair.data();
    pair.now += REST * 3 / 4 - S;
    assert!(!pair.ends[1].on_proposal(pair.now, pair.seen[1]), "data");
    pair.now += S;
    pair.ends[1].on_spoken(pair.now);
    assert!(!pair.ends[1].on_proposal(pair.now, pair.seen[1]), "control messages");
    assert!(!pair.ends[1].is_asleep());
}

#[test]
fn a_link_lost_without_a_word_sleeps_only_if_that_was_proposed() {
    let mut pair = Pair::new();
    assert!(!pair.ends[0].on_link_end(LinkEnd::Silent), "the peer may have been started again");
    assert_eq!(pair.next(S * 60), Some((0, Action::Propose, REST)));
    assert!(pair.ends[0].on_link_end(LinkEnd::Silent), "its answer may have been lost");
    for (end, goes_on) in [(LinkEnd::Over, false), (LinkEnd::Asleep, true)] {
        let mut pair = Pair::new();
        assert_eq!(pair.next(S * 60), Some((0, Action::Propose, REST)));
        assert_eq!(pair.ends[0].on_link_end(end), goes_on, "{end:?}");
    }
}

#[test]
fn the_ends_are_unsure_of_the_link_until_the_other_says_something_over_it() {
    let mut pair = Pair::new();
    assert_eq!(pair.next(S * 60), Some((0, Action::Propose, REST)));
    // Both are used meanwhile, so that the other end does not agree; what the first says itself proves nothing.
    pair.data();
    assert!(!pair.ends[1].on_proposal(pair.now, pair.seen[1]));
    pair.ends[0].on_spoken(pair.now);
    for end in 0..2 {
        assert!(pair.ends[end].is_unsure());
        let mut heard = Sleep { state: State::Awake, ..Sleep::new(pair.ends[end].role, pair.now, EPOCH, 100) };
        heard.unsure = pair.ends[end].unsure;
        heard.on_heard(pair.now);
        assert!(!heard.is_unsure() && !heard.on_link_end(LinkEnd::Silent), "it went on, so it did not agree");
        assert!(pair.ends[end].on_link_end(LinkEnd::Silent), "its word that the link sleeps may have been lost");
        assert!(pair.ends[end].is_used(pair.now, pair.seen[end]), "and the link is needed again at once");
    }
}

#[test]
fn what_was_not_agreed_to_is_proposed_again() {
    let mut pair = Pair::new();
    assert_eq!(pair.next(S * 60), Some((0, Action::Propose, REST)));
    assert_eq!(pair.next(S * 60), Some((1, Action::Propose, REST / 2)), "the other end by its own clock");
    let (end, action, after) = pair.next(S * 60).unwrap();
    assert_eq!((end, action, after), (0, Action::Propose, REST / 2));
}

#[test]
fn attempts_to_wake_are_one_at_a_time_with_longer_and_longer_pauses_and_end() {
    let mut pair = Pair::asleep();
    pair.ends[0].want(pair.now);
    let begun = pair.now;
    let mut pauses = Vec::new();
    let end = loop {
        match pair.next(S * 60).unwrap() {
            (0, Action::Wake, pause) => pauses.push(pause),
            other => break other,
        }
        pair.ends[0].want(pair.now);
        assert_eq!(pair.ends[0].handle_timeout(pair.now, pair.seen[0]), None, "one is under way");
        pair.ends[0].on_wake_failed(pair.now);
    };
    assert_eq!(pauses[..6], [Duration::ZERO, S, S * 2, S * 4, S * 8, S * 8]);
    assert_eq!((end.0, end.1, pair.now - begun), (0, Action::GiveUp, GIVES_UP));
}

#[test]
fn a_handshake_that_hangs_is_given_up_too() {
    let mut pair = Pair::asleep();
    pair.ends[0].want(pair.now);
    assert_eq!(pair.next(S), Some((0, Action::Wake, Duration::ZERO)));
    assert_eq!(pair.next(S * 60), Some((0, Action::GiveUp, GIVES_UP)));
}

#[test]
fn who_is_heard_is_not_given_up_before_its_keys_end() {
    let mut pair = Pair::asleep();
    pair.ends[0].want(pair.now);
    let keyed = pair.seen[0].keyed;
    loop {
        pair.seen.iter_mut().for_each(|seen| seen.heard = Some(pair.now));
        match pair.next(S) {
            Some((end, Action::Wake, _)) => pair.ends[end].on_wake_failed(pair.now),
            None => {}
            other => {
                assert_eq!(other.map(|(end, action, _)| (end, action)), Some((0, Action::GiveUp)));
                break;
            }
        }
    }
    assert_eq!(pair.now - keyed, KEYS_LAST, "nobody who floods the listener ends it sooner");
    const { assert!(KEYS_LAST.as_secs() < EPOCH_HARD.as_secs()) };
    // And as soon as it is not heard any more.
    let mut pair = Pair::asleep();
    pair.ends[0].want(pair.now);
    let heard = pair.now + S * 30;
    assert_eq!(pair.next(Duration::ZERO), Some((0, Action::Wake, Duration::ZERO)));
    pair.seen[0].heard = Some(heard);
    let (end, action, after) = pair.next(S * 120).unwrap();
    assert_eq!((end, action, after), (0, Action::GiveUp, S * 30 + GIVES_UP));
}
