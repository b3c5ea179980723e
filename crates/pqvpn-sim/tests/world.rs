// SPDX-License-Identifier: MIT OR Apache-2.0
//! The world itself, driven by a toy engine: time, links, silence, partitions, NAT, and the same run from the same seed.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::Now;
use pqvpn_sim::{
    adversary::{Coven, strategy},
    crypto::{KeyRing, Registry},
    engine::{Effect, Engine, Failure},
    seed::Seed,
    world::{World, net::NetConfig, population::Population},
};
use pqvpn_wire::dht::{Contact, Request, Response};

const MS: Duration = Duration::from_millis(1);
const SERVICE: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends pings on command, answers them, and writes down what comes back.
#[derive(Debug, Default)]
struct Toy {
    outbox: VecDeque<Effect<Seen>>,
    alarm: Option<Duration>,
    peers: Vec<Arc<Contact>>,
    asked: u64,
    /// Its contacts are strangers' word.
    is_forgetful: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Pong,
    Failed(Failure),
}

impl Toy {
    fn ping(&mut self, to: &Arc<Contact>, dial: bool) -> u64 {
        self.asked += 1;
        let (query, to) = (self.asked, Arc::clone(to));
        self.outbox.push_back(Effect::Query { query, to, request: Request::Ping, timeout: PATIENCE, dial });
        query
    }
}

impl Engine for Toy {
    type Done = Seen;

    fn on_request(&mut self, _: Now, _: &PeerId, at: SocketAddr, _: Option<Arc<Contact>>, _: Request) -> Response {
        Response::Pong { observed: at }
    }

    fn remembers(&self, _: &Contact) -> bool {
        !self.is_forgetful
    }

    fn on_response(&mut self, _: Now, query: u64, _: SocketAddr, _: Option<Arc<Contact>>, _: Response, _: Duration) {
        self.outbox.push_back(Effect::Done { operation: query, done: Seen::Pong });
    }

    fn on_failure(&mut self, _: Now, query: u64, failure: Failure) {
        self.outbox.push_back(Effect::Done { operation: query, done: Seen::Failed(failure) });
    }

    fn on_admission(&mut self, _: Now, _: &Contact, _: bool) {}

    fn next_timeout(&self) -> Option<Duration> {
        self.alarm
    }

    fn on_timeout(&mut self, now: Now) {
        self.alarm = Some(now.mono + 100 * MS);
        let next = usize::try_from(self.asked).unwrap_or(0) % self.peers.len().max(1);
        if let Some(peer) = self.peers.get(next).cloned() {
            self.ping(&peer, false);
        }
    }

    fn poll(&mut self) -> Option<Effect<Seen>> {
        self.outbox.pop_front()
    }
}

fn world(net: NetConfig, nodes: usize) -> World<Toy> {
    let mut world = World::new(Seed(3), net);
    let mut population = Population::new(Seed(3).rng("population", 0), 512);
    for _ in 0..nodes {
        let contact = population.newcomer(world.now().unix_ms);
        world.add(contact, Some(Toy::default()));
    }
    world
}

/// Lets node `from` ping a contact; what it saw and how long it took.
fn ping(world: &mut World<Toy>, from: u32, to: &Arc<Contact>, dial: bool) -> (Seen, Duration) {
    assert!(world.begin(from, |toy, _| Some(toy.ping(to, dial))).is_some());
    let ended = world.finish(Duration::from_secs(60));
    assert_eq!(ended.len(), 1);
    (ended[0].done, ended[0].ended - ended[0].began)
}

fn contact(world: &World<Toy>, index: u32) -> Arc<Contact> {
    Arc::clone(&world.nodes[index as usize].contact)
}

#[test]
fn a_cold_link_costs_one_round_trip_more() {
    let mut world = world(NetConfig::constant(50 * MS), 2);
    let to = contact(&world, 1);
    assert_eq!(ping(&mut world, 0, &to, false), (Seen::Pong, 200 * MS + SERVICE));
    assert_eq!(ping(&mut world, 0, &to, false), (Seen::Pong, 100 * MS + SERVICE));
    assert_eq!(world.tally.dials, 1);
    world.run_for(Duration::from_secs(300));
    assert_eq!(ping(&mut world, 0, &to, false), (Seen::Pong, 200 * MS + SERVICE));
}

#[test]
fn the_dead_and_the_parted_are_silent_until_the_timeout() {
    let mut world = world(NetConfig::constant(50 * MS), 3);
    let (dead, far) = (contact(&world, 1), contact(&world, 2));
    world.kill(1);
    world.nodes[2].place.group = 1;
    world.net.parted = true;
    assert_eq!(ping(&mut world, 0, &dead, false), (Seen::Failed(Failure::Timeout), PATIENCE));
    assert_eq!(ping(&mut world, 0, &far, false), (Seen::Failed(Failure::Timeout), PATIENCE));
    world.net.parted = false;
    assert_eq!(ping(&mut world, 0, &far, false).0, Seen::Pong);
}

