// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end both QUIC stacks share: compiled once per stack, with `super::quic` naming the stack.
//!
//! noq is a fork of quinn, so their types differ and their method names mostly do not. What does differ (socket and
//! congestion traits, multipath) is in the parent module.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use pqvpn_crypto::identity::PublicIdentity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_crypto::schedule::Role;
use pqvpn_crypto::tls::{ALPN, LinkCrypto, NOBODY, OwnLinks, Refusal, peer_from_certs};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::quic;
use crate::link::socket::{LinkSocket, canonical};
use crate::link::{
    CLOSE_DROPPED, Connection, ControlRecv, ControlSend, Endpoint, EndpointStats, Gate, LinkConfig, LinkError,
    PeerReason, drivers,
};
use incoming::{Acceptor, OwnedDrivers, Waiting};
use setup::{client_config, endpoint_config, server_config, transport};

#[expect(clippy::duplicate_mod, reason = "the same source over two crates of the same shape")]
#[path = "backend/incoming.rs"]
mod incoming;
#[expect(clippy::duplicate_mod, reason = "the same source over two crates of the same shape")]
#[path = "backend/setup.rs"]
mod setup;
#[expect(clippy::duplicate_mod, reason = "the same source over two crates of the same shape")]
#[path = "backend/socket.rs"]
mod socket;

pub(super) use socket::QuicSocket;
use socket::{Balances, TurnedAway};

type Accepted = Result<Box<dyn Connection>, LinkError>;

/// Starts an endpoint on `socket`.
pub(in crate::link) fn endpoint(
    socket: Arc<dyn LinkSocket>,
    config: LinkConfig,
) -> Result<Box<dyn Endpoint>, LinkError> {
    let thread = drivers::runtime(config.apart).map_err(local)?;
    let counters = Arc::new(Counters::default());
    let dialing = Arc::clone(&socket);
    let balances = Balances::default();
    let transport = Arc::new(transport(&config)?);
    let mut server = server_config(&config, Arc::clone(&transport))?;
    let turned_away = super::Retries::of(&mut server, &config)
        .map(|retries| TurnedAway { retries, from: config.gate.retries_from() });
    let socket = QuicSocket::new(socket, Arc::clone(&counters), balances.clone(), turned_away).map_err(local)?;
    let moved = super::Moved::default();
    let quic = quic::Endpoint::new_with_abstract_socket(
        super::count_strangers(
            endpoint_config(&config.crypto),
            config.crypto.reset_key().connection_ids(),
            Arc::clone(&counters.strangers),
        ),
        Some(server),
        super::abstract_socket(socket, &moved),
        Arc::new(OwnedDrivers(thread.clone())),
    )
    .map_err(local)?;
    let (queue, incoming) = mpsc::channel(config.transport.accept_queue.max(1));
    let acceptor = Acceptor {
        quic: quic.clone(),
        gate: Gate::new(config.gate.clone()),
        waiting: Waiting::new(config.gate.max_unfinished),
        behind: config.behind.clone(),
        handshake_timeout: config.handshake_timeout,
        crypto: Arc::clone(&config.crypto),
        counters: Arc::clone(&counters),
        balances: balances.clone(),
        moved,
        queue,
    };
    let acceptor = thread.spawn(acceptor.run());
    let incoming = tokio::sync::Mutex::new(incoming);
    Ok(Box::new(QuicEndpoint {
        quic,
        socket: dialing,
        config,
        transport,
        counters,
        balances,
        incoming,
        acceptor,
        thread,
    }))
}

fn local(error: impl std::fmt::Display) -> LinkError {
    LinkError::Local(error.to_string())
}

