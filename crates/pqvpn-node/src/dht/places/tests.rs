// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bounds on strangers, each with the attempt to break it.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use pqvpn_crypto::schedule::Role;
use pqvpn_dataplane::way::WayId;

use super::*;
use crate::link::fake::Fake;

/// A stranger in its place.
struct Stranger {
    link: Arc<Fake>,
    usage: Arc<Usage>,
    _place: Place,
}

impl Stranger {
    fn is_closed(&self) -> bool {
        self.link.is_closed()
    }
}

struct World {
    places: Arc<Places>,
    start: Instant,
    arrived: u32,
}

impl World {
    fn new(limit: usize) -> Self {
        Self { places: Places::for_strangers(limit, MAX_PER_STRANGER), start: Instant::now(), arrived: 0 }
    }

    /// The next stranger arrives, a second after the last.
    fn arrive(&mut self, peer: u32, from: [u8; 4]) -> Result<Stranger, NoPlace> {
        self.arrive_at(peer, SocketAddr::from((from, 1000)))
    }

    fn arrive_at(&mut self, peer: u32, from: SocketAddr) -> Result<Stranger, NoPlace> {
        self.arrived += 1;
        let mut id = [0; 32];
        id[..4].copy_from_slice(&peer.to_be_bytes());
        let link = Arc::new(Fake::new(PeerId::from_bytes(id), from, Role::Responder));
        let usage = Usage::new(self.start + Duration::from_secs(self.arrived.into()));
        let as_link: Arc<dyn Connection> = Arc::clone(&link) as Arc<dyn Connection>;
        let place = self.places.enter(&as_link, &usage)?;
        Ok(Stranger { link, usage, _place: place })
    }
}

fn somewhere(n: u32) -> [u8; 4] {
    (0x0b00_0000 + n * 256).to_be_bytes()
}

#[test]
fn strangers_never_hold_more_than_their_places_and_the_idlest_leaves() {
    let mut world = World::new(16);
    let inside: Vec<_> = (0..16).map(|n| world.arrive(n, somewhere(n)).unwrap()).collect();
    let _in_use = inside[0].usage.begin(world.start);
    let late = world.arrive(99, somewhere(99)).unwrap();
    assert_eq!(world.places.len(), 16);
    assert!(!inside[0].is_closed(), "the oldest is in use");
    assert!(inside[1].is_closed() && !inside[2].is_closed() && !late.is_closed(), "the next oldest left");
    assert_eq!(world.places.counts(), (1, 0));
    drop((inside, late));
    assert_eq!(world.places.len(), 0, "places are given back");
}

#[test]
fn when_everybody_is_busy_a_newcomer_is_refused() {
    let mut world = World::new(4);
    let inside: Vec<_> = (0..4).map(|n| world.arrive(n, somewhere(n)).unwrap()).collect();
    let busy: Vec<_> = inside.iter().map(|stranger| stranger.usage.begin(world.start)).collect();
    assert_eq!(world.arrive(9, somewhere(9)).err(), Some(NoPlace::Full));
    assert_eq!((world.places.len(), world.places.counts()), (4, (0, 1)));
    drop(busy);
    assert!(world.arrive(9, somewhere(9)).is_ok());
}

#[test]
fn one_public_network_takes_only_its_share_and_closes_only_its_own() {
    let mut world = World::new(64);
    let elsewhere = world.arrive(1000, somewhere(1)).unwrap();
    let flood: Vec<_> = (0..20).map(|n| world.arrive(n, [203, 0, 114, n as u8]).unwrap()).collect();
    assert_eq!(flood.iter().filter(|stranger| !stranger.is_closed()).count(), MAX_PER_NETWORK);
    assert!(!elsewhere.is_closed(), "who came earlier from elsewhere is not touched");
    assert_eq!(world.places.len(), MAX_PER_NETWORK + 1);
    let busy: Vec<_> = flood.iter().map(|stranger| stranger.usage.begin(world.start)).collect();
    assert_eq!(world.arrive(50, [203, 0, 114, 200]).err(), Some(NoPlace::Network));
    drop(busy);
    let site: Vec<_> = (0..30).map(|n| world.arrive(500 + n, [10, 0, 0, n as u8]).unwrap()).collect();
    assert!(site.iter().all(|stranger| !stranger.is_closed()), "a site's own addresses have no such bound");
}

