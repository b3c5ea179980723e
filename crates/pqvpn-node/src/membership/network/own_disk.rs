// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is on the own disk was checked before it went there.

use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId};
use pqvpn_trust::StatementVerifier;
use pqvpn_wire::network::Statement;

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
