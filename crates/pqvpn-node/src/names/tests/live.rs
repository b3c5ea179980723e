// SPDX-License-Identifier: MIT OR Apache-2.0
//! The resolver in a network namespace: who is answered where, and what the host's file says meanwhile.

use std::{
    fs,
    future::Future,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use simple_dns::{CLASS, Name, Packet, Question, RCODE, TYPE};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, UdpSocket},
    time::{sleep, timeout},
};

use super::{home, id, mesh, work};
use crate::{
    config::DnsMode,
    host::tests::netns::{Net, TUN, in_namespace},
    names::{DnsHost, DnsSide, host::Places, serve::Server},
};

const LOOPBACK: &str = "127.112.113.53";

fn query(name: &str) -> Vec<u8> {
    let mut packet = Packet::new_query(77);
    packet.questions.push(Question::new(Name::new(name).unwrap(), TYPE::A.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().unwrap()
}

/// Code and number of answers, from `server` asked from `from`.
async fn ask(server: IpAddr, from: IpAddr, name: &str) -> Option<(RCODE, usize)> {
    let socket = UdpSocket::bind(SocketAddr::new(from, 0)).await.ok()?;
    socket.connect((server, 53)).await.ok()?;
    socket.send(&query(name)).await.ok()?;
    let mut reply = [0; 2048];
    let len = timeout(Duration::from_millis(500), socket.recv(&mut reply)).await.ok()?.ok()?;
    let packet = Packet::parse(&reply[..len]).ok()?;
    Some((packet.rcode(), packet.answers.len()))
}

async fn ask_by_tcp(server: IpAddr, name: &str) -> Option<(RCODE, usize)> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.ok()?;
    let mut stream = socket.connect(SocketAddr::new(server, 53)).await.ok()?;
    let query = query(name);
    let framed = [&u16::try_from(query.len()).ok()?.to_be_bytes(), query.as_slice()].concat();
    // Two queries over one connection.
    let mut found = None;
    for _ in 0..2 {
        stream.write_all(&framed).await.ok()?;
        let mut reply = vec![0; usize::from(stream.read_u16().await.ok()?)];
        stream.read_exact(&mut reply).await.ok()?;
        let packet = Packet::parse(&reply).ok()?;
        found = Some((packet.rcode(), packet.answers.len()));
    }
    found
}

/// Waits for what other tasks do in their own time.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(Duration::from_secs(60), waiting).await.is_ok(), "never: {what}");
}

/// Waits until the names are answered: the socket is bound in a task of its own.
async fn ready(server: IpAddr) {
    until("answers", || async move { ask(server, server, "pqvpn").await.is_some() }).await;
}

async fn side(net: &Net, mode: DnsMode) -> DnsSide {
    net.up(TUN).await;
    net.up("far0").await;
    for address in home().own.addresses {
        net.address(TUN, &format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })).await;
    }
    let resolv_conf = net.state.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 192.0.2.1\n").unwrap();
    let places = Places {
        resolvectl: "resolvectl".into(),
        resolved: net.state.path().join("no-such-socket"),
        resolv_conf,
        is_resolved_s_namespace: false,
    };
    DnsSide::on(places, mode, Some(TUN.to_owned()), net.state.path().to_owned())
}

#[test]
fn names_are_answered_on_every_address_of_ours_by_udp_and_tcp() {
    in_namespace(|net| async move {
        let mut side = side(&net, DnsMode::ResolvConf).await;
        side.follow(&[home()], &mesh(&[home()]), id(1)).await;
        let loopback: IpAddr = LOOPBACK.parse().unwrap();
        for server in home().own.addresses.into_iter().chain([loopback]) {
            ready(server).await;
            assert_eq!(ask(server, server, "phone.home.pqvpn").await, Some((RCODE::NoError, 1)), "{server}");
            assert_eq!(ask(server, server, "nas.home.pqvpn").await, Some((RCODE::NameError, 0)), "{server}");
            assert_eq!(ask(server, server, "example.org").await, Some((RCODE::Refused, 0)), "{server}");
            assert_eq!(ask_by_tcp(server, "phone.home.pqvpn").await, Some((RCODE::NoError, 1)), "{server}");
        }
        let counts = side.report().queries;
        assert!(counts.answered >= 9 && counts.negative >= 6 && counts.refused == 3, "{counts:?}");
        side.undo().await;
        assert_eq!(ask(loopback, loopback, "phone.home.pqvpn").await, None);
    });
}

