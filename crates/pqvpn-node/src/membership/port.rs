// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks as the rest of the node sees them: how their task is started, what it can be told, whom it lets in.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use ipnet::Ipv4Net;
use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_wire::dht::{Fact, NetworkId};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{
    driver::{Driver, Inputs, Parts},
    error::RelayError,
    event::{Incoming, Order},
    links::Links,
    members::Members,
    network::{Moment, Network},
    relaying::{Forwarder, Relaying, Willing},
    report::{NetworkView, RelayReport},
    rotation,
    rpc::{Counts, Shared, count},
    store::{Store, StoreError},
};
use crate::{
    carrier::Carriers,
    clock,
    dht::{self, FirstStream, NewDoor, NoPlace, Place, Places, Usage},
    link::{Connection, Endpoint},
    netcheck::MemberLink,
    overlay::OwnAddresses,
    path::{Mapped, Reflexive},
    snapshot::{HealthItem, HealthLevel},
};

/// Orders, events and hints that may wait for the driver.
const QUEUE: usize = 256;
/// Links of members at once; all together and each.
const MAX_MEMBERS: usize = 512;
const MAX_PER_MEMBER: usize = 4;
/// Links at once of nodes that are no members: whoever wants to join; all together and each.
const MAX_STRANGERS: usize = 64;
const MAX_PER_STRANGER: usize = 2;
/// Health of a store of which something is not there for this node.
const UNREAD: &str = "networks-store";
const STAYS: &str = "it stays in the file, for a version that can";
/// How long a node that stops waits for its networks.
const FAREWELL: Duration = Duration::from_secs(3);

/// Says which IPv4 pool a new network can have, given those of the networks this node is in already.
pub(crate) type PoolChooser = Arc<dyn Fn(Vec<Ipv4Net>) -> BoxFuture<'static, Option<Ipv4Net>> + Send + Sync>;

/// What networks are started with.
pub(crate) struct Setup {
    pub(crate) identity: Arc<Identity>,
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) state_dir: PathBuf,
    pub(crate) listen: Vec<SocketAddr>,
    /// Overlay addresses of this node, which nobody dials.
    pub(crate) overlay: OwnAddresses,
    /// Name of this node, for networks that give it no other.
    pub(crate) name: String,
    pub(crate) dht: Option<dht::Port>,
    /// Where views go; the newest replaces all before it.
    pub(crate) views: mpsc::Sender<Arc<Vec<NetworkView>>>,
    pub(crate) pools: PoolChooser,
    /// The data plane, for ways through other members and for relaying.
    pub(crate) forwarder: Arc<dyn Forwarder>,
    pub(crate) willing: Willing,
    /// Where members see this node.
    pub(crate) reflexive: Reflexive,
    /// What the router forwards to this node.
    pub(crate) mapped: Mapped,
    /// What takes datagrams where UDP does not pass.
    pub(crate) carriers: Carriers,
}

/// Why networks cannot be started.
#[derive(Debug, Error)]
#[error("networks: {0}")]
pub struct MembershipError(#[from] StoreError);

impl MembershipError {
    /// The file that others may read or exchange, where that is why.
    #[must_use]
    pub fn not_private(&self) -> Option<&Path> {
        match &self.0 {
            StoreError::NotPrivate(path) => Some(path),
            StoreError::InUse(_)
            | StoreError::Damaged(_)
            | StoreError::Newer(_)
            | StoreError::Unreadable(_)
            | StoreError::Failed(_) => None,
        }
    }

    /// Whether another version than this one can read the networks.
    #[must_use]
    pub fn is_of_another_version(&self) -> bool {
        matches!(self.0, StoreError::Newer(_) | StoreError::Unreadable(_))
    }
}

/// The networks of a running node, from outside; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    orders: mpsc::Sender<Order>,
    found: mpsc::Sender<NewDoor>,
    shared: Arc<Shared>,
    members: Arc<Places>,
    strangers: Arc<Places>,
}

