// SPDX-License-Identifier: MIT OR Apache-2.0
//! Overlay addresses: who owns which, and what is routed into the tunnel.

mod mesh;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, PoisonError, RwLock},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_packet::addr::{NetworkHash, ipv4_candidate, ula};

use crate::{
    config::Config,
    snapshot::{HealthItem, HealthLevel},
};

pub(crate) use mesh::{HostPart, Mesh, MeshPeer};

/// Prefix length of the IPv6 overlay: `fd` and 40 bits of network hash.
const V6_PREFIX: u8 = 48;

/// The addresses of this node and its peers under one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Addresses of this node, IPv6 first.
    pub own: Vec<IpAddr>,
    /// Addresses of each configured peer, in the order of the configuration, IPv6 first.
    pub peers: Vec<Vec<IpAddr>>,
    /// Prefixes routed into the tunnel.
    pub routes: Vec<IpNet>,
    /// IPv4 addresses that two nodes would have.
    pub collisions: Vec<HealthItem>,
}

impl Overlay {
    /// Works the addresses out; pure, so that they are known before the node ever ran.
    #[must_use]
    pub fn plan(config: &Config, own: PeerId) -> Self {
        let network = NetworkHash::pinned();
        let pool = config.interface.ipv4_pool;
        let (v4, collisions) = ipv4_owners(config, own, pool);
        let addresses_of = |id: &PeerId| -> Vec<IpAddr> {
            let v6 = config.interface.ipv6.then(|| ula(network, id.as_bytes()).into());
            let v4 = v4.get(id).filter(|_| config.interface.ipv4).map(|&v4| v4.into());
            v6.into_iter().chain(v4).collect()
        };
        // The whole overlay is routed into the tunnel: what no peer owns is dropped there, not sent elsewhere in clear.
        let mut routes: Vec<IpNet> = config.peers.iter().flat_map(|peer| peer.routes.iter().copied()).collect();
        if config.interface.ipv6 {
            let prefix = Ipv6Net::new(ula(network, own.as_bytes()), V6_PREFIX).map(|net| net.trunc());
            routes.extend(prefix.map(IpNet::V6).ok());
        }
        if config.interface.ipv4 {
            routes.push(IpNet::V4(pool));
        }
        let peers = config.peers.iter().map(|peer| addresses_of(&peer.id)).collect();
        Self { own: addresses_of(&own), peers, routes, collisions }
    }
}

/// The overlay addresses this node has now, which nobody dials: shared by who sets them and who publishes addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnAddresses(Arc<RwLock<Vec<IpAddr>>>);

impl OwnAddresses {
    /// The addresses, IPv6 first.
    pub(crate) fn get(&self) -> Vec<IpAddr> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces them.
    pub(crate) fn set(&self, addresses: Vec<IpAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }
}

/// Who owns which IPv4 address among the nodes known here: on a collision the lower PeerID keeps it, the other has none
/// (its IPv6 address always works).
fn ipv4_owners(config: &Config, own: PeerId, pool: Ipv4Net) -> (HashMap<PeerId, Ipv4Addr>, Vec<HealthItem>) {
    let mut ids: Vec<PeerId> = config.peers.iter().map(|peer| peer.id).chain([own]).collect();
    ids.sort_unstable();
    let mut owners: HashMap<Ipv4Addr, PeerId> = HashMap::new();
    let (mut owned, mut collisions) = (HashMap::new(), Vec::new());
    for id in ids {
        let address = ipv4_candidate(pool, id.as_bytes(), 0);
        if let Some(owner) = owners.get(&address) {
            let (owner, loser) = (owner.short(), id.short());
            let text = format!("{address} fits both {owner} and {loser}; {owner} keeps it, {loser} is reached by IPv6");
            collisions.push(HealthItem { level: HealthLevel::Warn, code: "ipv4-collision", text });
        } else {
            owners.insert(address, id);
            owned.insert(id, address);
        }
    }
    (owned, collisions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PeerConfig;

    /// An id whose IPv4 candidate is 10.100.`third`.`fourth`.
    fn id(first: u8, third: u8, fourth: u8) -> PeerId {
        let mut bytes = [first; 32];
        (bytes[7], bytes[15]) = (third, fourth);
        PeerId::from_bytes(bytes)
    }

    fn config(peers: &[PeerId]) -> Config {
        Config { peers: peers.iter().map(|&id| PeerConfig::new(id)).collect(), ..Config::default() }
    }

    #[test]
    fn everybody_has_both_families_and_the_overlay_is_routed() {
        let (own, peer) = (id(1, 3, 7), id(2, 9, 2));
        let overlay = Overlay::plan(&config(&[peer]), own);
        assert_eq!(overlay.own[1], IpAddr::from([10, 100, 3, 7]));
        assert_eq!(overlay.peers[0][1], IpAddr::from([10, 100, 9, 2]));
        assert!(overlay.own[0].is_ipv6() && overlay.own[0] != overlay.peers[0][0]);
        for address in overlay.own.iter().chain(&overlay.peers[0]) {
            assert!(overlay.routes.iter().any(|route| route.contains(address)), "{address}");
        }
        assert!(overlay.collisions.is_empty());
    }

    #[test]
    fn two_nodes_never_own_one_ipv4_address_and_both_ends_agree_who_does() {
        let (low, high) = (id(1, 5, 5), id(2, 5, 5));
        let at_low = Overlay::plan(&config(&[high]), low);
        let at_high = Overlay::plan(&config(&[low]), high);
        assert_eq!((at_low.own.len(), at_low.peers[0].len()), (2, 1));
        assert_eq!((at_high.own.len(), at_high.peers[0].len()), (1, 2));
        assert_eq!(at_low.collisions, at_high.collisions);
        assert_eq!(at_low.collisions[0].code, "ipv4-collision");
    }

    #[test]
    fn a_family_that_is_off_is_off() {
        let mut config = config(&[id(2, 9, 2)]);
        config.interface.ipv4 = false;
        let overlay = Overlay::plan(&config, id(1, 3, 7));
        assert!(overlay.own.iter().chain(&overlay.peers[0]).all(IpAddr::is_ipv6));
        assert!(overlay.routes.iter().all(|route| matches!(route, IpNet::V6(_))));
    }
}
