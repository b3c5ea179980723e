// SPDX-License-Identifier: MIT OR Apache-2.0
//! Notices that the host's own network has changed: another address, another default route.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use futures_util::StreamExt as _;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// Changes come in bursts; one is told when nothing more has come for so long.
const SETTLED: Duration = Duration::from_millis(20);
/// A burst that does not end is told all the same.
const MOST: u32 = 50;

/// Tells of changes while it is held.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the host had when it was looked at last.
struct Seen {
    /// Index of our own interface, whose changes are ours.
    own: Option<u32>,
    addresses: BTreeSet<(u32, IpAddr)>,
    /// Default routes that were told since; a router announces the same one every few seconds or minutes.
    defaults: BTreeSet<DefaultRoute>,
}

/// A default route: what it leads to, and by which interface.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DefaultRoute {
    is_ipv6: bool,
    out: Option<u32>,
    gateway: Option<IpAddr>,
    priority: Option<u32>,
}

/// Watches the network namespace this is called in. `own`: the interface of this node.
pub(crate) fn watch(own: Option<&str>) -> (Option<Watch>, mpsc::Receiver<()>) {
    let (sender, changes) = mpsc::channel(1);
    let groups = [
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Link,
    ];
    let opened = rtnetlink::new_multicast_connection(&groups);
    let Ok((connection, _handle, mut messages)) = opened.inspect_err(|error| {
        tracing::warn!(%error, "changes of the network are noticed late: netlink does not tell of them");
    }) else {
        return (None, changes);
    };
    let own = own.and_then(|name| nix::net::if_::if_nametoindex(name).ok());
    let mut seen = Seen { own, addresses: present(), defaults: BTreeSet::new() };
    let task = tokio::spawn(async move {
        let serving = tokio::spawn(connection);
        while let Some((message, _)) = messages.next().await {
            let mut changed = seen.take(&message);
            for _ in 0..MOST {
                let Ok(Some((message, _))) = timeout(SETTLED, messages.next()).await else { break };
                changed |= seen.take(&message);
            }
            if changed && sender.send(()).await.is_err() {
                break;
            }
        }
        serving.abort();
    });
    (Some(Watch(task)), changes)
}

fn present() -> BTreeSet<(u32, IpAddr)> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let known = all.filter_map(|interface| {
        let index = nix::net::if_::if_nametoindex(interface.interface_name.as_str()).ok()?;
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        Some((index, v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?))
    });
    known.collect()
}

