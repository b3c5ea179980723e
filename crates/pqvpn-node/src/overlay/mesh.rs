// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the pinned peers and the networks together ask of this node: peers, addresses, routes, realms.
//!
//! Pure: the same configuration and views make the same mesh. One address has one owner here; where networks overlap,
//! the pinned peers come first and then the networks in the order of the views, and what loses is reached by IPv6.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::{MAX_REALMS, RealmSet};

use super::{Overlay, V6_PREFIX};
use crate::{
    config::{Config, PeerConfig},
    membership::{MemberView, NetworkView},
    snapshot::{HealthItem, HealthLevel},
};

/// Everything of the overlay that this node needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Mesh {
    /// Addresses of this node, IPv6 first.
    pub(crate) own: Vec<IpAddr>,
    /// Whom it may have sessions with.
    pub(crate) peers: BTreeMap<PeerId, MeshPeer>,
    /// Which realms inner prefixes are of; `None` when there is but that of the pinned peers.
    pub(crate) realms: Option<Vec<(IpNet, RealmSet)>>,
    /// What is set on the host.
    pub(crate) host: Vec<HostPart>,
    /// Members' addresses, whose packets go into the tunnel or nowhere: each one of IPv4, and the prefixes of IPv6.
    pub(crate) guarded: BTreeSet<IpNet>,
    /// Who was left out: revoked in a network and in no other one with us.
    pub(crate) revoked: BTreeSet<PeerId>,
    /// Addresses that more than one would have.
    pub(crate) collisions: Vec<HealthItem>,
}

/// One peer, by everything that makes it one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MeshPeer {
    /// Whether the configuration names it.
    pub(crate) pinned: bool,
    /// The name it was given here, or else that of the first network.
    pub(crate) name: String,
    /// Whether the name was given here.
    pub(crate) named: bool,
    /// Its names in networks: network, name.
    pub(crate) names: Vec<(String, String)>,
    /// Its overlay addresses, IPv6 first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Every prefix whose packets are its own.
    pub(crate) prefixes: Vec<IpNet>,
    /// `host:port`, best first.
    pub(crate) endpoints: Vec<String>,
    /// How often its path is kept open.
    pub(crate) keepalive: Option<Duration>,
    /// Whether sessions may start: it is pinned, or one of its networks is up to date.
    pub(crate) ready: bool,
}

/// Addresses and routes that stand or fall together: one family of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPart {
    /// The network; `None`: the pinned peers, without whom the node does not run.
    pub(crate) network: Option<String>,
    /// Addresses of this node.
    pub(crate) addresses: Vec<IpAddr>,
    /// Prefixes that go into the tunnel, with the source packets to them should have.
    pub(crate) routes: Vec<(IpNet, Option<IpAddr>)>,
}

impl Mesh {
    /// Works out the mesh; networks beyond what the data plane can tell apart are left out.
    pub(crate) fn plan(config: &Config, own: PeerId, views: &[NetworkView]) -> Self {
        let mut builder = Builder { ipv4: config.interface.ipv4, ipv6: config.interface.ipv6, ..Builder::new(own) };
        // Without pinned peers nobody knows their addresses, and their pool is for networks to take.
        if !config.peers.is_empty() || views.is_empty() {
            builder.pinned(config);
        }
        let enabled: Vec<&NetworkView> = views.iter().filter(|view| view.enabled).take(MAX_REALMS - 1).collect();
        let ready = enabled.iter().filter(|view| view.ready).flat_map(|view| &view.members);
        builder.ready.extend(ready.map(|member| member.peer));
        for (number, view) in (1..).zip(&enabled) {
            builder.network(view, RealmSet::only(number).unwrap_or_default());
        }
        let mut mesh = builder.mesh;
        for entry in &config.peers {
            if let Some(peer) = mesh.peers.get_mut(&entry.id).filter(|peer| peer.name.is_empty()) {
                peer.name.clone_from(&entry.name);
            }
        }
        mesh.own.sort_by_key(IpAddr::is_ipv4);
        let revoked = views.iter().flat_map(|view| &view.revoked).copied();
        mesh.revoked = revoked.filter(|peer| !mesh.peers.contains_key(peer)).collect();
        mesh.realms = (!enabled.is_empty()).then_some(builder.realms);
        mesh
    }
}

