// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many nodes there are, from how dense the neighbourhoods of recent lookups were (security.md 7.3).

use std::collections::VecDeque;

use pqvpn_wire::dht::{Distance, Point};

/// Lookups remembered: the estimate is the median over so many.
pub const LOOKUPS: usize = 16;
/// With fewer lookups than this there is no estimate.
pub const ENOUGH: usize = 4;
/// Nodes expected inside a region: with 30 of them a key never loses its last honest replica (security.md 7.3).
pub const REGION_NODES: f64 = 30.0;
/// Only targets with so long a common prefix can be of one neighbourhood; in a small network all are neighbours.
const NEIGHBOURHOOD_BITS: u32 = 8;
/// The estimate never leaves 1..=MAX_NODES, whatever distances a liar makes up.
const MAX_NODES: f64 = 1e12;

/// The running estimate N^ of the number of nodes.
///
/// The median bears liars: with 40 % of the lookups poisoned it still lies inside the range of the honest ones. A lookup
/// near an earlier target replaces that one, so that nobody can fill the memory with one neighbourhood that he owns.
#[derive(Debug, Clone, Default)]
pub struct SizeEstimate {
    recent: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    target: Point,
    radius: Distance,
    nodes: f64,
}

impl SizeEstimate {
    /// Nothing known yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { recent: VecDeque::new() }
    }

    /// Learns from a finished lookup: the `distances` from `target` of the k nearest nodes that answered, in any order.
    ///
    /// To be fed whatever [`crate::eclipse`] says of the lookup, at least when its target was drawn at random: a network
    /// that grew threefold looks like an eclipse everywhere, and only its own lookups can tell that it grew.
    ///
    /// A node that *is* the target says nothing about density and is left out; fewer than two others are not a sample.
    pub fn add(&mut self, target: &Point, distances: &[Distance]) {
        let others = distances.iter().filter(|distance| **distance != Distance::ZERO);
        let (count, radius) = others.fold((0_u32, Distance::ZERO), |(n, far), d| (n + 1, far.max(*d)));
        if count < 2 {
            return;
        }
        let nodes = nodes_of(f64::from(count), radius.fraction());
        self.recent.retain(|old| {
            let apart = old.target.distance(target);
            // The lesser radius: a liar who names far nodes must not sweep the others' samples out.
            apart > old.radius.min(radius) || apart.leading_zeros() < NEIGHBOURHOOD_BITS
        });
        if self.recent.len() == LOOKUPS {
            self.recent.pop_front();
        }
        self.recent.push_back(Sample { target: *target, radius, nodes });
    }

    /// The estimated number of nodes; `None` before four lookups of different neighbourhoods.
    #[must_use]
    pub fn nodes(&self) -> Option<f64> {
        let mut all: Vec<f64> = self.recent.iter().map(|sample| sample.nodes).collect();
        if all.len() < ENOUGH { None } else { median(&mut all) }
    }

    /// Nodes nearer to a key than this are its region: 30/N^ of the space.
    #[must_use]
    pub fn region_radius(&self) -> Option<Distance> {
        self.radius_for(REGION_NODES)
    }

    /// The distance inside which `count` nodes are expected (a suspected eclipse asks for twice the usual number).
    #[must_use]
    pub fn radius_for(&self, count: f64) -> Option<Distance> {
        Some(Distance::from_fraction(count / self.nodes()?))
    }

    /// How many lookups the estimate rests on.
    #[must_use]
    pub fn lookups(&self) -> usize {
        self.recent.len()
    }
}

/// (k-1)/d_k, the unbiased estimator of a density from the k-th nearest point.
pub(crate) fn nodes_of(k: f64, radius: f64) -> f64 {
    // A network of a handful is seen whole, and the estimator is wild there: at least so many nodes exist.
    ((k - 1.0) / radius.max(f64::MIN_POSITIVE)).clamp(k, MAX_NODES.max(k))
}

/// The median; sorts nothing but its own argument. `None` for an empty one.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if !even {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp).unwrap_or(upper);
    Some(lower.midpoint(upper))
}

#[cfg(test)]
mod tests {
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn point(rng: &mut Xoshiro256PlusPlus) -> Point {
        Point::from_bytes(rng.random())
    }

    /// The nearest 20 of `nodes` random nodes, with real points up to 2,000 of them.
    fn lookup(rng: &mut Xoshiro256PlusPlus, nodes: usize) -> (Point, Vec<Distance>) {
        let target = point(rng);
        let mut all: Vec<Distance> = (0..nodes).map(|_| point(rng).distance(&target)).collect();
        all.sort_unstable();
        all.truncate(20);
        (target, all)
    }

    fn after(rng: &mut Xoshiro256PlusPlus, lookups: usize, nodes: usize) -> SizeEstimate {
        let mut estimate = SizeEstimate::new();
        for _ in 0..lookups {
            let (target, near) = lookup(rng, nodes);
            estimate.add(&target, &near);
        }
        estimate
    }

