// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who keeps a link with whom: a ring over the members that seem to be there, with chords at tripling distances.
//!
//! Everybody dials its successors at distance 1, 3, 9, ... up to half of the ring. News go both ways along a link, so they
//! reach everybody as fast as over chords at doubling distances (every distance is a sum of few powers of 3, taken away
//! or added), with a good third fewer links: about 1 + log2(n) of a member, those that others dialled among them. Any
//! member may fail without cutting the others apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::NetworkId;

/// Chords one member dials in one network: enough for a ring of 4,096.
pub(super) const MAX_CHORDS: u32 = 8;
/// Time between two words on a link that has nothing to say: under the 30 s after which a NAT may forget (RFC 4787).
const KEEPALIVE: Duration = Duration::from_secs(20);
/// And up to so much more, so that links do not speak at once.
const KEEPALIVE_SPREAD_MS: u64 = 5000;
/// Pause after the first dial that came to nothing.
const RETRY: Duration = Duration::from_secs(1);
/// Shortest and longest pause between two looks of all members of one side after a member that is away.
const PROBE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(120));
/// Longest pause of one member, however many share the work.
const PROBE_MAX: Duration = Duration::from_secs(600);

/// Where a member stands on the ring of a network; who chooses a key does not choose its neighbours in every network.
pub(super) fn place(network: &NetworkId, peer: &PeerId) -> [u8; 32] {
    let text = [b"pqvpn ring".as_slice(), network.as_bytes(), peer.as_bytes()].concat();
    let mut place = [0; 32];
    place.copy_from_slice(digest::digest(&digest::SHA256, &text).as_ref());
    place
}

/// Whom `own` dials, nearest first, when `others` are there.
pub(super) fn neighbours<'a>(
    network: &NetworkId,
    own: &PeerId,
    others: impl IntoIterator<Item = &'a PeerId>,
) -> Vec<PeerId> {
    let circle = following(network, own, others);
    distances(circle.len()).map_while(|distance| circle.get(distance - 1).copied()).collect()
}

/// Who dials `own`, nearest first, when `others` are there.
pub(super) fn callers<'a>(
    network: &NetworkId,
    own: &PeerId,
    others: impl IntoIterator<Item = &'a PeerId>,
) -> Vec<PeerId> {
    let mut circle = following(network, own, others);
    circle.reverse();
    distances(circle.len()).map_while(|distance| circle.get(distance - 1).copied()).collect()
}

/// How far along the ring links reach where so many others are there.
fn distances(others: usize) -> impl Iterator<Item = usize> {
    (0..MAX_CHORDS).map(|chord| 3_usize.pow(chord)).take_while(move |distance| *distance <= others.div_ceil(2))
}

/// `others` in their order on the ring after `peer`.
pub(super) fn following<'a>(
    network: &NetworkId,
    peer: &PeerId,
    others: impl IntoIterator<Item = &'a PeerId>,
) -> Vec<PeerId> {
    let from = place(network, peer);
    let ring: BTreeMap<[u8; 32], PeerId> =
        others.into_iter().filter(|other| *other != peer).map(|other| (place(network, other), *other)).collect();
    ring.range(from..).chain(ring.range(..from)).map(|(_, other)| *other).collect()
}

/// When to speak next on a link; `random` spreads the links.
pub(super) fn keepalive(now: Instant, random: u64) -> Instant {
    now + KEEPALIVE + Duration::from_millis(random % KEEPALIVE_SPREAD_MS)
}

/// What is known of reaching members, so that one that is away is not dialled all the time.
///
/// A partition is healed by whoever finds somebody of the other side first, so those of one side share the work: each
/// tries a member that is away after a tenth of the time it has been away, times the number of members on this side.
#[derive(Debug, Default)]
pub(super) struct Reach {
    failed: BTreeMap<PeerId, Failed>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    /// Since the first dial that came to nothing.
    since: Instant,
    last: Instant,
    /// Dials in a row that came to nothing.
    times: u32,
    random: u64,
}

