// SPDX-License-Identifier: MIT OR Apache-2.0
//! One peer's life: when to dial, probe, rest and give up.
//!
//! ```text
//!            want            dial ok
//!   Resting ------> Dialing ---------> Up --(idle 180 s / closed by peer)--> Resting
//!      ^              |                |
//!      |              | failed         | probes unanswered
//!      +-- demand ----+ back-off <-----+   (dials again at once while there is demand)
//! ```
//! A pure state machine: time and the data plane's activity are arguments. "Verified" comes from authenticated probe
//! round trips and from nothing else; a session in use is probed often enough to stay verified, a session not in use
//! costs nothing and is closed after a while.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A round trip younger than this makes a peer `verified` (cli.md, `status --json`).
pub const VERIFIED_WITHIN: Duration = Duration::from_secs(30);
/// A session in use is probed when its last round trip is older than this: a lost probe can be repeated in time.
const REFRESH_AFTER: Duration = Duration::from_secs(20);
/// Data younger than this keeps a session "in use".
const IN_USE_WITHIN: Duration = Duration::from_secs(30);
/// A session without data, and that the peer does not keep alive, is closed after this long: nothing on the wire for
/// an idle peer.
const IDLE_AFTER: Duration = Duration::from_secs(180);
/// Data sent and nothing heard for this long raises suspicion.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// Shortest time between repeated probes.
const PROBE_RETRY: Duration = Duration::from_millis(400);
/// Unanswered probes in a row after which the peer is taken for dead.
const PROBES_UNTIL_DEAD: usize = 8;
/// And after which another path is looked for.
const PROBES_UNTIL_SUSPECT: usize = 2;
/// How long the last of these may take, after those before it have had their time.
const JUDGE_AFTER: Duration = Duration::from_millis(200);
/// Demand (a parked packet, a ping) lasts this long without being repeated.
const DEMAND_LASTS: Duration = Duration::from_secs(30);
/// First and longest pause between dials.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Pause after a refusal: only a change of config on either side helps.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// A session that ends sooner counts as a failed dial: a peer that accepts us only to close again is not hammered.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// So long both ends talk about a session that takes the place of another: that is no use of it.
const RENEWAL_TALKS: Duration = Duration::from_secs(10);
/// How often a session that is in use, or waits for an answer, is looked at.
const TICK: Duration = Duration::from_millis(300);
/// How soon a session is looked at again that rests, if nothing is due before and nothing happens.
const REST_TICK: Duration = Duration::from_secs(30);
/// Weight of the newest loss sample.
const LOSS_WEIGHT: f64 = 0.1;

/// What the data plane saw of the peer, by its own clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Last authenticated packet of any kind.
    pub last_rx: Option<Instant>,
    /// Last packet of any kind sent.
    pub last_tx: Option<Instant>,
    /// Last inner packet received.
    pub last_data_rx: Option<Instant>,
    /// Last inner packet sent.
    pub last_data_tx: Option<Instant>,
}

/// What the owner of the machine shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make a link and a session.
    Dial,
    /// Send a probe with this id through the tunnel.
    Probe(u64),
    /// Close session and link: nobody uses them.
    CloseIdle,
    /// Drop session and link: the peer does not answer.
    Dead,
}

/// Where the peer is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resting { not_before: Option<Instant> },
    Dialing,
    Up { since: Instant },
}

/// Sessions with a peer one after the other, without a break.
#[derive(Debug, Clone, Copy)]
struct Held {
    begun: Instant,
    /// When the newest took the place of another.
    renewed: Option<Instant>,
    /// Last data, or word of a peer that keeps the session alive.
    last_use: Instant,
}

impl Held {
    fn note(&mut self, last_data: Instant, last_rx: Option<Instant>) {
        let talk = |at: Instant| self.renewed.is_some_and(|renewed| at >= renewed && at < renewed + RENEWAL_TALKS);
        let heard = last_rx.filter(|at| !talk(*at));
        self.last_use = self.last_use.max(heard.map_or(last_data, |at| at.max(last_data)));
    }
}

/// The state of one peer.
#[derive(Debug)]
pub struct PeerLife {
    phase: Phase,
    /// While a session carries packets.
    held: Option<Held>,
    keepalive: Option<Duration>,
    demand_until: Option<Instant>,
    backoff: Duration,
    refused: bool,
    verified_at: Option<Instant>,
    rtt: Option<Duration>,
    loss: f64,
    outstanding: VecDeque<(u64, Instant)>,
    last_probe: Option<Instant>,
    unanswered_since: Option<Instant>,
    /// When probes were sent that count as signs of death: those of one moment are one, they are lost together.
    signs: VecDeque<Instant>,
    /// Of these, those since anything was heard.
    unheard: usize,
    next_probe_id: u64,
    /// When a session is looked at next.
    look_at: Option<Instant>,
    actions: VecDeque<Action>,
}

