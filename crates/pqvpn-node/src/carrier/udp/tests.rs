// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has a way at UDP port 443 and for how long, and the port itself on sockets.

use std::net::Ipv4Addr;

use super::*;

const START: GroupId = GroupId(0xc001);

fn from(host: u32, port: u16) -> Ends {
    Ends { from: SocketAddr::from((Ipv4Addr::from_bits(host), port)), local: None }
}

fn nobody(_: WayId) -> Use {
    Use::Nobody
}

fn first() -> Vec<u8> {
    vec![0xc3; FIRST]
}

fn heard(table: &Table, ends: Ends) -> bool {
    table.heard.values().any(|heard| heard.ends == ends)
}

#[test]
fn only_the_first_packet_of_a_link_makes_a_way() {
    let (mut table, now) = (Table::new(START), Instant::now());
    let mut hear =
        |ends, datagram: &[u8]| table.way(now, ends, datagram, nobody).map(|found| (found.way, found.is_new));
    for bad in [&[0xc3; FIRST - 1][..], &[0x43; FIRST], &[0x24; 1400], &[]] {
        assert_eq!(hear(from(1, 1), bad), None);
    }
    let (way, is_new) = hear(from(1, 1), &first()).unwrap();
    assert!(is_new);
    assert_eq!(hear(from(1, 1), b"any"), Some((way, false)), "one that is known may send anything");
    let other_address_of_ours = Ends { local: Some([192, 0, 2, 1].into()), ..from(1, 1) };
    let others = [from(1, 2), other_address_of_ours].map(|ends| hear(ends, &first()).unwrap());
    assert!(others.iter().all(|(other, is_new)| *is_new && *other != way));
}

#[test]
fn a_flood_of_forged_sources_leaves_newcomers_their_time_and_puts_no_peer_out() {
    let (mut table, now) = (Table::new(START), Instant::now());
    let member = table.way(now, from(1, 1), &first(), nobody).unwrap().way;
    let stranger = table.way(now, from(2, 2), &first(), nobody).unwrap().way;
    let used_by = |way| match way {
        _ if way == member => Use::Peer,
        _ if way == stranger => Use::Stranger,
        _ => Use::Nobody,
    };
    // 20,000 a second, of all addresses there are, and each once.
    let flood = |table: &mut Table, from_ms: u32, ms: u32| {
        for n in from_ms * 20..(from_ms + ms) * 20 {
            let at = now + Duration::from_micros(u64::from(n) * 50);
            assert!(table.way(at, from(1000 + n, 1), &first(), used_by).is_some());
        }
    };
    flood(&mut table, 0, 1000);
    let honest = from(7, 7);
    let way = table.way(now, honest, &first(), used_by).expect("no rate keeps a newcomer out").way;
    flood(&mut table, 1000, 300);
    let next = table.way(now, honest, b"a second packet", used_by).expect("after a round trip of 300 ms it is there");
    assert!(next.way == way && !next.is_new);
    flood(&mut table, 1300, 1000);
    assert!(table.way(now, honest, b"any", used_by).is_none(), "it has had its time");
    assert_eq!(table.way(now, honest, &first(), used_by).unwrap().way, way, "and goes on where it was");
    assert_eq!(table.heard.len(), MAX_HEARD);
    assert!(heard(&table, from(1, 1)) && heard(&table, from(2, 2)), "who has a link stays");
    assert!(table.new.len() + table.strangers.len() <= MAX_HEARD + 2, "what is remembered of it is bounded");
}

