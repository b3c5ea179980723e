// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is on the own disk was checked before it went there.

use std::sync::Arc;

use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId};
use pqvpn_trust::{Constitution, StatementVerifier};
use pqvpn_wire::network::Statement;

use super::Network;

/// Believes what this node has checked before: what is on its own disk.
pub(super) struct OwnDisk;

impl StatementVerifier for OwnDisk {
    fn signature(&self, _statement: &Statement, _signer: &PeerId, _key: &PublicIdentity) -> bool {
        true
    }

    fn rotation(&self, _statement: &Statement) -> bool {
        true
    }
}

impl Network {
    /// Adds what was held here, and checked, to another's copy.
    pub(in crate::membership) fn hand_over(&self, to: &mut Constitution) {
        let held = self.constitution.after(&[], usize::MAX).statements.into_iter().map(Arc::unwrap_or_clone);
        let _refusals_are_counted = to.insert_all(held, &OwnDisk);
    }
}
