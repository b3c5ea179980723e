// SPDX-License-Identifier: MIT OR Apache-2.0
//! An isolation forest: the fewer random cuts it takes to set a sample apart, the odder it is (Liu, Ting & Zhou 2008).

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Trees of a forest.
pub const TREES: usize = 100;
/// Samples per tree: more would hide clusters of oddities behind one another (swamping and masking, ibid. §4.2).
pub const SAMPLES: usize = 256;
/// Euler's constant, for the mean depth of a search that fails.
const EULER: f64 = 0.577_215_664_901_532_9;

/// A trained forest over samples of `D` numbers.
#[derive(Debug, Clone)]
pub struct Forest<const D: usize> {
    trees: Vec<Tree>,
    /// Mean depth expected of a tree's sample, by which depths are normalised.
    usual: f64,
}

#[derive(Debug, Clone)]
struct Tree {
    nodes: Vec<Node>,
}

/// Eight bytes, so that 100 trees stay below 400 KiB.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// A cut's value, or a leaf's depth.
    value: f32,
    /// A cut's first child (the other follows it); 0 marks a leaf.
    child: u16,
    feature: u8,
}

impl<const D: usize> Forest<D> {
    /// Trains `trees` trees; `None` with fewer than [`SAMPLES`] samples. All numbers must be finite; others count as 0.
    #[must_use]
    pub fn train(samples: &[[f32; D]], trees: usize, seed: u64) -> Option<Self> {
        if samples.len() < SAMPLES || D == 0 || D > usize::from(u8::MAX) {
            return None;
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let trees = (0..trees).map(|_| Tree::grow(samples, &mut rng)).collect();
        Some(Self { trees, usual: mean_depth(SAMPLES) })
    }

    /// How odd a sample is: above 0.5 more than average, towards 1.0 the odder; about 0.4 for the most ordinary.
    #[must_use]
    pub fn score(&self, sample: &[f32; D]) -> f64 {
        let depths: f64 = self.trees.iter().map(|tree| tree.depth(sample)).sum();
        if self.trees.is_empty() { 0.0 } else { (-depths / self.trees.len() as f64 / self.usual).exp2() }
    }

    /// How many nodes all trees have together, 8 bytes each.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.trees.iter().map(|tree| tree.nodes.len()).sum()
    }
}

impl Tree {
    fn grow<const D: usize>(samples: &[[f32; D]], rng: &mut Xoshiro256PlusPlus) -> Self {
        let mut picked: Vec<[f32; D]> = (0..SAMPLES).filter_map(|_| pick(samples, rng)).collect();
        let mut tree = Self { nodes: vec![Node { value: 0.0, child: 0, feature: 0 }] };
        tree.split(0, 0, &mut picked, rng);
        tree.nodes.shrink_to_fit();
        tree
    }

    /// Makes node `at` a cut through `samples`, and its children; a leaf when they are alike or deep enough.
    fn split<const D: usize>(&mut self, at: usize, depth: u32, samples: &mut [[f32; D]], rng: &mut Xoshiro256PlusPlus) {
        let limit = SAMPLES.ilog2();
        let cut = if samples.len() > 1 && depth < limit { cut(samples, rng) } else { None };
        let node = match cut {
            None => Node { value: depth as f32 + mean_depth(samples.len()) as f32, child: 0, feature: 0 },
            // At most 2^9 - 1 nodes: the depth is limited to 8.
            Some((feature, value)) => Node { value, child: self.nodes.len() as u16, feature: feature as u8 },
        };
        if let Some(slot) = self.nodes.get_mut(at) {
            *slot = node;
        }
        if let Some((feature, value)) = cut {
            let child = self.nodes.len();
            self.nodes.extend([node; 2]);
            let (low, high) = part(samples, feature, value);
            self.split(child, depth + 1, low, rng);
            self.split(child + 1, depth + 1, high, rng);
        }
    }

    fn depth<const D: usize>(&self, sample: &[f32; D]) -> f64 {
        let mut at = 0;
        while let Some(node) = self.nodes.get(at) {
            if node.child == 0 {
                return f64::from(node.value);
            }
            let high = finite(sample.get(usize::from(node.feature))) >= node.value;
            at = usize::from(node.child) + usize::from(high);
        }
        0.0
    }
}

fn pick<const D: usize>(samples: &[[f32; D]], rng: &mut Xoshiro256PlusPlus) -> Option<[f32; D]> {
    let mut sample = *samples.get(rng.random_range(0..samples.len()))?;
    for value in &mut sample {
        *value = finite(Some(value));
    }
    Some(sample)
}

