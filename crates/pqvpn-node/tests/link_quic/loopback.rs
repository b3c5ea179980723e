// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's sockets instead of the virtual wire, and peers that are not PQVPN.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_crypto::tls::{ALPN, Refusal};
use pqvpn_dataplane::mem::MemTun;
use pqvpn_dataplane::way::{Forward, ForwardLimit, Way, WayId};
use pqvpn_dataplane::{DataPlane, DataPlaneConfig, Offloads, TunReader, TunWriter};
use pqvpn_node::link::{Backend, Endpoint, GuestSocket, LinkError, PeerReason, PlainSocket};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};

use crate::pair::{Admits, Party, addr, echo};
use crate::strangers;

both_backends!(real time:
    links_as_guests_of_two_data_planes,
    links_through_a_relay_between_hosts_without_ipv6,
    links_over_ipv4_and_ipv6_and_both,
    a_classical_client_is_refused,
    an_anonymous_client_is_refused,
    a_classical_server_refuses_us,
    a_server_that_selects_a_padding_protocol_is_refused,
);

/// The first dummy name of a ClientHello.
const PADDING: &[u8] = &{
    let mut name = [b'.'; 250];
    name[0] = b'0';
    name
};

fn listen(backend: Backend, party: &Party, bind: &str) -> Box<dyn Endpoint> {
    backend.endpoint(Arc::new(PlainSocket::bind(addr(bind)).unwrap()), party.config()).unwrap()
}

async fn links_over_ipv4_and_ipv6_and_both(backend: Backend) {
    for (dial_from, listen_at, reach) in [
        ("127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:0", "[::1]:0", "[::1]:0"),
        ("[::]:0", "127.0.0.1:0", "127.0.0.1:0"),
    ] {
        let (dialer, listener) = (Party::new(Admits::Everybody), Party::new(Admits::Everybody));
        let (client, server) = (listen(backend, &dialer, dial_from), listen(backend, &listener, listen_at));
        let mut to = addr(reach);
        to.set_port(server.local_addr().unwrap().port());
        let (dialed, accepted) = tokio::join!(client.connect(to, listener.id(), None), server.accept());
        let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap().unwrap());
        assert_eq!((accepted.peer(), dialed.remote()), (dialer.id(), to));
        assert_eq!(accepted.remote().ip(), to.ip());
        let bytes = vec![0x5a; 1 << 20];
        assert!(echo(&*dialed, &*accepted, &bytes).await.unwrap() == bytes);
        dialed.close(0, "done");
        accepted.closed().await;
        assert_eq!(client.stats().send_errors + server.stats().send_errors, 0);
    }
}

/// An endpoint on a data plane of its own; IPv4 and IPv6 have a socket each.
fn guest_of_a_data_plane(backend: Backend, party: &Party) -> (DataPlane, Box<dyn Endpoint>) {
    let plane = data_plane(&["127.0.0.1:0", "[::1]:0"]);
    let endpoint = guest_of(&plane, backend, party);
    (plane, endpoint)
}

fn guest_of(plane: &DataPlane, backend: Backend, party: &Party) -> Box<dyn Endpoint> {
    let socket = GuestSocket::new(plane.guest()).unwrap();
    backend.endpoint(Arc::new(socket), party.config()).unwrap()
}

fn data_plane(binds: &[&str]) -> DataPlane {
    let (_, reader, writer) = MemTun::new(Offloads::default()).unwrap();
    let sockets: Vec<_> = binds.iter().map(|bind| UdpSocket::bind(bind).unwrap()).collect();
    let tun: Vec<(Box<dyn TunReader>, Box<dyn TunWriter>)> = vec![(Box::new(reader), Box::new(writer))];
    let config = DataPlaneConfig { tun, sockets, inner_mtu: 1280 };
    DataPlane::start(config, Arc::new(|_| {})).unwrap()
}

async fn links_as_guests_of_two_data_planes(backend: Backend) {
    let (dialer, listener) = (Party::new(Admits::Everybody), Party::new(Admits::Everybody));
    let (client_plane, client) = guest_of_a_data_plane(backend, &dialer);
    let (server_plane, server) = guest_of_a_data_plane(backend, &listener);
    let to = server.local_addr().unwrap();
    assert!(to.is_ipv6(), "the guest shows the socket that reaches more");
    let (dialed, accepted) = tokio::join!(client.connect(to, listener.id(), None), server.accept());
    let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap().unwrap());
    let bytes = vec![0x5a; 1 << 20];
    assert!(echo(&*dialed, &*accepted, &bytes).await.unwrap() == bytes);
    dialed.close(0, "done");
    accepted.closed().await;
    client_plane.shutdown();
    server_plane.shutdown();
}

