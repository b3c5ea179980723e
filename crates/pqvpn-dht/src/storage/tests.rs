// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tokens, quotas, versions, eviction; against a naive model in `model.rs`.

use pqvpn_wire::dht::{Fact, RecordDraft};

use super::*;
use crate::rules::fixture::{HOUR_MS, SEED, TODAY_MS, Toy, at, peer, peer_draft, signed, value_draft};

mod model;

fn storage(config: StorageConfig) -> Storage {
    Storage::new(config, Point::from_bytes([0; 32]), [7; 32])
}

fn host(subnet: u8, host: u8) -> IpAddr {
    IpAddr::from([8, 8, subnet, host])
}

fn value(owner: u32, name: u32) -> Arc<Record> {
    signed(value_draft(peer(owner), name, 1, 0))
}

#[test]
fn a_token_is_bound_to_its_peer_its_subnet_its_node_and_its_time() {
    let (storage, other) = (
        storage(StorageConfig::default()),
        Storage::new(StorageConfig::default(), Point::from_bytes([0; 32]), [8; 32]),
    );
    let token = storage.token(at(0), &peer(1), host(1, 1));
    let valid = |ms, who, from| storage.token_valid(at(ms), &peer(who), from, &token);
    assert!(valid(0, 1, host(1, 1)));
    assert!(valid(0, 1, host(1, 200)), "another address of the subnet");
    assert!(!valid(0, 2, host(1, 1)), "another peer");
    assert!(!valid(0, 1, host(2, 1)), "another subnet");
    assert!(!other.token_valid(at(0), &peer(1), host(1, 1), &token), "another node's");
    assert!(valid(1_199_999, 1, host(1, 1)), "the period after");
    assert!(!valid(1_200_000, 1, host(1, 1)), "two periods after");
    let late = storage.token(at(1_200_000), &peer(1), host(1, 1));
    assert!(!storage.token_valid(at(599_999), &peer(1), host(1, 1), &late), "of a time to come");
    for bit in 0..128 {
        let mut forged = token;
        forged.0[bit / 8] ^= 1 << (bit % 8);
        assert!(!storage.token_valid(at(0), &peer(1), host(1, 1), &forged), "bit {bit}");
    }
    assert_eq!(format!("{:?}", storage.tokens), "Tokens(..)", "the secret is not shown");
}

#[test]
fn what_is_put_is_got_until_it_ends() {
    let mut storage = storage(StorageConfig::default());
    let record = signed(peer_draft(peer(1), 1));
    let end = TODAY_MS + 24 * HOUR_MS;
    assert_eq!(storage.put(at(0), Arc::clone(&record), host(1, 1), false), Ok(end));
    let kept = storage.get(at(24 * HOUR_MS - 1), record.key()).unwrap();
    assert_eq!((kept.record, kept.until_ms, kept.cached), (&record, end, false));
    assert_eq!((storage.len(), storage.bytes()), (1, record.encoded_len()));
    assert!(storage.get(at(24 * HOUR_MS), record.key()).is_none(), "even before anybody tidies up");
    assert_eq!(storage.next_end(), Some(end));
    assert_eq!(storage.expire(at(24 * HOUR_MS)), 1);
    assert!(storage.is_empty() && storage.bytes() == 0);
    assert_eq!(storage.put(at(24 * HOUR_MS), record, host(1, 1), false), Err(StoreRefusal::Expired));
}

#[test]
fn the_highest_seq_stays_and_takes_no_second_place() {
    let mut storage = storage(StorageConfig { per_owner: 1, per_subnet: 1, ..StorageConfig::default() });
    let put = |storage: &mut Storage, seq| storage.put(at(0), signed(peer_draft(peer(1), seq)), host(1, 1), false);
    assert!(put(&mut storage, 5).is_ok());
    assert_eq!(put(&mut storage, 4), Err(StoreRefusal::Stale { kept: 5 }));
    assert!(put(&mut storage, 6).is_ok(), "its own place, full quotas or not");
    assert!(put(&mut storage, 6).is_ok(), "the same again");
    let key = *signed(peer_draft(peer(1), 6)).key();
    assert_eq!(storage.get(at(0), &key).map(|kept| kept.record.seq()), Some(6));
    assert_eq!(storage.len(), 1);
}

