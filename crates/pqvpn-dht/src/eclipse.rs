// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is a neighbourhood denser than chance allows? The test for Sybils placed around a key (security.md 7.4).

pub mod study;

use pqvpn_wire::dht::Distance;

/// The nearest nodes looked at; the thresholds were made for so many.
pub const NEAREST: usize = 20;

/// What a finished lookup looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As dense as the rest of the network.
    Normal,
    /// So dense in 1 of 100 honest lookups.
    Suspect,
    /// So dense in 1 of 1000 honest lookups.
    Eclipse,
}

/// ln of the chance that the k nearest of `n_hat` random nodes lie within `d_k` (a share of the space).
///
/// The logarithm, because the chance itself is below the smallest `f64` where it matters most. NaN never comes out:
/// nonsense in gives 0.0, "certain".
#[must_use]
pub fn ln_dense(n_hat: f64, k: usize, d_k: f64) -> f64 {
    ln_at_least(k, n_hat * d_k)
}

/// As [`ln_dense`], as a probability; 0.0 below 10^-308.
#[must_use]
pub fn dense(n_hat: f64, k: usize, d_k: f64) -> f64 {
    ln_dense(n_hat, k, d_k).exp()
}

/// ln of the least of the chances for the nearest, the two nearest, the three nearest, ... : sees a few Sybils very near
/// to the key, which [`dense`] misses. `distances`: nearest first, as shares of the space.
#[must_use]
pub fn ln_scan(n_hat: f64, distances: &[f64]) -> f64 {
    distances.iter().zip(1..).map(|(d, j)| ln_dense(n_hat, j, *d)).fold(0.0, f64::min)
}

/// As [`ln_scan`], as a probability (of the densest start, not of finding one so dense).
#[must_use]
pub fn scan(n_hat: f64, distances: &[f64]) -> f64 {
    ln_scan(n_hat, distances).exp()
}

/// The two statistics of one lookup and what they mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence {
    /// ln of [`dense`].
    pub ln_dense: f64,
    /// ln of [`scan`].
    pub ln_scan: f64,
    /// The verdict at the test's thresholds.
    pub verdict: Verdict,
}

/// A pair of thresholds; a lookup is conspicuous if either statistic is below its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// For [`dense`].
    pub dense: f64,
    /// For [`scan`].
    pub scan: f64,
}

/// The test with its thresholds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EclipseTest {
    /// For [`Verdict::Suspect`].
    pub suspect: Thresholds,
    /// For [`Verdict::Eclipse`].
    pub eclipse: Thresholds,
}

impl EclipseTest {
    /// For a node that estimates the number of nodes from 16 lookups, as [`crate::estimate::SizeEstimate`] does.
    ///
    /// Made by 400,000 honest trials of [`study`] at N = 10^5 and 10^7, each statistic given the same share (0.60 %,
    /// 0.055 %) so that both together raise 1 % and 0.1 % false alarms; smaller networks raise fewer. The error of the
    /// estimate is paid for here: at the thresholds for a known N such a node would raise 1.5 % instead of 1 %.
    pub const ESTIMATED: Self = Self {
        suspect: Thresholds { dense: 3.24e-3, scan: 4.39e-4 },
        eclipse: Thresholds { dense: 2.48e-4, scan: 3.34e-5 },
    };
    /// For a known number of nodes, made likewise.
    pub const KNOWN: Self = Self {
        suspect: Thresholds { dense: 5.82e-3, scan: 6.08e-4 },
        eclipse: Thresholds { dense: 5.75e-4, scan: 5.64e-5 },
    };
}

impl Default for EclipseTest {
    fn default() -> Self {
        Self::ESTIMATED
    }
}

impl EclipseTest {
    /// Judges the nodes found nearest to a key, in any order, given the estimated number of nodes (of *other* lookups).
    #[must_use]
    pub fn judge(&self, n_hat: f64, distances: &[Distance]) -> Verdict {
        self.examine(n_hat, distances).verdict
    }

    /// As [`EclipseTest::judge`], with the numbers.
    ///
    /// A node at distance zero is left out: a lookup of a node's own position finds it there, and no hash lands there.
    #[must_use]
    pub fn examine(&self, n_hat: f64, distances: &[Distance]) -> Evidence {
        let mut near: Vec<f64> = distances.iter().map(Distance::fraction).filter(|d| *d > 0.0).collect();
        near.sort_unstable_by(f64::total_cmp);
        near.truncate(NEAREST);
        self.weigh(n_hat, &near)
    }

    /// The same for shares of the space, nearest first.
    fn weigh(&self, n_hat: f64, near: &[f64]) -> Evidence {
        let ln_dense = near.last().map_or(0.0, |d_k| ln_dense(n_hat, near.len(), *d_k));
        let ln_scan = ln_scan(n_hat, near);
        let below = |t: &Thresholds| ln_dense < t.dense.ln() || ln_scan < t.scan.ln();
        let verdict = match (below(&self.eclipse), below(&self.suspect)) {
            (true, _) => Verdict::Eclipse,
            (false, true) => Verdict::Suspect,
            (false, false) => Verdict::Normal,
        };
        Evidence { ln_dense, ln_scan, verdict }
    }
}

/// ln P(X >= j) for X ~ Poisson(x): the regularised lower incomplete gamma function P(j, x) of an integer shape.
fn ln_at_least(j: usize, x: f64) -> f64 {
    if j == 0 || x.is_nan() || x == f64::INFINITY {
        return 0.0;
    }
    if x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let shape = j as f64;
    if x > shape {
        // The few terms below j, each with its exponential, so that none overflows; they make up at most half.
        let mut ln_term = -x;
        let mut less = 0.0;
        for i in 1..=j {
            less += ln_term.exp();
            ln_term += (x / i as f64).ln();
        }
        return (-less.min(1.0)).ln_1p();
    }
    // Terms j, j+1, ... relative to term j: they shrink at least as fast as x/(j+1) < 1.
    let ln_factorial: f64 = (2..=j).map(|i| (i as f64).ln()).sum();
    let (mut sum, mut term, mut i) = (1.0, 1.0, shape);
    while term > sum * f64::EPSILON {
        i += 1.0;
        term *= x / i;
        sum += term;
    }
    (shape * x.ln() - x - ln_factorial + sum.ln()).min(0.0)
}

#[cfg(test)]
mod tests;
