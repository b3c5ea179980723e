// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions in the state task: coming up, being replaced, ending.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::{PeerSlot, SessionId};
use pqvpn_wire::control::CloseReason;

use super::{Live, LiveLink, State, choice, peer::Ping};
use crate::{
    carrier::is_by_member,
    clock::Reading,
    entropy,
    handle::PingReply,
    link::{LinkError, PeerReason},
    path::is_relayed,
    session::{Established, LinkEvent, SessionError},
    sleep::{LinkEnd, Sleep},
    snapshot::NodeState,
};

/// A peer that ends so many sessions in a row for one we do not have, none much later than the one before, has them with
/// another. One may be a dial of ours that came to nothing on this side only.
const TAKEN_OFTEN: u32 = 2;
const TAKEN_WITHIN: Duration = Duration::from_secs(120);

impl State {
    pub(super) fn on_link_event(&mut self, now: Instant, event: LinkEvent) {
        // While there is no session nothing else notices that the machine slept.
        self.look_at_clocks(now);
        match event {
            LinkEvent::Established(session) => self.on_established(now, *session),
            LinkEvent::DialFailed { slot, error } => self.on_dial_failed(now, slot, &error),
            LinkEvent::AcceptFailed { error } => {
                // One that its dialer gave up for another is not refused.
                self.refused.links += u64::from(!matches!(error, SessionError::Closed(CloseReason::Duplicate)));
                tracing::debug!(%error, "incoming link refused or failed");
            }
            LinkEvent::Ratchet { session, bytes } => self.on_ratchet_message(now, session, &bytes),
            LinkEvent::Gone { session, error } => self.on_link_gone(now, session, &error),
            LinkEvent::Twin { remote } => self.on_twin(remote),
            LinkEvent::Candidates { session, candidates } => self.on_candidates(now, session, &candidates),
            LinkEvent::Sleep { session } => self.on_sleep_proposed(now, session),
            LinkEvent::WakeFailed { session, error, proven } => {
                self.on_wake_failed(now, session, &error, proven);
            }
            LinkEvent::Way { slot, way } => self.on_way(now, slot, way),
        }
    }

    fn on_established(&mut self, now: Instant, made: Established) {
        let (slot, id) = (made.slot, made.id);
        let kept = self.context.keep(id, made.connection.peer());
        let Some(peer) = self.peers.get_mut(slot) else {
            // Taken out while the session was made: the data plane has let go of it already.
            let reason = CloseReason::NotAdmitted;
            return made.connection.close(reason.code(), reason.as_str());
        };
        if let Err(shut) = kept {
            self.control.remove_session(id);
            self.context.on_session_over(peer.id, id);
            let (reason, error) = (shut.reason(), SessionError::from(shut));
            tracing::debug!(peer = %peer.label(), %error, "session not kept");
            made.connection.close(reason.code(), reason.as_str());
            peer.life.on_dial_failed(now, error.is_refusal());
            return;
        }
        if self.live.is_empty() {
            // Nobody looked at the clocks while there was no session: what they did then is not about this one.
            self.clocks = made.clocks;
        }
        let remote = made.connection.remote();
        let why = match made.role {
            _ if is_by_member(remote) => peer.paths.why_relayed(),
            Role::Initiator if peer.endpoints.is_empty() && peer.last_remote != Some(remote) => {
                "its record in the DHT named this address"
            }
            Role::Initiator if !peer.pinned => "an address its network told, or its last one, answered",
            Role::Initiator => "a configured endpoint or the last known address answered",
            Role::Responder => "the peer connected to us",
        };
        let dialed_by_us = made.role == Role::Initiator;
        if peer.sessions.iter().any(|id| self.live.get(id).is_some_and(|live| live.link.is_none())) {
            tracing::debug!(peer = %peer.label(), dialed_by_us, "session renewed, its link slept");
        } else {
            tracing::info!(peer = %peer.label(), dialed_by_us, aead = made.aead.name(), "session up");
        }
        peer.last_error = None;
        peer.counts.sessions += 1;
        if let Some(psk) = made.ratchet.resume_psk() {
            self.context.remember_psk(peer.id, psk);
        }
        let mut live = Live::new(made, self.context.rekey.as_duration());
        let before = peer.sessions.iter().rev().find_map(|id| self.live.get(id));
        if let Some(before) = before {
            live.sleep.go_on(before.sleep.attempts());
        }
        peer.sessions.push(id);
        self.live.insert(id, live);
        let kept = self.retire_all_but_one(now, slot);
        if let Some(kept) = kept.filter(|&kept| kept != id).and_then(|kept| self.live.get(&kept)) {
            // Installing the other one has moved the path; it need not have been where the link of this one is.
            let known = self.peers.get(slot).and_then(|peer| peer.paths.current());
            self.control.set_path(slot, known.unwrap_or_else(|| kept.remote()));
        }
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if kept == Some(id) {
            (peer.last_remote, peer.why) = (Some(remote), why.to_owned());
            peer.paths.on_session(now, remote);
        }
        peer.life.on_session_up(now);
        // A probe on a session that was just retired may be lost with it: every ping gets a new one.
        peer.pings.iter_mut().for_each(|ping| ping.probe = None);
        self.probe_for_pings(now, slot);
        if kept == Some(id) {
            self.search_size(now, slot, remote, true);
        }
    }

