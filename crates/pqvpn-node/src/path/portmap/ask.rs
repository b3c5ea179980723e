// SPDX-License-Identifier: MIT OR Apache-2.0
//! Asking a router to let the port through: PCP, NAT-PMP and UPnP, one after the other.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    num::NonZeroU16,
    time::Duration,
};

use crab_nat::{InternetProtocol, PortMapping, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp};
use igd_next::{
    AddPortError, PortMappingProtocol, SearchOptions,
    aio::{Gateway as Igd, tokio::Tokio},
};
use pqvpn_dht::address::{Class, Why, class};
use thiserror::Error;
use tokio::time::timeout;

use crate::{entropy, host::Gateway, netcheck::MappingProtocol};

/// How long the router is asked to remember.
const LIFETIME: Duration = Duration::from_secs(1200);
/// PCP and NAT-PMP: three tries in 1.75 s. A router is near, and who answers later answers the next time.
const TRIES: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: Some(Duration::from_secs(1)),
};
/// How long the router's UPnP device is looked for: asked alone, then everybody on the wire.
const SEARCH: [Duration; 2] = [Duration::from_millis(1500), Duration::from_secs(3)];
/// How long one action of UPnP may take.
const ACTION: Duration = Duration::from_secs(3);
/// Where UPnP devices listen, alone and together.
const SSDP_PORT: u16 = 1900;
const SSDP_GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
/// What the router's own pages call the mapping.
const DESCRIPTION: &str = "pqvpn";

/// What a router agreed to.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) external: SocketAddr,
    pub(super) lifetime: Duration,
    /// Whether the outside address is of use to everybody.
    pub(super) public: bool,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    /// PCP or NAT-PMP.
    Small(PortMapping),
    Upnp(Box<Igd<Tokio>>),
}

/// Why there is no mapping.
#[derive(Debug, Error)]
pub(super) enum AskError {
    /// The router said no, or nothing.
    #[error("{protocol}: {why}", protocol = .protocol.name())]
    Failed { protocol: MappingProtocol, why: String },
    /// The router names an outside address that it cannot have.
    #[error("{protocol}: the router says that its outside is {external}: {lie}", protocol = .protocol.name())]
    Lied { protocol: MappingProtocol, external: SocketAddr, lie: Lie },
    /// Something else than the router answered.
    #[error("UPnP: {0} answered, which is not the router")]
    Stranger(IpAddr),
}

/// Why an address is not the outside of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Lie {
    /// Nobody can be dialled there.
    #[error("nobody is there ({0})")]
    Nowhere(Why),
    /// It is an address of the inside.
    #[error("that is an address of the inside")]
    Inside,
    /// It is not of the family that was asked for.
    #[error("that is no IPv4 address")]
    Family,
}

impl Granted {
    pub(super) fn protocol(&self) -> MappingProtocol {
        match &self.how {
            How::Upnp(_) => MappingProtocol::Upnp,
            How::Small(mapping) => match mapping.mapping_type() {
                PortMappingType::NatPmp => MappingProtocol::NatPmp,
                PortMappingType::Pcp { .. } => MappingProtocol::Pcp,
            },
        }
    }

    /// Tells the router to forget it.
    pub(super) async fn give_back(self, gateway: Gateway) {
        let failed: Option<String> = match self.how {
            How::Small(mapping) => mapping.try_drop().await.err().map(|(error, _)| error.to_string()),
            How::Upnp(igd) => {
                let removed = timeout(ACTION, igd.remove_port(PortMappingProtocol::UDP, self.external.port())).await;
                removed.map_or_else(|late| Some(late.to_string()), |done| done.err().map(|error| error.to_string()))
            }
        };
        match failed {
            None => tracing::debug!(router = %gateway.router, external = %self.external, "port mapping given back"),
            Some(error) => tracing::debug!(%error, router = %gateway.router, "port mapping not given back"),
        }
    }
}

