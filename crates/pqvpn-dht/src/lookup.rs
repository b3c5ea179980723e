// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lookup as an iterator over disjoint paths (Baumgart & Mies, "S/Kademlia", 2007; security.md 7.3).
//!
//! ```text
//! seeds ─► paths: d walks, no node asked by two, no contact shared ─► merge: the k nearest of all must answer
//!            ▲                                                            │
//!            └── wind: the value is missing, or the region too sparse ◄───┤
//!                                                                         ▼
//!                            done ◄── sweep: points all over the region, past the Sybils at its centre
//! ```
//! A node counts at the position it was named at: the caller must report a failure for an answer whose sender turns out
//! to be elsewhere in the space, or not to be admitted at all.

mod known;
mod path;
mod sweep;
mod types;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Distance, Point, Record};

pub use types::{Answered, Ask, Goal, LookupConfig, LookupId, LookupOutcome, LookupReply, LookupStats, Step};

use crate::{Now, table::Net};
use known::{Flight, Id, Known, State};
use path::{Move, Path};
use sweep::Sweep;

/// A path that waits longer than this for its first answers asks the next candidate as well.
const STALL: Duration = Duration::from_millis(500);
/// Value queries under way in the merge: the record is likely among the first answers.
const VALUE_WIDTH: usize = 8;
/// Nodes the region's radius encloses on average (security.md 7.3).
const REGION_NODES: f64 = 30.0;
/// Paths begun at a random seed instead of the nearest: one in five (security.md 7.6).
const RANDOM_START: u64 = 5;
/// Round trip times remembered for the estimate of what is slow.
const TIMES: usize = 16;

/// Where a lookup stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Paths,
    Merge,
    Sweep,
    Done,
}

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
    winds: u32,
    sweep: Option<Sweep>,
    random: u64,
    /// Round trips up to the last answer or failure of all.
    clock: u32,
    times: VecDeque<Duration>,
    record: Option<Arc<Record>>,
    rival: Option<Arc<Record>>,
    givers: Vec<PeerId>,
    stats: LookupStats,
}

