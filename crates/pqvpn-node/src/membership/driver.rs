// SPDX-License-Identifier: MIT OR Apache-2.0
//! The task that owns the networks: messages, timers and orders come in one at a time; nothing of them is shared.

mod carried;
mod dialing;
mod farewell;
mod founding;
mod gossip;
mod joins;
mod news;
mod orders;
mod relaying;
mod rotation;
mod saving;
mod seek;
mod telling;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::{
    control::CloseReason,
    network::{NetRequest, NetResponse, NetworkId},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep_until,
};

use super::{
    event::{Event, Incoming, Order},
    join::JoinDone,
    links::{LinkId, Links, NetLink},
    network::{Allowance, Moment, Network},
    port::PoolChooser,
    relaying::Relaying,
    report::NetworkView,
    rpc::{Asked, CallError, Shared, count},
    store::{Change, Head, Store},
};
use crate::{
    carrier::Carriers,
    clock, dht,
    dht::{FirstStream, NewDoor, Usage},
    link::Connection,
    overlay::OwnAddresses,
    path::{Mapped, Reflexive},
    snapshot::HealthItem,
};
pub(super) use dialing::dial;
use gossip::Pulling;
use joins::{Held, Joining};
use news::{Campaign, ToCome};
pub(super) use relaying::WayReply;
use rotation::NOT_SAID;
use saving::Refusing;
use seek::{Found, Said, Search};

/// Events that are dealt with before anything else is looked at again: what is due takes as long for one as for many.
const EVENTS_AT_ONCE: usize = 16;

/// What the driver is made of at its start.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Store,
    pub(super) networks: Vec<Network>,
    pub(super) waiting: Vec<(NetworkId, Head)>,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) overlay: OwnAddresses,
    pub(super) name: String,
    pub(super) dht: Option<dht::Port>,
    pub(super) views: mpsc::Sender<Arc<Vec<NetworkView>>>,
    pub(super) pools: PoolChooser,
    pub(super) relaying: Relaying,
    pub(super) reflexive: Reflexive,
    pub(super) mapped: Mapped,
    pub(super) carriers: Carriers,
    pub(super) standing: Vec<HealthItem>,
    pub(super) unread: BTreeMap<NetworkId, String>,
}

/// What feeds the driver.
pub(super) struct Inputs {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) found: mpsc::Receiver<NewDoor>,
}

/// What a task of the driver came to.
#[expect(clippy::large_enum_variant, reason = "one at a time, and the largest is the most frequent")]
pub(super) enum TaskDone {
    Dialed {
        peer: PeerId,
        link: Result<Arc<dyn Connection>, dialing::Missed>,
    },
    Called {
        network: NetworkId,
        peer: PeerId,
        link: LinkId,
        call: Call,
        answer: Result<NetResponse, CallError>,
    },
    Joined {
        network: NetworkId,
        done: Box<JoinDone>,
    },
    /// A member's endpoints were looked for in the DHT.
    Sought {
        network: NetworkId,
        peer: PeerId,
        found: Found,
    },
    /// Where we are was said in the DHT; how many nodes took it.
    Said {
        network: NetworkId,
        nodes: usize,
    },
    /// Whoever answers where a member was expected.
    Stranger {
        link: Result<Arc<dyn Connection>, String>,
    },
    /// A relay was found, or not.
    Relayed(Box<relaying::Relayed>),
    /// Somebody was told that another member wants to reach it through us.
    Offered(Box<relaying::Offered>),
    /// A member that a carrier leads to was reached by UDP.
    UdpBack {
        peer: PeerId,
        link: Arc<dyn Connection>,
    },
    /// UDP was looked for and is not there.
    NoUdp,
    /// A pool was chosen for a new network.
    Pool {
        create: Box<founding::Creating>,
        pool: Option<ipnet::Ipv4Net>,
    },
}

/// Why a member was asked something.
#[derive(Debug, Clone)]
pub(super) enum Call {
    /// To compare what both hold.
    Sync,
    /// To say that we still hold the same: this was our head.
    Beat([u8; 32]),
    /// For a page of what we lack.
    Pull,
    /// For more of what proves that we were put out.
    Prove,
    /// To tell news; the campaign that counts who has heard, if any.
    Push(Option<u64>),
    /// To prove to whoever was put out that it was.
    Farewell,
    /// To show which key we had before.
    Introduce,
    /// To let the other show which key it had before.
    Greet,
}

