// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gate in front of incoming handshakes: who gets state, who must first prove its address, who gets silence.
//!
//! A first packet costs us about 215 µs and some ten kilobytes, and its source may be forged. So:
//! - un-proven sources get state while few handshakes are under way and their prefix keeps its rate; else a Retry,
//!   which costs no state and is smaller than what it answers. A forged flood thus cannot lock out the forged address;
//! - proven sources get state within a rate of their own, which nobody else can use up; else silence;
//! - where all `max_unfinished` places are taken they get one only if somebody has to leave it ([`Places`]).
//!
//! Pure: time is an argument, memory is bounded by `sources`.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use pqvpn_dataplane::way::WayId;

#[cfg(doc)]
use super::Places;
use super::Room;

/// Limits on incoming handshakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateConfig {
    /// Handshakes under way from which on un-proven sources get a Retry (one more round trip, no state).
    pub retry_threshold: usize,
    /// Handshakes under way from which on another begins only if one of them leaves.
    pub max_unfinished: usize,
    /// Handshakes one source (IPv4 address, IPv6 /64) may begin at once.
    pub burst: u32,
    /// Handshakes one source may begin per second in the long run.
    pub per_second: u32,
    /// Sources remembered, un-proven and proven each (about 40 bytes per source).
    pub sources: usize,
}

/// What an unfinished handshake takes, measured in an unoptimised build.
const PLACE_BYTES: u64 = 128 * 1024;
/// Share of the memory that strangers' handshakes may take.
const SHARE: u64 = 4;
/// As many places as a small device has: enough for Retry to come before they are full.
const FEWEST: usize = 64;

impl GateConfig {
    /// The defaults, with no more places than a quarter of `bytes` has room for.
    #[must_use]
    pub fn for_memory(bytes: u64) -> Self {
        let usual = Self::default();
        let fit = usize::try_from(bytes / SHARE / PLACE_BYTES).unwrap_or(usize::MAX);
        Self { max_unfinished: fit.clamp(FEWEST, usual.max_unfinished), ..usual }
    }

    /// Handshakes under way from which on un-proven sources get a Retry, whoever they are.
    #[must_use]
    pub fn retries_from(&self) -> usize {
        self.retry_threshold.min(self.max_unfinished)
    }
}

/// Handshakes that leave their places to others, in a second and at once. With its whole answer each has cost a millisecond of a
/// processor, which tunnels go without.
const DISPLACED_PER_SECOND: u32 = 256;
const DISPLACED_AT_ONCE: u32 = 64;
/// Handshakes that proven sources may begin which are too many to be remembered: at once, and in a second.
const UNTRACKED: (u32, u32) = (64, 512);
/// How long a source that has made somebody leave does not do so again.
const CONTENT: Duration = Duration::from_secs(2);
/// Whose rate all share.
pub(super) const EVERYBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl Default for GateConfig {
    fn default() -> Self {
        Self { retry_threshold: 32, max_unfinished: 512, burst: 5, per_second: 20, sources: 4096 }
    }
}

/// What to do with a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Begin the handshake.
    Accept,
    /// Ask for proof of the address, keep no state.
    Retry,
    /// Say nothing.
    Ignore,
}

/// The state of the gate: one rate per source prefix.
#[derive(Debug)]
pub struct Gate {
    config: GateConfig,
    unproven: Sources,
    proven: Sources,
    /// Who made somebody leave a place: now and then, or few addresses keep us busy with handshakes that end nowhere.
    displacing: Sources,
    /// What all proven sources share that are not remembered, and what all share that make somebody leave.
    untracked: Sources,
    displaced: Sources,
}

impl Gate {
    /// A gate that has seen nobody.
    #[must_use]
    pub fn new(config: GateConfig) -> Self {
        let sources = || Sources::new(config.burst, config.per_second, config.sources);
        let displacing = Sources::every(CONTENT, config.sources);
        let untracked = Sources::new(UNTRACKED.0, UNTRACKED.1, 1);
        let displaced = Sources::new(DISPLACED_AT_ONCE, DISPLACED_PER_SECOND, 1);
        Self { unproven: sources(), proven: sources(), untracked, displacing, displaced, config }
    }

