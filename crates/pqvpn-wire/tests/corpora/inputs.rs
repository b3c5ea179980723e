// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fuzz corpus on disk, and what is done with valid inputs of every codec.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{check::run, dice::Dice};

/// Inputs of targets: the target's name, the bytes.
pub(crate) type Inputs = Vec<(&'static str, Vec<u8>)>;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// Everything kept for a target: path and bytes.
pub(crate) fn seeds_of(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut seeds: Vec<_> = fs::read_dir(folder(target))
        .expect("every target has a corpus")
        .map(|entry| entry.expect("the folder can be read").path())
        .map(|path| (path.display().to_string(), fs::read(&path).expect("the seed can be read")))
        .collect();
    seeds.sort();
    seeds
}

/// For a new target, and after a change of the format (then empty its corpus): run the tests once with `PQVPN_WRITE_SEEDS=1`.
pub(crate) fn write_if_asked(valid_seeds: impl FnOnce() -> Inputs) {
    if env::var_os("PQVPN_WRITE_SEEDS").is_none() {
        return;
    }
    let mut seeds = valid_seeds();
    seeds.retain(|(target, _)| {
        fs::read_dir(folder(target)).is_ok_and(|mut files| files.next().is_none()) || !folder(target).exists()
    });
    for (target, bytes) in seeds {
        fs::create_dir_all(folder(target)).unwrap();
        let number = (1..).find(|number| !folder(target).join(format!("valid-{number}")).exists()).unwrap();
        fs::write(folder(target).join(format!("valid-{number}")), bytes).unwrap();
    }
}

/// Runs every input and `rounds` damaged copies of each; says how many those were.
pub(crate) fn run_damaged(inputs: Inputs, rounds: impl Fn(&str) -> u64) -> u64 {
    let mut cases = 0;
    for (number, (target, seed)) in inputs.into_iter().enumerate() {
        let mut dice = Dice::new(u64::try_from(number).unwrap());
        run(target, &seed);
        for _ in 0..rounds(target) {
            let mut data = seed.clone();
            // Mostly one wound, near the front half of the time: that is where the structure is.
            for _ in 0..=dice.roll(3) {
                dice.mutate(&mut data);
            }
            run(target, &data);
            cases += 1;
        }
    }
    cases
}

/// Runs every prefix of each small input, and each of them with one bit changed.
pub(crate) fn run_prefixes_and_bits(inputs: Inputs) {
    for (target, seed) in inputs.into_iter().filter(|(_, seed)| seed.len() < 2000) {
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
