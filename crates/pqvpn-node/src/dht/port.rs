// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DHT as the rest of the node sees it: how it is started, what it can be told, and whom it takes in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_dht::{Dht, DhtConfig as EngineConfig};
use pqvpn_wire::dht::CompositeVerifier;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{
    addresses::realm,
    doors::Doors,
    driver::{Driver, Inputs, Parts, remembered_door},
    event::{FirstStream, Incoming, Order},
    files::Files,
    places::{MAX_PER_STRANGER, MAX_STRANGERS, NoPlace, Place, Places},
    position::Position,
    records::OwnRecords,
    report::{DhtReport, DhtState, NewDoor},
    rpc::Shared,
    usage::Usage,
    work::Work,
};
use crate::{
    clock,
    config::{DEFAULT_DIFFICULTY, DhtConfig, DhtMode},
    entropy,
    link::{Connection, Endpoint},
    overlay::OwnAddresses,
    snapshot::{HealthItem, HealthLevel},
};

/// Orders, events and hints that may wait for the driver.
const QUEUE: usize = 256;
/// Links pinned peers may hold for the DHT, or while it is not known yet what for; all together and each.
const MAX_PINNED: usize = 512;
const MAX_PER_PINNED: usize = 8;
/// How long a node that stops waits for the DHT.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the DHT is started with.
pub(crate) struct Setup {
    pub(crate) config: DhtConfig,
    pub(crate) identity: Arc<Identity>,
    pub(crate) endpoint: Arc<dyn Endpoint>,
    /// Dials whom other nodes name.
    pub(crate) strangers: Arc<dyn Endpoint>,
    pub(crate) state_dir: PathBuf,
    pub(crate) listen: Vec<SocketAddr>,
    /// Overlay addresses of this node, which nobody dials.
    pub(crate) overlay: OwnAddresses,
    pub(crate) doors: Vec<NewDoor>,
    /// Pinned peers: whether they rotated their key is kept in mind.
    pub(crate) watched: BTreeSet<PeerId>,
}

/// The running DHT, from outside; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    orders: mpsc::Sender<Order>,
    found: mpsc::Sender<NewDoor>,
    strangers: Arc<Places>,
    pinned: Arc<Places>,
    health: Arc<Mutex<Vec<HealthItem>>>,
    successors: Arc<Mutex<BTreeMap<PeerId, PeerId>>>,
}

/// A link that is let in for the DHT, until it is handed over.
#[derive(Debug)]
pub(crate) struct Stranger {
    usage: Arc<Usage>,
    place: Place,
}

/// Starts the DHT's task on the current runtime.
pub(crate) async fn start(setup: Setup) -> (Port, JoinHandle<()>) {
    let Setup { config, identity, endpoint, strangers: to_strangers, state_dir, listen, overlay, doors, watched } =
        setup;
    let (own, network) = (identity.peer_id(), config.network_id());
    let difficulty = config.difficulty.unwrap_or(DEFAULT_DIFFICULTY);
    let files = Files::new(&state_dir, &own, &network);
    let realm = realm(&listen, config.network.is_some());
    let (event_sender, events) = mpsc::channel(QUEUE);
    let (orders_sender, orders) = mpsc::channel(QUEUE);
    let (found_sender, found) = mpsc::channel(QUEUE);
    let health = Arc::default();
    let clock = clock::Origin::start();

    let loading = files.clone();
    let loaded = crate::blocking::run(move || {
        let mut aside = Vec::new();
        let kept = loading.admission(&mut aside);
        let position = Position::new(own, &network, difficulty, kept, clock::unix_millis());
        (position, loading.table(&mut aside), loading.published(&mut aside), aside)
    });
    let (position, remembered, published, aside) = loaded.await.expect("loading does not panic");

    let machine =
        EngineConfig { network, difficulty, realm, serve: config.mode != DhtMode::Client, ..EngineConfig::open() };
    let seed: [u8; 32] = entropy::bytes();
    let mut dht = Dht::new(clock.now(), machine, own, Arc::new(CompositeVerifier), seed);
    for peer in &watched {
        let _most_of_them_or_all = dht.watch(*peer);
    }
    let successors = Arc::default();
    let mut known = Doors::new(own);
    for door in doors.into_iter().chain(remembered.iter().map(remembered_door)) {
        known.hint(clock::now(), door);
    }
    for contact in &remembered {
        known.was_verified(&contact.peer, contact.verified_ms);
    }
    let standing = aside.into_iter().map(|text| HealthItem { level: HealthLevel::Warn, code: "dht-state-file", text });
    let strangers = Places::for_strangers(MAX_STRANGERS, MAX_PER_STRANGER);
    let parts = Parts {
        dht,
        clock,
        shared: Arc::new(Shared::new([endpoint, to_strangers], Arc::clone(&identity), network, event_sender.clone())),
        places: Arc::clone(&strangers),
        records: OwnRecords::new(identity, network, files.clone(), published),
        files,
        doors: known,
        position,
        work: Work::new(network, difficulty, event_sender),
        mode: config.mode,
        realm,
        difficulty,
        listen,
        overlay,
        standing: standing.collect(),
        watched,
        successors: Arc::clone(&successors),
    };
    let driver = Driver::new(parts, Arc::clone(&health));
    let task = crate::blocking::spawn(driver.run(Inputs { orders, events, found }));
    let pinned = Places::for_known(MAX_PINNED, MAX_PER_PINNED);
    (Port { orders: orders_sender, found: found_sender, strangers, pinned, health, successors }, task)
}

