// SPDX-License-Identifier: MIT OR Apache-2.0
//! The name of a peer: a hash over both of its public keys.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};

/// Separates this hash from every other use of SHA-256 over the same keys.
const DOMAIN: &[u8] = b"pqvpn-id-v1";

/// `.invalid` never resolves (RFC 6761 §6.4), so the name cannot leak into DNS by accident.
const SERVER_NAME_SUFFIX: &str = ".peer.invalid";

/// SHA-256("pqvpn-id-v1" || ML-DSA-87 public key || Ed25519 public key).
///
/// Both keys are hashed: with only one of them in the name, whoever breaks that one algorithm could pair the victim's
/// key with another key of his own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Computes the PeerID of a key pair's public halves.
    pub fn from_keys(mldsa_pk: &[u8; 2592], ed_pk: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(mldsa_pk);
        hash.update(ed_pk);
        Self(hash.finalize().into())
    }

    /// Wraps 32 bytes that already are a PeerID (from a record or a file).
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the first 8 hex digits, for logs and tables; never enough to identify a peer.
    pub fn short(&self) -> String {
        let [a, b, c, d, ..] = self.0;
        HEXLOWER.encode(&[a, b, c, d])
    }

    /// Returns the TLS server name that carries this PeerID to the verifier: 52 base32 characters and a fixed suffix.
    pub fn to_server_name(&self) -> String {
        let mut name = BASE32_NOPAD.encode(&self.0).to_ascii_lowercase();
        name.push_str(SERVER_NAME_SUFFIX);
        name
    }

    /// Reads a name made by [`PeerId::to_server_name`].
    ///
    /// # Errors
    /// [`PeerIdError::ServerName`] for anything but the one lowercase spelling.
    pub fn from_server_name(name: &str) -> Result<Self, PeerIdError> {
        let label = name.strip_suffix(SERVER_NAME_SUFFIX).ok_or(PeerIdError::ServerName)?;
        if label.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(PeerIdError::ServerName);
        }
        let bytes = BASE32_NOPAD.decode(label.to_ascii_uppercase().as_bytes()).map_err(|_| PeerIdError::ServerName)?;
        bytes.try_into().map(Self).map_err(|_| PeerIdError::ServerName)
    }
}

/// Text that is not a PeerID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIdError {
    /// Not 64 hex digits.
    #[error("a PeerID has 64 hex digits, this has {0} characters")]
    Length(usize),
    /// 64 characters, but not all lowercase hex.
    #[error("a PeerID consists of the digits 0-9 and a-f")]
    Digit,
    /// Not a server name made from a PeerID.
    #[error("not the server name of a peer")]
    ServerName,
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        if text.len() != 64 {
            return Err(PeerIdError::Length(text.chars().count()));
        }
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| PeerIdError::Digit)?;
        bytes.try_into().map(Self).map_err(|_| PeerIdError::Digit)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.short())
    }
}

impl From<[u8; 32]> for PeerId {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> PeerId {
        PeerId::from_keys(&[7; 2592], &[9; 32])
    }

    #[test]
    fn id_is_the_hash_of_domain_and_both_keys() {
        let mut all = b"pqvpn-id-v1".to_vec();
        all.extend([7; 2592]);
        all.extend([9; 32]);
        assert_eq!(sample().as_bytes().as_slice(), Sha256::digest(&all).as_slice());
        assert_ne!(sample(), PeerId::from_keys(&[7; 2592], &[8; 32]));
        assert_ne!(sample(), PeerId::from_keys(&[8; 2592], &[9; 32]));
    }

    #[test]
    fn text_round_trips_and_only_lowercase_hex_is_read() {
        let text = sample().to_string();
        assert_eq!(text.len(), 64);
        assert_eq!(text.parse(), Ok(sample()));
        assert!(text.starts_with(&sample().short()));
        assert_eq!(text.to_uppercase().parse::<PeerId>(), Err(PeerIdError::Digit));
        assert_eq!(text[..63].parse::<PeerId>(), Err(PeerIdError::Length(63)));
        assert_eq!("g".repeat(64).parse::<PeerId>(), Err(PeerIdError::Digit));
        assert_eq!("é".repeat(32).parse::<PeerId>(), Err(PeerIdError::Digit));
    }

    #[test]
    fn server_name_round_trips_in_one_spelling_only() {
        let name = sample().to_server_name();
        assert_eq!(name.len(), 52 + SERVER_NAME_SUFFIX.len());
        assert_eq!(PeerId::from_server_name(&name), Ok(sample()));
        for bad in [&name[1..], &name.to_uppercase(), &name.replace("invalid", "example"), "", ".peer.invalid"] {
            assert_eq!(PeerId::from_server_name(bad), Err(PeerIdError::ServerName), "{bad}");
        }
    }

    #[test]
    fn server_name_with_loose_trailing_bits_is_refused() {
        // 52 characters carry 260 bits: the last 4 must be zero, or one PeerID would have 16 names.
        let name = PeerId::from_bytes([0; 32]).to_server_name();
        let loose = name.replacen(&"a".repeat(52), &format!("{}b", "a".repeat(51)), 1);
        assert_eq!(PeerId::from_server_name(&loose), Err(PeerIdError::ServerName));
    }
}
