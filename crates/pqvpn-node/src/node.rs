// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting a node together: sockets, interface, packet threads, host changes, link endpoint, state task.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use pqvpn_crypto::{
    aead::{AeadId, hardware_aes},
    identity::{Identity, PublicIdentity},
    peer_id::PeerId,
    ratchet::machine::EpochTime,
    tls::{Admission, LinkCrypto, Refusal, Side},
};
use pqvpn_dataplane::{
    DataPlane, DataPlaneConfig, DataPlaneError, Event, KernelTun, PeerSlot, TunError, TunReader, TunWriter,
};
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    bootstrap,
    clock::{self, Reading},
    config::{Cipher, Config, Mtu, PeerConfig, Queues},
    dht, entropy,
    handle::NodeHandle,
    host::{self, HostChange, HostError, Plan},
    lan::{self, LanContext},
    life::PeerLife,
    link::{Backend, Endpoint, GuestSocket, LinkConfig, LinkError, TransportKnobs},
    overlay::Overlay,
    session::{self, LinkContext},
    snapshot::{HealthItem, HealthLevel, NodeState},
    state::{Inputs, State, peer::Peer},
    underlay::{Underlay, bind_all},
};

/// Inner MTU on a path of 1500 bytes over IPv6: 40 + 8 outer, 32 tunnel (security.md 1.5).
const INNER_MTU: u16 = 1420;
/// Commands and events that may wait for the state task.
const QUEUE: usize = 1024;

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
    /// The runtime refused a resource.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The host's side of a running node.
pub(crate) struct HostSide {
    /// Overlay addresses of this node, IPv6 first.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) interface: Option<String>,
    routes: Vec<IpNet>,
    mtu: u16,
    state_dir: PathBuf,
    applied: Option<HostChange>,
}

impl HostSide {
    fn new(overlay: &Overlay, mtu: u16, state_dir: PathBuf) -> Self {
        let (addresses, routes) = (overlay.own.clone(), overlay.routes.clone());
        Self { addresses, interface: None, routes, mtu, state_dir, applied: None }
    }

    /// Sets addresses, routes and the link state; nothing to do when the caller brought the interface.
    pub(crate) async fn apply(&mut self) -> Result<(), HostError> {
        let (Some(interface), None) = (&self.interface, &self.applied) else { return Ok(()) };
        let plan = Plan {
            interface: interface.clone(),
            owns_device: false,
            mtu: self.mtu.into(),
            addresses: self.addresses.iter().copied().map(IpNet::from).collect(),
            routes: self.routes.clone(),
        };
        self.applied = Some(HostChange::apply(&self.state_dir, &plan).await?);
        Ok(())
    }

    /// Takes back what [`Self::apply`] did.
    pub(crate) async fn undo(&mut self) -> Result<(), HostError> {
        match self.applied.take() {
            Some(change) => change.undo().await,
            None => Ok(()),
        }
    }

    /// What an operator should know about the changes in force.
    pub(crate) fn health(&self) -> Vec<HealthItem> {
        let Some(report) = self.applied.as_ref().map(HostChange::report) else { return Vec::new() };
        let skipped = report.skipped.iter().map(|overlap| {
            let text = format!(
                "no route to {} through the mesh: {} is connected on {}",
                overlap.route, overlap.subnet, overlap.interface
            );
            HealthItem { level: HealthLevel::Warn, code: "route-skipped", text }
        });
        let shadowed = report.shadowed.iter().map(|overlap| {
            let text = format!("{} of {} stays on {}", overlap.subnet, overlap.route, overlap.interface);
            HealthItem { level: HealthLevel::Info, code: "route-shadowed", text }
        });
        let family = report.ipv6_missing.then(|| HealthItem {
            level: HealthLevel::Info,
            code: "ipv6-missing",
            text: "IPv6 is off on this host: the overlay has IPv4 only".to_owned(),
        });
        skipped.chain(shadowed).chain(family).collect()
    }

    async fn open_kernel_tun(&mut self, name: &str, queues: usize) -> Result<Vec<TunQueue>, StartError> {
        let recovered = host::recover(&self.state_dir).await?;
        for change in &recovered.undone {
            tracing::info!(%change, "undone: a killed daemon had left it");
        }
        if let Some(why) = &recovered.unreadable {
            tracing::warn!(%why, "the journal of host changes was unreadable and has been moved aside");
        }
        let device = KernelTun::open(name, queues)?;
        self.interface = Some(device.name().to_owned());
        Ok(device.into_queues())
    }
}

/// Peers that may hold a link with us: exactly the configured ones.
#[derive(Debug)]
struct Pinned(HashSet<PeerId>);

impl Admission for Pinned {
    fn admit(&self, peer: &PeerId, _key: &PublicIdentity, _side: Side) -> Result<(), Refusal> {
        if self.0.contains(peer) { Ok(()) } else { Err(Refusal::UnknownPeer) }
    }
}

/// With the DHT on everybody may hold a link whose identity is proven; what for, the link's first frame says, and
/// sessions are made with the configured peers only (`session.rs`).
#[derive(Debug)]
struct Everybody;

