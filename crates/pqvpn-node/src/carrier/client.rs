// SPDX-License-Identifier: MIT OR Apache-2.0
//! WebSockets of this node: one to each server, made when a dial needs it, made again when it breaks, closed when idle.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use rustls::ClientConfig;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    Place, Ways, Whom,
    dial::{self, DialError, Dialled},
    ladder::{Carrier, Ladder, PORT, Rung},
    proxy::Proxy,
    stream,
    thread::Thread,
    ways::{OpenWay, Use},
};
use crate::clock;

/// Servers at a time.
const MAX_SERVERS: usize = 32;
/// Pauses before a broken one is made again; after the last it is given up.
const AGAIN_MS: [u64; 7] = [0, 250, 500, 1000, 2000, 4000, 8000];
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
    fn open(&self) -> (Option<(SocketAddr, Instant)>, bool) {
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
    since: Instant,
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
                let mut ladder = self.ladder.lock().unwrap_or_else(PoisonError::into_inner);
                ladder.on_failed(clock::now(), Carrier::Wss(at, peer));
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
        loop {
            let taken = way.sink.taken();
            let ended = tokio::select! {
                ended = stream::carry(stream, way.id, &way.sink, self.ways.plane(), true) => Some(ended),
                _ = moved.changed() => None,
            };
            if self.moved.borrow().is_none() {
                return;
            }
            let was_ended = ended.is_some();
            tracing::debug!(peer = %peer.short(), ended = ended.map(|error| error.to_string()), "a WebSocket is made again");
            // Servers end what nobody uses: it is made again when there is something to send.
            if was_ended && way.sink.taken() == taken {
                let wanted = async {
                    tokio::select! {
                        () = way.sink.filled() => {}
                        _ = moved.changed() => {}
                    }
                };
                if timeout(UNUSED, wanted).await.is_err() || self.moved.borrow().is_none() {
                    return;
                }
            }
            let again = tokio::select! {
                again = self.again(at, &peer) => again,
                _ = moved.wait_for(Option::is_none) => None,
            };
            let Some(again) = again else { return };
            stream = again;
        }
    }

    async fn again(&self, at: SocketAddr, peer: &PeerId) -> Option<Dialled> {
        for pause in AGAIN_MS {
            sleep(Duration::from_millis(pause)).await;
            match dial::dial(&self.tls, self.proxy.as_ref(), at, peer).await {
                Ok(stream) => return Some(stream),
                Err(error) => tracing::debug!(%error, "no WebSocket"),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt as _;
    use pqvpn_dataplane::way::Way;

    use super::{
        super::{fake::FakePlane, server, tls},
        *,
    };

    const OWN: PeerId = PeerId::from_bytes([7; 32]);
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    struct TestServer {
        plane: Arc<FakePlane>,
        ways: Arc<Ways>,
        at: SocketAddr,
        accepting: tokio::task::JoinHandle<()>,
        _stop: watch::Sender<()>,
    }

    fn serve(port: u16) -> TestServer {
        let (plane, stop) = (Arc::new(FakePlane::default()), watch::Sender::new(()));
        let listener = server::listen(SocketAddr::new(HERE, port)).unwrap();
        let at = listener.local_addr().unwrap();
        let ways = Ways::new(plane.shared(), |_| true);
        let theirs = Arc::clone(&ways);
        let server = server::Server::new(OWN, tls::server().unwrap(), theirs, Arc::default(), stop.subscribe());
        TestServer { plane, ways, at, accepting: tokio::spawn(server::accept_all(server, listener)), _stop: stop }
    }

    fn client(port: u16) -> (Arc<FakePlane>, Arc<Client>) {
        let plane = Arc::new(FakePlane::default());
        let (ways, ladder) = (Ways::new(plane.shared(), |_| true), Arc::default());
        let client = Client::with_port(Arc::new(Thread::of_tests()), ways, tls::client().unwrap(), None, ladder, port);
        (plane, client)
    }

    fn send(plane: &FakePlane, datagram: &[u8]) -> bool {
        let Way::Carried(sink) = plane.way(0) else { panic!("a carried way") };
        sink.send(datagram)
    }

    #[tokio::test]
    async fn one_stream_serves_a_server_and_is_made_again_when_it_breaks() {
        let first = serve(0);
        let (plane, client) = client(first.at.port());
        let way = client.way((HERE, OWN), Whom::Known).await.unwrap();
        assert_eq!(client.way((HERE, OWN), Whom::Known).await.unwrap(), way, "it is there already");
        assert_eq!(plane.open(), 1);
        assert!(send(&plane, b"a datagram to the first"));
        first.plane.wait_for(1).await;
        let port = first.at.port();
        first.accepting.abort();
        let _ended = first.accepting.await;
        drop(first._stop);
        let second = serve(port);
        // What is sent while nobody is there may be lost; the way stays.
        while second.plane.came() == 0 {
            send(&plane, b"a datagram to the second");
            tokio::task::yield_now().await;
        }
        assert_eq!(client.way((HERE, OWN), Whom::Known).await.unwrap(), way);
        client.stop();
        while plane.open() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn another_network_is_another_stream_of_the_same_way() {
        let server = serve(0);
        let (plane, client) = client(server.at.port());
        client.way((HERE, OWN), Whom::Known).await.unwrap();
        assert!(send(&plane, b"a datagram before that"));
        server.plane.wait_for(1).await;
        let before = server.plane.way_id(0);
        client.on_network_change();
        while server.plane.open() != 1 || server.plane.way_id(0) == before {
            tokio::task::yield_now().await;
        }
        assert_eq!(plane.open(), 1);
    }

    #[tokio::test]
    async fn what_a_server_sends_keeps_no_place_and_a_link_of_ours_does() {
        for is_used in [false, true] {
            let server = serve(0);
            let (plane, client) = client(server.at.port());
            let way = client.way((HERE, OWN), Whom::Known).await.unwrap();
            tokio::time::pause();
            let now = || tokio::time::Instant::now().into_std();
            let theirs = server.plane.way_id(0).unwrap().address();
            let Way::Carried(down) = server.plane.way(0) else { panic!("a carried way") };
            for _ in 0..40 {
                server.ways.prove(now(), theirs);
                if is_used {
                    client.ways.prove(now(), way);
                }
                down.send(b"a datagram that nobody asked for");
                sleep(Duration::from_secs(1)).await;
            }
            assert!(plane.came() > 5, "they came");
            assert_eq!(plane.open(), usize::from(is_used));
            tokio::time::resume();
        }
    }

    fn who(n: u8) -> (IpAddr, PeerId) {
        (IpAddr::from([203, 0, 113, n]), PeerId::from_bytes([n; 32]))
    }

    /// A server as if it had been dialled so long ago.
    fn dialled(client: &Client, n: u8, ago: u64) -> OpenWay {
        let way = client.ways.open(Place { rung: Rung::Wss, at: SocketAddr::new(who(n).0, 443) }).unwrap();
        let (at, since) = (way.id.address(), clock::now() - Duration::from_secs(ago));
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let server = Server { open: tokio::sync::Mutex::new(Some(Open { at, since, task })), ..Server::default() };
        client.servers.lock().unwrap().insert(who(n), Arc::new(server));
        way
    }

    #[tokio::test]
    async fn servers_that_strangers_named_make_room_for_peers_at_once_and_for_others_in_turn() {
        let (_plane, client) = client(443);
        let mut held: Vec<OpenWay> =
            (0..32).map(|n| dialled(&client, n, [900, 800, 50].get(usize::from(n)).map_or(0, |ago| *ago))).collect();
        client.ways.prove(clock::now(), held[0].id.address());
        let asks = |n: u8, whom| client.server(who(n).0, who(n).1, whom).is_some();
        let is_there = |n: u8| client.servers.lock().unwrap().contains_key(&who(n));
        assert!(asks(100, Whom::Strangers) && !is_there(1), "it has had its turn");
        held.push(dialled(&client, 100, 0));
        assert!(!asks(101, Whom::Strangers), "the others have not");
        assert!(asks(102, Whom::Known) && !is_there(2), "the oldest that no peer uses");
        held.push(dialled(&client, 102, 0));
        assert!(is_there(0));
        held.iter().for_each(|way| client.ways.prove(clock::now(), way.id.address()));
        assert!(!asks(103, Whom::Known), "peers do not make room");
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_slow_one_is_there_for_whoever_asks_next_and_one_that_fails_is_known_to() {
        let listener = server::listen(SocketAddr::new(HERE, 0)).unwrap();
        let (plane, client) = client(listener.local_addr().unwrap().port());
        let hurried = timeout(Duration::from_millis(20), client.way((HERE, OWN), Whom::Known)).await;
        assert!(hurried.is_err(), "nobody has answered yet");
        let (theirs, stop) = (Arc::new(FakePlane::default()), watch::Sender::new(()));
        let ways = Ways::new(theirs.shared(), |_| true);
        let server = server::Server::new(OWN, tls::server().unwrap(), ways, Arc::default(), stop.subscribe());
        let accepting = tokio::spawn(server::accept_all(server, listener));
        timeout(PATIENCE, until(|| plane.open() > 0)).await.expect("it is made to the end");
        assert_eq!(client.way((HERE, OWN), Whom::Known).await.ok(), plane.way_id(0).map(|way| way.address()));
        accepting.abort();
        let nobody = PeerId::from_bytes([9; 32]);
        let asked = client.way((HERE, nobody), Whom::Known).now_or_never();
        assert!(asked.is_none(), "whoever asked has gone");
        let is_known = || client.ladder.lock().unwrap().is_resting(Carrier::Wss(HERE, nobody)).is_some();
        timeout(PATIENCE, until(is_known)).await.expect("that it failed is known");
    }

    #[tokio::test]
    async fn somebody_else_s_server_is_none() {
        let server = serve(0);
        let (plane, client) = client(server.at.port());
        let other = PeerId::from_bytes([8; 32]);
        assert!(matches!(client.way((HERE, other), Whom::Known).await, Err(DialError::WebSocket(_))));
        assert_eq!((plane.open(), server.plane.open()), (0, 0));
    }

    #[tokio::test]
    async fn that_one_peer_has_no_server_at_an_address_says_nothing_of_another_there() {
        let server = serve(0);
        let (_plane, client) = client(server.at.port());
        let other = PeerId::from_bytes([8; 32]);
        assert!(client.way((HERE, other), Whom::Known).await.is_err());
        let rests = |peer| client.ladder.lock().unwrap().is_resting(Carrier::Wss(HERE, peer));
        assert_eq!((rests(other), rests(OWN)), (Some(1), None));
    }

    /// Stands before a server: hands on what comes until it is told to swallow it; counts whom it took.
    struct Swallows {
        at: SocketAddr,
        swallow: watch::Sender<bool>,
        taken: Arc<AtomicU64>,
    }

    fn swallows(to: SocketAddr) -> Swallows {
        let listener = server::listen(SocketAddr::new(HERE, 0)).unwrap();
        let (at, swallow, taken) =
            (listener.local_addr().unwrap(), watch::Sender::new(false), Arc::<AtomicU64>::default());
        let (swallowing, taking) = (swallow.subscribe(), Arc::clone(&taken));
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut from, _)) = listener.accept().await {
                taking.fetch_add(1, Ordering::Relaxed);
                let mut swallowing = swallowing.clone();
                let mut to = tokio::net::TcpStream::connect(to).await.unwrap();
                held.push(tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                        _ = swallowing.wait_for(|swallow| *swallow) => {}
                    }
                    // Whatever the kernel still takes goes nowhere.
                    let _held = (from, to);
                    std::future::pending::<()>().await;
                }));
            }
        });
        Swallows { at, swallow, taken }
    }

    #[tokio::test]
    async fn one_that_swallows_what_is_sent_is_made_again_soon() {
        let server = serve(0);
        let proxy = swallows(server.at);
        let (plane, client) = client(proxy.at.port());
        client.way((HERE, OWN), Whom::Known).await.unwrap();
        assert!(send(&plane, b"a datagram before that"));
        server.plane.wait_for(1).await;
        proxy.swallow.send_replace(true);
        tokio::time::pause();
        for _ in 0..100 {
            send(&plane, b"a datagram that is swallowed");
            sleep(Duration::from_millis(100)).await;
        }
        tokio::time::resume();
        let again = timeout(Duration::from_secs(3), until(|| proxy.taken.load(Ordering::Relaxed) > 1)).await;
        assert!(again.is_ok(), "dials go on into it");
    }
}
