// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts pieces together again, with bounds on how many wait, how much they hold and for how long.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use pqvpn_packet::fragment::Place;

/// How long a whole waits for its last piece: they left one after the other.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// Bounds of a [`Reassembly`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Wholes that wait.
    pub(crate) wholes: usize,
    /// Bytes that wait.
    pub(crate) bytes: usize,
    /// Longest whole.
    pub(crate) longest: usize,
    /// Wholes of one source that wait.
    pub(crate) of_one: usize,
}

/// Why a piece was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It contradicts the others of its whole, or that is too long.
    Misfit,
    /// It was there already.
    Twice,
}

/// What came of a piece, and how many wholes were given up for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) whole: Result<Option<Vec<u8>>, Refused>,
    pub(crate) given_up: u64,
}

/// Wholes that wait for pieces, oldest first. `S` is a source, of which no one may crowd out the others.
#[derive(Debug)]
pub(crate) struct Reassembly<S> {
    bounds: Bounds,
    waiting: VecDeque<Waiting<S>>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting<S> {
    source: S,
    id: u64,
    place: Place,
    /// One bit for each piece that is there.
    there: u64,
    data: Vec<u8>,
    since: Instant,
}

impl<S: PartialEq + Copy> Reassembly<S> {
    pub(crate) const fn new(bounds: Bounds) -> Self {
        Self { bounds, waiting: VecDeque::new(), bytes: 0 }
    }

    /// Takes a piece whose `bytes` have the length of its place. `id` tells the wholes of a source apart.
    pub(crate) fn take(&mut self, source: S, id: u64, place: Place, bytes: &[u8], now: Instant) -> Taken {
        let mut given_up = self.expire(now);
        let known = self.waiting.iter().position(|waiting| waiting.source == source && waiting.id == id);
        let at = match known {
            Some(at) => at,
            None if usize::from(place.total) > self.bounds.longest => {
                return Taken { whole: Err(Refused::Misfit), given_up };
            }
            None => {
                given_up += self.make_room(source, usize::from(place.total));
                let data = vec![0; usize::from(place.total)];
                self.bytes += data.len();
                self.waiting.push_back(Waiting { source, id, place, there: 0, data, since: now });
                self.waiting.len() - 1
            }
        };
        let whole = self.waiting[at].put(place, bytes).map(|()| self.finished(at));
        Taken { whole, given_up }
    }

    /// Gives up what waited for too long.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let mut given_up = 0;
        while self.waiting.front().is_some_and(|first| now.saturating_duration_since(first.since) >= PATIENCE) {
            given_up += self.give_up(0);
        }
        given_up
    }

    fn make_room(&mut self, source: S, len: usize) -> u64 {
        let mut given_up = 0;
        let of_it = |waiting: &&Waiting<S>| waiting.source == source;
        if self.waiting.iter().filter(of_it).count() >= self.bounds.of_one {
            let oldest = self.waiting.iter().position(|waiting| waiting.source == source);
            given_up += oldest.map_or(0, |at| self.give_up(at));
        }
        while self.waiting.len() >= self.bounds.wholes
            || self.bytes + len > self.bounds.bytes && !self.waiting.is_empty()
        {
            given_up += self.give_up(0);
        }
        given_up
    }

    fn give_up(&mut self, at: usize) -> u64 {
        self.remove(at).map_or(0, |_| 1)
    }

    fn remove(&mut self, at: usize) -> Option<Vec<u8>> {
        let removed = self.waiting.remove(at)?;
        self.bytes -= removed.data.len();
        Some(removed.data)
    }

    /// The whole, if nothing of it is missing.
    fn finished(&mut self, at: usize) -> Option<Vec<u8>> {
        let waiting = &self.waiting[at];
        if waiting.there.count_ones() as usize == waiting.place.count() { self.remove(at) } else { None }
    }
}

