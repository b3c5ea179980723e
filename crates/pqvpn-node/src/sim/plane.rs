// SPDX-License-Identifier: MIT OR Apache-2.0
//! A data plane without threads and sockets: the real keys, replay windows and path rules, one datagram at a time.

mod control;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use pqvpn_crypto::{kdf::Sid, peer_id::PeerId, schedule::Direction};
use pqvpn_dataplane::{
    Event, Followed, Mover, Path, PeerSlot, PeerStats, Place, SendError, SessionId,
    session::{OpenError, RxSession, TxSession},
    way::{Forward, ForwardStats, Way, WayId},
};
use pqvpn_packet::{
    header::{HEADER_LEN, OVERHEAD, PacketKind, receiver_of},
    inner::{self, End, Inner, PROBE_LEN, Probe},
};
use tokio::sync::mpsc;

use crate::{
    clock,
    events::{Overflow, leave},
    plane::PacketPlane as _,
    session::Slots,
};

/// Packets that wait for a session, each peer.
const PARKED: usize = 32;
/// How often a session is asked for, or a refusal told.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Longest datagram that the network takes.
const MAX_DATAGRAM: usize = 1472;

/// The network below a node, and who watches it.
pub trait Wire: Send + Sync {
    /// Sends a datagram; one with few `hops` dies behind the nearest router.
    fn send(&self, to: SocketAddr, datagram: Vec<u8>, hops: Option<u8>);
    /// A packet was sealed: under which keys, with which counter.
    fn sealed(&self, keys: (Sid, Direction), counter: u64);
    /// An inner packet came out of the tunnel.
    fn delivered(&self, from: PeerId, packet: &[u8]);
    /// A session with a peer can be received on from now.
    fn installed(&self, peer: PeerId);
    /// A way of this node leads there from now, or nowhere.
    fn set_way(&self, id: WayId, way: Option<Way>);
    /// What comes on a channel goes on from now, or does not.
    fn set_forward(&self, channel: u64, forward: Option<Forward>);
    /// What was forwarded.
    fn forward_stats(&self, channel: u64) -> Option<ForwardStats>;
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was sealed and sent.
    Sealed,
    /// It waits for a session.
    Parked,
    /// There was no room, or there is no such peer.
    Dropped,
}

#[derive(Default)]
struct Peer {
    place: Place,
    stats: PeerStats,
    parked: VecDeque<Vec<u8>>,
    asked: Option<Instant>,
}

struct Session {
    peer: PeerSlot,
    tx: TxSession,
    rx: RxSession,
    remote: Vec<u32>,
    remote_at: usize,
    order: u64,
    tx_active: bool,
    /// Where the peer is once it may send, while another one does.
    path_then: Option<SocketAddr>,
    retired: bool,
    confirmed: bool,
    wanted: Option<u32>,
    refused: Option<Instant>,
    ended: bool,
}

#[derive(Default)]
struct Tables {
    peers: BTreeMap<PeerSlot, Peer>,
    sessions: BTreeMap<SessionId, Session>,
    indices: BTreeMap<u32, SessionId>,
    next_order: u64,
    paused: bool,
}

/// The data plane of one simulated node.
pub(crate) struct SimPlane {
    tables: Mutex<Tables>,
    wire: Arc<dyn Wire>,
    slots: Arc<Slots>,
    events: mpsc::Sender<Event>,
    overflow: Arc<Overflow>,
}

impl Session {
    fn may_send(&self) -> bool {
        self.tx_active && !self.retired
    }

    fn remote_index(&self) -> u32 {
        self.remote.get(self.remote_at).or(self.remote.last()).copied().unwrap_or_default()
    }

    fn next_remote_index(&mut self) {
        self.remote_at = (self.remote_at + 1).min(self.remote.len().saturating_sub(1));
    }
}

impl Tables {
    fn active(&self, peer: PeerSlot) -> Option<SessionId> {
        let of_peer = self.sessions.iter().filter(|(_, session)| session.peer == peer && session.may_send());
        of_peer.max_by_key(|(_, session)| session.order).map(|(id, _)| *id)
    }

    fn is_outdated(&self, session: &Session) -> bool {
        let active = self.active(session.peer).and_then(|id| self.sessions.get(&id));
        session.retired || active.is_some_and(|active| active.order > session.order)
    }

    fn remove(&mut self, id: SessionId) -> bool {
        if self.sessions.remove(&id).is_none() {
            return false;
        }
        self.indices.retain(|_, held| *held != id);
        true
    }
}

