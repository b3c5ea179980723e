// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is announced, and what is taken from what others announce. The wire itself is in `tests/lan_netns.rs`.

use mdns_sd::ServiceInfo;

use super::*;

fn context() -> (LanContext, mpsc::Receiver<NewDoor>) {
    let (found, doors) = mpsc::channel(64);
    let (own, look) = (PeerId::from_bytes([1; 32]), Arc::default());
    let context = LanContext { own, network: NetworkId::OPEN, listen: Vec::new(), found, look };
    (context, doors)
}

fn announcement(facts: &[(&str, &str)], addresses: &str, port: u16) -> ResolvedService {
    ServiceInfo::new(SERVICE, "x", "x.local.", addresses, port, facts).unwrap().as_resolved_service()
}

fn sockets(listen: &[&str]) -> Option<(u16, Vec<String>)> {
    let listen: Vec<SocketAddr> = listen.iter().map(|text| text.parse().unwrap()).collect();
    announced(&listen).map(|(port, kinds)| (port, kinds.iter().map(|kind| format!("{kind:?}")).collect()))
}

#[test]
fn a_neighbour_is_a_door_with_addresses_that_can_be_dialed() {
    let (context, _) = context();
    let (id, net) = ("02".repeat(32), network_tag(&NetworkId::OPEN));
    let addresses = "fe80::1,127.0.0.1,169.254.1.1,192.168.1.7,fd00::7,224.0.0.1,0.0.0.0";
    let door = neighbour(&announcement(&[("id", &id), ("net", &net)], addresses, 41641), &context).unwrap();
    assert_eq!(door.peer, PeerId::from_bytes([2; 32]));
    assert_eq!(door.endpoints, ["192.168.1.7:41641", "[fd00::7]:41641"]);
    assert_eq!((door.source, door.expires_ms), (DoorSource::Lan, None));
}

#[test]
fn announcements_of_ourselves_other_dhts_and_nonsense_are_no_doors() {
    let (context, _) = context();
    let (id, own, net) = ("02".repeat(32), "01".repeat(32), network_tag(&NetworkId::OPEN));
    let other = network_tag(&NetworkId::from_bytes([9; 32]));
    let lan = "192.168.1.7";
    for (facts, addresses, port) in [
        (vec![("id", own.as_str()), ("net", &net)], lan, 1),
        (vec![("id", &id), ("net", &other)], lan, 1),
        (vec![("id", &id)], lan, 1),
        (vec![("net", &net)], lan, 1),
        (vec![("id", &id[1..]), ("net", &net)], lan, 1),
        (vec![("id", "..."), ("net", &net)], lan, 1),
        (vec![("id", &id), ("net", &net)], lan, 0),
        (vec![("id", &id), ("net", &net)], "127.0.0.1", 1),
        (vec![("id", &id), ("net", &net)], "", 1),
    ] {
        let service = announcement(&facts, addresses, port);
        assert_eq!(neighbour(&service, &context), None, "{facts:?} {addresses} {port}");
    }
    let many = (1..=9).map(|n| format!("192.168.1.{n}")).collect::<Vec<_>>().join(",");
    let door = neighbour(&announcement(&[("id", &id), ("net", &net)], &many, 1), &context).unwrap();
    assert_eq!(door.endpoints.len(), MAX_ADDRESSES);
}

#[test]
fn the_tag_of_a_dht_does_not_tell_its_id() {
    let secret = NetworkId::from_bytes([0xab; 32]);
    let tag = network_tag(&secret);
    assert_eq!(tag.len(), NETWORK_DIGITS);
    assert!(!tag.contains("abab") && tag != network_tag(&NetworkId::OPEN));
}

#[test]
fn a_neighbour_is_news_once_per_address_and_their_number_has_an_end() {
    let mut known = Neighbours::default();
    let door = |id: u8, endpoint: &str| NewDoor {
        peer: PeerId::from_bytes([id; 32]),
        endpoints: vec![endpoint.to_owned()],
        source: DoorSource::Lan,
        expires_ms: None,
    };
    assert!(known.news(door(2, "192.168.1.7:1")).is_some());
    assert!(known.news(door(2, "192.168.1.7:1")).is_none());
    assert!(known.news(door(2, "192.168.1.8:1")).is_some());
    for id in 3..100 {
        known.news(door(id, "192.168.1.9:1"));
    }
    assert_eq!(known.0.len(), MAX_FOUND);
    assert!(known.news(door(200, "192.168.1.9:1")).is_none());
    assert!(known.news(door(2, "192.168.1.10:1")).is_some(), "a known one may move");
}

#[test]
fn what_is_announced_is_where_others_reach_us() {
    assert_eq!(sockets(&["0.0.0.0:7", "[::]:7"]), Some((7, vec!["IPv4".to_owned(), "IPv6".to_owned()])));
    assert_eq!(sockets(&["0.0.0.0:7", "[::]:8"]), Some((7, vec!["IPv4".to_owned()])));
    assert_eq!(sockets(&["127.0.0.1:7", "192.168.1.7:9"]), Some((9, vec!["Addr(192.168.1.7)".to_owned()])));
    assert_eq!(sockets(&["127.0.0.1:7", "[::1]:7"]), None);
    assert_eq!(sockets(&[]), None);
}