struct Builder {
    own: PeerId,
    ipv4: bool,
    ipv6: bool,
    mesh: Mesh,
    realms: Vec<(IpNet, RealmSet)>,
    owners: BTreeMap<IpAddr, PeerId>,
    /// Pools in use, with our address in each and whose the pool is.
    pools: Vec<(Ipv4Net, Option<Ipv4Addr>, String)>,
    /// Members of networks that are up to date.
    ready: BTreeSet<PeerId>,
}

impl Builder {
    fn new(own: PeerId) -> Self {
        let (realms, owners, pools, ready) = (Vec::new(), BTreeMap::new(), Vec::new(), BTreeSet::new());
        Self { own, ipv4: true, ipv6: true, mesh: Mesh::default(), realms, owners, pools, ready }
    }

    fn pinned(&mut self, config: &Config) {
        let overlay = Overlay::plan(config, self.own);
        self.mesh.collisions.extend(overlay.collisions);
        for &address in &overlay.own {
            self.own(address, RealmSet::PINNED);
        }
        let prefixes =
            overlay.own.iter().filter(|own| own.is_ipv6()).filter_map(|&own| IpNet::new(own, V6_PREFIX).ok());
        self.mesh.guarded.extend(prefixes.map(|prefix| prefix.trunc()));
        self.guard_v4(overlay.peers.iter().flatten().copied());
        for (entry, addresses) in config.peers.iter().zip(overlay.peers) {
            self.pinned_peer(entry, addresses);
        }
        let own_v4 = overlay.own.iter().find(|address| address.is_ipv4()).copied();
        let source = |net: &IpNet| own_v4.filter(|_| matches!(net, IpNet::V4(_)));
        self.realms.extend(overlay.routes.iter().map(|&net| (net, RealmSet::PINNED)));
        if self.ipv4 {
            let own_v4 = own_v4.and_then(|address| if let IpAddr::V4(v4) = address { Some(v4) } else { None });
            self.pools.push((config.interface.ipv4_pool, own_v4, "the pinned peers".to_owned()));
        }
        let routes = overlay.routes.into_iter().map(|net| (net, source(&net))).collect();
        self.mesh.host.push(HostPart { network: None, addresses: overlay.own, routes });
    }

    fn pinned_peer(&mut self, entry: &PeerConfig, addresses: Vec<IpAddr>) {
        for &address in &addresses {
            self.owners.insert(address, entry.id);
        }
        let prefixes = addresses.iter().copied().map(IpNet::from).chain(entry.routes.iter().copied());
        let peer = MeshPeer {
            pinned: true,
            name: if is_default_name(entry) { String::new() } else { entry.name.clone() },
            named: !is_default_name(entry),
            names: Vec::new(),
            prefixes: prefixes.collect(),
            addresses,
            endpoints: entry.endpoints.iter().map(ToString::to_string).collect(),
            keepalive: (entry.keepalive_seconds > 0).then(|| Duration::from_secs(entry.keepalive_seconds.into())),
            ready: true,
        };
        self.realms.extend(peer.prefixes.iter().map(|&net| (net, RealmSet::PINNED)));
        self.mesh.peers.insert(entry.id, peer);
    }

    fn network(&mut self, view: &NetworkView, realm: RealmSet) {
        let own_v4 = view.own.addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let own_v4 = own_v4.filter(|_| self.ipv4).filter(|&v4| self.pool_is_free(view, v4));
        let own_v6 = view.own.addresses.iter().find(|address| address.is_ipv6()).filter(|_| self.ipv6).copied();
        // Also of those whose packets are not taken, or who are reached by IPv6: nobody else is to have them.
        let members = view.members.iter().filter(|member| member.peer != self.own);
        let addresses: Vec<IpAddr> = members.flat_map(|member| &member.addresses).copied().collect();
        self.guard_v4(addresses);
        if let Some(address) = own_v6 {
            self.mesh.guarded.insert(IpNet::V6(view.prefix_v6).trunc());
            self.family(view, realm, address, view.prefix_v6.into());
        }
        if let Some(address) = own_v4 {
            self.pools.push((view.pool, own_v4, view.name.clone()));
            self.family(view, realm, address.into(), view.pool.into());
        }
        let mut lost = Vec::new();
        let own = self.own;
        for member in view.members.iter().filter(|member| member.peer != own) {
            self.member(view, realm, member, own_v4.is_some(), &mut lost);
        }
        if let Some(first) = lost.first() {
            let text = format!(
                "{}: the address {first} and {} more are somebody else's on this node; those members are reached by IPv6",
                view.name,
                lost.len() - 1
            );
            self.mesh.collisions.push(HealthItem { level: HealthLevel::Warn, code: "ipv4-collision", text });
        }
    }

