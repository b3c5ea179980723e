// SPDX-License-Identifier: MIT OR Apache-2.0
//! Old signatures are shed by members that are no admins, once a checkpoint says that a quorum of admins holds them.

use std::sync::Arc;

use pqvpn_crypto::identity::Identity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Statement, StatementId, message::MAX_IDS};

use super::Network;
use crate::membership::store::Change;

/// Below this many bytes of statements nothing is shed: every member can then convince a newcomer of all of it.
const SHED_ABOVE: usize = 4 * 1024 * 1024;
/// What is younger is kept by everybody, in ms: who was away for less can be told by any member.
pub(in crate::membership) const SHED_AFTER_MS: u64 = 30 * 24 * 3_600_000;
/// What has become old is looked for again after so long, in ms.
const SHED_AGAIN_MS: u64 = 24 * 3_600_000;

impl Network {
    /// Sheds what may be shed, in memory and on disk.
    pub(super) fn shed(&mut self, now_ms: u64) {
        let Some(checkpoint) = self.constitution.view().checkpoint.as_ref().map(|last| last.statement) else { return };
        let done = self
            .shed_under
            .is_some_and(|(under, at_ms)| under == checkpoint && now_ms.saturating_sub(at_ms) < SHED_AGAIN_MS);
        if done || self.am_admin() || self.constitution.bytes() < SHED_ABOVE {
            return;
        }
        self.shed_under = Some((checkpoint, now_ms));
        // Members that know us by an earlier key are shown these.
        let own_line: Vec<StatementId> = self.own_line().iter().map(|rotation| rotation.id()).collect();
        let shed = self.constitution.shed(now_ms.saturating_sub(SHED_AFTER_MS), &own_line);
        self.counters.shed += shed.len() as u64;
        let changes = shed.iter().map(|held| Change::Statement(self.id, *held.id().as_bytes(), held.encode()));
        self.changes.extend(changes);
    }

    /// Statements whose signatures an admin's node asks another admin's for: it was none when it shed them.
    pub(super) fn to_restore(&self) -> Vec<StatementId> {
        if self.am_admin() { self.constitution.bare(MAX_IDS) } else { Vec::new() }
    }

    pub(super) fn asks_to_restore(&self, peer: &PeerId) -> bool {
        self.am_admin() && self.constitution.view().is_admin(peer) && !self.constitution.bare(1).is_empty()
    }

    /// Signs checkpoints that other admins propose, where this node finds what they say.
    pub(in crate::membership) fn co_sign_checkpoints(&mut self, identity: &Identity) {
        if !self.am_admin() || self.constitution.view().quorum() < 2 {
            return;
        }
        let lacks_us = |statement: &Arc<Statement>| {
            !statement.signers().any(|signer| *signer == self.own) && self.constitution.seals_truly(&statement.id())
        };
        let mut proposed = self.proposed_checkpoints();
        // The newest seals all that the others do.
        let Some(newest) = proposed.find(lacks_us) else { return };
        drop(proposed);
        let mut statement = Statement::clone(&newest);
        if statement.sign(identity).is_ok()
            && let Err(refusal) = self.author(statement)
        {
            tracing::debug!(%refusal, "a checkpoint is not signed");
        }
    }

    /// Whether a checkpoint waits for the signatures of other admins and is young enough to wait longer.
    pub(in crate::membership) fn checkpoint_waits(&self) -> bool {
        let newest = self.constitution.log(1).first().map_or(0, |entry| entry.statement.body().seq);
        let is_young = |statement: &Arc<Statement>| {
            newest - statement.body().seq.min(newest) < pqvpn_trust::CHECKPOINT_EVERY as u64
        };
        self.proposed_checkpoints().take_while(is_young).any(|statement| self.constitution.seals_truly(&statement.id()))
    }

    /// Newest first.
    fn proposed_checkpoints(&self) -> impl Iterator<Item = Arc<Statement>> {
        let proposed = self.constitution.open(|act| matches!(act, Act::Checkpoint { .. }));
        proposed.map(|proposal| proposal.statement)
    }
}

/// A statement as others can be told it: with the signatures whose bytes are here.
pub(super) fn tellable(statement: Arc<Statement>) -> Arc<Statement> {
    if !statement.is_bare() {
        return statement;
    }
    let mut told = Statement::clone(&statement);
    for signer in statement.signers().filter(|signer| statement.signature(signer).is_none()) {
        told.remove_signature(signer);
    }
    Arc::new(told)
}
