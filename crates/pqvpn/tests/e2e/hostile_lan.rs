// SPDX-License-Identifier: MIT OR Apache-2.0
//! A local network that hands out the mesh's addresses, or sends to ours: no packet for a member is seen on its wire, and
//! none of its own gets past the tunnel.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use pqvpn_lab::{
    impair::nft,
    netns::Namespace,
    process::run,
    topology::{Interface, Internet, add_route, internet, remove_route},
};

use crate::{
    hygiene::assert_nothing_left,
    proc::HostState,
    rig::{LIMIT, Node, PORT, TUN, has, poll, usable},
    traffic::{any, echo_sizes, udp},
};

const SECRET: &[u8] = b"for a member, and nobody else";
const OTHER: &[u8] = b"for whoever is on this network";

/// What the router of a network sees of it.
struct Wire(OwnedFd);

impl Wire {
    fn tap(namespace: &Namespace) -> Self {
        let open = || socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll);
        Self(namespace.run(open).unwrap().unwrap())
    }

    /// Frames since the last look.
    fn frames(&self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; 1 << 16];
        let next = || recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()).ok().map(|len| buffer[..len].to_vec());
        std::iter::from_fn(next).collect()
    }
}

/// Whether a frame holds some bytes in clear.
fn holds(frame: &[u8], bytes: &[u8]) -> bool {
    frame.windows(bytes.len()).any(|part| part == bytes)
}

/// Whether a frame is a packet to an address.
fn is_to(frame: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => frame.get(12..14) == Some(&[8, 0]) && frame.get(30..34) == Some(&v4.octets()),
        IpAddr::V6(v6) => frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(38..54) == Some(&v6.octets()),
    }
}

/// Whether a frame is UDP to a port where routers are asked for mappings: a node that starts asks its router, whoever it is.
fn is_for_router(frame: &[u8]) -> bool {
    let ports = [5351_u16, 1900].map(u16::to_be_bytes);
    frame.get(23) == Some(&17) && ports.iter().any(|port| frame.get(36..38) == Some(port))
}

/// A in the network of a router, B beyond it.
struct Scene {
    net: Internet,
    a: Node,
    b: Node,
    port: Interface,
    wire: Wire,
}

impl Scene {
    fn new() -> Option<Self> {
        if !usable() || !has("nft") || !has("ip") {
            return None;
        }
        let net = internet(2).unwrap();
        let (a, b) = (Node::new(&net.hosts[0].namespace, "a"), Node::new(&net.hosts[1].namespace, "b"));
        a.configure(&[b.as_peer(Some(SocketAddr::new(net.hosts[1].ipv4.into(), PORT)))], "");
        b.configure(&[a.as_peer(None)], "");
        // Whoever has addresses of the pool on the underlay is behind a NAT.
        let chain = "type nat hook postrouting priority srcnat\noifname port1 masquerade";
        let masquerade = &format!("table ip nat {{\nchain out {{\n{chain}\n}}\n}}\n");
        nft(&net.router, masquerade).unwrap();
        let (port, wire) = (Interface::find(&net.router, "port0").unwrap(), Wire::tap(&net.router));
        Some(Self { net, a, b, port, wire })
    }

    /// As DHCP: A has an address of the router's subnet, and the router for everything.
    fn hand_out(&self, a: Ipv4Addr, router: Ipv4Addr, length: u8) {
        let host = &self.net.hosts[0];
        self.port.add_address(Ipv4Net::new(router, length).unwrap().into()).unwrap();
        host.interface.add_address(Ipv4Net::new(a, length).unwrap().into()).unwrap();
        let ([x, y, z, _], all) = (host.ipv4.octets(), IpNet::V4(Ipv4Net::default()));
        remove_route(&host.namespace, all, Ipv4Addr::new(x, y, z, 1).into()).unwrap();
        add_route(&host.namespace, all, router.into()).unwrap();
    }

    /// The router takes what is sent to B's overlay address.
    fn lie_in_wait(&self) {
        self.port.add_address(IpNet::from(IpAddr::from(self.b.v4))).unwrap();
        self.port.add_address(IpNet::from(IpAddr::from(self.b.v6))).unwrap();
    }

    /// Sends what is for B only.
    fn send_secrets(&self) {
        for address in [IpAddr::from(self.b.v4), self.b.v6.into()] {
            let socket = udp(&self.a.namespace, any(address));
            // Where there is no way at all it does not leave either.
            let _refused = socket.send_to(SECRET, SocketAddr::new(address, 7));
        }
    }