/// The networks of a running node.
pub(super) struct Driver {
    shared: Arc<Shared>,
    store: Store,
    networks: BTreeMap<NetworkId, Network>,
    links: Links,
    tasks: JoinSet<TaskDone>,
    dialing: BTreeSet<PeerId>,
    pulling: BTreeMap<(NetworkId, LinkId), Pulling>,
    /// Calls to compare that are under way.
    syncing: BTreeSet<(NetworkId, LinkId)>,
    campaigns: BTreeMap<u64, Campaign>,
    next_campaign: u64,
    /// Campaigns that begin when what they tell is on disk.
    campaigns_to_come: Vec<ToCome>,
    /// Answers that are given when what they promise is on disk.
    answers: Vec<Box<dyn FnOnce() + Send>>,
    joining: BTreeMap<NetworkId, Joining>,
    /// Joins that wait here for an admin's word with their stream open.
    held: Vec<Held>,
    listen: Vec<SocketAddr>,
    overlay: OwnAddresses,
    name: String,
    dht: Option<dht::Port>,
    views: mpsc::Sender<Arc<Vec<NetworkView>>>,
    /// The state task has not taken the newest views yet.
    untold: bool,
    pools: PoolChooser,
    relaying: Relaying,
    /// Ways that wait for a link.
    ways_wanted: Vec<relaying::WantedWay>,
    /// How often in a row nobody relayed to a peer.
    missed: BTreeMap<PeerId, u32>,
    /// Where members see this node.
    reflexive: Reflexive,
    /// What the router forwards to this node.
    mapped: Mapped,
    /// What takes datagrams where UDP does not pass.
    carriers: Carriers,
    /// Whose turn it is to be looked for by UDP.
    udp_tried: usize,
    standing: Vec<HealthItem>,
    /// Networks in the store that this version cannot read, and why.
    unread: BTreeMap<NetworkId, String>,
    /// Where others can dial this node.
    endpoints: Vec<SocketAddr>,
    endpoints_at: Instant,
    paused: bool,
    /// How often it had been until now.
    downs: u64,
    /// The store did not take a change.
    refusing: Option<Refusing>,
    /// Changes of what is no network in use, and those that the store did not take.
    unsaved: Vec<Change>,
    /// Members looked for in the DHT, and how often that may be.
    sought: BTreeMap<(NetworkId, PeerId), Search>,
    seeks: Allowance,
    /// Who was put out and told so, over which link, and how many answers are awaited on each.
    farewells: BTreeSet<(LinkId, NetworkId)>,
    parting: BTreeMap<LinkId, usize>,
    /// What was said of this node in the DHT.
    said: BTreeMap<NetworkId, Said>,
    /// When we showed somebody which key we had before.
    introduced: BTreeMap<(NetworkId, PeerId), Instant>,
    /// When whoever answers at an address in a member's place was asked who it is.
    greeted: BTreeMap<SocketAddr, Instant>,
    /// Our key is none of any network any more: this run is at its end.
    retired: bool,
    /// A rotation whose members are being told.
    rotation: Option<rotation::UnderWay>,
}

impl Driver {
    pub(super) fn new(parts: Parts, links: Links) -> Self {
        let networks: BTreeMap<NetworkId, Network> =
            parts.networks.into_iter().map(|network| (network.id, network)).collect();
        for id in networks.keys() {
            parts.shared.counts.add_network(*id);
        }
        let mut driver = Self {
            shared: parts.shared,
            store: parts.store,
            networks,
            links,
            tasks: JoinSet::new(),
            dialing: BTreeSet::new(),
            pulling: BTreeMap::new(),
            syncing: BTreeSet::new(),
            campaigns: BTreeMap::new(),
            next_campaign: 0,
            campaigns_to_come: Vec::new(),
            answers: Vec::new(),
            joining: BTreeMap::new(),
            held: Vec::new(),
            listen: parts.listen,
            overlay: parts.overlay,
            name: parts.name,
            dht: parts.dht,
            views: parts.views,
            untold: true,
            pools: parts.pools,
            relaying: parts.relaying,
            ways_wanted: Vec::new(),
            missed: BTreeMap::new(),
            reflexive: parts.reflexive,
            mapped: parts.mapped,
            carriers: parts.carriers,
            udp_tried: 0,
            standing: parts.standing,
            unread: parts.unread,
            endpoints: Vec::new(),
            endpoints_at: clock::now(),
            paused: false,
            downs: 0,
            refusing: None,
            unsaved: Vec::new(),
            sought: BTreeMap::new(),
            seeks: Allowance::default(),
            farewells: BTreeSet::new(),
            parting: BTreeMap::new(),
            said: BTreeMap::new(),
            introduced: BTreeMap::new(),
            greeted: BTreeMap::new(),
            retired: false,
            rotation: None,
        };
        driver.find_endpoints();
        for (id, head) in parts.waiting {
            driver.resume_join(id, head);
        }
        driver
    }

