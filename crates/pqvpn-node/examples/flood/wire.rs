// SPDX-License-Identifier: MIT OR Apache-2.0
//! A socket with many addresses, and the balance of each.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use serde_json::{Value, json};

use crate::Failure;

/// Bytes of answers that may wait to be counted.
const BUFFER: usize = 16 << 20;

/// Bytes of UDP payload that an address sent, and that came back to it.
#[derive(Debug, Clone, Copy, Default)]
struct Balance {
    sent: u64,
    came: u64,
}

/// The socket.
pub(crate) struct Wire {
    socket: UdpSocket,
    to: SockaddrIn,
    first: u32,
    balances: Vec<Balance>,
    sent: u64,
    came: u64,
    /// What the kernel would not take.
    refused: u64,
}

impl Wire {
    pub(crate) fn new(first: Ipv4Addr, count: u32, to: SocketAddrV4) -> Result<Self, Failure> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        // Less than all answers may be counted without the privilege.
        _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        let balances = vec![Balance::default(); count.max(1) as usize];
        Ok(Self { socket, to: to.into(), first: first.into(), balances, sent: 0, came: 0, refused: 0 })
    }

    /// Which address the `turn`-th is sent from.
    pub(crate) fn source(&self, turn: u32) -> u32 {
        // Neighbours do not follow each other.
        (u64::from(turn) * 40_503 % self.balances.len() as u64) as u32
    }

    /// Sends one datagram, or several of `segment` bytes.
    pub(crate) fn send(&mut self, source: u32, contents: &[u8], segment: Option<u16>) -> Result<(), Failure> {
        let from = in_addr { s_addr: (self.first + source).to_be() };
        let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: from, ipi_addr: in_addr { s_addr: 0 } };
        let segment = segment.filter(|segment| usize::from(*segment) < contents.len());
        let with =
            [ControlMessage::Ipv4PacketInfo(&info), ControlMessage::UdpGsoSegments(segment.as_ref().unwrap_or(&0))];
        let with = if segment.is_some() { &with[..] } else { &with[..1] };
        let parts = [IoSlice::new(contents)];
        match sendmsg(self.socket.as_raw_fd(), &parts, with, MsgFlags::empty(), Some(&self.to)) {
            Ok(_) => {
                self.balances[source as usize].sent += contents.len() as u64;
                self.sent += segment.map_or(1, |segment| contents.len().div_ceil(usize::from(segment)) as u64);
            }
            Err(Errno::EAGAIN | Errno::ENOBUFS) => self.refused += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// The next answer, and which address it came to.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<(u32, usize)>> {
        let mut space = cmsg_space!(in_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::empty();
        let received = match recvmsg::<SockaddrIn>(self.socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let to = received.cmsgs()?.find_map(|message| {
            let ControlMessageOwned::Ipv4PacketInfo(info) = message else { return None };
            Some(u32::from_be(info.ipi_addr.s_addr))
        });
        let source = to.unwrap_or(self.first).wrapping_sub(self.first);
        self.came += 1;
        if let Some(balance) = self.balances.get_mut(source as usize) {
            balance.came += received.bytes as u64;
        }
        Ok(Some((source, received.bytes)))
    }

    /// What it came to.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a few seconds")]
    pub(crate) fn told(&self) -> Value {
        let ratio = |balance: &Balance| balance.came as f64 / (balance.sent as f64).max(1.0);
        let worst = self.balances.iter().map(ratio).fold(0.0, f64::max);
        let sum = self
            .balances
            .iter()
            .fold(Balance::default(), |sum, one| Balance { sent: sum.sent + one.sent, came: sum.came + one.came });
        json!({
            "sent": self.sent, "sent_bytes": sum.sent, "came": self.came, "came_bytes": sum.came,
            "ratio": ratio(&sum), "worst_ratio": worst, "refused": self.refused,
            "sources": self.balances.iter().filter(|balance| balance.sent > 0).count(),
        })
    }
}
