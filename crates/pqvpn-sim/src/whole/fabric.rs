// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network of a world: who is where, what reaches whom, how late, how often; and what everybody saw.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use pqvpn_crypto::{identity::Identity, kdf::Sid, peer_id::PeerId, schedule::Direction};
use pqvpn_dataplane::way::{Forward, ForwardStats, Way, WayId};
use pqvpn_node::sim::{Host, SimNode, Wire};
use rand::{RngExt, rngs::SmallRng};

use super::{
    link::{Core, Listener},
    log::Log,
};
use crate::seed::Seed;

/// Datagrams that are kept to be sent again by somebody else.
const RECORDED: usize = 256;
/// How long a router lets answers in.
const OPEN_FOR: Duration = Duration::from_secs(60);
/// Openings of a router that are kept.
const MAX_OPEN: usize = 256;
/// Port of every node.
pub(super) const PORT: u16 = 41641;
/// The grain of delays: no two moments of the network are the same within a millisecond.
const GRAIN: Duration = Duration::from_millis(1);

/// What the network does to datagrams now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weather {
    /// Share that is lost.
    pub loss: f64,
    /// Share that comes twice.
    pub twice: f64,
    /// Longest further delay, which also changes their order, in ms.
    pub jitter_ms: u64,
}

/// Nothing is lost, nothing is late.
pub(super) const CALM: Weather = Weather { loss: 0.0, twice: 0.0, jitter_ms: 0 };

/// One host as the network knows it.
pub(super) struct Place {
    pub(super) identity: Arc<Identity>,
    pub(super) peer: PeerId,
    pub(super) host: Arc<Host>,
    /// Where others see it.
    pub(super) at: SocketAddr,
    /// Whether a router before it lets in only answers.
    pub(super) behind_router: bool,
    /// Counts its starts.
    pub(super) boot: u64,
    pub(super) node: Option<Arc<SimNode>>,
    pub(super) listener: Option<Weak<Listener>>,
    opened: BTreeMap<SocketAddr, Instant>,
    ways: BTreeMap<WayId, (SocketAddr, u64, u64)>,
    forwards: BTreeMap<u64, (Forward, ForwardStats)>,
    moves: u16,
}

/// A datagram as somebody on the path saw it.
#[derive(Debug, Clone)]
pub(super) struct Recorded {
    pub(super) to: usize,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Inner {
    pub(super) places: Vec<Place>,
    pub(super) weather: Weather,
    /// Pairs of hosts between which nothing passes.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) log: Log,
    pub(super) recorded: VecDeque<Recorded>,
    pub(super) links: BTreeMap<u64, Weak<Core>>,
    pub(super) next_link: u64,
    pub(super) dice: SmallRng,
    distances: u64,
    last: Instant,
}

/// The network; cheap to clone.
#[derive(Clone)]
pub(super) struct Fabric(Arc<Mutex<Inner>>);

impl std::fmt::Debug for Fabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fabric")
    }
}

impl Place {
    fn new(number: usize, behind_router: bool) -> Self {
        let identity = super::people::identity(number);
        let mut place = Self {
            peer: identity.peer_id(),
            identity,
            host: Host::new(Vec::new()),
            at: SocketAddr::from(([0, 0, 0, 0], 0)),
            behind_router,
            boot: 0,
            node: None,
            listener: None,
            opened: BTreeMap::new(),
            ways: BTreeMap::new(),
            forwards: BTreeMap::new(),
            moves: 0,
        };
        place.move_on(number);
        place
    }

    /// Takes another address.
    fn move_on(&mut self, number: usize) {
        self.moves += 1;
        let [high, low] = self.moves.to_be_bytes();
        let number = u8::try_from(number).unwrap_or(u8::MAX);
        let outside = IpAddr::from([20 + high, number, low, 7]);
        self.at = SocketAddr::new(outside, PORT);
        self.opened.clear();
        let own = if self.behind_router { IpAddr::from([192, 168, low, 10 + number]) } else { outside };
        self.host.set_addresses(vec![own]);
    }
}

