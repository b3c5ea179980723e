// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every key and algorithm of PQVPN: identity, TLS building blocks, the session key schedule and the ratchet.
//!
//! PURE: no IO and no clock; `now` is an argument. Entropy comes from the backend's own generator, and only where a
//! fresh key, nonce or signature is made.
#![forbid(unsafe_code)]

pub mod aead;
pub mod header;
pub mod identity;
pub mod kdf;
pub mod keystore;
pub mod peer_id;
pub mod pow;
pub mod proofs;
pub mod ratchet;
pub mod reset;
pub mod schedule;
pub mod tls;
