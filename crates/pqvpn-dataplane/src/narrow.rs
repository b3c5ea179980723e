// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the long datagrams of the QUIC guest go in pieces, because the path does not carry the 1200 bytes QUIC needs.
//!
//! A handshake of ours that is not answered in time is sent both ways; one of somebody else's never is, since its address may
//! be forged, and what goes there may not be more than QUIC allows. Whoever gets pieces answers in pieces for a while: that costs a
//! forger's victim a little efficiency and nothing else. Where the control side knows the path it says so. Anybody can fill the
//! room for strangers: addresses that the control side named or that we dial have their own.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::table::lock;

/// Datagrams up to this length go whole: whatever passes anywhere passes so.
pub(crate) const LONG: usize = 484;
/// Longest datagram that is put together again.
pub(crate) const LONGEST: usize = 1500;
/// What answers to long datagrams are like; shorter ones may come although long ones do not pass.
const LONG_ANSWER: usize = 900;
/// A handshake without an answer for so long goes in pieces too.
const UNANSWERED: Duration = Duration::from_millis(400);
/// A dial so long ago is over.
const FORGET: Duration = Duration::from_secs(30);
/// Pieces are answered in pieces for so long.
const MARK_LASTS: Duration = Duration::from_secs(10);
/// What the control side has found out counts for so long, unless it says so again.
const KNOWN_LASTS: Duration = Duration::from_secs(180);
/// Addresses of each kind.
const ADDRESSES: usize = 1024;
/// The bit that tells QUIC's long headers, which name their version, from short ones (RFC 8999 5).
pub(crate) const LONG_HEADER_BIT: u8 = 0x80;

/// How a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    Pieces,
    Both,
}

/// What is known of paths that may not carry long datagrams.
#[derive(Debug, Default)]
pub(crate) struct Narrow {
    /// Handshakes of ours without an answer, and marks; asked before the lock is taken.
    count: AtomicUsize,
    /// Tells datagrams in pieces apart.
    next: AtomicU16,
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    /// Handshakes of ours that have no answer.
    dialed: HashMap<SocketAddr, Dial>,
    /// Strangers that sent pieces, and until when that counts.
    marked: HashMap<SocketAddr, Instant>,
    /// The same addresses in the order of their marks, each with the time its mark had then.
    ages: VecDeque<(SocketAddr, Instant)>,
    /// Paths of which the control side knows that they are narrow.
    known: HashMap<SocketAddr, Known>,
}

/// A path that is known to be narrow.
#[derive(Debug, Clone, Copy)]
struct Known {
    until: Instant,
    /// It sent pieces, which counts until then.
    marked: Option<Instant>,
}

/// Dials of one address without an answer.
#[derive(Debug, Clone, Copy)]
struct Dial {
    first: Instant,
    last: Instant,
    /// It sent pieces, which counts until then.
    marked: Option<Instant>,
}

impl Dial {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= FORGET
    }
}

impl Narrow {
    pub(crate) fn next_id(&self) -> u16 {
        self.next.fetch_add(1, Relaxed)
    }

