// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ready-made networks: two hosts on a wire, several on a switch, with documentation addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Interface, Switch, TopologyError, veth};
use crate::netns::Namespace;

/// Most hosts of one ready-made network; their addresses end in 1..=253.
const MAX_HOSTS: usize = 253;

/// A namespace with one underlay interface, named `eth0`.
#[derive(Debug, Clone)]
pub struct Host {
    /// The host itself.
    pub namespace: Namespace,
    /// Its interface on the underlay.
    pub interface: Interface,
    /// Its underlay address in 203.0.113.0/24 (RFC 5737).
    pub ipv4: Ipv4Addr,
    /// Its underlay address in 2001:db8:113::/64 (RFC 3849).
    pub ipv6: Ipv6Addr,
}

impl Host {
    /// The host's addresses, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4.into(), self.ipv6.into()]
    }

    /// Gives the `number`-th host (from 1) of a network its addresses.
    fn number(namespace: Namespace, interface: Interface, number: u8) -> Result<Self, TopologyError> {
        let ipv4 = Ipv4Addr::new(203, 0, 113, number);
        let ipv6 = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, u16::from(number));
        let (v4, v6) = (Ipv4Net::new_assert(ipv4, 24), Ipv6Net::new_assert(ipv6, 64));
        interface.add_address(IpNet::V4(v4))?;
        interface.add_address(IpNet::V6(v6))?;
        Ok(Self { namespace, interface, ipv4, ipv6 })
    }
}

/// Two hosts joined by one veth pair.
///
/// # Errors
/// [`TopologyError`].
pub fn pair(a: &str, b: &str) -> Result<(Host, Host), TopologyError> {
    let (one, two) = (Namespace::create(a)?, Namespace::create(b)?);
    let (left, right) = veth((&one, "eth0"), (&two, "eth0"))?;
    Ok((Host::number(one, left, 1)?, Host::number(two, right, 2)?))
}

/// Hosts on one switch, in the order of `names`; at most 253.
///
/// # Errors
/// [`TopologyError`].
pub fn lan(names: &[&str]) -> Result<(Switch, Vec<Host>), TopologyError> {
    let mut switch = Switch::create("switch")?;
    let hosts = (1..).zip(names.iter().take(MAX_HOSTS)).map(|(number, name)| {
        let namespace = Namespace::create(name)?;
        let (interface, _) = switch.connect(&namespace, "eth0")?;
        Host::number(namespace, interface, number)
    });
    let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
    Ok((switch, hosts))
}
