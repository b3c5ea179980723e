// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which statements something in force beats that they lie beside, found without comparing all with all.
//!
//! One admin can say as much about one peer as a network holds. So nothing is noted for pairs: for [`WIDTH`] statements at a
//! time two passes over everything held tell which of them each statement knows, and which know it. These are revocations and
//! cancellations, or, where those are more than what they may beat, the latter. What is beaten is asked for no more.

use std::collections::{BTreeMap, BTreeSet};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Serial};

use crate::bits::Bits;
use crate::graph::{Graph, Node};

mod matter;

use matter::Matter;

/// One bit each.
type Mask = u128;
const WIDTH: usize = Mask::BITS as usize;

/// Statements that are beaten.
#[derive(Default)]
#[cfg_attr(test, derive(PartialEq))]
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
        let side = |takers: usize, asked: usize, begun: bool| takers <= asked || !begun;
        let this = Self::in_steps(graph, &takes_away, WIDTH, side);
        // Few statements fit into one step, and would be looked at from one side only.
        #[cfg(test)]
        for (width, side) in [(1, true), (2, false), (WIDTH, false)] {
            let other = || Self::in_steps(graph, &takes_away, width, |_, _, _| side);
            assert!(takes_away.len() >= WIDTH || other() == this, "steps and sides decide nothing");
        }
        this
    }

    /// `side` says, of what takes away and what is asked for in one matter and of whether it was begun, which is looked at.
    fn in_steps(graph: &Graph, takes_away: &[Node], width: usize, side: impl Fn(usize, usize, bool) -> bool) -> Self {
        let mut this = Self::default();
        let mut matters = Matter::all(graph, takes_away);
        matters.retain_mut(|matter| matter.is_open(&this));
        while !matters.is_empty() {
            let some = matter::takers(&mut matters, width, &side);
            if some.is_empty() {
                let (asked, takers) = matter::asked(&mut matters, width);
                this.look_from(graph, &asked, &takers);
            } else {
                this.look(graph, &some);
            }
            matters.retain_mut(|matter| matter.is_open(&this));
        }
        this
    }

    pub(super) fn is_beaten(&self, node: Node) -> bool {
        self.beaten.contains(node)
    }

    pub(super) fn is_cancelled(&self, node: Node) -> bool {
        self.cancelled.contains(node)
    }

    /// Looks at these revocations and cancellations, and at everything that they may beat.
    fn look(&mut self, graph: &Graph, takers: &[Node]) {
        let sight = Sight::of(graph, takers);
        let (mut revoked, mut cancelled) = (BTreeMap::<_, Mask>::new(), BTreeMap::<_, Mask>::new());
        for (node, bit) in takers.iter().zip((0_u32..).map(|bit| 1 << bit)) {
            match graph.held(*node).map(|held| &held.statement.body().act) {
                Some(Act::Revoke { peer, .. }) => *revoked.entry(*peer).or_default() |= bit,
                Some(Act::CancelInvite { serial }) => *cancelled.entry(*serial).or_default() |= bit,
                _ => {}
            }
        }
        for (peer, mask) in &revoked {
            for node in graph.entries(peer) {
                let act = graph.held(*node).map(|held| &held.statement.body().act);
                let is_beaten = matches!(act, Some(Act::AddMember(_))) && mask & sight.beside(*node) != 0;
                // Nobody rotates to a revoked key, so each revocation must come later.
                if is_beaten || matches!(act, Some(Act::Rotate { .. })) && mask & sight.not_above(*node) != 0 {
                    self.beaten.insert(*node);
                }
            }
        }
        // A member keeps no second way in for the day on which it is thrown out under a key that comes after.
        for (peer, mask) in and_earlier(graph, revoked) {
            let away = graph.rotations_from(&peer).iter().filter(|node| mask & sight.beside(**node) != 0);
            away.for_each(|node| self.beaten.insert(*node));
        }
        for (serial, mask) in &cancelled {
            let used = graph.uses(serial).iter().filter(|node| mask & sight.not_above(**node) != 0);
            used.for_each(|node| self.cancelled.insert(*node));
        }
    }

    /// The same, the other way round: looks at these that may be beaten, and at all of these that take away.
    fn look_from(&mut self, graph: &Graph, asked: &[Node], takers: &[Node]) {
        #[cfg(test)]
        graph.work.fetch_add(takers.len(), std::sync::atomic::Ordering::Relaxed);
        let sight = Sight::of(graph, asked);
        // Of each key or invite: what some of its revocations lie beside, or do not know.
        let (mut beside, mut unknown) = (BTreeMap::<PeerId, Mask>::new(), BTreeMap::<PeerId, Mask>::new());
        let mut cancelled = BTreeMap::<Serial, Mask>::new();
        for node in takers {
            match graph.held(*node).map(|held| &held.statement.body().act) {
                Some(Act::Revoke { peer, .. }) => {
                    *beside.entry(*peer).or_default() |= sight.beside(*node);
                    *unknown.entry(*peer).or_default() |= sight.not_under(*node);
                }
                Some(Act::CancelInvite { serial }) => {
                    *cancelled.entry(*serial).or_default() |= sight.not_under(*node);
                }
                _ => {}
            }
        }
        let later = and_earlier(graph, beside.clone());
        for (node, bit) in asked.iter().zip((0_u32..).map(|bit| 1 << bit)) {
            let has = |of: Option<&Mask>| of.is_some_and(|mask| mask & bit != 0);
            let Some(held) = graph.held(*node) else { continue };
            let act = &held.statement.body().act;
            if let Act::AddMember(new) = act {
                if has(new.invite.and_then(|usage| cancelled.get(&usage.serial))) {
                    self.cancelled.insert(*node);
                }
                if has(beside.get(&new.peer)) {
                    self.beaten.insert(*node);
                }
            }
            if let Act::Rotate { old, key, .. } = act
                && (has(unknown.get(&key.peer_id())) || has(later.get(&old.peer_id())))
            {
                self.beaten.insert(*node);
            }
        }
    }
}

