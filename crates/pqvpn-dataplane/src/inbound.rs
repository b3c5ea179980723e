// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inbound direction: sockets -> QUIC or ours -> open in place -> source check -> merge -> TUN, or on to another node.

mod deliver;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod relay;
mod run;
mod shares;

use std::{
    io,
    net::IpAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_packet::{
    header::{is_tunnel, receiver_of},
    piece::{Piece, is_piece},
    relay::{Channel, RELAY_LEN, is_relay},
};

use self::{deliver::Deliver, relay::Onward, run::RxRun, shares::Heavy};
use crate::{
    backlog::{Backlog, Excess},
    clock,
    inject::Injected,
    narrow::{LONG_HEADER_BIT, LONGEST},
    path::Path,
    plane::Shared,
    reassembly::{Bounds, Reassembly},
    stats::{DropCounters, DropReason},
    table::{Tables, View},
    tun::TunWriter,
    udp::{RecvBatch, RecvMeta, SLOT_LEN, Socket, extra::SocketId},
    way::{Owner, WayId},
};

/// The bit every QUIC packet has set (RFC 9000 17.2, 17.3; greasing is off on both ends).
const QUIC_BIT: u8 = 0x40;
/// Shortest QUIC packet that holds a whole header protection sample: first byte, 4 bytes, 16 bytes (RFC 9001 §5.4.2).
const MIN_QUIC_LEN: usize = 21;
/// QUIC version 1 (RFC 9000), the only one the guest speaks.
const QUIC_V1: [u8; 4] = [0, 0, 0, 1];
/// Datagrams in pieces that wait for the rest: anybody may send some, so that few are kept and of each address fewer.
const PIECES: Bounds = Bounds { wholes: 128, bytes: 128 * LONGEST, longest: LONGEST, of_one: 8 };
/// What a datagram adds to the load besides its bytes, in bytes.
const LOAD_OF_ONE: usize = 100;
/// Packets of one session after which another thread may have it.
const MOST_IN_A_ROW: u64 = 64;
/// First bytes of STUN messages (RFC 7983).
const STUN_MAX: u8 = 3;

/// The inbound direction of a queue.
pub(crate) struct Inbound {
    shared: Arc<Shared>,
    queue: usize,
    drops: Arc<DropCounters>,
    /// Indices of the sockets of the beginning that this queue reads.
    fixed: Vec<usize>,
    deliver: Deliver,
    onward: Onward,
    courtesy: Courtesy,
    /// Of strangers, and of addresses that [`Narrow::is_vouched`](crate::narrow::Narrow::is_vouched) knows: who sends under
    /// many addresses crowds out the former only.
    pieces: [Reassembly<IpAddr>; 2],
}

/// Giving way to those who read what was delivered. Whoever else waits for the processor may keep it for long, and everybody's
/// packets with it.
#[derive(Debug, Default)]
struct Courtesy {
    not_before: Option<Instant>,
}

impl Courtesy {
    /// A process that was stopped for an hour gives way again before another one.
    const LONGEST: Duration = Duration::from_millis(10);

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    /// The processor was given away at `began`; nobody is given way now for as long as it was away.
    fn gave_way(&mut self, began: Instant, now: Instant) {
        self.not_before = Some(now + now.saturating_duration_since(began).min(Self::LONGEST));
    }
}

/// A socket that is read.
pub(crate) struct Source {
    /// Its number, if it was added later.
    id: Option<SocketId>,
    pub(crate) socket: Arc<Socket>,
    backlog: Backlog,
}

impl Source {
    fn new(id: Option<SocketId>, socket: Arc<Socket>) -> Self {
        Self { id, socket, backlog: Backlog::default() }
    }
}

/// The sockets of a queue at one time.
pub(crate) struct Sources {
    turn: u64,
    pub(crate) list: Vec<Source>,
}

/// What goes through the treatment of one batch.
struct Pass<'t> {
    tables: &'t Tables,
    now: Instant,
    /// The socket it came on, if that was added later.
    socket: Option<SocketId>,
    run: Option<RxRun<'t>>,
}

