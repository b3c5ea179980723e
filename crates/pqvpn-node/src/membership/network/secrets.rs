// SPDX-License-Identifier: MIT OR Apache-2.0
//! The secrets of a network that its members' places in the DHT follow from.

use pqvpn_wire::network::{Act, StatementId};

use super::Network;
use crate::membership::blinded::Blind;

impl Network {
    /// What our place in the DHT follows from.
    pub(in crate::membership) fn blind(&self) -> Option<Blind> {
        let genesis = self.constitution.get(&StatementId::from_bytes(*self.id.as_bytes()))?;
        let Act::Genesis(genesis) = &genesis.body().act else { return None };
        Some(Blind::new(&genesis.secret, self.id))
    }

    /// What the places of others may follow from, newest first.
    pub(in crate::membership) fn blinds(&self, _now_ms: u64) -> Vec<Blind> {
        self.blind().into_iter().collect()
    }
}
