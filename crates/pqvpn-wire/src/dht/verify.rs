// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who checks signatures and proofs of work: the real thing, and in simulations a stand-in with the same meaning.

use std::fmt;

use pqvpn_crypto::{
    identity::{CompositeSignature, PublicIdentity, SignatureLabel},
    peer_id::PeerId,
};

/// Checks that a key belongs to a PeerID and a signature to that key.
///
/// The DHT's rules take it as an argument so that ten thousand nodes can be simulated without ten thousand signatures
/// a second. Nothing but [`CompositeVerifier`] may stand behind it in a running node.
pub trait Verifier: Send + Sync + fmt::Debug {
    /// Whether `key` is the key of `owner` and signed `message` for the purpose `label`.
    fn verify(&self, owner: &PeerId, key: &[u8], label: SignatureLabel, message: &[u8], signature: &[u8]) -> bool;
}

/// The composite signature of the link's identities: both halves must hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct CompositeVerifier;

impl Verifier for CompositeVerifier {
    fn verify(&self, owner: &PeerId, key: &[u8], label: SignatureLabel, message: &[u8], signature: &[u8]) -> bool {
        let Ok(identity) = PublicIdentity::from_spki(key) else { return false };
        let Ok(signature) = CompositeSignature::from_bytes(signature) else { return false };
        identity.peer_id() == *owner && identity.verify(label, message, &signature).is_ok()
    }
}
