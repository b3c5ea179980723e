// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's side of a running node: what of the mesh is set on it, and what could not be.

mod told;

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, time::Instant};

use ipnet::IpNet;

use super::{
    HostChange, HostError, Plan, PlannedRoute,
    again::Again,
    guard::{self, Findings, Ways},
    kernel::Kernel,
    recover,
    sources::Sources,
    wall::Wall,
    watch::Routed,
};
use crate::{
    clock,
    overlay::{HostPart, Mesh},
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
    /// Members' addresses, whose packets go into the tunnel or nowhere.
    guarded: BTreeSet<IpNet>,
    mtu: u16,
    applied: Option<HostChange>,
    /// Something could not be taken back; of addresses and routes the journal tells.
    is_left: bool,
    /// What the guard met; none: there is no guard.
    met: Option<Findings>,
    /// What is led into the tunnel, for who watches the host.
    pub(crate) routed: Routed,
    /// Own addresses that packets do not leave by any more.
    pub(crate) sources: Sources,
    /// Keeps packets to our addresses out that did not come by the tunnel.
    wall: Wall,
    /// Parts left out, because something else on the host has their addresses or routes.
    left_out: Vec<HealthItem>,
    /// Why the host is not as planned.
    trouble: Option<HealthItem>,
    /// Why members' packets may leave in clear.
    unguarded: Vec<HealthItem>,
    /// Why others' packets may come in.
    weak: Option<HealthItem>,
    again: Again,
}

