// SPDX-License-Identifier: MIT OR Apache-2.0

use rtnetlink::{packet_core::NetlinkHeader, packet_route::rule::RuleMessage};

use super::*;

fn told(message: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
    NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message))
}

impl Seen {
    /// Whether the host is in another network.
    fn takes(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
        self.take(message).network
    }
}

fn address(index: u32, text: &str) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(text.parse().unwrap()));
    message
}

#[test]
fn a_lease_that_is_renewed_is_no_change_and_our_own_interface_is_not_either() {
    let mut seen =
        Seen { own: Some(9), routed: Routed::default(), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
    assert!(seen.takes(&told(RouteNetlinkMessage::NewAddress(address(2, "192.168.1.7")))));
    assert!(!seen.takes(&told(RouteNetlinkMessage::NewAddress(address(2, "192.168.1.7")))));
    assert!(!seen.takes(&told(RouteNetlinkMessage::NewAddress(address(9, "10.100.0.1")))));
    assert!(!seen.takes(&told(RouteNetlinkMessage::NewAddress(address(2, "fe80::1")))));
    assert!(seen.takes(&told(RouteNetlinkMessage::DelAddress(address(2, "192.168.1.7")))));
    assert!(
        seen.takes(&told(RouteNetlinkMessage::NewAddress(address(2, "192.168.1.7")))),
        "another network, same address"
    );
}

#[test]
fn what_is_taken_from_our_own_interface_is_news_of_the_host() {
    let mut seen =
        Seen { own: Some(9), routed: Routed::default(), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
    let mut link = LinkMessage::default();
    (link.header.index, link.header.flags) = (9, LinkFlags::Up);
    assert_eq!(seen.take(&told(RouteNetlinkMessage::NewLink(link.clone()))), News::NONE);
    link.header.flags = LinkFlags::empty();
    assert_eq!(seen.take(&told(RouteNetlinkMessage::NewLink(link))), News::HOST);
    assert_eq!(seen.take(&told(RouteNetlinkMessage::DelAddress(address(9, "10.100.0.1")))), News::HOST);
}

#[test]
fn a_default_route_is_a_change_and_another_one_is_not() {
    let mut seen =
        Seen { own: Some(9), routed: Routed::default(), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
    let mut route = RouteMessage::default();
    route.attributes.push(RouteAttribute::Oif(2));
    assert!(seen.takes(&told(RouteNetlinkMessage::DelRoute(route.clone()))));
    route.header.destination_prefix_length = 24;
    assert!(!seen.takes(&told(RouteNetlinkMessage::NewRoute(route.clone()))));
    route.header.destination_prefix_length = 0;
    route.attributes = vec![RouteAttribute::Oif(9)];
    assert!(!seen.takes(&told(RouteNetlinkMessage::NewRoute(route))), "ours");
}

#[test]
fn an_address_counts_once_nobody_else_is_found_to_have_it() {
    let mut seen =
        Seen { own: Some(9), routed: Routed::default(), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
    let usable = address(2, "2001:db8::7");
    let with = |flags| {
        let mut message = usable.clone();
        message.attributes.push(AddressAttribute::Flags(flags));
        told(RouteNetlinkMessage::NewAddress(message))
    };
    let asked_for = with(AddressFlags::Tentative);
    assert!(!seen.takes(&asked_for));
    assert!(seen.takes(&with(AddressFlags::Permanent)), "usable now");
    assert!(!seen.takes(&with(AddressFlags::Permanent)));
    assert!(!seen.takes(&asked_for), "its link was down");
    assert!(seen.takes(&with(AddressFlags::Permanent)));
    let mut seen = Seen { addresses: BTreeSet::new(), ..seen };
    assert!(seen.takes(&with(AddressFlags::Tentative | AddressFlags::Optimistic)), "in use at once (RFC 4429)");
}

#[test]
fn what_is_not_usable_yet_at_the_start_is_not_known() {
    let table = "fe80000000000000a00000fffe000001 02 40 20 80     eth0\n\
                 20010db8000000000000000000000007 0a 40 00 c0     eth1\n\
                 20010db8000000000000000000000008 0a 40 00 44     eth1\nno address\n";
    assert_eq!(tentative(table), [(10, "2001:db8::7".parse().unwrap())]);
}

#[test]
fn a_default_route_that_replaces_another_is_a_change_each_time() {
    let mut seen =
        Seen { own: Some(9), routed: Routed::default(), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
    let by = |link| {
        let mut route = RouteMessage::default();
        route.attributes.push(RouteAttribute::Oif(link));
        let mut message = told(RouteNetlinkMessage::NewRoute(route));
        message.header.flags = NLM_F_REPLACE;
        message
    };
    assert!([2, 3, 2, 3].into_iter().all(|link| seen.takes(&by(link))));
    assert!(!seen.takes(&by(3)), "itself");
}

#[test]
fn a_default_route_announced_again_is_no_change_and_one_that_came_back_is() {
    let mut seen =
        Seen { own: Some(9), routed: Routed::default(), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
    let mut route = RouteMessage::default();
    route.attributes.push(RouteAttribute::Oif(2));
    route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet6("fe80::1".parse().unwrap())));
    assert!(seen.takes(&told(RouteNetlinkMessage::NewRoute(route.clone()))));
    assert!(!seen.takes(&told(RouteNetlinkMessage::NewRoute(route.clone()))), "the next announcement");
    let mut other = route.clone();
    other.attributes[1] = RouteAttribute::Gateway(RouteAddress::Inet6("fe80::2".parse().unwrap()));
    assert!(seen.takes(&told(RouteNetlinkMessage::NewRoute(other))), "another router");
    assert!(seen.takes(&told(RouteNetlinkMessage::DelRoute(route.clone()))));
    assert!(seen.takes(&told(RouteNetlinkMessage::NewRoute(route))));
}

#[test]
fn after_its_link_was_down_the_same_default_route_is_a_change() {
    let mut seen =
        Seen { own: Some(9), routed: Routed::default(), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
    let mut route = RouteMessage::default();
    route.attributes.push(RouteAttribute::Oif(2));
    let route = told(RouteNetlinkMessage::NewRoute(route));
    let mut link = LinkMessage::default();
    (link.header.index, link.header.flags) = (2, LinkFlags::Up | LinkFlags::LowerUp);
    assert!(seen.takes(&route) && !seen.takes(&told(RouteNetlinkMessage::NewLink(link.clone()))));
    assert!(!seen.takes(&route));
    link.header.flags = LinkFlags::Up;
    assert!(seen.takes(&told(RouteNetlinkMessage::NewLink(link.clone()))), "no carrier");
    assert!(!seen.takes(&told(RouteNetlinkMessage::NewLink(link))), "said already");
    assert!(seen.takes(&route));
}

#[test]
fn lost_messages_are_a_change_and_what_was_known_before_is_not_believed() {
    let mut seen = Seen { own: None, routed: Routed::default(), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
    assert!(seen.takes(&told(RouteNetlinkMessage::NewAddress(address(4711, "192.168.1.7")))));
    assert!(seen.takes(&NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::Overrun(Vec::new()))));
    assert!(seen.takes(&told(RouteNetlinkMessage::NewAddress(address(4711, "192.168.1.7")))));
}

#[test]
fn what_of_ours_is_taken_away_is_news_and_so_is_what_comes_beside_it() {
    let routed = Routed::default();
    routed.set(vec!["10.100.0.0/16".parse().unwrap()]);
    let mut seen = Seen { own: Some(9), routed, addresses: BTreeSet::new(), defaults: BTreeSet::new() };
    let mut route = RouteMessage::default();
    (route.header.address_family, route.header.destination_prefix_length) = (AddressFamily::Inet, 17);
    let mut elsewhere = route.clone();
    for (route, to) in [(&mut route, [10, 100, 128, 0]), (&mut elsewhere, [10, 101, 128, 0])] {
        route.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(to.into())));
    }
    for told_of in [RouteNetlinkMessage::NewRoute, RouteNetlinkMessage::DelRoute] {
        assert_eq!(seen.take(&told(told_of(route.clone()))), News::HOST);
        assert_eq!(seen.take(&told(told_of(elsewhere.clone()))), News::NONE);
    }
    route.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    assert_eq!(seen.take(&told(RouteNetlinkMessage::NewRoute(route.clone()))), News::NONE);
    assert_eq!(seen.take(&told(RouteNetlinkMessage::DelRoute(route))), News::HOST);
    let mut rule = RuleMessage::default();
    assert_eq!(seen.take(&told(RouteNetlinkMessage::NewRule(rule.clone()))), News::HOST, "it may come before ours");
    rule.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)));
    assert_eq!(seen.take(&told(RouteNetlinkMessage::NewRule(rule.clone()))), News::NONE);
    assert_eq!(seen.take(&told(RouteNetlinkMessage::DelRule(rule))), News::HOST);
}
