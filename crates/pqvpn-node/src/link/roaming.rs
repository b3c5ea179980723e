// SPDX-License-Identifier: MIT OR Apache-2.0
//! What links may send elsewhere than where their handshake was.
//!
//! QUIC answers a probe of a path (RFC 9000 §8.2) wherever it seems to come from, by 1,200 bytes for some 40 and without
//! counting them; and where a link has moved to (§9.3) it begins a datagram while one byte of three times is left. Who has a
//! link and forges sources would so have others sent far more than it sends. Therefore such datagrams are counted for each who
//! gets them, over all links: every answer to a probe, and the others once whenever the link moves there, for from then on QUIC
//! counts them. Honest links move now and then, and probe nothing; what is lost to them is sent again.
//!
//! Pure: time is an argument, memory is bounded.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use pqvpn_dataplane::way::WayId;

use super::gate::{EVERYBODY, Sources, Take};

/// Datagrams to one address (an IPv6 /64): at once, and in a second.
const EACH: (u32, u32) = (8, 1);
/// To all of them.
const ALL: (u32, u32) = (256, 32);
/// Addresses remembered: more than [`ALL`] can be for as long as [`EACH`] is remembered.
const REMEMBERED: usize = 4096;
/// The length of a datagram with an answer to a probe (RFC 9000 §8.2.2).
const PROBE: usize = 1200;

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

/// Where a link has sent to.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// Where its handshake was: QUIC lets nobody move before that has proven its address.
    first: Option<SocketAddr>,
    /// Where it has moved to, as far as what was sent there shows.
    moved: Option<SocketAddr>,
}

impl Whereabouts {
    /// Whether the link may send there. `lone` is a datagram that is sent by itself; `take` asks for one more to an address.
    pub(super) fn may_send(&mut self, to: SocketAddr, lone: Option<&[u8]>, take: impl FnOnce(IpAddr) -> bool) -> bool {
        if *self.first.get_or_insert(to) == to || WayId::of(to).is_some() {
            // Moving away again is counted again, as QUIC then counts anew.
            self.moved = None;
            return true;
        }
        if self.moved == Some(to) {
            return true;
        }
        let (is_answer, may) = (lone.is_some_and(may_answer), take(to.ip()));
        if !is_answer {
            self.moved = may.then_some(to);
        }
        may
    }
}

/// Whether it may be an answer to a probe from elsewhere than where the link is.
fn may_answer(datagram: &[u8]) -> bool {
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
    #[derive(Default)]
    struct Link {
        whereabouts: Whereabouts,
        taken: usize,
    }

    impl Link {
        fn new() -> Self {
            let mut link = Self::default();
            assert!(link.send(at(1, 1), 1200, true));
            link
        }

        /// Sends a lone datagram.
        fn send(&mut self, to: SocketAddr, bytes: usize, granted: bool) -> bool {
            self.whereabouts.may_send(to, Some(&SHORT[..bytes]), |ip| {
                assert_eq!(ip, to.ip());
                self.taken += 1;
                granted
            })
        }
    }

    #[test]
    fn every_answer_to_a_probe_from_elsewhere_is_counted() {
        let mut link = Link::new();
        for count in 1..10 {
            assert!(link.send(at(2, 1), 1200, true) && link.send(at(1, 1), 1200, false));
            assert_eq!(link.taken, count);
        }
        assert!(!link.send(at(2, 1), 1200, false) && !link.send(at(1, 2), 1200, false));
        // Many at once, or in a long header, are no answer.
        assert!(link.whereabouts.may_send(at(2, 1), None, |_| true) && link.send(at(2, 1), 1200, false));
        let mut link = Link::new();
        let long = [0xc0; PROBE];
        assert!(link.whereabouts.may_send(at(2, 1), Some(&long), |_| true) && link.send(at(2, 1), 1200, false));
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
        assert!(!link.send(at(3, 1), 1200, false), "a move that is not granted ends that of before");
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
        let granted = |roaming: &mut Roaming, at: Duration, range: std::ops::Range<u32>| {
            range.filter(|n| roaming.take(start + at, IpAddr::V4((n / 100 + 1).into()))).count()
        };
        assert_eq!(granted(&mut roaming, Duration::ZERO, 0..100), 8);
        assert_eq!(granted(&mut roaming, Duration::from_secs(1), 0..100), 1);
        assert_eq!(granted(&mut roaming, Duration::from_secs(2), 0..1_000_000), 256);
        assert_eq!(granted(&mut roaming, Duration::from_secs(3), 2_000_000..3_000_000), 32);
        assert!(roaming.each.remembered() < 1000);
        // One that asks all the time leaves the others theirs.
        assert_eq!(granted(&mut roaming, Duration::from_secs(4), 0..100), 2);
        assert_eq!(granted(&mut roaming, Duration::from_secs(4), 2_000_000..3_000_000), 30);
        // In time everybody gets some again.
        assert_eq!(granted(&mut roaming, Duration::from_secs(60), 0..100), 8);
    }
}