    /// Whether the underlay carries packets from A to B, and has carried all that were sent before.
    fn underlay_works(&self) {
        let server = udp(&self.b.namespace, "0.0.0.0:0".parse().unwrap());
        let to = SocketAddr::new(self.net.hosts[1].ipv4.into(), server.local_addr().unwrap().port());
        let client = udp(&self.a.namespace, any(to.ip()));
        client.send_to(OTHER, to).unwrap();
        assert_eq!(server.recv(&mut [0; 64]).unwrap(), OTHER.len());
    }

    /// Nothing for B was seen since the last look, and there was something to see.
    #[track_caller]
    fn nothing_leaked(&self, when: &str) {
        self.underlay_works();
        let frames = self.wire.frames();
        assert!(frames.iter().any(|frame| holds(frame, OTHER)), "{when}: the wire is not seen");
        self.none_leaked(&frames, when);
    }

    #[track_caller]
    fn none_leaked(&self, frames: &[Vec<u8>], when: &str) {
        let secret = |frame: &&Vec<u8>| {
            let to_b = is_to(frame, self.b.v4.into()) || is_to(frame, self.b.v6.into());
            holds(frame, SECRET) || to_b && !is_for_router(frame)
        };
        assert_eq!(frames.iter().find(secret), None, "{when}: in clear");
    }

    fn start(&mut self) {
        self.b.start_up();
        self.a.start_up();
    }

    /// A reaches B by the tunnel and by nothing else.
    #[track_caller]
    fn holds_tight(&self, when: &str) {
        self.send_secrets();
        self.a.meet(&self.b);
        for address in [IpAddr::from(self.b.v4), self.b.v6.into()] {
            echo_sizes(&self.a.namespace, &self.b.namespace, address, &[1, 1200]);
        }
        self.send_secrets();
        self.nothing_leaked(when);
    }

    fn told(&self) -> Vec<String> {
        self.a.status().health.into_iter().map(|item| item.code).collect()
    }

    /// Whether the network would have what is sent to B, without a daemon: else nothing here proves anything.
    #[track_caller]
    fn would_leak(&self) {
        self.send_secrets();
        poll("a secret on the wire", || self.wire.frames().iter().any(|frame| holds(frame, SECRET)).then_some(()));
    }
}

/// Another address of the same /24 that nobody here has.
fn beside(address: Ipv4Addr, number: u8) -> Ipv4Addr {
    let [x, y, z, last] = address.octets();
    Ipv4Addr::new(x, y, z, if last == number { number + 7 } else { number })
}

#[test]
fn a_lan_that_hands_out_the_pool_gets_no_packet_for_a_member() {
    let Some(mut scene) = Scene::new() else { return };
    scene.hand_out(Ipv4Addr::new(10, 100, 0, 7), Ipv4Addr::new(10, 100, 0, 1), 16);
    scene.lie_in_wait();
    scene.would_leak();
    let before = HostState::of(&scene.a.namespace);
    scene.start();
    scene.holds_tight("the pool as a LAN");
    assert!(scene.told().contains(&"lan-collides".to_owned()), "{:?}", scene.told());
    // Its own hosts are reached as ever.
    let server = udp(&scene.net.router, "10.100.0.1:0".parse().unwrap());
    let client = udp(&scene.a.namespace, "0.0.0.0:0".parse().unwrap());
    client.send_to(OTHER, server.local_addr().unwrap()).unwrap();
    server.recv(&mut [0; 64]).unwrap();
    scene.a.stop();
    before.assert_still(&scene.a.namespace, "after a clean end");
    assert_nothing_left(&scene.a);
}

#[test]
fn a_narrower_lan_and_a_prefix_of_ipv6_get_no_packet_for_a_member_also_when_they_come_later() {
    let Some(mut scene) = Scene::new() else { return };
    scene.start();
    scene.holds_tight("an honest network");
    let (a, router) = (beside(scene.b.v4, 9), beside(scene.b.v4, 1));
    scene.hand_out(a, router, 24);
    let inside = Ipv6Net::new(scene.b.v6, 64).unwrap();
    for (interface, last) in [(&scene.port, 0xbad1), (&scene.net.hosts[0].interface, 0xbad2)] {
        let mut segments = scene.b.v6.segments();
        segments[7] = last;
        interface.add_address(Ipv6Net::new(segments.into(), inside.prefix_len()).unwrap().into()).unwrap();
    }
    scene.lie_in_wait();
    scene.holds_tight("a part of the pool as a LAN");
    poll("a word about it", || scene.told().contains(&"lan-collides".to_owned()).then_some(()));
    scene.a.stop();
    scene.would_leak();
}

