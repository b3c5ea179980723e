// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whom this node keeps links with, and how they are made.

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId, tls::Refusal};
use pqvpn_wire::control::CloseReason;
use tokio::time::timeout;

use super::{
    super::{network::Moment, overlay},
    Driver, TaskDone,
};
use crate::{
    entropy,
    link::{Connection, Endpoint, LinkError, race},
};

/// Dials under way at once.
const MAX_DIALS: usize = 16;
/// How long a dial may take.
pub(super) const DIAL_LIMIT: Duration = Duration::from_secs(4);
/// Who dials us by the ring has so long to do it after we came back; the link it had may be dead without its knowing.
pub(super) const EXPECTED: Duration = Duration::from_secs(1);

impl Driver {
    /// Whom this node keeps a link with, over all its networks.
    pub(super) fn wanted(&self, now: Moment) -> BTreeSet<PeerId> {
        let mut wanted = BTreeSet::new();
        for network in self.networks.values().filter(|network| network.is_enabled(now.unix_ms)) {
            let ring = network.ring(now.unix_ms);
            wanted.extend(overlay::neighbours(&network.id, &self.shared.own, &ring));
            if !self.is_open() {
                wanted.extend(network.homes(&self.shared.own));
            }
        }
        // What goes through others, or through us, needs the links that it was opened over.
        let links = self.links.one_each();
        wanted.extend(self.relaying.partners(now.mono).into_iter().filter(|peer| links.contains_key(peer)));
        wanted.remove(&self.shared.own);
        wanted
    }

    /// Dials whom we lack, and now and then who was away.
    pub(super) fn dial_wanted(&mut self, now: Moment, wanted: &BTreeSet<PeerId>) {
        let links = self.links.one_each();
        let mut todo: Vec<PeerId> = wanted.iter().filter(|peer| !links.contains_key(peer)).copied().collect();
        for network in self.networks.values().filter(|network| network.is_enabled(now.unix_ms)) {
            let others = network.others(now.unix_ms);
            let side = 1 + others.iter().filter(|peer| network.reach.seems_there(peer)).count();
            todo.extend(others.into_iter().filter(|peer| network.reach.is_due(now.mono, peer, side)));
            let back = now.mono.saturating_duration_since(network.started);
            if (EXPECTED..EXPECTED * 2).contains(&back) {
                let callers = overlay::callers(&network.id, &self.shared.own, &network.ring(now.unix_ms));
                // Where one is may be known to nobody; then it is for it to dial.
                todo.extend(callers.into_iter().filter(|peer| !self.endpoints_of(peer).is_empty()));
            }
        }
        for peer in todo {
            let may = self.shared_networks(now.unix_ms, &peer).into_iter().all(|id| {
                self.networks
                    .get(&id)
                    .is_some_and(|network| network.reach.may_dial(now.mono, &peer) || !network.reach.seems_there(&peer))
            });
            if may && !links.contains_key(&peer) {
                self.dial(peer);
            }
        }
    }

    pub(super) fn dial(&mut self, peer: PeerId) {
        if self.dialing.len() >= MAX_DIALS || self.dialing.contains(&peer) {
            return;
        }
        let addresses = self.endpoints_of(&peer);
        let records = self.networks.values().filter_map(|network| network.records.get(&peer));
        let known = records.map(|record| record.key().clone()).next();
        if addresses.is_empty() {
            return self.on_dialed(peer, Err(Missed { why: "nobody knows where it is".to_owned(), instead: None }));
        }
        self.dial_at(peer, known, addresses);
    }

    pub(super) fn dial_at(&mut self, peer: PeerId, known: Option<PublicIdentity>, addresses: Vec<SocketAddr>) {
        if self.dialing.len() >= MAX_DIALS || !self.dialing.insert(peer) {
            return;
        }
        let endpoint = Arc::clone(&self.shared.endpoint);
        self.tasks.spawn(async move { TaskDone::Dialed { peer, link: dial(&endpoint, peer, known, addresses).await } });
    }

    pub(super) fn on_dialed(&mut self, peer: PeerId, link: Result<Arc<dyn Connection>, Missed>) {
        self.dialing.remove(&peer);
        let now = Moment::now();
        match link {
            Ok(connection) if self.paused => connection.close(CloseReason::Shutdown.code(), ""),
            Ok(connection) => {
                let at = connection.remote();
                let Some(link) = self.adopt_dialed(connection) else { return };
                self.ask_again_for_ways(peer);
                for id in self.shared_networks(now.unix_ms, &peer) {
                    if let Some(network) = self.networks.get_mut(&id) {
                        if !network.reach.seems_there(&peer) {
                            // One that was away is back: so may be those it was away with.
                            network.reach.forgive_all();
                        }
                        network.reach.reached(&peer);
                        network.lives.heard(now.mono, peer);
                        network.reached_at(now.unix_ms, peer, at);
                        network.dirty = true;
                    }
                    self.sync(id, link);
                }
            }
            Err(missed) => {
                tracing::debug!(peer = %peer.short(), %missed, "a member is not reached");
                if let Some(at) = missed.instead {
                    self.ask_stranger(now.mono, at);
                }
                self.ask_again_for_ways(peer);
                let random = entropy::u64();
                for network in self.networks.values_mut() {
                    if network.constitution.view().members.contains_key(&peer) {
                        network.reach.failed(now.mono, peer, random);
                        if !network.reach.seems_there(&peer) {
                            network.lives.missed(now.mono, peer);
                        }
                        network.dirty = true;
                    }
                }
            }
        }
    }
}

/// A member was not reached.
#[derive(Debug)]
pub(in crate::membership) struct Missed {
    why: String,
    /// Where somebody else answered in its place.
    pub(super) instead: Option<SocketAddr>,
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Whether another key answered than the one dialled; where we hold that one's, its hash is what does not fit.
fn is_somebody_else(error: &LinkError) -> bool {
    matches!(error, LinkError::RefusedByUs(Refusal::WrongPeerId | Refusal::UnknownCompressedKey))
}

/// Dials a peer at each address, staggered; the first link that works is kept.
///
/// # Errors
/// None works in time; the last reason.
pub(in crate::membership) async fn dial(
    endpoint: &Arc<dyn Endpoint>,
    peer: PeerId,
    known: Option<PublicIdentity>,
    addresses: Vec<SocketAddr>,
) -> Result<Arc<dyn Connection>, Missed> {
    let instead = Mutex::new(None);
    let attempts = addresses.into_iter().map(|address| {
        let (dialed, instead) = (endpoint.connect(address, peer, known.clone()), &instead);
        async move {
            dialed.await.inspect_err(|error| {
                if is_somebody_else(error) {
                    *instead.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
                }
            })
        }
        .boxed()
    });
    let none = LinkError::Local("it has no address".to_owned());
    let why = match timeout(DIAL_LIMIT, race(attempts, none, |_worse, _| true)).await {
        Ok(Ok(link)) => return Ok(Arc::from(link)),
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => "no answer in time".to_owned(),
    };
    Err(Missed { why, instead: instead.into_inner().unwrap_or_else(PoisonError::into_inner) })
}
