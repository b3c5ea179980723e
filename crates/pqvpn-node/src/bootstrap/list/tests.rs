// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every way in which a list can be wrong, and that age alone is none.

use pqvpn_crypto::identity::IdentitySeed;
use proptest::prelude::*;

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

fn identity(seed: u8) -> Identity {
    Identity::from_seed(&IdentitySeed::from_bytes(&[seed; 64])).unwrap()
}

fn entry(number: u8) -> BootstrapEntry {
    format!("pqvpn://{}@198.51.100.{number}:41641", "ab".repeat(32)).parse().unwrap()
}

fn draft() -> ListDraft {
    let mut entries = vec![entry(1), entry(2)];
    entries.push(format!("pqvpn://{}@[2001:db8::1]:9", "cd".repeat(32)).parse().unwrap());
    entries.push(format!("pqvpn://{}@seed.example:41641", "cd".repeat(32)).parse().unwrap());
    ListDraft { network: NetworkId::OPEN, issued_ms: NOW_MS, expires_ms: NOW_MS + 90 * DAY_MS, entries }
}

fn open(bytes: &[u8], signers: &[PeerId]) -> Result<SignedList, ListError> {
    SignedList::open(bytes, &NetworkId::OPEN, Trust::Signers(signers))
}

/// A file of these parts, whether they fit together or not.
fn file(body: Vec<u8>, key: Vec<u8>, signature: Vec<u8>) -> Vec<u8> {
    [HEADER, &cbor(&Value::Array([body, key, signature].map(Value::Bytes).into()))].concat()
}

/// A file whose signature is right, whatever the body says.
fn signed(body: Vec<u8>, identity: &Identity) -> Vec<u8> {
    let signature = identity.sign(SignatureLabel::BootstrapList, &signed_bytes(&body)).unwrap().into_bytes();
    file(body, identity.public().to_spki(), signature)
}

#[test]
fn a_signed_list_reads_back_as_it_was() {
    let alice = identity(1);
    let list = draft().sign(&alice).unwrap();
    let read = open(list.as_bytes(), &[alice.peer_id()]).unwrap();
    assert_eq!(read, list);
    assert_eq!((read.draft(), *read.signer()), (&draft(), alice.peer_id()));
    assert!(list.as_bytes().len() < 8_000, "{}", list.as_bytes().len());
}

#[test]
fn a_signer_nobody_named_is_refused_unless_the_user_says_so() {
    let (alice, bob) = (identity(1), identity(2));
    let list = draft().sign(&alice).unwrap();
    assert_eq!(open(list.as_bytes(), &[bob.peer_id()]), Err(ListError::Signer(alice.peer_id())));
    assert_eq!(open(list.as_bytes(), &[]), Err(ListError::Signer(alice.peer_id())));
    assert!(SignedList::open(list.as_bytes(), &NetworkId::OPEN, Trust::ThisOne).is_ok());
}

#[test]
fn a_list_for_another_dht_is_refused() {
    let alice = identity(1);
    let list = draft().sign(&alice).unwrap();
    let other = NetworkId::from_bytes([7; 32]);
    assert_eq!(SignedList::open(list.as_bytes(), &other, Trust::ThisOne), Err(ListError::Network));
}

#[test]
fn every_changed_byte_is_noticed() {
    let alice = identity(1);
    let list = draft().sign(&alice).unwrap();
    let signers = [alice.peer_id()];
    // All of the frame and the body, then steps through key and signature.
    let places = (0..400).chain((400..list.as_bytes().len()).step_by(97));
    for place in places {
        let mut bytes = list.as_bytes().to_vec();
        bytes[place] ^= 1;
        assert!(open(&bytes, &signers).is_err(), "byte {place}");
    }
    for length in [0, 5, HEADER.len(), 100, list.as_bytes().len() - 1] {
        assert!(open(&list.as_bytes()[..length], &signers).is_err(), "length {length}");
    }
    let longer = [list.as_bytes(), &[0]].concat();
    assert!(matches!(open(&longer, &signers), Err(ListError::Malformed(_))));
}

#[test]
fn a_changed_entry_breaks_the_signature() {
    let alice = identity(1);
    let mut changed = draft();
    changed.entries[0] = entry(3);
    let list = draft().sign(&alice).unwrap();
    let [_, key, signature] = array::<3>(list.as_bytes().strip_prefix(HEADER).unwrap()).unwrap().map(bytes_of);
    let forged = file(changed.body(&alice.peer_id()), key.unwrap(), signature.unwrap());
    let error = open(&forged, &[alice.peer_id()]).unwrap_err();
    assert_eq!(error, ListError::Signature(SignatureError::BadBothHalves));
}

#[test]
fn one_half_of_the_signature_is_not_enough() {
    let (alice, bob) = (identity(1), identity(2));
    let body = draft().body(&alice.peer_id());
    let sign = |who: &Identity| who.sign(SignatureLabel::BootstrapList, &signed_bytes(&body)).unwrap().into_bytes();
    let (good, bad) = (sign(&alice), sign(&bob));
    let halves = [[&good[..4627], &bad[4627..]].concat(), [&bad[..4627], &good[4627..]].concat()];
    let expected = [SignatureError::BadEd25519Half, SignatureError::BadMlDsaHalf];
    for (signature, expected) in halves.into_iter().zip(expected) {
        let bytes = file(body.clone(), alice.public().to_spki(), signature);
        assert_eq!(open(&bytes, &[alice.peer_id()]), Err(ListError::Signature(expected)));
    }
}

