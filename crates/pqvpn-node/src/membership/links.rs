// SPDX-License-Identifier: MIT OR Apache-2.0
//! The links in use for networks, whoever dialled them; one link serves all networks two nodes share.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::{peer_id::PeerId, schedule::Role};
use pqvpn_wire::{control::CloseReason, network::NetworkId};
use tokio::task::AbortHandle;

use crate::{
    dht::{Place, Usage},
    link::Connection,
};

/// Links we may have dialled and hold at once.
pub(super) const MAX_OUTBOUND: usize = 128;
/// A link nobody used for so long is closed: whoever dialled it keeps it alive, or does not need it any more.
const IDLE_AFTER: Duration = Duration::from_secs(90);
/// A link we dialled and no longer want stays open for so long: the ring may turn back, and what was said last arrives.
const REST: Duration = Duration::from_secs(10);
/// A link that should close but is in use is looked at again so soon.
const BUSY: Duration = Duration::from_secs(1);
/// Both sides tell all they hold at least so often, and in between only that it is still the same.
const TELL_ALL: Duration = Duration::from_secs(300);

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
    /// Since when the ring does not ask for it.
    resting: Option<Instant>,
    /// When each side told all it holds last, by network.
    told: BTreeMap<NetworkId, Instant>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, NetLink>,
    next: u64,
}

impl NetLink {
    pub(super) fn new(connection: Arc<dyn Connection>, usage: Arc<Usage>, place: Option<Place>, now: Instant) -> Self {
        Self { connection, usage, place, server: None, speak_at: now, resting: None, told: BTreeMap::new() }
    }

    pub(super) fn is_outbound(&self) -> bool {
        self.connection.side() == Role::Initiator
    }

    /// Both sides have told all they hold of a network.
    pub(super) fn note_told(&mut self, network: NetworkId, now: Instant) {
        self.told.insert(network, now);
    }

    /// Whether it is enough to say that what we hold is still what it was.
    pub(super) fn may_beat(&self, network: &NetworkId, now: Instant) -> bool {
        self.told.get(network).is_some_and(|told| now < *told + TELL_ALL)
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

    /// Closes what is of no use any more. Who dialled a link decides, so that the two ends never disagree:
    /// a link dialled for one purpose, or for a ring that has changed since, closes after a rest; of two with one peer that
    /// cross, the one that the greater PeerID dialled goes, of two dialled by one side the older. A link whose dialler has
    /// fallen silent is closed by either.
    pub(super) fn close_idle(&mut self, now: Instant, own: &PeerId, wanted: &BTreeSet<PeerId>) {
        for link in self.links.values_mut() {
            let rests = link.is_outbound() && !wanted.contains(&link.connection.peer());
            link.resting = rests.then(|| link.resting.unwrap_or(now));
        }
        let is_double = |id: LinkId, link: &NetLink| {
            let peer = link.connection.peer();
            let beats = |(other, link): (&LinkId, &NetLink)| {
                link.connection.peer() == peer && if link.is_outbound() { *other > id } else { *own > peer }
            };
            link.is_outbound() && self.links.iter().any(beats)
        };
        let is_over = |(id, link): &(&LinkId, &NetLink)| {
            let Some(idle) = link.usage.idle_since() else { return false };
            now >= idle + IDLE_AFTER || link.resting.is_some_and(|since| now >= since + REST) || is_double(**id, link)
        };
        let over: Vec<LinkId> = self.links.iter().filter(is_over).map(|(id, _)| *id).collect();
        for id in over {
            self.close(id, CloseReason::Idle);
        }
    }

    /// When the next link may have been idle, or have rested, for long enough.
    pub(super) fn next_idle(&self, now: Instant) -> Option<Instant> {
        let idle = |link: &NetLink| link.usage.idle_since().unwrap_or(now) + IDLE_AFTER;
        let rested = |link: &NetLink| link.resting.map(|since| (since + REST).max(now + BUSY));
        self.links.values().map(|link| rested(link).map_or(idle(link), |rested| rested.min(idle(link)))).min()
    }

    fn outbound(&self) -> usize {
        self.links.values().filter(|link| link.is_outbound()).count()
    }
}

#[cfg(test)]
pub(super) mod tests;
