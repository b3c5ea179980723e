// SPDX-License-Identifier: MIT OR Apache-2.0
//! Eight numbers per peer and window, and how far each is from what the others do (security.md 7.7).

use std::time::Duration;

use crate::estimate::median;

/// Numbers per sample.
pub const FEATURES: usize = 8;
/// One sample; NaN where nothing was observed. In the order of the constants below.
pub type Features = [f32; FEATURES];

/// log2 of the mean round trip in ms.
pub const RTT: usize = 0;
/// Share of requests that went unanswered.
pub const TIMEOUTS: usize = 1;
/// Share of the contacts it named that lie in one /16 (IPv6: /32).
pub const SAME_16: usize = 2;
/// How much nearer to the target its nearest contact was than itself, in bits.
pub const GAIN: usize = 3;
/// log2 of the seconds we have known it.
pub const AGE: usize = 4;
/// Share of its answers with an invalid signature in them.
pub const INVALID: usize = 5;
/// Share of its answers that contradict what we know at first hand.
pub const CONTRADICTIONS: usize = 6;
/// How much denser than the network the contacts it named lie, in bits.
pub const DENSITY: usize = 7;

/// z above this is odd: 1 of 1000 honest windows is, the median of 12 runs of [`super::study::thresholds`] (3.3: 1 of 100).
pub const Z_ODD: f64 = 4.3;
/// A forest's score above this is odd, likewise (0.645: 1 of 100).
pub const FOREST_ODD: f64 = 0.70;

/// MAD of a normal distribution of standard deviation 1.
const MAD_OF_NORMAL: f32 = 1.4826;
/// Least standard deviations: where all are alike, a hair's breadth is not an anomaly.
const FLOORS: Features = [0.5, 0.05, 0.05, 0.5, 1.0, 0.02, 0.03, 0.4];
/// No feature counts for more standard deviations than this.
const MOST: f32 = 32.0;
/// Imagined faultless answers added to every share: one lost packet of one is not a rate of 100 %.
const PSEUDO: f32 = 4.0;

/// What one exchange with a peer showed; leave out what it did not. One exchange may be told in several.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Observation {
    /// The round trip, if it answered.
    pub rtt: Option<Duration>,
    /// It did not answer in time.
    pub timeout: bool,
    /// Of the contacts it named, the share in the most frequent /16 (IPv6: /32); leave out for fewer than 4 contacts.
    pub contacts_same_16_share: Option<f64>,
    /// log2(its own distance to the target / that of the nearest contact it named).
    pub closeness_gain_bits: Option<f64>,
    /// It passed on something with a wrong signature.
    pub invalid_signature: bool,
    /// It denied or changed what it had told or acknowledged to us before.
    pub contradiction: bool,
    /// log2(density of the contacts it named around the target / N^).
    pub density: Option<f64>,
}

/// Running sums of one peer in one window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    told: bool,
    exchanges: u16,
    timeouts: u16,
    invalid: u16,
    contradictions: u16,
    rtt: Mean,
    same_16: Mean,
    gain: Mean,
    density: Mean,
}

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f32,
    count: u16,
}

impl Mean {
    fn add(&mut self, value: Option<f64>, limit: f64) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.sum += value.clamp(-limit, limit) as f32;
            self.count = self.count.saturating_add(1);
        }
    }

    /// NaN without values.
    fn get(self) -> f32 {
        if self.count == 0 { f32::NAN } else { self.sum / f32::from(self.count) }
    }
}

impl Tally {
    pub(crate) fn add(&mut self, seen: &Observation) {
        let count = |counter: &mut u16, yes: bool| *counter = counter.saturating_add(u16::from(yes));
        count(&mut self.exchanges, seen.rtt.is_some() || seen.timeout);
        self.told = true;
        count(&mut self.timeouts, seen.timeout);
        count(&mut self.invalid, seen.invalid_signature);
        count(&mut self.contradictions, seen.contradiction);
        self.rtt.add(seen.rtt.map(|rtt| rtt.as_secs_f64() * 1000.0), 1e6);
        self.same_16.add(seen.contacts_same_16_share, 1.0);
        self.gain.add(seen.closeness_gain_bits, 256.0);
        self.density.add(seen.density, 256.0);
    }

    pub(crate) const fn is_empty(&self) -> bool {
        !self.told
    }

    /// Something that no statistics is needed for, and that nobody but the peer itself can bring about.
    pub(crate) const fn hard(&self) -> bool {
        self.invalid > 0 || self.contradictions > 0
    }

    pub(crate) fn features(&self, age_seconds: u32) -> Features {
        let share = |count: u16| f32::from(count) / (f32::from(self.exchanges.max(count)) + PSEUDO);
        let mut out = [0.0; FEATURES];
        out[RTT] = self.rtt.get().max(0.1).log2();
        if self.rtt.count == 0 {
            out[RTT] = f32::NAN;
        }
        out[TIMEOUTS] = share(self.timeouts);
        out[SAME_16] = self.same_16.get();
        out[GAIN] = self.gain.get();
        out[AGE] = (age_seconds as f32 + 1.0).log2();
        out[INVALID] = share(self.invalid);
        out[CONTRADICTIONS] = share(self.contradictions);
        out[DENSITY] = self.density.get();
        out
    }
}

/// What is usual: median and robust standard deviation of each feature.
#[derive(Debug, Clone)]
pub(crate) struct Baseline {
    median: Features,
    spread: Features,
}

impl Baseline {
    pub(crate) fn of(samples: &[Features]) -> Self {
        let mut baseline = Self { median: [0.0; FEATURES], spread: FLOORS };
        let each = baseline.median.iter_mut().zip(baseline.spread.iter_mut()).enumerate();
        for (feature, (middle, spread)) in each {
            let column = samples.iter().filter_map(|sample| sample.get(feature).copied()).filter(|v| v.is_finite());
            let mut values: Vec<f64> = column.map(f64::from).collect();
            let Some(found) = median(&mut values) else { continue };
            *middle = found as f32;
            values.iter_mut().for_each(|value| *value = (*value - found).abs());
            let mad = median(&mut values).unwrap_or(0.0) as f32;
            *spread = spread.max(mad * MAD_OF_NORMAL);
        }
        baseline
    }

    /// How many robust standard deviations each feature is off in the direction that is bad, 0 the other way and where
    /// nothing was observed: a tail that harms nobody must not look odd to the forest either.
    pub(crate) fn excess(&self, sample: &Features) -> Features {
        let mut out = *sample;
        for (feature, (value, (median, spread))) in out.iter_mut().zip(self.median.iter().zip(&self.spread)).enumerate()
        {
            let off = (*value - median) / spread;
            let bad = if feature == AGE { -off } else { off };
            // Beyond this all are equally odd; without it one wild value would stretch every cut of its feature.
            *value = if bad.is_finite() { bad.clamp(0.0, MOST) } else { 0.0 };
        }
        out
    }

    /// How far the sample is off altogether: the root of the sum of squares of its excess. Age speaks for nobody and
    /// against nobody here, or each newcomer would start under suspicion.
    pub(crate) fn z(&self, sample: &Features) -> f64 {
        let excess = self.excess(sample).into_iter().enumerate().filter(|(feature, _)| *feature != AGE);
        excess.map(|(_, off)| f64::from(off).powi(2)).sum::<f64>().sqrt()
    }

    /// By how much its share of failures exceeds the usual one.
    pub(crate) fn excess_failures(&self, sample: &Features) -> f32 {
        (sample[TIMEOUTS] - self.median[TIMEOUTS]) + sample[INVALID]
    }
}
