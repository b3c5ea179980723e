// SPDX-License-Identifier: MIT OR Apache-2.0
//! Medians and ranges.

use serde_json::{Value, json};

/// One value a round.
#[derive(Debug, Default, Clone)]
pub(super) struct Series(Vec<f64>);

impl Series {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(super) fn push_some(&mut self, value: Option<f64>) {
        self.0.extend(value);
    }

    /// The middle value, of an even number the mean of the two; null without any.
    pub(super) fn median(&self) -> Value {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (half, even) = (sorted.len() / 2, sorted.len().is_multiple_of(2));
        match sorted.get(half) {
            Some(upper) if even => rounded(f64::midpoint(sorted[half - 1], *upper)),
            Some(middle) => rounded(*middle),
            None => Value::Null,
        }
    }

    /// `lowest-highest`, null without any.
    pub(super) fn range(&self) -> Value {
        let lowest = self.0.iter().copied().reduce(f64::min);
        let highest = self.0.iter().copied().reduce(f64::max);
        lowest.zip(highest).map_or(Value::Null, |(low, high)| json!(format!("{low:.2}-{high:.2}")))
    }

    /// Round by round, this by that.
    pub(super) fn ratio(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(mine, others)| mine / others).collect())
    }
}

/// To three decimals: what is beyond them is noise.
pub(super) fn rounded(value: f64) -> Value {
    json!((value * 1e3).round() / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_ranges_and_ratios() {
        let series = Series(vec![3.0, 1.0, 2.0]);
        assert_eq!(series.median(), json!(2.0));
        assert_eq!(series.range(), json!("1.00-3.00"));
        assert_eq!(Series(vec![1.0, 2.0]).median(), json!(1.5));
        assert_eq!(series.ratio(&Series(vec![1.0, 1.0, 4.0])).0, [3.0, 1.0, 0.5]);
    }

    #[test]
    fn nothing_measured_is_null() {
        let series = Series::default();
        assert_eq!((series.median(), series.range()), (Value::Null, Value::Null));
    }
}
