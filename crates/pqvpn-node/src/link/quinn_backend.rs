// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links over quinn: the second source of QUIC, without multipath.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use quinn as quic;
use quinn::congestion::CubicConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::config::{LinkConfig, TransportKnobs};
use super::initial::{Answer, Initial};
use super::socket::{LinkSocket, Writable};
use backend::QuicSocket;

#[expect(clippy::duplicate_mod, reason = "the same source over two crates of the same shape")]
#[path = "backend.rs"]
mod backend;

pub(super) use backend::endpoint;

/// Whether links stay where their peer's address changes: no, as it does not tell which link a datagram is sent for ([`super::roaming`]).
const ROAMS: bool = false;

/// How this stack holds a socket.
type AbstractSocket = Arc<dyn AsyncUdpSocket>;

/// Links over quinn do not move: none of them needs to be looked after.
#[derive(Debug, Clone, Default)]
struct Moved(());

type Watched = ();

impl Moved {
    #[expect(clippy::unused_self, reason = "as the other back end has it")]
    fn watch(&self, _: &quinn::Connection) -> Watched {}

    async fn run(self) {
        std::future::pending().await
    }
}

/// Whoever is told to come again is told by quinn.
#[derive(Debug)]
enum Retries {}

impl Retries {
    fn of(_: &mut quinn::ServerConfig, _: &LinkConfig) -> Option<Self> {
        None
    }

    fn is_ours(&self, _: &[u8]) -> bool {
        match *self {}
    }

    fn answer(&self, _: SystemTime, _: SocketAddr, _: &Initial<'_>) -> Answer {
        match *self {}
    }
}

fn abstract_socket(socket: QuicSocket, _: &Moved) -> AbstractSocket {
    Arc::new(socket)
}

/// quinn does not export what a counting generator is made of, or one with a key.
fn count_strangers(config: quinn::EndpointConfig, _key: u64, _strangers: Arc<AtomicU64>) -> quinn::EndpointConfig {
    config
}

fn congestion(knobs: &TransportKnobs) -> Arc<CubicConfig> {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(knobs.initial_window);
    Arc::new(cubic)
}

async fn drained(endpoint: &quinn::Endpoint) {
    endpoint.wait_idle().await;
}

#[expect(clippy::unnecessary_wraps, reason = "the other back end may have forgotten the path")]
fn remote(connection: &quinn::Connection) -> Option<SocketAddr> {
    Some(connection.remote_address())
}

fn rtt(connection: &quinn::Connection) -> Duration {
    connection.rtt()
}

/// quinn keeps only the text of a TLS error.
fn tls_error(_: &quinn::ConnectionError) -> Option<&rustls::Error> {
    None
}

impl AsyncUdpSocket for QuicSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: Arc::clone(&self.socket), writable: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        Self::try_send(self, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        Self::poll_recv(self, cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(Self::local_addr(self))
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// One task's wait for the socket to take another datagram.
struct Poller {
    socket: Arc<dyn LinkSocket>,
    writable: Option<Writable>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let socket = &this.socket;
        let writable = this.writable.get_or_insert_with(|| Arc::clone(socket).writable());
        let result = ready!(writable.as_mut().poll(cx));
        this.writable = None;
        Poll::Ready(result)
    }
}
