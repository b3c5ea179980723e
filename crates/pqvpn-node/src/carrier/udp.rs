// SPDX-License-Identifier: MIT OR Apache-2.0
//! UDP port 443, beside the data plane's own sockets: each address that is heard there is a carried way, so that answers
//! leave by this port, and from the address that was asked.
//!
//! Sources can be forged, and anybody may begin. So somebody new costs an entry in a table of ours and no change of the
//! packet threads' tables; entries that nobody authenticated uses go in the order they came; and the number of a way is a
//! keyed hash of the addresses at its ends, so that who lost its entry in a flood goes on where it was with its next
//! first packet, and the proof of its address that the gate asks for in a flood (a Retry) holds. What a handshake may cost
//! is up to that gate, as on any other port.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use pqvpn_dataplane::{
    PlainPort, PortBatch,
    way::{CarrierGroup, GroupId, WayId},
};
use tokio::{io::unix::AsyncFd, sync::watch, time::sleep};

use super::{
    Place, Ways,
    ladder::Rung,
    ways::{GroupWays, Use},
};
use crate::clock;

/// The system's word for a datagram that is too long (`EMSGSIZE`).
const TOO_LONG: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();
/// The first packet of a link is padded to so much (RFC 9000 14.1).
const FIRST: usize = 1200;
/// Bits of its first byte: a long header.
const LONG_HEADER: u8 = 0xc0;
/// Addresses heard at a time: a flood of so many in a second leaves everybody a second for the first round trip.
const MAX_HEARD: usize = 8192;
/// Who is not authenticated yet goes after so long without a packet, who is after so long.
const FORGET_NEW: Duration = Duration::from_secs(15);
const FORGET: Duration = Duration::from_secs(180);
/// How often it is looked at.
const SWEEP: Duration = Duration::from_secs(10);

/// Opens the socket.
///
/// # Errors
/// The system refuses.
pub(super) fn listen(at: SocketAddr) -> io::Result<AsyncFd<PlainPort>> {
    #[expect(deprecated, reason = "the safe one; a port of ours keeps what its successor asks by `unsafe`")]
    AsyncFd::new(PlainPort::bind(at)?)
}

/// Who sent a datagram, and to which of our addresses: answers leave from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ends {
    from: SocketAddr,
    local: Option<IpAddr>,
}

#[derive(Debug)]
struct Heard {
    ends: Ends,
    /// The how manieth it was to come.
    number: u64,
    last: Instant,
}

/// Who was heard: pure, time is an argument.
struct Table {
    group: GroupId,
    key: RandomState,
    heard: HashMap<WayId, Heard>,
    came: u64,
    /// Those that may have to go, in the order they came: first who nobody was seen to use, then strangers.
    new: VecDeque<(WayId, u64)>,
    strangers: VecDeque<(WayId, u64)>,
}

/// What a datagram's way is, and whose it was before.
struct Found {
    way: WayId,
    is_new: bool,
    /// Has made room.
    over: Option<WayId>,
}

impl Table {
    fn new(group: GroupId) -> Self {
        let (key, heard) = (RandomState::new(), HashMap::new());
        Self { group, key, heard, came: 0, new: VecDeque::new(), strangers: VecDeque::new() }
    }

    /// The way of whoever sent a datagram: the one there is, or for the first packet of a link one more.
    fn way(&mut self, now: Instant, ends: Ends, datagram: &[u8], used_by: impl Fn(WayId) -> Use) -> Option<Found> {
        let way = self.group.way(self.key.hash_one(ends));
        if let Some(heard) = self.heard.get_mut(&way) {
            // Two of the same hash: the second waits until the first has gone.
            heard.last = now;
            return (heard.ends == ends).then_some(Found { way, is_new: false, over: None });
        }
        let is_first =
            datagram.len() >= FIRST && datagram.first().is_some_and(|byte| byte & LONG_HEADER == LONG_HEADER);
        let over = if is_first && self.heard.len() >= MAX_HEARD { Some(self.make_room(used_by)?) } else { None };
        if !is_first {
            return None;
        }
        self.came += 1;
        self.heard.insert(way, Heard { ends, number: self.came, last: now });
        self.new.push_back((way, self.came));
        Some(Found { way, is_new: true, over })
    }

    /// Somebody goes: the first to have come of those that nobody authenticated uses, or else of strangers.
    fn make_room(&mut self, used_by: impl Fn(WayId) -> Use) -> Option<WayId> {
        while let Some((way, number)) = self.new.pop_front() {
            match self.number(way).filter(|is| *is == number).map(|_| used_by(way)) {
                Some(Use::Nobody) => return self.heard.remove(&way).map(|_| way),
                Some(Use::Stranger) => self.strangers.push_back((way, number)),
                Some(Use::Peer) | None => {}
            }
        }
        while let Some((way, number)) = self.strangers.pop_front() {
            if self.number(way) == Some(number) && used_by(way) < Use::Peer {
                return self.heard.remove(&way).map(|_| way);
            }
        }
        None
    }

