// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carriers: what takes datagrams where plain UDP does not pass. The ladder is UDP, QUIC to UDP port 443, a WebSocket over
//! TLS to TCP port 443, straight or by an HTTP proxy.
//!
//! ```text
//!  dial ─► Carriers (an Endpoint) ─┬─ at once ─────► UDP ────────────────► link
//!                                  ├─ after 250 ms ► UDP port 443 ───────► link
//!                                  └─ after 1 s ───► Client ─► WebSocket ─► way ─► link over the way
//!  TCP 443 ─► Server ─► a page, or with the secret path a WebSocket ─► way     UDP 443 ─► way for each address
//!  packet threads ─► way ─► Sink (bounded, 200 ms) ─► stream          stream ─► Plane::inject ─► packet threads
//! ```
//! A carrier is a *carried way* of the data plane: links, sessions and probes go it like any other address, so nothing above
//! knows of carriers, and what they carry is sealed already. While something else than UDP carries, UDP is looked for now and
//! then, and links move back to it.

mod client;
mod climb;
mod dial;
#[cfg(test)]
mod fake;
mod hush;
mod ladder;
mod limits;
mod listen;
mod memory;
mod proxy;
mod queue;
mod secret;
mod server;
mod stream;
mod thread;
mod tls;
mod udp;
mod watched;
mod ways;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId};
use pqvpn_dataplane::way::WayId;
use tokio::sync::{Notify, watch};

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use self::memory::fuzz as fuzz_memory;
use self::{
    client::Client,
    climb::{climb, insist},
    ladder::{Carrier, Ladder, PORT, Plan},
    memory::{Fingerprint, Memory, NetworkKey},
    thread::Thread,
    watched::Watched,
};
pub(crate) use self::{
    hush::Hush,
    ladder::Rung,
    listen::Listening,
    ways::{Place, Plane, Ways, by_member, is_by_member, is_carried},
};
pub use self::{
    listen::{CarrierListen, Transport},
    proxy::{BadProxy, Proxy, ProxyChoice},
};
use crate::{
    clock,
    host::{Surroundings, surroundings},
    link::{Connection, Endpoint, EndpointStats, LinkError},
};

type Link = Result<Box<dyn Connection>, LinkError>;

/// The carriers of a node; cheap to clone. As an [`Endpoint`] it dials by whatever gets through.
#[derive(Clone)]
pub(crate) struct Carriers(Arc<Inner>, Whom);

/// Whom they dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Somebody whom the user or a network names.
    Known,
    /// Somebody whom strangers name: what they are reached by says nothing.
    Strangers,
}

struct Inner {
    plain: Arc<dyn Endpoint>,
    ways: Arc<Ways>,
    /// What carriers run on.
    thread: Arc<Thread>,
    client: Arc<Client>,
    ladder: Arc<Mutex<Ladder>>,
    memory: Mutex<(Memory, Option<Fingerprint>)>,
    network_key: NetworkKey,
    /// Counts how often UDP came back.
    udp_back: watch::Sender<u64>,
    /// Tells handshakes under way that the host's network has changed.
    network_news: Notify,
}

