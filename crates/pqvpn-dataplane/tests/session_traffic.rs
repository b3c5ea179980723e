// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions under traffic: honest networks that lose, delay and repeat, dishonest ones that forge, and thieves.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "test helpers stop at the first surprise and print tables"
)]

#[path = "session_traffic/forgery.rs"]
mod forgery;
#[path = "session_traffic/honest.rs"]
mod honest;
#[path = "session_traffic/peers.rs"]
mod peers;
#[path = "session_traffic/thief.rs"]
mod thief;
