// SPDX-License-Identifier: MIT OR Apache-2.0
//! What links may send elsewhere than where their handshake was.
//!
//! QUIC answers a probe of a path (RFC 9000 §8.2) wherever it seems to come from, and probes in turn where a link was before
//! (§9.3.3), by 1,200 bytes for some 40 and without counting them; and where a link has moved to it begins a datagram while one
//! byte of three times is left. Who has a link and forges sources would so have others sent far more than it sends. Therefore
//! such datagrams are counted for the link, for each who gets them and for all: every probe or answer, and the others once
//! whenever the link moves, for from then on QUIC counts them. Honest links move now and then.
//!
//! Pure: time is an argument, memory is bounded.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use pqvpn_dataplane::way::WayId;

use super::gate::{EVERYBODY, Sources, Take};

/// Datagrams of one link: at once, and how long until another.
const LINK: (u32, Duration) = (8, Duration::from_secs(2));
/// To one address (an IPv6 /64): at once, and in a second. Many links may move together behind one.
const EACH: (u32, u32) = (64, 16);
/// To all of them.
const ALL: (u32, u32) = (512, 128);
/// Addresses remembered: more than [`ALL`] can be for as long as [`EACH`] is remembered.
const REMEMBERED: usize = 4096;
/// The length of a datagram that probes a path or answers a probe (RFC 9000 §8.2.1 and §8.2.2).
const PROBE: usize = 1200;
/// How long after a link was elsewhere at first the address of its handshake may be another's.
const LEFT: Duration = Duration::from_mins(10);

/// How much was sent elsewhere by the links of an endpoint.
#[derive(Debug)]
pub(super) struct Roaming {
    each: Sources,
    all: Sources,
}

impl Default for Roaming {
    fn default() -> Self {
        Self { each: Sources::new(EACH.0, EACH.1, REMEMBERED), all: Sources::new(ALL.0, ALL.1, 1) }
    }
}

impl Roaming {
    /// Whether one more may be sent to that address.
    pub(super) fn take(&mut self, now: Instant, to: IpAddr) -> bool {
        // Where one has had enough it takes nothing from the others, and what all may not have fills no memory.
        !self.each.is_exceeded(now, to)
            && self.all.take(now, EVERYBODY) == Take::Granted
            && self.each.take(now, to) == Take::Granted
    }
}

/// Where a link sends to.
#[derive(Debug)]
pub(super) struct Whereabouts {
    /// Where its handshake was, for QUIC lets nobody move before that has proven its address.
    first: Option<SocketAddr>,
    /// When it was elsewhere at first.
    left: Option<Instant>,
    /// Where it has moved to, as far as what was sent there shows.
    moved: Option<SocketAddr>,
    /// When it may send elsewhere as often at once as ever.
    busy_until: Instant,
}

impl Whereabouts {
    pub(super) const fn new(now: Instant) -> Self {
        Self { first: None, left: None, moved: None, busy_until: now }
    }

    /// Whether the link may send there. `lone` is a datagram that is sent by itself; `take` asks for one more to an address.
    pub(super) fn may_send(
        &mut self,
        now: Instant,
        to: SocketAddr,
        lone: Option<&[u8]>,
        take: impl FnOnce(IpAddr) -> bool,
    ) -> bool {
        if *self.first.get_or_insert(to) == to && self.left.is_none_or(|at| now.saturating_duration_since(at) < LEFT) {
            // Moving away again is counted again, as QUIC then counts anew.
            self.moved = None;
            return true;
        }
        self.left.get_or_insert(now);
        if WayId::of(to).is_some() {
            self.moved = None;
            return true;
        }
        if self.moved == Some(to) {
            return true;
        }
        let may = self.take(now) && take(to.ip());
        // Probes may go anywhere, and are no sign that the link is still where it was.
        self.moved = (may && !lone.is_some_and(may_probe)).then_some(to);
        may
    }

    /// Whether this link may have one more.
    fn take(&mut self, now: Instant) -> bool {
        let may = self.busy_until <= now + LINK.1 * (LINK.0 - 1);
        if may {
            self.busy_until = self.busy_until.max(now) + LINK.1;
        }
        may
    }
}

