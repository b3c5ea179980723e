// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link socket in the terms of the QUIC stack: the parts both stacks ask for alike.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use super::super::{Retries, quic};
use super::{Counters, count};
use crate::link::initial::{Answer, Initial};
use crate::link::socket::{LinkRecv, LinkSocket, LinkTransmit, MAX_BATCH, canonical, to_quic};
use crate::link::unproven::{Handshake, Unproven};

/// The link socket in the terms of the QUIC stack.
#[derive(Debug, Clone)]
pub(in crate::link) struct QuicSocket {
    pub(in crate::link) socket: Arc<dyn LinkSocket>,
    local: SocketAddr,
    counters: Arc<Counters>,
    balances: Balances,
    turned_away: Option<Arc<TurnedAway>>,
}

/// Who gets a Retry before QUIC looks at it.
#[derive(Debug)]
pub(super) struct TurnedAway {
    pub(super) retries: Retries,
    /// Handshakes under way from which on the gate has a Retry for every first packet without a token.
    pub(super) from: usize,
}

impl QuicSocket {
    pub(super) fn new(
        socket: Arc<dyn LinkSocket>,
        counters: Arc<Counters>,
        balances: Balances,
        turned_away: Option<TurnedAway>,
    ) -> io::Result<Self> {
        let local = socket.local_addr()?;
        Ok(Self { socket, local, counters, balances, turned_away: turned_away.map(Arc::new) })
    }

