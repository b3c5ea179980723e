// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid values, damaged in every way: nothing panics, and what still decodes has one encoding.

use crate::{
    check::TARGETS,
    corpus::valid_seeds,
    inputs::{run_damaged, run_prefixes_and_bits},
};

/// Mutations of one seed.
const ROUNDS: u64 = 3000;
/// Mutations of a code: each one is searched for the code that was meant.
const CODE_ROUNDS: u64 = 200;

#[test]
fn damaged_values_never_panic_and_never_have_two_encodings() {
    let rounds = |target: &str| if target == "code" { CODE_ROUNDS } else { ROUNDS };
    assert!(run_damaged(valid_seeds(), rounds) >= 50_000);
}

#[test]
fn every_prefix_and_every_single_bit_of_small_values_is_tried() {
    run_prefixes_and_bits(valid_seeds().into_iter().filter(|(name, _)| *name != "code").collect());
}

#[test]
fn every_target_has_a_valid_seed() {
    let seeds = valid_seeds();
    for (target, _) in TARGETS {
        assert!(seeds.iter().any(|(name, _)| *name == target), "{target}");
    }
}
