// SPDX-License-Identifier: MIT OR Apache-2.0
//! The links in use for the DHT: kept warm while they are used, both ways, and closed when they are not.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::{peer_id::PeerId, schedule::Role};
use pqvpn_wire::control::CloseReason;
use tokio::task::AbortHandle;

use super::{places::Place, report::LinkReport, usage::Usage};
use crate::link::Connection;

/// Links we may have dialed and hold at once: warm neighbours.
pub(super) const MAX_OUTBOUND: usize = 64;
/// A link nobody used for so long is closed; nothing keeps it alive meanwhile, so it costs nothing on the wire. Longer than
/// the DHT leaves a contact unprobed: the probe is then 10 kB, not another handshake of 20 kB as well.
pub(super) const IDLE_AFTER: Duration = Duration::from_secs(25 * 60);
/// A link used within this time is taken to work: a NAT in between has not forgotten it.
const WARM: Duration = Duration::from_secs(25);

/// Names a link of the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LinkId(u64);

/// A link, and who serves the peer on it.
#[derive(Debug)]
pub(super) struct DhtLink {
    pub(super) connection: Arc<dyn Connection>,
    pub(super) usage: Arc<Usage>,
    #[expect(dead_code, reason = "held for its drop, where the peer dialed us")]
    place: Option<Place>,
    server: Option<AbortHandle>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<LinkId, DhtLink>,
    next: u64,
}

/// A link to ask over.
#[derive(Debug)]
pub(super) struct Warm {
    pub(super) id: LinkId,
    pub(super) connection: Arc<dyn Connection>,
    pub(super) usage: Arc<Usage>,
    /// Used so recently that it surely works.
    pub(super) is_fresh: bool,
}

/// Whether two addresses are one, also where one of them is written as IPv6.
pub(super) fn is_same(a: SocketAddr, b: SocketAddr) -> bool {
    (a.ip().to_canonical(), a.port()) == (b.ip().to_canonical(), b.port())
}

impl DhtLink {
    pub(super) fn new(connection: Arc<dyn Connection>, usage: Arc<Usage>, place: Option<Place>) -> Self {
        Self { connection, usage, place, server: None }
    }

    fn is_outbound(&self) -> bool {
        self.connection.side() == Role::Initiator
    }

    fn close(&self, reason: CloseReason) {
        self.connection.close(reason.code(), reason.as_str());
    }
}

impl Drop for DhtLink {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

impl Links {
    /// Takes a link in. Where we dialed too many, the one idle for longest is closed; `None` if all are in use.
    pub(super) fn insert(&mut self, link: DhtLink) -> Option<LinkId> {
        if link.is_outbound() && self.outbound() >= MAX_OUTBOUND {
            let outbound = self.links.iter().filter(|(_, link)| link.is_outbound());
            let idlest = outbound.filter_map(|(id, link)| Some((link.usage.idle_since()?, *id))).min();
            let Some((_, idlest)) = idlest else {
                link.close(CloseReason::Idle);
                return None;
            };
            self.close(idlest, CloseReason::Idle);
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

    /// The link to a peer used last. With `proves` only one that proves this address: the peer is at its other end there,
    /// whoever dialed.
    pub(super) fn warm(&self, now: Instant, peer: &PeerId, proves: Option<SocketAddr>) -> Option<Warm> {
        let fits = |link: &DhtLink| {
            link.connection.peer() == *peer && proves.is_none_or(|at| is_same(at, link.connection.remote()))
        };
        let fitting = self.links.iter().filter(|(_, link)| fits(link));
        let (id, link) = fitting.max_by_key(|(_, link)| link.usage.last())?;
        let is_fresh = now.saturating_duration_since(link.usage.last()) < WARM;
        let (connection, usage) = (Arc::clone(&link.connection), Arc::clone(&link.usage));
        Some(Warm { id: *id, connection, usage, is_fresh })
    }

    /// Closes a link.
    pub(super) fn close(&mut self, id: LinkId, reason: CloseReason) {
        if let Some(link) = self.links.remove(&id) {
            link.close(reason);
        }
    }

    /// Closes a link that did not carry a request, unless others still wait on it and it may be alive.
    pub(super) fn close_unless_used(&mut self, id: LinkId, is_dead: bool) {
        if is_dead || self.links.get(&id).is_some_and(|link| link.usage.idle_since().is_some()) {
            self.close(id, CloseReason::Idle);
        }
    }

    /// Closes every link.
    pub(super) fn close_all(&mut self, reason: CloseReason) {
        for link in std::mem::take(&mut self.links).into_values() {
            link.close(reason);
        }
    }

    /// Forgets a link that has ended by itself.
    pub(super) fn remove(&mut self, id: LinkId) {
        self.links.remove(&id);
    }

    /// Closes what nobody uses any more.
    pub(super) fn close_idle(&mut self, now: Instant) {
        let is_idle = |link: &DhtLink| link.usage.idle_since().is_some_and(|since| now >= since + IDLE_AFTER);
        let idle: Vec<LinkId> = self.links.iter().filter(|(_, link)| is_idle(link)).map(|(id, _)| *id).collect();
        for id in idle {
            self.close(id, CloseReason::Idle);
        }
    }

    /// When the next link may have been idle for too long; one in use is looked at again later.
    pub(super) fn next_idle(&self, now: Instant) -> Option<Instant> {
        self.links.values().map(|link| link.usage.idle_since().unwrap_or(now) + IDLE_AFTER).min()
    }

    pub(super) fn counts(&self, dialing: usize) -> LinkReport {
        let outbound = self.outbound();
        LinkReport { outbound, inbound: self.links.len() - outbound, dialing }
    }

    fn outbound(&self) -> usize {
        self.links.values().filter(|link| link.is_outbound()).count()
    }
}