/// A link that is let in for networks, until it is handed over.
#[derive(Debug)]
pub(crate) struct Guest {
    usage: Arc<Usage>,
    place: Place,
}

/// Starts the task that owns the networks on the current runtime.
///
/// # Errors
/// The store is another daemon's, not private, or cannot be made.
pub(crate) async fn start(setup: Setup) -> Result<(Port, JoinHandle<()>), MembershipError> {
    let Setup {
        identity,
        endpoint,
        state_dir,
        listen,
        overlay,
        name,
        dht,
        views,
        pools,
        forwarder,
        willing,
        reflexive,
        mapped,
        carriers,
    } = setup;
    let own = identity.peer_id();
    let (event_sender, events) = mpsc::channel(QUEUE);
    let (orders_sender, orders) = mpsc::channel(QUEUE);
    let (found_sender, found) = mpsc::channel(QUEUE);
    let loading = crate::blocking::run(move || load(&state_dir, own)).await;
    let Loaded { store, networks, waiting, facts, standing, unread } = loading.expect("loading does not panic")?;
    for HealthItem { text, .. } in &standing {
        tracing::error!("{text}");
    }
    for fact in facts {
        let _busy = dht.as_ref().is_some_and(|dht| dht.order(dht::Order::Announce(Arc::new(fact))));
    }
    let shared = Arc::new(Shared {
        endpoint,
        identity,
        own,
        events: event_sender,
        members: ArcSwap::from_pointee(Members::default()),
        ways: ArcSwap::default(),
        nearby: ArcSwap::default(),
        joining: AtomicUsize::new(0),
        health: ArcSwap::default(),
        counts: Counts::default(),
    });
    let parts = Parts {
        shared: Arc::clone(&shared),
        store,
        networks,
        waiting,
        listen,
        overlay,
        name,
        dht,
        views,
        pools,
        relaying: Relaying::new(forwarder, willing),
        reflexive,
        mapped,
        carriers,
        standing,
        unread,
    };
    let mut driver = Driver::new(parts, Links::default());
    // The node starts with what was kept, not a moment later.
    driver.tell_views(Moment::now());
    let task = crate::blocking::spawn(driver.run(Inputs { orders, events, found }));
    let members = Places::for_known(MAX_MEMBERS, MAX_PER_MEMBER);
    let strangers = Places::for_strangers(MAX_STRANGERS, MAX_PER_STRANGER);
    Ok((Port { orders: orders_sender, found: found_sender, shared, members, strangers }, task))
}

/// What is kept of the networks.
pub(super) struct Loaded {
    pub(super) store: Store,
    pub(super) networks: Vec<Network>,
    pub(super) waiting: Vec<(NetworkId, super::store::Head)>,
    /// Rotations that led to the key this node has.
    facts: Vec<Fact>,
    /// What could not be read.
    pub(super) standing: Vec<HealthItem>,
    /// Networks that are in the store and cannot be read, and why.
    pub(super) unread: BTreeMap<NetworkId, String>,
}

pub(super) fn load(dir: &Path, own: PeerId) -> Result<Loaded, StoreError> {
    let (store, aside) = Store::open(dir)?;
    let mut loaded = load_from(store, own)?;
    if let Some(text) = aside {
        loaded.standing.insert(0, HealthItem { level: HealthLevel::Error, code: UNREAD, text });
    }
    Ok(loaded)
}

pub(super) fn load_from(store: Store, own: PeerId) -> Result<Loaded, StoreError> {
    let mut standing = Vec::new();
    let mut say = |code, text| standing.push(HealthItem { level: HealthLevel::Error, code, text });
    let (mut networks, mut waiting, mut unread) = (Vec::new(), Vec::new(), BTreeMap::new());
    // What cannot be read is said and stays in the file: were that moved aside, all other networks would be gone too.
    for (id, kept) in store.load()? {
        let waits = kept.head.clone().filter(|head| head.waiting.is_some());
        if let Some(head) = waits.clone().filter(|_| kept.statements.is_empty()) {
            waiting.push((id, head));
            continue;
        }
        let name = kept.head.as_ref().map_or_else(|| id.to_string(), |head| head.name.clone());
        match Network::load(own, id, kept, Moment::now()) {
            Ok(network) => {
                networks.push(network);
                waiting.extend(waits.map(|head| (id, head)));
            }
            Err(why) => {
                let text = format!("the network {name} cannot be read from the store: {why}; {STAYS}");
                unread.insert(id, text.clone());
                say(UNREAD, text);
            }
        }
    }
    let rotations = store.rotations()?;
    let facts = rotation::facts_of(&rotations.kept, &own);
    if let Some(why) = rotations.unread {
        say(UNREAD, format!("{why}; {STAYS}"));
    }
    Ok(Loaded { store, networks, waiting, facts, standing, unread })
}

