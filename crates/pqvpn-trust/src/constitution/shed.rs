// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signatures that have done their work: whoever has checked them needs their bytes only to convince others.
//!
//! What is held, who signed it and what it evaluates to stay exactly as they are, so nothing that decides about
//! anything can tell a constitution with all signatures from one that has shed some.

use std::sync::Arc;

use pqvpn_wire::network::{Act, Statement, StatementId};

use super::Constitution;
use crate::graph::Node;

impl Constitution {
    /// Sheds the signatures of what the checkpoint in force stands on and that was said before `before_ms`, but not of what
    /// says who may sign, of which everybody can convince everybody, nor of `keep`. Gives what is to be written down anew.
    ///
    /// A checkpoint in force says that a quorum of admins, who shed nothing, hold all of it.
    pub fn shed(&mut self, before_ms: u64, keep: &[StatementId]) -> Vec<Arc<Statement>> {
        let Some(checkpoint) = self.view.checkpoint.as_ref().and_then(|last| self.graph.node(&last.statement)) else {
            return Vec::new();
        };
        let under = self.graph.held(checkpoint).map(|held| self.graph.ancestors(&held.parents)).unwrap_or_default();
        let mut shed = Vec::new();
        for node in under.iter().collect::<Vec<Node>>() {
            let Some(held) = self.graph.held(node).filter(|held| held.act.is_none()) else { continue };
            let has_bytes = held.statement.signers().any(|signer| held.statement.signature(signer).is_some());
            if !has_bytes || held.statement.body().at_ms >= before_ms || keep.contains(&held.statement.id()) {
                continue;
            }
            let mut statement = Statement::clone(&held.statement);
            statement.shed_signatures();
            self.graph.exchange(node, statement);
            shed.extend(self.graph.held(node).map(|held| Arc::clone(&held.statement)));
        }
        shed
    }

    /// Whether a checkpoint says what this node finds: those who signed it held the same.
    #[must_use]
    pub fn seals_truly(&self, id: &StatementId) -> bool {
        let held = self.graph.node(id).and_then(|node| self.graph.held(node));
        held.is_some_and(|held| {
            matches!(&held.statement.body().act, Act::Checkpoint { seal } if self.graph.seal_of(&held.parents) == *seal)
        })
    }

    /// Statements whose signatures were shed, at most so many.
    #[must_use]
    pub fn bare(&self, most: usize) -> Vec<StatementId> {
        let bare = self.graph.ids().filter(|(_, held)| held.statement.is_bare());
        bare.map(|(id, _)| *id).take(most).collect()
    }
}
