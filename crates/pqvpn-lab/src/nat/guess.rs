// SPDX-License-Identifier: MIT OR Apache-2.0
//! Port guessing: how often it finds a way into a symmetric NAT, by plain sockets, to know what a product can reach.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use rand::Rng;
use rand::seq::index;

use super::NatError;
use super::measure::{bind, observe};
use crate::topology::Host;

/// The lowest port `masquerade random` gives to a socket above the privileged ones.
const LOWEST: u16 = 1024;
/// Probes sent without a pause, so that no queue on the way overflows.
const BURST: usize = 64;
/// How long the last probe may take.
const LAST: Duration = Duration::from_millis(200);

/// Both sides of an attempt.
#[derive(Debug)]
pub struct Guess<'a> {
    /// The host behind the symmetric NAT.
    pub hard: &'a Host,
    /// The host behind the other.
    pub easy: &'a Host,
    /// Tells both where the easy one is seen.
    pub server: &'a Host,
    /// Sockets that the hard side opens.
    pub sockets: usize,
    /// Ports that the easy side tries.
    pub probes: usize,
}

/// Tries once: the hard side opens its sockets towards the easy one's outside address, which then tries random ports.
/// Whether a probe came in.
///
/// # Errors
/// [`NatError`].
pub fn guess(attempt: &Guess<'_>, rng: &mut impl Rng) -> Result<bool, NatError> {
    let server = bind(attempt.server, attempt.server.ipv4, 0)?;
    let easy = bind(attempt.easy, attempt.easy.ipv4, 0)?;
    let target = observe(&easy, &server)?;
    let mut openings = Vec::new();
    for _ in 0..attempt.sockets {
        let socket = bind(attempt.hard, attempt.hard.ipv4, 0)?;
        send(&socket, target)?;
        socket.set_nonblocking(true)?;
        openings.push(socket);
    }
    let hard_outside = observe(&bind(attempt.hard, attempt.hard.ipv4, 0)?, &server)?.ip();
    let range = usize::from(u16::MAX - LOWEST) + 1;
    let ports = index::sample(rng, range, attempt.probes.min(range)).into_vec();
    for burst in ports.chunks(BURST) {
        for offset in burst {
            let port = LOWEST + u16::try_from(*offset).unwrap_or(u16::MAX - LOWEST);
            send(&easy, SocketAddr::new(hard_outside, port))?;
        }
        thread::yield_now();
    }
    thread::sleep(LAST);
    let mut buffer = [0; 16];
    Ok(openings.iter().any(|socket| socket.recv_from(&mut buffer).is_ok()))
}

/// Refusals of earlier packets are told at later ones and change nothing.
fn send(socket: &UdpSocket, target: SocketAddr) -> Result<(), NatError> {
    match socket.send_to(b"probe", target) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error.into()),
    }
}
