// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions in the state task: coming up, stepping their ratchet, being replaced, ending.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use pqvpn_crypto::{
    ratchet::machine::{EPOCH_HARD, RatchetAbort, RatchetOutput},
    schedule::Role,
};
use pqvpn_dataplane::{EpochError, PeerSlot, SessionId};
use pqvpn_wire::control::{CloseReason, Message};

use super::{Live, State, choice};
use crate::{
    handle::PingReply,
    session::{Established, LinkEvent, SessionError},
    snapshot::NodeState,
};

/// Age of an epoch at which a session that only probes keep alive steps too: [`EPOCH_HARD`] would end it.
const STEP_AT_LEAST: Duration = Duration::from_secs(EPOCH_HARD.as_secs() / 2);

impl State {
    pub(super) fn on_link_event(&mut self, now: Instant, event: LinkEvent) {
        match event {
            LinkEvent::Established(session) => self.on_established(now, *session),
            LinkEvent::DialFailed { slot, error } => self.on_dial_failed(now, slot, &error),
            LinkEvent::AcceptFailed { error } => {
                self.accept_failures += 1;
                tracing::debug!(%error, "incoming link refused or failed");
            }
            LinkEvent::Ratchet { session, bytes } => self.on_ratchet_message(now, session, &bytes),
            LinkEvent::Gone { session, error } => self.on_link_gone(now, session, &error),
        }
    }

    fn on_established(&mut self, now: Instant, made: Established) {
        let peer = &mut self.peers[made.slot as usize];
        if self.running != NodeState::Up || peer.quarantined {
            self.control.remove_session(made.id);
            let reason = if peer.quarantined { CloseReason::Ratchet } else { CloseReason::Shutdown };
            made.connection.close(reason.code(), reason.as_str());
            peer.life.on_dial_failed(now, true);
            return;
        }
        let remote = made.connection.remote();
        let why = match made.role {
            Role::Initiator if peer.endpoints.is_empty() && peer.last_remote != Some(remote) => {
                "its record in the DHT named this address"
            }
            Role::Initiator => "a configured endpoint or the last known address answered",
            Role::Responder => "the peer connected to us",
        };
        tracing::info!(peer = %peer.label(), dialed_by_us = made.role == Role::Initiator, aead = made.aead.name(), "session up");
        peer.last_error = None;
        peer.sessions.push(made.id);
        let handshake = made.connection.handshake_time();
        let live = Live {
            slot: made.slot,
            role: made.role,
            aead: made.aead,
            inner_mtu: made.inner_mtu,
            ratchet: made.ratchet,
            connection: made.connection,
            outbox: made.outbox,
            established: made.at,
            rekeyed: made.at,
            handshake,
            continuity_lost: made.continuity_lost,
        };
        if let Some(psk) = live.ratchet.resume_psk() {
            self.context.remember_psk(self.peers[made.slot as usize].id, psk);
        }
        self.live.insert(made.id, live);
        let kept = self.retire_all_but_one(made.slot);
        if kept == Some(made.id) {
            let peer = &mut self.peers[made.slot as usize];
            (peer.last_remote, peer.why) = (Some(remote), why.to_owned());
        } else if let Some(kept) = kept.and_then(|kept| self.live.get(&kept)) {
            // Installing the other one has moved the path.
            self.control.set_path(made.slot, kept.connection.remote());
        }
        let peer = &mut self.peers[made.slot as usize];
        peer.life.on_session_up(now);
        // A probe on a session that was just retired may be lost with it: every ping gets a new one.
        peer.pings.iter_mut().for_each(|ping| ping.probe = None);
        self.probe_for_pings(now, made.slot as usize);
    }

    /// Ends every session with a peer but the one both ends keep; gives that one.
    fn retire_all_but_one(&mut self, slot: PeerSlot) -> Option<SessionId> {
        let peer = &self.peers[slot as usize];
        let sessions = peer.sessions.iter().filter_map(|&id| Some((id, self.live.get(&id)?)));
        let kept = choice::kept(sessions.map(|(id, live)| (id, live.role, live.established)), self.own < peer.id);
        let retired: Vec<SessionId> = peer.sessions.iter().copied().filter(|&id| Some(id) != kept).collect();
        for id in retired {
            self.end_session(id, CloseReason::Duplicate);
        }
        kept
    }

