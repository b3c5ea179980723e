// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handshakes that complete, and what they look like from outside.

use std::sync::Arc;

use pqvpn_crypto::tls::kx::GROUP_CODE;
use pqvpn_crypto::tls::suite::SUITE_CODE;
use pqvpn_crypto::tls::{ALPN, Refusal, peer_from_certs};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::pair::{dial, handshake, identity, node, server_name};
use crate::rogue::Rogue;

#[test]
fn two_nodes_agree_on_the_one_profile_and_know_each_other() {
    let out = dial(&node(1, &[2]), &node(2, &[1]), 2);
    assert!(out.completed(), "{:?} {:?}", out.client_error, out.server_error);
    assert_eq!(out.client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::Unknown(GROUP_CODE));
    assert_eq!(out.client.negotiated_cipher_suite().unwrap().suite(), CipherSuite::Unknown(SUITE_CODE));
    assert_eq!(out.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!((out.client.alpn_protocol(), out.server.alpn_protocol()), (Some(ALPN), Some(ALPN)));
    let seen_by_client = peer_from_certs(out.client.peer_certificates().unwrap()).unwrap();
    let seen_by_server = peer_from_certs(out.server.peer_certificates().unwrap()).unwrap();
    assert_eq!(seen_by_client, *identity(2).public());
    assert_eq!(seen_by_server, *identity(1).public());
}

#[test]
fn the_exporter_is_equal_on_both_sides_and_bound_to_its_inputs() {
    let out = dial(&node(1, &[2]), &node(2, &[1]), 2);
    let client =
        |label: &[u8], context: &[u8]| out.client.export_keying_material([0; 64], label, Some(context)).unwrap();
    let server = out.server.export_keying_material([0; 64], b"EXPORTER-pqvpn test", Some(b"context")).unwrap();
    assert_eq!(client(b"EXPORTER-pqvpn test", b"context"), server);
    assert_ne!(client(b"EXPORTER-pqvpn test", b"another"), server);
    assert_ne!(client(b"EXPORTER-pqvpn else", b"context"), server);
    let again = dial(&node(1, &[2]), &node(2, &[1]), 2);
    let fresh = again.client.export_keying_material([0; 64], b"EXPORTER-pqvpn test", Some(b"context")).unwrap();
    assert_ne!(fresh, server);
}

#[test]
fn the_client_hello_needs_three_datagrams_and_hides_the_peer() {
    let out = dial(&node(1, &[2]), &node(2, &[1]), 2);
    // Two QUIC Initials carry at most 2400 bytes; three allow the server 10.8 kB before validation.
    assert!(out.hello.len() > 2400, "{}", out.hello.len());
    assert!(out.hello.len() < 3 * 1150, "{}", out.hello.len());
    assert!(out.server_bytes < 10_800 - 3 * 60, "{}", out.server_bytes);
    let name = identity(2).peer_id().to_server_name();
    assert!(!out.hello.windows(12).any(|w| name.as_bytes().windows(12).any(|n| n == w)));
    assert!(out.server.server_name().is_none());
}

#[test]
fn a_known_key_is_sent_as_its_hash() {
    let (client, server) = (node(1, &[2]), node(2, &[1]));
    let key = identity(2).public().clone();
    let peer = key.peer_id();
    let full = handshake(client.client_config(&peer, None), &peer, server.server_config());
    let known = handshake(client.client_config(&peer, Some(&key)), &peer, server.server_config());
    assert!(full.completed() && known.completed());
    let saved = full.server_bytes - known.server_bytes;
    assert!((2600..2700).contains(&saved), "{saved}");
    // Fits what two datagrams allow.
    assert!(known.server_bytes < 7200 - 2 * 60 + 600, "{}", known.server_bytes);
    assert_eq!(peer_from_certs(known.client.peer_certificates().unwrap()).unwrap(), key);
}

#[test]
fn a_known_key_of_another_peer_is_not_used() {
    let (client, server) = (node(1, &[2, 3]), node(2, &[1]));
    let peer = identity(2).peer_id();
    let config = client.client_config(&peer, Some(identity(3).public()));
    assert!(config.cert_decompressors.is_empty());
    assert!(handshake(config, &peer, server.server_config()).completed());
}

#[test]
fn another_server_cannot_answer_for_a_known_key() {
    let (client, server) = (node(1, &[2, 3]), node(3, &[1]));
    let peer = identity(2).peer_id();
    let out = handshake(client.client_config(&peer, Some(identity(2).public())), &peer, server.server_config());
    out.assert_client_refused(Refusal::UnknownCompressedKey);
}

#[test]
fn our_server_never_lets_a_client_resume() {
    let server = node(2, &[1]);
    let mut client = (*Rogue::new(identity(1)).client()).clone();
    client.resumption = Resumption::in_memory_sessions(8);
    let client = Arc::new(client);
    for _ in 0..3 {
        let out = handshake(Arc::clone(&client), &identity(2).peer_id(), server.server_config());
        assert!(out.completed(), "{:?}", out.server_error);
        assert_eq!(out.server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(out.client.tls13_tickets_received(), 0);
    }
}

#[test]
fn our_client_never_resumes_at_a_server_that_offers_it() {
    let client = node(1, &[2]);
    let server = Rogue::new(identity(2)).server();
    assert!(server.send_tls13_tickets > 0);
    let config = client.client_config(&identity(2).peer_id(), None);
    for _ in 0..3 {
        let out = handshake(Arc::clone(&config), &identity(2).peer_id(), Arc::clone(&server));
        assert!(out.completed(), "{:?}", out.client_error);
        assert!(out.client.tls13_tickets_received() > 0);
        assert_eq!(out.client.handshake_kind(), Some(HandshakeKind::Full));
        assert!(!out.client.is_early_data_accepted());
    }
}

#[test]
fn quic_takes_the_same_configurations() {
    use rustls::quic::{ClientConnection, Connection, ServerConnection, Version};
    let (dialer, listener) = (node(1, &[2]), node(2, &[1]));
    let peer = identity(2).peer_id();
    let config = dialer.client_config(&peer, None);
    let client = ClientConnection::new(config, Version::V1, server_name(&peer), b"tp".to_vec()).unwrap();
    let server = ServerConnection::new(listener.server_config(), Version::V1, b"tp".to_vec()).unwrap();
    let (mut client, mut server) = (Connection::Client(client), Connection::Server(server));
    let hello = carry(&mut client, &mut server);
    assert!(hello > 2400, "{hello}");
    while carry(&mut server, &mut client) + carry(&mut client, &mut server) > 0 {}
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(peer_from_certs(server.peer_certificates().unwrap()).unwrap(), *identity(1).public());
    assert_eq!((client.alpn_protocol(), server.alpn_protocol()), (Some(ALPN), Some(ALPN)));
}

/// Carries every flight from one QUIC handshake to the other, one encryption level at a time.
fn carry(from: &mut rustls::quic::Connection, to: &mut rustls::quic::Connection) -> usize {
    let mut carried = 0;
    loop {
        let mut flight = Vec::new();
        let next_level = from.write_hs(&mut flight).is_some();
        if flight.is_empty() && !next_level {
            return carried;
        }
        to.read_hs(&flight).unwrap();
        carried += flight.len();
    }
}

#[test]
fn quic_initial_packets_have_their_fixed_suite() {
    assert_eq!(node(1, &[]).initial_suite().suite.common.suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[test]
fn a_certificate_list_names_one_peer_or_none() {
    let spki = CertificateDer::from(identity(1).public().to_spki());
    assert_eq!(peer_from_certs(std::slice::from_ref(&spki)).as_ref(), Ok(identity(1).public()));
    assert_eq!(peer_from_certs(&[]), Err(Refusal::AnonymousPeer));
    assert_eq!(peer_from_certs(&[spki.clone(), spki]), Err(Refusal::MalformedKey));
    assert_eq!(peer_from_certs(&[CertificateDer::from(vec![0; 10])]), Err(Refusal::MalformedKey));
}