#[test]
fn one_peer_takes_only_its_share_from_wherever_it_comes() {
    let mut world = World::new(64);
    let same: Vec<_> = (0..5).map(|n| world.arrive(7, somewhere(n)).unwrap()).collect();
    assert_eq!(same.iter().filter(|stranger| !stranger.is_closed()).count(), MAX_PER_STRANGER);
    let busy: Vec<_> = same.iter().map(|stranger| stranger.usage.begin(world.start)).collect();
    assert_eq!(world.arrive(7, somewhere(60)).err(), Some(NoPlace::Peer));
    drop(busy);
}

#[test]
fn strangers_that_are_carried_share_their_own_places_only() {
    let mut world = World::new(256);
    let plain: Vec<_> = (0..100).map(|n| world.arrive(n, somewhere(n)).unwrap()).collect();
    let carried: Vec<_> = (0..200).map(|n| world.arrive_at(1000 + n, WayId(u64::from(n)).address()).unwrap()).collect();
    assert!(plain.iter().all(|stranger| !stranger.is_closed()));
    assert_eq!(carried.iter().filter(|stranger| !stranger.is_closed()).count(), MAX_CARRIED);
}

#[test]
fn who_is_known_may_come_in_crowds_from_one_place() {
    let mut world = World { places: Places::for_known(64, MAX_PER_STRANGER), ..World::new(1) };
    let office: Vec<_> = (0..32).map(|n| world.arrive(n, [192, 0, 2, 1]).unwrap()).collect();
    let carried: Vec<_> = (0..32).map(|n| world.arrive_at(100 + n, WayId(u64::from(n)).address()).unwrap()).collect();
    assert!(office.iter().chain(&carried).all(|link| !link.is_closed()));
    let _late = world.arrive(99, somewhere(1)).unwrap();
    assert_eq!(world.places.len(), 64, "all places are still few");
}

#[test]
fn strangers_together_ask_only_so_much_and_one_network_a_part_of_it() {
    let mut world = World::new(256);
    let now = world.start + Duration::from_secs(1000);
    let asked = |strangers: &[Stranger], now| -> usize {
        let asks = |stranger: &Stranger| (0..1000).filter(|_| stranger.usage.may_ask(now)).count();
        strangers.iter().map(asks).sum()
    };
    let neighbours: Vec<_> = (0..4).map(|n| world.arrive(n, [198, 51, 100, 1]).unwrap()).collect();
    assert_eq!(asked(&neighbours, now), 120, "one network");
    assert_eq!(asked(&neighbours, now + Duration::from_secs(1)), 60);
    drop(neighbours);
    let back: Vec<_> = (4..8).map(|n| world.arrive(n, [198, 51, 100, 1]).unwrap()).collect();
    assert_eq!(asked(&back, now + Duration::from_secs(1)), 0, "who comes again finds what it left");
    drop(back);
    let crowd: Vec<_> = (10..60).map(|n| world.arrive(n, somewhere(n)).unwrap()).collect();
    let later = now + Duration::from_secs(1000);
    assert_eq!(asked(&crowd, later), 400, "all of them");
    assert_eq!(asked(&crowd, later + Duration::from_secs(1)), 200);
    let mut known = World { places: Places::for_known(64, MAX_PER_STRANGER), ..World::new(1) };
    let members: Vec<_> = (0..20).map(|n| known.arrive(n, somewhere(n)).unwrap()).collect();
    assert_eq!(asked(&members, later + Duration::from_secs(2)), 20 * 60, "who is known has what each has");
}
