// SPDX-License-Identifier: MIT OR Apache-2.0
//! Notices that the host's own network has changed: another address, another default route; and that something has taken
//! away what is ours on the host, or put something beside it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::StreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
        link::{LinkFlags, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol},
        rule::RuleAttribute,
    },
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{ROUTE_PROTOCOL, sources::Sources};

/// Changes come in bursts; one is told when nothing more has come for so long.
const SETTLED: Duration = Duration::from_millis(20);
/// A burst that does not end is told all the same.
const MOST: u32 = 50;

/// What the kernel may take to say how packets leave.
const LOOK: Duration = Duration::from_secs(1);

/// What has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// The host is in another network.
    pub(crate) network: bool,
    /// The host may not be as planned any more, or something else has come beside the plan.
    pub(crate) host: bool,
}

impl News {
    const NONE: Self = Self { network: false, host: false };
    const HOST: Self = Self { network: false, host: true };

    pub(crate) const fn network(network: bool) -> Self {
        Self { network, host: network }
    }

    const fn with(self, other: Self) -> Self {
        Self { network: self.network || other.network, host: self.host || other.host }
    }
}

/// What is routed into the tunnel: others' routes inside it are news.
#[derive(Debug, Clone, Default)]
pub(crate) struct Routed(Arc<RwLock<Vec<IpNet>>>);

impl Routed {
    pub(super) fn set(&self, nets: Vec<IpNet>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = nets;
    }

    fn holds(&self, net: &IpNet) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().any(|routed| routed.contains(net))
    }
}

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
    routed: Routed,
    addresses: BTreeSet<(u32, IpAddr)>,
    /// Default routes that were told since; a router announces the same one every few seconds or minutes.
    defaults: BTreeSet<DefaultRoute>,
}

/// A default route: what it leads to, and by which interface.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DefaultRoute {
    is_ipv6: bool,
    table: u32,
    /// Everywhere, or one half of that.
    to: Option<IpNet>,
    out: Option<u32>,
    gateway: Option<IpAddr>,
    priority: Option<u32>,
}

impl DefaultRoute {
    /// Whether one of them takes the other's place where it is put by replacing (ip-route(8)).
    fn is_in_place_of(&self, other: &Self) -> bool {
        (self.is_ipv6, self.table, self.to, self.priority) == (other.is_ipv6, other.table, other.to, other.priority)
    }
}

/// Watches the network namespace this is called in. `own`: the interface of this node; `routed`: what is led to it.
/// `sources` are looked at before a change of network is told.
pub(crate) fn watch(own: Option<&str>, routed: Routed, sources: Sources) -> (Option<Watch>, mpsc::Receiver<News>) {
    let (sender, changes) = mpsc::channel(1);
    let groups = [
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
        MulticastGroup::Link,
    ];
    let opened = rtnetlink::new_multicast_connection(&groups);
    let Ok((connection, _handle, mut messages)) = opened.inspect_err(|error| {
        tracing::warn!(%error, "changes of the network are noticed late: netlink does not tell of them");
    }) else {
        return (None, changes);
    };
    let own = own.and_then(|name| nix::net::if_::if_nametoindex(name).ok());
    sources.begin();
    let mut seen = Seen { own, routed, addresses: present(), defaults: BTreeSet::new() };
    let task = tokio::spawn(async move {
        let serving = tokio::spawn(connection);
        while let Some((message, _)) = messages.next().await {
            let mut news = seen.take(&message);
            for _ in 0..MOST {
                let Ok(Some((message, _))) = timeout(SETTLED, messages.next()).await else { break };
                news = news.with(seen.take(&message));
            }
            if news == News::NONE {
                continue;
            }
            // Also after a change of rules, by which packets may be routed by their source.
            if timeout(LOOK, sources.look()).await.is_err() {
                tracing::debug!("the kernel does not say in time which source addresses are stale");
            }
            if sender.send(news).await.is_err() {
                break;
            }
        }
        serving.abort();
    });
    (Some(Watch(task)), changes)
}

/// The addresses that are usable now.
fn present() -> BTreeSet<(u32, IpAddr)> {
    let tentative = tentative(&std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default());
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let known = all.filter_map(|interface| {
        let index = nix::net::if_::if_nametoindex(interface.interface_name.as_str()).ok()?;
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        Some((index, v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?))
    });
    known.filter(|known| !tentative.contains(known)).collect()
}

/// The IPv6 addresses of which it is still asked if anybody else has them (`/proc/net/if_inet6`: address, index, prefix
/// length, scope and flags in hexadecimal digits, name).
fn tentative(table: &str) -> Vec<(u32, IpAddr)> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        let index = u32::from_str_radix(words.next()?, 16).ok()?;
        let flags = AddressHeaderFlags::from_bits_retain(u8::from_str_radix(words.nth(2)?, 16).ok()?);
        let waits = flags.contains(AddressHeaderFlags::Tentative) && !flags.contains(AddressHeaderFlags::Optimistic);
        waits.then(|| (index, IpAddr::V6(Ipv6Addr::from_bits(address))))
    };
    table.lines().filter_map(of_line).collect()
}

