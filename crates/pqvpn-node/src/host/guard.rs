// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members' addresses belong to the mesh, whatever else the host is told: a LAN that hands them out as its own subnet, or
//! by a narrower route, gets none of their packets.
//!
//! Longest-prefix match in the main table cannot say that, so they have a table of their own and a rule before `main`
//! (`ip rule show proto 174`). Each has two routes there: into the tunnel, and behind it one that is unreachable. The
//! second stays when the interface goes, as after a kill, so that packets end there until the next start has opened the
//! way again. Packets with [`MARK`] are the node's own on the underlay: the rule is not for them.
//!
//! The table's number is that of the interface, so what a killed node left tells itself, without a journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use futures_util::{StreamExt as _, stream};
use ipnet::IpNet;
use nix::errno::Errno;
use pqvpn_dataplane::MARK;
use rtnetlink::{
    IpVersion, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
    },
};

use super::{
    HostError, ROUTE_PROTOCOL,
    kernel::{HostRoute, Kernel, LOCAL_TABLE, Link, collect, is_gone, os_error},
};

/// Priority of our rule. Before those of other VPNs: it is about members' addresses only, and takes nothing else from them.
const PRIORITY: u32 = 174;
/// Our table is this and the interface's index.
const TABLES: u32 = 416_410_000;
/// Metric of the routes that lead nowhere.
const CLOSED: u32 = 0x7fff_ffff;
/// Requests on their way at once; a big network has thousands of members.
const AT_ONCE: usize = 32;

/// A guarded prefix: into the tunnel, with the source that packets of this host get, or nowhere.
pub(super) type Ways = BTreeMap<IpNet, Option<Option<IpAddr>>>;

/// What is in the way of the guard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Priorities of rules that come before ours.
    pub(super) earlier: BTreeSet<u32>,
    /// Members' addresses that this host has itself, elsewhere.
    pub(super) own: Vec<(IpAddr, String)>,
    /// Members' addresses that a router of this host has.
    pub(super) routers: BTreeSet<IpAddr>,
}

/// Sees to it that packets to `nets` leave by no other way than one that [`open`] gives.
pub(super) async fn close(kernel: &Kernel, index: u32, nets: impl Iterator<Item = IpNet>) -> Result<(), HostError> {
    let there: BTreeSet<IpNet> =
        in_table(kernel, index).await?.iter().filter(|route| is_closed(route)).map(|route| route.prefix).collect();
    let missing: Vec<RouteMessage> = nets.filter(|net| !there.contains(net)).map(|net| closed(index, net)).collect();
    add(kernel, missing).await?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        if rules(kernel, family).await?.iter().any(|there| is_rule_of(there, index)) {
            continue;
        }
        let mut request = kernel.handle.rule().add();
        *request.message_mut() = rule(family, index);
        match request.execute().await.map_err(os_error) {
            Err(error) if !is_there(&error) && !is_without(family, &error) => {
                return Err(HostError::kernel("set the routing rule for members' addresses".to_owned(), error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Opens those of `ways` that lead into the tunnel, closes the others, and lets go of what is not among them.
pub(super) async fn open(kernel: &Kernel, index: u32, ways: &Ways) -> Result<Findings, HostError> {
    close(kernel, index, ways.keys().copied()).await?;
    let there = in_table(kernel, index).await?;
    let now: BTreeMap<IpNet, Option<IpAddr>> =
        there.iter().filter(|route| !is_closed(route)).map(|route| (route.prefix, route.source)).collect();
    let wanted = ways.iter().filter_map(|(&net, &way)| Some((net, way?)));
    let new = wanted.filter(|(net, source)| now.get(net) != Some(source));
    add(kernel, new.map(|(net, source)| opened(index, net, source)).collect()).await?;
    let is_old = |route: &&HostRoute| match ways.get(&route.prefix) {
        Some(way) => way.is_none() && !is_closed(route),
        None => true,
    };
    remove(kernel, index, there.iter().filter(is_old)).await?;
    look(kernel, index, ways).await
}

/// Takes the guard of an interface away.
pub(super) async fn clear(kernel: &Kernel, index: u32) -> Result<(), HostError> {
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for there in rules(kernel, family).await?.into_iter().filter(|there| is_rule_of(there, index)) {
            let removed = kernel.handle.rule().del(there).execute().await.map_err(os_error);
            gone(removed, "remove the routing rule for members' addresses")?;
        }
    }
    remove(kernel, index, in_table(kernel, index).await?.iter()).await
}

/// Takes away what nodes that were killed left of interfaces that are gone; says of how many.
pub(super) async fn sweep(kernel: &Kernel) -> Result<usize, HostError> {
    let mut left: BTreeSet<u32> = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        left.extend(rules(kernel, family).await?.iter().filter(|rule| is_ours(rule)).filter_map(index_of));
    }
    let routes = kernel.routes().await?;
    left.extend(routes.iter().filter(|route| route.ours).filter_map(|route| interface_of(route.table)));
    for link in kernel.links().await? {
        left.remove(&link.index);
    }
    for &index in &left {
        clear(kernel, index).await?;
    }
    Ok(left.len())
}

/// Whether a table is that of a guard.
pub(super) fn is_guard(table: u32) -> bool {
    interface_of(table).is_some()
}

/// What the host has that the guard cannot help.
async fn look(kernel: &Kernel, index: u32, ways: &Ways) -> Result<Findings, HostError> {
    let mut findings = Findings::default();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let earlier = rules(kernel, family).await?.into_iter().filter(|rule| {
            let local = table_of(rule) == LOCAL_TABLE && priority_of(rule) == 0;
            priority_of(rule) <= PRIORITY && !local && !is_ours(rule)
        });
        findings.earlier.extend(earlier.map(|rule| priority_of(&rule)));
    }
    let links = kernel.links().await?;
    let name = |index: u32| links.iter().find(|link| link.index == index).map(|link: &Link| link.name.clone());
    let is_member = |ip: IpAddr| ways.contains_key(&IpNet::from(ip));
    let addresses = kernel.addresses().await?;
    let own = addresses.iter().filter(|own| own.index != index && is_member(own.address));
    findings.own = own.filter_map(|own| Some((own.address, name(own.index)?))).collect();
    let routes = kernel.routes().await?;
    findings.routers = routes.iter().filter_map(|route| route.gateway).filter(|router| is_member(*router)).collect();
    Ok(findings)
}

fn rule(family: AddressFamily, index: u32) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.header.flags = RuleFlags::Invert;
    message.attributes = vec![
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::FwMark(MARK),
        RuleAttribute::FwMask(u32::MAX),
        RuleAttribute::Table(TABLES + index),
        RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)),
    ];
    message
}

