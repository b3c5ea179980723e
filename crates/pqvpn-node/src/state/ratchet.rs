// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ratchets of the sessions in the state task: stepping, staging, starting epochs, failing.

use std::time::Instant;

use pqvpn_crypto::{
    ratchet::machine::{RatchetAbort, RatchetOutput},
    schedule::Psk,
};
use pqvpn_dataplane::{EpochError, PeerSlot, SessionId};
use pqvpn_wire::control::{CloseReason, Message};

use super::{Live, State, peers::Peers};
use crate::{session::LinkContext, sleep::RENEW_AT_LEAST};

impl State {
    pub(super) fn on_ratchet_message(&mut self, now: Instant, id: SessionId, bytes: &[u8]) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let Some(link) = &mut live.link else { return };
        live.sleep.on_heard(now);
        if let Err(abort) = link.ratchet.handle_message(now, bytes) {
            self.on_ratchet_abort(now, id, &abort);
        }
    }

    pub(super) fn on_epoch_seen(&mut self, now: Instant, id: SessionId, epoch: u32) {
        if let Some(link) = self.live.get_mut(&id).and_then(|live| live.link.as_mut()) {
            link.ratchet.on_epoch_packet(now, epoch);
        }
    }

    pub(super) fn request_step(&mut self, now: Instant, id: SessionId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        match &mut live.link {
            Some(link) => link.ratchet.request_step(now),
            None => self.want_link(now, id),
        }
    }

    /// Lets a ratchet look at the clock; a session that carried no data since its last step steps only when its epoch grows
    /// old.
    pub(super) fn step_ratchet(&mut self, now: Instant, id: SessionId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let Some(link) = &mut live.link else { return };
        let seen = self.peers.get(live.slot).map(|peer| peer.seen).unwrap_or_default();
        let used = seen.last_data_rx.max(seen.last_data_tx).is_some_and(|at| at > live.rekeyed);
        if used || now.saturating_duration_since(live.rekeyed) >= RENEW_AT_LEAST {
            link.ratchet.note_traffic(now);
        }
        if link.ratchet.poll_timeout().is_some_and(|at| at <= now) {
            link.ratchet.handle_timeout(now);
        }
    }

    pub(super) fn drive_ratchet(&mut self, now: Instant, id: SessionId) {
        let next = |live: &mut Live| live.link.as_mut()?.ratchet.poll_output();
        while let Some(output) = self.live.peek_mut(&id).and_then(next) {
            self.on_ratchet_output(now, id, output);
        }
    }

    fn on_ratchet_output(&mut self, now: Instant, id: SessionId, output: RatchetOutput) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let Some(link) = &live.link else { return };
        match output {
            RatchetOutput::Send(bytes) => {
                live.sleep.on_spoken(now);
                if link.outbox.try_send(Message::Ratchet(bytes)).is_err() {
                    tracing::debug!(session = id.0, "control link is slow; the ratchet repeats its message");
                }
            }
            RatchetOutput::StageRx(chain) => {
                // The other end may complete the step without our hearing of it: both secrets are kept.
                if let Some(psk) = link.ratchet.staged_resume_psk() {
                    remember(&self.context, &self.peers, live.slot, psk);
                }
                if let Err(error) = self.control.stage_rx(id, chain) {
                    self.on_keys_refused(now, id, &error);
                }
            }
            RatchetOutput::StartTx(chain) => {
                live.rekeyed = now;
                if let Some(peer) = self.peers.get_mut(live.slot) {
                    peer.counts.rekeys += 1;
                }
                tracing::debug!(session = id.0, epoch = chain.epoch(), "ratchet stepped");
                if let Some(psk) = link.ratchet.resume_psk() {
                    remember(&self.context, &self.peers, live.slot, psk);
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
        let slot = live.slot;
        tracing::warn!(peer = %self.peers.label(slot), %abort, "ratchet aborted");
        self.end_session(id, CloseReason::Ratchet);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        self.context.forget_psks(peer.id);
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

/// Keeps a resumption secret of a peer that is still one.
fn remember(context: &LinkContext, peers: &Peers, slot: PeerSlot, psk: Psk) {
    if let Some(peer) = peers.get(slot) {
        context.remember_psk(peer.id, psk);
    }
}