impl Seen {
    /// Whether a message tells of something new. Renewed leases and announcements are told again and again.
    fn take(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) -> News {
        let flags = message.header.flags;
        #[expect(clippy::wildcard_enum_match_arm, reason = "what else there is tells nothing")]
        let message = match &message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            // Messages were lost: what is known may be wrong from now.
            NetlinkPayload::Overrun(_) => {
                (self.addresses, self.defaults) = (present(), BTreeSet::new());
                return News::network(true);
            }
            _ => return News::NONE,
        };
        #[expect(clippy::wildcard_enum_match_arm, reason = "what else there is tells nothing")]
        match message {
            RouteNetlinkMessage::NewLink(link) if Some(link.header.index) == self.own => {
                if link.header.flags.contains(LinkFlags::Up) { News::NONE } else { News::HOST }
            }
            RouteNetlinkMessage::NewLink(link) => News::network(self.on_link(link)),
            // Told of what we do ourselves as well: then there is nothing to do.
            RouteNetlinkMessage::DelAddress(message) if Some(message.header.index) == self.own => News::HOST,
            RouteNetlinkMessage::NewAddress(message) => {
                let Some(address) = self.of_others(message) else { return News::NONE };
                if is_tentative(message) {
                    // The kernel chooses it later, and tells of it again then.
                    self.addresses.remove(&address);
                    return News::NONE;
                }
                News::network(self.addresses.insert(address))
            }
            RouteNetlinkMessage::DelAddress(message) => {
                News::network(self.of_others(message).is_some_and(|address| self.addresses.remove(&address)))
            }
            RouteNetlinkMessage::NewRoute(route) => {
                let default = self.default_of(route);
                let new = default.is_some_and(|route| self.on_default(route, flags & NLM_F_REPLACE != 0));
                News::network(new).with(self.beside(route))
            }
            RouteNetlinkMessage::DelRoute(route) if is_ours(route) => News::HOST,
            RouteNetlinkMessage::DelRoute(route) => {
                // One that was there before we looked counts too.
                let Some(default) = self.default_of(route) else { return self.beside(route) };
                let _told_before = self.defaults.remove(&default);
                News::network(true)
            }
            // Ours taken away, or others' that come before it; there are few of them.
            RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule) => {
                let ours = RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
                let is_new = matches!(message, RouteNetlinkMessage::NewRule(_));
                if is_new && rule.attributes.contains(&ours) { News::NONE } else { News::HOST }
            }
            _ => News::NONE,
        }
    }

    /// Notes a default route; `true` if it is new. One that replaces another takes its place: nothing tells of that one's end.
    fn on_default(&mut self, route: DefaultRoute, replaces: bool) -> bool {
        let is_new = !self.defaults.contains(&route);
        if replaces {
            self.defaults.retain(|other| !other.is_in_place_of(&route));
        }
        self.defaults.insert(route);
        is_new
    }

    /// A route of somebody else inside what is led into the tunnel.
    fn beside(&self, route: &RouteMessage) -> News {
        let inside = !is_ours(route) && destination(route).is_some_and(|net| self.routed.holds(&net));
        if inside { News::HOST } else { News::NONE }
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
        let (mut out, mut gateway, mut priority, mut table) = (None, None, None, u32::from(route.header.table));
        for attribute in &route.attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "a route has many attributes, and these are enough")]
            match attribute {
                RouteAttribute::Oif(index) => out = Some(*index),
                RouteAttribute::Priority(number) => priority = Some(*number),
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
                RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
                _ => {}
            }
        }
        let is_ipv6 = route.header.address_family == AddressFamily::Inet6;
        // Who must not touch the default route lays two halves over it.
        (route.header.destination_prefix_length <= 1 && (out.is_none() || out != self.own)).then_some(DefaultRoute {
            is_ipv6,
            table,
            to: destination(route),
            out,
            gateway,
            priority,
        })
    }
}

/// Whether it is still asked if anybody else has the address (RFC 4862 §5.4).
fn is_tentative(message: &AddressMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        matches!(attribute, AddressAttribute::Flags(flags)
            if flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic))
    })
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let all = if route.header.address_family == AddressFamily::Inet6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    };
    let told = route.attributes.iter().find_map(|attribute| {
        if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
            Some(IpAddr::V4(*address))
        } else if let RouteAttribute::Destination(RouteAddress::Inet6(address)) = attribute {
            Some(IpAddr::V6(*address))
        } else {
            None
        }
    });
    IpNet::new(told.unwrap_or(all), route.header.destination_prefix_length).ok()
}

#[cfg(test)]
mod tests;