impl Inner {
    /// Where a datagram from a host to an address ends, and where it seems to come from there.
    pub(super) fn route(&mut self, from: usize, to: SocketAddr) -> Option<(usize, SocketAddr)> {
        let Some(way) = WayId::of(to) else { return self.direct(from, to) };
        let (relay, out, _) = *self.places[from].ways.get(&way)?;
        let (middle, seen) = self.direct(from, relay)?;
        let forward = self.places[middle].forwards.get(&out).map(|(forward, _)| forward.clone())?;
        if forward.from != seen {
            return None;
        }
        let (end, seen) = self.direct(middle, forward.to)?;
        let back =
            self.places[end].ways.iter().find(|(_, (relay, _, into))| *relay == seen && *into == forward.out_channel);
        let back = back.map(|(id, _)| id.address())?;
        if let Some((_, stats)) = self.places[middle].forwards.get_mut(&out) {
            (stats.packets, stats.last) = (stats.packets + 1, Some(tokio::time::Instant::now().into_std()));
        }
        Some((end, back))
    }

    fn direct(&mut self, from: usize, to: SocketAddr) -> Option<(usize, SocketAddr)> {
        let now = tokio::time::Instant::now().into_std();
        let source = self.places[from].at;
        if self.places[from].behind_router {
            let opened = &mut self.places[from].opened;
            opened.retain(|_, at| now.saturating_duration_since(*at) < OPEN_FOR);
            if opened.len() < MAX_OPEN {
                opened.insert(to, now);
            }
        }
        let end = self.places.iter().position(|place| place.at == to)?;
        if end == from || self.is_cut(from, end) {
            return None;
        }
        let place = &self.places[end];
        let open = |at: &Instant| now.saturating_duration_since(*at) < OPEN_FOR;
        if place.behind_router && !place.opened.get(&source).is_some_and(open) {
            return None;
        }
        Some((end, source))
    }

