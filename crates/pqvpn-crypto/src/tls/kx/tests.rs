// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hybrid group alone: agreement, layout, refused shares, and agreement with independent implementations.

use ml_kem::{Decapsulate as _, KeyExport as _};

use super::*;

fn invalid() -> Error {
    PeerMisbehaved::InvalidKeyShare.into()
}

#[test]
fn both_sides_derive_the_same_secret() {
    let client = X25519MlKem1024.start().unwrap();
    assert_eq!(client.pub_key().len(), SHARE_LEN);
    assert_eq!(client.group(), NamedGroup::Unknown(GROUP_CODE));
    let server = X25519MlKem1024.start_and_complete(client.pub_key()).unwrap();
    assert_eq!(server.pub_key.len(), SHARE_LEN);
    let secret = client.complete(&server.pub_key).unwrap();
    assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
    assert_eq!(secret.secret_bytes().len(), 64);
}

#[test]
fn every_exchange_is_fresh() {
    let share = X25519MlKem1024.start().unwrap().pub_key().to_vec();
    let a = X25519MlKem1024.start_and_complete(&share).unwrap();
    let b = X25519MlKem1024.start_and_complete(&share).unwrap();
    assert_ne!(a.secret.secret_bytes()[..32], b.secret.secret_bytes()[..32]);
    assert_ne!(a.secret.secret_bytes()[32..], b.secret.secret_bytes()[32..]);
}

#[test]
fn no_bare_x25519_share_is_ever_offered() {
    assert!(X25519MlKem1024.start().unwrap().hybrid_component().is_none());
    assert!(!X25519MlKem1024.usable_for_version(ProtocolVersion::TLSv1_2));
    assert!(X25519MlKem1024.usable_for_version(ProtocolVersion::TLSv1_3));
}

#[test]
fn low_order_points_are_refused_on_both_sides() {
    let client = X25519MlKem1024.start().unwrap();
    let server = X25519MlKem1024.start_and_complete(client.pub_key()).unwrap();
    // 0, 1 and p - 1: points of order 4, 1 and 2 give an all-zero secret (RFC 7748 §6.1).
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut one = [0; 32];
    one[0] = 1;
    for point in [[0; 32], one, minus_one] {
        let share = [&client.pub_key()[..MLKEM_LEN], &point].concat();
        assert_eq!(X25519MlKem1024.start_and_complete(&share).err(), Some(invalid()));
        let share = [&server.pub_key[..MLKEM_LEN], &point].concat();
        assert_eq!(X25519MlKem1024.start().unwrap().complete(&share).err(), Some(invalid()));
    }
}

#[test]
fn a_non_reduced_mlkem_key_is_refused() {
    let share = X25519MlKem1024.start().unwrap().pub_key().to_vec();
    // Two 12-bit coefficients in three bytes; 3329 = 0xd01 is the modulus itself.
    for (bytes, reduced) in [([0x00, 0x0d, 0x00], true), ([0x01, 0x0d, 0x00], false), ([0xff, 0xff, 0xff], false)] {
        for at in [0, 1533] {
            let mut share = share.clone();
            share[at..at + 3].copy_from_slice(&bytes);
            let refused = X25519MlKem1024.start_and_complete(&share).err();
            assert_eq!(refused, (!reduced).then(invalid), "{bytes:?} at {at}");
        }
    }
}

#[test]
fn shares_of_any_other_length_are_refused() {
    let share = vec![0; SHARE_LEN + 1];
    for len in [0, 1, 32, MLKEM_LEN, SHARE_LEN - 1, SHARE_LEN + 1] {
        assert_eq!(X25519MlKem1024.start_and_complete(&share[..len]).err(), Some(invalid()), "{len}");
        assert_eq!(X25519MlKem1024.start().unwrap().complete(&share[..len]).err(), Some(invalid()), "{len}");
    }
}

#[test]
fn a_changed_ciphertext_gives_another_secret() {
    let client = X25519MlKem1024.start().unwrap();
    let mut server = X25519MlKem1024.start_and_complete(client.pub_key()).unwrap();
    server.pub_key[0] ^= 1;
    // FIPS 203 §6.3: implicit rejection; the handshake then fails at the first protected record.
    let secret = client.complete(&server.pub_key).unwrap();
    assert_ne!(secret.secret_bytes()[..32], server.secret.secret_bytes()[..32]);
    assert_eq!(secret.secret_bytes()[32..], server.secret.secret_bytes()[32..]);
}

#[test]
fn an_independent_client_agrees_with_our_server() {
    let mlkem = ml_kem::ml_kem_1024::DecapsulationKey::from_seed([7; 64].into());
    let point = x25519_dalek::x25519([9; 32], x25519_dalek::X25519_BASEPOINT_BYTES);
    let share = [mlkem.encapsulation_key().to_bytes().as_slice(), &point].concat();

    let server = X25519MlKem1024.start_and_complete(&share).unwrap();
    let (ciphertext, point) = server.pub_key.split_at(MLKEM_LEN);
    let first = mlkem.decapsulate_slice(ciphertext).unwrap();
    let second = x25519_dalek::x25519([9; 32], point.try_into().unwrap());
    assert_eq!(server.secret.secret_bytes(), [first.as_slice(), &second].concat());
}

#[test]
fn an_independent_server_agrees_with_our_client() {
    let client = X25519MlKem1024.start().unwrap();
    let (key, point) = client.pub_key().split_at(MLKEM_LEN);
    let key = ml_kem::ml_kem_1024::EncapsulationKey::new(key.try_into().unwrap()).unwrap();
    let (ciphertext, first) = key.encapsulate_deterministic(&[5; 32].into());
    let second = x25519_dalek::x25519([6; 32], point.try_into().unwrap());
    let public = x25519_dalek::x25519([6; 32], x25519_dalek::X25519_BASEPOINT_BYTES);
    let share = [ciphertext.as_slice(), &public].concat();
    let secret = client.complete(&share).unwrap();
    assert_eq!(secret.secret_bytes(), [first.as_slice(), &second].concat());
}
