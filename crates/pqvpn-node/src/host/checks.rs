// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has to be true before anything is changed, and what remains to be done then.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};

use super::{
    Change, ConflictKind, HostError, Overlap, Plan, PlannedRoute, PoolConflict, Report, guard,
    kernel::{HostAddress, HostRoute, Kernel, LOCAL_TABLE, Link, MAIN_TABLE},
};

/// `IN6_ADDR_GEN_MODE_NONE` of linux/if_link.h.
const NO_LINK_LOCAL: u8 = 1;

/// Routes of others inside one of ours that are told of.
const MOST_TOLD: usize = 16;

/// The host at one moment.
struct Host {
    links: BTreeMap<u32, Link>,
    addresses: Vec<HostAddress>,
    routes: Vec<HostRoute>,
}

/// Checks `plan` and lists the changes that are left to make, in order.
pub(super) async fn changes(kernel: &Kernel, plan: &Plan) -> Result<(Link, Vec<Change>, Report), HostError> {
    let host = Host::look(kernel).await?;
    let missing = || HostError::NoInterface { name: plan.interface.clone() };
    let link = host.links.values().find(|link| link.name == plan.interface).cloned().ok_or_else(missing)?;
    // An interface with a small MTU has no IPv6 state until the MTU grows (RFC 8200 §5).
    let ipv6_missing = link.ipv6_disabled || (link.link_local.is_none() && link.mtu >= 1280);
    let mut report = Report { ipv6_missing, ..Report::default() };
    let usable = |net: &&IpNet| !(ipv6_missing && matches!(net, IpNet::V6(_)));

    let mut changes = Vec::new();
    if plan.owns_device {
        changes.push(Change::Device);
    }
    if let Some(before) = link.link_local.filter(|mode| *mode != NO_LINK_LOCAL && !link.up) {
        changes.push(Change::NoLinkLocal { before });
    }
    if link.mtu != plan.mtu {
        changes.push(Change::Mtu { before: link.mtu, after: plan.mtu });
    }
    let addresses: Vec<IpNet> = unique(plan.addresses.iter().filter(usable));
    if addresses.is_empty() && !plan.addresses.is_empty() {
        return Err(HostError::NoFamily);
    }
    // Up before the addresses, so that undoing removes them itself: going down flushes only those of IPv6.
    if !link.up {
        changes.push(Change::Up);
    }
    for net in &addresses {
        if !host.has_address(&link, *net)? {
            changes.push(Change::Address { net: *net });
        }
    }
    let subnets: Vec<IpNet> =
        addresses.iter().filter(|net| net.prefix_len() < net.max_prefix_len()).map(IpNet::trunc).collect();
    let planned = plan.routes.iter().filter(|route| usable(&&route.net)).copied();
    for route in routes(subnets.into_iter().map(PlannedRoute::from).chain(planned)) {
        changes.extend(host.route(&link, route, &mut report)?);
    }
    Ok((link, changes, report))
}

/// What uses addresses of `pool` apart from interface `own`.
pub(super) async fn pool_conflicts(
    kernel: &Kernel,
    pool: Ipv4Net,
    own: Option<&str>,
) -> Result<Vec<PoolConflict>, HostError> {
    let host = Host::look(kernel).await?;
    let pool = IpNet::V4(pool);
    let is_own = |index: u32| host.links.get(&index).is_some_and(|link| Some(link.name.as_str()) == own);
    let name = |index: u32| host.links.get(&index).map(|link| link.name.clone());
    let mut conflicts = Vec::new();
    for address in host.addresses.iter().filter(|address| !is_own(address.index)) {
        if pool.contains(&address.address) {
            let prefix = IpNet::from(address.address);
            conflicts.push(PoolConflict { prefix, interface: name(address.index), kind: ConflictKind::Address });
        }
    }
    for route in &host.routes {
        let foreign = route.out.iter().all(|index| !is_own(*index));
        let counts = route.forwards && route.table != LOCAL_TABLE && !guard::is_guard(route.table);
        let counts = counts && route.prefix.prefix_len() > 0;
        if foreign && counts && overlap(route.prefix, pool) {
            let interface = route.out.first().and_then(|index| name(*index));
            conflicts.push(PoolConflict { prefix: route.prefix, interface, kind: ConflictKind::Route });
        }
    }
    Ok(conflicts)
}

impl Host {
    async fn look(kernel: &Kernel) -> Result<Self, HostError> {
        let links = kernel.links().await?.into_iter().map(|link| (link.index, link)).collect();
        Ok(Self { links, addresses: kernel.addresses().await?, routes: kernel.routes().await? })
    }

