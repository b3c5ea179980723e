// SPDX-License-Identifier: MIT OR Apache-2.0
//! Paths: where a peer may be reached, how both ends try that at once, and which path is used.
//!
//! ```text
//!  session by a relay -> both tell their candidates over it -> both send checks to all of them, again and again
//!  -> a check is answered -> the end with the lower PeerID uses that address and says so by a nominating probe
//!  -> it dials a link there too -> the relay is no longer needed
//! ```
//! Checks are probes of the session, sealed like every packet: whoever is asked to send them to an address learns nothing,
//! and nobody but the peer can answer one. A check opens the NAT before us and waits for the peer's to open the other.

mod guess;
mod ids;
mod machine;
mod moves;
mod mtu;
mod portmap;
mod quality;
mod reflexive;
mod sift;
mod why;

pub(crate) use guess::{SOCKETS as GUESS_SOCKETS, SOCKETS_LAST as GUESS_SOCKETS_LAST};
pub(crate) use machine::{Action, Paths, Told, is_relayed};
pub(crate) use moves::Moves;
pub(crate) use mtu::{FIRST_SIZE, Mtu};
pub(crate) use portmap::{Mapped, Portmap, Setup as PortmapSetup};
pub(crate) use quality::Quality;
pub(crate) use reflexive::Reflexive;
pub(crate) use sift::{is_place, sift};
pub(crate) use why::Relayed;