impl<S> Waiting<S> {
    fn put(&mut self, place: Place, bytes: &[u8]) -> Result<(), Refused> {
        if (place.total, place.unit) != (self.place.total, self.place.unit) {
            return Err(Refused::Misfit);
        }
        let bit = 1_u64.checked_shl(u32::from(place.index)).ok_or(Refused::Misfit)?;
        let range = place.offset()..place.offset() + bytes.len();
        let there = self.data.get_mut(range).ok_or(Refused::Misfit)?;
        if self.there & bit != 0 {
            return Err(Refused::Twice);
        }
        there.copy_from_slice(bytes);
        self.there |= bit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { wholes: 8, bytes: 8192, longest: 1420, of_one: 3 };

    fn place(total: u16, index: u8) -> Place {
        Place { total, unit: 500, index }
    }

    fn of(source: u8, id: u64, total: u16, index: u8, reassembly: &mut Reassembly<u8>, now: Instant) -> Taken {
        let len = 500.min(usize::from(total) - usize::from(index) * 500);
        reassembly.take(source, id, place(total, index), &vec![index + 1; len], now)
    }

    #[test]
    fn pieces_in_any_order_make_the_whole() {
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let (mut reassembly, now) = (Reassembly::new(BOUNDS), Instant::now());
            let taken: Vec<Taken> = order.map(|index| of(1, 7, 1200, index, &mut reassembly, now)).into();
            assert_eq!(taken[..2].iter().filter(|taken| taken.whole == Ok(None)).count(), 2);
            let whole = taken[2].whole.clone().unwrap().unwrap();
            assert_eq!((whole.len(), whole[499], whole[500], whole[1199]), (1200, 1, 2, 3));
            assert_eq!((reassembly.bytes, reassembly.waiting.len()), (0, 0));
        }
    }

    #[test]
    fn a_piece_that_comes_twice_or_contradicts_is_refused_and_harms_nothing() {
        let (mut reassembly, now) = (Reassembly::new(BOUNDS), Instant::now());
        assert_eq!(of(1, 7, 1000, 0, &mut reassembly, now).whole, Ok(None));
        assert_eq!(of(1, 7, 1000, 0, &mut reassembly, now).whole, Err(Refused::Twice));
        assert_eq!(of(1, 7, 1001, 1, &mut reassembly, now).whole, Err(Refused::Misfit), "another length");
        let other_unit = Place { total: 1000, unit: 501, index: 1 };
        assert_eq!(reassembly.take(1, 7, other_unit, &[0; 499], now).whole, Err(Refused::Misfit));
        assert_eq!(of(2, 7, 1000, 1, &mut reassembly, now).whole, Ok(None), "another source has its own");
        assert!(of(1, 7, 1000, 1, &mut reassembly, now).whole.unwrap().is_some());
        assert_eq!(of(1, 8, 1421, 0, &mut reassembly, now).whole, Err(Refused::Misfit), "longer than any packet");
    }

    #[test]
    fn wholes_bytes_and_time_are_bounded() {
        let (mut reassembly, now) = (Reassembly::new(BOUNDS), Instant::now());
        let given_up: u64 = (0..100).map(|id| of((id % 50) as u8, id, 1400, 0, &mut reassembly, now).given_up).sum();
        assert!(reassembly.bytes <= BOUNDS.bytes && reassembly.waiting.len() <= BOUNDS.wholes);
        assert_eq!(given_up as usize + reassembly.waiting.len(), 100);
        let left = reassembly.waiting.len() as u64;
        assert_eq!(reassembly.expire(now + PATIENCE - Duration::from_nanos(1)), 0);
        assert_eq!(reassembly.expire(now + PATIENCE), left);
        assert_eq!(reassembly.bytes, 0);
    }

    #[test]
    fn one_source_crowds_out_itself_and_nobody_else() {
        let (mut reassembly, now) = (Reassembly::new(BOUNDS), Instant::now());
        assert_eq!(of(1, 7, 600, 0, &mut reassembly, now).whole, Ok(None));
        for id in 0..1000 {
            assert_eq!(of(2, id, 600, 0, &mut reassembly, now).whole, Ok(None));
        }
        assert_eq!(reassembly.waiting.len(), 1 + BOUNDS.of_one);
        assert!(of(1, 7, 600, 1, &mut reassembly, now).whole.unwrap().is_some());
    }
}
