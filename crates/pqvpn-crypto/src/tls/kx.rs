// SPDX-License-Identifier: MIT OR Apache-2.0
//! X25519MLKEM1024, the only key exchange of a link (link.md 1).
//!
//! Client share: ML-KEM-1024 encapsulation key (1568) || X25519 point (32). Server share: ML-KEM-1024 ciphertext (1568)
//! || X25519 point (32). Secret: ML-KEM secret (32) || X25519 secret (32), ML-KEM first as in X25519MLKEM768.

use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_1024};
use rustls::crypto::aws_lc_rs::kx_group::X25519;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use zeroize::Zeroizing;

/// Private code point of X25519MLKEM1024 (RFC 8446 §4.2.7: ecdhe_private_use).
pub const GROUP_CODE: u16 = 0xFE11;

/// Length of an ML-KEM-1024 encapsulation key and of a ciphertext (FIPS 203 table 3).
const MLKEM_LEN: usize = 1568;
const X25519_LEN: usize = 32;

/// Length of either side's key share in bytes.
pub const SHARE_LEN: usize = MLKEM_LEN + X25519_LEN;

/// The group as rustls takes it.
///
/// `hybrid_component` stays unimplemented, so a bare X25519 share is never offered.
#[derive(Debug, Clone, Copy)]
pub struct X25519MlKem1024;

impl SupportedKxGroup for X25519MlKem1024 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let x25519 = X25519.start()?;
        let mlkem = DecapsulationKey::generate(&ML_KEM_1024).map_err(|_| Error::FailedToGetRandomBytes)?;
        let public = mlkem.encapsulation_key().and_then(|key| key.key_bytes()).map_err(|_| library_failed())?;
        let share = [public.as_ref(), x25519.pub_key()].concat();
        Ok(Box::new(Started { x25519, mlkem, share }))
    }

    fn start_and_complete(&self, peer_share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (peer_mlkem, peer_x25519) = split(peer_share)?;
        // FIPS 203 §7.2: the library checks length and modulus in these two calls, before anything is derived.
        let key = EncapsulationKey::new(&ML_KEM_1024, peer_mlkem).map_err(|_| invalid_share())?;
        let (ciphertext, mlkem_secret) = key.encapsulate().map_err(|_| invalid_share())?;
        let x25519 = X25519.start_and_complete(peer_x25519)?;
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [ciphertext.as_ref(), x25519.pub_key.as_slice()].concat(),
            secret: combine(mlkem_secret.as_ref(), x25519.secret.secret_bytes())?,
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::Unknown(GROUP_CODE)
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

struct Started {
    x25519: Box<dyn ActiveKeyExchange>,
    mlkem: DecapsulationKey,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, peer_share: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, peer_x25519) = split(peer_share)?;
        let mlkem_secret = self.mlkem.decapsulate(Ciphertext::from(ciphertext)).map_err(|_| invalid_share())?;
        let x25519_secret = self.x25519.complete(peer_x25519)?;
        combine(mlkem_secret.as_ref(), x25519_secret.secret_bytes())
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::Unknown(GROUP_CODE)
    }
}

fn split(share: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    if share.len() != SHARE_LEN {
        return Err(invalid_share());
    }
    Ok(share.split_at(MLKEM_LEN))
}

fn combine(mlkem: &[u8], x25519: &[u8]) -> Result<SharedSecret, Error> {
    let mut both = Zeroizing::new([0; 64]);
    let (first, second) = both.split_at_mut(32);
    if mlkem.len() != first.len() || x25519.len() != second.len() {
        return Err(library_failed());
    }
    first.copy_from_slice(mlkem);
    second.copy_from_slice(x25519);
    Ok(SharedSecret::from(both.as_slice()))
}

fn invalid_share() -> Error {
    PeerMisbehaved::InvalidKeyShare.into()
}

fn library_failed() -> Error {
    Error::General("key exchange failed in the cryptographic library".into())
}

#[cfg(test)]
mod tests;
