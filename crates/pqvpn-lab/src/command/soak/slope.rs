// SPDX-License-Identifier: MIT OR Apache-2.0
//! A line through points by Theil and Sen: the middle of the slopes between all pairs, which no single jump moves far; its
//! interval by Kendall's test.

/// 95 % of a normal distribution are within so many standard deviations.
const Z: f64 = 1.96;

/// A slope and the interval it lies in with 95 %.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slope {
    pub(super) slope: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Slope {
    /// The slope through `(x, y)` in the order of `x`; `None` with fewer than three points.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks among a few thousand slopes"
    )]
    pub(super) fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < 3 {
            return None;
        }
        let after = |from: usize| points.iter().skip(from + 1);
        let pairs = points.iter().enumerate().flat_map(|(i, one)| after(i).map(move |two| (one, two)));
        let mut slopes: Vec<f64> = pairs.map(|(one, two)| (two.1 - one.1) / (two.0 - one.0)).collect();
        slopes.sort_by(f64::total_cmp);
        let (n, count) = (points.len() as f64, slopes.len() as f64);
        let spread = Z * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
        let at = |rank: f64| slopes[(rank.max(0.0) as usize).min(slopes.len() - 1)];
        Some(Self {
            slope: at((count / 2.0).floor()),
            low: at(((count - spread) / 2.0).floor()),
            high: at(((count + spread) / 2.0).ceil()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rise: f64, noise: f64) -> Vec<(f64, f64)> {
        // Noise that repeats with a period that divides nothing here.
        (0..60).map(|i| (f64::from(i), rise * f64::from(i) + noise * f64::from(i * 37 % 11))).collect()
    }

    #[test]
    fn a_line_that_rises_is_told_from_one_that_does_not() {
        let rising = Slope::through(&line(2.0, 3.0)).unwrap();
        assert!(rising.low > 1.5 && rising.high < 2.5 && (rising.slope - 2.0).abs() < 0.2, "{rising:?}");
        let level = Slope::through(&line(0.0, 3.0)).unwrap();
        assert!(level.low <= 0.0 && level.high >= 0.0, "{level:?}");
    }

    #[test]
    fn one_jump_of_a_sample_is_no_slope() {
        let mut points = line(0.0, 0.0);
        points[59].1 = 1e6;
        let slope = Slope::through(&points).unwrap();
        assert!(slope.slope.abs() < 1e-9 && slope.low <= 0.0, "{slope:?}");
    }

    #[test]
    fn two_points_are_no_line() {
        assert!(Slope::through(&line(1.0, 0.0)[..2]).is_none());
    }
}
