// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams cross what was built, and do not cross what was taken down.

use super::*;
use crate::netns::tests::namespace;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Whether a datagram from `from` reaches `to` at `address`.
pub(crate) fn reaches(from: &Namespace, to: &Namespace, address: IpAddr) -> bool {
    reaches_with(from, to, address, 100, Duration::from_secs(20))
}

/// The same with `len` bytes, and nothing expected to take longer than `limit`.
pub(crate) fn reaches_with(from: &Namespace, to: &Namespace, address: IpAddr, len: usize, limit: Duration) -> bool {
    let receiver = to.run(move || UdpSocket::bind(SocketAddr::new(address, 0))).unwrap().unwrap();
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sender = from.run(move || UdpSocket::bind(SocketAddr::new(any, 0))).unwrap().unwrap();
    receiver.set_read_timeout(Some(limit)).unwrap();
    if sender.send_to(&vec![7; len], receiver.local_addr().unwrap()).is_err() {
        return false;
    }
    let mut buffer = vec![0; len + 1];
    receiver.recv_from(&mut buffer).is_ok_and(|(got, _)| got == len)
}

#[test]
fn two_hosts_on_a_wire_reach_each_other_both_ways_and_versions() {
    if namespace("probe").is_none() {
        return;
    }
    let (one, two) = pair("one", "two").unwrap();
    for (from, to) in [(&one, &two), (&two, &one)] {
        for address in to.addresses() {
            assert!(reaches(&from.namespace, &to.namespace, address), "{address}");
        }
    }
}

#[test]
fn three_hosts_on_a_switch_all_reach_each_other() {
    if namespace("probe").is_none() {
        return;
    }
    let (_switch, hosts) = lan(&["a", "b", "c"]).unwrap();
    for from in &hosts {
        for to in hosts.iter().filter(|to| to.ipv4 != from.ipv4) {
            for address in to.addresses() {
                assert!(reaches(&from.namespace, &to.namespace, address), "{address}");
            }
        }
    }
}

#[test]
fn links_go_down_and_up_and_change_their_mtu() {
    if namespace("probe").is_none() {
        return;
    }
    let (one, two) = pair("one", "two").unwrap();
    let sends = || reaches(&one.namespace, &two.namespace, two.ipv4.into());
    one.interface.down().unwrap();
    assert!(!sends());
    one.interface.up().unwrap();
    assert!(sends());
    one.interface.set_mtu(1300).unwrap();
    assert_eq!(one.interface.mtu().unwrap(), 1300);
    assert_eq!(two.interface.mtu().unwrap(), 1500);
}

#[test]
fn routes_lead_through_a_router() {
    let (Some(left), Some(router), Some(right)) = (namespace("left"), namespace("router"), namespace("right")) else {
        return;
    };
    let (a, ra) = veth((&left, "eth0"), (&router, "left")).unwrap();
    let (b, rb) = veth((&right, "eth0"), (&router, "right")).unwrap();
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    for (interface, address) in
        [(&a, "192.0.2.2/24"), (&ra, "192.0.2.1/24"), (&b, "198.51.100.2/24"), (&rb, "198.51.100.1/24")]
    {
        interface.add_address(net(address)).unwrap();
    }
    router.sysctl("net.ipv4.ip_forward", "1").unwrap();
    add_route(&left, net("0.0.0.0/0"), [192, 0, 2, 1].into()).unwrap();
    add_route(&right, net("192.0.2.0/24"), [198, 51, 100, 1].into()).unwrap();
    assert!(reaches(&left, &right, [198, 51, 100, 2].into()));
    remove_route(&left, net("0.0.0.0/0"), [192, 0, 2, 1].into()).unwrap();
    assert!(!reaches(&left, &right, [198, 51, 100, 2].into()));
    assert!(remove_route(&left, net("0.0.0.0/0"), [192, 0, 2, 1].into()).is_err());
}

#[test]
fn refusals_name_what_was_asked_for() {
    let Some(ns) = namespace("refuses") else { return };
    let missing = Interface::find(&ns, "eth7").unwrap_err();
    assert!(matches!(&missing, TopologyError::NoInterface { name, .. } if name == "eth7"), "{missing}");
    let unreachable = add_route(&ns, "10.0.0.0/8".parse().unwrap(), [192, 0, 2, 1].into()).unwrap_err();
    assert!(unreachable.to_string().contains("route 10.0.0.0/8 via 192.0.2.1 in refuses"), "{unreachable}");
    let mixed = add_route(&ns, "10.0.0.0/8".parse().unwrap(), IpAddr::V6(Ipv6Addr::LOCALHOST)).unwrap_err();
    assert!(matches!(mixed, TopologyError::MixedRoute { .. }));
}

#[test]
fn addresses_come_and_go() {
    if namespace("probe").is_none() {
        return;
    }
    let (one, two) = pair("one", "two").unwrap();
    let extra: IpNet = "203.0.113.77/24".parse().unwrap();
    two.interface.add_address(extra).unwrap();
    assert!(reaches(&one.namespace, &two.namespace, extra.addr()));
    two.interface.remove_address(extra).unwrap();
    let bind = two.namespace.run(move || UdpSocket::bind((extra.addr(), 0))).unwrap();
    assert!(bind.is_err());
}
