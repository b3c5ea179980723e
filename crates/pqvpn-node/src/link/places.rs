// SPDX-License-Identifier: MIT OR Apache-2.0
//! The places of incoming handshakes, and who has to leave one when all are taken.
//!
//! Who has proven its address can begin handshakes and leave them there, and each keeps its state until it times out. So a
//! newcomer takes the place of one that is lost anyway, else of the source that holds the most; whom a source of few
//! addresses displaces is itself. Where all hold alike, the oldest leaves, but not before it has had time to finish: that
//! also bounds how many are begun per second.
//!
//! Pure: time is an argument, memory is bounded by `limit`.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::gate::prefix;

/// Time in which an honest peer finishes, also from the other side of the Earth: so long nobody who holds no more than the
/// newcomer has to leave.
const PATIENCE: Duration = Duration::from_secs(1);
/// Handshakes that may be begun per second at most where everybody has his time: with fewer places the time is shorter, for
/// else whoever has more addresses than there are places keeps everybody out.
const PER_SECOND: u32 = 512;
/// But never shorter than this, a round trip around the Earth; nor does one of many behind one address leave before.
const HASTE: Duration = Duration::from_millis(400);

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

/// How it stands with whoever holds a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The handshake is under way.
    Begun,
    /// It has failed, and is kept to say so once more.
    Failed,
    /// It has succeeded, and waits to be taken up.
    Finished,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    source: IpAddr,
    since: Instant,
    standing: Standing,
}

/// Where a newcomer may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is a free place.
    Free,
    /// If this one leaves.
    InsteadOf(Place),
    /// Nowhere.
    None,
}

/// Handshakes under way, and who holds the most of them: a first packet is judged in no more steps than that takes.
#[derive(Debug)]
pub struct Places {
    held: HashMap<Place, Held>,
    /// Those that have failed, in the order they began.
    failed: BTreeSet<Place>,
    /// Those that may still finish, of each source.
    begun: HashMap<IpAddr, BTreeSet<Place>>,
    /// The sources of those: who holds the most comes first, of several the one whose oldest is the oldest.
    ranks: BTreeSet<(Reverse<usize>, Place, IpAddr)>,
    next: u64,
    limit: usize,
    patience: Duration,
}