/// Whether an outside address that a router names can be one, and whether it is of use to everybody.
pub(super) fn judge(gateway: Gateway, external: SocketAddr) -> Result<bool, Lie> {
    let IpAddr::V4(outside) = external.ip().to_canonical() else { return Err(Lie::Family) };
    if outside == gateway.router || outside == gateway.own {
        return Err(Lie::Inside);
    }
    match class(&SocketAddr::from((outside, external.port()))) {
        Class::Public => Ok(true),
        Class::Private => Ok(false),
        Class::Refused(why) => Err(Lie::Nowhere(why)),
    }
}

/// Asks the router to forward to `port`, and says what went wrong on the way. `before`: what it agreed to last time.
pub(super) async fn ask(
    gateway: Gateway,
    port: NonZeroU16,
    before: Option<Granted>,
    wrong: &mut Vec<AskError>,
) -> Option<Granted> {
    if let Some(before) = before {
        match renew(gateway, port, before).await {
            Ok(granted) => return Some(granted),
            Err(error) => wrong.push(error),
        }
    }
    match by_pcp(gateway, port).await {
        Ok(granted) => return Some(granted),
        Err(error) => wrong.push(error),
    }
    match by_nat_pmp(gateway, port).await {
        Ok(granted) => return Some(granted),
        Err(error) => wrong.push(error),
    }
    match by_upnp(gateway, port).await {
        Ok(granted) => return Some(granted),
        Err(error) => wrong.push(error),
    }
    None
}

async fn renew(gateway: Gateway, port: NonZeroU16, before: Granted) -> Result<Granted, AskError> {
    let (protocol, external) = (before.protocol(), before.external);
    match before.how {
        How::Small(mut mapping) => {
            mapping.renew().await.map_err(|error| failed(protocol, &error))?;
            small(gateway, mapping).await
        }
        How::Upnp(igd) => forward(gateway, igd, port, NonZeroU16::new(external.port()).unwrap_or(port)).await,
    }
}

async fn by_pcp(gateway: Gateway, port: NonZeroU16) -> Result<Granted, AskError> {
    let request = pcp::BaseMapRequest::new(gateway.router.into(), gateway.own.into(), InternetProtocol::Udp, port);
    let [a, b, c, d, ..] = entropy::u64().to_be_bytes().map(u32::from);
    let more = entropy::u64();
    let (high, low) = ((more >> 32) as u32, (more & u64::from(u32::MAX)) as u32);
    let nonce = [high, low, a << 24 | b << 16 | c << 8 | d];
    let mapping = pcp::port_mapping(request, Some(nonce), None, options(port)).await;
    small(gateway, mapping.map_err(|error| failed(MappingProtocol::Pcp, &error))?).await
}

async fn by_nat_pmp(gateway: Gateway, port: NonZeroU16) -> Result<Granted, AskError> {
    let mapping = natpmp::port_mapping(gateway.router.into(), InternetProtocol::Udp, port, options(port)).await;
    small(gateway, mapping.map_err(|error| failed(MappingProtocol::NatPmp, &error))?).await
}

/// A mapping by PCP or NAT-PMP, whose outside address the second has to be asked for.
async fn small(gateway: Gateway, mapping: PortMapping) -> Result<Granted, AskError> {
    let outside = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => Ok(external_ip.to_canonical()),
        PortMappingType::NatPmp => natpmp::external_address(gateway.router.into(), Some(TRIES))
            .await
            .map(IpAddr::V4)
            .map_err(|error| failed(MappingProtocol::NatPmp, &error)),
    };
    let (port, lifetime) = (mapping.external_port().get(), Duration::from_secs(mapping.lifetime().into()));
    grant(gateway, outside.map(|ip| SocketAddr::new(ip, port)), lifetime, How::Small(mapping)).await
}

async fn by_upnp(gateway: Gateway, port: NonZeroU16) -> Result<Granted, AskError> {
    let mut igd = search(gateway, SocketAddr::from((gateway.router, SSDP_PORT)), SEARCH[0]).await;
    if igd.is_err() {
        igd = search(gateway, SocketAddr::from((SSDP_GROUP, SSDP_PORT)), SEARCH[1]).await;
    }
    forward(gateway, Box::new(igd?), port, port).await
}

