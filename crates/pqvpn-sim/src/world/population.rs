// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who lives in the world: identities, their admissions, their addresses.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Admission, Contact};
use rand::{RngExt, rngs::SmallRng};

/// Makes identities and hands out addresses.
///
/// Every honest node has a public-looking /24 of its own, spread over many /16; the proof of work is a random output
/// below the target, which is what solving it gives.
#[derive(Debug)]
pub struct Population {
    rng: SmallRng,
    difficulty: u32,
    subnets: u32,
}

/// Subnets to choose from: 64 first octets without any reserved block, times 2^16.
const SUBNETS: u32 = 1 << 22;
const FIRST_OCTET: u32 = 24;

impl Population {
    /// An empty population whose admissions meet `difficulty`.
    #[must_use]
    pub const fn new(rng: SmallRng, difficulty: u32) -> Self {
        Self { rng, difficulty, subnets: 0 }
    }

    /// A newcomer: fresh identity, random position, a /24 of its own.
    pub fn newcomer(&mut self, unix_ms: u64) -> Arc<Contact> {
        let address = self.address();
        let peer = PeerId::from_bytes(self.rng.random());
        let admission = self.admission(&peer, unix_ms);
        Arc::new(Contact::new(peer, admission, vec![address]))
    }

    /// The admission of a solved proof of work.
    pub fn admission(&mut self, peer: &PeerId, unix_ms: u64) -> Admission {
        let mut out: [u8; 32] = self.rng.random();
        let target = u64::MAX / u64::from(self.difficulty.max(1));
        let first = self.rng.random_range(0..target);
        out[..8].copy_from_slice(&first.to_be_bytes());
        Admission { week: pqvpn_dht::admission::week(peer, unix_ms), nonce: self.rng.random(), out }
    }

    /// The next free /24's first host.
    fn address(&mut self) -> SocketAddr {
        // An odd factor permutes a power of two: no subnet comes twice, neighbours in time are far apart.
        let number = self.subnets.wrapping_mul(0x9e37_79b1) % SUBNETS;
        self.subnets += 1;
        let [_, high, middle, low] = number.to_be_bytes();
        let first = u8::try_from(FIRST_OCTET + u32::from(high)).unwrap_or(24);
        SocketAddr::from((Ipv4Addr::new(first, middle, low, 1), 7847))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use super::*;
    use crate::seed::Seed;

    fn octets(contact: &Contact) -> [u8; 4] {
        let IpAddr::V4(address) = contact.addresses()[0].ip() else { panic!("not IPv4") };
        address.octets()
    }

    #[test]
    fn honest_nodes_have_subnets_of_their_own() {
        let mut population = Population::new(Seed(1).rng("population", 0), 512);
        let nodes: Vec<_> = (0..10_000).map(|_| population.newcomer(1_800_000_000_000)).collect();
        let narrow: BTreeSet<_> = nodes.iter().map(|node| octets(node)[..3].to_vec()).collect();
        let wide: BTreeSet<_> = nodes.iter().map(|node| octets(node)[..2].to_vec()).collect();
        assert_eq!(narrow.len(), 10_000);
        assert!(wide.len() > 5_000, "{}", wide.len());
        assert!(nodes.iter().all(|node| (24..88).contains(&octets(node)[0])));
        assert!(nodes.iter().all(|node| node.admission().out[0] == 0 && node.admission().out[1] < 128));
    }
}
