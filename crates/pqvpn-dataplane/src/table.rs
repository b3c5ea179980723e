// SPDX-License-Identifier: MIT OR Apache-2.0
//! Peers, sessions and the immutable snapshot of them that the packet threads read.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use arc_swap::{ArcSwap, cache::Cache};
use pqvpn_packet::header::PacketKind;

use crate::{
    event::{PeerSlot, SessionId},
    park::Parked,
    path::{Path, Place},
    realm::Realms,
    reassembly::{Bounds, Reassembly},
    route::{Mixed, Routes},
    session::{RxSession, TxSession},
    size::Size,
    stats::{PeerStats, Stamp, Traffic},
    way::Ways,
};

/// Locks; what a panicking holder left behind is counters and keys, both still sound.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What outlives the sessions with a peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) slot: PeerSlot,
    pub(crate) place: Mutex<Place>,
    pub(crate) parked: Parked,
    pub(crate) tx: Traffic,
    pub(crate) rx: Traffic,
    /// When a session was last asked for.
    pub(crate) asked: Stamp,
    pub(crate) size: Size,
}

impl Peer {
    pub(crate) fn new(slot: PeerSlot, parked: Parked) -> Self {
        Self {
            slot,
            place: Mutex::default(),
            parked,
            tx: Traffic::default(),
            rx: Traffic::default(),
            asked: Stamp::default(),
            size: Size::default(),
        }
    }

    pub(crate) fn path(&self) -> Option<Path> {
        lock(&self.place).path()
    }

    /// Forgets the local address after the system refused it as a source.
    pub(crate) fn forget_local(&self) {
        lock(&self.place).forget_local();
    }

    pub(crate) fn stats(&self, start: Instant) -> PeerStats {
        let (tx_bytes, tx_packets, last_tx, last_data_tx) = self.tx.read(start);
        let (rx_bytes, rx_packets, last_rx, last_data_rx) = self.rx.read(start);
        PeerStats {
            tx_bytes,
            rx_bytes,
            tx_packets,
            rx_packets,
            last_rx,
            last_tx,
            last_data_rx,
            last_data_tx,
            parked: self.parked.len(),
        }
    }
}

/// Packets of one session that wait for pieces: they come one after the other, so that few are ever half there.
const PIECES: Bounds = Bounds { wholes: 64, bytes: 256 * 1024, longest: 0, of_one: 64 };

/// A session as the packet threads share it. Each half is locked once per run of packets.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) peer: Arc<Peer>,
    pub(crate) tx: Mutex<TxSession>,
    pub(crate) rx: Mutex<RxSession>,
    /// Pieces of packets; locked once per piece.
    pub(crate) pieces: Mutex<Reassembly<PacketKind>>,
    pub(crate) local_indices: Vec<u32>,
    remote_indices: Vec<u32>,
    remote_at: AtomicUsize,
    /// Place in the order of installation; the newest active session of a peer sends.
    pub(crate) order: u64,
    pub(crate) tx_active: AtomicBool,
    /// Where the peer is once this session may send: until then another one does, along its own path.
    pub(crate) path_then: Mutex<Option<SocketAddr>>,
    /// Another one sends in its place.
    pub(crate) retired: AtomicBool,
    pub(crate) confirmed: AtomicBool,
    /// One more than the last epoch a step was asked for in.
    wanted: AtomicU64,
    pub(crate) refused: Stamp,
    pub(crate) forged_out: AtomicBool,
    /// The peer has said that it is over.
    pub(crate) ended: AtomicBool,
}

