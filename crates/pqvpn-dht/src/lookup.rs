// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lookup as an iterator over disjoint paths (Baumgart & Mies, "S/Kademlia", 2007; security.md 7.3).
//!
//! ```text
//! seeds ─► paths: d walks, no node asked by two, no contact shared ─► merge: the k nearest of all must answer
//!            ▲                                                            │
//!            └── more paths: a value is missing, the region too sparse ◄──┤
//!                                                                         ▼
//!                            done ◄── sweep: points all over the region, past the Sybils at its centre
//! ```
//! A node counts at the position it was named at: the caller must report a failure for an answer whose sender turns out
//! to be elsewhere in the space, or not to be admitted at all.

mod known;
mod pace;
mod path;
mod stages;
mod sweep;
mod types;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Point, Record};

pub use types::{Answered, Ask, Goal, LookupConfig, LookupId, LookupOutcome, LookupReply, LookupStats, Step};

use crate::Now;
use known::{Candidate, Flight, Id, Known};
use pace::Pace;
use path::Path;
use stages::Stage;
use sweep::Sweep;

/// How often the caller may ask a node that does not answer in time.
pub(crate) const TRIES: u8 = 3;

/// One lookup under way.
#[derive(Debug)]
pub struct Lookup {
    id: LookupId,
    target: Point,
    goal: Goal,
    config: LookupConfig,
    started: Duration,
    stage: Stage,
    known: Known,
    paths: Vec<Path>,
    /// Seeds no path has taken yet, those of one subnet together, in the caller's order.
    pool: VecDeque<Vec<Arc<Contact>>>,
    /// Whether more paths were opened after the merge.
    reopened: bool,
    sweep: Option<Sweep>,
    random: u64,
    /// Round trips up to the last answer or failure of all.
    clock: u32,
    pace: Pace,
    record: Option<Arc<Record>>,
    rival: Option<Arc<Record>>,
    /// Who gave the newest record.
    givers: Vec<PeerId>,
    stats: LookupStats,
}

impl Lookup {
    /// Begins a lookup from contacts of our own table, those first that are nearest or trusted most; up to 3 per path
    /// are of use. `seed` makes the choices between equals repeatable.
    #[must_use]
    pub fn new(
        now: Now,
        id: LookupId,
        target: Point,
        goal: Goal,
        seeds: Vec<Arc<Contact>>,
        config: LookupConfig,
        seed: u64,
    ) -> Self {
        let mut lookup = Self {
            id,
            target,
            goal,
            config,
            started: now.mono,
            stage: Stage::Paths,
            known: Known::new(target, config.own),
            paths: Vec::new(),
            pool: stages::pool(seeds),
            reopened: false,
            sweep: None,
            random: seed,
            clock: 0,
            pace: Pace::default(),
            record: None,
            rival: None,
            givers: Vec::new(),
            stats: LookupStats::default(),
        };
        lookup.open_paths(config.paths.max(1));
        lookup
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> LookupId {
        self.id
    }

    /// What is searched for.
    #[must_use]
    pub const fn target(&self) -> &Point {
        &self.target
    }

    /// What it is for.
    #[must_use]
    pub const fn goal(&self) -> Goal {
        self.goal
    }

    /// What to do next. Call it after every answer and failure, and when a wait is over, until it says wait or done.
    pub fn next(&mut self, now: Now) -> Step {
        let now = now.mono;
        if self.stage != Stage::Done {
            self.write_off(now);
        }
        while self.stage != Stage::Done {
            let spent = usize::try_from(self.stats.asked).unwrap_or(usize::MAX) >= self.config.max_queries;
            if now >= self.deadline() || (spent && self.known.pending() == 0) {
                self.stats.cut = true;
                self.end(now);
                break;
            }
            if !spent && let Some((id, ask)) = self.step(now) {
                return self.send(now, id, ask);
            }
            if self.known.pending() > 0 {
                return Step::Wait { until: self.wake(now) };
            }
            // The nearest of all is worth its whole time: a packet lost twice is no sign of death.
            let nodes = !matches!(self.goal, Goal::Value { .. }) && self.stage != Stage::Paths;
            if nodes && let Some(at) = self.known.late_nearest() {
                return Step::Wait { until: (at + self.patience()).min(self.deadline()) };
            }
            self.advance(now);
        }
        Step::Done
    }

    /// Takes an answer. One that nobody waits for (not asked, asked already, given up) changes nothing.
    pub fn on_reply(&mut self, now: Now, from: &PeerId, reply: LookupReply) {
        let Some(flight) = self.land(from, true) else { return };
        self.stats.answered += 1;
        self.stats.rounds = self.stats.rounds.max(flight.depth);
        self.pace.note(now.mono.saturating_sub(flight.at));
        self.known.answered(&flight, reply.token);
        let home = self.known.get(flight.id).path;
        if let Some(path) = self.paths.get_mut(home) {
            path.answers += 1;
            self.stats.surplus += self.known.learn(home, &mut path.candidates, Some(flight.id), reply.contacts);
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.note(&self.known, &flight.ask);
        }
        if let Some(record) = reply.record.filter(|_| flight.ask.value) {
            self.take_record(now.mono, from, record);
        }
    }

    /// Notes that a node did not answer, or not legally.
    pub fn on_failure(&mut self, _now: Now, from: &PeerId) {
        if let Some(flight) = self.land(from, false) {
            self.stats.failed += 1;
            self.known.failed(&flight);
        }
    }

    /// The result, also before the end.
    #[must_use]
    pub fn finish(self) -> LookupOutcome {
        let answered = self.known.all_answered();
        let entry = |one: &&Candidate| (Arc::clone(&one.contact), one.token);
        let inside = |one: &&&Candidate| self.config.region.is_some_and(|radius| one.distance < radius);
        let mut lacking = answered.iter().filter(|one| !self.givers.contains(one.contact.peer()));
        let missed = lacking.find_map(|one| Some((Arc::clone(&one.contact), one.token?)));
        LookupOutcome {
            closest: answered.iter().take(self.config.k).map(entry).collect(),
            region: answered.iter().filter(inside).map(entry).collect(),
            missed: missed.filter(|_| self.record.is_some()),
            sources: self.givers.len(),
            record: self.record,
            rival: self.rival,
            stats: self.stats,
        }
    }
}

impl Lookup {
    fn deadline(&self) -> Duration {
        self.started.saturating_add(self.config.deadline)
    }

