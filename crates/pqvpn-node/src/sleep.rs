// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link of one session: when it may sleep, and when it has to be woken.
//!
//! ```text
//!            at rest 20 s: propose            the other end closes it: asleep
//!   Awake ------------------------> Proposed ---------------------------------> Asleep
//!     |  ^---- anything said over it ---'                                        |  ^
//!     |                                                                     wake |  | failed: again later
//!     '-- the other end's proposal, at rest 10 s: close it: asleep -> Asleep     v  |
//!                                                                              Waking --- 45 s unheard, or the keys end --> give up
//! ```
//! A sleeping link is gone on both ends, keys and all; its session goes on with the data plane's keys, and packets flow at
//! once. To wake means a new handshake, and its session replaces this one. Data that comes when a ratchet step would be due
//! wakes the link; without any the session ends before its keys are old. While the peer is heard a session lasts as long as its
//! keys, whoever keeps handshakes from it.
//!
//! The word that the link sleeps may be lost. Who has said that it may, or was told so, is unsure from then on whether the other
//! end still has it, until the other end says something over it: a link that turns out to be gone sleeps then, and ends of the
//! session are said inside the tunnel too.
//!
//! A pure state machine: time and what the session did are arguments.

use std::time::{Duration, Instant};

use pqvpn_crypto::{ratchet::machine::EPOCH_HARD, schedule::Role};

/// A session whose link carried nothing and that carried no data for this part of the time between two steps proposes that
/// the link sleeps: 20 s by default. To wake it costs what some ten steps cost. Half of that is enough to agree, since the
/// other end may have heard the last packet a little later.
const REST_PART: u32 = 6;
/// Never sooner.
const REST_LEAST: Duration = Duration::from_secs(1);
/// No link sleeps that is younger: of two sessions that crossed both ends would have to know which one sleeps.
const AGE_LEAST: Duration = Duration::from_secs(4);
/// Where keys are due, the handshakes that make new ones are spread over this part of the time between two steps: one who
/// sends something to a thousand peers would make as many at once.
const RENEW_PART: u32 = 4;
/// Age of an epoch at which a session that only probes keep alive gets new keys: [`EPOCH_HARD`] would end it.
pub(crate) const RENEW_AT_LEAST: Duration = Duration::from_secs(EPOCH_HARD.as_secs() / 2);
/// How soon a session is looked at again that would let its link sleep but for something under way.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// First and longest pause between two attempts to wake the link; of success, too: a link that is woken over and over sleeps
/// longer and longer. Who was left in peace for the last begins with the first again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
const FORGIVEN: Duration = Duration::from_secs(30);
/// Attempts end when the peer has not been heard for so long meanwhile, as those of a ratchet step whose messages get no answer.
const GIVES_UP: Duration = Duration::from_secs(45);
/// And at this age of the keys, though the peer is heard: soon nothing would be sealed under them any more.
const KEYS_LAST: Duration = Duration::from_secs(EPOCH_HARD.as_secs() - 15);

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Say that the link may sleep.
    Propose,
    /// Make a new link and session with the peer.
    Wake,
    /// The link cannot be woken: the session starts over.
    GiveUp,
}

/// How a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The other end says that it sleeps.
    Asleep,
    /// Without a word.
    Silent,
    /// For a reason that ends the session too.
    Over,
}

/// What the session did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Last inner packet, in either direction.
    pub(crate) data: Option<Instant>,
    /// Last authenticated packet of the peer.
    pub(crate) heard: Option<Instant>,
    /// Whether nothing is under way that the link is needed for.
    pub(crate) at_rest: bool,
    /// When the keys of this session, or of its epoch, were made.
    pub(crate) keyed: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Awake,
    Proposed { at: Instant },
    Asleep,
    Waking { since: Instant, under_way: bool },
}

/// When a link may be woken: known beyond the session, for the one that replaces it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attempts {
    /// Not before, and the pause that comes after the next one.
    next: Option<(Instant, Duration)>,
    last: Duration,
}

