// SPDX-License-Identifier: MIT OR Apache-2.0
//! rustls configurations of a link, for QUIC and for TCP alike.

use std::sync::Arc;

use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::compress::CompressionCache;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::UnixTime;
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, quic};

use super::known::{COMPRESSOR, DECOMPRESSOR, KnownKey};
use super::kx::X25519MlKem1024;
use super::own_links::OwnLinks;
use super::refusal::RefusalCounts;
use super::signer::certified_key;
use super::suite::{initial_suite, link_suite};
use super::verifier::{Admission, DialerVerifier, ListenerVerifier};
use crate::identity::{Identity, PublicIdentity};
use crate::peer_id::PeerId;
use crate::reset::ResetKey;

/// Application protocol of a link (RFC 7301). The link layer checks that exactly this one was selected.
pub const ALPN: &[u8] = b"pqvpn/1";

/// Dummy protocol names in a ClientHello, see [`padded_alpn`].
const PADDING_NAMES: u8 = 4;
const PADDING_NAME_LEN: usize = 250;

/// Everything a node needs to make links: its key, who is admitted, and the counters of who was not.
#[derive(Debug)]
pub struct LinkCrypto {
    provider: Arc<CryptoProvider>,
    identity: Arc<Identity>,
    key: Arc<CertifiedKey>,
    admission: Arc<dyn Admission>,
    server: Arc<ServerConfig>,
    refusals: Arc<RefusalCounts>,
    own_links: OwnLinks,
}

impl LinkCrypto {
    /// Prepares the profile for one identity.
    pub fn new(identity: Arc<Identity>, admission: Arc<dyn Admission>) -> Self {
        let provider = Arc::new(provider());
        let key = certified_key(Arc::clone(&identity));
        let server = Arc::new(server_config(&provider, &key, &admission));
        Self { provider, identity, key, admission, server, refusals: Arc::default(), own_links: OwnLinks::default() }
    }

    /// Returns what makes the stateless resets of this node's endpoints believable after a restart.
    pub fn reset_key(&self) -> &ResetKey {
        self.identity.reset_key()
    }

    /// Returns the configuration of the listening side, one for all peers.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// Makes the configuration of one dial; connect with the server name `expected.to_server_name()`.
    ///
    /// With `known_key` the peer may send the hash of its key instead of the key.
    pub fn client_config(&self, expected: &PeerId, known_key: Option<&PublicIdentity>) -> Arc<ClientConfig> {
        let known = known_key.filter(|key| key.peer_id() == *expected).and_then(KnownKey::enter);
        self.dialing(Some(*expected), known)
    }

    /// Makes the configuration of a dial to whoever answers; connect with the server name of [`NOBODY`].
    ///
    /// The handshake proves who it is, nothing says that it is whom anybody meant.
    ///
    /// [`NOBODY`]: super::NOBODY
    pub fn client_config_to_anybody(&self) -> Arc<ClientConfig> {
        self.dialing(None, None)
    }

    fn dialing(&self, expected: Option<PeerId>, known: Option<KnownKey>) -> Arc<ClientConfig> {
        let decompress = known.is_some();
        let verifier = DialerVerifier { admission: Arc::clone(&self.admission), expected, known };
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), Arc::new(NoClock))
            .with_protocol_versions(&[&TLS13])
            .expect("invariant: the provider has a TLS 1.3 suite and group")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&self.key))));
        config.alpn_protocols = padded_alpn();
        // A QUIC Initial can be read by anyone, and the server name is the PeerID.
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.cert_compressors = Vec::new();
        config.cert_decompressors = if decompress { vec![&DECOMPRESSOR] } else { Vec::new() };
        config.cert_compression_cache = Arc::new(CompressionCache::Disabled);
        Arc::new(config)
    }

    /// Returns the suite of QUIC Initial packets, for the back ends' `with_initial`.
    pub fn initial_suite(&self) -> quic::Suite {
        initial_suite()
    }

    /// Returns the PeerID of this node.
    pub fn peer_id(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// Returns the links that this node has made to itself.
    pub fn own_links(&self) -> &OwnLinks {
        &self.own_links
    }

    /// Returns the counters; the link layer feeds them with [`RefusalCounts::record`].
    pub fn refusals(&self) -> &Arc<RefusalCounts> {
        &self.refusals
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    key: &Arc<CertifiedKey>,
    admission: &Arc<dyn Admission>,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_details(Arc::clone(provider), Arc::new(NoClock))
        .with_protocol_versions(&[&TLS13])
        .expect("invariant: the provider has a TLS 1.3 suite and group")
        .with_client_cert_verifier(Arc::new(ListenerVerifier { admission: Arc::clone(admission) }))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(key))));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.cert_compressors = vec![&COMPRESSOR];
    config.cert_decompressors = Vec::new();
    config.cert_compression_cache = Arc::new(CompressionCache::Disabled);
    config
}

fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![link_suite()],
        kx_groups: vec![&X25519MlKem1024],
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        ..aws_lc_rs::default_provider()
    }
}

/// Pads the ClientHello to three datagrams with names that no server selects.
///
/// A server may send three times what it received before the client's address is validated (RFC 9000 §8.1). Its flight
/// needs about 9.9 kB: two datagrams of 1200 bytes would stall it for a round trip (link.md 3.2).
fn padded_alpn() -> Vec<Vec<u8>> {
    let dummy = |n| {
        let mut name = vec![b'.'; PADDING_NAME_LEN];
        name[0] = b'0' + n;
        name
    };
    std::iter::once(ALPN.to_vec()).chain((0..PADDING_NAMES).map(dummy)).collect()
}

/// Raw public keys have no dates and tickets are off: the time that rustls asks for is never looked at.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::ZERO))
    }
}
