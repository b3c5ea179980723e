// SPDX-License-Identifier: MIT OR Apache-2.0
//! The address registries in examples, and who may tell what.

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn socket(text: &str) -> SocketAddr {
    SocketAddr::new(ip(text), 4433)
}

#[test]
fn every_special_range_has_its_class() {
    use Class::{Private, Public, Refused};
    for (address, expected) in [
        ("8.8.8.8", Public),
        ("172.15.0.1", Public),
        ("172.32.0.1", Public),
        ("100.63.0.1", Public),
        ("100.128.0.1", Public),
        ("223.255.255.254", Public),
        ("2a00:1450::1", Public),
        ("2001:4860:4860::8888", Public),
        ("3fff:1000::1", Public),
        ("10.1.2.3", Private),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.168.0.1", Private),
        ("100.64.0.1", Private),
        ("100.127.255.255", Private),
        ("fd12::1", Private),
        ("0.0.0.0", Refused(Why::Unspecified)),
        ("0.1.2.3", Refused(Why::Unspecified)),
        ("::", Refused(Why::Unspecified)),
        ("127.9.9.9", Refused(Why::Loopback)),
        ("::1", Refused(Why::Loopback)),
        ("169.254.169.254", Refused(Why::LinkLocal)),
        ("fe80::1", Refused(Why::LinkLocal)),
        ("febf::1", Refused(Why::LinkLocal)),
        ("224.0.0.251", Refused(Why::Multicast)),
        ("239.255.255.255", Refused(Why::Multicast)),
        ("ff02::1", Refused(Why::Multicast)),
        ("255.255.255.255", Refused(Why::Broadcast)),
        ("192.0.2.1", Refused(Why::Documentation)),
        ("198.51.100.1", Refused(Why::Documentation)),
        ("203.0.113.1", Refused(Why::Documentation)),
        ("2001:db8::1", Refused(Why::Documentation)),
        ("3fff:fff::1", Refused(Why::Documentation)),
        ("198.19.0.1", Refused(Why::Benchmarking)),
        ("2001:2::1", Refused(Why::Benchmarking)),
        ("192.88.99.1", Refused(Why::Translation)),
        ("2001::1", Refused(Why::Translation)),
        ("2002:808:808::1", Refused(Why::Translation)),
        ("64:ff9b::808:808", Refused(Why::Translation)),
        ("240.0.0.1", Refused(Why::Reserved)),
        ("192.0.0.8", Refused(Why::Reserved)),
        ("2001:20::1", Refused(Why::Reserved)),
        ("100::1", Refused(Why::Reserved)),
        ("fec0::1", Refused(Why::Reserved)),
        ("::8.8.8.8", Refused(Why::Reserved)),
        ("4000::1", Refused(Why::Reserved)),
    ] {
        assert_eq!(class(&socket(address)), expected, "{address}");
    }
    assert_eq!(class(&"8.8.8.8:0".parse().unwrap()), Refused(Why::PortZero));
}

#[test]
fn ipv4_cannot_hide_inside_ipv6() {
    assert_eq!(class(&socket("::ffff:127.0.0.1")), Class::Refused(Why::Loopback));
    assert_eq!(class(&socket("::ffff:10.0.0.1")), Class::Private);
    assert_eq!(Subnet::of(ip("::ffff:8.8.8.8")), Subnet::of(ip("8.8.8.200")));
    assert_eq!(Wide::of(ip("::ffff:8.8.8.8")), Wide::of(ip("8.8.200.8")));
}

#[test]
fn subnets_have_the_prefixes_of_the_design() {
    assert_eq!(Subnet::of(ip("198.18.7.9")).to_string(), "198.18.7.0/24");
    assert_eq!(Subnet::of(ip("2a00:1:2:3::4")).to_string(), "2a00:1:2::/48");
    assert_eq!(Wide::of(ip("198.18.7.9")).to_string(), "198.18.0.0/16");
    assert_eq!(Wide::of(ip("2a00:1:2:3::4")).to_string(), "2a00:1::/32");
    assert_ne!(Subnet::of(ip("8.8.8.8")), Subnet::of(ip("8.8.9.8")));
    assert_ne!(Subnet::of(ip("::")), Subnet::of(ip("0.0.0.0")));
    assert_ne!(Subnet::of(ip("8.8.8.8")).to_bytes(), Subnet::of(ip("8.8.9.8")).to_bytes());
}

#[test]
fn a_private_address_is_billed_alone_and_a_public_one_with_its_neighbours() {
    assert_eq!(Subnet::billed(ip("8.8.8.8")), Subnet::billed(ip("8.8.8.9")));
    assert_ne!(Subnet::billed(ip("10.0.0.8")), Subnet::billed(ip("10.0.0.9")));
    assert_ne!(Subnet::billed(ip("fd00::8")), Subnet::billed(ip("fd00::9")));
    assert_eq!(Subnet::billed(ip("2a00::8")), Subnet::billed(ip("2a00::9")));
}

#[test]
fn private_addresses_count_only_from_the_same_kind_of_place() {
    let told = |address: &str, by: Option<&str>| acceptable(&[socket("8.8.8.8"), socket(address)], by.map(ip));
    assert_eq!(told("8.8.4.4", None), Ok(()));
    assert_eq!(told("10.0.0.1", None), Err(AddressRefusal::Private));
    assert_eq!(told("10.0.0.1", Some("9.9.9.9")), Err(AddressRefusal::Private));
    assert_eq!(told("10.0.0.1", Some("127.0.0.1")), Err(AddressRefusal::Private));
    assert_eq!(told("10.0.0.1", Some("100.64.0.1")), Err(AddressRefusal::Private));
    assert_eq!(told("100.64.0.1", Some("10.0.0.1")), Err(AddressRefusal::Private));
    assert_eq!(told("10.0.0.1", Some("192.168.1.1")), Ok(()));
    assert_eq!(told("10.0.0.1", Some("fd00::1")), Ok(()), "one site, two families");
    assert_eq!(told("fd00::1", Some("10.0.0.1")), Ok(()));
    assert_eq!(told("100.64.0.1", Some("100.99.0.1")), Ok(()));
    assert_eq!(told("10.0.0.1", Some("::ffff:192.168.1.1")), Ok(()));
    assert_eq!(told("127.0.0.1", Some("127.0.0.1")), Err(AddressRefusal::Bogon(Why::Loopback)));
}

#[test]
fn only_a_laboratory_dials_loopback_and_documentation_addresses() {
    for (realm, private, loopback) in
        [(Realm::Open, false, false), (Realm::Private, true, false), (Realm::Lab, true, true)]
    {
        let origin = Origin { realm, told_by: None };
        assert_eq!(origin.judge(&socket("10.0.0.1")).is_ok(), private, "{realm:?}");
        for address in ["127.0.0.1", "::1", "203.0.113.1", "198.18.0.1"] {
            assert_eq!(origin.judge(&socket(address)).is_ok(), loopback, "{realm:?} {address}");
        }
        for never in ["224.0.0.1", "169.254.0.1", "0.0.0.0", "fe80::1", "240.0.0.1"] {
            assert!(origin.judge(&socket(never)).is_err(), "{realm:?} {never}");
        }
        assert!(origin.judge(&SocketAddr::new(ip("8.8.8.8"), 0)).is_err());
    }
}
