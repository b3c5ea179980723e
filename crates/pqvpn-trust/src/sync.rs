// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a peer is missing, from the tips it names.

use std::sync::Arc;

use pqvpn_wire::network::{Statement, StatementId};

use crate::bits::Bits;
use crate::constitution::Constitution;
use crate::graph::{Node, order_key};

/// What somebody who holds some tips and everything under them is missing.
#[derive(Debug, Clone, Default)]
pub struct Missing {
    /// Parents before children.
    pub statements: Vec<Arc<Statement>>,
    /// Tips that are not held here: we are missing something ourselves.
    pub unknown: Vec<StatementId>,
    /// There is more than fitted.
    pub more: bool,
    /// Some were left out because their signatures were shed here: nobody would believe them.
    pub bare: bool,
}

/// Statements that [`Constitution::waymarks`] names besides the tips.
const WAYMARKS: usize = 32;

impl Constitution {
    /// Everything that is not under `tips`, in order, shed or not.
    #[must_use]
    pub fn after(&self, tips: &[StatementId], max_bytes: usize) -> Missing {
        self.missing(tips, None, (max_bytes, false))
    }

    /// Everything that is not under `tips` and that others would believe, at most `max_bytes` encoded (but at least one
    /// statement): parents before children, and each only just before what an admin says on it, for it may be that others have
    /// room for it only then.
    #[must_use]
    pub fn told_after(&self, tips: &[StatementId], max_bytes: usize) -> Missing {
        self.missing(tips, None, (max_bytes, true))
    }

    /// A statement and what it stands on, but for what is under `tips` and what was shed here, in order, at most `max_bytes`
    /// encoded (but at least one statement): all that somebody needs who is to see for himself that it holds.
    #[must_use]
    pub fn proof(&self, of: &StatementId, tips: &[StatementId], max_bytes: usize) -> Missing {
        self.missing(tips, Some(of), (max_bytes, true))
    }

    fn missing(&self, tips: &[StatementId], of: Option<&StatementId>, (max_bytes, told): (usize, bool)) -> Missing {
        let (known, unknown): (Vec<_>, Vec<_>) =
            tips.iter().map(|tip| (tip, self.graph.node(tip))).partition(|(_, node)| node.is_some());
        let known: Vec<_> = known.into_iter().filter_map(|(_, node)| node).collect();
        let held = self.graph.ancestors(&known);
        let needed = of.map(|of| self.graph.ancestors(self.graph.node(of).as_slice()));
        let is_missing =
            |node: &Node| !held.contains(*node) && needed.as_ref().is_none_or(|needed| needed.contains(*node));
        let mut nodes: Vec<Node> = self.graph.in_order().filter(is_missing).collect();
        if told && of.is_none() {
            nodes = self.before_admins(&nodes);
        }
        let missing = nodes.into_iter().filter_map(|node| self.graph.held(node));
        let mut bare = false;
        let believed = missing.filter(|held| {
            let left_out = told && held.statement.is_bare();
            bare |= left_out;
            !left_out
        });
        let (statements, more) = fitting(believed.map(|held| Arc::clone(&held.statement)), max_bytes);
        Missing { statements, unknown: unknown.into_iter().map(|(tip, _)| *tip).collect(), more, bare }
    }

    /// What admins say in order, each time after those of `nodes` that it stands on; then the others. `nodes` are in order, and
    /// of what stands on any of them all are there.
    fn before_admins(&self, nodes: &[Node]) -> Vec<Node> {
        let Some(whole) = self.known_whole() else { return nodes.to_vec() };
        let (mut left, mut ordered) = (Bits::default(), Vec::with_capacity(nodes.len()));
        nodes.iter().for_each(|node| left.insert(*node));
        let by_admin = |node: &&Node| {
            let held = self.graph.held(**node);
            held.is_some_and(|held| held.statement.signers().any(|signer| whole.admins.contains_key(signer)))
        };
        for node in nodes.iter().filter(by_admin).chain(nodes) {
            let (mut open, begin) = (vec![*node], ordered.len());
            while let Some(node) = open.pop() {
                if left.remove(node) {
                    ordered.push(node);
                    open.extend(self.graph.held(node).iter().flat_map(|held| &held.parents));
                }
            }
            if let Some(of_one) = ordered.get_mut(begin..) {
                of_one.sort_by_cached_key(|node| self.graph.held(*node).map(|held| order_key(&held.statement)));
            }
        }
        ordered
    }

    /// At most `most` tips, and statements before them at ever greater distances: whoever does not know the tips finds among
    /// them something that both hold, and begins there.
    #[must_use]
    pub fn waymarks(&self, most: usize) -> Vec<StatementId> {
        let mut ids = self.tips_within(most.saturating_sub(WAYMARKS));
        let back = self.graph.in_order().rev().zip(0_usize..).skip(1);
        let marks = back.filter(|(_, distance)| distance.is_power_of_two()).take(WAYMARKS);
        ids.extend(marks.filter_map(|(node, _)| Some(self.graph.held(node)?.statement.id())));
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Whether each of these statements is one of `tips`, or something they stand on.
    #[must_use]
    pub fn are_under(&self, these: &[StatementId], tips: &[StatementId]) -> bool {
        let tips: Vec<_> = tips.iter().filter_map(|tip| self.graph.node(tip)).collect();
        let under = self.graph.ancestors(&tips);
        these.iter().all(|id| self.graph.node(id).is_some_and(|node| under.contains(node)))
    }

    /// Statements with more than one signer, at most `max_bytes` encoded: in these alone two nodes with the same tips can
    /// differ. They stand in a circle, newest first; `turn` says where to begin, so that in time all are told.
    #[must_use]
    pub fn multi_signed(&self, turn: u64, max_bytes: usize) -> Vec<Arc<Statement>> {
        let nodes = self.graph.in_order().rev().filter_map(|node| self.graph.held(node));
        let mut several: Vec<_> = nodes
            .filter(|held| held.statement.signers().len() > 1 && !held.statement.is_bare())
            .map(|held| Arc::clone(&held.statement))
            .collect();
        let begin = turn.checked_rem(several.len() as u64).and_then(|begin| usize::try_from(begin).ok());
        several.rotate_left(begin.unwrap_or(0));
        fitting(several.into_iter(), max_bytes).0
    }
}

fn fitting(statements: impl Iterator<Item = Arc<Statement>>, max_bytes: usize) -> (Vec<Arc<Statement>>, bool) {
    let (mut taken, mut bytes) = (Vec::new(), 0_usize);
    for statement in statements {
        bytes = bytes.saturating_add(statement.encoded_len());
        if bytes > max_bytes && !taken.is_empty() {
            return (taken, true);
        }
        taken.push(statement);
    }
    (taken, false)
}
