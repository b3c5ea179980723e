// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key file format: both seeds, in the clear with a checksum or under a passphrase (security.md 8).
//!
//! ```text
//! plain      "PQVPNKEY" | 1 | 0 | CBOR                                                        | SHA-256 of all before
//! encrypted  "PQVPNKEY" | 1 | 1 | m KiB u32 | t u32 | p u32 | salt 16 | nonce 24 | CBOR + tag | SHA-256 of all before
//! ```
//!
//! Numbers are big-endian. Everything before the ciphertext is its associated data. The checksum finds damage before
//! Argon2id spends its memory, and lets a wrong passphrase be told from a damaged file.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::identity::{IdentitySeed, SEED_LEN};

const MAGIC: &[u8; 8] = b"PQVPNKEY";
const VERSION: u8 = 1;
const MODE_PLAIN: u8 = 0;
const MODE_PASSPHRASE: u8 = 1;

const PREFIX_LEN: usize = MAGIC.len() + 2;
const ENCRYPTED_HEADER_LEN: usize = PREFIX_LEN + 12 + SALT_LEN + NONCE_LEN;
const TAG_LEN: usize = 16;
const CHECKSUM_LEN: usize = 32;
/// Map head, two keyed 32-byte strings (1 + 2 + 32 each), one keyed integer of 1 to 9 bytes.
const BODY_LEN: std::ops::RangeInclusive<usize> = (1 + 2 * 35 + 2)..=(1 + 2 * 35 + 10);

/// Length of the Argon2id salt in bytes.
pub const SALT_LEN: usize = 16;
/// Length of the XChaCha20-Poly1305 nonce in bytes.
pub const NONCE_LEN: usize = 24;
/// No key file is longer than this; a reader may stop there.
pub const MAX_FILE_LEN: usize = ENCRYPTED_HEADER_LEN + *BODY_LEN.end() + TAG_LEN + CHECKSUM_LEN;

/// When the key was made, in seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreatedAt(pub u64);

/// A passphrase; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(Vec<u8>);

impl Passphrase {
    /// Takes over the bytes the user typed, without the line end.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Tells whether nothing was typed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(redacted)")
    }
}

/// Cost of deriving the key from a passphrase (RFC 9106 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfParams {
    /// 256 MiB, for desktops and servers: about a second.
    pub const DESKTOP: Self = Self { memory_kib: 256 * 1024, passes: 3, lanes: 1 };
    /// 64 MiB, for small machines: 0.24 s measured.
    pub const SMALL: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

    /// What a file may ask of the machine that opens it: 1 GiB, 16 passes, 4 lanes.
    pub const LIMIT: Self = Self { memory_kib: 1024 * 1024, passes: 16, lanes: 4 };

    fn within_limit(self) -> bool {
        self.memory_kib <= Self::LIMIT.memory_kib
            && self.passes <= Self::LIMIT.passes
            && self.lanes <= Self::LIMIT.lanes
    }
}

/// Why a key file cannot be written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// Not as long as a key file of its kind.
    #[error("the key file has the wrong size ({0} bytes)")]
    Size(usize),
    /// Does not begin like a key file.
    #[error("this is not a PQVPN key file")]
    Magic,
    /// Made by another version of the program.
    #[error("key file version {0} is not known here")]
    Version(u8),
    /// Neither plain nor passphrase-encrypted.
    #[error("key file mode {0} is not known here")]
    Mode(u8),
    /// Bytes were changed since the file was written.
    #[error("the key file is damaged: its checksum is wrong")]
    Checksum,
    /// Sound checksum, but the contents are not those of a key file.
    #[error("the key file's contents are malformed")]
    Contents,
    /// The file is encrypted and no passphrase was given.
    #[error("the key file is encrypted: a passphrase is needed")]
    PassphraseNeeded,
    /// A passphrase was given for a file that has none.
    #[error("the key file is not encrypted: it has no passphrase")]
    NotEncrypted,
    /// The passphrase does not open the file.
    #[error("wrong passphrase")]
    WrongPassphrase,
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The file asks for more memory or time than any real one.
    #[error("the key file asks for absurd Argon2id costs")]
    Costs,
    /// This machine has not enough memory for the key derivation.
    #[error("not enough memory to derive the key from the passphrase")]
    Memory,
}

/// The key file format; does no IO.
#[derive(Debug)]
pub struct Keystore;

