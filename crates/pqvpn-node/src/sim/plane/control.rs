// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the control side asks of the simulated data plane, and what relaying and carriers do.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use pqvpn_crypto::ratchet::EpochChain;
use pqvpn_dataplane::{
    Drops, EpochError, InstallError, PathSize, PeerSlot, PeerStats, ProbeKind, RealmSet, SendError, SessionId,
    SessionInfo, SessionInstall, SocketId,
    way::{CarrierGroup, Forward, ForwardStats, GroupId, Way, WayError, WayId},
};
use pqvpn_packet::inner::{self, Probe};

use super::{Session, SimPlane};
use crate::{carrier::Plane as CarrierPlane, clock, membership::Forwarder, plane::PacketPlane};

impl PacketPlane for SimPlane {
    fn set_routes(&self, routes: Vec<(IpNet, PeerSlot)>) {
        let mut tables = self.lock();
        for (_, slot) in routes {
            tables.peers.entry(slot).or_default();
        }
    }
    fn set_routes_in_realms(&self, routes: Vec<(IpNet, PeerSlot)>, _: Vec<(IpNet, RealmSet)>) {
        self.set_routes(routes);
    }
    fn install_session(&self, install: SessionInstall) -> Result<(), InstallError> {
        let mut tables = self.lock();
        if install.local_indices.is_empty() || install.remote_indices.is_empty() {
            return Err(InstallError::NoIndices);
        }
        if let Some(&index) = install.local_indices.iter().find(|index| tables.indices.contains_key(index)) {
            return Err(InstallError::IndexInUse(index));
        }
        let order = tables.next_order;
        tables.next_order += 1;
        for &index in &install.local_indices {
            tables.indices.insert(index, install.id);
        }
        let waits = !install.tx_active && tables.active(install.peer).is_some();
        let peer = tables.peers.entry(install.peer).or_default();
        if !waits {
            peer.place.set(install.path, clock::now());
        }
        let session = Session {
            peer: install.peer,
            tx: install.tx,
            rx: install.rx,
            remote: install.remote_indices,
            remote_at: 0,
            order,
            tx_active: install.tx_active,
            path_then: waits.then_some(install.path),
            retired: false,
            confirmed: false,
            wanted: None,
            refused: None,
            ended: false,
        };
        tables.sessions.insert(install.id, session);
        drop(tables);
        if let Some(peer) = self.slots.peer(install.peer) {
            self.wire.installed(peer);
        }
        if install.tx_active {
            self.flush(install.peer);
        }
        Ok(())
    }
    fn activate_tx(&self, id: SessionId) -> bool {
        let mut tables = self.lock();
        let Some(session) = tables.sessions.get_mut(&id) else { return false };
        session.tx_active = true;
        let (slot, path) = (session.peer, session.path_then.take());
        if let Some(path) = path.filter(|_| tables.active(slot) == Some(id)) {
            tables.peers.entry(slot).or_default().place.set(path, clock::now());
        }
        drop(tables);
        self.flush(slot);
        true
    }
    fn stop_sending(&self, id: SessionId) -> bool {
        self.lock().sessions.get_mut(&id).map(|session| session.retired = true).is_some()
    }
    fn stage_rx(&self, id: SessionId, chain: EpochChain) -> Result<(), EpochError> {
        let mut tables = self.lock();
        let session = tables.sessions.get_mut(&id).ok_or(EpochError::UnknownSession(id))?;
        Ok(session.rx.stage_epoch(chain, clock::now())?)
    }
    fn start_tx(&self, id: SessionId, chain: EpochChain) -> Result<(), EpochError> {
        let mut tables = self.lock();
        let session = tables.sessions.get_mut(&id).ok_or(EpochError::UnknownSession(id))?;
        Ok(session.tx.start_epoch(chain, clock::now())?)
    }
    fn retire_keys(&self) {
        let now = clock::now();
        for session in self.lock().sessions.values_mut() {
            session.tx.retire_phase(now);
            session.rx.erase_expired(now);
        }
    }
    fn expire_parked(&self) -> bool {
        false
    }
    fn set_prev_keep(&self, id: SessionId, keep: Duration) -> bool {
        self.lock().sessions.get_mut(&id).map(|session| session.rx.set_prev_keep(keep)).is_some()
    }
    fn remove_session(&self, id: SessionId) -> bool {
        self.lock().remove(id)
    }
    fn remove_peer(&self, peer: PeerSlot) {
        let mut tables = self.lock();
        tables.peers.remove(&peer);
        let of_peer = tables.sessions.iter().filter(|(_, session)| session.peer == peer);
        for id in of_peer.map(|(id, _)| *id).collect::<Vec<_>>() {
            tables.remove(id);
        }
    }
    fn set_path(&self, peer: PeerSlot, remote: SocketAddr) {
        let old = self.lock().peers.entry(peer).or_default().place.set(remote, clock::now());
        if old.is_some_and(|old| old != remote) {
            self.rotate_indices(peer);
        }
    }
    fn set_path_size(&self, _: PeerSlot, _: SocketAddr, _: PathSize) {}
    fn begin_path_size(&self, _: PeerSlot, _: PathSize) {}
    fn forget_path_size(&self, _: SocketAddr) {}
    fn rotate_indices(&self, peer: PeerSlot) {
        let mut tables = self.lock();
        let active = tables.active(peer);
        if let Some(session) = active.and_then(|id| tables.sessions.get_mut(&id)) {
            session.next_remote_index();
        }
    }
    fn index_in_use(&self, index: u32) -> bool {
        self.lock().indices.contains_key(&index)
    }
    fn session_info(&self, _: SessionId) -> Option<SessionInfo> {
        None
    }
    fn path(&self, peer: PeerSlot) -> Option<SocketAddr> {
        self.lock().peers.get(&peer)?.place.path().map(|path| path.remote)
    }
    fn path_socket(&self, _: PeerSlot) -> Option<SocketId> {
        None
    }
    fn path_heard(&self, peer: PeerSlot) -> Option<(SocketAddr, Instant)> {
        self.lock().peers.get(&peer)?.place.heard()
    }
    fn peer_stats(&self, peer: PeerSlot) -> PeerStats {
        let tables = self.lock();
        tables.peers.get(&peer).map_or_else(PeerStats::default, |peer| {
            let mut stats = peer.stats;
            stats.parked = peer.parked.len();
            stats
        })
    }
    fn drops(&self) -> Drops {
        Drops::default()
    }
    /// A simulated host has one address of each kind.
    fn set_stale_sources(&self, _sources: Vec<IpAddr>) {}