#[test]
fn a_narrower_route_by_a_router_gets_no_packet_for_a_member() {
    let Some(mut scene) = Scene::new() else { return };
    // DHCP option 121 (TunnelVision).
    let (host, router) = (&scene.net.hosts[0], Ipv4Addr::new(20, 7, 1, 1));
    for length in [32, 24, 17] {
        let to = Ipv4Net::new(scene.b.v4, length).unwrap().trunc();
        add_route(&host.namespace, to.into(), router.into()).unwrap();
    }
    scene.would_leak();
    scene.start();
    scene.holds_tight("narrower routes");
    assert!(scene.told().contains(&"lan-collides".to_owned()), "{:?}", scene.told());
    // The very prefix of the mesh, while it runs and at the next start.
    let pool = Ipv4Net::new(scene.b.v4, 16).unwrap().trunc();
    let mut add = Command::new("ip");
    add.args(["route", "add", &pool.to_string(), "via", "20.7.1.1", "metric", "100"]);
    assert!(run(&scene.a.namespace, add, LIMIT).unwrap().status.success());
    scene.holds_tight("a route to the pool");
    scene.a.stop();
    scene.a.start_up();
    scene.holds_tight("a route to the pool that was there before");
}

#[test]
fn a_router_with_a_member_s_address_forwards_our_datagrams_and_gets_nothing_else() {
    let Some(mut scene) = Scene::new() else { return };
    scene.hand_out(beside(scene.b.v4, 9), scene.b.v4, 24);
    scene.would_leak();
    scene.start();
    scene.holds_tight("a router with a member's address");
    assert!(scene.told().contains(&"member-address".to_owned()), "{:?}", scene.told());
}

#[test]
fn a_lan_that_gives_us_our_own_overlay_address_gets_no_packet_for_a_member() {
    let Some(mut scene) = Scene::new() else { return };
    scene.start();
    scene.holds_tight("an honest network");
    let router = beside(scene.a.v4, 1);
    scene.hand_out(scene.a.v4, router, 24);
    add_route(&scene.a.namespace, IpNet::from(IpAddr::from(scene.b.v4)), router.into()).unwrap();
    scene.lie_in_wait();
    scene.send_secrets();
    scene.nothing_leaked("our address on the LAN");
    poll("a word about it", || scene.told().contains(&"host-change".to_owned()).then_some(()));
    scene.send_secrets();
    scene.nothing_leaked("our address on the LAN, and noticed");
}

#[test]
fn after_a_kill_packets_for_members_go_nowhere_until_the_next_start() {
    let Some(mut scene) = Scene::new() else { return };
    scene.hand_out(Ipv4Addr::new(10, 100, 0, 7), Ipv4Addr::new(10, 100, 0, 1), 16);
    scene.lie_in_wait();
    let before = HostState::of(&scene.a.namespace);
    scene.start();
    scene.holds_tight("the pool as a LAN");
    scene.a.crash();
    scene.send_secrets();
    scene.nothing_leaked("after a kill");
    scene.a.start_up();
    scene.holds_tight("after a kill and a start");
    // A program that takes away all rules it does not know, as systemd-networkd does when it starts.
    for family in ["-4", "-6"] {
        let mut flush = Command::new("ip");
        flush.args([family, "rule", "del", "priority", "174"]);
        assert!(run(&scene.a.namespace, flush, LIMIT).unwrap().status.success());
    }
    poll("the rules to be back", || {
        let host = HostState::of(&scene.a.namespace);
        (host.count("rule4 174:") == 1 && host.count("rule6 174:") == 1).then_some(())
    });
    scene.wire.frames();
    scene.holds_tight("after somebody took the rules away");
    scene.a.stop();
    before.assert_still(&scene.a.namespace, "after a kill, a start and a stop");
    assert_nothing_left(&scene.a);
}

#[test]
fn while_keys_are_rotated_packets_for_members_go_nowhere() {
    let Some(mut scene) = Scene::new() else { return };
    scene.hand_out(Ipv4Addr::new(10, 100, 0, 7), Ipv4Addr::new(10, 100, 0, 1), 16);
    scene.lie_in_wait();
    let before = HostState::of(&scene.a.namespace);
    scene.start();
    scene.holds_tight("the pool as a LAN");
    let done = AtomicBool::new(false);
    let (sent, rotated) = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0_u32;
            while !done.load(Ordering::Relaxed) {
                scene.send_secrets();
                sent += 1;
                // More than the socket holds until the end.
                scene.none_leaked(&scene.wire.frames(), "while keys are rotated");
                thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let rotated = scene.a.cli(&["keys", "rotate", "--yes"]);
        done.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), rotated)
    });
    assert!(rotated.status.success(), "{rotated:?}");
    assert!(sent > 20, "{sent} rounds of secrets in a restart");
    scene.nothing_leaked("after keys were rotated");
    scene.a.stop();
    before.assert_still(&scene.a.namespace, "after a rotation and a stop");
    scene.would_leak();
}

