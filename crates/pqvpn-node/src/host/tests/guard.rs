// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where packets for members go, whatever else the host is told. Where the kernel would send one is seen by the source it
//! gives it.

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
};

use super::{
    super::{
        Change,
        tests::netns::{LAN, Net, TUN, in_namespace},
    },
    *,
};

const OWN: &str = "10.100.3.7";
const MEMBER: &str = "10.100.9.2";
const STRANGER: &str = "10.100.9.3";
const ON_LAN: &str = "10.100.77.1";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ways(open: bool) -> Ways {
    let way = |source: Option<IpAddr>| open.then_some(source);
    let v6 = "fd01::/48".parse().unwrap();
    BTreeMap::from([(IpNet::from(ip(MEMBER)), way(Some(ip(OWN)))), (v6, way(None))])
}

/// The source a packet to `to` gets; nothing is sent.
fn source_to(to: &str, mark: u32) -> io::Result<IpAddr> {
    let any = if ip(to).is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    if mark != 0 {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    socket.connect((ip(to), 9))?;
    Ok(socket.local_addr()?.ip())
}

fn seen(to: &str) -> Option<IpAddr> {
    source_to(to, 0).ok()
}

/// The interface is up with our addresses, and a LAN hands out the same IPv4 range.
async fn colliding(net: &Net) -> (Kernel, u32) {
    net.up(TUN).await;
    net.address(LAN, "10.100.77.1/16").await;
    let (kernel, index) = (Kernel::open().unwrap(), net.index(TUN).await.unwrap());
    for own in ["10.100.3.7/32", "fd01::7/128"] {
        kernel.perform(index, &Change::Address { net: own.parse().unwrap() }).await.unwrap();
    }
    (kernel, index)
}

async fn route(net: &Net, to: &str, via: &str) {
    let to: IpNet = to.parse().unwrap();
    let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to.addr(), to.prefix_len()).unwrap();
    net.handle.route().add(route.gateway(ip(via)).unwrap().build()).execute().await.unwrap();
}

#[test]
fn a_lan_gets_no_member_s_packet_whatever_it_hands_out_and_keeps_all_others() {
    in_namespace(async |net| {
        let (kernel, index) = colliding(&net).await;
        assert_eq!(seen(MEMBER), Some(ip(ON_LAN)), "the LAN would have it");
        assert_eq!(open(&kernel, index, &ways(true)).await.unwrap(), Findings::default());
        assert_eq!((seen(MEMBER), seen(STRANGER)), (Some(ip(OWN)), Some(ip(ON_LAN))));
        assert_eq!(seen("fd01::9"), Some(ip("fd01::7")));
        // Narrower subnets and routes by a gateway, which come later.
        net.address(LAN, "10.100.9.1/24").await;
        route(&net, "10.100.9.2/32", "192.168.7.1").await;
        assert_eq!((seen(MEMBER), seen(STRANGER)), (Some(ip(OWN)), Some(ip("10.100.9.1"))));
        clear(&kernel, index).await.unwrap();
        assert_ne!(seen(MEMBER), Some(ip(OWN)));
    });
}

#[test]
fn packets_of_the_node_itself_are_not_for_the_tunnel() {
    in_namespace(async |net| {
        let (kernel, index) = colliding(&net).await;
        open(&kernel, index, &ways(true)).await.unwrap();
        assert_eq!(source_to(MEMBER, MARK).unwrap(), ip(ON_LAN));
        assert_eq!(source_to(MEMBER, MARK + 1).unwrap(), ip(OWN));
    });
}

#[test]
fn what_is_closed_leaves_by_no_way() {
    in_namespace(async |net| {
        let before = net.dump().await;
        let (kernel, index) = colliding(&net).await;
        let set_up = net.dump().await;
        for _ in 0..2 {
            close(&kernel, index, ways(true).into_keys()).await.unwrap();
            assert_eq!((seen(MEMBER), seen("fd01::9"), seen(STRANGER)), (None, None, Some(ip(ON_LAN))));
        }
        open(&kernel, index, &ways(true)).await.unwrap();
        assert!(seen(MEMBER).is_some());
        open(&kernel, index, &ways(false)).await.unwrap();
        assert_eq!((seen(MEMBER), seen("fd01::9")), (None, None));
        open(&kernel, index, &Ways::new()).await.unwrap();
        assert_eq!(seen(MEMBER), Some(ip(ON_LAN)), "who is no member any more is not looked after");
        clear(&kernel, index).await.unwrap();
        assert_eq!(net.dump().await, set_up);
        assert_ne!(before, set_up);
    });
}

#[test]
fn after_a_kill_all_is_closed_until_the_next_guard_stands() {
    in_namespace(async |net| {
        let (kernel, index) = colliding(&net).await;
        open(&kernel, index, &ways(true)).await.unwrap();
        assert_eq!(sweep(&kernel).await.unwrap(), 0, "what is in use is not swept");
        net.delete(TUN).await;
        let before = net.dump().await;
        assert_eq!((seen(MEMBER), seen(STRANGER)), (None, Some(ip(ON_LAN))));
        net.add_pair(TUN, "far2").await;
        net.up(TUN).await;
        net.address(TUN, "10.100.3.7/32").await;
        let new = net.index(TUN).await.unwrap();
        assert_ne!(new, index);
        open(&kernel, new, &ways(true)).await.unwrap();
        assert_eq!(sweep(&kernel).await.unwrap(), 1);
        assert_eq!(seen(MEMBER), Some(ip(OWN)));
        clear(&kernel, new).await.unwrap();
        assert_eq!(seen(MEMBER), Some(ip(ON_LAN)));
        net.delete(TUN).await;
        let left: Vec<String> = net.dump().await.into_iter().filter(|line| line.contains("Other(174)")).collect();
        assert_eq!(left, Vec::<String>::new(), "of {before:?}");
    });
}

#[test]
fn a_source_that_has_changed_is_changed_and_what_others_put_there_stays() {
    in_namespace(async |net| {
        let (kernel, index) = colliding(&net).await;
        net.address(TUN, "10.100.3.8/32").await;
        open(&kernel, index, &ways(true)).await.unwrap();
        let foreign = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix([198, 51, 100, 0].into(), 24)
            .output_interface(index)
            .table_id(TABLES + index)
            .build();
        net.handle.route().add(foreign).execute().await.unwrap();
        let moved = BTreeMap::from([(IpNet::from(ip(MEMBER)), Some(Some(ip("10.100.3.8"))))]);
        open(&kernel, index, &moved).await.unwrap();
        assert_eq!(seen(MEMBER), Some(ip("10.100.3.8")));
        clear(&kernel, index).await.unwrap();
        assert!(net.dump().await.join("\n").contains("198.51.100.0"));
    });
}

#[test]
fn what_the_guard_cannot_help_is_found() {
    in_namespace(async |net| {
        let (kernel, index) = colliding(&net).await;
        net.address(LAN, "10.100.9.2/24").await;
        route(&net, "0.0.0.0/0", "192.168.7.1").await;
        let mut early = net.handle.rule().add().v4().table_id(99).priority(9).action(RuleAction::ToTable);
        early.message_mut().header.table = 0;
        early.execute().await.unwrap();
        let found = open(&kernel, index, &ways(true)).await.unwrap();
        assert_eq!((found.earlier, found.own), (BTreeSet::from([9]), vec![(ip(MEMBER), LAN.to_owned())]));
        let router = BTreeMap::from([(IpNet::from(ip("192.168.7.1")), Some(None))]);
        assert_eq!(open(&kernel, index, &router).await.unwrap().routers, BTreeSet::from([ip("192.168.7.1")]));
    });
}
