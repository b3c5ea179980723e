// SPDX-License-Identifier: MIT OR Apache-2.0
//! An ideal signature: nobody but its owner can make one, and checking it costs a hash.
//!
//! It stands in for the composite signature so that ten thousand nodes run in one process. What the simulations prove
//! about lies therefore holds as far as the real signature cannot be forged.

use std::{collections::BTreeSet, sync::Arc};

use pqvpn_crypto::{identity::SignatureLabel, peer_id::PeerId};
use pqvpn_wire::dht::{Record, RecordDraft, Verifier};
use sha2::{Digest, Sha256};

/// The judge of all signatures: every owner's secret follows from one that only it holds.
#[derive(Clone)]
pub struct Registry {
    master: [u8; 32],
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}

impl Registry {
    /// A registry of its own secrets.
    #[must_use]
    pub const fn new(master: [u8; 32]) -> Self {
        Self { master }
    }

    fn sign(&self, owner: &PeerId, label: SignatureLabel, message: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.master);
        hash.update(owner.as_bytes());
        hash.update(label.as_bytes());
        hash.update(message);
        hash.finalize().into()
    }
}

impl Verifier for Registry {
    fn verify(&self, owner: &PeerId, key: &[u8], label: SignatureLabel, message: &[u8], signature: &[u8]) -> bool {
        key == owner.as_bytes() && signature == self.sign(owner, label, message)
    }
}

/// What some owners can sign with: nothing in anybody else's name.
#[derive(Debug, Clone)]
pub struct KeyRing {
    registry: Arc<Registry>,
    owners: BTreeSet<PeerId>,
}

impl KeyRing {
    /// The keys of `owners`.
    pub fn new(registry: Arc<Registry>, owners: impl IntoIterator<Item = PeerId>) -> Self {
        Self { registry, owners: owners.into_iter().collect() }
    }

    /// Signs a record; `None` when its owner is not on the ring.
    #[must_use]
    pub fn sign(&self, draft: RecordDraft) -> Option<Record> {
        self.owners.contains(&draft.owner).then(|| {
            let signature = self.registry.sign(&draft.owner, SignatureLabel::DhtRecord, &draft.signed_bytes());
            let key = draft.owner.as_bytes().to_vec();
            Record::assemble(draft, key, signature.to_vec())
        })
    }

    /// The owners on the ring.
    pub fn owners(&self) -> impl Iterator<Item = &PeerId> {
        self.owners.iter()
    }
}

/// A record that nobody signed, or somebody else did: what a liar can make of another owner's name.
#[must_use]
pub fn unsigned(draft: RecordDraft, signature: Vec<u8>) -> Record {
    let key = draft.owner.as_bytes().to_vec();
    Record::assemble(draft, key, signature)
}
