// SPDX-License-Identifier: MIT OR Apache-2.0
//! NIST ACVP vectors (usnistgov/ACVP-Server, gen-val/json-files) for ML-KEM-1024 and ML-DSA-87.
//!
//! The trimmed files in `tests/vectors/acvp` always run. `PQVPN_ACVP_DIR` names a directory in the layout of
//! `json-files` whose `internalProjection.json` files run as well, whole. They must be of a revision after the change of FIPS 203's
//! key generation to G(d || k).
//!
//! Left out: signature verification (the library in use takes the external interface with an empty context only; whether
//! a current file has such groups was not looked into), and, because the library has no call for it, signature
//! generation (fixed randomness) and key checks other than through use. ML-KEM
//! key generation and encapsulation with given randomness come from an independent implementation, which is then
//! held against the library.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsRawBytes as _;
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_1024};
use aws_lc_rs::signature::{KeyPair as _, ML_DSA_87_SIGNING, PqdsaKeyPair};
use data_encoding::HEXUPPER;
#[expect(deprecated, reason = "the expanded form is what the vectors hold")]
use ml_kem::ExpandedKeyEncoding as _;
use ml_kem::KeyExport as _;
use ml_kem::ml_kem_1024 as oracle;
use serde_json::Value;

const MLKEM_KEYGEN: &str = "ML-KEM-keyGen-FIPS203";
const MLKEM_USE: &str = "ML-KEM-encapDecap-FIPS203";
const MLDSA_KEYGEN: &str = "ML-DSA-keyGen-FIPS204";

#[test]
fn trimmed_vectors() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/acvp");
    assert_eq!(run(&dir, MLDSA_KEYGEN, "ML-DSA-87", mldsa_keygen), 2);
    assert_eq!(run(&dir, MLKEM_KEYGEN, "ML-KEM-1024", mlkem_keygen), 1);
}

#[test]
fn whole_vectors_where_they_are_at_hand() {
    let Some(dir) = std::env::var_os("PQVPN_ACVP_DIR").map(PathBuf::from) else {
        println!("PQVPN_ACVP_DIR is not set: only the trimmed vectors ran");
        return;
    };
    let counts = [
        (MLKEM_KEYGEN, run(&dir, MLKEM_KEYGEN, "ML-KEM-1024", mlkem_keygen)),
        (MLKEM_USE, run(&dir, MLKEM_USE, "ML-KEM-1024", mlkem_use)),
        (MLDSA_KEYGEN, run(&dir, MLDSA_KEYGEN, "ML-DSA-87", mldsa_keygen)),
    ];
    println!("passed: {counts:?}");
    assert!(counts.iter().all(|(_, passed)| *passed >= 10), "{counts:?}");
}

/// Runs the cases of one parameter set and returns how many there were.
fn run(dir: &Path, name: &str, parameter_set: &str, check: fn(&Value, &Value) -> bool) -> usize {
    let text = std::fs::read_to_string(dir.join(name).join("internalProjection.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let mut done = 0;
    for group in file["testGroups"].as_array().unwrap() {
        if group["parameterSet"] != parameter_set {
            continue;
        }
        for case in group["tests"].as_array().unwrap() {
            done += usize::from(check(group, case));
        }
    }
    done
}

/// Reads a hex field of the case or, failing that, of its group.
fn hex(group: &Value, case: &Value, name: &str) -> Option<Vec<u8>> {
    let text = case.get(name).or_else(|| group.get(name))?.as_str().unwrap();
    Some(HEXUPPER.decode(text.as_bytes()).unwrap())
}

fn mldsa_keygen(group: &Value, case: &Value) -> bool {
    let key = PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, &hex(group, case, "seed").unwrap()).unwrap();
    let compared = compare(group, case, "pk", key.public_key().as_ref())
        + compare(group, case, "sk", key.private_key().as_raw_bytes().unwrap().as_ref());
    assert!(compared > 0, "{}", case["tcId"]);
    true
}

fn mlkem_keygen(group: &Value, case: &Value) -> bool {
    let field = |name| hex(group, case, name).unwrap();
    let independent =
        oracle::DecapsulationKey::from_seed([field("d"), field("z")].concat().as_slice().try_into().unwrap());
    #[expect(deprecated, reason = "the expanded form is what the vectors hold")]
    let dk = independent.to_expanded_bytes();
    let ek = independent.encapsulation_key().to_bytes();
    assert!(compare(group, case, "ek", &ek) + compare(group, case, "dk", &dk) > 0, "{}", case["tcId"]);
    let (ciphertext, sent) = EncapsulationKey::new(&ML_KEM_1024, &ek).unwrap().encapsulate().unwrap();
    assert_eq!(decapsulate(&dk, ciphertext.as_ref()).unwrap(), sent.as_ref(), "{}", case["tcId"]);
    true
}

/// Compares with the whole field, or with the parts of it that a trimmed file keeps; returns how many there were.
fn compare(group: &Value, case: &Value, name: &str, ours: &[u8]) -> usize {
    let field = |suffix: &str| hex(group, case, &format!("{name}{suffix}"));
    let parts = [
        field("").map(|whole| ours == whole),
        field("StartsWith").map(|part| ours.starts_with(&part)),
        field("EndsWith").map(|part| ours.ends_with(&part)),
    ];
    assert!(!parts.contains(&Some(false)), "{name} of case {}", case["tcId"]);
    parts.iter().flatten().count()
}

fn mlkem_use(group: &Value, case: &Value) -> bool {
    let field = |name| hex(group, case, name);
    let tc = &case["tcId"];
    match group["function"].as_str().unwrap() {
        "encapsulation" => {
            let ek = field("ek").unwrap();
            let independent = oracle::EncapsulationKey::new(ek.as_slice().try_into().unwrap()).unwrap();
            let m = field("m").unwrap();
            let (ciphertext, secret) = independent.encapsulate_deterministic(&m.as_slice().try_into().unwrap());
            assert_eq!((ciphertext.to_vec(), secret.to_vec()), (field("c").unwrap(), field("k").unwrap()), "{tc}");
            assert_eq!(decapsulate(&field("dk").unwrap(), &field("c").unwrap()), field("k"), "{tc}");
            let (ciphertext, sent) = EncapsulationKey::new(&ML_KEM_1024, &ek).unwrap().encapsulate().unwrap();
            assert_eq!(decapsulate(&field("dk").unwrap(), ciphertext.as_ref()).unwrap(), sent.as_ref(), "{tc}");
        }
        "decapsulation" => assert_eq!(decapsulate(&field("dk").unwrap(), &field("c").unwrap()), field("k"), "{tc}"),
        "encapsulationKeyCheck" => {
            let key = EncapsulationKey::new(&ML_KEM_1024, &field("ek").unwrap()).ok();
            let taken = key.and_then(|key| key.encapsulate().ok()).is_some();
            assert_eq!(taken, case["testPassed"].as_bool().unwrap(), "{tc}");
        }
        _ => return false,
    }
    true
}

fn decapsulate(dk: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
    let key = DecapsulationKey::new(&ML_KEM_1024, dk).ok()?;
    Some(key.decapsulate(Ciphertext::from(ciphertext)).ok()?.as_ref().to_vec())
}
