// SPDX-License-Identifier: MIT OR Apache-2.0
//! Start, shared state and end of the data plane.

use std::{
    fmt, io,
    net::UdpSocket,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use pqvpn_packet::{
    header::{HEADER_LEN, OVERHEAD, PacketKind},
    inner::{PROBE_LEN, Probe},
};
use thiserror::Error;

use crate::{
    clock, confine,
    control::Control,
    event::{Event, EventSink, SessionId},
    guest::{Guest, GuestRing},
    inbound::Inbound,
    inject::InjectQueue,
    loan::Loan,
    outbound::Outbound,
    size::Notices,
    stats::{DropCounters, Drops},
    sys::{self, Wake},
    table::{Peer, Registry, Session, Tables, lock},
    tun::{TunReader, TunWriter},
    udp::Sockets,
    underlay::Underlay,
    worker::{First, Second},
};

/// How often a session that refuses to seal is reported.
const REFUSED_EVERY: Duration = Duration::from_secs(1);

/// What the data plane works on.
pub struct DataPlaneConfig {
    /// The queues of the interface; each gets two threads.
    pub tun: Vec<(Box<dyn TunReader>, Box<dyn TunWriter>)>,
    /// Bound UDP sockets: one IPv4 or IPv6 socket, or one of each, or several of each (`SO_REUSEPORT`). They are
    /// dealt out to the queues in turn. The data plane sets their options.
    pub sockets: Vec<UdpSocket>,
    /// Largest inner packet in bytes; longer ones are dropped and counted.
    pub inner_mtu: u16,
}

/// Why the data plane did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataPlaneError {
    /// There is no TUN queue.
    #[error("the data plane needs at least one TUN queue")]
    NoTun,
    /// There is no socket.
    #[error("the data plane needs at least one UDP socket")]
    NoSocket,
    /// A socket does not take an option the data plane cannot do without.
    #[error("a UDP socket cannot be used")]
    Socket(#[source] io::Error),
    /// A thread or wake-up descriptor could not be made.
    #[error("a packet thread could not be started")]
    Thread(#[source] io::Error),
}

/// The running data plane. Dropping it is the same as [`shutdown`](Self::shutdown).
pub struct DataPlane {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl DataPlane {
    /// Starts the packet threads.
    ///
    /// # Errors
    /// [`DataPlaneError`]; no thread is left running then.
    pub fn start(config: DataPlaneConfig, events: EventSink) -> Result<Self, DataPlaneError> {
        if config.tun.is_empty() {
            return Err(DataPlaneError::NoTun);
        }
        let sockets = Sockets::new(config.sockets).map_err(DataPlaneError::Socket)?;
        if sockets.fixed().is_empty() {
            return Err(DataPlaneError::NoSocket);
        }
        let shared = Shared::new(config.tun.len(), sockets, config.inner_mtu, events);
        let shared = Arc::new(shared.map_err(DataPlaneError::Thread)?);
        // From here on, dropping `plane` stops and joins what was started.
        let mut plane = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        for (queue, (reader, writer)) in config.tun.into_iter().enumerate() {
            let outbound = Outbound::new(Arc::clone(&shared), queue, reader);
            let inbound = Inbound::new(Arc::clone(&shared), queue, writer);
            let first = First::new(Arc::clone(&shared), queue, inbound, outbound);
            plane.spawn(format!("pqvpn-net-{queue}"), move || first.run())?;
            let second = Second::new(Arc::clone(&shared), queue);
            plane.spawn(format!("pqvpn-out-{queue}"), move || second.run())?;
        }
        Ok(plane)
    }

    /// The control side's handle.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared))
    }

    /// The QUIC endpoint's socket.
    pub fn guest(&self) -> Guest {
        Guest::new(Arc::clone(&self.shared.ring), Arc::clone(&self.shared.underlay))
    }

    /// Wakes and joins every thread. Packets under way are lost.
    pub fn shutdown(self) {
        drop(self);
    }

    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), DataPlaneError> {
        let shared = Arc::clone(&self.shared);
        let watched = move || {
            sys::run_before_others();
            confine::this_thread();
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                // Nobody joins it before the end: without a word the node would go on without its packets.
                shared.emit(Event::Failed { what: "packet", error: io::Error::other("it panicked") });
            }
        };
        let thread = std::thread::Builder::new().name(name).spawn(watched).map_err(DataPlaneError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake_outbound();
        self.shared.wake_inbound();
        self.shared.loans.iter().for_each(Loan::wake);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a packet thread panicked");
            }
        }
        // What was on loan holds all of this too: sockets, device and keys would stay for ever.
        self.shared.loans.iter().for_each(Loan::end);
        self.shared.ring.close();
    }
}

