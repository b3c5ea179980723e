// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cubic with an explicit pacing rate, because noq's own pacer spreads the first flight over a round trip.
//!
//! Without a rate from the controller, noq 1.4 derives one from the assumed RTT of 333 ms and sends one datagram every
//! ~27 ms until the first sample: +1.5 RTT for a handshake of eight datagrams a side.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use noq::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use noq_proto::RttEstimator;

/// Slowest pace in datagrams per second: ten every 2 ms, what other stacks send as one burst.
const MIN_DATAGRAMS_PER_SECOND: u64 = 10 * 500;

/// Makes [`Paced`] controllers.
#[derive(Debug)]
pub(super) struct PacedConfig {
    cubic: Arc<CubicConfig>,
    initial_rtt: Duration,
}

impl PacedConfig {
    pub(super) fn new(initial_window: u64, initial_rtt: Duration) -> Self {
        let mut cubic = CubicConfig::default();
        cubic.initial_window(initial_window);
        Self { cubic: Arc::new(cubic), initial_rtt }
    }
}

impl ControllerFactory for PacedConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let cubic = Arc::clone(&self.cubic).build(now, current_mtu);
        Box::new(Paced { cubic, rtt: self.initial_rtt, mtu: current_mtu })
    }
}

#[derive(Debug)]
struct Paced {
    cubic: Box<dyn Controller>,
    rtt: Duration,
    mtu: u16,
}

/// Bytes per second: 1.25 windows per round trip (RFC 9002 §7.7), but never slower than the floor.
fn pacing_rate(window: u64, rtt: Duration, mtu: u16) -> u64 {
    let nanos = rtt.as_nanos().max(1);
    let by_window = u128::from(window) * 1_250_000_000 / nanos;
    u64::try_from(by_window).unwrap_or(u64::MAX).max(MIN_DATAGRAMS_PER_SECOND * u64::from(mtu))
}

impl Controller for Paced {
    fn on_sent(&mut self, now: Instant, bytes: u64, largest_pn: u64) {
        self.cubic.on_sent(now, bytes, largest_pn);
    }

    fn on_packet_sent(&mut self, now: Instant, bytes: u16, pn: u64) {
        self.cubic.on_packet_sent(now, bytes, pn);
    }

    fn on_cwnd_limited(&mut self) {
        self.cubic.on_cwnd_limited();
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, pn: u64, app_limited: bool, rtt: &RttEstimator) {
        self.rtt = rtt.get();
        self.cubic.on_ack(now, sent, bytes, pn, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        is_ecn: bool,
        lost_bytes: u64,
        largest_lost_pn: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, is_persistent_congestion, is_ecn, lost_bytes, largest_lost_pn);
    }

    fn on_packet_lost(&mut self, lost_bytes: u16, pn: u64, now: Instant) {
        self.cubic.on_packet_lost(lost_bytes, pn, now);
    }

    fn on_spurious_congestion_event(&mut self) {
        self.cubic.on_spurious_congestion_event();
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.cubic.on_mtu_update(new_mtu);
    }

    fn on_ack_frequency_update(&mut self, ack_eliciting_threshold: u64, requested_max_ack_delay: Duration) {
        self.cubic.on_ack_frequency_update(ack_eliciting_threshold, requested_max_ack_delay);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.cubic.metrics();
        metrics.pacing_rate = Some(pacing_rate(self.window(), self.rtt, self.mtu));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { cubic: self.cubic.clone_box(), rtt: self.rtt, mtu: self.mtu })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_flight_is_never_paced_slower_than_ten_datagrams_in_two_milliseconds() {
        let factory = Arc::new(PacedConfig::new(40_000, Duration::from_millis(333)));
        let controller = factory.build(Instant::now(), 1200);
        assert_eq!(controller.metrics().pacing_rate, Some(1200 * 5000));
        assert_eq!(controller.window(), 40_000);
    }

    #[test]
    fn a_short_path_is_paced_by_its_window() {
        assert_eq!(pacing_rate(40_000, Duration::from_millis(1), 1200), 50_000_000);
        assert_eq!(pacing_rate(u64::MAX, Duration::ZERO, 1200), u64::MAX);
    }
}
