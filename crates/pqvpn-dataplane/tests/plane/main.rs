// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data plane as a whole: memory TUNs, loopback UDP, real sessions.
#![expect(clippy::unwrap_used, reason = "a failing step must fail the test")]

mod drops;
mod guest;
mod harness;
mod lifecycle;
mod packets;
mod parking;
mod paths;
mod realms;
mod rekey;
mod relaying;
mod sizes;
mod sockets;
mod traffic;
mod ways;
