// SPDX-License-Identifier: MIT OR Apache-2.0
//! Adversaries: strategies of colluders that know each other, all honest nodes and every record ever stored.

mod hijack;
mod nuisance;
mod poison;

use std::{collections::BTreeMap, fmt::Debug, net::SocketAddr, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::Now;
use pqvpn_wire::dht::{Contact, MAX_CONTACTS, Point, Record, Request, Response, Token};
use rand::rngs::SmallRng;

pub use hijack::Hijack;
pub use nuisance::{Drop, Flood, Reflector, Slander, Slow};
pub use poison::{Lie, Poison};

use crate::{crypto::KeyRing, world::atlas::Atlas};

/// The names of all strategies, in the order of the suite.
pub const STRATEGIES: [&str; 13] = [
    "none",
    "hijack",
    "drop",
    "slow",
    "slander",
    "flood",
    "reflector",
    "poison-unsigned",
    "poison-forged",
    "poison-stale",
    "poison-equivocating",
    "poison-expired",
    "poison-hijack",
];

/// The strategy of that name; `None` for an unknown one. `none` gives a strategy that behaves.
#[must_use]
pub fn strategy(name: &str) -> Option<Box<dyn Strategy>> {
    Some(match name {
        "none" => Box::new(Behave),
        "hijack" => Box::new(Hijack),
        "drop" => Box::new(Drop),
        "slow" => Box::new(Slow::default()),
        "slander" => Box::new(Slander::default()),
        "flood" => Box::new(Flood::default()),
        "reflector" => Box::new(Reflector),
        "poison-hijack" => Box::new(Poison::new(Lie::Any, true)),
        other => Box::new(Poison::new(Lie::named(other.strip_prefix("poison-")?)?, false)),
    })
}

/// One request to one colluder.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// When.
    pub now: Now,
    /// The colluder.
    pub me: &'a Arc<Contact>,
    /// Who asks.
    pub from: &'a PeerId,
    /// From where.
    pub observed: SocketAddr,
    /// What.
    pub request: &'a Request,
}

/// What a colluder does with a request.
#[derive(Debug)]
pub enum Reaction {
    /// Nothing.
    Silence,
    /// Answers this.
    Say(Response),
    /// Answers this so much later.
    Later(Response, Duration),
}

/// A request a colluder sends unasked.
#[derive(Debug)]
pub struct Deed {
    /// Which colluder.
    pub from: PeerId,
    /// To whom.
    pub to: Arc<Contact>,
    /// What.
    pub request: Request,
}

/// How colluders behave.
pub trait Strategy: Debug + Send {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// What a colluder answers; `honest` tells what an honest node in its place would.
    fn answer(&mut self, case: &Case<'_>, coven: &Coven, honest: &mut dyn FnMut(Request) -> Response) -> Reaction;

    /// The false record it would give under a key now.
    fn lie(&mut self, _unix_ms: u64, _key: &Point, _coven: &Coven) -> Option<Arc<Record>> {
        None
    }

    /// Whether [`Strategy::act`] does anything.
    fn acts(&self) -> bool {
        false
    }

    /// What the coven does unasked in this second.
    fn act(&mut self, _now: Now, _coven: &Coven, _rng: &mut SmallRng) -> Vec<Deed> {
        Vec::new()
    }
}

/// Colluders that do nothing wrong: the control.
#[derive(Debug)]
pub struct Behave;

impl Strategy for Behave {
    fn name(&self) -> &'static str {
        "none"
    }

    fn answer(&mut self, case: &Case<'_>, _: &Coven, honest: &mut dyn FnMut(Request) -> Response) -> Reaction {
        Reaction::Say(honest(case.request.clone()))
    }
}

/// What the colluders know together.
#[derive(Debug, Default)]
pub struct Coven {
    members: Vec<Arc<Contact>>,
    honest: Vec<Arc<Contact>>,
    near_members: Atlas,
    near_all: Atlas,
    ring: Option<KeyRing>,
    records: BTreeMap<Point, Vec<Arc<Record>>>,
    victims: Vec<SocketAddr>,
}

