// SPDX-License-Identifier: MIT OR Apache-2.0
//! The listening side of an endpoint: first packets, the gate, and the handshakes behind it.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pqvpn_crypto::schedule::Role;
use pqvpn_crypto::tls::LinkCrypto;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::super::{AbstractSocket, quic};
use super::socket::{Balances, Limit};
use super::{Accepted, Counters, count, handshake, link_error, note_refusal};
use crate::link::{Behind, Gate, Place, Places, Room, Standing, Verdict};

/// How long a failed handshake keeps its state, to repeat why it failed: three probe timeouts before any RTT sample.
const FAREWELL: Duration = Duration::from_secs(3);

/// The task that passes first packets through the gate and sees their handshakes through.
pub(super) struct Acceptor {
    pub(super) quic: quic::Endpoint,
    pub(super) gate: Gate,
    pub(super) waiting: Waiting,
    pub(super) behind: Behind,
    pub(super) handshake_timeout: Duration,
    pub(super) crypto: Arc<LinkCrypto>,
    pub(super) counters: Arc<Counters>,
    pub(super) balances: Balances,
    pub(super) moved: super::super::Moved,
    pub(super) queue: mpsc::Sender<Accepted>,
}

impl Acceptor {
    pub(super) async fn run(mut self) {
        let mut handshakes = JoinSet::new();
        // Beside the handshakes: it must not take the acceptor with it.
        handshakes.spawn(self.moved.clone().run());
        loop {
            tokio::select! {
                incoming = self.quic.accept() => match incoming {
                    Some(incoming) => self.judge(incoming, &mut handshakes),
                    None => break,
                },
                Some(_) = handshakes.join_next() => {}
            }
            self.counters.unfinished.store(self.waiting.places().taken(), Ordering::Relaxed);
        }
    }

    fn judge(&mut self, incoming: quic::Incoming, handshakes: &mut JoinSet<()>) {
        // Finished ones leave before new ones are judged.
        while handshakes.try_join_next().is_some() {}
        let source = self.behind.host(incoming.remote_address());
        let (now, proven) = (Instant::now().into_std(), incoming.remote_address_validated());
        // Only who has proven its address can make somebody leave.
        let mut room = Room::None;
        let verdict = {
            let places = self.waiting.places();
            let find = || {
                room = places.room(now, source);
                room
            };
            self.gate.judge(now, source, proven, places.taken(), find)
        };
        let (from, to) = (incoming.remote_address(), incoming.orig_dst_cid());
        let balance = (verdict == Verdict::Accept && !proven).then(|| self.balances.begin(from, &to)).flatten();
        match verdict {
            // Nobody is answered without a limit or a proof.
            Verdict::Accept if !proven && balance.is_none() => self.retry(incoming),
            Verdict::Accept => {
                if proven {
                    self.balances.prove(from, &to);
                }
                // Nobody leaves for what only looks like a first packet.
                let (connecting, driver) = OwnedDrivers::driver_of(|| incoming.accept());
                let connecting = match connecting {
                    Ok(connecting) => connecting,
                    Err(error) => {
                        count(&self.counters.failed);
                        drop(self.queue.try_send(Err(link_error(&error))));
                        return;
                    }
                };
                if let Room::InsteadOf(leaves) = room {
                    count(&self.counters.displaced);
                    self.waiting.displace(leaves);
                }
                let ticket = self.waiting.enter(now, source);
                handshakes.spawn(self.finish(connecting, driver, ticket, balance));
            }
            Verdict::Retry => self.retry(incoming),
            Verdict::Ignore => {
                count(&self.counters.ignored);
                incoming.ignore();
            }
        }
    }

    fn retry(&self, incoming: quic::Incoming) {
        count(&self.counters.retried);
        if let Err(refused) = incoming.retry() {
            refused.into_incoming().ignore();
        }
    }