    /// Runs until it is told to stop, or the node has gone.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        let stopped = self.drive(&mut inputs).await;
        self.stop(&mut inputs).await;
        if let Some(done) = stopped {
            let _nobody_waits = done.send(());
        }
    }

    async fn drive(&mut self, inputs: &mut Inputs) -> Option<oneshot::Sender<()>> {
        loop {
            self.settle().await;
            let deadline = self.deadline();
            crate::select! {
                order = inputs.orders.recv() => match order {
                    Some(Order::Stop(done)) => return Some(done),
                    Some(Order::Rotate(rotating)) => self.rotate(*rotating).await,
                    Some(order) => self.on_order(order),
                    None => return None,
                },
                Some(event) = inputs.events.recv() => {
                    self.on_event(event);
                    // What is due after each of a crowd is looked for once.
                    for _ in 1..EVENTS_AT_ONCE {
                        let Ok(event) = inputs.events.try_recv() else { break };
                        self.on_event(event);
                    }
                }
                Some(door) = inputs.found.recv() => self.on_found(&door),
                () = self.mapped.changed() => self.find_endpoints(),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(done) = done {
                        self.on_task(done);
                    }
                }
                () = wait_until(deadline) => {}
            }
        }
    }

    /// Does what is due, until nothing is.
    async fn settle(&mut self) {
        let now = Moment::now();
        let wanted = self.wanted(now);
        if !self.paused && !self.retired {
            self.keep_up(now, &wanted);
        }
        self.links.close_idle(now.mono, &self.shared.own, &wanted);
        self.expire(now.mono);
        self.flush().await;
        self.tell_views(now);
        if self.refusing.is_none() {
            self.put_out(now);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Asked(asked) => self.on_asked(*asked),
            Event::Ended(link, broken) => self.on_ended(link, broken),
        }
    }

    fn on_task(&mut self, done: TaskDone) {
        match done {
            TaskDone::Dialed { peer, link } => self.on_dialed(peer, link),
            TaskDone::Called { network, peer, link, call, answer } => {
                self.on_called(network, peer, link, &call, answer)
            }
            TaskDone::Joined { network, done } => self.on_joined(network, *done),
            TaskDone::Sought { network, peer, found } => self.on_sought(clock::now(), network, peer, found),
            TaskDone::Said { network, nodes } => self.on_said(clock::now(), network, nodes),
            TaskDone::Stranger { link } => self.on_stranger(link),
            TaskDone::Relayed(relayed) => self.on_relayed(*relayed),
            TaskDone::Offered(offered) => self.on_offered(*offered),
            TaskDone::UdpBack { peer, link } => self.on_udp_back(peer, link),
            TaskDone::NoUdp => {}
            TaskDone::Pool { create, pool } => self.create(*create, pool),
        }
    }

    /// Takes a link in and serves its peer on it.
    fn adopt(&mut self, link: NetLink, first: Option<FirstStream>) -> Option<LinkId> {
        let (connection, usage) = (Arc::clone(&link.connection), Arc::clone(&link.usage));
        let id = self.links.insert(link)?;
        let shared = Arc::clone(&self.shared);
        let server = tokio::spawn(async move {
            let broken = Arc::clone(&shared).serve(id, connection, usage, first).await;
            let _stopped = shared.events.send(Event::Ended(id, broken)).await;
        });
        self.links.set_server(id, server.abort_handle());
        Some(id)
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        let Incoming { connection, usage, place, first } = incoming;
        if self.paused {
            connection.close(CloseReason::Shutdown.code(), CloseReason::Shutdown.as_str());
            return;
        }
        let link = NetLink::new(connection, usage, Some(place), clock::now());
        let _always_room = self.adopt(link, Some(first));
    }

    fn adopt_dialed(&mut self, connection: Arc<dyn Connection>) -> Option<LinkId> {
        let now = clock::now();
        self.adopt(NetLink::new(connection, Usage::new(now), None, now), None)
    }

    /// Answers another node. Whoever is no member learns nothing, not even that the network is served here.
    fn on_asked(&mut self, asked: Asked) {
        let Asked { link, from, key, remote, network: id, request, exporter, answer } = asked;
        let now = Moment::now();
        if let NetRequest::Join(request) = request {
            return self.on_join(now, link, (from, remote), id, (&key, &exporter), *request, answer);
        }
        if self.paused {
            return;
        }
        if let NetRequest::Introduce { line } = &request {
            let response = self.on_introduced(now, id, from, link, line);
            return drop(answer.send(response));
        }
        if id == NOT_SAID && matches!(request, NetRequest::Ping) {
            self.introduce_everywhere(now, from, link);
        }
        let response = match self.networks.get_mut(&id) {
            // A node whose key has just been rotated has still to answer who asks for what is around that.
            Some(network) if !self.retired && !network.is_enabled(now.unix_ms) => NetResponse::UnknownNetwork,
            Some(network) if network.is_member(now.unix_ms, &from) => {
                if let NetRequest::RelayOpen(pair) = request {
                    return self.on_relay_open(id, from, link, pair, answer);
                }
                self.serve_member(now, id, from, link, request)
            }
            Some(network) => network.answer_outsider(now, &from, &request),
            None => NetResponse::UnknownNetwork,
        };
        if matches!(response, NetResponse::UnknownNetwork) {
            count(&self.shared.counts.strangers);
        }
        let _link_gone = answer.send(self.withhold(&id, response));
    }

    fn pause(&mut self) {
        if !self.paused {
            self.paused = true;
            self.links.close_all(CloseReason::Shutdown);
            self.pulling.clear();
            self.syncing.clear();
        }
    }

    fn resume(&mut self, downs: u64) {
        if !self.paused && self.downs == downs {
            return;
        }
        (self.paused, self.downs) = (false, downs);
        self.find_endpoints();
        for network in self.networks.values_mut() {
            network.begin_anew(clock::now());
            network.reach = super::overlay::Reach::default();
        }
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
