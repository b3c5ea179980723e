// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sleeping links in the state task: proposals, agreement, waking, and what is said without a link.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_dataplane::{PeerSlot, SessionId, give_back_free_pages};
use pqvpn_wire::control::{CloseReason, Message, SLEEP_VERSION};

use super::{Live, State, Waking};
use crate::{
    blocking::spawn,
    clock,
    path::is_relayed,
    session::{self, SessionError, Wanted},
    sleep::{Action, Seen},
};

/// A handshake that is to wake a link and is not done after this may be one with a peer that was started again meanwhile.
const WAKE_HANGS: Duration = Duration::from_secs(3);
/// From so many links on that fell asleep or ended their memory is given back, this long after the last: QUIC says goodbye.
const MANY: usize = 32;
const SETTLES: Duration = Duration::from_secs(3);
/// But not while data flowed so lately; unless links have waited for so long, as on a hub that somebody always uses.
const QUIET: Duration = Duration::from_secs(2);
const WAITS: Duration = Duration::from_secs(60);

/// Links that fell asleep or ended and whose memory was not given back yet.
#[derive(Debug, Default)]
pub(super) struct Gone {
    links: usize,
    looked: Option<Looked>,
}

/// When it was seen that links are gone: at first, and that there are more.
#[derive(Debug, Clone, Copy)]
struct Looked {
    links: usize,
    first: Instant,
    last: Instant,
}

impl Gone {
    /// That of this session, if it has one.
    pub(super) fn add_of(&mut self, live: &Live) {
        self.links += usize::from(live.link.is_some());
    }

    /// Whether there are any.
    pub(super) const fn is_any(&self) -> bool {
        self.links > 0
    }

    /// Whether the memory of many is to be given back: all of them have said goodbye and no data flows, `data` being the last, or
    /// they have waited for too long.
    fn may_give_back(&mut self, now: Instant, data: Option<Instant>) -> bool {
        if self.links == 0 {
            return false;
        }
        let looked = self.looked.get_or_insert(Looked { links: self.links, first: now, last: now });
        if looked.links < self.links {
            (looked.links, looked.last) = (self.links, now);
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        let is_quiet = since(looked.last) >= SETTLES && data.is_none_or(|at| since(at) >= QUIET);
        if !is_quiet && since(looked.first) < WAITS {
            return false;
        }
        std::mem::take(self).links >= MANY
    }
}

impl State {
    /// What a session did, for the decision whether its link sleeps.
    pub(super) fn seen_of(&self, live: &Live) -> Seen {
        let seen = self.peers.get(live.slot).map(|peer| peer.seen).unwrap_or_default();
        let data = seen.last_data_rx.max(seen.last_data_tx);
        Seen { data, heard: seen.last_rx, at_rest: self.is_at_rest(live), keyed: live.rekeyed }
    }

    /// Whether a session has nothing under way that its link is needed for. On a way its link is: it holds the way, and
    /// direct paths are sought over it.
    fn is_at_rest(&self, live: &Live) -> bool {
        let Some(peer) = self.peers.get(live.slot) else { return false };
        let keys_rest = live.link.as_ref().is_none_or(|link| link.ratchet.is_at_rest());
        let direct = !is_relayed(live.remote) && peer.paths.current().is_some_and(|path| !is_relayed(path));
        keys_rest && direct && peer.sessions.len() == 1 && peer.pings.is_empty() && peer.paths.is_at_rest()
    }

    /// Where many links fell asleep or ended their memory is given back, once the last has and nobody sends: packet threads that
    /// ask for memory would have to wait meanwhile.
    pub(super) fn give_back(&mut self, now: Instant) {
        let last = self.peers.iter().filter_map(|peer| peer.seen.last_data_rx.max(peer.seen.last_data_tx)).max();
        if self.rounds.gone.may_give_back(now, last) {
            tokio::task::spawn_blocking(|| {
                let begun = clock::now();
                give_back_free_pages();
                tracing::debug!(took = ?clock::now().saturating_duration_since(begun), "memory given back");
            });
        }
    }

