// SPDX-License-Identifier: MIT OR Apache-2.0
//! Realms: which inner addresses may speak with which. Each network of this node is one, the pinned peers are one.
//!
//! An address may be of several realms (one node has the same IPv4 address in two networks). A packet passes when its
//! source and its destination have a realm in common, in either direction; so no network is a way into another one, nor
//! into what lies behind this host.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::route::Prefixes;

/// Realms a node can tell apart.
pub const MAX_REALMS: usize = 64;

/// A set of realms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RealmSet(u64);

impl RealmSet {
    /// The realm of the pinned peers, and of every address that is of no network.
    pub const PINNED: Self = Self(1);

    /// The realm of this number, 0 being that of the pinned peers; `None` from [`MAX_REALMS`] on.
    pub const fn only(number: usize) -> Option<Self> {
        if number < MAX_REALMS { Some(Self(1 << number)) } else { None }
    }

    /// The realms of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the sets have a realm in common.
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// The realms of all inner addresses.
#[derive(Debug)]
pub(crate) struct Realms(Prefixes<RealmSet>);

impl Realms {
    /// Builds the table; the realms of equal prefixes are united.
    pub(crate) fn new(entries: &[(IpNet, RealmSet)]) -> Self {
        let mut united: Vec<(IpNet, RealmSet)> = entries.iter().map(|&(net, realms)| (net.trunc(), realms)).collect();
        united.sort_by_key(|&(net, _)| net);
        united.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = kept.1.union(next.1);
            }
            same
        });
        Self(Prefixes::new(&united))
    }

    /// Whether a packet may go from `source` to `destination`.
    pub(crate) fn meet(&self, source: IpAddr, destination: IpAddr) -> bool {
        self.of(source).meets(self.of(destination))
    }

    fn of(&self, addr: IpAddr) -> RealmSet {
        self.0.lookup(addr).unwrap_or(RealmSet::PINNED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm(number: usize) -> RealmSet {
        RealmSet::only(number).unwrap()
    }

    fn meet(realms: &Realms, a: &str, b: &str) -> bool {
        let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
        let there = realms.meet(a, b);
        assert_eq!(there, realms.meet(b, a), "both directions alike");
        there
    }

    fn table(entries: &[(&str, RealmSet)]) -> Realms {
        let entries: Vec<_> = entries.iter().map(|(net, realms)| (net.parse().unwrap(), *realms)).collect();
        Realms::new(&entries)
    }

    #[test]
    fn addresses_of_one_network_meet_and_those_of_two_do_not() {
        let realms = table(&[("fd01::/48", realm(1)), ("fd02::/48", realm(2)), ("10.100.0.0/16", realm(1))]);
        assert!(meet(&realms, "fd01::1", "fd01::2"));
        assert!(!meet(&realms, "fd01::1", "fd02::1"));
        assert!(!meet(&realms, "10.100.3.7", "fd02::1"));
    }

    #[test]
    fn what_is_of_no_network_meets_pinned_peers_only() {
        let realms = table(&[("fd00::/48", RealmSet::PINNED), ("fd01::/48", realm(1))]);
        assert!(meet(&realms, "fd00::1", "192.168.1.1"));
        assert!(!meet(&realms, "fd01::1", "192.168.1.1"));
        assert!(meet(&realms, "203.0.113.1", "192.168.1.1"));
    }

    #[test]
    fn an_address_of_two_networks_meets_both_also_inside_a_shared_pool() {
        let both = [("10.100.0.0/16", realm(1)), ("10.100.0.0/16", realm(2)), ("10.100.3.7/32", realm(1))];
        let one = [("10.100.3.7/32", realm(2)), ("10.100.9.1/32", realm(1)), ("10.100.9.2/32", realm(2))];
        let realms = table(&[both.as_slice(), one.as_slice()].concat());
        assert!(meet(&realms, "10.100.3.7", "10.100.9.1") && meet(&realms, "10.100.3.7", "10.100.9.2"));
        assert!(!meet(&realms, "10.100.9.1", "10.100.9.2"));
        assert!(meet(&realms, "10.100.9.1", "10.100.50.1"), "an unknown member may be of either");
    }

    #[test]
    fn there_are_as_many_realms_as_bits() {
        assert!(RealmSet::only(MAX_REALMS - 1).is_some() && RealmSet::only(MAX_REALMS).is_none());
        assert_eq!(RealmSet::only(0), Some(RealmSet::PINNED));
    }
}
