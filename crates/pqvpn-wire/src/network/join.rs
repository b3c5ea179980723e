// SPDX-License-Identifier: MIT OR Apache-2.0
//! Joins: the wish to become a member, proved on one link, and what waits for an admin's word.

use ciborium::Value;
use pqvpn_crypto::{
    identity::{CompositeSignature, Identity, IdentityError, PublicIdentity, SignatureLabel},
    peer_id::PeerId,
    proofs::schnorr::{self, InviteKey, JoinContext, SchnorrProof},
};

use super::{
    NetworkId, Serial,
    act::{key_from, peer_from, signature_from},
    name::is_label,
};
use crate::cbor;

/// The wish to join with an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Which invite.
    pub serial: Serial,
    /// The name wanted; a label.
    pub name: String,
    /// The joiner's key; must be the link's.
    pub key: PublicIdentity,
    /// That it holds the invite's secret.
    pub proof: SchnorrProof,
    /// That the joiner itself asks, also where discrete logarithms are easy.
    pub signature: CompositeSignature,
    /// The joiner's clock, ms since 1970.
    pub sent_ms: u64,
}

/// Why a wish to join is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinRequestError {
    /// Whoever asks does not hold the invite's secret, or not on this link.
    #[error(transparent)]
    Proof(#[from] schnorr::ProofError),
    /// The joiner's signature does not hold on this link.
    #[error("the signature of the join does not hold")]
    Signature,
}

impl JoinRequest {
    /// Asks to join, in one context: this network, invite, verifier, joiner and link.
    ///
    /// `seed`: 32 fresh random bytes for the proof.
    ///
    /// # Errors
    /// The cryptographic library cannot sign.
    pub fn make(
        identity: &Identity,
        (serial, secret): (Serial, &InviteKey),
        context: &JoinContext,
        name: String,
        sent_ms: u64,
        seed: &[u8; 32],
    ) -> Result<Self, IdentityError> {
        let proof = secret.prove(context, seed);
        let signed = signed_bytes(context, &serial, &name, sent_ms, &proof);
        let signature = identity.sign(SignatureLabel::NetworkJoin, &signed)?;
        Ok(Self { serial, name, key: identity.public().clone(), proof, signature, sent_ms })
    }

    /// Whether it was made in this context by the holder of its key and of the secret behind `point`.
    ///
    /// The context names the joiner: build it with the PeerID of the link, not of the request.
    ///
    /// # Errors
    /// [`JoinRequestError`]; the signature is checked first, so that nobody else can try proofs in this name.
    pub fn verify(&self, point: &[u8; 32], context: &JoinContext) -> Result<(), JoinRequestError> {
        let signed = signed_bytes(context, &self.serial, &self.name, self.sent_ms, &self.proof);
        self.key
            .verify(SignatureLabel::NetworkJoin, &signed, &self.signature)
            .map_err(|_| JoinRequestError::Signature)?;
        Ok(schnorr::verify(point, context, &self.proof)?)
    }

    pub(crate) fn to_values(&self) -> Vec<Value> {
        vec![
            self.serial.to_value(),
            Value::Text(self.name.clone()),
            Value::Bytes(self.key.to_spki()),
            cbor::bytes(&self.proof.to_bytes()),
            cbor::bytes(self.signature.as_bytes()),
            self.sent_ms.into(),
        ]
    }

    pub(crate) fn from_values(values: [Value; 6]) -> Option<Self> {
        let [serial, name, key, proof, signature, sent_ms] = values;
        Some(Self {
            serial: Serial::from_value(serial)?,
            name: name.into_text().ok().filter(|name| is_label(name))?,
            key: key_from(key)?,
            proof: SchnorrProof::from_bytes(&cbor::fixed(proof)?),
            signature: signature_from(signature)?,
            sent_ms: cbor::integer(&sent_ms)?,
        })
    }
}

