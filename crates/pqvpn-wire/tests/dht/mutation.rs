// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid messages, damaged in every way: nothing panics, and what still decodes has one encoding.

use crate::{
    check::TARGETS,
    corpus::valid_seeds,
    inputs::{run_damaged, run_prefixes_and_bits},
};

/// Mutations of one seed whose decoding is cheap.
const ROUNDS: u64 = 6000;

#[test]
fn damaged_messages_never_panic_and_never_have_two_encodings() {
    assert!(run_damaged(valid_seeds(), |_| ROUNDS) >= 100_000);
}

#[test]
fn every_prefix_and_every_single_bit_of_small_messages_is_tried() {
    run_prefixes_and_bits(valid_seeds());
}

#[test]
fn every_target_has_a_valid_seed() {
    let seeds = valid_seeds();
    for (target, _) in TARGETS {
        assert!(seeds.iter().any(|(name, _)| *name == target), "{target}");
    }
}
