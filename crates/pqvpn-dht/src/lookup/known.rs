// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything one lookup has heard of: who named whom, who was asked, who answered.

use std::{collections::HashMap, sync::Arc, time::Duration};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Contact, Distance, MAX_CONTACTS, Point, Token};

use super::types::Ask;
use crate::table::head;

/// Handle of a candidate. Only [`Known::learn`] makes one and no candidate is ever removed, so it cannot dangle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(usize);

/// How far a candidate has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Fresh,
    Asked,
    /// Asked, and not counted on any more unless it answers after all.
    Late,
    Answered,
    Failed,
}

/// What a candidate is worth to the merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its node answered, or may yet.
    Live,
    /// It may be asked.
    Askable,
    /// It did not answer, or was named by somebody who names such nodes.
    Dead,
}

/// A node as one path knows it: another path may have been told another address, or another position.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) contact: Arc<Contact>,
    pub(super) distance: Distance,
    pub(super) path: usize,
    /// Who named it; `None` for a seed.
    via: Option<Id>,
    pub(super) state: State,
    /// Round trips up to its answer.
    depth: u32,
    pub(super) token: Option<Token>,
    /// Of those it named, how many answered and how many did not.
    good: u32,
    bad: u32,
}

/// A query under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) id: Id,
    pub(super) at: Duration,
    pub(super) depth: u32,
    pub(super) ask: Ask,
    late: bool,
}

/// The candidates of all paths.
#[derive(Debug)]
pub(super) struct Known {
    target: Point,
    own: Option<PeerId>,
    all: Vec<Candidate>,
    /// The last candidate under whose contact a peer was asked. Never iterated.
    asked: HashMap<PeerId, Id>,
    flights: Vec<Flight>,
    /// All candidates, nearest first, by the first 64 bits of their distances.
    order: Vec<(u64, Id)>,
}

impl Known {
    pub(super) fn new(target: Point, own: Option<PeerId>) -> Self {
        Self { target, own, all: Vec::new(), asked: HashMap::new(), flights: Vec::new(), order: Vec::new() }
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
            let twin = mine.get(place).copied().filter(|id| {
                let other = self.get(*id);
                other.distance == distance && (other.state != State::Failed || other.contact == contact)
            });
            if let Some(twin) = twin {
                self.vouch(twin, via, &contact);
            }
            if twin.is_some() || Some(contact.peer()) == self.own.as_ref() {
                surplus += 1;
                continue;
            }
            let id = Id(self.all.len());
            mine.insert(place, id);
            self.order.push((head(distance.as_bytes()), id));
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
        // A long sorted run and a short tail: this sort merges them.
        self.order.sort();
        u32::try_from(surplus).unwrap_or(u32::MAX)
    }

    /// A second node names a candidate: it is as good as the better of the two.
    fn vouch(&mut self, id: Id, via: Option<Id>, contact: &Contact) {
        let candidate = self.get(id);
        if candidate.state == State::Fresh && self.doubtful(candidate) {
            let candidate = self.get_mut(id);
            candidate.via = via;
            if *candidate.contact != *contact {
                candidate.contact = Arc::new(contact.clone());
            }
        }
    }

    /// What a candidate is worth. A peer is asked once; again only after it failed, under another contact: else whoever
    /// names a node at a wrong address first would hide it.
    pub(super) fn standing(&self, id: Id) -> Standing {
        let candidate = self.get(id);
        match candidate.state {
            State::Asked | State::Answered => return Standing::Live,
            State::Late | State::Failed => return Standing::Dead,
            State::Fresh => {}
        }
        let earlier = self.asked.get(candidate.contact.peer()).map(|earlier| self.get(*earlier));
        match earlier {
            Some(earlier)
                if matches!(earlier.state, State::Late | State::Failed) && earlier.contact != candidate.contact => {}
            Some(earlier) if earlier.distance != candidate.distance => return Standing::Dead,
            Some(earlier) if matches!(earlier.state, State::Asked | State::Answered) => return Standing::Live,
            Some(_) => return Standing::Dead,
            None => {}
        }
        if self.doubtful(candidate) { Standing::Dead } else { Standing::Askable }
    }

    pub(super) fn askable(&self, id: Id) -> bool {
        self.get(id).state == State::Fresh && self.standing(id) == Standing::Askable
    }

    /// Whether whoever named this candidate names mostly nodes that do not answer.
    fn doubtful(&self, candidate: &Candidate) -> bool {
        candidate.via.is_some_and(|via| {
            let via = self.get(via);
            via.bad >= 3 && via.bad > 2 * via.good
        })
    }

    /// Sends a query to a candidate that is askable, or has answered before.
    pub(super) fn ask(&mut self, id: Id, ask: Ask, now: Duration, waited: u32) {
        let named = self.get(id).via.map_or(0, |via| self.get(via).depth);
        let depth = named.max(waited).saturating_add(1);
        if self.get(id).state == State::Fresh {
            self.get_mut(id).state = State::Asked;
            let peer = *self.get(id).contact.peer();
            self.asked.insert(peer, id);
        }
        self.flights.push(Flight { id, at: now, depth, ask, late: false });
    }

