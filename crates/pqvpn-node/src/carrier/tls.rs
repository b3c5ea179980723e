// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS of a carrier: a disguise. Nothing is proved by it and no key comes from it; the link inside does both.

use std::{sync::Arc, time::Duration};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    version::TLS13,
};

use crate::{clock, entropy};

/// What a server may be called on a certificate of its own making: as installers and small devices do.
const NAMES: [&str; 8] =
    ["localhost", "localhost.localdomain", "debian", "ubuntu", "server", "nas.local", "web", "router.lan"];
const DAY: Duration = Duration::from_secs(86_400);
/// How long a certificate is valid, and how old it seems at most, in days.
const VALID_DAYS: u32 = 365;
const OLDEST_DAYS: u32 = 200;
const ALPN: &[u8] = b"http/1.1";

/// The groups of browsers: the hybrid one first.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    let kx_groups = vec![X25519MLKEM768, X25519, SECP256R1];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}

/// The dialling side. Whose certificate it is shown does not matter.
pub(super) fn client() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The listening side, with a key made now.
pub(super) fn server() -> Result<Arc<ServerConfig>, rustls::Error> {
    let failed = |error: rcgen::Error| rustls::Error::General(error.to_string());
    let signing = KeyPair::generate().map_err(failed)?;
    let params = certificate(clock::unix_seconds(), entropy::u64()).map_err(failed)?;
    let made = params.self_signed(&signing).map_err(failed)?;
    let key = PrivatePkcs8KeyDer::from(signing.serialize_der());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key.into())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// A certificate that looks as if it had been made some time ago; `random` says by whom and when.
fn certificate(unix_seconds: u64, random: u64) -> Result<CertificateParams, rcgen::Error> {
    let pick = |shift: u32, of: u64| (random >> shift) % of;
    let name = NAMES.get(usize::try_from(pick(0, NAMES.len() as u64)).unwrap_or(0)).copied().unwrap_or("server");
    let age =
        DAY * (1 + u32::try_from(pick(8, OLDEST_DAYS.into())).unwrap_or(1)) + Duration::from_secs(pick(32, 86_400));
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(unix_seconds).saturating_sub(age);
    params.not_after = params.not_before + DAY * VALID_DAYS;
    Ok(params)
}

/// Takes any certificate.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_valid_for_a_year_from_a_time_that_is_past() {
        let now = 1_800_000_000;
        let today = date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
        for random in [0, u64::MAX, 0x1234_5678_9abc_def0] {
            let params = certificate(now, random).unwrap();
            assert!(params.not_before < today && today + DAY * 100 < params.not_after);
            assert_eq!(params.not_after - params.not_before, DAY * 365);
        }
    }
}
