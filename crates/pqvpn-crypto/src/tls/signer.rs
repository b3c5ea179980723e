// SPDX-License-Identifier: MIT OR Apache-2.0
//! This node's raw public key and composite signature as rustls takes them.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

use crate::identity::{Identity, SignatureLabel};

/// Private code point of ML-DSA-87 with Ed25519.
///
/// RFC 8446 §4.2.3 private use. The low byte must not be 0, 1 or 2: rustls drops those as legacy algorithms.
pub const SCHEME_CODE: u16 = 0xFE57;

pub(crate) const SCHEME: SignatureScheme = SignatureScheme::Unknown(SCHEME_CODE);

/// Wraps an identity for both the client and the server side of a link.
pub fn certified_key(identity: Arc<Identity>) -> Arc<CertifiedKey> {
    let spki = identity.public().to_spki();
    let cert = vec![CertificateDer::from(spki.clone())];
    Arc::new(CertifiedKey::new(cert, Arc::new(CompositeKey { identity, spki })))
}

#[derive(Debug)]
struct CompositeKey {
    identity: Arc<Identity>,
    spki: Vec<u8>,
}

impl SigningKey for CompositeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SCHEME).then(|| Box::new(CompositeSigner(Arc::clone(&self.identity))) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.spki.as_slice()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::Unknown(SCHEME_CODE.to_be_bytes()[1])
    }
}

#[derive(Debug)]
struct CompositeSigner(Arc<Identity>);

impl Signer for CompositeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.0.sign(SignatureLabel::TlsHandshake, message);
        signature.map(|it| it.into_bytes()).map_err(|error| Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}
