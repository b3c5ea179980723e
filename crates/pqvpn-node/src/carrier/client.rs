// SPDX-License-Identifier: MIT OR Apache-2.0
//! WebSockets of this node: one to each server, made when a dial needs it, made again when it breaks, closed when idle.

use std::{
    collections::BTreeMap,
    iter::repeat,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use pqvpn_crypto::peer_id::PeerId;
use rustls::ClientConfig;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    Place, Ways, Whom,
    dial::{self, DialError, Dialled},
    ladder::{Carrier, Ladder, PORT, Rung},
    proxy::Proxy,
    stream::{self, Signs},
    thread::Thread,
    ways::{OpenWay, Use},
};
use crate::clock;

/// Servers at a time.
const MAX_SERVERS: usize = 32;
/// Pauses before a broken one is made again; after the last it is given up, but not before its server was silent for so long
/// that the other end gives up too.
const AGAIN_MS: [u64; 7] = [0, 250, 500, 1000, 2000, 4000, AGAIN_LAST_MS];
const AGAIN_LAST_MS: u64 = 8000;
/// So many one after another of which nothing was heard are no way.
const MUTE: u32 = 3;
/// How long a stranger's has its place for sure: then it is another's turn.
const TURN: Duration = Duration::from_secs(60);
/// How long one that ended unused waits for something to send.
const UNUSED: Duration = Duration::from_secs(150);

/// All of them.
pub(super) struct Client {
    thread: Arc<Thread>,
    ways: Arc<Ways>,
    tls: Arc<ClientConfig>,
    proxy: Option<Proxy>,
    /// Told where there is no server of a peer.
    ladder: Arc<Mutex<Ladder>>,
    /// The port of servers.
    port: u16,
    servers: Mutex<BTreeMap<(IpAddr, PeerId), Arc<Server>>>,
    /// Counts changes of the host's network: every stream is made anew. None: the node stops.
    moved: watch::Sender<Option<u64>>,
}

/// One server.
#[derive(Default)]
struct Server {
    /// The lock is held while it is dialled.
    open: tokio::sync::Mutex<Option<Open>>,
    /// How often that failed.
    failed: AtomicU64,
}

impl Server {
    /// Its way, and whether it is dialled right now.
    fn open(&self) -> (Option<(SocketAddr, std::time::Instant)>, bool) {
        match self.open.try_lock() {
            Ok(open) => (open.as_ref().and_then(|open| Some((open.alive()?, open.since))), false),
            Err(_locked) => (None, true),
        }
    }

    fn end(&self) {
        if let Ok(mut open) = self.open.try_lock() {
            open.take().inspect(|open| open.task.abort());
        }
    }
}

struct Open {
    at: SocketAddr,
    since: std::time::Instant,
    /// Keeps the way.
    task: AbortHandle,
}

impl Open {
    fn alive(&self) -> Option<SocketAddr> {
        (!self.task.is_finished()).then_some(self.at)
    }
}

impl Client {
    pub(super) fn new(
        thread: Arc<Thread>,
        ways: Arc<Ways>,
        tls: Arc<ClientConfig>,
        proxy: Option<Proxy>,
        ladder: Arc<Mutex<Ladder>>,
    ) -> Arc<Self> {
        Self::with_port(thread, ways, tls, proxy, ladder, PORT)
    }

    fn with_port(
        thread: Arc<Thread>,
        ways: Arc<Ways>,
        tls: Arc<ClientConfig>,
        proxy: Option<Proxy>,
        ladder: Arc<Mutex<Ladder>>,
        port: u16,
    ) -> Arc<Self> {
        let (servers, moved) = (Mutex::default(), watch::Sender::new(Some(0)));
        Arc::new(Self { thread, ways, tls, proxy, ladder, port, servers, moved })
    }

    /// The address of a way by a WebSocket to a peer's address. It is made to the end also when nobody waits for it any
    /// more: a slow one is there for whoever asks next, and one that fails is known to.
    ///
    /// # Errors
    /// [`DialError`].
    pub(super) async fn way(
        self: &Arc<Self>,
        (at, peer): (IpAddr, PeerId),
        whom: Whom,
    ) -> Result<SocketAddr, DialError> {
        let server = self.server(at, peer, whom);
        let server = server.ok_or(std::io::Error::from(std::io::ErrorKind::QuotaExceeded))?;
        if let (Some((way, _)), _) = server.open() {
            return Ok(way);
        }
        let client = Arc::clone(self);
        let making = self.thread.spawn(async move {
            let mut moved = client.moved.subscribe();
            tokio::select! {
                made = client.make(&server, at, peer) => made,
                _ = moved.wait_for(Option::is_none) => Err(DialError::Timeout),
            }
        });
        making.await.map_err(|_ended| DialError::Timeout)?
    }

    async fn make(self: &Arc<Self>, server: &Server, at: IpAddr, peer: PeerId) -> Result<SocketAddr, DialError> {
        let failed = server.failed.load(Ordering::Acquire);
        let mut open = server.open.lock().await;
        if let Some(way) = open.as_ref().and_then(Open::alive) {
            return Ok(way);
        }
        if server.failed.load(Ordering::Acquire) != failed {
            // It was tried while we waited.
            return Err(DialError::Timeout);
        }
        let place = Place { rung: Rung::Wss, at: SocketAddr::new(at, self.port) };
        let stream = dial::dial(&self.tls, self.proxy.as_ref(), place.at, &peer).await.inspect_err(|error| {
            server.failed.fetch_add(1, Ordering::AcqRel);
            if !error.is_local() {
                self.on_failed(at, peer);
            }
        })?;
        let way = self.ways.open(place).ok_or(std::io::Error::from(std::io::ErrorKind::QuotaExceeded))?;
        let (address, client) = (way.id.address(), Arc::clone(self));
        let task = tokio::spawn(async move {
            tokio::select! {
                () = client.keep(stream, &way, place.at, peer) => {}
                () = client.ways.until_bare(address) => tracing::debug!("nobody uses a WebSocket"),
            }
        });
        *open = Some(Open { at: address, since: clock::now(), task: task.abort_handle() });
        Ok(address)
    }