impl SimPlane {
    pub(crate) fn new(
        wire: Arc<dyn Wire>,
        slots: Arc<Slots>,
        events: mpsc::Sender<Event>,
        overflow: Arc<Overflow>,
    ) -> Self {
        Self { tables: Mutex::default(), wire, slots, events, overflow }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn emit(&self, event: Event) {
        leave(event, &self.events, &self.overflow);
    }

    /// Peers, sessions, indices and parked packets held now.
    pub(crate) fn sizes(&self) -> [usize; 4] {
        let tables = self.lock();
        let parked = tables.peers.values().map(|peer| peer.parked.len()).sum();
        [tables.peers.len(), tables.sessions.len(), tables.indices.len(), parked]
    }

    /// Sends an inner packet to a peer.
    pub(crate) fn send_packet(&self, peer: PeerId, packet: Vec<u8>) -> Sent {
        let Some(slot) = self.slots.of(&peer) else { return Sent::Dropped };
        let now = clock::now();
        let mut tables = self.lock();
        if tables.paused {
            return Sent::Dropped;
        }
        if tables.active(slot).is_some() {
            drop(tables);
            let sealed = self.seal(slot, &packet, 0, None, true);
            return if sealed.is_ok() { Sent::Sealed } else { Sent::Dropped };
        }
        let held = tables.peers.entry(slot).or_default();
        let asks = held.asked.is_none_or(|at| now.saturating_duration_since(at) >= ASK_EVERY);
        let parks = held.parked.len() < PARKED;
        if parks {
            held.parked.push_back(packet);
        }
        if asks {
            held.asked = Some(now);
            self.emit(Event::NeedSession { peer: slot });
        }
        if parks { Sent::Parked } else { Sent::Dropped }
    }

    /// Seals a payload on the newest active session and sends it on the path, or elsewhere.
    fn seal(
        &self,
        slot: PeerSlot,
        payload: &[u8],
        len: usize,
        to: Option<(SocketAddr, Option<u8>)>,
        data: bool,
    ) -> Result<(), SendError> {
        let now = clock::now();
        let mut tables = self.lock();
        let id = tables.active(slot).ok_or(SendError::NoSession)?;
        let path = tables.peers.get(&slot).and_then(|peer| peer.place.path()).map(|path| path.remote);
        let (to, hops) = to.or(path.map(|path| (path, None))).ok_or(SendError::NoSession)?;
        if len > MAX_DATAGRAM {
            return Err(SendError::TooLong);
        }
        let session = tables.sessions.get_mut(&id).ok_or(SendError::NoSession)?;
        let mut datagram = vec![0; (payload.len() + OVERHEAD).max(len)];
        datagram[HEADER_LEN..HEADER_LEN + payload.len()].copy_from_slice(payload);
        if session.tx.begin_batch(now, 1).is_err() {
            if session.refused.is_none_or(|at| now.saturating_duration_since(at) >= ASK_EVERY) {
                session.refused = Some(now);
                self.emit(Event::SealRefused { session: id });
            }
            return Err(SendError::Refused);
        }
        let index = session.remote_index();
        let counter = session.tx.seal(index, PacketKind::Data, &mut datagram).map_err(|_| SendError::Refused)?;
        self.wire.sealed(session.tx.key_id(), counter);
        if session.tx.wants_step() && session.wanted != Some(session.tx.epoch()) {
            session.wanted = Some(session.tx.epoch());
            self.emit(Event::StepWanted { session: id });
        }
        if let Some(peer) = tables.peers.get_mut(&slot) {
            note(&mut peer.stats, now, datagram.len(), data);
        }
        drop(tables);
        self.wire.send(to, datagram, hops);
        Ok(())
    }

    fn probe(&self, slot: PeerSlot, probe: Probe, len: usize, to: (SocketAddr, Option<u8>)) -> Result<(), SendError> {
        let encoded: [u8; PROBE_LEN] = probe.encode();
        self.seal(slot, &encoded, len, Some(to), false)
    }

    fn flush(&self, slot: PeerSlot) {
        let parked = self.lock().peers.get_mut(&slot).map(|peer| std::mem::take(&mut peer.parked));
        for packet in parked.into_iter().flatten() {
            let _as_any_other = self.seal(slot, &packet, 0, None, true);
        }
    }

    /// Takes a datagram that came from an address.
    pub(crate) fn receive(&self, from: SocketAddr, datagram: &mut [u8]) {
        let now = clock::now();
        let Some(index) = receiver_of(datagram) else { return };
        let mut tables = self.lock();
        let Some(id) = tables.indices.get(&index).copied() else { return };
        let paused = tables.paused;
        let Some(session) = tables.sessions.get_mut(&id) else { return };
        let slot = session.peer;
        let len = datagram.len();
        let opened = match session.rx.open(now, datagram) {
            Ok(opened) => opened,
            Err(OpenError::ForgeryLimit) => return self.emit(Event::ForgeryLimit { session: id }),
            Err(_) => return,
        };
        let (newest, epoch_seen) = (opened.newest, opened.first_of_epoch);
        let mut mover = Some(Mover::Data);
        let (mut packet, mut probe, mut end) = (None, None, None);
        match Inner::classify(opened.plaintext) {
            Ok(Inner::Ip) => packet = Some(opened.plaintext.to_vec()),
            Ok(Inner::Probe) => {
                probe = Probe::decode(opened.plaintext).ok();
                let nominates = probe.is_some_and(|probe| probe.kind == inner::ProbeKind::Nominate);
                mover = nominates.then_some(Mover::Nominate);
            }
            Ok(Inner::End) => (mover, end) = (None, End::decode(opened.plaintext).ok()),
            Ok(Inner::Cover | Inner::Cell | Inner::Fragment) | Err(_) => {}
        }
        if let Some(peer) = tables.peers.get_mut(&slot) {
            let stats = &mut peer.stats;
            (stats.last_rx, stats.rx_bytes) = (Some(now), stats.rx_bytes + len as u64);
            stats.rx_packets += 1;
            if packet.is_some() {
                stats.last_data_rx = Some(now);
            }
        }
        self.follow(&mut tables, id, from, mover.filter(|_| newest), now);
        let ended = end.is_some()
            && tables.sessions.get_mut(&id).is_none_or(|session| std::mem::replace(&mut session.ended, true));
        let first =
            tables.sessions.get_mut(&id).is_some_and(|session| !std::mem::replace(&mut session.confirmed, true));
        drop(tables);
        if first {
            self.activate_tx(id);
            self.emit(Event::FirstPacket { session: id });
        }
        if let Some(epoch) = epoch_seen {
            self.emit(Event::EpochSeen { session: id, epoch });
        }
        if let Some(End { reason }) = end.filter(|_| !ended) {
            self.emit(Event::Ended { session: id, reason });
        }
        match probe {
            Some(probe) => self.answer(id, slot, probe, from, now),
            None => {
                let owner = self.slots.peer(slot).filter(|_| !paused);
                if let (Some(peer), Some(packet)) = (owner, packet) {
                    self.wire.delivered(peer, &packet);
                }
            }
        }
    }

    fn follow(&self, tables: &mut Tables, id: SessionId, from: SocketAddr, mover: Option<Mover>, now: Instant) {
        let path = Path { remote: from, local: None, socket: None };
        let Some(session) = tables.sessions.get(&id) else { return };
        let (slot, outdated) = (session.peer, tables.is_outdated(session));
        let Some(peer) = tables.peers.get_mut(&slot) else { return };
        if peer.place.hear(path, now) || outdated {
            return;
        }
        match peer.place.follow(path, mover, now) {
            Followed::Stayed | Followed::Known => {}
            Followed::Heard => self.emit(Event::Heard { peer: slot, from }),
            Followed::Moved(before) => {
                if let Some(session) = tables.sessions.get_mut(&id) {
                    session.next_remote_index();
                }
                self.emit(Event::Roamed { peer: slot, from: before, to: from });
            }
        }
    }

    fn answer(&self, id: SessionId, slot: PeerSlot, probe: Probe, from: SocketAddr, now: Instant) {
        if probe.kind == inner::ProbeKind::Answer {
            let taken = self.lock().peers.get_mut(&slot).is_some_and(|peer| peer.place.takes_answer(now));
            if taken {
                self.emit(Event::ProbeAck { peer: slot, id: probe.id, from, at: now });
            }
            return;
        }
        // On the session it came on, which need not be the one that sends.
        let _no_answer = self.say(id, probe.answer().encode(), Some(from), now);
    }

    /// Tells the peer that a session is over.
    fn end(&self, id: SessionId, reason: u8) -> Result<(), SendError> {
        self.say(id, End { reason }.encode(), None, clock::now())
    }

    /// Seals a word on one session and sends it on the path, or elsewhere.
    fn say(&self, id: SessionId, word: [u8; PROBE_LEN], to: Option<SocketAddr>, now: Instant) -> Result<(), SendError> {
        let mut datagram = vec![0; PROBE_LEN + OVERHEAD];
        datagram[HEADER_LEN..HEADER_LEN + PROBE_LEN].copy_from_slice(&word);
        let mut tables = self.lock();
        let slot = tables.sessions.get(&id).ok_or(SendError::NoSession)?.peer;
        let path = tables.peers.get(&slot).and_then(|peer| peer.place.path()).map(|path| path.remote);
        let to = to.or(path).ok_or(SendError::NoSession)?;
        let session = tables.sessions.get_mut(&id).ok_or(SendError::NoSession)?;
        if session.tx.begin_batch(now, 1).is_err() {
            return Err(SendError::Refused);
        }
        let index = session.remote_index();
        let counter = session.tx.seal(index, PacketKind::Data, &mut datagram).map_err(|_| SendError::Refused)?;
        self.wire.sealed(session.tx.key_id(), counter);
        if let Some(peer) = tables.peers.get_mut(&slot) {
            note(&mut peer.stats, now, datagram.len(), false);
        }
        drop(tables);
        self.wire.send(to, datagram, None);
        Ok(())
    }
}

fn note(stats: &mut PeerStats, now: Instant, len: usize, data: bool) {
    (stats.last_tx, stats.tx_bytes) = (Some(now), stats.tx_bytes + len as u64);
    stats.tx_packets += 1;
    if data {
        stats.last_data_tx = Some(now);
    }
}
