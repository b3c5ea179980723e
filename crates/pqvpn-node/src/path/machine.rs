// SPDX-License-Identifier: MIT OR Apache-2.0
//! One peer's paths: when candidates are told, which addresses are checked, which one is used.
//!
//! A pure state machine: time, answers and what the data plane heard are arguments.

mod action;
mod beside;
mod choose;
mod guessing;
mod seen;

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use pqvpn_dataplane::way::WayId;

pub(crate) use self::action::Action;
use self::beside::Beside;
use super::{guess::Guess, ids::Ids, moves::Moves, sift::is_outside};

/// When an address is checked after a try has begun: soon and often, because the first checks only open the NATs.
const CHECK_AT: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(60),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_millis(1200),
    Duration::from_millis(2000),
];
/// Pauses between tries that came to nothing.
const TRY_AGAIN: [Duration; 6] = [
    Duration::from_millis(1800),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(180),
    Duration::from_secs(600),
];
/// A try that nobody answered in this time has come to nothing.
const TRY_LASTS: Duration = Duration::from_secs(3);
/// While the path is suspect, how often a relay is asked for.
const ASK_AGAIN: Duration = Duration::from_millis(400);
/// An address that answered is remembered for so long, for when the path in use dies.
const ANSWER_LASTS: Duration = Duration::from_secs(3600);
/// Addresses known at a time: what the peer names, where it was heard, and ports that were guessed.
const MAX_TRIED: usize = 24;
/// Addresses at which the peer was heard that are checked in one try.
const MAX_HEARD: usize = 6;
/// The end that does not choose takes the path it found itself when the other has not chosen for so long.
const OTHER_CHOOSES: Duration = Duration::from_millis(700);
/// The same while the path is dead. Two that choose at once cross: each follows the other, for as long as both send.
const OTHER_RESCUES: Duration = Duration::from_millis(150);
/// How long checks wait for the other end's opener besides two round trips, and what a round trip is taken for while
/// nobody has measured it.
const OPENER_MARGIN: Duration = Duration::from_millis(150);
const RTT_UNKNOWN: Duration = Duration::from_millis(200);
/// Checks wait no longer than that.
const MAX_HELD: Duration = Duration::from_millis(1500);
/// Ports are guessed when a relayed session has found nothing for so long and two round trips.
const GUESS_AFTER: Duration = Duration::from_millis(1300);
/// Checks that wait for their answer.
const MAX_CHECKS: usize = 256;
/// Tries a peer may cause in a row before it has to wait.
const TOLD_BURST: u32 = 8;
/// How long it takes until a peer may cause another try.
const TOLD_EVERY: Duration = Duration::from_secs(3);

/// What comes with a peer's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    /// The number of the try.
    pub(crate) round: u32,
    /// Whether that answers our own.
    pub(crate) answer: bool,
    /// Whether its router gives each destination another port, as far as it knows.
    pub(crate) varies: bool,
    /// Round trip of the session's link.
    pub(crate) rtt: Option<Duration>,
}

/// An address that is checked.
#[derive(Debug, Clone, Copy)]
struct Tried {
    /// When the checks began.
    since: Instant,
    /// Checks sent.
    sent: usize,
    /// Round-trip time of the first check that was answered.
    rtt: Option<Duration>,
    /// Whether the peer was heard from there although it did not name the address.
    heard: bool,
}

/// The paths to one peer.
#[derive(Debug)]
pub(crate) struct Paths {
    /// Whether this end chooses: it has the lower PeerID.
    chooses: bool,
    current: Option<SocketAddr>,
    /// Where the session's link was made.
    link: Option<SocketAddr>,
    /// The newest address that has answered, of those where packets went.
    answered: Option<SocketAddr>,
    round: u32,
    tried: BTreeMap<SocketAddr, Tried>,
    checks: VecDeque<(u64, SocketAddr, Instant)>,
    ids: Ids,
    /// When the next try begins, while the path is not a direct one.
    next_try: Option<Instant>,
    failed: usize,
    /// When this end takes what it found, although the other end is to choose.
    choose_at: Option<Instant>,
    link_due: Option<Instant>,
    /// The newest way through a relay.
    way: Option<SocketAddr>,
    /// When a relay is asked for again, while the path is suspect.
    ask_again: Option<Instant>,
    /// Since when the present path does not answer.
    suspect: Option<Instant>,
    /// Since when packets take a relay.
    relayed: Option<Instant>,
    /// Where ports would be guessed, and whether the peer knows itself to be the hard end.
    aim: Option<(SocketAddr, bool)>,
    guess: Option<Guess>,
    guesses: usize,
    next_guess: Option<Instant>,
    told_debt: Duration,
    told_at: Option<Instant>,
    /// Where links were wanted while the path was suspect.
    beside: Vec<Beside>,
    /// Where the data plane sends instead, and since when.
    stray: Option<(SocketAddr, Instant)>,
    moves: Moves,
    actions: VecDeque<Action>,
}

