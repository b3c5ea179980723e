// SPDX-License-Identifier: MIT OR Apache-2.0
//! The overlay addresses a node has before it ever ran.

use std::net::IpAddr;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_node::config::Config;
use pqvpn_packet::addr::{NetworkHash, ipv4_candidate, ula};

/// The addresses the PeerID yields, IPv6 first; a running node may have lost the IPv4 one to an earlier claim.
pub(crate) fn of(peer_id: &PeerId, config: &Config) -> Vec<IpAddr> {
    let v6 = config.interface.ipv6.then(|| ula(NetworkHash::pinned(), peer_id.as_bytes()).into());
    let v4 = config.interface.ipv4.then(|| ipv4_candidate(config.interface.ipv4_pool, peer_id.as_bytes(), 0).into());
    v6.into_iter().chain(v4).collect()
}
