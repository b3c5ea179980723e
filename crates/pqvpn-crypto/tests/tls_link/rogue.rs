// SPDX-License-Identifier: MIT OR Apache-2.0
//! Peers that break one rule each, built on plain rustls.

use std::sync::Arc;

use pqvpn_crypto::identity::{CompositeSignature, Identity, PublicIdentity, SignatureLabel};
use pqvpn_crypto::tls::kx::X25519MlKem1024;
use pqvpn_crypto::tls::signer::SCHEME_CODE;
use pqvpn_crypto::tls::suite::link_suite;
use pqvpn_crypto::tls::{ALPN, kx};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, NamedGroup, ServerConfig, SignatureAlgorithm,
    SignatureScheme,
};

pub(crate) type Forge = fn(Vec<u8>, &[u8]) -> Vec<u8>;

/// A node that follows the profile except where told otherwise.
#[derive(Clone)]
pub(crate) struct Rogue {
    pub(crate) provider: CryptoProvider,
    /// What it shows as its key.
    pub(crate) certs: Vec<Vec<u8>>,
    pub(crate) identity: Arc<Identity>,
    /// Turns its right signature over the second argument into what it sends.
    pub(crate) forge: Forge,
    pub(crate) scheme: u16,
    pub(crate) alpn: Vec<Vec<u8>>,
}

impl Rogue {
    pub(crate) fn new(identity: Arc<Identity>) -> Self {
        Self {
            provider: provider(&[&X25519MlKem1024]),
            certs: vec![identity.public().to_spki()],
            identity,
            forge: |signature, _| signature,
            scheme: SCHEME_CODE,
            alpn: vec![ALPN.to_vec()],
        }
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let resolver = AlwaysResolvesClientRawPublicKeys::new(self.certified_key());
        let mut config = ClientConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAll))
            .with_client_cert_resolver(Arc::new(resolver));
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }

    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let resolver = AlwaysResolvesServerRawPublicKeys::new(self.certified_key());
        let mut config = ServerConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(TrustAll))
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }

    fn certified_key(&self) -> Arc<CertifiedKey> {
        let certs = self.certs.iter().map(|cert| CertificateDer::from(cert.clone())).collect();
        let key = RogueKey { identity: Arc::clone(&self.identity), forge: self.forge, scheme: self.scheme };
        Arc::new(CertifiedKey::new(certs, Arc::new(key)))
    }
}

/// The link's provider with other groups.
pub(crate) fn provider(groups: &[&'static dyn SupportedKxGroup]) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![link_suite()],
        kx_groups: groups.to_vec(),
        ..rustls::crypto::aws_lc_rs::default_provider()
    }
}

#[derive(Debug, Clone)]
struct RogueKey {
    identity: Arc<Identity>,
    forge: Forge,
    scheme: u16,
}

impl SigningKey for RogueKey {
    fn choose_scheme(&self, _offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::Unknown(0x57)
    }
}

impl Signer for RogueKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.identity.sign(SignatureLabel::TlsHandshake, message).unwrap();
        Ok((self.forge)(signature.into_bytes(), message))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::Unknown(self.scheme)
    }
}

/// Believes every composite key and signature, so that only the honest side can refuse.
#[derive(Debug)]
pub(crate) struct TrustAll;

impl ServerCertVerifier for TrustAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // The honest side always signs properly, whatever it thinks of its peer.
        let key = PublicIdentity::from_spki(cert).unwrap();
        let signature = CompositeSignature::from_bytes(dss.signature()).unwrap();
        key.verify(SignatureLabel::TlsHandshake, message, &signature).unwrap();
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::Unknown(SCHEME_CODE)]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for TrustAll {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::Unknown(SCHEME_CODE)]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The right group with a share that was tampered with before it is sent.
#[derive(Debug)]
pub(crate) struct TamperedShare(pub(crate) fn(&mut Vec<u8>));

impl SupportedKxGroup for TamperedShare {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let inner = X25519MlKem1024.start()?;
        let mut share = inner.pub_key().to_vec();
        (self.0)(&mut share);
        Ok(Box::new(TamperedStart { inner, share }))
    }

    fn start_and_complete(&self, peer_share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let mut done = X25519MlKem1024.start_and_complete(peer_share)?;
        (self.0)(&mut done.pub_key);
        Ok(done)
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::Unknown(kx::GROUP_CODE)
    }
}

struct TamperedStart {
    inner: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for TamperedStart {
    fn complete(self: Box<Self>, peer_share: &[u8]) -> Result<SharedSecret, Error> {
        self.inner.complete(peer_share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::Unknown(kx::GROUP_CODE)
    }
}
