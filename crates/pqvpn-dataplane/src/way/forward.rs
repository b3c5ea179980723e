// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a relay sends on: from where, to where, how much.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use pqvpn_packet::relay::Channel;

use crate::{
    clock,
    stats::{Run, Traffic},
    table::lock,
};

/// One direction of a pair of ends that this node relays between.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The only address the datagrams may come from.
    pub from: SocketAddr,
    /// Where they go.
    pub to: SocketAddr,
    /// The channel written on them, 56 bits.
    pub out_channel: u64,
    /// What they count against.
    pub limit: Arc<ForwardLimit>,
}

/// What went through one forward, relay headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForwardStats {
    /// Datagrams sent on.
    pub packets: u64,
    /// Bytes sent on.
    pub bytes: u64,
    /// Datagrams dropped by the limit or refused by what should have taken them.
    pub dropped: u64,
    /// When the last datagram came that was not dropped by the limit.
    pub last: Option<Instant>,
}

/// Fractional bits of [`ForwardLimit`]'s nanoseconds per byte.
const PER_BYTE_BITS: u32 = 32;
/// Fractional bits of its times: sixteenths of a nanosecond last for 36 years.
const TIME_BITS: u32 = 4;

/// Bytes per second and a burst, shared by every forward that holds it: a token bucket in one atomic word.
pub struct ForwardLimit {
    start: Instant,
    burst: u64,
    /// Nanoseconds one byte costs.
    per_byte: u64,
    /// How far the bucket may be ahead of the clock.
    depth: u64,
    /// The time at which the bucket will be full again.
    full_at: AtomicU64,
    /// What it is a part of.
    whole: Option<Arc<Self>>,
    /// What else there is where this has nothing left.
    more: Option<Arc<Self>>,
}

impl ForwardLimit {
    /// A full bucket. A datagram longer than `burst` bytes never passes.
    #[must_use]
    pub fn new(bytes_per_second: u64, burst: u64) -> Self {
        let per_byte = (1_000_000_000_u128 << PER_BYTE_BITS) / u128::from(bytes_per_second.max(1));
        let per_byte = u64::try_from(per_byte).unwrap_or(u64::MAX);
        let (start, depth) = (clock::now(), cost(per_byte, burst));
        Self { start, burst, per_byte, depth, full_at: AtomicU64::new(0), whole: None, more: None }
    }

    /// The same, where what passes counts against `whole` as well.
    #[must_use]
    pub fn within(self, whole: Arc<Self>) -> Self {
        Self { whole: Some(whole), ..self }
    }

    /// The same, where what finds nothing left counts against `more`.
    #[must_use]
    pub fn and_then(self, more: Arc<Self>) -> Self {
        Self { more: Some(more), ..self }
    }

    /// Takes `bytes` out of the bucket at the time `at`, or says that they are not there.
    pub fn take(&self, bytes: usize, at: Instant) -> bool {
        self.take_own(bytes, at) || self.more.as_ref().is_some_and(|more| more.take(bytes, at))
    }

    fn take_own(&self, bytes: usize, at: Instant) -> bool {
        if bytes as u64 > self.burst {
            return false;
        }
        let now = at.saturating_duration_since(self.start).as_nanos() << TIME_BITS;
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let cost = cost(self.per_byte, bytes as u64);
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let next = full_at.max(now).saturating_add(cost);
            (next - now <= self.depth).then_some(next)
        });
        taken.is_ok() && self.whole.as_ref().is_none_or(|whole| whole.take(bytes, at))
    }
}

impl fmt::Debug for ForwardLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForwardLimit")
    }
}

fn cost(per_byte: u64, bytes: u64) -> u64 {
    let cost = (u128::from(per_byte) * u128::from(bytes)) >> (PER_BYTE_BITS - TIME_BITS);
    u64::try_from(cost).unwrap_or(u64::MAX)
}

/// An address datagrams come from or go to, and our own address it last reached us at: what goes there leaves from it,
/// since it takes nothing from another.
#[derive(Debug, Default)]
pub(crate) struct End(Mutex<Option<IpAddr>>);

