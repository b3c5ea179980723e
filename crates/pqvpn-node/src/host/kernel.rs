// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions and changes to the kernel, by netlink.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::{Stream, TryStreamExt as _};
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder,
    packet_core::Nla as _,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{
            AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo,
            LinkMessage,
        },
        neighbour::{NeighbourAddress, NeighbourAttribute},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};
use tokio::task::JoinHandle;

use pqvpn_dataplane::MARK;

use super::{Change, HostError, ROUTE_PROTOCOL};

// linux/if_link.h.
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;

/// Table all our routes are in.
pub(super) const MAIN_TABLE: u32 = 254;
/// Table of the host's own addresses.
pub(super) const LOCAL_TABLE: u32 = 255;

/// A netlink socket in the namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) handle: Handle,
    connection: JoinHandle<()>,
}

/// One interface.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) loopback: bool,
    /// It leads nowhere: a place for addresses.
    pub(super) dummy: bool,
    /// How the kernel makes link-local addresses; none: no IPv6 here.
    pub(super) link_local: Option<u8>,
    /// IPv6 is switched off on it.
    pub(super) ipv6_disabled: bool,
}

/// One address on an interface.
#[derive(Debug, Clone)]
pub(super) struct HostAddress {
    pub(super) index: u32,
    pub(super) address: IpAddr,
    /// The connected subnet it makes.
    pub(super) subnet: IpNet,
}

/// One route.
#[derive(Debug, Clone)]
pub(super) struct HostRoute {
    pub(super) prefix: IpNet,
    pub(super) table: u32,
    /// Output interfaces, several for a multipath route, none for a blackhole.
    pub(super) out: Vec<u32>,
    /// Whether packets for others take it (no broadcast, local or multicast entry).
    pub(super) forwards: bool,
    /// The router it goes to, if to one.
    pub(super) gateway: Option<IpAddr>,
    /// The lower, the rather it is taken.
    pub(super) metric: u32,
    /// The source packets of this host get on it.
    pub(super) source: Option<IpAddr>,
    /// Whether it bears our mark.
    pub(super) ours: bool,
}