impl Paths {
    /// A peer without a session. `secret` is random.
    pub(crate) fn new(chooses: bool, secret: &[u8; 32]) -> Self {
        Self::without_session(chooses, Ids::new(secret))
    }

    fn without_session(chooses: bool, ids: Ids) -> Self {
        Self {
            chooses,
            current: None,
            link: None,
            answered: None,
            round: 0,
            tried: BTreeMap::new(),
            checks: VecDeque::new(),
            ids,
            next_try: None,
            failed: 0,
            choose_at: None,
            link_due: None,
            way: None,
            ask_again: None,
            suspect: None,
            relayed: None,
            aim: None,
            guess: None,
            guesses: 0,
            next_guess: None,
            told_debt: Duration::ZERO,
            told_at: None,
            beside: Vec::new(),
            stray: None,
            moves: Moves::default(),
            actions: VecDeque::new(),
        }
    }

    /// A session came up over a link with `remote`, and packets take that path.
    pub(crate) fn on_session(&mut self, now: Instant, remote: SocketAddr) {
        self.take(remote);
        (self.link, self.answered) = (Some(remote), Some(remote));
        self.calm();
        self.link_due = None;
        if is_relayed(remote) {
            self.failed = 0;
            self.next_try = Some(now);
            self.relayed.get_or_insert(now);
            self.handle_timeout(now);
        } else {
            self.next_try = None;
            self.failed = 0;
            self.relayed = None;
            self.guess = None;
        }
    }

    /// The last session has gone.
    pub(crate) fn on_gone(&mut self) {
        let fresh = Self::without_session(self.chooses, self.ids.clone());
        *self = Self {
            round: self.round,
            told_debt: self.told_debt,
            told_at: self.told_at,
            guesses: self.guesses,
            next_guess: self.next_guess,
            moves: self.moves,
            ..fresh
        };
    }

    /// Packets take another path: the peer moved it, or we did.
    pub(crate) fn on_path(&mut self, now: Instant, remote: SocketAddr) {
        // The data plane may tell of it after the session it was on has gone.
        if self.current.is_none() {
            return;
        }
        self.take(remote);
        self.calm();
        if is_relayed(remote) {
            self.next_try.get_or_insert(now);
            self.relayed.get_or_insert(now);
        } else {
            self.next_try = None;
            self.failed = 0;
            self.relayed = None;
            self.guess = None;
        }
        self.want_link(now);
    }

    /// The peer has named addresses; those that may be tried. `false` if it asks too often.
    ///
    /// Who answers has heard our addresses and opened its router to them: checks go at once. Who asks may not know ours
    /// yet, and a plain masquerade takes the port away for a packet that is there before its own opener: we open ours,
    /// answer, and check when the answer has had time to arrive, or as soon as we hear from there.
    pub(crate) fn on_told(
        &mut self,
        now: Instant,
        Told { round, answer, varies, rtt }: Told,
        addresses: &[SocketAddr],
    ) -> bool {
        if self.current.is_none() || !self.may_be_told(now) {
            return false;
        }
        let hold = (rtt.unwrap_or(RTT_UNKNOWN) * 2 + OPENER_MARGIN).min(MAX_HELD);
        for &at in addresses {
            if answer || !takes_amiss(at) {
                let _known = self.try_at(now, at, false);
            } else if self.try_at(now + hold, at, false) {
                self.actions.push_back(Action::Open(at));
            }
        }
        if !answer {
            self.actions.push_back(Action::Tell { round, answer: true });
        }
        self.aim = addresses.iter().find(|at| takes_amiss(**at)).map(|&at| (at, varies));
        let after = GUESS_AFTER + rtt.unwrap_or(RTT_UNKNOWN) * 2;
        if self.aim.is_some() && self.may_guess(now) && self.relayed.is_some_and(|since| now >= since + after) {
            self.actions.push_back(Action::Guess);
        }
        self.handle_timeout(now);
        true
    }

    /// An authenticated packet came from where the path does not lead.
    pub(crate) fn on_heard(&mut self, now: Instant, from: SocketAddr) {
        let heard = self.tried.values().filter(|tried| tried.heard).count();
        match self.tried.get_mut(&from) {
            _ if self.current.is_none() => return,
            // It can be reached now, whatever came of the checks before.
            Some(tried) if tried.rtt.is_none() => (tried.since, tried.sent) = (now, 0),
            Some(_) => return,
            None if heard >= MAX_HEARD => return,
            None => {
                let _tried = self.try_at(now, from, true);
            }
        }
        self.handle_timeout(now);
    }