    /// Whether every datagram goes whole.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Relaxed) == 0
    }

    /// How a datagram of the guest goes.
    pub(crate) fn shape(&self, to: SocketAddr, datagram: &[u8], now: Instant) -> Shape {
        let is_handshake = datagram.first().is_some_and(|first| first & LONG_HEADER_BIT != 0);
        if datagram.len() <= LONG || datagram.len() > LONGEST || self.count.load(Relaxed) == 0 {
            return Shape::Whole;
        }
        let mut tables = lock(&self.tables);
        tables.forget_old(now);
        let shape = tables.shape(to, is_handshake, now);
        self.count.store(tables.len(), Relaxed);
        shape
    }

    /// A handshake of ours begins there.
    pub(crate) fn on_dial(&self, to: SocketAddr, now: Instant) {
        let mut tables = lock(&self.tables);
        tables.dialed.retain(|_, dial| !dial.is_over(now));
        if tables.dialed.len() < ADDRESSES || tables.dialed.contains_key(&to) {
            // Where the dial before had no answer this one need not wait.
            tables.dialed.entry(to).or_insert(Dial { first: now, last: now, marked: None }).last = now;
        }
        self.count.store(tables.len(), Relaxed);
    }

    /// A datagram of `from` came whole.
    pub(crate) fn on_whole(&self, from: SocketAddr, datagram: &[u8]) {
        if self.count.load(Relaxed) == 0 {
            return;
        }
        if datagram.len() > LONG_ANSWER {
            let mut tables = lock(&self.tables);
            if let Some(until) = tables.dialed.remove(&from).and_then(|dial| dial.marked) {
                tables.mark_stranger(from, until);
            }
        }
    }

    /// Whether an address is one that the control side named or that we dial.
    pub(crate) fn is_vouched(&self, addr: SocketAddr, now: Instant) -> bool {
        !self.is_empty() && lock(&self.tables).vouched(addr, now).is_some()
    }

    /// A datagram of `from` came in pieces.
    pub(crate) fn on_pieces(&self, from: SocketAddr, now: Instant) {
        let (mut tables, until) = (lock(&self.tables), now + MARK_LASTS);
        tables.forget_old(now);
        if let Some(marked) = tables.vouched(from, now) {
            *marked = Some(until);
        } else {
            tables.mark_stranger(from, until);
        }
        self.count.store(tables.len(), Relaxed);
    }

    /// The control side has found out what the path carries.
    pub(crate) fn know(&self, to: SocketAddr, is_narrow: bool, now: Instant) {
        if !is_narrow && self.count.load(Relaxed) == 0 {
            return;
        }
        let mut tables = lock(&self.tables);
        if is_narrow {
            if tables.known.len() >= ADDRESSES {
                tables.known.retain(|_, known| known.until > now);
            }
            if tables.known.len() < ADDRESSES || tables.known.contains_key(&to) {
                let until = now + KNOWN_LASTS;
                let marked = tables.unmark(to);
                tables.known.entry(to).or_insert(Known { until, marked }).until = until;
            }
        } else {
            tables.known.remove(&to);
            tables.unmark(to);
        }
        self.count.store(tables.len(), Relaxed);
    }
}

impl Tables {
    fn len(&self) -> usize {
        self.dialed.len() + self.marked.len() + self.known.len()
    }

    /// Where the mark of an address stands that no stranger is in the way of.
    fn vouched(&mut self, addr: SocketAddr, now: Instant) -> Option<&mut Option<Instant>> {
        let known = self.known.get_mut(&addr).filter(|known| known.until > now).map(|known| &mut known.marked);
        known.or_else(|| self.dialed.get_mut(&addr).filter(|dial| !dial.is_over(now)).map(|dial| &mut dial.marked))
    }

    /// Marks an address, in the place of the oldest stranger if there is no other.
    fn mark_stranger(&mut self, from: SocketAddr, until: Instant) {
        if let Some(mark) = self.marked.get_mut(&from) {
            *mark = until.max(*mark);
            return;
        }
        while self.marked.len() >= ADDRESSES && self.take_oldest(None) {}
        self.marked.insert(from, until);
        self.ages.push_back((from, until));
    }

    fn forget_old(&mut self, now: Instant) {
        while self.ages.front().is_some_and(|(_, until)| *until <= now) && self.take_oldest(Some(now)) {}
    }

    /// Forgets the oldest mark, or, where that was made anew (and is not over at `now`), has it stand behind the others. Each
    /// new mark is moved once at most.
    fn take_oldest(&mut self, now: Option<Instant>) -> bool {
        let Some((addr, then)) = self.ages.pop_front() else { return false };
        match self.marked.get(&addr) {
            Some(&until) if until > then && now.is_none_or(|now| until > now) => self.ages.push_back((addr, until)),
            _ => _ = self.marked.remove(&addr),
        }
        true
    }

    fn unmark(&mut self, addr: SocketAddr) -> Option<Instant> {
        let mark = self.marked.remove(&addr)?;
        self.ages.retain(|(other, _)| *other != addr);
        Some(mark)
    }

    fn is_marked(&self, to: SocketAddr, now: Instant) -> bool {
        let of_known = self.known.get(&to).and_then(|known| known.marked);
        let of_dial = self.dialed.get(&to).and_then(|dial| dial.marked);
        let marks = [self.marked.get(&to).copied(), of_known, of_dial];
        marks.into_iter().flatten().any(|until| until > now)
    }

