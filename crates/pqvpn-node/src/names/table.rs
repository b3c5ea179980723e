// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which names there are, and whose addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::MAX_LABEL_LEN;

use super::ZONE;
use crate::{membership::NetworkView, overlay::Mesh};

/// Digits of a network's id that tell networks of one name apart.
const ID_DIGITS: usize = 8;
/// Nibbles of an IPv6 address.
const NIBBLES: usize = 32;

/// All names at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NameTable {
    /// `member.network`, without the zone.
    hosts: BTreeMap<String, Vec<IpAddr>>,
    networks: BTreeSet<String>,
    reverse: BTreeMap<IpAddr, String>,
    prefixes: Vec<IpNet>,
    ambiguous: Vec<String>,
}

/// What there is under a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'t> {
    /// Addresses; perhaps none of the family asked for.
    Host(&'t [IpAddr]),
    /// The name of an address.
    Pointer(&'t str),
    /// The zone itself.
    Apex,
    /// Something below it, but nothing under this very name.
    Empty,
    /// Nothing, and we know that.
    Nothing,
    /// Not ours to answer.
    Foreign,
}

impl NameTable {
    /// The names in the networks that are switched on, with the addresses that lead to their owners on this node.
    pub(crate) fn of(views: &[NetworkView], mesh: &Mesh, own: PeerId) -> Self {
        let views: Vec<&NetworkView> = views.iter().filter(|view| view.enabled).collect();
        let mut table = Self::default();
        for view in &views {
            let twice = views.iter().filter(|other| other.name == view.name).count() > 1;
            if twice && !table.ambiguous.contains(&view.name) {
                table.ambiguous.push(view.name.clone());
            }
            // With two networks of one name neither gets it: a newer one must not take over the names of an older one.
            let long = long_name(view);
            let mut labels = vec![long];
            if !twice {
                labels.insert(0, view.name.clone());
            }
            for member in view.members.iter().chain([&view.own]) {
                let leads = |address: &&IpAddr| {
                    if member.peer == own {
                        return mesh.own.contains(address);
                    }
                    mesh.peers.get(&member.peer).is_some_and(|peer| peer.addresses.contains(address))
                };
                let addresses: Vec<IpAddr> = member.addresses.iter().filter(leads).copied().collect();
                table.add(&labels, &member.name, &addresses);
            }
            table.prefixes.extend([IpNet::V6(view.prefix_v6), IpNet::V4(view.pool)]);
        }
        table
    }

    fn add(&mut self, networks: &[String], member: &str, addresses: &[IpAddr]) {
        for network in networks {
            let name = format!("{member}.{network}").to_ascii_lowercase();
            for address in addresses {
                self.reverse.entry(*address).or_insert_with(|| format!("{name}.{ZONE}"));
            }
            self.networks.insert(network.to_ascii_lowercase());
            self.hosts.insert(name, addresses.to_vec());
        }
    }

    /// Whether there is nothing to answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Whole names with their addresses, sorted.
    pub(crate) fn names(&self) -> Vec<(String, Vec<IpAddr>)> {
        self.hosts.iter().map(|(name, addresses)| (format!("{name}.{ZONE}"), addresses.clone())).collect()
    }

    /// Names that several networks have.
    pub(crate) fn ambiguous(&self) -> &[String] {
        &self.ambiguous
    }

    /// The zones that are asked for here: ours, and those of our addresses as far as they end between labels.
    pub(crate) fn zones(&self) -> Vec<String> {
        let reverse = self.prefixes.iter().filter_map(reverse_zone);
        let mut zones: Vec<String> = std::iter::once(ZONE.to_owned()).chain(reverse).collect();
        zones.sort();
        zones.dedup();
        zones
    }

    /// Looks a name up, given as labels from the left, in lower case.
    pub(super) fn look_up(&self, labels: &[&str]) -> Found<'_> {
        match labels {
            [below @ .., ZONE] => self.in_zone(below),
            [digits @ .., "in-addr", "arpa"] => self.address_v4(digits),
            [digits @ .., "ip6", "arpa"] => self.address_v6(digits),
            _ => Found::Foreign,
        }
    }

    fn in_zone(&self, below: &[&str]) -> Found<'_> {
        match below {
            [] => Found::Apex,
            [network] if self.networks.contains(*network) => Found::Empty,
            [member, network] => {
                self.hosts.get(&format!("{member}.{network}")).map_or(Found::Nothing, |all| Found::Host(all))
            }
            _ => Found::Nothing,
        }
    }

    fn address_v4(&self, digits: &[&str]) -> Found<'_> {
        let octet = |digits: &&str| digits.parse::<u8>().ok().filter(|octet| octet.to_string() == **digits);
        let Some(octets) = digits.iter().rev().map(octet).collect::<Option<Vec<u8>>>() else { return Found::Foreign };
        let mut all = [0; 4];
        let Some(known) = all.get_mut(..octets.len()) else { return Found::Foreign };
        known.copy_from_slice(&octets);
        let bits = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
        self.reverse_of(Ipv4Addr::from(all).into(), Ipv4Net::new(all.into(), bits).ok().map(IpNet::V4), bits == 32)
    }

    fn address_v6(&self, digits: &[&str]) -> Found<'_> {
        let nibble = |digit: &&str| match digit.as_bytes() {
            [byte] => char::from(*byte).to_digit(16),
            _ => None,
        };
        if digits.len() > NIBBLES {
            return Found::Foreign;
        }
        let mut value = 0_u128;
        for digit in digits.iter().rev() {
            let Some(nibble) = nibble(digit) else { return Found::Foreign };
            value = value << 4 | u128::from(nibble);
        }
        if !digits.is_empty() {
            value <<= 4 * (NIBBLES - digits.len());
        }
        let address = Ipv6Addr::from(value);
        let bits = u8::try_from(digits.len() * 4).unwrap_or(u8::MAX);
        self.reverse_of(address.into(), Ipv6Net::new(address, bits).ok().map(IpNet::V6), digits.len() == NIBBLES)
    }

    /// What is known of an address, or of a range that a part of one names.
    fn reverse_of(&self, address: IpAddr, range: Option<IpNet>, whole: bool) -> Found<'_> {
        let ours = range.is_some_and(|range| self.prefixes.iter().any(|prefix| prefix.contains(&range)));
        match self.reverse.get(&address).filter(|_| whole) {
            _ if !ours => Found::Foreign,
            Some(name) => Found::Pointer(name),
            None if whole => Found::Nothing,
            None => Found::Empty,
        }
    }
}

