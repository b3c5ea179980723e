// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links over noq, the default: multipath and NAT traversal are there for later.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use noq as quic;
use noq::udp::{RecvMeta, Transmit};
use noq::{AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, InvalidCid, PathId, UdpSender};
use noq_proto::HashedConnectionIdGenerator;

use super::config::TransportKnobs;
use super::socket::Writable;
use backend::QuicSocket;
use paced::PacedConfig;

#[expect(clippy::duplicate_mod, reason = "the same source over two crates of the same shape")]
#[path = "backend.rs"]
mod backend;
mod paced;

pub(super) use backend::endpoint;

/// Most datagrams sent as one: each link keeps room for as many as long as it lives, and after its handshake carries little.
const SEGMENTS: usize = 2;

/// How this stack holds a socket.
type AbstractSocket = Box<dyn AsyncUdpSocket>;

fn abstract_socket(socket: QuicSocket) -> AbstractSocket {
    Box::new(socket)
}

/// Counts the datagrams whose connection id is none of ours: garbage that only looks like QUIC.
///
/// One key for all generators of the endpoint, and of that after a restart: each must know the ids of the others.
fn count_strangers(mut config: noq::EndpointConfig, key: u64, strangers: Arc<AtomicU64>) -> noq::EndpointConfig {
    let generator = move || -> Box<dyn ConnectionIdGenerator> {
        Box::new(CountingIds { ids: HashedConnectionIdGenerator::from_key(key), strangers: Arc::clone(&strangers) })
    };
    config.cid_generator(Arc::new(generator));
    config
}

/// Connection ids that carry a check value, and a count of those that failed it.
struct CountingIds {
    ids: HashedConnectionIdGenerator,
    strangers: Arc<AtomicU64>,
}

impl ConnectionIdGenerator for CountingIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.ids.generate_cid()
    }

    fn validate(&self, id: ConnectionId) -> Result<(), InvalidCid> {
        self.ids.validate(id).inspect_err(|_stranger| {
            self.strangers.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn cid_len(&self) -> usize {
        self.ids.cid_len()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        self.ids.cid_lifetime()
    }
}

fn congestion(knobs: &TransportKnobs) -> Arc<PacedConfig> {
    Arc::new(PacedConfig::new(knobs.initial_window, knobs.initial_rtt))
}

async fn drained(endpoint: &noq::Endpoint) {
    endpoint.wait_all_draining().await;
}

fn remote(connection: &noq::Connection) -> Option<SocketAddr> {
    connection.path(PathId::ZERO)?.remote_address().ok()
}

fn rtt(connection: &noq::Connection) -> Duration {
    connection.rtt(PathId::ZERO).unwrap_or_default()
}

fn tls_error(error: &noq::ConnectionError) -> Option<&rustls::Error> {
    let noq::ConnectionError::TransportError(error) = error else {
        return None;
    };
    error.crypto.as_ref()?.downcast_ref()
}

impl AsyncUdpSocket for QuicSocket {
    fn create_sender(&self) -> Pin<Box<dyn UdpSender>> {
        Box::pin(Sender { socket: self.clone(), writable: None })
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Self::poll_recv(self, cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(Self::local_addr(self))
    }

    fn max_receive_segments(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.socket.max_receive_segments()).unwrap_or(NonZeroUsize::MIN)
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// One task's way to the socket, with its own wait for it.
struct Sender {
    socket: QuicSocket,
    writable: Option<Writable>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl UdpSender for Sender {
    fn poll_send(self: Pin<&mut Self>, transmit: &Transmit<'_>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
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
                sent => return Poll::Ready(sent),
            }
        }
    }

    fn max_transmit_segments(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.socket.socket.max_transmit_segments().min(SEGMENTS)).unwrap_or(NonZeroUsize::MIN)
    }
}