#[test]
fn a_record_taken_while_the_clock_was_ahead_keeps_no_true_one_out() {
    let mut storage = storage(StorageConfig::default());
    let ahead = HOUR_MS * 25;
    let early = RecordDraft {
        not_before_ms: TODAY_MS + ahead,
        not_after_ms: TODAY_MS + ahead + HOUR_MS,
        ..peer_draft(peer(1), 99)
    };
    let key = *signed(early.clone()).key();
    assert!(storage.put_own(at(ahead), signed(early)).is_ok());
    assert_eq!(storage.get(at(0), &key).map(|kept| kept.record.seq()), None, "nobody would take it");
    assert!(storage.put_own(at(0), signed(peer_draft(peer(1), 5))).is_ok());
    assert_eq!(storage.get(at(0), &key).map(|kept| kept.record.seq()), Some(5));
    assert_eq!(storage.len(), 1);
}

#[test]
fn two_contents_under_one_seq_become_a_proof_that_holds() {
    let mut storage = storage(StorageConfig::default());
    let (a, b) = (signed(value_draft(peer(1), 1, 3, 1)), signed(value_draft(peer(1), 1, 3, 2)));
    assert!(storage.put(at(0), Arc::clone(&a), host(1, 1), false).is_ok());
    let Err(StoreRefusal::Equivocation(proof)) = storage.put(at(0), b, host(2, 1), false) else {
        panic!("taken");
    };
    assert!(Fact::Equivocation(*proof).verify(&Toy));
    assert_eq!(storage.get(at(0), a.key()).map(|kept| kept.record), Some(&a), "the first one stays until it is judged");
}

#[test]
fn one_owner_fills_his_quota_and_nobody_elses() {
    let mut storage = storage(StorageConfig { per_owner: 64, ..StorageConfig::default() });
    for name in 0..64 {
        assert!(storage.put(at(0), value(1, name), host(name as u8, 1), false).is_ok());
    }
    assert_eq!(storage.put(at(0), value(1, 64), host(99, 1), false), Err(StoreRefusal::OwnerQuota));
    assert_eq!(storage.put_own(at(0), value(1, 64)), Err(StoreRefusal::OwnerQuota));
    assert!(storage.put(at(0), value(2, 64), host(1, 1), false).is_ok());
    assert_eq!(storage.remove_owner(&peer(1)), 64);
    assert_eq!(storage.len(), 1);
    assert!(storage.put(at(0), value(1, 64), host(99, 1), false).is_ok(), "there is room again");
}

#[test]
fn one_subnet_fills_its_quota_and_nobody_elses() {
    let mut storage = storage(StorageConfig::default());
    for owner in 0..256 {
        assert!(storage.put(at(0), value(owner, 1), host(1, owner as u8), false).is_ok());
    }
    assert_eq!(storage.put(at(0), value(256, 1), host(1, 9), false), Err(StoreRefusal::SubnetQuota));
    assert!(storage.put(at(0), value(256, 1), host(2, 9), false).is_ok());
    assert!(storage.put_own(at(0), value(257, 1)).is_ok(), "own records are nobody's burden");
    let newer = signed(value_draft(peer(256), 1, 2, 0));
    assert_eq!(
        storage.put(at(0), newer, host(1, 9), false),
        Err(StoreRefusal::SubnetQuota),
        "nor by replacing another's"
    );
    let newer = signed(value_draft(peer(3), 1, 2, 0));
    assert!(storage.put(at(0), newer, host(1, 9), false).is_ok(), "its own it may replace");
}

/// Records by their distance from the position 0…0, nearest first.
fn by_distance(owners: u32) -> Vec<Arc<Record>> {
    let mut records: Vec<_> = (0..owners).map(|owner| value(owner, 1)).collect();
    records.sort_by_key(|record| *record.key());
    records
}

