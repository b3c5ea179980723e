// SPDX-License-Identifier: MIT OR Apache-2.0
//! ChaCha20-Poly1305 with SHA-384, the only cipher suite of a link.
//!
//! The standard ChaCha20 suite hashes with SHA-256: 128 bits against collisions under algorithms of category 5
//! (link.md 2.5). This one takes the hash of TLS_AES_256_GCM_SHA384 and the cipher of the standard ChaCha20 suite.

use std::sync::LazyLock;

use rustls::crypto::CipherSuiteCommon;
use rustls::crypto::aws_lc_rs::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::{CipherSuite, SupportedCipherSuite, Tls13CipherSuite, quic};

/// Private code point of the suite (RFC 8446 §11: first byte 255).
pub const SUITE_CODE: u16 = 0xFF57;

/// Name of the suite as shown to users.
pub const SUITE_NAME: &str = "CHACHA20_POLY1305_SHA384";

static SUITE: LazyLock<Tls13CipherSuite> = LazyLock::new(|| {
    let hash = tls13(&TLS13_AES_256_GCM_SHA384);
    let cipher = tls13(&TLS13_CHACHA20_POLY1305_SHA256);
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: CipherSuite::Unknown(SUITE_CODE),
            hash_provider: hash.common.hash_provider,
            confidentiality_limit: cipher.common.confidentiality_limit,
        },
        hkdf_provider: hash.hkdf_provider,
        aead_alg: cipher.aead_alg,
        quic: cipher.quic,
    }
});

/// Returns the suite as rustls takes it.
pub fn link_suite() -> SupportedCipherSuite {
    SupportedCipherSuite::Tls13(&SUITE)
}

/// Returns AES-128-GCM for QUIC Initial packets, which RFC 9001 §5.2 fixes for every suite.
pub fn initial_suite() -> quic::Suite {
    tls13(&TLS13_AES_128_GCM_SHA256).quic_suite().expect("invariant: the library's AES-128-GCM suite supports QUIC")
}

fn tls13(suite: &SupportedCipherSuite) -> &'static Tls13CipherSuite {
    suite.tls13().expect("invariant: a TLS 1.3 suite by its name")
}
