// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is judged, who is not, and what an attacker can make of it.

use proptest::prelude::*;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::*;

const TABLE: usize = 100;

fn at(window: u64) -> Now {
    Now { mono: WINDOW * u32::try_from(window).unwrap(), unix_ms: 0 }
}

fn peer(i: usize) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(i as u64).to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn good(rng: &mut Xoshiro256PlusPlus) -> Observation {
    Observation {
        rtt: Some(Duration::from_millis(rng.random_range(20..80))),
        contacts_same_16_share: Some(rng.random_range(0.05..0.15)),
        closeness_gain_bits: Some(rng.random_range(2.0..6.0)),
        density: Some(rng.random_range(-0.5..0.5)),
        ..Observation::default()
    }
}

fn silence() -> Observation {
    Observation { timeout: true, ..Observation::default() }
}

fn forgery() -> Observation {
    Observation { rtt: Some(Duration::from_millis(40)), invalid_signature: true, ..Observation::default() }
}

/// A judge that has seen `peers` honest peers for `windows` windows.
fn seasoned(peers: usize, windows: u64) -> (Judge, Xoshiro256PlusPlus) {
    let mut judge = Judge::new(1);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
    for window in 0..windows {
        honest(&mut judge, &mut rng, window, 0..peers);
        judge.close_window(at(window), TABLE);
    }
    (judge, rng)
}

fn honest(judge: &mut Judge, rng: &mut Xoshiro256PlusPlus, window: u64, peers: std::ops::Range<usize>) {
    for i in peers {
        (0..6).for_each(|_| judge.observe(at(window), &peer(i), &good(rng)));
    }
}

fn of(judgements: &[Judgement], i: usize) -> Judgement {
    *judgements.iter().find(|judgement| judgement.peer == peer(i)).unwrap()
}

#[test]
fn honest_peers_are_left_alone() {
    let (mut judge, mut rng) = seasoned(40, 10);
    let mut above = 0;
    for window in 10..40 {
        honest(&mut judge, &mut rng, window, 0..40);
        let judgements = judge.close_window(at(window), TABLE);
        assert_eq!(judgements.len(), 40);
        above += judgements.iter().filter(|judgement| judgement.above).count();
    }
    assert!(judge.has_forest() && judge.quarantine().is_empty(at(40)));
    assert!(above < 12, "{above} of 1200");
}

#[test]
fn a_forger_is_in_quarantine_after_three_windows() {
    let (mut judge, mut rng) = seasoned(40, 10);
    for window in 10..13 {
        honest(&mut judge, &mut rng, window, 0..40);
        (0..4).for_each(|_| judge.observe(at(window), &peer(77), &forgery()));
        let judgement = of(&judge.close_window(at(window), TABLE), 77);
        assert!(judgement.above && judgement.hard, "{judgement:?}");
        assert_eq!(judge.quarantined(at(window), &peer(77)), window == 12);
    }
    for window in 13..20 {
        honest(&mut judge, &mut rng, window, 0..40);
        (0..4).for_each(|_| judge.observe(at(window), &peer(77), &forgery()));
        let judgement = of(&judge.close_window(at(window), TABLE), 77);
        assert!(judgement.above && judgement.sentence.is_none(), "one sentence at a time");
    }
    assert!(!judge.quarantined(at(20), &peer(1)));
    assert!(judge.quarantined(at(12 + 30), &peer(77)));
}

#[test]
fn odd_behaviour_without_a_hard_event_is_never_enough() {
    let (mut judge, mut rng) = seasoned(40, 10);
    for window in 10..60 {
        honest(&mut judge, &mut rng, window, 0..40);
        (0..20).for_each(|_| judge.observe(at(window), &peer(77), &silence()));
        assert!(of(&judge.close_window(at(window), TABLE), 77).above);
        assert!(!judge.quarantined(at(window), &peer(77)));
    }
}

#[test]
fn one_hard_event_without_odd_behaviour_is_not_enough() {
    let (mut judge, mut rng) = seasoned(40, 10);
    for window in 10..60 {
        honest(&mut judge, &mut rng, window, 0..41);
        if window % 5 == 0 {
            judge.observe(at(window), &peer(40), &forgery());
        }
        judge.close_window(at(window), TABLE);
        assert!(!judge.quarantined(at(window), &peer(40)));
    }
}

