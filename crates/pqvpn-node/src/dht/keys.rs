// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys of peers met before: each spares 2.6 kB of the next handshake with it (link.md 3.2).

use std::collections::{BTreeMap, VecDeque};

use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId};

/// Keys remembered, 2.6 kB each.
const MAX_KEYS: usize = 512;

/// A bounded memory; who was met first is forgotten first.
#[derive(Debug, Default)]
pub(super) struct KnownKeys {
    keys: BTreeMap<PeerId, PublicIdentity>,
    order: VecDeque<PeerId>,
}

impl KnownKeys {
    pub(super) fn get(&self, peer: &PeerId) -> Option<PublicIdentity> {
        self.keys.get(peer).cloned()
    }

    pub(super) fn remember(&mut self, key: &PublicIdentity) {
        let peer = key.peer_id();
        if self.keys.insert(peer, key.clone()).is_some() {
            return;
        }
        self.order.push_back(peer);
        if self.order.len() > MAX_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}