impl std::fmt::Debug for Carriers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Carriers")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Carriers {
    /// Over `plain`, which dials by UDP alone; what worked earlier is read from `dir`, where `key` names networks.
    ///
    /// # Errors
    /// [`LinkError::Local`]: no TLS, or no thread.
    pub(crate) async fn new(
        plain: Arc<dyn Endpoint>,
        ways: Arc<Ways>,
        proxy: Option<Proxy>,
        (dir, key): (&Path, &[u8; 32]),
    ) -> Result<Self, LinkError> {
        let thread = Thread::start().map_err(|error| LinkError::Local(error.to_string()))?;
        Self::with_memory(thread, plain, ways, proxy, (Memory::load(dir).await, NetworkKey::new(key)))
    }

    fn with_memory(
        thread: Thread,
        plain: Arc<dyn Endpoint>,
        ways: Arc<Ways>,
        proxy: Option<Proxy>,
        (memory, network_key): (Memory, NetworkKey),
    ) -> Result<Self, LinkError> {
        let tls = tls::client().map_err(|error| LinkError::Local(error.to_string()))?;
        let ladder = Arc::<Mutex<Ladder>>::default();
        let thread = Arc::new(thread);
        let client = Client::new(Arc::clone(&thread), Arc::clone(&ways), tls, proxy, Arc::clone(&ladder));
        let (memory, network_news) = (Mutex::new((memory, None)), Notify::new());
        let udp_back = watch::Sender::new(0);
        Ok(Self(
            Arc::new(Inner { plain, ways, thread, client, ladder, memory, network_key, udp_back, network_news }),
            Whom::Known,
        ))
    }

    /// Carriers of a node without a data plane and without a memory.
    #[cfg(test)]
    pub(crate) fn of_tests(plain: Arc<dyn Endpoint>) -> Self {
        let ways = Ways::new(Arc::<fake::FakePlane>::default(), |_| true);
        let memory = (Memory::default(), NetworkKey::new(&[0; 32]));
        Self::with_memory(Thread::of_tests(), plain, ways, None, memory).unwrap()
    }

    /// Carriers that carry nothing: `plain` is all there is, on the runtime of the caller.
    #[cfg(feature = "sim")]
    pub(crate) fn none(plain: Arc<dyn Endpoint>, plane: Arc<dyn Plane>) -> Result<Self, LinkError> {
        let memory = (Memory::default(), NetworkKey::new(&[0; 32]));
        Self::with_memory(Thread::of_caller()?, plain, Ways::new(plane, |_| true), None, memory)
    }

    /// Somebody who comes from `at`, by a carried way that ends with what is returned beside its address.
    #[cfg(test)]
    pub(crate) fn guest(&self, rung: Rung, at: SocketAddr) -> (SocketAddr, impl Send + use<>) {
        let way = self.0.ways.open(Place { rung, at }).unwrap();
        (way.id.address(), way)
    }

    /// The host is in a network: at the start, and when it has changed.
    fn on_network(&self, now: Instant, around: Option<&Surroundings>, is_news: bool) {
        let network = around.map(|around| self.0.network_key.fingerprint(around));
        let mut memory = lock(&self.0.memory);
        let remembered = network.as_ref().and_then(|network| memory.0.rung(network));
        memory.1 = network;
        drop(memory);
        tracing::debug!(remembered = remembered.map(Rung::name), "a network");
        lock(&self.0.ladder).on_network(now, remembered);
        if is_news {
            self.0.client.on_network_change();
            self.0.network_news.notify_waiters();
        }
    }

    /// Looks which network this host is in. `own_interface` leads into the overlay and is none.
    pub(crate) async fn look_around(&self, own_interface: Option<&str>, is_news: bool) {
        #[cfg(feature = "sim")]
        if crate::sim::now().is_some() {
            return self.on_network(clock::now(), None, is_news);
        }
        let around = surroundings(own_interface).await;
        let around = around.inspect_err(|error| tracing::debug!(%error, "no network is recognised")).ok().flatten();
        self.on_network(clock::now(), around.as_ref(), is_news);
    }

    /// Ends what this node dialled.
    pub(crate) fn stop(&self) {
        self.0.client.stop();
    }

    /// For dials to whom strangers name: by UDP, and by carriers where they are needed anyway.
    pub(crate) fn for_strangers(&self) -> Self {
        Self(Arc::clone(&self.0), Whom::Strangers)
    }

    /// Somebody authenticated was heard on a way.
    pub(crate) fn prove(&self, now: Instant, at: SocketAddr) {
        if is_carried(at) {
            self.0.ways.prove(now, at);
        }
    }

    /// Dials by UDP alone.
    pub(crate) fn plain(&self) -> Arc<dyn Endpoint> {
        Arc::clone(&self.0.plain)
    }

    /// What is at the other end of a carried way.
    pub(crate) fn place(&self, at: SocketAddr) -> Option<Place> {
        self.0.ways.place(at)
    }

    /// Where a network sees who is at an address. Behind a WebSocket and behind another member that is not told; who comes
    /// to UDP port 443 comes by the socket that everything of theirs leaves by.
    pub(crate) fn sight(&self, at: SocketAddr) -> Option<SocketAddr> {
        match self.place(at) {
            Some(place) => Some(place.at).filter(|_| place.rung == Rung::Quic),
            None => Some(at).filter(|at| WayId::of(*at).is_none()),
        }
    }

    /// The rung that datagrams to an address go by.
    pub(crate) fn rung(&self, at: SocketAddr) -> Rung {
        match self.place(at) {
            Some(place) => place.rung,
            None if at.port() == PORT && lock(&self.0.ladder).won() == Some(Rung::Quic) => Rung::Quic,
            None => Rung::Udp,
        }
    }

    /// Whether direct ways are tried seldom, because no UDP seems to pass at all.
    pub(crate) fn is_hushed(&self) -> bool {
        lock(&self.0.ladder).won() == Some(Rung::Wss)
    }

    /// Whether it is time to see whether UDP works by now.
    pub(crate) fn is_look_due(&self, now: Instant) -> bool {
        lock(&self.0.ladder).is_look_due(now)
    }

    /// When that is next.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        lock(&self.0.ladder).next_look()
    }

    /// No link is carried any more.
    pub(crate) fn on_nothing_carried(&self) {
        lock(&self.0.ladder).on_nothing_carried();
    }

    /// UDP was seen to work: a link that the ladder did not dial, an answer. The address of a way says nothing.
    pub(crate) fn on_udp(&self, now: Instant, at: SocketAddr) {
        if WayId::of(at).is_none() {
            self.worked(now, Rung::Udp, at);
        }
    }

    /// Waits until UDP is back. Cancel-safe on one receiver of [`Self::udp_back`].
    pub(crate) fn udp_back(&self) -> watch::Receiver<u64> {
        self.0.udp_back.subscribe()
    }

    fn ways(&self) -> &Arc<Ways> {
        &self.0.ways
    }

    fn thread(&self) -> &Thread {
        &self.0.thread
    }

    fn worked(&self, now: Instant, rung: Rung, at: SocketAddr) {
        let mut ladder = lock(&self.0.ladder);
        let was_blocked = ladder.is_udp_blocked();
        let is_news = ladder.on_worked(now, rung, at);
        let is_back = was_blocked && !ladder.is_udp_blocked();
        drop(ladder);
        if is_back {
            tracing::info!("UDP works again");
            self.0.udp_back.send_modify(|times| *times += 1);
        }
        if !is_news {
            return;
        }
        if rung != Rung::Udp {
            tracing::info!(carrier = rung.name(), "UDP does not get through here");
        }
        let mut memory = lock(&self.0.memory);
        let (kept, network) = &mut *memory;
        let writing = network.clone().and_then(|network| kept.note(network, rung));
        if let Some(writing) = writing {
            tokio::spawn(writing.write());
        }
    }

    fn plan(&self, at: SocketAddr, peer: PeerId) -> Plan {
        let ladder = lock(&self.0.ladder);
        match self.1 {
            Whom::Known => ladder.plan(clock::now(), at, peer),
            Whom::Strangers => ladder.plan_for_stranger(clock::now(), at, peer),
        }
    }

    async fn by_websocket(&self, at: IpAddr, peer: PeerId, known: Option<PublicIdentity>) -> Link {
        let way = self.0.client.way((at, peer), self.1).await;
        let way = way.map_err(|error| {
            tracing::debug!(peer = %peer.short(), %error, "no WebSocket");
            LinkError::TimedOut
        })?;
        Ok(self.watch(self.0.plain.connect(way, peer, known).await?))
    }

    async fn dial(self, at: SocketAddr, peer: PeerId, known: Option<PublicIdentity>, plan: Plan) -> Link {
        let plain = &self.0.plain;
        // Each is asked for when its turn comes: an endpoint sends as soon as it is asked.
        let udp = async {
            let attempt = || plain.connect(at, peer, known.clone());
            if self.1 == Whom::Known { insist(attempt, &self.0.network_news).await } else { attempt().await }
        };
        let quic = async {
            let mut tried = Tried { ladder: &self.0.ladder, at: at.ip(), began: Some(ticks()) };
            let link = plain.connect(SocketAddr::new(at.ip(), PORT), peer, known.clone()).await;
            tried.is_over(&link);
            link
        };
        let wss = self.by_websocket(at.ip(), peer, known.clone());
        let (rung, link) = climb(plan, udp, quic, wss).await?;
        if self.1 == Whom::Known || rung == Rung::Udp {
            self.worked(clock::now(), rung, at);
        }
        let found = match rung {
            Rung::Udp => None,
            Rung::Quic => Some(Carrier::Quic(at.ip())),
            Rung::Wss => Some(Carrier::Wss(at.ip(), peer)),
        };
        found.inspect(|carrier| lock(&self.0.ladder).on_found(*carrier));
        Ok(link)
    }

    /// A link that leads over a carried way, or may later: the way is not a stranger's then.
    fn watch(&self, link: Box<dyn Connection>) -> Box<dyn Connection> {
        let (link, now): (Arc<dyn Connection>, _) = (Arc::from(link), clock::now());
        self.0.ways.note_link(now, &link);
        self.on_udp(now, link.remote());
        Box::new(Watched(link))
    }
}

