// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where packets to a peer go, and whom that follows.
//!
//! What authenticated is all that counts, and of that only the newest packet moves a path. A probe that only checks and
//! the answer to a probe move nothing: who asks whether a path works has not chosen it yet. Data moves it, but not from
//! a plain address to a way through a relay while the plain address is alive; a nominating probe always moves it.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{udp::extra::SocketId, way::WayId};

/// Silence on a plain path after which data alone may move it to a way.
const QUIET: Duration = Duration::from_secs(2);
/// How often the control side hears of one address.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Addresses of one peer that are told apart for that; as many are told of per [`TELL_EVERY`].
const TOLD: usize = 8;
/// Answers to probes that the control side hears of: so many a second in the long run, and at once. Port guessing has each
/// of 256 sockets answered in a moment.
const ANSWER_EVERY: Duration = Duration::from_millis(10);
const ANSWERS: u32 = 512;
/// Probes of the peer that are answered, the same way: to seal and send costs more than to ask.
const PROBE_EVERY: Duration = Duration::from_millis(5);
const PROBES: u32 = 512;
/// Moves of the path that are followed, the same way. The control side looks at everything anew at each.
const MOVE_EVERY: Duration = Duration::from_millis(200);
const MOVES: u32 = 8;

/// Where datagrams to a peer go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Underlay address of the peer, or a way.
    pub remote: SocketAddr,
    /// The local address it last reached us on; answers leave from there. None for a way.
    pub local: Option<IpAddr>,
    /// The socket it last reached us on, if that was added later.
    pub socket: Option<SocketId>,
}

/// What in a received packet may move a path; the greater moves more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mover {
    /// Data.
    Data,
    /// A nominating probe.
    Nominate,
}

/// What a received packet did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// It came on the path.
    Stayed,
    /// The path is where it came from now, and was there before.
    Moved(SocketAddr),
    /// It came from elsewhere, which the control side should hear of.
    Heard,
    /// It came from elsewhere, and the control side knows or there is too much to tell.
    Known,
}

/// A peer's path with what is known about it.
#[derive(Debug, Default)]
pub struct Place {
    path: Option<Path>,
    /// When something authenticated last came on it.
    heard: Option<Instant>,
    /// When it was set.
    since: Option<Instant>,
    told: [Option<(SocketAddr, Instant)>; TOLD],
    answers: Allowance,
    probes: Allowance,
    moves: Allowance,
    sockets: Allowance,
}

/// So much at once, and so much in the long run.
#[derive(Debug, Default)]
struct Allowance {
    /// When nothing will be left of what was taken.
    full: Option<Instant>,
}

impl Allowance {
    fn take(&mut self, now: Instant, every: Duration, burst: u32) -> bool {
        let full = self.full.map_or(now, |at| at.max(now));
        let takes = full < now + every * burst;
        if takes {
            self.full = Some(full + every);
        }
        takes
    }
}

impl Place {
    /// The path.
    pub const fn path(&self) -> Option<Path> {
        self.path
    }

    /// The path's address and when something authenticated was last heard on it.
    pub fn heard(&self) -> Option<(SocketAddr, Instant)> {
        Some((self.path?.remote, self.heard?))
    }

    /// Moves the path where the control side wants it; gives where it was.
    pub fn set(&mut self, remote: SocketAddr, now: Instant) -> Option<SocketAddr> {
        let old = self.path.replace(Path { remote, local: None, socket: None }).map(|path| path.remote);
        if old != Some(remote) {
            (self.heard, self.since) = (None, Some(now));
        }
        old
    }

    /// Forgets the local address after the system refused it as a source.
    pub(crate) const fn forget_local(&mut self) {
        if let Some(path) = &mut self.path {
            path.local = None;
        }
    }

    /// Notes that authenticated packets came on `path`; `true` when that is the path and nothing else is to be done.
    pub fn hear(&mut self, path: Path, now: Instant) -> bool {
        let is_current = self.path.is_some_and(|current| current.remote == path.remote);
        if is_current {
            self.heard = Some(now);
        }
        self.path == Some(path)
    }

    /// Whether the control side is to hear of an answer: a peer may send as many as it likes, asked or not.
    pub fn takes_answer(&mut self, now: Instant) -> bool {
        self.answers.take(now, ANSWER_EVERY, ANSWERS)
    }

    /// Whether the peer gets an answer to a probe.
    pub fn answers_probe(&mut self, now: Instant) -> bool {
        self.probes.take(now, PROBE_EVERY, PROBES)
    }