impl Coven {
    /// A coven of `members` with their keys, knowing all `honest` nodes.
    #[must_use]
    pub fn new(members: Vec<Arc<Contact>>, honest: Vec<Arc<Contact>>, ring: KeyRing) -> Self {
        let number = |(index, contact): (u32, &Arc<Contact>)| (*contact.node_id(), index);
        let near_members: Atlas = (0..).zip(&members).map(number).collect();
        let near_all = (0..).zip(members.iter().chain(&honest)).map(number).collect();
        Self { members, honest, near_members, near_all, ring: Some(ring), ..Self::default() }
    }

    /// Tells the coven of a record that was stored.
    pub fn learn(&mut self, record: &Arc<Record>) {
        self.records.entry(*record.key()).or_default().push(Arc::clone(record));
    }

    /// Names an address to aim reflections at.
    pub fn aim(&mut self, victim: SocketAddr) {
        self.victims.push(victim);
    }

    /// The addresses aimed at.
    #[must_use]
    pub fn victims(&self) -> &[SocketAddr] {
        &self.victims
    }

    /// All colluders.
    #[must_use]
    pub fn members(&self) -> &[Arc<Contact>] {
        &self.members
    }

    /// All honest nodes.
    #[must_use]
    pub fn honest(&self) -> &[Arc<Contact>] {
        &self.honest
    }

    /// The colluders' keys.
    #[must_use]
    pub const fn ring(&self) -> Option<&KeyRing> {
        self.ring.as_ref()
    }

    /// Every record ever stored under a key, oldest first.
    #[must_use]
    pub fn records(&self, key: &Point) -> &[Arc<Record>] {
        self.records.get(key).map_or(&[], Vec::as_slice)
    }

    /// The colluders nearest to a point.
    #[must_use]
    pub fn nearest_members(&self, target: &Point, n: usize) -> Vec<Arc<Contact>> {
        let pick = |index: u32| self.members.get(index as usize).cloned();
        self.near_members.nearest(target, n).into_iter().filter_map(pick).collect()
    }

    /// The nodes nearest to a point, colluders or not.
    #[must_use]
    pub fn nearest(&self, target: &Point, n: usize) -> Vec<Arc<Contact>> {
        let members = self.members.len();
        let pick = |index: u32| {
            let index = index as usize;
            if index < members { self.members.get(index).cloned() } else { self.honest.get(index - members).cloned() }
        };
        self.near_all.nearest(target, n).into_iter().filter_map(pick).collect()
    }

    /// A plausible answer that leads where it should: what a Sybil without an engine says when it behaves.
    #[must_use]
    pub fn polite(&self, request: &Request, observed: SocketAddr) -> Response {
        reply(request, observed, |target| self.nearest(target, MAX_CONTACTS))
    }
}

/// A well-formed answer to any request, naming the contacts that `near` gives; whatever is stored is lost.
fn reply(request: &Request, observed: SocketAddr, near: impl FnOnce(&Point) -> Vec<Arc<Contact>>) -> Response {
    let token = Some(Token([7; 16]));
    match request {
        Request::FindNode { target } | Request::FindValue { key: target, .. } => {
            Response::Nodes { contacts: near(target), token }
        }
        Request::Exchange => Response::Nodes { contacts: near(&Point::from_bytes([0x55; 32])), token: None },
        Request::Store { record, .. } => Response::Stored { until_ms: record.draft().not_after_ms },
        Request::Beat { .. } => Response::Stored { until_ms: u64::MAX >> 12 },
        Request::Announce(_) => Response::Noted,
        Request::Facts { after } => Response::Facts { next: *after, facts: Vec::new() },
        // Ping, and whatever is added later: an answer that commits to nothing.
        Request::Ping | _ => Response::Pong { observed },
    }
}