#[test]
fn a_hard_event_long_ago_does_not_count() {
    let (mut judge, mut rng) = seasoned(40, 10);
    for window in 10..30 {
        honest(&mut judge, &mut rng, window, 0..40);
        (0..10)
            .for_each(|_| judge.observe(at(window), &peer(77), &if window == 10 { forgery() } else { good(&mut rng) }));
        if window >= 15 {
            (0..20).for_each(|_| judge.observe(at(window), &peer(77), &silence()));
        }
        judge.close_window(at(window), TABLE);
        assert!(!judge.quarantined(at(window), &peer(77)), "{window}");
    }
}

#[test]
fn a_peer_that_drops_a_third_is_seen_by_its_sum_of_failures() {
    let (mut judge, mut rng) = seasoned(40, 10);
    let mut sums = Vec::new();
    for window in 10..30 {
        honest(&mut judge, &mut rng, window, 0..40);
        (0..20)
            .for_each(|i| judge.observe(at(window), &peer(77), &if i % 3 == 0 { silence() } else { good(&mut rng) }));
        sums.push(of(&judge.close_window(at(window), TABLE), 77).cusum);
    }
    assert!(sums[0] < 0.5 && sums.last().is_some_and(|sum| *sum >= 1.0), "{sums:?}");
}

#[test]
fn nobody_is_judged_before_there_is_a_baseline() {
    let mut judge = Judge::new(1);
    for window in 0..5 {
        (0..6).for_each(|_| judge.observe(at(window), &peer(1), &forgery()));
        assert!(judge.close_window(at(window), TABLE).is_empty());
    }
    assert!(!judge.quarantined(at(5), &peer(1)) && !judge.has_forest());
}

#[test]
fn proof_needs_no_windows_and_no_baseline() {
    let mut judge = Judge::new(1);
    assert!(matches!(judge.prove(at(0), &peer(1), TABLE), Sentence::Held { .. }));
    assert!(judge.quarantined(at(1), &peer(1)));
    assert_eq!(judge.prove(at(0), &peer(2), 4), Sentence::Denied);
}

#[test]
fn the_forest_waits_for_its_samples_and_is_trained_once_an_hour() {
    let (judge, _) = seasoned(40, 6);
    assert!(!judge.has_forest());
    let (mut judge, mut rng) = seasoned(40, 7);
    assert!(judge.has_forest());
    let trained = |judge: &Judge| judge.forest.as_ref().map(|(at, _)| *at);
    let first = trained(&judge);
    for window in 7..66 {
        honest(&mut judge, &mut rng, window, 0..40);
        judge.close_window(at(window), TABLE);
        assert_eq!(trained(&judge), first, "{window}");
    }
    judge.close_window(at(66), TABLE);
    assert!(trained(&judge) > first && judge.samples.len() <= 2000);
}

#[test]
fn the_same_seed_and_the_same_events_give_the_same_judgements() {
    let run = || {
        let (mut judge, mut rng) = seasoned(40, 12);
        honest(&mut judge, &mut rng, 12, 0..50);
        judge.close_window(at(12), TABLE)
    };
    assert_eq!(run(), run());
}

#[test]
fn memory_is_bounded_whoever_turns_up() {
    let mut judge = Judge::new(1);
    for i in 0..5000 {
        judge.observe(at(0), &peer(i), &silence());
        assert!(judge.watched() <= 1024);
    }
    assert!(judge.forgotten() > 3000);
    judge.close_window(at(1), TABLE);
    judge.close_window(at(400), TABLE);
    assert_eq!(judge.watched(), 0);
    let mut small = Judge::with_config(1, JudgeConfig { peers: 16, samples: 100, trees: 0 });
    for window in 0..20 {
        (0..50).for_each(|i| small.observe(at(window), &peer(i), &silence()));
        small.close_window(at(window), TABLE);
        assert!(small.watched() <= 16 && small.samples.len() <= 100 && !small.has_forest());
    }
}

