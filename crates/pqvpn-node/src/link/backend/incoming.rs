// SPDX-License-Identifier: MIT OR Apache-2.0
//! The listening side of an endpoint: first packets, the gate, and the handshakes behind it.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pqvpn_crypto::schedule::Role;
use pqvpn_crypto::tls::LinkCrypto;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::super::{AbstractSocket, quic};
use super::{Accepted, Counters, count, handshake, link_error, note_refusal};
use crate::link::{Behind, Gate, Verdict};

/// How long a failed handshake keeps its state, to repeat why it failed: three probe timeouts before any RTT sample.
const FAREWELL: Duration = Duration::from_secs(3);

/// The task that passes first packets through the gate and sees their handshakes through.
pub(super) struct Acceptor {
    pub(super) quic: quic::Endpoint,
    pub(super) gate: Gate,
    pub(super) behind: Behind,
    pub(super) handshake_timeout: Duration,
    pub(super) crypto: Arc<LinkCrypto>,
    pub(super) counters: Arc<Counters>,
    pub(super) queue: mpsc::Sender<Accepted>,
}

impl Acceptor {
    pub(super) async fn run(mut self) {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                incoming = self.quic.accept() => match incoming {
                    Some(incoming) => self.judge(incoming, &mut handshakes),
                    None => break,
                },
                Some(_) = handshakes.join_next() => {}
            }
            self.counters.unfinished.store(handshakes.len(), Ordering::Relaxed);
        }
    }

    fn judge(&mut self, incoming: quic::Incoming, handshakes: &mut JoinSet<()>) {
        // Finished ones leave before new ones are judged.
        while handshakes.try_join_next().is_some() {}
        let source = self.behind.host(incoming.remote_address());
        let proven = incoming.remote_address_validated();
        match self.gate.judge(Instant::now().into_std(), source, proven, handshakes.len()) {
            Verdict::Accept => {
                handshakes.spawn(self.begin(incoming));
            }
            Verdict::Retry => {
                count(&self.counters.retried);
                if let Err(refused) = incoming.retry() {
                    refused.into_incoming().ignore();
                }
            }
            Verdict::Ignore => {
                count(&self.counters.ignored);
                incoming.ignore();
            }
        }
    }

    /// Begins the handshake now; the returned future finishes and delivers it, or sees its remains off.
    fn begin(&self, incoming: quic::Incoming) -> impl Future<Output = ()> + Send + 'static {
        let (started, limit) = (Instant::now(), self.handshake_timeout);
        let (counters, crypto, queue) = (Arc::clone(&self.counters), Arc::clone(&self.crypto), self.queue.clone());
        let (connecting, driver) = OwnedDrivers::driver_of(|| incoming.accept());
        async move {
            let accepted = match connecting {
                Ok(connecting) => handshake(connecting, Role::Responder, started, limit).await,
                Err(error) => Err(link_error(&error)),
            };
            count(if accepted.is_ok() { &counters.accepted } else { &counters.failed });
            match accepted {
                // It waits for `accept` and keeps its place among the unfinished.
                Ok(link) => drop(queue.send(Ok(link)).await),
                Err(error) => {
                    tracing::debug!(%error, "incoming handshake failed");
                    note_refusal(&crypto, &error);
                    drop(queue.try_send(Err(error)));
                    bury(driver).await;
                }
            }
        }
    }
}

/// Waits for a failed connection to be forgotten, and forces it.
///
/// Both stacks start no closing timer for a connection whose very first packet closes it: such state would stay for
/// the idle timeout, an hour, at the price of one forged datagram.
async fn bury(driver: Option<JoinHandle<()>>) {
    let Some(mut driver) = driver else { return };
    if tokio::time::timeout(FAREWELL, &mut driver).await.is_err() {
        driver.abort();
    }
}

/// The tokio runtime, but a connection's driver task can be taken hold of by who began the connection.
#[derive(Debug)]
pub(super) struct OwnedDrivers;

thread_local! {
    /// The task spawned last on this thread: beginning a connection spawns its driver before it returns.
    static LAST_SPAWNED: Cell<Option<JoinHandle<()>>> = const { Cell::new(None) };
}

impl OwnedDrivers {
    fn driver_of<T>(begin: impl FnOnce() -> T) -> (T, Option<JoinHandle<()>>) {
        LAST_SPAWNED.set(None);
        (begin(), LAST_SPAWNED.take())
    }
}

impl quic::Runtime for OwnedDrivers {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn quic::AsyncTimer>> {
        quic::TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        LAST_SPAWNED.set(Some(tokio::spawn(future)));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<AbstractSocket> {
        quic::TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> std::time::Instant {
        quic::TokioRuntime.now()
    }
}
