// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting a node together: sockets, interface, packet threads, host changes, link endpoint, state task.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ipnet::Ipv4Net;
use pqvpn_crypto::{
    aead::{AeadId, hardware_aes},
    identity::Identity,
    peer_id::PeerId,
    ratchet::machine::EpochTime,
    tls::{Admission, LinkCrypto},
};
use pqvpn_dataplane::{
    Control, DataPlane, DataPlaneConfig, DataPlaneError, Event, EventSink, KernelTun, TunError, TunReader, TunWriter,
};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinHandle},
};

use crate::{
    bootstrap,
    carrier::{CarrierListen, Carriers, Listening, Ways},
    clock::{self, Reading},
    config::{Cipher, Config, Mtu, Queues, Rate, RelayConfig},
    dht,
    handle::NodeHandle,
    host::{self, HostError, HostSide},
    lan::{Lan, LanSetup},
    link::{Backend, Endpoint, GuestSocket, LinkConfig, LinkError, TransportKnobs},
    membership::{self, MembershipError, Willing},
    names::DnsSide,
    overlay::{Mesh, OwnAddresses},
    path::{Mapped, Portmap, PortmapSetup, Reflexive},
    session::{self, LinkContext, Slots},
    snapshot::NodeState,
    state::{Guessing, Inputs, Peers, Refused, State, Views},
    underlay::{Underlay, bind_all},
};

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
        mut views: mpsc::Receiver<Views>,
    ) -> Result<(NodeHandle, membership::Port, JoinHandle<()>), StartError> {
        let StartOptions { config, identity, state_dir, interface, backend } = options;
        let own = identity.peer_id();
        let mut standing = Vec::new();
        let queues = queue_count(&interface, config.interface.queues);
        let (sockets, listen) = bind_all(&config.node.listen, queues, &mut standing)?;
        let inner_mtu = inner_mtu(config.interface.mtu);
        let mut host = HostSide::new(inner_mtu, state_dir);
        let tun = open_tun(interface, &mut host, &config.interface.name, queues).await?;
        let (packet_events, packets) = mpsc::channel(QUEUE);
        let lost_events = Arc::new(AtomicU64::new(0));
        let plane = DataPlane::start(
            DataPlaneConfig { tun, sockets, inner_mtu },
            sink(packet_events, Arc::clone(&lost_events)),
        )?;
        let control = control_of(&plane, host.interface.as_deref());

        let slots = Arc::new(Slots::starting());
        let identity = Arc::new(identity);
        let crypto = Arc::new(LinkCrypto::new(Arc::clone(&identity), Arc::clone(&slots) as Arc<dyn Admission>));
        let carriers = start_carriers(&config, &host, &plane, backend, (&crypto, &slots), identity.notes_key()).await?;
        let endpoint: Arc<dyn Endpoint> = Arc::new(carriers.clone());

        let addresses = OwnAddresses::default();
        let reflexive = Reflexive::default();
        let portmap = start_portmap(&config, &listen, &host);
        let around = Around {
            config: &config,
            identity: &identity,
            endpoint: &endpoint,
            carriers: &carriers,
            listen: &listen,
            control: &control,
            reflexive: &reflexive,
            mapped: portmap.mapped(),
        };
        let dht = around.start_dht(&host, addresses.clone()).await;
        let (networks, driver) = around.start_networks(&host, addresses.clone(), dht.clone(), driver).await?;
        let lan = Lan::new(config.bootstrap.lan.then(|| lan_setup(own, &config, &listen, dht.as_ref(), &networks)));
        let (link_events, links) = mpsc::channel(QUEUE);
        let door_to_networks = networks.clone();
        let context = Arc::new(LinkContext::new(
            endpoint,
            control.clone(),
            own,
            aeads(config.crypto.cipher),
            inner_mtu,
            EpochTime::from_secs(config.crypto.rekey_seconds.into()).unwrap_or_default(),
            slots,
            link_events,
            dht,
            networks,
            crypto,
        ));
        let (command_sender, commands) = mpsc::channel(QUEUE);
        let (barriers, barriers_in) = mpsc::channel(VIEWS);
        let (begun, begun_in) = oneshot::channel();
        let mut state = State {
            own,
            name: config.name(),
            running: NodeState::Up,
            started: clock::now(),
            clocks: Reading::take(),
            peers: Peers::default(),
            live: std::collections::BTreeMap::new(),
            views: views.try_recv().unwrap_or_default(),
            barriers,
            addresses,
            mesh: Mesh::default(),
            accepting: tokio::spawn(accept_after(begun_in, Arc::clone(&context))),
            context,
            control,
            listening: Listening::open(&carriers, own, listens(&config.relay)),
            carriers,
            dns: DnsSide::new(config.dns.mode, host.interface.clone(), host.state_dir.clone()),
            host,
            underlay: Underlay { listen, plane },
            standing,
            lost_events,
            refused: Refused::default(),
            reflexive,
            mapped: portmap.mapped().clone(),
            portmap,
            inner_mtu,
            guessing: Guessing::default(),
            held_at: clock::now(),
            lan,
            twins: None,
            taken_over: None,
            dht_off: Box::new(dht::off(&config.dht)),
            config,
        };
        if let Err(error) = state.begin(begin).await {
            state.stop().await;
            return Err(error.into());
        }
        let _the_task_waits = begun.send(());
        let watched = host::watch::watch(state.host.interface.as_deref(), state.host.routed.clone());
        let inputs = |changes| Inputs { commands, packets, links, views, barriers: barriers_in, changes, driver };
        let task = run(state, watched, inputs);
        Ok((NodeHandle::new(command_sender), door_to_networks, task))
    }
}

