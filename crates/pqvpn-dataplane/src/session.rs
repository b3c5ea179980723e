// SPDX-License-Identifier: MIT OR Apache-2.0
//! The packet keys of a session: sealing on one side, the receive algorithm on the other (security.md 1.5 to 1.7).
//!
//! Pure: no clock, no entropy, no allocation per packet. One [`TxSession`] belongs to one sending thread, one
//! [`RxSession`] to one receiving thread. A phase or epoch change costs a few key derivations, a packet only its AEAD
//! pass and one ChaCha20 block for the header.

mod keys;
mod rx;
#[cfg(test)]
mod tests;
mod tx;

use pqvpn_crypto::schedule::Direction;
use std::time::Duration;

pub use rx::{OpenError, Opened, RxSession};
pub use tx::{SealRefused, TxSession};

/// Packets after which the sender steps to the next hash phase; far below the AEAD limits of RFC 9001 §6.6.
pub const PHASE_PKTS: u64 = 1 << 20;
/// Age after which a sender that used a phase steps to the next: the grain of forward secrecy.
pub const PHASE_TIME: Duration = Duration::from_secs(15);
/// How many phases a received packet may lie ahead: bounds the work a forged packet can cause.
pub const PHASE_JUMP_MAX: u16 = 8;
/// Packets after which the sender asks for a ratchet step.
pub const EPOCH_PKTS: u64 = 1 << 28;
/// Age of an epoch at which the sender stops: without a completed step only a full handshake helps.
pub const EPOCH_HARD: Duration = pqvpn_crypto::ratchet::machine::EPOCH_HARD;
/// Failed opens after which a session is closed; below the 2^36 integrity limit of ChaCha20-Poly1305.
pub const FORGERY_LIMIT: u64 = 1 << 32;
/// Counter at which a session ends.
pub const COUNTER_MAX: u64 = 1 << 60;
/// Key derivations per second that packets more than two phases ahead may cause; as many steps to a later phase.
pub const DEEP_JUMPS_PER_SEC: u32 = 1000;
/// Bounds of the time the keys before a change are kept; the node sets 3 x PTO of the path.
pub const PREV_KEEP: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);

/// A chain that does not continue the session it was given to (caller at fault).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EpochMismatch {
    /// The chain belongs to another session.
    #[error("chain belongs to another session")]
    Session,
    /// The chain is for the other direction.
    #[error("chain is for direction {0:?}")]
    Direction(Direction),
    /// The epoch does not follow the current one.
    #[error("epoch {got} does not follow epoch {current}")]
    Epoch {
        /// The newest epoch of the session.
        current: u32,
        /// The epoch of the chain.
        got: u32,
    },
}
