// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configurations of the QUIC stack, as `link.md` 3 decides them.

use std::sync::Arc;

use aws_lc_rs::hmac;
use pqvpn_crypto::identity::PublicIdentity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_crypto::tls::LinkCrypto;

use super::super::{congestion, quic};
use super::local;
use crate::link::{LinkConfig, LinkError};

/// First packets that may wait for the gate; the QUIC stack refuses more, so room for the largest burst of one poll.
const MAX_WAITING: usize = 1024;

/// Bytes of a ClientHello's further datagrams kept while the first waits for the gate, each and in total.
const WAITING_BYTES: (u64, u64) = (16 * 1024, 1024 * 1024);

/// QUIC version 1 (RFC 9000), the only one we speak.
const QUIC_V1: u32 = 1;

/// The smallest datagram size every path carries (RFC 9000 §14).
const DATAGRAM_BYTES: u16 = 1200;

pub(super) fn endpoint_config(crypto: &LinkCrypto) -> quic::EndpointConfig {
    // Peers of the time before a restart learn at their first packet that their links are gone (RFC 9000 §10.3).
    let key = hmac::Key::new(hmac::HMAC_SHA256, crypto.reset_key().tokens());
    let mut endpoint = quic::EndpointConfig::new(Arc::new(key));
    // The demultiplexer tells QUIC from tunnel packets by this bit.
    endpoint.grease_quic_bit(false);
    endpoint.supported_versions(vec![QUIC_V1]);
    endpoint
}

pub(super) fn transport(config: &LinkConfig) -> Result<quic::TransportConfig, LinkError> {
    let knobs = &config.transport;
    let mut transport = quic::TransportConfig::default();
    transport
        .max_idle_timeout(config.idle_timeout.map(quic::IdleTimeout::try_from).transpose().map_err(local)?)
        .keep_alive_interval(config.keep_alive)
        .max_concurrent_bidi_streams(knobs.streams.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(knobs.stream_window.into())
        .receive_window(knobs.stream_window.saturating_mul(knobs.streams).into())
        .send_window(u64::from(knobs.stream_window))
        .initial_mtu(DATAGRAM_BYTES)
        // Probes would be the only packets of an idle link, and control frames do not need larger datagrams.
        .mtu_discovery_config(None)
        .initial_rtt(knobs.initial_rtt)
        .crypto_buffer_size(knobs.crypto_buffer)
        // The spin bit shows the path's RTT to everybody on it (RFC 9000 §17.4).
        .allow_spin(false)
        .congestion_controller_factory(congestion(knobs));
    Ok(transport)
}

pub(super) fn server_config(
    config: &LinkConfig,
    transport: Arc<quic::TransportConfig>,
) -> Result<quic::ServerConfig, LinkError> {
    let initial = config.crypto.initial_suite();
    let tls = quic::crypto::rustls::QuicServerConfig::with_initial(config.crypto.server_config(), initial);
    let mut server = quic::ServerConfig::with_crypto(Arc::new(tls.map_err(local)?));
    let mut tokens = quic::ValidationTokenConfig::default();
    tokens.sent(0).log(Arc::new(quic::NoneTokenLog));
    server
        .transport_config(transport)
        .validation_token_config(tokens)
        .migration(super::super::ROAMS)
        .max_incoming(MAX_WAITING)
        .incoming_buffer_size(WAITING_BYTES.0)
        .incoming_buffer_size_total(WAITING_BYTES.1);
    Ok(server)
}

pub(super) fn client_config(
    crypto: &LinkCrypto,
    peer: Option<&PeerId>,
    known: Option<&PublicIdentity>,
    transport: Arc<quic::TransportConfig>,
) -> Result<quic::ClientConfig, LinkError> {
    let tls = peer.map_or_else(|| crypto.client_config_to_anybody(), |peer| crypto.client_config(peer, known));
    let tls = quic::crypto::rustls::QuicClientConfig::with_initial(tls, crypto.initial_suite()).map_err(local)?;
    let mut client = quic::ClientConfig::new(Arc::new(tls));
    client.transport_config(transport).token_store(Arc::new(quic::NoneTokenStore)).version(QUIC_V1);
    Ok(client)
}
