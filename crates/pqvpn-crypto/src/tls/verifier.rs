// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks who is at the other end: key encoding, expected PeerID, admission, both halves of the signature.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::known::KnownKey;
use super::refusal::Refusal;
use super::signer::SCHEME;
use crate::identity::{CompositeSignature, PublicIdentity, SignatureLabel};
use crate::peer_id::PeerId;

/// The part this node plays in a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// We opened the connection (TLS client).
    Dialer,
    /// The peer opened the connection (TLS server).
    Listener,
}

/// Decides whether a peer may have a link.
pub trait Admission: Send + Sync + Debug {
    /// Admits or refuses a peer; `side` is ours.
    ///
    /// Called before the peer has proved that it holds the key: must be quick and change nothing.
    ///
    /// # Errors
    /// The reason, usually [`Refusal::UnknownPeer`] or [`Refusal::NotAdmitted`].
    fn admit(&self, peer: &PeerId, key: &PublicIdentity, side: Side) -> Result<(), Refusal>;
}

/// The PeerID that stands in the server name of a dial to whoever answers; no key hashes to it.
pub const NOBODY: PeerId = PeerId::from_bytes([0; 32]);

/// Reads the peer's identity from `peer_certificates()` (rustls) or `peer_identity()` (QUIC).
///
/// # Errors
/// [`Refusal::AnonymousPeer`] for an empty list, [`Refusal::MalformedKey`] for anything but one composite key.
pub fn peer_from_certs(certs: &[CertificateDer<'_>]) -> Result<PublicIdentity, Refusal> {
    match certs {
        [] => Err(Refusal::AnonymousPeer),
        [only] => PublicIdentity::from_spki(only).map_err(|_| Refusal::MalformedKey),
        [_, ..] => Err(Refusal::MalformedKey),
    }
}

/// Verifier of the listening side: any admitted peer.
#[derive(Debug)]
pub(super) struct ListenerVerifier {
    pub(super) admission: Arc<dyn Admission>,
}

/// Verifier of the dialling side: the one expected peer, or whoever answers, if admitted.
#[derive(Debug)]
pub(super) struct DialerVerifier {
    pub(super) admission: Arc<dyn Admission>,
    /// `None`: anybody; the caller looks at who it is.
    pub(super) expected: Option<PeerId>,
    /// Keeps the peer's key in the decompression table for as long as this configuration lives.
    #[expect(dead_code, reason = "held for its drop")]
    pub(super) known: Option<KnownKey>,
}

impl ServerCertVerifier for DialerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = only_key(end_entity, intermediates)?;
        // The name given to the dial and the configuration must agree: neither alone decides whom we reach.
        let named = PeerId::from_server_name(&server_name.to_str()).map_err(|_| Refusal::WrongPeerId)?;
        let meant = match self.expected {
            Some(expected) => named == expected && key.peer_id() == expected,
            None => named == NOBODY,
        };
        if !meant {
            return Err(Refusal::WrongPeerId.into());
        }
        self.admission.admit(&key.peer_id(), &key, Side::Dialer)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Refusal::NoCommonVersion.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(verify_signature(message, cert, dss)?)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SCHEME]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for ListenerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let key = only_key(end_entity, intermediates)?;
        self.admission.admit(&key.peer_id(), &key, Side::Listener)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Refusal::NoCommonVersion.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(verify_signature(message, cert, dss)?)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SCHEME]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn only_key(end_entity: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<PublicIdentity, Refusal> {
    // RFC 7250 §3: a raw public key stands alone.
    if !rest.is_empty() {
        return Err(Refusal::MalformedKey);
    }
    PublicIdentity::from_spki(end_entity).map_err(|_| Refusal::MalformedKey)
}

fn verify_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Refusal> {
    // rustls leaves this check to the verifier.
    if dss.scheme != SCHEME {
        return Err(Refusal::NoCommonSignatureScheme);
    }
    let key = PublicIdentity::from_spki(cert).map_err(|_| Refusal::MalformedKey)?;
    let signature = CompositeSignature::from_bytes(dss.signature())?;
    key.verify(SignatureLabel::TlsHandshake, message, &signature)?;
    Ok(HandshakeSignatureValid::assertion())
}