#[test]
fn nonsense_in_an_observation_is_no_nonsense_in_a_score() {
    let (mut judge, mut rng) = seasoned(40, 10);
    for value in [f64::NAN, f64::INFINITY, -f64::INFINITY, f64::MAX] {
        let wild = Observation {
            rtt: Some(Duration::MAX),
            contacts_same_16_share: Some(value),
            closeness_gain_bits: Some(value),
            density: Some(value),
            ..Observation::default()
        };
        judge.observe(at(10), &peer(50), &wild);
    }
    honest(&mut judge, &mut rng, 10, 0..40);
    for judgement in judge.close_window(at(10), TABLE) {
        assert!(judgement.z.is_finite() && judgement.forest.is_some_and(f64::is_finite) && judgement.cusum.is_finite());
    }
}

#[test]
fn a_number_that_is_none_does_not_hide_the_others() {
    let (mut judge, mut rng) = seasoned(40, 10);
    for gain in [f64::NAN, 200.0, f64::NAN] {
        let observation = Observation { closeness_gain_bits: Some(gain), ..good(&mut rng) };
        judge.observe(at(10), &peer(50), &observation);
    }
    assert!(of(&judge.close_window(at(10), TABLE), 50).above);
}

/// Ten thousand nodes live in one process.
#[test]
fn a_judge_that_saw_nobody_costs_next_to_nothing() {
    assert!(size_of::<Judge>() <= 512, "{}", size_of::<Judge>());
    assert!(size_of::<Watch>() <= 64, "{}", size_of::<Watch>());
}

/// The attacker who would have us eclipse ourselves: he decides what is seen of honest peers.
#[test]
fn making_honest_peers_look_guilty_takes_a_fifth_of_the_table_and_no_more() {
    let (mut judge, mut rng) = seasoned(TABLE, 10);
    let (mut most, mut denied) = (0, 0);
    for window in 10..120 {
        honest(&mut judge, &mut rng, window, 40..TABLE);
        // More victims would make their behaviour the usual one.
        for i in 0..40 {
            let bad = if window % 2 == 0 { forgery() } else { silence() };
            (0..8).for_each(|_| judge.observe(at(window), &peer(i), &bad));
        }
        denied += judge.close_window(at(window), TABLE).iter().filter(|j| j.sentence == Some(Sentence::Denied)).count();
        let held = (0..TABLE).filter(|i| judge.quarantined(at(window), &peer(*i))).count();
        assert!(held <= TABLE / 5, "{held} of {TABLE}");
        most = most.max(held);
    }
    assert!(most == TABLE / 5 && denied > 0, "most {most}, denied {denied}");
    assert_eq!(judge.quarantine().counters().denied as usize, denied);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_bias_of_what_is_seen_quarantines_more_than_a_fifth(
        seed in any::<u64>(),
        table_len in 0_usize..120,
        victims in 0.0_f64..1.0,
        wildness in 0.0_f64..1.0,
    ) {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut judge = Judge::with_config(seed, JudgeConfig { trees: 10, ..JudgeConfig::default() });
        let mut table_len = table_len;
        for window in 0..30 {
            for i in 0..table_len {
                judge.observe(at(window), &peer(i), &good(&mut rng));
                if rng.random::<f64>() < victims {
                    let wild = rng.random::<f64>() < wildness;
                    judge.observe(at(window), &peer(i), &Observation {
                        rtt: Some(Duration::from_millis(rng.random_range(1..100_000))),
                        timeout: rng.random(),
                        contacts_same_16_share: Some(rng.random()),
                        closeness_gain_bits: Some(rng.random_range(-256.0..256.0)),
                        invalid_signature: wild,
                        contradiction: wild,
                        density: Some(rng.random_range(-256.0..256.0)),
                    });
                }
            }
            judge.close_window(at(window), table_len);
            // Contacts leave and come as they like, too.
            if window % 7 == 6 {
                table_len = rng.random_range(0..=table_len.max(1));
                judge.table_changed(at(window), table_len);
            }
            let held = (0..120).filter(|i| judge.quarantined(at(window), &peer(*i))).count();
            prop_assert!(held * 5 <= table_len, "{} of {}", held, table_len);
        }
    }
}
