// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hole punching by plain sockets, to know which pairs of routers let two hosts meet.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::NatError;
use super::measure::{bind, is_timeout, observe};
use crate::topology::Host;

/// How often both send.
const ROUNDS: usize = 8;
/// How long each listens in a round.
const LISTEN: Duration = Duration::from_millis(50);
/// What an ordinary packet has.
const TTL: u32 = 64;

/// Two hosts that want to meet.
#[derive(Debug)]
pub struct Punch<'a> {
    /// The one that sends first, and the other.
    pub ends: [&'a Host; 2],
    /// Tells both where they are seen.
    pub server: &'a Host,
    /// How many hops the very first packet of each lives. One that gets past its own routers and no further opens
    /// the way without disturbing the other's; without it, the first packet goes all the way and may come too early.
    pub opener: Option<[u32; 2]>,
}

/// Tries once; whether each heard the other.
///
/// # Errors
/// [`NatError`].
pub fn punch(attempt: &Punch<'_>) -> Result<bool, NatError> {
    let server = bind(attempt.server, attempt.server.ipv4, 0)?;
    let sockets = [bind(attempt.ends[0], attempt.ends[0].ipv4, 0)?, bind(attempt.ends[1], attempt.ends[1].ipv4, 0)?];
    let mut targets = [observe(&sockets[1], &server)?, observe(&sockets[0], &server)?];
    if let Some(hops) = attempt.opener {
        for ((socket, target), hops) in sockets.iter().zip(targets).zip(hops) {
            socket.set_ttl(hops)?;
            socket.send_to(b"open", target)?;
            socket.set_ttl(TTL)?;
        }
    }
    let mut heard = [false; 2];
    for _ in 0..ROUNDS {
        for (socket, target) in sockets.iter().zip(targets) {
            socket.send_to(b"punch", target)?;
        }
        for (index, socket) in sockets.iter().enumerate() {
            if let Some(from) = listen(socket, &server)? {
                heard[index] = true;
                // Where the other really is, which its router may have changed.
                targets[index] = from;
            }
        }
        if heard == [true; 2] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The newest sender that is not the server.
fn listen(socket: &UdpSocket, server: &UdpSocket) -> Result<Option<SocketAddr>, NatError> {
    let mut buffer = [0; 16];
    socket.set_read_timeout(Some(LISTEN))?;
    match socket.recv_from(&mut buffer) {
        Ok((_, from)) if from == server.local_addr()? => Ok(None),
        Ok((_, from)) => Ok(Some(from)),
        Err(error) if is_timeout(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