    /// One that nobody without a proven address has sent to. `retries` has it turn first packets away.
    #[cfg(test)]
    pub(in crate::link) fn over(socket: Arc<dyn LinkSocket>, retries: Option<Retries>) -> io::Result<Self> {
        let turned_away = retries.map(|retries| TurnedAway { retries, from: 0 });
        Self::new(socket, Arc::default(), Balances::default(), turned_away)
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
            Err((error, went)) if error.kind() == io::ErrorKind::WouldBlock => {
                unproven.unsent(to, contents, may - went);
                Err(error)
            }
            Err((error, _)) => {
                count(&self.counters.send_errors);
                tracing::trace!(%error, "link datagram not sent");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Sends as many at once as the socket takes. One that is full in between gets the first of them again, as networks do; with
    /// the error comes how many bytes went.
    fn send(&self, transmit: &LinkTransmit<'_>) -> Result<(), (io::Error, usize)> {
        let Some(size) = transmit.segment_size.filter(|_| self.socket.max_transmit_segments() == 1) else {
            return self.socket.try_send(transmit).map_err(|error| (error, 0));
        };
        let mut went = 0;
        for contents in transmit.contents.chunks(size.max(1)) {
            let one = LinkTransmit { contents, segment_size: None, ..*transmit };
            self.socket.try_send(&one).map_err(|error| (error, went))?;
            went += contents.len();
        }
        Ok(())
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
        let received = &mut received[..filled.min(batch)];
        self.sift(received, bufs);
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

    /// Notes what came, and takes out of it what is answered without QUIC.
    fn sift(&self, received: &mut [LinkRecv], bufs: &mut [IoSliceMut<'_>]) {
        let is_busy = |away: &&Arc<TurnedAway>| self.counters.unfinished.load(Ordering::Relaxed) >= away.from;
        let busy = self.turned_away.as_ref().filter(is_busy);
        let (mut unproven, mut last) = (self.balances.lock(), None);
        for (meta, buf) in received.iter_mut().zip(bufs) {
            let (whole, stride) = (meta.len.min(buf.len()), meta.stride.max(1));
            let mut kept = 0;
            for begin in (0..whole).step_by(stride) {
                let datagram = begin..whole.min(begin + stride);
                if busy
                    .is_some_and(|away| self.is_turned_away(away, &unproven, &mut last, meta, &buf[datagram.clone()]))
                {
                    continue;
                }
                unproven.received(meta.from, &buf[datagram.clone()]);
                let length = datagram.len();
                if kept < begin {
                    buf.copy_within(datagram, kept);
                }
                kept += length;
            }
            meta.len = kept;
        }
    }

    /// Whether a datagram was a first packet that QUIC needs not see: most have been answered with a Retry, which may get lost as
    /// any datagram. The rest of a flight that came at once is answered with its `last`.
    fn is_turned_away(
        &self,
        away: &TurnedAway,
        unproven: &Unproven,
        last: &mut Option<Handshake>,
        meta: &LinkRecv,
        datagram: &[u8],
    ) -> bool {
        let Some(first) = Initial::read(datagram) else { return false };
        let answers_us = unproven.is_dialed(meta.from) && away.retries.is_ours(first.to);
        if answers_us || unproven.goes_on(meta.from, &first) {
            return false;
        }
        let handshake = unproven.handshake(meta.from, &first);
        if first.token.is_empty() && *last == Some(handshake) {
            return true;
        }
        let from = to_quic(meta.from, self.local.is_ipv6());
        let retry = match away.retries.answer(SystemTime::now(), from, &first) {
            Answer::Quic => return false,
            Answer::Silence => {
                count(&self.counters.ignored);
                return true;
            }
            Answer::Retry(retry) => retry,
        };
        *last = Some(handshake);
        let transmit =
            LinkTransmit { to: meta.from, src_ip: meta.dst_ip, ecn: None, contents: &retry, segment_size: None };
        match self.socket.try_send(&transmit) {
            Ok(()) => count(&self.counters.retried),
            Err(error) => tracing::trace!(%error, "Retry not sent"),
        }
        true
    }
}

/// What those who have not proven their address sent and were sent, shared by the socket and the gate.
#[derive(Debug, Clone, Default)]
pub(super) struct Balances(Arc<Mutex<Unproven>>);

impl Balances {
    fn lock(&self) -> MutexGuard<'_, Unproven> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on until the guard is dropped, we dial there.
    pub(super) fn dial(&self, to: SocketAddr) -> Dial {
        let to = canonical(to);
        self.lock().dial(to);
        Dial { to, balances: self.clone() }
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

/// A dial of ours.
pub(super) struct Dial {
    to: SocketAddr,
    balances: Balances,
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.balances.lock().end_dial(self.to);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::link::socket::Writable;

    /// Takes one datagram at a time, and is full at the second look.
    #[derive(Debug, Default)]
    struct Narrow {
        looks: AtomicUsize,
        went: AtomicUsize,
    }

    impl LinkSocket for Narrow {
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [LinkRecv],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn try_send(&self, transmit: &LinkTransmit<'_>) -> io::Result<()> {
            if self.looks.fetch_add(1, Ordering::Relaxed) == 1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            assert_eq!(transmit.segment_size, None);
            self.went.fetch_add(transmit.contents.len(), Ordering::Relaxed);
            Ok(())
        }

        fn writable(self: Arc<Self>) -> Writable {
            Box::pin(async { Ok(()) })
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([192, 0, 2, 2], 1)))
        }
    }

    #[test]
    fn what_went_before_a_socket_was_full_counts_for_an_unproven_address() {
        let (narrow, balances, from) =
            (Arc::new(Narrow::default()), Balances::default(), SocketAddr::from(([192, 0, 2, 1], 1)));
        let counters = Arc::new(Counters::default());
        let socket =
            QuicSocket::new(Arc::<Narrow>::clone(&narrow), Arc::clone(&counters), balances.clone(), None).unwrap();
        // An Initial from the client's connection id 1 to 9, and Initials back.
        let mut hello = [0_u8; 1200];
        hello[..9].copy_from_slice(&[0xc0, 0, 0, 0, 1, 1, 9, 1, 1]);
        balances.lock().received(from, &hello);
        let limit = balances.begin(from, &[9]).unwrap();
        let mut pair = [0_u8; 2400];
        pair.chunks_mut(1200).for_each(|answer| answer[..9].copy_from_slice(&[0xc0, 0, 0, 0, 1, 1, 1, 1, 7]));
        let transmit = quic::udp::Transmit {
            destination: from,
            ecn: None,
            contents: &pair,
            segment_size: Some(1200),
            src_ip: None,
        };
        assert_eq!(socket.try_send(&transmit).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(narrow.went.load(Ordering::Relaxed), 1200);
        for _ in 0..3 {
            socket.try_send(&transmit).unwrap();
            assert_eq!(narrow.went.load(Ordering::Relaxed), 3600);
        }
        assert_eq!(counters.withheld.load(Ordering::Relaxed), 2);
        // With the handshake ends what it was limited by.
        drop(limit);
        socket.try_send(&transmit).unwrap();
        assert_eq!(narrow.went.load(Ordering::Relaxed), 6000);
        // Nor is anybody limited who has begun none.
        QuicSocket::over(Arc::<Narrow>::clone(&narrow), None).unwrap().try_send(&transmit).unwrap();
        assert_eq!(narrow.went.load(Ordering::Relaxed), 8400);
    }
}
