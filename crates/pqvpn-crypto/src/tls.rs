// SPDX-License-Identifier: MIT OR Apache-2.0
//! The TLS 1.3 profile of a link: one key exchange, one suite, one signature scheme, raw public keys both ways.
//!
//! Nothing here is negotiable, so nothing can be negotiated down: a peer that lacks any part is refused with a
//! [`Refusal`]. Resumption, tickets and 0-RTT are off because a resumed handshake would skip admission (link.md 3.5).

pub mod config;
pub mod known;
pub mod kx;
pub mod own_links;
pub mod refusal;
pub mod signer;
pub mod suite;
pub mod verifier;

pub use config::{ALPN, LinkCrypto};
pub use own_links::OwnLinks;
pub use refusal::{Refusal, RefusalCounts};
pub use verifier::{Admission, NOBODY, Side, peer_from_certs};
