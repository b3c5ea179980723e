// SPDX-License-Identifier: MIT OR Apache-2.0
//! The server and its strangers, over streams in memory and under virtual time.

use std::net::Ipv4Addr;

use futures_util::{SinkExt as _, StreamExt as _};
use pqvpn_dataplane::way::{CarrierSink as _, Way, WayId};
use pqvpn_wire::carrier::MAX_MESSAGE;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::tungstenite::Message;

use super::{
    super::{
        dial,
        fake::{FakeLink, FakePlane},
        limits::MAX_ALL,
        queue::Sink,
        tls,
    },
    *,
};
use crate::link::Connection;

const OWN: [u8; 32] = [7; 32];
const UP: &[u8] = b"a datagram that goes up";
const DOWN: &[u8] = b"a datagram that goes down";

struct Lab {
    plane: Arc<FakePlane>,
    server: Arc<Server>,
    _stop: watch::Sender<()>,
}

impl Lab {
    fn new() -> Self {
        let (plane, stop) = (Arc::new(FakePlane::default()), watch::Sender::new(()));
        let ways = Ways::new(plane.shared(), |_| true);
        let own = PeerId::from_bytes(OWN);
        let server = Server::new(own, tls::server().unwrap(), ways, Arc::default(), stop.subscribe());
        Self { plane, server, _stop: stop }
    }

    /// Somebody comes; the task ends when the server has done with the request.
    fn visit(&self) -> (DuplexStream, JoinHandle<()>) {
        let from = SocketAddr::from(([203, 0, 113, 9], 5));
        let visit = self.server.admit(from).unwrap();
        let (theirs, ours) = tokio::io::duplex(64 * 1024);
        (theirs, tokio::spawn(async move { serve(&visit, ours).await }))
    }

    async fn tls(&self) -> (TlsStream<DuplexStream>, JoinHandle<()>) {
        let (stream, task) = self.visit();
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
        (TlsConnector::from(tls::client().unwrap()).connect(name, stream).await.unwrap(), task)
    }

    /// The head of the answer to a request, and its body.
    async fn ask(&self, request: &str) -> String {
        let (mut stream, task) = self.tls().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let mut byte = [0; 1];
        while !answer.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
            answer.extend(byte);
        }
        task.abort();
        String::from_utf8(answer).unwrap()
    }

    async fn dialled(&self) -> WebSocketStream<TlsStream<DuplexStream>> {
        let (stream, _task) = self.visit();
        let to = SocketAddr::from(([127, 0, 0, 1], 443));
        let made = dial::speak(&tls::client().unwrap(), stream, to, &PeerId::from_bytes(OWN)).await.unwrap();
        while self.plane.open() == 0 {
            tokio::task::yield_now().await;
        }
        made
    }
}