impl Attempts {
    fn next(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    fn begin(&mut self, now: Instant) {
        let pause = self.next.filter(|(at, _)| now < *at + FORGIVEN).map_or(AGAIN.0, |(_, pause)| pause);
        self.next = Some((now + pause, (pause * 2).min(AGAIN.1)));
        self.last = pause;
    }

    /// The pause begins anew where the attempt took long.
    fn fail(&mut self, now: Instant) {
        self.next = self.next.map(|(at, pause)| (at.max(now + self.last), pause));
    }
}

/// The sleep of one session's link.
#[derive(Debug)]
pub(crate) struct Sleep {
    state: State,
    role: Role,
    made: Instant,
    /// Last control message either way.
    spoke: Instant,
    /// Either end has said that the link may sleep, and the other end has said nothing over it since.
    unsure: bool,
    /// Mean age at which a session in use gets new keys.
    epoch_time: Duration,
    /// Spreads the times of a node's sessions; 0 to 200.
    spread: u32,
    /// When data was seen that keys were too old for.
    asked: Option<Instant>,
    attempts: Attempts,
}

impl Sleep {
    /// A session that has just come up. `random` need not be secret.
    pub(crate) fn new(role: Role, now: Instant, epoch_time: Duration, random: u64) -> Self {
        let spread = u32::try_from(random % 201).unwrap_or_default();
        let attempts = Attempts::default();
        Self {
            state: State::Awake,
            role,
            made: now,
            spoke: now,
            unsure: false,
            epoch_time,
            spread,
            asked: None,
            attempts,
        }
    }

    /// Goes on with the pauses of the session that this one replaces.
    pub(crate) fn go_on(&mut self, attempts: Attempts) {
        self.attempts = attempts;
    }

    /// When links of this session's peer may be woken.
    pub(crate) const fn attempts(&self) -> Attempts {
        self.attempts
    }

    /// Whether the link is gone.
    pub(crate) const fn is_asleep(&self) -> bool {
        matches!(self.state, State::Asleep | State::Waking { .. })
    }

    /// Whether the other end may have let the link sleep already.
    pub(crate) const fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// This end says something over the link.
    pub(crate) fn on_spoken(&mut self, now: Instant) {
        self.spoke = now;
        if let State::Proposed { .. } = self.state {
            self.state = State::Awake;
        }
    }

    /// The other end has said something over the link: it has it.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.on_spoken(now);
        self.unsure = false;
    }

    /// The other end proposes that the link sleeps; whether it does from now.
    pub(crate) fn on_proposal(&mut self, now: Instant, seen: Seen) -> bool {
        let agrees = !self.is_asleep() && !self.is_used(now, seen);
        self.unsure = true;
        if agrees {
            self.state = State::Asleep;
        }
        agrees
    }

    /// Whether it was used too lately to sleep if the other end proposes it.
    pub(crate) fn is_used(&self, now: Instant, seen: Seen) -> bool {
        self.rested(now, seen) < self.rest() / 2
    }

    /// The link has ended; whether the session goes on without it. One that is lost without a word sleeps only while it is
    /// unsure that the other end has it: its word may have been lost.
    pub(crate) fn on_link_end(&mut self, end: LinkEnd) -> bool {
        let goes_on = end == LinkEnd::Asleep || end == LinkEnd::Silent && self.unsure;
        if goes_on {
            self.state = State::Asleep;
        }
        goes_on
    }

    /// The link is needed.
    pub(crate) fn want(&mut self, now: Instant) {
        if self.state == State::Asleep {
            self.state = State::Waking { since: now, under_way: false };
        }
    }

    /// A handshake that was to wake the link came to nothing.
    pub(crate) fn on_wake_failed(&mut self, now: Instant) {
        if let State::Waking { under_way, .. } = &mut self.state {
            *under_way = false;
            self.attempts.fail(now);
        }
    }

