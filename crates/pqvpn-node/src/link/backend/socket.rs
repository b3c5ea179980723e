// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link socket in the terms of the QUIC stack: the parts both stacks ask for alike.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use super::super::quic;
use super::{Counters, count};
use crate::link::socket::{LinkRecv, LinkSocket, LinkTransmit, MAX_BATCH, canonical, to_quic};
use crate::link::unproven::{Handshake, Unproven};

/// The link socket in the terms of the QUIC stack.
#[derive(Debug, Clone)]
pub(in crate::link) struct QuicSocket {
    pub(in crate::link) socket: Arc<dyn LinkSocket>,
    local: SocketAddr,
    counters: Arc<Counters>,
    balances: Balances,
}

impl QuicSocket {
    pub(super) fn new(socket: Arc<dyn LinkSocket>, counters: Arc<Counters>, balances: Balances) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self { socket, local, counters, balances })
    }

    pub(in crate::link) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends one transmit. A refusal by the system other than `WouldBlock` is a lost datagram, not the end of a link.
    pub(in crate::link) fn try_send(&self, transmit: &quic::udp::Transmit<'_>) -> io::Result<()> {
        let to = canonical(transmit.destination);
        let whole = transmit.contents.len();
        let mut unproven = self.balances.lock();
        let may = unproven.may_send(to, transmit.contents, transmit.segment_size);
        if may < whole {
            self.withhold(to, whole - may);
        }
        let Some(contents) = transmit.contents.get(..may).filter(|contents| !contents.is_empty()) else {
            return Ok(());
        };
        let sent = self.send(&LinkTransmit {
            to,
            src_ip: transmit.src_ip.map(|ip| ip.to_canonical()),
            ecn: transmit.ecn.map(|ecn| ecn as u8),
            contents,
            segment_size: transmit.segment_size,
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                unproven.unsent(to, contents, may);
                Err(error)
            }
            Err(error) => {
                count(&self.counters.send_errors);
                tracing::trace!(%error, "link datagram not sent");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Sends as many at once as the socket takes. One that is full in between gets the first of them again, as networks do.
    fn send(&self, transmit: &LinkTransmit<'_>) -> io::Result<()> {
        let Some(size) = transmit.segment_size.filter(|_| self.socket.max_transmit_segments() == 1) else {
            return self.socket.try_send(transmit);
        };
        let mut each = transmit.contents.chunks(size.max(1));
        each.try_for_each(|contents| self.socket.try_send(&LinkTransmit { contents, segment_size: None, ..*transmit }))
    }

    /// Notes what is not sent, as its address may not want it.
    pub(in crate::link) fn withhold(&self, to: SocketAddr, bytes: usize) {
        count(&self.counters.withheld);
        tracing::trace!(%to, bytes, "not sent to an address that may not want it");
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
        let received = &received[..filled.min(batch)];
        self.balances.received(received, bufs);
        for (meta, received) in meta.iter_mut().zip(received) {
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

/// What those who have not proven their address sent and were sent, shared by the socket and the gate.
#[derive(Debug, Clone, Default)]
pub(super) struct Balances(Arc<Mutex<Unproven>>);

impl Balances {
    fn lock(&self) -> MutexGuard<'_, Unproven> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn received(&self, filled: &[LinkRecv], bufs: &[IoSliceMut<'_>]) {
        let mut unproven = self.lock();
        for (meta, buf) in filled.iter().zip(bufs) {
            for datagram in buf[..meta.len.min(buf.len())].chunks(meta.stride.max(1)) {
                unproven.received(meta.from, datagram);
            }
        }
    }

    /// From now on until the guard is dropped, a handshake whose first packet came from there gets no more than it may. `to` is
    /// the connection id it was sent to. `None`: nothing is known of such a packet.
    pub(super) fn begin(&self, from: SocketAddr, to: &[u8]) -> Option<Limit> {
        let handshakes = self.lock().begin(canonical(from), to);
        (!handshakes.is_empty()).then(|| Limit { handshakes, balances: self.clone() })
    }

    /// Who sent that packet has proven its address by a token.
    pub(super) fn prove(&self, from: SocketAddr, to: &[u8]) {
        self.lock().prove(canonical(from), to);
    }
}

/// The limit of a handshake.
pub(super) struct Limit {
    handshakes: Vec<Handshake>,
    balances: Balances,
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.balances.lock().end(&self.handshakes);
    }
}
