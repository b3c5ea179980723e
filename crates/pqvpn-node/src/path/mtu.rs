// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long datagrams to a peer may be: a search by padded probes (RFC 8899), without a word of any router.
//!
//! ```text
//!  moved by the peer -> Ask: a small probe or two
//!                | answered
//!                v
//!  new path -> First: the longest there is -- answered --------------------------------> Idle
//!                | no answer                                                              | long datagrams in use,
//!                v                                                                        | unconfirmed for a while
//!              Ladder: many lengths at once, the best that is answered counts             v
//!                |                      ^ answered                                     Confirm: the length in use
//!                v                      |                                                 |
//!              Climb: the next length, until it is answered or surely lost -> Idle        | surely lost: a hole
//!                ^                                                                        v
//!                +--------------------------- Ladder, from the shortest length on <-------+
//! ```
//! Every padded probe goes with a small one; where a length in use is doubted, with one of 500
//! bytes, and where a longer one is sought, with one as long as passes. That a length is surely lost takes small ones that were answered while the
//! padded before them was not, so often in a row that loss as it was seen on this path would do that once in a million
//! times. What is longer than the path carries is cut into pieces meanwhile, so that a wrong verdict costs little.
//! Whoever made the peer's packets come from somewhere else may have forged that: nothing long goes there before an answer,
//! and in all no more than a few times what came.
//! A pure state machine: time is an argument; ids cannot be guessed, and only an answer from where the probe went counts.

mod evidence;
mod lengths;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use pqvpn_dataplane::{PathSize, SURE_LEN};
use pqvpn_packet::header::OVERHEAD;

use self::evidence::{Loss, Sent, Trial};
use super::ids::Ids;

/// Length that is taken to pass everywhere, and the shortest a path falls to.
const FLOOR: u16 = SURE_LEN as u16;
/// Length taken for good on a new path until it is known better: QUIC passes there (RFC 9000 14).
const BASE: u16 = 1200;
/// What the data plane goes by before the search on a first path has begun.
pub(crate) const FIRST_SIZE: PathSize = PathSize { carry: BASE, advise: u16::MAX, narrow: false };
/// Time between probes: half the round trip, within these bounds, and which is taken for it before it is known.
const WAIT: (Duration, Duration) = (Duration::from_millis(60), Duration::from_millis(500));
const RTT_UNKNOWN: Duration = Duration::from_millis(200);
/// How long after the answer to a small probe that to the padded one before it may come, besides half a round trip.
const GRACE: Duration = Duration::from_millis(30);
/// Longest time between probes where nothing is answered, and how often they are sent then.
const SLOW: Duration = Duration::from_secs(2);
const SILENT_TICKS: u32 = 24;
/// A small probe without an answer for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// A length in use is confirmed when it was not for so long.
const CONFIRM_EVERY: Duration = Duration::from_millis(500);
/// First and longest time until longer datagrams are tried again.
const RAISE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// Probes of all lengths that make a ladder.
const LADDER_TICKS: u32 = 2;
/// Fewest answered small probes that make a verdict.
const LEAST_EVIDENCE: u32 = 4;
/// Natural logarithm of a million: how much less likely than a hole mere loss must be.
const SURE: f64 = 13.8;
/// Small probes that an address without any answer is sent for the packet by which the peer moved there.
const ASKS: u32 = 2;
/// Probes that wait for their answer.
const MAX_SENT: usize = 128;

/// A probe to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeProbe {
    /// Comes back with the answer.
    pub(crate) id: u64,
    /// Where to.
    pub(crate) to: SocketAddr,
    /// Length of the datagram; 0: as short as it can be.
    pub(crate) len: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Ask,
    First,
    Ladder,
    Climb,
    Confirm,
    Raise,
}

/// The search on the path to one peer.
#[derive(Debug)]
pub(crate) struct Mtu {
    remote: Option<SocketAddr>,
    /// Whether the peer is there for sure: its link is, or it has answered from there.
    vouched: bool,
    /// Small probes that may still go where it is not sure, and when the last went.
    asks: u32,
    asked: Option<Instant>,
    target: u16,
    /// Longest length that was answered on this path, 0 if none.
    proven: u16,
    /// What is taken for good without that.
    assumed: u16,
    /// Shortest length that is surely lost.
    bad: u16,
    phase: Phase,
    trials: Vec<Trial>,
    sent: VecDeque<Sent>,
    witnessed: VecDeque<(u64, Instant)>,
    tick: u64,
    ticks_of_phase: u32,
    /// Whether a small probe of this phase was answered long ago enough.
    heard: bool,
    silent: u32,
    due: Option<Instant>,
    loss: Loss,
    /// Of lengths in use, where they were answered after all.
    long: Loss,
    /// The length that was taken for lost last, and the evidence for it.
    doubted: Option<(u16, u32)>,
    rtt: Option<Duration>,
    confirmed: Option<Instant>,
    raise_at: Option<Instant>,
    raise_after: Duration,
    ids: Ids,
    probes: VecDeque<SizeProbe>,
    told: Option<PathSize>,
    /// Where a path led of which the data plane may know something.
    left: Vec<SocketAddr>,
    holes: u64,
}

