// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links of a world: what a QUIC connection does above UDP, made of the fabric's routes and delays.
//!
//! Bytes arrive in order or not at all, later where something was lost, and wait while nothing passes: like QUIC a link
//! does not end by that. It ends when a side closes it, and with a reset when its other end has forgotten it. The
//! dialler's end survives a change of the dialler's address, the other end does not survive one of its own.

mod stream;

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use pqvpn_crypto::{
    identity::{Identity, PublicIdentity},
    peer_id::PeerId,
    schedule::Role,
    tls::{Admission, Refusal, Side},
};
use pqvpn_node::link::{
    CLOSE_DROPPED, Connection, ControlRecv, ControlSend, Endpoint, EndpointStats, LinkError, PeerReason,
};
use pqvpn_wire::control::CloseReason;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Notify, mpsc},
    time::{sleep, sleep_until},
};

use self::stream::{Pipe, Reader, Writer};
use super::fabric::{Fabric, Inner};

/// First and longest wait before what did not pass is sent again, and how long a handshake may take.
const AGAIN: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(8));
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Finished incoming links that may wait.
const ACCEPT_QUEUE: usize = 64;
/// Control streams that may wait to be accepted.
const STREAM_QUEUE: usize = 64;

/// Whoever listens on a host.
pub(super) struct Listener {
    incoming: mpsc::Sender<SimConnection>,
    admission: Arc<dyn Admission>,
}

/// The endpoint of one start of a node.
pub(super) struct SimEndpoint {
    fabric: Fabric,
    number: usize,
    boot: u64,
    /// Held for its life.
    _listener: Arc<Listener>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<SimConnection>>,
}

/// One link, as both ends share it.
pub(super) struct Core {
    id: u64,
    ends: [End; 2],
    secret: [u8; 32],
    state: Mutex<State>,
    changed: Notify,
    fabric: Fabric,
}

struct End {
    number: usize,
    boot: u64,
    identity: Arc<Identity>,
}

struct State {
    /// Where each end sees the other.
    remotes: [SocketAddr; 2],
    closed: [Option<LinkError>; 2],
    /// Streams that wait to be accepted, by end.
    waiting: [VecDeque<(ControlSend, ControlRecv)>; 2],
    pipes: Vec<Weak<Pipe>>,
    /// When what was sent last by an end arrives: nothing overtakes it.
    arrives: [Option<Instant>; 2],
    rtt: Duration,
}

/// One end of a link.
#[derive(Clone)]
pub(super) struct SimConnection(Arc<Handle>);

struct Handle {
    core: Arc<Core>,
    end: usize,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimEndpoint {
    /// Listens on a host, in the place of what did before.
    pub(super) fn open(fabric: &Fabric, number: usize, boot: u64, admission: Arc<dyn Admission>) -> Self {
        let (sender, incoming) = mpsc::channel(ACCEPT_QUEUE);
        let listener = Arc::new(Listener { incoming: sender, admission });
        fabric.lock().places[number].listener = Some(Arc::downgrade(&listener));
        Self { fabric: fabric.clone(), number, boot, _listener: listener, incoming: tokio::sync::Mutex::new(incoming) }
    }

    fn dial(&self, to: SocketAddr, peer: Option<PeerId>) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        let (fabric, number, boot) = (self.fabric.clone(), self.number, self.boot);
        async move {
            let connection = handshake(&fabric, (number, boot), to, peer).await?;
            Ok(Box::new(connection) as Box<dyn Connection>)
        }
        .boxed()
    }
}