    fn on_dial_failed(&mut self, now: Instant, slot: PeerSlot, error: &SessionError) {
        let peer = &mut self.peers[slot as usize];
        tracing::debug!(peer = %peer.label(), %error, "dial failed");
        peer.last_error = Some(error.to_string());
        peer.life.on_dial_failed(now, error.is_refusal());
        if error.is_refusal() {
            self.fail_pings(slot as usize, &error.to_string());
        }
    }

    fn on_link_gone(&mut self, now: Instant, session: SessionId, error: &SessionError) {
        let Some(live) = self.live.get(&session) else { return };
        let slot = live.slot as usize;
        tracing::info!(peer = %self.peers[slot].label(), %error, "session ended");
        self.forget_session(session);
        let peer = &mut self.peers[slot];
        let on_purpose = matches!(error, SessionError::Closed(_));
        peer.last_error = (!on_purpose).then(|| error.to_string());
        if peer.sessions.is_empty() {
            peer.life.on_session_gone(now);
        }
    }

    /// Ends every session with a peer.
    pub(super) fn close_peer(&mut self, slot: usize, reason: CloseReason) {
        for id in self.peers[slot].sessions.clone() {
            self.end_session(id, reason);
        }
    }

    pub(super) fn on_dead(&mut self, _now: Instant, slot: usize) {
        let peer = &mut self.peers[slot];
        tracing::info!(peer = %peer.label(), "no answer inside the tunnel, starting over");
        peer.last_error = Some("the peer stopped answering inside the tunnel".to_owned());
        self.close_peer(slot, CloseReason::Replaced);
    }

    /// Ends a session and its link; the other end is told why.
    fn end_session(&mut self, id: SessionId, reason: CloseReason) {
        if let Some(live) = self.forget_session(id) {
            live.connection.close(reason.code(), reason.as_str());
        }
    }

    fn forget_session(&mut self, id: SessionId) -> Option<Live> {
        let live = self.live.remove(&id)?;
        self.control.remove_session(id);
        self.peers[live.slot as usize].sessions.retain(|&other| other != id);
        Some(live)
    }

    /// The session may not be used any more: a new handshake; packets wait for it.
    pub(super) fn replace_session(&mut self, now: Instant, id: SessionId) {
        let Some(live) = self.live.get(&id) else { return };
        let slot = live.slot as usize;
        self.end_session(id, CloseReason::Replaced);
        if self.peers[slot].sessions.is_empty() {
            self.peers[slot].life.on_session_gone(now);
        }
        self.want(now, slot as PeerSlot);
    }

    /// The machine slept or is a revived copy: no old key may seal another packet (security.md 1.8, pitfall 4).
    pub(super) fn on_clock_jump(&mut self, now: Instant) {
        tracing::info!("the clocks jumped: every session starts over");
        for id in self.live.keys().copied().collect::<Vec<_>>() {
            self.replace_session(now, id);
        }
    }

