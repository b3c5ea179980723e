// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data plane as the control side needs it: a trait, so that whole nodes also run over a network that a test makes up.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use pqvpn_crypto::ratchet::EpochChain;
use pqvpn_dataplane::{
    Control, Drops, EpochError, InstallError, PathSize, PeerSlot, PeerStats, ProbeKind, RealmSet, SendError, SessionId,
    SessionInfo, SessionInstall, SocketId,
};

/// What the control side asks of the data plane; every method as [`Control`] describes it.
pub(crate) trait PacketPlane: Send + Sync {
    fn set_routes(&self, routes: Vec<(IpNet, PeerSlot)>);
    fn set_routes_in_realms(&self, routes: Vec<(IpNet, PeerSlot)>, realms: Vec<(IpNet, RealmSet)>);
    fn install_session(&self, install: SessionInstall) -> Result<(), InstallError>;
    fn activate_tx(&self, id: SessionId) -> bool;
    fn stop_sending(&self, id: SessionId) -> bool;
    fn stage_rx(&self, id: SessionId, chain: EpochChain) -> Result<(), EpochError>;
    fn start_tx(&self, id: SessionId, chain: EpochChain) -> Result<(), EpochError>;
    fn retire_keys(&self);
    fn expire_parked(&self) -> bool;
    fn set_prev_keep(&self, id: SessionId, keep: Duration) -> bool;
    fn remove_session(&self, id: SessionId) -> bool;
    fn remove_peer(&self, peer: PeerSlot);
    fn set_path(&self, peer: PeerSlot, remote: SocketAddr);
    fn set_path_size(&self, peer: PeerSlot, remote: SocketAddr, size: PathSize);
    fn begin_path_size(&self, peer: PeerSlot, size: PathSize);
    fn forget_path_size(&self, remote: SocketAddr);
    fn rotate_indices(&self, peer: PeerSlot);
    fn index_in_use(&self, index: u32) -> bool;
    fn session_info(&self, id: SessionId) -> Option<SessionInfo>;
    fn path(&self, peer: PeerSlot) -> Option<SocketAddr>;
    fn path_socket(&self, peer: PeerSlot) -> Option<SocketId>;
    fn path_heard(&self, peer: PeerSlot) -> Option<(SocketAddr, Instant)>;
    fn peer_stats(&self, peer: PeerSlot) -> PeerStats;
    fn drops(&self) -> Drops;
    fn set_stale_sources(&self, sources: Vec<IpAddr>);
    fn pause(&self, paused: bool);
    fn send_probe(&self, peer: PeerSlot, id: u64) -> Result<(), SendError>;
    fn send_probe_to(
        &self,
        peer: PeerSlot,
        id: u64,
        remote: SocketAddr,
        kind: ProbeKind,
        len: usize,
    ) -> Result<(), SendError>;
    /// A check by an added socket.
    fn send_end(&self, id: SessionId, reason: u8) -> Result<(), SendError>;
    fn send_check_from(&self, socket: SocketId, peer: PeerSlot, id: u64, remote: SocketAddr) -> Result<(), SendError>;
    fn send_opener(
        &self,
        peer: PeerSlot,
        socket: Option<SocketId>,
        remote: SocketAddr,
        hops: u8,
    ) -> Result<(), SendError>;
    fn add_socket(&self, socket: UdpSocket) -> io::Result<SocketId>;
    fn remove_socket(&self, id: SocketId) -> bool;
    fn socket_towards(&self, remote: SocketAddr) -> Option<SocketId>;
}

