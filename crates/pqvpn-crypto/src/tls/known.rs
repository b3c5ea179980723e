// SPDX-License-Identifier: MIT OR Apache-2.0
//! Known-key compression: a peer whose key we hold sends its hash instead of 2.6 kB (link.md 3.2).
//!
//! RFC 8879 certificate compression with a private algorithm whose compressed form is SHA-256 of the Certificate
//! message. The server always offers to compress; a client offers to decompress only in dials where it holds the key.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustls::CertificateCompressionAlgorithm;
use rustls::compress::{CertCompressor, CertDecompressor, CompressionFailed, CompressionLevel, DecompressionFailed};
use sha2::{Digest, Sha256};

use crate::identity::PublicIdentity;

/// Private code point of the algorithm (RFC 8879 §7.3: 16384-65535 are for private use).
pub const ALGORITHM_CODE: u16 = 0x4057;

/// Keys held for dials under way; a dial beyond this many goes without compression. About 11 MB.
pub const TABLE_LIMIT: usize = 4096;

/// The compressor of every server configuration.
pub static COMPRESSOR: HashCompressor = HashCompressor;

/// The decompressor of client configurations that hold a [`KnownKey`].
pub static DECOMPRESSOR: HashDecompressor = HashDecompressor;

/// rustls takes decompressors as `&'static`, so the keys have to live in a global table.
static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

type MessageHash = [u8; 32];

/// Certificate messages by their hash, each with the number of its [`KnownKey`]s.
#[derive(Debug, Default)]
struct Table(HashMap<MessageHash, (usize, Arc<[u8]>)>);

impl Table {
    fn enter(&mut self, hash: MessageHash, message: &[u8]) -> bool {
        if let Some((holders, _)) = self.0.get_mut(&hash) {
            *holders += 1;
            return true;
        }
        let room = self.0.len() < TABLE_LIMIT;
        if room {
            self.0.insert(hash, (1, Arc::from(message)));
        }
        room
    }

    fn leave(&mut self, hash: &MessageHash) {
        let Some((holders, _)) = self.0.get_mut(hash) else { return };
        *holders -= 1;
        if *holders == 0 {
            self.0.remove(hash);
        }
    }

    fn get(&self, hash: &MessageHash) -> Option<Arc<[u8]>> {
        self.0.get(hash).map(|(_, message)| Arc::clone(message))
    }
}

/// An entry of the table; dropping the last one for a key takes the key out.
#[derive(Debug)]
pub struct KnownKey(MessageHash);

impl KnownKey {
    /// Enters a peer's key; `None` when the table is full.
    pub fn enter(key: &PublicIdentity) -> Option<Self> {
        let message = certificate_message(key);
        let hash = Sha256::digest(&message).into();
        table().enter(hash, &message).then_some(Self(hash))
    }
}

impl Drop for KnownKey {
    fn drop(&mut self) {
        table().leave(&self.0);
    }
}

/// Replaces a Certificate message by its SHA-256.
#[derive(Debug)]
pub struct HashCompressor;

impl CertCompressor for HashCompressor {
    fn compress(&self, input: Vec<u8>, _level: CompressionLevel) -> Result<Vec<u8>, CompressionFailed> {
        Ok(Sha256::digest(input).to_vec())
    }

    fn algorithm(&self) -> CertificateCompressionAlgorithm {
        CertificateCompressionAlgorithm::Unknown(ALGORITHM_CODE)
    }
}

/// Finds the Certificate message of a hash.
#[derive(Debug)]
pub struct HashDecompressor;

impl CertDecompressor for HashDecompressor {
    fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), DecompressionFailed> {
        let hash = MessageHash::try_from(input).map_err(|_| DecompressionFailed)?;
        let message = table().get(&hash).ok_or(DecompressionFailed)?;
        if message.len() != output.len() {
            return Err(DecompressionFailed);
        }
        output.copy_from_slice(&message);
        Ok(())
    }

    fn algorithm(&self) -> CertificateCompressionAlgorithm {
        CertificateCompressionAlgorithm::Unknown(ALGORITHM_CODE)
    }
}

/// Writes a server's Certificate message body (RFC 8446 §4.4.2): empty context, one entry, no extensions.
fn certificate_message(key: &PublicIdentity) -> Vec<u8> {
    let spki = key.to_spki();
    let u24 = |len: usize| [(len >> 16) as u8, (len >> 8) as u8, len as u8];
    let mut message = vec![0];
    message.extend(u24(3 + spki.len() + 2));
    message.extend(u24(spki.len()));
    message.extend(spki);
    message.extend([0, 0]);
    message
}

fn table() -> MutexGuard<'static, Table> {
    // Every critical section leaves the map whole, so a poisoned lock is as good as a clean one.
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, IdentitySeed};

    fn key(byte: u8) -> PublicIdentity {
        Identity::from_seed(&IdentitySeed::from_bytes(&[byte; 64])).unwrap().public().clone()
    }

    #[test]
    fn a_known_key_comes_back_whole_while_it_is_held() {
        let key = key(0xA1);
        let message = certificate_message(&key);
        let hash = COMPRESSOR.compress(message.clone(), CompressionLevel::Interactive).unwrap();
        let mut out = vec![0; message.len()];
        assert!(DECOMPRESSOR.decompress(&hash, &mut out).is_err());

        let first = KnownKey::enter(&key).unwrap();
        let second = KnownKey::enter(&key).unwrap();
        DECOMPRESSOR.decompress(&hash, &mut out).unwrap();
        assert_eq!(out, message);

        drop(first);
        DECOMPRESSOR.decompress(&hash, &mut out).unwrap();
        drop(second);
        assert!(DECOMPRESSOR.decompress(&hash, &mut out).is_err());
        assert!(table().get(hash.as_slice().try_into().unwrap()).is_none());
    }

    #[test]
    fn wrong_lengths_and_foreign_hashes_are_refused() {
        let key = key(0xA2);
        let _held = KnownKey::enter(&key).unwrap();
        let hash: [u8; 32] = Sha256::digest(certificate_message(&key)).into();
        let len = certificate_message(&key).len();
        assert!(DECOMPRESSOR.decompress(&hash, &mut vec![0; len - 1]).is_err());
        assert!(DECOMPRESSOR.decompress(&hash, &mut vec![0; len + 1]).is_err());
        assert!(DECOMPRESSOR.decompress(&hash[..31], &mut vec![0; len]).is_err());
        assert!(DECOMPRESSOR.decompress(&[0; 32], &mut vec![0; len]).is_err());
    }
    #[test]
    fn a_full_table_takes_no_new_key_until_one_leaves() {
        let mut table = Table::default();
        let hash = |n: usize| -> MessageHash { Sha256::digest(n.to_be_bytes()).into() };
        for n in 0..TABLE_LIMIT {
            assert!(table.enter(hash(n), b"message"));
        }
        assert!(!table.enter(hash(TABLE_LIMIT), b"message"));
        assert!(table.enter(hash(0), b"message"), "a key that is in may be entered again");
        table.leave(&hash(0));
        assert!(!table.enter(hash(TABLE_LIMIT), b"message"));
        table.leave(&hash(0));
        assert!(table.enter(hash(TABLE_LIMIT), b"message"));
        table.leave(&hash(TABLE_LIMIT + 1));
        assert_eq!(table.0.len(), TABLE_LIMIT);
    }
}