fn link_error(error: &quic::ConnectionError) -> LinkError {
    use quic::ConnectionError as E;
    match error {
        E::VersionMismatch => LinkError::RefusedByPeer(PeerReason::NoCommonProtocol),
        E::TransportError(ours) => {
            LinkError::from_our_transport(ours.code.into(), &ours.reason, super::tls_error(error))
        }
        E::ConnectionClosed(theirs) => LinkError::from_their_transport(theirs.error_code.into(), &theirs.reason),
        E::ApplicationClosed(theirs) => LinkError::from_their_close(theirs.error_code.into_inner(), &theirs.reason),
        E::Reset => LinkError::Reset,
        E::TimedOut => LinkError::TimedOut,
        E::LocallyClosed => LinkError::ClosedByUs,
        E::CidsExhausted => LinkError::Local("no connection ids left".to_owned()),
    }
}

/// Notes a link to ourselves before its other end is accepted: the dialer is done first (RFC 8446 §2), on the same thread.
fn note_own(crypto: &LinkCrypto, link: &dyn Connection) {
    let mut exported = [0; 32];
    if link.peer() == crypto.peer_id() && link.export(OwnLinks::LABEL, &[], &mut exported).is_ok() {
        crypto.own_links().note(exported);
    }
}

/// Counts a refusal where the node shows them.
fn note_refusal(crypto: &LinkCrypto, error: &LinkError) {
    if let Some(refusal) = error.counted_as() {
        crypto.refusals().add(refusal);
    }
}

#[derive(Debug, Default)]
struct Counters {
    dialed: AtomicU64,
    accepted: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    ignored: AtomicU64,
    displaced: AtomicU64,
    withheld: AtomicU64,
    unfinished: AtomicUsize,
    send_errors: AtomicU64,
    strangers: Arc<AtomicU64>,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[derive(Debug)]
struct QuicEndpoint {
    quic: quic::Endpoint,
    socket: Arc<dyn LinkSocket>,
    config: LinkConfig,
    transport: Arc<quic::TransportConfig>,
    counters: Arc<Counters>,
    balances: Balances,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Accepted>>,
    acceptor: JoinHandle<()>,
    thread: Handle,
}

impl QuicEndpoint {
    fn dial(
        &self,
        addr: SocketAddr,
        peer: Option<PeerId>,
        known: Option<PublicIdentity>,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        count(&self.counters.dialed);
        self.socket.on_dial(addr);
        let started = Instant::now();
        let client = client_config(&self.config.crypto, peer.as_ref(), known.as_ref(), Arc::clone(&self.transport));
        let (limit, crypto) = (self.config.handshake_timeout, Arc::clone(&self.config.crypto));
        let (quic, dial) = (self.quic.clone(), self.balances.dial(addr));
        let dialed = drivers::run(&self.thread, async move {
            let _dial = dial;
            let name = peer.unwrap_or(NOBODY).to_server_name();
            let connecting = client.and_then(|client| quic.connect_with(client, addr, &name).map_err(local));
            let dialed = handshake(connecting?, Role::Initiator, None, started, limit).await;
            if let Ok(link) = &dialed {
                note_own(&crypto, link.as_ref());
            }
            dialed.inspect_err(|error| note_refusal(&crypto, error))
        });
        dialed.map(|dialed| dialed.unwrap_or_else(|| Err(local("the handshake was broken off here")))).boxed()
    }
}

impl Endpoint for QuicEndpoint {
    fn connect(
        &self,
        addr: SocketAddr,
        peer: PeerId,
        known: Option<PublicIdentity>,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        self.dial(addr, Some(peer), known)
    }

    fn connect_anybody(&self, addr: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        self.dial(addr, None, None)
    }

    fn accept(&self) -> BoxFuture<'_, Option<Accepted>> {
        async { self.incoming.lock().await.recv().await }.boxed()
    }

    fn close(&self) {
        self.quic.close(0u32.into(), b"");
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        super::drained(&self.quic).boxed()
    }

    fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        self.quic.local_addr().map(canonical).map_err(local)
    }

    fn stats(&self) -> EndpointStats {
        let counters = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EndpointStats {
            dialed: read(&counters.dialed),
            accepted: read(&counters.accepted),
            failed: read(&counters.failed),
            retried: read(&counters.retried),
            ignored: read(&counters.ignored),
            displaced: read(&counters.displaced),
            withheld: read(&counters.withheld),
            unfinished: counters.unfinished.load(Ordering::Relaxed),
            open: self.quic.open_connections(),
            send_errors: read(&counters.send_errors),
            strangers: read(&counters.strangers),
        }
    }
}