    fn guard_v4(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let v4 = addresses.into_iter().filter(|address| self.ipv4 && address.is_ipv4());
        self.mesh.guarded.extend(v4.map(IpNet::from));
    }

    /// Our address in one family of a network, and the way to its members.
    fn family(&mut self, view: &NetworkView, realm: RealmSet, address: IpAddr, prefix: IpNet) {
        self.own(address, realm);
        self.realms.push((prefix, realm));
        let source = Some(address).filter(IpAddr::is_ipv4);
        let (network, routes) = (Some(view.name.clone()), vec![(prefix.trunc(), source)]);
        self.mesh.host.push(HostPart { network, addresses: vec![address], routes });
    }

    /// Whether the network's IPv4 addresses can be told from those of the networks before it.
    fn pool_is_free(&mut self, view: &NetworkView, own_v4: Ipv4Addr) -> bool {
        let other = self.pools.iter().find(|(pool, own, _)| overlap(*pool, view.pool) && *own != Some(own_v4));
        let whose = other.map(|(pool, _, whose)| format!("{pool} of {whose}"));
        let taken = self.owners.get(&own_v4.into()).filter(|owner| **owner != self.own);
        let Some(whose) = whose.or_else(|| taken.map(|owner| format!("the address {own_v4} of {}", owner.short())))
        else {
            return true;
        };
        let text =
            format!("{}: {} overlaps {whose}; on this node its members are reached by IPv6 only", view.name, view.pool);
        self.mesh.collisions.push(HealthItem { level: HealthLevel::Warn, code: "pool-overlap", text });
        false
    }

    fn own(&mut self, address: IpAddr, realm: RealmSet) {
        if !self.mesh.own.contains(&address) {
            self.mesh.own.push(address);
        }
        self.owners.insert(address, self.own);
        self.realms.push((address.into(), realm));
    }

    fn member(&mut self, view: &NetworkView, realm: RealmSet, member: &MemberView, ipv4: bool, lost: &mut Vec<IpAddr>) {
        let peer = self.mesh.peers.entry(member.peer).or_default();
        if peer.name.is_empty() {
            peer.name.clone_from(&member.name);
        }
        peer.names.push((view.name.clone(), member.name.clone()));
        peer.ready |= view.ready;
        // It may have been put out there meanwhile: what another network, or the configuration, lets it do is no reason to
        // take its packets for those of a member here.
        let waits = !view.ready && (peer.pinned || self.ready.contains(&member.peer));
        for &address in member.addresses.iter().filter(|_| !waits) {
            if !(if address.is_ipv4() { ipv4 } else { self.ipv6 }) {
                continue;
            }
            if *self.owners.entry(address).or_insert(member.peer) != member.peer {
                lost.push(address);
                continue;
            }
            self.realms.push((address.into(), realm));
            if !peer.addresses.contains(&address) {
                peer.addresses.push(address);
                peer.prefixes.push(address.into());
            }
        }
        peer.addresses.sort_by_key(IpAddr::is_ipv4);
        for endpoint in member.endpoints.iter().map(ToString::to_string) {
            if !peer.endpoints.contains(&endpoint) {
                peer.endpoints.push(endpoint);
            }
        }
    }
}

/// Whether nobody gave the peer a name: the configuration then shows the first digits of its id.
fn is_default_name(entry: &PeerConfig) -> bool {
    entry.name.len() >= 8 && entry.id.to_string().starts_with(&entry.name)
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests;
