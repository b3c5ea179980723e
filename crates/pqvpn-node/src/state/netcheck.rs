// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the state task knows of the network around it.

use std::{sync::Arc, time::Instant};

use tokio::sync::oneshot;

use super::State;
use crate::{
    dht::{dialable, realm},
    netcheck::{Facts, NetReport},
    snapshot::NodeState,
};

impl State {
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
            mtu: self.live.values().map(|live| live.inner_mtu).min(),
        };
        let context = Arc::clone(&self.context);
        tokio::spawn(async move {
            let links = context.networks.links().await;
            let _nobody_waits = answer.send(NetReport::of(Facts { links, ..facts }));
        });
    }
}
