// SPDX-License-Identifier: MIT OR Apache-2.0
//! Known answers of the independent model, and everything that must not verify.

use data_encoding::HEXLOWER;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The order of the group, little endian: the smallest scalar that is not reduced.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

struct Sample {
    network: [u8; 32],
    serial: [u8; 16],
    verifier: PeerId,
    joiner: PeerId,
    exporter: [u8; 32],
}

impl Sample {
    fn new() -> Self {
        Self {
            network: [1; 32],
            serial: [2; 16],
            verifier: PeerId::from_bytes([3; 32]),
            joiner: PeerId::from_bytes([4; 32]),
            exporter: [5; 32],
        }
    }

    fn context(&self) -> JoinContext {
        JoinContext::new(&self.network, &self.serial, &self.verifier, &self.joiner, &self.exporter)
    }
}

fn key() -> InviteKey {
    InviteKey::from_secret(&[7; 16])
}

fn hex<const N: usize>(vector: &Value, name: &str) -> [u8; N] {
    HEXLOWER.decode(vector[name].as_str().unwrap().as_bytes()).unwrap().try_into().unwrap()
}

#[test]
fn the_model_s_vectors() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../../../tests/vectors/schnorr.json")).unwrap();
    assert_eq!(vectors.len(), 4);
    for vector in &vectors {
        let sample = Sample {
            network: hex(vector, "network"),
            serial: hex(vector, "serial"),
            verifier: PeerId::from_bytes(hex(vector, "verifier")),
            joiner: PeerId::from_bytes(hex(vector, "joiner")),
            exporter: hex(vector, "exporter"),
        };
        let key = InviteKey::from_secret(&hex(vector, "secret"));
        assert_eq!(*sample.context().as_bytes(), hex::<64>(vector, "context"));
        assert_eq!(key.point(), hex::<32>(vector, "point"));
        let proof = key.prove(&sample.context(), &hex(vector, "seed"));
        assert_eq!(proof.to_bytes(), hex::<64>(vector, "proof"));
        assert_eq!(verify(&key.point(), &sample.context(), &proof), Ok(()));
        let commitment = CompressedRistretto(hex(vector, "commitment"));
        let expected = challenge(&mut transcript(&sample.context(), &key.point()), &commitment);
        assert_eq!(expected.to_bytes(), proof.challenge);
    }
}

#[test]
fn a_proof_holds_for_its_own_context_only() {
    let (key, sample) = (key(), Sample::new());
    let proof = key.prove(&sample.context(), &[9; 32]);
    assert_eq!(verify(&key.point(), &sample.context(), &proof), Ok(()));
    let others = [
        ("network", Sample { network: [0; 32], ..Sample::new() }),
        ("serial", Sample { serial: [0; 16], ..Sample::new() }),
        ("verifier", Sample { verifier: PeerId::from_bytes([0; 32]), ..Sample::new() }),
        ("joiner", Sample { joiner: PeerId::from_bytes([0; 32]), ..Sample::new() }),
        ("exporter", Sample { exporter: [0; 32], ..Sample::new() }),
        ("swapped", Sample { verifier: sample.joiner, joiner: sample.verifier, ..Sample::new() }),
    ];
    for (what, other) in others {
        assert_eq!(verify(&key.point(), &other.context(), &proof), Err(ProofError::Equation), "{what}");
    }
}

#[test]
fn another_secret_does_not_prove() {
    let (key, other, context) = (key(), InviteKey::from_secret(&[8; 16]), Sample::new().context());
    assert_ne!(key.point(), other.point());
    let proof = other.prove(&context, &[9; 32]);
    assert_eq!(verify(&other.point(), &context, &proof), Ok(()));
    assert_eq!(verify(&key.point(), &context, &proof), Err(ProofError::Equation));
}

#[test]
fn every_flipped_bit_of_the_proof_is_noticed() {
    let (key, context) = (key(), Sample::new().context());
    let proof = key.prove(&context, &[9; 32]).to_bytes();
    for bit in 0..PROOF_LEN * 8 {
        let mut bent = proof;
        bent[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&key.point(), &context, &SchnorrProof::from_bytes(&bent)).is_err(), "bit {bit}");
    }
}

