// SPDX-License-Identifier: MIT OR Apache-2.0
//! The search of a whole region: points spread over it, so that Sybils crowded around its centre cannot hide the rest
//! (SR-DHT-Store, arXiv 2505.01139; security.md 7.3).

use pqvpn_wire::dht::{Distance, Point};

use super::{
    known::{Id, Known, State},
    types::Ask,
};

/// Questions about points of the region when nobody new is known in it.
const MAX_PROBES: u32 = 24;
/// So many of them in a row that bring nobody new end the search.
const QUIET: u32 = 4;
/// A probe goes to one of so many nearest.
const PROBE_AMONG: usize = 128;
/// Most queries of a sweep under way.
const WIDTH: usize = 16;
/// The region is cut into shells of equal volume around the target; two nodes are expected in each.
const SHELLS: usize = 16;
/// Most nodes asked per shell: a crowd in one of them costs no more than this.
const PER_SHELL: u8 = 12;
/// The golden ratio's fraction: its multiples spread evenly, however many there are.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// A search of the region around a target.
#[derive(Debug)]
pub(super) struct Sweep {
    target: Point,
    radius: Distance,
    /// Ask for the value under the target, not for nodes around points.
    value: bool,
    phase: f64,
    points: u32,
    probes: u32,
    quiet: u32,
    /// How many nodes of the region were known after the last answer.
    inside: usize,
    shells: [u8; SHELLS],
    /// Asked about a point; sorted.
    probed: Vec<Id>,
}

impl Sweep {
    pub(super) fn new(target: Point, radius: Distance, value: bool, seed: u64) -> Self {
        let phase = f64::from(u32::try_from(seed >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        let shells = [0; SHELLS];
        let probed = Vec::new();
        Self { target, radius, value, phase, points: 0, probes: 0, quiet: 0, inside: 0, shells, probed }
    }

    /// The next point of the region.
    fn point(&mut self) -> Point {
        let share = (self.phase + f64::from(self.points) * GOLDEN).fract();
        self.points = self.points.wrapping_add(1);
        self.target.at(&Distance::from_fraction(share * self.radius.fraction()))
    }

    fn shell(&self, distance: &Distance) -> usize {
        let share = distance.fraction() / self.radius.fraction().max(f64::MIN_POSITIVE);
        (1..SHELLS).filter(|shell| share * 16.0 >= f64::from(u8::try_from(*shell).unwrap_or(u8::MAX))).count()
    }

    /// Whom to ask what; `None`: wait for what is under way, and if that is nothing, the sweep is over.
    pub(super) fn step(&mut self, known: &Known) -> Option<(Id, Ask)> {
        if known.pending() >= WIDTH {
            return None;
        }
        let point = self.point();
        self.newcomer(known, &point).or_else(|| self.probe(known, point))
    }

    /// Somebody in the region who was not asked yet, near to the point.
    fn newcomer(&mut self, known: &Known, point: &Point) -> Option<(Id, Ask)> {
        let inside = known.merged().take_while(|id| known.get(*id).distance < self.radius);
        let open = inside.filter(|id| {
            let room = self.shells.get(self.shell(&known.get(*id).distance)).is_some_and(|asked| *asked < PER_SHELL);
            room && known.askable(*id)
        });
        let id = open.min_by_key(|id| known.get(*id).contact.node_id().distance(point))?;
        let shell = self.shell(&known.get(id).distance);
        if let Some(asked) = self.shells.get_mut(shell) {
            *asked = asked.saturating_add(1);
        }
        // A node knows its own neighbours best.
        let target = if self.value { self.target } else { *known.get(id).contact.node_id() };
        Some((id, Ask { target, value: self.value }))
    }

    /// Somebody who may know who lives near the point: rather from outside the region, for those inside may all be of
    /// one crowd.
    fn probe(&mut self, known: &Known, point: Point) -> Option<(Id, Ask)> {
        if self.quiet >= QUIET || self.probes >= MAX_PROBES {
            return None;
        }
        let open = |id: &Id| {
            let candidate = known.get(*id);
            let answered = candidate.state == State::Answered && !known.is_in_flight(*id);
            (answered || known.askable(*id)) && self.probed.binary_search(id).is_err()
        };
        let candidates: Vec<Id> = known.merged().filter(open).take(PROBE_AMONG).collect();
        let far = candidates.iter().filter(|id| known.get(**id).distance >= self.radius);
        let nearest = |id: &&Id| known.get(**id).contact.node_id().distance(&point);
        let id = *far.min_by_key(nearest).or_else(|| candidates.iter().min_by_key(nearest))?;
        self.probes += 1;
        if let Err(at) = self.probed.binary_search(&id) {
            self.probed.insert(at, id);
        }
        Some((id, Ask { target: point, value: false }))
    }

    /// Notes an answer to a question, after what it named was taken in.
    pub(super) fn note(&mut self, known: &Known, ask: &Ask) {
        let mut last = None;
        let mut inside = 0;
        for id in known.merged() {
            let distance = known.get(id).distance;
            if distance >= self.radius {
                break;
            }
            inside += usize::from(last != Some(distance));
            last = Some(distance);
        }
        let probe = !ask.value && ask.target != self.target;
        if inside > self.inside {
            self.quiet = 0;
        } else if probe {
            self.quiet = self.quiet.saturating_add(1);
        }
        self.inside = inside;
    }
}