impl Port {
    /// Lets a link in for the DHT, or for the look at what its dialer wants; strangers are few at a time.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub(crate) fn enter(&self, connection: &Arc<dyn Connection>, is_pinned: bool) -> Result<Stranger, NoPlace> {
        let usage = Usage::new(clock::now());
        let place = if is_pinned { &self.pinned } else { &self.strangers }.enter(connection, &usage)?;
        Ok(Stranger { usage, place })
    }

    /// Hands a link over to the DHT.
    pub(crate) async fn take(&self, connection: Arc<dyn Connection>, stranger: Stranger, first: FirstStream) {
        let Stranger { usage, place } = stranger;
        let incoming = Incoming { connection, usage, place, first };
        let _stopped = self.orders.send(Order::Incoming(Box::new(incoming))).await;
    }

    /// Where a peer's record says that it can be dialed; empty if there is no such record, or no DHT to ask.
    pub(crate) async fn find(&self, peer: PeerId) -> Vec<SocketAddr> {
        let (answer, found) = oneshot::channel();
        if self.orders.send(Order::Find(peer, answer)).await.is_err() {
            return Vec::new();
        }
        found.await.unwrap_or_default()
    }

    /// Where the peer was met, or announces itself on the local network, without asking anybody.
    pub(crate) async fn known(&self, peer: PeerId) -> Vec<String> {
        let (answer, known) = oneshot::channel();
        if self.orders.send(Order::Known(peer, answer)).await.is_err() {
            return Vec::new();
        }
        known.await.unwrap_or_default()
    }

    /// Tells the DHT something; `false` if it has more to do than it can.
    pub(crate) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// Where hints from the local network go.
    pub(crate) fn hints(&self) -> mpsc::Sender<NewDoor> {
        self.found.clone()
    }

    /// As whom a pinned peer goes on, if it rotated its key.
    pub(crate) fn successor(&self, peer: &PeerId) -> Option<PeerId> {
        self.successors.lock().unwrap_or_else(PoisonError::into_inner).get(peer).copied()
    }

    /// What an operator should know.
    pub(crate) fn health(&self) -> Vec<HealthItem> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the DHT's links and waits until what must be kept is on disk.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            let _too_slow = timeout(FAREWELL, stopped).await;
        }
    }
}

/// The report of a DHT that does not run.
pub(crate) fn off(config: &DhtConfig) -> DhtReport {
    DhtReport {
        enabled: false,
        state: DhtState::Off,
        mode: config.mode,
        network: config.network_id(),
        difficulty: config.difficulty.unwrap_or(DEFAULT_DIFFICULTY),
        admission: super::report::AdmissionState::None,
        node_id: None,
        addresses: Vec::new(),
        observed: None,
        contacts: 0,
        size_estimate: None,
        links: super::report::LinkReport::default(),
        lookups: (0, 0),
        rpc: super::report::RpcReport::default(),
        tx_bytes: 0,
        rx_bytes: 0,
        serving: false,
        eclipse: super::report::EclipseReport::Normal,
        stored_records: 0,
        stored_bytes: 0,
        own_records: Vec::new(),
        doors: (0, 0),
        counters: Vec::new(),
    }
}