/// Looks for the router's UPnP device. Whoever else answers is nobody to open ports for us.
async fn search(gateway: Gateway, at: SocketAddr, limit: Duration) -> Result<Igd<Tokio>, AskError> {
    let mut options = SearchOptions::default();
    options.bind_addr = SocketAddr::from((gateway.own, 0));
    options.broadcast_address = at;
    options.timeout = Some(limit);
    let found = igd_next::aio::tokio::search_gateway(options).await;
    let igd = found.map_err(|error| failed(MappingProtocol::Upnp, &error))?;
    if is_router(gateway, igd.addr) { Ok(igd) } else { Err(AskError::Stranger(igd.addr.ip())) }
}

fn is_router(gateway: Gateway, at: SocketAddr) -> bool {
    at.ip() == IpAddr::V4(gateway.router)
}

/// Has the port forwarded by UPnP, under the same number outside if that is free.
async fn forward(
    gateway: Gateway,
    igd: Box<Igd<Tokio>>,
    port: NonZeroU16,
    wanted: NonZeroU16,
) -> Result<Granted, AskError> {
    let own = SocketAddr::V4(SocketAddrV4::new(gateway.own, port.get()));
    let late = |_| AskError::Failed { protocol: MappingProtocol::Upnp, why: "no answer in time".to_owned() };
    let wrong = |error: &dyn Error| failed(MappingProtocol::Upnp, error);
    let seconds = u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX);
    let add = |external: u16, seconds| {
        timeout(ACTION, igd.add_port(PortMappingProtocol::UDP, external, own, seconds, DESCRIPTION))
    };
    let external = match add(wanted.get(), seconds).await.map_err(late)? {
        Ok(()) => wanted.get(),
        Err(AddPortError::OnlyPermanentLeasesSupported) => {
            add(wanted.get(), 0).await.map_err(late)?.map_err(|error| wrong(&error))?;
            wanted.get()
        }
        Err(AddPortError::PortInUse) => {
            let any = igd.add_any_port(PortMappingProtocol::UDP, own, seconds, DESCRIPTION);
            timeout(ACTION, any).await.map_err(late)?.map_err(|error| wrong(&error))?
        }
        Err(error) => return Err(wrong(&error)),
    };
    let outside = match timeout(ACTION, igd.get_external_ip()).await {
        Ok(Ok(ip)) => Ok(SocketAddr::new(ip, external)),
        Ok(Err(error)) => Err(wrong(&error)),
        Err(elapsed) => Err(late(elapsed)),
    };
    let how = How::Upnp(igd);
    match outside {
        Ok(_) => grant(gateway, outside, LIFETIME, how).await,
        Err(error) => {
            // Nobody knows where it leads, so it is closed again.
            let at = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), external);
            Granted { external: at, lifetime: LIFETIME, public: false, how }.give_back(gateway).await;
            Err(error)
        }
    }
}

/// What the router agreed to, if its outside address is believable; else it is given back.
async fn grant(
    gateway: Gateway,
    outside: Result<SocketAddr, AskError>,
    lifetime: Duration,
    how: How,
) -> Result<Granted, AskError> {
    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut granted = Granted { external: unknown, lifetime, public: false, how };
    let error = match outside {
        Err(error) => error,
        Ok(external) => {
            granted.external = SocketAddr::new(external.ip().to_canonical(), external.port());
            match judge(gateway, external) {
                Ok(public) => return Ok(Granted { public, ..granted }),
                Err(lie) => AskError::Lied { protocol: granted.protocol(), external, lie },
            }
        }
    };
    granted.give_back(gateway).await;
    Err(error)
}

const fn options(port: NonZeroU16) -> PortMappingOptions {
    PortMappingOptions {
        external_port: Some(port),
        #[expect(clippy::cast_possible_truncation, reason = "1200")]
        lifetime_seconds: Some(LIFETIME.as_secs() as u32),
        timeout_config: Some(TRIES),
    }
}

fn failed(protocol: MappingProtocol, error: &dyn Error) -> AskError {
    AskError::Failed { protocol, why: error.to_string() }
}

#[cfg(test)]
mod tests;