impl Inbound {
    pub(crate) fn new(shared: Arc<Shared>, queue: usize, writer: Box<dyn TunWriter>) -> Self {
        let drops = shared.inbound_drops(queue);
        let queues = shared.inbound_wakes.len();
        let fixed = (0..shared.underlay.sockets.fixed().len()).filter(|i| i % queues == queue).collect();
        let onward = Onward::new(Arc::clone(&shared), queue, Arc::clone(&drops));
        let pieces = [(); 2].map(|()| Reassembly::new(PIECES));
        Self {
            deliver: Deliver::new(writer, Arc::clone(&drops)),
            onward,
            courtesy: Courtesy::default(),
            drops,
            fixed,
            queue,
            shared,
            pieces,
        }
    }

    /// The sockets of this queue as they are now. Those added later are the first queue's.
    pub(crate) fn sources(&self) -> Sources {
        let sockets = &self.shared.underlay.sockets;
        let fixed = self.fixed.iter().map(|&i| Source::new(None, Arc::clone(&sockets.fixed()[i])));
        let (turn, extra) = if self.queue == 0 { sockets.extra.list() } else { Default::default() };
        let extra = extra.into_iter().map(|(id, socket)| Source::new(Some(id), socket));
        Sources { turn, list: fixed.chain(extra).collect() }
    }

    /// Whether sockets came or went since.
    pub(crate) fn is_outdated(&self, sources: &Sources) -> bool {
        self.queue == 0 && self.shared.underlay.sockets.extra.turn() != sources.turn
    }

    /// Deals with what a socket has received, some of it if that is much; gives what it weighs (bytes, and some for each
    /// datagram), 0 when there is nothing.
    pub(crate) fn step(
        &mut self,
        batch: &mut RecvBatch,
        source: &mut Source,
        view: &mut View<'_>,
    ) -> io::Result<usize> {
        if self.receive(batch, source)? == 0 {
            return Ok(0);
        }
        let now = clock::now();
        let excess = source.backlog.excess(&source.socket, batch, now);
        let datagrams = self.take(batch, view.load(), source, excess, now);
        batch.note_datagrams(datagrams);
        Ok(batch.bytes() + LOAD_OF_ONE * datagrams)
    }

    /// Deals with what others left for this queue; gives its bytes.
    pub(crate) fn woken(&mut self, injected: &mut Injected, view: &mut View<'_>) -> usize {
        let shared = Arc::clone(&self.shared);
        shared.injected[self.queue].take(injected);
        self.take_injected(injected, view.load());
        for packet in shared.notices[self.queue].take() {
            self.deliver.write_local(&packet);
        }
        injected.bytes.len()
    }

    /// Receives from one socket. One that was added and fails is removed, and nothing else ends with it.
    fn receive(&self, batch: &mut RecvBatch, source: &Source) -> io::Result<usize> {
        receive(batch, &source.socket).or_else(|error| match source.id {
            None => Err(error),
            Some(id) => {
                tracing::debug!(%error, "an added socket failed");
                self.shared.underlay.sockets.extra.remove(id);
                Ok(0)
            }
        })
    }

    /// Deals with everything one receive call brought, but for the `excess` of those who send the most; gives the datagrams.
    fn take(
        &mut self,
        batch: &mut RecvBatch,
        tables: &Tables,
        source: &mut Source,
        mut excess: Excess,
        now: Instant,
    ) -> usize {
        let heavy = if excess.is_none() { Heavy::default() } else { Heavy::of(batch, tables) };
        let mut pass = Pass { tables, now, socket: source.id, run: None };
        let mut datagrams = 0;
        for i in 0..crate::udp::sys::RECV_SLOTS {
            let Some(meta) = batch.meta(i) else { break };
            datagrams += meta.datagrams();
            if heavy.contains(i) && source.backlog.gives_up(excess) {
                self.drops.count_many(DropReason::QueueDelay, meta.datagrams() as u64);
                continue;
            }
            let storage = batch.storage();
            if meta.truncated {
                self.drops.count(DropReason::Truncated);
                continue;
            }
            if WayId::of(meta.addr).is_some() {
                // No host has such an address; whoever forged it would be taken for a way.
                self.drops.count(DropReason::RelaySource);
                continue;
            }
            if meta.interface != 0 && meta.interface == tables.tunnel {
                self.drops.count(DropReason::Loop);
                continue;
            }
            self.deliver.shed(heavy.contains(i) && excess.one);
            self.message(&mut pass, storage, i * SLOT_LEN, &meta);
            excess.one = self.deliver.shed(false) || excess.one && !heavy.contains(i);
            let more = batch.meta(i + 1).is_some();
            self.deliver_early(&mut pass, batch.storage(), more);
        }
        self.end(pass, batch.storage());
        datagrams
    }