#[test]
fn nobody_else_is_answered() {
    in_namespace(|net| async move {
        let mut side = side(&net, DnsMode::Auto).await;
        side.follow(&[home()], &mesh(&[home()]), id(1)).await;
        let own = home().own.addresses[1];
        ready(own).await;
        // Another address of this host stands for another host: what counts is where the question comes from.
        assert_eq!(ask(own, "192.168.7.2".parse().unwrap(), "phone.home.pqvpn").await, None);
        assert_eq!(side.report().queries.dropped, 1);
        side.undo().await;
    });
}

#[test]
fn names_follow_the_networks_and_the_host_file_comes_and_goes() {
    in_namespace(|net| async move {
        let file = net.state.path().join("resolv.conf");
        let text = || fs::read_to_string(&file).unwrap();
        let mut side = side(&net, DnsMode::ResolvConf).await;
        side.follow(&[], &mesh(&[]), id(1)).await;
        assert_eq!((side.report().host, side.report().servers.len()), (DnsHost::Nothing, 0));
        assert!(!text().contains(LOOPBACK));
        side.follow(&[home()], &mesh(&[home()]), id(1)).await;
        let own = home().own.addresses[1];
        ready(own).await;
        until("a line in resolv.conf", || async { text().contains(LOOPBACK) }).await;
        assert_eq!(ask(own, own, "laptop.home.pqvpn").await, Some((RCODE::NoError, 1)));
        let both = [home(), work()];
        side.follow(&both, &mesh(&both), id(1)).await;
        assert_eq!(side.report().servers.len(), 5);
        assert!(side.report().look_up("laptop.work").is_some());
        // The new address is not on the interface yet: said, tried again, and no harm to the others.
        assert_eq!(ask(own, own, "laptop.work.pqvpn").await, Some((RCODE::NoError, 1)));
        side.follow(&[], &mesh(&[]), id(1)).await;
        assert_eq!(text(), "nameserver 192.0.2.1\n");
        assert_eq!((side.report().host, side.report().servers.len()), (DnsHost::Nothing, 0));
    });
}

#[test]
fn an_address_that_comes_later_is_answered_on_later_and_a_port_taken_is_said() {
    in_namespace(|net| async move {
        let mut side = side(&net, DnsMode::Auto).await;
        let taken = UdpSocket::bind((home().own.addresses[1], 53)).await.unwrap();
        side.follow(&[home()], &mesh(&[home()]), id(1)).await;
        let own = home().own.addresses[1];
        let error = || side.report().servers.into_iter().find(|server| server.address == own)?.error;
        until("an error", || async { error().is_some() }).await;
        assert!(error().is_some_and(|error| error.contains("another DNS server")), "{:?}", error());
        assert!(side.health().iter().any(|item| item.code == "dns-server"));
        drop(taken);
        ready(own).await;
        let late: IpAddr = "10.100.9.9".parse().unwrap();
        let server = Server::start(crate::names::Names::new(super::NameTable::default()), late);
        until("an error", || async { server.report().error.is_some() }).await;
        net.address(TUN, "10.100.9.9/32").await;
        until("no error", || async { server.report().error.is_none() }).await;
        side.undo().await;
    });
}

#[test]
fn switched_off_nothing_is_answered_and_nothing_changed() {
    in_namespace(|net| async move {
        let mut side = side(&net, DnsMode::Off).await;
        side.follow(&[home()], &mesh(&[home()]), id(1)).await;
        assert_eq!((side.report().host, side.report().servers.len()), (DnsHost::Nothing, 0));
        assert!(!net.state.path().join("dns-journal").exists());
    });
}
