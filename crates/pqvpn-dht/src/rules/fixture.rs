// SPDX-License-Identifier: MIT OR Apache-2.0
//! Peers, records and a stand-in for signatures, for the tests of several rules.

use std::sync::Arc;

use pqvpn_crypto::{identity::SignatureLabel, peer_id::PeerId};
use pqvpn_wire::dht::{Endpoints, NetworkId, Payload, Record, RecordDraft, Verifier, record::heartbeat_chain};
use sha2::{Digest, Sha256};

use crate::{Now, admission::week};

/// A day in 2026.
pub(crate) const TODAY_MS: u64 = 1_795_000_000_000;
pub(crate) const HOUR_MS: u64 = 3_600_000;
pub(crate) const SEED: [u8; 32] = [77; 32];

/// Takes SHA-256(key || label || message) for a signature, and the PeerID's own bytes for its key.
#[derive(Debug)]
pub(crate) struct Toy;

impl Toy {
    pub(crate) fn sign(peer: &PeerId, label: SignatureLabel, message: &[u8]) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(peer.as_bytes());
        hash.update(label.as_bytes());
        hash.update(message);
        hash.finalize().to_vec()
    }
}

impl Verifier for Toy {
    fn verify(&self, owner: &PeerId, key: &[u8], label: SignatureLabel, message: &[u8], signature: &[u8]) -> bool {
        key == owner.as_bytes() && signature == Self::sign(owner, label, message)
    }
}

pub(crate) fn peer(number: u32) -> PeerId {
    let mut bytes = [0x5a; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PeerId::from_bytes(bytes)
}

/// `ms` after the beginning of [`TODAY_MS`], on both clocks.
pub(crate) const fn at(ms: u64) -> Now {
    Now { mono: std::time::Duration::from_millis(ms), unix_ms: TODAY_MS + ms }
}

/// An acceptable peer record, valid from now on for a day.
pub(crate) fn peer_draft(owner: PeerId, seq: u64) -> RecordDraft {
    RecordDraft {
        network: NetworkId::OPEN,
        owner,
        week: week(&owner, TODAY_MS),
        seq,
        not_before_ms: TODAY_MS,
        not_after_ms: TODAY_MS + 24 * HOUR_MS,
        payload: Payload::Peer(Endpoints { addresses: vec!["8.8.4.4:4433".parse().unwrap()], capabilities: 1 }),
        heartbeat_anchor: heartbeat_chain(&SEED, 24),
    }
}

/// An acceptable value; the last byte tells two of one seq apart.
pub(crate) fn value_draft(owner: PeerId, name: u32, seq: u64, content: u8) -> RecordDraft {
    let payload = Payload::Value { name: format!("name {name}"), value: vec![1, 2, content] };
    RecordDraft { payload, week: 0, ..peer_draft(owner, seq) }
}

pub(crate) fn signed(draft: RecordDraft) -> Arc<Record> {
    let signature = Toy::sign(&draft.owner, SignatureLabel::DhtRecord, &draft.signed_bytes());
    let key = draft.owner.as_bytes().to_vec();
    Arc::new(Record::assemble(draft, key, signature))
}