impl PacketPlane for Control {
    fn set_routes(&self, routes: Vec<(IpNet, PeerSlot)>) {
        Self::set_routes(self, routes);
    }
    fn set_routes_in_realms(&self, routes: Vec<(IpNet, PeerSlot)>, realms: Vec<(IpNet, RealmSet)>) {
        Self::set_routes_in_realms(self, routes, realms);
    }
    fn install_session(&self, install: SessionInstall) -> Result<(), InstallError> {
        Self::install_session(self, install)
    }
    fn activate_tx(&self, id: SessionId) -> bool {
        Self::activate_tx(self, id)
    }
    fn stop_sending(&self, id: SessionId) -> bool {
        Self::stop_sending(self, id)
    }
    fn stage_rx(&self, id: SessionId, chain: EpochChain) -> Result<(), EpochError> {
        Self::stage_rx(self, id, chain)
    }
    fn start_tx(&self, id: SessionId, chain: EpochChain) -> Result<(), EpochError> {
        Self::start_tx(self, id, chain)
    }
    fn retire_keys(&self) {
        Self::retire_keys(self);
    }
    fn expire_parked(&self) -> bool {
        Self::expire_parked(self)
    }
    fn set_prev_keep(&self, id: SessionId, keep: Duration) -> bool {
        Self::set_prev_keep(self, id, keep)
    }
    fn remove_session(&self, id: SessionId) -> bool {
        Self::remove_session(self, id)
    }
    fn remove_peer(&self, peer: PeerSlot) {
        Self::remove_peer(self, peer);
    }
    fn set_path(&self, peer: PeerSlot, remote: SocketAddr) {
        Self::set_path(self, peer, remote);
    }
    fn set_path_size(&self, peer: PeerSlot, remote: SocketAddr, size: PathSize) {
        Self::set_path_size(self, peer, remote, size);
    }
    fn begin_path_size(&self, peer: PeerSlot, size: PathSize) {
        Self::begin_path_size(self, peer, size);
    }
    fn forget_path_size(&self, remote: SocketAddr) {
        Self::forget_path_size(self, remote);
    }
    fn rotate_indices(&self, peer: PeerSlot) {
        Self::rotate_indices(self, peer);
    }
    fn index_in_use(&self, index: u32) -> bool {
        Self::index_in_use(self, index)
    }
    fn session_info(&self, id: SessionId) -> Option<SessionInfo> {
        Self::session_info(self, id)
    }
    fn path(&self, peer: PeerSlot) -> Option<SocketAddr> {
        Self::path(self, peer)
    }
    fn path_socket(&self, peer: PeerSlot) -> Option<SocketId> {
        Self::path_socket(self, peer)
    }
    fn path_heard(&self, peer: PeerSlot) -> Option<(SocketAddr, Instant)> {
        Self::path_heard(self, peer)
    }
    fn peer_stats(&self, peer: PeerSlot) -> PeerStats {
        Self::peer_stats(self, peer)
    }
    fn drops(&self) -> Drops {
        Self::drops(self)
    }
    fn set_stale_sources(&self, sources: Vec<IpAddr>) {
        Self::set_stale_sources(self, sources);
    }
    fn pause(&self, paused: bool) {
        Self::pause(self, paused);
    }
    fn send_probe(&self, peer: PeerSlot, id: u64) -> Result<(), SendError> {
        Self::send_probe(self, peer, id)
    }
    fn send_probe_to(
        &self,
        peer: PeerSlot,
        id: u64,
        remote: SocketAddr,
        kind: ProbeKind,
        len: usize,
    ) -> Result<(), SendError> {
        Self::send_probe_to(self, peer, id, remote, kind, len)
    }
    fn send_end(&self, id: SessionId, reason: u8) -> Result<(), SendError> {
        Self::send_end(self, id, reason)
    }
    fn send_check_from(&self, socket: SocketId, peer: PeerSlot, id: u64, remote: SocketAddr) -> Result<(), SendError> {
        Self::send_probe_from(self, socket, peer, id, remote, ProbeKind::Check, 0)
    }
    fn send_opener(
        &self,
        peer: PeerSlot,
        socket: Option<SocketId>,
        remote: SocketAddr,
        hops: u8,
    ) -> Result<(), SendError> {
        Self::send_opener(self, peer, socket, remote, hops)
    }
    fn add_socket(&self, socket: UdpSocket) -> io::Result<SocketId> {
        Self::add_socket(self, socket)
    }
    fn remove_socket(&self, id: SocketId) -> bool {
        Self::remove_socket(self, id)
    }
    fn socket_towards(&self, remote: SocketAddr) -> Option<SocketId> {
        Self::socket_towards(self, remote)
    }
}
