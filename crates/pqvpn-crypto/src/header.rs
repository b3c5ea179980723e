// SPDX-License-Identifier: MIT OR Apache-2.0
//! Header protection: the mask that hides kind, epoch, phase and counter of a packet (security.md 1.5).

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use wide::u32x4;
use zeroize::{Zeroize, Zeroizing};

use crate::aead::AeadId;

/// Length of the ciphertext sample in bytes.
pub const SAMPLE_LEN: usize = 16;
/// Length of the mask in bytes.
pub const MASK_LEN: usize = 12;
/// Masks that are made side by side for little more than the price of one.
pub const LANES: usize = 4;

/// The first words of every state: "expand 32-byte k" (RFC 8439 §2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// Words of a state.
const WORDS: usize = 16;
/// Double rounds of ChaCha20.
const DOUBLE_ROUNDS: usize = 10;

/// The 32 derived bytes of one direction (`HP[d]`), before the session's cipher makes a [`HeaderKey`] of them.
pub struct HeaderSecret {
    bytes: Zeroizing<[u8; 32]>,
    #[cfg(feature = "no-encryption")]
    none: bool,
}

impl HeaderSecret {
    /// Takes 32 derived bytes.
    pub(crate) const fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self {
            bytes,
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
}

/// The header protection key of one direction; it lives as long as the session.
pub struct HeaderKey(Masks);

/// What makes the masks: the cipher of the session's AEAD, so that a processor's AES serves for them too.
enum Masks {
    /// The block function of ChaCha20.
    ChaCha20(Zeroizing<[u8; 32]>),
    /// AES-256 on single blocks, both key schedules of the library inside.
    Aes256(Box<EncryptingKey>),
    #[cfg(feature = "no-encryption")]
    None,
}

impl HeaderKey {
    /// The key of a session with this AEAD.
    #[must_use]
    pub fn new(aead: AeadId, key: HeaderSecret) -> Self {
        #[cfg(feature = "no-encryption")]
        if key.none {
            return Self(Masks::None);
        }
        match aead {
            AeadId::ChaCha20Poly1305 => Self(Masks::ChaCha20(key.bytes)),
            AeadId::Aes256Gcm => {
                let key = UnboundCipherKey::new(&AES_256, &key.bytes[..]).and_then(EncryptingKey::ecb);
                Self(Masks::Aes256(Box::new(key.expect("AES-256 takes 32-byte keys, alone too"))))
            }
        }
    }

    /// The mask for a packet whose first 16 ciphertext bytes are `sample`.
    #[must_use]
    pub fn mask(&self, sample: &[u8; SAMPLE_LEN]) -> [u8; MASK_LEN] {
        let [mask] = self.masks([sample]);
        mask
    }

    /// [`Self::mask`] of several packets.
    #[must_use]
    pub fn masks<const N: usize>(&self, samples: [&[u8; SAMPLE_LEN]; N]) -> [[u8; MASK_LEN]; N] {
        match &self.0 {
            Masks::ChaCha20(key) => chacha20_masks(key, samples),
            Masks::Aes256(key) => aes256_masks(key, samples),
            #[cfg(feature = "no-encryption")]
            Masks::None => [[0; MASK_LEN]; N],
        }
    }
}

/// RFC 9001 §5.4.3: the mask is the encrypted sample; we take 12 bytes of it.
fn aes256_masks<const N: usize>(key: &EncryptingKey, samples: [&[u8; SAMPLE_LEN]; N]) -> [[u8; MASK_LEN]; N] {
    let mut blocks = samples.map(|sample| *sample);
    let encrypted = key.less_safe_encrypt(blocks.as_flattened_mut(), EncryptionContext::None);
    // The samples themselves would hide nothing.
    assert!(encrypted.is_ok(), "whole blocks can always be encrypted");
    blocks.map(|block| block.first_chunk().copied().unwrap_or_default())
}

/// RFC 9001 §5.4.4: block counter = `sample[0..4]` little endian, nonce = `sample[4..16]`; the first 12 bytes of the block
/// are the mask.
///
/// Libraries make blocks that follow each other and these do not, so that of each call all but one are thrown away; here
/// every lane of a vector is a block of its own. Written as loops over arrays this is not turned into vectors (seen in the
/// machine code of a release), so a library's vectors it is.
fn chacha20_masks<const N: usize>(key: &[u8; 32], samples: [&[u8; SAMPLE_LEN]; N]) -> [[u8; MASK_LEN]; N] {
    let mut masks = [[0; MASK_LEN]; N];
    for (masks, samples) in masks.chunks_mut(LANES).zip(samples.chunks(LANES)) {
        let sample = |lane: usize, word: usize| {
            samples.get(lane).map_or(0, |sample| u32::from_le_bytes(sample.as_chunks().0[word]))
        };
        let mut state = [u32x4::ZERO; WORDS];
        for (word, constant) in state.iter_mut().zip(CONSTANTS) {
            *word = u32x4::splat(constant);
        }
        for (word, key) in state[4..12].iter_mut().zip(key.as_chunks().0) {
            *word = u32x4::splat(u32::from_le_bytes(*key));
        }
        for (index, word) in state[12..].iter_mut().enumerate() {
            *word = u32x4::new(std::array::from_fn(|lane| sample(lane, index)));
        }
        for _ in 0..DOUBLE_ROUNDS {
            double_round(&mut state);
        }
        let first: [[u32; LANES]; 3] = std::array::from_fn(|word| (state[word] + CONSTANTS[word]).to_array());
        for (lane, mask) in masks.iter_mut().enumerate() {
            for (bytes, word) in mask.as_chunks_mut().0.iter_mut().zip(&first) {
                *bytes = word[lane].to_le_bytes();
            }
        }
        // The rounds could be gone back from here to the key.
        state.iter_mut().for_each(|word| word.as_mut_array().zeroize());
    }
    masks
}

/// RFC 8439 §2.3, on every lane.
#[inline(always)]
fn double_round(state: &mut [u32x4; WORDS]) {
    quarter_round::<0, 4, 8, 12>(state);
    quarter_round::<1, 5, 9, 13>(state);
    quarter_round::<2, 6, 10, 14>(state);
    quarter_round::<3, 7, 11, 15>(state);
    quarter_round::<0, 5, 10, 15>(state);
    quarter_round::<1, 6, 11, 12>(state);
    quarter_round::<2, 7, 8, 13>(state);
    quarter_round::<3, 4, 9, 14>(state);
}

/// RFC 8439 §2.1.
#[inline(always)]
fn quarter_round<const A: usize, const B: usize, const C: usize, const D: usize>(state: &mut [u32x4; WORDS]) {
    mix::<A, B, D, 16>(state);
    mix::<C, D, B, 12>(state);
    mix::<A, B, D, 8>(state);
    mix::<C, D, B, 7>(state);
}

/// `a += b; d ^= a; d <<<= TURN`.
#[inline(always)]
fn mix<const A: usize, const B: usize, const D: usize, const TURN: u32>(state: &mut [u32x4; WORDS]) {
    state[A] += state[B];
    let word = state[D] ^ state[A];
    state[D] = (word << TURN) | (word >> (u32::BITS - TURN));
}

impl std::fmt::Debug for HeaderSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HeaderSecret(..)")
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

