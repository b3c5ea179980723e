// SPDX-License-Identifier: MIT OR Apache-2.0
//! The search of a whole region: points spread over it, so that Sybils crowded around its centre cannot hide the rest.

use pqvpn_wire::dht::{Distance, Point};

use super::{
    known::{Id, Known, State},
    types::Ask,
};

/// Questions about points of the region when nobody new is known in it.
const MAX_PROBES: u32 = 24;
/// So many answers in a row that name nobody new in the region end the search.
const QUIET: u32 = 4;
/// Most queries of a sweep under way.
const WIDTH: usize = 16;
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
    /// Asked for a second time; sorted.
    probed: Vec<Id>,
}

impl Sweep {
    pub(super) fn new(target: Point, radius: Distance, value: bool, seed: u64) -> Self {
        let phase = f64::from(u32::try_from(seed >> 32).unwrap_or(0)) / f64::from(u32::MAX);
        Self { target, radius, value, phase, points: 0, probes: 0, quiet: 0, probed: Vec::new() }
    }

    /// The next point of the region.
    fn point(&mut self) -> Point {
        let share = (self.phase + f64::from(self.points) * GOLDEN).fract();
        self.points = self.points.wrapping_add(1);
        self.target.at(&Distance::from_fraction(share * self.radius.fraction()))
    }

    /// Whom to ask what; `None`: wait for what is under way, and if that is nothing, the sweep is over.
    pub(super) fn step(&mut self, known: &mut Known) -> Option<(Id, Ask)> {
        if known.flights.len() >= WIDTH {
            return None;
        }
        let point = self.point();
        let radius = self.radius;
        let order = known.order().to_vec();
        let inside = order.iter().take_while(|(distance, _)| *distance < radius).map(|(_, id)| *id);
        let fresh = inside.filter(|id| known.askable(*id));
        let nearest = |id: &Id| known.get(*id).contact.node_id().distance(&point);
        if let Some(id) = fresh.min_by_key(nearest) {
            let own = *known.get(id).contact.node_id();
            let target = if self.value { self.target } else { own };
            return Some((id, Ask { target, value: self.value }));
        }
        if self.quiet >= QUIET || self.probes >= MAX_PROBES {
            return None;
        }
        // Nobody new is known: whoever is nearest to the point and has not been asked about one yet may know.
        let candidates = order.iter().map(|(_, id)| *id).filter(|id| {
            let answered = known.get(*id).state == State::Answered && !known.is_in_flight(*id);
            (answered || known.askable(*id)) && self.probed.binary_search(id).is_err()
        });
        let id = candidates.min_by_key(nearest)?;
        self.probes += 1;
        if let Err(at) = self.probed.binary_search(&id) {
            self.probed.insert(at, id);
        }
        Some((id, Ask { target: point, value: false }))
    }

    /// Notes how many new candidates inside the region an answer named.
    pub(super) fn note(&mut self, news: usize) {
        self.quiet = if news == 0 { self.quiet.saturating_add(1) } else { 0 };
    }
}
