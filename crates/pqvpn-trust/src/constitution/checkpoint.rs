// SPDX-License-Identifier: MIT OR Apache-2.0
//! When an admin seals what is held, and with what.

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, StatementBody};

use super::Constitution;
use crate::{
    CHECKPOINT_EVERY,
    graph::{Held, Node},
};

/// One admin signs a checkpoint of its own at most so often, in ms.
const CHECKPOINT_PERIOD_MS: u64 = 3_600_000;

impl Constitution {
    /// A body for a checkpoint that seals what it stands on.
    #[must_use]
    pub fn draft_checkpoint(&self, now_ms: u64) -> StatementBody {
        let body = self.draft(now_ms, Act::Checkpoint { seal: [0; 32] });
        let parents: Vec<Node> = body.parents.iter().filter_map(|parent| self.graph.node(parent)).collect();
        StatementBody { act: Act::Checkpoint { seal: self.graph.seal_of(&parents) }, ..body }
    }

    /// Says whether the admin `own` should sign a checkpoint: 64 statements or more since the last that had its
    /// signatures, and an hour since its own last one. One that became void counts too: whoever may still add a signature
    /// below can void each, and must not make the admins fill the network with them.
    #[must_use]
    pub fn checkpoint_due(&self, own: &PeerId, now_ms: u64) -> bool {
        let newest = self.graph.in_order().next_back().and_then(|node| self.graph.held(node));
        let seq = newest.map_or(0, |held| held.statement.body().seq);
        let is_near = |held: &Held| seq.saturating_sub(held.statement.body().seq) < CHECKPOINT_EVERY as u64;
        let is_young = |held: &Held| {
            let body = held.statement.body();
            now_ms.abs_diff(body.at_ms) < CHECKPOINT_PERIOD_MS && held.statement.signers().any(|signer| signer == own)
        };
        let covered =
            self.checkpoints().any(|(node, held)| is_near(held) && self.is_signed(node, held) || is_young(held));
        seq >= CHECKPOINT_EVERY as u64 && !covered
    }

    fn checkpoints(&self) -> impl Iterator<Item = (Node, &Held)> {
        let all = self.graph.in_order().rev().filter_map(|node| Some((node, self.graph.held(node)?)));
        all.filter(|(_, held)| matches!(held.statement.body().act, Act::Checkpoint { .. }))
    }

    /// Whether it has as many counting signatures as it needs, whatever it says.
    fn is_signed(&self, node: Node, held: &Held) -> bool {
        let known = self.evaluator.known_path(held.set).zip(self.evaluator.known_whole());
        known.is_some_and(|(path, whole)| {
            whole.counting(&self.graph, node, held, &path).len() >= path.need(&held.statement.body().act)
        })
    }
}
