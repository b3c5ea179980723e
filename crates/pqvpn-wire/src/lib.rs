// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control messages of PQVPN and their codec: a decoded message is a legal message.
//!
//! PURE: no IO, no clock, no entropy. Every frame names its version, so that a later format can be told apart.
#![forbid(unsafe_code)]

mod cbor;

pub mod carrier;
pub mod control;
pub mod dht;
pub mod frame;
pub mod network;

use thiserror::Error;

/// Why bytes are not a legal frame or message; always the sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The frame does not start with the magic.
    #[error("not a PQVPN frame")]
    Magic,
    /// The frame's version is not spoken here.
    #[error("version {0} is not spoken here")]
    Version(u8),
    /// The frame type is unknown.
    #[error("message type {0} is unknown")]
    Type(u8),
    /// The frame is longer than any legal message.
    #[error("{0} bytes are longer than any legal message")]
    TooLong(u32),
    /// The payload is not deterministic CBOR of the expected shape.
    #[error("malformed {0} message")]
    Malformed(&'static str),
}