fn finite(value: Option<&f32>) -> f32 {
    value.copied().filter(|value| value.is_finite()).unwrap_or(0.0)
}

/// A feature in which the samples differ, and a value between their least and greatest; `None` if they are all alike.
fn cut<const D: usize>(samples: &[[f32; D]], rng: &mut Xoshiro256PlusPlus) -> Option<(usize, f32)> {
    let first = rng.random_range(0..D);
    (0..D).map(|step| (first + step) % D).find_map(|feature| {
        let values = || samples.iter().map(|sample| finite(sample.get(feature)));
        let (low, high) = (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max));
        let share: f32 = rng.random();
        let value = (high - low).mul_add(share, low);
        // Rounding may land on the least: then the cut would part nothing.
        (high > low).then_some((feature, if value > low { value } else { high }))
    })
}

/// Moves samples below the cut to the front and returns both parts.
fn part<const D: usize>(samples: &mut [[f32; D]], feature: usize, value: f32) -> (&mut [[f32; D]], &mut [[f32; D]]) {
    let mut low = 0;
    for i in 0..samples.len() {
        if samples.get(i).is_some_and(|sample| finite(sample.get(feature)) < value) {
            samples.swap(low, i);
            low += 1;
        }
    }
    samples.split_at_mut(low)
}

/// Mean depth of an unsuccessful search in a binary search tree of `n` (ibid. equation 1).
fn mean_depth(n: usize) -> f64 {
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let n = n as f64;
            2.0 * ((n - 1.0).ln() + EULER) - 2.0 * (n - 1.0) / n
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(count: usize, seed: u64) -> Vec<[f32; 3]> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut one = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        (0..count).map(|_| [one(), one(), one()]).collect()
    }

    #[test]
    fn what_lies_apart_scores_higher() {
        let forest = Forest::train(&cloud(2000, 1), TREES, 7).unwrap();
        let (middle, edge, far) = (forest.score(&[0.0; 3]), forest.score(&[2.0; 3]), forest.score(&[9.0, -9.0, 9.0]));
        assert!(middle < 0.5 && middle < edge && edge < far && far > 0.7 && far <= 1.0, "{middle} {edge} {far}");
    }

    #[test]
    fn the_same_seed_grows_the_same_forest_and_another_does_not() {
        let samples = cloud(300, 2);
        let score = |seed| Forest::train(&samples, 20, seed).unwrap().score(&[1.0, 2.0, 3.0]);
        assert!(score(1).to_bits() == score(1).to_bits() && score(1).to_bits() != score(2).to_bits());
    }

    #[test]
    fn too_few_samples_grow_none() {
        assert!(Forest::train(&cloud(SAMPLES - 1, 3), TREES, 1).is_none());
        assert!(Forest::train(&cloud(SAMPLES, 3), TREES, 1).is_some());
        assert!(Forest::<0>::train(&[[]; 500], TREES, 1).is_none());
    }

    #[test]
    fn samples_all_alike_or_not_numbers_make_leaves_not_loops() {
        let forest = Forest::train(&[[1.0_f32; 3]; 400], 10, 1).unwrap();
        assert_eq!(forest.nodes(), 10);
        assert!(forest.score(&[5.0; 3]).is_finite());
        let forest = Forest::train(&[[f32::NAN, f32::INFINITY, 0.0]; 400], 10, 1).unwrap();
        assert!(forest.score(&[f32::NAN; 3]).is_finite());
        // Neighbouring floats: the cut must still part them.
        let mut close = vec![[1.0_f32]; 200];
        close.extend([[1.0 + f32::EPSILON]; 200]);
        assert_eq!(Forest::train(&close, 10, 1).unwrap().nodes(), 30);
        let huge: Vec<[f32; 1]> = (0..300).map(|i| [if i % 2 == 0 { f32::MAX } else { f32::MIN }]).collect();
        assert!(Forest::train(&huge, 10, 1).unwrap().score(&[0.0]).is_finite());
    }

    #[test]
    fn a_forest_stays_below_half_a_megabyte() {
        let forest = Forest::train(&cloud(2000, 4), TREES, 1).unwrap();
        assert_eq!(size_of::<Node>(), 8);
        assert!(forest.nodes() * size_of::<Node>() < 400 << 10, "{}", forest.nodes());
    }
}
