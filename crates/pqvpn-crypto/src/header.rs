// SPDX-License-Identifier: MIT OR Apache-2.0
//! Header protection: the mask that hides kind, epoch, phase and counter of a packet (security.md 1.5).

use chacha20::cipher::StreamCipherCore;
use chacha20::variants::Ietf;
use chacha20::{ChaChaCore, KeyIvInit, R20};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Length of the ciphertext sample in bytes.
pub const SAMPLE_LEN: usize = 16;
/// Length of the mask in bytes.
pub const MASK_LEN: usize = 12;

/// The header protection key of one direction (`HP[d]`); it lives as long as the session.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct HeaderKey {
    key: [u8; 32],
    #[cfg(feature = "no-encryption")]
    none: bool,
}

impl HeaderKey {
    /// Takes 32 derived bytes.
    pub(crate) const fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            #[cfg(feature = "no-encryption")]
            none: false,
        }
    }

    /// From here on it hides nothing, as [`EpochChain::without_encryption`](crate::ratchet::EpochChain::without_encryption).
    #[cfg(feature = "no-encryption")]
    #[must_use]
    pub const fn without_encryption(mut self) -> Self {
        self.none = true;
        self
    }

    /// The mask for a packet whose first 16 ciphertext bytes are `sample`.
    ///
    /// RFC 9001 §5.4.4: block counter = `sample[0..4]` little endian, nonce = `sample[4..16]`; the first 12 bytes of
    /// the block are the mask. The core is driven directly because the stream wrapper refuses the last block counter,
    /// which any sender of garbage can choose.
    #[must_use]
    pub fn mask(&self, sample: &[u8; SAMPLE_LEN]) -> [u8; MASK_LEN] {
        #[cfg(feature = "no-encryption")]
        if self.none {
            return [0; MASK_LEN];
        }
        let [c0, c1, c2, c3, nonce @ ..] = sample;
        let mut core = ChaChaCore::<R20, Ietf>::new((&self.key).into(), nonce.into());
        core.set_block_pos(u32::from_le_bytes([*c0, *c1, *c2, *c3]));
        let mut block = Default::default();
        core.write_keystream_block(&mut block);
        let mut mask = [0; MASK_LEN];
        mask.copy_from_slice(&block[..MASK_LEN]);
        mask
    }
}

impl std::fmt::Debug for HeaderKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeaderKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_equals_rfc_9001_appendix_a5() {
        let key: [u8; 32] = data_encoding::HEXLOWER
            .decode(b"25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4")
            .unwrap()
            .try_into()
            .unwrap();
        let sample = 0x5e5c_d55c_41f6_9080_575d_7999_c25a_5bfb_u128.to_be_bytes();
        assert_eq!(HeaderKey::new(key).mask(&sample)[..5], [0xae, 0xfe, 0xfe, 0x7d, 0x03]);
    }

    #[test]
    fn the_last_block_counter_gives_a_mask_too() {
        let mut sample = [7; SAMPLE_LEN];
        sample[..4].fill(0xff);
        assert_ne!(HeaderKey::new([1; 32]).mask(&sample), [0; MASK_LEN]);
    }
}