    fn shape(&mut self, to: SocketAddr, is_handshake: bool, now: Instant) -> Shape {
        if self.is_marked(to, now) {
            return Shape::Pieces;
        }
        let is_known = match self.known.get(&to) {
            Some(known) if known.until > now => true,
            Some(_) => self.known.remove(&to).is_none(),
            None => false,
        };
        if is_known && !is_handshake {
            return Shape::Pieces;
        }
        // Only to a handshake of ours: somebody else's may come from a forged address, whatever is known of that. And what was
        // found out of an earlier link need not hold for a new one.
        let twice = self.dialed.get(&to).filter(|_| is_handshake).is_some_and(|dial| {
            (is_known || now.saturating_duration_since(dial.first) >= UNANSWERED) && !dial.is_over(now)
        });
        if twice { Shape::Both } else { Shape::Whole }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: [u8; 1200] = [0xc0; 1200];
    const SHORT: [u8; 1200] = [0x40; 1200];

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_handshake_of_ours_without_an_answer_goes_in_pieces_too() {
        let (narrow, now) = (Narrow::default(), Instant::now());
        narrow.on_dial(at(1), now);
        assert_eq!(narrow.shape(at(1), &INITIAL, now), Shape::Whole);
        assert_eq!(narrow.shape(at(1), &INITIAL, now + UNANSWERED / 2), Shape::Whole);
        assert_eq!(narrow.shape(at(1), &INITIAL, now + UNANSWERED), Shape::Both);
        assert_eq!(narrow.shape(at(1), &INITIAL[..LONG], now + UNANSWERED), Shape::Whole, "short enough");
        assert_eq!(narrow.shape(at(1), &SHORT, now + UNANSWERED), Shape::Whole, "no handshake");
        narrow.on_whole(at(1), &INITIAL[..LONG]);
        assert_eq!(narrow.shape(at(1), &INITIAL, now + UNANSWERED), Shape::Both, "a short answer proves little");
        narrow.on_dial(at(1), now + UNANSWERED);
        assert_eq!(narrow.shape(at(1), &INITIAL, now + UNANSWERED), Shape::Both, "the dial before had none");
        assert_eq!(narrow.shape(at(1), &INITIAL, now + UNANSWERED + FORGET), Shape::Whole, "that is over");
        narrow.on_whole(at(1), &INITIAL);
        assert_eq!(narrow.shape(at(1), &INITIAL, now + UNANSWERED), Shape::Whole);
    }

    #[test]
    fn the_handshake_of_somebody_else_is_answered_once() {
        let (narrow, now) = (Narrow::default(), Instant::now());
        narrow.on_dial(at(1), now);
        for wait in 0..100 {
            assert_eq!(
                narrow.shape(at(2), &INITIAL, now + UNANSWERED * wait),
                Shape::Whole,
                "its address may be forged"
            );
        }
    }

    #[test]
    fn pieces_are_answered_in_pieces_for_a_while() {
        let (narrow, now) = (Narrow::default(), Instant::now());
        assert_eq!(narrow.shape(at(1), &SHORT, now), Shape::Whole);
        narrow.on_pieces(at(1), now);
        assert_eq!(narrow.shape(at(1), &INITIAL, now), Shape::Pieces);
        assert_eq!(narrow.shape(at(1), &SHORT, now), Shape::Pieces);
        assert_eq!(narrow.shape(at(2), &SHORT, now), Shape::Whole);
        assert_eq!(narrow.shape(at(1), &SHORT, now + MARK_LASTS), Shape::Whole);
    }

    #[test]
    fn what_the_control_side_knows_counts() {
        let (narrow, now) = (Narrow::default(), Instant::now());
        narrow.know(at(1), true, now);
        assert_eq!(narrow.shape(at(1), &SHORT, now + FORGET), Shape::Pieces);
        narrow.know(at(1), false, now);
        assert_eq!(narrow.shape(at(1), &SHORT, now), Shape::Whole);
        assert_eq!(narrow.count.load(Relaxed), 0);
    }

    #[test]
    fn what_the_control_side_knows_is_forgotten_unless_it_says_so_again() {
        let (narrow, now) = (Narrow::default(), Instant::now());
        narrow.know(at(1), true, now);
        narrow.know(at(2), true, now);
        narrow.know(at(2), true, now + KNOWN_LASTS / 2);
        assert_eq!(narrow.shape(at(1), &SHORT, now + KNOWN_LASTS), Shape::Whole);
        assert_eq!(narrow.shape(at(2), &SHORT, now + KNOWN_LASTS), Shape::Pieces);
        assert_eq!(narrow.count.load(Relaxed), 1);
    }

    #[test]
    fn only_a_handshake_of_ours_goes_both_ways_where_the_path_is_known_to_be_narrow() {
        let (narrow, now) = (Narrow::default(), Instant::now());
        narrow.know(at(1), true, now);
        assert_eq!(narrow.shape(at(1), &INITIAL, now), Shape::Whole, "an answer to what may be forged");
        narrow.on_dial(at(1), now);
        assert_eq!(narrow.shape(at(1), &INITIAL, now), Shape::Both);
    }

    #[test]
    fn a_short_datagram_from_where_we_dial_ends_nothing() {
        let (narrow, now) = (Narrow::default(), Instant::now());
        narrow.on_dial(at(1), now);
        narrow.on_whole(at(1), &SHORT[..40]);
        assert_eq!(narrow.shape(at(1), &INITIAL, now + UNANSWERED), Shape::Both, "anybody can send that");
    }

    #[test]
    fn a_flood_from_many_addresses_takes_bounded_room() {
        let (narrow, now) = (Narrow::default(), Instant::now());
        for port in 1..5000 {
            narrow.on_pieces(at(port), now + Duration::from_nanos(port.into()));
            narrow.on_dial(SocketAddr::from(([192, 0, 2, 2], port)), now);
        }
        assert!(lock(&narrow.tables).len() <= 2 * ADDRESSES);
        assert_eq!(narrow.shape(at(4999), &SHORT, now), Shape::Pieces, "the newest is there");
    }

    #[test]
    fn a_flood_from_many_addresses_displaces_strangers_and_nobody_we_know_or_dial() {
        let (narrow, now) = (Narrow::default(), Instant::now());
        let [known, dialed, stranger] = [1, 2, 3].map(|n| SocketAddr::from(([198, 51, 100, n], 7)));
        narrow.know(known, true, now);
        narrow.on_dial(dialed, now);
        for from in [known, dialed, stranger] {
            narrow.on_pieces(from, now);
        }
        assert_eq!([known, dialed, stranger].map(|at| narrow.is_vouched(at, now)), [true, true, false]);
        for port in 1..5000 {
            narrow.on_pieces(at(port), now + Duration::from_nanos(port.into()));
        }
        assert_eq!(narrow.shape(stranger, &INITIAL, now), Shape::Whole);
        assert_eq!(narrow.shape(known, &INITIAL, now), Shape::Pieces, "it has begun another link");
        assert_eq!(narrow.shape(dialed, &SHORT, now), Shape::Pieces);
        assert_eq!(narrow.shape(known, &INITIAL, now + MARK_LASTS), Shape::Whole);
        let long_after = now + KNOWN_LASTS;
        assert_eq!([known, dialed].map(|at| narrow.is_vouched(at, long_after)), [false; 2]);
        // With an answer that came whole a dial is over; the pieces before it count on.
        narrow.on_whole(dialed, &INITIAL);
        assert_eq!(narrow.shape(dialed, &SHORT, now), Shape::Pieces);
    }

    #[test]
    fn marks_end_by_themselves_and_the_oldest_makes_room() {
        let (narrow, start) = (Narrow::default(), Instant::now());
        let from = |port: usize| SocketAddr::from(([192, 0, 2, 1], port as u16));
        let at = |millis: usize| start + Duration::from_millis(millis as u64);
        let marked = |port: usize, now| lock(&narrow.tables).is_marked(from(port), now);
        (1..=ADDRESSES).for_each(|port| narrow.on_pieces(from(port), at(port)));
        // Made anew it is not the oldest any more.
        narrow.on_pieces(from(1), at(2000));
        narrow.on_pieces(from(5000), at(2001));
        assert_eq!([1, 2, 3, 5000].map(|port| marked(port, at(2001))), [true, false, true, true]);
        assert_eq!(lock(&narrow.tables).ages.len(), ADDRESSES);
        // Nobody asks for any of them again.
        narrow.on_pieces(from(6000), at(30_000));
        assert_eq!((narrow.count.load(Relaxed), lock(&narrow.tables).ages.len()), (1, 1));
    }
}