impl Lookup {
    /// Begins a lookup from contacts of our own table, those first that are nearest or trusted most; up to 3 per path
    /// are of use.
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
            pool: pool(seeds),
            winds: 0,
            sweep: None,
            random: seed,
            clock: 0,
            times: VecDeque::new(),
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
        let mono = now.mono;
        self.expire(mono);
        loop {
            if self.stage == Stage::Done {
                return Step::Done;
            }
            if mono >= self.deadline() {
                self.stats.cut = true;
                self.end(mono);
                continue;
            }
            let spent = usize::try_from(self.stats.asked).unwrap_or(usize::MAX) >= self.config.max_queries;
            if spent && self.known.flights.is_empty() {
                self.stats.cut = true;
                self.end(mono);
                continue;
            }
            let ask = match self.stage {
                _ if spent => None,
                Stage::Paths => self.step_paths(mono).or_else(|| self.step_early()),
                Stage::Merge => self.step_merge(),
                Stage::Sweep => self.step_sweep(),
                Stage::Done => None,
            };
            if let Some((id, path, ask)) = ask {
                return self.send(mono, id, path, ask);
            }
            if !self.known.flights.is_empty() {
                return Step::Wait { until: self.wake(mono) };
            }
            if !spent {
                self.advance(mono);
            }
        }
    }

    /// Takes an answer.
    pub fn on_reply(&mut self, now: Now, from: &PeerId, reply: LookupReply) {
        let Some(flight) = self.land(now, from) else { return };
        self.stats.answered += 1;
        self.times.push_back(now.mono.saturating_sub(flight.at));
        if self.times.len() > TIMES {
            self.times.pop_front();
        }
        self.stats.rounds = self.stats.rounds.max(flight.depth);
        self.known.answered(&flight, reply.token);
        let home = self.known.get(flight.id).path;
        let before = self.known.inside(self.config.region);
        if let Some(path) = self.paths.get_mut(home) {
            path.answers += 1;
            self.stats.surplus += self.known.learn(home, &mut path.candidates, Some(flight.id), reply.contacts);
        }
        if let Some(sweep) = &mut self.sweep {
            sweep.note(self.known.inside(self.config.region) - before);
        }
        if let Some(record) = reply.record.filter(|_| flight.ask.value) {
            self.take_record(now.mono, from, record);
        }
    }

    /// Notes that a node did not answer, or not legally.
    pub fn on_failure(&mut self, now: Now, from: &PeerId) {
        if let Some(flight) = self.land(now, from) {
            self.stats.failed += 1;
            self.known.failed(&flight);
        }
    }

    /// The result, also before the end.
    #[must_use]
    pub fn finish(self) -> LookupOutcome {
        let answered = self.known.all_answered();
        let entry = |one: &&known::Candidate| (Arc::clone(&one.contact), one.token);
        let inside = |one: &&&known::Candidate| self.config.region.is_some_and(|radius| one.distance < radius);
        let missed = answered
            .iter()
            .filter(|one| !self.givers.contains(one.contact.peer()))
            .find_map(|one| Some((Arc::clone(&one.contact), one.token?)));
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
        self.started + self.config.deadline
    }

    fn end(&mut self, now: Duration) {
        self.stage = Stage::Done;
        self.stats.elapsed = now.saturating_sub(self.started);
    }

    fn question(&self) -> Ask {
        Ask { target: self.target, value: self.wants_value() }
    }

    const fn wants_value(&self) -> bool {
        matches!(self.goal, Goal::Value { .. })
    }

    fn send(&mut self, now: Duration, id: Id, path: usize, ask: Ask) -> Step {
        let waited =
            if self.stage == Stage::Paths { self.paths.get(path).map_or(0, |path| path.clock) } else { self.clock };
        self.known.ask(id, path, ask, now, waited);
        self.stats.asked += 1;
        if let Some(path) = self.paths.get_mut(path) {
            path.queries += 1;
        }
        let timeout = self.config.query_timeout.min(self.deadline().saturating_sub(now));
        Step::Ask { to: Arc::clone(&self.known.get(id).contact), ask, timeout }
    }

    fn land(&mut self, _now: Now, from: &PeerId) -> Option<Flight> {
        let flight = (self.stage != Stage::Done).then(|| self.known.land(from)).flatten();
        let Some(flight) = flight else {
            self.stats.stray += 1;
            return None;
        };
        self.clock = flight.depth;
        if let Some(path) = self.paths.get_mut(flight.path) {
            path.clock = flight.depth;
        }
        Some(flight)
    }

    /// Gives up on queries whose time is over, should the caller have forgotten them.
    fn expire(&mut self, now: Duration) {
        let timeout = self.config.query_timeout;
        let late = |flight: &&Flight| now.saturating_sub(flight.at) >= timeout;
        while let Some(flight) = self.known.flights.iter().find(late) {
            let peer = *self.known.get(flight.id).contact.peer();
            self.on_failure(Now { mono: now, unix_ms: 0 }, &peer);
        }
    }

    /// What counts as slow here: twice the usual round trip, at most half a second.
    fn stall(&self) -> Duration {
        if self.times.len() < 3 {
            return STALL;
        }
        let mut times: Vec<Duration> = self.times.iter().copied().collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or(STALL);
        (median * 2).clamp(Duration::from_millis(50), STALL)
    }

    fn wake(&self, now: Duration) -> Duration {
        let stall = self.stall();
        let events = self.known.flights.iter().map(|flight| {
            let slow = flight.at + stall;
            if slow > now { slow } else { flight.at + self.config.query_timeout }
        });
        events.min().unwrap_or(now).min(self.deadline())
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

    /// Opens up to `n` paths, each from seeds of its own.
    fn open_paths(&mut self, n: usize) -> bool {
        let before = self.paths.len();
        for _ in 0..n {
            let Some(seeds) = self.take_seeds() else { break };
            self.open_path(seeds, false);
        }
        self.paths.len() > before
    }

    fn open_path(&mut self, seeds: Vec<Arc<Contact>>, ended: bool) {
        let at = self.paths.len();
        let mut path = Path { clock: self.clock, ended, ..Path::default() };
        self.stats.surplus += self.known.learn(at, &mut path.candidates, None, seeds);
        self.paths.push(path);
        self.stats.paths = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
    }

    fn take_seeds(&mut self) -> Option<Vec<Arc<Contact>>> {
        self.random = splitmix(self.random);
        let any = self.random.is_multiple_of(RANDOM_START);
        let len = u64::try_from(self.pool.len()).unwrap_or(1).max(1);
        let at = if any { usize::try_from((self.random >> 8) % len).unwrap_or(0) } else { 0 };
        self.pool.remove(at)
    }

    fn step_paths(&mut self, now: Duration) -> Option<(Id, usize, Ask)> {
        let stall = self.stall();
        let question = self.question();
        for at in 0..self.paths.len() {
            loop {
                let path = &mut self.paths[at];
                match path.step(&self.known, at, now, stall, self.config.alpha.max(1)) {
                    Move::Ask(id) => return Some((id, at, question)),
                    Move::Wait => break,
                    Move::Stuck => {
                        let Some(seeds) = self.pool.pop_front() else {
                            path.ended = true;
                            break;
                        };
                        self.stats.surplus += self.known.learn(at, &mut path.candidates, None, seeds);
                    }
                    Move::End => {
                        path.ended = true;
                        break;
                    }
                }
            }
        }
        None
    }

    /// Once half of the paths have ended, their slots serve the merge: whoever is among the k nearest must be asked
    /// anyway. Not for a value, which the other paths may find with fewer queries.
    fn step_early(&mut self) -> Option<(Id, usize, Ask)> {
        let ended = self.paths.iter().filter(|path| path.ended).count();
        if self.wants_value() || ended * 2 < self.paths.len() { None } else { self.step_merge() }
    }

    fn step_merge(&mut self) -> Option<(Id, usize, Ask)> {
        let width = if self.wants_value() { VALUE_WIDTH } else { self.config.k };
        if self.known.flights.len() >= width {
            return None;
        }
        let id = self.next_of_nearest()?;
        Some((id, self.known.get(id).path, self.question()))
    }

    fn step_sweep(&mut self) -> Option<(Id, usize, Ask)> {
        let (id, ask) = self.sweep.as_mut()?.step(&mut self.known)?;
        Some((id, self.known.get(id).path, ask))
    }

    /// The nearest candidate to be asked among the k nearest of all paths that have not failed.
    fn next_of_nearest(&mut self) -> Option<Id> {
        self.draw_near_seeds();
        let order: Vec<(Distance, Id)> = self.known.order().to_vec();
        let mut live = 0;
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            if live >= self.config.k {
                return None;
            }
            let state = |wanted| group.iter().any(|(_, id)| self.known.get(*id).state == wanted);
            if state(State::Answered) || state(State::Asked) {
                live += 1;
            } else if let Some((_, id)) = group.iter().find(|(_, id)| self.known.askable(*id)) {
                return Some(*id);
            }
        }
        None
    }

    /// Brings in seeds no path has taken that belong to the k nearest.
    fn draw_near_seeds(&mut self) {
        let distance = |group: &Vec<Arc<Contact>>| group.iter().map(|one| self.target.distance(one.node_id())).min();
        let mut near: Vec<_> =
            self.pool.iter().enumerate().filter_map(|(at, one)| Some((distance(one)?, at))).collect();
        near.sort_unstable();
        let mut drawn = Vec::new();
        for (distance, at) in near {
            let kth = self.known.nearest_live(self.config.k);
            if kth.is_some_and(|kth| kth <= distance) {
                break;
            }
            drawn.push(at);
            let seeds = self.pool.get(at).cloned().unwrap_or_default();
            self.open_path(seeds, true);
        }
        let mut at = 0;
        self.pool.retain(|_| {
            at += 1;
            !drawn.contains(&(at - 1))
        });
    }

    fn advance(&mut self, now: Duration) {
        match self.stage {
            Stage::Paths => self.stage = Stage::Merge,
            Stage::Merge => self.after_merge(now),
            Stage::Sweep | Stage::Done => self.end(now),
        }
    }

    /// The k nearest have answered. Liars make the region look too sparse (they name only each other) or too dense (they
    /// crowd around the target): the one calls for more paths, the other for a sweep.
    fn after_merge(&mut self, now: Duration) {
        let missing = self.wants_value() && self.record.is_none();
        let expected = self.expected_within_kth();
        let k = bounded_f64(self.config.k);
        let sparse = expected.is_some_and(|expected| expected > k + 3.0 * k.sqrt());
        let dense = expected.is_some_and(|expected| expected < k / 2.0);
        let wind = sparse || (missing && !dense);
        if wind && self.winds == 0 && self.open_paths(self.config.paths) {
            self.winds += 1;
            self.stage = Stage::Paths;
            return;
        }
        let sweep = missing || dense || self.goal == Goal::Region;
        match self.config.region {
            Some(radius) if sweep => {
                self.sweep = Some(Sweep::new(self.target, radius, missing, self.random));
                self.stage = Stage::Sweep;
            }
            _ => self.end(now),
        }
    }

    /// How many nodes the estimate of the network's size lets expect within the distance of the k-th nearest.
    fn expected_within_kth(&mut self) -> Option<f64> {
        let radius = self.config.region?.fraction();
        let kth = self.known.nearest_live(self.config.k).map_or(1.0, |kth| kth.fraction());
        (radius > 0.0).then(|| REGION_NODES * kth / radius)
    }
}

/// One step of the SplitMix64 generator (Steele, Lea & Flood 2014).
const fn splitmix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn bounded_f64(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Puts seeds of one public subnet together: a path gets all of them or none.
fn pool(seeds: Vec<Arc<Contact>>) -> VecDeque<Vec<Arc<Contact>>> {
    let mut groups: Vec<(Net, Vec<Arc<Contact>>)> = Vec::new();
    for contact in seeds {
        let net = Net::of(&contact);
        match groups.iter_mut().find(|(other, _)| *other == net && !net.is_private()) {
            Some((_, group)) => group.push(contact),
            None => groups.push((net, vec![contact])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
