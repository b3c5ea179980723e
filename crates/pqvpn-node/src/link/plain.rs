// SPDX-License-Identifier: MIT OR Apache-2.0
//! A link socket of its own, without a data plane beside it: for tests and tools.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::socket::{LinkRecv, LinkSocket, LinkTransmit, MAX_BATCH, Writable, canonical, to_quic};

/// A tokio UDP socket with ECN, GSO and GRO where the kernel has them.
#[derive(Debug)]
pub struct PlainSocket {
    io: UdpSocket,
    state: UdpSocketState,
    is_v6: bool,
}

impl PlainSocket {
    /// Binds `addr`; call it inside a tokio runtime.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(addr)?;
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Self { io: UdpSocket::from_std(socket)?, state, is_v6: addr.is_ipv6() })
    }
}

impl LinkSocket for PlainSocket {
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [LinkRecv],
    ) -> Poll<io::Result<usize>> {
        let mut raw = [RecvMeta::default(); MAX_BATCH];
        let batch = bufs.len().min(meta.len()).min(MAX_BATCH);
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received = self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), &mut bufs[..batch], &mut raw[..batch])
            });
            match received {
                Ok(count) => {
                    for (meta, raw) in meta.iter_mut().zip(&raw[..count]) {
                        *meta = from_udp(raw);
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn try_send(&self, transmit: &LinkTransmit<'_>) -> io::Result<()> {
        let transmit = Transmit {
            destination: to_quic(transmit.to, self.is_v6),
            ecn: transmit.ecn.and_then(EcnCodepoint::from_bits),
            contents: transmit.contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip.map(|ip| to_quic((ip, 0).into(), self.is_v6).ip()),
        };
        self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), &transmit))
    }

    fn writable(self: Arc<Self>) -> Writable {
        Box::pin(async move { self.io.writable().await })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

fn from_udp(raw: &RecvMeta) -> LinkRecv {
    LinkRecv {
        from: canonical(raw.addr),
        dst_ip: raw.dst_ip.map(|ip: IpAddr| ip.to_canonical()),
        ecn: raw.ecn.map(|ecn| ecn as u8),
        len: raw.len,
        stride: raw.stride,
    }
}
