// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the state task and the rest of the node are shown of the networks.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::mpsc;

use super::{
    super::{
        members::Members,
        network::{Moment, Network},
        report::NetworkView,
    },
    Driver,
};
use crate::snapshot::{HealthItem, HealthLevel};

impl Driver {
    /// Shows the state task what has changed.
    pub(in crate::membership) fn tell_views(&mut self, now: Moment) {
        // That our old key is no member any more is no news for a node that starts again with the new one.
        if self.retired {
            return;
        }
        self.shared.joining.store(self.joining.len(), Ordering::Relaxed);
        let dirty = self.networks.values().any(|network| network.dirty);
        if dirty {
            self.share_members(now);
        }
        if !dirty && !self.untold {
            return;
        }
        let seen = |network: &Network| NetworkView { downs: self.downs, ..network.view(now) };
        let views = Arc::new(oldest_first(self.networks.values()).into_iter().map(seen).collect());
        self.shared.health.store(Arc::new(self.own_health()));
        #[cfg(feature = "sim")]
        crate::sim::show(&views);
        // Where the state task is slow, the next round tells it again.
        let told = self.views.try_send(views);
        self.untold = matches!(told, Err(mpsc::error::TrySendError::Full(_)));
        for network in self.networks.values_mut() {
            network.dirty = false;
        }
    }

    pub(super) fn own_health(&self) -> Vec<HealthItem> {
        let mut items = self.standing.clone();
        if let Some(refusing) = &self.refusing {
            let text = format!(
                "changes of networks cannot be stored, so nothing is signed and nothing new is told: {}",
                refusing.why
            );
            items.push(HealthItem { level: HealthLevel::Error, code: "networks-store", text });
        }
        items.extend(self.waiting_reports().into_iter().map(|waiting| {
            let text = format!(
                "{} waits for an admin to let this node in as {}; it goes on asking by itself",
                waiting.name, waiting.own_name
            );
            HealthItem { level: HealthLevel::Info, code: "join-waiting", text }
        }));
        items
    }

    pub(super) fn share_members(&mut self, now: Moment) {
        let peers = self.networks.values().flat_map(|network| network.others(now.unix_ms)).collect();
        self.shared.members.store(Arc::new(Members { peers }));
    }

    /// Members change, or their liveness: looked at again soon.
    pub(super) fn touch(&mut self) {
        for network in self.networks.values_mut() {
            network.dirty = true;
        }
    }
}

/// Networks in the order they were joined. Where two want one IPv4 address on this node the first has it, so the order
/// must be nothing that the founder of a new network can choose, as its id is.
pub(super) fn oldest_first<'n>(networks: impl Iterator<Item = &'n Network>) -> Vec<&'n Network> {
    let mut networks: Vec<&Network> = networks.collect();
    networks.sort_by_key(|network| (network.head.since_ms, network.id));
    networks
}