impl Admission for Everybody {
    fn admit(&self, _peer: &PeerId, _key: &PublicIdentity, _side: Side) -> Result<(), Refusal> {
        Ok(())
    }
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
        let StartOptions { config, identity, state_dir, interface, backend } = options;
        let own = identity.peer_id();
        let mut standing = Vec::new();
        let queues = match (&interface, config.interface.queues) {
            (Interface::Given(queues), _) => queues.len(),
            // One pair of threads fills a small machine; more queues are for more cores.
            (Interface::Kernel, Queues::Auto) => 1,
            (Interface::Kernel, Queues::Fixed(queues)) => usize::from(queues),
        };
        let (sockets, listen) = bind_all(&config.node.listen, queues, &mut standing)?;
        let inner_mtu = match config.interface.mtu {
            Mtu::Auto => INNER_MTU,
            Mtu::Fixed(bytes) => bytes,
        };
        let overlay = Overlay::plan(&config, own);
        standing.extend(overlay.collisions.iter().cloned());
        let mut host = HostSide::new(&overlay, inner_mtu, state_dir);
        let tun = match interface {
            Interface::Given(queues) => queues,
            Interface::Kernel => host.open_kernel_tun(&config.interface.name, queues).await?,
        };
        let (packet_events, packets) = mpsc::channel(QUEUE);
        let lost_events = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&lost_events);
        let sink = Arc::new(move |event: Event| {
            // The packet threads never wait; what is lost here is asked again (a parked packet, a probe).
            if packet_events.try_send(event).is_err() {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        });
        let plane = DataPlane::start(DataPlaneConfig { tun, sockets, inner_mtu }, sink)?;
        let control = plane.control();
        let peers = configured_peers(&config, overlay.peers);
        control.set_routes(peers.iter().flat_map(|peer| peer.prefixes().map(|prefix| (prefix, peer.slot))).collect());

        let admission: Arc<dyn Admission> = match config.dht.enabled {
            true => Arc::new(Everybody),
            false => Arc::new(Pinned(peers.iter().map(|peer| peer.id).collect())),
        };
        let identity = Arc::new(identity);
        let crypto = Arc::new(LinkCrypto::new(Arc::clone(&identity), admission));
        let socket = Arc::new(GuestSocket::new(plane.guest())?);
        let links_config = link_config(Arc::clone(&crypto), config.dht.enabled);
        let endpoint: Arc<dyn Endpoint> = Arc::from(backend.endpoint(socket, links_config)?);

        host.apply().await?;
        let dht = match config.dht.enabled {
            true => Some(start_dht(&config, identity, &endpoint, &host, &listen).await),
            false => None,
        };
        let lan = dht.as_ref().filter(|_| config.bootstrap.lan).map(|port| {
            let (network, found) = (config.dht.network_id(), port.hints());
            tokio::spawn(lan::run(LanContext { own, network, listen: listen.clone(), found }))
        });
        let (link_events, links) = mpsc::channel(QUEUE);
        let context = Arc::new(LinkContext::new(
            endpoint,
            control.clone(),
            own,
            aeads(config.crypto.cipher),
            inner_mtu,
            EpochTime::from_secs(config.crypto.rekey_seconds.into()).unwrap_or_default(),
            peers.iter().map(|peer| (peer.id, peer.slot)).collect(),
            link_events,
            dht,
            crypto,
        ));
        let accepting = tokio::spawn(session::accept_all(Arc::clone(&context)));
        let (command_sender, commands) = mpsc::channel(QUEUE);
        let state = State {
            own,
            name: config.name(),
            running: NodeState::Up,
            started: clock::now(),
            clocks: Reading::take(),
            peers,
            live: std::collections::BTreeMap::new(),
            context,
            control,
            host,
            underlay: Underlay { listen, plane },
            standing,
            lost_events,
            accept_failures: 0,
            accepting,
            lan,
            dht_off: Box::new(dht::off(&config.dht)),
        };
        let task = tokio::spawn(state.run(Inputs { commands, packets, links }));
        Ok((NodeHandle::new(command_sender), task))
    }
}

/// A link of the DHT carries several requests at once, each small; the window of a whole link stays what it is.
fn link_config(crypto: Arc<LinkCrypto>, with_dht: bool) -> LinkConfig {
    let mut config = LinkConfig::new(crypto);
    if with_dht {
        let TransportKnobs { streams, stream_window, .. } = &mut config.transport;
        (*streams, *stream_window) = (*streams * 4, *stream_window / 4);
    }
    config
}

async fn start_dht(
    config: &Config,
    identity: Arc<Identity>,
    endpoint: &Arc<dyn Endpoint>,
    host: &HostSide,
    listen: &[SocketAddr],
) -> dht::Port {
    let setup = dht::Setup {
        config: config.dht.clone(),
        identity,
        endpoint: Arc::clone(endpoint),
        state_dir: host.state_dir.clone(),
        listen: listen.to_owned(),
        overlay: host.addresses.clone(),
        doors: bootstrap::doors(config, &host.state_dir, clock::unix_millis()),
    };
    let (port, _ends_with_the_node) = dht::start(setup).await;
    port
}

fn configured_peers(config: &Config, addresses: Vec<Vec<IpAddr>>) -> Vec<Peer> {
    let entries = config.peers.iter().zip(addresses).zip(0..);
    let peer = |((entry, addresses), slot): ((&PeerConfig, Vec<IpAddr>), PeerSlot)| {
        let keepalive = (entry.keepalive_seconds > 0).then(|| Duration::from_secs(entry.keepalive_seconds.into()));
        let mut peer = Peer::new(entry.id, entry.name.clone(), slot, PeerLife::new(keepalive, entropy::u64()));
        peer.addresses = addresses;
        peer.routes.clone_from(&entry.routes);
        peer.endpoints = entry.endpoints.iter().map(ToString::to_string).collect();
        peer
    };
    entries.map(peer).collect()
}

fn aeads(cipher: Cipher) -> Vec<AeadId> {
    match cipher {
        Cipher::Auto if hardware_aes() => vec![AeadId::Aes256Gcm, AeadId::ChaCha20Poly1305],
        Cipher::Auto | Cipher::ChaCha20Poly1305 => vec![AeadId::ChaCha20Poly1305],
        Cipher::Aes256Gcm => vec![AeadId::Aes256Gcm],
    }
}
