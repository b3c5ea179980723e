// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control side's handle: routes, sessions, paths, probes and statistics.

mod underlay;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use pqvpn_crypto::ratchet::EpochChain;
use thiserror::Error;

pub use self::underlay::{ProbeKind, SendError};
use crate::{
    clock,
    event::{PeerSlot, SessionId},
    plane::Shared,
    realm::{RealmSet, Realms},
    route::Routes,
    session::{EpochMismatch, RxSession, TxSession},
    size::PathSize,
    stats::{DropReason, Drops, PeerStats},
    table::{Session, lock},
    udp::extra::SocketId,
};

/// Everything a new session consists of.
pub struct SessionInstall {
    /// The number the node gives it.
    pub id: SessionId,
    /// Whose session it is.
    pub peer: PeerSlot,
    /// The sending half.
    pub tx: TxSession,
    /// The receiving half.
    pub rx: RxSession,
    /// Receiver indices the peer may use towards us; random, all unused (see [`Control::index_in_use`]).
    pub local_indices: Vec<u32>,
    /// Receiver indices we use towards the peer, in this order: the next one after every change of address.
    pub remote_indices: Vec<u32>,
    /// Underlay address of the peer, or a way to it.
    pub path: SocketAddr,
    /// Whether packets may be sealed at once; otherwise [`Control::activate_tx`] or the first valid packet allows it.
    pub tx_active: bool,
}

/// Why a session was not installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InstallError {
    /// A local index already belongs to a session.
    #[error("receiver index {0:#010x} is already in use")]
    IndexInUse(u32),
    /// One of the index lists is empty.
    #[error("a session needs at least one receiver index on each side")]
    NoIndices,
    /// The session number is already in use.
    #[error("session number {0:?} is already in use")]
    DuplicateId(SessionId),
}

/// Why an epoch was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EpochError {
    /// There is no such session.
    #[error("no session {0:?}")]
    UnknownSession(SessionId),
    /// The chain does not continue the session.
    #[error(transparent)]
    Mismatch(#[from] EpochMismatch),
}

/// What can be told about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Whose session it is.
    pub peer: PeerSlot,
    /// Epoch of the sending half.
    pub epoch: u32,
    /// Hash phase inside that epoch.
    pub phase: u32,
    /// Whether packets may be sealed on it.
    pub tx_active: bool,
    /// Whether a packet of the peer authenticated on it.
    pub confirmed: bool,
}