    fn number(&self, way: WayId) -> Option<u64> {
        self.heard.get(&way).map(|heard| heard.number)
    }

    fn ends(&self, way: WayId) -> Option<Ends> {
        self.heard.get(&way).map(|heard| heard.ends)
    }

    /// Those who have fallen silent go; `uses` says who uses the others.
    fn sweep(&mut self, now: Instant, uses: &HashMap<WayId, Use>) -> Vec<WayId> {
        let used_by = |way: &WayId| uses.get(way).copied().unwrap_or(Use::Nobody);
        let is_over = |way: &WayId, heard: &mut Heard| {
            let lasts = if used_by(way) > Use::Nobody { FORGET } else { FORGET_NEW };
            now.saturating_duration_since(heard.last) >= lasts
        };
        let over: Vec<WayId> = self.heard.extract_if(is_over).map(|(way, _)| way).collect();
        // Links end, and others begin: each is in the queue where it belongs by now, in the order they came.
        let mut all: Vec<(WayId, u64)> = self.heard.iter().map(|(way, heard)| (*way, heard.number)).collect();
        all.sort_unstable_by_key(|(_, number)| *number);
        let of = |by| all.iter().filter(|(way, _)| used_by(way) == by).copied().collect();
        (self.new, self.strangers) = (of(Use::Nobody), of(Use::Stranger));
        over
    }
}

/// Sends what leaves the ways.
struct Port {
    /// Not held: a table of the packet threads that is out of use must not keep the port.
    socket: Weak<AsyncFd<PlainPort>>,
    table: Mutex<Table>,
}

impl Port {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is there comes in by the ways it belongs to.
    fn receive(&self, socket: &PlainPort, batch: &mut PortBatch, ways: &GroupWays) -> io::Result<()> {
        let now = clock::now();
        socket.receive(batch, ways.tunnel(), |from, local, datagrams| {
            let Some(first) = datagrams.first() else { return };
            let found = self.table().way(now, Ends { from, local }, first, |way| ways.used_by(now, way));
            let Some(Found { way, is_new, over }) = found else { return };
            over.inspect(|over| ways.forget(*over));
            if is_new {
                ways.note(way, Place { rung: Rung::Quic, at: from });
            }
            ways.inject(way, datagrams);
        })
    }
}

impl CarrierGroup for Port {
    fn send(&self, way: WayId, datagram: &[u8]) -> bool {
        let Some(Ends { from, local }) = self.table().ends(way) else { return false };
        let Some(socket) = self.socket.upgrade() else { return false };
        // A refusal of the network (ICMP) is for whoever sends next and says nothing of this datagram; one for its length does.
        match socket.get_ref().send(from, local, datagram) {
            Ok(()) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock && error.raw_os_error() != Some(TOO_LONG),
        }
    }
}

/// Takes datagrams until the server stops.
pub(super) async fn receive_all(socket: AsyncFd<PlainPort>, ways: Arc<Ways>, mut stop: watch::Receiver<()>) {
    let (socket, group) = (Arc::new(socket), super::ways::group());
    let port = Arc::new(Port { socket: Arc::downgrade(&socket), table: Mutex::new(Table::new(group)) });
    let ways = ways.open_group(group, Arc::clone(&port) as Arc<dyn CarrierGroup>);
    let receive = async {
        let mut batch = PortBatch::default();
        while let Ok(mut ready) = socket.readable().await {
            // What a host we sent to says by ICMP is an error here, and no reason to stop.
            if let Ok(Err(error)) = ready.try_io(|socket| port.receive(socket.get_ref(), &mut batch, &ways)) {
                tracing::trace!(%error, "receiving on the carriers' port");
            }
            tokio::task::consume_budget().await;
        }
    };
    let sweep = async {
        loop {
            sleep(SWEEP).await;
            let now = clock::now();
            ways.look_at_links(now);
            // Not under the lock, which packet threads take.
            let all: Vec<WayId> = port.table().heard.keys().copied().collect();
            let uses = all.into_iter().map(|way| (way, ways.used_by(now, way))).collect();
            let over = port.table().sweep(now, &uses);
            over.into_iter().for_each(|way| ways.forget(way));
        }
    };
    tokio::select! {
        () = receive => {}
        () = sweep => {}
        _ = stop.changed() => {}
    }
}

#[cfg(test)]
mod tests;