    /// Lets a session look whether its link may sleep, or has to be woken.
    pub(super) fn look_at_sleep(&mut self, now: Instant, id: SessionId) {
        let Some(seen) = self.live.get(&id).map(|live| self.seen_of(live)) else { return };
        match self.live.get_mut(&id).and_then(|live| live.sleep.handle_timeout(now, seen)) {
            None => {}
            Some(Action::Propose) => self.propose_sleep(id),
            Some(Action::Wake) => self.wake(now, id),
            Some(Action::GiveUp) => {
                tracing::debug!(session = id.0, "the link could not be woken: starting over");
                self.replace_session(now, id);
            }
        }
    }

    fn propose_sleep(&self, id: SessionId) {
        let Some(link) = self.live.get(&id).and_then(|live| live.link.as_ref()) else { return };
        // Proposed again later.
        let _full = link.outbox.try_send(Message::Sleep { version: SLEEP_VERSION });
    }

    /// The peer would let the link sleep: it is closed if we do not need it either.
    pub(super) fn on_sleep_proposed(&mut self, now: Instant, id: SessionId) {
        let Some(seen) = self.live.get(&id).map(|live| self.seen_of(live)) else { return };
        let Some(live) = self.live.get_mut(&id) else { return };
        if !live.sleep.on_proposal(now, seen) {
            return;
        }
        if let Some(link) = &live.link {
            link.connection.close(CloseReason::Asleep.code(), CloseReason::Asleep.as_str());
        }
        self.fall_asleep(id);
    }

    /// A session goes on without its link. The root of its keys goes with the link: it makes no other epoch.
    pub(super) fn fall_asleep(&mut self, id: SessionId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        self.rounds.gone.add_of(live);
        live.remote = live.remote();
        live.link = None;
        tracing::debug!(session = id.0, "the link sleeps");
    }

    /// The link of a session is needed.
    pub(super) fn want_link(&mut self, now: Instant, id: SessionId) {
        let Some(seen) = self.live.get(&id).map(|live| self.seen_of(live)) else { return };
        let Some(live) = self.live.get_mut(&id) else { return };
        live.sleep.want(now);
        if live.sleep.handle_timeout(now, seen) == Some(Action::Wake) {
            self.wake(now, id);
        }
    }

    /// Makes a new link and session where the packets of this one go, once the peer has answered from there.
    fn wake(&mut self, now: Instant, id: SessionId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let Some(peer) = self.peers.get_mut(live.slot) else { return };
        let Some(at) = peer.paths.reachable() else {
            live.sleep.on_wake_failed(now);
            peer.life.probe(now);
            return;
        };
        tracing::debug!(peer = %peer.label(), %at, "waking the link");
        let wanted = Arc::new(Wanted::new());
        live.waking = Some(Waking { at, begun: now, wanted: Arc::clone(&wanted) });
        spawn(session::wake(Arc::clone(&self.context), live.slot, peer.id, at, id, wanted));
    }

    /// Whether a handshake with a peer is under way at an address because its newest session's link is to wake; one that has
    /// hung for a while does not count.
    pub(super) fn is_waking_at(&self, now: Instant, slot: PeerSlot, at: SocketAddr) -> bool {
        let newest = self.peers.get(slot).and_then(|peer| self.live.get(peer.sessions.last()?));
        let waking = newest.and_then(|live| live.waking.as_ref());
        waking.is_some_and(|waking| waking.at == at && now < waking.begun + WAKE_HANGS)
    }

    /// A refusal that is proven to be the peer's, or our own, ends the session; anything else is tried again: what breaks a
    /// handshake off may come from anybody on its path, and packets still flow.
    pub(super) fn on_wake_failed(&mut self, now: Instant, id: SessionId, error: &SessionError, proven: bool) {
        let Some(live) = self.live.get_mut(&id) else { return };
        tracing::debug!(session = id.0, %error, proven, "the link was not woken");
        live.sleep.on_wake_failed(now);
        live.waking = None;
        let slot = live.slot;
        if proven && error.is_refusal() {
            self.on_session_over(now, id, error);
            if let Some(peer) = self.peers.get_mut(slot) {
                peer.last_error = Some(error.to_string());
            }
        }
    }