/// What some statements stand on, and what stands on them.
struct Sight {
    /// Of each statement held: which of them it knows.
    known: Vec<Mask>,
    /// And which of them know it.
    knowing: Vec<Mask>,
}

impl Sight {
    fn of(graph: &Graph, some: &[Node]) -> Self {
        let mut own: Vec<Mask> = vec![0; graph.len()];
        for (node, bit) in some.iter().zip((0_u32..).map(|bit| 1 << bit)) {
            if let Some(own) = own.get_mut(*node as usize) {
                // One that uses an invite is asked for twice.
                *own |= bit;
            }
        }
        Self { known: of_ancestors(graph, &own), knowing: of_descendants(graph, &own) }
    }

    /// Those that neither know the statement nor are known to it.
    fn beside(&self, node: Node) -> Mask {
        self.not_above(node) & self.not_under(node)
    }

    /// Those that do not know the statement.
    fn not_above(&self, node: Node) -> Mask {
        !self.knowing.get(node as usize).copied().unwrap_or(0)
    }

    /// Those that the statement does not know.
    fn not_under(&self, node: Node) -> Mask {
        !self.known.get(node as usize).copied().unwrap_or(0)
    }
}

/// What is at a key is also at those before it, by rotations held, in force or not.
fn and_earlier(graph: &Graph, mut found: BTreeMap<PeerId, Mask>) -> BTreeMap<PeerId, Mask> {
    let mut open: Vec<PeerId> = found.keys().copied().collect();
    while let Some(key) = open.pop() {
        let mask = found.get(&key).copied().unwrap_or(0);
        for old in earlier(graph, &key) {
            let before = found.entry(old).or_default();
            if *before | mask != *before {
                *before |= mask;
                open.push(old);
            }
        }
    }
    found
}

/// The keys that somebody rotated away from to this one.
fn earlier(graph: &Graph, key: &PeerId) -> BTreeSet<PeerId> {
    let entries = graph.entries(key).iter().filter_map(|node| graph.held(*node));
    let old = entries.filter_map(|held| {
        let Act::Rotate { old, .. } = &held.statement.body().act else { return None };
        Some(old.peer_id())
    });
    old.collect()
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
