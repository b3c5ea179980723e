// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link as a guest on the data plane's sockets: one port for links and tunnels.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pqvpn_dataplane::{Guest, GuestMeta, GuestTransmit};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::socket::{LinkRecv, LinkSocket, LinkTransmit, MAX_BATCH, Writable, canonical};

/// When to send again where nothing can be waited for.
const NO_DESCRIPTOR: Duration = Duration::from_millis(5);

/// A [`Guest`] as the link's socket: receiving is woken by the data plane, sending by the kernel.
#[derive(Debug)]
pub struct GuestSocket {
    guest: Guest,
    /// Duplicates of the data plane's sockets, in their order.
    sockets: Vec<OwnedFd>,
    /// Which of them was full last.
    full: AtomicUsize,
}

impl GuestSocket {
    /// Makes the guest a link socket.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new(guest: Guest) -> io::Result<Self> {
        Ok(Self { sockets: guest.clone_fds()?, full: AtomicUsize::new(0), guest })
    }
}

impl LinkSocket for GuestSocket {
    fn on_dial(&self, to: SocketAddr) {
        self.guest.on_dial(to);
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [LinkRecv],
    ) -> Poll<io::Result<usize>> {
        let nothing = GuestMeta { addr: LinkRecv::default().from, len: 0, stride: 0, ecn: None, dst_ip: None };
        let mut raw = [nothing; MAX_BATCH];
        let batch = bufs.len().min(meta.len()).min(MAX_BATCH);
        let filled = match ready!(self.guest.poll_recv(cx, &mut bufs[..batch], &mut raw[..batch])) {
            // The data plane has ended: nothing comes any more. As an error, every orderly stop would end in the log.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Poll::Pending,
            filled => filled?,
        };
        for (meta, raw) in meta.iter_mut().zip(&raw[..filled]) {
            *meta = LinkRecv {
                from: canonical(raw.addr),
                dst_ip: raw.dst_ip.map(|ip| ip.to_canonical()),
                ecn: raw.ecn,
                len: raw.len,
                stride: raw.stride,
            };
        }
        Poll::Ready(Ok(filled))
    }

    fn try_send(&self, transmit: &LinkTransmit<'_>) -> io::Result<()> {
        let transmit = GuestTransmit {
            dst: transmit.to,
            src_ip: transmit.src_ip,
            ecn: transmit.ecn,
            contents: transmit.contents,
            segment_size: transmit.segment_size,
        };
        let sent = self.guest.try_send(&transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            && let Some(full) = self.guest.socket_for(transmit.dst)
        {
            self.full.store(full, Ordering::Relaxed);
        }
        sent
    }

    fn writable(self: Arc<Self>) -> Writable {
        Box::pin(async move {
            let full = self.sockets.get(self.full.load(Ordering::Relaxed)).ok_or(io::ErrorKind::NotConnected)?;
            // Registered only while it is full: the kernel reports every datagram of the data plane that leaves.
            let Ok(copy) = full.try_clone() else {
                // No descriptor is left: an error here would end the link, and full buffers empty in no time.
                tokio::time::sleep(NO_DESCRIPTOR).await;
                return Ok(());
            };
            #[expect(deprecated, reason = "the safe one; an owned socket keeps what its successor asks by `unsafe`")]
            let Ok(registered) = AsyncFd::with_interest(copy, Interest::WRITABLE) else {
                tokio::time::sleep(NO_DESCRIPTOR).await;
                return Ok(());
            };
            registered.writable().await.map(drop)
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.guest.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.guest.max_gso_segments().get()
    }

    // The data plane forbids fragments on its sockets.
    fn may_fragment(&self) -> bool {
        false
    }
}
