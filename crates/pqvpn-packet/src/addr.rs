// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses inside the mesh, computed from the PeerID (architecture.md "Addresses").

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

/// The 40 bits that tell one network's IPv6 prefix from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkHash(pub [u8; 5]);

impl NetworkHash {
    /// First 40 bits of SHA-256("pqvpn-net" || network id).
    #[must_use]
    pub fn of_network(network_id: &[u8; 32]) -> Self {
        let [a, b, c, d, e, ..] = digest(&[b"pqvpn-net", network_id]);
        Self([a, b, c, d, e])
    }

    /// The hash peers use who are pinned to each other and share no network: that of the all-zero network id.
    #[must_use]
    pub fn pinned() -> Self {
        Self::of_network(&[0; 32])
    }
}

/// The IPv6 address of a peer: `fd` || network hash || first 80 bits of SHA-256("pqvpn-addr" || PeerID).
#[must_use]
pub fn ula(network: NetworkHash, peer_id: &[u8; 32]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&network.0);
    octets[6..].copy_from_slice(&digest(&[b"pqvpn-addr", peer_id])[..10]);
    Ipv6Addr::from(octets)
}

/// The `i`-th IPv4 address a peer may claim in `pool`.
///
/// Candidate 0 has the host part (PeerID\[7\], PeerID\[15\]); candidate `i` the first two bytes of
/// SHA-256("pqvpn-v4" || PeerID || `i` as big-endian u32). Where that is the first or last address of the pool (never
/// used), the digest of the same `i` yields the next two bytes instead, so every `i` names a usable address.
/// A pool narrower than /16 takes the low bits; of a wider one only the first /16 is used. In a /31 both addresses
/// are usable, in a /32 the only one.
#[must_use]
pub fn ipv4_candidate(pool: Ipv4Net, peer_id: &[u8; 32], i: u32) -> Ipv4Addr {
    let mask = !u32::from(pool.netmask()) & 0xffff;
    let usable = |host: &u32| mask <= 1 || (*host != 0 && *host != mask);
    let digest = digest(&[b"pqvpn-v4", peer_id, &i.to_be_bytes()]);
    let named = (i == 0).then_some([peer_id[7], peer_id[15]]);
    let host = named
        .into_iter()
        .chain(digest.chunks_exact(2).map(|pair| [pair[0], pair[1]]))
        .map(|pair| u32::from(u16::from_be_bytes(pair)) & mask)
        .find(usable)
        .unwrap_or(1);
    Ipv4Addr::from(u32::from(pool.network()) | host)
}

/// SHA-256 over the concatenation of `parts`.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    // Expected values computed with Python's hashlib.
    #[test]
    fn known_answers() {
        let peer: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert_eq!(NetworkHash::pinned().0, [0xbc, 0xf5, 0xc7, 0x4f, 0xe0]);
        assert_eq!(
            ula(NetworkHash::pinned(), &peer),
            "fdbc:f5c7:4fe0:ff7b:4f19:41e4:4f6f:4d8f".parse::<Ipv6Addr>().unwrap()
        );
        assert_eq!(ipv4_candidate(pool("10.100.0.0/16"), &peer, 0), Ipv4Addr::new(10, 100, 7, 15));
        assert_eq!(ipv4_candidate(pool("10.100.0.0/16"), &peer, 1), Ipv4Addr::new(10, 100, 87, 120));
    }

    #[test]
    fn first_and_last_address_of_the_pool_are_never_used() {
        for host in [0, 0xff] {
            let peer = [host; 32];
            let address = ipv4_candidate(pool("10.100.0.0/16"), &peer, 0);
            assert_ne!(address.octets()[2..], [host, host]);
            assert_eq!(address.octets()[..2], [10, 100]);
        }
    }

    #[test]
    fn tiny_pools_still_yield_an_address() {
        let peer = [0; 32];
        assert_eq!(ipv4_candidate(pool("192.0.2.7/32"), &peer, 0), Ipv4Addr::new(192, 0, 2, 7));
        assert_eq!(ipv4_candidate(pool("192.0.2.6/31"), &peer, 0), Ipv4Addr::new(192, 0, 2, 6));
        let two = ipv4_candidate(pool("192.0.2.4/30"), &peer, 0).octets()[3];
        assert!(two == 5 || two == 6);
    }

    proptest! {
        #[test]
        fn candidates_lie_in_the_pool(prefix in 1_u8..=32, base: u32, peer: [u8; 32], i: u32) {
            let pool = Ipv4Net::new(Ipv4Addr::from(base), prefix).unwrap();
            prop_assert!(pool.contains(&ipv4_candidate(pool, &peer, i)));
        }

        #[test]
        fn ula_is_a_unique_local_address_of_its_network(id: [u8; 32], peer: [u8; 32]) {
            let network = NetworkHash::of_network(&id);
            let octets = ula(network, &peer).octets();
            prop_assert_eq!(octets[0], 0xfd);
            prop_assert_eq!(&octets[1..6], &network.0[..]);
        }
    }
}
