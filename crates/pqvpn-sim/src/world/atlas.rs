// SPDX-License-Identifier: MIT OR Apache-2.0
//! All nodes of a kind in order of their position: whoever is truly nearest to a point.

use pqvpn_wire::dht::{Distance, Point};

/// Positions in ascending order, each with the number of its node.
#[derive(Debug, Clone, Default)]
pub struct Atlas(Vec<(Point, u32)>);

impl FromIterator<(Point, u32)> for Atlas {
    fn from_iter<T: IntoIterator<Item = (Point, u32)>>(nodes: T) -> Self {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort_unstable();
        Self(nodes)
    }
}

impl Atlas {
    /// How many nodes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All nodes in order of their position.
    #[must_use]
    pub fn nodes(&self) -> &[(Point, u32)] {
        &self.0
    }

    /// Adds a node.
    pub fn insert(&mut self, position: Point, node: u32) {
        let at = self.0.partition_point(|known| *known < (position, node));
        self.0.insert(at, (position, node));
    }

    /// Removes a node.
    pub fn remove(&mut self, position: Point, node: u32) {
        if let Ok(at) = self.0.binary_search(&(position, node)) {
            self.0.remove(at);
        }
    }

    /// The `n` nodes nearest to `target`, nearest first.
    #[must_use]
    pub fn nearest(&self, target: &Point, n: usize) -> Vec<u32> {
        let mut bits = 0;
        let mut range = self.0.as_slice();
        // The smallest subtree around the target that still holds n nodes has them all.
        while bits < 256 {
            let inner = self.prefix(target, bits + 1);
            if inner.len() < n {
                break;
            }
            (range, bits) = (inner, bits + 1);
        }
        let mut near: Vec<(Distance, u32)> =
            range.iter().map(|(position, node)| (position.distance(target), *node)).collect();
        if near.len() > n && n > 0 {
            near.select_nth_unstable(n - 1);
        }
        near.truncate(n);
        near.sort_unstable();
        near.into_iter().map(|(_, node)| node).collect()
    }

    /// The nodes that share at least `bits` leading bits with `point`.
    #[must_use]
    pub fn prefix(&self, point: &Point, bits: u32) -> &[(Point, u32)] {
        let (low, high) = bounds(point, bits);
        let from = self.0.partition_point(|(position, _)| *position < low);
        let to = self.0.partition_point(|(position, _)| *position <= high);
        &self.0[from..to]
    }

    /// The nodes that share exactly `bits` leading bits with `point`: its bucket of that number.
    #[must_use]
    pub fn bucket(&self, point: &Point, bits: u32) -> &[(Point, u32)] {
        if bits >= 256 {
            return &[];
        }
        let mut sibling = *point.as_bytes();
        sibling[bits as usize / 8] ^= 0x80 >> (bits % 8);
        self.prefix(&Point::from_bytes(sibling), bits + 1)
    }
}

/// First and last point that share `bits` leading bits with `point`.
fn bounds(point: &Point, bits: u32) -> (Point, Point) {
    let (mut low, mut high) = (*point.as_bytes(), *point.as_bytes());
    for (index, (low, high)) in low.iter_mut().zip(&mut high).enumerate() {
        let kept = bits.saturating_sub(8 * u32::try_from(index).unwrap_or(u32::MAX)).min(8);
        let free = 0xff_u8.checked_shr(kept).unwrap_or(0);
        *low &= !free;
        *high |= free;
    }
    (Point::from_bytes(low), Point::from_bytes(high))
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;
    use crate::seed::Seed;

    #[test]
    fn nearest_agrees_with_sorting_everything() {
        let mut rng = Seed(1).rng("atlas", 0);
        let atlas: Atlas = (0..500).map(|node| (Point::from_bytes(rng.random()), node)).collect();
        for n in [0, 1, 5, 20, 499, 500, 600] {
            let target = Point::from_bytes(rng.random());
            let mut all: Vec<_> = atlas.nodes().iter().map(|(at, node)| (at.distance(&target), *node)).collect();
            all.sort_unstable();
            let expected: Vec<u32> = all.iter().take(n).map(|(_, node)| *node).collect();
            assert_eq!(atlas.nearest(&target, n), expected);
        }
    }

    #[test]
    fn buckets_divide_everybody_else() {
        let mut rng = Seed(2).rng("atlas", 0);
        let mut atlas: Atlas = (1..300).map(|node| (Point::from_bytes(rng.random()), node)).collect();
        let own = Point::from_bytes(rng.random());
        atlas.insert(own, 0);
        let mut seen = 0;
        for bits in 0..=256 {
            for (position, _) in atlas.bucket(&own, bits) {
                assert_eq!(position.distance(&own).leading_zeros(), bits);
                seen += 1;
            }
        }
        assert_eq!(seen, 299);
        atlas.remove(own, 0);
        assert_eq!(atlas.len(), 299);
    }
}