    /// Finishes a handshake that has begun and delivers it, or sees its remains off.
    fn finish(
        &self,
        connecting: quic::Connecting,
        mut driver: Option<JoinHandle<()>>,
        mut ticket: Ticket,
        balance: Option<Limit>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (started, limit) = (Instant::now(), self.handshake_timeout);
        let (counters, crypto, queue) = (Arc::clone(&self.counters), Arc::clone(&self.crypto), self.queue.clone());
        let moved = self.moved.clone();
        async move {
            let finishing = handshake(connecting, Role::Responder, Some(&moved), started, limit);
            let accepted = tokio::select! {
                accepted = finishing => accepted,
                () = ticket.displaced() => {
                    count(&counters.failed);
                    forget(driver.as_ref());
                    return;
                }
            };
            count(if accepted.is_ok() { &counters.accepted } else { &counters.failed });
            match accepted {
                // It waits for `accept` and keeps its place among the unfinished.
                Ok(link) => {
                    ticket.note(Standing::Finished);
                    // It has proven its address.
                    drop(balance);
                    drop(queue.send(Ok(link)).await);
                }
                Err(error) => {
                    ticket.note(Standing::Failed);
                    tracing::debug!(%error, "incoming handshake failed");
                    note_refusal(&crypto, &error);
                    drop(queue.try_send(Err(error)));
                    tokio::select! {
                        () = ticket.displaced() => {}
                        () = bury(driver.as_mut()) => {}
                    }
                    forget(driver.as_ref());
                }
            }
        }
    }
}

/// Handshakes that hold a place.
pub(super) struct Waiting(Arc<Mutex<Shared>>);

struct Shared {
    places: Places,
    /// Dropped to tell one that it is displaced.
    stay: HashMap<Place, oneshot::Sender<()>>,
}

impl Waiting {
    pub(super) fn new(limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Shared { places: Places::new(limit), stay: HashMap::new() })))
    }

    fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
        shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MappedPlaces<'_> {
        MappedPlaces(Self::lock(&self.0))
    }

    fn enter(&self, now: std::time::Instant, source: IpAddr) -> Ticket {
        let (stay, displaced) = oneshot::channel();
        let mut shared = Self::lock(&self.0);
        let place = shared.places.take(now, source);
        shared.stay.insert(place, stay);
        Ticket { place, displaced, shared: Arc::clone(&self.0) }
    }

    fn displace(&self, place: Place) {
        let mut shared = Self::lock(&self.0);
        shared.places.leave(place);
        shared.stay.remove(&place);
    }
}

/// A look at the places.
struct MappedPlaces<'w>(MutexGuard<'w, Shared>);

impl std::ops::Deref for MappedPlaces<'_> {
    type Target = Places;

    fn deref(&self) -> &Places {
        &self.0.places
    }
}

/// The right to a place, which ends with it.
struct Ticket {
    place: Place,
    displaced: oneshot::Receiver<()>,
    shared: Arc<Mutex<Shared>>,
}

impl Ticket {
    /// Resolves when somebody else has got the place.
    async fn displaced(&mut self) {
        _ = (&mut self.displaced).await;
    }

    fn note(&self, standing: Standing) {
        Waiting::lock(&self.shared).places.note(self.place, standing);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut shared = Waiting::lock(&self.shared);
        shared.places.leave(self.place);
        shared.stay.remove(&self.place);
    }
}

/// Waits for a failed connection to be forgotten, and forces it.
///
/// Both stacks start no closing timer for a connection whose very first packet closes it: such state would stay for
/// the idle timeout, an hour, at the price of one forged datagram.
async fn bury(driver: Option<&mut JoinHandle<()>>) {
    let Some(driver) = driver else { return };
    // What is left then is forgotten by force.
    _ = tokio::time::timeout(FAREWELL, driver).await;
}

/// Ends a connection's state without a word.
fn forget(driver: Option<&JoinHandle<()>>) {
    if let Some(driver) = driver {
        driver.abort();
    }
}

/// The runtime of links, but a connection's driver task can be taken hold of by who began the connection.
#[derive(Debug)]
pub(super) struct OwnedDrivers(pub(super) Handle);

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
        let _there = self.0.enter();
        quic::TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        LAST_SPAWNED.set(Some(self.0.spawn(future)));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<AbstractSocket> {
        quic::TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> std::time::Instant {
        quic::TokioRuntime.now()
    }
}