#[test]
fn scalars_that_are_not_reduced_are_refused() {
    let (key, context) = (key(), Sample::new().context());
    let proof = key.prove(&context, &[9; 32]);
    // The same response plus the order means the same: without the rule one proof would have many spellings.
    let raise = |scalar: [u8; 32]| {
        let mut carry = 0;
        let mut out = scalar;
        for (out, order) in out.iter_mut().zip(ORDER) {
            carry += u16::from(*out) + u16::from(order);
            *out = u8::try_from(carry & 0xff).unwrap();
            carry >>= 8;
        }
        out
    };
    let response = SchnorrProof { response: raise(proof.response), ..proof };
    let challenge = SchnorrProof { challenge: raise(proof.challenge), ..proof };
    for bent in [response, challenge] {
        assert_eq!(verify(&key.point(), &context, &bent), Err(ProofError::Scalar));
    }
}

#[test]
fn the_neutral_element_proves_nothing() {
    let context = Sample::new().context();
    // With P = 0 everybody knows x = 0: R = rG, s = r.
    let nonce = Scalar::from_bytes_mod_order_wide(&[3; 64]);
    let commitment = (&nonce * RISTRETTO_BASEPOINT_TABLE).compress();
    let claimed = challenge(&mut transcript(&context, &[0; 32]), &commitment);
    let proof = SchnorrProof { challenge: claimed.to_bytes(), response: nonce.to_bytes() };
    assert_eq!(verify(&[0; 32], &context, &proof), Err(ProofError::Identity));
    // A commitment of zero: s = cx shows x to everybody who sees the proof.
    let key = key();
    let claimed = challenge(&mut transcript(&context, &key.point()), &CompressedRistretto([0; 32]));
    let proof = SchnorrProof { challenge: claimed.to_bytes(), response: (claimed * key.0).to_bytes() };
    assert_eq!(verify(&key.point(), &context, &proof), Err(ProofError::Identity));
}

#[test]
fn a_point_has_one_encoding() {
    let (key, context) = (key(), Sample::new().context());
    let proof = key.prove(&context, &[9; 32]);
    let mut odd = key.point();
    odd[0] ^= 1;
    for point in [odd, [0xff; 32], ORDER] {
        assert_eq!(verify(&point, &context, &proof), Err(ProofError::Point));
    }
}

#[test]
fn the_nonce_depends_on_secret_context_and_seed() {
    let (key, sample) = (key(), Sample::new());
    let context = sample.context();
    let proof = key.prove(&context, &[9; 32]);
    assert_eq!(proof, key.prove(&context, &[9; 32]));
    let nonce = |key: &InviteKey, proof: SchnorrProof| {
        let scalar = |bytes| Option::<Scalar>::from(Scalar::from_canonical_bytes(bytes)).unwrap();
        scalar(proof.response) - scalar(proof.challenge) * key.0
    };
    let other = InviteKey::from_secret(&[8; 16]);
    let elsewhere = Sample { exporter: [6; 32], ..sample }.context();
    let nonces = [
        nonce(&key, proof),
        nonce(&key, key.prove(&context, &[10; 32])),
        nonce(&key, key.prove(&elsewhere, &[9; 32])),
        nonce(&other, other.prove(&context, &[9; 32])),
    ];
    for (at, nonce) in nonces.iter().enumerate() {
        assert!(!nonces[..at].contains(nonce), "{at}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let proof = key().prove(&Sample::new().context(), &[9; 32]);
    assert_eq!(format!("{:?} {proof:?}", key()), "InviteKey(redacted) SchnorrProof(..)");
}

proptest! {
    #[test]
    fn every_secret_proves_in_every_context(secret: [u8; 16], seed: [u8; 32], exporter: [u8; 32]) {
        let key = InviteKey::from_secret(&secret);
        let context = Sample { exporter, ..Sample::new() }.context();
        let proof = key.prove(&context, &seed);
        prop_assert_eq!(SchnorrProof::from_bytes(&proof.to_bytes()), proof);
        prop_assert_eq!(verify(&key.point(), &context, &proof), Ok(()));
    }

    #[test]
    fn any_bytes_are_judged_without_panic(point: [u8; 32], low: [u8; 32], high: [u8; 32]) {
        let mut bytes = [0; PROOF_LEN];
        bytes[..32].copy_from_slice(&low);
        bytes[32..].copy_from_slice(&high);
        let proof = SchnorrProof::from_bytes(&bytes);
        prop_assert!(verify(&point, &Sample::new().context(), &proof).is_err());
        prop_assert!(verify(&key().point(), &Sample::new().context(), &proof).is_err());
    }
}
