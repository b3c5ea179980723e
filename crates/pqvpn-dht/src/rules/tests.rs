// SPDX-License-Identifier: MIT OR Apache-2.0
//! One negative test for each rule a record must keep.

use std::net::IpAddr;

use pqvpn_crypto::identity::{Identity, IdentitySeed};
use pqvpn_wire::dht::{CompositeVerifier, RecordDraft};

use super::{
    fixture::{HOUR_MS, SEED, TODAY_MS, Toy, at, peer, peer_draft, signed, value_draft},
    *,
};
use crate::address::{Realm, Why};

fn check(draft: RecordDraft) -> Result<(), RecordRefusal> {
    check_at(draft, 0, Origin::default())
}

fn check_at(draft: RecordDraft, ms: u64, origin: Origin) -> Result<(), RecordRefusal> {
    check_record(at(ms), &signed(draft), &NetworkId::OPEN, origin, &Toy)
}

fn with_endpoints(addresses: &[&str]) -> RecordDraft {
    let mut draft = peer_draft(peer(1), 1);
    if let Payload::Peer(endpoints) = &mut draft.payload {
        endpoints.addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    }
    draft
}

#[test]
fn what_keeps_all_rules_passes() {
    assert_eq!(check(peer_draft(peer(1), 1)), Ok(()));
    assert_eq!(check(value_draft(peer(1), 1, 1, 1)), Ok(()));
    assert_eq!(check(with_endpoints(&[])), Ok(()), "a peer that only calls others has no endpoint");
}

#[test]
fn a_record_longer_than_8_kib_is_refused() {
    let draft = peer_draft(peer(1), 1);
    let record = Record::assemble(draft, vec![0; MAX_RECORD_LEN], vec![1]);
    assert_eq!(check_record(at(0), &record, &NetworkId::OPEN, None, &Toy), Err(RecordRefusal::TooLong));
}

#[test]
fn a_value_has_a_name_and_both_have_bounds() {
    let fits = |name: usize, value: usize| {
        let payload = Payload::Value { name: "n".repeat(name), value: vec![0; value] };
        check(RecordDraft { payload, ..value_draft(peer(1), 1, 1, 1) })
    };
    assert_eq!(fits(MAX_NAME_LEN, MAX_VALUE_LEN), Ok(()));
    assert_eq!(fits(0, 1), Err(RecordRefusal::Shape));
    assert_eq!(fits(MAX_NAME_LEN + 1, 1), Err(RecordRefusal::Shape));
    assert_eq!(fits(1, MAX_VALUE_LEN + 1), Err(RecordRefusal::Shape));
}

#[test]
fn a_record_of_another_network_is_refused() {
    let network = NetworkId::from_bytes([3; 32]);
    assert_eq!(check(RecordDraft { network, ..peer_draft(peer(1), 1) }), Err(RecordRefusal::Network));
}

#[test]
fn a_peer_record_is_of_this_week_or_the_last_and_a_value_of_none() {
    let draft = peer_draft(peer(1), 1);
    let of_week = |week| check(RecordDraft { week, ..draft.clone() });
    assert_eq!(of_week(draft.week - 1), Ok(()));
    assert_eq!(of_week(draft.week + 1), Err(RecordRefusal::Week), "the week is not about to end");
    assert_eq!(of_week(draft.week - 2), Err(RecordRefusal::Week));
    assert_eq!(of_week(u32::MAX), Err(RecordRefusal::Week));
    assert_eq!(check(RecordDraft { week: draft.week, ..value_draft(peer(1), 1, 1, 1) }), Err(RecordRefusal::Week));
}

#[test]
fn a_record_is_valid_for_a_day_at_most_and_not_for_no_time() {
    let until = |not_after_ms| check(RecordDraft { not_after_ms, ..peer_draft(peer(1), 1) });
    assert_eq!(until(TODAY_MS + MAX_LIFETIME_MS + 1), Err(RecordRefusal::Lifetime));
    assert_eq!(until(u64::MAX), Err(RecordRefusal::Lifetime));
    assert_eq!(until(TODAY_MS), Err(RecordRefusal::Lifetime));
    assert_eq!(until(TODAY_MS - 1), Err(RecordRefusal::Lifetime));
    assert_eq!(until(TODAY_MS + 1), Ok(()));
}

