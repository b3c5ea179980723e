// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an endpoint is told at its start.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pqvpn_crypto::tls::LinkCrypto;

use super::gate::GateConfig;

/// Which host is behind an address that stands for one, as that of a carried way does.
#[derive(Clone, Default)]
pub struct Behind(Option<Arc<dyn Fn(SocketAddr) -> Option<IpAddr> + Send + Sync>>);

impl Behind {
    /// As `of` says.
    #[must_use]
    pub fn new(of: impl Fn(SocketAddr) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(of)))
    }

    /// The host that whoever comes from `at` is judged by.
    #[must_use]
    pub fn host(&self, at: SocketAddr) -> IpAddr {
        self.0.as_ref().and_then(|of| of(at)).unwrap_or(at.ip())
    }
}

impl std::fmt::Debug for Behind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Behind")
    }
}

/// Configuration of an endpoint; [`LinkConfig::new`] gives the values `link.md` decides.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Our identity and the admission rule, as TLS configurations.
    pub crypto: Arc<LinkCrypto>,
    /// How long a link may be silent before it ends, `None` for ever. Long: the data plane judges liveness, and a link
    /// that ends this way sends nothing.
    pub idle_timeout: Option<Duration>,
    /// How long a handshake may take, in both roles.
    pub handshake_timeout: Duration,
    /// QUIC keep-alive interval; `None` (default) sends nothing on an idle link.
    pub keep_alive: Option<Duration>,
    /// Limits on incoming handshakes.
    pub gate: GateConfig,
    /// Whom an incoming handshake is counted for.
    pub behind: Behind,
    /// Whether links live on a thread of their own, the same for all endpoints, instead of the caller's runtime.
    pub apart: bool,
    /// Values of the transport that tests vary.
    pub transport: TransportKnobs,
}

impl LinkConfig {
    /// The defaults around `crypto`.
    #[must_use]
    pub fn new(crypto: Arc<LinkCrypto>) -> Self {
        Self {
            crypto,
            idle_timeout: Some(Duration::from_secs(3600)),
            handshake_timeout: Duration::from_secs(15),
            keep_alive: None,
            gate: GateConfig::default(),
            behind: Behind::default(),
            apart: false,
            transport: TransportKnobs::default(),
        }
    }
}

/// Transport values with a reason to differ from the QUIC stack's own defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportKnobs {
    /// Initial congestion window in bytes, both sides. Below ~15 kB a lost half of the ServerHello dead-locks the
    /// handshake: the Initial's retransmission waits for a window that Handshake packets without keys keep full.
    pub initial_window: u64,
    /// RTT assumed before the first sample (RFC 9002 §6.2.2 suggests 333 ms): a first flight that met a peer not listening
    /// yet is repeated after three times this.
    pub initial_rtt: Duration,
    /// Control streams the peer may hold open.
    pub streams: u32,
    /// Receive window of one control stream in bytes; the connection's window is this times `streams`.
    pub stream_window: u32,
    /// CRYPTO bytes buffered out of order: the 7.5 kB flights must fit with room for growth.
    pub crypto_buffer: usize,
    /// Finished incoming links that may wait for `accept`.
    pub accept_queue: usize,
}

impl Default for TransportKnobs {
    fn default() -> Self {
        Self {
            initial_window: 40_000,
            initial_rtt: Duration::from_millis(100),
            streams: 4,
            stream_window: 256 * 1024,
            crypto_buffer: 64 * 1024,
            accept_queue: 64,
        }
    }
}
