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

fn door(id: u8, endpoint: &str) -> NewDoor {
    let endpoints = vec![endpoint.to_owned()];
    NewDoor { peer: PeerId::from_bytes([id; 32]), endpoints, source: DoorSource::Lan, expires_ms: None }
}

/// What is handed on of a neighbour.
fn told(known: &mut Neighbours, door: NewDoor) -> Option<NewDoor> {
    let (found, mut doors) = mpsc::channel(1);
    known.tell(door, &found);
    doors.try_recv().ok()
}

#[test]
fn a_neighbour_is_news_once_per_address_and_their_number_has_an_end() {
    let mut known = Neighbours::default();
    assert!(told(&mut known, door(2, "192.168.1.7:1")).is_some());
    assert!(told(&mut known, door(2, "192.168.1.7:1")).is_none());
    assert!(told(&mut known, door(2, "192.168.1.8:1")).is_some());
    for id in 3..100 {
        told(&mut known, door(id, "192.168.1.9:1"));
    }
    assert_eq!(known.doors.len(), MAX_FOUND);
    assert!(told(&mut known, door(99, "192.168.1.10:1")).is_some(), "a known one may move");
}

#[test]
fn who_comes_when_many_were_known_is_news_and_the_first_are_forgotten() {
    let mut known = Neighbours::default();
    for id in 100..164 {
        assert!(told(&mut known, door(id, "192.168.1.9:1")).is_some());
    }
    // Seen again, it is not the oldest any more.
    assert!(told(&mut known, door(100, "192.168.1.9:1")).is_none());
    assert!(told(&mut known, door(7, "10.0.0.9:1")).is_some(), "another network, and others in it");
    assert!(told(&mut known, door(7, "10.0.0.9:1")).is_none());
    assert!(told(&mut known, door(100, "192.168.1.9:1")).is_none());
    assert!(told(&mut known, door(101, "192.168.1.9:1")).is_some(), "that was the oldest");
    assert_eq!(known.doors.len(), MAX_FOUND);
}

#[test]
fn what_met_a_full_queue_is_told_at_the_next_look() {
    let (found, mut doors) = mpsc::channel(1);
    let mut known = Neighbours::default();
    known.tell(door(2, "192.168.1.7:1"), &found);
    known.tell(door(3, "192.168.1.8:1"), &found);
    assert_eq!(doors.try_recv().map(|door| door.peer), Ok(PeerId::from_bytes([2; 32])));
    known.tell(door(2, "192.168.1.7:1"), &found);
    known.tell(door(3, "192.168.1.8:1"), &found);
    assert_eq!(doors.try_recv().map(|door| door.peer), Ok(PeerId::from_bytes([3; 32])));
}

#[tokio::test]
async fn who_is_busy_hears_of_all_of_them_later() {
    let (found, doors) = mpsc::channel(8);
    let ((quick, mut quickly), (busy, mut later)) = (mpsc::channel(8), mpsc::channel(1));
    let (gone, _) = mpsc::channel(1);
    let telling = tokio::spawn(tell_all(doors, vec![gone, quick, busy]));
    for id in 2..6 {
        found.send(door(id, "192.168.1.7:1")).await.unwrap();
    }
    drop(found);
    for id in 2..6 {
        assert_eq!(later.recv().await.map(|door| door.peer), Some(PeerId::from_bytes([id; 32])));
        assert_eq!(quickly.recv().await.map(|door| door.peer), Some(PeerId::from_bytes([id; 32])));
    }
    telling.await.unwrap();
}

#[test]
fn what_is_announced_is_where_others_reach_us() {
    assert_eq!(sockets(&["0.0.0.0:7", "[::]:7"]), Some((7, vec!["IPv4".to_owned(), "IPv6".to_owned()])));
    assert_eq!(sockets(&["0.0.0.0:7", "[::]:8"]), Some((7, vec!["IPv4".to_owned()])));
    assert_eq!(sockets(&["127.0.0.1:7", "192.168.1.7:9"]), Some((9, vec!["Addr(192.168.1.7)".to_owned()])));
    assert_eq!(sockets(&["127.0.0.1:7", "[::1]:7"]), None);
    assert_eq!(sockets(&[]), None);
}
