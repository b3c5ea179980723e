// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members in the DHT: said there where we are, and looked for there where a member is that cannot be reached.
//!
//! The DHT is the last resort: members tell each other everything directly, and all works without it.

use std::{net::SocketAddr, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::admission::week;
use pqvpn_wire::network::{Act, NetworkId, StatementId};
use tokio::{sync::oneshot, time::timeout};

use super::{
    super::{
        blinded::Blind,
        network::{Moment, Network},
    },
    Driver, TaskDone,
};
use crate::dht::{Order, Port, RecordContent, ValueAs, Wanted};

/// A member is looked for at most so often.
const SEEK_AGAIN: Duration = Duration::from_secs(60);
/// Members looked for at once.
const MAX_SEEKS: usize = 4;
/// How long looking for one may take.
const SEEK_LIMIT: Duration = Duration::from_secs(20);
/// A record lasts so long after its week, in ms.
const RECORD_LASTS_MS: u64 = 24 * 3_600_000;

impl Driver {
    /// Says in the DHT where we are, readable for members only.
    pub(super) fn publish(&self, now: Moment, id: NetworkId) {
        let (Some(dht), Some(network)) = (&self.dht, self.networks.get(&id)) else { return };
        let Some(blind) = network.blind().filter(|_| !self.endpoints.is_empty()) else { return };
        let own = self.shared.own;
        let week = week(&own, now.unix_ms);
        let (Some(owner), Some(value)) = (blind.owner(&own, week), blind.seal(&own, week, &self.endpoints)) else {
            return;
        };
        // Where the DHT has more to do than it can, the next renewal says it.
        let _busy = dht.order(Order::PutAs(Box::new(ValueAs { owner, name: blind.name(&own, week), value })));
    }

    /// Looks for members that were missed where they should be.
    pub(super) fn seek(&mut self, now: Moment) {
        let Some(dht) = self.dht.clone() else { return };
        self.sought.retain(|_, at| now.mono < *at + SEEK_AGAIN);
        let mut todo: Vec<(NetworkId, PeerId)> = Vec::new();
        for network in self.networks.values().filter(|network| network.gossips(now.unix_ms)) {
            let away = network.others(now.unix_ms).into_iter().filter(|peer| network.reach.has_failed(peer));
            todo.extend(away.map(|peer| (network.id, peer)));
        }
        todo.retain(|sought| !self.sought.contains_key(sought));
        for (id, peer) in todo.into_iter().take(MAX_SEEKS) {
            let Some(blind) = self.networks.get(&id).and_then(Network::blind) else { continue };
            self.sought.insert((id, peer), now.mono);
            let (dht, unix_ms) = (dht.clone(), now.unix_ms);
            self.tasks.spawn(async move {
                let found = timeout(SEEK_LIMIT, look_up(&dht, &blind, &peer, unix_ms)).await;
                TaskDone::Sought { network: id, peer, addresses: found.unwrap_or_default() }
            });
        }
    }

    pub(super) fn on_sought(&mut self, id: NetworkId, peer: PeerId, addresses: Vec<SocketAddr>) {
        let Some(network) = self.networks.get_mut(&id) else { return };
        if network.hint(peer, addresses) {
            tracing::debug!(peer = %peer.short(), "a member was found in the DHT");
        }
    }
}

/// Where a member says that it is, in this week's record or, early in the week, in the last one's.
async fn look_up(dht: &Port, blind: &Blind, peer: &PeerId, unix_ms: u64) -> Vec<SocketAddr> {
    let met = dht.known(*peer).await.into_iter().filter_map(|endpoint| endpoint.parse().ok());
    let mut addresses: Vec<SocketAddr> = met.collect();
    let mut weeks = vec![week(peer, unix_ms), week(peer, unix_ms.saturating_sub(RECORD_LASTS_MS))];
    weeks.dedup();
    for week in weeks {
        let Some(owner) = blind.owner(peer, week) else { continue };
        let (reply, answer) = oneshot::channel();
        if !dht.order(Order::Get(Wanted::Value(owner.peer_id(), blind.name(peer, week)), reply)) {
            break;
        }
        let Ok(Ok(report)) = answer.await else { continue };
        let Some(RecordContent::Value { value, .. }) = report.record.map(|record| record.content) else { continue };
        if let Some(found) = blind.open(peer, week, &value) {
            addresses.splice(0..0, found);
            break;
        }
    }
    addresses
}

impl Network {
    /// What places in the DHT follow from.
    fn blind(&self) -> Option<Blind> {
        let genesis = self.constitution.get(&StatementId::from_bytes(*self.id.as_bytes()))?;
        let Act::Genesis(genesis) = &genesis.body().act else { return None };
        Some(Blind::new(&genesis.secret, self.id))
    }
}