#[test]
fn a_node_behind_nat_is_reached_over_its_own_link_only() {
    let mut world = world(NetConfig::constant(50 * MS), 2);
    let (open, hidden) = (contact(&world, 0), contact(&world, 1));
    world.nodes[1].place.nat = true;
    assert_eq!(ping(&mut world, 0, &hidden, false).0, Seen::Failed(Failure::Timeout));
    assert_eq!(ping(&mut world, 1, &open, false).0, Seen::Pong);
    assert_eq!(ping(&mut world, 0, &hidden, false).0, Seen::Pong);
    assert_eq!(ping(&mut world, 0, &hidden, true).0, Seen::Failed(Failure::Timeout), "a dial must prove the address");
}

#[test]
fn the_wrong_peer_at_an_address_is_found_out_by_the_handshake() {
    let mut world = world(NetConfig::constant(50 * MS), 3);
    let (one, other) = (contact(&world, 1), contact(&world, 2));
    let bait = Arc::new(Contact::new(*one.peer(), *one.admission(), other.addresses().to_vec()));
    world.bait.insert(other.addresses()[0], 0);
    assert_eq!(ping(&mut world, 0, &bait, false), (Seen::Failed(Failure::Unreachable), 100 * MS));
    assert_eq!(world.bait[&other.addresses()[0]], 1);
    // Over a link that is already there, a wrong address does no harm.
    assert_eq!(ping(&mut world, 0, &one, false).0, Seen::Pong);
    assert_eq!(ping(&mut world, 0, &bait, false).0, Seen::Pong);
}

/// Node 1 as others name it, where the given ones are, and a world in which node 0 knows it by that word alone.
fn named_elsewhere(there: &[u32]) -> (World<Toy>, Arc<Contact>) {
    let mut world = world(NetConfig::constant(50 * MS), 4);
    world.nodes[0].engine = Some(Box::new(Toy { is_forgetful: true, ..Toy::default() }));
    let addresses = there.iter().map(|index| contact(&world, *index).addresses()[0]).collect();
    let one = contact(&world, 1);
    let named = Contact::new(*one.peer(), *one.admission(), addresses);
    (world, Arc::new(named))
}

#[test]
fn a_dial_on_others_word_meets_all_who_answer() {
    let (mut world, named) = named_elsewhere(&[2, 3]);
    assert_eq!(ping(&mut world, 0, &named, false).0, Seen::Failed(Failure::Unreachable));
    for index in [2, 3] {
        let there = contact(&world, index);
        assert_eq!(ping(&mut world, 0, &there, false).0, Seen::Pong, "within the minute");
    }
    assert_eq!(ping(&mut world, 0, &named, false).0, Seen::Failed(Failure::Local));
}

#[test]
fn a_dial_by_the_name_of_who_was_met_does_not_tell_who_is_there_now() {
    let (mut world, named) = named_elsewhere(&[2]);
    assert_eq!(ping(&mut world, 0, &named, false).0, Seen::Failed(Failure::Unreachable));
    world.has_met(0, std::slice::from_ref(&named));
    assert_eq!(ping(&mut world, 0, &named, false).0, Seen::Failed(Failure::Unreachable), "it was met there");
    let there = contact(&world, 2);
    assert_eq!(ping(&mut world, 0, &there, false).0, Seen::Failed(Failure::Local), "the turn of names is taken");
    world.run_for(Duration::from_secs(60));
    assert_eq!(ping(&mut world, 0, &there, false).0, Seen::Pong, "no longer than a minute");
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let run = |seed: u64, loss: f64| {
        let net = NetConfig { loss, ..NetConfig::default() };
        let mut world: World<Toy> = World::new(Seed(seed), net);
        let mut population = Population::new(Seed(seed).rng("population", 0), 512);
        let contacts: Vec<_> = (0..50).map(|_| population.newcomer(world.now().unix_ms)).collect();
        for contact in &contacts {
            let toy = Toy { peers: contacts.clone(), alarm: Some(MS), ..Toy::default() };
            world.add(Arc::clone(contact), Some(toy));
        }
        world.run_for(Duration::from_secs(60));
        (world.event_hash(), world.tally)
    };
    let first = run(1, 0.05);
    assert_eq!(first, run(1, 0.05));
    assert_ne!(first.0, run(2, 0.05).0);
    assert_ne!(first.0, run(1, 0.0).0);
    assert!(first.1.events > 80_000, "{:?}", first.1);
}

#[test]
fn a_flooded_processor_answers_late() {
    let mut world = world(NetConfig::constant(MS), 101);
    let victim = contact(&world, 0);
    for member in &mut world.nodes[1..101] {
        member.colluder = true;
    }
    let members: Vec<_> = (1..101).map(|index| contact(&world, index)).collect();
    let ring = KeyRing::new(Arc::new(Registry::new([1; 32])), members.iter().map(|member| *member.peer()));
    world.coven = Coven::new(members, vec![Arc::clone(&victim)], ring);
    world.conspire(strategy("flood"));
    world.run_for(3 * Duration::from_secs(1));
    // 100 colluders ask 50 times a second; one answer takes 0.5 ms, so requests wait for two and a half seconds.
    assert!(world.tally.requests >= 15_000);
    assert!(world.tally.timeouts == 0, "flooders do not wait");
    let begun = world.begin(100, |toy, _| Some(toy.ping(&victim, false)));
    assert!(begun.is_some());
    let ended = world.finish(Duration::from_secs(10));
    assert!(ended[0].ended - ended[0].began > Duration::from_millis(500));
}
