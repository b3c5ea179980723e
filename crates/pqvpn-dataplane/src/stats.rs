// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counters: a reason for every dropped packet, and traffic per peer.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::session::OpenError;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Why a packet was dropped. The sender is never told.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of the variants.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name used in metrics and `status`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// Inbound: neither QUIC nor STUN nor a tunnel packet nor a piece of a datagram.
    Garbage => "garbage",
    /// Inbound: a STUN message, which nobody here asked for.
    Stun => "stun",
    /// Inbound: too short for what its first byte says.
    Short => "short",
    /// Inbound: the receiver index is not ours, or no longer.
    NoSession => "no_session",
    /// Inbound: this counter was already received.
    Replay => "replay",
    /// Inbound: the counter is older than the replay window.
    TooOld => "too_old",
    /// Inbound: the tag does not match.
    Auth => "auth",
    /// Inbound: neither the current nor the previous nor the staged epoch.
    UnknownEpoch => "unknown_epoch",
    /// Inbound: a hash phase too far ahead.
    PhaseJump => "phase_jump",
    /// Inbound: too many deep phase jumps.
    RateLimited => "rate_limited",
    /// Inbound: the session saw too many forgeries and is closed.
    ForgeryLimit => "forgery_limit",
    /// Inbound: the inner source address is not one of the peer's.
    Spoof => "spoof",
    /// Both ways: the inner source and destination belong to different networks.
    Realm => "realm",
    /// Inbound: authentic, but not a packet this version knows.
    MalformedInner => "malformed_inner",
    /// Inbound: an onion cell, which this version does not take.
    UnsupportedInner => "unsupported_inner",
    /// Inbound: a piece of a packet that contradicts itself, or the others of its packet.
    Fragment => "fragment",
    /// Inbound: a piece of a packet that was there already.
    FragmentTwice => "fragment_twice",
    /// Inbound: a piece of a datagram that contradicts the others, came twice, or of which nothing came that QUIC knows.
    Piece => "piece",
    /// Inbound: packets of which some pieces came, and then no more, or too many others.
    FragmentLost => "fragment_lost",
    /// Inbound: the guest's ring was full.
    GuestRingFull => "guest_ring_full",
    /// Inbound: given up so that a sender slows down, because packets have waited too long here for a while.
    QueueDelay => "queue_delay",
    /// Inbound: it came by our own interface. A path that led through the tunnel would lead round for ever.
    Loop => "loop",
    /// Inbound: longer than the receive buffer.
    Truncated => "truncated",
    /// Inbound: a relay datagram whose channel is nobody's.
    RelayUnknownChannel => "relay_unknown_channel",
    /// Inbound: a relay datagram on a channel that belongs to another sender, or any datagram from an address of a way.
    RelaySource => "relay_source",
    /// Inbound: a relay datagram inside a relay datagram.
    RelayNested => "relay_nested",
    /// Inbound: to be relayed, but over the limit.
    RelayLimited => "relay_limited",
    /// Inbound: to be relayed, but refused by the operating system or a full carrier.
    RelaySendError => "relay_send_error",
    /// Inbound: what a carrier received came faster than it was dealt with, or for a way that is not carried.
    CarrierOverflow => "carrier_overflow",
    /// Outbound: the carrier has no room.
    CarrierFull => "carrier_full",
    /// Outbound: not an IP packet, or a super-packet that cannot be cut.
    MalformedLocal => "malformed_local",
    /// Outbound: no route to the destination.
    NoRoute => "no_route",
    /// Outbound: too many packets wait for the peer's session.
    ParkedOverflow => "parked_overflow",
    /// Outbound: waited for a session that did not come before the peer was removed.
    ParkedExpired => "parked_expired",
    /// Outbound: the peer has a session but no address.
    NoPath => "no_path",
    /// Outbound: the session refuses to seal.
    SealRefused => "seal_refused",
    /// Outbound: longer than the inner MTU.
    TooBig => "too_big",
    /// Outbound: a word to a local sender that its packets are too long, with too many such words waiting already.
    NoticeOverflow => "notice_overflow",
    /// Both ways: the interface is down.
    Paused => "paused",
    /// Both ways: policy forbids it.
    Policy => "policy",
    /// Outbound: the operating system refused the datagram.
    SendError => "send_error",
    /// Outbound: a datagram of the QUIC guest was refused.
    GuestSendError => "guest_send_error",
    /// Inbound: the interface refused the packet.
    TunError => "tun_error",
}

const REASONS: usize = DropReason::ALL.len();

impl DropReason {
    /// The reason for a tunnel packet that did not open.
    pub(crate) fn of(error: &OpenError) -> Self {
        match error {
            OpenError::Short => Self::Short,
            OpenError::Replay => Self::Replay,
            OpenError::TooOld => Self::TooOld,
            OpenError::UnknownEpoch => Self::UnknownEpoch,
            OpenError::PhaseJump => Self::PhaseJump,
            OpenError::RateLimited => Self::RateLimited,
            OpenError::Auth => Self::Auth,
            OpenError::ForgeryLimit => Self::ForgeryLimit,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Dropped packets by reason, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drops([u64; REASONS]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; REASONS])
    }
}

impl Drops {
    /// Packets dropped for one reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Packets dropped for any reason.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Every reason with its count, also the zeros.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.get(reason)))
    }
}

/// The drop counters of one thread, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct DropCounters([AtomicU64; REASONS]);

