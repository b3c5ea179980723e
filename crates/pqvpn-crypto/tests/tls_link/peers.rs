// SPDX-License-Identifier: MIT OR Apache-2.0
//! The right protocol spoken by the wrong peer.

use std::sync::Arc;

use pqvpn_crypto::identity::{MLDSA_PUBLIC_LEN, PublicIdentity, SPKI_LEN};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_crypto::tls::{Admission, LinkCrypto, NOBODY, Refusal, Side};
use rustls::ClientConfig;
use rustls::version::TLS13;

use crate::pair::{dial, handshake, identity, node};
use crate::rogue::{Rogue, TrustAll};

#[test]
fn a_client_nobody_knows_is_refused() {
    dial(&node(9, &[2]), &node(2, &[1]), 2).assert_server_refused(Refusal::UnknownPeer);
}

#[test]
fn a_server_nobody_knows_is_refused_even_under_its_own_name() {
    dial(&node(1, &[]), &node(2, &[1]), 2).assert_client_refused(Refusal::UnknownPeer);
}

#[test]
fn an_admitted_server_under_another_name_is_refused() {
    let client = node(1, &[2, 3]);
    let dialled = identity(2).peer_id();
    let out = handshake(client.client_config(&dialled, None), &dialled, node(3, &[1]).server_config());
    out.assert_client_refused(Refusal::WrongPeerId);
}

#[test]
fn the_name_of_the_dial_and_of_the_configuration_must_agree() {
    let client = node(1, &[2, 3]);
    let (two, three) = (identity(2).peer_id(), identity(3).peer_id());
    for (configured, dialled, server) in [(two, three, 2), (two, three, 3), (three, two, 2)] {
        let out = handshake(client.client_config(&configured, None), &dialled, node(server, &[1]).server_config());
        out.assert_client_refused(Refusal::WrongPeerId);
    }
}

#[test]
fn a_dial_to_anybody_proves_who_answers_and_takes_no_name_and_no_stolen_key() {
    let client = node(1, &[2, 3]);
    for server in [2, 3] {
        let out = handshake(client.client_config_to_anybody(), &NOBODY, node(server, &[1]).server_config());
        assert!(out.completed(), "{:?} {:?}", out.client_error, out.server_error);
    }
    let two = identity(2).peer_id();
    handshake(client.client_config_to_anybody(), &two, node(2, &[1]).server_config())
        .assert_client_refused(Refusal::WrongPeerId);
    let thief = Rogue { certs: vec![identity(2).public().to_spki()], ..Rogue::new(identity(9)) };
    handshake(client.client_config_to_anybody(), &NOBODY, thief.server()).assert_client_refused(Refusal::BadBothHalves);
}

#[test]
fn the_victims_mldsa_key_beside_an_own_ed25519_key_is_another_peer() {
    // Whoever breaks ML-DSA alone can sign for the first half, but the PeerID covers both keys (link.md 2.4).
    let mut spki = identity(2).public().to_spki();
    spki.truncate(SPKI_LEN - 32);
    spki.extend_from_slice(identity(9).public().ed25519());
    let forged = PublicIdentity::from_spki(&spki).unwrap();
    assert_eq!(forged.mldsa().len(), MLDSA_PUBLIC_LEN);
    let rogue = Rogue { certs: vec![spki], ..Rogue::new(identity(2)) };
    let honest = node(1, &[2]);
    let peer = identity(2).peer_id();
    handshake(honest.client_config(&peer, None), &peer, rogue.server()).assert_client_refused(Refusal::WrongPeerId);
    handshake(rogue.client(), &identity(1).peer_id(), honest.server_config())
        .assert_server_refused(Refusal::UnknownPeer);
}

#[test]
fn a_key_without_its_private_half_is_refused() {
    // Node 9 shows node 2's key.
    let rogue = Rogue { certs: vec![identity(2).public().to_spki()], ..Rogue::new(identity(9)) };
    let honest = node(1, &[2]);
    let peer = identity(2).peer_id();
    handshake(honest.client_config(&peer, None), &peer, rogue.server()).assert_client_refused(Refusal::BadBothHalves);
    handshake(rogue.client(), &identity(1).peer_id(), honest.server_config())
        .assert_server_refused(Refusal::BadBothHalves);
}

#[test]
fn malformed_keys_are_refused() {
    let honest = node(1, &[2]);
    let good = identity(2).public().to_spki();
    let mut flipped = good.clone();
    flipped[10] ^= 1;
    let longer = [good.as_slice(), &[0]].concat();
    let mldsa_only = good[..SPKI_LEN - 32].to_vec();
    for certs in [vec![flipped], vec![longer], vec![mldsa_only], vec![b"x".to_vec()], vec![good.clone(), good]] {
        let rogue = Rogue { certs, ..Rogue::new(identity(2)) };
        let peer = identity(2).peer_id();
        handshake(honest.client_config(&peer, None), &peer, rogue.server())
            .assert_client_refused(Refusal::MalformedKey);
        handshake(rogue.client(), &identity(1).peer_id(), honest.server_config())
            .assert_server_refused(Refusal::MalformedKey);
    }
}

#[test]
fn an_anonymous_client_is_refused() {
    let provider = Arc::new(Rogue::new(identity(2)).provider);
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAll))
        .with_no_client_auth();
    let out = handshake(Arc::new(config), &identity(1).peer_id(), node(1, &[2]).server_config());
    out.assert_server_refused(Refusal::AnonymousPeer);
}

#[test]
fn a_client_that_offers_a_key_and_sends_none_is_refused() {
    let rogue = Rogue { certs: Vec::new(), ..Rogue::new(identity(2)) };
    let out = handshake(rogue.client(), &identity(1).peer_id(), node(1, &[2]).server_config());
    assert_eq!(out.refusals().1, Some(Refusal::AnonymousPeer), "{:?}", out.server_error);
}

#[test]
fn a_server_without_a_raw_public_key_is_refused() {
    let rogue = Rogue { certs: Vec::new(), ..Rogue::new(identity(2)) };
    let peer = identity(2).peer_id();
    let out = handshake(node(1, &[2]).client_config(&peer, None), &peer, rogue.server());
    assert_eq!(out.refusals().0, Some(Refusal::AnonymousPeer), "{:?}", out.client_error);
}

#[derive(Debug)]
struct OnlyWhenWeDial;

impl Admission for OnlyWhenWeDial {
    fn admit(&self, _peer: &PeerId, _key: &PublicIdentity, side: Side) -> Result<(), Refusal> {
        match side {
            Side::Dialer => Ok(()),
            Side::Listener => Err(Refusal::NotAdmitted),
        }
    }
}

#[test]
fn admission_learns_our_side_and_its_reason_is_kept() {
    let picky = LinkCrypto::new(identity(1), Arc::new(OnlyWhenWeDial));
    assert!(dial(&picky, &node(2, &[1]), 2).completed());
    dial(&node(2, &[1]), &picky, 1).assert_server_refused(Refusal::NotAdmitted);
}

#[test]
fn refusals_are_counted_under_their_reason() {
    let server = node(2, &[1]);
    for stranger in [7, 8, 9] {
        let out = dial(&node(stranger, &[2]), &server, 2);
        assert_eq!(server.refusals().record(&out.server_error.unwrap()), Some(Refusal::UnknownPeer));
    }
    assert_eq!(server.refusals().snapshot(), [(Refusal::UnknownPeer, 3)]);
}
