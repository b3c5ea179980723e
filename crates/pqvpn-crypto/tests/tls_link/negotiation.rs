// SPDX-License-Identifier: MIT OR Apache-2.0
//! Peers with other algorithms, versions or broken key shares: nothing can be negotiated down.

use std::sync::Arc;

use pqvpn_crypto::tls::Refusal;
use pqvpn_crypto::tls::suite::SUITE_CODE;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::{ClientConfig, ClientConnection};

use crate::pair::{deliver, handshake, identity, node, pending, server_name};
use crate::rogue::{Rogue, TamperedShare, TrustAll, provider};

fn rogue_with(groups: &[&'static dyn SupportedKxGroup]) -> Rogue {
    Rogue { provider: provider(groups), ..Rogue::new(identity(2)) }
}

/// A client without our group is refused by our server; a server without it finds nothing in our hello.
fn no_common_group(groups: &[&'static dyn SupportedKxGroup]) {
    let honest = node(1, &[2]);
    let rogue = rogue_with(groups);
    handshake(rogue.client(), &identity(1).peer_id(), honest.server_config())
        .assert_server_refused(Refusal::NoCommonGroup);
    let peer = identity(2).peer_id();
    let out = handshake(honest.client_config(&peer, None), &peer, rogue.server());
    assert_eq!(out.refusals(), (Some(Refusal::RefusedByPeer), Some(Refusal::NoCommonGroup)));
}

#[test]
fn classical_only_group() {
    no_common_group(&[kx_group::X25519]);
}

#[test]
fn all_classical_groups() {
    no_common_group(&[kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]);
}

#[test]
fn weaker_hybrid_group() {
    no_common_group(&[kx_group::X25519MLKEM768]);
}

#[test]
fn mlkem_only_group() {
    no_common_group(&[kx_group::MLKEM1024]);
}

#[test]
fn a_server_that_asks_for_x25519_instead_is_refused() {
    let peer = identity(2).peer_id();
    let config = node(1, &[2]).client_config(&peer, None);
    for group in [0x001d_u16, 0x11ec, 0x0202, 0xfe11] {
        let mut client = ClientConnection::new(Arc::clone(&config), server_name(&peer)).unwrap();
        let hello = pending(&mut client);
        let mut error = None;
        deliver(&hello_retry_request(&hello, group), &mut client, &mut error);
        assert_eq!(error.as_ref().and_then(Refusal::of), Some(Refusal::NoCommonGroup), "{group:#x} {error:?}");
        assert!(client.is_handshaking());
    }
}

/// RFC 8446 §4.1.4, with the session id of the hello it answers.
fn hello_retry_request(hello: &[u8], group: u16) -> Vec<u8> {
    const RANDOM: [u8; 32] = [
        0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2,
        0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
    ];
    // Record header 5, handshake header 4, version 2, random 32.
    let session_id = &hello[43..44 + usize::from(hello[43])];
    let mut body = vec![3, 3];
    body.extend(RANDOM);
    body.extend_from_slice(session_id);
    body.extend(SUITE_CODE.to_be_bytes());
    body.push(0);
    body.extend([0, 12, 0, 0x2b, 0, 2, 3, 4, 0, 0x33, 0, 2]);
    body.extend(group.to_be_bytes());
    let len = body.len() as u8;
    [&[22, 3, 3, 0, len + 4, 2, 0, 0, len][..], &body].concat()
}

#[test]
fn standard_suites_only() {
    let honest = node(1, &[2]);
    let mut rogue = Rogue::new(identity(2));
    rogue.provider.cipher_suites = vec![
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ];
    handshake(rogue.client(), &identity(1).peer_id(), honest.server_config())
        .assert_server_refused(Refusal::NoCommonSuite);
    let peer = identity(2).peer_id();
    let out = handshake(honest.client_config(&peer, None), &peer, rogue.server());
    assert_eq!(out.refusals(), (Some(Refusal::RefusedByPeer), Some(Refusal::NoCommonSuite)));
}

#[test]
fn tls_1_2_only() {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll))
        .with_no_client_auth();
    let out = handshake(Arc::new(config), &identity(1).peer_id(), node(1, &[2]).server_config());
    out.assert_server_refused(Refusal::NoCommonVersion);
}

#[test]
fn another_application_protocol() {
    let rogue = Rogue { alpn: vec![b"h3".to_vec()], ..Rogue::new(identity(2)) };
    handshake(rogue.client(), &identity(1).peer_id(), node(1, &[2]).server_config())
        .assert_server_refused(Refusal::NoCommonProtocol);
}

fn bad_share(group: &'static TamperedShare) {
    let honest = node(1, &[2]);
    let rogue = rogue_with(&[group]);
    handshake(rogue.client(), &identity(1).peer_id(), honest.server_config())
        .assert_server_refused(Refusal::InvalidKeyShare);
    let peer = identity(2).peer_id();
    let out = handshake(honest.client_config(&peer, None), &peer, rogue.server());
    assert_eq!(out.refusals().0, Some(Refusal::InvalidKeyShare), "{:?}", out.client_error);
}

#[test]
fn zero_x25519_point() {
    static GROUP: TamperedShare = TamperedShare(|share| share[1568..].fill(0));
    bad_share(&GROUP);
}

#[test]
fn key_share_of_the_wrong_length() {
    static SHORTER: TamperedShare = TamperedShare(|share| share.truncate(1599));
    static LONGER: TamperedShare = TamperedShare(|share| share.push(0));
    static CLASSICAL: TamperedShare = TamperedShare(|share| drop(share.drain(..1568)));
    static MLKEM: TamperedShare = TamperedShare(|share| share.truncate(1568));
    for group in [&SHORTER, &LONGER, &CLASSICAL, &MLKEM] {
        bad_share(group);
    }
}

#[test]
fn non_reduced_mlkem_key() {
    // Only a client sends a key; its first two coefficients become 4095.
    static GROUP: TamperedShare = TamperedShare(|share| share[..3].fill(0xff));
    let rogue = rogue_with(&[&GROUP]);
    handshake(rogue.client(), &identity(1).peer_id(), node(1, &[2]).server_config())
        .assert_server_refused(Refusal::InvalidKeyShare);
}

#[test]
fn tampered_mlkem_ciphertext() {
    // Implicit rejection: the secrets differ and the first protected record does not open.
    static GROUP: TamperedShare = TamperedShare(|share| share[7] ^= 1);
    let peer = identity(2).peer_id();
    let out = handshake(node(1, &[2]).client_config(&peer, None), &peer, rogue_with(&[&GROUP]).server());
    assert_eq!(out.refusals().0, Some(Refusal::MalformedHandshake), "{:?}", out.client_error);
}

#[test]
fn garbage_is_a_malformed_handshake() {
    let server = node(1, &[2]);
    let mut connection = rustls::ServerConnection::new(server.server_config()).unwrap();
    let mut error = None;
    deliver(b"GET / HTTP/1.1\r\n\r\n", &mut connection, &mut error);
    assert_eq!(error.as_ref().and_then(Refusal::of), Some(Refusal::MalformedHandshake), "{error:?}");
}
