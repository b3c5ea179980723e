// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who was to be removed, and which revocations have to stand.

use std::collections::{BTreeMap, BTreeSet};

use pqvpn_crypto::peer_id::PeerId;

/// What was asked of admins' nodes, and what they confirmed.
#[derive(Debug, Default)]
pub(super) struct Removals {
    asked: BTreeSet<PeerId>,
    /// By whom each was revoked whose node said that it is in force.
    revoked: BTreeMap<PeerId, BTreeSet<PeerId>>,
    /// Whose revocation stood when everybody agreed: nothing that is said later changes that.
    out: BTreeSet<PeerId>,
}

impl Removals {
    /// Somebody is to be revoked, or to be an admin no more; whether it came to that is not known.
    pub(super) fn note_asked(&mut self, peer: PeerId) {
        self.asked.insert(peer);
    }

    pub(super) fn note_revoked(&mut self, peer: PeerId, by: PeerId) {
        self.revoked.entry(peer).or_default().insert(by);
    }

    /// Whose revocation no removal of its author can undo.
    pub(super) fn stand(&self) -> BTreeSet<PeerId> {
        let stands = |by: &BTreeSet<PeerId>| by.iter().any(|by| !self.asked.contains(by));
        let new = self.revoked.iter().filter(|(_, by)| stands(by)).map(|(peer, _)| *peer);
        new.chain(self.out.iter().copied()).collect()
    }

    /// Everybody agrees.
    pub(super) fn settle(&mut self) {
        self.out = self.stand();
        self.asked.clear();
        self.revoked.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_stands_while_one_of_its_authors_was_never_to_be_removed() {
        let [a, b, c] = [1, 2, 3].map(|byte| PeerId::from_bytes([byte; 32]));
        let mut removals = Removals::default();
        removals.note_revoked(c, a);
        assert_eq!(removals.stand(), BTreeSet::from([c]));
        removals.note_asked(a);
        assert_eq!(removals.stand(), BTreeSet::new());
        removals.note_revoked(c, b);
        assert_eq!(removals.stand(), BTreeSet::from([c]));
    }

    #[test]
    fn a_revocation_that_stood_when_all_agreed_stands_whatever_becomes_of_its_author() {
        let [a, b, c] = [1, 2, 3].map(|byte| PeerId::from_bytes([byte; 32]));
        let mut removals = Removals::default();
        removals.note_revoked(b, a);
        removals.settle();
        removals.note_asked(a);
        removals.note_revoked(c, a);
        assert_eq!(removals.stand(), BTreeSet::from([b]));
        removals.settle();
        removals.note_revoked(c, a);
        assert_eq!(removals.stand(), BTreeSet::from([b, c]), "what was asked before has been decided");
    }
}
