// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small internet: every host in a /8 of its own behind one router, with addresses that look public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Host, TopologyError, add_route, veth};
use crate::netns::Namespace;

/// Most hosts of one internet.
pub const MAX_HOSTS: u8 = 100;
/// First octet of the first host's address; 20 to 119 hold no reserved block (RFC 6890) but 100.64.0.0/10, not used here.
const FIRST: u8 = 20;

/// A router and its hosts; the namespaces vanish with this.
#[derive(Debug)]
pub struct Internet {
    /// Forwards between the hosts.
    pub router: Namespace,
    /// The hosts, each with a default route to the router.
    pub hosts: Vec<Host>,
}

/// Builds an internet of `count` hosts, at most [`MAX_HOSTS`].
///
/// # Errors
/// [`TopologyError`].
pub fn internet(count: u8) -> Result<Internet, TopologyError> {
    let router = Namespace::create("internet")?;
    router.sysctl("net.ipv4.ip_forward", "1")?;
    router.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    let hosts = (0..count.min(MAX_HOSTS)).map(|number| join(&router, number)).collect::<Result<_, _>>()?;
    Ok(Internet { router, hosts })
}

fn join(router: &Namespace, number: u8) -> Result<Host, TopologyError> {
    let namespace = Namespace::create(&format!("host{number}"))?;
    let (interface, port) = veth((&namespace, "eth0"), (router, &format!("port{number}")))?;
    let net = |last: u8| Ipv4Addr::new(FIRST + number, 7, 1, last);
    let net6 = |last: u16| Ipv6Addr::new(0x2a00 + u16::from(number), 7, 1, 0, 0, 0, 0, last);
    let (ipv4, ipv6) = (net(2), net6(2));
    for (side, v4, v6) in [(&interface, ipv4, ipv6), (&port, net(1), net6(1))] {
        side.add_address(IpNet::V4(Ipv4Net::new_assert(v4, 24)))?;
        side.add_address(IpNet::V6(Ipv6Net::new_assert(v6, 64)))?;
    }
    add_route(&namespace, IpNet::V4(Ipv4Net::default()), IpAddr::V4(net(1)))?;
    add_route(&namespace, IpNet::V6(Ipv6Net::default()), IpAddr::V6(net6(1)))?;
    Ok(Host { namespace, interface, ipv4, ipv6 })
}