fn path() -> String {
    secret::path(&PeerId::from_bytes(OWN), clock::unix_seconds())
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

#[tokio::test]
async fn a_stranger_sees_a_web_server_and_nothing_else() {
    let lab = Lab::new();
    let right = upgrade(&path());
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "200"),
        ("GET /admin HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "404"),
        (upgrade("/"), "200"),
        (upgrade("/ws"), "404"),
        (upgrade(&secret::path(&PeerId::from_bytes([8; 32]), clock::unix_seconds())), "404"),
        (upgrade(&secret::path(&PeerId::from_bytes(OWN), clock::unix_seconds() - 3 * 86_400)), "404"),
        (format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path()), "404"),
        (right.replace("GET", "POST"), "405"),
        ("DELETE /admin HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "405"),
        ("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "200"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), "200"),
        (right.replace("Version: 13", "Version: 12"), "404"),
        (right.replace("Upgrade: websocket", "Upgrade: h2c"), "404"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = lab.ask(&request).await;
        assert!(
            answer.starts_with(&format!("{} {status}", if request.contains("/1.0") { "HTTP/1.0" } else { "HTTP/1.1" })),
            "{request}: {answer}"
        );
        assert_eq!(lab.plane.open(), 0, "{request}");
    }
    let answer = lab.ask(&right).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455 1.3: {answer}");
}

#[tokio::test]
async fn datagrams_go_both_ways() {
    let lab = Lab::new();
    let stream = lab.dialled().await;
    let (theirs, sink) = (Arc::new(FakePlane::default()), Arc::new(Sink::default()));
    let plane = theirs.shared();
    let out = Arc::clone(&sink);
    let signs = stream::Signs::default();
    let client = tokio::spawn(async move { stream::carry(stream, WayId(1), &out, &plane, Some(&signs)).await });
    assert!(sink.send(UP) && sink.send(&[5; 1400]));
    lab.plane.wait_for(2).await;
    assert_eq!(*lab.plane.came.lock().unwrap(), [UP.to_vec(), vec![5; 1400]]);
    let Way::Carried(down) = lab.plane.way(0) else { panic!("a carried way") };
    assert!(down.send(DOWN));
    theirs.wait_for(1).await;
    assert_eq!(*theirs.came.lock().unwrap(), [DOWN]);
    client.abort();
    let _gone = client.await;
    while lab.plane.open() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.server.limits().open(), 0, "its place is free again");
}

#[tokio::test]
async fn what_is_no_message_ends_the_carrier() {
    let long = vec![1; MAX_MESSAGE + 1];
    for bad in [
        Message::Text("hello".into()),
        Message::Binary(vec![0, 9, 1].into()),
        Message::Binary(vec![0, 0].into()),
        Message::Binary(long.into()),
    ] {
        let lab = Lab::new();
        let mut stream = lab.dialled().await;
        let _may_be_cut = stream.send(bad).await;
        while let Some(Ok(_)) = stream.next().await {}
        while lab.plane.open() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(lab.plane.came.lock().unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_only_half_is_sent_away() {
    let lab = Lab::new();
    let start = Instant::now();
    let (_mute, task) = lab.visit();
    task.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), HANDSHAKE.as_secs(), "a handshake has its time");
    let (mut half, task) = lab.tls().await;
    half.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let start = Instant::now();
    task.await.unwrap();
    assert_eq!(start.elapsed().as_secs(), HEAD.as_secs(), "a head has its time");
    let (mut endless, task) = lab.tls().await;
    let filler = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(2 * MAX_HEAD));
    let _may_be_cut = endless.write_all(filler.as_bytes()).await;
    task.await.unwrap();
    assert_eq!(lab.server.limits().open(), 0);
    assert!(lab.server.counts.broken.load(Ordering::Relaxed) >= 2);
}

#[tokio::test(start_paused = true)]
async fn a_carrier_whose_other_end_takes_or_says_nothing_ends() {
    let lab = Lab::new();
    let start = Instant::now();
    let _silent = lab.dialled().await;
    while lab.plane.open() > 0 {
        sleep(Duration::from_secs(1)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(60), "the other end shows every 15 s that it is there");
    let _deaf = lab.dialled().await;
    let Way::Carried(down) = lab.plane.way(0) else { panic!("a carried way") };
    let start = Instant::now();
    while lab.plane.open() > 0 {
        while down.send(&[0; 1400]) {}
        sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(20), "long before it would be called silent");
}

#[tokio::test(start_paused = true)]
async fn a_carrier_without_a_link_ends_and_one_with_a_link_stays() {
    let lab = Lab::new();
    let mut bare = lab.dialled().await;
    let ways = Arc::clone(&lab.server.ways);
    let mut used = lab.dialled().await;
    while lab.plane.open() < 2 {
        tokio::task::yield_now().await;
    }
    let way = lab.plane.way_id(1).unwrap().address();
    let datagram = || Message::Binary([&[0, 20][..], &[0x43; 20]].concat().into());
    for _ in 0..60 {
        ways.prove(now(), way);
        // What is sent makes nobody authenticated.
        let _ended = bare.send(datagram()).await;
        used.send(datagram()).await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((lab.plane.open(), lab.plane.way_id(0).unwrap().address()), (1, way));
    assert_eq!(lab.server.limits().open(), 1);
}

#[tokio::test]
async fn whoever_comes_has_the_place_of_the_oldest_that_nobody_authenticated_uses() {
    let lab = Lab::new();
    let (mut held, mut n) = (Vec::new(), 0u32);
    let mut come = || {
        n += 1;
        lab.server.admit(SocketAddr::from((Ipv4Addr::from_bits(n), 5)))
    };
    for _ in 0..MAX_ALL {
        held.push(come().unwrap());
    }
    let way = lab.server.ways.open(Place { rung: Rung::Wss, at: held[0].from }).unwrap();
    *held[0].way.lock().unwrap() = Some(way.id.address());
    lab.server.ways.prove(now(), way.id.address());
    held.push(come().expect("somebody makes room"));
    let over: Vec<bool> = held.iter().take(3).map(|visit| *visit.is_over.borrow()).collect();
    assert_eq!(over, [false, true, false], "the oldest without a link");
    assert_eq!(lab.server.limits().open(), MAX_ALL);
    drop(held);
    assert_eq!(lab.server.limits().open(), 0, "each has left once");
}

#[tokio::test]
async fn a_stranger_s_handshake_holds_no_place_against_whoever_comes_and_a_peer_s_does() {
    let mut lab = Lab::new();
    let member = PeerId::from_bytes([1; 32]);
    let ways = Ways::new(lab.plane.shared(), move |peer| *peer == member);
    let stop = lab._stop.subscribe();
    lab.server = Server::new(PeerId::from_bytes(OWN), tls::server().unwrap(), ways, Arc::default(), stop);
    let ways = &lab.server.ways;
    let (mut visits, mut used) = (Vec::new(), Vec::new());
    for n in 0..u32::try_from(MAX_ALL).unwrap() {
        let visit = lab.server.admit(SocketAddr::from((Ipv4Addr::from_bits(n), 5))).unwrap();
        let way = ways.open(Place { rung: Rung::Wss, at: visit.from }).unwrap();
        *visit.way.lock().unwrap() = Some(way.id.address());
        let peer = if n == 1 { PeerId::from_bytes([2; 32]) } else { member };
        let link: Arc<dyn Connection> = Arc::new(FakeLink { peer, remote: way.id.address() });
        ways.note_link(now(), &link);
        visits.push(visit);
        used.push((way, link));
    }
    let come = |n: u32| lab.server.admit(SocketAddr::from((Ipv4Addr::from_bits(n), 6)));
    visits.push(come(5000).expect("the stranger makes room"));
    let over: Vec<usize> = (0..visits.len()).filter(|n| *visits[*n].is_over.borrow()).collect();
    assert_eq!(over, [1]);
    visits.push(come(5001).expect("the newcomer makes room, of whom nothing is known"));
    *visits[MAX_ALL + 1].way.lock().unwrap() = Some(used[0].0.id.address());
    assert!(matches!(come(5002), Err(Refused::All)), "peers do not");
}

#[tokio::test]
async fn connections_from_one_place_are_few() {
    let lab = Lab::new();
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let at = listener.local_addr().unwrap();
    let task = tokio::spawn(accept_all(Arc::clone(&lab.server), listener));
    let mut all = Vec::new();
    while lab.server.counts.refused.load(Ordering::Relaxed) == 0 {
        all.push(TcpStream::connect(at).await.unwrap());
        assert!(all.len() <= 2 * super::super::limits::MAX_EACH, "a flood is let in");
        tokio::task::yield_now().await;
    }
    assert!(lab.server.limits().open() < all.len());
    task.abort();
}
