// SPDX-License-Identifier: MIT OR Apache-2.0
//! Meshes of pinned peers and networks, also of such that overlap.

use pqvpn_packet::addr::{NetworkHash, ula};
use pqvpn_wire::dht::NetworkId;

use super::*;

const OWN: PeerId = PeerId::from_bytes([1; 32]);
const NAS: PeerId = PeerId::from_bytes([2; 32]);
const BOX: PeerId = PeerId::from_bytes([3; 32]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn member(network: &NetworkId, peer: PeerId, name: &str, v4: &str) -> MemberView {
    let v6 = ula(NetworkHash::of_network(network.as_bytes()), peer.as_bytes());
    MemberView {
        peer,
        name: name.to_owned(),
        addresses: vec![v6.into(), ip(v4)],
        endpoints: vec!["192.0.2.1:41641".parse().unwrap()],
        online: true,
        admin: false,
        level_cap: 3,
        tags: Vec::new(),
    }
}

/// A network with us as `me` at an address, and others: PeerID, name, address.
fn network(number: u8, name: &str, pool: &str, me: &str, others: &[(PeerId, &str, &str)]) -> NetworkView {
    let id = NetworkId::from_bytes([number; 32]);
    let v6 = ula(NetworkHash::of_network(id.as_bytes()), OWN.as_bytes());
    NetworkView {
        id,
        name: name.to_owned(),
        prefix_v6: ipnet::Ipv6Net::new_assert(v6, 48).trunc(),
        pool: pool.parse().unwrap(),
        own: member(&id, OWN, "me", me),
        members: others.iter().map(|(peer, name, v4)| member(&id, *peer, name, v4)).collect(),
        revoked: Vec::new(),
        ready: true,
        downs: 0,
        enabled: true,
        health: Vec::new(),
    }
}

fn pinned(peers: &[PeerId]) -> Config {
    Config { peers: peers.iter().map(|&id| PeerConfig::new(id)).collect(), ..Config::default() }
}

fn meets(mesh: &Mesh, a: IpAddr, b: IpAddr) -> bool {
    let realms = mesh.realms.as_ref().expect("several realms");
    let of = |address: IpAddr| {
        let around = realms.iter().filter(|(net, _)| net.contains(&address));
        let longest = around.clone().map(|(net, _)| net.prefix_len()).max();
        let found = around.filter(|(net, _)| Some(net.prefix_len()) == longest);
        found.fold(RealmSet::default(), |all, (_, realms)| all.union(*realms))
    };
    of(a).meets(of(b))
}

#[test]
fn without_networks_the_mesh_is_that_of_the_config() {
    let config = pinned(&[NAS]);
    let (mesh, overlay) = (Mesh::plan(&config, OWN, &[]), Overlay::plan(&config, OWN));
    assert_eq!((&mesh.own, &mesh.peers[&NAS].addresses), (&overlay.own, &overlay.peers[0]));
    assert_eq!((mesh.realms, mesh.host.len()), (None, 1));
    assert_eq!(mesh.peers[&NAS].name, config.peers[0].name);
    assert!(Mesh::plan(&Config::default(), OWN, &[]).own.len() == 2, "addresses are there before anybody else is");
}

#[test]
fn a_network_takes_the_place_of_pinned_addresses_that_nobody_knows() {
    let home = network(7, "home", "10.100.0.0/16", "10.100.1.1", &[(NAS, "nas", "10.100.2.2")]);
    let mesh = Mesh::plan(&Config::default(), OWN, std::slice::from_ref(&home));
    assert_eq!(mesh.own, home.own.addresses);
    let nas = &mesh.peers[&NAS];
    assert_eq!((nas.name.as_str(), nas.pinned, nas.named, nas.ready), ("nas", false, false, true));
    assert_eq!(nas.endpoints, ["192.0.2.1:41641"]);
    let routes: Vec<_> = mesh.host.iter().flat_map(|part| part.routes.clone()).collect();
    assert_eq!(routes, [(home.prefix_v6.into(), None), (home.pool.into(), Some(ip("10.100.1.1")))]);
    assert!(meets(&mesh, ip("10.100.1.1"), ip("10.100.2.2")));
    assert!(!meets(&mesh, ip("10.100.2.2"), ip("192.168.1.1")), "a member does not reach what is behind this host");
}

#[test]
fn one_peer_of_two_networks_is_one_peer_and_its_addresses_stay_apart() {
    let home = network(7, "home", "10.102.0.0/16", "10.102.1.1", &[(NAS, "nas", "10.102.2.2")]);
    let work = network(8, "work", "10.101.0.0/16", "10.101.1.1", &[(NAS, "box", "10.101.2.2")]);
    let mesh = Mesh::plan(&pinned(&[NAS]), OWN, &[home, work]);
    let nas = &mesh.peers[&NAS];
    assert_eq!(nas.addresses.len(), 6, "IPv6 and IPv4 of the pinned realm and of two networks");
    assert!(nas.addresses[..3].iter().all(IpAddr::is_ipv6));
    assert_eq!(nas.name, "nas", "nobody gave it a name here");
    assert_eq!(nas.names, [("home".to_owned(), "nas".to_owned()), ("work".to_owned(), "box".to_owned())]);
    assert_eq!(mesh.own.len(), 6);
    assert!(meets(&mesh, ip("10.102.1.1"), ip("10.102.2.2")) && meets(&mesh, ip("10.101.1.1"), ip("10.101.2.2")));
    assert!(!meets(&mesh, ip("10.102.1.1"), ip("10.101.2.2")) && !meets(&mesh, ip("10.101.1.1"), ip("10.102.2.2")));
    let pinned_v6 = ula(NetworkHash::pinned(), NAS.as_bytes()).into();
    assert!(!meets(&mesh, ip("10.102.1.1"), pinned_v6));
    assert!(meets(&mesh, ula(NetworkHash::pinned(), OWN.as_bytes()).into(), pinned_v6));
}

#[test]
fn networks_with_one_pool_share_it_when_we_have_one_address_in_both() {
    let home = network(7, "home", "10.100.0.0/16", "10.100.1.1", &[(NAS, "nas", "10.100.2.2")]);
    let work = network(8, "work", "10.100.0.0/16", "10.100.1.1", &[(BOX, "box", "10.100.3.3")]);
    let mesh = Mesh::plan(&Config::default(), OWN, &[home, work]);
    assert!(mesh.collisions.is_empty(), "{:?}", mesh.collisions);
    assert!(meets(&mesh, ip("10.100.1.1"), ip("10.100.2.2")) && meets(&mesh, ip("10.100.1.1"), ip("10.100.3.3")));
    assert!(!meets(&mesh, ip("10.100.2.2"), ip("10.100.3.3")), "the two do not meet through us");
}

#[test]
fn a_network_whose_addresses_cannot_be_told_from_anothers_is_reached_by_ipv6() {
    let home = network(7, "home", "10.100.0.0/16", "10.100.1.1", &[(NAS, "nas", "10.100.2.2")]);
    let work = network(8, "work", "10.100.0.0/20", "10.100.9.9", &[(BOX, "box", "10.100.2.2")]);
    let mesh = Mesh::plan(&Config::default(), OWN, &[home, work]);
    assert!(!mesh.own.contains(&ip("10.100.9.9")));
    assert_eq!(mesh.peers[&BOX].addresses.len(), 1);
    assert_eq!(mesh.collisions[0].code, "pool-overlap");
    assert!(mesh.collisions[0].text.contains("home"), "{}", mesh.collisions[0].text);
}

#[test]
fn one_address_has_one_owner_and_the_loser_is_said() {
    let home = network(7, "home", "10.100.0.0/16", "10.100.1.1", &[(NAS, "nas", "10.100.2.2")]);
    let work = network(8, "work", "10.100.0.0/16", "10.100.1.1", &[(BOX, "box", "10.100.2.2")]);
    let mesh = Mesh::plan(&Config::default(), OWN, &[home, work]);
    assert!(mesh.peers[&NAS].addresses.contains(&ip("10.100.2.2")));
    assert_eq!(mesh.peers[&BOX].addresses.len(), 1);
    assert_eq!(mesh.collisions[0].code, "ipv4-collision");
    let owners: Vec<_> = mesh.peers.values().flat_map(|peer| &peer.prefixes).collect();
    assert_eq!(owners.len(), owners.iter().collect::<BTreeSet<_>>().len());
}

#[test]
fn a_network_that_is_off_has_no_part_in_the_mesh() {
    let mut home = network(7, "home", "10.100.0.0/16", "10.100.1.1", &[(NAS, "nas", "10.100.2.2")]);
    home.enabled = false;
    let mesh = Mesh::plan(&Config::default(), OWN, &[home]);
    assert!(mesh.own.is_empty() && mesh.peers.is_empty() && mesh.host.is_empty() && mesh.realms.is_none());
}

#[test]
fn who_is_revoked_is_out_unless_something_else_makes_it_a_peer() {
    let mut home = network(7, "home", "10.100.0.0/16", "10.100.1.1", &[]);
    home.revoked = vec![NAS, BOX];
    let work = network(8, "work", "10.101.0.0/16", "10.101.1.1", &[(BOX, "box", "10.101.2.2")]);
    let mesh = Mesh::plan(&Config::default(), OWN, &[home.clone(), work]);
    assert_eq!(mesh.revoked, BTreeSet::from([NAS]));
    assert!(mesh.peers.contains_key(&BOX) && !mesh.peers.contains_key(&NAS));
    assert!(Mesh::plan(&pinned(&[NAS]), OWN, &[home]).peers.contains_key(&NAS), "pinned peers stay");
}

#[test]
fn a_network_that_has_not_been_heard_of_yet_makes_peers_wait() {
    let mut home = network(7, "home", "10.100.0.0/16", "10.100.1.1", &[(NAS, "nas", "10.100.2.2")]);
    home.ready = false;
    let plan = |config, views: &[NetworkView]| Mesh::plan(&config, OWN, views).peers[&NAS].ready;
    assert!(!plan(Config::default(), std::slice::from_ref(&home)));
    assert!(plan(pinned(&[NAS]), std::slice::from_ref(&home)));
    let work = network(8, "work", "10.101.0.0/16", "10.101.1.1", &[(NAS, "nas", "10.101.2.2")]);
    assert!(plan(Config::default(), &[home, work]));
}

#[test]
fn networks_beyond_the_realms_there_are_carry_nothing() {
    let views: Vec<NetworkView> =
        (0..70).map(|number| network(number, "n", "10.100.0.0/16", "10.100.1.1", &[])).collect();
    let mesh = Mesh::plan(&Config::default(), OWN, &views);
    assert_eq!(mesh.host.iter().filter(|part| part.addresses[0].is_ipv6()).count(), MAX_REALMS - 1);
}

#[test]
fn a_network_that_is_not_ready_lends_no_addresses_to_who_may_have_sessions_by_another() {
    let ready = network(1, "work", "10.1.0.0/16", "10.1.0.1", &[(NAS, "nas", "10.1.0.2")]);
    let mut late = network(2, "home", "10.2.0.0/16", "10.2.0.1", &[(NAS, "nas", "10.2.0.2"), (BOX, "box", "10.2.0.3")]);
    late.ready = false;
    let mesh = Mesh::plan(&Config::default(), OWN, &[late.clone(), ready.clone()]);
    let (nas, other) = (&mesh.peers[&NAS], &mesh.peers[&BOX]);
    assert!(nas.ready && !other.ready);
    assert!(nas.addresses.contains(&ip("10.1.0.2")) && !nas.addresses.contains(&ip("10.2.0.2")));
    assert!(nas.prefixes.iter().all(|net| !net.contains(&ip("10.2.0.2"))));
    assert!(other.addresses.contains(&ip("10.2.0.3")), "its packets wait for the network");
    // A pinned peer is no exception.
    let mesh = Mesh::plan(&pinned(&[NAS]), OWN, &[late.clone()]);
    assert!(mesh.peers[&NAS].ready && !mesh.peers[&NAS].addresses.contains(&ip("10.2.0.2")));
    late.ready = true;
    let mesh = Mesh::plan(&Config::default(), OWN, &[late, ready]);
    assert!(mesh.peers[&NAS].addresses.contains(&ip("10.2.0.2")));
}

#[test]
fn members_addresses_are_the_mesh_s_also_where_their_packets_are_not_taken() {
    let home = network(7, "home", "10.100.0.0/16", "10.100.1.1", &[(NAS, "nas", "10.100.2.2")]);
    let same = network(8, "same", "10.100.0.0/16", "10.100.1.9", &[(BOX, "box", "10.100.4.4")]);
    let behind = NetworkView { ready: false, ..home.clone() };
    for home in [home, behind] {
        let mesh = Mesh::plan(&pinned(&[NAS]), OWN, &[home, same.clone()]);
        for address in ["10.100.2.2", "10.100.4.4"].map(ip).into_iter().chain(mesh.peers[&NAS].addresses.clone()) {
            assert!(mesh.guarded.iter().any(|net| net.contains(&address)), "{address} in {:?}", mesh.guarded);
        }
        let own = |net: &&IpNet| mesh.own.iter().any(|own| IpNet::from(*own) == **net);
        assert_eq!(mesh.guarded.iter().find(own), None, "our own are the host's");
        assert!(
            mesh.guarded.iter().all(|net| matches!(net, IpNet::V6(_)) || net.prefix_len() == 32),
            "a LAN keeps the rest"
        );
    }
    let mut config = pinned(&[NAS]);
    config.interface.ipv4 = false;
    assert!(Mesh::plan(&config, OWN, &[same]).guarded.iter().all(|net| matches!(net, IpNet::V6(_))));
}
