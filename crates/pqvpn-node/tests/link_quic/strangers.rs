// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS configurations of peers that lack something essential.

use std::sync::Arc;

use crate::pair::Party;
use pqvpn_crypto::identity::Identity;
use pqvpn_crypto::tls::kx::X25519MlKem1024;
use pqvpn_crypto::tls::signer::{SCHEME_CODE, certified_key};
use pqvpn_crypto::tls::suite::link_suite;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};

/// Has our suite but only X25519.
pub(crate) fn classical_client() -> ClientConfig {
    client(kx_group::X25519)
}

/// Has everything but an identity.
pub(crate) fn anonymous_client() -> ClientConfig {
    client(&X25519MlKem1024)
}

/// Has our suite and an identity but only X25519.
pub(crate) fn classical_server() -> ServerConfig {
    let key = certified_key(Arc::new(Identity::generate().unwrap()));
    let builder = ServerConfig::builder_with_provider(provider(kx_group::X25519));
    let builder = builder.with_protocol_versions(&[&TLS13]).unwrap().with_no_client_auth();
    builder.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key)))
}

/// Has everything, but selects `protocol`.
pub(crate) fn server_choosing(party: &Party, protocol: &[u8]) -> ServerConfig {
    let mut config = ServerConfig::clone(&party.crypto.server_config());
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}

fn client(group: &'static dyn SupportedKxGroup) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider(group)).with_protocol_versions(&[&TLS13]).unwrap();
    let verifier = Arc::new(TrustsAnybody);
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![pqvpn_crypto::tls::ALPN.to_vec()];
    config
}

fn provider(group: &'static dyn SupportedKxGroup) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { cipher_suites: vec![link_suite()], kx_groups: vec![group], ..default_provider() })
}

#[derive(Debug)]
struct TrustsAnybody;

impl ServerCertVerifier for TrustsAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::Unknown(SCHEME_CODE)]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
