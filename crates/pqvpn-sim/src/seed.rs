// SPDX-License-Identifier: MIT OR Apache-2.0
//! One number seeds everything: each purpose draws from its own stream, so that adding one never shifts another.

use rand::{SeedableRng, rngs::SmallRng};
use sha2::{Digest, Sha256};

/// The seed of one simulated world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The `index`-th seed of the stream `purpose`, 32 bytes.
    #[must_use]
    pub fn bytes(self, purpose: &str, index: u64) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"pqvpn sim seed");
        hash.update(self.0.to_be_bytes());
        hash.update(index.to_be_bytes());
        hash.update(purpose.as_bytes());
        hash.finalize().into()
    }

    /// The generator of the stream `purpose`.
    #[must_use]
    pub fn rng(self, purpose: &str, index: u64) -> SmallRng {
        SmallRng::from_seed(self.bytes(purpose, index))
    }

    /// The `index`-th world of a series.
    #[must_use]
    pub fn child(self, index: u64) -> Self {
        let bytes = self.bytes("child", index);
        let mut first = [0; 8];
        first.copy_from_slice(&bytes[..8]);
        Self(u64::from_be_bytes(first))
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn streams_are_repeatable_and_apart() {
        let draw = |seed: u64, purpose: &str, index| Seed(seed).rng(purpose, index).random::<u64>();
        assert_eq!(draw(1, "a", 0), draw(1, "a", 0));
        let all = [draw(1, "a", 0), draw(2, "a", 0), draw(1, "b", 0), draw(1, "a", 1), Seed(1).child(0).0];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one));
        }
    }
}