#[test]
fn what_somebody_does_to_our_interface_is_mended() {
    let Some(mut scene) = Scene::new() else { return };
    scene.start();
    scene.a.meet(&scene.b);
    let before = HostState::of(&scene.a.namespace);
    let own = format!("{}/32", scene.a.v4);
    for line in [["link", "set", TUN, "down"].as_slice(), &["address", "del", &own, "dev", TUN]] {
        let mut command = Command::new("ip");
        command.args(line);
        assert!(run(&scene.a.namespace, command, LIMIT).unwrap().status.success(), "{line:?}");
        poll("the host to be as it was", || (HostState::of(&scene.a.namespace) == before).then_some(()));
        scene.holds_tight("after somebody changed the interface");
    }
    scene.a.stop();
}

/// Whether what is sent from one socket to an address comes to another, with what was sent before.
fn delivers(from: &UdpSocket, to: &UdpSocket, payload: &[u8]) -> bool {
    from.send_to(payload, to.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 64];
    to.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == payload)
}

#[test]
fn a_neighbour_cannot_speak_to_our_overlay_addresses_in_a_member_s_name() {
    let Some(mut scene) = Scene::new() else { return };
    scene.start();
    scene.a.meet(&scene.b);
    let host = &scene.net.hosts[0];
    scene.lie_in_wait();
    for (own, via) in [(IpAddr::from(scene.a.v4), host.addresses()[0]), (scene.a.v6.into(), host.addresses()[1])] {
        let member = if own.is_ipv4() { IpAddr::from(scene.b.v4) } else { scene.b.v6.into() };
        add_route(&scene.net.router, own.into(), via).unwrap();
        let overlay = udp(&scene.a.namespace, SocketAddr::new(own, 0));
        let underlay = udp(&scene.a.namespace, SocketAddr::new(via, 0));
        let neighbour = udp(&scene.net.router, SocketAddr::new(member, 0));
        let honest = udp(&scene.net.router, any(own));
        for _ in 0..3 {
            neighbour.send_to(SECRET, overlay.local_addr().unwrap()).unwrap();
        }
        // By the same wire, after it.
        assert!(delivers(&honest, &underlay, OTHER), "{via}");
        overlay.set_nonblocking(true).unwrap();
        let got = overlay.recv_from(&mut [0; 64]).map_err(|error| error.kind());
        assert_eq!(got.unwrap_err(), io::ErrorKind::WouldBlock, "{own} heard the neighbour");
        overlay.set_nonblocking(false).unwrap();
        // The member itself is heard, and so is this host.
        assert!(delivers(&udp(&scene.b.namespace, any(own)), &overlay, SECRET), "{own} by the tunnel");
        assert!(delivers(&udp(&scene.a.namespace, any(own)), &overlay, OTHER), "{own} from here");
    }
    scene.a.stop();
}

#[test]
fn nobody_is_told_who_has_our_overlay_address() {
    let Some(mut scene) = Scene::new() else { return };
    let own = Ipv4Net::from(scene.a.v4).to_string();
    let ask = |scene: &Scene, line: &[&str]| {
        let mut command = Command::new("ip");
        command.args(line);
        run(&scene.net.router, command, LIMIT).unwrap().stdout
    };
    ask(&scene, &["route", "add", &own, "dev", "port0"]);
    scene.start();
    let curious = udp(&scene.net.router, any(scene.a.v4.into()));
    for own in [IpAddr::from(scene.a.v4), scene.net.hosts[0].ipv4.into()] {
        curious.send_to(OTHER, SocketAddr::new(own, 7)).unwrap();
    }
    let state = |of: IpAddr| ask(&scene, &["neighbour", "show", "to", &of.to_string()]);
    poll("an answer for the underlay", || state(scene.net.hosts[0].ipv4.into()).contains("lladdr").then_some(()));
    let told = poll("an end of asking", || {
        Some(state(scene.a.v4.into())).filter(|now| now.contains("FAILED") || now.contains("lladdr"))
    });
    assert!(told.contains("FAILED"), "{told}");
    scene.a.stop();
}
