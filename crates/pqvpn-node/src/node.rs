// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting a node together: sockets, interface, packet threads, host changes, link endpoint, state task.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use pqvpn_crypto::{
    identity::Identity,
    tls::{Admission, LinkCrypto},
};
use pqvpn_dataplane::{
    Control, DataPlane, DataPlaneConfig, DataPlaneError, Event, EventSink, KernelTun, TunError, TunReader, TunWriter,
};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use crate::{
    carrier::{CarrierListen, Carriers, Ways},
    config::{Config, Mtu, Queues, Rate, RelayConfig},
    events::{Overflow, leave},
    handle::NodeHandle,
    host::{self, HostError, HostSide},
    link::{Backend, Endpoint, GateConfig, GuestSocket, LinkConfig, LinkError, TransportKnobs},
    membership::{self, MembershipError, Willing},
    memory,
    session::Slots,
    snapshot::NodeState,
    state::Views,
    underlay::bind_all,
};
pub(crate) use ground::Ground;

/// Inner MTU on a path of 1500 bytes over IPv6: 40 + 8 outer, 32 tunnel (security.md 1.5).
const INNER_MTU: u16 = 1420;
/// What a relay without a limit forwards, in bytes a second: more than any machine can.
const RELAY_RATE: u64 = 100_000_000_000 / 8;
/// Commands and events that may wait for the state task.
const QUEUE: usize = 1024;
/// Views of the networks that may wait for the state task; each is whole.
const VIEWS: usize = 16;

/// A queue of the interface: its reading and its writing half.
pub type TunQueue = (Box<dyn TunReader>, Box<dyn TunWriter>);

/// Where the packets of the overlay come from and go to.
pub enum Interface {
    /// The kernel's TUN device named in the config; addresses and routes are set on the host.
    Kernel,
    /// Queues made by the caller; the host is left alone.
    Given(Vec<TunQueue>),
}

/// What a node is started with.
pub struct StartOptions {
    /// The checked configuration.
    pub config: Config,
    /// Who this node is.
    pub identity: Identity,
    /// Where the journal of host changes lives.
    pub state_dir: PathBuf,
    /// Where networks, and what is known of the DHT and of carriers, are kept instead, by who leaves nothing behind.
    pub kept_in: Option<PathBuf>,
    /// Where overlay packets come from.
    pub interface: Interface,
    /// Which QUIC implementation carries the links.
    pub backend: Backend,
}

/// Why a node did not start; nothing is left half-set.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A listen address is taken.
    #[error("{0} is in use by another program")]
    PortTaken(SocketAddr),
    /// A listen address cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// No listen address could be bound.
    #[error("no UDP socket could be opened")]
    NoSocket,
    /// The interface could not be made.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The packet threads did not start.
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    /// The host refused an address, a route or a link change.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The link endpoint did not start.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The networks of this node could not be read.
    #[error(transparent)]
    Networks(#[from] MembershipError),
    /// The runtime refused a resource.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Starts a node on the current tokio runtime; the task ends after [`NodeHandle::shutdown`].
    ///
    /// # Errors
    /// [`StartError`]; everything done until then has been undone.
    pub async fn start(options: StartOptions) -> Result<(NodeHandle, JoinHandle<()>), StartError> {
        Self::start_parts(options, NodeState::Up).await.map(|(handle, _networks, task)| (handle, task))
    }

    /// As [`Self::start`], with the door to the node's networks; one that begins as [`NodeState::Down`] stays so until it
    /// is told to be up.
    pub(crate) async fn start_parts(
        options: StartOptions,
        begin: NodeState,
    ) -> Result<(NodeHandle, membership::Port, JoinHandle<()>), StartError> {
        pqvpn_dataplane::give_back_large_blocks();
        let (sender, views) = mpsc::channel(VIEWS);
        Self::start_with(options, begin, Some(sender), views).await
    }

    /// Starts a node whose networks are what `views` says; `driver`: where its own networks report to.
    pub(crate) async fn start_with(
        options: StartOptions,
        begin: NodeState,
        driver: Option<mpsc::Sender<Views>>,
        views: mpsc::Receiver<Views>,
    ) -> Result<(NodeHandle, membership::Port, JoinHandle<()>), StartError> {
        let StartOptions { config, identity, state_dir, kept_in, interface, backend } = options;
        let kept_in = kept_in.unwrap_or_else(|| state_dir.clone());
        let mut standing = Vec::new();
        let queues = queue_count(&interface, config.interface.queues);
        let (sockets, listen) = bind_all(&config.node.listen, queues, &mut standing)?;
        let inner_mtu = inner_mtu(config.interface.mtu);
        let mut host = HostSide::new(inner_mtu, state_dir);
        let tun = open_tun(interface, &mut host, &config.interface.name, queues).await?;
        let (packet_events, packets) = mpsc::channel(QUEUE);
        let overflow = Arc::new(Overflow::default());
        let plane =
            DataPlane::start(DataPlaneConfig { tun, sockets, inner_mtu }, sink(packet_events, Arc::clone(&overflow)))?;
        let control = control_of(&plane, host.interface.as_deref());

        let slots = Arc::new(Slots::starting());
        let identity = Arc::new(identity);
        let crypto = Arc::new(LinkCrypto::new(Arc::clone(&identity), Arc::clone(&slots) as Arc<dyn Admission>));
        let carriers =
            start_carriers(&config, &host, &plane, backend, (&crypto, &slots), (&kept_in, identity.notes_key()))
                .await?;
        let strangers = Arc::new(carriers.for_strangers());
        let (interface, routed, sources) = (host.interface.clone(), host.routed.clone(), host.sources.clone());
        let changes = Box::new(move || host::watch::watch(interface.as_deref(), routed, sources));
        let ground = Ground {
            config,
            identity,
            host,
            kept_in,
            standing,
            listen,
            inner_mtu,
            control: Arc::new(control.clone()),
            forwarder: Arc::new(control),
            plane: Some(plane),
            slots,
            crypto,
            endpoint: Arc::new(carriers.clone()),
            carriers,
            strangers,
            packets,
            overflow,
            changes,
        };
        ground.start(begin, driver, views).await
    }
}

