// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port guessing: how two ends meet of which one is behind a router that gives each destination another port.
//!
//! The hard end opens many sockets, each of which gets its own outside port towards the easy end; the easy end sends checks
//! to random ports of the hard end's address, of which a few meet an open one. Bounded, because it is the one thing here
//! that sends to ports nobody named: one address that the peer named and that may be one, [`PORTS`] small packets, at
//! pauses that grow.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use super::ids::Ids;

/// Sockets that the hard end opens: with [`PORTS`] of 64,512 guessed, 98 of 100 tries hit.
pub(crate) const SOCKETS: usize = 256;
/// Ports that the easy end tries.
pub(crate) const PORTS: u16 = 1024;
/// Checks sent at once, and how long until the next.
const BURST: u16 = 16;
const EVERY: Duration = Duration::from_millis(20);
/// The lowest port a router gives away, and how many there are from there on.
const LOWEST: u16 = 1024;
const RANGE: u32 = 65_536 - LOWEST as u32;
/// When the hard end checks from its sockets: the easy end has sent to all ports by then. What opened them may have died
/// before a router further out.
const CHECK_AFTER: Duration = Duration::from_millis(1500);
/// How long all of it takes.
const LASTS: Duration = Duration::from_millis(2000);
/// How long the sockets stay open. Several may be hit, and one that is closed while the other end goes over to it is a
/// path that swallows everything.
pub(crate) const SOCKETS_LAST: Duration = Duration::from_millis(3000);
/// Pauses after a guess.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(180), Duration::from_secs(600), Duration::from_secs(1800)];

/// How long not to guess after so many guesses.
pub(crate) fn pause(guesses: usize) -> Duration {
    PAUSES[guesses.min(PAUSES.len() - 1)]
}

/// Which part this end takes. Who does not know of itself takes both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Opens sockets.
    hard: bool,
    /// Guesses ports.
    easy: bool,
}

impl Part {
    /// The part by what each end knows of its router; `None` when both are hard, for which no guess is good enough.
    pub(crate) fn of(own_varies: bool, other_varies: bool) -> Option<Self> {
        match (own_varies, other_varies) {
            (true, true) => None,
            (true, false) => Some(Self { hard: true, easy: false }),
            (false, true) => Some(Self { hard: false, easy: true }),
            (false, false) => Some(Self { hard: true, easy: true }),
        }
    }
}

/// One guess under way.
#[derive(Debug)]
pub(crate) struct Guess {
    since: Instant,
    part: Part,
    at: SocketAddr,
    ip: Ipv4Addr,
    /// The ports tried are every `stride`th from `start` on, round and round.
    start: u32,
    stride: u32,
    /// Of the checks sent, in their order.
    ids: Vec<u64>,
    checked: bool,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Check this address with this number.
    Check(u64, SocketAddr),
    /// Check this address from all sockets.
    FromAll(SocketAddr),
    /// The guess is over.
    Over,
}

impl Guess {
    /// Begins. `seed` is random.
    pub(crate) fn new(now: Instant, part: Part, at: SocketAddr, seed: u64) -> Option<Self> {
        let IpAddr::V4(ip) = at.ip().to_canonical() else { return None };
        let [low, high] = [seed & 0xffff_ffff, seed >> 32].map(|half| u32::try_from(half).unwrap_or(0));
        // No port comes twice: the stride has no divisor in common with the range (64,512 is 2^10 * 3^2 * 7).
        let stride = (1 + 2 * (high % (RANGE / 2))..).step_by(2).find(|n| n % 3 != 0 && n % 7 != 0)?;
        Some(Self { since: now, part, at, ip, start: low % RANGE, stride, ids: Vec::new(), checked: false })
    }

    /// Where the sockets are to be opened to, if this end opens any.
    pub(crate) fn opens(&self) -> Option<SocketAddr> {
        self.part.hard.then_some(self.at)
    }