    /// Follows authenticated packets to where they came from, if the newest of all was among them and what is in it
    /// (`mover`) may move the path.
    pub fn follow(&mut self, path: Path, mover: Option<Mover>, now: Instant) -> Followed {
        let Some(current) = self.path else {
            self.move_to(path, now);
            return Followed::Stayed;
        };
        if current.remote == path.remote {
            // Another socket costs more than a move, and what only answers may come on it for a while.
            if current.socket != path.socket && !self.sockets.take(now, MOVE_EVERY, MOVES) {
                return Followed::Known;
            }
            if mover.is_some() {
                self.path = Some(path);
            }
            return Followed::Stayed;
        }
        // One that moves with each packet would keep the control side from everybody else.
        if mover.is_some_and(|mover| self.moves(current, path, mover, now)) && self.moves.take(now, MOVE_EVERY, MOVES) {
            self.move_to(path, now);
            return Followed::Moved(current.remote);
        }
        if self.tells(path.remote, now) { Followed::Heard } else { Followed::Known }
    }

    fn move_to(&mut self, path: Path, now: Instant) {
        (self.path, self.heard, self.since) = (Some(path), Some(now), Some(now));
    }

    fn moves(&self, current: Path, path: Path, mover: Mover, now: Instant) -> bool {
        let is_way = |path: Path| WayId::of(path.remote).is_some();
        mover == Mover::Nominate || is_way(current) || !is_way(path) || self.is_quiet(now)
    }