async fn links_through_a_relay_between_hosts_without_ipv6(backend: Backend) {
    let (dialer, listener) = (Party::new(Admits::Everybody), Party::new(Admits::Everybody));
    let planes = [(); 3].map(|()| data_plane(&["127.0.0.1:0"]));
    let [client_plane, server_plane, relay_plane] = &planes;
    let (client, server) = (guest_of(client_plane, backend, &dialer), guest_of(server_plane, backend, &listener));
    let relay = canonical(relay_plane.guest().local_addr().unwrap());
    let limit = Arc::new(ForwardLimit::new(1 << 30, 1 << 30));
    let ends = [client.local_addr().unwrap(), server.local_addr().unwrap()];
    let way = WayId(1);
    for (at, plane) in [(0_u64, client_plane), (1, server_plane)] {
        let (from, to) = if at == 0 { (ends[0], ends[1]) } else { (ends[1], ends[0]) };
        let forward = Forward { from, to, out_channel: 20 + at, limit: Arc::clone(&limit) };
        relay_plane.control().set_forward(10 + at, forward).unwrap();
        plane.control().set_way(way, Way::Relay { relay, out_channel: 10 + at, in_channel: 21 - at }).unwrap();
    }
    let (dialed, accepted) = tokio::join!(client.connect(way.address(), listener.id(), None), server.accept());
    let (dialed, accepted) = (dialed.unwrap(), accepted.unwrap().unwrap());
    assert_eq!((dialed.remote(), accepted.remote()), (way.address(), way.address()));
    let bytes = vec![0x5a; 1 << 20];
    assert!(echo(&*dialed, &*accepted, &bytes).await.unwrap() == bytes);
    let sent_on = relay_plane.control().forward_stats(10).unwrap();
    assert!(sent_on.bytes > 1 << 20, "{sent_on:?}");
    dialed.close(0, "done");
    accepted.closed().await;
    assert_eq!(client.stats().send_errors + server.stats().send_errors, 0);
}

/// An IPv4 address without the form IPv6 gives it.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Why our listener refuses a stranger, and what the stranger is told, if anything.
async fn refused_client(
    backend: Backend,
    tls: rustls::ClientConfig,
) -> (Option<LinkError>, impl Future<Output = quinn::ConnectionError>) {
    let listener = Party::new(Admits::Everybody);
    let server = listen(backend, &listener, "127.0.0.1:0");
    let tls = QuicClientConfig::with_initial(Arc::new(tls), listener.crypto.initial_suite()).unwrap();
    let client = quinn::Endpoint::client(addr("127.0.0.1:0")).unwrap();
    let (to, name) = (server.local_addr().unwrap(), listener.id().to_server_name());
    let dial = client.connect_with(quinn::ClientConfig::new(Arc::new(tls)), to, &name).unwrap();
    let refusal = server.accept().await.unwrap().err();
    let told = async move {
        let _both_ends = (client, server);
        match dial.await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        }
    };
    (refusal, told)
}

async fn a_classical_client_is_refused(backend: Backend) {
    let (refusal, told) = refused_client(backend, strangers::classical_client()).await;
    assert_eq!(refusal, Some(LinkError::RefusedByUs(Refusal::NoCommonGroup)));
    let quinn::ConnectionError::ConnectionClosed(told) = told.await else { panic!("the server says why") };
    assert_eq!(u64::from(told.error_code), 0x128, "handshake_failure");
}

async fn an_anonymous_client_is_refused(backend: Backend) {
    let (refusal, _) = refused_client(backend, strangers::anonymous_client()).await;
    assert_eq!(refusal, Some(LinkError::RefusedByUs(Refusal::AnonymousPeer)));
}

/// How a dial to a stranger ends, and how it does for the stranger.
async fn dialed_stranger(
    backend: Backend,
    peer: PeerId,
    tls: rustls::ServerConfig,
) -> (Option<LinkError>, Option<quinn::ConnectionError>) {
    let dialer = Party::new(Admits::Everybody);
    let tls = QuicServerConfig::with_initial(Arc::new(tls), dialer.crypto.initial_suite()).unwrap();
    let server = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let server = quinn::Endpoint::server(server, addr("127.0.0.1:0")).unwrap();
    let client = listen(backend, &dialer, "127.0.0.1:0");
    let dial = client.connect(server.local_addr().unwrap(), peer, None);
    let accepted = async { server.accept().await.unwrap().await };
    let (dialed, accepted) = tokio::join!(dial, accepted);
    (dialed.err(), accepted.err())
}

async fn a_classical_server_refuses_us(backend: Backend) {
    let anybody = Party::new(Admits::Everybody).id();
    let (ours, theirs) = dialed_stranger(backend, anybody, strangers::classical_server()).await;
    assert_eq!(ours, Some(LinkError::RefusedByPeer(PeerReason::NoCommonAlgorithm)));
    assert!(theirs.unwrap().to_string().contains("NoKxGroupsInCommon"));
}

async fn a_server_that_selects_a_padding_protocol_is_refused(backend: Backend) {
    let party = Party::new(Admits::Everybody);
    for (protocol, expected) in [(ALPN, None), (PADDING, Some(LinkError::RefusedByUs(Refusal::NoCommonProtocol)))] {
        let tls = strangers::server_choosing(&party, protocol);
        assert_eq!(dialed_stranger(backend, party.id(), tls).await.0, expected);
    }
}
