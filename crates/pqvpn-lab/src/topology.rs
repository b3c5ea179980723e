// SPDX-License-Identifier: MIT OR Apache-2.0
//! What joins namespaces: veth pairs, switches, addresses, routes; all through netlink.
//!
//! Interfaces live in namespaces and vanish with them, so nothing here has to be undone.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::netns::{Namespace, NetnsError};

mod internet;
mod plan;

pub use internet::{Internet, MAX_HOSTS, internet};
pub use plan::{Host, lan, pair};

/// Why a network cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// The namespace itself.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel refused a netlink request.
    #[error("{what} in {namespace}: {error}")]
    Netlink {
        /// What was asked for.
        what: String,
        /// In which namespace.
        namespace: String,
        /// The kernel's answer.
        #[source]
        error: rtnetlink::Error,
    },
    /// No netlink socket or runtime for it.
    #[error("netlink in {namespace}: {error}")]
    Socket {
        /// In which namespace.
        namespace: String,
        /// The system's answer.
        #[source]
        error: std::io::Error,
    },
    /// An interface that should be there is not.
    #[error("no interface {name} in {namespace}")]
    NoInterface {
        /// Its name.
        name: String,
        /// In which namespace.
        namespace: String,
    },
    /// A gateway and a destination of different IP versions.
    #[error("route to {destination} via {gateway} mixes IP versions")]
    MixedRoute {
        /// Where the route leads.
        destination: IpNet,
        /// Through whom.
        gateway: IpAddr,
    },
}

/// One end of a veth pair.
#[derive(Debug, Clone)]
pub struct Interface {
    namespace: Namespace,
    name: String,
    index: u32,
}

