// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shares with their confidence, and percentiles.

use rand::RngExt;
use serde_json::{Value, json};

use crate::seed::Seed;

/// 97.5 % quantile of the normal distribution: two-sided 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Hits out of tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// How often it went well.
    pub hits: u64,
    /// How often it was tried.
    pub tries: u64,
}

impl Share {
    /// Counts one try.
    pub const fn count(&mut self, hit: bool) {
        self.hits += hit as u64;
        self.tries += 1;
    }

    /// How often it did not.
    #[must_use]
    pub const fn misses(self) -> u64 {
        self.tries - self.hits
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { hits: self.hits + other.hits, tries: self.tries + other.tries }
    }

    /// Hits per try in per cent; NaN without a try, which clears no bar.
    #[must_use]
    pub fn percent(self) -> f64 {
        100.0 * float(self.hits) / float(self.tries)
    }

    /// The 95 % interval of Wilson (1927) in per cent: right when trials are independent.
    #[must_use]
    pub fn wilson(self) -> (f64, f64) {
        if self.tries == 0 {
            return (0.0, 100.0);
        }
        let (n, p) = (float(self.tries), float(self.hits) / float(self.tries));
        let denominator = 1.0 + Z * Z / n;
        let centre = p + Z * Z / (2.0 * n);
        let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        (100.0 * ((centre - spread) / denominator).max(0.0), 100.0 * ((centre + spread) / denominator).min(1.0))
    }
}

/// One share per seed: trials of one world are not independent, worlds are.
#[derive(Debug, Clone, Default)]
pub struct Shares(Vec<Share>);

impl FromIterator<Share> for Shares {
    fn from_iter<T: IntoIterator<Item = Share>>(shares: T) -> Self {
        Self(shares.into_iter().collect())
    }
}

impl Shares {
    /// All trials of all seeds.
    #[must_use]
    pub fn total(&self) -> Share {
        self.0.iter().copied().fold(Share::default(), Share::plus)
    }

    /// How many seeds.
    #[must_use]
    pub const fn seeds(&self) -> usize {
        self.0.len()
    }

    /// The 95 % percentile bootstrap interval over seeds in per cent (Efron & Tibshirani 1993, 13.3), 1000 draws.
    #[must_use]
    pub fn bootstrap(&self) -> (f64, f64) {
        if self.0.is_empty() {
            return (0.0, 100.0);
        }
        let mut rng = Seed(0).rng("bootstrap", 0);
        let mut draws: Vec<f64> = (0..1000)
            .map(|_| {
                let pick = |_| self.0[rng.random_range(0..self.0.len())];
                (0..self.0.len()).map(pick).fold(Share::default(), Share::plus).percent()
            })
            .collect();
        draws.sort_by(f64::total_cmp);
        (draws[25], draws[974])
    }

    /// `{percent, wilson, bootstrap, trials, seeds}`, per cent with two decimals.
    #[must_use]
    pub fn json(&self) -> Value {
        let total = self.total();
        let (wilson, bootstrap) = (total.wilson(), self.bootstrap());
        json!({
            "percent": round(total.percent()), "wilson95": [round(wilson.0), round(wilson.1)],
            "bootstrap95": [round(bootstrap.0), round(bootstrap.1)], "trials": total.tries, "seeds": self.seeds(),
        })
    }

    /// `99.53 [99.1-99.8]`: per cent and the wider of both intervals at each end.
    #[must_use]
    pub fn text(&self) -> String {
        let total = self.total();
        let (wilson, bootstrap) = (total.wilson(), self.bootstrap());
        format!("{:.2} [{:.1}-{:.1}]", total.percent(), wilson.0.min(bootstrap.0), wilson.1.max(bootstrap.1))
    }
}

/// The value below which `share` of the sample lies (nearest rank); NaN of nothing.
#[must_use]
pub fn percentile(sample: &[f64], share: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index into the sample")]
    let rank = (share * float(sorted.len() as u64)).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// The mean; NaN of nothing.
#[must_use]
pub fn mean(sample: &[f64]) -> f64 {
    sample.iter().sum::<f64>() / float(sample.len() as u64)
}

/// Two decimals, for people and JSON.
#[must_use]
pub fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Exact up to 2^53, far beyond any count here.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
#[must_use]
pub const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_published_values() {
        // Newcombe (1998), table I: 81/263 -> 0.2553 to 0.3662; 0/20 -> 0.0000 to 0.1611; 15/148 -> 0.0624 to 0.1605.
        for (hits, tries, low, high) in [(81, 263, 25.53, 36.62), (0, 20, 0.0, 16.11), (15, 148, 6.24, 16.05)] {
            let (found_low, found_high) = Share { hits, tries }.wilson();
            assert!((found_low - low).abs() < 0.01 && (found_high - high).abs() < 0.01, "{found_low} {found_high}");
        }
        assert_eq!(Share::default().wilson(), (0.0, 100.0));
    }

    #[test]
    fn the_bootstrap_sees_that_seeds_differ() {
        let alike: Shares = (0..30).map(|_| Share { hits: 90, tries: 100 }).collect();
        assert_eq!(alike.bootstrap(), (90.0, 90.0));
        let apart: Shares = (0..30).map(|seed| Share { hits: if seed < 3 { 0 } else { 100 }, tries: 100 }).collect();
        let (low, high) = apart.bootstrap();
        let wilson = apart.total().wilson();
        assert!(low < wilson.0 && high > wilson.1, "{low} {high} {wilson:?}");
    }

    #[test]
    fn percentiles_are_of_the_sample() {
        let sample = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(percentile(&sample, 0.5), 3.0);
        assert_eq!(percentile(&sample, 0.95), 5.0);
        assert_eq!(percentile(&sample, 0.0), 1.0);
        assert!(percentile(&[], 0.5).is_nan());
        assert_eq!(mean(&sample), 3.0);
    }

    #[test]
    fn a_share_of_nothing_clears_no_bar() {
        assert!(Share::default().percent().is_nan());
    }
}