/// Panics if the task did that was waited for: whoever waits for this one shall not take it for a good end.
pub(crate) fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
        std::panic::resume_unwind(panic);
    }
}

fn queue_count(interface: &Interface, queues: Queues) -> usize {
    match (interface, queues) {
        (Interface::Given(queues), _) => queues.len(),
        // One pair of threads fills a small machine; more queues are for more cores.
        (Interface::Kernel, Queues::Auto) => 1,
        (Interface::Kernel, Queues::Fixed(queues)) => usize::from(queues),
    }
}

const fn inner_mtu(mtu: Mtu) -> u16 {
    match mtu {
        Mtu::Auto => INNER_MTU,
        Mtu::Fixed(bytes) => bytes,
    }
}

/// Where the packet threads leave their events.
fn sink(events: mpsc::Sender<Event>, overflow: Arc<Overflow>) -> EventSink {
    Arc::new(move |event: Event| leave(event, &events, &overflow))
}

async fn open_tun(
    interface: Interface,
    host: &mut HostSide,
    name: &str,
    queues: usize,
) -> Result<Vec<TunQueue>, StartError> {
    if let Interface::Given(queues) = interface {
        return Ok(queues);
    }
    host.recover().await?;
    let device = KernelTun::open(name, queues)?;
    check_queues(&device, host.tun_queues(device.index()).await?)?;
    host.interface = Some(device.name().to_owned());
    Ok(device.into_queues())
}

/// Refuses an interface of which somebody has a queue: whoever was quick got one before that was forbidden.
pub(crate) fn check_queues(device: &KernelTun, found: Option<(usize, usize)>) -> Result<(), TunError> {
    match device.kernel_queues().zip(found) {
        Some((ours, all)) if ours != all => Err(TunError::Shared { name: device.name().to_owned() }),
        _ => Ok(()),
    }
}

/// The handle of the data plane, which knows our own interface from then on, if it is one of the system's.
fn control_of(plane: &DataPlane, interface: Option<&str>) -> Control {
    let control = plane.control();
    let unknown = |error: &nix::Error| tracing::warn!(%error, "what comes back out of the tunnel is not told apart");
    let index = interface.and_then(|name| nix::net::if_::if_nametoindex(name).inspect_err(unknown).ok());
    control.set_tunnel(index.unwrap_or(0));
    control
}

/// The links, as a guest on the data plane's sockets.
fn endpoint(
    plane: &DataPlane,
    backend: Backend,
    crypto: &Arc<LinkCrypto>,
    ways: &Arc<Ways>,
) -> Result<Arc<dyn Endpoint>, StartError> {
    let socket = Arc::new(GuestSocket::new(plane.guest())?);
    let mut config = link_config(Arc::clone(crypto));
    config.behind = ways.behind();
    config.apart = true;
    config.gate = memory::limit().map_or_else(GateConfig::default, GateConfig::for_memory);
    Ok(Arc::from(backend.endpoint(socket, config)?))
}

/// A link of the DHT or of a network carries several requests at once, each small; the window of a whole link stays what
/// it is.
fn link_config(crypto: Arc<LinkCrypto>) -> LinkConfig {
    let mut config = LinkConfig::new(crypto);
    let TransportKnobs { streams, stream_window, .. } = &mut config.transport;
    (*streams, *stream_window) = (*streams * 4, *stream_window / 4);
    config
}

/// The ladder over an endpoint that dials by UDP alone, for the network this host is in now.
async fn start_carriers(
    config: &Config,
    host: &HostSide,
    plane: &DataPlane,
    backend: Backend,
    (crypto, slots): (&Arc<LinkCrypto>, &Arc<Slots>),
    notes: (&Path, &[u8; 32]),
) -> Result<Carriers, StartError> {
    let slots = Arc::clone(slots);
    let ways = Ways::new(Arc::new(plane.control()), move |peer| slots.of(peer).is_some());
    let plain = endpoint(plane, backend, crypto, &ways)?;
    let carriers = Carriers::new(plain, ways, config.node.proxy.proxy(), notes).await?;
    carriers.look_around(host.interface.as_deref(), false).await;
    Ok(carriers)
}

/// Where to listen for members that cannot send UDP, if this node relays.
pub(crate) const fn listens(relay: &RelayConfig) -> &[CarrierListen] {
    if relay.enabled { relay.listen.as_slice() } else { &[] }
}

/// How much this node forwards for members that cannot reach each other.
pub(crate) fn willing(relay: &RelayConfig) -> Willing {
    let rate = relay.limit.map_or(RELAY_RATE, Rate::bytes_per_second);
    if relay.enabled { Willing::Bulk { rate } } else { Willing::Introductions }
}

mod ground;
#[cfg(test)]
mod tests;
