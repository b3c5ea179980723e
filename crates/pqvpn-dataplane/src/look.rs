// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a thread looks for an answer for a moment before it goes to sleep.
//!
//! Being woken takes longer than all that is done with a packet, most of all where processors are virtual. Where what was sent
//! was answered at once the last times, as by a host of the same network, the next answer is likely to come as soon. What is an
//! answer is not known: anything that comes counts, and looking for it takes no more than a part of a processor.

use std::time::{Duration, Instant};

/// Longest look.
const LONGEST: Duration = Duration::from_micros(200);
/// Whoever gave way for longer without anything to show for it shares the processor with somebody busy: a thread that is woken
/// gets it sooner than one that looks.
const AWAY: Duration = Duration::from_micros(50);
/// How long nobody looks after that.
const REST: Duration = Duration::from_secs(1);
/// Answers in time for which it is worth looking.
const WORTH: u8 = 2;
/// What is remembered of them.
const MOST: u8 = 4;
/// Looking takes one part in so many of the time, and so much at once.
const SHARE: u32 = 5;
const BURST: Duration = Duration::from_millis(20);

/// What is known of answers.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// When a question was sent, while nothing has come since, and when was looked last.
    open: Option<(Instant, Instant)>,
    /// Answers that came in time, less those that did not.
    trust: u8,
    /// Until when nobody looks.
    rest: Option<Instant>,
    /// When all that was spent on looking is earned again.
    paid: Option<Instant>,
}

impl Look {
    /// Notes what a turn did: whether it sent something that may be answered.
    pub(crate) fn note(&mut self, is_question: bool, now: Instant) {
        let is_spent = self.paid.is_some_and(|paid| paid > now + BURST * SHARE);
        let rests = is_spent || self.rest.is_some_and(|until| now < until);
        self.open = (is_question && !rests).then_some((now, now));
    }

    /// Whether [`came`](Self::came) is to be told of what comes.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether to look.
    pub(crate) fn is_worth(&self) -> bool {
        self.is_open() && self.trust >= WORTH
    }

    /// Notes a look; says whether to look again where nothing was there.
    pub(crate) fn again(&mut self, now: Instant) -> bool {
        let Some((since, last)) = &mut self.open else { return false };
        let away = now.saturating_duration_since(std::mem::replace(last, now));
        self.paid = Some(self.paid.map_or(now, |paid| paid.max(now)) + away.min(LONGEST) * SHARE);
        if away > AWAY {
            (self.trust, self.rest) = (0, Some(now + REST));
        }
        away <= AWAY && now.saturating_duration_since(*since) < LONGEST
    }

    /// Something came, an answer or something else.
    pub(crate) fn came(&mut self, is_answer: bool, now: Instant) {
        let Some((since, _)) = self.open.take() else { return };
        let is_in_time = is_answer && now.saturating_duration_since(since) < LONGEST;
        self.trust = if is_in_time { MOST.min(self.trust + 1) } else { self.trust.saturating_sub(1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks once; the answer comes after `micros`. Gives whether it was looked for.
    fn ask(look: &mut Look, micros: u64, is_answer: bool) -> bool {
        let now = Instant::now();
        look.note(true, now);
        let is_worth = look.is_worth();
        look.came(is_answer, now + Duration::from_micros(micros));
        is_worth
    }

    fn learn(look: &mut Look) {
        for _ in 0..4 {
            ask(look, 10, true);
        }
    }

    #[test]
    fn who_is_answered_at_once_looks_and_who_is_not_does_not() {
        let mut look = Look::default();
        assert_eq!(
            [ask(&mut look, 100, true), ask(&mut look, 100, true), ask(&mut look, 100, true)],
            [false, false, true]
        );
        for _ in 0..100 {
            ask(&mut look, 199, true);
        }
        let late = [(); 4].map(|()| ask(&mut look, 200, true));
        assert_eq!(late, [true, true, true, false], "what went well for long is forgotten as fast");
        assert!(!(0..100).any(|_| ask(&mut look, 10_000, true)));
    }

    #[test]
    fn what_else_is_to_be_sent_is_no_answer() {
        let mut look = Look::default();
        assert!(!(0..100).any(|_| ask(&mut look, 10, false)));
    }

    #[test]
    fn after_what_is_no_question_nobody_looks() {
        let (mut look, now) = (Look::default(), Instant::now());
        learn(&mut look);
        look.note(false, now);
        assert!(!look.is_worth() && !look.again(now));
        look.came(true, now);
        look.note(true, now);
        assert!(look.is_worth());
    }

    #[test]
    fn looking_takes_a_part_of_the_time_only() {
        let (mut look, mut now) = (Look::default(), Instant::now());
        learn(&mut look);
        let (start, mut spent) = (now, Duration::ZERO);
        while now < start + Duration::from_secs(2) {
            look.note(true, now);
            for _ in 0..15 {
                now += Duration::from_micros(10);
                if look.is_worth() && look.again(now) {
                    spent += Duration::from_micros(10);
                }
            }
            look.came(true, now);
        }
        assert!(
            spent > Duration::from_secs(2) / SHARE && spent < Duration::from_secs(2) / SHARE + BURST * 2,
            "{spent:?}"
        );
    }

    #[test]
    fn a_look_ends_in_time_and_where_somebody_needs_the_processor_nobody_looks_again() {
        let mut look = Look::default();
        learn(&mut look);
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        look.note(true, start);
        assert!((1..20).all(|i| look.again(at(10 * i))));
        assert!(!look.again(at(200)));
        look.came(true, at(150));
        look.note(true, start);
        assert!(look.again(at(50)) && look.is_worth());
        assert!(!look.again(at(101)));
        look.came(true, at(110));
        for micros in [200, 10_000, 1_000_000] {
            look.note(true, at(micros));
            assert!(!look.is_open());
        }
        look.note(true, at(1_000_101));
        assert!(look.is_open() && !look.is_worth());
    }
}
