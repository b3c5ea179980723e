// SPDX-License-Identifier: MIT OR Apache-2.0
//! What datagrams leave by: the sockets, and the ways over them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::{ArcSwap, Guard};

use crate::{
    narrow::Narrow,
    udp::{Sockets, extra::SocketId},
    way::{By, WayId, Ways},
};

/// The sockets and the newest snapshot of the ways.
pub(crate) struct Underlay {
    pub(crate) sockets: Sockets,
    ways: ArcSwap<Ways>,
    /// Own addresses that nothing is sent from only because a peer spoke to them.
    stale: ArcSwap<Vec<IpAddr>>,
    pub(crate) narrow: Narrow,
}

impl Underlay {
    pub(crate) fn new(sockets: Sockets) -> Self {
        Self { sockets, ways: ArcSwap::default(), stale: ArcSwap::default(), narrow: Narrow::default() }
    }

    pub(crate) fn ways(&self) -> Guard<Arc<Ways>> {
        self.ways.load()
    }

    pub(crate) fn publish(&self, ways: Arc<Ways>) {
        self.ways.store(ways);
    }

    pub(crate) fn set_stale(&self, sources: Vec<IpAddr>) {
        self.stale.store(Arc::new(sources));
    }

    /// The source of what goes to somebody who spoke to `local`; `None`: the kernel chooses.
    pub(crate) fn source(&self, local: Option<IpAddr>) -> Option<IpAddr> {
        local.filter(|local| !self.stale.load().contains(local))
    }

    /// Sends one datagram to an address or a way, or says why not. A source address that the system refuses is left to
    /// its choice.
    pub(crate) fn send_one(&self, remote: SocketAddr, src: Option<IpAddr>, datagram: &[u8]) -> io::Result<()> {
        let ways = self.ways.load();
        let exit = ways.exit(remote).ok_or(io::ErrorKind::NotConnected)?;
        let Some(channel) = exit.channel else {
            return self.send_by(exit.by, src, datagram);
        };
        self.send_by(exit.by, None, &[&channel.header()[..], datagram].concat())
    }

    /// Sends one datagram by a socket that was added later.
    pub(crate) fn send_from(&self, socket: SocketId, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.sockets.extra.get(socket).ok_or(io::ErrorKind::NotConnected)?.send_one(to, None, datagram)
    }

    /// Sends one datagram that lives no longer than `hops` say, by an added socket or by the one that datagrams to the
    /// address leave by. Over a way that makes no sense and is refused.
    pub(crate) fn send_opener(
        &self,
        socket: Option<SocketId>,
        to: SocketAddr,
        datagram: &[u8],
        hops: u8,
    ) -> io::Result<()> {
        if WayId::of(to).is_some() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match socket {
            Some(socket) => {
                let socket = self.sockets.extra.get(socket).ok_or(io::ErrorKind::NotConnected)?;
                socket.send_within(to, None, datagram, Some(hops))
            }
            None => self.sockets.choose(to, 0)?.send_within(to, None, datagram, Some(hops)),
        }
    }

    fn send_by(&self, by: By<'_>, src: Option<IpAddr>, datagram: &[u8]) -> io::Result<()> {
        match by {
            By::Udp(to) => self.sockets.choose(to, 0)?.send_one(to, self.source(src), datagram),
            By::Carrier(carrier) if carrier.send(datagram) => Ok(()),
            By::Carrier(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