/// Two messages there and one back, each again until it passes.
async fn handshake(
    fabric: &Fabric,
    (number, boot): (usize, u64),
    to: SocketAddr,
    peer: Option<PeerId>,
) -> Result<SimConnection, LinkError> {
    let (began, mut wait) = (now(), AGAIN.0);
    loop {
        if fabric.lock().places[number].boot != boot {
            return Err(LinkError::ClosedByUs);
        }
        let passes = fabric.lock().round_trip(number, to);
        if let Some(rtt) = passes {
            sleep(rtt).await;
            if let Some(done) = meet(fabric, (number, boot), to, peer, rtt) {
                return done;
            }
        }
        if now().saturating_duration_since(began) + wait >= HANDSHAKE {
            sleep_until((began + HANDSHAKE).into()).await;
            return Err(LinkError::TimedOut);
        }
        sleep(wait).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

impl Inner {
    /// How long it takes to an address and back; None if something is lost or nobody answers.
    fn round_trip(&mut self, number: usize, to: SocketAddr) -> Option<Duration> {
        let (end, seen) = self.route(number, to)?;
        let there = self.delay(number, end);
        let (back, from) = self.route(end, seen)?;
        let lost = self.is_lost() || self.is_lost();
        (back == number && from == to && !lost).then(|| there + self.delay(end, number))
    }
}

/// The moment in which the two ends have met; None if they have not.
fn meet(
    fabric: &Fabric,
    (number, boot): (usize, u64),
    to: SocketAddr,
    peer: Option<PeerId>,
    rtt: Duration,
) -> Option<Result<SimConnection, LinkError>> {
    let mut inner = fabric.lock();
    if inner.places[number].boot != boot {
        return Some(Err(LinkError::ClosedByUs));
    }
    let (end, seen) = inner.route(number, to)?;
    let listener = inner.places[end].listener.as_ref().and_then(Weak::upgrade)?;
    if peer.is_some_and(|peer| peer != inner.places[end].peer) {
        return Some(Err(LinkError::RefusedByUs(Refusal::WrongPeerId)));
    }
    let make = |number: usize| End {
        number,
        boot: inner.places[number].boot,
        identity: Arc::clone(&inner.places[number].identity),
    };
    let ends = [make(number), make(end)];
    let id = inner.next_link;
    inner.next_link += 1;
    inner.log.links += 1;
    let mut hash = Sha256::new();
    hash.update(b"link");
    hash.update(inner.places[number].peer.as_bytes());
    hash.update(id.to_be_bytes());
    let state = State {
        remotes: [to, seen],
        closed: [None, None],
        waiting: Default::default(),
        pipes: Vec::new(),
        arrives: [None, None],
        rtt,
    };
    let core = Arc::new(Core {
        id,
        ends,
        secret: hash.finalize().into(),
        state: Mutex::new(state),
        changed: Notify::new(),
        fabric: fabric.clone(),
    });
    inner.links.insert(id, Arc::downgrade(&core));
    inner.log.trace(&format!("link {id} {number} {end}"));
    drop(inner);
    let dialler = core.ends[0].identity.public();
    let (ours, theirs) = (Handle { core: Arc::clone(&core), end: 0 }, Handle { core: Arc::clone(&core), end: 1 });
    let (ours, theirs) = (SimConnection(Arc::new(ours)), SimConnection(Arc::new(theirs)));
    let admitted = listener.admission.admit(&dialler.peer_id(), dialler, Side::Listener);
    let refused = match admitted {
        Err(_) => Some(LinkError::RefusedByPeer(PeerReason::NotAccepted)),
        Ok(()) => listener.incoming.try_send(theirs).err().map(|_| LinkError::RefusedByPeer(PeerReason::Busy)),
    };
    if let Some(refused) = refused {
        core.end_later(0, refused, rtt / 2);
    }
    Some(Ok(ours))
}

impl Endpoint for SimEndpoint {
    fn connect(
        &self,
        addr: SocketAddr,
        peer: PeerId,
        _known: Option<PublicIdentity>,
    ) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        self.dial(addr, Some(peer))
    }

    fn connect_anybody(&self, addr: SocketAddr) -> BoxFuture<'static, Result<Box<dyn Connection>, LinkError>> {
        self.dial(addr, None)
    }

    fn accept(&self) -> BoxFuture<'_, Option<Result<Box<dyn Connection>, LinkError>>> {
        async move {
            let next = self.incoming.lock().await.recv().await?;
            Some(Ok(Box::new(next) as Box<dyn Connection>))
        }
        .boxed()
    }

    fn close(&self) {
        let mut inner = self.fabric.lock();
        if inner.places[self.number].boot == self.boot {
            inner.places[self.number].listener = None;
        }
        let links: Vec<Arc<Core>> = inner.links.values().filter_map(Weak::upgrade).collect();
        drop(inner);
        for core in links {
            for end in 0..2 {
                if core.ends[end].number == self.number && core.ends[end].boot == self.boot {
                    core.close(end, 0, "closed");
                }
            }
        }
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        Ok(self.fabric.lock().places[self.number].at)
    }

    fn stats(&self) -> EndpointStats {
        EndpointStats::default()
    }
}

