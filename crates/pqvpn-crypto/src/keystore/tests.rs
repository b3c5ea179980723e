// SPDX-License-Identifier: MIT OR Apache-2.0
//! Key files: round trips, every refusal, and a file that must stay readable.

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

/// Cheap costs: these tests are about the format.
const CHEAP: KdfParams = KdfParams { memory_kib: 32, passes: 1, lanes: 1 };

fn seed() -> IdentitySeed {
    IdentitySeed::from_bytes(&std::array::from_fn(|i| i as u8))
}

fn phrase(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes())
}

fn plain() -> Vec<u8> {
    Keystore::seal(&seed(), &CreatedAt(1_795_000_000), None, CHEAP, &[0; 16], &[0; 24]).unwrap()
}

fn encrypted() -> Vec<u8> {
    let created = CreatedAt(1_795_000_000);
    Keystore::seal(&seed(), &created, Some(&phrase("correct horse")), CHEAP, &[3; 16], &[4; 24]).unwrap()
}

/// Recomputes the checksum, as an attacker who edits the file would.
fn rechecked(mut file: Vec<u8>) -> Vec<u8> {
    let covered = file.len() - CHECKSUM_LEN;
    let checksum = Sha256::digest(&file[..covered]);
    file[covered..].copy_from_slice(&checksum);
    file
}

#[test]
fn plain_file_round_trips() {
    let file = plain();
    assert_eq!(Keystore::is_encrypted(&file), Ok(false));
    let (read, created) = Keystore::open_with_date(&file, None).unwrap();
    assert_eq!(read.expose(), seed().expose());
    assert_eq!(created, CreatedAt(1_795_000_000));
}

#[test]
fn encrypted_file_round_trips_and_hides_the_seed() {
    let file = encrypted();
    assert_eq!(Keystore::is_encrypted(&file), Ok(true));
    let read = Keystore::open(&file, Some(&phrase("correct horse"))).unwrap();
    assert_eq!(read.expose(), seed().expose());
    assert!(!file.windows(16).any(|w| w == &seed().expose()[..16] || w == &seed().expose()[32..48]));
    assert!(file.len() <= MAX_FILE_LEN);
}

#[test]
fn the_plain_format_does_not_change() {
    let expected = concat!(
        "505156504e4b4559",
        "01",
        "00",
        "a3",
        "015820000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "025820202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
        "031a6afd86c0",
    );
    let file = plain();
    assert_eq!(HEXLOWER.encode(&file[..file.len() - CHECKSUM_LEN]), expected);
}

#[test]
fn wrong_size_is_refused() {
    for file in [plain(), encrypted()] {
        for len in 0..file.len() {
            let error = Keystore::is_encrypted(&file[..len]).unwrap_err();
            assert!(matches!(error, KeystoreError::Size(n) if n == len) || error == KeystoreError::Checksum, "{len}");
        }
        let longer = [file.as_slice(), &[0; 200]].concat();
        assert!(matches!(Keystore::open(&longer, None), Err(KeystoreError::Size(_))));
    }
    assert_eq!(Keystore::open(&[], None).unwrap_err(), KeystoreError::Size(0));
}

#[test]
fn foreign_version_and_mode_are_refused_by_name() {
    let mut file = plain();
    file[0] ^= 1;
    assert_eq!(Keystore::open(&file, None).unwrap_err(), KeystoreError::Magic);
    assert_eq!(Keystore::open(&[b'x'; 1000], None).unwrap_err(), KeystoreError::Magic);
    let mut file = plain();
    file[8] = 2;
    assert_eq!(Keystore::open(&file, None).unwrap_err(), KeystoreError::Version(2));
    let mut file = plain();
    file[9] = 7;
    assert_eq!(Keystore::open(&rechecked(file), None).unwrap_err(), KeystoreError::Mode(7));
}

#[test]
fn any_flipped_bit_is_found() {
    for (file, passphrase) in [(plain(), None), (encrypted(), Some(phrase("correct horse")))] {
        for i in PREFIX_LEN..file.len() {
            let mut bad = file.clone();
            bad[i] ^= 1;
            assert_eq!(Keystore::open(&bad, passphrase.as_ref()).unwrap_err(), KeystoreError::Checksum, "byte {i}");
        }
    }
}

