// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port guessing in the state task: one peer at a time, its sockets, and what is kept of them.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use pqvpn_dataplane::{PeerSlot, SocketId};

use super::{State, paths::OPENER_HOPS};
use crate::{
    entropy,
    path::{GUESS_SOCKETS, GUESS_SOCKETS_LAST},
};

/// However many peers name an address, its ports are guessed at most once in this time, and this many addresses at most.
const TARGET_RESTS: Duration = Duration::from_secs(60);
const MAX_TARGETS: usize = 6;
/// How long a socket stays open that its path has left: a path that fails for a moment comes back to it, and cannot to
/// another.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Port guessing of this node.
#[derive(Debug, Default)]
pub(crate) struct Guessing {
    /// Whose turn it is, and until when.
    turn: Option<(PeerSlot, Instant)>,
    /// Addresses of which ports were guessed of late, oldest first.
    targets: VecDeque<(IpAddr, Instant)>,
    sockets: Vec<SocketId>,
    /// Sockets that paths lead over.
    kept: Vec<Kept>,
    /// Guesses begun.
    pub(crate) begun: u64,
}

/// A socket that the path of a peer leads over, or did until a moment ago.
#[derive(Debug)]
struct Kept<S = SocketId> {
    slot: PeerSlot,
    at: SocketAddr,
    socket: S,
    /// Since when the path leads elsewhere.
    left: Option<Instant>,
}

impl<S> Kept<S> {
    /// Whether the socket is of use, now that the peer's path is this one.
    fn stays(&mut self, now: Instant, path: Option<SocketAddr>) -> bool {
        let left = *self.left.get_or_insert(now);
        if path == Some(self.at) {
            self.left = None;
        }
        self.left.is_none() || now < left + KEPT_FOR
    }

    fn ends(&self) -> Option<Instant> {
        self.left.map(|left| left + KEPT_FOR)
    }
}

impl Guessing {
    /// When sockets have to be closed.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let turn = self.turn.map(|(_, until)| until);
        turn.into_iter().chain(self.kept.iter().filter_map(Kept::ends)).min()
    }

    /// Gives the turn to a peer unless another has it.
    fn take_turn(&mut self, now: Instant, slot: PeerSlot) -> bool {
        let is_free = self.turn.is_none_or(|(_, until)| now >= until);
        if is_free {
            self.turn = Some((slot, now + GUESS_SOCKETS_LAST));
        }
        is_free
    }

    /// Notes that ports of an address are to be guessed; `false` if they were, or too many others, a moment ago.
    fn take_target(&mut self, now: Instant, target: IpAddr) -> bool {
        while self.targets.front().is_some_and(|&(_, at)| now >= at + TARGET_RESTS) {
            self.targets.pop_front();
        }
        let is_free = self.targets.len() < MAX_TARGETS && self.targets.iter().all(|&(known, _)| known != target);
        if is_free {
            self.targets.push_back((target, now));
        }
        is_free
    }
}

impl State {
    /// Guesses ports if that is allowed, makes sense, and no other guess is under way.
    pub(super) fn guess(&mut self, now: Instant, slot: PeerSlot) {
        self.end_guess_in_time(now);
        let varies = self.reflexive.varies(now);
        if !self.config.node.port_guessing || !self.is_translated(now) || self.guessing.turn.is_some() {
            return;
        }
        let Some(peer) = self.peers.get_mut(slot) else { return };
        // Members that conspire, or one who lies about where it sees others, shall not make us flood a bystander.
        if peer.paths.aims_at().is_none_or(|target| !self.guessing.take_target(now, target)) {
            return;
        }
        if peer.paths.guess(now, varies, entropy::u64()) && self.guessing.take_turn(now, slot) {
            self.guessing.begun += 1;
            tracing::debug!(peer = %peer.label(), guesses = self.guessing.begun, "guessing ports");
        }
    }

