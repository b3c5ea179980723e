// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can beat what: the revocations of one member's keys, or the cancellations of one invite, and what they are about.

use std::collections::{BTreeMap, BTreeSet};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Serial};

use super::{Clashes, earlier};
use crate::graph::{Graph, Node};

/// Statements none of which has to do with those of another matter.
#[derive(Default)]
pub(super) struct Matter {
    /// What takes away and was not looked at.
    takers: Vec<Node>,
    /// What is not known to be beaten.
    asked: BTreeSet<Node>,
    is_invite: bool,
    /// Some were looked at: where each beats all, that was enough.
    begun: bool,
}

impl Matter {
    pub(super) fn all(graph: &Graph, takes_away: &[Node]) -> Vec<Self> {
        let (mut peers, mut invites) = (BTreeMap::<PeerId, Self>::new(), BTreeMap::<Serial, Self>::new());
        let mut lines = Lines::default();
        let act_of = |node: &Node| graph.held(*node).map(|held| &held.statement.body().act);
        let revoked: BTreeSet<PeerId> = takes_away
            .iter()
            .filter_map(|node| if let Act::Revoke { peer, .. } = act_of(node)? { Some(*peer) } else { None })
            .collect();
        let keys = lines.join(graph, &revoked);
        for node in takes_away {
            match act_of(node) {
                Some(Act::Revoke { peer, .. }) => {
                    peers.entry(lines.first(peer)).or_default().takers.push(*node);
                }
                Some(Act::CancelInvite { serial }) => invites.entry(*serial).or_default().takers.push(*node),
                _ => {}
            }
        }
        for key in keys {
            let matter = peers.entry(lines.first(&key)).or_default();
            let entries = if revoked.contains(&key) { graph.entries(&key) } else { &[] };
            matter.asked.extend(entries.iter().chain(graph.rotations_from(&key)));
        }
        for (serial, matter) in &mut invites {
            matter.is_invite = true;
            matter.asked.extend(graph.uses(serial));
        }
        peers.into_values().chain(invites.into_values()).collect()
    }

    /// Whether anything is to be looked at yet.
    pub(super) fn is_open(&mut self, found: &Clashes) -> bool {
        let (is_invite, takers) = (self.is_invite, self.takers.len());
        self.asked.retain(|node| if is_invite { !found.is_cancelled(*node) } else { !found.is_beaten(*node) });
        takers > 0 && !self.asked.is_empty()
    }
}

/// The next that take away in matters that `side` is for.
pub(super) fn takers(matters: &mut [Matter], width: usize, side: impl Fn(usize, usize, bool) -> bool) -> Vec<Node> {
    let mut some = Vec::new();
    for matter in matters.iter_mut().filter(|matter| side(matter.takers.len(), matter.asked.len(), matter.begun)) {
        let room = width - some.len();
        if room == 0 {
            break;
        }
        matter.begun = true;
        some.extend(matter.takers.drain(..room.min(matter.takers.len())));
    }
    some
}

/// The next that may be beaten, and all that may do so. They are asked for no more.
pub(super) fn asked(matters: &mut [Matter], width: usize) -> (Vec<Node>, Vec<Node>) {
    let (mut some, mut takers) = (Vec::new(), Vec::new());
    for matter in matters {
        while some.len() < width
            && let Some(next) = matter.asked.pop_first()
        {
            some.push(next);
        }
        takers.extend_from_slice(&matter.takers);
        if some.len() == width {
            break;
        }
    }
    (some, takers)
}

/// Keys that rotations lead from one to the other, under one name.
#[derive(Default)]
struct Lines(BTreeMap<PeerId, PeerId>);

impl Lines {
    /// Halves the way it goes (Tarjan and van Leeuwen), so that a long line is not gone along for each of its keys.
    fn first(&mut self, key: &PeerId) -> PeerId {
        let mut at = *key;
        while let Some(next) = self.0.get(&at).copied() {
            let Some(after) = self.0.get(&next).copied() else { return next };
            self.0.insert(at, after);
            at = after;
        }
        at
    }

    /// These keys and all before them.
    fn join(&mut self, graph: &Graph, keys: &BTreeSet<PeerId>) -> BTreeSet<PeerId> {
        let (mut seen, mut open) = (keys.clone(), keys.iter().copied().collect::<Vec<_>>());
        while let Some(key) = open.pop() {
            for old in earlier(graph, &key) {
                let (one, other) = (self.first(&key), self.first(&old));
                if one != other {
                    self.0.insert(other, one);
                }
                if seen.insert(old) {
                    open.push(old);
                }
            }
        }
        seen
    }
}