fn closed(index: u32, net: IpNet) -> RouteMessage {
    let mut message = to(net).priority(CLOSED).kind(RouteType::Unreachable).table_id(TABLES + index).build();
    message.header.scope = RouteScope::Universe;
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message
}

fn opened(index: u32, net: IpNet, source: Option<IpAddr>) -> RouteMessage {
    let mut message = to(net).output_interface(index).table_id(TABLES + index).build();
    message.header.scope = if matches!(net, IpNet::V4(_)) { RouteScope::Link } else { RouteScope::Universe };
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

fn to(net: IpNet) -> RouteMessageBuilder<IpAddr> {
    // The prefix length is one of its family.
    RouteMessageBuilder::<IpAddr>::new().destination_prefix(net.network(), net.prefix_len()).unwrap_or_default()
}

async fn add(kernel: &Kernel, routes: Vec<RouteMessage>) -> Result<(), HostError> {
    let requests = routes.into_iter().map(|route| async move {
        let family = route.header.address_family;
        // Replaced where ours had another source: at no moment there is none.
        match kernel.handle.route().add(route).replace().execute().await.map_err(os_error) {
            Err(error) if !is_without(family, &error) => {
                Err(HostError::kernel("set a route to a member's address".to_owned(), error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    });
    all(requests).await
}

async fn remove(kernel: &Kernel, index: u32, routes: impl Iterator<Item = &HostRoute>) -> Result<(), HostError> {
    let messages: Vec<RouteMessage> = routes
        .map(|route| if is_closed(route) { closed(index, route.prefix) } else { opened(index, route.prefix, None) })
        .collect();
    let requests = messages.into_iter().map(|route| async move {
        let removed = kernel.handle.route().del(route).execute().await.map_err(os_error);
        gone(removed, "remove a route to a member's address")
    });
    all(requests).await
}

/// Makes every request, also after one that failed; the first fault is told.
async fn all(requests: impl Iterator<Item = impl Future<Output = Result<(), HostError>>>) -> Result<(), HostError> {
    let answers = stream::iter(requests).buffer_unordered(AT_ONCE);
    answers.fold(Ok(()), async |before: Result<(), HostError>, answer| before.and(answer)).await
}

async fn in_table(kernel: &Kernel, index: u32) -> Result<Vec<HostRoute>, HostError> {
    let mut routes = kernel.routes().await?;
    routes.retain(|route| route.table == TABLES + index && route.ours);
    Ok(routes)
}

async fn rules(kernel: &Kernel, family: AddressFamily) -> Result<Vec<RuleMessage>, HostError> {
    let version = if family == AddressFamily::Inet { IpVersion::V4 } else { IpVersion::V6 };
    collect("list routing rules", kernel.handle.rule().get(version).execute()).await
}

fn gone(removed: Result<(), io::Error>, what: &str) -> Result<(), HostError> {
    match removed {
        Err(error) if !is_gone(&error) => Err(HostError::kernel(what.to_owned(), error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

const fn is_closed(route: &HostRoute) -> bool {
    route.metric == CLOSED
}

fn is_ours(rule: &RuleMessage) -> bool {
    let ours = RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
    rule.attributes.contains(&ours) && index_of(rule).is_some()
}

fn is_rule_of(rule: &RuleMessage, index: u32) -> bool {
    is_ours(rule) && table_of(rule) == TABLES + index && priority_of(rule) == PRIORITY
}

fn index_of(rule: &RuleMessage) -> Option<u32> {
    interface_of(table_of(rule))
}

/// The interface whose guard a table is; indices are below 2^31.
fn interface_of(table: u32) -> Option<u32> {
    table.checked_sub(TABLES).filter(|index| (1..1 << 31).contains(index))
}

fn table_of(rule: &RuleMessage) -> u32 {
    let long = rule.attributes.iter().find_map(|attribute| {
        let RuleAttribute::Table(table) = attribute else { return None };
        Some(*table)
    });
    long.unwrap_or_else(|| rule.header.table.into())
}

/// Rules without the attribute are the first.
fn priority_of(rule: &RuleMessage) -> u32 {
    let priority = rule.attributes.iter().find_map(|attribute| {
        let RuleAttribute::Priority(priority) = attribute else { return None };
        Some(*priority)
    });
    priority.unwrap_or(0)
}

fn is_there(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EEXIST as i32)
}

/// Whether the host has no IPv6, and so sends none.
fn is_without(family: AddressFamily, error: &io::Error) -> bool {
    let missing = [Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP];
    family == AddressFamily::Inet6 && error.raw_os_error().is_some_and(|code| missing.contains(&Errno::from_raw(code)))
}

#[cfg(test)]
#[path = "tests/guard.rs"]
mod tests;
