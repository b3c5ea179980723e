// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a router does, found out from both sides of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::NatError;
use crate::topology::Host;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a packet that comes for sure one before it may still be on its way.
const STRAGGLER: Duration = Duration::from_millis(100);

/// On what something depends beside the inside socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependence {
    /// On nothing.
    Endpoint,
    /// On the other's address.
    Address,
    /// On the other's address and port.
    AddressAndPort,
}

impl Dependence {
    /// RFC 4787's abbreviation of a mapping.
    #[must_use]
    pub const fn mapping(self) -> &'static str {
        match self {
            Self::Endpoint => "EIM",
            Self::Address => "ADM",
            Self::AddressAndPort => "APDM",
        }
    }

    /// RFC 4787's abbreviation of a filter.
    #[must_use]
    pub const fn filtering(self) -> &'static str {
        match self {
            Self::Endpoint => "EIF",
            Self::Address => "ADF",
            Self::AddressAndPort => "APDF",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// On what the outside port depends.
    pub mapping: Dependence,
    /// On what it depends whether a packet comes in.
    pub filtering: Dependence,
    /// Whether the outside port is the inside one.
    pub keeps_port: bool,
    /// The outside port of the first flow.
    pub port: u16,
}

/// Binds a socket of a host, with patience.
pub(super) fn bind(host: &Host, address: Ipv4Addr, port: u16) -> Result<UdpSocket, NatError> {
    let socket = host.namespace.run(move || UdpSocket::bind((address, port)))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends from an inside socket to a server and gives where the server saw it come from; the answer comes back.
pub(super) fn observe(inside: &UdpSocket, server: &UdpSocket) -> Result<SocketAddr, NatError> {
    let silent = |_: io::Error| NatError::Silent("a packet to the outside");
    inside.send_to(b"seen?", server.local_addr()?)?;
    let mut buffer = [0; 16];
    let (_, seen) = server.recv_from(&mut buffer).map_err(silent)?;
    server.send_to(b"seen!", seen)?;
    // Not every packet that arrives is this answer.
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let (_, from) = inside.recv_from(&mut buffer).map_err(|_| NatError::Silent("an answer from the outside"))?;
        if from == server.local_addr()? {
            return Ok(seen);
        }
    }
    Err(NatError::Silent("an answer from the outside"))
}

/// Classifies the way from an inside host to the outside, with two outside hosts.
///
/// # Errors
/// [`NatError`] when not even a plain round trip works.
pub fn measure(inside: &Host, one: &Host, two: &Host) -> Result<Behaviour, NatError> {
    let servers = [bind(one, one.ipv4, 0)?, bind(one, one.ipv4, 0)?, bind(two, two.ipv4, 0)?];
    let socket = bind(inside, inside.ipv4, 0)?;
    let mut seen = Vec::new();
    for server in &servers {
        seen.push(observe(&socket, server)?);
    }
    let mapping = match (seen[0] == seen[1], seen[0] == seen[2]) {
        (true, true) => Dependence::Endpoint,
        (true, false) => Dependence::Address,
        (false, _) => Dependence::AddressAndPort,
    };
    let keeps_port = seen[0].port() == socket.local_addr()?.port();
    let filtering = filtering(inside, &servers)?;
    Ok(Behaviour { mapping, filtering, keeps_port, port: seen[0].port() })
}

/// From whom a packet reaches a fresh socket that has sent to the first server only.
fn filtering(inside: &Host, servers: &[UdpSocket; 3]) -> Result<Dependence, NatError> {
    let [friend, neighbour, stranger] = servers;
    let socket = bind(inside, inside.ipv4, 0)?;
    let seen = observe(&socket, friend)?;
    if comes_in(&socket, stranger, friend, seen)? {
        return Ok(Dependence::Endpoint);
    }
    Ok(if comes_in(&socket, neighbour, friend, seen)? { Dependence::Address } else { Dependence::AddressAndPort })
}

/// Whether a packet from `sender` to `seen` reaches the socket; one from `friend` does for sure.
fn comes_in(socket: &UdpSocket, sender: &UdpSocket, friend: &UdpSocket, seen: SocketAddr) -> Result<bool, NatError> {
    sender.send_to(b"hello", seen)?;
    friend.send_to(b"hello", seen)?;
    let mut buffer = [0; 16];
    let mut friend_came = false;
    loop {
        socket.set_read_timeout(Some(if friend_came { STRAGGLER } else { PATIENCE }))?;
        match socket.recv_from(&mut buffer) {
            Ok((_, from)) if from == sender.local_addr()? => return Ok(true),
            Ok((_, from)) => friend_came |= from == friend.local_addr()?,
            Err(error) if friend_came && is_timeout(&error) => return Ok(false),
            Err(error) if is_timeout(&error) => return Err(NatError::Silent("a packet from a known socket")),
            // A refusal is told by ICMP and changes nothing.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A stranger sends to a socket's outside port before the socket sends to the stranger. Gives the outside ports that a
/// server that was there before, the stranger, and one that comes after see.
///
/// # Errors
/// [`NatError`].
pub fn poison(inside: &Host, one: &Host, two: &Host) -> Result<[u16; 3], NatError> {
    let (before, stranger, after) = (bind(one, one.ipv4, 0)?, bind(two, two.ipv4, 0)?, bind(two, two.ipv4, 0)?);
    let socket = bind(inside, inside.ipv4, 0)?;
    let first = observe(&socket, &before)?;
    stranger.send_to(b"too early", first)?;
    // Through the same router and after it: what the stranger sent has been dealt with.
    before.send_to(b"marker", first)?;
    let mut buffer = [0; 16];
    while socket.recv_from(&mut buffer).map_err(|_| NatError::Silent("a packet from a known socket"))?.1
        != before.local_addr()?
    {}
    Ok([first.port(), observe(&socket, &stranger)?.port(), observe(&socket, &after)?.port()])
}

/// Whether two hosts of one LAN reach each other at the outside address of one of them.
///
/// # Errors
/// [`NatError`].
pub fn hairpins(from: &Host, to: &Host, server: &Host) -> Result<bool, NatError> {
    let (server, target, sender) = (bind(server, server.ipv4, 0)?, bind(to, to.ipv4, 0)?, bind(from, from.ipv4, 0)?);
    let outside = observe(&target, &server)?;
    let own = observe(&sender, &server)?;
    sender.send_to(b"neighbour", outside)?;
    target.set_read_timeout(Some(STRAGGLER * 5))?;
    let mut buffer = [0; 16];
    match target.recv_from(&mut buffer) {
        // It has to look as if it came from outside, or the answer takes another way.
        Ok((9, from)) if from == own => {}
        Ok(_) => return Ok(false),
        Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::ConnectionRefused => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    target.send_to(b"indeed", own)?;
    sender.set_read_timeout(Some(STRAGGLER * 5))?;
    Ok(sender.recv_from(&mut buffer).is_ok_and(|(_, from)| from == outside))
}
