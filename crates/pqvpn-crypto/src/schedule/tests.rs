// SPDX-License-Identifier: MIT OR Apache-2.0
//! The schedule against the vectors of the independent model (`tests/vectors/model.py`).

use super::*;
use crate::{aead::AeadId, header::HeaderKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use serde_json::Value;

/// All vectors, as the model wrote them.
pub(crate) fn vectors() -> Vec<Value> {
    let json: Value = serde_json::from_str(include_str!("../../tests/vectors/session.json")).unwrap();
    json["vectors"].as_array().unwrap().clone()
}

/// A hex field as bytes.
pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// A hex field as an array.
pub(crate) fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

/// The secrets a vector's inputs give.
pub(crate) fn derive(vector: &Value) -> SessionSecrets {
    let psk = (!vector["psk"].is_null()).then(|| Psk::from_bytes(array(&vector["psk"])));
    let exporter = Exporter::from_bytes(array(&vector["exporter"]));
    SessionSecrets::derive(exporter, Transcript::from_bytes(array(&vector["th0"])), psk.as_ref())
}

fn assert_seed(seed: &RatchetSeed, expected: &Value) {
    assert_eq!(u64::from(seed.epoch), expected["epoch"].as_u64().unwrap());
    assert_eq!(seed.root.expose(), &array(&expected["root"]));
    assert_eq!(seed.session.expose(), &array(&expected["session"]));
    assert_eq!(seed.transcript.0, array(&expected["transcript"]));
    assert_eq!(*seed.control_key(), array(&expected["control_key"]));
    assert_eq!(seed.control_mac(&bytes(&expected["control_message"])), array(&expected["control_mac"]));
    assert_eq!(seed.resume_psk().expose(), &array(&expected["resume"]));
}

#[test]
fn handshake_secrets_equal_the_model() {
    for vector in vectors() {
        let secrets = derive(&vector);
        assert_eq!(secrets.sid().as_bytes(), &array(&vector["sid"]));
        for (i, role) in [Role::Initiator, Role::Responder].into_iter().enumerate() {
            assert_eq!(secrets.confirm[i].expose(), &array(&vector["confirm_keys"][i]));
            assert_eq!(secrets.confirm_mac(role), array(&vector["confirm_macs"][i]));
        }
        assert_seed(&secrets.into_parts(Role::Initiator).ratchet, &vector["epoch0"]);
    }
}

#[test]
fn header_masks_equal_the_model_even_for_the_last_block_counter() {
    for vector in vectors() {
        for mask in vector["masks"].as_array().unwrap() {
            let aead = AeadId::from_u8(mask["aead"].as_u64().unwrap() as u8).unwrap();
            let [i2r, r2i] = derive(&vector).headers;
            let key = HeaderKey::new(aead, if mask["direction"] == 0 { i2r } else { r2i });
            assert_eq!(key.mask(&array(&mask["sample"])), array(&mask["mask"]), "{mask}");
        }
    }
}

#[test]
fn ratchet_steps_equal_the_model() {
    for vector in vectors() {
        let mut seed = derive(&vector).into_parts(Role::Responder).ratchet;
        for step in vector["steps"].as_array().unwrap() {
            let (r1, r2) = (bytes(&step["r1"]), bytes(&step["r2_covered"]));
            let (x25519, kem) = (array(&step["x25519"]), array(&step["kem"]));
            let derived = Step::derive(&seed, &StepInputs { x25519: &x25519, kem: &kem, r1: &r1, r2: &r2 });
            assert_eq!(derived.mac_a(), &array(&step["mac_a"]));
            assert_eq!(derived.mac_b(), &array(&step["mac_b"]));
            seed = derived.into_next();
            assert_seed(&seed, &step["after"]);
        }
    }
}

#[test]
fn backend_x25519_equals_the_model() {
    for vector in vectors() {
        for step in vector["steps"].as_array().unwrap() {
            let private = PrivateKey::from_private_key(&X25519, &bytes(&step["a"])).unwrap();
            let share_b = bytes(&step["r2_covered"])[5..37].to_vec();
            let shared = agree(&private, UnparsedPublicKey::new(&X25519, share_b), (), |s| Ok(s.to_vec())).unwrap();
            assert_eq!(shared, bytes(&step["x25519"]));
        }
    }
}

#[test]
fn every_input_of_a_step_changes_all_its_outputs() {
    let seed = |last: u8| {
        let mut exporter = [7; 64];
        exporter[63] = last;
        let secrets = SessionSecrets::derive(Exporter::from_bytes(exporter), Transcript::from_bytes([9; 64]), None);
        secrets.into_parts(Role::Initiator).ratchet
    };
    let outputs = |seed: &RatchetSeed, x: u8, k: u8, r1: u8, r2: u8| {
        let step =
            Step::derive(seed, &StepInputs { x25519: &[x; 32], kem: &[k; 32], r1: &[r1; 1637], r2: &[r2; 1637] });
        let next = step.next();
        [step.mac_a().to_vec(), step.mac_b().to_vec(), next.root.expose().to_vec(), next.session.expose().to_vec()]
    };
    let base = outputs(&seed(0), 1, 1, 1, 1);
    let changed = [
        outputs(&seed(1), 1, 1, 1, 1),
        outputs(&seed(0), 2, 1, 1, 1),
        outputs(&seed(0), 1, 2, 1, 1),
        outputs(&seed(0), 1, 1, 2, 1),
        outputs(&seed(0), 1, 1, 1, 2),
    ];
    for other in changed {
        assert!(base.iter().zip(&other).all(|(a, b)| a != b));
    }
}

#[test]
fn confirmations_are_checked_per_role_and_bit() {
    let secrets = SessionSecrets::derive(Exporter::from_bytes([1; 64]), Transcript::from_bytes([2; 64]), None);
    let mac = secrets.confirm_mac(Role::Initiator);
    assert!(secrets.verify_confirm(Role::Initiator, &mac));
    assert!(!secrets.verify_confirm(Role::Responder, &mac), "a reflected confirmation must not pass");
    for bit in 0..256 {
        let mut wrong = mac;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(!secrets.verify_confirm(Role::Initiator, &wrong));
    }
}

#[test]
fn no_psk_is_the_zero_psk_and_another_psk_is_another_session() {
    let mac = |psk: Option<&Psk>| {
        SessionSecrets::derive(Exporter::from_bytes([1; 64]), Transcript::from_bytes([2; 64]), psk)
            .confirm_mac(Role::Initiator)
    };
    assert_eq!(mac(None), mac(Some(&Psk::from_bytes([0; 32]))));
    assert_ne!(mac(None), mac(Some(&Psk::from_bytes([1; 32]))));
}

#[test]
fn exporter_context_is_both_names_and_the_aead() {
    let (client, server) = (PeerId::from_bytes([1; 32]), PeerId::from_bytes([2; 32]));
    let context = exporter_context(&client, &server, AeadId::Aes256Gcm);
    assert_eq!(context, [[1; 32].as_slice(), &[2; 32], &[2]].concat());
}
