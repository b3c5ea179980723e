// SPDX-License-Identifier: MIT OR Apache-2.0
//! Damages messages, the same way in every run.

/// xorshift64*: the same mutations in every run.
pub(crate) struct Dice(u64);

impl Dice {
    /// A die of its own for each number.
    pub(crate) const fn new(number: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (number << 32 | 1))
    }

    /// 0 to `sides` - 1.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
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

    /// Damages bytes in one way.
    pub(crate) fn mutate(&mut self, data: &mut Vec<u8>) {
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
