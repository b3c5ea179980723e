// SPDX-License-Identifier: MIT OR Apache-2.0
//! How well the present path carries: jitter of the round trip, and bytes a second each way.
//!
//! Round trip and loss are the peer's life's ([`crate::life`]), which lives by them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Rates are not taken over less.
const LEAST: Duration = Duration::from_millis(250);
/// After so long a rate counts for 1/e of what is shown.
const MEMORY: Duration = Duration::from_secs(2);

/// Smoothed figures of one path.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quality {
    path: Option<SocketAddr>,
    last_rtt: Option<Duration>,
    jitter: Option<Duration>,
    /// When and at how many bytes the rates were last taken: sent, received.
    counted: Option<(Instant, [u64; 2])>,
    /// Bytes a second: sent, received.
    rates: [f64; 2],
}

impl Quality {
    /// Packets take this path; of another one nothing is known yet.
    pub(crate) fn on_path(&mut self, path: SocketAddr) {
        if self.path != Some(path) {
            *self = Self { path: Some(path), ..Self::default() };
        }
    }

    /// A round trip was measured on a path.
    pub(crate) fn on_rtt(&mut self, path: SocketAddr, rtt: Duration) {
        if self.path != Some(path) {
            return;
        }
        // RFC 3550 6.4.1, with a gain that suits few samples.
        if let Some(last) = self.last_rtt.replace(rtt) {
            let sample = rtt.abs_diff(last);
            self.jitter = Some(self.jitter.map_or(sample, |jitter| jitter * 7 / 8 + sample / 8));
        }
    }

    /// So many bytes were sent and received with the peer so far.
    pub(crate) fn on_bytes(&mut self, now: Instant, bytes: [u64; 2]) {
        let Some((at, before)) = self.counted else {
            self.counted = Some((now, bytes));
            return;
        };
        let time = now.saturating_duration_since(at);
        if time < LEAST {
            return;
        }
        self.counted = Some((now, bytes));
        let old = (-time.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        for ((rate, bytes), before) in self.rates.iter_mut().zip(bytes).zip(before) {
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            let newest = bytes.saturating_sub(before) as f64 / time.as_secs_f64();
            *rate = *rate * old + newest * (1.0 - old);
        }
    }

    /// Smoothed difference of one round trip to the next.
    pub(crate) const fn jitter(&self) -> Option<Duration> {
        self.jitter
    }

    /// Bytes a second sent and received, now that so many went so far.
    pub(crate) fn rates(mut self, now: Instant, bytes: [u64; 2]) -> [f64; 2] {
        self.on_bytes(now, bytes);
        self.rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn jitter_is_what_round_trips_differ_by_and_belongs_to_the_path() {
        let mut quality = Quality::default();
        quality.on_path(at(1));
        quality.on_rtt(at(1), 20 * MS);
        assert_eq!(quality.jitter(), None, "one round trip does not differ");
        for _ in 0..50 {
            quality.on_rtt(at(1), 30 * MS);
            quality.on_rtt(at(1), 20 * MS);
            quality.on_rtt(at(2), 900 * MS);
        }
        let jitter = quality.jitter().unwrap();
        assert!(jitter.abs_diff(10 * MS) < MS, "{jitter:?}");
        quality.on_path(at(1));
        assert!(quality.jitter().is_some());
        quality.on_path(at(2));
        assert_eq!(quality.jitter(), None);
    }

    #[test]
    fn rates_follow_what_flows_and_fade_when_nothing_does() {
        let mut quality = Quality::default();
        let mut now = Instant::now();
        let mut sent = 0;
        for _ in 0..200 {
            quality.on_bytes(now, [sent, 7]);
            (now, sent) = (now + 100 * MS, sent + 100_000);
        }
        let [tx, rx] = quality.rates(now, [sent, 7]);
        assert!((tx - 1_000_000.0).abs() < 20_000.0 && rx.abs() < f64::EPSILON, "{tx} {rx}");
        let [tx, _] = quality.rates(now + Duration::from_secs(20), [sent, 7]);
        assert!(tx < 11_000.0, "what was sent last counts over the whole time: {tx}");
        let [tx, _] = quality.rates(now, [0, 0]);
        assert!(tx >= 0.0, "counters that began anew");
    }
}
