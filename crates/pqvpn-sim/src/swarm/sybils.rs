// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sybils placed around one key.
//!
//! An attacker has tried a great many proofs of work beforehand and takes the positions that suit him. What the tries
//! cost is security.md 7.1's business: at 5 s each the pool used here stands for 243 CPU-days, every week anew.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Admission, Contact, Distance, Point, Request};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use super::Swarm;
use crate::world::Index;

/// Proofs of work solved beforehand.
const TRIES: u32 = 1 << 22;

/// Where Sybils stand around their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// All nearer than half the distance of the nearest honest node.
    Greedy,
    /// Evenly within the distance of the k-th nearest honest node.
    Stealth,
}

impl Swarm {
    /// Adds `count` Sybils around `target`, as colluders of their own coven, each in a /24 of its own or all in
    /// `subnets`; returns their numbers, nearest first for a greedy placement.
    pub fn place_sybils(
        &mut self,
        target: &Point,
        count: usize,
        placement: Placement,
        subnets: Option<usize>,
    ) -> Vec<Index> {
        let honest = self.honest_atlas();
        let distance = |rank: usize| -> Distance {
            let found = honest.nearest(target, rank);
            let last = found.last().map(|index| *self.world.nodes[*index as usize].contact.node_id());
            last.map_or(Distance::MAX, |position| position.distance(target))
        };
        let tries = match placement {
            Placement::Greedy => within(target, distance(1).fraction() / 2.0),
            Placement::Stealth => {
                let inside = within(target, distance(self.config.k).fraction());
                inside.sample(&mut self.dice, count).copied().collect()
            }
        };
        let unix_ms = self.world.now().unix_ms;
        let placed: Vec<u32> =
            tries.into_iter().filter(|number| !self.world.is_alive(&attempt(*number, unix_ms).0)).take(count).collect();
        let mut added = Vec::new();
        for (order, number) in (0_usize..).zip(placed) {
            let block = order % subnets.unwrap_or(usize::MAX).max(1);
            let address = sybil_address(target, block, order / subnets.unwrap_or(usize::MAX).max(1));
            let (peer, admission) = attempt(number, unix_ms);
            let index = self.world.add(Arc::new(Contact::new(peer, admission, vec![address])), None);
            self.world.nodes[index as usize].colluder = true;
            added.push(index);
        }
        added
    }

    /// Lets colluders make themselves known to the honest nodes nearest to `target`: they ask, so they are looked at.
    pub fn introduce(&mut self, sybils: &[Index], target: &Point) {
        let honest = self.honest_atlas();
        let near = honest.nearest(target, 100);
        // A node evaluates 20 proofs of work a second: a patient attacker stays below that.
        for group in sybils.chunks(10) {
            for sybil in group {
                for node in &near {
                    let to = Arc::clone(&self.world.nodes[*node as usize].contact);
                    self.world.tell(*sybil, &to, Request::Ping);
                }
            }
            self.world.run_for(std::time::Duration::from_secs(2));
        }
    }
}

/// The tries whose position is nearer to `target` than `radius` (a share of the space), nearest first.
fn within(target: &Point, radius: f64) -> Vec<u32> {
    let prefix = head(target);
    let pool = pool();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 2^64")]
    let radius = (radius.clamp(0.0, 1.0) * 2.0_f64.powi(64)) as u64;
    // All within the radius share these leading bits with the target.
    let bits = radius.leading_zeros();
    let mask = u64::MAX.checked_shr(bits).unwrap_or(0);
    let (low, high) = (prefix & !mask, prefix | mask);
    let from = pool.partition_point(|(at, _)| *at < low);
    let to = pool.partition_point(|(at, _)| *at <= high);
    let mut found: Vec<(u64, u32)> =
        pool[from..to].iter().map(|(at, number)| (at ^ prefix, *number)).filter(|(far, _)| *far < radius).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, number)| number).collect()
}

/// First 64 bits of the positions of all tries, ascending, with their numbers. The same for every world of a process.
fn pool() -> &'static [(u64, u32)] {
    static POOL: OnceLock<Vec<(u64, u32)>> = OnceLock::new();
    POOL.get_or_init(|| {
        let position = |number: u32| {
            let (peer, admission) = attempt(number, crate::world::BEGIN_UNIX_MS);
            (head(Contact::new(peer, admission, Vec::new()).node_id()), number)
        };
        let mut pool: Vec<_> = (0..TRIES).map(position).collect();
        pool.sort_unstable();
        pool
    })
}

/// A try: an identity and the output of a proof of work that meets the target.
fn attempt(number: u32, unix_ms: u64) -> (PeerId, Admission) {
    let mut rng = SmallRng::seed_from_u64(u64::from(number));
    let peer = PeerId::from_bytes(rng.random());
    let mut out: [u8; 32] = rng.random();
    (out[0], out[1]) = (0, out[1] & 0x7f);
    (peer, Admission { week: pqvpn_dht::admission::week(&peer, unix_ms), nonce: rng.random(), out })
}

fn head(point: &Point) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&point.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// An address of the operator: the `block`-th /24 of those he rents for this key, none of them an honest node's.
fn sybil_address(target: &Point, block: usize, host: usize) -> SocketAddr {
    let salt = u64::from_be_bytes([0, 0, 0, 0, 0, 0, target.as_bytes()[0], target.as_bytes()[1]]);
    let number = (block as u64).wrapping_mul(0x9e37_79b9).wrapping_add(salt.wrapping_mul(0x0001_0001)) % (10 << 16);
    let [.., high, middle, low] = number.to_be_bytes();
    let host = u8::try_from(1 + host % 250).unwrap_or(1);
    SocketAddr::from((Ipv4Addr::new(88 + high, middle, low, host), 7847))
}
