// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets added while the data plane runs, to try many local ports at once, and which destinations leave by them.
//!
//! A destination is pinned to the socket on which something authenticated last came from it: a NAT on the way lets
//! nothing else through. Data, probes and QUIC to it leave by that socket from then on.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::Socket;
use crate::table::lock;

/// Most sockets that may be added.
pub(crate) const MAX_EXTRA: usize = 512;
/// Most destinations pinned to them.
pub(crate) const MAX_PINS: usize = 1024;

/// The number of a socket that was added while the data plane ran; none is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub(crate) u64);

#[derive(Debug, Clone, Default)]
struct Extra {
    sockets: BTreeMap<SocketId, Arc<Socket>>,
    pins: HashMap<SocketAddr, SocketId>,
}

/// The added sockets: a snapshot for the packet threads, replaced as a whole.
#[derive(Debug, Default)]
pub(crate) struct ExtraSockets {
    extra: ArcSwap<Extra>,
    changing: Mutex<u64>,
    /// Counts changes of the list of sockets.
    turn: AtomicU64,
    /// Lets the packet path see "nothing pinned" by one look.
    pinned: AtomicBool,
}

impl ExtraSockets {
    /// Adds a bound socket.
    pub(crate) fn add(&self, socket: UdpSocket) -> io::Result<SocketId> {
        let socket = Arc::new(Socket::open(socket, false)?);
        let mut next = lock(&self.changing);
        let mut extra = Extra::clone(&self.extra.load());
        if extra.sockets.len() >= MAX_EXTRA {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many sockets were added"));
        }
        let id = SocketId(*next);
        *next += 1;
        extra.sockets.insert(id, socket);
        self.publish(extra);
        self.turn.fetch_add(1, Ordering::Release);
        Ok(id)
    }

    /// Removes a socket with what is pinned to it; `false` when there is none of that number.
    pub(crate) fn remove(&self, id: SocketId) -> bool {
        let _changing = lock(&self.changing);
        let mut extra = Extra::clone(&self.extra.load());
        if extra.sockets.remove(&id).is_none() {
            return false;
        }
        extra.pins.retain(|_, socket| *socket != id);
        self.publish(extra);
        self.turn.fetch_add(1, Ordering::Release);
        true
    }

    pub(crate) fn get(&self, id: SocketId) -> Option<Arc<Socket>> {
        self.extra.load().sockets.get(&id).cloned()
    }

    /// All of them, and the turn they belong to.
    pub(crate) fn list(&self) -> (u64, Vec<(SocketId, Arc<Socket>)>) {
        let turn = self.turn();
        (turn, self.extra.load().sockets.iter().map(|(&id, socket)| (id, Arc::clone(socket))).collect())
    }

    /// Changes whenever the list does.
    pub(crate) fn turn(&self) -> u64 {
        self.turn.load(Ordering::Acquire)
    }

    /// Notes that something authenticated came from `remote` on this socket (`None`: on one the data plane began with).
    pub(crate) fn pin(&self, remote: SocketAddr, socket: Option<SocketId>) {
        let full = || self.extra.load().pins.len() >= MAX_PINS;
        let before = self.pin_of(remote);
        if before == socket || before.is_none() && full() {
            return;
        }
        let _changing = lock(&self.changing);
        let mut extra = Extra::clone(&self.extra.load());
        match socket.filter(|id| extra.sockets.contains_key(id)) {
            None => drop(extra.pins.remove(&remote)),
            Some(_) if extra.pins.len() >= MAX_PINS && !extra.pins.contains_key(&remote) => return,
            Some(id) => drop(extra.pins.insert(remote, id)),
        }
        self.publish(extra);
    }

    /// The socket a destination is pinned to.
    pub(crate) fn pin_of(&self, remote: SocketAddr) -> Option<SocketId> {
        if !self.any_pinned() {
            return None;
        }
        self.extra.load().pins.get(&remote).copied()
    }

    pub(super) fn pinned_to(&self, dst: SocketAddr) -> Option<Arc<Socket>> {
        if !self.any_pinned() {
            return None;
        }
        let extra = self.extra.load();
        let id = extra.pins.get(&super::canonical(dst))?;
        extra.sockets.get(id).cloned()
    }

    pub(super) fn any_pinned(&self) -> bool {
        self.pinned.load(Ordering::Acquire)
    }

    fn publish(&self, extra: Extra) {
        let any = !extra.pins.is_empty();
        self.extra.store(Arc::new(extra));
        self.pinned.store(any, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(n: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], u16::try_from(n).unwrap()))
    }

    fn added(extra: &ExtraSockets) -> SocketId {
        extra.add(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap()
    }

    #[test]
    fn a_destination_is_pinned_to_one_socket_at_a_time() {
        let extra = ExtraSockets::default();
        let (a, b) = (added(&extra), added(&extra));
        assert!(extra.pinned_to(remote(1)).is_none());
        extra.pin(remote(1), Some(a));
        extra.pin(remote(1), Some(b));
        assert_eq!((extra.pin_of(remote(1)), extra.pin_of(remote(2))), (Some(b), None));
        let mapped = "[::ffff:192.0.2.1]:1".parse().unwrap();
        assert!(extra.pinned_to(mapped).is_some(), "whatever form QUIC gives the address");
        extra.pin(remote(1), None);
        assert!(extra.pin_of(remote(1)).is_none() && !extra.any_pinned());
    }

    #[test]
    fn a_socket_that_is_gone_is_nobodys() {
        let extra = ExtraSockets::default();
        let (a, b) = (added(&extra), added(&extra));
        extra.pin(remote(1), Some(a));
        extra.pin(remote(2), Some(b));
        assert!(extra.remove(a));
        extra.pin(remote(3), Some(a));
        assert_eq!([1, 2, 3].map(|n| extra.pin_of(remote(n))), [None, Some(b), None]);
        assert!(added(&extra) > b, "no number is used twice");
    }

    #[test]
    fn the_number_of_pins_is_bounded() {
        let extra = ExtraSockets::default();
        let (a, b) = (added(&extra), added(&extra));
        (0..MAX_PINS + 10).for_each(|n| extra.pin(remote(n), Some(a)));
        assert_eq!(extra.extra.load().pins.len(), MAX_PINS);
        extra.pin(remote(0), Some(b));
        assert_eq!(extra.pin_of(remote(0)), Some(b), "one that is there may change");
    }
}