    /// Ends every session with a peer but the one both ends keep; gives that one.
    fn retire_all_but_one(&mut self, now: Instant, slot: PeerSlot) -> Option<SessionId> {
        let peer = self.peers.get(slot)?;
        let sessions = peer.sessions.iter().filter_map(|&id| Some((id, self.live.get(&id)?)));
        let sessions = sessions.map(|(id, live)| (id, live.role, live.established, live.link.is_none()));
        let kept = choice::kept(sessions, self.own < peer.id);
        let retired: Vec<SessionId> = peer.sessions.iter().copied().filter(|&id| Some(id) != kept).collect();
        retired.into_iter().for_each(|id| self.retire(now, id));
        kept
    }

    fn on_dial_failed(&mut self, now: Instant, slot: PeerSlot, error: &SessionError) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        tracing::debug!(peer = %peer.label(), %error, "dial failed");
        // Another came meanwhile: nothing has failed.
        if !matches!(error, SessionError::NotWanted) {
            peer.last_error = Some(error.to_string());
            peer.counts.dials_failed += 1;
        }
        if !peer.pinned && matches!(error, SessionError::Link(LinkError::RefusedByPeer(PeerReason::NotAccepted))) {
            peer.life.on_dial_premature(now);
        } else {
            peer.life.on_dial_failed(now, error.is_refusal());
        }
        if error.is_refusal() {
            self.fail_pings(slot, &error.to_string());
        }
    }

    fn on_link_gone(&mut self, now: Instant, session: SessionId, error: &SessionError) {
        let Some(live) = self.live.get(&session).filter(|live| live.link.is_some()) else { return };
        let (end, seen) = (error.link_end(), self.seen_of(live));
        let Some(live) = self.live.get_mut(&session) else { return };
        if !live.sleep.on_link_end(end) {
            return self.on_session_over(now, session, error);
        }
        // A step of the ratchet is lost with the link; and what ended without a word while it was in use may have ended because
        // the peer was started again.
        let steps = live.link.as_ref().is_some_and(|link| !link.ratchet.is_at_rest());
        let is_needed = steps || end == LinkEnd::Silent && live.sleep.is_used(now, seen);
        self.fall_asleep(session);
        if is_needed {
            self.want_link(now, session);
        }
    }

    /// The peer has ended a session, or it cannot go on.
    pub(super) fn on_session_over(&mut self, now: Instant, session: SessionId, error: &SessionError) {
        let Some(slot) = self.live.get(&session).map(|live| live.slot) else { return };
        tracing::info!(peer = %self.peers.label(slot), %error, "session ended");
        self.forget_session(session);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let on_purpose = matches!(error, SessionError::Closed(_));
        peer.last_error = (!on_purpose).then(|| error.to_string());
        if !peer.sessions.is_empty() {
            return;
        }
        let taken = matches!(error, SessionError::Closed(CloseReason::Duplicate)) && peer.pings.is_empty();
        if !taken {
            return peer.life.on_session_gone(now);
        }
        peer.life.on_session_taken(now);
        let before = peer.taken.filter(|(_, at)| now.saturating_duration_since(*at) < TAKEN_WITHIN);
        let times = before.map_or(0, |(times, _)| times).saturating_add(1);
        peer.taken = Some((times, now));
        if times >= TAKEN_OFTEN {
            if self.taken_over.is_none() {
                tracing::warn!(peer = %self.peers.label(slot), "sessions go to another node with our identity, so it seems");
            }
            self.taken_over = Some(now);
        }
    }

    /// Ends every session with a peer.
    pub(super) fn close_peer(&mut self, slot: PeerSlot, reason: CloseReason) {
        for id in self.peers.get(slot).map(|peer| peer.sessions.clone()).unwrap_or_default() {
            self.end_session(id, reason);
        }
    }

    pub(super) fn on_dead(&mut self, _now: Instant, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        tracing::info!(peer = %peer.label(), "no answer inside the tunnel, starting over");
        peer.last_error = Some("the peer stopped answering inside the tunnel".to_owned());
        self.close_peer(slot, CloseReason::Replaced);
    }

    /// Ends a session and its link; the other end is told why, inside the tunnel where the link sleeps or may do so there.
    pub(super) fn end_session(&mut self, id: SessionId, reason: CloseReason) {
        let Some(live) = self.live.get(&id) else { return };
        if live.ends_inside() {
            self.send_end(id, reason);
        }
        live.close(reason);
        self.forget_session(id);
    }

    pub(super) fn forget_session(&mut self, id: SessionId) -> Option<Live> {
        let mut live = self.live.remove(&id)?;
        live.end_waking(false);
        self.rounds.gone.add_of(&live);
        if self.peers.get(live.slot).is_none_or(|peer| peer.sessions == [id]) {
            // What it has replaced goes with it.
            self.forget_leaving(live.slot);
        }
        self.control.remove_session(id);
        if let Some(peer) = self.peers.get_mut(live.slot) {
            self.context.on_session_over(peer.id, id);
            peer.sessions.retain(|&other| other != id);
            if peer.sessions.is_empty() {
                peer.paths.on_gone();
                self.forget_size(live.slot);
            }
        }
        Some(live)
    }

    /// The session may not be used any more: a new handshake; packets wait for it.
    pub(super) fn replace_session(&mut self, now: Instant, id: SessionId) {
        let Some(live) = self.live.get(&id) else { return };
        let slot = live.slot;
        self.end_session(id, CloseReason::Replaced);
        self.start_over(now, slot);
    }

    /// A session of the peer has ended for which there shall be another.
    fn start_over(&mut self, now: Instant, slot: PeerSlot) {
        if let Some(peer) = self.peers.get_mut(slot).filter(|peer| peer.sessions.is_empty()) {
            peer.life.on_session_gone(now);
        }
        self.want(now, slot);
    }

    /// Notices that the clocks have jumped.
    pub(super) fn look_at_clocks(&mut self, now: Instant) {
        let clocks = Reading::take();
        if clocks.jumped_since(&self.clocks) {
            self.on_clock_jump(now);
        }
        self.clocks = clocks;
        self.context.door.set_clocks(clocks);
    }

    /// The machine slept or is a revived copy: no old key may seal another packet (security.md 1.8, pitfall 4).
    pub(super) fn on_clock_jump(&mut self, now: Instant) {
        tracing::info!("the clocks jumped: every session starts over");
        self.hear_anew(now);
        // Who slept may wake up somewhere else.
        self.portmap.nudge();
        self.reflexive.forget();
        for id in self.live.keys() {
            let Some(live) = self.live.get(&id) else { continue };
            // Inside the tunnel not even the word that it is over: to say it would be to seal another packet.
            let slot = live.slot;
            live.close(CloseReason::Replaced);
            self.forget_session(id);
            self.start_over(now, slot);
        }
        // Whoever could not be reached before may be by now.
        self.peers.iter_mut().for_each(|peer| peer.life.on_obstacle_gone(now));
    }

    /// Sessions with members wait until their networks have been heard: somebody may have been put out meanwhile, and who was is
    /// faster than the word of it.
    fn hear_anew(&mut self, now: Instant) {
        self.downs += 1;
        self.forget_who_is_ready(now);
        self.context.end_unkept();
        self.rounds.untold.networks = true;
        self.tell_discovery();
    }

    /// Another node has our identity: sessions and addresses would go back and forth between the two.
    fn on_twin(&mut self, remote: SocketAddr) {
        let before = self.twins.map_or(0, |(count, _)| count);
        if before == 0 {
            tracing::warn!(%remote, "another node runs with this node's identity");
        }
        self.twins = Some((before + 1, remote));
    }

    pub(super) fn want(&mut self, now: Instant, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if self.running == NodeState::Up && !peer.quarantined {
            peer.life.want(now);
        }
    }

    pub(super) fn on_roamed(&mut self, now: Instant, slot: PeerSlot, from: SocketAddr, to: SocketAddr) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        tracing::debug!(peer = %peer.label(), %from, %to, "roamed");
        self.carriers.prove(now, to);
        peer.last_remote = Some(to);
        peer.paths.on_path(now, to);
        if peer.paths.reachable().is_none() {
            peer.life.probe(now);
        }
        peer.why = match (is_relayed(from), is_by_member(to)) {
            (_, true) => peer.paths.why_relayed(),
            (true, false) => "both ends sent to each other at once and met",
            (false, false) => "the peer moved here; an authenticated packet proved it",
        }
        .to_owned();
        self.search_size(now, slot, to, false);
    }

    /// An authenticated packet came from where packets do not go.
    pub(super) fn on_heard(&mut self, now: Instant, slot: PeerSlot, from: SocketAddr) {
        self.carriers.prove(now, from);
        if self.is_inside(from.ip()) {
            self.refused.candidates += 1;
            return;
        }
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.paths.on_heard(now, from);
        }
    }

    pub(super) fn on_probe_ack(&mut self, now: Instant, slot: PeerSlot, id: u64, from: SocketAddr, at: Instant) {
        self.carriers.on_udp(now, from);
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let Some(rtt) = peer.life.on_probe_ack(id, at) else {
            // Authentic, but not ours, or given up long ago.
            let stray = !peer.mtu.on_ack(now, id, from, at) && peer.paths.on_ack(now, id, from, at).is_none();
            self.refused.answers += u64::from(stray);
            return;
        };
        peer.quality.on_rtt(from, rtt);
        peer.paths.on_alive(from);
        if let (Some(srtt), Some(&session)) = (peer.life.rtt(), peer.sessions.last()) {
            // 3 x PTO with a PTO of twice the smoothed round trip; the session clamps it (security.md 1.7, PREV_KEEP).
            self.control.set_prev_keep(session, srtt * 6);
        }
        // The probe of a ping may be lost; those after it are as good.
        let answers = |ping: &Ping| ping.probe.is_some_and(|probe| id.wrapping_sub(probe) < 1 << 63);
        let pings: Vec<Ping> = peer.pings.extract_if(.., |ping| answers(ping)).collect();
        if pings.is_empty() {
            return;
        }
        let (peer_id, name) = (peer.id, peer.name.clone());
        let why = self.peers.get(slot).map(|peer| self.why(now, peer, from)).unwrap_or_default();
        let (kind, remote, via) = self.seen_path(from);
        let reply = PingReply { peer_id, name, rtt, kind, remote, via, why };
        for ping in pings {
            let _nobody_waits = ping.answer.send(Ok(reply.clone()));
        }
    }
}

impl Live {
    fn new(made: Established, epoch_time: Duration) -> Self {
        let Established { slot, role, aead, inner_mtu, continuity_lost, ratchet, connection, outbox, at, .. } = made;
        Self {
            slot,
            role,
            aead,
            inner_mtu,
            handshake: connection.handshake_time(),
            remote: connection.remote(),
            link: Some(LiveLink { ratchet, connection, outbox }),
            sleep: Sleep::new(role, at, epoch_time, entropy::u64()),
            waking: None,
            established: at,
            rekeyed: at,
            continuity_lost,
        }
    }

    /// Whether the peer has to be told inside the tunnel that the session is over.
    pub(super) fn ends_inside(&self) -> bool {
        self.link.is_none() || self.sleep.is_unsure()
    }

    /// Closes the link, if there is one.
    pub(super) fn close(&self, reason: CloseReason) {
        if let Some(link) = &self.link {
            link.connection.close(reason.code(), reason.as_str());
        }
    }

    /// Where the link leads, or led when it fell asleep.
    pub(super) fn remote(&self) -> SocketAddr {
        self.link.as_ref().map_or(self.remote, |link| link.connection.remote())
    }
}