impl fmt::Debug for SimEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimEndpoint").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Core {
    /// Whether something sent by an end now arrives at the other, and when.
    fn passes(&self, end: usize) -> Option<Instant> {
        let mut inner = self.fabric.lock();
        let (us, them) = (&self.ends[end], &self.ends[1 - end]);
        if inner.places[us.number].boot != us.boot {
            return None;
        }
        let mut state = lock(&self.state);
        let (reached, seen) = inner.route(us.number, state.remotes[end])?;
        if reached != them.number || inner.is_lost() {
            return None;
        }
        if inner.places[them.number].boot != them.boot || state.closed[1 - end].is_some() {
            drop(state);
            // Whoever is there does not know the link.
            let delay = inner.distance(us.number, them.number) * 2;
            drop(inner);
            self.end_now_or_later(end, LinkError::Reset, delay);
            return None;
        }
        if end == 1 && seen != state.remotes[0] {
            return None;
        }
        if end == 0 {
            state.remotes[1] = seen;
        }
        let delay = inner.delay(us.number, them.number);
        let at = inner.moment(delay);
        let at = state.arrives[end].map_or(at, |last| last.max(at));
        state.arrives[end] = Some(at);
        Some(at)
    }

    fn end_now_or_later(&self, end: usize, error: LinkError, delay: Duration) {
        let link = self.fabric.lock().links.get(&self.id).and_then(Weak::upgrade);
        if let Some(core) = link {
            core.end_later(end, error, delay);
        }
    }

    fn end_later(self: &Arc<Self>, end: usize, error: LinkError, delay: Duration) {
        let core = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(delay).await;
            if let Some(core) = core.upgrade() {
                core.end(end, error);
            }
        });
    }

    /// An end has ended.
    pub(super) fn end(&self, end: usize, error: LinkError) {
        let mut state = lock(&self.state);
        if state.closed[end].is_some() {
            return;
        }
        state.closed[end] = Some(error);
        state.waiting[end].clear();
        let pipes: Vec<Arc<Pipe>> = state.pipes.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        for pipe in pipes {
            if let Some(reader) = lock(&pipe.state).reader.take() {
                reader.wake();
            }
        }
        self.changed.notify_waiters();
    }

    /// An end closes the link and tells the other, if that can be told.
    fn close(&self, end: usize, code: u32, reason: &str) {
        if lock(&self.state).closed[end].is_some() {
            return;
        }
        let told = self.passes(end);
        self.end(end, LinkError::ClosedByUs);
        if let Some(at) = told {
            let error = LinkError::Closed { code: code.into(), reason: reason.to_owned() };
            self.end_now_or_later(1 - end, error, at.saturating_duration_since(now()));
        }
    }

    /// Ends it as if its packets had been lost for ever, at both ends.
    pub(super) fn break_off(&self) {
        self.end(0, LinkError::TimedOut);
        self.end(1, LinkError::TimedOut);
    }

    /// A host has lost everything it had in memory.
    pub(super) fn forget(&self, number: usize, boot: u64) {
        for end in 0..2 {
            if self.ends[end].number == number && self.ends[end].boot <= boot {
                self.end(end, LinkError::ClosedByUs);
            }
        }
    }

    pub(super) fn is_over(&self) -> bool {
        lock(&self.state).closed.iter().all(Option::is_some)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.fabric.lock().links.remove(&self.id);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.close(self.end, CLOSE_DROPPED, "dropped");
    }
}