impl Kernel {
    /// Opens a socket.
    pub(super) fn open() -> Result<Self, HostError> {
        let failed = |source| HostError::kernel("open a netlink socket".to_owned(), source);
        let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    pub(super) async fn links(&self) -> Result<Vec<Link>, HostError> {
        let messages = collect("list interfaces", self.handle.link().get().execute()).await?;
        Ok(messages.iter().map(link).collect())
    }

    /// The name interface `index` has now, if there is one.
    pub(super) async fn link_name(&self, index: u32) -> Result<Option<String>, HostError> {
        Ok(self.links().await?.into_iter().find(|link| link.index == index).map(|link| link.name))
    }

    /// The index of an interface by its name, if there is one.
    pub(super) async fn index_of(&self, name: &str) -> Result<Option<u32>, HostError> {
        Ok(self.links().await?.into_iter().find(|link| link.name == name).map(|link| link.index))
    }

    /// How many queues of TUN interface `index` are in use, and how many more are open; `None` where the kernel does not tell (before 4.16).
    pub(super) async fn tun_queues(&self, index: u32) -> Result<Option<(usize, usize)>, HostError> {
        let asked = self.handle.link().get().match_index(index).execute();
        let messages = collect("look at the interface", asked).await?;
        Ok(messages.iter().find_map(tun_queues))
    }

    pub(super) async fn addresses(&self) -> Result<Vec<HostAddress>, HostError> {
        let messages = collect("list addresses", self.handle.address().get().execute()).await?;
        Ok(messages.iter().filter_map(address).collect())
    }

    /// Routes of both families in all tables.
    pub(super) async fn routes(&self) -> Result<Vec<HostRoute>, HostError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let messages = collect("list routes", self.handle.route().get(request).execute()).await?;
            routes.extend(messages.iter().filter_map(route));
        }
        Ok(routes)
    }

    /// The interface by which packets from `source`, one of our addresses, leave for `to`.
    pub(super) async fn way_out(&self, source: IpAddr, to: IpAddr) -> Result<Option<u32>, HostError> {
        let part = |ip| match ip {
            IpAddr::V4(v4) => RouteAddress::Inet(v4),
            IpAddr::V6(v6) => RouteAddress::Inet6(v6),
        };
        let (family, bits) = if to.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        (request.header.destination_prefix_length, request.header.source_prefix_length) = (bits, bits);
        let (to, source) = (RouteAttribute::Destination(part(to)), RouteAttribute::Source(part(source)));
        request.attributes = vec![to, source, RouteAttribute::Mark(MARK)];
        let messages = collect("look up a route", self.handle.route().get(request).execute()).await?;
        let out = messages.iter().flat_map(|message| &message.attributes);
        Ok(out.filter_map(|attribute| if let RouteAttribute::Oif(out) = attribute { Some(*out) } else { None }).next())
    }

    /// The link-layer address of a neighbour on interface `index`, where it is known.
    pub(super) async fn neighbour(&self, index: u32, of: IpAddr) -> Result<Option<Vec<u8>>, HostError> {
        let messages = collect("list neighbours", self.handle.neighbours().get().execute()).await?;
        let of = match of {
            IpAddr::V4(of) => NeighbourAddress::Inet(of),
            IpAddr::V6(of) => NeighbourAddress::Inet6(of),
        };
        let is_it =
            |attribute: &NeighbourAttribute| matches!(attribute, NeighbourAttribute::Destination(at) if *at == of);
        let on_it = messages.iter().filter(|message| message.header.ifindex == index);
        let it = on_it.filter(|message| message.attributes.iter().any(is_it));
        Ok(it.flat_map(|message| &message.attributes).find_map(|attribute| {
            let NeighbourAttribute::LinkLayerAddress(address) = attribute else { return None };
            Some(address.clone()).filter(|address| address.iter().any(|byte| *byte != 0))
        }))
    }

    /// Makes a change on interface `index`.
    pub(super) async fn perform(&self, index: u32, change: &Change) -> Result<(), HostError> {
        let on = || LinkUnspec::new_with_index(index);
        let result = match change {
            Change::Device => Ok(()),
            Change::NoLinkLocal { .. } => self.change_link(link_local_message(index, In6AddrGenMode::None)).await,
            Change::Mtu { after, .. } => self.change_link(on().mtu(*after).build()).await,
            Change::Up => self.change_link(on().up().build()).await,
            Change::Address { net } => self.add_address(index, *net).await,
            // Replaced where one of ours has another source: at no moment there is no route, and packets in clear.
            Change::Route { net, source, before: None } => {
                self.handle.route().add(route_message(index, *net, *source)).execute().await
            }
            Change::Route { net, source, before: Some(_) } => {
                self.handle.route().add(route_message(index, *net, *source)).replace().execute().await
            }
        };
        result.map_err(|error| HostError::kernel(format!("set {}", change.describe("the interface")), os_error(error)))
    }

    /// Undoes a change; false when there was nothing to undo any more.
    pub(super) async fn revert(&self, index: u32, change: &Change) -> Result<bool, HostError> {
        let on = || LinkUnspec::new_with_index(index);
        let result = match change {
            Change::Device => self.handle.link().del(index).execute().await,
            Change::NoLinkLocal { before } => {
                self.change_link(link_local_message(index, In6AddrGenMode::from(*before))).await
            }
            Change::Mtu { before, after } => {
                let now = self.links().await?.into_iter().find(|link| link.index == index).map(|link| link.mtu);
                if now != Some(*after) {
                    return Ok(false);
                }
                self.change_link(on().mtu(*before).build()).await
            }
            Change::Up => self.change_link(on().down().build()).await,
            Change::Address { net } => self.handle.address().del(address_message(index, *net)).execute().await,
            Change::Route { net, .. } => self.handle.route().del(route_message(index, *net, None)).execute().await,
        };
        match result.map_err(os_error) {
            Ok(()) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(HostError::kernel(format!("undo {}", change.describe("the interface")), error)),
        }
    }

    async fn add_address(&self, index: u32, net: IpNet) -> Result<(), rtnetlink::Error> {
        let mut request = self.handle.address().add(index, net.addr(), net.prefix_len());
        *request.message_mut() = address_message(index, net);
        request.execute().await
    }

    async fn change_link(&self, message: LinkMessage) -> Result<(), rtnetlink::Error> {
        self.handle.link().change(message).execute().await
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

pub(super) async fn collect<T>(
    what: &str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, HostError> {
    stream.try_collect().await.map_err(|error| HostError::kernel(what.to_owned(), os_error(error)))
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        dummy: false,
        link_local: None,
        ipv6_disabled: false,
    };
    for attribute in &message.attributes {
        if let LinkAttribute::IfName(name) = attribute {
            link.name.clone_from(name);
        } else if let LinkAttribute::Mtu(mtu) = attribute {
            link.mtu = *mtu;
        } else if let LinkAttribute::LinkInfo(infos) = attribute {
            link.dummy = infos.contains(&LinkInfo::Kind(InfoKind::Dummy));
        } else if let LinkAttribute::AfSpecUnspec(families) = attribute {
            let inet6 = families.iter().filter_map(|family| {
                let AfSpecUnspec::Inet6(attributes) = family else { return None };
                Some(attributes)
            });
            for attribute in inet6.flatten() {
                if let AfSpecInet6::AddrGenMode(mode) = attribute {
                    link.link_local = Some(u8::from(mode));
                } else if let AfSpecInet6::DevConf(conf) = attribute {
                    link.ipv6_disabled = conf.disable_ipv6 != 0;
                }
            }
        }
    }
    link
}

fn address(message: &AddressMessage) -> Option<HostAddress> {
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            local = Some(*address);
        } else if let AddressAttribute::Address(address) = attribute {
            remote = Some(*address);
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end and makes the subnet (rtnetlink(7)).
    let address = local.or(remote)?;
    let subnet = IpNet::new(remote.unwrap_or(address), message.header.prefix_len).ok()?.trunc();
    Some(HostAddress { index: message.header.index, address, subnet })
}

fn route(message: &RouteMessage) -> Option<HostRoute> {
    let header = &message.header;
    let mut destination = if header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else if header.address_family == AddressFamily::Inet6 {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    } else {
        return None;
    };
    let (mut table, mut out, mut source) = (u32::from(header.table), Vec::new(), None);
    let (mut gateway, mut metric) = (None, 0);
    for attribute in &message.attributes {
        if let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute {
            destination = IpAddr::V4(*address);
        } else if let RouteAttribute::Destination(RouteAddress::Inet6(address)) = attribute {
            destination = IpAddr::V6(*address);
        } else if let RouteAttribute::PrefSource(RouteAddress::Inet(address)) = attribute {
            source = Some(IpAddr::V4(*address));
        } else if let RouteAttribute::PrefSource(RouteAddress::Inet6(address)) = attribute {
            source = Some(IpAddr::V6(*address));
        } else if let RouteAttribute::Gateway(RouteAddress::Inet(address)) = attribute {
            gateway = Some(IpAddr::V4(*address));
        } else if let RouteAttribute::Gateway(RouteAddress::Inet6(address)) = attribute {
            gateway = Some(IpAddr::V6(*address));
        } else if let RouteAttribute::Priority(number) = attribute {
            metric = *number;
        } else if let RouteAttribute::Table(number) = attribute {
            table = *number;
        } else if let RouteAttribute::Oif(index) = attribute {
            out.push(*index);
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            out.extend(hops.iter().map(|hop| hop.interface_index));
        }
    }
    let prefix = IpNet::new(destination, header.destination_prefix_length).ok()?;
    let inert = [RouteType::Local, RouteType::Broadcast, RouteType::Anycast, RouteType::Multicast];
    let ours = header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL);
    let forwards = !inert.contains(&header.kind);
    Some(HostRoute { prefix, table, out, forwards, gateway, metric, source, ours })
}