/// Takes the links that have come in once it is known who is a peer: one that was refused would not come back soon.
async fn accept_after(begun: oneshot::Receiver<()>, context: Arc<LinkContext>) {
    if begun.await.is_ok() {
        session::accept_all(context).await;
    }
}

/// Runs the state task, with the watch of the host's network beside it. It panics, all undone, if the networks' task did.
fn run(
    state: State,
    (watch, changes): (Option<host::watch::Watch>, mpsc::Receiver<host::watch::News>),
    inputs: impl FnOnce(mpsc::Receiver<host::watch::News>) -> Inputs,
) -> JoinHandle<()> {
    let inputs = inputs(changes);
    tokio::spawn(async move {
        let ended = state.run(inputs).await;
        drop(watch);
        pass_on_panic(ended);
    })
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

/// Has the router asked to let our port through.
fn start_portmap(config: &Config, listen: &[SocketAddr], host: &HostSide) -> Portmap {
    Portmap::start(&PortmapSetup {
        wanted: config.node.port_mapping,
        listen: listen.to_owned(),
        interface: host.interface.clone(),
    })
}

/// Where the packet threads leave their events. They never wait; what is lost here is asked again (a parked packet, a
/// probe).
fn sink(events: mpsc::Sender<Event>, lost: Arc<AtomicU64>) -> EventSink {
    Arc::new(move |event: Event| {
        if events.try_send(event).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    })
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
    host.interface = Some(device.name().to_owned());
    Ok(device.into_queues())
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

/// What the DHT and the networks are started from.
struct Around<'n> {
    config: &'n Config,
    identity: &'n Arc<Identity>,
    endpoint: &'n Arc<dyn Endpoint>,
    carriers: &'n Carriers,
    listen: &'n [SocketAddr],
    control: &'n Control,
    reflexive: &'n Reflexive,
    mapped: &'n Mapped,
}

impl Around<'_> {
    async fn start_dht(&self, host: &HostSide, overlay: OwnAddresses) -> Option<dht::Port> {
        if !self.config.dht.enabled {
            return None;
        }
        let setup = dht::Setup {
            config: self.config.dht.clone(),
            identity: Arc::clone(self.identity),
            endpoint: Arc::clone(self.endpoint),
            strangers: Arc::new(self.carriers.for_strangers()),
            state_dir: host.state_dir.clone(),
            listen: self.listen.to_owned(),
            overlay,
            doors: bootstrap::doors(self.config, &host.state_dir, clock::unix_millis()),
            watched: self.config.peers.iter().map(|peer| peer.id).collect(),
        };
        let (port, _ends_with_the_node) = dht::start(setup).await;
        Some(port)
    }

    async fn start_networks(
        &self,
        host: &HostSide,
        overlay: OwnAddresses,
        dht: Option<dht::Port>,
        views: Option<mpsc::Sender<Views>>,
    ) -> Result<(membership::Port, JoinHandle<()>), StartError> {
        let setup = membership::Setup {
            identity: Arc::clone(self.identity),
            endpoint: Arc::clone(self.endpoint),
            state_dir: host.state_dir.clone(),
            listen: self.listen.to_owned(),
            overlay,
            name: self.config.name(),
            dht,
            views: views.unwrap_or_else(|| mpsc::channel(1).0),
            pools: pools(host.interface.clone(), self.config),
            forwarder: Arc::new(self.control.clone()),
            willing: willing(&self.config.relay),
            reflexive: self.reflexive.clone(),
            mapped: self.mapped.clone(),
            carriers: self.carriers.clone(),
        };
        Ok(membership::start(setup).await?)
    }
}