    /// The peer has ended a session inside the tunnel, for whatever reason.
    pub(super) fn on_ended(&mut self, now: Instant, id: SessionId, code: u8) {
        let reason = CloseReason::from_code(code.into());
        let error = reason.map_or(SessionError::Ended(code), |reason| self.context.closed_because(reason));
        if let Some(link) = self.live.get(&id).and_then(|live| live.link.as_ref()) {
            let reason = reason.unwrap_or(CloseReason::Replaced);
            link.connection.close(reason.code(), reason.as_str());
        }
        self.on_session_over(now, id, &error);
    }

    /// Tells a peer that its sessions without a link are over, and those whose link it may not have any more.
    pub(super) fn say_end(&self, slot: PeerSlot, reason: CloseReason) {
        let Some(peer) = self.peers.get(slot) else { return };
        let ends_inside = |id: &&SessionId| self.live.get(id).is_some_and(Live::ends_inside);
        peer.sessions.iter().filter(ends_inside).for_each(|&id| self.send_end(id, reason));
    }

    /// Where that is lost the peer finds out by probes, as after any end without a word.
    pub(super) fn send_end(&self, id: SessionId, reason: CloseReason) {
        let Ok(code) = u8::try_from(reason.code()) else { return };
        if let Err(error) = self.control.send_end(id, code) {
            tracing::trace!(session = id.0, %error, "the end was not told");
        }
    }

    /// Ends a session for another one that both ends keep. It sends nothing more, but what was sent under it is still received:
    /// where both ends made one at once, the other end has used the one that is not kept until it knew.
    pub(super) fn retire(&mut self, now: Instant, id: SessionId) {
        let Some(mut live) = self.live.remove(&id) else { return };
        self.rounds.gone.add_of(&live);
        live.close(CloseReason::Duplicate);
        live.end_waking(true);
        if let Some(peer) = self.peers.get_mut(live.slot) {
            peer.sessions.retain(|&other| other != id);
        }
        self.control.stop_sending(id);
        if let Some(oldest) = self.rounds.leaving.add(now, live.slot, id) {
            self.control.remove_session(oldest);
        }
    }

    /// Lets go of what was replaced long enough ago.
    pub(super) fn let_go_of_replaced(&mut self, now: Instant) {
        for id in self.rounds.leaving.take_due(now) {
            self.control.remove_session(id);
        }
    }

    /// Lets go of all sessions with a peer that were replaced.
    pub(super) fn forget_leaving(&mut self, slot: PeerSlot) {
        for id in self.rounds.leaving.take_of(slot) {
            self.control.remove_session(id);
        }
    }
}

impl Live {
    /// The session has gone, or was replaced: nobody wants the handshake any more that was to wake its link.
    pub(super) fn end_waking(&mut self, replaced: bool) {
        if let Some(waking) = self.waking.take() {
            waking.wanted.end(replaced);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(links: usize) -> Gone {
        Gone { links, looked: None }
    }

    #[test]
    fn memory_is_not_given_back_while_data_flows_but_for_long() {
        let (start, s) = (Instant::now(), Duration::from_secs(1));
        let looks = |links: usize, at: &[(u32, Option<u32>)]| {
            let mut gone = gone(links);
            let looks = at.iter().map(|&(at, data)| gone.may_give_back(start + s * at, data.map(|at| start + s * at)));
            looks.collect::<Vec<_>>()
        };
        assert_eq!(looks(MANY, &[(0, None), (2, None), (3, None), (9, None)]), [false, false, true, false], "and once");
        assert_eq!(looks(MANY, &[(0, None), (3, Some(2)), (4, Some(2))]), [false, false, true]);
        assert_eq!(looks(MANY - 1, &[(0, None), (3, None), (100, None)]), [false; 3], "few");
        assert_eq!(
            looks(MANY, &[(0, None), (59, Some(59)), (60, Some(60))]),
            [false, false, true],
            "somebody always sends"
        );
    }

    #[test]
    fn each_link_that_goes_puts_it_off_but_not_for_ever() {
        let (start, s) = (Instant::now(), Duration::from_secs(1));
        let mut gone = gone(1);
        for second in 0..60 {
            assert!(!gone.may_give_back(start + s * second, None), "{second}");
            gone.links += 1;
        }
        assert!(gone.may_give_back(start + s * 60, None));
        assert!(!gone.may_give_back(start + s * 61, None));
    }
}