/// The control side's handle. Cheap to clone; every method may be called from any thread and none of them blocks on
/// the packet threads for longer than one run of packets.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Replaces the whole route table: where inner destinations go by longest prefix match, and the inner sources
    /// each peer may use. Peers that were unknown so far become known. All addresses are of one realm.
    pub fn set_routes(&self, routes: Vec<(IpNet, PeerSlot)>) {
        self.route(&routes, None);
    }

    /// Replaces the whole route table as [`Self::set_routes`] does, with the realms of inner addresses by longest prefix
    /// match: a packet passes when its source and its destination have one in common. The realms of equal prefixes are
    /// united, and an address under none of them is of [`RealmSet::PINNED`].
    pub fn set_routes_in_realms(&self, routes: Vec<(IpNet, PeerSlot)>, realms: Vec<(IpNet, RealmSet)>) {
        self.route(&routes, Some(Arc::new(Realms::new(&realms))));
    }

    fn route(&self, routes: &[(IpNet, PeerSlot)], realms: Option<Arc<Realms>>) {
        let routes = Arc::new(Routes::new(routes));
        self.shared.change(|registry, tables| {
            for peer in routes.values() {
                registry.peer(peer);
            }
            tables.routes = Arc::clone(&routes);
            tables.realms = realms;
            tables.peers = Arc::new(registry.peer_entries());
        });
    }

    /// Installs a session: receiving works at once, sending when `tx_active` or later. Sets the peer's path then, or at
    /// once where no other session sends to it.
    ///
    /// # Errors
    /// [`InstallError`]; nothing is changed then.
    pub fn install_session(&self, install: SessionInstall) -> Result<(), InstallError> {
        if install.local_indices.is_empty() || install.remote_indices.is_empty() {
            return Err(InstallError::NoIndices);
        }
        let path = install.path;
        self.shared.change(|registry, tables| {
            if registry.sessions.contains_key(&install.id) {
                return Err(InstallError::DuplicateId(install.id));
            }
            if let Some(&index) = install.local_indices.iter().find(|&i| tables.sessions.contains_key(i)) {
                return Err(InstallError::IndexInUse(index));
            }
            let peer = registry.peer(install.peer);
            let order = registry.next_order;
            registry.next_order += 1;
            let session = Session::new(install, Arc::clone(&peer), order, self.shared.inner_mtu);
            let session = Arc::new(session);
            tables.add_session(&session);
            let waits = !session.tx_active.load(Ordering::Acquire) && registry.sends_to(peer.slot);
            if waits {
                *lock(&session.path_then) = Some(path);
            }
            registry.sessions.insert(session.id, session);
            registry.publish_peer(tables, peer.slot);
            if !waits {
                // Before the snapshot is stored: a parked packet must find the path when it finds the session.
                lock(&peer.place).set(path, clock::now());
            }
            Ok(())
        })?;
        // A thread may be about to park a packet by the snapshot before.
        self.shared.wake_outbound();
        Ok(())
    }

    /// Allows a session to send and flushes what waited for it. `false` when there is no such session.
    pub fn activate_tx(&self, id: SessionId) -> bool {
        self.shared.activate_tx(id)
    }

    /// A session sends nothing more but answers to probes, though it may be the newest, and moves no path; it receives until it is removed.
    /// `false` when there is no such session.
    pub fn stop_sending(&self, id: SessionId) -> bool {
        self.shared.change(|registry, tables| {
            let Some(session) = registry.sessions.get(&id) else { return false };
            session.retired.store(true, Ordering::Release);
            registry.publish_peer(tables, session.peer.slot);
            true
        })
    }

    /// Prepares the receiving half for the next epoch.
    ///
    /// # Errors
    /// [`EpochError`]; nothing changes then.
    pub fn stage_rx(&self, id: SessionId, chain: EpochChain) -> Result<(), EpochError> {
        let session = self.session(id).ok_or(EpochError::UnknownSession(id))?;
        Ok(lock(&session.rx).stage_epoch(chain, clock::now())?)
    }

    /// Starts the next epoch of the sending half.
    ///
    /// # Errors
    /// [`EpochError`]; nothing changes then.
    pub fn start_tx(&self, id: SessionId, chain: EpochChain) -> Result<(), EpochError> {
        let session = self.session(id).ok_or(EpochError::UnknownSession(id))?;
        Ok(lock(&session.tx).start_epoch(chain, clock::now())?)
    }

    /// Erases keys whose time is over in sessions without traffic; busy ones do it by themselves. To be called every
    /// few seconds (security.md 1.7, `PHASE_TIME` and `PREV_KEEP`).
    pub fn retire_keys(&self) {
        let now = clock::now();
        for session in self.shared.sessions() {
            lock(&session.tx).retire_phase(now);
            lock(&session.rx).erase_expired(now);
            let given_up = lock(&session.pieces).expire(now);
            self.shared.drops().count_many(DropReason::FragmentLost, given_up);
        }
    }

    /// Gives up what has waited for a session for too long; `false`: nothing waits any more. To be called every second
    /// after [`Event::NeedSession`](crate::Event::NeedSession).
    pub fn expire_parked(&self) -> bool {
        let now = clock::now();
        let mut waits = false;
        for peer in self.shared.peers().into_iter().filter(|peer| peer.parked.len() > 0) {
            self.shared.drops().count_many(DropReason::ParkedExpired, peer.parked.expire(now));
            waits |= peer.parked.len() > 0;
        }
        waits
    }

    /// Sets how long keys of the previous epoch and phase are kept (security.md 1.7, `PREV_KEEP`).
    /// `false` when there is no such session.
    pub fn set_prev_keep(&self, id: SessionId, keep: Duration) -> bool {
        let Some(session) = self.session(id) else { return false };
        lock(&session.rx).set_prev_keep(keep);
        true
    }

    /// Removes a session; its keys are gone when the packet threads finished their batch.
    /// `false` when there is no such session.
    pub fn remove_session(&self, id: SessionId) -> bool {
        self.shared.change(|registry, tables| {
            let Some(removed) = registry.sessions.remove(&id) else { return false };
            registry.publish_peer(tables, removed.peer.slot);
            tables.remove_sessions(&[removed]);
            true
        })
    }

    /// Removes a peer with its sessions, path and parked packets. Its routes lead nowhere from now.
    ///
    /// When this returns no packet of it is opened any more and none is sealed for it, not even of a batch that a packet
    /// thread has begun with.
    pub fn remove_peer(&self, peer: PeerSlot) {
        let removed = self.shared.change(|registry, tables| {
            let removed = registry.peers.remove(&peer)?;
            let sessions = registry.sessions.extract_if(.., |_, session| session.peer.slot == peer);
            let sessions: Vec<Arc<Session>> = sessions.map(|(_, session)| session).collect();
            registry.publish_peer(tables, peer);
            tables.remove_sessions(&sessions);
            Some((removed, sessions))
        });
        let Some((removed, sessions)) = removed else { return };
        for session in sessions {
            lock(&session.rx).close();
            lock(&session.tx).close();
        }
        let drops = self.shared.drops();
        let expired = removed.parked.drain(clock::now(), |_| drops.count(DropReason::ParkedExpired));
        drops.count_many(DropReason::ParkedExpired, expired);
    }

    /// Sets the underlay address of a peer, or the way to it; a change moves its session on to the next receiver index.
    pub fn set_path(&self, peer: PeerSlot, remote: SocketAddr) {
        let peer = self.shared.change(|registry, tables| {
            let peer = registry.peer(peer);
            registry.publish_peer(tables, peer.slot);
            peer
        });
        let old = lock(&peer.place).set(remote, clock::now());
        if old.is_some_and(|old| old != remote) {
            self.rotate_indices(peer.slot);
        }
    }

    /// Says how long datagrams to a peer may be on the path to `remote`; nothing when the peer is unknown. That the path is
    /// narrow is to be said again every two minutes.
    pub fn set_path_size(&self, peer: PeerSlot, remote: SocketAddr, size: PathSize) {
        if let Some(entry) = self.shared.tables.load().peers.get(&peer) {
            entry.peer.size.set(size);
            self.shared.underlay.narrow.know(remote, size.narrow, clock::now());
        }
    }

    /// Says how long the datagrams of a peer's first session may be until [`Self::set_path_size`] says it: what waits for the
    /// session leaves before that. Nothing while there is a session.
    pub fn begin_path_size(&self, peer: PeerSlot, size: PathSize) {
        if let Some(entry) = self.shared.tables.load().peers.get(&peer).filter(|entry| entry.active.is_none()) {
            entry.peer.size.set(size);
        }
    }

    /// The path to `remote` is not in use any more: what was found out of it is forgotten.
    pub fn forget_path_size(&self, remote: SocketAddr) {
        self.shared.underlay.narrow.know(remote, false, clock::now());
    }

    /// Moves a peer's sending session on to the next receiver index: to be called when our own address changed, so
    /// that the two networks cannot be linked by it.
    pub fn rotate_indices(&self, peer: PeerSlot) {
        if let Some(session) = self.active(peer) {
            session.next_remote_index();
        }
    }

    /// Whether a local receiver index belongs to a session.
    pub fn index_in_use(&self, index: u32) -> bool {
        self.shared.tables.load().sessions.contains_key(&index)
    }

    /// What can be told about a session, `None` when there is none of that number.
    pub fn session_info(&self, id: SessionId) -> Option<SessionInfo> {
        let session = self.session(id)?;
        let tx = lock(&session.tx);
        Some(SessionInfo {
            peer: session.peer.slot,
            epoch: tx.epoch(),
            phase: tx.phase(),
            tx_active: session.tx_active.load(Ordering::Acquire),
            confirmed: session.confirmed.load(Ordering::Acquire),
        })
    }

    /// Underlay address or way packets to the peer go to.
    pub fn path(&self, peer: PeerSlot) -> Option<SocketAddr> {
        let tables = self.shared.tables.load();
        tables.peers.get(&peer)?.peer.path().map(|path| path.remote)
    }

    /// The added socket on which the peer last reached us by its path with data or a nomination.
    pub fn path_socket(&self, peer: PeerSlot) -> Option<SocketId> {
        self.shared.tables.load().peers.get(&peer)?.peer.path()?.socket
    }

    /// The address or way packets to the peer go to and when something authenticated last came from there; `None` when
    /// nothing did since it became the path.
    pub fn path_heard(&self, peer: PeerSlot) -> Option<(SocketAddr, Instant)> {
        let tables = self.shared.tables.load();
        lock(&tables.peers.get(&peer)?.peer.place).heard()
    }

    /// Traffic with a peer; zeros when it is unknown.
    pub fn peer_stats(&self, peer: PeerSlot) -> PeerStats {
        let tables = self.shared.tables.load();
        tables.peers.get(&peer).map(|entry| entry.peer.stats(self.shared.start)).unwrap_or_default()
    }

    /// Dropped packets by reason.
    pub fn drops(&self) -> Drops {
        self.shared.sum_drops()
    }

    /// Says which interface is our own: what comes by it to the sockets was in the tunnel before, and is dropped, so that
    /// no peer can move a path into the tunnel.
    pub fn set_tunnel(&self, index: u32) {
        self.shared.change(|_, tables| tables.tunnel = index);
    }

    /// The interface that is our own, 0 if none is.
    #[must_use]
    pub fn tunnel(&self) -> u32 {
        self.shared.tables.load().tunnel
    }

    /// Own addresses by which packets do not leave any more, though the host still has them: a peer that speaks to one is
    /// answered from where the kernel chooses.
    pub fn set_stale_sources(&self, sources: Vec<IpAddr>) {
        self.shared.underlay.set_stale(sources);
    }

    /// Drops packets between the interface and the tunnel while `paused` (the interface is down); probes still work.
    pub fn pause(&self, paused: bool) {
        self.shared.change(|_, tables| tables.paused = paused);
    }

    fn session(&self, id: SessionId) -> Option<Arc<Session>> {
        self.shared.session(id)
    }

    fn active(&self, peer: PeerSlot) -> Option<Arc<Session>> {
        self.shared.tables.load().peers.get(&peer)?.active.clone()
    }
}
