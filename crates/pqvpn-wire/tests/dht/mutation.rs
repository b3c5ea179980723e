// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid messages, damaged in every way: nothing panics, and what still decodes has one encoding.

use crate::{
    check::{TARGETS, run},
    corpus::valid_seeds,
    dice::Dice,
};

/// Mutations of one seed whose decoding is cheap.
const ROUNDS: u64 = 6000;

#[test]
fn damaged_messages_never_panic_and_never_have_two_encodings() {
    let mut cases = 0_u64;
    for (number, (target, seed)) in valid_seeds().into_iter().enumerate() {
        let mut dice = Dice::new(u64::try_from(number).unwrap());
        run(target, &seed);
        for _ in 0..ROUNDS {
            let mut data = seed.clone();
            // Mostly one wound, near the front half of the time: that is where the structure is.
            for _ in 0..=dice.roll(3) {
                dice.mutate(&mut data);
            }
            run(target, &data);
            cases += 1;
        }
    }
    println!("{cases} damaged messages");
    assert!(cases >= 100_000);
}

#[test]
fn every_prefix_and_every_single_bit_of_small_messages_is_tried() {
    for (target, seed) in valid_seeds().into_iter().filter(|(_, seed)| seed.len() < 2000) {
        for length in 0..seed.len() {
            run(target, &seed[..length]);
        }
        for bit in 0..seed.len() * 8 {
            let mut data = seed.clone();
            data[bit / 8] ^= 1 << (bit % 8);
            run(target, &data);
        }
    }
}

#[test]
fn every_target_has_a_valid_seed() {
    let seeds = valid_seeds();
    for (target, _) in TARGETS {
        assert!(seeds.iter().any(|(name, _)| *name == target), "{target}");
    }
}