#[test]
fn when_full_the_farthest_goes_and_a_farther_one_does_not_come_in() {
    let mut storage = storage(StorageConfig { records: 8, ..StorageConfig::default() });
    let records = by_distance(10);
    for record in &records[1..9] {
        assert!(storage.put(at(0), Arc::clone(record), host(1, 1), false).is_ok());
    }
    assert_eq!(storage.put(at(0), Arc::clone(&records[9]), host(1, 1), false), Err(StoreRefusal::Full));
    assert!(storage.put(at(0), Arc::clone(&records[0]), host(1, 1), false).is_ok());
    assert!(storage.get(at(0), records[8].key()).is_none(), "the farthest made room");
    assert_eq!(storage.len(), 8);
    storage.move_to(Point::from_bytes([0xff; 32]));
    assert!(storage.put(at(0), Arc::clone(&records[9]), host(1, 1), false).is_ok(), "near is far from elsewhere");
    assert!(storage.get(at(0), records[0].key()).is_none());
}

#[test]
fn copies_go_first_and_never_push_a_record_out() {
    let mut storage = storage(StorageConfig { records: 4, ..StorageConfig::default() });
    let records = by_distance(6);
    assert!(storage.put(at(0), Arc::clone(&records[0]), host(1, 1), true).is_ok());
    for record in &records[3..] {
        assert!(storage.put(at(0), Arc::clone(record), host(1, 1), false).is_ok());
    }
    assert!(storage.put(at(0), Arc::clone(&records[2]), host(1, 1), false).is_ok());
    assert!(storage.get(at(0), records[0].key()).is_none(), "the copy went, near as it was");
    assert_eq!(storage.put(at(0), Arc::clone(&records[0]), host(1, 1), true), Err(StoreRefusal::Full));
}

#[test]
fn bytes_are_bounded_as_records_are() {
    let records = by_distance(9);
    let each = records[0].encoded_len();
    let mut storage = storage(StorageConfig { bytes: 3 * each, ..StorageConfig::default() });
    for record in records.iter().rev() {
        assert!(storage.put(at(0), Arc::clone(record), host(1, 1), false).is_ok());
        assert!(storage.bytes() <= 3 * each);
    }
    assert_eq!(storage.len(), 3);
    let mut small = Storage::new(
        StorageConfig { bytes: each - 1, ..StorageConfig::default() },
        Point::from_bytes([0; 32]),
        [7; 32],
    );
    assert_eq!(small.put(at(0), Arc::clone(&records[0]), host(1, 1), false), Err(StoreRefusal::Full));
}

#[test]
fn a_refused_put_changes_nothing() {
    let mut storage = storage(StorageConfig { records: 2, per_owner: 1, ..StorageConfig::default() });
    let records = by_distance(3);
    for record in &records[..2] {
        assert!(storage.put(at(0), Arc::clone(record), host(1, 1), false).is_ok());
    }
    let before = format!("{storage:?}");
    assert!(storage.put(at(0), Arc::clone(&records[2]), host(1, 1), false).is_err());
    let second = signed(value_draft(*records[0].owner(), 2, 1, 0));
    assert!(storage.put(at(0), second, host(1, 1), false).is_err());
    assert_eq!(format!("{storage:?}"), before);
}

#[test]
fn a_copy_lasts_ten_minutes_and_a_record_is_not_made_a_copy() {
    let mut storage = storage(StorageConfig::default());
    let (record, end) = (value(1, 1), TODAY_MS + 24 * HOUR_MS);
    let put = |storage: &mut Storage, ms, record: &Arc<Record>, cached| {
        storage.put(at(ms), Arc::clone(record), host(1, 1), cached)
    };
    assert_eq!(put(&mut storage, 0, &record, true), Ok(TODAY_MS + CACHE_MS));
    assert_eq!(put(&mut storage, 1000, &record, true), Ok(TODAY_MS + 1000 + CACHE_MS), "left there again");
    assert!(storage.get(at(999 + CACHE_MS), record.key()).is_some());
    assert!(storage.get(at(1000 + CACHE_MS), record.key()).is_none());
    assert_eq!(put(&mut storage, 2000, &record, false), Ok(end), "now it is stored");
    assert_eq!(put(&mut storage, 3000, &record, true), Ok(end));
    let newer = signed(value_draft(peer(1), 1, 2, 0));
    assert_eq!(put(&mut storage, 4000, &newer, true), Ok(end), "a copy would be a way to let a stored record vanish");
    assert_eq!(
        storage.get(at(CACHE_MS * 2), record.key()).map(|kept| (kept.record.seq(), kept.cached)),
        Some((2, false))
    );
    let ends_soon = signed(RecordDraft { not_after_ms: TODAY_MS + 5000, ..value_draft(peer(2), 1, 1, 0) });
    assert_eq!(put(&mut storage, 0, &ends_soon, true), Ok(TODAY_MS + 5000), "a copy does not outlast its record");
}

