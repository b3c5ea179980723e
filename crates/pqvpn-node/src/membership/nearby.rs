// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who announces itself on the local network, and where: hints for a join.

use std::{collections::BTreeMap, net::SocketAddr};

use pqvpn_crypto::peer_id::PeerId;

/// Nodes that are remembered: as many as one look takes.
const MAX: usize = 64;

/// A bounded memory; who was told of longest ago makes room. Nobody says that it goes.
#[derive(Debug, Clone, Default)]
pub(super) struct Nearby {
    places: BTreeMap<PeerId, Place>,
    /// Counts what was told.
    told: u64,
}

#[derive(Debug, Clone)]
struct Place {
    addresses: Vec<SocketAddr>,
    told: u64,
}

impl Nearby {
    pub(super) fn note(&mut self, peer: PeerId, addresses: Vec<SocketAddr>) {
        if addresses.is_empty() {
            return;
        }
        self.told += 1;
        if self.places.len() >= MAX && !self.places.contains_key(&peer) {
            let oldest = self.places.iter().min_by_key(|(_, place)| place.told).map(|(oldest, _)| *oldest);
            oldest.and_then(|oldest| self.places.remove(&oldest));
        }
        self.places.insert(peer, Place { addresses, told: self.told });
    }

    pub(super) fn addresses(&self, peer: &PeerId) -> &[SocketAddr] {
        self.places.get(peer).map_or(&[], |place| &place.addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_when_many_are_known_is_remembered_and_the_first_are_forgotten() {
        let peer = |n: u8| PeerId::from_bytes([n; 32]);
        let at = |port: u16| vec![SocketAddr::from(([192, 168, 1, 7], port))];
        let mut nearby = Nearby::default();
        // Those with the highest names first: the order is that of time.
        (0..64).for_each(|n| nearby.note(peer(200 - n), at(1)));
        nearby.note(peer(200), at(2));
        (0..10).for_each(|n| nearby.note(peer(n), at(3)));
        assert_eq!(nearby.places.len(), MAX);
        assert_eq!(nearby.addresses(&peer(200)), at(2), "told of again");
        assert!((190..200).all(|n| nearby.addresses(&peer(n)).is_empty()), "the first");
        assert!((137..190).chain(0..10).all(|n| !nearby.addresses(&peer(n)).is_empty()));
        nearby.note(peer(9), Vec::new());
        assert_eq!((nearby.places.len(), nearby.addresses(&peer(9))), (MAX, at(3).as_slice()), "no place is no news");
    }
}