    /// Takes the query to a peer out of those under way. Of two, under two addresses, it is the later one that is
    /// answered and the earlier one that fails.
    pub(super) fn land(&mut self, peer: &PeerId, answered: bool) -> Option<Flight> {
        let to = |flight: &Flight| self.get(flight.id).contact.peer() == peer;
        let at = if answered { self.flights.iter().rposition(to)? } else { self.flights.iter().position(to)? };
        Some(self.flights.remove(at))
    }

    pub(super) fn answered(&mut self, flight: &Flight, token: Option<Token>) {
        let candidate = self.get_mut(flight.id);
        let before = candidate.state;
        candidate.token = token.or(candidate.token);
        if !matches!(before, State::Asked | State::Late) {
            return;
        }
        candidate.state = State::Answered;
        candidate.depth = flight.depth;
        if let Some(via) = candidate.via {
            let via = self.get_mut(via);
            via.good += 1;
            via.bad -= u32::from(before == State::Late && via.bad > 0);
        }
    }

    /// A node that answered before and fails a later question stays among those that answered.
    pub(super) fn failed(&mut self, flight: &Flight) {
        self.blame(flight.id);
        let candidate = self.get_mut(flight.id);
        if candidate.state == State::Late {
            candidate.state = State::Failed;
        }
    }

    /// Counts a silent candidate against whoever named it.
    fn blame(&mut self, id: Id) {
        let candidate = self.get_mut(id);
        if candidate.state == State::Asked {
            candidate.state = State::Late;
            if let Some(via) = candidate.via {
                self.get_mut(via).bad += 1;
            }
        }
    }

    /// Stops counting on queries sent at a time that is `late`.
    pub(super) fn write_off(&mut self, late: impl Fn(Duration) -> bool) {
        for at in 0..self.flights.len() {
            if let Some(flight) = self.flights.get_mut(at).filter(|flight| !flight.late && late(flight.at)) {
                flight.late = true;
                let id = flight.id;
                self.blame(id);
            }
        }
    }

    /// Some peer asked at a time that is `late`.
    pub(super) fn find_flight(&self, late: impl Fn(Duration) -> bool) -> Option<PeerId> {
        let flight = self.flights.iter().find(|flight| late(flight.at))?;
        Some(*self.get(flight.id).contact.peer())
    }

    /// How many queries an answer is counted on.
    pub(super) fn pending(&self) -> usize {
        self.flights.iter().filter(|flight| !flight.late).count()
    }

    /// When those were sent.
    pub(super) fn pending_since(&self) -> impl Iterator<Item = Duration> {
        self.flights.iter().filter(|flight| !flight.late).map(|flight| flight.at)
    }

    /// When a late query to somebody nearer than all that answered was sent.
    pub(super) fn late_nearest(&self) -> Option<Duration> {
        let answered = self.all.iter().filter(|one| one.state == State::Answered);
        let nearest = answered.map(|one| one.distance).min().unwrap_or(Distance::MAX);
        let nearer = |flight: &&Flight| flight.late && self.get(flight.id).distance < nearest;
        self.flights.iter().filter(nearer).map(|flight| flight.at).max()
    }

    /// When the queries of one path an answer is counted on were sent.
    pub(super) fn pending_of(&self, path: usize) -> impl Iterator<Item = Duration> {
        let mine = move |flight: &&Flight| !flight.late && self.get(flight.id).path == path;
        self.flights.iter().filter(mine).map(|flight| flight.at)
    }

    /// Whether a peer is being asked something.
    pub(super) fn is_in_flight(&self, id: Id) -> bool {
        let peer = self.get(id).contact.peer();
        self.flights.iter().any(|flight| self.get(flight.id).contact.peer() == peer)
    }

    /// Those that answered, nearest first.
    pub(super) fn all_answered(&self) -> Vec<&Candidate> {
        let mut answered: Vec<&Candidate> = self.all.iter().filter(|one| one.state == State::Answered).collect();
        answered.sort_unstable_by_key(|one| one.distance);
        answered
    }

    /// All candidates of all paths, nearest first.
    pub(super) fn merged(&self) -> impl Iterator<Item = Id> {
        self.order.iter().map(|(_, id)| *id)
    }

    /// The distance of the n-th nearest candidate that answered, may answer or may be asked.
    pub(super) fn nearest_live(&self, n: usize) -> Option<Distance> {
        let mut live = 0;
        let mut last = None;
        for id in self.merged() {
            let distance = self.get(id).distance;
            if last != Some(distance) && self.standing(id) != Standing::Dead {
                last = Some(distance);
                live += 1;
                if live >= n {
                    return last;
                }
            }
        }
        None
    }
}
