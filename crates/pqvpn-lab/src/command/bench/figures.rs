// SPDX-License-Identifier: MIT OR Apache-2.0
//! Medians, ranges and ratios of what was measured once a round.

use serde_json::{Value, json};

/// One value a round; a round without one keeps its place, so that pairs stay pairs.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Series(Vec<Option<f64>>);

impl Series {
    /// Takes the value of a round, counted from 0.
    pub(super) fn set(&mut self, round: usize, value: f64) {
        if self.0.len() <= round {
            self.0.resize(round + 1, None);
        }
        self.0[round] = Some(value);
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied().flatten()
    }

    /// The middle value, of an even number the mean of the two; null without any.
    pub(super) fn median(&self) -> Value {
        let mut sorted: Vec<f64> = self.values().collect();
        sorted.sort_by(f64::total_cmp);
        let (half, even) = (sorted.len() / 2, sorted.len().is_multiple_of(2));
        match sorted.get(half) {
            Some(upper) if even => rounded(f64::midpoint(sorted[half - 1], *upper)),
            Some(middle) => rounded(*middle),
            None => Value::Null,
        }
    }

    /// The lowest, null without any.
    pub(super) fn min(&self) -> Value {
        self.values().reduce(f64::min).map_or(Value::Null, rounded)
    }

    /// The highest, null without any.
    pub(super) fn max(&self) -> Value {
        self.values().reduce(f64::max).map_or(Value::Null, rounded)
    }

    /// Round by round, this by that; a round that lacks one of the two, or divides by nothing, has no ratio.
    pub(super) fn ratio(&self, other: &Self) -> Self {
        self.pairs(other, |mine, others| (others != 0.0).then(|| mine / others))
    }

    /// Round by round, this less that.
    pub(super) fn difference(&self, other: &Self) -> Self {
        self.pairs(other, |mine, others| Some(mine - others))
    }

    fn pairs(&self, other: &Self, of: impl Fn(f64, f64) -> Option<f64>) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(mine, others)| mine.zip(*others).and_then(|(m, o)| of(m, o))).collect())
    }
}

/// To three decimals: what is beyond them is noise.
pub(super) fn rounded(value: f64) -> Value {
    json!((value * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series<const N: usize>(values: [f64; N]) -> Series {
        Series(values.map(Some).into())
    }

    #[test]
    fn medians_and_ranges() {
        let values = series([3.0, 1.0, 2.0]);
        assert_eq!((values.median(), values.min(), values.max()), (json!(2.0), json!(1.0), json!(3.0)));
        assert_eq!(series([1.0, 2.0]).median(), json!(1.5));
    }

    #[test]
    fn ratios_and_differences_are_of_the_same_round() {
        let (mine, others) = (series([3.0, 1.0, 2.0]), series([1.0, 2.0, 0.0]));
        assert_eq!(mine.ratio(&others), Series(vec![Some(3.0), Some(0.5), None]));
        assert_eq!(mine.difference(&others), series([2.0, -1.0, 2.0]));
        // The other one failed in the first round.
        let mut others = Series::default();
        others.set(1, 4.0);
        assert_eq!(mine.ratio(&others), Series(vec![None, Some(0.25)]));
    }

    #[test]
    fn nothing_measured_is_null() {
        let series = Series::default();
        assert_eq!([series.median(), series.min(), series.max()], [Value::Null, Value::Null, Value::Null]);
    }
}