#[test]
fn a_record_is_refused_after_its_end_and_long_before_its_beginning() {
    let draft = value_draft(peer(1), 1, 1, 1);
    assert_eq!(check_at(draft.clone(), MAX_LIFETIME_MS - 1, Origin::default()), Ok(()));
    assert_eq!(check_at(draft.clone(), MAX_LIFETIME_MS, Origin::default()), Err(RecordRefusal::Expired));
    let from = |not_before_ms| check(RecordDraft { not_before_ms, ..draft.clone() });
    assert_eq!(from(TODAY_MS + SKEW_MS), Ok(()), "clocks differ");
    assert_eq!(from(TODAY_MS + SKEW_MS + 1), Err(RecordRefusal::Future));
}

#[test]
fn an_endpoint_nobody_can_use_spoils_the_record() {
    let refusal = |address| check(with_endpoints(&["8.8.4.4:1", address]));
    for (address, why) in [
        ("127.0.0.1:1", Why::Loopback),
        ("8.8.8.8:0", Why::PortZero),
        ("224.0.0.1:1", Why::Multicast),
        ("[fe80::1]:1", Why::LinkLocal),
        ("203.0.113.1:1", Why::Documentation),
    ] {
        assert_eq!(refusal(address), Err(RecordRefusal::Endpoint(AddressRefusal::Bogon(why))), "{address}");
    }
    assert_eq!(check(with_endpoints(&["8.8.4.4:1"; MAX_ENDPOINTS])), Ok(()));
    assert_eq!(check(with_endpoints(&["8.8.4.4:1"; MAX_ENDPOINTS + 1])), Err(RecordRefusal::Endpoints));
}

#[test]
fn a_private_endpoint_counts_only_inside_the_site_or_in_a_network_of_ones_own() {
    let draft = with_endpoints(&["192.168.1.7:4433"]);
    let refused = Err(RecordRefusal::Endpoint(AddressRefusal::Private));
    let told_by = |ip: &str| Origin::from(ip.parse::<IpAddr>().ok());
    assert_eq!(check(draft.clone()), refused);
    assert_eq!(check_at(draft.clone(), 0, told_by("8.8.8.8")), refused);
    assert_eq!(check_at(draft.clone(), 0, told_by("100.64.0.9")), refused, "a provider's customers are not the site");
    assert_eq!(check_at(draft.clone(), 0, told_by("192.168.1.9")), Ok(()));
    assert_eq!(check_at(draft, 0, Origin { realm: Realm::Private, told_by: None }), Ok(()));
}

#[test]
fn without_the_owners_signature_over_every_field_nothing_passes() {
    let good = signed(peer_draft(peer(1), 1));
    let judge = |record: &Record| check_record(at(0), record, &NetworkId::OPEN, None, &Toy);
    let unsigned = Record::assemble(good.draft().clone(), good.owner_key().to_vec(), Vec::new());
    assert_eq!(judge(&unsigned), Err(RecordRefusal::Unsigned));
    let raised = RecordDraft { seq: 2, ..good.draft().clone() };
    let forged = Record::assemble(raised, good.owner_key().to_vec(), good.signature().to_vec());
    assert_eq!(judge(&forged), Err(RecordRefusal::Signature), "a field was changed");
    let taken = RecordDraft { owner: peer(2), week: admission::week(&peer(2), TODAY_MS), ..good.draft().clone() };
    let stolen = Record::assemble(
        taken.clone(),
        peer(1).as_bytes().to_vec(),
        Toy::sign(&peer(1), pqvpn_crypto::identity::SignatureLabel::DhtRecord, &taken.signed_bytes()),
    );
    assert_eq!(judge(&stolen), Err(RecordRefusal::Signature), "signed with somebody else's key");
}

