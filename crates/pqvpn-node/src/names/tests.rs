// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names from views to answers; the resolver in a network namespace of its own.

mod live;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::NetworkId;

use super::*;
use crate::{
    config::Config,
    membership::{MemberView, NetworkView},
    overlay::Mesh,
};

pub(super) fn id(byte: u8) -> PeerId {
    PeerId::from_bytes([byte; 32])
}

fn v6(network: u8, host: u8) -> Ipv6Addr {
    let n = u16::from(network) << 8 | u16::from(network);
    Ipv6Addr::new(0xfd00 | u16::from(network), n, n, 0, 0, 0, 0, host.into())
}

pub(super) fn member(byte: u8, name: &str, network: u8) -> MemberView {
    let v4 = Ipv4Addr::new(10, if network == 1 { 100 } else { 64 }, 1, byte);
    MemberView {
        peer: id(byte),
        name: name.to_owned(),
        addresses: vec![v6(network, byte).into(), v4.into()],
        endpoints: Vec::new(),
        online: true,
        admin: false,
        level_cap: 2,
        tags: Vec::new(),
    }
}

pub(super) fn view(name: &str, network: u8, pool: Ipv4Net, members: Vec<MemberView>) -> NetworkView {
    NetworkView {
        id: NetworkId::from_bytes([network; 32]),
        name: name.to_owned(),
        prefix_v6: Ipv6Net::new_assert(v6(network, 0), 48).trunc(),
        pool,
        own: member(1, "laptop", network),
        members,
        revoked: Vec::new(),
        ready: true,
        downs: 0,
        enabled: true,
        health: Vec::new(),
    }
}

/// A network with this node, `laptop`, and one other member, `phone`.
pub(super) fn home() -> NetworkView {
    let pool = Ipv4Net::new_assert(Ipv4Addr::new(10, 100, 0, 0), 16);
    view("home", 1, pool, vec![member(2, "phone", 1)])
}

/// A network with this node alone.
pub(super) fn work() -> NetworkView {
    view("work", 2, Ipv4Net::new_assert(Ipv4Addr::new(10, 64, 0, 0), 20), Vec::new())
}

pub(super) fn mesh(views: &[NetworkView]) -> Mesh {
    Mesh::plan(&Config::default(), id(1), views)
}

#[test]
fn names_of_the_zone_are_ours_however_they_are_written() {
    for ours in ["pqvpn", "nas.home.pqvpn", "NAS.Home.PQVPN.", "x.pqvpn."] {
        assert!(is_ours(ours), "{ours}");
    }
    for foreign in ["", ".", "pqvpn.org", "mypqvpn", "nas.home", "198.51.100.7"] {
        assert!(!is_ours(foreign), "{foreign}");
    }
}

#[test]
fn a_report_finds_names_with_and_without_the_zone() {
    let names = Names::new(NameTable::of(&[home()], &mesh(&[home()]), id(1)));
    let report = DnsReport {
        mode: DnsMode::Auto,
        host: DnsHost::Nothing,
        servers: Vec::new(),
        names: names.table().names(),
        ambiguous: Vec::new(),
        queries: names.counts(),
        trouble: None,
    };
    let phone: &[IpAddr] = &home().members[0].addresses;
    for name in ["phone.home", "phone.home.pqvpn", "Phone.Home.PQVPN."] {
        assert_eq!(report.look_up(name), Some(phone), "{name}");
    }
    for name in ["phone", "phone.work", "home.pqvpn", "phone.home.pqvpn.org", ""] {
        assert_eq!(report.look_up(name), None, "{name}");
    }
}

#[test]
fn only_this_host_is_answered() {
    let names = Names::new(NameTable::default());
    names.replace(NameTable::default(), home().own.addresses);
    for own in home().own.addresses {
        assert!(names.answers(own));
    }
    assert!(names.answers(Ipv4Addr::LOCALHOST.into()) && names.answers(Ipv6Addr::LOCALHOST.into()));
    assert!(names.answers(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into()));
    for other in home().members[0].addresses.iter().chain(&[IpAddr::from([192, 168, 7, 2])]) {
        assert!(!names.answers(*other), "{other}");
    }
}
