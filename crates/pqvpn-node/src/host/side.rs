// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's side of a running node: what of the mesh is set on it, and what could not be.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;

use super::{HostChange, HostError, Plan, PlannedRoute, recover};
use crate::{
    overlay::HostPart,
    snapshot::{HealthItem, HealthLevel},
};

/// The host's side of a running node.
pub(crate) struct HostSide {
    /// The TUN device, if the host is ours to change.
    pub(crate) interface: Option<String>,
    pub(crate) state_dir: PathBuf,
    parts: Vec<HostPart>,
    /// Those of them that are not left out.
    kept: Vec<HostPart>,
    mtu: u16,
    applied: Option<HostChange>,
    /// Parts left out, because something else on the host has their addresses or routes.
    left_out: Vec<HealthItem>,
    /// Why the host is not as planned.
    trouble: Option<HealthItem>,
}

impl HostSide {
    pub(crate) fn new(mtu: u16, state_dir: PathBuf) -> Self {
        let (parts, kept, left_out) = (Vec::new(), Vec::new(), Vec::new());
        Self { interface: None, state_dir, parts, kept, mtu, applied: None, left_out, trouble: None }
    }

    /// Takes back what a killed daemon left on this host.
    pub(crate) async fn recover(&self) -> Result<(), HostError> {
        let recovered = recover(&self.state_dir).await?;
        for change in &recovered.undone {
            tracing::info!(%change, "undone: a killed daemon had left it");
        }
        if let Some(why) = &recovered.unreadable {
            tracing::warn!(%why, "the journal of host changes was unreadable and has been moved aside");
        }
        Ok(())
    }

    /// Says what shall be set from now on; nothing changes before [`Self::apply`] or [`Self::follow`].
    pub(crate) fn plan(&mut self, parts: Vec<HostPart>) {
        self.kept.clone_from(&parts);
        self.parts = parts;
    }

    /// Overlay addresses of this node, IPv6 first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        addresses(&self.kept)
    }

    /// Sets addresses, routes and the link state; nothing to do when the caller brought the interface.
    pub(crate) async fn apply(&mut self) -> Result<(), HostError> {
        if self.applied.is_some() {
            return Ok(());
        }
        self.set().await
    }

    /// Brings a host that is set up to a new plan; what does not work is said in [`Self::health`] and tried again with
    /// the next plan.
    pub(crate) async fn follow(&mut self, parts: Vec<HostPart>) {
        if self.parts == parts && self.trouble.is_none() {
            return;
        }
        self.plan(parts);
        if self.applied.is_none() {
            return;
        }
        let outcome = self.set().await;
        self.trouble = outcome.err().map(|error| {
            tracing::warn!(%error, "the host is not as planned");
            let text = format!("addresses or routes are not as planned: {error}; {}", error.hint());
            HealthItem { level: HealthLevel::Error, code: "host-change", text }
        });
    }

    /// Takes back what was set.
    pub(crate) async fn undo(&mut self) -> Result<(), HostError> {
        self.left_out.clear();
        self.trouble = None;
        match self.applied.take() {
            Some(change) => change.undo().await,
            None => Ok(()),
        }
    }

    /// Sets the plan; a network whose addresses or routes are somebody else's on this host does without that family.
    async fn set(&mut self) -> Result<(), HostError> {
        let Some(interface) = self.interface.clone() else { return Ok(()) };
        self.left_out.clear();
        let mut parts = self.parts.clone();
        loop {
            let plan = plan(&interface, self.mtu, &parts);
            let outcome = match &mut self.applied {
                Some(change) => change.change_to(&plan).await,
                None => HostChange::apply(&self.state_dir, &plan).await.map(|change| self.applied = Some(change)),
            };
            let Err(error) = outcome else {
                self.kept = parts;
                return Ok(());
            };
            let Some(culprit) = culprit(&parts, &error) else { return Err(error) };
            let HostPart { network, .. } = parts.remove(culprit);
            let text = format!("{}: {error}; its members are reached by IPv6", network.unwrap_or_default());
            self.left_out.push(HealthItem { level: HealthLevel::Warn, code: "pool-taken", text });
        }
    }

    /// Whether an address lies in a subnet that stays on an interface of this host although it is routed to a peer.
    pub(crate) fn is_connected(&self, ip: IpAddr) -> bool {
        let report = self.applied.as_ref().map(HostChange::report);
        report.is_some_and(|report| report.keeps(ip))
    }

    /// What an operator should know about the changes in force.
    pub(crate) fn health(&self) -> Vec<HealthItem> {
        let mut items: Vec<HealthItem> = self.left_out.iter().chain(&self.trouble).cloned().collect();
        let Some(report) = self.applied.as_ref().map(HostChange::report) else { return items };
        items.extend(report.skipped.iter().map(|overlap| {
            let text = format!(
                "no route to {} through the mesh: {} is connected on {}",
                overlap.route, overlap.subnet, overlap.interface
            );
            HealthItem { level: HealthLevel::Warn, code: "route-skipped", text }
        }));
        items.extend(report.shadowed.iter().map(|overlap| {
            let text = format!("{} of {} stays on {}", overlap.subnet, overlap.route, overlap.interface);
            HealthItem { level: HealthLevel::Info, code: "route-shadowed", text }
        }));
        items.extend(report.ipv6_missing.then(|| HealthItem {
            level: HealthLevel::Info,
            code: "ipv6-missing",
            text: "IPv6 is off on this host: the overlay has IPv4 only".to_owned(),
        }));
        items
    }
}

fn plan(interface: &str, mtu: u16, parts: &[HostPart]) -> Plan {
    let routes = parts.iter().flat_map(|part| &part.routes);
    Plan {
        interface: interface.to_owned(),
        owns_device: false,
        mtu: mtu.into(),
        addresses: addresses(parts).into_iter().map(IpNet::from).collect(),
        routes: routes.map(|&(net, source)| PlannedRoute { net, source }).collect(),
    }
}

fn addresses(parts: &[HostPart]) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for &address in parts.iter().flat_map(|part| &part.addresses) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.sort_by_key(IpAddr::is_ipv4);
    addresses
}

/// The part of a network that an error is about; what the pinned peers need has to be there.
fn culprit(parts: &[HostPart], error: &HostError) -> Option<usize> {
    let is_about = |part: &HostPart| {
        if let HostError::AddressTaken { address, .. } = error {
            part.addresses.contains(address)
        } else if let HostError::RouteTaken { route, .. } = error {
            part.routes.iter().any(|(net, _)| net == route)
        } else {
            false
        }
    };
    let pinned = parts.iter().any(|part| part.network.is_none() && is_about(part));
    if pinned { None } else { parts.iter().position(|part| part.network.is_some() && is_about(part)) }
}