impl Keystore {
    /// Writes a key file: encrypted if a passphrase is given, else plain (then `params`, `salt` and `nonce` are unused).
    ///
    /// `salt` and `nonce` must be fresh random bytes.
    ///
    /// # Errors
    /// [`KeystoreError::Costs`] for parameters no reader would take, [`KeystoreError::EmptyPassphrase`], and
    /// [`KeystoreError::Memory`].
    pub fn seal(
        seed: &IdentitySeed,
        created: &CreatedAt,
        passphrase: Option<&Passphrase>,
        params: KdfParams,
        salt: &[u8; SALT_LEN],
        nonce: &[u8; NONCE_LEN],
    ) -> Result<Vec<u8>, KeystoreError> {
        let mut body = Zeroizing::new(encode_body(seed, *created));
        let mut file = MAGIC.to_vec();
        file.push(VERSION);
        match passphrase {
            None => {
                file.push(MODE_PLAIN);
                file.extend_from_slice(&body);
            }
            Some(passphrase) => {
                if passphrase.is_empty() {
                    return Err(KeystoreError::EmptyPassphrase);
                }
                file.push(MODE_PASSPHRASE);
                for cost in [params.memory_kib, params.passes, params.lanes] {
                    file.extend(cost.to_be_bytes());
                }
                file.extend(salt);
                file.extend(nonce);
                let tag = cipher(passphrase, params, salt)?
                    .encrypt_inout_detached(&XNonce::from(*nonce), &file, body.as_mut_slice().into())
                    .map_err(|_| KeystoreError::Contents)?;
                file.extend_from_slice(&body);
                file.extend_from_slice(&tag);
            }
        }
        let checksum = Sha256::digest(&file);
        file.extend_from_slice(&checksum);
        Ok(file)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeystoreError`]; costs beyond [`KdfParams::LIMIT`] are refused before any memory is taken.
    pub fn open(file: &[u8], passphrase: Option<&Passphrase>) -> Result<IdentitySeed, KeystoreError> {
        Self::open_with_date(file, passphrase).map(|(seed, _)| seed)
    }

    /// Reads a key file and the date it carries, to write it again with another passphrase.
    ///
    /// # Errors
    /// As [`Keystore::open`].
    pub fn open_with_date(
        file: &[u8],
        passphrase: Option<&Passphrase>,
    ) -> Result<(IdentitySeed, CreatedAt), KeystoreError> {
        let content = Content::parse(file)?;
        match (content, passphrase) {
            (Content::Plain { body }, None) => decode_body(body),
            (Content::Plain { .. }, Some(_)) => Err(KeystoreError::NotEncrypted),
            (Content::Encrypted(_), None) => Err(KeystoreError::PassphraseNeeded),
            (Content::Encrypted(sealed), Some(passphrase)) => sealed.open(passphrase),
        }
    }

    /// Tells whether a key file needs a passphrase.
    ///
    /// # Errors
    /// [`KeystoreError`] if it is no whole key file.
    pub fn is_encrypted(file: &[u8]) -> Result<bool, KeystoreError> {
        Ok(matches!(Content::parse(file)?, Content::Encrypted(_)))
    }
}

enum Content<'a> {
    Plain { body: &'a [u8] },
    Encrypted(Sealed<'a>),
}

impl<'a> Content<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, KeystoreError> {
        let size = KeystoreError::Size(file.len());
        if file.len() < PREFIX_LEN || file.len() > MAX_FILE_LEN {
            return Err(if file.starts_with(MAGIC) || file.len() < PREFIX_LEN { size } else { KeystoreError::Magic });
        }
        let rest = file.strip_prefix(MAGIC.as_slice()).ok_or(KeystoreError::Magic)?;
        let (version, mode) = (rest[0], rest[1]);
        if version != VERSION {
            return Err(KeystoreError::Version(version));
        }
        let (covered, checksum) = file.split_last_chunk::<CHECKSUM_LEN>().ok_or(size)?;
        let (header_len, tag_len) = match mode {
            MODE_PLAIN => (PREFIX_LEN, 0),
            MODE_PASSPHRASE => (ENCRYPTED_HEADER_LEN, TAG_LEN),
            other => return Err(KeystoreError::Mode(other)),
        };
        let body_len = covered.len().checked_sub(header_len + tag_len).ok_or(size)?;
        if !BODY_LEN.contains(&body_len) {
            return Err(size);
        }
        if Sha256::digest(covered).as_slice() != checksum {
            return Err(KeystoreError::Checksum);
        }
        let (header, body) = covered.split_at(header_len);
        if mode == MODE_PLAIN {
            return Ok(Self::Plain { body });
        }
        Sealed::parse(header, body).map(Self::Encrypted)
    }
}

struct Sealed<'a> {
    header: &'a [u8],
    params: KdfParams,
    salt: [u8; SALT_LEN],
    nonce: [u8; NONCE_LEN],
    ciphertext: &'a [u8],
    tag: [u8; TAG_LEN],
}

impl<'a> Sealed<'a> {
    fn parse(header: &'a [u8], body: &'a [u8]) -> Result<Self, KeystoreError> {
        let mut fields = &header[PREFIX_LEN..];
        let params = KdfParams {
            memory_kib: u32::from_be_bytes(take(&mut fields)?),
            passes: u32::from_be_bytes(take(&mut fields)?),
            lanes: u32::from_be_bytes(take(&mut fields)?),
        };
        let (ciphertext, tag) = body.split_last_chunk::<TAG_LEN>().ok_or(KeystoreError::Contents)?;
        let (salt, nonce) = (take(&mut fields)?, take(&mut fields)?);
        Ok(Self { header, params, salt, nonce, ciphertext, tag: *tag })
    }

    fn open(&self, passphrase: &Passphrase) -> Result<(IdentitySeed, CreatedAt), KeystoreError> {
        let mut body = Zeroizing::new(self.ciphertext.to_vec());
        cipher(passphrase, self.params, &self.salt)?
            .decrypt_inout_detached(
                &XNonce::from(self.nonce),
                self.header,
                body.as_mut_slice().into(),
                &Tag::from(self.tag),
            )
            .map_err(|_| KeystoreError::WrongPassphrase)?;
        decode_body(&body)
    }
}

fn cipher(
    passphrase: &Passphrase,
    params: KdfParams,
    salt: &[u8; SALT_LEN],
) -> Result<XChaCha20Poly1305, KeystoreError> {
    if !params.within_limit() {
        return Err(KeystoreError::Costs);
    }
    let costs =
        Params::new(params.memory_kib, params.passes, params.lanes, Some(32)).map_err(|_| KeystoreError::Costs)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, costs)
        .hash_password_into(&passphrase.0, salt, key.as_mut_slice())
        .map_err(|_| KeystoreError::Memory)?;
    Ok(XChaCha20Poly1305::new((&*key).into()))
}

/// Deterministic CBOR (RFC 8949 §4.2.1) of {1: Ed25519 seed, 2: ML-DSA ξ, 3: created}.
///
/// Written by hand: a general encoder would leave copies of the seeds in its buffers.
fn encode_body(seed: &IdentitySeed, created: CreatedAt) -> Vec<u8> {
    // Room for the longest body from the start, so that no seed is left behind by a reallocation.
    let mut body = Vec::with_capacity(*BODY_LEN.end() + TAG_LEN);
    let (ed25519, mldsa) = seed.expose().split_at(32);
    body.push(0xa3);
    for (key, half) in [(1, ed25519), (2, mldsa)] {
        body.extend([key, 0x58, 32]);
        body.extend_from_slice(half);
    }
    body.push(3);
    encode_uint(&mut body, created.0);
    body
}

fn decode_body(body: &[u8]) -> Result<(IdentitySeed, CreatedAt), KeystoreError> {
    let mut rest = body;
    let mut seed = Zeroizing::new([0; SEED_LEN]);
    expect(&mut rest, &[0xa3, 1, 0x58, 32])?;
    seed[..32].copy_from_slice(&take::<32>(&mut rest)?);
    expect(&mut rest, &[2, 0x58, 32])?;
    seed[32..].copy_from_slice(&take::<32>(&mut rest)?);
    expect(&mut rest, &[3])?;
    let created = decode_uint(rest)?;
    Ok((IdentitySeed::from_bytes(&seed), CreatedAt(created)))
}

fn encode_uint(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_be_bytes();
    match value {
        0..=23 => out.push(bytes[7]),
        24..=0xff => out.extend([0x18, bytes[7]]),
        0x100..=0xffff => out.extend([0x19, bytes[6], bytes[7]]),
        0x1_0000..=0xffff_ffff => {
            out.push(0x1a);
            out.extend_from_slice(&bytes[4..]);
        }
        0x1_0000_0000..=u64::MAX => {
            out.push(0x1b);
            out.extend(bytes);
        }
    }
}

/// Reads the one shortest form and nothing after it.
fn decode_uint(bytes: &[u8]) -> Result<u64, KeystoreError> {
    let (head, tail) = bytes.split_first().ok_or(KeystoreError::Contents)?;
    let value = match (*head, tail.len()) {
        (small @ 0..=23, 0) => u64::from(small),
        (0x18, 1) | (0x19, 2) | (0x1a, 4) | (0x1b, 8) => {
            tail.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
        }
        _ => return Err(KeystoreError::Contents),
    };
    let mut shortest = Vec::with_capacity(9);
    encode_uint(&mut shortest, value);
    if shortest == bytes { Ok(value) } else { Err(KeystoreError::Contents) }
}

fn expect(rest: &mut &[u8], wanted: &[u8]) -> Result<(), KeystoreError> {
    *rest = rest.strip_prefix(wanted).ok_or(KeystoreError::Contents)?;
    Ok(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], KeystoreError> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(KeystoreError::Contents)?;
    *rest = left;
    Ok(*taken)
}

#[cfg(test)]
mod tests;