#[test]
fn an_edited_encrypted_file_with_a_new_checksum_does_not_open() {
    let file = encrypted();
    let right = phrase("correct horse");
    for i in PREFIX_LEN..file.len() - CHECKSUM_LEN {
        let mut bad = file.clone();
        bad[i] ^= 1;
        let error = Keystore::open(&rechecked(bad), Some(&right)).unwrap_err();
        assert!(matches!(error, KeystoreError::WrongPassphrase | KeystoreError::Costs), "byte {i}: {error}");
    }
}

#[test]
fn passphrase_errors_are_told_apart() {
    assert_eq!(Keystore::open(&encrypted(), None).unwrap_err(), KeystoreError::PassphraseNeeded);
    let wrong = phrase("incorrect horse");
    assert_eq!(Keystore::open(&encrypted(), Some(&wrong)).unwrap_err(), KeystoreError::WrongPassphrase);
    assert_eq!(Keystore::open(&plain(), Some(&wrong)).unwrap_err(), KeystoreError::NotEncrypted);
    let empty = Keystore::seal(&seed(), &CreatedAt(0), Some(&phrase("")), CHEAP, &[0; 16], &[0; 24]);
    assert_eq!(empty.unwrap_err(), KeystoreError::EmptyPassphrase);
}

#[test]
fn absurd_costs_are_refused_before_memory_is_taken() {
    let right = phrase("correct horse");
    for (at, value) in [(10, u32::MAX), (10, KdfParams::LIMIT.memory_kib + 1), (14, 17), (14, u32::MAX), (18, 5)] {
        let mut file = encrypted();
        file[at..at + 4].copy_from_slice(&value.to_be_bytes());
        assert_eq!(Keystore::open(&rechecked(file), Some(&right)).unwrap_err(), KeystoreError::Costs, "{at} {value}");
    }
    for (at, value) in [(10, 0), (10, 7), (14, 0), (18, 0)] {
        let mut file = encrypted();
        file[at..at + 4].copy_from_slice(&u32::to_be_bytes(value));
        assert_eq!(Keystore::open(&rechecked(file), Some(&right)).unwrap_err(), KeystoreError::Costs, "{at} {value}");
    }
    let params = KdfParams { memory_kib: u32::MAX, ..CHEAP };
    let sealed = Keystore::seal(&seed(), &CreatedAt(0), Some(&right), params, &[0; 16], &[0; 24]);
    assert_eq!(sealed.unwrap_err(), KeystoreError::Costs);
}

#[test]
fn only_deterministic_cbor_is_read() {
    let file = plain();
    let body = &file[PREFIX_LEN..file.len() - CHECKSUM_LEN];
    assert!(decode_body(body).is_ok());
    let frame = &body[..body.len() - 5];
    // 0 written as one, two, four and eight bytes; trailing bytes; text instead of an integer.
    for tail in [&[0x18, 0][..], &[0x19, 0, 0], &[0x1a, 0, 0, 0, 0], &[0x1b, 0, 0, 0, 0, 0, 0, 0, 0], &[0, 0], &[0x60]]
    {
        assert!(decode_body(&[frame, tail].concat()).is_err(), "{tail:?}");
    }
    assert!(decode_body(&[frame, &[0]].concat()).is_ok());
}

#[test]
fn default_costs_are_the_designed_ones() {
    assert_eq!((KdfParams::DESKTOP.memory_kib, KdfParams::DESKTOP.passes, KdfParams::DESKTOP.lanes), (262_144, 3, 1));
    assert_eq!((KdfParams::SMALL.memory_kib, KdfParams::SMALL.passes, KdfParams::SMALL.lanes), (65_536, 3, 1));
    assert!(KdfParams::DESKTOP.within_limit());
}

#[test]
fn secrets_do_not_print() {
    assert_eq!(format!("{:?} {:?}", seed(), phrase("horse")), "IdentitySeed(redacted) Passphrase(redacted)");
}

proptest! {
    #[test]
    fn dates_round_trip(created in any::<u64>()) {
        let file = Keystore::seal(&seed(), &CreatedAt(created), None, CHEAP, &[0; 16], &[0; 24]).unwrap();
        prop_assert_eq!(Keystore::open_with_date(&file, None).unwrap().1, CreatedAt(created));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() > 8 {
            bytes[..8].copy_from_slice(MAGIC);
        }
        let _ = Keystore::open(&bytes, None);
    }
}
