// SPDX-License-Identifier: MIT OR Apache-2.0
//! Terms, releases, and the bound that no sequence of calls may break.

use proptest::prelude::*;

use super::*;

const TABLE: usize = 100;

fn at(seconds: u64) -> Now {
    Now { mono: Duration::from_secs(seconds), unix_ms: 0 }
}

fn peer(i: usize) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(i as u64).to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn until(sentence: Sentence) -> u64 {
    match sentence {
        Sentence::Held { until } => until.as_secs(),
        Sentence::Denied => panic!("denied"),
    }
}

#[test]
fn the_first_term_is_half_an_hour_and_a_term_goes_on_undisturbed() {
    let mut quarantine = Quarantine::new();
    assert_eq!(until(quarantine.hold(at(0), &peer(1), false, TABLE)), 1800);
    assert_eq!(until(quarantine.hold(at(600), &peer(1), false, TABLE)), 1800);
    assert!(quarantine.holds(at(1799), &peer(1)) && !quarantine.holds(at(0), &peer(2)));
    assert_eq!(quarantine.counters().held, 1);
    assert_eq!(quarantine.iter(at(5)).collect::<Vec<_>>(), [(&peer(1), Duration::from_secs(1800))]);
}

#[test]
fn terms_double_up_to_a_week_and_a_fortnight_of_peace_clears_the_record() {
    let mut quarantine = Quarantine::new();
    let mut now = 0;
    let mut terms = Vec::new();
    for _ in 0..12 {
        let end = until(quarantine.hold(at(now), &peer(1), false, TABLE));
        terms.push(end - now);
        now = end + GRACE.as_secs();
    }
    assert_eq!(&terms[..4], [1800, 3600, 7200, 14_400]);
    assert_eq!(*terms.last().unwrap(), 7 * 86_400);
    now += MEMORY.as_secs();
    assert_eq!(until(quarantine.hold(at(now), &peer(1), false, TABLE)) - now, 1800);
}

#[test]
fn a_fifth_of_the_table_is_the_most_and_the_rest_is_counted() {
    for table_len in [0, 1, 4, 5, 9, 10, 100, 201] {
        let mut quarantine = Quarantine::new();
        for i in 0..table_len + 20 {
            quarantine.hold(at(0), &peer(i), false, table_len);
        }
        assert_eq!(quarantine.len(at(1)), table_len / 5, "{table_len}");
        assert_eq!(quarantine.counters().denied as usize, table_len + 20 - table_len / 5);
    }
}

#[test]
fn a_proven_liar_takes_a_suspects_place_but_not_another_liars() {
    let mut quarantine = Quarantine::new();
    (0..20).for_each(|i| assert_ne!(quarantine.hold(at(0), &peer(i), false, TABLE), Sentence::Denied));
    for i in 100..120 {
        until(quarantine.hold(at(1), &peer(i), true, TABLE));
        assert_eq!(quarantine.len(at(1)), 20);
    }
    assert_eq!(quarantine.hold(at(1), &peer(200), true, TABLE), Sentence::Denied);
    assert_eq!(quarantine.hold(at(1), &peer(201), false, TABLE), Sentence::Denied);
    assert!((0..20).all(|i| !quarantine.holds(at(1), &peer(i))));
    assert_eq!((quarantine.counters().displaced, quarantine.counters().denied), (20, 2));
}

#[test]
fn a_shrinking_table_releases_suspects_first() {
    let mut quarantine = Quarantine::new();
    (0..15).for_each(|i| assert_ne!(quarantine.hold(at(0), &peer(i), false, TABLE), Sentence::Denied));
    (15..20).for_each(|i| assert_ne!(quarantine.hold(at(0), &peer(i), true, TABLE), Sentence::Denied));
    quarantine.fit(at(1), 25);
    assert_eq!(quarantine.len(at(1)), 5);
    assert!((15..20).all(|i| quarantine.holds(at(1), &peer(i))));
    quarantine.fit(at(1), 3);
    assert!(quarantine.is_empty(at(1)));
}

#[test]
fn a_good_answer_to_a_probe_releases_and_a_wrong_one_does_not() {
    let mut quarantine = Quarantine::new();
    (1..3).for_each(|i| assert_ne!(quarantine.hold(at(0), &peer(i), false, TABLE), Sentence::Denied));
    assert_eq!(quarantine.next_probe(at(1799)), None);
    // An answer nobody asked for yet changes nothing.
    quarantine.probed(at(100), &peer(1), true);
    assert!(quarantine.holds(at(100), &peer(1)));
    assert_eq!(quarantine.next_probe(at(1800)), Some(peer(1)));
    assert_eq!(quarantine.next_probe(at(1801)), Some(peer(2)));
    assert_eq!(quarantine.next_probe(at(1802)), None);
    quarantine.probed(at(1803), &peer(1), true);
    quarantine.probed(at(1803), &peer(2), false);
    assert!(!quarantine.holds(at(1804), &peer(1)) && quarantine.holds(at(3602), &peer(2)));
    assert_eq!(quarantine.next_probe(at(3603)), Some(peer(2)));
    assert_eq!(quarantine.counters().acquitted, 1);
}

#[test]
fn nobody_is_held_for_ever_by_a_node_that_never_probes() {
    let mut quarantine = Quarantine::new();
    quarantine.hold(at(0), &peer(1), false, TABLE);
    assert!(quarantine.holds(at(1800), &peer(1)));
    assert!(!quarantine.holds(at(1800 + GRACE.as_secs()), &peer(1)));
}

#[test]
fn the_memory_is_bounded_and_keeps_who_is_held() {
    let mut quarantine = Quarantine::new();
    quarantine.hold(at(0), &peer(999_999), false, TABLE);
    for i in 0..3 * MAX_CELLS {
        quarantine.hold(at(1), &peer(i), false, 10_000_000);
        assert!(quarantine.cells.len() <= MAX_CELLS + quarantine.len(at(1)));
        quarantine.cells.get_mut(&peer(i)).unwrap().released = true;
    }
    assert!(quarantine.cells.len() <= MAX_CELLS);
    assert!(quarantine.holds(at(1), &peer(999_999)) && quarantine.counters().forgotten > 0);
}

proptest! {
    #[test]
    fn no_sequence_of_calls_breaks_the_bound(
        steps in prop::collection::vec((0_u8..6, 0_usize..60, any::<bool>(), 0_u64..4000, 0_usize..300), 1..200)
    ) {
        let mut quarantine = Quarantine::new();
        let (mut now, mut table_len) = (0, 100);
        for (what, who, flag, seconds, len) in steps {
            match what {
                0..=2 => {
                    quarantine.hold(at(now), &peer(who), flag, table_len);
                }
                3 => {
                    table_len = len;
                    quarantine.fit(at(now), table_len);
                }
                4 => now += seconds,
                _ => {
                    if let Some(peer) = quarantine.next_probe(at(now)) {
                        quarantine.probed(at(now), &peer, flag);
                    }
                }
            }
            prop_assert!(quarantine.len(at(now)) <= table_len / ONE_IN);
            let held = (0..60).filter(|i| quarantine.holds(at(now), &peer(*i))).count();
            prop_assert_eq!(held, quarantine.len(at(now)));
        }
    }
}