impl HostSide {
    pub(crate) fn new(mtu: u16, state_dir: PathBuf) -> Self {
        let (parts, kept, left_out, unguarded) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (guarded, met, wall) = (BTreeSet::new(), None, Wall::default());
        let (applied, trouble, routed) = (None, None, Routed::default());
        Self {
            interface: None,
            state_dir,
            parts,
            kept,
            guarded,
            mtu,
            applied,
            is_left: false,
            met,
            routed,
            sources: Sources::default(),
            wall,
            left_out,
            trouble,
            unguarded,
            weak: None,
            again: Again::default(),
        }
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

    /// How many queues of a TUN interface are in use, and how many more are open, where the kernel tells.
    pub(crate) async fn tun_queues(&self, index: u32) -> Result<Option<(usize, usize)>, HostError> {
        Kernel::open()?.tun_queues(index).await
    }

    /// Says what shall be set from now on; nothing changes before [`Self::apply`] or [`Self::follow`].
    pub(crate) fn plan(&mut self, mesh: &Mesh) {
        // What is in force stays what it is until it has been changed.
        if self.applied.is_none() {
            self.kept.clone_from(&mesh.host);
        }
        self.parts.clone_from(&mesh.host);
        self.guarded.clone_from(&mesh.guarded);
        self.routed.set(mesh.host.iter().flat_map(|part| &part.routes).map(|(net, _)| *net).collect());
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
        if self.is_left {
            self.recover().await?;
            self.is_left = false;
        }
        let outcome = self.set().await;
        // Who is not up is not looked after.
        self.again.on_look(clock::now(), self.applied.is_some() && self.is_lacking());
        outcome
    }

    /// Brings a host that is set up to a new plan; what does not work is said in [`Self::health`] and tried again with
    /// the next plan.
    pub(crate) async fn follow(&mut self, mesh: &Mesh) {
        if self.parts == mesh.host && self.guarded == mesh.guarded && !self.is_lacking() {
            return;
        }
        self.plan(mesh);
        self.look_again(clock::now()).await;
    }

    /// Something on the host has changed.
    pub(crate) fn on_news(&mut self, now: Instant) {
        if self.applied.is_some() {
            self.again.on_news(now);
        }
    }

    /// When it is time for [`Self::look_again`].
    pub(crate) const fn due(&self) -> Option<Instant> {
        self.again.due()
    }

    /// Makes the host as planned again after something else has changed it, and looks at what that was.
    pub(crate) async fn look_again(&mut self, now: Instant) {
        if self.applied.is_none() {
            return;
        }
        // Without a descriptor nothing can be looked at: that says nothing of the host.
        if let Err(error) = Kernel::open() {
            tracing::debug!(%error, "the host is not looked at");
            return self.again.on_look(now, true);
        }
        let outcome = self.set().await;
        let was = self.trouble.take();
        self.trouble = outcome.err().map(|error| {
            if was.is_none() {
                tracing::warn!(%error, "the host is not as planned");
            }
            let text = format!("addresses or routes are not as planned: {error}; {}", error.hint());
            HealthItem { level: HealthLevel::Error, code: "host-change", text }
        });
        self.again.on_look(now, self.is_lacking());
    }

    /// Whether the host is not as planned, so that it is worth another try.
    const fn is_lacking(&self) -> bool {
        self.trouble.is_some() || !self.unguarded.is_empty()
    }

    /// Takes back what was set, and what killed daemons left. What fails is tried again with the next call.
    pub(crate) async fn undo(&mut self) -> Result<(), HostError> {
        let undone = self.take_back().await;
        let opened = self.unguard().await;
        let outcome = undone.and(opened);
        self.is_left = outcome.is_err();
        outcome
    }

    /// Whether an [`Self::undo`] is to be tried again.
    pub(crate) const fn is_left(&self) -> bool {
        self.is_left
    }

    /// Takes back what was set but for the guard, which is closed: as after a kill, members' packets go nowhere until the
    /// next start.
    pub(crate) async fn close(&mut self) -> Result<(), HostError> {
        if self.applied.is_none() {
            return self.undo().await;
        }
        let closed = self.shut().await;
        self.take_back().await.and(closed)
    }

    async fn shut(&mut self) -> Result<(), HostError> {
        let Some(interface) = &self.interface else { return Ok(()) };
        let kernel = Kernel::open()?;
        let Some(index) = kernel.index_of(interface).await? else { return Ok(()) };
        let nowhere = self.guarded.iter().map(|net| (*net, None)).collect();
        guard::open(&kernel, index, &nowhere).await.map(drop)
    }

    async fn take_back(&mut self) -> Result<(), HostError> {
        self.left_out.clear();
        self.unguarded.clear();
        (self.trouble, self.weak, self.again) = (None, None, Again::default());
        let undone = match self.applied.take() {
            Some(change) => change.undo().await,
            None if self.is_left => self.recover().await,
            None => Ok(()),
        };
        self.wall.remove().await;
        undone
    }

    async fn unguard(&mut self) -> Result<(), HostError> {
        let Some(interface) = &self.interface else { return Ok(()) };
        let kernel = Kernel::open()?;
        self.met = None;
        if let Some(index) = kernel.index_of(interface).await? {
            guard::clear(&kernel, index).await?;
        }
        guard::sweep(&kernel).await.map(drop)
    }

    /// Sets the plan, and with it the guard of members' addresses: closed before anything changes, open when it has.
    async fn set(&mut self) -> Result<(), HostError> {
        let Some(interface) = self.interface.clone() else { return Ok(()) };
        self.unguarded.clear();
        let kernel = Kernel::open()?;
        let missing = || HostError::NoInterface { name: interface.clone() };
        let index = kernel.index_of(&interface).await?.ok_or_else(missing)?;
        let closed = guard::close(&kernel, index, self.guarded.iter().copied()).await;
        let mut is_guarded = closed.is_ok();
        self.unguarded.extend(closed.err().map(|error| told::unguarded(&error)));
        let outcome = self.set_parts(&interface).await;
        let own = addresses(if self.applied.is_some() { &self.kept } else { &[] });
        self.weak = self.wall.stand(&interface, index, &own).await.err().map(|error| told::no_wall(&error));
        match guard::open(&kernel, index, &self.ways()).await {
            Ok(met) => self.met = Some(met),
            Err(error) => {
                is_guarded = false;
                self.unguarded.push(told::unguarded(&error));
            }
        }
        // Not before ours is there.
        if is_guarded {
            match guard::sweep(&kernel).await {
                Ok(0) => {}
                Ok(left) => tracing::info!(left, "undone: killed daemons had left members' addresses closed"),
                Err(error) => self.unguarded.push(told::unguarded(&error)),
            }
        }
        outcome
    }

    /// Where each guarded prefix leads: into the tunnel with the part that has it, else nowhere.
    fn ways(&self) -> Ways {
        let no_ipv6 = self.applied.as_ref().is_none_or(|change| change.report().ipv6_missing);
        let kept = if self.applied.is_some() { self.kept.as_slice() } else { &[] };
        let routes: Vec<_> = kept.iter().flat_map(|part| &part.routes).collect();
        let way = |net: &IpNet| {
            let route = routes.iter().find(|(route, _)| route.contains(net));
            route.filter(|_| !(no_ipv6 && matches!(net, IpNet::V6(_)))).map(|(_, source)| *source)
        };
        self.guarded.iter().map(|net| (*net, way(net))).collect()
    }

    /// Sets the plan; a network whose addresses or routes are somebody else's on this host does without that family.
    async fn set_parts(&mut self, interface: &str) -> Result<(), HostError> {
        self.left_out.clear();
        let mut parts = self.parts.clone();
        loop {
            let plan = plan(interface, self.mtu, &parts, &self.guarded);
            let outcome = match &mut self.applied {
                Some(change) => change.change_to(&plan).await,
                None => HostChange::apply(&self.state_dir, &plan).await.map(|change| self.applied = Some(change)),
            };
            let Err(error) = outcome else {
                self.kept = parts;
                return Ok(());
            };
            self.is_left |= self.applied.is_none() && matches!(error, HostError::HalfSet { .. });
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
        let mut items: Vec<HealthItem> =
            self.left_out.iter().chain(&self.trouble).chain(&self.unguarded).chain(&self.weak).cloned().collect();
        items.extend(self.met.iter().flat_map(told::met));
        if let Some(report) = self.applied.as_ref().map(HostChange::report) {
            items.extend(told::report(report, &self.guarded));
        }
        items
    }
}

fn plan(interface: &str, mtu: u16, parts: &[HostPart], guarded: &BTreeSet<IpNet>) -> Plan {
    let routes = parts.iter().flat_map(|part| &part.routes);
    let route =
        |&(net, source): &(IpNet, Option<IpAddr>)| PlannedRoute { net, source, guarded: is_overlay(net, guarded) };
    Plan {
        interface: interface.to_owned(),
        owns_device: false,
        mtu: mtu.into(),
        addresses: addresses(parts).into_iter().map(IpNet::from).collect(),
        routes: routes.map(route).collect(),
    }
}

/// Whether a prefix is one of members' own addresses, and not one behind a peer.
fn is_overlay(net: IpNet, guarded: &BTreeSet<IpNet>) -> bool {
    guarded.iter().any(|member| net.contains(member))
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

#[cfg(test)]
#[path = "tests/side.rs"]
mod tests;