    /// Judges a first packet from `source`, which is `proven` if it carries a token of ours, while `unfinished`
    /// incoming handshakes are under way. `room`, which takes long to find, is asked for only within the source's rate.
    pub fn judge(
        &mut self,
        now: Instant,
        source: IpAddr,
        proven: bool,
        unfinished: usize,
        room: impl FnOnce() -> Room,
    ) -> Verdict {
        if proven {
            // Who is one too many to be remembered shares a rate with all others that are.
            let taken = match self.proven.take(now, source) {
                Take::Untracked => self.untracked.take(now, EVERYBODY),
                taken @ (Take::Granted | Take::Exceeded) => taken,
            };
            if taken == Take::Exceeded {
                return Verdict::Ignore;
            }
            return match room() {
                Room::Free => Verdict::Accept,
                Room::InsteadOf(_) if self.may_displace(now, source) => Verdict::Accept,
                Room::InsteadOf(_) | Room::None => Verdict::Ignore,
            };
        }
        if unfinished >= self.config.retries_from() {
            return Verdict::Retry;
        }
        match self.unproven.take(now, source) {
            Take::Granted => Verdict::Accept,
            Take::Exceeded | Take::Untracked => Verdict::Retry,
        }
    }

    /// Whether a source, and all sources together, may have one more leave its place: what has left was paid for.
    fn may_displace(&mut self, now: Instant, source: IpAddr) -> bool {
        // Nobody has had his turn where nobody has left.
        !self.displaced.is_exceeded(now, EVERYBODY)
            && self.displacing.take(now, source) != Take::Exceeded
            && self.displaced.take(now, EVERYBODY) != Take::Exceeded
    }

    /// Sources remembered now, for the proof that they are bounded.
    #[must_use]
    pub fn remembered(&self) -> usize {
        [&self.unproven, &self.proven, &self.displacing].into_iter().map(Sources::remembered).sum()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    Granted,
    Exceeded,
    Untracked,
}

/// Token buckets in the form of the generic cell rate algorithm: one instant per source.
#[derive(Debug)]
pub(super) struct Sources {
    /// When the bucket of a source is full again; a source not in here has a full bucket.
    busy_until: HashMap<IpAddr, Instant>,
    period: Duration,
    tolerance: Duration,
    limit: usize,
    next_sweep: Option<Instant>,
}

impl Sources {
    pub(super) fn new(burst: u32, per_second: u32, limit: usize) -> Self {
        let period = Duration::from_secs(1) / per_second.max(1);
        Self { tolerance: period * burst.saturating_sub(1), ..Self::every(period, limit) }
    }

    /// One at a time.
    fn every(period: Duration, limit: usize) -> Self {
        Self { busy_until: HashMap::new(), period, tolerance: Duration::ZERO, limit, next_sweep: None }
    }

    pub(super) fn take(&mut self, now: Instant, source: IpAddr) -> Take {
        let prefix = prefix(source);
        if let Some(busy_until) = self.busy_until.get_mut(&prefix) {
            if *busy_until > now + self.tolerance {
                return Take::Exceeded;
            }
            *busy_until = (*busy_until).max(now) + self.period;
            return Take::Granted;
        }
        if self.busy_until.len() >= self.limit && !self.sweep(now) {
            return Take::Untracked;
        }
        self.busy_until.insert(prefix, now + self.period);
        Take::Granted
    }

    /// Whether the bucket of a source is empty.
    pub(super) fn is_exceeded(&self, now: Instant, source: IpAddr) -> bool {
        self.busy_until.get(&prefix(source)).is_some_and(|busy_until| *busy_until > now + self.tolerance)
    }

    pub(super) fn remembered(&self) -> usize {
        self.busy_until.len()
    }

