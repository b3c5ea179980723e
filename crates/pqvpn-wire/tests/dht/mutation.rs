// SPDX-License-Identifier: MIT OR Apache-2.0
//! Valid messages, damaged in every way: nothing panics, and what still decodes has one encoding.

use crate::{
    check::{TARGETS, run},
    corpus::valid_seeds,
};

/// Mutations of one seed whose decoding is cheap.
const ROUNDS: u64 = 6000;

/// xorshift64*: the same mutations in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % sides.max(1)
    }

    fn byte(&mut self) -> u8 {
        // Heads of CBOR items break more than other bytes do.
        const HEADS: [u8; 16] =
            [0x00, 0x17, 0x18, 0x1b, 0x20, 0x40, 0x58, 0x5f, 0x7f, 0x80, 0x81, 0x9f, 0xbf, 0xc2, 0xf6, 0xff];
        if self.roll(2) == 0 { HEADS[self.roll(16)] } else { u8::try_from(self.roll(256)).unwrap() }
    }

    fn mutate(&mut self, data: &mut Vec<u8>) {
        let at = self.roll(data.len());
        let end = (at + 1 + self.roll(64)).min(data.len());
        match self.roll(8) {
            _ if data.is_empty() => data.push(self.byte()),
            0 => data[at] ^= 1 << self.roll(8),
            1 => data[at] = self.byte(),
            2 => data.truncate(at),
            3 => {
                let extra = self.roll(40);
                data.extend((0..extra).map(|_| self.byte()).collect::<Vec<_>>());
            }
            4 => {
                let piece = data[at..end].to_vec();
                data.splice(at..at, piece);
            }
            5 => drop(data.drain(at..end)),
            6 => data.insert(at, self.byte()),
            _ => {
                let other = self.roll(data.len());
                data.swap(at, other);
            }
        }
    }
}

#[test]
fn damaged_messages_never_panic_and_never_have_two_encodings() {
    let mut cases = 0_u64;
    for (number, (target, seed)) in valid_seeds().into_iter().enumerate() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (u64::try_from(number).unwrap() << 32 | 1));
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
