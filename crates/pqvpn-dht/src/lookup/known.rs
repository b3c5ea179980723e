// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything one lookup has heard of: who named whom, who was asked, who answered.

use std::{collections::HashMap, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Distance, MAX_CONTACTS, Point, Token};

use super::types::Ask;

/// Handle of a candidate. Only [`Known::learn`] makes one and no candidate is ever removed, so it cannot dangle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(usize);

/// How far a candidate has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Fresh,
    Asked,
    Answered,
    Failed,
}

/// A node as one path knows it: another path may have been told another address, or another position.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) contact: Arc<Contact>,
    pub(super) distance: Distance,
    pub(super) path: usize,
    /// Who named it; `None` for a seed.
    pub(super) via: Option<Id>,
    pub(super) state: State,
    /// Round trips up to its answer.
    pub(super) depth: u32,
    pub(super) token: Option<Token>,
    /// Of those it named, how many answered and how many failed.
    good: u32,
    bad: u32,
}

/// A query under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) id: Id,
    pub(super) path: usize,
    pub(super) at: Duration,
    pub(super) depth: u32,
    pub(super) ask: Ask,
}

/// The candidates of all paths.
#[derive(Debug)]
pub(super) struct Known {
    target: Point,
    own: Option<PeerId>,
    all: Vec<Candidate>,
    /// The last candidate under whose contact a peer was asked. Never iterated.
    asked: HashMap<PeerId, Id>,
    pub(super) flights: Vec<Flight>,
    /// All candidates, nearest first: built when the paths are merged.
    order: Option<Vec<(Distance, Id)>>,
}

impl Known {
    pub(super) fn new(target: Point, own: Option<PeerId>) -> Self {
        Self { target, own, all: Vec::new(), asked: HashMap::new(), flights: Vec::new(), order: None }
    }

    pub(super) fn get(&self, id: Id) -> &Candidate {
        &self.all[id.0]
    }

    fn get_mut(&mut self, id: Id) -> &mut Candidate {
        &mut self.all[id.0]
    }

    /// Takes in what an answer (or our own table, `via` = `None`) names for one path; `mine` are the path's candidates,
    /// nearest first. Returns how many contacts were of no use.
    pub(super) fn learn(
        &mut self,
        path: usize,
        mine: &mut Vec<Id>,
        via: Option<Id>,
        contacts: Vec<Arc<Contact>>,
    ) -> u32 {
        let limit = if via.is_some() { MAX_CONTACTS } else { usize::MAX };
        let mut surplus = contacts.len().saturating_sub(limit);
        for contact in contacts.into_iter().take(limit) {
            let distance = self.target.distance(contact.node_id());
            let place = mine.partition_point(|id| self.get(*id).distance < distance);
            let twin = mine.get(place).is_some_and(|id| {
                let other = self.get(*id);
                other.distance == distance && (other.state != State::Failed || other.contact == contact)
            });
            if twin || Some(contact.peer()) == self.own.as_ref() {
                surplus += 1;
                continue;
            }
            let id = Id(self.all.len());
            mine.insert(place, id);
            if let Some(order) = &mut self.order {
                let at = order.partition_point(|other| *other < (distance, id));
                order.insert(at, (distance, id));
            }
            self.all.push(Candidate {
                contact,
                distance,
                path,
                via,
                state: State::Fresh,
                depth: 0,
                token: None,
                good: 0,
                bad: 0,
            });
        }
        u32::try_from(surplus).unwrap_or(u32::MAX)
    }

    /// All candidates, nearest first.
    pub(super) fn order(&mut self) -> &[(Distance, Id)] {
        let Self { all, order, .. } = self;
        order.get_or_insert_with(|| {
            let mut order: Vec<_> = all.iter().enumerate().map(|(at, one)| (one.distance, Id(at))).collect();
            order.sort_unstable();
            order
        })
    }

