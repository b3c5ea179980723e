// SPDX-License-Identifier: MIT OR Apache-2.0
//! How contacts come, stay and go.

use super::*;

#[test]
fn an_old_live_contact_is_never_displaced() {
    let (mut table, old) = full_bucket(0, at(0));
    for seed in 100..400 {
        let now = at(seed * 7);
        match table.insert(now, public_in(0, seed)) {
            Inserted::Full { probe } => table.seen(now, probe.peer()),
            Inserted::Waiting | Inserted::Refused(_) => {}
            other @ (Inserted::Added | Inserted::Updated) => panic!("{other:?}"),
        }
        table.failed(now, old[3].peer());
        table.seen(now, old[3].peer());
    }
    assert_eq!(table.len(), 20);
    assert!(old.iter().all(|contact| table.get(contact.peer()).is_some()));
}

#[test]
fn a_contact_that_fails_its_probe_makes_room_at_once() {
    let (mut table, old) = full_bucket(0, at(0));
    let newcomer = public_in(0, 100);
    assert_eq!(table.insert(at(10), Arc::clone(&newcomer)), Inserted::Waiting, "all were seen a moment ago");
    assert_eq!(table.failed(at(11), old[0].peer()), Failed::Kept, "nobody probes it");
    table.seen(at(12), old[0].peer());
    let Inserted::Full { probe } = table.insert(at(1000), Arc::clone(&newcomer)) else { panic!("a probe is due") };
    assert_eq!(probe, old[1], "the least recently seen");
    assert_eq!(table.insert(at(1001), public_in(0, 101)), Inserted::Waiting, "one probe at a time");
    assert_eq!(table.failed(at(1002), probe.peer()), Failed::Removed { replaced_by: Some(Arc::clone(&newcomer)) });
    assert!(table.get(newcomer.peer()).is_some());
    assert!(table.get(probe.peer()).is_none());
    assert_eq!(table.len(), 20);
}

#[test]
fn three_failures_in_a_row_remove_a_contact() {
    let (mut table, old) = full_bucket(0, at(0));
    let peer = old[5].peer();
    assert_eq!(table.failed(at(1), peer), Failed::Kept);
    assert_eq!(table.failed(at(2), peer), Failed::Kept);
    table.seen(at(3), peer);
    assert_eq!(table.failed(at(4), peer), Failed::Kept, "an answer in between starts the count anew");
    assert_eq!(table.failed(at(5), peer), Failed::Kept);
    assert_eq!(table.failed(at(6), peer), Failed::Removed { replaced_by: None });
    assert_eq!(table.failed(at(7), peer), Failed::Unknown);
    assert_eq!(table.len(), 19);
}

#[test]
fn the_longest_known_of_those_heard_of_lately_gets_a_free_place() {
    let (mut table, old) = full_bucket(0, at(0));
    for seed in [100, 101, 102] {
        table.insert(at(seed), public_in(0, seed));
    }
    table.insert(at(2000), public_in(0, 102));
    table.insert(at(2000), public_in(0, 101));
    table.remove(old[0].peer());
    assert!(table.get(public_in(0, 101).peer()).is_some(), "100 was silent for too long, 102 came after 101");
    assert!(table.get(public_in(0, 100).peer()).is_none());
}

#[test]
fn a_burst_of_strangers_displaces_nobody_who_waits() {
    let (mut table, _) = full_bucket(0, at(0));
    for seed in 100..120 {
        table.insert(at(10), public_in(0, seed));
    }
    for seed in 200..250 {
        let refused = table.insert(at(20), public_in(0, seed));
        assert_eq!(refused, Inserted::Refused(crate::table::TableRefusal::Replacements));
    }
    assert_eq!(table.counters().replacements, 50);
    assert_eq!(table.buckets()[0].replacements, 20);
    table.insert(at(2000), public_in(0, 300));
    assert_eq!(table.buckets()[0].replacements, 20, "after a long silence one makes room");
}

#[test]
fn a_peer_that_moves_leaves_its_old_position() {
    let mut table = Table::new(OWN, TableConfig::default());
    let before = public_in(0, 1);
    table.insert(at(0), Arc::clone(&before));
    let admission = Admission { week: 2, ..*before.admission() };
    let after = Arc::new(Contact::new(*before.peer(), admission, before.addresses().to_vec()));
    assert_eq!(table.insert(at(1), Arc::clone(&after)), Inserted::Added);
    assert_eq!(table.len(), 1);
    assert_eq!(table.get(before.peer()).expect("moved").contact(), &after);
}

#[test]
fn our_own_position_is_refused_and_a_move_keeps_the_contacts() {
    let (mut table, old) = full_bucket(0, at(0));
    let own = *old[0].node_id();
    let mut other = Table::new(own, TableConfig::default());
    assert_eq!(
        other.insert(at(0), Arc::clone(&old[0])),
        Inserted::Refused(crate::table::TableRefusal::Own),
        "at our own position"
    );
    table.move_to(at(9), own);
    assert_eq!(table.own(), &own);
    assert_eq!(table.len(), 19, "all but the one at our new position");
    assert_eq!(table.get(old[7].peer()).expect("kept").last_seen(), at(0).mono, "with its history");
    assert_eq!(table.iter().count(), table.len());
}