    fn pause(&self, paused: bool) {
        self.lock().paused = paused;
    }
    fn send_probe(&self, peer: PeerSlot, id: u64) -> Result<(), SendError> {
        let path = self.path(peer).ok_or(SendError::NoSession)?;
        self.send_probe_to(peer, id, path, ProbeKind::Nominate, 0)
    }
    fn send_probe_to(
        &self,
        peer: PeerSlot,
        id: u64,
        remote: SocketAddr,
        kind: ProbeKind,
        len: usize,
    ) -> Result<(), SendError> {
        self.probe(peer, Probe { kind: kind.into(), id }, len, (remote, None))
    }
    fn send_end(&self, id: SessionId, reason: u8) -> Result<(), SendError> {
        self.end(id, reason)
    }
    fn send_check_from(&self, _: SocketId, peer: PeerSlot, id: u64, remote: SocketAddr) -> Result<(), SendError> {
        self.send_probe_to(peer, id, remote, ProbeKind::Check, 0)
    }
    fn send_opener(&self, peer: PeerSlot, _: Option<SocketId>, remote: SocketAddr, hops: u8) -> Result<(), SendError> {
        self.probe(peer, Probe { kind: inner::ProbeKind::Check, id: 0 }, 0, (remote, Some(hops)))
    }
    fn add_socket(&self, _: UdpSocket) -> io::Result<SocketId> {
        Err(io::ErrorKind::QuotaExceeded.into())
    }
    fn remove_socket(&self, _: SocketId) -> bool {
        false
    }
    fn socket_towards(&self, _: SocketAddr) -> Option<SocketId> {
        None
    }
}

impl Forwarder for SimPlane {
    fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError> {
        self.wire.set_way(id, Some(way));
        Ok(())
    }
    fn remove_way(&self, id: WayId) {
        self.wire.set_way(id, None);
    }
    fn set_forward(&self, channel: u64, forward: Forward) -> Result<(), WayError> {
        self.wire.set_forward(channel, Some(forward));
        Ok(())
    }
    fn remove_forward(&self, channel: u64) {
        self.wire.set_forward(channel, None);
    }
    fn forward_stats(&self, channel: u64) -> Option<ForwardStats> {
        self.wire.forward_stats(channel)
    }
}

impl CarrierPlane for SimPlane {
    fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError> {
        Forwarder::set_way(self, id, way)
    }
    fn remove_way(&self, id: WayId) {
        Forwarder::remove_way(self, id);
    }
    fn set_group(&self, _: GroupId, _: Option<Arc<dyn CarrierGroup>>) {}
    fn inject(&self, _: WayId, _: &[&[u8]]) -> usize {
        0
    }
    fn tunnel(&self) -> u32 {
        0
    }
}