    /// Opens the sockets of a guess, each towards the peer.
    pub(super) fn open_sockets(&mut self, now: Instant, slot: PeerSlot, to: SocketAddr) {
        if self.guessing.turn.is_none_or(|(turn, until)| turn != slot || now >= until) {
            return;
        }
        while self.guessing.sockets.len() < GUESS_SOCKETS {
            let added = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| self.control.add_socket(socket));
            let socket = match added {
                Ok(socket) => socket,
                // Fewer sockets hit less often.
                Err(error) => return tracing::debug!(%error, open = self.guessing.sockets.len(), "no more sockets"),
            };
            self.guessing.sockets.push(socket);
            if let Err(error) = self.control.send_opener(slot, Some(socket), to, OPENER_HOPS) {
                tracing::trace!(%error, %to, "opener not sent");
            }
        }
    }

    /// Checks an address from all sockets that are open.
    pub(super) fn check_from_all(&self, slot: PeerSlot, id: u64, to: SocketAddr) {
        if self.guessing.turn.is_none_or(|(turn, _)| turn != slot) {
            return;
        }
        for &socket in &self.guessing.sockets {
            if let Err(error) = self.control.send_check_from(socket, slot, id, to) {
                tracing::trace!(%error, %to, "check not sent");
            }
        }
    }

    /// Ends the guess: closes its sockets but those that the path leads over, ours and the one the peer chose.
    fn close_sockets(&mut self, slot: PeerSlot) {
        self.guessing.turn = None;
        let path = self.control.path(slot);
        let used = [path.and_then(|at| self.control.socket_towards(at)), self.control.path_socket(slot)];
        for socket in std::mem::take(&mut self.guessing.sockets) {
            match path {
                Some(at) if used.contains(&Some(socket)) => {
                    self.guessing.kept.push(Kept { slot, at, socket, left: None });
                }
                _ => drop(self.control.remove_socket(socket)),
            }
        }
    }

    /// Closes what is over, and what no path leads over any more.
    pub(super) fn end_guess_in_time(&mut self, now: Instant) {
        if let Some((slot, _)) = self.guessing.turn.filter(|(_, until)| now >= *until) {
            self.close_sockets(slot);
        }
        let control = &self.control;
        self.guessing.kept.retain_mut(|kept| {
            let stays = kept.stays(now, control.path(kept.slot));
            if !stays {
                control.remove_socket(kept.socket);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_at_a_time_has_its_ports_guessed() {
        let (mut guessing, now) = (Guessing::default(), Instant::now());
        assert!(guessing.take_turn(now, 1));
        assert!(!guessing.take_turn(now, 2) && !guessing.take_turn(now + GUESS_SOCKETS_LAST / 2, 1));
        assert!(guessing.take_turn(now + GUESS_SOCKETS_LAST, 2));
    }

    #[test]
    fn the_socket_of_a_guessed_path_outlasts_a_moment_elsewhere() {
        let (start, at) = (Instant::now(), SocketAddr::from(([203, 0, 113, 1], 41641)));
        let elsewhere = Some(SocketAddr::from(([203, 0, 113, 2], 2)));
        let mut kept = Kept { slot: 1, at, socket: (), left: None };
        let later = |seconds| start + Duration::from_secs(seconds);
        assert!(
            kept.stays(later(0), Some(at)) && kept.stays(later(100), elsewhere) && kept.stays(later(102), Some(at))
        );
        assert!(kept.stays(later(200), elsewhere) && kept.stays(later(259), elsewhere), "its time begins anew");
        assert!(!kept.stays(later(260), elsewhere));
        let mut gone = Kept { slot: 1, at, socket: (), left: None };
        assert!(gone.stays(start, None) && !gone.stays(later(60), None), "nor does it stay for a peer that is gone");
    }

    #[test]
    fn an_address_is_a_target_once_a_minute_whoever_names_it_and_few_are() {
        let (mut guessing, now) = (Guessing::default(), Instant::now());
        let target = |last| IpAddr::from([203, 0, 113, last]);
        assert!(guessing.take_target(now, target(1)));
        assert!(!guessing.take_target(now + TARGET_RESTS / 2, target(1)), "by another peer");
        let taken = (2..100).filter(|&last| guessing.take_target(now + TARGET_RESTS / 2, target(last))).count();
        assert_eq!(taken, MAX_TARGETS - 1);
        assert!(guessing.take_target(now + TARGET_RESTS, target(1)));
        assert!(!guessing.take_target(now + TARGET_RESTS, target(99)));
    }
}