    fn is_quiet(&self, now: Instant) -> bool {
        let last = self.heard.max(self.since);
        last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET)
    }

    /// Whether the control side is to be told of an address: each once per [`TELL_EVERY`], and only so many.
    fn tells(&mut self, addr: SocketAddr, now: Instant) -> bool {
        let due = |told: &Option<(SocketAddr, Instant)>| {
            told.is_none_or(|(_, at)| now.saturating_duration_since(at) >= TELL_EVERY)
        };
        let known = self.told.iter_mut().find(|told| told.is_some_and(|(known, _)| known == addr));
        let slot = match known {
            Some(known) => Some(known).filter(|known| due(known)),
            None => self.told.iter_mut().find(|told| due(told)),
        };
        let Some(slot) = slot else { return false };
        *slot = Some((addr, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "192.0.2.1:1";
    const OTHER: &str = "192.0.2.2:2";

    fn plain(addr: &str) -> Path {
        Path { remote: addr.parse().unwrap(), local: "192.0.2.9".parse().ok(), socket: None }
    }

    fn way(id: u64) -> Path {
        Path { remote: WayId(id).address(), local: None, socket: None }
    }

    /// A place whose path is `path`, last heard at the time given.
    fn at(path: Path) -> (Place, Instant) {
        let mut place = Place::default();
        let start = Instant::now();
        assert_eq!(place.follow(path, Some(Mover::Data), start), Followed::Stayed);
        (place, start)
    }

    #[test]
    fn what_moves_from_where_to_where() {
        let (data, nominate) = (Some(Mover::Data), Some(Mover::Nominate));
        let now_or_later = [Duration::ZERO, QUIET - Duration::from_nanos(1), QUIET, QUIET * 10];
        for (from, to, mover, moves) in [
            (plain(PLAIN), plain(OTHER), data, [true; 4]),
            (plain(PLAIN), plain(OTHER), nominate, [true; 4]),
            (plain(PLAIN), plain(OTHER), None, [false; 4]),
            (plain(PLAIN), way(1), data, [false, false, true, true]),
            (plain(PLAIN), way(1), nominate, [true; 4]),
            (plain(PLAIN), way(1), None, [false; 4]),
            (way(1), plain(PLAIN), data, [true; 4]),
            (way(1), plain(PLAIN), nominate, [true; 4]),
            (way(1), plain(PLAIN), None, [false; 4]),
            (way(1), way(2), data, [true; 4]),
            (way(1), way(2), None, [false; 4]),
        ] {
            for (wait, moves) in now_or_later.into_iter().zip(moves) {
                let (mut place, start) = at(from);
                let followed = place.follow(to, mover, start + wait);
                let expected = if moves { Followed::Moved(from.remote) } else { Followed::Heard };
                assert_eq!(followed, expected, "{from:?} to {to:?} by {mover:?} after {wait:?}");
                assert_eq!(place.path(), Some(if moves { to } else { from }));
            }
        }
    }

    #[test]
    fn another_socket_is_followed_as_seldom_as_another_address() {
        let (mut place, start) = at(plain(PLAIN));
        let by = |id: u64| Path { socket: Some(SocketId(id % 2)), ..plain(PLAIN) };
        let follow = |place: &mut Place, id| place.follow(by(id), Some(Mover::Data), start);
        for id in 0..100 {
            let expected = if id < u64::from(MOVES) || id % 2 == 1 { Followed::Stayed } else { Followed::Known };
            assert_eq!(follow(&mut place, id), expected, "{id}: the same costs nothing");
        }
        assert_eq!(place.path(), Some(by(u64::from(MOVES) - 1)));
        let moved = place.follow(plain(OTHER), Some(Mover::Data), start);
        assert_eq!(moved, Followed::Moved(plain(PLAIN).remote), "an address is another matter");
    }

    #[test]
    fn a_path_that_was_just_set_has_its_time_to_be_heard() {
        let mut place = Place::default();
        let start = Instant::now();
        assert_eq!(place.set(plain(PLAIN).remote, start), None);
        assert_eq!(place.heard(), None);
        assert_eq!(place.follow(way(1), Some(Mover::Data), start + QUIET / 2), Followed::Heard);
        assert!(!place.hear(plain(PLAIN), start + QUIET / 2), "the local address is new");
        assert_eq!(place.follow(way(1), Some(Mover::Data), start + QUIET), Followed::Heard);
        assert_eq!(place.follow(way(1), Some(Mover::Data), start + QUIET * 2), Followed::Moved(plain(PLAIN).remote));
        assert_eq!(place.heard(), Some((way(1).remote, start + QUIET * 2)));
    }

    #[test]
    fn setting_the_path_to_where_it_is_forgets_nothing_that_was_heard() {
        let (mut place, start) = at(plain(PLAIN));
        assert_eq!(place.set(plain(PLAIN).remote, start + QUIET), Some(plain(PLAIN).remote));
        assert_eq!(place.heard(), Some((plain(PLAIN).remote, start)));
    }

    #[test]
    fn only_what_may_move_a_path_changes_our_own_address() {
        let (mut place, start) = at(plain(PLAIN));
        let elsewhere = Path { local: "192.0.2.8".parse().ok(), ..plain(PLAIN) };
        assert_eq!(place.follow(elsewhere, None, start), Followed::Stayed);
        assert_eq!(place.path(), Some(plain(PLAIN)));
        assert_eq!(place.follow(elsewhere, Some(Mover::Data), start), Followed::Stayed);
        assert_eq!(place.path(), Some(elsewhere));
    }

    #[test]
    fn an_address_is_told_once_a_second_and_few_at_a_time() {
        let (mut place, start) = at(plain(PLAIN));
        let heard = |place: &mut Place, id, at| place.follow(way(id), None, at) == Followed::Heard;
        assert!(heard(&mut place, 0, start));
        assert!(!heard(&mut place, 0, start + TELL_EVERY / 2));
        let told = (1..1000).filter(|&id| heard(&mut place, id, start + TELL_EVERY / 2)).count();
        assert_eq!(told, TOLD - 1);
        assert!(heard(&mut place, 0, start + TELL_EVERY), "its time is over, that of the others not");
        let told = (0..1000).filter(|&id| heard(&mut place, id, start + TELL_EVERY * 3)).count();
        assert_eq!(told, TOLD);
    }

    #[test]
    fn a_peer_that_answers_all_the_time_is_heard_of_seldom() {
        let (mut place, start) = (Place::default(), Instant::now());
        let taken = |place: &mut Place, now, of| (0..of).filter(|_| place.takes_answer(now)).count();
        assert_eq!(taken(&mut place, start, 100_000), ANSWERS as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!(taken(&mut place, later, 100_000), 100);
        assert_eq!(taken(&mut place, later + Duration::from_secs(3600), 100_000), ANSWERS as usize);
    }

    #[test]
    fn a_path_that_moves_with_every_packet_is_followed_seldom() {
        let (mut place, start) = at(plain(PLAIN));
        let mut moved = |now, of| {
            let ways = [plain(OTHER), plain(PLAIN)].into_iter().cycle().take(of);
            let moved = |path: &Path| matches!(place.follow(*path, Some(Mover::Nominate), now), Followed::Moved(_));
            ways.filter(moved).count()
        };
        assert_eq!(moved(start, 100_000), MOVES as usize);
        assert_eq!(moved(start + Duration::from_secs(1), 100_000), 5);
        assert_eq!(moved(start + Duration::from_secs(3600), 100_000), MOVES as usize);
    }
}
