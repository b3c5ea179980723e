// SPDX-License-Identifier: MIT OR Apache-2.0
//! The router of this host's default route.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    time::Duration,
};

use ipnet::IpNet;
use tokio::time::sleep;

use super::{
    HostError,
    kernel::{HostRoute, Kernel, MAIN_TABLE},
};

/// How long a router that is not among the neighbours yet is waited for, and how often.
const ASKED: Duration = Duration::from_millis(50);
const ASKED_TIMES: usize = 5;

/// The router packets to everybody go to, and the address this host has towards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) router: Ipv4Addr,
    pub(crate) own: Ipv4Addr,
}

/// The IPv4 default gateway, but for one behind `own_interface`; none: no default route, or one without a router.
///
/// # Errors
/// The kernel did not answer.
pub(crate) async fn default_gateway(own_interface: Option<&str>) -> Result<Option<Gateway>, HostError> {
    let routes = default_routes(&Kernel::open()?, own_interface).await?;
    let router = routes.iter().find_map(|route| match route.gateway? {
        IpAddr::V4(router) => Some(router),
        IpAddr::V6(_) => None,
    });
    Ok(router.and_then(|router| {
        let own = source_towards(router).inspect_err(|error| tracing::debug!(%error, %router, "no way to the router"));
        Some(Gateway { router, own: own.ok()? })
    }))
}

/// What tells the network this host is in from others, without asking anybody but the host itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surroundings {
    pub(crate) router: IpAddr,
    /// The router's own number on the link, which no other router has: many have the same address.
    pub(crate) router_mac: Option<Vec<u8>>,
    /// The subnet that we are in there.
    pub(crate) subnet: Option<IpNet>,
}

/// The network of the default route, IPv4 first, but for one behind `own_interface`; none: no router.
///
/// # Errors
/// The kernel did not answer.
pub(crate) async fn surroundings(own_interface: Option<&str>) -> Result<Option<Surroundings>, HostError> {
    let kernel = Kernel::open()?;
    let routes = default_routes(&kernel, own_interface).await?;
    let by_family = |v4: bool| {
        let of_it = routes.iter().filter(move |route| route.prefix.addr().is_ipv4() == v4);
        of_it.filter_map(|route| Some((route.gateway?, *route.out.first()?))).next()
    };
    let Some((router, link)) = by_family(true).or_else(|| by_family(false)) else { return Ok(None) };
    let addresses = kernel.addresses().await?;
    let mine = addresses.iter().filter(|own| own.index == link && own.address.is_ipv4() == router.is_ipv4());
    let mine: Vec<IpNet> = mine.map(|own| own.subnet).filter(|subnet| !is_link_local(subnet.addr())).collect();
    let subnet = mine.iter().find(|subnet| subnet.contains(&router)).or(mine.first()).copied();
    let router_mac = router_mac(&kernel, link, router).await?;
    Ok(Some(Surroundings { router, router_mac, subnet }))
}

async fn router_mac(kernel: &Kernel, link: u32, router: IpAddr) -> Result<Option<Vec<u8>>, HostError> {
    for turn in 0..ASKED_TIMES {
        let known = kernel.neighbour(link, router).await?;
        if known.is_some() {
            return Ok(known);
        }
        if turn == 0 {
            ask_for(router);
        }
        sleep(ASKED).await;
    }
    Ok(None)
}

/// Has the kernel ask who has the router's address, by something for it to throw away (RFC 863).
fn ask_for(router: IpAddr) {
    let IpAddr::V4(router) = router else { return };
    let sent = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| socket.send_to(&[], (router, 9)));
    sent.inspect_err(|error| tracing::trace!(%error, "the router is not asked for")).ok();
}

const fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The default routes of both families, the preferred one first, but for those behind `own_interface`.
async fn default_routes(kernel: &Kernel, own_interface: Option<&str>) -> Result<Vec<HostRoute>, HostError> {
    let links = kernel.links().await?;
    let ours = |index: &u32| links.iter().any(|link| link.index == *index && Some(link.name.as_str()) == own_interface);
    let mut routes = kernel.routes().await?;
    routes.retain(|route| {
        route.table == MAIN_TABLE && route.prefix.prefix_len() == 0 && route.forwards && !route.out.iter().any(ours)
    });
    routes.sort_by_key(|route| route.metric);
    Ok(routes)
}

/// The source address packets to the router get; connecting a UDP socket sends nothing.
fn source_towards(router: Ipv4Addr) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((router, 9))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(own) => Ok(own),
        IpAddr::V6(_) => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::RouteMessageBuilder;

    use super::{super::tests::netns::*, *};

    #[test]
    fn a_network_is_told_by_its_router_and_our_subnet_without_asking_anybody_else() {
        in_namespace(async |net| {
            assert_eq!(surroundings(None).await.unwrap(), None, "no router");
            let index = net.index(LAN).await.unwrap();
            for (router, mac) in [("192.168.7.1", Some([2, 0, 0, 0, 0, 7])), ("192.168.7.3", None)] {
                let router: Ipv4Addr = router.parse().unwrap();
                if let Some(mac) = mac {
                    let neighbours = net.handle.neighbours().add(index, router.into());
                    neighbours.link_layer_address(&mac).execute().await.unwrap();
                }
                let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(router).output_interface(index).build();
                net.handle.route().add(route.clone()).execute().await.unwrap();
                let subnet = Some("192.168.7.0/24".parse().unwrap());
                let router_mac = mac.map(|mac| mac.to_vec());
                let expected = Surroundings { router: router.into(), router_mac, subnet };
                assert_eq!(surroundings(None).await.unwrap(), Some(expected), "a router that is silent has no number");
                assert_eq!(surroundings(Some(LAN)).await.unwrap(), None, "our own interface leads to no network");
                net.handle.route().del(route).execute().await.unwrap();
            }
        });
    }
}