    /// A way through a relay is there.
    pub(crate) fn on_way(&mut self, now: Instant, way: SocketAddr) {
        // It may come after the session it was for.
        if self.current.is_none() {
            return;
        }
        self.way = Some(way);
        let _known = self.try_at(now, way, false);
        if self.suspect.is_some() {
            self.link_beside(now, way);
        }
        self.handle_timeout(now);
    }

    /// The answer to a probe came from `from`; its round-trip time if it was one of our checks.
    pub(crate) fn on_ack(&mut self, now: Instant, id: u64, from: SocketAddr, at: Instant) -> Option<Duration> {
        if let Some(sent) = self.guess.as_ref().and_then(|guess| guess.sent_to(id, from)) {
            return self.on_hit(now, from, at.saturating_duration_since(sent));
        }
        let position = self.checks.iter().position(|&(check, ..)| check == id)?;
        let (_, to, sent) = self.checks.remove(position)?;
        let rtt = at.saturating_duration_since(sent);
        // An answer by another road says nothing about this one.
        if to != from {
            self.on_heard(now, from);
            return Some(rtt);
        }
        if self.current == Some(from) {
            self.answered = Some(from);
        }
        let tried = self.tried.get_mut(&from)?;
        tried.rtt = Some(tried.rtt.map_or(rtt, |known| known.min(rtt)));
        self.consider(now, from, rtt);
        Some(rtt)
    }

    /// The present path does not answer: another one is looked for.
    pub(crate) fn on_suspect(&mut self, now: Instant) {
        if self.suspect.is_some() || self.current.is_none() {
            return;
        }
        self.suspect = Some(now);
        self.ask_again = Some(now + ASK_AGAIN);
        self.tried.retain(|_, tried| tried.rtt.is_some());
        for tried in self.tried.values_mut() {
            *tried = Tried { since: now, sent: 0, rtt: None, heard: false };
        }
        self.actions.push_back(Action::Relay);
        self.link_again(now);
        self.handle_timeout(now);
    }

    /// The present path answers: from there, unless the peer took another one.
    pub(crate) fn on_alive(&mut self, from: SocketAddr) {
        if self.current == Some(from) {
            self.answered = Some(from);
        }
        if self.suspect.is_some() {
            self.calm();
            // A link beside is not needed any more; one where packets go is.
            self.link_due = self.link_due.filter(|_| self.current.is_some_and(|at| self.needs_link(at)));
        }
    }

    /// How often packets took another path.
    pub(crate) const fn moves(&self) -> Moves {
        self.moves
    }

    fn take(&mut self, at: SocketAddr) {
        if self.tried.get(&at).is_some_and(|tried| tried.rtt.is_some()) {
            self.answered = Some(at);
        }
        self.moves.note(self.current, at, self.suspect.is_some());
        self.current = Some(at);
    }

    fn calm(&mut self) {
        if self.suspect.take().is_some() {
            self.choose_at = None;
        }
        self.ask_again = None;
    }

    /// There is news of where we may be reached: while packets take a relay, the next try begins at once.
    pub(crate) fn try_now(&mut self, now: Instant) {
        if self.current.is_some_and(is_relayed) {
            self.failed = 0;
            self.next_try = Some(now);
            self.handle_timeout(now);
        }
    }

    /// The host's network has changed: nothing is known of any path any more.
    pub(crate) fn on_network(&mut self, now: Instant) {
        if self.current.is_none() {
            return;
        }
        self.failed = 0;
        self.tried.clear();
        if self.current.is_some_and(is_relayed) {
            self.next_try = Some(now);
        }
        // The session's own link may be cut off as well: only a relay is sure to carry what both have to tell each other.
        self.on_suspect(now);
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.current.is_none() {
            return;
        }
        if self.next_try.is_some_and(|at| at <= now) {
            self.begin(now);
        }
        if self.link_due.is_some_and(|at| at <= now) {
            self.link_due = self.make_link(now);
        }
        if self.ask_again.is_some_and(|at| at <= now) {
            self.ask_again = Some(now + ASK_AGAIN);
            self.actions.push_back(Action::Relay);
            self.link_again(now);
        }
        if self.choose_at.is_some_and(|at| now >= at) {
            self.choose_at = None;
            if let Some((best, _)) = self.best().filter(|_| self.wants_other()) {
                self.use_path(now, best);
            }
        }
        self.drive_guess(now);
        self.send_checks(now);
        let current = self.current;
        // What never answers goes even if it is in use: its time would be over, and this due, for ever.
        self.tried.retain(|at, tried| match tried.rtt {
            Some(_) => current == Some(*at) || now < tried.since + ANSWER_LASTS,
            None => now < tried.since + TRY_LASTS,
        });
        self.checks.retain(|&(_, _, sent)| now < sent + TRY_LASTS);
    }

