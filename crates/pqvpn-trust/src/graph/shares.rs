// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has filled how much.

use std::collections::BTreeMap;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Statement};

use super::own_key;

/// How much of the room one key alone has filled, so that nobody fills all of it.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// Statements and authority acts that came in with this one signer.
    pub(super) alone: BTreeMap<PeerId, (usize, usize)>,
    /// Rotations and departures, by the first key of their line.
    pub(super) lines: BTreeMap<PeerId, usize>,
    /// The first key of a line of rotations.
    first_keys: BTreeMap<PeerId, PeerId>,
    pub(super) disabling: usize,
}

impl Shares {
    pub(super) fn first_key(&self, peer: &PeerId) -> PeerId {
        self.first_keys.get(peer).copied().unwrap_or(*peer)
    }

    pub(super) fn count(&mut self, statement: &Statement, is_act: bool) {
        if let Act::Rotate { old, key, .. } = &statement.body().act {
            let first = self.first_key(&old.peer_id());
            self.first_keys.entry(key.peer_id()).or_insert(first);
        }
        if let Some(key) = own_key(&statement.body().act) {
            *self.lines.entry(self.first_key(&key.peer_id())).or_default() += 1;
        }
        self.disabling += usize::from(matches!(statement.body().act, Act::Disable { .. }));
        let mut signers = statement.signers();
        if let (Some(signer), None) = (signers.next(), signers.next()) {
            let (statements, acts) = self.alone.entry(*signer).or_default();
            *statements += 1;
            *acts += usize::from(is_act);
        }
    }
}
