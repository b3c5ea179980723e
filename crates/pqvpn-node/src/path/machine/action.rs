// SPDX-License-Identifier: MIT OR Apache-2.0
//! What [`Paths`](super::Paths) wants to be done.

use std::net::SocketAddr;

/// What the owner of the machine shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Tell the peer where we may be reached.
    Tell {
        /// The number of the try.
        round: u32,
        /// Whether that answers the peer's own candidates.
        answer: bool,
    },
    /// Send a packet there that dies on the way: it opens our own router, and does not reach the peer's too early.
    Open(SocketAddr),
    /// Send a check.
    Check {
        /// Comes back with the answer.
        id: u64,
        /// Where to.
        to: SocketAddr,
    },
    /// Send packets there from now, and say so to the peer.
    Use(SocketAddr),
    /// Make a link there: the one there is goes by a way that costs somebody else something.
    Link(SocketAddr),
    /// Open a way through a relay: the present path does not answer.
    Relay,
    /// Guess ports, if that may be now: [`Paths::guess`](super::Paths::guess) begins it.
    Guess,
    /// Open sockets, each with a packet there that dies on the way.
    OpenSockets(SocketAddr),
    /// Send a check from each of these sockets.
    CheckFromAll {
        /// Comes back with the answer.
        id: u64,
        /// Where to.
        to: SocketAddr,
    },
}
