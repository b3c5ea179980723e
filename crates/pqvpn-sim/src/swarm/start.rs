// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a swarm begins: converged at once, or joining one by one through bootstrap nodes.

use std::{sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::{Dht, DhtConfig};
use pqvpn_wire::dht::Contact;
use rand::{RngExt, rngs::SmallRng, seq::SliceRandom};

use super::Swarm;
use crate::{
    reference,
    seed::Seed,
    world::{Index, atlas::Atlas, net::NetConfig},
};

impl Swarm {
    /// A swarm of `nodes` whose tables are those of a converged network: in every bucket up to k contacts at random
    /// among all there are. Timers of upkeep are off until [`Swarm::set_upkeep`].
    #[must_use]
    pub fn converged(seed: Seed, nodes: usize, net: NetConfig, config: DhtConfig) -> Self {
        let mut swarm = Self::new(seed, net, config);
        for _ in 0..nodes {
            swarm.newcomer(false);
        }
        swarm.set_upkeep(false);
        let atlas = reference::atlas(&swarm.world, |_| true);
        for index in swarm.world.living(|_| true) {
            swarm.fill(index, &atlas);
        }
        swarm
    }

    /// Adds a node with a fresh identity that knows nobody. Behind NAT it only asks.
    pub fn newcomer(&mut self, nat: bool) -> Index {
        let contact = self.population.newcomer(self.world.now().unix_ms);
        let mut engine = self.engine(*contact.peer());
        if !nat {
            engine.set_contact(self.world.now(), Some((*contact).clone()));
        }
        let index = self.world.add(contact, Some(engine));
        self.world.nodes[index as usize].place.nat = nat;
        index
    }

    /// Fills a node's table as convergence would have.
    pub fn fill(&mut self, index: Index, atlas: &Atlas) {
        let own = *self.world.nodes[index as usize].contact.node_id();
        let mut dice = self.seed.rng("table", u64::from(index));
        let contacts = converged_table(&self.world.nodes, own, atlas, self.config.k, &mut dice);
        self.world.with(index, |dht, now| dht.seed_table(now, &contacts));
    }

    /// Turns the timers of all nodes on or off.
    pub fn set_upkeep(&mut self, on: bool) {
        for node in &mut self.world.nodes {
            node.upkeep = on;
        }
        if on {
            for index in self.world.living(|_| true) {
                self.world.with(index, |_, _| ());
            }
        }
    }

    /// Lets every node have met its contacts at their addresses before, as it would have while its table filled.
    pub fn acquaint(&mut self) {
        for index in self.world.living(|node| node.engine.is_some()) {
            let engine = self.world.nodes[index as usize].engine.as_ref();
            let contacts = engine.map_or_else(Vec::new, |engine| {
                engine.table().iter().map(|entry| Arc::clone(entry.contact())).collect()
            });
            self.world.has_met(index, &contacts);
        }
    }

    /// Gives a node a fresh engine with these settings and the table of a converged network.
    pub fn renew(&mut self, index: Index, paths: usize, atlas: &Atlas) {
        let contact = Arc::clone(&self.world.nodes[index as usize].contact);
        let common = std::mem::replace(&mut self.config.paths, paths);
        let mut engine = self.engine(*contact.peer());
        self.config.paths = common;
        if !self.world.nodes[index as usize].place.nat {
            engine.set_contact(self.world.now(), Some((*contact).clone()));
        }
        self.world.restart(index, engine);
        self.fill(index, atlas);
    }

    /// Lets a node join through `doors`.
    pub fn join(&mut self, index: Index, doors: &[Index]) {
        let known: Vec<(PeerId, Vec<_>)> = doors
            .iter()
            .map(|door| &self.world.nodes[*door as usize].contact)
            .map(|contact| (*contact.peer(), contact.addresses().to_vec()))
            .collect();
        self.world.with(index, |dht: &mut Dht, now| dht.bootstrap(now, known));
    }

    /// A swarm whose nodes all join within `span`, evenly, through the first `doors` of them; the last of `nats` of them
    /// are behind NAT.
    #[must_use]
    pub fn joining(
        seed: Seed,
        nodes: usize,
        (doors, nats): (usize, usize),
        span: Duration,
        net: NetConfig,
        config: DhtConfig,
    ) -> Self {
        let mut swarm = Self::new(seed, net, config);
        let step = span / u32::try_from(nodes.max(1)).unwrap_or(u32::MAX);
        let mut known: Vec<Index> = Vec::new();
        for number in 0..nodes {
            let index = swarm.newcomer(number + nats >= nodes);
            let doors_now = known.clone();
            swarm.join(index, &doors_now);
            if number < doors {
                known.push(index);
            }
            swarm.world.run_for(step);
        }
        swarm
    }

    /// One node leaves for good and a fresh one joins through three of `doors`; returns the newcomer.
    pub fn turn_over(&mut self, leaving: Index, doors: &[Index]) -> Index {
        self.world.kill(leaving);
        let doors = self.choose(doors, 3);
        let index = self.newcomer(false);
        self.join(index, &doors);
        index
    }

    /// Churn: for `span`, `per_hour` of the swarm leaves an hour, Poisson, and as many fresh nodes join through `doors`,
    /// which stay. `each` sees the swarm after every change.
    pub fn churn(&mut self, per_hour: f64, span: Duration, doors: &[Index], mut each: impl FnMut(&mut Self, Index)) {
        let until = self.world.now().mono + span;
        let size = crate::stats::float(self.world.living(|_| true).len() as u64);
        let rate = size * per_hour / 3600.0;
        if rate <= 0.0 {
            self.world.run_until(until);
            return;
        }
        let mut leavers = self.world.living(|_| true);
        leavers.retain(|index| !doors.contains(index));
        loop {
            let wait = -(1.0 - self.dice.random::<f64>()).ln() / rate;
            let at = self.world.now().mono + Duration::from_secs_f64(wait);
            if at > until || leavers.is_empty() {
                self.world.run_until(until);
                return;
            }
            self.world.run_until(at);
            let pick = self.dice.random_range(0..leavers.len());
            let newcomer = self.turn_over(leavers[pick], doors);
            leavers[pick] = newcomer;
            each(self, newcomer);
        }
    }
}

/// Up to `k` nodes at random of every bucket.
fn converged_table(
    nodes: &[crate::world::Node<Dht>],
    own: pqvpn_wire::dht::Point,
    atlas: &Atlas,
    k: usize,
    dice: &mut SmallRng,
) -> Vec<Arc<Contact>> {
    let mut contacts = Vec::new();
    for bits in 0..256 {
        let members = atlas.bucket(&own, bits);
        let mut numbers: Vec<Index> = if members.len() > 4 * k {
            // Twice k draws almost always hold k different ones; the table refuses the repeated.
            (0..k + k / 4).map(|_| members[dice.random_range(0..members.len())].1).collect()
        } else {
            members.iter().map(|(_, number)| *number).collect()
        };
        numbers.sort_unstable();
        numbers.dedup();
        numbers.shuffle(dice);
        numbers.truncate(k);
        contacts.extend(numbers.into_iter().map(|number| Arc::clone(&nodes[number as usize].contact)));
        // Deeper buckets are empty once nobody shares more bits than this.
        if atlas.prefix(&own, bits + 1).len() <= 1 {
            break;
        }
    }
    contacts
}