/// `context || [serial, name, sent_ms, proof]`
fn signed_bytes(context: &JoinContext, serial: &Serial, name: &str, sent_ms: u64, proof: &SchnorrProof) -> Vec<u8> {
    let fields = cbor::encode(&Value::Array(vec![
        serial.to_value(),
        Value::Text(name.to_owned()),
        sent_ms.into(),
        cbor::bytes(&proof.to_bytes()),
    ]));
    [context.as_bytes().as_slice(), &fields].concat()
}

/// A proven join that waits for an admin, as the admin who took it passes it to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingJoin {
    /// Names it; random.
    pub ticket: [u8; 16],
    /// With which invite.
    pub serial: Serial,
    /// Who asks.
    pub key: PublicIdentity,
    /// The name wanted; a label.
    pub name: String,
    /// When it came, by the clock of `via`, ms since 1970.
    pub asked_ms: u64,
    /// Whether an admin has said no.
    pub denied: bool,
    /// The admin who checked the proof, or said no.
    pub via: PeerId,
    /// Of `via`.
    pub signature: CompositeSignature,
}

impl PendingJoin {
    /// Vouches, as an admin, that this join was proved on a link of one's own, or was denied.
    ///
    /// # Errors
    /// The cryptographic library cannot sign.
    pub fn vouch(
        identity: &Identity,
        network: &NetworkId,
        (ticket, asked_ms): ([u8; 16], u64),
        (serial, key, name): (Serial, PublicIdentity, String),
        denied: bool,
    ) -> Result<Self, IdentityError> {
        let via = identity.peer_id();
        let fields = Self::fields(&ticket, &serial, &key.peer_id(), &name, asked_ms, denied, &via);
        let signature = identity.sign(SignatureLabel::NetworkPending, &Self::signed(network, fields))?;
        Ok(Self { ticket, serial, key, name, asked_ms, denied, via, signature })
    }

    /// Whether `admin` is the key of [`PendingJoin::via`] and signed it for this network.
    #[must_use]
    pub fn verify(&self, network: &NetworkId, admin: &PublicIdentity) -> bool {
        let joiner = self.key.peer_id();
        let fields =
            Self::fields(&self.ticket, &self.serial, &joiner, &self.name, self.asked_ms, self.denied, &self.via);
        let signed = Self::signed(network, fields);
        admin.peer_id() == self.via && admin.verify(SignatureLabel::NetworkPending, &signed, &self.signature).is_ok()
    }

    fn fields(
        ticket: &[u8; 16],
        serial: &Serial,
        joiner: &PeerId,
        name: &str,
        asked_ms: u64,
        denied: bool,
        via: &PeerId,
    ) -> [Value; 7] {
        [
            cbor::bytes(ticket),
            serial.to_value(),
            cbor::bytes(joiner.as_bytes()),
            Value::Text(name.to_owned()),
            asked_ms.into(),
            denied.into(),
            cbor::bytes(via.as_bytes()),
        ]
    }

    /// `[network, ticket, serial, joiner, name, asked_ms, denied, via]`
    fn signed(network: &NetworkId, fields: [Value; 7]) -> Vec<u8> {
        let network = std::iter::once(cbor::bytes(network.as_bytes()));
        cbor::encode(&Value::Array(network.chain(fields).collect()))
    }

    pub(crate) fn to_value(&self) -> Value {
        Value::Array(vec![
            cbor::bytes(&self.ticket),
            self.serial.to_value(),
            Value::Bytes(self.key.to_spki()),
            Value::Text(self.name.clone()),
            self.asked_ms.into(),
            self.denied.into(),
            cbor::bytes(self.via.as_bytes()),
            cbor::bytes(self.signature.as_bytes()),
        ])
    }

    pub(crate) fn from_value(value: Value) -> Option<Self> {
        let [ticket, serial, key, name, asked_ms, denied, via, signature] = cbor::array(value)?;
        Some(Self {
            ticket: cbor::fixed(ticket)?,
            serial: Serial::from_value(serial)?,
            key: key_from(key)?,
            name: name.into_text().ok().filter(|name| is_label(name))?,
            asked_ms: cbor::integer(&asked_ms)?,
            denied: denied.as_bool()?,
            via: peer_from(via)?,
            signature: signature_from(signature)?,
        })
    }
}