impl Port {
    /// Lets a link in for networks, or for the look at what its dialler wants; those that are no members are few at a
    /// time. `known`: the node knows the peer otherwise.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub(crate) fn enter(&self, connection: &Arc<dyn Connection>, known: bool) -> Result<Guest, NoPlace> {
        let peer = connection.peer();
        if peer == self.shared.own {
            let _told_again_if_full = self.order(Order::Twin);
            return Err(NoPlace::Peer);
        }
        let usage = Usage::new(clock::now());
        let places = if known || self.is_member(&peer) { &self.members } else { &self.strangers };
        let entered = places.enter(connection, &usage).inspect_err(|_| count(&self.shared.counts.crowded));
        Ok(Guest { usage, place: entered? })
    }

    /// Hands a link over to the networks.
    pub(crate) async fn take(&self, connection: Arc<dyn Connection>, guest: Guest, first: FirstStream) {
        let Guest { usage, place } = guest;
        let incoming = Incoming { connection, usage, place, first };
        let _stopped = self.orders.send(Order::Incoming(Box::new(incoming))).await;
    }

    /// Whether the peer is a member of any network of this node; cheap.
    pub(crate) fn is_member(&self, peer: &PeerId) -> bool {
        self.shared.members.load().contains(peer)
    }

    /// Whether this node is about to join a network.
    pub(crate) fn is_joining(&self) -> bool {
        self.shared.joining.load(Ordering::Relaxed) > 0
    }

    /// What an operator should know of the networks as a whole.
    pub(crate) fn health(&self) -> Vec<HealthItem> {
        self.shared.health.load().to_vec()
    }

    /// Tells the networks something; `false` if they have more to do than they can.
    pub(crate) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }

    /// The address of a way to a member through another one.
    ///
    /// # Errors
    /// [`RelayError`].
    pub(crate) async fn relay(&self, peer: PeerId) -> Result<SocketAddr, RelayError> {
        let (reply, way) = oneshot::channel();
        self.orders.send(Order::Relay(peer, reply)).await.map_err(|_| RelayError::Stopped)?;
        way.await.map_err(|_| RelayError::Stopped)?
    }

    /// The members there are links with; none when the networks have more to do than they can.
    pub(crate) async fn links(&self) -> Vec<MemberLink> {
        let (reply, links) = oneshot::channel();
        if !self.order(Order::Links(reply)) {
            return Vec::new();
        }
        timeout(FAREWELL, links).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// What this node forwards for others.
    pub(crate) async fn relaying(&self) -> Option<RelayReport> {
        let (reply, report) = oneshot::channel();
        if !self.order(Order::Relaying(reply)) {
            return None;
        }
        timeout(FAREWELL, report).await.ok()?.ok()
    }

    /// Through whom a way goes, if it is one, and where that member is.
    pub(crate) fn via(&self, way: SocketAddr) -> Option<(PeerId, SocketAddr)> {
        self.shared.ways.load().get(&way).copied()
    }

    /// Where hints from the local network go.
    pub(crate) fn hints(&self) -> mpsc::Sender<NewDoor> {
        self.found.clone()
    }

    /// Says goodbye to who must know and waits until what must be kept is on disk.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).await.is_ok() {
            let _too_slow = timeout(FAREWELL, stopped).await;
        }
    }
}