impl End {
    pub(crate) fn local(&self) -> Option<IpAddr> {
        *lock(&self.0)
    }

    pub(crate) fn reached(&self, local: Option<IpAddr>) {
        *lock(&self.0) = local;
    }
}

#[derive(Debug, Default)]
struct Counters {
    sent: Traffic,
    dropped: AtomicU64,
}

/// A [`Forward`] as the packet threads use it.
#[derive(Debug)]
pub(crate) struct ForwardEntry {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) out: Channel,
    pub(crate) near: Arc<End>,
    pub(crate) far: Arc<End>,
    limit: Arc<ForwardLimit>,
    counters: Arc<Counters>,
}

impl ForwardEntry {
    /// An entry that goes on with the counters of the one it replaces.
    pub(crate) fn new(
        forward: Forward,
        out: Channel,
        old: Option<&Self>,
        mut end_of: impl FnMut(SocketAddr) -> Arc<End>,
    ) -> Self {
        let Forward { from, to, limit, .. } = forward;
        let counters = old.map(|old| Arc::clone(&old.counters)).unwrap_or_default();
        Self { from, to, out, near: end_of(from), far: end_of(to), limit, counters }
    }

    /// Whether a datagram may go on; counted against the limit.
    pub(crate) fn admits(&self, bytes: usize, now: Instant) -> bool {
        self.limit.take(bytes, now)
    }

    pub(crate) fn add(&self, run: Run, start: Instant, now: Instant) {
        self.counters.sent.add(run, start, now);
    }

    pub(crate) fn add_dropped(&self, datagrams: u64) {
        self.counters.dropped.fetch_add(datagrams, Relaxed);
    }

    pub(crate) fn stats(&self, start: Instant) -> ForwardStats {
        let (bytes, packets, last, _) = self.counters.sent.read(start);
        ForwardStats { packets, bytes, dropped: self.counters.dropped.load(Relaxed), last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn the_bucket_gives_its_burst_at_once_and_its_rate_after_that() {
        let limit = ForwardLimit::new(1_000_000, 10_000);
        let start = limit.start;
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!((0..100).filter(|_| limit.take(1000, at(0))).count(), 10);
        assert_eq!((0..100).filter(|_| limit.take(1000, at(3))).count(), 3);
        assert_eq!((0..100).filter(|_| limit.take(1000, at(60_000))).count(), 10, "no more than the burst is saved");
    }

    #[test]
    fn nothing_longer_than_the_burst_passes() {
        let limit = ForwardLimit::new(u64::MAX, 999);
        assert!(!limit.take(1000, limit.start + Duration::from_secs(100)));
        let nothing = ForwardLimit::new(0, 0);
        assert!(!nothing.take(1, nothing.start + Duration::from_secs(1_000_000)));
    }

    #[test]
    fn those_who_share_a_limit_share_its_bytes() {
        let limit = Arc::new(ForwardLimit::new(1, 1_000_000));
        let now = limit.start;
        let taken: usize = std::thread::scope(|scope| {
            let each = || (0..1000).filter(|_| limit.take(1000, now)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(each)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    proptest! {
        #[test]
        fn over_any_time_no_more_than_burst_and_rate_pass(
            rate in 1000_u64..10_000_000_000, burst in 1500_u64..1_000_000, steps in prop::collection::vec((0_u64..2_000_000, 1_usize..1500), 1..200)
        ) {
            let limit = ForwardLimit::new(rate, burst);
            let (mut elapsed, mut passed) = (Duration::ZERO, 0_u64);
            for (wait, bytes) in steps {
                elapsed += Duration::from_nanos(wait);
                if limit.take(bytes, limit.start + elapsed) {
                    passed += bytes as u64;
                }
            }
            let most = burst as f64 + rate as f64 * elapsed.as_secs_f64();
            prop_assert!(passed as f64 <= most * 1.01 + 1.0, "{} of {}", passed, most);
        }
    }
}
