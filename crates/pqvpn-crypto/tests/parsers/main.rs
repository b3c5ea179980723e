// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays the fuzz corpus of keys, key files, signatures and messages of a key exchange.
#![expect(unreachable_pub, reason = "check.rs is shared with the fuzz targets")]

mod check;

use std::{env, fs, path::Path};

use pqvpn_crypto::{
    identity::IdentitySeed,
    keystore::{CreatedAt, KdfParams, Keystore, Passphrase},
    tls::kx::X25519MlKem1024,
};
use rustls::crypto::SupportedKxGroup as _;

#[test]
fn the_corpus_is_harmless() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    if env::var_os("PQVPN_WRITE_SEEDS").is_some() {
        write_seeds(&root);
    }
    for (target, check) in check::TARGETS {
        let mut files = 0;
        for file in fs::read_dir(root.join(target)).expect("every target has a corpus") {
            let data = fs::read(file.unwrap().path()).unwrap();
            check(&data);
            (0..data.len().min(300)).for_each(|len| check(&data[..len]));
            files += 1;
        }
        assert!(files > 0, "{target}");
        check::run(target, &[]);
    }
}

/// One valid input per target.
fn write_seeds(root: &Path) {
    let (seed, cheap) = (IdentitySeed::from_bytes(&[1; 64]), KdfParams { memory_kib: 8, passes: 1, lanes: 1 });
    let file = |phrase: Option<&Passphrase>| {
        Keystore::seal(&seed, &CreatedAt(1_795_000_000), phrase, cheap, &[3; 16], &[4; 24]).expect("a key file")
    };
    let public = check::signer().public();
    let honest = |turn: u8| [&[turn | 4], [0; 64].as_slice()].concat();
    for (target, name, bytes) in [
        ("keystore", "valid-plain", file(None)),
        ("keystore", "valid-encrypted", file(Some(&Passphrase::new("a")))),
        ("public_key", "valid", public.to_spki()),
        ("signature", "of-something-else", check::signature_of(check::MESSAGE).into_bytes()),
        ("peer_id", "valid", public.peer_id().to_string().into_bytes()),
        ("key_share", "valid", X25519MlKem1024.start().expect("a share").pub_key().to_vec()),
        ("ratchet", "honest-0", honest(0)),
        ("ratchet", "honest-1", honest(1)),
        ("ratchet", "honest-2", honest(2)),
        ("ratchet", "request", vec![0, 4, 0, 0, 0, 1]),
        ("ratchet", "flipped-1", [&[1 | 4], [1; 9].as_slice()].concat()),
        ("ratchet", "short", vec![1, 2, 0, 0, 0, 1, 9]),
    ] {
        fs::create_dir_all(root.join(target)).expect("a folder");
        fs::write(root.join(target).join(name), bytes).expect("a file");
    }
}