impl Reach {
    /// Whether a member that counts as there may be dialled now.
    pub(super) fn may_dial(&self, now: Instant, peer: &PeerId) -> bool {
        self.failed.get(peer).is_none_or(|failed| now >= failed.last + RETRY)
    }

    /// Whether the member counts as there: reached, or not yet tried; one missed dial is forgiven.
    pub(super) fn seems_there(&self, peer: &PeerId) -> bool {
        self.failed.get(peer).is_none_or(|failed| failed.times < 2)
    }

    /// Whether the last dial came to nothing.
    pub(super) fn has_failed(&self, peer: &PeerId) -> bool {
        self.failed.contains_key(peer)
    }

    /// The member was reached, or reached us.
    pub(super) fn reached(&mut self, peer: &PeerId) {
        self.failed.remove(peer);
    }

    /// The member could not be reached.
    pub(super) fn failed(&mut self, now: Instant, peer: PeerId, random: u64) {
        let before = self.failed.get(&peer);
        let since = before.map_or(now, |failed| failed.since);
        let times = before.map_or(0, |failed| failed.times).saturating_add(1);
        self.failed.insert(peer, Failed { since, last: now, times, random });
    }

    /// Something new is known of where the member is: try at once.
    pub(super) fn forgive(&mut self, peer: &PeerId) {
        self.failed.remove(peer);
    }

    /// The network may be whole again: try everybody at once.
    pub(super) fn forgive_all(&mut self) {
        self.failed.clear();
    }

    /// Only members are remembered.
    pub(super) fn retain(&mut self, members: &BTreeSet<PeerId>) {
        self.failed.retain(|peer, _| members.contains(peer));
    }

    /// Whether a member that was missed is to be tried again, on the ring or not.
    pub(super) fn is_due(&self, now: Instant, peer: &PeerId, side: usize) -> bool {
        self.failed.get(peer).is_some_and(|failed| now >= failed.again(side))
    }

    /// When the next of those that `counts` is to be tried again.
    pub(super) fn next(&self, side: usize, counts: impl Fn(&PeerId) -> bool) -> Option<Instant> {
        self.failed.iter().filter(|(peer, _)| counts(peer)).map(|(_, failed)| failed.again(side)).min()
    }
}

impl Failed {
    /// `side`: how many members are there, ourselves included.
    fn again(&self, side: usize) -> Instant {
        if self.times < 2 { self.last + RETRY } else { self.probe_at(side) }
    }