#[test]
fn a_signature_made_for_something_else_does_not_count() {
    let alice = identity(1);
    let body = draft().body(&alice.peer_id());
    for label in SignatureLabel::ALL.into_iter().filter(|label| *label != SignatureLabel::BootstrapList) {
        let signature = alice.sign(label, &signed_bytes(&body)).unwrap().into_bytes();
        let bytes = file(body.clone(), alice.public().to_spki(), signature);
        assert!(matches!(open(&bytes, &[alice.peer_id()]), Err(ListError::Signature(_))), "{label:?}");
    }
}

#[test]
fn nobody_signs_in_the_name_of_another() {
    let (alice, mallory) = (identity(1), identity(2));
    // The body names alice; key and signature are mallory's.
    let bytes = signed(draft().body(&alice.peer_id()), &mallory);
    assert_eq!(open(&bytes, &[alice.peer_id()]), Err(ListError::Key(alice.peer_id())));
}

#[test]
fn what_no_list_may_say_is_refused_by_who_signs_and_by_who_reads() {
    let alice = identity(1);
    let with = |change: fn(&mut ListDraft)| {
        let mut draft = draft();
        change(&mut draft);
        draft
    };
    let cases = [
        (with(|draft| draft.entries.clear()), ListError::Entries),
        (with(|draft| draft.entries = (0..65).map(entry_by_port).collect()), ListError::Entries),
        (with(|draft| draft.entries.push(entry(1))), ListError::Entries),
        (with(|draft| draft.expires_ms = draft.issued_ms), ListError::Dates),
        (with(|draft| draft.expires_ms = 0), ListError::Dates),
    ];
    for (draft, expected) in cases {
        assert_eq!(draft.clone().sign(&alice).unwrap_err(), expected);
        let bytes = signed(draft.body(&alice.peer_id()), &alice);
        assert_eq!(open(&bytes, &[alice.peer_id()]).unwrap_err(), expected);
    }
    let full = with(|draft| draft.entries = (0..64).map(entry_by_port).collect());
    assert!(open(full.sign(&alice).unwrap().as_bytes(), &[alice.peer_id()]).is_ok());
}

fn entry_by_port(number: u16) -> BootstrapEntry {
    format!("pqvpn://{}@198.51.100.1:{}", "ab".repeat(32), number + 1).parse().unwrap()
}

#[test]
fn the_longest_list_fits() {
    let host = "a".repeat(63);
    let name = format!("{host}.{host}.{host}.{}", "b".repeat(59));
    let entry = |number: u16| format!("pqvpn://{}@{name}:{}", "ab".repeat(32), 65_535 - number).parse().unwrap();
    let mut draft = draft();
    draft.entries = (0..64).map(entry).collect();
    let list = draft.sign(&identity(1)).unwrap();
    assert!(open(list.as_bytes(), &[identity(1).peer_id()]).is_ok());
}

#[test]
fn a_body_in_another_encoding_is_refused() {
    let alice = identity(1);
    let body = draft().body(&alice.peer_id());
    // The array of five with its length in two bytes instead of one.
    let longer = [&[0x98, 5], &body[1..]].concat();
    assert!(matches!(open(&signed(longer, &alice), &[alice.peer_id()]), Err(ListError::Malformed(_))));
    // A name in capitals says the same in other bytes.
    let mut shouted = body;
    let place = shouted.windows(4).position(|window| window == b"seed").unwrap();
    shouted[place] = b'S';
    assert!(matches!(open(&signed(shouted, &alice), &[alice.peer_id()]), Err(ListError::Malformed(_))));
}

#[test]
fn other_files_other_versions_and_huge_files_are_told_apart() {
    let alice = identity(1);
    let list = draft().sign(&alice).unwrap();
    assert_eq!(open(b"", &[]), Err(ListError::NotAList));
    assert_eq!(open(b"pqvpn://x", &[]), Err(ListError::NotAList));
    let other = [b"PQVPN-LIST/2\n", list.as_bytes().strip_prefix(HEADER).unwrap()].concat();
    assert_eq!(open(&other, &[alice.peer_id()]), Err(ListError::Version));
    assert_eq!(open(&vec![0; MAX_LIST + 1], &[]), Err(ListError::TooLarge));
    let padded = [list.as_bytes(), &vec![0; MAX_LIST]].concat();
    assert_eq!(open(&padded, &[alice.peer_id()]), Err(ListError::TooLarge));
    let deep = [HEADER, &[0x81; 200]].concat();
    assert!(matches!(open(&deep, &[]), Err(ListError::Malformed(_))));
}

#[test]
fn age_is_a_warning_and_never_a_refusal() {
    let alice = identity(1);
    let list = draft().sign(&alice).unwrap();
    let expires = draft().expires_ms;
    assert_eq!(list.freshness(NOW_MS), Freshness::Fresh);
    assert_eq!(list.freshness(expires), Freshness::Fresh);
    assert_eq!(list.freshness(expires + 1), Freshness::Expired { days: 0 });
    let years = list.freshness(expires + 4000 * DAY_MS);
    assert_eq!(years, Freshness::Expired { days: 4000 });
    assert!(years.warning().unwrap().contains("4000 days ago"));
    assert_eq!(list.freshness(0), Freshness::Future { days: NOW_MS / DAY_MS });
    assert_eq!(list.freshness(NOW_MS - SKEW_MS), Freshness::Fresh);
    assert!(open(list.as_bytes(), &[alice.peer_id()]).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_panic(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = open(&tail, &[]);
        let _ = open(&[HEADER, &tail].concat(), &[]);
        let _ = read_body(&tail);
    }
}
