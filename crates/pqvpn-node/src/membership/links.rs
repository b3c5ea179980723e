// SPDX-License-Identifier: MIT OR Apache-2.0
//! The links in use for networks, whoever dialled them; one link serves all networks two nodes share.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::{peer_id::PeerId, schedule::Role};
use pqvpn_wire::control::CloseReason;
use tokio::task::AbortHandle;

use crate::{
    dht::{Place, Usage},
    link::Connection,
};

/// Links we may have dialled and hold at once.
pub(super) const MAX_OUTBOUND: usize = 128;
/// A link nobody used for so long is closed: whoever dialled it keeps it alive, or does not need it any more.
const IDLE_AFTER: Duration = Duration::from_secs(90);

/// Names a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId(pub(super) u64);

/// A link, and who serves the peer on it.
#[derive(Debug)]
pub(super) struct NetLink {
    pub(super) connection: Arc<dyn Connection>,
    pub(super) usage: Arc<Usage>,
    #[expect(dead_code, reason = "held for its drop, where the peer dialled us")]
    place: Option<Place>,
    server: Option<AbortHandle>,
    /// When we say something again, where it is ours to keep the link alive.
    pub(super) speak_at: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, NetLink>,
    next: u64,
}

impl NetLink {
    pub(super) fn new(connection: Arc<dyn Connection>, usage: Arc<Usage>, place: Option<Place>, now: Instant) -> Self {
        Self { connection, usage, place, server: None, speak_at: now }
    }

    pub(super) fn is_outbound(&self) -> bool {
        self.connection.side() == Role::Initiator
    }

    fn close(&self, reason: CloseReason) {
        self.connection.close(reason.code(), reason.as_str());
    }
}

impl Drop for NetLink {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

impl Links {
    /// Takes a link in; `None` where too many were dialled.
    pub(super) fn insert(&mut self, link: NetLink) -> Option<LinkId> {
        if link.is_outbound() && self.outbound() >= MAX_OUTBOUND {
            link.close(CloseReason::Idle);
            return None;
        }
        let id = LinkId(self.next);
        self.next += 1;
        self.links.insert(id, link);
        Some(id)
    }

    /// Says who serves the peer of a link; that task ends with the link.
    pub(super) fn set_server(&mut self, id: LinkId, server: AbortHandle) {
        if let Some(link) = self.links.get_mut(&id) {
            link.server = Some(server);
        }
    }

    pub(super) fn get(&self, id: LinkId) -> Option<&NetLink> {
        self.links.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut NetLink> {
        self.links.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LinkId, &NetLink)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// One link with each peer, the newest.
    pub(super) fn one_each(&self) -> BTreeMap<PeerId, LinkId> {
        self.links.iter().map(|(id, link)| (link.connection.peer(), *id)).collect()
    }

    /// Closes a link.
    pub(super) fn close(&mut self, id: LinkId, reason: CloseReason) {
        if let Some(link) = self.links.remove(&id) {
            link.close(reason);
        }
    }

    /// Closes every link.
    pub(super) fn close_all(&mut self, reason: CloseReason) {
        for link in std::mem::take(&mut self.links).into_values() {
            link.close(reason);
        }
    }

    /// Forgets a link that has ended by itself; the peer, where it was there.
    pub(super) fn remove(&mut self, id: LinkId) -> Option<PeerId> {
        self.links.remove(&id).map(|link| link.connection.peer())
    }

    /// Closes what nobody uses any more, and of two links with one peer that cross the one that the greater PeerID
    /// dialled, once it has rested: its dialler closes it.
    pub(super) fn close_idle(&mut self, now: Instant, own: &PeerId) {
        let is_idle = |link: &NetLink| link.usage.idle_since().is_some_and(|since| now >= since + IDLE_AFTER);
        let is_crossed = |id: LinkId, link: &NetLink| {
            let peer = link.connection.peer();
            let other = |(other, link): (&LinkId, &NetLink)| {
                *other != id && link.connection.peer() == peer && !link.is_outbound()
            };
            link.is_outbound() && *own > peer && link.usage.idle_since().is_some() && self.links.iter().any(other)
        };
        let over = |(id, link): &(&LinkId, &NetLink)| is_idle(link) || is_crossed(**id, link);
        let over: Vec<LinkId> = self.links.iter().filter(over).map(|(id, _)| *id).collect();
        for id in over {
            self.close(id, CloseReason::Idle);
        }
    }

    /// When the next link may have been idle for too long.
    pub(super) fn next_idle(&self, now: Instant) -> Option<Instant> {
        self.links.values().map(|link| link.usage.idle_since().unwrap_or(now) + IDLE_AFTER).min()
    }

    fn outbound(&self) -> usize {
        self.links.values().filter(|link| link.is_outbound()).count()
    }
}
