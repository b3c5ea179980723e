// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node knows of the links it had before it was started again: nothing, but it can say so.
//!
//! A QUIC endpoint that lost its state answers a packet of an old connection with a stateless reset, which the peer
//! believes for a token it was given when the connection began (RFC 9000 §10.3). For that the token has to be the same
//! after a restart: it is made from a key that comes from the identity, not from chance (§10.3.2).

use hkdf::Hkdf;
use sha2::Sha512;
use zeroize::Zeroizing;

use crate::identity::IdentitySeed;

/// Separates the key from everything else that is made from the seeds.
const SALT: &[u8] = b"pqvpn stateless reset v1";

/// The key of the reset tokens and of the check value in connection ids.
pub struct ResetKey {
    tokens: Zeroizing<[u8; 64]>,
    ids: u64,
}

impl ResetKey {
    pub(crate) fn of(seed: &IdentitySeed) -> Option<Self> {
        let hkdf = Hkdf::<Sha512>::new(Some(SALT), seed.expose());
        let (mut tokens, mut ids) = (Zeroizing::new([0; 64]), [0; 8]);
        hkdf.expand(b"tokens", tokens.as_mut()).ok()?;
        hkdf.expand(b"connection ids", &mut ids).ok()?;
        Some(Self { tokens, ids: u64::from_be_bytes(ids) })
    }

    /// The HMAC key of the tokens.
    #[must_use]
    pub fn tokens(&self) -> &[u8; 64] {
        &self.tokens
    }

    /// The number that connection ids of this node are recognised by. It keeps garbage out, nothing else rests on it.
    #[must_use]
    pub const fn connection_ids(&self) -> u64 {
        self.ids
    }
}

impl std::fmt::Debug for ResetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResetKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_same_after_a_restart_and_another_for_another_identity() {
        let key = |byte| ResetKey::of(&IdentitySeed::from_bytes(&[byte; 64])).unwrap();
        assert_eq!((key(1).tokens(), key(1).connection_ids()), (key(1).tokens(), key(1).connection_ids()));
        assert_ne!(key(1).tokens(), key(2).tokens());
        assert_ne!(key(1).connection_ids(), key(2).connection_ids());
        for half in 0..2 {
            // One key of the two is not enough to reset the links of who has both.
            let mut other = [1; 64];
            other[half * 32..][..32].fill(2);
            let other = ResetKey::of(&IdentitySeed::from_bytes(&other)).unwrap();
            assert_ne!(key(1).tokens(), other.tokens());
            assert_ne!(key(1).connection_ids(), other.connection_ids());
        }
        assert!(!key(1).tokens().windows(64).any(|window| window == [1; 64]), "it is not the seed itself");
    }
}