#[test]
fn real_signatures_are_checked_by_the_real_verifier() {
    let identity = Identity::from_seed(&IdentitySeed::from_bytes(&[9; 64])).unwrap();
    let draft = peer_draft(identity.peer_id(), 1);
    let record = Record::sign(draft.clone(), &identity).unwrap();
    let judge = |record: &Record| check_record(at(0), record, &NetworkId::OPEN, None, &CompositeVerifier);
    assert_eq!(judge(&record), Ok(()));
    assert!(record.encoded_len() < MAX_RECORD_LEN);
    let forged =
        Record::assemble(RecordDraft { seq: 2, ..draft }, record.owner_key().to_vec(), record.signature().to_vec());
    assert_eq!(judge(&forged), Err(RecordRefusal::Signature));
    for (half, at) in [("Ed25519", 10), ("ML-DSA-87", record.signature().len() - 10)] {
        let mut signature = record.signature().to_vec();
        signature[at] ^= 1;
        let broken = Record::assemble(draft_of(&record), record.owner_key().to_vec(), signature);
        assert_eq!(judge(&broken), Err(RecordRefusal::Signature), "{half} half");
    }
}

fn draft_of(record: &Record) -> RecordDraft {
    record.draft().clone()
}

#[test]
fn another_record_than_asked_for_is_no_answer() {
    let (asked, other) = (signed(peer_draft(peer(1), 1)), signed(peer_draft(peer(2), 1)));
    assert_eq!(check_asked(&asked, asked.key()), Ok(()));
    assert_eq!(check_asked(&other, asked.key()), Err(RecordRefusal::Mismatch));
    assert_eq!(check_owner(&other, &peer(1)), Err(RecordRefusal::Mismatch));
    assert_eq!(check_owner(&asked, &peer(1)), Ok(()));
}

#[test]
fn a_heartbeat_fits_its_record_and_its_hour_has_come() {
    let record = signed(peer_draft(peer(1), 1));
    let beat = |hour| Heartbeat::at(&SEED, hour).unwrap();
    let judge = |ms, heartbeat: Heartbeat| check_heartbeat(at(ms), &record, &heartbeat);
    assert_eq!(judge(3 * HOUR_MS, beat(3)), Ok(()));
    assert_eq!(judge(3 * HOUR_MS, beat(2)), Ok(()), "late is harmless");
    assert_eq!(judge(3 * HOUR_MS - SKEW_MS, beat(3)), Ok(()), "clocks differ");
    assert_eq!(judge(3 * HOUR_MS - SKEW_MS - 1, beat(3)), Err(BeatRefusal::Early));
    let claimed = Heartbeat { hour: 3, ..beat(2) };
    assert_eq!(judge(3 * HOUR_MS, claimed), Err(BeatRefusal::False), "hour 2 shown again as hour 3");
    assert_eq!(
        judge(3 * HOUR_MS, Heartbeat { hour: 0, preimage: record.draft().heartbeat_anchor }),
        Err(BeatRefusal::False)
    );
    assert_eq!(judge(40 * HOUR_MS, Heartbeat { hour: 25, preimage: [0; 32] }), Err(BeatRefusal::False));
}

#[test]
fn the_hour_an_owner_shows_is_one_that_others_accept() {
    for (ms, hour) in [(HOUR_MS - 1, None), (HOUR_MS, Some(1)), (5 * HOUR_MS + 1, Some(5)), (25 * HOUR_MS, None)] {
        assert_eq!(heartbeat_hour(at(ms), TODAY_MS), hour, "{ms}");
    }
    assert_eq!(heartbeat_hour(at(0), TODAY_MS + 1), None);
}

#[test]
fn only_what_no_honest_node_can_hand_out_is_hostile() {
    for honest in [RecordRefusal::Expired, RecordRefusal::Future, RecordRefusal::Week] {
        assert!(!honest.is_hostile(), "{honest}");
    }
    assert!(!RecordRefusal::Endpoint(AddressRefusal::Private).is_hostile());
    for hostile in [RecordRefusal::Signature, RecordRefusal::Unsigned, RecordRefusal::Shape, RecordRefusal::Mismatch] {
        assert!(hostile.is_hostile(), "{hostile}");
    }
}