    /// Deals with what carriers received.
    fn take_injected(&mut self, injected: &mut Injected, tables: &Tables) {
        if injected.datagrams.is_empty() {
            return;
        }
        let mut pass = Pass { tables, now: clock::now(), socket: None, run: None };
        let storage = &mut injected.bytes[..];
        for (way, range) in &injected.datagrams {
            let len = range.len();
            let addr = way.address();
            let meta = RecvMeta { addr, local: None, len, stride: len, ecn: 0, truncated: false, interface: 0 };
            self.message(&mut pass, storage, range.start, &meta);
            self.deliver_early(&mut pass, storage, true);
        }
        self.end(pass, storage);
    }

    /// Delivers what waits if that is much. After the last of a batch nobody is given way: the socket is asked first.
    fn deliver_early(&mut self, pass: &mut Pass<'_>, storage: &mut [u8], more: bool) {
        if self.deliver.flush_early(storage) && more && self.courtesy.is_due(clock::now()) {
            // Who reads them may wait for this processor; nobody waits for the session meanwhile.
            self.end_run(pass);
            let began = clock::now();
            std::thread::yield_now();
            self.courtesy.gave_way(began, clock::now());
        }
    }

    /// Sends on and delivers what is left of a batch.
    fn end(&mut self, mut pass: Pass<'_>, storage: &mut [u8]) {
        self.end_run(&mut pass);
        self.onward.flush(storage, pass.now);
        self.deliver.flush(storage);
    }

    /// Takes one message apart: the kernel glues datagrams of one size and sender together, whoever they are for.
    fn message(&mut self, pass: &mut Pass<'_>, storage: &mut [u8], start: usize, meta: &RecvMeta) {
        if meta.len == 0 {
            return self.drops.count(DropReason::Short);
        }
        let stride = if meta.stride == 0 { meta.len } else { meta.stride };
        for offset in (0..meta.len).step_by(stride) {
            let range = start + offset..start + meta.len.min(offset + stride);
            let first = storage[range.start];
            if is_tunnel(first) {
                let path = Path { remote: meta.addr, local: meta.local, socket: pass.socket };
                self.tunnel(pass, storage, range, start + meta.len, path);
            } else if is_relay(first) {
                self.relayed(pass, storage, range, meta);
            } else if is_piece(first) {
                self.piece(&storage[range], meta, pass.now);
            } else {
                self.foreign(&storage[range], meta);
            }
        }
    }

    /// Deals with a datagram that is neither a tunnel packet nor a relay datagram.
    fn foreign(&self, datagram: &[u8], meta: &RecvMeta) {
        let first = datagram[0];
        if first & QUIC_BIT != 0 {
            if is_no_quic(datagram) {
                self.drops.count(DropReason::Garbage);
            } else {
                self.shared.underlay.narrow.on_whole(meta.addr, datagram);
                self.to_guest(datagram, meta);
            }
        } else if first <= STUN_MAX {
            self.drops.count(DropReason::Stun);
        } else {
            self.drops.count(DropReason::Garbage);
        }
    }

    fn to_guest(&self, datagram: &[u8], meta: &RecvMeta) {
        if !self.shared.ring.push(datagram, meta.addr, meta.local, meta.ecn) {
            self.drops.count(DropReason::GuestRingFull);
        }
    }