    fn end(&mut self, now: Duration) {
        self.stage = Stage::Done;
        self.stats.elapsed = now.saturating_sub(self.started);
    }

    fn send(&mut self, now: Duration, id: Id, ask: Ask) -> Step {
        let at = self.known.get(id).path;
        let waited = match self.paths.get_mut(at) {
            Some(path) => {
                path.queries += 1;
                if self.stage == Stage::Paths && !path.ended { path.clock } else { self.clock }
            }
            None => self.clock,
        };
        self.known.ask(id, ask, now, waited);
        self.stats.asked += 1;
        let timeout = self.config.query_timeout.min(self.deadline().saturating_sub(now));
        Step::Ask { to: Arc::clone(&self.known.get(id).contact), ask, timeout }
    }

    fn land(&mut self, from: &PeerId, answered: bool) -> Option<Flight> {
        let flight = if self.stage == Stage::Done { None } else { self.known.land(from, answered) };
        let Some(flight) = flight else {
            self.stats.stray += 1;
            return None;
        };
        self.clock = flight.depth;
        if let Some(path) = self.paths.get_mut(self.known.get(flight.id).path) {
            path.clock = flight.depth;
        }
        Some(flight)
    }

    /// Gives up waiting for those slower than is usual here, though a late answer still counts, and forgets those whose
    /// time is over, should the caller not have told.
    fn write_off(&mut self, now: Duration) {
        let timeout = self.patience();
        let overdue = self.pace.overdue().min(self.config.query_timeout);
        self.known.write_off(|at| now.saturating_sub(at) >= overdue);
        while let Some(peer) = self.known.find_flight(|at| now.saturating_sub(at) >= timeout) {
            self.on_failure(Now { mono: now, unix_ms: 0 }, &peer);
        }
    }

    /// After so long a query is over though nobody told; the caller may have asked several times by then.
    fn patience(&self) -> Duration {
        self.config.query_timeout.saturating_mul(u32::from(TRIES)).saturating_add(Duration::from_millis(100))
    }

    fn wake(&self, now: Duration) -> Duration {
        let (stall, overdue) = (self.pace.stall(), self.pace.overdue().min(self.config.query_timeout));
        let events = self.known.pending_since().map(|at| if at + stall > now { at + stall } else { at + overdue });
        events.filter(|event| *event > now).min().unwrap_or(Duration::MAX).min(self.deadline())
    }

    fn take_record(&mut self, now: Duration, from: &PeerId, record: Arc<Record>) {
        let Goal::Value { want_seq } = self.goal else { return };
        if record.key() != &self.target || record.seq() < want_seq {
            return;
        }
        match &self.record {
            Some(known) if known.seq() > record.seq() => return,
            Some(known) if known.seq() == record.seq() && known.digest() != record.digest() => {
                self.rival.get_or_insert(record);
                return;
            }
            Some(known) if known.seq() == record.seq() => {}
            _ => {
                self.record = Some(record);
                self.rival = None;
                self.givers.clear();
            }
        }
        if !self.givers.contains(from) {
            self.givers.push(*from);
        }
        if self.givers.len() >= self.config.sources.max(1) {
            self.end(now);
        }
    }
}