impl Seen {
    /// Whether a message tells of something new. Renewed leases and announcements are told again and again.
    fn take(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
        #[expect(clippy::wildcard_enum_match_arm, reason = "what else there is tells nothing")]
        let message = match &message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            // Messages were lost: what is known may be wrong from now.
            NetlinkPayload::Overrun(_) => {
                (self.addresses, self.defaults) = (present(), BTreeSet::new());
                return true;
            }
            _ => return false,
        };
        if let RouteNetlinkMessage::NewLink(link) = message {
            return self.on_link(link);
        }
        if let RouteNetlinkMessage::NewAddress(message) = message {
            return self.of_others(message).is_some_and(|address| self.addresses.insert(address));
        }
        if let RouteNetlinkMessage::DelAddress(message) = message {
            return self.of_others(message).is_some_and(|address| self.addresses.remove(&address));
        }
        if let RouteNetlinkMessage::NewRoute(route) = message {
            return self.default_of(route).is_some_and(|route| self.defaults.insert(route));
        }
        if let RouteNetlinkMessage::DelRoute(route) = message {
            // One that was there before we looked counts too.
            let Some(route) = self.default_of(route) else { return false };
            let _told_before = self.defaults.remove(&route);
            return true;
        }
        false
    }

    /// IPv4 routes by an interface that is down are gone, and nothing tells of each.
    fn on_link(&mut self, link: &LinkMessage) -> bool {
        let is_up = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
        let before = self.defaults.len();
        self.defaults.retain(|route| is_up || route.out != Some(link.header.index));
        self.defaults.len() != before
    }

    fn of_others(&self, message: &AddressMessage) -> Option<(u32, IpAddr)> {
        let local = message
            .attributes
            .iter()
            .find_map(|attribute| if let AddressAttribute::Local(address) = attribute { Some(*address) } else { None });
        // IPv6 has only this one; on a point-to-point link of IPv4 it is the other end's.
        let only = || {
            message.attributes.iter().find_map(|attribute| {
                if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None }
            })
        };
        let address = local.or_else(only)?;
        let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        (Some(message.header.index) != self.own && !is_link_local && !address.is_loopback())
            .then_some((message.header.index, address))
    }

    /// The default route a message tells of, if it is one and not by our own interface.
    fn default_of(&self, route: &RouteMessage) -> Option<DefaultRoute> {
        let (mut out, mut gateway, mut priority) = (None, None, None);
        for attribute in &route.attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "a route has many attributes, and these are enough")]
            match attribute {
                RouteAttribute::Oif(index) => out = Some(*index),
                RouteAttribute::Priority(number) => priority = Some(*number),
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
                RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
                _ => {}
            }
        }
        let is_ipv6 = route.header.address_family == AddressFamily::Inet6;
        (route.header.destination_prefix_length == 0 && (out.is_none() || out != self.own)).then_some(DefaultRoute {
            is_ipv6,
            out,
            gateway,
            priority,
        })
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::NetlinkHeader;

    use super::*;

    fn told(message: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message))
    }

    fn address(index: u32, text: &str) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(text.parse().unwrap()));
        message
    }

    #[test]
    fn a_lease_that_is_renewed_is_no_change_and_our_own_interface_is_not_either() {
        let mut seen = Seen { own: Some(9), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
        assert!(seen.take(&told(RouteNetlinkMessage::NewAddress(address(2, "192.168.1.7")))));
        assert!(!seen.take(&told(RouteNetlinkMessage::NewAddress(address(2, "192.168.1.7")))));
        assert!(!seen.take(&told(RouteNetlinkMessage::NewAddress(address(9, "10.100.0.1")))));
        assert!(!seen.take(&told(RouteNetlinkMessage::NewAddress(address(2, "fe80::1")))));
        assert!(seen.take(&told(RouteNetlinkMessage::DelAddress(address(2, "192.168.1.7")))));
        assert!(
            seen.take(&told(RouteNetlinkMessage::NewAddress(address(2, "192.168.1.7")))),
            "another network, same address"
        );
    }

    #[test]
    fn a_default_route_is_a_change_and_another_one_is_not() {
        let mut seen = Seen { own: Some(9), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
        let mut route = RouteMessage::default();
        route.attributes.push(RouteAttribute::Oif(2));
        assert!(seen.take(&told(RouteNetlinkMessage::DelRoute(route.clone()))));
        route.header.destination_prefix_length = 24;
        assert!(!seen.take(&told(RouteNetlinkMessage::NewRoute(route.clone()))));
        route.header.destination_prefix_length = 0;
        route.attributes = vec![RouteAttribute::Oif(9)];
        assert!(!seen.take(&told(RouteNetlinkMessage::NewRoute(route))), "ours");
    }
    #[test]
    fn a_default_route_announced_again_is_no_change_and_one_that_came_back_is() {
        let mut seen = Seen { own: Some(9), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
        let mut route = RouteMessage::default();
        route.attributes.push(RouteAttribute::Oif(2));
        route.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet6("fe80::1".parse().unwrap())));
        assert!(seen.take(&told(RouteNetlinkMessage::NewRoute(route.clone()))));
        assert!(!seen.take(&told(RouteNetlinkMessage::NewRoute(route.clone()))), "the next announcement");
        let mut other = route.clone();
        other.attributes[1] = RouteAttribute::Gateway(RouteAddress::Inet6("fe80::2".parse().unwrap()));
        assert!(seen.take(&told(RouteNetlinkMessage::NewRoute(other))), "another router");
        assert!(seen.take(&told(RouteNetlinkMessage::DelRoute(route.clone()))));
        assert!(seen.take(&told(RouteNetlinkMessage::NewRoute(route))));
    }

    #[test]
    fn after_its_link_was_down_the_same_default_route_is_a_change() {
        let mut seen = Seen { own: Some(9), addresses: BTreeSet::new(), defaults: BTreeSet::new() };
        let mut route = RouteMessage::default();
        route.attributes.push(RouteAttribute::Oif(2));
        let route = told(RouteNetlinkMessage::NewRoute(route));
        let mut link = LinkMessage::default();
        (link.header.index, link.header.flags) = (2, LinkFlags::Up | LinkFlags::LowerUp);
        assert!(seen.take(&route) && !seen.take(&told(RouteNetlinkMessage::NewLink(link.clone()))));
        assert!(!seen.take(&route));
        link.header.flags = LinkFlags::Up;
        assert!(seen.take(&told(RouteNetlinkMessage::NewLink(link.clone()))), "no carrier");
        assert!(!seen.take(&told(RouteNetlinkMessage::NewLink(link))), "said already");
        assert!(seen.take(&route));
    }

    #[test]
    fn lost_messages_are_a_change_and_what_was_known_before_is_not_believed() {
        let mut seen = Seen { own: None, addresses: BTreeSet::new(), defaults: BTreeSet::new() };
        assert!(seen.take(&told(RouteNetlinkMessage::NewAddress(address(4711, "192.168.1.7")))));
        assert!(seen.take(&NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::Overrun(Vec::new()))));
        assert!(seen.take(&told(RouteNetlinkMessage::NewAddress(address(4711, "192.168.1.7")))));
    }
}
