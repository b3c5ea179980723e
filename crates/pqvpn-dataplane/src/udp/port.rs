// SPDX-License-Identifier: MIT OR Apache-2.0
//! A UDP port beside the data plane's own, for carriers: answers leave by the address that the question was sent to.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use super::{RecvBatch, SLOT_LEN, Socket};
use crate::{udp::sys::RecvMeta, way::WayId};

/// A bound socket with the options of the data plane's own: it never fragments, and believes no router about lengths.
#[derive(Debug)]
pub struct PlainPort(Socket);

/// What one call receives; kept from call to call.
pub struct PortBatch(RecvBatch);

impl Default for PortBatch {
    fn default() -> Self {
        Self(RecvBatch::new())
    }
}

impl PlainPort {
    /// Opens it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn bind(at: SocketAddr) -> io::Result<Self> {
        Ok(Self(Socket::open(UdpSocket::bind(at)?, false)?))
    }

    /// Where it is bound.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Takes what is there, without waiting: `each` gets the sender, the address of ours it was sent to, and datagrams.
    /// Nothing gets there that came by the interface `tunnel` (0: none): it was in the tunnel before, and a path must not
    /// lead into it; nor what has the address of a way for a sender, which no host has.
    ///
    /// # Errors
    /// Nothing is there (`WouldBlock`), or the system refuses.
    pub fn receive(
        &self,
        PortBatch(batch): &mut PortBatch,
        tunnel: u32,
        mut each: impl FnMut(SocketAddr, Option<IpAddr>, &[&[u8]]),
    ) -> io::Result<()> {
        for i in 0..batch.receive(self.0.fd())? {
            let is_loop = |interface| interface != 0 && interface == tunnel;
            let fits = |meta: &RecvMeta| !meta.truncated && !is_loop(meta.interface) && WayId::of(meta.addr).is_none();
            let Some(meta) = batch.meta(i).filter(fits) else { continue };
            let start = i * SLOT_LEN;
            let Some(bytes) = batch.storage().get(start..start + meta.len) else { continue };
            let datagrams: Vec<&[u8]> = bytes.chunks(meta.stride.max(1)).collect();
            each(meta.addr, meta.local, &datagrams);
        }
        Ok(())
    }

    /// Sends a datagram without waiting, from an address of ours if one is given and the system lets it.
    ///
    /// # Errors
    /// The system refuses it; `EMSGSIZE` where it is longer than the network here takes.
    pub fn send(&self, to: SocketAddr, from: Option<IpAddr>, datagram: &[u8]) -> io::Result<()> {
        self.0.send_one(to, from, datagram)
    }
}

impl AsRawFd for PlainPort {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Waited, wait};

    #[test]
    fn an_answer_leaves_by_the_address_that_was_asked() {
        for (bind, asked) in [("0.0.0.0:0", "127.0.0.5"), ("[::]:0", "127.0.0.5"), ("[::]:0", "::1")] {
            let port = PlainPort::bind(bind.parse().unwrap()).unwrap();
            let asked = SocketAddr::new(asked.parse().unwrap(), port.local_addr().port());
            let any = if asked.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let client = UdpSocket::bind(any).unwrap();
            client.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            client.send_to(b"a question", asked).unwrap();
            let (mut batch, mut heard) = (PortBatch::default(), Vec::new());
            while heard.is_empty() {
                wait(&mut [Waited::readable(port.0.fd())], 20_000).unwrap();
                let each = |from, local, datagrams: &[&[u8]]| heard.push((from, local, datagrams.concat()));
                port.receive(&mut batch, 0, each).unwrap();
            }
            let (from, local, question) = heard.pop().unwrap();
            assert_eq!((local, &question[..]), (Some(asked.ip()), &b"a question"[..]));
            port.send(from, local, b"an answer").unwrap();
            let (len, by) = client.recv_from(&mut [0; 99]).unwrap();
            assert_eq!((len, by), (9, asked), "not the address of the system's choice");
        }
    }

    #[test]
    fn what_comes_by_the_interface_of_the_tunnel_is_not_taken() {
        let port = PlainPort::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let lo = nix::net::if_::if_nametoindex("lo").unwrap();
        let mut batch = PortBatch::default();
        for (tunnel, taken) in [(lo, 0), (lo + 1000, 1), (0, 1)] {
            client.send_to(b"a question", port.local_addr()).unwrap();
            wait(&mut [Waited::readable(port.0.fd())], 20_000).unwrap();
            let mut heard = 0;
            port.receive(&mut batch, tunnel, |_, _, datagrams| heard += datagrams.len()).unwrap();
            assert_eq!(heard, taken, "{tunnel}");
        }
    }
}