/// Whether it may be a probe of a path, or an answer to one, elsewhere than where the link is.
fn may_probe(datagram: &[u8]) -> bool {
    datagram.len() == PROBE && datagram.first().is_some_and(|first| first & 0x80 == 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SHORT: [u8; PROBE] = [0x40; PROBE];

    fn at(address: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, address], port))
    }

    /// A link whose handshake was with the first address, and a count of what it asked for.
    struct Link {
        whereabouts: Whereabouts,
        now: Instant,
        taken: usize,
    }

    impl Link {
        fn new() -> Self {
            let now = Instant::now();
            let mut link = Self { whereabouts: Whereabouts::new(now), now, taken: 0 };
            assert!(link.send(at(1, 1), 1200, true));
            link
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }

        /// Sends a lone datagram.
        fn send(&mut self, to: SocketAddr, bytes: usize, granted: bool) -> bool {
            self.say(to, Some(&SHORT[..bytes]), granted)
        }

        fn say(&mut self, to: SocketAddr, lone: Option<&[u8]>, granted: bool) -> bool {
            self.whereabouts.may_send(self.now, to, lone, |ip| {
                assert_eq!(ip, to.ip());
                self.taken += 1;
                granted
            })
        }
    }

    #[test]
    fn every_probe_and_answer_elsewhere_is_counted() {
        let mut link = Link::new();
        for count in 1..8 {
            assert!(link.send(at(2, 1), 1200, true) && link.send(at(1, 1), 1200, false));
            assert_eq!(link.taken, count);
        }
        assert!(!link.send(at(2, 1), 1200, false));
        link.pass(LINK.1 * 4);
        assert!(!link.send(at(1, 2), 1200, false));
        // Many at once, or in a long header, are none.
        assert!(link.say(at(2, 1), None, true) && link.send(at(2, 1), 1200, false));
        let (mut link, long) = (Link::new(), [0xc0; PROBE]);
        assert!(link.say(at(2, 1), Some(&long), true) && link.send(at(2, 1), 1200, false));
    }

    #[test]
    fn a_move_is_counted_once_and_again_when_the_link_was_elsewhere() {
        let mut link = Link::new();
        assert!(link.send(at(2, 1), 1200, true) && link.send(at(2, 1), 40, true));
        assert_eq!(link.taken, 2, "the challenge and what follows");
        assert!(link.send(at(2, 1), 1200, false) && link.send(at(2, 1), 1199, false));
        assert!(link.send(at(1, 1), 40, false) && !link.send(at(2, 1), 40, false), "back at the first");
        assert!(!link.send(at(2, 1), 1200, false));
        assert!(link.send(at(2, 1), 40, true) && link.send(at(3, 1), 40, true) && !link.send(at(2, 1), 40, false));
        link.pass(LINK.1 * 8);
        assert!(!link.send(at(3, 1), 1200, false), "a move that is not granted ends that of before");
        for granted in [true, false] {
            link.pass(LINK.1 * 8);
            assert!(link.send(at(2, 1), 40, true));
            assert_eq!(link.send(at(3, 1), 1200, granted), granted);
            assert!(!link.send(at(2, 1), 1200, false), "and so does a probe elsewhere, sent or not");
        }
    }

    #[test]
    fn a_link_has_few_at_once_and_then_one_now_and_then() {
        let mut link = Link::new();
        let granted = |link: &mut Link| (0..100).filter(|_| link.send(at(2, 1), 1200, true)).count();
        assert_eq!(granted(&mut link), 8);
        link.pass(LINK.1);
        assert_eq!(granted(&mut link), 1);
        assert_eq!(link.taken, 9, "what it may not have takes nothing from others");
        link.pass(LINK.1 * 100);
        assert_eq!(granted(&mut link), 8);
    }

    #[test]
    fn an_address_that_a_link_left_long_ago_is_no_longer_its_own() {
        let mut link = Link::new();
        assert!(link.send(at(2, 1), 40, true));
        link.pass(LEFT - Duration::from_secs(1));
        assert!(link.send(at(1, 1), 1200, false) && link.send(at(1, 1), 40, false));
        link.pass(Duration::from_secs(1));
        assert!(!link.send(at(1, 1), 1200, false) && !link.send(at(1, 1), 40, false));
        // It may return there as anywhere, and does not have it to itself by that.
        assert!(link.send(at(1, 1), 40, true) && link.send(at(1, 1), 1200, false));
        assert!(link.send(at(2, 1), 40, true) && !link.send(at(1, 1), 1200, false));
    }

    #[test]
    fn a_link_that_was_never_elsewhere_needs_nothing_however_long_it_was_silent() {
        let mut link = Link::new();
        link.pass(LEFT * 100);
        assert!(link.send(at(1, 1), 1200, false) && link.send(at(1, 1), 40, false));
        assert_eq!(link.taken, 0);
    }

    #[test]
    fn the_ways_of_the_data_plane_are_free() {
        let mut link = Link::new();
        assert!((0..100).all(|way| link.send(WayId(way).address(), 1200, false)));
        assert!(!link.send(at(2, 1), 1200, false));
    }

    #[test]
    fn each_address_and_all_together_get_a_bounded_number() {
        let (mut roaming, start) = (Roaming::default(), Instant::now());
        let granted = |roaming: &mut Roaming, at: u64, range: std::ops::Range<u32>| {
            let to = |n: u32| IpAddr::V4((n / 1000 + 1).into());
            range.filter(|n| roaming.take(start + Duration::from_secs(at), to(*n))).count()
        };
        assert_eq!(granted(&mut roaming, 0, 0..1000), 64);
        assert_eq!(granted(&mut roaming, 1, 0..1000), 16);
        assert_eq!(granted(&mut roaming, 10, 0..1_000_000), 512);
        assert_eq!(granted(&mut roaming, 11, 2_000_000..3_000_000), 128);
        // One that asks all the time leaves the others theirs.
        assert_eq!(granted(&mut roaming, 12, 0..1000), 16 + 16);
        assert_eq!(granted(&mut roaming, 12, 2_000_000..3_000_000), 128 - 32);
        assert!(roaming.each.remembered() < 1000);
        // In time everybody gets some again.
        assert_eq!(granted(&mut roaming, 60, 0..1000), 64);
    }
}
