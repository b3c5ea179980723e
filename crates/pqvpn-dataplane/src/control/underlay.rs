// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the control side does below the sessions: probes to chosen addresses, ways, forwards, added sockets.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use pqvpn_packet::{
    inner::{self, End, Probe},
    relay::RELAY_LEN,
};
use thiserror::Error;

use super::Control;
use crate::{
    clock,
    event::{PeerSlot, SessionId},
    stats::{DropReason, Run},
    udp::{MAX_GSO_BYTES, extra::SocketId},
    way::{By, CarrierGroup, Forward, ForwardStats, GroupId, Way, WayError, WayId, Ways},
};

/// Longest probe: a relay header still fits into the datagram.
const MAX_PROBE: usize = MAX_GSO_BYTES - RELAY_LEN;

/// Why a probe was not sent.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The peer has no session that may send.
    #[error("no active session with this peer")]
    NoSession,
    /// The session may not seal any more; it needs a new handshake.
    #[error("the session refuses to seal")]
    Refused,
    /// The datagram is longer than the network here takes (`EMSGSIZE`), or than any datagram can be.
    #[error("the datagram is too long")]
    TooLong,
    /// The operating system refused the datagram, the carrier has no room, or the way is not there.
    #[error("the datagram was not sent")]
    Io(#[source] io::Error),
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        if error.raw_os_error() == Some(libc::EMSGSIZE) { Self::TooLong } else { Self::Io(error) }
    }
}

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// Asks whether the address works; the peer's own choice of a path stays as it is.
    Check,
    /// Says that we have chosen this address; the peer's path follows.
    Nominate,
}

impl From<ProbeKind> for inner::ProbeKind {
    fn from(kind: ProbeKind) -> Self {
        match kind {
            ProbeKind::Check => Self::Check,
            ProbeKind::Nominate => Self::Nominate,
        }
    }
}

impl Control {
    /// Sends a nominating in-tunnel probe on the peer's path; the answer comes as
    /// [`Event::ProbeAck`](crate::Event::ProbeAck).
    ///
    /// # Errors
    /// [`SendError`]: no session, a session that may not seal, or the operating system refused.
    pub fn send_probe(&self, peer: PeerSlot, id: u64) -> Result<(), SendError> {
        let path = self.path(peer).ok_or(SendError::NoSession)?;
        self.send_probe_to(peer, id, path, ProbeKind::Nominate, 0)
    }

    /// Sends an in-tunnel probe to any address or way; the path to the peer stays where it is. The answer comes as
    /// [`Event::ProbeAck`](crate::Event::ProbeAck) and is never padded.
    ///
    /// The datagram is padded to `len` bytes of UDP payload (0: no padding). On a way the relay header comes on top, so
    /// that what passes is the length of a tunnel datagram on that way as on any other path.
    ///
    /// # Errors
    /// [`SendError`]: no session, a session that may not seal, a datagram too long for the network here, or the
    /// operating system refused.
    pub fn send_probe_to(
        &self,
        peer: PeerSlot,
        id: u64,
        remote: SocketAddr,
        kind: ProbeKind,
        len: usize,
    ) -> Result<(), SendError> {
        self.probe(peer, id, (None, remote), kind, len)
    }

    /// [`Self::send_probe_to`] by a socket that was added with [`Self::add_socket`].
    ///
    /// # Errors
    /// As [`Self::send_probe_to`], also when there is no such socket.
    pub fn send_probe_from(
        &self,
        socket: SocketId,
        peer: PeerSlot,
        id: u64,
        remote: SocketAddr,
        kind: ProbeKind,
        len: usize,
    ) -> Result<(), SendError> {
        self.probe(peer, id, (Some(socket), remote), kind, len)
    }

    /// Sends a check that lives for `hops` routers and no longer: enough to pass our own NAT, which then lets the peer in,
    /// and too little to reach the peer's, which might take a packet that comes too early amiss. `socket` is one that was
    /// added, or none for the one that datagrams to `remote` leave by.
    ///
    /// # Errors
    /// As [`Self::send_probe_to`], also for a way.
    pub fn send_opener(
        &self,
        peer: PeerSlot,
        socket: Option<SocketId>,
        remote: SocketAddr,
        hops: u8,
    ) -> Result<(), SendError> {
        let session = self.active(peer).ok_or(SendError::NoSession)?;
        let now = clock::now();
        // Should it arrive after all, its answer is to nobody's question.
        let probe = Probe { kind: inner::ProbeKind::Check, id: 0 };
        let datagram = self.shared.seal_probe(&session, probe, 0, now).ok_or(SendError::Refused)?;
        self.shared.underlay.send_opener(socket, remote, &datagram, hops)?;
        session.peer.tx.add(Run { bytes: datagram.len() as u64, packets: 1, data: false }, self.shared.start, now);
        Ok(())
    }

    /// Tells the peer that a session is over, and why: a close code of the link, which sleeps. The session itself stays until
    /// it is removed.
    ///
    /// # Errors
    /// As [`Self::send_probe`].
    pub fn send_end(&self, id: SessionId, reason: u8) -> Result<(), SendError> {
        let session = self.session(id).ok_or(SendError::NoSession)?;
        let path = session.peer.path().ok_or(SendError::NoSession)?;
        let now = clock::now();
        let word = End { reason }.encode();
        let datagram = self.shared.seal_word(&session, word, 0, now).ok_or(SendError::Refused)?;
        self.shared.underlay.send_one(path.remote, path.local, &datagram)?;
        session.peer.tx.add(Run { bytes: datagram.len() as u64, packets: 1, data: false }, self.shared.start, now);
        Ok(())
    }

