// SPDX-License-Identifier: MIT OR Apache-2.0
//! Path sizes in the state task: what the search is told, its probes, and what the data plane learns of it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use pqvpn_dataplane::{PeerSlot, ProbeKind, SendError};

use super::State;

/// How often the data plane hears again that a path is narrow; it forgets that after three minutes.
const TELL_AGAIN: Duration = Duration::from_secs(60);

impl State {
    /// Packets to a peer take this path: how long they may be is sought there. `vouched`: more than a packet of the peer,
    /// whose source may be forged, says that it is there.
    pub(super) fn search_size(&mut self, now: Instant, slot: PeerSlot, remote: SocketAddr, vouched: bool) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.quality.on_path(remote);
        if peer.size_told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_AGAIN)
            && let Some(size) = peer.mtu.narrow().filter(|_| peer.mtu.remote() == Some(remote))
        {
            peer.size_told = Some(now);
            self.control.set_path_size(slot, remote, size);
        }
        let Some(live) = peer.sessions.last().and_then(|id| self.live.get(id)) else { return };
        peer.mtu.on_path(now, remote, live.inner_mtu, vouched);
        self.act_on_size(now, slot);
    }

    pub(super) fn on_long_in_use(&mut self, now: Instant, slot: PeerSlot) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.mtu.on_long_in_use(now);
        }
    }

    pub(super) fn on_too_long(&mut self, now: Instant, slot: PeerSlot) {
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.mtu.on_too_long(now);
        }
    }

    /// Sends the probes of a peer's search and tells the data plane what came of it.
    pub(super) fn act_on_size(&mut self, now: Instant, slot: PeerSlot) {
        let Some(peer) = self.peers.timed().peek_mut(&slot) else { return };
        while let Some(left) = peer.mtu.poll_left() {
            self.control.forget_path_size(left);
        }
        while let Some(probe) = peer.mtu.poll_probe() {
            match self.control.send_probe_to(slot, probe.id, probe.to, ProbeKind::Check, probe.len.into()) {
                Ok(()) => {}
                Err(SendError::TooLong) => peer.mtu.on_unsent(now, probe.id),
                Err(error) => tracing::trace!(%error, to = %probe.to, len = probe.len, "size probe not sent"),
            }
        }
        if let Some(size) = peer.mtu.poll_size(self.inner_mtu) {
            tracing::debug!(peer = %peer.label(), carry = size.carry, advise = size.advise, "path size");
            if let Some(remote) = peer.mtu.remote() {
                self.control.set_path_size(slot, remote, size);
            }
        }
    }

    /// The last session with a peer has gone.
    pub(super) fn forget_size(&mut self, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        peer.mtu.on_gone();
        while let Some(left) = peer.mtu.poll_left() {
            self.control.forget_path_size(left);
        }
    }
}