impl DropCounters {
    pub(crate) fn new() -> Self {
        Self([const { AtomicU64::new(0) }; REASONS])
    }

    /// Counts one dropped packet.
    pub(crate) fn count(&self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    /// Counts `packets` dropped packets.
    pub(crate) fn count_many(&self, reason: DropReason, packets: u64) {
        self.0[reason as usize].fetch_add(packets, Relaxed);
    }

    /// Adds these counters to `sum`.
    pub(crate) fn add_to(&self, sum: &mut Drops) {
        for (sum, counter) in sum.0.iter_mut().zip(&self.0) {
            *sum += counter.load(Relaxed);
        }
    }
}

/// Traffic with one peer since it was first known.
///
/// Bytes are those of tunnel datagrams: inner packets plus 32 bytes each, without the outer IP and UDP headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Authentic bytes received.
    pub rx_bytes: u64,
    /// Datagrams sent.
    pub tx_packets: u64,
    /// Authentic datagrams received.
    pub rx_packets: u64,
    /// When the last authentic datagram came, of whatever kind.
    pub last_rx: Option<Instant>,
    /// When the last datagram was sent, of whatever kind.
    pub last_tx: Option<Instant>,
    /// When the last inner IP packet came.
    pub last_data_rx: Option<Instant>,
    /// When the last inner IP packet was sent.
    pub last_data_tx: Option<Instant>,
    /// Packets waiting for a session.
    pub parked: usize,
}

/// One direction's share of [`PeerStats`], written once per run of packets.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Traffic {
    bytes: AtomicU64,
    packets: AtomicU64,
    last: Stamp,
    last_data: Stamp,
}

/// A run of packets to be added to a peer's [`Traffic`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) data: bool,
}

impl Traffic {
    /// Adds a run that happened at `now`.
    pub(crate) fn add(&self, run: Run, start: Instant, now: Instant) {
        self.bytes.fetch_add(run.bytes, Relaxed);
        self.packets.fetch_add(run.packets, Relaxed);
        self.last.set(start, now);
        if run.data {
            self.last_data.set(start, now);
        }
    }

    /// Data was there for the peer, and no way to send it.
    pub(crate) fn unsent(&self, start: Instant, now: Instant) {
        self.last_data.set(start, now);
    }

    /// Bytes, packets, last packet, last data packet.
    pub(crate) fn read(&self, start: Instant) -> (u64, u64, Option<Instant>, Option<Instant>) {
        (self.bytes.load(Relaxed), self.packets.load(Relaxed), self.last.get(start), self.last_data.get(start))
    }
}

/// An optional time in one atomic word: nanoseconds since the start, plus one.
#[derive(Debug, Default)]
pub(crate) struct Stamp(AtomicU64);

impl Stamp {
    pub(crate) fn set(&self, start: Instant, now: Instant) {
        self.0.store(Self::encode(start, now), Relaxed);
    }

    pub(crate) fn get(&self, start: Instant) -> Option<Instant> {
        let nanos = self.0.load(Relaxed).checked_sub(1)?;
        Some(start + Duration::from_nanos(nanos))
    }

    /// Whether `interval` passed since the last time this said yes; of several threads asking, one is told so.
    pub(crate) fn due(&self, start: Instant, now: Instant, interval: Duration) -> bool {
        let last = self.0.load(Relaxed);
        let next = Self::encode(start, now);
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        if last != 0 && next.saturating_sub(last) < interval {
            return false;
        }
        self.0.compare_exchange(last, next, Relaxed, Relaxed).is_ok()
    }

    /// Whether [`Self::due`] would say yes.
    pub(crate) fn is_due(&self, start: Instant, now: Instant, interval: Duration) -> bool {
        let (last, next) = (self.0.load(Relaxed), Self::encode(start, now));
        last == 0 || next.saturating_sub(last) >= u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX)
    }

    fn encode(start: Instant, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(start).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX - 1).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_name() {
        let counters = DropCounters::new();
        for (i, &reason) in DropReason::ALL.iter().enumerate() {
            counters.count_many(reason, i as u64 + 1);
        }
        let mut drops = Drops::default();
        counters.add_to(&mut drops);
        for (i, (reason, count)) in drops.iter().enumerate() {
            assert_eq!(count, i as u64 + 1, "{reason}");
        }
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert_eq!(drops.total(), (1..=DropReason::ALL.len() as u64).sum::<u64>());
    }

    #[test]
    fn a_stamp_is_due_once_per_interval() {
        let start = Instant::now();
        let stamp = Stamp::default();
        assert_eq!(stamp.get(start), None);
        let second = Duration::from_secs(1);
        assert!(stamp.is_due(start, start, second));
        assert!(stamp.due(start, start, second), "to ask takes nothing");
        assert!(!stamp.is_due(start, start + second / 2, second));
        assert!(!stamp.due(start, start + second / 2, second));
        assert!(stamp.due(start, start + second, second));
        assert_eq!(stamp.get(start), Some(start + second));
    }

    #[test]
    fn traffic_adds_up_and_remembers_data_apart() {
        let start = Instant::now();
        let later = start + Duration::from_millis(5);
        let traffic = Traffic::default();
        traffic.add(Run { bytes: 100, packets: 2, data: true }, start, start);
        traffic.add(Run { bytes: 40, packets: 1, data: false }, start, later);
        assert_eq!(traffic.read(start), (140, 3, Some(later), Some(start)));
    }
}
