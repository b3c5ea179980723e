// SPDX-License-Identifier: MIT OR Apache-2.0
//! Composite keys and signatures: layout, refusals, and agreement with independent implementations.

use ed25519_dalek::Verifier as _;

use super::*;

fn identity(byte: u8) -> Identity {
    Identity::from_seed(&IdentitySeed::from_bytes(&[byte; SEED_LEN])).unwrap()
}

const LABEL: SignatureLabel = SignatureLabel::Statement;

#[test]
fn the_same_seed_gives_the_same_identity() {
    assert_eq!(identity(1).public(), identity(1).public());
    assert_ne!(identity(1).peer_id(), identity(2).peer_id());
    assert_ne!(Identity::generate().unwrap().peer_id(), Identity::generate().unwrap().peer_id());
}

#[test]
fn the_key_of_notes_is_the_same_after_a_restart_and_another_for_another_identity() {
    assert_eq!(identity(1).notes_key(), identity(1).notes_key());
    assert_ne!(identity(1).notes_key(), identity(2).notes_key());
    assert_ne!(identity(1).notes_key(), &[1; 32], "it is not the seed itself");
}

#[test]
fn each_half_comes_from_its_own_seed() {
    let mut seed = [1; SEED_LEN];
    seed[0] ^= 1;
    let other = Identity::from_seed(&IdentitySeed::from_bytes(&seed)).unwrap();
    assert_ne!(other.public().ed25519(), identity(1).public().ed25519());
    assert_eq!(other.public().mldsa(), identity(1).public().mldsa());
}

#[test]
fn spki_round_trips_and_is_well_formed_der() {
    let public = identity(3).public().clone();
    let spki = public.to_spki();
    assert_eq!(spki.len(), SPKI_LEN);
    assert_eq!(PublicIdentity::from_spki(&spki), Ok(public));
    // Outer length, bit string length: what follows each header is exactly the rest.
    assert_eq!(usize::from(u16::from_be_bytes([spki[2], spki[3]])), spki.len() - 4);
    assert_eq!(usize::from(u16::from_be_bytes([spki[30], spki[31]])), spki.len() - 32);
}

#[test]
fn spki_with_any_other_frame_is_refused() {
    let spki = identity(3).public().to_spki();
    for i in 0..SPKI_PREFIX.len() {
        for bit in 0..8 {
            let mut bad = spki.clone();
            bad[i] ^= 1 << bit;
            assert_eq!(PublicIdentity::from_spki(&bad), Err(SpkiError), "byte {i}");
        }
    }
    assert_eq!(PublicIdentity::from_spki(&spki[..SPKI_LEN - 1]), Err(SpkiError));
    assert_eq!(PublicIdentity::from_spki(&[spki.as_slice(), &[0]].concat()), Err(SpkiError));
    assert_eq!(PublicIdentity::from_spki(&[]), Err(SpkiError));
}

#[test]
fn a_signature_verifies_only_for_its_key_label_and_message() {
    let (signer, other) = (identity(4), identity(5));
    let signature = signer.sign(LABEL, b"message").unwrap();
    assert_eq!(signature.as_bytes().len(), SIGNATURE_LEN);
    assert_eq!(signer.public().verify(LABEL, b"message", &signature), Ok(()));
    let both = Err(SignatureError::BadBothHalves);
    assert_eq!(other.public().verify(LABEL, b"message", &signature), both);
    assert_eq!(signer.public().verify(LABEL, b"massage", &signature), both);
    assert_eq!(signer.public().verify(SignatureLabel::TlsHandshake, b"message", &signature), both);
}

#[test]
fn one_bad_half_is_named_and_enough() {
    let signer = identity(4);
    let good = signer.sign(LABEL, b"m").unwrap().into_bytes();
    for (at, expected) in [
        (0, SignatureError::BadMlDsaHalf),
        (MLDSA_SIGNATURE_LEN - 1, SignatureError::BadMlDsaHalf),
        (MLDSA_SIGNATURE_LEN, SignatureError::BadEd25519Half),
        (SIGNATURE_LEN - 1, SignatureError::BadEd25519Half),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let bad = CompositeSignature::from_bytes(&bad).unwrap();
        assert_eq!(signer.public().verify(LABEL, b"m", &bad), Err(expected), "byte {at}");
    }
}

