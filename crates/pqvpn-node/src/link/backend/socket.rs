// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link socket in the terms of the QUIC stack: the parts both stacks ask for alike.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::super::quic;
use super::{Counters, count};
use crate::link::socket::{LinkRecv, LinkSocket, LinkTransmit, MAX_BATCH, canonical, to_quic};

/// The link socket in the terms of the QUIC stack.
#[derive(Debug, Clone)]
pub(in crate::link) struct QuicSocket {
    pub(in crate::link) socket: Arc<dyn LinkSocket>,
    local: SocketAddr,
    counters: Arc<Counters>,
}

impl QuicSocket {
    pub(super) fn new(socket: Arc<dyn LinkSocket>, counters: Arc<Counters>) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self { socket, local, counters })
    }

    pub(in crate::link) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends one transmit. A refusal by the system other than `WouldBlock` is a lost datagram, not the end of a link.
    pub(in crate::link) fn try_send(&self, transmit: &quic::udp::Transmit<'_>) -> io::Result<()> {
        let sent = self.socket.try_send(&LinkTransmit {
            to: canonical(transmit.destination),
            src_ip: transmit.src_ip.map(|ip| ip.to_canonical()),
            ecn: transmit.ecn.map(|ecn| ecn as u8),
            contents: transmit.contents,
            segment_size: transmit.segment_size,
        });
        match sent {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                count(&self.counters.send_errors);
                tracing::trace!(%error, "link datagram not sent");
                Ok(())
            }
            other => other,
        }
    }

    pub(in crate::link) fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [quic::udp::RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = [LinkRecv::default(); MAX_BATCH];
        let batch = bufs.len().min(meta.len()).min(MAX_BATCH);
        let filled = ready!(self.socket.poll_recv(cx, &mut bufs[..batch], &mut received[..batch]))?;
        for (meta, received) in meta.iter_mut().zip(&received[..filled.min(batch)]) {
            *meta = quic::udp::RecvMeta::default();
            meta.addr = to_quic(received.from, self.local.is_ipv6());
            meta.len = received.len;
            meta.stride = received.stride;
            meta.ecn = received.ecn.and_then(quic::udp::EcnCodepoint::from_bits);
            meta.dst_ip = received.dst_ip;
        }
        Poll::Ready(Ok(filled.min(batch)))
    }
}