/// Joins two namespaces by a veth pair, both ends up: `(namespace, interface name)` each.
///
/// # Errors
/// [`TopologyError`], e.g. a name already taken.
pub fn veth(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<(Interface, Interface), TopologyError> {
    let peer = LinkMessageBuilder::<LinkUnspec>::new().name(b.1).setns_by_fd(b.0.raw_fd()).build();
    // The name given to `new` as the peer's is replaced with the whole peer message.
    let message = LinkVeth::new(a.1, b.1).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
    request(a.0, &format!("veth {} to {} of {}", a.1, b.1, b.0.name()), move |netlink| async move {
        netlink.link().add(message).execute().await
    })?;
    let (a, b) = (Interface::find(a.0, a.1)?, Interface::find(b.0, b.1)?);
    a.up()?;
    b.up()?;
    Ok((a, b))
}

/// Adds a route in a namespace.
///
/// # Errors
/// [`TopologyError`], e.g. an unreachable gateway.
pub fn add_route(namespace: &Namespace, destination: IpNet, gateway: IpAddr) -> Result<(), TopologyError> {
    let message = route(destination, gateway)?;
    request(namespace, &format!("route {destination} via {gateway}"), move |netlink| async move {
        netlink.route().add(message).execute().await
    })
}

/// Takes a route away again.
///
/// # Errors
/// [`TopologyError`], e.g. no such route.
pub fn remove_route(namespace: &Namespace, destination: IpNet, gateway: IpAddr) -> Result<(), TopologyError> {
    let message = route(destination, gateway)?;
    request(namespace, &format!("remove route {destination} via {gateway}"), move |netlink| async move {
        netlink.route().del(message).execute().await
    })
}

fn route(destination: IpNet, gateway: IpAddr) -> Result<RouteMessage, TopologyError> {
    match (destination, gateway) {
        (IpNet::V4(net), IpAddr::V4(gateway)) => Ok(RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .gateway(gateway)
            .build()),
        (IpNet::V6(net), IpAddr::V6(gateway)) => Ok(RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .gateway(gateway)
            .build()),
        (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => {
            Err(TopologyError::MixedRoute { destination, gateway })
        }
    }
}

impl Interface {
    /// Finds an interface by name.
    ///
    /// # Errors
    /// [`TopologyError::NoInterface`].
    pub fn find(namespace: &Namespace, name: &str) -> Result<Self, TopologyError> {
        let link = get_link(namespace, name)?;
        Ok(Self { namespace: namespace.clone(), name: name.to_owned(), index: link.header.index })
    }

    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index in its namespace.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The namespace it lives in.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Brings the link up.
    ///
    /// # Errors
    /// [`TopologyError::Netlink`].
    pub fn up(&self) -> Result<(), TopologyError> {
        self.change("link up", LinkUnspec::new_with_index(self.index).up().build())
    }

    /// Takes the link down; the far end sees its carrier go.
    ///
    /// # Errors
    /// [`TopologyError::Netlink`].
    pub fn down(&self) -> Result<(), TopologyError> {
        self.change("link down", LinkUnspec::new_with_index(self.index).down().build())
    }

    /// Sets the MTU in bytes.
    ///
    /// # Errors
    /// [`TopologyError::Netlink`].
    pub fn set_mtu(&self, mtu: u32) -> Result<(), TopologyError> {
        self.change("mtu", LinkUnspec::new_with_index(self.index).mtu(mtu).build())
    }

    /// The MTU in bytes, as the kernel has it now.
    ///
    /// # Errors
    /// [`TopologyError`] when the interface is gone.
    pub fn mtu(&self) -> Result<u32, TopologyError> {
        let link = get_link(&self.namespace, &self.name)?;
        let mtu = link
            .attributes
            .iter()
            .find_map(|attribute| if let LinkAttribute::Mtu(mtu) = attribute { Some(*mtu) } else { None });
        mtu.ok_or_else(|| no_interface(&self.namespace, &self.name))
    }

    /// Adds an address with its on-link prefix; IPv6 addresses are usable at once (no duplicate detection).
    ///
    /// # Errors
    /// [`TopologyError::Netlink`].
    pub fn add_address(&self, address: IpNet) -> Result<(), TopologyError> {
        let index = self.index;
        self.request(&format!("address {address}"), move |netlink| async move {
            let mut request = netlink.address().add(index, address.addr(), address.prefix_len());
            if address.addr().is_ipv6() {
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            request.execute().await
        })
    }

    /// Removes an address added before.
    ///
    /// # Errors
    /// [`TopologyError::Netlink`].
    pub fn remove_address(&self, address: IpNet) -> Result<(), TopologyError> {
        let index = self.index;
        self.request(&format!("remove address {address}"), move |netlink| async move {
            let found = netlink
                .address()
                .get()
                .set_link_index_filter(index)
                .set_address_filter(address.addr())
                .set_prefix_length_filter(address.prefix_len())
                .execute()
                .try_collect::<Vec<_>>()
                .await?;
            for message in found {
                netlink.address().del(message).execute().await?;
            }
            Ok(())
        })
    }

    fn change(&self, what: &str, message: LinkMessage) -> Result<(), TopologyError> {
        self.request(what, move |netlink| async move { netlink.link().change(message).execute().await })
    }

    fn request<W>(&self, what: &str, work: impl FnOnce(Handle) -> W + Send + 'static) -> Result<(), TopologyError>
    where
        W: Future<Output = Result<(), rtnetlink::Error>>,
    {
        request(&self.namespace, &format!("{what} of {}", self.name), work)
    }
}

/// A namespace with a bridge, joining any number of hosts on one link.
#[derive(Debug)]
pub struct Switch {
    namespace: Namespace,
    bridge: u32,
    ports: usize,
}

impl Switch {
    /// Makes the namespace and the bridge in it.
    ///
    /// # Errors
    /// [`TopologyError`].
    pub fn create(name: &str) -> Result<Self, TopologyError> {
        let namespace = Namespace::create(name)?;
        request(&namespace, "bridge", |netlink| async move {
            netlink.link().add(LinkBridge::new("bridge").up().build()).execute().await
        })?;
        let bridge = Interface::find(&namespace, "bridge")?.index;
        Ok(Self { namespace, bridge, ports: 0 })
    }

    /// The switch's own namespace, for impairments that act on forwarded frames.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Plugs a host in; returns the host's end and the switch's port.
    ///
    /// # Errors
    /// [`TopologyError`].
    pub fn connect(&mut self, host: &Namespace, name: &str) -> Result<(Interface, Interface), TopologyError> {
        let port_name = format!("port{}", self.ports);
        let (end, port) = veth((host, name), (&self.namespace, &port_name))?;
        self.ports += 1;
        port.change("join the bridge", LinkUnspec::new_with_index(port.index).controller(self.bridge).build())?;
        Ok((end, port))
    }

    /// Takes over the port of another switch, with the cable and the host at its far end.
    ///
    /// # Errors
    /// [`TopologyError`].
    pub fn adopt(&mut self, port: &Interface) -> Result<Interface, TopologyError> {
        let name = format!("port{}", self.ports);
        let message = LinkUnspec::new_with_index(port.index).name(name.clone()).setns_by_fd(self.namespace.raw_fd());
        port.change("move to another switch", message.build())?;
        self.ports += 1;
        let moved = Interface::find(&self.namespace, &name)?;
        let controller = LinkUnspec::new_with_index(moved.index).controller(self.bridge).build();
        moved.change("join the bridge", controller)?;
        moved.up()?;
        Ok(moved)
    }
}

/// Brings the loopback interface up, which also gives it its addresses.
pub(crate) fn loopback_up(namespace: &Namespace) -> Result<(), TopologyError> {
    Interface::find(namespace, "lo")?.up()
}

fn get_link(namespace: &Namespace, name: &str) -> Result<LinkMessage, TopologyError> {
    let wanted = name.to_owned();
    let links = request(namespace, &format!("look up {name}"), move |netlink| async move {
        netlink.link().get().match_name(wanted).execute().try_collect::<Vec<_>>().await
    });
    match links {
        Ok(links) => links.into_iter().next().ok_or_else(|| no_interface(namespace, name)),
        Err(TopologyError::Netlink { .. }) => Err(no_interface(namespace, name)),
        Err(other) => Err(other),
    }
}

fn no_interface(namespace: &Namespace, name: &str) -> TopologyError {
    TopologyError::NoInterface { name: name.to_owned(), namespace: namespace.name().to_owned() }
}

/// Runs a netlink conversation on the namespace's thread.
fn request<R, W>(
    namespace: &Namespace,
    what: &str,
    work: impl FnOnce(Handle) -> W + Send + 'static,
) -> Result<R, TopologyError>
where
    R: Send + 'static,
    W: Future<Output = Result<R, rtnetlink::Error>>,
{
    let name = namespace.name().to_owned();
    let outcome = namespace.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            Ok::<_, std::io::Error>(work(handle).await)
        })
    })?;
    outcome
        .map_err(|error| TopologyError::Socket { namespace: name.clone(), error })?
        .map_err(|error| TopologyError::Netlink { what: what.to_owned(), namespace: name, error })
}

#[cfg(test)]
pub(crate) mod tests;