    /// Looks at the clock and at what the session did.
    pub(crate) fn handle_timeout(&mut self, now: Instant, seen: Seen) -> Option<Action> {
        match self.state {
            // Who has not agreed may do so later; and who agreed in words that were lost answers no more, which is heard then.
            State::Proposed { at } if now.saturating_duration_since(at) < self.rest() => {}
            State::Awake | State::Proposed { .. } if self.rested(now, seen) >= self.rest() => {
                (self.state, self.unsure) = (State::Proposed { at: now }, true);
                return Some(Action::Propose);
            }
            State::Proposed { .. } => self.state = State::Awake,
            State::Asleep => {
                if self.is_asked(seen) {
                    self.asked.get_or_insert(now);
                }
                if now >= self.renew_at(seen) {
                    self.want(now);
                }
            }
            State::Awake | State::Waking { .. } => {}
        }
        let State::Waking { since, under_way } = &mut self.state else { return None };
        if now >= gives_up_at(*since, seen) {
            return Some(Action::GiveUp);
        }
        if *under_way || self.attempts.next().is_some_and(|at| now < at) {
            return None;
        }
        *under_way = true;
        self.attempts.begin(now);
        Some(Action::Wake)
    }

    /// When [`Self::handle_timeout`] has something to do, if nothing happens until then.
    pub(crate) fn poll_timeout(&self, now: Instant, seen: Seen) -> Instant {
        match self.state {
            // What is under way ends at a time of its own.
            State::Awake if !seen.at_rest => now + LOOK_AGAIN,
            State::Awake => (self.rests_since(seen) + self.rest()).max(self.made + AGE_LEAST),
            State::Proposed { at } => at + self.rest(),
            // The first such data is looked at when it is seen.
            State::Asleep if self.is_asked(seen) && self.asked.is_none() => now,
            State::Asleep => self.renew_at(seen),
            State::Waking { since, under_way: true } => gives_up_at(since, seen),
            State::Waking { since, .. } => self.attempts.next().unwrap_or(since).min(gives_up_at(since, seen)),
        }
    }

    /// The dialer proposes first; one proposal is enough.
    fn rest(&self) -> Duration {
        self.turn((self.epoch_time / REST_PART).max(REST_LEAST))
    }

    /// The dialer acts after `time`, the other end half as long again after that, as in the ratchet.
    fn turn(&self, time: Duration) -> Duration {
        match self.role {
            Role::Initiator => time,
            Role::Responder => time + time / 2,
        }
    }

    fn rests_since(&self, seen: Seen) -> Instant {
        seen.data.map_or(self.spoke, |at| at.max(self.spoke))
    }

    fn rested(&self, now: Instant, seen: Seen) -> Duration {
        let may = seen.at_rest && now >= self.made + AGE_LEAST;
        if may { now.saturating_duration_since(self.rests_since(seen)) } else { Duration::ZERO }
    }

    /// Whether data came, either way, when a step would have been due.
    fn is_asked(&self, seen: Seen) -> bool {
        seen.data.is_some_and(|at| at >= self.at_age(seen, self.epoch_time))
    }

    /// When a sleeping session gets new keys: soon after the first data for which these are too old. What nobody uses needs
    /// none, and to renew it would only keep it from its end; but a session that probes alone keep gets them, too.
    fn renew_at(&self, seen: Seen) -> Instant {
        let old = self.at_age(seen, RENEW_AT_LEAST);
        self.asked.map_or(old, |at| old.min(at + self.epoch_time * self.spread / (200 * RENEW_PART)))
    }

    /// When the keys are of an age; the dialer finds it first.
    fn at_age(&self, seen: Seen, age: Duration) -> Instant {
        seen.keyed + self.turn(age) * (900 + self.spread) / 1000
    }
}

/// When attempts to wake end that began at `since`.
fn gives_up_at(since: Instant, seen: Seen) -> Instant {
    let unheard = seen.heard.map_or(since, |at| at.max(since)) + GIVES_UP;
    unheard.min(seen.keyed + KEYS_LAST)
}

#[cfg(test)]
mod tests;
