// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members in the DHT: said there where we are, and looked for there where a member is that cannot be reached.
//!
//! The DHT is the last resort: members tell each other everything directly, and all works without it.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::{admission::week, rules::SKEW_MS};
use pqvpn_wire::network::NetworkId;
use tokio::{sync::oneshot, time::timeout};

use super::{
    super::{blinded::Blind, network::Moment},
    Driver, TaskDone,
};
use crate::dht::{Order, Port, RecordContent, ValueAs, Wanted};

/// Members looked for at once.
const MAX_SEEKS: usize = 4;
/// Members looked for in the long run: a few at once, and one more each time this passes. A search is some 40 questions.
const SEEK_BURST: u32 = 8;
const SEEK_PERIOD: Duration = Duration::from_secs(10);
/// How long looking for one may take.
const SEEK_LIMIT: Duration = Duration::from_secs(20);
/// First and longest pause before a member that was not found is looked for again.
const SEEK_AGAIN: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(600));
/// A record lasts so long after its week, in ms.
const RECORD_LASTS_MS: u64 = 24 * 3_600_000;
/// What nobody took, or the DHT was not joined for, is said again: first and longest pause.
const SAY_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// What was taken is said again after this: a quarter of its life.
const SAY_ANEW: Duration = Duration::from_secs(6 * 3600);
/// What is due but has to wait is looked at again so soon.
const TURN: Duration = Duration::from_secs(1);
/// How long it may take to say something.
const SAY_LIMIT: Duration = Duration::from_secs(60);

/// What this node says of itself in the DHT for one network.
pub(super) struct Said {
    owner: PeerId,
    name: String,
    endpoints: Vec<SocketAddr>,
    under_way: bool,
    again: Instant,
    pause: Duration,
    /// When that was by the wall clock, ms since 1970: it ends by that clock, also while we sleep.
    at_ms: u64,
}

impl Said {
    /// Whether a wall clock that was set, or ran on while we slept, has put it out of force or will soon.
    const fn is_untimely(&self, unix_ms: u64) -> bool {
        unix_ms.saturating_add(SKEW_MS) < self.at_ms || unix_ms > self.at_ms.saturating_add(RECORD_LASTS_MS * 3 / 4)
    }
}

/// A search for a member.
pub(super) struct Search {
    under_way: bool,
    again: Instant,
    pause: Duration,
}

/// What a search came to.
pub(in crate::membership) enum Found {
    /// The DHT is not joined, or busy: that says nothing of the member.
    NotAsked,
    /// Perhaps nowhere.
    At(Vec<SocketAddr>),
}

impl Driver {
    /// Says in the DHT where we are, readable for members only: when that changes, and before it ends.
    pub(super) fn say_where(&mut self, now: Moment) {
        let Some(dht) = self.dht.clone().filter(|_| !self.endpoints.is_empty()) else { return };
        let own = self.shared.own;
        let week = week(&own, now.unix_ms);
        for network in self.networks.values().filter(|network| network.is_enabled(now.unix_ms)) {
            let Some(blind) = network.blind() else { continue };
            let name = blind.name(&own, week);
            let said = self.said.get(&network.id);
            let is_same = said.is_some_and(|said| {
                said.name == name && said.endpoints == self.endpoints && !said.is_untimely(now.unix_ms)
            });
            if said.is_some_and(|said| said.under_way || (is_same && now.mono < said.again)) {
                continue;
            }
            let (Some(owner), Some(value)) = (blind.owner(&own, week), blind.seal(&own, week, &self.endpoints)) else {
                continue;
            };
            // What lies under an older name ends by itself, and is not offered any longer.
            if let Some(old) = said.filter(|said| said.name != name) {
                let _ends_by_itself = dht.order(Order::DropAs(old.owner, old.name.clone()));
            }
            let pause = said.filter(|_| is_same).map_or(SAY_AGAIN.0, |said| said.pause);
            let id = network.id;
            let endpoints = self.endpoints.clone();
            let said = Said {
                owner: owner.peer_id(),
                name: name.clone(),
                endpoints,
                under_way: true,
                again: now.mono,
                pause,
                at_ms: now.unix_ms,
            };
            self.said.insert(id, said);
            let (dht, value) = (dht.clone(), Box::new(ValueAs { owner, name, value }));
            self.tasks.spawn(async move {
                let (reply, answer) = oneshot::channel();
                let asked = dht.order(Order::PutAs(value, reply));
                let taken = if asked { timeout(SAY_LIMIT, answer).await.ok() } else { None };
                TaskDone::Said { network: id, nodes: taken.and_then(Result::ok).and_then(Result::ok).unwrap_or(0) }
            });
        }
    }

    pub(super) fn on_said(&mut self, now: Instant, id: NetworkId, nodes: usize) {
        let Some(said) = self.said.get_mut(&id) else { return };
        said.under_way = false;
        if nodes > 0 {
            tracing::debug!(nodes, "where this node is was said in the DHT");
            (said.again, said.pause) = (now + SAY_ANEW, SAY_AGAIN.0);
        } else {
            said.again = now + said.pause;
            said.pause = (said.pause * 2).min(SAY_AGAIN.1);
        }
    }

