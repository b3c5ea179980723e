// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes on one wire find each other without any configuration, and tell the wire no more than they must.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

#[expect(dead_code, reason = "each test file uses a part")]
#[path = "dht_support/nodes.rs"]
mod dht_support;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use dht_support::Plan;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_lab::{
    netns::{Namespace, acquire},
    topology::{Host, TopologyError, lan, pair, veth},
};
use pqvpn_node::{
    config::DhtMode,
    dht::{DoorSource, NewDoor},
    handle::PeerRef,
    lan::{LanContext, run},
};
use pqvpn_wire::dht::NetworkId;
use tokio::sync::{mpsc, oneshot};

/// Longer than an interface takes to come up and the second query to be answered, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
/// Port of the announced sockets.
const PORT: u16 = 41641;
/// Where multicast DNS is spoken (RFC 6762 §3).
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);

/// One node's door to the local network, in a namespace.
struct Door {
    found: std::sync::mpsc::Receiver<NewDoor>,
    _stop: oneshot::Sender<()>,
}

impl Door {
    fn open(namespace: &Namespace, own: u8, network: NetworkId) -> Self {
        let (sender, found) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let (doors, mut news) = mpsc::channel(64);
                let listen = vec![SocketAddr::from(([0, 0, 0, 0], PORT)), "[::]:41641".parse().expect("socket")];
                let context = LanContext {
                    own: PeerId::from_bytes([own; 32]),
                    network,
                    listen,
                    found: doors,
                    look: Arc::default(),
                };
                let hand_on = async {
                    while let Some(door) = news.recv().await {
                        let _test_ended = sender.send(door);
                    }
                };
                tokio::select! {
                    () = run(context) => {}
                    () = hand_on => {}
                    _stop = stopped => {}
                }
            });
        };
        drop(namespace.thread("lan", work).expect("thread"));
        Self { found, _stop: stop }
    }

    /// The next neighbour found.
    fn next(&self) -> NewDoor {
        self.found.recv_timeout(LIMIT).expect("a neighbour")
    }
}

/// The network, or a line that says why the test did not run.
fn or_skip<T, E: std::fmt::Display>(made: impl FnOnce() -> Result<T, E>) -> Option<T> {
    if let Err(error) = acquire() {
        let _ = writeln!(std::io::stderr(), "SKIP: {error}");
        return None;
    }
    Some(made().unwrap_or_else(|error| panic!("{error}")))
}

fn endpoints(host: &Host) -> BTreeSet<String> {
    host.addresses().into_iter().map(|ip| SocketAddr::new(ip, PORT).to_string()).collect()
}

#[test]
fn two_nodes_on_one_wire_find_each_other() {
    let Some((one, two)) = or_skip(|| pair("one", "two")) else { return };
    let (left, right) =
        (Door::open(&one.namespace, 1, NetworkId::OPEN), Door::open(&two.namespace, 2, NetworkId::OPEN));
    for (door, id, host) in [(&left, 2, &two), (&right, 1, &one)] {
        // A family more may come a moment later, as a second piece of news.
        let mut endpoints_found = BTreeSet::new();
        while !endpoints_found.is_superset(&endpoints(host)) {
            let found = door.next();
            assert_eq!((found.peer, found.source), (PeerId::from_bytes([id; 32]), DoorSource::Lan));
            endpoints_found.extend(found.endpoints);
        }
        assert_eq!(endpoints_found, endpoints(host));
    }
}

#[test]
fn nodes_of_different_dhts_pass_each_other_by() {
    let Some((_switch, hosts)) = or_skip(|| lan(&["one", "two", "three"])) else { return };
    let other = NetworkId::from_bytes([7; 32]);
    let _stranger = Door::open(&hosts[0].namespace, 1, other);
    let first = Door::open(&hosts[1].namespace, 2, NetworkId::OPEN);
    let second = Door::open(&hosts[2].namespace, 3, NetworkId::OPEN);
    assert_eq!(first.next().peer, PeerId::from_bytes([3; 32]));
    assert_eq!(second.next().peer, PeerId::from_bytes([2; 32]));
    assert!(first.found.try_iter().all(|door| door.peer == PeerId::from_bytes([3; 32])));
}

#[test]
fn an_announcement_names_neither_the_host_nor_a_separate_dht() {
    let Some((one, two)) = or_skip(|| pair("one", "two")) else { return };
    let listener = two
        .namespace
        .run(move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).expect("socket");
            socket.join_multicast_v4(&GROUP, &two.ipv4).expect("group");
            socket.set_read_timeout(Some(LIMIT)).expect("timeout");
            socket
        })
        .expect("namespace");
    let _door = Door::open(&one.namespace, 1, NetworkId::from_bytes([0xab; 32]));
    let (mut heard, until) = (Vec::new(), Instant::now() + LIMIT);
    let id = "01".repeat(32);
    while !contains(&heard, &id) {
        assert!(Instant::now() < until, "no announcement");
        let mut packet = [0; 9000];
        let (length, _) = listener.recv_from(&mut packet).expect("an announcement");
        heard.extend_from_slice(&packet[..length]);
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("host name");
    assert!(!contains(&heard, host.trim()), "the name of the host");
    assert!(!contains(&heard, "abab") && !heard.windows(4).any(|bytes| bytes == [0xab; 4]), "the id of the DHT");
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Two hosts on a wire that have private addresses only.
fn private_pair() -> Result<[(Namespace, Ipv4Addr); 2], TopologyError> {
    let (one, two) = (Namespace::create("one")?, Namespace::create("two")?);
    let (left, right) = veth((&one, "eth0"), (&two, "eth0"))?;
    left.add_address("192.168.7.1/24".parse().expect("prefix"))?;
    right.add_address("192.168.7.2/24".parse().expect("prefix"))?;
    Ok([(one, Ipv4Addr::new(192, 168, 7, 1)), (two, Ipv4Addr::new(192, 168, 7, 2))])
}

/// A node of the open DHT, where a private address may not be published; `mode` spares the test the proof of work.
fn open_plan() -> Plan {
    let mut plan = Plan::new([0; 32], &[]);
    plan.config.node.listen = vec![SocketAddr::from(([0, 0, 0, 0], PORT))];
    (plan.config.dht.network, plan.config.dht.difficulty) = (None, None);
    plan.config.dht.mode = DhtMode::Client;
    plan.config.bootstrap.lan = true;
    plan
}

#[test]
fn a_pinned_neighbour_is_reached_where_it_announces_itself_though_it_has_no_record() {
    let Some([(one, _), (two, two_at)]) = or_skip(private_pair) else { return };
    let (mut alice, mut bob) = (open_plan(), open_plan());
    alice.pin(bob.id(), None);
    bob.pin(alice.id(), None);
    let (stop, stopped) = oneshot::channel::<()>();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let bob_id = bob.id();
    let bob = two.thread("bob", move || {
        runtime().block_on(async {
            let bob = bob.start().await;
            let _stop = stopped.await;
            bob.stop().await;
        });
    });
    let pinged = one.run(move || {
        runtime().block_on(async {
            let alice = alice.start().await;
            let pinged = alice.handle.ping(PeerRef(bob_id.to_string()), LIMIT).await;
            alice.stop().await;
            pinged
        })
    });
    drop(stop);
    bob.expect("thread").join().expect("bob");
    let reply = pinged.expect("namespace").expect("an answer");
    assert_eq!(reply.remote.ip(), IpAddr::V4(two_at));
}
