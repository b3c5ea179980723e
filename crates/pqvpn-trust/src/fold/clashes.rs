// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which statements something in force beats that they lie beside, found without comparing all with all.
//!
//! One admin can say as much about one peer as a network holds. So nothing is noted for pairs: for [`WIDTH`] revocations
//! and cancellations at a time two passes over everything held tell which of them each statement knows, and which know it.

use std::collections::BTreeMap;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Serial};

use crate::bits::Bits;
use crate::graph::{Graph, Node};

/// One bit each.
type Mask = u128;
const WIDTH: usize = Mask::BITS as usize;

/// Statements that are beaten.
#[derive(Default)]
pub(super) struct Clashes {
    /// By a revocation.
    beaten: Bits,
    /// By a cancellation of the invite they use.
    cancelled: Bits,
}

impl Clashes {
    /// Looks at everything that takes away and is `in_force`.
    pub(super) fn of(graph: &Graph, mut in_force: impl FnMut(Node) -> bool) -> Self {
        let takes_away: Vec<Node> = graph.takes_away().filter(|node| in_force(*node)).collect();
        let mut this = Self::default();
        takes_away.chunks(WIDTH).for_each(|some| this.look(graph, &Sight::of(graph, some)));
        this
    }

    pub(super) fn is_beaten(&self, node: Node) -> bool {
        self.beaten.contains(node)
    }

    pub(super) fn is_cancelled(&self, node: Node) -> bool {
        self.cancelled.contains(node)
    }

    fn look(&mut self, graph: &Graph, sight: &Sight) {
        for (peer, mask) in &sight.revoked {
            for node in graph.entries(peer) {
                let act = graph.held(*node).map(|held| &held.statement.body().act);
                let is_beaten = matches!(act, Some(Act::AddMember(_))) && sight.any_beside(*mask, *node);
                // Nobody rotates to a revoked key, so each revocation must come later.
                if is_beaten || matches!(act, Some(Act::Rotate { .. })) && sight.any_not_above(*mask, *node) {
                    self.beaten.insert(*node);
                }
            }
        }
        // A member keeps no second way in for the day on which it is thrown out under a key that comes after.
        for (peer, mask) in sight.revoked_later(graph) {
            let away = graph.rotations_from(&peer).iter().filter(|node| sight.any_beside(mask, **node));
            away.for_each(|node| self.beaten.insert(*node));
        }
        for (serial, mask) in &sight.cancelled {
            let used = graph.uses(serial).iter().filter(|node| sight.any_not_above(*mask, **node));
            used.for_each(|node| self.cancelled.insert(*node));
        }
    }
}

/// What some statements that take away stand on, and what stands on them.
struct Sight {
    revoked: BTreeMap<PeerId, Mask>,
    cancelled: BTreeMap<Serial, Mask>,
    /// Of each statement held: which of them it knows.
    known: Vec<Mask>,
    /// And which of them know it.
    knowing: Vec<Mask>,
}

impl Sight {
    fn of(graph: &Graph, some: &[Node]) -> Self {
        let (mut revoked, mut cancelled) = (BTreeMap::<_, Mask>::new(), BTreeMap::<_, Mask>::new());
        let mut own: Vec<Mask> = vec![0; graph.len()];
        for (node, bit) in some.iter().zip((0_u32..).map(|bit| 1 << bit)) {
            if let Some(own) = own.get_mut(*node as usize) {
                *own = bit;
            }
            let act = graph.held(*node).map(|held| &held.statement.body().act);
            if let Some(Act::Revoke { peer, .. }) = act {
                *revoked.entry(*peer).or_default() |= bit;
            }
            if let Some(Act::CancelInvite { serial }) = act {
                *cancelled.entry(*serial).or_default() |= bit;
            }
        }
        Self { revoked, cancelled, known: of_ancestors(graph, &own), knowing: of_descendants(graph, &own) }
    }

    /// Whether one of `mask` neither knows the statement nor is known to it.
    fn any_beside(&self, mask: Mask, node: Node) -> bool {
        let known = self.known.get(node as usize).copied().unwrap_or(0);
        self.any_not_above(mask & !known, node)
    }

    /// Whether one of `mask` does not know the statement.
    fn any_not_above(&self, mask: Mask, node: Node) -> bool {
        mask & !self.knowing.get(node as usize).copied().unwrap_or(0) != 0
    }

    /// Keys of which, or of any that come after them by rotations held, in force or not, some are revocations.
    fn revoked_later(&self, graph: &Graph) -> BTreeMap<PeerId, Mask> {
        let mut found = self.revoked.clone();
        let mut open: Vec<PeerId> = found.keys().copied().collect();
        while let Some(key) = open.pop() {
            let mask = found.get(&key).copied().unwrap_or(0);
            for held in graph.entries(&key).iter().filter_map(|node| graph.held(*node)) {
                let Act::Rotate { old, .. } = &held.statement.body().act else { continue };
                let before = found.entry(old.peer_id()).or_default();
                if *before | mask != *before {
                    *before |= mask;
                    open.push(old.peer_id());
                }
            }
        }
        found
    }
}

/// What is at the ancestors of each statement, taken together; ancestors come first.
fn of_ancestors(graph: &Graph, own: &[Mask]) -> Vec<Mask> {
    let mut gathered: Vec<Mask> = Vec::with_capacity(own.len());
    for parents in graph.parents() {
        let at = |parent: &Node| Some(gathered.get(*parent as usize)? | own.get(*parent as usize)?);
        gathered.push(parents.iter().filter_map(at).fold(0, |all, one| all | one));
    }
    gathered
}

/// What is at all that stand on each statement, taken together.
fn of_descendants(graph: &Graph, own: &[Mask]) -> Vec<Mask> {
    let mut gathered: Vec<Mask> = vec![0; own.len()];
    for (node, parents) in graph.parents().enumerate().rev() {
        let here = gathered.get(node).copied().unwrap_or(0) | own.get(node).copied().unwrap_or(0);
        for parent in parents {
            if let Some(parent) = gathered.get_mut(*parent as usize) {
                *parent |= here;
            }
        }
    }
    gathered
}
