// SPDX-License-Identifier: MIT OR Apache-2.0
//! WebSockets of a node: made again, given up, and whose place is whose.

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
        let now = || Instant::now().into_std();
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

/// Stands before a server: hands on what comes until it is told to swallow it; counts whom it took. The first so many are
/// swallowed.
struct Swallows {
    at: SocketAddr,
    swallow: watch::Sender<u64>,
    taken: Arc<AtomicU64>,
}

fn swallows(to: SocketAddr) -> Swallows {
    let listener = server::listen(SocketAddr::new(HERE, 0)).unwrap();
    let (at, swallow, taken) = (listener.local_addr().unwrap(), watch::Sender::new(0), Arc::<AtomicU64>::default());
    let (swallowing, taking) = (swallow.subscribe(), Arc::clone(&taken));
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut from, _)) = listener.accept().await {
            let before = taking.fetch_add(1, Ordering::Relaxed);
            let mut swallowing = swallowing.clone();
            let mut to = tokio::net::TcpStream::connect(to).await.unwrap();
            held.push(tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                    _ = swallowing.wait_for(|swallow| *swallow > before) => {}
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
    proxy.swallow.send_replace(1);
    tokio::time::pause();
    for _ in 0..100 {
        send(&plane, b"a datagram that is swallowed");
        sleep(Duration::from_millis(100)).await;
    }
    tokio::time::resume();
    let again = timeout(Duration::from_secs(3), until(|| proxy.taken.load(Ordering::Relaxed) > 1)).await;
    assert!(again.is_ok(), "dials go on into it");
}

#[tokio::test]
async fn one_that_swallows_all_from_the_beginning_is_given_up_after_a_few() {
    let server = serve(0);
    let proxy = swallows(server.at);
    let (plane, client) = client(proxy.at.port());
    let way = client.way((HERE, OWN), Whom::Known).await.unwrap();
    for made in 1..=u64::from(MUTE) {
        let is_there = || usize::try_from(made).is_ok_and(|made| server.plane.open() == made);
        timeout(PATIENCE, until(is_there)).await.expect("it is made again");
        // Until the answer to the upgrade is there too.
        sleep(Duration::from_millis(300)).await;
        proxy.swallow.send_replace(made);
        sleep(Duration::from_millis(20)).await;
        tokio::time::pause();
        for _ in (0..65).take_while(|_| plane.open() > 0) {
            client.ways.prove(Instant::now().into_std(), way);
            send(&plane, b"a datagram that is swallowed");
            sleep(Duration::from_millis(100)).await;
        }
        tokio::time::resume();
    }
    timeout(PATIENCE, until(|| plane.open() == 0)).await.expect("it is given up");
    assert_eq!(client.ladder.lock().unwrap().is_resting(Carrier::Wss(HERE, OWN)), Some(1));
    assert_eq!(proxy.taken.load(Ordering::Relaxed), u64::from(MUTE));
}

#[tokio::test]
async fn a_short_outage_in_which_dials_fail_at_once_does_not_lose_the_way() {
    let (_plane, client) = client(1);
    let nobody = SocketAddr::new(HERE, 1);
    tokio::time::pause();
    let now = Instant::now();
    let again = |heard_at| {
        let client = &client;
        async move {
            let start = Instant::now();
            let made = client.again_until(nobody, &OWN, Duration::ZERO, heard_at + stream::SILENT).await;
            assert!(made.is_none());
            start.elapsed().as_secs()
        }
    };
    assert!((50..60).contains(&again(now).await));
    assert!((15..17).contains(&again(now).await), "a server that is long silent is tried all the same");
}