impl SimConnection {
    fn pipes(&self) -> (ControlSend, ControlRecv) {
        let (core, end) = (&self.0.core, self.0.end);
        let pipe = |end| Arc::new(Pipe { core: Arc::downgrade(core), end, state: Mutex::default() });
        let (out, back) = (pipe(end), pipe(1 - end));
        let mut state = lock(&core.state);
        state.pipes.retain(|pipe| pipe.strong_count() > 0);
        state.pipes.extend([Arc::downgrade(&out), Arc::downgrade(&back)]);
        drop(state);
        // The other end sees the stream with its first byte.
        let theirs: (ControlSend, ControlRecv) = (
            Box::pin(Writer { pipe: Arc::clone(&back), opens: None }),
            Box::pin(Reader::new(Arc::clone(&out), 1 - end)),
        );
        let ours: (ControlSend, ControlRecv) =
            (Box::pin(Writer { pipe: out, opens: Some(theirs) }), Box::pin(Reader::new(back, end)));
        ours
    }
}

impl Connection for SimConnection {
    fn peer(&self) -> PeerId {
        self.0.core.ends[1 - self.0.end].identity.peer_id()
    }

    fn public_identity(&self) -> &PublicIdentity {
        self.0.core.ends[1 - self.0.end].identity.public()
    }

    fn remote(&self) -> SocketAddr {
        lock(&self.0.core.state).remotes[self.0.end]
    }

    fn side(&self) -> Role {
        if self.0.end == 0 { Role::Initiator } else { Role::Responder }
    }

    fn open_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        let closed = lock(&self.0.core.state).closed[self.0.end].clone();
        let opened = closed.map_or_else(|| Ok(self.pipes()), Err);
        async move { opened }.boxed()
    }

    fn accept_control(&self) -> BoxFuture<'static, Result<(ControlSend, ControlRecv), LinkError>> {
        let (core, end) = (Arc::downgrade(&self.0.core), self.0.end);
        async move {
            loop {
                let Some(core) = core.upgrade() else { return Err(LinkError::ClosedByUs) };
                let changed = core.changed.notified();
                let mut changed = Box::pin(changed);
                changed.as_mut().enable();
                {
                    let mut state = lock(&core.state);
                    if let Some(stream) = state.waiting[end].pop_front() {
                        return Ok(stream);
                    }
                    if let Some(error) = &state.closed[end] {
                        return Err(error.clone());
                    }
                }
                changed.await;
            }
        }
        .boxed()
    }

    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8]) -> Result<(), LinkError> {
        for (number, chunk) in out.chunks_mut(32).enumerate() {
            let mut hash = Sha256::new();
            hash.update(self.0.core.secret);
            hash.update((label.len() as u64).to_be_bytes());
            hash.update(label);
            hash.update(context);
            hash.update((number as u64).to_be_bytes());
            let bytes: [u8; 32] = hash.finalize().into();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }

    fn close(&self, code: u32, reason: &str) {
        if code == CloseReason::Asleep.code() {
            self.0.core.fabric.lock().log.slept += 1;
        }
        self.0.core.close(self.0.end, code, reason);
    }

    fn closed(&self) -> BoxFuture<'static, LinkError> {
        let (core, end) = (Arc::downgrade(&self.0.core), self.0.end);
        async move {
            loop {
                let Some(core) = core.upgrade() else { return LinkError::ClosedByUs };
                let mut changed = Box::pin(core.changed.notified());
                changed.as_mut().enable();
                if let Some(error) = lock(&core.state).closed[end].clone() {
                    return error;
                }
                changed.await;
            }
        }
        .boxed()
    }

    fn rtt(&self) -> Duration {
        lock(&self.0.core.state).rtt
    }

    fn handshake_time(&self) -> Duration {
        lock(&self.0.core.state).rtt
    }
}

impl fmt::Debug for SimConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimConnection").field("link", &self.0.core.id).field("end", &self.0.end).finish()
    }
}