    fn probe(
        &self,
        peer: PeerSlot,
        id: u64,
        (socket, remote): (Option<SocketId>, SocketAddr),
        kind: ProbeKind,
        len: usize,
    ) -> Result<(), SendError> {
        if len > MAX_PROBE {
            return Err(SendError::TooLong);
        }
        let session = self.active(peer).ok_or(SendError::NoSession)?;
        let now = clock::now();
        let probe = Probe { kind: kind.into(), id };
        let datagram = self.shared.seal_probe(&session, probe, len, now).ok_or(SendError::Refused)?;
        match socket {
            Some(socket) => self.shared.underlay.send_from(socket, remote, &datagram)?,
            None => {
                let path = session.peer.path().filter(|path| path.remote == remote);
                self.shared.underlay.send_one(remote, path.and_then(|path| path.local), &datagram)?;
            }
        }
        session.peer.tx.add(Run { bytes: datagram.len() as u64, packets: 1, data: false }, self.shared.start, now);
        Ok(())
    }

    /// Sets a way, in the place of the one of this number: from now its [address](WayId::address) can be sent to.
    ///
    /// # Errors
    /// [`WayError`]; nothing is changed then.
    pub fn set_way(&self, id: WayId, way: Way) -> Result<(), WayError> {
        self.change_ways(|ways| ways.set_way(id, way))
    }

    /// Removes a way; `false` when there is none of that number. Paths that lead over it lead nowhere from now.
    pub fn remove_way(&self, id: WayId) -> bool {
        self.change_ways(|ways| ways.remove_way(id))
    }

    /// Sets what carries every way of a group that has not been set by itself, in the place of what did before; `None`: they
    /// lead nowhere from now.
    pub fn set_group(&self, id: GroupId, group: Option<Arc<dyn CarrierGroup>>) {
        self.change_ways(|ways| ways.set_group(id, group));
    }

    /// Hands in datagrams that a carrier received, each whole as a peer sent it; gives how many there was room for. The
    /// others are dropped and counted, and so are all when the way is not a carried one.
    pub fn inject(&self, id: WayId, datagrams: &[&[u8]]) -> usize {
        let queue = usize::try_from(id.0 % self.shared.injected.len() as u64).unwrap_or(0);
        let known = self.shared.underlay.ways().is_carried(id);
        let taken = if known { self.shared.injected[queue].push(id, datagrams) } else { 0 };
        self.shared.inbound_wakes[queue].wake();
        self.shared.drops().count_many(DropReason::CarrierOverflow, (datagrams.len() - taken) as u64);
        taken
    }

    /// The longest datagram that a carried way takes; `None` for every other address, and where only the network under the
    /// carrier knows.
    pub fn max_datagram(&self, remote: SocketAddr) -> Option<usize> {
        match self.shared.underlay.ways().direct(remote)? {
            By::Carrier(carrier) => carrier.max_datagram(),
            By::Udp(_) => None,
        }
    }

    /// Relays what comes on `channel` (56 bits), in the place of what was to be done with it before; the counters of
    /// the channel go on.
    ///
    /// # Errors
    /// [`WayError`]; nothing is changed then.
    pub fn set_forward(&self, channel: u64, forward: Forward) -> Result<(), WayError> {
        self.change_ways(|ways| ways.set_forward(channel, forward))
    }

    /// Relays nothing more that comes on `channel`; `false` when nothing was.
    pub fn remove_forward(&self, channel: u64) -> bool {
        self.change_ways(|ways| ways.remove_forward(channel))
    }

    /// What went through a forward, `None` when there is none of that channel.
    pub fn forward_stats(&self, channel: u64) -> Option<ForwardStats> {
        Some(self.shared.underlay.ways().forward(channel)?.stats(self.shared.start))
    }

    /// Adds a bound socket that is received on like the others. A remote address from which something authenticated comes
    /// on it is sent to by it from then on, packets and QUIC alike, until that happens on another socket.
    ///
    /// # Errors
    /// The socket does not take an option, or there are 512 such sockets (`QuotaExceeded`).
    pub fn add_socket(&self, socket: UdpSocket) -> io::Result<SocketId> {
        let id = self.shared.underlay.sockets.extra.add(socket)?;
        self.shared.wake_inbound();
        Ok(id)
    }

    /// Closes an added socket; what left by it leaves by the others. `false` when there is none of that number.
    pub fn remove_socket(&self, id: SocketId) -> bool {
        let removed = self.shared.underlay.sockets.extra.remove(id);
        self.shared.wake_inbound();
        removed
    }

    /// The added socket that packets to a remote address leave by; `None` for those the data plane began with.
    pub fn socket_towards(&self, remote: SocketAddr) -> Option<SocketId> {
        self.shared.underlay.sockets.extra.pin_of(remote)
    }

    fn change_ways<R>(&self, change: impl FnOnce(&mut Ways) -> R) -> R {
        self.shared.change(|_, tables| {
            let mut ways = Ways::clone(&tables.ways);
            let result = change(&mut ways);
            tables.ways = Arc::new(ways);
            result
        })
    }
}