#[test]
fn heartbeats_are_taken_when_true_and_only_forwards() {
    let mut storage = storage(StorageConfig::default());
    let record = signed(peer_draft(peer(1), 1));
    let (key, end) = (*record.key(), TODAY_MS + 24 * HOUR_MS);
    let beat = |hour| Heartbeat::at(&SEED, hour).unwrap();
    assert_eq!(storage.beat(at(0), &key, beat(1)), Err(BeatRefusal::Unknown));
    assert!(storage.put(at(0), record, host(1, 1), false).is_ok());
    assert_eq!(storage.beat(at(2 * HOUR_MS), &key, beat(2)), Ok(end));
    assert_eq!(storage.beat(at(2 * HOUR_MS), &key, beat(1)), Ok(end));
    assert_eq!(storage.get(at(0), &key).and_then(|kept| kept.heartbeat), Some(beat(2)));
    assert_eq!(storage.beat(at(2 * HOUR_MS), &key, beat(5)), Err(BeatRefusal::Early));
    assert_eq!(storage.beat(at(9 * HOUR_MS), &key, Heartbeat { hour: 5, ..beat(4) }), Err(BeatRefusal::False));
    assert_eq!(storage.beat(at(24 * HOUR_MS), &key, beat(24)), Err(BeatRefusal::Unknown), "the record has ended");
    assert!(storage.put(at(3 * HOUR_MS), signed(peer_draft(peer(1), 2)), host(1, 1), false).is_ok());
    assert_eq!(storage.get(at(3 * HOUR_MS), &key).and_then(|kept| kept.heartbeat), None, "a new record, a new chain");
}

#[test]
fn every_refusal_has_a_counter_and_an_answer() {
    for (refusal, attack, answer) in [
        (StoreRefusal::Expired, Attack::RecordExpired, Refusal::Record),
        (StoreRefusal::Stale { kept: 1 }, Attack::RecordStale, Refusal::Stale),
        (StoreRefusal::OwnerQuota, Attack::QuotaOwner, Refusal::Quota),
        (StoreRefusal::SubnetQuota, Attack::QuotaSubnet, Refusal::Quota),
        (StoreRefusal::Full, Attack::StorageFull, Refusal::Quota),
    ] {
        assert_eq!((refusal.attack(), refusal.refusal()), (attack, answer));
    }
}

#[test]
fn a_clock_that_is_ahead_for_a_while_empties_nothing() {
    let minutes = |mono: u64, ahead_ms| Now {
        mono: std::time::Duration::from_secs(60 * mono),
        unix_ms: TODAY_MS + 60_000 * mono + ahead_ms,
    };
    let mut storage = storage(StorageConfig::default());
    let record = signed(peer_draft(peer(1), 1));
    storage.put(minutes(0, 0), Arc::clone(&record), host(1, 1), false).unwrap();
    for minute in [1, 30, 60] {
        let ahead = minutes(minute, 25 * HOUR_MS);
        assert_eq!(storage.expire(ahead), 0, "after {minute} min");
        assert!(storage.get(ahead, record.key()).is_none(), "but nobody is given it");
    }
    let back = minutes(60, 0);
    assert_eq!(storage.expire(back), 0);
    assert!(storage.get(back, record.key()).is_some());
    // What lasts is believed, and so is time that passes.
    assert_eq!(storage.expire(minutes(61, 25 * HOUR_MS)), 0);
    assert_eq!(storage.expire(minutes(121, 25 * HOUR_MS)), 1);
}
