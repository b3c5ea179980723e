// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid values, damaged in every way: nothing panics, and what still decodes has one encoding.

use crate::{
    check::{TARGETS, run},
    corpus::valid_seeds,
    dice::Dice,
};

/// Mutations of one seed.
const ROUNDS: u64 = 3000;
/// Mutations of a code: each one is searched for the code that was meant.
const CODE_ROUNDS: u64 = 200;

#[test]
fn damaged_values_never_panic_and_never_have_two_encodings() {
    let mut cases = 0_u64;
    for (number, (target, seed)) in valid_seeds().into_iter().enumerate() {
        let mut dice = Dice::new(u64::try_from(number).unwrap());
        run(target, &seed);
        for _ in 0..if target == "code" { CODE_ROUNDS } else { ROUNDS } {
            let mut data = seed.clone();
            for _ in 0..=dice.roll(3) {
                dice.mutate(&mut data);
            }
            run(target, &data);
            cases += 1;
        }
    }
    println!("{cases} damaged values");
    assert!(cases >= 50_000);
}

#[test]
fn every_prefix_and_every_single_bit_of_small_values_is_tried() {
    for (target, seed) in valid_seeds().into_iter().filter(|(name, seed)| seed.len() < 2000 && *name != "code") {
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