impl fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataPlane").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

/// What all threads and handles share.
pub(crate) struct Shared {
    /// Zero of all [`Stamp`](crate::stats::Stamp)s.
    pub(crate) start: Instant,
    pub(crate) tables: ArcSwap<Tables>,
    registry: Mutex<Registry>,
    pub(crate) events: EventSink,
    pub(crate) underlay: Arc<Underlay>,
    pub(crate) ring: Arc<GuestRing>,
    /// One for the handles, then one per outbound and one per inbound direction of a queue.
    drops: Vec<Arc<DropCounters>>,
    pub(crate) outbound_wakes: Vec<Wake>,
    pub(crate) inbound_wakes: Vec<Wake>,
    /// One per pair of threads.
    pub(crate) loans: Vec<Loan<Box<Outbound>>>,
    /// One per queue.
    pub(crate) injected: Vec<InjectQueue>,
    /// One per queue.
    pub(crate) notices: Vec<Notices>,
    pub(crate) stop: AtomicBool,
    pub(crate) inner_mtu: usize,
}

impl Shared {
    pub(crate) fn new(queues: usize, sockets: Sockets, inner_mtu: u16, events: EventSink) -> io::Result<Self> {
        let wakes = || (0..queues).map(|_| Wake::new()).collect::<io::Result<Vec<_>>>();
        let drops: Vec<_> = (0..=2 * queues).map(|_| Arc::new(DropCounters::new())).collect();
        Ok(Self {
            start: clock::now(),
            tables: ArcSwap::default(),
            registry: Mutex::default(),
            events,
            ring: Arc::new(GuestRing::new(Arc::clone(&drops[0]))),
            underlay: Arc::new(Underlay::new(sockets)),
            drops,
            outbound_wakes: wakes()?,
            inbound_wakes: wakes()?,
            loans: (0..queues).map(|_| Loan::new()).collect::<io::Result<_>>()?,
            injected: (0..queues).map(|_| InjectQueue::default()).collect(),
            notices: (0..queues).map(|_| Notices::default()).collect(),
            stop: AtomicBool::new(false),
            inner_mtu: usize::from(inner_mtu),
        })
    }