    /// The host's network has changed.
    pub(super) fn on_network_change(&self) {
        self.moved.send_modify(|times| *times = times.map(|times| times + 1));
    }

    /// Ends every stream, and makes no other.
    pub(super) fn stop(&self) {
        self.moved.send_replace(None);
    }

    fn server(&self, at: IpAddr, peer: PeerId, whom: Whom) -> Option<Arc<Server>> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.len() >= MAX_SERVERS && !servers.contains_key(&(at, peer)) {
            servers.retain(|_, server| matches!(server.open(), (Some(_), _) | (None, true)));
            if servers.len() >= MAX_SERVERS {
                let over = self.makes_room(&servers, whom)?;
                servers.remove(&over).inspect(|server| server.end());
            }
        }
        Some(Arc::clone(servers.entry((at, peer)).or_default()))
    }

    /// Whose place is another's where all are taken: nobody's or a stranger's, the oldest, never a peer's; and strangers
    /// wait for their turn.
    fn makes_room(&self, servers: &BTreeMap<(IpAddr, PeerId), Arc<Server>>, whom: Whom) -> Option<(IpAddr, PeerId)> {
        let now = clock::now();
        self.ways.look_at_links(now);
        let open = servers.iter().filter_map(|(who, server)| {
            let (way, since) = server.open().0?;
            let has_had_its_turn = whom == Whom::Known || now.saturating_duration_since(since) >= TURN;
            Some((self.ways.used_by(now, way), since, *who)).filter(|(by, ..)| *by < Use::Peer && has_had_its_turn)
        });
        open.min_by_key(|(by, since, _)| (*by, *since)).map(|(.., who)| who)
    }

    async fn keep(&self, mut stream: Dialled, way: &OpenWay, at: SocketAddr, peer: PeerId) {
        let mut moved = self.moved.subscribe();
        let mut signs = Signs::default();
        let (mut heard_at, mut mute) = (Instant::now(), 0);
        loop {
            let taken = way.sink.taken();
            let ended = tokio::select! {
                ended = stream::carry(stream, way.id, &way.sink, self.ways.plane(), Some(&signs)) => Some(ended),
                _ = moved.changed() => None,
            };
            if self.moved.borrow().is_none() {
                return;
            }
            let (was_ended, was_used) = (ended.is_some(), way.sink.taken() != taken);
            tracing::debug!(peer = %peer.short(), ended = ended.map(|error| error.to_string()), "a WebSocket is made again");
            let heard = signs.heard_at();
            heard_at = heard.unwrap_or(heard_at);
            if !was_ended {
                (heard_at, mute) = (Instant::now(), 0);
            } else if heard.is_some() {
                mute = 0;
            } else if was_used {
                mute += 1;
                if mute >= MUTE {
                    return self.on_failed(at.ip(), peer);
                }
            }
            // Servers end what nobody uses: it is made again when there is something to send.
            if was_ended && !was_used {
                let wanted = async {
                    tokio::select! {
                        () = way.sink.filled() => {}
                        _ = moved.changed() => {}
                    }
                };
                if timeout(UNUSED, wanted).await.is_err() || self.moved.borrow().is_none() {
                    return;
                }
                heard_at = Instant::now();
            }
            let Some(again) = self.again(at, &peer, (heard_at, mute), &mut moved).await else { return };
            (stream, signs) = (again, Signs::default());
        }
    }

    /// Makes one again, `mute` times in vain before; a new network is a new beginning.
    async fn again(
        &self,
        at: SocketAddr,
        peer: &PeerId,
        (mut heard_at, mut mute): (Instant, u32),
        moved: &mut watch::Receiver<Option<u64>>,
    ) -> Option<Dialled> {
        loop {
            tokio::select! {
                again = self.again_until(at, peer, pause_after(mute), heard_at + stream::SILENT) => return again,
                _ = moved.changed() => {}
            }
            if moved.borrow().is_none() {
                return None;
            }
            (heard_at, mute) = (Instant::now(), 0);
        }
    }

    async fn again_until(&self, at: SocketAddr, peer: &PeerId, pause: Duration, until: Instant) -> Option<Dialled> {
        sleep(pause).await;
        for (n, pause) in AGAIN_MS.into_iter().chain(repeat(AGAIN_LAST_MS)).enumerate() {
            if n >= AGAIN_MS.len() && Instant::now() >= until {
                break;
            }
            sleep(Duration::from_millis(pause)).await;
            match dial::dial(&self.tls, self.proxy.as_ref(), at, peer).await {
                Ok(stream) => return Some(stream),
                Err(error) => tracing::debug!(%error, "no WebSocket"),
            }
        }
        None
    }

    fn on_failed(&self, at: IpAddr, peer: PeerId) {
        let mut ladder = self.ladder.lock().unwrap_or_else(PoisonError::into_inner);
        ladder.on_failed(clock::now(), Carrier::Wss(at, peer));
    }
}

/// How long the next waits after so many that were never heard: something lets them be made, and swallows what is sent.
fn pause_after(mute: u32) -> Duration {
    mute.checked_sub(1).map_or(Duration::ZERO, |before| Duration::from_secs(1 << before.min(MUTE)))
}

#[cfg(test)]
mod tests;
