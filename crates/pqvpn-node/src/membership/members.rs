// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is a member of any network of this node: looked at by the tasks that accept links, without asking the driver.

use std::collections::BTreeSet;

use pqvpn_crypto::peer_id::PeerId;

/// A snapshot; a new one replaces it whenever a view changes.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// Everybody but this node.
    pub(super) peers: BTreeSet<PeerId>,
}

impl Members {
    /// Whether the peer is a member somewhere.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.peers.contains(peer)
    }
}