    /// Changes the books and publishes a new snapshot.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Registry, &mut Tables) -> R) -> R {
        let mut registry = lock(&self.registry);
        let old = self.tables.load();
        let mut tables = Tables::clone(&old);
        let result = change(&mut registry, &mut tables);
        if !Arc::ptr_eq(&old.ways, &tables.ways) {
            self.underlay.publish(Arc::clone(&tables.ways));
        }
        self.tables.store(Arc::new(tables));
        result
    }

    /// Allows a session to send and has the outbound threads flush what waited. Also called by an inbound thread on
    /// the first valid packet: it proves that the peer has the keys.
    pub(crate) fn activate_tx(&self, id: SessionId) -> bool {
        let known = self.change(|registry, tables| {
            let Some(session) = registry.sessions.get(&id) else { return false };
            if !session.tx_active.swap(true, Ordering::AcqRel) {
                registry.publish_peer(tables, session.peer.slot);
                let sends = tables.peers.get(&session.peer.slot).and_then(|entry| entry.active.as_ref());
                let path = lock(&session.path_then).take();
                if let Some(path) = path.filter(|_| sends.is_some_and(|sends| sends.id == id)) {
                    lock(&session.peer.place).set(path, clock::now());
                }
            }
            true
        });
        // Always: a thread may be about to park a packet by the snapshot before.
        self.wake_outbound();
        known
    }

    pub(crate) fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        lock(&self.registry).sessions.get(&id).cloned()
    }

    /// Whether another session with the same peer has taken its place, so that this one must not move the peer's path.
    pub(crate) fn is_outdated(&self, session: &Session) -> bool {
        if session.retired.load(Ordering::Acquire) {
            return true;
        }
        let tables = self.tables.load();
        let active = tables.peers.get(&session.peer.slot).and_then(|entry| entry.active.as_ref());
        active.is_some_and(|active| active.order > session.order)
    }

    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.registry).sessions.values().cloned().collect()
    }

    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        lock(&self.registry).peers.values().cloned().collect()
    }

    /// Seals a probe or its answer, padded to `len` bytes; `None` when the session refuses, which is reported.
    pub(crate) fn seal_probe(&self, session: &Session, probe: Probe, len: usize, now: Instant) -> Option<Vec<u8>> {
        self.seal_word(session, probe.encode(), len, now)
    }

    /// Seals a word of ours, padded to `len` bytes; `None` when the session refuses, which is reported.
    pub(crate) fn seal_word(
        &self,
        session: &Session,
        word: [u8; PROBE_LEN],
        len: usize,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let mut datagram = vec![0; len.max(PROBE_LEN + OVERHEAD)];
        datagram[HEADER_LEN..HEADER_LEN + PROBE_LEN].copy_from_slice(&word);
        let mut tx = lock(&session.tx);
        if tx.begin_batch(now, 1).is_err() {
            drop(tx);
            self.report_refused(session, now);
            return None;
        }
        tx.seal(session.remote_index(), PacketKind::Data, &mut datagram).ok()?;
        Some(datagram)
    }

    /// Tells the control side, now and then, that a session may not seal.
    pub(crate) fn report_refused(&self, session: &Session, now: Instant) {
        if session.refused.due(self.start, now, REFUSED_EVERY) {
            self.emit(Event::SealRefused { session: session.id });
        }
    }

    pub(crate) fn emit(&self, event: Event) {
        (self.events)(event);
    }

    /// The counters of the handles.
    pub(crate) fn drops(&self) -> &DropCounters {
        &self.drops[0]
    }

    /// The counters of the outbound direction of a queue.
    pub(crate) fn outbound_drops(&self, queue: usize) -> Arc<DropCounters> {
        Arc::clone(&self.drops[1 + 2 * queue])
    }

    /// The counters of the inbound direction of a queue.
    pub(crate) fn inbound_drops(&self, queue: usize) -> Arc<DropCounters> {
        Arc::clone(&self.drops[2 + 2 * queue])
    }

    pub(crate) fn sum_drops(&self) -> Drops {
        let mut sum = Drops::default();
        for counters in &self.drops {
            counters.add_to(&mut sum);
        }
        sum
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn wake_outbound(&self) {
        self.outbound_wakes.iter().for_each(Wake::wake);
    }

    pub(crate) fn wake_inbound(&self) {
        self.inbound_wakes.iter().for_each(Wake::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{mem::MemTun, tun::Offloads};

    #[test]
    fn nothing_is_left_of_a_plane_whose_second_thread_was_at_work() {
        let reader_and_writer = || {
            let (_, reader, writer) = MemTun::new(Offloads::default()).unwrap();
            (Box::new(reader) as Box<dyn TunReader>, Box::new(writer) as Box<dyn TunWriter>)
        };
        let sockets = vec![UdpSocket::bind("127.0.0.1:0").unwrap()];
        let config = DataPlaneConfig { tun: vec![reader_and_writer()], sockets, inner_mtu: 1280 };
        let plane = DataPlane::start(config, Arc::new(|_| ())).unwrap();
        let shared = Arc::downgrade(&plane.shared);
        plane.shared.loans[0].lend(Box::new(Outbound::new(Arc::clone(&plane.shared), 0, reader_and_writer().0)));
        plane.shutdown();
        assert!(shared.upgrade().is_none());
    }
}
