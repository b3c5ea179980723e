// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator reads about the host.

use std::{collections::BTreeSet, io};

use ipnet::IpNet;

use super::{
    super::{HostError, Overlap, Report, guard::Findings},
    is_overlay,
};
use crate::snapshot::{HealthItem, HealthLevel};

/// The guard of members' addresses is not there, or not whole.
pub(super) fn unguarded(error: &HostError) -> HealthItem {
    let text = format!("packets for members may leave in clear where the local network wants them: {error}");
    HealthItem { level: HealthLevel::Error, code: "unguarded", text }
}

/// Nothing keeps packets out that did not come by the tunnel.
pub(super) fn no_wall(error: &io::Error) -> HealthItem {
    let text = format!(
        "whoever is on the local network can send packets to this node's overlay addresses: nftables: {error}; \
         a kernel with nf_tables, or your own firewall rule, helps"
    );
    HealthItem { level: HealthLevel::Warn, code: "weak-host", text }
}

/// What is in the way of the guard.
pub(super) fn met(findings: &Findings) -> Vec<HealthItem> {
    let warn = |code, text| HealthItem { level: HealthLevel::Warn, code, text };
    let earlier = findings.earlier.iter().map(|priority| {
        let text = format!(
            "a routing rule of another program (priority {priority}) comes before that of members' addresses and may \
             send their packets elsewhere; see `ip rule`"
        );
        warn("rule-conflict", text)
    });
    let own = findings.own.iter().map(|(address, interface)| {
        warn("member-address", format!("this host has a member's address itself: {address} on {interface}"))
    });
    let routers = findings.routers.iter().map(|router| {
        let text = format!(
            "a router of this network has a member's address, {router}: packets through it pass, those to it go to the \
             member"
        );
        warn("member-address", text)
    });
    earlier.chain(own).chain(routers).collect()
}

/// What else uses the prefixes of the plan.
pub(super) fn report(report: &Report, guarded: &BTreeSet<IpNet>) -> Vec<HealthItem> {
    let overlay = |overlap: &&Overlap| is_overlay(overlap.route, guarded);
    let behind = |overlap: &&Overlap| !is_overlay(overlap.route, guarded);
    let item = |level, code, text| HealthItem { level, code, text };
    let all = report.skipped.iter().chain(&report.shadowed).chain(&report.narrower).chain(&report.taken);
    let shared = all.filter(overlay).map(|Overlap { route, subnet, interface }| {
        let text = format!(
            "{subnet} on {interface} has addresses of the mesh ({route}): members keep theirs, and whoever else has one \
             of those is not reached"
        );
        item(HealthLevel::Warn, "lan-collides", text)
    });
    let skipped = report.skipped.iter().filter(behind).map(|Overlap { route, subnet, interface }| {
        let text = format!("no route to {route} through the mesh: {subnet} is connected on {interface}");
        item(HealthLevel::Warn, "route-skipped", text)
    });
    let shadowed = report.shadowed.iter().filter(behind).map(|Overlap { route, subnet, interface }| {
        item(HealthLevel::Info, "route-shadowed", format!("{subnet} of {route} stays on {interface}"))
    });
    let narrower = report.narrower.iter().filter(behind).map(|Overlap { route, subnet, interface }| {
        let text =
            format!("{subnet} of {route} does not go through the mesh: a route of this host leads it to {interface}");
        item(HealthLevel::Warn, "route-narrower", text)
    });
    let ipv6 = report.ipv6_missing.then(|| {
        item(HealthLevel::Info, "ipv6-missing", "IPv6 is off on this host: the overlay has IPv4 only".to_owned())
    });
    shared.chain(skipped).chain(shadowed).chain(narrower).chain(ipv6).collect()
}
