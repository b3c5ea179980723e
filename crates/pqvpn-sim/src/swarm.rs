// SPDX-License-Identifier: MIT OR Apache-2.0
//! A world of real engines, and the operations experiments are made of.

mod start;
mod sybils;
mod trial;

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::{Dht, DhtConfig, engine::Finished};
use pqvpn_wire::dht::{Payload, Point, Record, RecordDraft};
use rand::{RngExt, rngs::SmallRng, seq::SliceRandom};

pub use sybils::Placement;
pub use trial::{Outcome, Plan, millis};

use crate::{
    adversary::{Coven, Strategy},
    crypto::{KeyRing, Registry},
    reference::Reference,
    seed::Seed,
    world::{Ended, Index, World, net::NetConfig, population::Population},
};

/// The end of one operation of a real engine.
pub type End = Ended<Box<Finished>>;

/// Longest any operation may take before the world gives up on it: engines have a deadline of their own.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A world of [`Dht`]s.
#[derive(Debug)]
pub struct Swarm {
    /// The world they live in.
    pub world: World<Dht>,
    /// Who judges signatures.
    pub registry: Arc<Registry>,
    /// What everybody has put so far.
    pub reference: Reference,
    /// Settings of newly made engines.
    pub config: DhtConfig,
    seed: Seed,
    population: Population,
    dice: SmallRng,
    engines: u64,
    /// All nodes of the start in the random order in which they turn to the adversary.
    ranks: Vec<Index>,
}

impl Swarm {
    /// An empty swarm.
    #[must_use]
    pub fn new(seed: Seed, net: NetConfig, config: DhtConfig) -> Self {
        Self {
            world: World::new(seed, net),
            registry: Arc::new(Registry::new(seed.bytes("registry", 0))),
            reference: Reference::default(),
            seed,
            population: Population::new(seed.rng("population", 0), config.difficulty),
            dice: seed.rng("swarm", 0),
            engines: 0,
            ranks: Vec::new(),
            config,
        }
    }

    /// An engine for a peer, with this swarm's settings.
    pub fn engine(&mut self, peer: PeerId) -> Dht {
        self.engines += 1;
        let seed = self.seed.bytes("engine", self.engines);
        let verifier = Arc::clone(&self.registry);
        Dht::new(self.world.now(), self.config.clone(), peer, verifier, seed)
    }

    /// Turns a share of the nodes, rounded, into colluders; a larger share holds every smaller one.
    pub fn corrupt(&mut self, share: f64, strategy: Option<Box<dyn Strategy>>) {
        if self.ranks.is_empty() {
            self.ranks = self.world.living(|node| !node.place.nat);
            self.ranks.shuffle(&mut self.dice);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
        let count = (share * crate::stats::float(self.ranks.len() as u64)).round() as usize;
        for (rank, index) in self.ranks.iter().enumerate() {
            self.world.nodes[*index as usize].colluder = rank < count;
        }
        self.brief();
        self.world.conspire(strategy);
    }

    /// Tells the coven who is who now.
    pub fn brief(&mut self) {
        let contacts = |colluders: bool| -> Vec<_> {
            let nodes = self.world.nodes.iter().filter(|node| node.alive && node.colluder == colluders);
            nodes.map(|node| Arc::clone(&node.contact)).collect()
        };
        let (members, honest) = (contacts(true), contacts(false));
        let ring = KeyRing::new(Arc::clone(&self.registry), members.iter().map(|member| *member.peer()));
        self.world.coven = Coven::new(members, honest, ring);
    }

    /// Honest nodes that live and serve, ascending.
    #[must_use]
    pub fn honest(&self) -> Vec<Index> {
        self.world.living(|node| !node.colluder && node.engine.is_some() && !node.place.nat)
    }

    /// A value of its owner's, signed, valid for 24 h from now.
    pub fn value(&mut self, owner: Index, name: &str, seq: u64) -> Arc<Record> {
        let owner = *self.world.nodes[owner as usize].contact.peer();
        let now = self.world.now().unix_ms;
        let draft = RecordDraft {
            network: self.config.network,
            owner,
            week: 0,
            seq,
            not_before_ms: now,
            not_after_ms: now + 24 * 3_600_000,
            payload: Payload::Value { name: name.to_owned(), value: seq.to_be_bytes().to_vec() },
            heartbeat_anchor: [0; 32],
        };
        let ring = KeyRing::new(Arc::clone(&self.registry), [owner]);
        Arc::new(ring.sign(draft).expect("the owner is on the ring"))
    }

    /// Begins a find.
    pub fn find(&mut self, node: Index, target: Point) -> Option<u64> {
        self.world.begin(node, |dht, now| dht.find(now, target).map(|id| id.0))
    }

    /// Begins a get.
    pub fn get(&mut self, node: Index, key: Point) -> Option<u64> {
        self.world.begin(node, |dht, now| dht.get(now, key, 0).map(|id| id.0))
    }

    /// Begins a put, and tells the reference.
    pub fn put(&mut self, node: Index, record: &Arc<Record>) -> Option<u64> {
        self.reference.put(record);
        self.world.begin(node, |dht, now| dht.put(now, Arc::clone(record)).map(|id| id.0))
    }

    /// Lets everything begun come to its end.
    pub fn finish(&mut self) -> Vec<End> {
        self.world.finish(PATIENCE)
    }

    /// True with this probability.
    pub fn toss(&mut self, probability: f64) -> bool {
        self.dice.random_bool(probability)
    }

    /// Lets [`Swarm::corrupt`] choose among the nodes living now.
    pub fn enrol(&mut self) {
        self.ranks.clear();
        self.brief();
    }

    /// A point at random.
    pub fn point(&mut self) -> Point {
        Point::from_bytes(self.dice.random())
    }

    /// `count` of these nodes at random, or all.
    pub fn choose(&mut self, of: &[Index], count: usize) -> Vec<Index> {
        let mut of = of.to_vec();
        let (chosen, _) = of.partial_shuffle(&mut self.dice, count);
        chosen.to_vec()
    }
}