    /// Keeps a piece of a datagram; the guest gets the whole, if it may be one of its own.
    fn piece(&mut self, datagram: &[u8], meta: &RecvMeta, now: Instant) {
        let Ok((head, bytes)) = Piece::decode(datagram) else {
            return self.drops.count(DropReason::Garbage);
        };
        let id = u64::from(meta.addr.port()) << 16 | u64::from(head.id);
        let vouched = self.shared.underlay.narrow.is_vouched(meta.addr, now);
        let taken = self.pieces[usize::from(vouched)].take(meta.addr.ip(), id, head.place, bytes, now);
        self.drops.count_many(DropReason::Piece, taken.given_up);
        match taken.whole {
            Ok(None) => {}
            Ok(Some(whole)) if whole[0] & QUIC_BIT != 0 && !is_no_quic(&whole) => {
                self.shared.underlay.narrow.on_pieces(meta.addr, now);
                self.to_guest(&whole, meta);
            }
            Ok(Some(_)) | Err(_) => self.drops.count(DropReason::Piece),
        }
    }

    /// Opens one tunnel packet and hands on what is in it; `end`: where the last one of its length ends.
    fn tunnel(&mut self, pass: &mut Pass<'_>, storage: &mut [u8], range: Range<usize>, end: usize, path: Path) {
        let Some(index) = receiver_of(&storage[range.clone()]) else {
            return self.drops.count(DropReason::Short);
        };
        let most = if self.shared.inbound_wakes.len() > 1 { MOST_IN_A_ROW } else { u64::MAX };
        if pass.run.as_ref().is_none_or(|run| !run.goes_on(index, &path, most)) {
            self.end_run(pass);
            let Some(session) = pass.tables.sessions.get(&index) else {
                return self.drops.count(DropReason::NoSession);
            };
            pass.run = Some(RxRun::begin(session, index, path));
        }
        if let Some(run) = &mut pass.run {
            run.open(storage, range, end, pass.tables, pass.now, &mut self.deliver);
        }
    }

    /// Sends a relay datagram on, or deals with what is in it as if the way had brought it.
    fn relayed(&mut self, pass: &mut Pass<'_>, storage: &mut [u8], range: Range<usize>, meta: &RecvMeta) {
        let Some(channel) = Channel::of(&storage[range.clone()]) else {
            return self.drops.count(DropReason::Short);
        };
        let ways = &pass.tables.ways;
        let way = match ways.owner(channel) {
            None => return self.drops.count(DropReason::RelayUnknownChannel),
            Some(Owner::Forward(forward)) if forward.from == meta.addr => {
                return self.onward.push(forward, ways, storage, range, meta.local, pass.now);
            }
            Some(&Owner::Way { way, relay }) if relay == meta.addr => way,
            Some(Owner::Forward(_) | Owner::Way { .. }) => return self.drops.count(DropReason::RelaySource),
        };
        let inside = range.start + RELAY_LEN..range.end;
        let meta = RecvMeta { addr: way.address(), local: None, ..*meta };
        match storage[inside.start] {
            first if is_tunnel(first) => {
                let (end, path) = (inside.end, Path { remote: meta.addr, local: None, socket: None });
                self.tunnel(pass, storage, inside, end, path);
            }
            first if is_relay(first) => self.drops.count(DropReason::RelayNested),
            first if is_piece(first) => self.piece(&storage[inside], &meta, pass.now),
            _ => self.foreign(&storage[inside], &meta),
        }
    }

    fn end_run(&self, pass: &mut Pass<'_>) {
        if let Some(run) = pass.run.take() {
            run.end(&self.shared, &self.drops, pass.now);
        }
    }
}

/// Whether a datagram only looks like QUIC: too short to be opened (RFC 9001 §5.4.2), or of a version nobody here
/// speaks, which the guest would answer with a list of versions, to whoever sent it.
fn is_no_quic(datagram: &[u8]) -> bool {
    let is_long = datagram[0] & LONG_HEADER_BIT != 0;
    datagram.len() < MIN_QUIC_LEN || is_long && datagram.get(1..5) != Some(&QUIC_V1)
}

/// Receives from one socket; errors that datagrams of ours brought back (ICMP) are not the socket's.
fn receive(batch: &mut RecvBatch, socket: &Socket) -> io::Result<usize> {
    match batch.receive(socket.fd()) {
        Ok(count) => Ok(count),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(0),
            Some(
                libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EMSGSIZE
                | libc::ENOBUFS
                | libc::ENOMEM,
            ) => Ok(0),
            _ => Err(error),
        },
    }
}