    /// Whether a candidate may be asked: nobody asked that peer yet, or it failed under another contact.
    pub(super) fn askable(&self, id: Id) -> bool {
        let candidate = self.get(id);
        candidate.state == State::Fresh
            && !self.doubtful(id)
            && self.asked.get(candidate.contact.peer()).is_none_or(|earlier| {
                let earlier = self.get(*earlier);
                earlier.state == State::Failed && earlier.contact != candidate.contact
            })
    }

    /// Whether whoever named this candidate names mostly nodes that do not answer.
    pub(super) fn doubtful(&self, id: Id) -> bool {
        self.get(id).via.is_some_and(|via| {
            let via = self.get(via);
            via.bad >= 2 && via.bad > via.good
        })
    }

    /// Sends a query; the caller has checked [`Self::askable`].
    pub(super) fn ask(&mut self, id: Id, path: usize, ask: Ask, now: Duration, waited: u32) {
        let named = self.get(id).via.map_or(0, |via| self.get(via).depth);
        let depth = named.max(waited) + 1;
        if self.get(id).state == State::Fresh {
            self.get_mut(id).state = State::Asked;
            let peer = *self.get(id).contact.peer();
            self.asked.insert(peer, id);
        }
        self.flights.push(Flight { id, path, at: now, depth, ask });
    }

    /// Takes the query to a peer out of those under way.
    pub(super) fn land(&mut self, peer: &PeerId) -> Option<Flight> {
        let at = self.flights.iter().position(|flight| self.get(flight.id).contact.peer() == peer)?;
        Some(self.flights.remove(at))
    }

    pub(super) fn answered(&mut self, flight: &Flight, token: Option<Token>) {
        let via = self.get(flight.id).via;
        let candidate = self.get_mut(flight.id);
        let first = candidate.state == State::Asked;
        if first {
            candidate.state = State::Answered;
            candidate.depth = flight.depth;
        }
        candidate.token = token.or(candidate.token);
        if let Some(via) = via.filter(|_| first) {
            self.get_mut(via).good += 1;
        }
    }

    pub(super) fn failed(&mut self, flight: &Flight) {
        let via = self.get(flight.id).via;
        let candidate = self.get_mut(flight.id);
        // A node that answered before and fails a later question of a sweep stays among those that answered.
        if candidate.state == State::Asked {
            candidate.state = State::Failed;
            if let Some(via) = via {
                self.get_mut(via).bad += 1;
            }
        }
    }

    pub(super) fn in_flight(&self, path: usize) -> impl Iterator<Item = &Flight> {
        self.flights.iter().filter(move |flight| flight.path == path)
    }

    pub(super) fn is_in_flight(&self, id: Id) -> bool {
        let peer = self.get(id).contact.peer();
        self.flights.iter().any(|flight| self.get(flight.id).contact.peer() == peer)
    }

    /// How many different positions inside a region are known.
    pub(super) fn inside(&mut self, radius: Option<Distance>) -> usize {
        let Some(radius) = radius else { return 0 };
        let order = self.order();
        let inside = order.partition_point(|(distance, _)| *distance < radius);
        order.get(..inside).map_or(0, |inside| inside.chunk_by(|a, b| a.0 == b.0).count())
    }

    /// The distance of the n-th nearest candidate that has not failed.
    pub(super) fn nearest_live(&mut self, n: usize) -> Option<Distance> {
        let order = self.order().to_vec();
        let live = |group: &&[(Distance, Id)]| {
            group.iter().any(|(_, id)| match self.get(*id).state {
                State::Answered | State::Asked => true,
                State::Fresh => self.askable(*id),
                State::Failed => false,
            })
        };
        order.chunk_by(|a, b| a.0 == b.0).filter(live).nth(n.saturating_sub(1)).map(|group| group[0].0)
    }

    /// Those that answered, nearest first.
    pub(super) fn all_answered(&self) -> Vec<&Candidate> {
        let mut answered: Vec<&Candidate> = self.all.iter().filter(|one| one.state == State::Answered).collect();
        answered.sort_unstable_by_key(|one| one.distance);
        answered
    }
}
