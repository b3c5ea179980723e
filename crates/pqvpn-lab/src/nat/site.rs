// SPDX-License-Identifier: MIT OR Apache-2.0
//! A place with hosts on a LAN behind one router, or behind two.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{Kind, LAN, NatError, Options, WAN, ruleset};
use crate::impair::{self, ImpairError};
use crate::netns::Namespace;
use crate::topology::{Host, Interface, Switch, add_route, veth};

/// The range nearly every home has, so two homes have the same.
const HOME: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 0), 24);
/// Between a provider's translation and its customer (RFC 6598).
const SHARED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 7, 0), 24);

/// A router that translates.
#[derive(Debug)]
pub struct Router {
    /// Where its rules are.
    pub namespace: Namespace,
    /// Its address outside.
    pub wan: Ipv4Addr,
    kind: Kind,
}

impl Router {
    /// Makes a router of a namespace whose `eth0` is the outside with the address `wan`.
    fn set_up(
        namespace: &Namespace,
        kind: Kind,
        (wan, lan): (Ipv4Addr, Ipv4Net),
        options: &Options,
    ) -> Result<Self, NatError> {
        namespace.sysctl("net.ipv4.ip_forward", "1")?;
        impair::nft(namespace, &ruleset(kind, wan, lan, options)?)?;
        if let Some((unanswered, answered)) = options.udp_timeout_s {
            namespace.sysctl("net.netfilter.nf_conntrack_udp_timeout", &unanswered.to_string())?;
            namespace.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", &answered.to_string())?;
        }
        Ok(Self { namespace: namespace.clone(), wan, kind })
    }

    /// Forgets every flow and mapping, as a restart would.
    ///
    /// # Errors
    /// [`ImpairError`].
    pub fn forget(&self) -> Result<(), ImpairError> {
        if self.kind.has_map() {
            impair::nft(&self.namespace, "flush map ip nat cone\n")?;
        }
        if self.kind == Kind::AddressRestricted {
            impair::nft(&self.namespace, "flush set ip filter seen\n")?;
        }
        impair::forget_flows(&self.namespace)
    }
}

/// Hosts on a LAN and the routers between it and the outside, the outermost first.
#[derive(Debug)]
pub struct Site {
    /// One router, or two for [`Kind::Double`].
    pub routers: Vec<Router>,
    lan: Switch,
    /// Last octet of the next host.
    next: u8,
}

impl Site {
    /// Turns a host of the internet into the router of a new LAN. Hosts get addresses from `first` on, of which two
    /// sites may want different ones: their ranges are the same.
    ///
    /// # Errors
    /// [`NatError`].
    pub fn behind(gateway: &Host, kind: Kind, options: &Options, first: u8) -> Result<Self, NatError> {
        let mut lan = Switch::create("lan")?;
        let mut routers = Vec::new();
        let innermost = if kind == Kind::Double {
            routers.push(carrier(gateway, options)?);
            customer(&gateway.namespace)?
        } else {
            (gateway.namespace.clone(), gateway.ipv4)
        };
        let (port, _) = lan.connect(&innermost.0, LAN)?;
        port.add_address(IpNet::V4(Ipv4Net::new_assert(host(HOME, 1), HOME.prefix_len())))?;
        routers.push(Router::set_up(&innermost.0, kind, (innermost.1, HOME), options)?);
        Ok(Self { routers, lan, next: first })
    }

    /// Its address as the internet sees it.
    #[must_use]
    pub fn outside(&self) -> Ipv4Addr {
        self.routers.first().map_or(Ipv4Addr::UNSPECIFIED, |router| router.wan)
    }

    /// A new host on the LAN, with a default route and no global IPv6 address.
    ///
    /// # Errors
    /// [`NatError`].
    pub fn host(&mut self, name: &str) -> Result<Host, NatError> {
        Ok(self.plug(name)?.0)
    }

    /// The same, with the far end of its cable.
    ///
    /// # Errors
    /// [`NatError`].
    pub fn plug(&mut self, name: &str) -> Result<(Host, Interface), NatError> {
        let namespace = Namespace::create(name)?;
        let (interface, port) = self.lan.connect(&namespace, "eth0")?;
        Ok((self.address(namespace, interface)?, port))
    }

    /// Pulls the cable of a host's `eth0` out of where it is and plugs it in here; `port` is its far end there. Gives
    /// the host under its new address and the new far end.
    ///
    /// # Errors
    /// [`NatError`].
    pub fn adopt(&mut self, host: &Host, port: &Interface) -> Result<(Host, Interface), NatError> {
        host.interface.remove_address(IpNet::V4(Ipv4Net::new_assert(host.ipv4, HOME.prefix_len())))?;
        let port = self.lan.adopt(port)?;
        Ok((self.address(host.namespace.clone(), host.interface.clone())?, port))
    }

    /// A free address of the LAN.
    pub fn free(&mut self) -> IpNet {
        let address = host(HOME, self.next);
        self.next += 1;
        IpNet::V4(Ipv4Net::new_assert(address, HOME.prefix_len()))
    }

    /// The LAN's address of the router.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        host(HOME, 1).into()
    }

    /// Forgets every flow and mapping of all routers.
    ///
    /// # Errors
    /// [`ImpairError`].
    pub fn forget(&self) -> Result<(), ImpairError> {
        self.routers.iter().try_for_each(Router::forget)
    }

    fn address(&mut self, namespace: Namespace, interface: Interface) -> Result<Host, NatError> {
        let address = self.free();
        interface.add_address(address)?;
        add_route(&namespace, IpNet::V4(Ipv4Net::default()), self.gateway())?;
        let IpAddr::V4(ipv4) = address.addr() else { unreachable!("the LAN has IPv4 addresses") };
        Ok(Host { namespace, interface, ipv4, ipv6: Ipv6Addr::UNSPECIFIED })
    }
}

/// The provider's side of a double translation.
fn carrier(gateway: &Host, options: &Options) -> Result<Router, NatError> {
    Router::set_up(&gateway.namespace, Kind::Home, (gateway.ipv4, SHARED), options)
}

/// The router that the provider's customer has, and its address towards the provider.
fn customer(carrier: &Namespace) -> Result<(Namespace, Ipv4Addr), NatError> {
    let namespace = Namespace::create("customer")?;
    let (outside, inside) = veth((&namespace, WAN), (carrier, LAN))?;
    for (interface, last) in [(&inside, 1), (&outside, 2)] {
        interface.add_address(IpNet::V4(Ipv4Net::new_assert(host(SHARED, last), SHARED.prefix_len())))?;
    }
    add_route(&namespace, IpNet::V4(Ipv4Net::default()), host(SHARED, 1).into())?;
    Ok((namespace, host(SHARED, 2)))
}

/// An address of a /24 by its last octet.
fn host(net: Ipv4Net, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = net.network().octets();
    Ipv4Addr::new(a, b, c, last)
}
