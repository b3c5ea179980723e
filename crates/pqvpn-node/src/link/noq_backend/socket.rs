// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link socket as noq wants it: each link has a sender of its own.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use noq::udp::{RecvMeta, Transmit};
use noq::{AsyncUdpSocket, UdpSender};
use tokio::time::Instant;

use super::backend::QuicSocket;
use super::moved::Moved;
use crate::link::roaming::{Roaming, Whereabouts};
use crate::link::socket::{Writable, canonical};

/// Most datagrams sent as one: each link keeps room for as many as long as it lives, and after its handshake carries little. As
/// many also where the system takes one only: those of a transfer are told from probes by that they come in twos.
const SEGMENTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// The socket of an endpoint.
#[derive(Debug)]
pub(super) struct NoqSocket {
    socket: QuicSocket,
    roaming: Arc<Mutex<Roaming>>,
    moved: Moved,
    /// Whether the endpoint has its own sender: the first, and, as long as it is not bound anew, the only one of no link.
    has_own: AtomicBool,
}

impl NoqSocket {
    pub(super) fn new(socket: QuicSocket, moved: Moved) -> Self {
        Self { socket, roaming: Arc::default(), moved, has_own: AtomicBool::new(false) }
    }
}

impl AsyncUdpSocket for NoqSocket {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        let is_link = self.has_own.swap(true, Ordering::Relaxed);
        let whereabouts = is_link.then(|| Whereabouts::new(Instant::now().into_std()));
        Box::pin(Sender {
            socket: self.socket.clone(),
            roaming: Arc::clone(&self.roaming),
            moved: self.moved.clone(),
            whereabouts,
            last: None,
            is_granted: false,
            writable: None,
        })
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.socket.local_addr())
    }

    fn max_receive_segments(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.socket.socket.max_receive_segments()).unwrap_or(NonZeroUsize::MIN)
    }

    fn may_fragment(&self) -> bool {
        self.socket.socket.may_fragment()
    }
}

/// One task's way to the socket, with its own wait for it.
struct Sender {
    socket: QuicSocket,
    roaming: Arc<Mutex<Roaming>>,
    moved: Moved,
    /// `None` where it belongs to no link.
    whereabouts: Option<Whereabouts>,
    /// Where it sent to last.
    last: Option<SocketAddr>,
    /// Whether what waits for the socket may be sent.
    is_granted: bool,
    writable: Option<Writable>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl Sender {
    fn may_send(&mut self, transmit: &Transmit<'_>) -> bool {
        let Some(whereabouts) = &mut self.whereabouts else { return true };
        let to = canonical(transmit.destination);
        if self.last.replace(to).is_some_and(|last| last != to) {
            self.moved.tell();
        }
        let roaming = || self.roaming.lock().unwrap_or_else(PoisonError::into_inner);
        let size = transmit.segment_size.unwrap_or(transmit.contents.len());
        let lone = (size >= transmit.contents.len()).then_some(transmit.contents);
        let now = Instant::now().into_std();
        whereabouts.may_send(now, to, lone, |to| roaming().take(now, to))
    }
}

impl UdpSender for Sender {
    fn poll_send(self: Pin<&mut Self>, transmit: &Transmit<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_granted && !this.may_send(transmit) {
            this.socket.withhold(canonical(transmit.destination), transmit.contents.len());
            return Poll::Ready(Ok(()));
        }
        // It comes again if it has to wait.
        this.is_granted = true;
        loop {
            if let Some(writable) = &mut this.writable {
                let writable = ready!(writable.as_mut().poll(cx));
                this.writable = None;
                writable?;
            }
            match this.socket.try_send(transmit) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    this.writable = Some(Arc::clone(&this.socket.socket).writable());
                }
                sent => {
                    this.is_granted = false;
                    return Poll::Ready(sent);
                }
            }
        }
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        SEGMENTS
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Waker;

    use super::*;
    use crate::link::socket::{LinkRecv, LinkSocket, LinkTransmit};

    /// Has room for so many datagrams, and is full for a moment once they went.
    #[derive(Debug)]
    struct Brim {
        room: AtomicUsize,
        went: AtomicUsize,
    }

    impl LinkSocket for Brim {
        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [LinkRecv],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn try_send(&self, _: &LinkTransmit<'_>) -> io::Result<()> {
            let room = self.room.load(Ordering::Relaxed);
            self.room.store(room.checked_sub(1).ok_or(io::ErrorKind::WouldBlock)?, Ordering::Relaxed);
            self.went.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        fn writable(self: Arc<Self>) -> Writable {
            let mut waits = true;
            Box::pin(std::future::poll_fn(move |_| {
                if std::mem::take(&mut waits) {
                    return Poll::Pending;
                }
                self.room.store(100, Ordering::Relaxed);
                Poll::Ready(Ok(()))
            }))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from(([192, 0, 2, 2], 1)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_granted_while_the_socket_was_full_is_not_asked_for_again() {
        let brim = Arc::new(Brim { room: AtomicUsize::new(8), went: AtomicUsize::new(0) });
        let socket = NoqSocket::new(QuicSocket::over(Arc::<Brim>::clone(&brim), None).unwrap(), Moved::default());
        let (_own, mut link) = (socket.create_sender(), socket.create_sender());
        let mut cx = Context::from_waker(Waker::noop());
        let mut probe = |address: u8| {
            let destination = SocketAddr::from(([192, 0, 2, address], 1));
            let transmit =
                Transmit { destination, ecn: None, contents: &[0x40; 1200], segment_size: None, src_ip: None };
            link.as_mut().poll_send(&transmit, &mut cx).map(Result::unwrap)
        };
        let went = || brim.went.load(Ordering::Relaxed);
        // Where the handshake was, and elsewhere as often as a link may at once but for one.
        assert!(probe(1).is_ready() && (0..7).all(|_| probe(3).is_ready()));
        assert_eq!(went(), 8);
        assert!(probe(3).is_pending() && probe(3).is_ready(), "full for a moment");
        assert_eq!(went(), 9, "the last that is granted");
        assert!(probe(3).is_ready());
        assert_eq!(went(), 9, "no other is");
    }
}
