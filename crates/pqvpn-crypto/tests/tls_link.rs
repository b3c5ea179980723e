// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole TLS handshakes in memory: what completes, and everything that must not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tls_link/pair.rs"]
mod pair;
#[path = "tls_link/rogue.rs"]
mod rogue;

#[path = "tls_link/completes.rs"]
mod completes;
#[path = "tls_link/negotiation.rs"]
mod negotiation;
#[path = "tls_link/peers.rs"]
mod peers;
#[path = "tls_link/signatures.rs"]
mod signatures;