impl Mtu {
    /// A peer without a path. `secret` is random.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self::without_path(Ids::new(secret))
    }

    fn without_path(ids: Ids) -> Self {
        Self {
            remote: None,
            vouched: false,
            asks: ASKS,
            asked: None,
            target: 0,
            proven: 0,
            assumed: BASE,
            bad: u16::MAX,
            phase: Phase::Idle,
            trials: Vec::new(),
            sent: VecDeque::new(),
            witnessed: VecDeque::new(),
            tick: 0,
            ticks_of_phase: 0,
            heard: false,
            silent: 0,
            due: None,
            loss: Loss::default(),
            long: Loss::default(),
            doubted: None,
            rtt: None,
            confirmed: None,
            raise_at: None,
            raise_after: RAISE.0,
            ids,
            probes: VecDeque::new(),
            told: None,
            left: Vec::new(),
            holes: 0,
        }
    }

    /// Packets take a path on which inner packets of `inner` bytes are wanted; a new one is searched. `vouched`: that the
    /// peer is there is known by more than a packet of its own, whose source may be forged.
    pub(crate) fn on_path(&mut self, now: Instant, remote: SocketAddr, inner: u16, vouched: bool) {
        let target = inner.saturating_add(OVERHEAD as u16);
        let is_known = self.remote == Some(remote);
        if is_known && self.target == target && (self.vouched || !vouched) {
            return;
        }
        let asks = if is_known { self.asks } else { ASKS };
        self.begin(now, remote, target, vouched || is_known && self.vouched, asks);
    }

    /// Our own network is another one: nothing of what was found holds.
    pub(crate) fn on_network(&mut self, now: Instant) {
        if let Some(remote) = self.remote {
            self.begin(now, remote, self.target, self.vouched, self.asks);
        }
    }

    fn begin(&mut self, now: Instant, remote: SocketAddr, target: u16, vouched: bool, asks: u32) {
        if self.remote != Some(remote) {
            self.left.extend(self.remote);
        }
        *self = Self {
            remote: Some(remote),
            left: std::mem::take(&mut self.left),
            vouched,
            asks,
            asked: self.asked.filter(|_| self.remote == Some(remote)),
            target,
            assumed: BASE.min(target),
            bad: target.saturating_add(1),
            tick: self.tick,
            holes: self.holes,
            ..Self::without_path(self.ids.clone())
        };
        self.enter(now, if vouched { Phase::First } else { Phase::Ask });
    }

    /// The last session has gone.
    pub(crate) fn on_gone(&mut self) {
        self.left.extend(self.remote);
        let left = std::mem::take(&mut self.left);
        *self = Self { holes: self.holes, left, ..Self::without_path(self.ids.clone()) };
    }

    /// Something of the peer came from `from` at `at`: it may be asked there once more.
    pub(crate) fn on_heard(&mut self, now: Instant, from: SocketAddr, at: Instant) {
        let is_new = self.asked.is_some_and(|asked| at > asked);
        if self.phase == Phase::Ask && self.due.is_none() && self.remote == Some(from) && is_new {
            self.asks = 1;
            self.enter(now, Phase::Ask);
        }
    }

    /// Long datagrams are being sent.
    pub(crate) fn on_long_in_use(&mut self, now: Instant) {
        if self.remote.is_none() || self.phase != Phase::Idle {
            return;
        }
        let confirm_at = self.confirmed.map_or(now, |at| at + CONFIRM_EVERY);
        if self.is_raise_due(now) {
            self.enter(now, Phase::Raise);
        } else if self.carry() > FLOOR && confirm_at > now {
            // Later: what was confirmed a moment ago may be lost by now.
            self.due = Some(confirm_at);
        } else if self.carry() > FLOOR {
            self.enter(now, Phase::Confirm);
        }
    }

    /// The system refuses datagrams as too long: a hint that the length in use is to be looked at.
    pub(crate) fn on_too_long(&mut self, now: Instant) {
        if self.remote.is_some() && self.phase == Phase::Idle && self.carry() > FLOOR {
            self.enter(now, Phase::Confirm);
        }
    }

    /// A probe was refused as too long before it left.
    pub(crate) fn on_unsent(&mut self, now: Instant, id: u64) {
        let Some(at) = self.sent.iter().position(|sent| sent.id == id) else { return };
        let Some(Sent { len, .. }) = self.sent.remove(at) else { return };
        if len > FLOOR && self.trials.iter().any(|trial| trial.len == len) {
            self.fail(now, len);
        }
    }

    /// The answer to a probe came from `from`; `false` when it was none of ours. An answer by another road says nothing.
    pub(crate) fn on_ack(&mut self, now: Instant, id: u64, from: SocketAddr, at: Instant) -> bool {
        let Some(position) = self.sent.iter().position(|sent| sent.id == id) else { return false };
        let Some(sent) = self.sent.remove(position) else { return false };
        if self.remote != Some(from) {
            return true;
        }
        let sample = at.saturating_duration_since(sent.at);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| rtt * 7 / 8 + sample / 8));
        self.silent = 0;
        if !self.vouched {
            self.vouched = true;
            self.enter(now, Phase::First);
        }
        if sent.is_witness {
            self.loss.add(false);
            self.witnessed.push_back((sent.tick, at));
            return true;
        }
        self.proven = self.proven.max(sent.len);
        self.bad = self.bad.max(self.proven.saturating_add(1));
        if let Some((_, evidence)) = self.doubted.take_if(|(len, _)| *len <= sent.len) {
            self.long.add_answered_after(evidence);
        }
        if sent.len >= self.carry() {
            self.confirmed = Some(now);
            if let Some(trial) = self.trials.iter().find(|trial| trial.len == sent.len) {
                self.long.add_answered_after(trial.evidence);
            }
        }
        self.trials.retain(|trial| trial.len > sent.len);
        if self.trials.is_empty() {
            self.on_all_answered(now);
        }
        true
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.forget_lost(now);
        self.weigh(now);
        if self.silent >= SILENT_TICKS {
            // Nobody is there: this is not about lengths.
            self.rest(now);
            return;
        }
        let over = self.ticks_of_phase >= LADDER_TICKS;
        match self.phase {
            Phase::Idle if self.is_raise_due(now) => self.enter(now, Phase::Raise),
            Phase::Idle => self.enter(now, Phase::Confirm),
            // Without any answer there is nothing to compare with.
            Phase::First if over && self.heard => self.enter(now, Phase::Ladder),
            Phase::Ladder if over && self.heard => self.on_ladder_done(now),
            Phase::Ask => self.ask(now),
            Phase::Raise if over => self.rest(now),
            Phase::First | Phase::Ladder | Phase::Raise => self.send(now),
            Phase::Climb | Phase::Confirm => match self.trials.iter().find(|trial| self.is_lost(trial)).copied() {
                Some(lost) => self.fail(now, lost.len),
                None => self.send(now),
            },
        }
    }

    /// When [`Self::handle_timeout`] wants to run next.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Takes an address of which the data plane is to forget what was found: the path is another one, and who is there may
    /// be somebody else.
    pub(crate) fn poll_left(&mut self) -> Option<SocketAddr> {
        self.left.pop()
    }

    /// Takes the next probe to be sent.
    pub(crate) fn poll_probe(&mut self) -> Option<SizeProbe> {
        self.probes.pop_front()
    }

    fn is_raise_due(&self, now: Instant) -> bool {
        self.raise_at.is_some_and(|at| at <= now)
    }

    fn carry(&self) -> u16 {
        self.proven.max(self.assumed).min(self.target)
    }

    fn enter(&mut self, now: Instant, phase: Phase) {
        (self.phase, self.ticks_of_phase, self.heard, self.silent) = (phase, 0, false, 0);
        self.witnessed.clear();
        let lens = match phase {
            Phase::Idle | Phase::Ask => Vec::new(),
            Phase::First => vec![self.target],
            Phase::Ladder | Phase::Raise => self.rungs(),
            Phase::Climb => self.next_up().into_iter().collect(),
            Phase::Confirm => vec![self.carry()],
        };
        // The first witness of a length in use is short, and says nothing.
        let since = self.tick + if phase == Phase::Confirm { 2 } else { 1 };
        self.trials = lens.into_iter().map(|len| Trial { len, since, evidence: 0 }).collect();
        match phase {
            _ if !self.trials.is_empty() => self.send(now),
            Phase::Ask => self.ask(now),
            // No rung is left: the exact length is.
            Phase::Ladder => self.enter(now, Phase::Climb),
            Phase::Idle | Phase::First | Phase::Climb | Phase::Confirm | Phase::Raise => self.rest(now),
        }
    }

    /// Sends a small probe to where the peer may not be, if one is left.
    fn ask(&mut self, now: Instant) {
        self.due = None;
        if let Some(left) = self.asks.checked_sub(1) {
            (self.asks, self.asked) = (left, Some(now));
            self.send(now);
            self.due = Some(now + LOST_AFTER);
        }
    }

    fn rest(&mut self, now: Instant) {
        let confirmed = std::mem::replace(&mut self.phase, Phase::Idle) == Phase::Confirm;
        self.due = None;
        self.trials.clear();
        if confirmed {
            return;
        }
        self.raise_at = (self.carry() < self.target).then(|| now + self.raise_after);
        if self.raise_at.is_some() {
            self.raise_after = (self.raise_after * 2).min(RAISE.1);
        }
    }

    /// Everything under test passes.
    fn on_all_answered(&mut self, now: Instant) {
        match self.phase {
            Phase::Idle | Phase::Ask => {}
            Phase::Climb if self.proven < self.target => self.enter(now, Phase::Ladder),
            Phase::Raise if self.proven < self.target => self.enter(now, Phase::Climb),
            // The ladder leaves out what failed before.
            Phase::Ladder => self.on_ladder_done(now),
            Phase::First | Phase::Climb | Phase::Confirm | Phase::Raise => self.rest(now),
        }
    }

    fn on_ladder_done(&mut self, now: Instant) {
        // What QUIC needs did not pass either, or is proven by now.
        self.assumed = FLOOR.min(self.target);
        self.enter(now, Phase::Climb);
    }

    /// A length is surely lost.
    fn fail(&mut self, now: Instant, len: u16) {
        let evidence = self.trials.iter().find(|trial| trial.len == len).map_or(0, |trial| trial.evidence);
        self.bad = self.bad.min(len).max(FLOOR + 1);
        self.trials.retain(|trial| trial.len < len);
        // What is answered late was sent before that.
        self.sent.retain(|sent| sent.len < len);
        if len <= self.carry() {
            self.holes += 1;
            // It may have been loss of another kind: the ladder looks at the length itself.
            (self.bad, self.doubted) = (len.saturating_add(1), Some((len, evidence)));
            (self.proven, self.assumed) = (0, FLOOR.min(self.target));
            self.raise_after = RAISE.0;
            self.enter(now, Phase::Ladder);
        } else if self.trials.is_empty() {
            let next = if self.phase == Phase::First { Phase::Ladder } else { Phase::Climb };
            self.enter(now, next);
        }
    }

    /// Sends what is under test, and a witness behind it: a small probe, or one that is long enough to share the fate of long
    /// ones where loss goes by bytes.
    fn send(&mut self, now: Instant) {
        let Some(to) = self.remote else { return };
        self.tick += 1;
        self.ticks_of_phase += 1;
        self.silent += 1;
        let witness = match self.phase {
            Phase::Confirm if self.ticks_of_phase > 1 => FLOOR,
            Phase::Climb => self.carry(),
            Phase::Idle | Phase::Ask | Phase::First | Phase::Ladder | Phase::Confirm | Phase::Raise => 0,
        };
        let lens = self.trials.iter().map(|trial| (trial.len, false)).chain([(witness, true)]);
        for (len, is_witness) in lens.collect::<Vec<_>>() {
            let id = self.ids.next();
            if self.sent.len() >= MAX_SENT {
                self.sent.pop_front();
            }
            self.sent.push_back(Sent { id, len, is_witness, at: now, tick: self.tick });
            self.probes.push_back(SizeProbe { id, to, len });
        }
        self.due = Some(now + self.wait());
    }

    fn wait(&self) -> Duration {
        let wait = (self.rtt.unwrap_or(RTT_UNKNOWN) / 2).clamp(WAIT.0, WAIT.1);
        (wait * (1 << (self.silent / 4).min(5))).min(SLOW.max(wait))
    }

    fn forget_lost(&mut self, now: Instant) {
        let patience = LOST_AFTER.max(self.rtt.unwrap_or(RTT_UNKNOWN) * 3);
        while let Some(sent) = self.sent.front()
            && now.saturating_duration_since(sent.at) >= patience
        {
            if sent.is_witness {
                self.loss.add(true);
            }
            self.sent.pop_front();
        }
    }

    /// Counts the small probes that were answered long enough ago for the padded one before them to be answered too.
    fn weigh(&mut self, now: Instant) {
        let grace = GRACE + self.rtt.unwrap_or(RTT_UNKNOWN) / 2;
        while let Some(&(tick, at)) = self.witnessed.front()
            && now.saturating_duration_since(at) >= grace
        {
            self.witnessed.pop_front();
            self.heard = true;
            self.trials.iter_mut().filter(|trial| trial.since <= tick).for_each(|trial| trial.evidence += 1);
        }
    }

    fn is_lost(&self, trial: &Trial) -> bool {
        let share = self.loss.share().max(self.long.share_if_any());
        trial.evidence >= LEAST_EVIDENCE && f64::from(trial.evidence) * -share.ln() >= SURE
    }
}

#[cfg(test)]
mod tests;