    /// Says it no longer.
    pub(super) fn unsay(&mut self, id: &NetworkId) {
        let (Some(dht), Some(said)) = (&self.dht, self.said.remove(id)) else { return };
        let _ends_by_itself = dht.order(Order::DropAs(said.owner, said.name));
    }

    /// Looks for members that were missed where they should be.
    pub(super) fn seek(&mut self, now: Moment) {
        let Some(dht) = self.dht.clone() else { return };
        let mut todo: Vec<(Option<Instant>, NetworkId, PeerId)> = Vec::new();
        for network in self.networks.values().filter(|network| network.is_enabled(now.unix_ms)) {
            let away = network.others(now.unix_ms).into_iter().filter(|peer| network.reach.has_failed(peer));
            todo.extend(
                away.map(|peer| (self.sought.get(&(network.id, peer)).map(|search| search.again), network.id, peer)),
            );
        }
        let away: BTreeSet<(NetworkId, PeerId)> = todo.iter().map(|(_, id, peer)| (*id, *peer)).collect();
        self.sought.retain(|sought, search| search.under_way || away.contains(sought));
        todo.retain(|(again, ..)| again.is_none_or(|again| again <= now.mono));
        todo.retain(|(_, id, peer)| self.sought.get(&(*id, *peer)).is_none_or(|search| !search.under_way));
        // Whoever was never looked for first, then who waits for longest.
        todo.sort();
        let under_way = self.sought.values().filter(|search| search.under_way).count();
        for (_, id, peer) in todo.into_iter().take(MAX_SEEKS.saturating_sub(under_way)) {
            let Some(network) = self.networks.get(&id) else { continue };
            let blinds = network.blinds(now.unix_ms);
            if !self.seeks.take(now.mono, SEEK_BURST, SEEK_PERIOD) {
                return;
            }
            let pause = self.sought.get(&(id, peer)).map_or(SEEK_AGAIN.0, |search| search.pause);
            self.sought.insert((id, peer), Search { under_way: true, again: now.mono + pause, pause });
            let (dht, unix_ms) = (dht.clone(), now.unix_ms);
            self.tasks.spawn(async move {
                let found = timeout(SEEK_LIMIT, look_up(&dht, &blinds, &peer, unix_ms)).await;
                TaskDone::Sought { network: id, peer, found: found.unwrap_or(Found::At(Vec::new())) }
            });
        }
    }

    pub(super) fn on_sought(&mut self, now: Instant, id: NetworkId, peer: PeerId, found: Found) {
        if let Some(search) = self.sought.get_mut(&(id, peer)) {
            search.under_way = false;
            match &found {
                Found::NotAsked => search.again = now + SAY_AGAIN.0,
                Found::At(_) => {
                    search.again = now + search.pause;
                    search.pause = (search.pause * 2).min(SEEK_AGAIN.1);
                }
            }
        }
        let (Found::At(addresses), Some(network)) = (found, self.networks.get_mut(&id)) else { return };
        if network.hint(peer, addresses) {
            tracing::debug!(peer = %peer.short(), "a member was found in the DHT");
        }
    }

    /// When something has to be said or sought next.
    pub(super) fn next_in_dht(&self, now: Moment) -> Option<Instant> {
        self.dht.as_ref()?;
        let speaks = |id: &NetworkId| {
            let network = self.networks.get(id).filter(|network| network.is_enabled(now.unix_ms));
            !self.endpoints.is_empty() && network.is_some_and(|network| network.blind().is_some())
        };
        let said = self.said.iter().filter(|(id, said)| !said.under_way && speaks(id)).map(|(_, said)| said.again);
        let sought = self.sought.values().filter(|search| !search.under_way).map(|search| search.again);
        // What is due and has no room yet waits for its turn.
        said.chain(sought).min().map(|at| at.max(now.mono + TURN))
    }
}

/// Where a member says that it is, under the newest secret or one that was in use lately, in this week's record or, early
/// in the week, in the last one's.
async fn look_up(dht: &Port, blinds: &[Blind], peer: &PeerId, unix_ms: u64) -> Found {
    let met = dht.known(*peer).await.into_iter().filter_map(|endpoint| endpoint.parse().ok());
    let mut addresses: Vec<SocketAddr> = met.collect();
    let mut weeks = vec![week(peer, unix_ms), week(peer, unix_ms.saturating_sub(RECORD_LASTS_MS))];
    weeks.dedup();
    let mut asked = false;
    'found: for blind in blinds {
        for &week in &weeks {
            let Some(owner) = blind.owner(peer, week) else { continue };
            let (reply, answer) = oneshot::channel();
            if !dht.order(Order::Get(Wanted::Value(owner.peer_id(), blind.name(peer, week)), reply)) {
                break 'found;
            }
            let Ok(Ok(report)) = answer.await else { continue };
            asked = true;
            let Some(RecordContent::Value { value, .. }) = report.record.map(|record| record.content) else { continue };
            if let Some(found) = blind.open(peer, week, &value) {
                addresses.splice(0..0, found);
                break 'found;
            }
        }
    }
    if asked || !addresses.is_empty() { Found::At(addresses) } else { Found::NotAsked }
}