/// The name that no other network has.
fn long_name(view: &NetworkView) -> String {
    let id = view.id.to_string();
    let digits = id.get(..ID_DIGITS).unwrap_or(&id);
    let room = MAX_LABEL_LEN - ID_DIGITS - 1;
    format!("{}-{digits}", view.name.get(..room).unwrap_or(&view.name))
}

/// The reverse zone of a prefix that ends between labels.
fn reverse_zone(prefix: &IpNet) -> Option<String> {
    let labels: Vec<String> = match prefix {
        IpNet::V4(net) if net.prefix_len() % 8 == 0 => {
            net.addr().octets().iter().take(usize::from(net.prefix_len() / 8)).map(u8::to_string).collect()
        }
        IpNet::V6(net) if net.prefix_len() % 4 == 0 => {
            let nibbles = net.addr().octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            nibbles.take(usize::from(net.prefix_len() / 4)).map(|nibble| format!("{nibble:x}")).collect()
        }
        IpNet::V4(_) | IpNet::V6(_) => return None,
    };
    let top = if matches!(prefix, IpNet::V4(_)) { "in-addr.arpa" } else { "ip6.arpa" };
    let reversed: Vec<&str> = labels.iter().rev().map(String::as_str).chain([top]).collect();
    Some(reversed.join("."))
}

#[cfg(test)]
mod tests;
