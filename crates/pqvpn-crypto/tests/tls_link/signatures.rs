// SPDX-License-Identifier: MIT OR Apache-2.0
//! A peer that shows a right key but cannot make one half of the signature, on either side of the handshake.

use pqvpn_crypto::identity::{MLDSA_SIGNATURE_LEN, SignatureLabel};
use pqvpn_crypto::tls::Refusal;

use crate::pair::{handshake, identity, node};
use crate::rogue::{Forge, Rogue};

/// Node 1 is honest; node 2 is admitted by it, but signs wrongly.
fn refused_both_ways(forge: Forge, expected: Refusal) {
    let honest = node(1, &[2]);
    let rogue = Rogue { forge, ..Rogue::new(identity(2)) };
    let (honest_id, rogue_id) = (identity(1).peer_id(), identity(2).peer_id());
    handshake(rogue.client(), &honest_id, honest.server_config()).assert_server_refused(expected);
    handshake(honest.client_config(&rogue_id, None), &rogue_id, rogue.server()).assert_client_refused(expected);
}

/// A right signature by a node that was never admitted.
fn foreign(message: &[u8]) -> Vec<u8> {
    identity(9).sign(SignatureLabel::TlsHandshake, message).unwrap().into_bytes()
}

#[test]
fn an_unforged_rogue_passes() {
    let rogue = Rogue::new(identity(2));
    assert!(handshake(rogue.client(), &identity(1).peer_id(), node(1, &[2]).server_config()).completed());
    let config = node(1, &[2]).client_config(&identity(2).peer_id(), None);
    assert!(handshake(config, &identity(2).peer_id(), rogue.server()).completed());
}

#[test]
fn wrong_ed25519_half() {
    let forge: Forge = |mut signature, _| {
        signature[MLDSA_SIGNATURE_LEN + 5] ^= 1;
        signature
    };
    refused_both_ways(forge, Refusal::BadEd25519Half);
}

#[test]
fn wrong_mldsa_half() {
    let forge: Forge = |mut signature, _| {
        signature[5] ^= 1;
        signature
    };
    refused_both_ways(forge, Refusal::BadMlDsaHalf);
}

#[test]
fn missing_ed25519_half() {
    refused_both_ways(|signature, _| signature[..MLDSA_SIGNATURE_LEN].to_vec(), Refusal::MissingEd25519Half);
}

#[test]
fn missing_mldsa_half() {
    refused_both_ways(|signature, _| signature[MLDSA_SIGNATURE_LEN..].to_vec(), Refusal::MissingMlDsaHalf);
}

#[test]
fn zeroed_halves() {
    let no_ed: Forge = |mut signature, _| {
        signature[MLDSA_SIGNATURE_LEN..].fill(0);
        signature
    };
    refused_both_ways(no_ed, Refusal::BadEd25519Half);
    let no_mldsa: Forge = |mut signature, _| {
        signature[..MLDSA_SIGNATURE_LEN].fill(0);
        signature
    };
    refused_both_ways(no_mldsa, Refusal::BadMlDsaHalf);
}

#[test]
fn foreign_ed25519_half() {
    let forge: Forge = |mut signature, message| {
        signature.truncate(MLDSA_SIGNATURE_LEN);
        signature.extend_from_slice(&foreign(message)[MLDSA_SIGNATURE_LEN..]);
        signature
    };
    refused_both_ways(forge, Refusal::BadEd25519Half);
}

#[test]
fn foreign_mldsa_half() {
    let forge: Forge = |signature, message| {
        let mut mixed = foreign(message);
        mixed.truncate(MLDSA_SIGNATURE_LEN);
        mixed.extend_from_slice(&signature[MLDSA_SIGNATURE_LEN..]);
        mixed
    };
    refused_both_ways(forge, Refusal::BadMlDsaHalf);
}

#[test]
fn both_halves_foreign() {
    refused_both_ways(|_, message| foreign(message), Refusal::BadBothHalves);
}

#[test]
fn signature_over_another_transcript() {
    let forge: Forge = |_, message| {
        let mut other = message.to_vec();
        other[70] ^= 1;
        identity(2).sign(SignatureLabel::TlsHandshake, &other).unwrap().into_bytes()
    };
    refused_both_ways(forge, Refusal::BadBothHalves);
}

#[test]
fn signature_for_another_purpose() {
    let forge: Forge = |_, message| identity(2).sign(SignatureLabel::Statement, message).unwrap().into_bytes();
    refused_both_ways(forge, Refusal::BadBothHalves);
}

#[test]
fn signature_of_another_length() {
    refused_both_ways(|signature, _| [signature, vec![0]].concat(), Refusal::MalformedSignature);
    refused_both_ways(|_, _| Vec::new(), Refusal::MalformedSignature);
}

#[test]
fn signature_scheme_of_another_kind() {
    let honest = node(1, &[2]);
    // Ed25519 and ML-DSA-87 by their standard code points.
    for scheme in [0x0807, 0x0906] {
        let rogue = Rogue { scheme, ..Rogue::new(identity(2)) };
        handshake(rogue.client(), &identity(1).peer_id(), honest.server_config())
            .assert_server_refused(Refusal::NoCommonSignatureScheme);
        let peer = identity(2).peer_id();
        handshake(honest.client_config(&peer, None), &peer, rogue.server())
            .assert_client_refused(Refusal::NoCommonSignatureScheme);
    }
}