#[test]
fn a_missing_half_is_named() {
    let good = identity(4).sign(LABEL, b"m").unwrap().into_bytes();
    let read = |bytes: &[u8]| CompositeSignature::from_bytes(bytes).unwrap_err();
    assert_eq!(read(&good[..MLDSA_SIGNATURE_LEN]), SignatureError::MissingEd25519Half);
    assert_eq!(read(&good[MLDSA_SIGNATURE_LEN..]), SignatureError::MissingMlDsaHalf);
    assert_eq!(read(&good[1..]), SignatureError::Length);
    assert_eq!(read(&[]), SignatureError::Length);
}

#[test]
fn neither_half_is_a_signature_over_the_bare_message() {
    let signer = identity(4);
    let bytes = signer.sign(LABEL, b"m").unwrap().into_bytes();
    let (mldsa, ed25519) = bytes.split_at(MLDSA_SIGNATURE_LEN);
    let key = signer.public();
    assert!(UnparsedPublicKey::new(&ML_DSA_87, key.mldsa()).verify(b"m", mldsa).is_err());
    assert!(UnparsedPublicKey::new(&ED25519, key.ed25519()).verify(b"m", ed25519).is_err());
}

#[test]
fn no_label_is_a_prefix_of_another() {
    for (at, label) in SignatureLabel::ALL.into_iter().enumerate() {
        let bytes = label.as_bytes();
        assert_eq!(bytes.iter().position(|b| *b == 0), Some(bytes.len() - 1));
        assert!(
            SignatureLabel::ALL[..at].iter().all(|other| other.as_bytes() != bytes),
            "{label:?} is not the only one"
        );
    }
}

#[test]
fn a_hedged_signature_differs_every_time_and_always_verifies() {
    let signer = identity(6);
    let (a, b) = (signer.sign(LABEL, b"m").unwrap(), signer.sign(LABEL, b"m").unwrap());
    assert_ne!(a, b);
    assert_eq!(a.as_bytes()[MLDSA_SIGNATURE_LEN..], b.as_bytes()[MLDSA_SIGNATURE_LEN..]);
    assert_eq!(signer.public().verify(LABEL, b"m", &a), Ok(()));
    assert_eq!(signer.public().verify(LABEL, b"m", &b), Ok(()));
}

#[test]
fn fingerprint_is_the_hash_of_the_encoded_key() {
    let public = identity(7).public().clone();
    assert_eq!(public.fingerprint(), HEXLOWER.encode(&Sha256::digest(public.to_spki())));
}

#[test]
fn nothing_secret_prints() {
    let identity = identity(8);
    let text = format!("{identity:?} {:?}", identity.public());
    let short = identity.peer_id().short();
    assert_eq!(text, format!("Identity({short}) PublicIdentity({short})"));
    warm_up().unwrap();
}

#[test]
fn both_halves_agree_with_independent_implementations() {
    for byte in 0..8 {
        let ours = identity(byte);
        let signed = signed_bytes(LABEL, b"differential");
        let signature = ours.sign(LABEL, b"differential").unwrap().into_bytes();
        let (mldsa, ed25519) = signature.split_at(MLDSA_SIGNATURE_LEN);

        let theirs = ed25519_dalek::SigningKey::from_bytes(&[byte; 32]);
        assert_eq!(theirs.verifying_key().as_bytes(), ours.public().ed25519());
        let half = ed25519_dalek::Signature::from_slice(ed25519).unwrap();
        theirs.verifying_key().verify_strict(&signed, &half).unwrap();
        theirs.verifying_key().verify(&signed, &half).unwrap();

        let theirs = ml_dsa::SigningKey::<ml_dsa::MlDsa87>::from_seed(&[byte; 32].into());
        let theirs_public = ml_dsa::Keypair::verifying_key(&theirs);
        assert_eq!(theirs_public.encode().as_slice(), ours.public().mldsa());
        let half = ml_dsa::Signature::<ml_dsa::MlDsa87>::try_from(mldsa).unwrap();
        assert!(ml_dsa::signature::Verifier::verify(&theirs_public, &signed, &half).is_ok());

        // The other way round: their signatures under our verifier.
        let mldsa = ml_dsa::signature::Signer::sign(&theirs, &signed);
        let ed25519 = ed25519_dalek::Signer::sign(&ed25519_dalek::SigningKey::from_bytes(&[byte; 32]), &signed);
        let both = [mldsa.encode().as_slice(), &ed25519.to_bytes()].concat();
        let both = CompositeSignature::from_bytes(&both).unwrap();
        assert_eq!(ours.public().verify(LABEL, b"differential", &both), Ok(()));
    }
}