/// A try of UDP port 443 under way: one that was given up after a while has failed, as nothing else tells.
struct Tried<'l> {
    ladder: &'l Mutex<Ladder>,
    at: IpAddr,
    began: Option<Instant>,
}

/// The clock of tasks.
fn ticks() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What an answer takes at most, about.
const ANSWER: Duration = Duration::from_millis(700);

impl Tried<'_> {
    fn is_over(&mut self, link: &Link) {
        self.began = None;
        if matches!(link, Err(LinkError::TimedOut | LinkError::Reset)) {
            lock(self.ladder).on_failed(clock::now(), Carrier::Quic(self.at));
        }
    }
}

impl Drop for Tried<'_> {
    fn drop(&mut self) {
        let now = ticks();
        if self.began.is_some_and(|began| now.saturating_duration_since(began) >= ANSWER) {
            lock(self.ladder).on_failed(now, Carrier::Quic(self.at));
        }
    }
}

impl Endpoint for Carriers {
    fn connect(&self, at: SocketAddr, peer: PeerId, known: Option<PublicIdentity>) -> BoxFuture<'static, Link> {
        if WayId::of(at).is_some() {
            let (carriers, link) = (self.clone(), self.0.plain.connect(at, peer, known));
            return async move { Ok(carriers.watch(link.await?)) }.boxed();
        }
        let plan = self.plan(at, peer);
        self.clone().dial(at, peer, known, plan).boxed()
    }

    fn connect_anybody(&self, at: SocketAddr) -> BoxFuture<'static, Link> {
        self.0.plain.connect_anybody(at)
    }

    /// Where UDP does not get through a name is needed: a server shows itself to who asks for its own peer only.
    fn connect_named(&self, at: SocketAddr, peer: PeerId) -> BoxFuture<'static, Link> {
        if !self.meets_anybody(at, peer) {
            return self.connect(at, peer, None);
        }
        let (carriers, link) = (self.clone(), self.0.plain.connect_anybody(at));
        async move {
            let link = link.await?;
            carriers.worked(clock::now(), Rung::Udp, at);
            Ok(link)
        }
        .boxed()
    }

    fn meets_anybody(&self, at: SocketAddr, peer: PeerId) -> bool {
        WayId::of(at).is_none() && self.plan(at, peer) == Plan::default()
    }

    fn accept(&self) -> BoxFuture<'_, Option<Link>> {
        async { Some(self.0.plain.accept().await?.map(|link| self.watch(link))) }.boxed()
    }

    fn close(&self) {
        self.0.plain.close();
    }

    fn drained(&self) -> BoxFuture<'_, ()> {
        self.0.plain.drained()
    }

    fn local_addr(&self) -> Result<SocketAddr, LinkError> {
        self.0.plain.local_addr()
    }

    fn stats(&self) -> EndpointStats {
        self.0.plain.stats()
    }
}

#[cfg(test)]
mod tests;
