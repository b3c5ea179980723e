// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the state task knows of the network around it.

use std::{sync::Arc, time::Instant};

use tokio::sync::oneshot;

use super::{Live, State};
use crate::{
    dht::{dialable, realm},
    netcheck::{Facts, NetReport},
    snapshot::NodeState,
};

impl State {
    /// Longest packet that goes whole to the peer of a session.
    fn inner_of(&self, live: &Live) -> u16 {
        let found = self.peers.get(live.slot).and_then(|peer| peer.mtu.inner());
        found.map_or(live.inner_mtu, |inner| inner.min(live.inner_mtu))
    }

    /// Answers once the networks have said whom they have links with; this task does not wait for it.
    pub(super) fn netcheck(&self, now: Instant, answer: oneshot::Sender<NetReport>) {
        let listen = &self.underlay.listen;
        let facts = Facts {
            up: self.running == NodeState::Up,
            in_network: self.views.iter().any(|view| view.enabled),
            listen: listen.clone(),
            interfaces: dialable(listen, realm(listen, true), &self.addresses.get()),
            outside: self.reflexive.sights(now),
            varies: self.reflexive.varies(now),
            mapping: self.mapped.report(now),
            links: Vec::new(),
            mtu: self.live.values().map(|live| self.inner_of(live)).min(),
            narrow: self.live.values().any(|live| self.inner_of(live) < live.inner_mtu),
        };
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            let links = context.networks.links().await;
            let _nobody_waits = answer.send(NetReport::of(Facts { links, ..facts }));
        });
    }
}