impl Places {
    /// `limit` free places.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let patience = PATIENCE * u32::try_from(limit).unwrap_or(PER_SECOND).min(PER_SECOND) / PER_SECOND;
        let (held, failed, begun, ranks) = Default::default();
        Self { held, failed, begun, ranks, next: 0, limit, patience: patience.max(HASTE) }
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.held.len()
    }

    /// Where a newcomer from `source` would go.
    #[must_use]
    pub fn room(&self, now: Instant, source: IpAddr) -> Room {
        if self.held.len() < self.limit {
            return Room::Free;
        }
        if let Some(lost) = self.failed.first() {
            return Room::InsteadOf(*lost);
        }
        let Some((Reverse(most), oldest, _)) = self.ranks.first() else { return Room::None };
        let own = self.begun.get(&prefix(source)).map_or(0, BTreeSet::len);
        let age = self.held.get(oldest).map_or(Duration::ZERO, |held| now.saturating_duration_since(held.since));
        let (is_for_more, has_had_its_time) = (*most >= own + 2 && age >= HASTE, age >= self.patience);
        if is_for_more || has_had_its_time { Room::InsteadOf(*oldest) } else { Room::None }
    }

    /// Takes a place for a handshake from `source`, beyond the limit if need be.
    pub fn take(&mut self, now: Instant, source: IpAddr) -> Place {
        let (place, source) = (Place(self.next), prefix(source));
        self.next += 1;
        self.held.insert(place, Held { source, since: now, standing: Standing::Begun });
        self.rank(source, |places| places.insert(place));
        place
    }

    /// Notes how a handshake ended whose place is still taken.
    pub fn note(&mut self, place: Place, standing: Standing) {
        let Some(held) = self.held.get_mut(&place) else { return };
        held.standing = standing;
        let source = held.source;
        match standing {
            Standing::Begun => self.rank(source, |places| places.insert(place)),
            Standing::Failed | Standing::Finished => self.rank(source, |places| places.remove(&place)),
        }
        match standing {
            Standing::Failed => self.failed.insert(place),
            Standing::Begun | Standing::Finished => self.failed.remove(&place),
        };
    }

    /// Gives a place up; one that has been given up already changes nothing.
    pub fn leave(&mut self, place: Place) {
        let Some(held) = self.held.remove(&place) else { return };
        self.failed.remove(&place);
        self.rank(held.source, |places| places.remove(&place));
    }

    /// Changes what a source has that may still finish.
    fn rank(&mut self, source: IpAddr, change: impl FnOnce(&mut BTreeSet<Place>) -> bool) {
        let rank = |places: &BTreeSet<Place>| Some((Reverse(places.len()), *places.first()?, source));
        let places = self.begun.entry(source).or_default();
        if let Some(before) = rank(places) {
            self.ranks.remove(&before);
        }
        change(places);
        match rank(places) {
            Some(after) => drop(self.ranks.insert(after)),
            None => drop(self.begun.remove(&source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    /// All places, each taken by the source `of` its number says.
    fn full(limit: u32, now: Instant, of: impl Fn(u32) -> u32) -> (Places, Vec<Place>) {
        let mut places = Places::new(limit as usize);
        let taken = (0..limit).map(|number| places.take(now, v4(of(number)))).collect();
        (places, taken)
    }

    #[test]
    fn a_newcomer_takes_the_oldest_place_of_the_source_that_holds_the_most() {
        let now = Instant::now();
        // Sources 0 and 1 hold two each, source 2 four.
        let (places, taken) = full(8, now, |number| (number / 2).min(2));
        assert_eq!(places.room(now, v4(9)), Room::None, "it may still finish");
        assert_eq!(places.room(now + HASTE, v4(9)), Room::InsteadOf(taken[4]));
    }

    #[test]
    fn many_half_open_handshakes_of_few_addresses_keep_nobody_out() {
        let now = Instant::now();
        let (mut places, _) = full(512, now, |number| number % 256);
        for newcomer in 1000..1100 {
            let Room::InsteadOf(victim) = places.room(now + HASTE, v4(newcomer)) else {
                panic!("no room for {newcomer}")
            };
            places.leave(victim);
            places.take(now + HASTE, v4(newcomer));
        }
        assert_eq!(places.taken(), 512);
        assert!((1000..1100).all(|newcomer| places.held.values().any(|held| held.source == v4(newcomer))));
    }

    #[test]
    fn who_holds_as_much_as_others_displaces_nobody_who_may_still_finish() {
        let now = Instant::now();
        let (places, taken) = full(512, now, |number| number % 256);
        assert_eq!(places.room(now + PATIENCE / 2, v4(1)), Room::None);
        assert_eq!(places.room(now + PATIENCE, v4(1)), Room::InsteadOf(taken[0]));
    }

    #[test]
    fn where_each_address_holds_one_the_oldest_leaves_after_its_time() {
        let now = Instant::now();
        for (limit, time) in [(512, PATIENCE), (256, PATIENCE / 2), (4, HASTE)] {
            let (places, taken) = full(limit, now, |number| number);
            assert_eq!(places.room(now + time - Duration::from_millis(1), v4(9999)), Room::None);
            assert_eq!(places.room(now + time, v4(9999)), Room::InsteadOf(taken[0]));
        }
    }

    #[test]
    fn one_that_has_failed_leaves_first_and_one_that_has_finished_never() {
        let now = Instant::now();
        let (mut places, taken) = full(3, now, |_| 1);
        places.note(taken[2], Standing::Failed);
        assert_eq!(places.room(now, v4(9)), Room::InsteadOf(taken[2]));
        for place in taken {
            places.note(place, Standing::Finished);
        }
        assert_eq!(places.room(now + PATIENCE * 100, v4(9)), Room::None);
    }

    /// What a look at all of them would find.
    fn by_hand(places: &Places, now: Instant, source: IpAddr) -> Room {
        let mut all: Vec<_> = places.held.iter().collect();
        all.sort_by_key(|(place, _)| **place);
        if all.len() < places.limit {
            return Room::Free;
        }
        if let Some((lost, _)) = all.iter().find(|(_, held)| held.standing == Standing::Failed) {
            return Room::InsteadOf(**lost);
        }
        let begun: Vec<_> = all.into_iter().filter(|(_, held)| held.standing == Standing::Begun).collect();
        let count = |source: IpAddr| begun.iter().filter(|(_, held)| held.source == source).count();
        let most = begun.iter().map(|(_, held)| count(held.source)).max().unwrap_or_default();
        let Some((oldest, held)) = begun.iter().find(|(_, held)| count(held.source) == most) else {
            return Room::None;
        };
        let age = now - held.since;
        let leaves = most >= count(prefix(source)) + 2 && age >= HASTE || age >= places.patience;
        if leaves { Room::InsteadOf(**oldest) } else { Room::None }
    }

    #[test]
    fn who_leaves_is_who_a_look_at_all_of_them_would_find() {
        let (mut places, start) = (Places::new(24), Instant::now());
        // A fixed sequence (Knuth's MMIX generator), so that a failure repeats.
        let mut coin = 7_u64;
        let mut toss = |below: u64| {
            coin = coin.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (coin >> 33) % below
        };
        let mut rooms = [0; 3];
        for step in 0..20_000 {
            let now = start + Duration::from_millis(step * 10);
            let (source, known) = (v4(toss(9) as u32), Place(places.next.saturating_sub(toss(40))));
            match toss(8) {
                0 => places.note(known, Standing::Failed),
                1 => places.note(known, Standing::Finished),
                2 => places.note(known, Standing::Begun),
                3 | 4 => places.leave(known),
                _ => drop(places.take(now, source)),
            }
            let room = places.room(now, source);
            assert_eq!(room, by_hand(&places, now, source), "step {step}");
            rooms[match room {
                Room::Free => 0,
                Room::InsteadOf(_) => 1,
                Room::None => 2,
            }] += 1;
            if let Room::InsteadOf(place) = room {
                places.leave(place);
            }
        }
        assert!(rooms.iter().all(|times| *times > 100), "{rooms:?}");
        let begun = places.begun.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!(places.ranks.len(), places.begun.len());
        assert!(begun + places.failed.len() <= places.held.len());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let (mut places, now) = (Places::new(4), Instant::now());
        let host = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]);
        let first = places.take(now, host(1));
        for n in 2..4 {
            places.take(now, host(n));
        }
        places.take(now, v4(1));
        assert_eq!(places.room(now + HASTE, v4(9)), Room::InsteadOf(first));
    }
}
