// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a node stands on, real or made up, and how the rest of it is put on that.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::Ipv4Net;
use pqvpn_crypto::{
    aead::{AeadId, hardware_aes},
    identity::Identity,
    peer_id::PeerId,
    ratchet::machine::EpochTime,
    tls::LinkCrypto,
};
use pqvpn_dataplane::{DataPlane, Event};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{QUEUE, StartError, VIEWS, listens, pass_on_panic, willing};
use crate::{
    bootstrap,
    carrier::{Carriers, Listening},
    clock::{self, Reading},
    config::{Cipher, Config},
    dht,
    events::Overflow,
    handle::{Farewell, NodeHandle},
    host::{self, HostSide},
    lan::{Lan, LanSetup},
    link::Endpoint,
    membership::{self, Forwarder},
    names::DnsSide,
    overlay::{Mesh, OwnAddresses},
    path::{Mapped, Portmap, PortmapSetup, Reflexive},
    plane::PacketPlane,
    session::{self, LinkContext, Slots},
    snapshot::{HealthItem, NodeState},
    state::{Guessing, Inputs, Peers, Refused, Rounds, State, Timed, Views},
    underlay::Underlay,
};

/// Tells of changes of the host's network, for as long as the first part lives.
pub(crate) type Changes = (Option<host::watch::Watch>, mpsc::Receiver<host::watch::News>);

/// Everything below the control side of a node.
pub(crate) struct Ground {
    pub(crate) config: Config,
    pub(crate) identity: Arc<Identity>,
    pub(crate) host: HostSide,
    /// Where networks and what is known of the DHT are kept.
    pub(crate) kept_in: PathBuf,
    pub(crate) standing: Vec<HealthItem>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) inner_mtu: u16,
    pub(crate) control: Arc<dyn PacketPlane>,
    pub(crate) forwarder: Arc<dyn Forwarder>,
    /// None where the packet plane is no real one.
    pub(crate) plane: Option<DataPlane>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) crypto: Arc<LinkCrypto>,
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) carriers: Carriers,
    /// Dials whom nodes of the DHT name.
    pub(crate) strangers: Arc<dyn Endpoint>,
    pub(crate) packets: mpsc::Receiver<Event>,
    pub(crate) overflow: Arc<Overflow>,
    /// Begins to tell once the node itself has changed what it changes.
    pub(crate) changes: Box<dyn FnOnce() -> Changes + Send>,
}

impl Ground {
    /// Starts a node on it; `driver`: where its own networks report to.
    ///
    /// # Errors
    /// [`StartError`]; everything done until then has been undone.
    pub(crate) async fn start(
        self,
        begin: NodeState,
        driver: Option<mpsc::Sender<Views>>,
        mut views: mpsc::Receiver<Views>,
    ) -> Result<(NodeHandle, membership::Port, JoinHandle<()>), StartError> {
        let Self { config, identity, host, listen, inner_mtu, control, endpoint, carriers, slots, crypto, .. } = self;
        let own = identity.peer_id();
        let addresses = OwnAddresses::default();
        let reflexive = Reflexive::default();
        let portmap = start_portmap(&config, &listen, &host);
        let around = Around {
            config: &config,
            identity: &identity,
            endpoint: &endpoint,
            carriers: &carriers,
            listen: &listen,
            forwarder: &self.forwarder,
            strangers: &self.strangers,
            reflexive: &reflexive,
            mapped: portmap.mapped(),
            kept_in: &self.kept_in,
        };
        let dht = around.start_dht(&host, addresses.clone()).await;
        let (networks, driver) = around.start_networks(&host, addresses.clone(), dht.clone(), driver).await?;
        let lan = Lan::new(config.bootstrap.lan.then(|| lan_setup(own, &config, &listen, dht.as_ref(), &networks)));
        let (link_events, links) = mpsc::channel(QUEUE);
        let door_to_networks = networks.clone();
        let context = Arc::new(LinkContext::new(
            endpoint,
            Arc::clone(&control),
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
            live: Timed::default(),
            views: views.try_recv().unwrap_or_default(),
            downs: 0,
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
            underlay: Underlay { listen, plane: self.plane },
            standing: self.standing,
            overflow: self.overflow,
            refused: Refused::default(),
            reflexive,
            mapped: portmap.mapped().clone(),
            portmap,
            inner_mtu,
            guessing: Guessing::default(),
            rounds: Rounds::new(clock::now()),
            lan,
            twins: None,
            taken_over: None,
            dht_off: Box::new(dht::off(&config.dht)),
            config,
        };
        if let Err(error) = state.begin(begin).await {
            state.stop(Farewell::Final).await;
            return Err(error.into());
        }
        let _the_task_waits = begun.send(());
        let (watched, packets) = ((self.changes)(), self.packets);
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
    (watch, changes): Changes,
    inputs: impl FnOnce(mpsc::Receiver<host::watch::News>) -> Inputs,
) -> JoinHandle<()> {
    let inputs = inputs(changes);
    crate::blocking::spawn(async move {
        let ended = state.run(inputs).await;
        drop(watch);
        pass_on_panic(ended);
    })
}

/// Has the router asked to let our port through.
fn start_portmap(config: &Config, listen: &[SocketAddr], host: &HostSide) -> Portmap {
    Portmap::start(&PortmapSetup {
        wanted: config.node.port_mapping,
        listen: listen.to_owned(),
        interface: host.interface.clone(),
    })
}

/// What the DHT and the networks are started from.
struct Around<'n> {
    config: &'n Config,
    identity: &'n Arc<Identity>,
    endpoint: &'n Arc<dyn Endpoint>,
    carriers: &'n Carriers,
    listen: &'n [SocketAddr],
    forwarder: &'n Arc<dyn Forwarder>,
    strangers: &'n Arc<dyn Endpoint>,
    reflexive: &'n Reflexive,
    mapped: &'n Mapped,
    kept_in: &'n Path,
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
            strangers: Arc::clone(self.strangers),
            state_dir: self.kept_in.to_owned(),
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
            state_dir: self.kept_in.to_owned(),
            listen: self.listen.to_owned(),
            overlay,
            name: self.config.name(),
            dht,
            views: views.unwrap_or_else(|| mpsc::channel(1).0),
            pools: pools(host.interface.clone(), self.config),
            forwarder: Arc::clone(self.forwarder),
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
