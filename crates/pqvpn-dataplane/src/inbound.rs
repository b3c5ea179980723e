// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inbound thread: sockets -> QUIC or ours -> open in place -> source check -> merge -> TUN.

mod deliver;
mod run;

use std::{io, sync::Arc, time::Instant};

use arc_swap::cache::Cache;
use pqvpn_packet::header::{is_tunnel, receiver_of};

use self::{deliver::Deliver, run::RxRun};
use crate::{
    clock,
    event::Event,
    plane::Shared,
    stats::{DropCounters, DropReason},
    sys::{MAX_WAITED, Waited, wait},
    table::Tables,
    tun::TunWriter,
    udp::{RecvBatch, RecvMeta, SLOT_LEN},
};

/// The bit every QUIC packet has set (RFC 9000 17.2, 17.3; greasing is off on both ends).
const QUIC_BIT: u8 = 0x40;
/// The bit that tells QUIC's long headers, which name their version, from short ones (RFC 8999 5).
const LONG_HEADER_BIT: u8 = 0x80;
/// Shortest QUIC packet that holds a whole header protection sample: first byte, 4 bytes, 16 bytes (RFC 9001 §5.4.2).
const MIN_QUIC_LEN: usize = 21;
/// QUIC version 1 (RFC 9000), the only one the guest speaks.
const QUIC_V1: [u8; 4] = [0, 0, 0, 1];
/// First bytes of STUN messages (RFC 7983).
const STUN_MAX: u8 = 3;

/// One inbound thread.
pub(crate) struct Inbound {
    shared: Arc<Shared>,
    queue: usize,
    drops: Arc<DropCounters>,
    /// Indices of the sockets this thread reads.
    sockets: Vec<usize>,
    deliver: Deliver,
}

impl Inbound {
    pub(crate) fn new(shared: Arc<Shared>, queue: usize, writer: Box<dyn TunWriter>) -> Self {
        let drops = shared.inbound_drops(queue);
        let queues = shared.inbound_wakes.len();
        let sockets = (0..shared.sockets.len()).filter(|i| i % queues == queue).take(MAX_WAITED - 1).collect();
        Self { deliver: Deliver::new(writer, Arc::clone(&drops)), drops, sockets, queue, shared }
    }

    /// Runs until the data plane stops or a socket fails.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.serve() {
            self.shared.emit(Event::Failed { what: "udp", error });
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut tables = Cache::new(&shared.tables);
        let mut batch = RecvBatch::new();
        let wake = &shared.inbound_wakes[self.queue];
        let sockets = self.sockets.iter().map(|&i| Waited::readable(shared.sockets.fd(i)));
        let mut waited: Vec<_> = std::iter::once(Waited::readable(wake.fd())).chain(sockets).collect();
        while !shared.stopping() {
            for at in 0..self.sockets.len() {
                if waited[at + 1].ready && receive(&mut batch, &shared, self.sockets[at])? > 0 {
                    self.take(&mut batch, tables.load());
                }
            }
            // Asked for every batch: under load it returns at once, and idle no socket is tried in vain on the way.
            wait(&mut waited, -1)?;
            if waited[0].ready {
                wake.clear();
            }
        }
        Ok(())
    }

    /// Deals with everything one receive call brought.
    fn take(&mut self, batch: &mut RecvBatch, tables: &Tables) {
        let now = clock::now();
        let mut run = None;
        for i in 0..crate::udp::sys::RECV_SLOTS {
            let Some(meta) = batch.meta(i) else { break };
            let storage = batch.storage();
            if meta.truncated {
                self.drops.count(DropReason::Truncated);
                continue;
            }
            self.message(&mut run, storage, i * SLOT_LEN, &meta, tables, now);
            if self.deliver.is_due() {
                self.deliver.flush(storage);
            }
        }
        self.end_run(&mut run, now);
        self.deliver.flush(batch.storage());
    }

    /// Takes one message apart: the kernel glues datagrams of one size and sender together, whoever they are for.
    fn message<'t>(
        &mut self,
        run: &mut Option<RxRun<'t>>,
        storage: &mut [u8],
        start: usize,
        meta: &RecvMeta,
        tables: &'t Tables,
        now: Instant,
    ) {
        if meta.len == 0 {
            return self.drops.count(DropReason::Short);
        }
        let stride = if meta.stride == 0 { meta.len } else { meta.stride };
        for offset in (0..meta.len).step_by(stride) {
            let range = start + offset..start + meta.len.min(offset + stride);
            let first = storage[range.start];
            if is_tunnel(first) {
                self.tunnel(run, storage, range, meta, tables, now);
            } else if first & QUIC_BIT != 0 {
                if is_no_quic(&storage[range.clone()]) {
                    self.drops.count(DropReason::Garbage);
                } else if !self.shared.ring.push(&storage[range], meta.addr, meta.local, meta.ecn) {
                    self.drops.count(DropReason::GuestRingFull);
                }
            } else if first <= STUN_MAX {
                self.drops.count(DropReason::Stun);
            } else {
                self.drops.count(DropReason::Garbage);
            }
        }
    }

    /// Opens one tunnel packet and hands on what is in it.
    fn tunnel<'t>(
        &mut self,
        run: &mut Option<RxRun<'t>>,
        storage: &mut [u8],
        range: std::ops::Range<usize>,
        meta: &RecvMeta,
        tables: &'t Tables,
        now: Instant,
    ) {
        let Some(index) = receiver_of(&storage[range.clone()]) else {
            return self.drops.count(DropReason::Short);
        };
        if run.as_ref().is_none_or(|run| run.index != index) {
            self.end_run(run, now);
            let Some(session) = tables.sessions.get(&index) else {
                return self.drops.count(DropReason::NoSession);
            };
            *run = Some(RxRun::begin(session, index));
        }
        if let Some(run) = run {
            run.open(storage, range, meta, tables, now, &mut self.deliver);
        }
    }

    fn end_run(&self, run: &mut Option<RxRun<'_>>, now: Instant) {
        if let Some(run) = run.take() {
            run.end(&self.shared, &self.drops, now);
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
fn receive(batch: &mut RecvBatch, shared: &Shared, socket: usize) -> io::Result<usize> {
    match batch.receive(shared.sockets.fd(socket)) {
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