    fn probe_at(&self, side: usize) -> Instant {
        let away = self.last.saturating_duration_since(self.since);
        let pause = (away / 10).clamp(PROBE.0, PROBE.1) * u32::try_from(side.max(1)).unwrap_or(u32::MAX);
        let pause = pause.min(PROBE_MAX);
        // Up to half as long again, so that those of one side do not look at once.
        self.last + pause + pause.mul_f64((self.random % 256) as f64 / 512.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u32) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    const NETWORK: NetworkId = NetworkId::OPEN;

    /// How many hops news need from each member to all others, over links in both directions; `None`: not at all.
    fn rounds(members: &[PeerId]) -> Option<usize> {
        let mut links: BTreeMap<PeerId, BTreeSet<PeerId>> = BTreeMap::new();
        for own in members {
            for other in neighbours(&NETWORK, own, members) {
                links.entry(*own).or_default().insert(other);
                links.entry(other).or_default().insert(*own);
            }
        }
        let mut known = BTreeSet::from([members[0]]);
        for round in 0..members.len() {
            if known.len() == members.len() {
                return Some(round);
            }
            let next: BTreeSet<PeerId> =
                known.iter().flat_map(|peer| links.get(peer).into_iter().flatten()).copied().collect();
            known.extend(next);
        }
        (known.len() == members.len()).then_some(members.len())
    }

    #[test]
    fn every_size_of_ring_is_connected_with_few_links_and_few_hops() {
        for size in (2_u32..70).chain([100, 500, 1000]) {
            let members: Vec<PeerId> = (0..size).map(peer).collect();
            let most = members.iter().map(|own| neighbours(&NETWORK, own, &members).len()).max().unwrap();
            let log = (f64::from(size)).log2().ceil() as usize;
            assert!(2 * most <= log + 3, "{size}: {most} links dialled");
            let rounds = rounds(&members).expect("connected");
            assert!(rounds <= log.max(1), "{size}: {rounds} hops");
        }
    }

    #[test]
    fn nobody_is_its_own_neighbour_or_dialled_twice() {
        let members: Vec<PeerId> = (0..50).map(peer).collect();
        for own in &members {
            let chosen = neighbours(&NETWORK, own, &members);
            let different: BTreeSet<&PeerId> = chosen.iter().collect();
            assert_eq!(different.len(), chosen.len());
            assert!(!chosen.contains(own));
        }
        assert_eq!(neighbours(&NETWORK, &peer(1), []), []);
        assert_eq!(neighbours(&NETWORK, &peer(1), [&peer(1)]), []);
    }

    #[test]
    fn callers_are_those_whose_neighbour_one_is() {
        for size in [2_u32, 3, 4, 9, 50] {
            let members: Vec<PeerId> = (0..size).map(peer).collect();
            for own in &members {
                let dials = |other: &&PeerId| neighbours(&NETWORK, other, &members).contains(own);
                let expected: BTreeSet<PeerId> = members.iter().filter(dials).copied().collect();
                assert_eq!(callers(&NETWORK, own, &members).into_iter().collect::<BTreeSet<_>>(), expected);
            }
        }
    }

    #[test]
    fn links_are_spread_over_members() {
        let members: Vec<PeerId> = (0..200).map(peer).collect();
        let mut incoming: BTreeMap<PeerId, usize> = BTreeMap::new();
        for own in &members {
            for other in neighbours(&NETWORK, own, &members) {
                *incoming.entry(other).or_default() += 1;
            }
        }
        assert_eq!((incoming.values().min(), incoming.values().max()), (Some(&5), Some(&5)), "each is dialled by 5");
    }

    #[test]
    fn who_is_away_is_tried_ever_less_often_but_never_given_up() {
        let (mut reach, now) = (Reach::default(), Instant::now());
        assert!(reach.may_dial(now, &peer(1)) && reach.seems_there(&peer(1)));
        reach.failed(now, peer(1), 0);
        assert!(!reach.may_dial(now, &peer(1)) && reach.seems_there(&peer(1)), "one missed dial is forgiven");
        let mut at = reach.next(1, |_| true).unwrap();
        assert_eq!(at, now + RETRY);
        let mut pauses = Vec::new();
        for _ in 0..200 {
            reach.failed(at, peer(1), 0);
            assert!(!reach.seems_there(&peer(1)) && !reach.is_due(at, &peer(1), 1));
            let next = reach.next(1, |_| true).unwrap();
            assert!(reach.is_due(next, &peer(1), 1));
            pauses.push((next - at).as_secs());
            at = next;
        }
        assert!(pauses.is_sorted() && pauses[0] == 3 && *pauses.last().unwrap() == 120, "{pauses:?}");
        reach.reached(&peer(1));
        assert!(reach.may_dial(now, &peer(1)) && reach.seems_there(&peer(1)));
    }

    #[test]
    fn the_work_of_looking_for_the_other_side_is_shared() {
        let (mut reach, now) = (Reach::default(), Instant::now());
        reach.failed(now, peer(1), 0);
        reach.failed(now, peer(1), 0);
        assert_eq!(reach.next(1, |_| true).unwrap() - now, PROBE.0);
        assert_eq!(reach.next(15, |_| true).unwrap() - now, PROBE.0 * 15);
        assert_eq!(reach.next(5000, |_| true).unwrap() - now, PROBE_MAX);
    }
}
