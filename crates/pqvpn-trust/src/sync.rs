// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a peer is missing, from the tips it names.

use std::sync::Arc;

use pqvpn_wire::network::{Statement, StatementId};

use crate::constitution::Constitution;

/// What somebody who holds some tips and everything under them is missing.
#[derive(Debug, Clone, Default)]
pub struct Missing {
    /// Parents before children.
    pub statements: Vec<Arc<Statement>>,
    /// Tips that are not held here: we are missing something ourselves.
    pub unknown: Vec<StatementId>,
    /// There is more than fitted.
    pub more: bool,
}

impl Constitution {
    /// Everything that is not under `tips`, in order, at most `max_bytes` encoded (but at least one statement).
    #[must_use]
    pub fn after(&self, tips: &[StatementId], max_bytes: usize) -> Missing {
        let (known, unknown): (Vec<_>, Vec<_>) =
            tips.iter().map(|tip| (tip, self.graph.node(tip))).partition(|(_, node)| node.is_some());
        let known: Vec<_> = known.into_iter().filter_map(|(_, node)| node).collect();
        let held = self.graph.ancestors(&known);
        let missing = self.graph.in_order().filter(|node| !held.contains(*node));
        let (statements, more) =
            fitting(missing.filter_map(|node| Some(Arc::clone(&self.graph.held(node)?.statement))), max_bytes);
        Missing { statements, unknown: unknown.into_iter().map(|(tip, _)| *tip).collect(), more }
    }

    /// A statement and what it stands on, but for what is under `tips`, in order, at most `max_bytes` encoded (but at least
    /// one statement): all that somebody needs who is to see for himself that it holds.
    #[must_use]
    pub fn proof(&self, of: &StatementId, tips: &[StatementId], max_bytes: usize) -> Missing {
        let known: Vec<_> = tips.iter().filter_map(|tip| self.graph.node(tip)).collect();
        let (held, needed) = (self.graph.ancestors(&known), self.graph.node(of));
        let needed = self.graph.ancestors(needed.as_slice());
        let missing = self.graph.in_order().filter(|node| needed.contains(*node) && !held.contains(*node));
        let statements = missing.filter_map(|node| Some(Arc::clone(&self.graph.held(node)?.statement)));
        let (statements, more) = fitting(statements, max_bytes);
        Missing { statements, unknown: Vec::new(), more }
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