impl PeerLife {
    /// Makes a resting peer. `keepalive` holds a session open for a NAT's sake; `first_probe_id` is random, so that a
    /// restarted node's probes cannot be taken for old ones.
    #[must_use]
    pub fn new(keepalive: Option<Duration>, first_probe_id: u64) -> Self {
        Self {
            phase: Phase::Resting { not_before: None },
            held: None,
            keepalive,
            demand_until: None,
            backoff: BACKOFF.0,
            refused: false,
            verified_at: None,
            rtt: None,
            loss: 0.0,
            outstanding: VecDeque::new(),
            last_probe: None,
            unanswered_since: None,
            signs: VecDeque::new(),
            unheard: 0,
            next_probe_id: first_probe_id,
            look_at: None,
            actions: VecDeque::new(),
        }
    }

    /// Somebody wants to reach the peer: a packet is parked, a ping waits, or the keepalive asks for it.
    pub fn want(&mut self, now: Instant) {
        self.demand_until = Some(now + DEMAND_LASTS);
        self.dial_if_due(now);
    }

    /// A person asks for the peer: the back-off that protects it from machines does not stand in the way.
    pub fn ask(&mut self, now: Instant) {
        self.backoff = BACKOFF.0;
        if let Phase::Resting { not_before } = &mut self.phase {
            *not_before = None;
        }
        self.want(now);
    }

    /// What stood in the way of a dial is gone: somebody who waits need not wait out the pause.
    pub fn on_obstacle_gone(&mut self, now: Instant) {
        self.backoff = BACKOFF.0;
        self.refused = false;
        if let Phase::Resting { not_before } = &mut self.phase {
            *not_before = None;
        }
        self.dial_if_due(now);
    }

    /// How often the path is kept open from now on.
    pub fn set_keepalive(&mut self, keepalive: Option<Duration>) {
        self.keepalive = keepalive;
    }

    /// A dial failed; `refused` when either side said no on purpose.
    pub fn on_dial_failed(&mut self, now: Instant, refused: bool) {
        if self.phase != Phase::Dialing {
            return;
        }
        self.refused = refused;
        let pause = self.next_pause();
        self.phase = Phase::Resting { not_before: Some(now + if refused { REFUSED_PAUSE } else { pause }) };
    }

    /// The peer does not know us, but belongs to a network of ours: it will, once it has heard of us as we of it.
    pub fn on_dial_premature(&mut self, now: Instant) {
        if self.phase == Phase::Dialing {
            self.on_dial_failed(now, false);
            self.refused = true;
        }
    }

    /// A session (ours or the peer's making) carries packets.
    pub fn on_session_up(&mut self, now: Instant) {
        self.phase = Phase::Up { since: now };
        match &mut self.held {
            Some(held) => held.renewed = Some(now),
            None => self.held = Some(Held { begun: now, renewed: None, last_use: now }),
        }
        self.refused = false;
        // What was decided about the one before does not concern this one.
        self.actions.retain(|action| matches!(action, Action::Probe(_)));
        // Probes on an older session may still be answered; without one there are none.
        self.probe(now);
    }

    /// The last session with the peer has gone, for another reason than an action of this machine.
    pub fn on_session_gone(&mut self, now: Instant) {
        if let Phase::Up { since } = self.phase {
            self.rest_after(now, since);
            self.dial_if_due(now);
        }
    }

    /// The peer ended the last session for another one of ours that this machine does not have: another daemon may have our
    /// identity. It is not fought over: a session is made again when somebody wants one anew.
    pub fn on_session_taken(&mut self, now: Instant) {
        if let Phase::Up { since } = self.phase {
            self.rest_after(now, since);
            self.demand_until = None;
        }
    }

    /// The node goes down: nobody wants anything any more.
    pub fn stop(&mut self) {
        self.demand_until = None;
        self.backoff = BACKOFF.0;
        (self.phase, self.held) = (Phase::Resting { not_before: None }, None);
        self.forget_probes();
        self.actions.clear();
    }