    pub(super) fn want(&mut self, now: Instant, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot as usize) else { return };
        if self.running == NodeState::Up && !peer.quarantined {
            peer.life.want(now);
        }
    }

    pub(super) fn on_roamed(&mut self, slot: PeerSlot, from: SocketAddr, to: SocketAddr) {
        let Some(peer) = self.peers.get_mut(slot as usize) else { return };
        tracing::debug!(peer = %peer.label(), %from, %to, "roamed");
        peer.last_remote = Some(to);
        peer.why = "the peer moved here; an authenticated packet proved it".to_owned();
    }

    pub(super) fn on_probe_ack(&mut self, slot: PeerSlot, id: u64, from: SocketAddr, at: Instant) {
        let Some(peer) = self.peers.get_mut(slot as usize) else { return };
        let Some(rtt) = peer.life.on_probe_ack(id, at) else { return };
        if let (Some(srtt), Some(&session)) = (peer.life.rtt(), peer.sessions.last()) {
            // 3 x PTO with a PTO of twice the smoothed round trip; the session clamps it (security.md 1.7, PREV_KEEP).
            self.control.set_prev_keep(session, srtt * 6);
        }
        let Some(position) = peer.pings.iter().position(|ping| ping.probe == Some(id)) else { return };
        let ping = peer.pings.swap_remove(position);
        let reply = PingReply { peer_id: peer.id, name: peer.name.clone(), rtt, remote: from, why: peer.why.clone() };
        let _nobody_waits = ping.answer.send(Ok(reply));
    }

    // ---- ratchet ------------------------------------------------------------------------------------------------

    fn on_ratchet_message(&mut self, now: Instant, id: SessionId, bytes: &[u8]) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if let Err(abort) = live.ratchet.handle_message(now, bytes) {
            self.on_ratchet_abort(now, id, &abort);
        }
    }

    pub(super) fn on_epoch_seen(&mut self, now: Instant, id: SessionId, epoch: u32) {
        if let Some(live) = self.live.get_mut(&id) {
            live.ratchet.on_epoch_packet(now, epoch);
        }
    }

    pub(super) fn request_step(&mut self, now: Instant, id: SessionId) {
        if let Some(live) = self.live.get_mut(&id) {
            live.ratchet.request_step(now);
        }
    }

    /// Lets the ratchets look at the clock; a session that carried no data since its last step steps only when its epoch
    /// grows old.
    pub(super) fn step_ratchets(&mut self, now: Instant) {
        for live in self.live.values_mut() {
            let stats = self.control.peer_stats(live.slot);
            let used = stats.last_data_rx.max(stats.last_data_tx).is_some_and(|at| at > live.rekeyed);
            if used || now.saturating_duration_since(live.rekeyed) >= STEP_AT_LEAST {
                live.ratchet.note_traffic(now);
            }
            if live.ratchet.poll_timeout().is_some_and(|at| at <= now) {
                live.ratchet.handle_timeout(now);
            }
        }
        self.control.retire_keys();
    }

    pub(super) fn drive_ratchets(&mut self, now: Instant) {
        for id in self.live.keys().copied().collect::<Vec<_>>() {
            while let Some(output) = self.live.get_mut(&id).and_then(|live| live.ratchet.poll_output()) {
                self.on_ratchet_output(now, id, output);
            }
        }
    }

    fn on_ratchet_output(&mut self, now: Instant, id: SessionId, output: RatchetOutput) {
        let Some(live) = self.live.get_mut(&id) else { return };
        match output {
            RatchetOutput::Send(bytes) => {
                if live.outbox.try_send(Message::Ratchet(bytes)).is_err() {
                    tracing::debug!(session = id.0, "control link is slow; the ratchet repeats its message");
                }
            }
            RatchetOutput::StageRx(chain) => {
                // The other end may complete the step without our hearing of it: both secrets are kept.
                if let Some(psk) = live.ratchet.staged_resume_psk() {
                    self.context.remember_psk(self.peers[live.slot as usize].id, psk);
                }
                if let Err(error) = self.control.stage_rx(id, chain) {
                    self.on_keys_refused(now, id, &error);
                }
            }
            RatchetOutput::StartTx(chain) => {
                live.rekeyed = now;
                tracing::debug!(session = id.0, epoch = chain.epoch(), "ratchet stepped");
                if let Some(psk) = live.ratchet.resume_psk() {
                    self.context.remember_psk(self.peers[live.slot as usize].id, psk);
                }
                if let Err(error) = self.control.start_tx(id, chain) {
                    self.on_keys_refused(now, id, &error);
                }
            }
            RatchetOutput::Reconnect => self.replace_session(now, id),
            RatchetOutput::Abort(abort) => self.on_ratchet_abort(now, id, &abort),
        }
    }

    /// Ratchet and data plane disagree about the epoch: nothing to mend, the session starts over.
    fn on_keys_refused(&mut self, now: Instant, id: SessionId, error: &EpochError) {
        tracing::error!(session = id.0, %error, "the data plane refused an epoch");
        self.replace_session(now, id);
    }

    /// A failed confirmation is an attack, not noise (security.md 1.4): end it, start over with fresh signatures; the
    /// second time within a day the peer is quarantined.
    fn on_ratchet_abort(&mut self, now: Instant, id: SessionId, abort: &RatchetAbort) {
        let Some(live) = self.live.get(&id) else { return };
        let slot = live.slot as usize;
        tracing::warn!(peer = %self.peers[slot].label(), %abort, "ratchet aborted");
        self.end_session(id, CloseReason::Ratchet);
        self.context.forget_psks(self.peers[slot].id);
        let peer = &mut self.peers[slot];
        peer.last_error = Some(abort.to_string());
        peer.on_ratchet_abort(now);
        if peer.quarantined {
            self.context.door.quarantine(peer.id);
        }
        if peer.sessions.is_empty() {
            peer.life.on_session_gone(now);
        }
    }
}