/// Chooses the IPv4 addresses of a new network: the configured pool first, unless the pinned peers have it, then others of
/// 10.0.0.0/8 that nothing on this host uses.
fn pools(interface: Option<String>, config: &Config) -> membership::PoolChooser {
    let (configured, pinned) = (config.interface.ipv4_pool, !config.peers.is_empty());
    Arc::new(move |mut taken: Vec<Ipv4Net>| {
        let interface = interface.clone();
        Box::pin(async move {
            taken.extend(pinned.then_some(configured));
            let others = (100..200).filter_map(|second| Ipv4Net::new(Ipv4Addr::new(10, second, 0, 0), 16).ok());
            let wanted: Vec<Ipv4Net> = std::iter::once(configured).chain(others).collect();
            let free = host::free_pool(interface.as_deref(), &wanted, &taken).await;
            free.inspect_err(|error| tracing::warn!(%error, "no IPv4 addresses chosen")).ok().flatten()
        })
    })
}

/// The ladder over an endpoint that dials by UDP alone, for the network this host is in now.
async fn start_carriers(
    config: &Config,
    host: &HostSide,
    plane: &DataPlane,
    backend: Backend,
    (crypto, slots): (&Arc<LinkCrypto>, &Arc<Slots>),
    key: &[u8; 32],
) -> Result<Carriers, StartError> {
    let slots = Arc::clone(slots);
    let ways = Ways::new(Arc::new(plane.control()), move |peer| slots.of(peer).is_some());
    let plain = endpoint(plane, backend, crypto, &ways)?;
    let carriers = Carriers::new(plain, ways, config.node.proxy.proxy(), (&host.state_dir, key)).await?;
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

fn lan_setup(
    own: PeerId,
    config: &Config,
    listen: &[SocketAddr],
    dht: Option<&dht::Port>,
    networks: &membership::Port,
) -> LanSetup {
    LanSetup {
        own,
        network: config.dht.network_id(),
        listen: listen.to_owned(),
        found: dht.map(dht::Port::hints).into_iter().chain([networks.hints()]).collect(),
        always: dht.is_some(),
    }
}

fn aeads(cipher: Cipher) -> Vec<AeadId> {
    match cipher {
        Cipher::Auto if hardware_aes() => vec![AeadId::Aes256Gcm, AeadId::ChaCha20Poly1305],
        Cipher::Auto | Cipher::ChaCha20Poly1305 => vec![AeadId::ChaCha20Poly1305],
        Cipher::Aes256Gcm => vec![AeadId::Aes256Gcm],
    }
}

#[cfg(test)]
mod tests;