impl Drop for QuicEndpoint {
    fn drop(&mut self) {
        self.close();
        self.acceptor.abort();
    }
}

async fn handshake(
    connecting: quic::Connecting,
    side: Role,
    moved: Option<&super::Moved>,
    started: Instant,
    limit: Duration,
) -> Result<Box<dyn Connection>, LinkError> {
    let finished = tokio::time::timeout_at(started + limit, connecting).await;
    let quic = finished.map_err(|_| LinkError::TimedOut)?.map_err(|error| link_error(&error))?;
    let identity = identity_of(&quic).map_err(LinkError::RefusedByUs)?;
    let remote = super::remote(&quic).map(canonical);
    let Some(remote) = remote else {
        return Err(quic.close_reason().map_or(LinkError::TimedOut, |error| link_error(&error)));
    };
    let (remote, took) = (Mutex::new(remote), started.elapsed());
    let _watched = moved.map(|moved| moved.watch(&quic));
    Ok(Box::new(QuicConnection { peer: identity.peer_id(), identity, side, took, remote, _watched, quic }))
}

/// Reads the proven identity; an early return drops the connection, which closes it.
fn identity_of(quic: &quic::Connection) -> Result<PublicIdentity, Refusal> {
    let data = quic.handshake_data().and_then(|any| any.downcast::<quic::crypto::rustls::HandshakeData>().ok());
    // The ClientHello is padded with protocol names that nobody may select.
    if data.and_then(|data| data.protocol).as_deref() != Some(ALPN) {
        return Err(Refusal::NoCommonProtocol);
    }
    let certs = quic.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    peer_from_certs(&certs.ok_or(Refusal::AnonymousPeer)?)
}

#[derive(Debug)]
struct QuicConnection {
    peer: PeerId,
    identity: PublicIdentity,
    side: Role,
    took: Duration,
    /// The last address known, for when the stack has already forgotten the path.
    remote: Mutex<SocketAddr>,
    /// Where it was accepted: links that are dialed do not move. Before the connection, which is closed by then.
    _watched: Option<super::Watched>,
    quic: quic::Connection,
}

impl Connection for QuicConnection {
    fn peer(&self) -> PeerId {
        self.peer
    }

    fn public_identity(&self) -> &PublicIdentity {
        &self.identity
    }

    fn remote(&self) -> SocketAddr {
        let mut last = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = super::remote(&self.quic) {
            *last = canonical(now);
        }
        *last
    }

    fn side(&self) -> Role {
        self.side
    }

    fn open_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        let quic = self.quic.clone();
        async move { quic.open_bi().await.map(boxed).map_err(|error| link_error(&error)) }.boxed()
    }

    fn accept_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        let quic = self.quic.clone();
        async move { quic.accept_bi().await.map(boxed).map_err(|error| link_error(&error)) }.boxed()
    }

    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> Result<(), LinkError> {
        let exported = self.quic.export_keying_material(out, label, context);
        exported.map_err(|_| LinkError::Local("no keying material of that length".to_owned()))
    }

    fn close(&self, code: u32, reason: &str) {
        self.quic.close(code.into(), reason.as_bytes());
    }

    fn closed(&self) -> BoxFuture<'static, LinkError> {
        let quic = self.quic.clone();
        async move { link_error(&quic.closed().await) }.boxed()
    }

    fn rtt(&self) -> Duration {
        super::rtt(&self.quic)
    }

    fn handshake_time(&self) -> Duration {
        self.took
    }
}

impl Drop for QuicConnection {
    // Explicit, because futures and streams made from this link hold the QUIC connection as well.
    fn drop(&mut self) {
        self.quic.close(CLOSE_DROPPED.into(), b"");
    }
}

fn boxed((send, recv): (quic::SendStream, quic::RecvStream)) -> (ControlSend, ControlRecv) {
    (Box::pin(send), Box::pin(recv))
}