    /// Forgets full buckets, at most once per refill; returns whether there is room now.
    fn sweep(&mut self, now: Instant) -> bool {
        if self.next_sweep.is_some_and(|next| now < next) {
            return false;
        }
        self.next_sweep = Some(now + self.tolerance + self.period);
        self.busy_until.retain(|_, busy_until| *busy_until > now);
        self.busy_until.len() < self.limit
    }
}

/// Whether a source is a way of the data plane, whatever its port.
fn is_way(source: IpAddr) -> bool {
    WayId::of(SocketAddr::new(source, WayId(0).address().port())).is_some()
}

/// What one attacker can be assumed to own: an IPv4 address, an IPv6 /64. A way of ours stands for a host of its own.
pub(super) fn prefix(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(_) if is_way(source) => source,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Places;

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    /// Room that somebody has to make.
    fn instead() -> Room {
        let mut places = Places::new(1);
        Room::InsteadOf(places.take(Instant::now(), v4(0)))
    }

    fn judged(gate: &mut Gate, now: Instant, source: IpAddr, proven: bool, times: usize) -> Vec<Verdict> {
        (0..times).map(|_| gate.judge(now, source, proven, 0, || Room::Free)).collect()
    }

    #[test]
    fn where_memory_is_short_there_are_fewer_places() {
        let places = |megabytes: u64| GateConfig::for_memory(megabytes << 20).max_unfinished;
        assert_eq!([16, 96, 128, 256, 1 << 20].map(places), [64, 192, 256, 512, 512]);
        assert_eq!(GateConfig::for_memory(u64::MAX).max_unfinished, GateConfig::default().max_unfinished);
    }

    #[test]
    fn a_source_has_its_burst_then_must_prove_its_address() {
        let (mut gate, now) = (Gate::new(GateConfig::default()), Instant::now());
        let verdicts = judged(&mut gate, now, v4(1), false, 7);
        assert_eq!(verdicts[..5], [Verdict::Accept; 5]);
        assert_eq!(verdicts[5..], [Verdict::Retry; 2]);
        assert_eq!(gate.judge(now, v4(2), false, 0, || Room::Free), Verdict::Accept);
    }

    #[test]
    fn a_source_makes_others_leave_once_in_two_seconds() {
        let (mut gate, now) = (Gate::new(GateConfig::default()), Instant::now());
        let mut judge = |ms: u64, n: u32| gate.judge(now + Duration::from_millis(ms), v4(n), true, 512, instead);
        assert_eq!([judge(0, 1), judge(0, 1), judge(1999, 1)], [Verdict::Accept, Verdict::Ignore, Verdict::Ignore]);
        assert_eq!([judge(1999, 2), judge(2000, 1)], [Verdict::Accept; 2]);
    }

    #[test]
    fn the_rate_refills_in_time() {
        let (mut gate, now) = (Gate::new(GateConfig::default()), Instant::now());
        judged(&mut gate, now, v4(1), false, 5);
        assert_eq!(gate.judge(now + Duration::from_millis(49), v4(1), false, 0, || Room::Free), Verdict::Retry);
        assert_eq!(gate.judge(now + Duration::from_millis(50), v4(1), false, 0, || Room::Free), Verdict::Accept);
        let later = now + Duration::from_secs(60);
        assert_eq!(judged(&mut gate, later, v4(1), false, 6)[4..], [Verdict::Accept, Verdict::Retry]);
    }

    #[test]
    fn a_forged_flood_does_not_lock_out_the_address_it_forges() {
        let (mut gate, now) = (Gate::new(GateConfig::default()), Instant::now());
        judged(&mut gate, now, v4(1), false, 10_000);
        assert_eq!(gate.judge(now, v4(1), false, 0, || Room::Free), Verdict::Retry);
        assert_eq!(gate.judge(now, v4(1), true, 0, || Room::Free), Verdict::Accept);
    }

    #[test]
    fn a_proven_source_beyond_its_rate_gets_silence() {
        let (mut gate, now) = (Gate::new(GateConfig::default()), Instant::now());
        assert_eq!(judged(&mut gate, now, v4(1), true, 6)[4..], [Verdict::Accept, Verdict::Ignore]);
    }

    #[test]
    fn all_sources_together_displace_so_many_in_a_second_remembered_or_not() {
        let mut gate = Gate::new(GateConfig { sources: 100, ..GateConfig::default() });
        let start = Instant::now();
        let accepted = (0..10_000).filter(|n| {
            let now = start + Duration::from_micros(u64::from(*n) * 100);
            gate.judge(now, v4(*n), true, 512, instead) == Verdict::Accept
        });
        let accepted = u32::try_from(accepted.count()).unwrap();
        assert!((1..=DISPLACED_PER_SECOND + DISPLACED_AT_ONCE).contains(&accepted), "{accepted}");
        // Nor is room looked for more often for those who cannot be remembered.
        let (mut looked, now) = (0_u32, start + Duration::from_secs(1));
        for _ in 0..10_000 {
            gate.judge(now, v4(77_777), true, 512, || {
                looked += 1;
                Room::None
            });
        }
        assert!(looked <= DISPLACED_AT_ONCE, "{looked}");
    }

    #[test]
    fn who_is_refused_because_all_have_had_theirs_keeps_its_own_turn() {
        let (mut gate, now) = (Gate::new(GateConfig::default()), Instant::now());
        let mut judge = |ms: u64, n: u32| gate.judge(now + Duration::from_millis(ms), v4(n), true, 512, instead);
        assert!((0..DISPLACED_AT_ONCE).all(|n| judge(0, n) == Verdict::Accept));
        assert_eq!(
            [judge(0, 1000), judge(4, 1000), judge(8, 1000)],
            [Verdict::Ignore, Verdict::Accept, Verdict::Ignore]
        );
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_rate() {
        let (mut gate, now) = (Gate::new(GateConfig::default()), Instant::now());
        let host = |n: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, n));
        let verdicts: Vec<_> = (0..6).map(|n| gate.judge(now, host(n), false, 0, || Room::Free)).collect();
        assert_eq!(verdicts[4..], [Verdict::Accept, Verdict::Retry]);
    }