    /// When [`Self::handle_timeout`] wants to run next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.current?;
        let check =
            |tried: &Tried| CHECK_AT.get(tried.sent).map_or(tried.since + TRY_LASTS, |after| tried.since + *after);
        // With no room for another check the oldest has to end first.
        let checks = if self.checks.len() < MAX_CHECKS {
            self.tried.values().filter(|tried| tried.rtt.is_none()).map(check).min()
        } else {
            self.checks.front().map(|&(_, _, sent)| sent + TRY_LASTS)
        };
        let guess = self.guess.as_ref().map(Guess::poll_timeout);
        [checks, self.choose_at, self.next_try, self.link_due, self.ask_again, guess].into_iter().flatten().min()
    }

    /// Takes the next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Why packets take a relay, for people.
    pub(crate) fn why_relayed(&self) -> &'static str {
        if self.failed == 0 {
            "the direct way is being tried"
        } else {
            "no direct way was found: both ends are behind NATs or firewalls that do not let them meet"
        }
    }

    /// Whether nothing is sought or doubted, so that nothing needs the session's link.
    pub(crate) fn is_at_rest(&self) -> bool {
        let sought = self.next_try.or(self.choose_at).or(self.link_due).or(self.ask_again);
        sought.is_none()
            && self.stray.is_none()
            && self.suspect.is_none()
            && self.guess.is_none()
            && self.actions.is_empty()
    }

    /// Whether there is no session, and so nothing to do.
    pub(crate) const fn is_gone(&self) -> bool {
        self.current.is_none()
    }

    /// Whether this end wakes a link that sleeps to tell candidates over it. When the path changes both ends have some to tell;
    /// the one that does not choose does so only if nothing came of it before.
    pub(crate) const fn wakes_link(&self) -> bool {
        self.chooses || self.has_failed()
    }

    /// Whether a try for a direct way has come to nothing.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed > 1
    }

    fn begin(&mut self, now: Instant) {
        self.round = self.round.wrapping_add(1);
        let pause = TRY_AGAIN[self.failed.min(TRY_AGAIN.len() - 1)];
        self.failed += 1;
        self.next_try = self.current.is_some_and(is_relayed).then_some(now + pause);
        self.actions.push_back(Action::Tell { round: self.round, answer: false });
    }

    /// Checks an address from `since` on; `false` if it is not to be.
    fn try_at(&mut self, since: Instant, at: SocketAddr, heard: bool) -> bool {
        let is_new = !self.tried.contains_key(&at);
        if Some(at) == self.current || is_new && !self.make_room() {
            return false;
        }
        self.tried.insert(at, Tried { since, sent: 0, rtt: None, heard });
        true
    }

    /// Whether there is room for one more address; the one that answered first and is not in use gives way.
    fn make_room(&mut self) -> bool {
        if self.tried.len() < MAX_TRIED {
            return true;
        }
        let idle = self.tried.iter().filter(|(at, tried)| tried.rtt.is_some() && self.current != Some(**at));
        let oldest = idle.min_by_key(|(_, tried)| tried.since).map(|(at, _)| *at);
        oldest.and_then(|at| self.tried.remove(&at)).is_some()
    }

    fn send_checks(&mut self, now: Instant) {
        for (&to, tried) in &mut self.tried {
            let due = CHECK_AT.get(tried.sent).is_some_and(|after| now >= tried.since + *after);
            if tried.rtt.is_some() || !due || self.checks.len() >= MAX_CHECKS {
                continue;
            }
            tried.sent += 1;
            let id = self.ids.next();
            self.checks.push_back((id, to, now));
            self.actions.push_back(Action::Check { id, to });
        }
    }

    /// Whether the peer names addresses too often to be listened to at all.
    pub(crate) fn has_told_enough(&self, now: Instant) -> bool {
        self.current.is_none() || self.told_debt_at(now) > TOLD_EVERY * TOLD_BURST
    }

    fn told_debt_at(&self, now: Instant) -> Duration {
        let since = self.told_at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        self.told_debt.saturating_sub(since)
    }

    /// A peer causes at most one try every [`TOLD_EVERY`] in the long run.
    fn may_be_told(&mut self, now: Instant) -> bool {
        (self.told_debt, self.told_at) = (self.told_debt_at(now), Some(now));
        if self.told_debt > TOLD_EVERY * TOLD_BURST {
            return false;
        }
        self.told_debt += TOLD_EVERY;
        true
    }
}

/// Whether a router may be there that is confused by who comes too early: only IPv4 is translated, and only outside.
fn takes_amiss(at: SocketAddr) -> bool {
    matches!(at.ip().to_canonical(), IpAddr::V4(ip) if is_outside(ip))
}

/// Whether an address stands for a way through somebody else.
pub(crate) fn is_relayed(at: SocketAddr) -> bool {
    WayId::of(at).is_some()
}

#[cfg(test)]
mod tests;