fn address_message(index: u32, net: IpNet) -> AddressMessage {
    let mut message = match net {
        IpNet::V4(net) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(net.addr(), net.prefix_len()).build()
        }
        IpNet::V6(net) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(net.addr(), net.prefix_len()).build()
        }
    };
    // Routes are ours to set and check; and nobody else can be on a TUN to detect as a duplicate.
    let mut flags = AddressFlags::Noprefixroute;
    if matches!(net, IpNet::V6(_)) {
        flags |= AddressFlags::Nodad;
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    message
}

fn route_message(index: u32, net: IpNet, source: Option<IpAddr>) -> RouteMessage {
    let mut message = match net {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .scope(RouteScope::Link)
            .output_interface(index)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(index)
            .build(),
    };
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.attributes.extend(source.map(|source| RouteAttribute::PrefSource(source.into())));
    message
}

fn tun_queues(message: &LinkMessage) -> Option<(usize, usize)> {
    let infos = message
        .attributes
        .iter()
        .find_map(|attribute| if let LinkAttribute::LinkInfo(infos) = attribute { Some(infos) } else { None })?;
    let tun =
        infos.iter().find_map(|info| if let LinkInfo::Data(InfoData::Tun(tun)) = info { Some(tun) } else { None })?;
    let number = |kind| {
        let attribute = tun.iter().find(|attribute| attribute.kind() == kind)?;
        let mut value = [0; 4];
        (attribute.value_len() == value.len()).then(|| attribute.emit_value(&mut value))?;
        usize::try_from(u32::from_ne_bytes(value)).ok()
    };
    Some((number(IFLA_TUN_NUM_QUEUES)?, number(IFLA_TUN_NUM_DISABLED_QUEUES)?))
}

fn link_local_message(index: u32, mode: In6AddrGenMode) -> LinkMessage {
    let families = vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)])];
    let builder: LinkMessageBuilder<LinkUnspec> = LinkUnspec::new_with_index(index);
    builder.append_extra_attribute(LinkAttribute::AfSpecUnspec(families)).build()
}

pub(super) fn os_error(error: rtnetlink::Error) -> io::Error {
    if let rtnetlink::Error::NetlinkError(message) = &error {
        return message.to_io();
    }
    io::Error::other(error)
}

/// Whether what was to be undone is not there any more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::ESRCH, Errno::EADDRNOTAVAIL, Errno::ENODEV, Errno::ENOENT];
    error.raw_os_error().is_some_and(|code| gone.contains(&Errno::from_raw(code)))
}