    const CHACHA: AeadId = AeadId::ChaCha20Poly1305;
    const AES: AeadId = AeadId::Aes256Gcm;

    fn key(aead: AeadId, bytes: [u8; 32]) -> HeaderKey {
        HeaderKey::new(aead, HeaderSecret::new(Zeroizing::new(bytes)))
    }

    #[test]
    fn chacha20_mask_equals_rfc_9001_appendix_a5() {
        let bytes: [u8; 32] = data_encoding::HEXLOWER
            .decode(b"25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4")
            .unwrap()
            .try_into()
            .unwrap();
        let sample = 0x5e5c_d55c_41f6_9080_575d_7999_c25a_5bfb_u128.to_be_bytes();
        assert_eq!(key(CHACHA, bytes).mask(&sample)[..5], [0xae, 0xfe, 0xfe, 0x7d, 0x03]);
    }

    #[test]
    fn aes256_mask_equals_fips_197_appendix_c3() {
        let bytes = std::array::from_fn(|i| u8::try_from(i).unwrap());
        let sample = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes();
        let block = 0x8ea2_b7ca_5167_45bf_eafc_4990_4b49_6089_u128.to_be_bytes();
        assert_eq!(key(AES, bytes).mask(&sample), block[..MASK_LEN]);
    }

    /// As the library has it; the core is driven directly because the stream wrapper refuses the last block counter.
    fn of_the_library(key: [u8; 32], sample: &[u8; SAMPLE_LEN]) -> [u8; MASK_LEN] {
        use chacha20::cipher::StreamCipherCore;
        use chacha20::{ChaChaCore, KeyIvInit, R20, variants::Ietf};
        let [c0, c1, c2, c3, nonce @ ..] = sample;
        let mut core = ChaChaCore::<R20, Ietf>::new((&key).into(), nonce.into());
        core.set_block_pos(u32::from_le_bytes([*c0, *c1, *c2, *c3]));
        let mut block = Default::default();
        core.write_keystream_block(&mut block);
        *block.first_chunk().unwrap()
    }

    proptest::proptest! {
        #[test]
        fn more_masks_than_lanes_equal_the_librarys(bytes: [u8; 32], samples: [[u8; SAMPLE_LEN]; LANES + 3]) {
            let expected = samples.each_ref().map(|sample| of_the_library(bytes, sample));
            assert_eq!(key(CHACHA, bytes).masks(samples.each_ref()), expected);
        }

        #[test]
        fn masks_equal_the_librarys(bytes: [u8; 32], samples: [[u8; SAMPLE_LEN]; LANES]) {
            let own = key(CHACHA, bytes);
            let expected = samples.each_ref().map(|sample| of_the_library(bytes, sample));
            assert_eq!(own.masks(samples.each_ref()), expected);
            assert_eq!(samples.each_ref().map(|sample| own.mask(sample)), expected);
        }

        #[test]
        fn a_mask_is_the_same_alone_and_beside_others(bytes: [u8; 32], samples: [[u8; SAMPLE_LEN]; LANES]) {
            let own = key(AES, bytes);
            assert_eq!(own.masks(samples.each_ref()), samples.each_ref().map(|sample| own.mask(sample)));
        }
    }

    #[test]
    fn the_last_block_counter_gives_a_mask_too() {
        let mut sample = [7; SAMPLE_LEN];
        sample[..4].fill(0xff);
        assert_eq!(key(CHACHA, [1; 32]).mask(&sample), of_the_library([1; 32], &sample));
    }

    #[test]
    fn nothing_shows_the_key() {
        let secret = HeaderSecret::new(Zeroizing::new([7; 32]));
        assert_eq!(format!("{secret:?} {:?}", key(AES, [7; 32])), "HeaderSecret(..) HeaderKey(..)");
    }
}