    pub(super) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// One way between two hosts, without weather.
    pub(super) fn distance(&self, a: usize, b: usize) -> Duration {
        let (low, high) = (a.min(b) as u64, a.max(b) as u64);
        let mixed = (self.distances ^ (low << 8 | high)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        GRAIN * u32::try_from(4 + mixed % 40).unwrap_or(4)
    }

    pub(super) fn delay(&mut self, a: usize, b: usize) -> Duration {
        let jitter = self.dice.random_range(0..=self.weather.jitter_ms);
        self.distance(a, b) + Duration::from_millis(jitter)
    }

    /// A moment in the future that is nobody else's, so that the order of things does not depend on the runtime.
    pub(super) fn moment(&mut self, delay: Duration) -> Instant {
        let now = tokio::time::Instant::now().into_std();
        self.last = self.last.max(now);
        now + delay
    }

    pub(super) fn is_lost(&mut self) -> bool {
        let loss = self.weather.loss;
        loss > 0.0 && self.dice.random_bool(loss)
    }

    pub(super) fn of_peer(&self, peer: &PeerId) -> Option<usize> {
        self.places.iter().position(|place| place.peer == *peer)
    }
}

impl Fabric {
    /// A network of so many hosts, some of them behind routers.
    #[must_use]
    pub(super) fn new(seed: Seed, hosts: usize) -> Self {
        let mut dice = seed.rng("fabric", 0);
        let places = (0..hosts).map(|number| Place::new(number, number > 1 && dice.random_bool(0.25))).collect();
        let distances = dice.random();
        let last = tokio::time::Instant::now().into_std();
        Self(Arc::new(Mutex::new(Inner {
            places,
            weather: CALM,
            cut: BTreeSet::new(),
            log: Log::new(hosts),
            recorded: VecDeque::new(),
            links: BTreeMap::new(),
            next_link: 0,
            dice,
            distances,
            last,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a host to another address; its node may be told at once or find out.
    pub(super) fn roam(&self, number: usize, told: bool) {
        let mut inner = self.lock();
        inner.places[number].move_on(number);
        let node = inner.places[number].node.clone().filter(|_| told);
        drop(inner);
        if let Some(node) = node {
            node.network_changed();
        }
    }

    /// The router before a host gives it another port.
    pub(super) fn rebind(&self, number: usize) {
        let mut inner = self.lock();
        let port = inner.dice.random_range(1024..60_000);
        let place = &mut inner.places[number];
        if place.behind_router {
            place.at.set_port(port);
            place.opened.clear();
        }
    }

    /// Hands a datagram to whoever is at an address, as if it came from another one.
    pub(super) fn inject(&self, to: usize, from: SocketAddr, mut bytes: Vec<u8>) {
        let node = self.lock().places[to].node.clone();
        if let Some(node) = node {
            node.receive(from, &mut bytes);
        }
    }

    fn send(&self, from: usize, to: SocketAddr, bytes: Vec<u8>, hops: Option<u8>) {
        let mut inner = self.lock();
        let Some((end, seen)) = inner.route(from, to) else { return };
        if hops.is_some() {
            return;
        }
        if inner.recorded.len() == RECORDED {
            inner.recorded.pop_front();
        }
        inner.recorded.push_back(Recorded { to: end, bytes: bytes.clone() });
        let copies = if inner.is_lost() {
            0
        } else {
            let twice = inner.weather.twice;
            1 + usize::from(twice > 0.0 && inner.dice.random_bool(twice))
        };
        inner.log.datagrams += 1;
        for _ in 0..copies {
            let delay = inner.delay(from, end);
            let at = inner.moment(delay);
            let (fabric, bytes, boot) = (self.clone(), bytes.clone(), inner.places[end].boot);
            tokio::spawn(async move {
                tokio::time::sleep_until(at.into()).await;
                fabric.arrive(end, boot, from, seen, bytes);
            });
        }
    }

    fn arrive(&self, end: usize, boot: u64, from: usize, seen: SocketAddr, mut bytes: Vec<u8>) {
        let inner = self.lock();
        if inner.places[end].boot != boot || inner.is_cut(from, end) {
            return;
        }
        let node = inner.places[end].node.clone();
        drop(inner);
        if let Some(node) = node {
            node.receive(seen, &mut bytes);
        }
    }
}

/// The wire of one host.
pub(super) struct HostWire {
    pub(super) fabric: Fabric,
    pub(super) number: usize,
    pub(super) boot: u64,
}

impl HostWire {
    fn is_current(&self, inner: &Inner) -> bool {
        inner.places[self.number].boot == self.boot
    }
}

impl Wire for HostWire {
    fn send(&self, to: SocketAddr, datagram: Vec<u8>, hops: Option<u8>) {
        if self.is_current(&self.fabric.lock()) {
            self.fabric.send(self.number, to, datagram, hops);
        }
    }

    fn sealed(&self, keys: (Sid, Direction), counter: u64) {
        self.fabric.lock().log.sealed(self.number, keys, counter);
    }

    fn delivered(&self, from: PeerId, packet: &[u8]) {
        let mut inner = self.fabric.lock();
        let sender = inner.of_peer(&from);
        let views = inner.places[self.number].host.views();
        inner.log.delivered(self.number, sender, &from, packet, &views);
    }

    fn installed(&self, peer: PeerId) {
        let mut inner = self.fabric.lock();
        let views = inner.places[self.number].host.views();
        inner.log.installed(self.number, &peer, &views);
    }

    fn set_way(&self, id: WayId, way: Option<Way>) {
        let mut inner = self.fabric.lock();
        let ways = &mut inner.places[self.number].ways;
        match way {
            Some(Way::Relay { relay, out_channel, in_channel }) => {
                ways.insert(id, (relay, out_channel, in_channel));
            }
            Some(Way::Carried(_)) => {}
            None => drop(ways.remove(&id)),
        }
        let ways = inner.places[self.number].ways.len();
        inner.log.ways = inner.log.ways.max(ways);
    }

    fn set_forward(&self, channel: u64, forward: Option<Forward>) {
        let mut inner = self.fabric.lock();
        let forwards = &mut inner.places[self.number].forwards;
        match forward {
            Some(forward) => {
                let stats = ForwardStats { last: Some(tokio::time::Instant::now().into_std()), ..Default::default() };
                forwards.insert(channel, (forward, stats));
            }
            None => drop(forwards.remove(&channel)),
        }
    }

    fn forward_stats(&self, channel: u64) -> Option<ForwardStats> {
        self.fabric.lock().places[self.number].forwards.get(&channel).map(|(_, stats)| *stats)
    }
}

impl Inner {
    /// What a host had in memory is gone.
    pub(super) fn forget(&mut self, number: usize) -> Option<Arc<SimNode>> {
        let place = &mut self.places[number];
        place.boot += 1;
        place.listener = None;
        place.ways.clear();
        place.forwards.clear();
        place.node.take()
    }

    /// Ways and forwards of a host.
    pub(super) fn relaying(&self, number: usize) -> (usize, usize) {
        (self.places[number].ways.len(), self.places[number].forwards.len())
    }
}
