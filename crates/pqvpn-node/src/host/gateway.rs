// SPDX-License-Identifier: MIT OR Apache-2.0
//! The router of this host's default route.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
};

use super::{
    HostError,
    kernel::{Kernel, MAIN_TABLE},
};

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
    let kernel = Kernel::open()?;
    let links = kernel.links().await?;
    let ours = |index: &u32| links.iter().any(|link| link.index == *index && Some(link.name.as_str()) == own_interface);
    let mut routes = kernel.routes().await?;
    routes.retain(|route| {
        route.table == MAIN_TABLE && route.prefix.prefix_len() == 0 && route.forwards && !route.out.iter().any(ours)
    });
    routes.sort_by_key(|route| route.metric);
    let router = routes.iter().find_map(|route| match route.gateway? {
        IpAddr::V4(router) => Some(router),
        IpAddr::V6(_) => None,
    });
    Ok(router.and_then(|router| {
        let own = source_towards(router).inspect_err(|error| tracing::debug!(%error, %router, "no way to the router"));
        Some(Gateway { router, own: own.ok()? })
    }))
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