impl Session {
    /// `longest`: no packet is longer.
    pub(crate) fn new(install: crate::control::SessionInstall, peer: Arc<Peer>, order: u64, longest: usize) -> Self {
        Self {
            id: install.id,
            peer,
            tx: Mutex::new(install.tx),
            rx: Mutex::new(install.rx),
            pieces: Mutex::new(Reassembly::new(Bounds { longest, ..PIECES })),
            local_indices: install.local_indices,
            remote_indices: install.remote_indices,
            remote_at: AtomicUsize::new(0),
            order,
            tx_active: AtomicBool::new(install.tx_active),
            path_then: Mutex::new(None),
            retired: AtomicBool::new(false),
            confirmed: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
            refused: Stamp::default(),
            forged_out: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Whether packets may be sealed, as far as the control side and the peer have said.
    fn may_send(&self) -> bool {
        self.tx_active.load(Ordering::Acquire) && !self.retired.load(Ordering::Acquire)
    }

    /// The receiver index to send with.
    pub(crate) fn remote_index(&self) -> u32 {
        let at = self.remote_at.load(Ordering::Relaxed);
        self.remote_indices.get(at).or(self.remote_indices.last()).copied().unwrap_or_default()
    }

    /// Moves on to the next receiver index after a change of address; stays on the last one.
    pub(crate) fn next_remote_index(&self) {
        let last = self.remote_indices.len().saturating_sub(1);
        let _ = self.remote_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| (at < last).then_some(at + 1));
    }

    /// Whether this is the first time a step is wanted in `epoch`.
    pub(crate) fn first_wanted(&self, epoch: u32) -> bool {
        let mark = u64::from(epoch) + 1;
        self.wanted.fetch_max(mark, Ordering::Relaxed) < mark
    }
}

/// A peer with the session that sends, if any.
#[derive(Clone)]
pub(crate) struct PeerEntry {
    pub(crate) peer: Arc<Peer>,
    pub(crate) active: Option<Arc<Session>>,
}

/// A thread's view of the tables: loaded once per batch, after the batch is there, so that what was changed before it came
/// holds for it.
pub(crate) type View<'s> = Cache<&'s ArcSwap<Tables>, Arc<Tables>>;

/// What the packet threads look things up in; loaded once per batch, replaced as a whole.
#[derive(Clone, Default)]
pub(crate) struct Tables {
    pub(crate) routes: Arc<Routes>,
    /// `None` while every inner address may speak with every other.
    pub(crate) realms: Option<Arc<Realms>>,
    pub(crate) peers: Arc<HashMap<PeerSlot, PeerEntry, Mixed>>,
    pub(crate) sessions: Arc<HashMap<u32, Arc<Session>, Mixed>>,
    pub(crate) ways: Arc<Ways>,
    pub(crate) paused: bool,
    /// Index of our own interface, 0 when it has none.
    pub(crate) tunnel: u32,
}

/// The control side's own books, from which [`Tables`] are made.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) peers: BTreeMap<PeerSlot, Arc<Peer>>,
    pub(crate) sessions: BTreeMap<SessionId, Arc<Session>>,
    pub(crate) next_order: u64,
    /// Bytes that wait for sessions.
    parked: Arc<AtomicUsize>,
}

impl Registry {
    /// The peer, made when it is new.
    pub(crate) fn peer(&mut self, slot: PeerSlot) -> Arc<Peer> {
        let parked = || Parked::counted_in(Arc::clone(&self.parked));
        Arc::clone(self.peers.entry(slot).or_insert_with(|| Arc::new(Peer::new(slot, parked()))))
    }

    /// Every peer with the newest of its sessions that may send.
    pub(crate) fn peer_entries(&self) -> HashMap<PeerSlot, PeerEntry, Mixed> {
        let entry = |peer: &Arc<Peer>| PeerEntry { peer: Arc::clone(peer), active: None };
        let mut entries: HashMap<_, _, Mixed> = self.peers.iter().map(|(&slot, peer)| (slot, entry(peer))).collect();
        for session in self.sessions.values() {
            let Some(entry) = entries.get_mut(&session.peer.slot) else {
                continue;
            };
            let newer = entry.active.as_ref().is_none_or(|active| active.order < session.order);
            if newer && session.may_send() {
                entry.active = Some(Arc::clone(session));
            }
        }
        entries
    }

    /// Publishes one peer anew, with the newest of its sessions that may send; the others stay as they are in the tables.
    ///
    /// A copy with one change hashes nothing anew: a thousand peers may come at once.
    pub(crate) fn publish_peer(&self, tables: &mut Tables, slot: PeerSlot) {
        let mut entries = HashMap::clone(&tables.peers);
        match self.peers.get(&slot) {
            Some(peer) => entries.insert(slot, PeerEntry { peer: Arc::clone(peer), active: self.active(slot) }),
            None => entries.remove(&slot),
        };
        tables.peers = Arc::new(entries);
    }

    /// Whether some session may send to a peer.
    pub(crate) fn sends_to(&self, slot: PeerSlot) -> bool {
        self.active(slot).is_some()
    }

    fn active(&self, slot: PeerSlot) -> Option<Arc<Session>> {
        let sessions = self.sessions.values().filter(|session| session.peer.slot == slot);
        let active = sessions.filter(|session| session.may_send());
        active.max_by_key(|session| session.order).cloned()
    }
}

impl Tables {
    /// Makes a session known by its indices.
    pub(crate) fn add_session(&mut self, session: &Arc<Session>) {
        let mut sessions = HashMap::clone(&self.sessions);
        sessions.extend(session.local_indices.iter().map(|&index| (index, Arc::clone(session))));
        self.sessions = Arc::new(sessions);
    }

    /// Forgets the indices of sessions.
    pub(crate) fn remove_sessions(&mut self, gone: &[Arc<Session>]) {
        let mut sessions = HashMap::clone(&self.sessions);
        for index in gone.iter().flat_map(|session| &session.local_indices) {
            sessions.remove(index);
        }
        self.sessions = Arc::new(sessions);
    }
}
