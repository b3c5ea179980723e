// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signatures as a question to the outside, so that the rules can be tested a million times without any.

use pqvpn_crypto::identity::{PublicIdentity, SignatureLabel};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::act::rotation_bytes;
use pqvpn_wire::network::{Act, Statement};

/// Checks signatures of statements.
pub trait StatementVerifier {
    /// Says whether the signature of `signer`, whose key is `key`, holds.
    fn signature(&self, statement: &Statement, signer: &PeerId, key: &PublicIdentity) -> bool;

    /// Says whether the new key of a rotation agreed to it; true for every other act.
    fn rotation(&self, statement: &Statement) -> bool;

    /// Whether the answer about a statement says what is so; one that has seen too much that is false may say no without a look.
    fn looks(&self, _statement: &Statement) -> bool {
        true
    }

    /// Hears that a statement offered now is signed by nobody who could ever have a say in it.
    ///
    /// That follows from the statement and what it stands on alone, so nobody who holds it, and passes it on, finds
    /// otherwise. It is not said of statements that waited, whoever offered them.
    fn unfounded(&self) {}
}

/// The verifier of a running node: both halves of every signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompositeVerifier;

impl StatementVerifier for CompositeVerifier {
    fn signature(&self, statement: &Statement, signer: &PeerId, key: &PublicIdentity) -> bool {
        statement.verify_signer(signer, key)
    }

    fn rotation(&self, statement: &Statement) -> bool {
        let Act::Rotate { old, key, proof } = &statement.body().act else { return true };
        let message = rotation_bytes(&statement.network(), &old.peer_id());
        key.verify(SignatureLabel::NetworkRotation, &message, proof).is_ok()
    }
}