    #[test]
    fn who_comes_by_a_carrier_has_a_rate_of_its_own() {
        let (mut gate, now) = (Gate::new(GateConfig::default()), Instant::now());
        let verdicts: Vec<_> =
            (0..20).map(|n| gate.judge(now, WayId(n).address().ip(), false, 0, || Room::Free)).collect();
        assert_eq!(verdicts, [Verdict::Accept; 20]);
        assert_eq!(judged(&mut gate, now, WayId(1).address().ip(), false, 5)[3..], [Verdict::Accept, Verdict::Retry]);
    }

    #[test]
    fn load_asks_everybody_for_proof_and_without_room_there_is_silence() {
        let config = GateConfig { retry_threshold: 2, max_unfinished: 4, ..GateConfig::default() };
        let (mut gate, now) = (Gate::new(config), Instant::now());
        let by_load: Vec<_> =
            (0..5).map(|unfinished| gate.judge(now, v4(1), false, unfinished, || Room::None)).collect();
        assert_eq!(by_load[..2], [Verdict::Accept; 2]);
        assert_eq!(by_load[2..], [Verdict::Retry; 3], "proof of the address costs no place");
        assert_eq!(gate.judge(now, v4(1), true, 3, || Room::Free), Verdict::Accept);
        assert_eq!(gate.judge(now, v4(1), true, 4, || Room::None), Verdict::Ignore);
        assert_eq!(gate.judge(now, v4(1), true, 4, instead), Verdict::Accept, "in the place of another");
    }

    #[test]
    fn memory_is_bounded_and_newcomers_still_get_a_chance() {
        let config = GateConfig { sources: 100, ..GateConfig::default() };
        let (mut gate, now) = (Gate::new(config), Instant::now());
        for n in 0..100_000 {
            gate.judge(now, v4(n), false, 0, || Room::Free);
        }
        assert_eq!(gate.remembered(), 100);
        assert_eq!(gate.judge(now, v4(200_000), false, 0, || Room::Free), Verdict::Retry);
        assert_eq!(gate.judge(now, v4(200_000), true, 0, || Room::Free), Verdict::Accept);
        assert_eq!(gate.judge(now + Duration::from_secs(1), v4(200_001), false, 0, || Room::Free), Verdict::Accept);
    }
}