    /// Takes the next thing that is due; a check gets the next of `ids`.
    pub(super) fn poll(&mut self, now: Instant, ids: &mut Ids) -> Option<Due> {
        if now >= self.since + LASTS {
            return Some(Due::Over);
        }
        if let Some(index) = self.next_index().filter(|index| now >= self.sends_at(*index)) {
            let id = ids.next();
            self.ids.push(id);
            return Some(Due::Check(id, self.target(index)));
        }
        if self.part.hard && !self.checked && now >= self.since + CHECK_AFTER {
            self.checked = true;
            return Some(Due::FromAll(self.at));
        }
        None
    }

    /// When [`Self::poll`] wants to run next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let next = self.next_index().map(|index| self.sends_at(index));
        let check = (self.part.hard && !self.checked).then(|| self.since + CHECK_AFTER);
        [next, check].into_iter().flatten().fold(self.since + LASTS, Instant::min)
    }

    /// Whether an answer from `from` is that to the check sent there; when that was sent.
    pub(crate) fn sent_to(&self, id: u64, from: SocketAddr) -> Option<Instant> {
        let index = self.ids.iter().position(|sent| *sent == id).and_then(|index| u16::try_from(index).ok())?;
        (self.target(index) == from).then(|| self.sends_at(index))
    }

    /// A port was hit: no more are tried.
    pub(crate) const fn hit(&mut self) {
        self.part.easy = false;
    }

    /// The check that is sent next, if one is.
    fn next_index(&self) -> Option<u16> {
        u16::try_from(self.ids.len()).ok().filter(|index| self.part.easy && *index < PORTS)
    }

    fn sends_at(&self, index: u16) -> Instant {
        self.since + EVERY * u32::from(index / BURST)
    }

    fn target(&self, index: u16) -> SocketAddr {
        let offset = (u64::from(self.start) + u64::from(self.stride) * u64::from(index)) % u64::from(RANGE);
        SocketAddr::from((self.ip, LOWEST + u16::try_from(offset).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at() -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 1], 41641))
    }

    #[test]
    fn who_takes_which_part() {
        let part = |own, other| Part::of(own, other).map(|part| (part.hard, part.easy));
        assert_eq!(part(true, false), Some((true, false)));
        assert_eq!(part(false, true), Some((false, true)));
        assert_eq!(part(false, false), Some((true, true)), "nobody knows");
        assert_eq!(part(true, true), None);
    }

    #[test]
    fn a_guess_tries_each_port_once_one_address_only_and_no_faster_than_said() {
        for seed in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef, 0xffff_fffe_0000_0005] {
            let (now, part) = (Instant::now(), Part::of(false, true).unwrap());
            let (mut guess, mut ids) = (Guess::new(now, part, at(), seed).unwrap(), Ids::new(&[7; 32]));
            let (mut ports, mut time) = (BTreeSet::new(), now);
            loop {
                let before = ports.len();
                let over = loop {
                    match guess.poll(time, &mut ids) {
                        Some(Due::Check(id, to)) => {
                            assert!(to.ip() == at().ip() && to.port() >= LOWEST && ports.insert(to.port()));
                            assert_eq!(guess.sent_to(id, to), Some(time));
                            assert_eq!(guess.sent_to(id, SocketAddr::new(to.ip(), to.port() ^ 1)), None);
                        }
                        Some(Due::FromAll(_)) => panic!("not the hard end"),
                        Some(Due::Over) => break true,
                        None => break false,
                    }
                };
                assert!(ports.len() - before <= usize::from(BURST));
                if over {
                    break;
                }
                assert!(guess.poll_timeout() > time);
                time = guess.poll_timeout();
            }
            assert_eq!((ports.len(), time), (usize::from(PORTS), now + LASTS));
        }
    }

    #[test]
    fn only_ipv4_is_guessed() {
        let part = Part::of(false, false).unwrap();
        assert!(Guess::new(Instant::now(), part, "[2001:db8::1]:7".parse().unwrap(), 0).is_none());
    }
}
