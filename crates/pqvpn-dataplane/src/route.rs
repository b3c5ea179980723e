// SPDX-License-Identifier: MIT OR Apache-2.0
//! Longest prefix match of inner addresses: to peers, both for routing and for the check of inner sources, and to realms.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::event::PeerSlot;

/// Peers by prefix: where a packet goes, and whose an inner source is.
pub(crate) type Routes = Prefixes<PeerSlot>;

/// An immutable table of prefixes: for each prefix length in use, longest first, one hash table.
#[derive(Debug)]
pub(crate) struct Prefixes<V> {
    v4: Vec<Level<u32, V>>,
    v6: Vec<Level<u128, V>>,
}

#[derive(Debug)]
struct Level<A, V> {
    mask: A,
    values: HashMap<A, V, Mixed>,
}

impl<V> Default for Prefixes<V> {
    fn default() -> Self {
        Self { v4: Vec::new(), v6: Vec::new() }
    }
}

impl<V: Copy> Prefixes<V> {
    /// Builds the table; of two equal prefixes the later one counts.
    pub(crate) fn new(entries: &[(IpNet, V)]) -> Self {
        let mut v4: Vec<(u8, Level<u32, V>)> = Vec::new();
        let mut v6: Vec<(u8, Level<u128, V>)> = Vec::new();
        for &(net, value) in entries {
            match net {
                IpNet::V4(net) => {
                    insert(&mut v4, net.prefix_len(), net.netmask().to_bits(), net.network().to_bits(), value)
                }
                IpNet::V6(net) => {
                    insert(&mut v6, net.prefix_len(), net.netmask().to_bits(), net.network().to_bits(), value)
                }
            }
        }
        Self { v4: sorted(v4), v6: sorted(v6) }
    }

    /// What stands at the longest prefix around `addr`.
    pub(crate) fn lookup(&self, addr: IpAddr) -> Option<V> {
        match addr {
            IpAddr::V4(addr) => self.lookup_v4(addr),
            IpAddr::V6(addr) => self.lookup_v6(addr),
        }
    }

    fn lookup_v4(&self, addr: Ipv4Addr) -> Option<V> {
        let addr = addr.to_bits();
        self.v4.iter().find_map(|level| level.values.get(&(addr & level.mask)).copied())
    }

    fn lookup_v6(&self, addr: Ipv6Addr) -> Option<V> {
        let addr = addr.to_bits();
        self.v6.iter().find_map(|level| level.values.get(&(addr & level.mask)).copied())
    }

    /// Everything that stands at a prefix.
    pub(crate) fn values(&self) -> impl Iterator<Item = V> + '_ {
        let v4 = self.v4.iter().flat_map(|level| level.values.values().copied());
        v4.chain(self.v6.iter().flat_map(|level| level.values.values().copied()))
    }
}

fn insert<A: Eq + Hash, V>(levels: &mut Vec<(u8, Level<A, V>)>, len: u8, mask: A, network: A, value: V) {
    let at = levels.iter().position(|(l, _)| *l == len).unwrap_or_else(|| {
        levels.push((len, Level { mask, values: HashMap::default() }));
        levels.len() - 1
    });
    levels[at].1.values.insert(network, value);
}

fn sorted<A, V>(mut levels: Vec<(u8, Level<A, V>)>) -> Vec<Level<A, V>> {
    levels.sort_unstable_by_key(|(len, _)| std::cmp::Reverse(*len));
    levels.into_iter().map(|(_, level)| level).collect()
}

/// A hasher for integer keys that only the local side can insert: one multiplication and a fold.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct MixHasher(u64);

/// [`MixHasher`] as a map parameter.
pub(crate) type Mixed = BuildHasherDefault<MixHasher>;

impl Hasher for MixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        const ODD: u128 = 0x9e37_79b9_7f4a_7c15;
        let product = u128::from(self.0 ^ n ^ 0x5851_f42d_4c95_7f2d) * ODD;
        #[expect(clippy::cast_possible_truncation, reason = "both halves are folded together")]
        let folded = (product >> 64) as u64 ^ product as u64;
        self.0 = folded;
    }

    fn write_u128(&mut self, n: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "both halves are written")]
        let (high, low) = ((n >> 64) as u64, n as u64);
        self.write_u64(high);
        self.write_u64(low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, PeerSlot)]) -> Routes {
        let routes: Vec<_> = routes.iter().map(|(net, peer)| (net.parse().unwrap(), *peer)).collect();
        Routes::new(&routes)
    }

    fn lookup(routes: &Routes, addr: &str) -> Option<PeerSlot> {
        routes.lookup(addr.parse().unwrap())
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order() {
        let routes = table(&[("10.0.0.0/8", 1), ("10.1.2.3/32", 3), ("10.1.0.0/16", 2)]);
        assert_eq!(lookup(&routes, "10.9.9.9"), Some(1));
        assert_eq!(lookup(&routes, "10.1.9.9"), Some(2));
        assert_eq!(lookup(&routes, "10.1.2.3"), Some(3));
        assert_eq!(lookup(&routes, "11.0.0.1"), None);
    }

    #[test]
    fn a_default_route_takes_the_rest_of_its_family_only() {
        let routes = table(&[("0.0.0.0/0", 7), ("fd00::/8", 8), ("fd00::1/128", 9)]);
        assert_eq!(lookup(&routes, "203.0.113.1"), Some(7));
        assert_eq!(lookup(&routes, "fd12::1"), Some(8));
        assert_eq!(lookup(&routes, "fd00::1"), Some(9));
        assert_eq!(lookup(&routes, "2001:db8::1"), None);
    }

    #[test]
    fn host_bits_of_a_prefix_do_not_matter_and_later_duplicates_count() {
        let routes = table(&[("10.1.2.3/16", 1), ("10.1.0.0/16", 2)]);
        assert_eq!(lookup(&routes, "10.1.200.1"), Some(2));
        assert_eq!(routes.values().collect::<Vec<_>>(), [2]);
    }
}