    /// The change that makes a planned route, if one is left to make; what else uses its prefix is reported.
    fn route(&self, link: &Link, planned: PlannedRoute, report: &mut Report) -> Result<Option<Change>, HostError> {
        let PlannedRoute { net, source, guarded } = planned;
        let subnets = self.connected(link).filter(|(_, subnet)| overlap(net, *subnet));
        let overlaps: Vec<Overlap> = subnets
            .map(|(interface, subnet)| Overlap { route: net, subnet, interface: interface.to_owned() })
            .collect();
        if overlaps.iter().any(|overlap| overlap.subnet.contains(&net)) {
            report.skipped.extend(overlaps);
            return Ok(None);
        }
        report.shadowed.extend(overlaps);
        report.narrower.extend(self.narrower(link, net).take(MOST_TOLD));
        let there = match self.has_route(link, net) {
            // Its members have routes of their own, which come before that one.
            Err(HostError::RouteTaken { route, interface }) if guarded => {
                report.taken.push(Overlap { route, subnet: route, interface });
                return Ok(None);
            }
            there => there?,
        };
        Ok(match there {
            None => Some(Change::Route { net, source, before: None }),
            Some(there) if there.ours && there.source != source => {
                Some(Change::Route { net, source, before: Some(there.source) })
            }
            Some(_) => None,
        })
    }

    /// Whether `link` has the address already; an error when another interface has it.
    fn has_address(&self, link: &Link, net: IpNet) -> Result<bool, HostError> {
        let owners = self.addresses.iter().filter(|address| address.address == net.addr());
        for owner in owners.clone() {
            if owner.index != link.index {
                let interface = self.name(owner.index);
                return Err(HostError::AddressTaken { address: net.addr(), interface });
            }
        }
        Ok(owners.count() > 0)
    }

    /// The route by which the main table sends `net` to `link` already; an error when it sends it elsewhere.
    fn has_route(&self, link: &Link, net: IpNet) -> Result<Option<&HostRoute>, HostError> {
        let mut there = None;
        let same = |route: &&HostRoute| route.table == MAIN_TABLE && route.forwards && route.prefix == net;
        for route in self.routes.iter().filter(same) {
            if route.out != [link.index] {
                let interface = route.out.iter().find(|index| **index != link.index);
                let interface = interface.map_or_else(|| "a blackhole".to_owned(), |index| self.name(*index));
                return Err(HostError::RouteTaken { route: net, interface });
            }
            there = Some(route);
        }
        Ok(there)
    }

    /// Routes of the main table that lead a part of `net` elsewhere, as DHCP option 121 sets them; connected subnets are
    /// told of apart.
    fn narrower<'h>(&'h self, own: &'h Link, net: IpNet) -> impl Iterator<Item = Overlap> + 'h {
        let inside = move |route: &&HostRoute| {
            let part = route.prefix != net && net.contains(&route.prefix);
            route.table == MAIN_TABLE && route.forwards && part && !route.out.contains(&own.index)
        };
        let connected = |route: &&HostRoute| self.addresses.iter().any(|address| address.subnet == route.prefix);
        self.routes.iter().filter(inside).filter(move |route| !connected(route)).map(move |route| {
            let interface = route.out.first().map_or_else(|| "a blackhole".to_owned(), |index| self.name(*index));
            Overlap { route: net, subnet: route.prefix, interface }
        })
    }

    /// Subnets on other interfaces that are up.
    fn connected<'h>(&'h self, own: &'h Link) -> impl Iterator<Item = (&'h str, IpNet)> {
        self.addresses
            .iter()
            .filter(|address| address.subnet.prefix_len() < address.subnet.max_prefix_len())
            .filter_map(move |address| {
                let link = self.links.get(&address.index)?;
                let other = link.index != own.index && link.up && !link.loopback;
                other.then_some((link.name.as_str(), address.subnet))
            })
    }

    fn name(&self, index: u32) -> String {
        self.links.get(&index).map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Each prefix once; of several sources for it the first.
fn routes(planned: impl Iterator<Item = PlannedRoute>) -> Vec<PlannedRoute> {
    let mut seen: Vec<PlannedRoute> = Vec::new();
    for route in planned {
        match seen.iter_mut().find(|other| other.net == route.net) {
            Some(other) => {
                other.source = other.source.or(route.source);
                other.guarded |= route.guarded;
            }
            None => seen.push(route),
        }
    }
    seen
}

fn unique<'n>(nets: impl Iterator<Item = &'n IpNet>) -> Vec<IpNet> {
    let mut seen = Vec::new();
    for net in nets {
        if !seen.contains(net) {
            seen.push(*net);
        }
    }
    seen
}