    #[test]
    fn few_lookups_are_no_estimate() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        assert_eq!(after(&mut rng, 3, 500).nodes(), None);
        assert_eq!(after(&mut rng, 3, 500).region_radius(), None);
        assert!(after(&mut rng, 4, 500).nodes().is_some());
    }

    #[test]
    fn the_estimate_is_near_the_truth() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        for nodes in [25, 100, 2_000] {
            let share = after(&mut rng, 16, nodes).nodes().unwrap() / nodes as f64;
            assert!((0.75..1.3).contains(&share), "{nodes} nodes: {share}");
        }
    }

    #[test]
    fn a_handful_of_nodes_is_counted_and_its_region_is_everything() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        for nodes in [2, 5, 19] {
            let estimate = after(&mut rng, 16, nodes);
            let share = estimate.nodes().unwrap() / nodes as f64;
            assert!((0.9..2.0).contains(&share), "{nodes} nodes: {share}");
            assert_eq!(estimate.region_radius(), Some(Distance::MAX));
        }
        let mut alone = SizeEstimate::new();
        for _ in 0..16 {
            alone.add(&point(&mut rng), &[Distance::MAX]);
            alone.add(&point(&mut rng), &[]);
        }
        assert_eq!((alone.lookups(), alone.nodes()), (0, None));
    }

    #[test]
    fn ten_million_nodes_are_as_easy() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(4);
        let mut estimate = SizeEstimate::new();
        for _ in 0..16 {
            let near: Vec<_> = (1..=20).map(|i| Distance::from_fraction(f64::from(i) / 1e7)).collect();
            estimate.add(&point(&mut rng), &near);
        }
        assert!((estimate.nodes().unwrap() - 9.5e6).abs() < 1e3);
        assert!((estimate.region_radius().unwrap().fraction() - 30.0 / 9.5e6).abs() < 1e-9);
        assert!((estimate.radius_for(60.0).unwrap().fraction() - 60.0 / 9.5e6).abs() < 1e-9);
    }

    /// 6 of 16 (38 %) lookups answered by liars, in either direction, wherever in time.
    #[test]
    fn two_fifths_of_poisoned_lookups_move_it_little() {
        for seed in 0..20 {
            for lie in [Distance::from_fraction(1e-60), Distance::MAX] {
                let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
                let mut estimate = SizeEstimate::new();
                for turn in 0..16 {
                    let (target, mut near) = lookup(&mut rng, 1_000);
                    if turn % 5 < 2 && turn < 14 {
                        near = vec![lie; 20];
                    }
                    estimate.add(&target, &near);
                }
                let share = estimate.nodes().unwrap() / 1_000.0;
                assert!((0.6..1.7).contains(&share), "seed {seed}: {share}");
            }
        }
    }

    #[test]
    fn one_neighbourhood_looked_up_often_is_one_sample() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut estimate = after(&mut rng, 12, 1_000);
        let target = point(&mut rng);
        for i in 0..100 {
            // Another key each time, all within the Sybils' neighbourhood.
            let near = vec![Distance::from_fraction(1e-9); 20];
            estimate.add(&target.at(&Distance::from_fraction(f64::from(i) * 1e-12)), &near);
        }
        assert_eq!(estimate.lookups(), 13);
        assert!(estimate.nodes().unwrap() < 1_700.0);
    }

    #[test]
    fn a_liar_who_names_far_nodes_does_not_sweep_out_the_samples_nearby() {
        let mut estimate = SizeEstimate::new();
        let centre = Point::from_bytes([7; 32]);
        for i in 1..=12 {
            let target = centre.at(&Distance::from_fraction(f64::from(i) * 1e-4));
            estimate.add(&target, &[Distance::from_fraction(1e-6); 20]);
        }
        estimate.add(&centre, &[Distance::MAX; 20]);
        assert_eq!(estimate.lookups(), 13);
        assert!(estimate.nodes().unwrap() > 1e7);
    }

    #[test]
    fn a_network_that_grows_is_followed_within_sixteen_lookups() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(6);
        let mut estimate = after(&mut rng, 16, 100);
        for _ in 0..12 {
            let (target, near) = lookup(&mut rng, 2_000);
            estimate.add(&target, &near);
        }
        assert_eq!(estimate.lookups(), 16);
        assert!(estimate.nodes().unwrap() > 1_400.0);
    }

    #[test]
    fn distances_no_honest_network_has_do_not_break_it() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut estimate = SizeEstimate::new();
        for _ in 0..16 {
            let mut least = [0; 32];
            least[31] = 1;
            estimate.add(&point(&mut rng), &[Distance::from_bytes(least); 20]);
        }
        assert_eq!(estimate.nodes(), Some(MAX_NODES));
        assert!(estimate.region_radius().unwrap() > Distance::ZERO);
    }

    #[test]
    fn the_median_of_even_and_odd_counts() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [9.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