#[test]
fn where_all_are_authenticated_a_stranger_makes_room_and_a_peer_does_not() {
    let (mut table, now) = (Table::new(START), Instant::now());
    let mut ways = Vec::new();
    for host in 0..u32::try_from(MAX_HEARD).unwrap() {
        ways.push(table.way(now, from(host, 1), &first(), nobody).unwrap().way);
    }
    let stranger = ways[5];
    let used_by = |way| if way == stranger { Use::Stranger } else { Use::Peer };
    let found = table.way(now, from(100_000, 1), &first(), used_by).unwrap();
    assert_eq!(found.over, Some(stranger));
    let newcomer = found.way;
    let used_by = |way| if way == newcomer { Use::Nobody } else { Use::Peer };
    assert_eq!(table.way(now, from(100_001, 1), &first(), used_by).unwrap().over, Some(newcomer));
    assert!(table.way(now, from(100_002, 1), &first(), |_| Use::Peer).is_none());
    let uses = |way| (way, if way == ways[9] { Use::Nobody } else { Use::Peer });
    table.sweep(now, &table.heard.keys().copied().map(uses).collect());
    let left = |way| if way == ways[9] { Use::Nobody } else { Use::Peer };
    assert_eq!(table.way(now, from(100_002, 1), &first(), left).unwrap().over, Some(ways[9]), "its peer has left it");
}

#[test]
fn who_falls_silent_is_forgotten_and_one_with_a_link_later() {
    let (mut table, now) = (Table::new(START), Instant::now());
    table.way(now, from(1, 1), &first(), nobody);
    let known = table.way(now, from(2, 2), &first(), nobody).unwrap().way;
    let uses = HashMap::from([(known, Use::Stranger)]);
    assert_eq!(table.sweep(now + FORGET_NEW, &uses).len(), 1);
    assert!(heard(&table, from(2, 2)) && table.heard.len() == 1);
    assert_eq!(table.sweep(now + FORGET, &uses), [known]);
    assert!(table.heard.is_empty() && table.new.is_empty() && table.strangers.is_empty());
}

mod on_sockets {
    use rtnetlink::LinkUnspec;
    use tokio::net::UdpSocket;

    use super::{super::super::fake::FakePlane, *};
    use crate::host::tests::netns::in_namespace;

    struct Lab {
        plane: Arc<FakePlane>,
        at: SocketAddr,
        _stop: watch::Sender<()>,
    }

    fn serve(at: &str) -> Lab {
        let (plane, stop) = (Arc::new(FakePlane::default()), watch::Sender::new(()));
        let port = listen(at.parse().unwrap()).unwrap();
        let at = port.get_ref().local_addr();
        let ways = Ways::new(plane.shared(), |_| true);
        tokio::spawn(receive_all(port, ways, stop.subscribe()));
        Lab { plane, at, _stop: stop }
    }

    /// A client that has sent its first packet to an address of the host.
    async fn begun(lab: &Lab, to: IpAddr) -> (UdpSocket, WayId) {
        let client = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        client.send_to(&first(), (to, lab.at.port())).await.unwrap();
        let before = lab.plane.came();
        lab.plane.wait_for(before + 1).await;
        (client, lab.plane.last_way().unwrap())
    }

    #[tokio::test]
    async fn an_answer_leaves_by_the_address_that_was_asked() {
        let lab = serve("0.0.0.0:0");
        for host in [[127, 0, 0, 1], [127, 0, 0, 9]] {
            let (client, way) = begun(&lab, host.into()).await;
            assert!(lab.plane.send(way, b"an answer"));
            let (_len, by) = client.recv_from(&mut [0; 99]).await.unwrap();
            assert_eq!(by, SocketAddr::from((host, lab.at.port())));
        }
    }

    #[test]
    fn a_datagram_that_is_longer_than_the_network_takes_is_refused_and_the_way_goes_on() {
        in_namespace(async |net| {
            let lo = LinkUnspec::new_with_index(net.index("lo").await.unwrap()).mtu(1400).build();
            net.handle.link().change(lo).execute().await.unwrap();
            let lab = serve("0.0.0.0:0");
            let (client, way) = begun(&lab, [127, 0, 0, 1].into()).await;
            for _ in 0..2 {
                assert!(!lab.plane.send(way, &[5; 1373]), "1373 and 28 bytes of headers: not cut in pieces");
                assert!(lab.plane.send(way, &[5; 1372]));
                let (len, _by) = client.recv_from(&mut [0; 2000]).await.unwrap();
                assert_eq!(len, 1372);
            }
            client.send_to(&[9; 50], lab.at).await.unwrap();
            lab.plane.wait_for(2).await;
            assert_eq!(lab.plane.last_way(), Some(way));
        });
    }
}
