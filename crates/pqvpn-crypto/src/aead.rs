// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packet encryption: one AEAD key of the data plane, sealed and opened in place (security.md 1.4, 1.5).

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Length of the authentication tag in bytes.
pub const TAG_LEN: usize = 16;
/// Length of the additional data, the unmasked packet header, in bytes.
pub const AAD_LEN: usize = 16;
/// Length of an AEAD key in bytes.
pub(crate) const KEY_LEN: usize = 32;

/// The AEAD of a session's data plane, negotiated per session and bound into the exporter context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AeadId {
    /// Always available; the default without hardware AES.
    ChaCha20Poly1305 = 1,
    /// Chosen when both ends have AES and carry-less multiplication in hardware.
    Aes256Gcm = 2,
}

impl AeadId {
    /// The AEAD with this wire number, `None` when there is none.
    #[must_use]
    pub const fn from_u8(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::ChaCha20Poly1305),
            2 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    /// The name shown to operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            Self::Aes256Gcm => "AES-256-GCM",
        }
    }
}

/// Whether this processor computes AES-GCM in hardware: without it AES is slower and not constant-time by itself.
#[must_use]
pub fn hardware_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let found = std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let found = std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let found = false;
    found
}

/// Why a packet was not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AeadError {
    /// The packet is not authentic under this key, counter and header (peer or network at fault).
    #[error("packet is not authentic")]
    NotAuthentic,
    /// The plaintext is longer than the AEAD may seal at once (caller at fault).
    #[error("plaintext is too long to seal")]
    TooLong,
}

/// The AEAD key of one direction, epoch and hash phase (`DK[d,e,p]`); the backend erases it on drop.
pub struct DataKey(Cipher);

enum Cipher {
    Aead(LessSafeKey),
    #[cfg(feature = "no-encryption")]
    None,
}

impl DataKey {
    /// Takes 32 derived bytes as a key of `aead`.
    pub(crate) fn new(aead: AeadId, key: &Zeroizing<[u8; KEY_LEN]>) -> Self {
        let algorithm = match aead {
            AeadId::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            AeadId::Aes256Gcm => &AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, &key[..]).expect("both algorithms take 32-byte keys");
        Self(Cipher::Aead(LessSafeKey::new(key)))
    }

    /// Neither encrypts nor authenticates: what a bench compares the AEADs with.
    #[cfg(feature = "no-encryption")]
    pub(crate) const fn none() -> Self {
        Self(Cipher::None)
    }

    /// Encrypts `text` in place and returns its tag. The caller never repeats a `counter` under one key.
    ///
    /// # Errors
    /// [`AeadError::TooLong`] for a text beyond the AEAD's own limit (many gigabytes).
    pub fn seal_in_place(
        &self,
        counter: u64,
        aad: &[u8; AAD_LEN],
        text: &mut [u8],
    ) -> Result<[u8; TAG_LEN], AeadError> {
        #[cfg_attr(
            not(feature = "no-encryption"),
            expect(clippy::infallible_destructuring_match, reason = "the bench's ceiling has a second arm")
        )]
        let key = match &self.0 {
            Cipher::Aead(key) => key,
            #[cfg(feature = "no-encryption")]
            Cipher::None => return Ok([0; TAG_LEN]),
        };
        let tag = key.seal_in_place_separate_tag(nonce(counter), Aad::from(aad), text);
        let tag = tag.map_err(|_| AeadError::TooLong)?;
        tag.as_ref().try_into().map_err(|_| AeadError::TooLong)
    }

    /// Decrypts `sealed` (ciphertext, then 16 bytes tag) in place and returns the plaintext part of it.
    /// After an error the bytes of `sealed` are unspecified.
    ///
    /// # Errors
    /// [`AeadError::NotAuthentic`], also when `sealed` is shorter than a tag.
    pub fn open_in_place<'p>(
        &self,
        counter: u64,
        aad: &[u8; AAD_LEN],
        sealed: &'p mut [u8],
    ) -> Result<&'p mut [u8], AeadError> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(AeadError::NotAuthentic)?;
        #[cfg_attr(
            not(feature = "no-encryption"),
            expect(clippy::infallible_destructuring_match, reason = "the bench's ceiling has a second arm")
        )]
        let key = match &self.0 {
            Cipher::Aead(key) => key,
            #[cfg(feature = "no-encryption")]
            Cipher::None => return Ok(text),
        };
        key.open_in_place_separate_tag(nonce(counter), Aad::from(aad), tag, text).map_err(|_| AeadError::NotAuthentic)
    }
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// `0^32 || u64 counter`, big endian (security.md 1.4).
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [AeadId; 2] = [AeadId::ChaCha20Poly1305, AeadId::Aes256Gcm];

    fn key(aead: AeadId, byte: u8) -> DataKey {
        DataKey::new(aead, &Zeroizing::new([byte; KEY_LEN]))
    }

    #[test]
    fn numbers_and_names_are_the_published_ones() {
        assert_eq!(BOTH.map(|aead| AeadId::from_u8(aead as u8)), BOTH.map(Some));
        assert_eq!([0, 3, 255].map(AeadId::from_u8), [None; 3]);
        assert_eq!(BOTH.map(AeadId::name), ["ChaCha20-Poly1305", "AES-256-GCM"]);
    }

    #[test]
    fn key_counter_header_text_and_tag_are_all_authenticated() {
        for aead in BOTH {
            let mut sealed = b"inner packet".to_vec();
            sealed.extend(key(aead, 1).seal_in_place(9, &[2; AAD_LEN], &mut sealed.clone()).unwrap());
            let mut text = sealed[..12].to_vec();
            key(aead, 1).seal_in_place(9, &[2; AAD_LEN], &mut text).unwrap();
            sealed[..12].copy_from_slice(&text);
            let open = |key: DataKey, counter, aad: [u8; AAD_LEN], sealed: &[u8]| {
                key.open_in_place(counter, &aad, &mut sealed.to_vec()).map(|text| text.to_vec())
            };
            assert_eq!(open(key(aead, 1), 9, [2; AAD_LEN], &sealed), Ok(b"inner packet".to_vec()));
            let refused = Err(AeadError::NotAuthentic);
            assert_eq!(open(key(aead, 2), 9, [2; AAD_LEN], &sealed), refused);
            assert_eq!(open(key(aead, 1), 8, [2; AAD_LEN], &sealed), refused);
            assert_eq!(open(key(aead, 1), 9, [3; AAD_LEN], &sealed), refused);
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(open(key(aead, 1), 9, [2; AAD_LEN], &changed), refused);
                assert_eq!(open(key(aead, 1), 9, [2; AAD_LEN], &sealed[..at]), refused);
            }
        }
    }
}