    /// A probe came back through the tunnel. Returns its round-trip time when it was one of ours.
    pub fn on_probe_ack(&mut self, id: u64, at: Instant) -> Option<Duration> {
        let position = self.outstanding.iter().position(|&(sent, _)| sent == id)?;
        let (_, sent_at) = self.outstanding.remove(position)?;
        let sample = at.saturating_duration_since(sent_at);
        // RFC 6298 §2: SRTT with a gain of 1/8.
        self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt * 7 / 8 + sample / 8));
        self.loss *= 1.0 - LOSS_WEIGHT;
        self.verified_at = Some(at);
        self.unanswered_since = None;
        self.signs.retain(|&sign| sign > sent_at);
        Some(sample)
    }

    /// Sends a probe now, whatever the timers say (a ping). Returns its id.
    pub fn probe(&mut self, now: Instant) -> u64 {
        let id = self.next_probe_id;
        self.next_probe_id = self.next_probe_id.wrapping_add(1);
        self.outstanding.push_back((id, now));
        if self.outstanding.len() > 4 * PROBES_UNTIL_DEAD {
            self.outstanding.pop_front();
        }
        self.last_probe = Some(now);
        let retry = self.probe_retry();
        if self.signs.back().is_none_or(|&last| now.saturating_duration_since(last) >= retry) {
            self.signs.push_back(now);
        }
        if self.signs.len() > 4 * PROBES_UNTIL_DEAD {
            self.signs.pop_front();
        }
        let again = now + retry;
        self.look_at = Some(self.look_at.map_or(again, |at| at.min(again)));
        self.actions.push_back(Action::Probe(id));
        id
    }

    /// Looks at the clock and at what the data plane saw.
    pub fn handle_timeout(&mut self, now: Instant, seen: Activity) {
        let Phase::Up { since } = self.phase else {
            if self.keepalive.is_some() {
                self.demand_until = Some(now + DEMAND_LASTS);
            }
            self.dial_if_due(now);
            return;
        };
        let held = self.held.get_or_insert(Held { begun: since, renewed: None, last_use: since });
        let last_data = seen.last_data_rx.max(seen.last_data_tx).map_or(held.begun, |at| at.max(held.begun));
        held.note(last_data, seen.last_rx);
        let last_use = held.last_use;
        if self.is_dead(now, seen) {
            self.end(now, since, now.saturating_duration_since(last_data) < IN_USE_WITHIN, Action::Dead);
        } else if self.keepalive.is_none() && now.saturating_duration_since(last_use) >= IDLE_AFTER {
            self.end(now, since, false, Action::CloseIdle);
        } else {
            self.watch_answers(now, seen);
            if self.probe_due(now, last_data, seen) {
                self.probe(now);
            }
            let data = seen.last_data_rx.max(seen.last_data_tx);
            let flows = data.is_some_and(|at| now.saturating_duration_since(at) < IN_USE_WITHIN);
            let tick = if flows { now + TICK } else { self.rest_until(now, last_data, last_use, seen) };
            self.look_at = Some(self.next_look(now, tick));
        }
    }

    /// Takes the next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to run next; `None` while there is nothing to wait for.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match self.phase {
            Phase::Dialing => None,
            Phase::Up { since } => Some(self.look_at.unwrap_or(since + TICK)),
            Phase::Resting { not_before } => {
                let wanted = self.keepalive.is_some() || self.demand_until.is_some_and(|until| until > now);
                wanted.then(|| not_before.unwrap_or(now).max(now))
            }
        }
    }

    /// Age of the newest authenticated round trip.
    #[must_use]
    pub fn verified_age(&self, now: Instant) -> Option<Duration> {
        self.verified_at.map(|at| now.saturating_duration_since(at))
    }

    /// Smoothed in-tunnel round-trip time.
    #[must_use]
    pub const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Smoothed share of lost probes.
    #[must_use]
    pub const fn loss(&self) -> f64 {
        self.loss
    }

    /// Whether the path in use seems dead: probes on it stay without an answer, and nothing else is heard.
    #[must_use]
    pub fn is_suspicious(&self) -> bool {
        self.is_up() && self.unheard >= PROBES_UNTIL_SUSPECT
    }

    /// Whether a session carries packets.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// Whether a link is being made.
    #[must_use]
    pub const fn is_dialing(&self) -> bool {
        matches!(self.phase, Phase::Dialing)
    }

    /// Whether the last attempt was refused on purpose.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.refused
    }

    fn is_dead(&self, now: Instant, seen: Activity) -> bool {
        let last = self.unheard(seen).nth(PROBES_UNTIL_DEAD - 1);
        let patience = self.rtt.map_or(PROBE_RETRY, |rtt| (rtt * 3).max(PROBE_RETRY));
        last.is_some_and(|sent| now.saturating_duration_since(sent) >= patience)
    }

    /// When those probes were sent that count and since which nothing was heard.
    fn unheard(&self, seen: Activity) -> impl Iterator<Item = Instant> {
        self.signs.iter().copied().filter(move |&sent| seen.last_rx.is_none_or(|at| at < sent))
    }

    fn watch_answers(&mut self, now: Instant, seen: Activity) {
        let unanswered = seen.last_data_tx.is_some() && seen.last_data_tx > seen.last_rx;
        self.unheard = self.unheard(seen).count();
        // Data that goes out all the time is silence only from when the peer was last heard.
        self.unanswered_since =
            unanswered.then(|| self.unanswered_since.unwrap_or(now)).max(seen.last_rx.filter(|_| unanswered));
        // What was heard since proves the peer lives: those probes are lost or late, not the peer.
        let heard = seen.last_rx;
        let retry = self.probe_retry();
        let before = self.outstanding.len();
        self.outstanding
            .retain(|&(_, sent)| heard.is_none_or(|at| at < sent) || now.saturating_duration_since(sent) < retry * 4);
        for _lost in self.outstanding.len()..before {
            self.loss = self.loss * (1.0 - LOSS_WEIGHT) + LOSS_WEIGHT;
        }
    }

    fn probe_due(&self, now: Instant, last_data: Instant, seen: Activity) -> bool {
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        if since(self.last_probe) < self.probe_retry() {
            return false;
        }
        let suspicious = self.unanswered_since.is_some_and(|at| now.saturating_duration_since(at) >= SUSPECT_AFTER);
        let repeat = !self.outstanding.is_empty();
        let in_use = now.saturating_duration_since(last_data) < IN_USE_WITHIN;
        let stale = in_use && since(self.verified_at) >= REFRESH_AFTER;
        let keepalive = self.keepalive.is_some_and(|every| since(seen.last_tx) >= every);
        suspicious || repeat || stale || keepalive
    }

    /// Whether [`Self::handle_timeout`] has nothing to do yet if the data plane has seen nothing new.
    #[must_use]
    pub fn rests(&self, now: Instant) -> bool {
        self.is_up() && self.look_at.is_some_and(|at| at > now)
    }

    /// When a session that rests has something to do, if nothing happens.
    fn rest_until(&self, now: Instant, last_data: Instant, last_use: Instant, seen: Activity) -> Instant {
        let in_use = now.saturating_duration_since(last_data) < IN_USE_WITHIN;
        let refresh = self.verified_at.filter(|_| in_use).map(|at| at + REFRESH_AFTER);
        let due = match self.keepalive {
            Some(every) => seen.last_tx.map_or(now, |at| at + every),
            None => last_use + IDLE_AFTER,
        };
        refresh.map_or(due, |at| at.min(due)).clamp(now + TICK, now + REST_TICK)
    }

    /// When to look again: at `tick`, or as soon as silence becomes suspicious, a probe is repeated, or one that was
    /// repeated has had its time. Who waits for the next tick each time finds another path half a second later.
    fn next_look(&self, now: Instant, tick: Instant) -> Instant {
        let suspicious = self.unanswered_since.map(|at| at + SUSPECT_AFTER);
        let last = self.last_probe.filter(|_| !self.outstanding.is_empty());
        let repeat = last.map(|at| at + self.probe_retry());
        let judge = last.filter(|_| self.outstanding.len() >= PROBES_UNTIL_SUSPECT).map(|at| at + JUDGE_AFTER);
        let next = [suspicious, repeat, judge].into_iter().flatten().filter(|at| *at > now).min();
        next.map_or(tick, |at| at.min(tick))
    }

    fn probe_retry(&self) -> Duration {
        self.rtt.map_or(PROBE_RETRY, |rtt| (rtt * 2).max(PROBE_RETRY))
    }

    fn dial_if_due(&mut self, now: Instant) {
        let Phase::Resting { not_before } = self.phase else { return };
        let wanted = self.demand_until.is_some_and(|until| until > now);
        if wanted && not_before.is_none_or(|at| at <= now) {
            self.phase = Phase::Dialing;
            self.actions.push_back(Action::Dial);
        }
    }

    fn end(&mut self, now: Instant, since: Instant, wanted: bool, action: Action) {
        self.actions.push_back(action);
        self.rest_after(now, since);
        if wanted {
            self.want(now);
        }
    }

    /// Rests after a session that began at `since`.
    fn rest_after(&mut self, now: Instant, since: Instant) {
        let settled = now.saturating_duration_since(since) >= SETTLED_AFTER;
        let not_before = if settled { None } else { Some(now + self.next_pause()) };
        if settled {
            self.backoff = BACKOFF.0;
        }
        (self.phase, self.held) = (Phase::Resting { not_before }, None);
        self.forget_probes();
    }

    /// The pause before the next dial; the one after it is longer.
    fn next_pause(&mut self) -> Duration {
        let pause = self.backoff;
        self.backoff = (pause * 2).min(BACKOFF.1);
        pause
    }

    fn forget_probes(&mut self) {
        self.outstanding.clear();
        self.look_at = None;
        self.last_probe = None;
        self.unanswered_since = None;
        self.signs.clear();
        self.unheard = 0;
    }
}

#[cfg(test)]
mod tests;