#[test]
fn the_stalest_is_handed_out_once_and_again_after_a_pause() {
    let (mut table, old) = full_bucket(0, at(0));
    for contact in &old[1..] {
        table.seen(at(600), contact.peer());
    }
    assert_eq!(table.stalest(at(200), Duration::from_secs(300)), None);
    assert_eq!(table.stalest(at(601), Duration::from_secs(300)), Some(Arc::clone(&old[0])));
    assert_eq!(table.stalest(at(602), Duration::from_secs(300)), None, "its answer is awaited");
    table.failed(at(603), old[0].peer());
    assert_eq!(table.stalest(at(640), Duration::from_secs(300)), None, "it failed: not again so soon");
    assert_eq!(table.stalest(at(664), Duration::from_secs(300)), Some(Arc::clone(&old[0])));
}

#[test]
fn an_idle_bucket_is_refreshed_by_a_point_in_it() {
    let (mut table, _) = full_bucket(0, at(0));
    for seed in 50..53 {
        table.insert(at(0), public_in(1, seed));
    }
    let mut rng = StdRng::seed_from_u64(1);
    let hour = Duration::from_secs(3600);
    assert_eq!(table.idle_bucket_target(at(3600), hour, &mut rng), None);
    let first = table.idle_bucket_target(at(4000), hour, &mut rng).expect("idle");
    assert_eq!(OWN.distance(&first).leading_zeros(), 0);
    let second = table.idle_bucket_target(at(4001), hour, &mut rng).expect("the neighbourhood is idle too");
    assert!(OWN.distance(&second).leading_zeros() >= 1);
    assert_eq!(table.idle_bucket_target(at(4002), hour, &mut rng), None);
    table.looked_up(at(7000), &first);
    let third = table.idle_bucket_target(at(8000), hour, &mut rng).expect("idle again");
    assert!(OWN.distance(&third).leading_zeros() >= 1, "a lookup went through bucket 0");
}

#[test]
fn a_sample_has_no_doubles() {
    let (table, _) = full_bucket(0, at(0));
    let mut rng = StdRng::seed_from_u64(1);
    let sample = table.sample(12, &mut rng);
    let names: std::collections::BTreeSet<_> = sample.iter().map(|one| *one.peer()).collect();
    assert_eq!((sample.len(), names.len()), (12, 12));
    assert_eq!(table.sample(99, &mut rng).len(), 20);
    assert!(Table::new(OWN, TableConfig::default()).sample(3, &mut rng).is_empty());
}

fn lose(table: &mut Table, now: Now, contact: &Contact) {
    for _ in 0..3 {
        table.failed(now, contact.peer());
    }
}

#[test]
fn a_lost_contact_is_tried_again_ever_more_rarely() {
    let (mut table, old) = full_bucket(0, at(0));
    lose(&mut table, at(100), &old[0]);
    assert_eq!(table.next_lost(at(105)), None);
    let mut times = Vec::new();
    for second in 100..100_000 {
        if let Some(lost) = table.next_lost(at(second)) {
            assert_eq!(lost, old[0]);
            times.push(second);
        }
    }
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!((111..=120).contains(&times[0]), "{times:?}");
    assert!(pauses.windows(2).all(|pair| pair[1] + 1 >= pair[0]), "{pauses:?}");
    assert!(pauses.last().is_some_and(|last| (1350..=2250).contains(last)), "{pauses:?}");
    assert!(times.last().is_some_and(|last| *last < 100 + 24 * 3600), "given up after a day");
    assert_eq!(table.lost(), 0);
}

#[test]
fn after_a_mass_loss_retries_stay_quick_and_the_healed_half_is_found() {
    let (mut table, old) = full_bucket(0, at(0));
    for contact in &old[..10] {
        lose(&mut table, at(100), contact);
    }
    let tries = (100..700).filter(|second| table.next_lost(at(*second)).is_some()).count();
    assert!(tries > 100, "ten contacts every 15 s or so for 10 min, got {tries}");
    table.insert(at(700), Arc::clone(&old[0]));
    assert_eq!(table.lost(), 9, "whoever is back is not lost");
    assert!(table.lost_due().is_some());
}

#[test]
fn no_more_than_64_lost_contacts_are_remembered() {
    let mut table = Table::new(OWN, TableConfig::default());
    for seed in 0..100 {
        let contact = public_in(u32::try_from(seed % 5).expect("small"), seed);
        table.insert(at(seed), Arc::clone(&contact));
        lose(&mut table, at(seed), &contact);
    }
    assert_eq!(table.lost(), 64);
    assert_eq!(table.counters().lost, 36);
    assert!(!table.remove(public_in(4, 99).peer()), "not in the table");
    assert_eq!(table.lost(), 63, "what is removed for good is not tried again");
}
