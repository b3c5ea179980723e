// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers to a coup: removals beside a fork that took authority away, and who can sign them.

use std::sync::Arc;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, StatementBody, StatementId};

use super::{Constitution, Proposal, alone, shown};
use crate::{MAX_PARENTS, graph::Node, refusal::NotAllowed};

impl Constitution {
    /// A body for `act` that stands on everything held but `avoid` and what stands on that: how honest admins answer a
    /// coup whose statements took their authority away (docs/networks.md "A stolen key").
    #[must_use]
    pub fn draft_beside(&self, now_ms: u64, act: Act, avoid: &[StatementId]) -> StatementBody {
        let held = self.tips_beside(avoid).into_iter().filter_map(|node| self.graph.held(node));
        self.body_on(&held.collect::<Vec<_>>(), now_ms, act)
    }

    /// Says whether `signer` could take `subject`'s say away beside `avoid`, as far as can be known there.
    ///
    /// # Errors
    /// [`NotAllowed`], in words for the user.
    pub fn allowed_beside(
        &mut self,
        signer: &PeerId,
        subject: &PeerId,
        avoid: &[StatementId],
    ) -> Result<(), NotAllowed> {
        if self.view().disabled {
            return Err(NotAllowed::Disabled);
        }
        let (_, set) = self.graph.act_set(&self.tips_beside(avoid));
        let path = self.evaluator.of_acts(&self.graph, &set.bits);
        match () {
            () if !path.admins.contains_key(signer) => Err(NotAllowed::NotAdmin),
            () if !path.admins.contains_key(subject) => Err(NotAllowed::SubjectNotAdmin),
            () if path.admins.len() == 1 => Err(NotAllowed::LastAdmin),
            () => Ok(()),
        }
    }

    /// Removals that lack signatures, of which some come from admins whose say was taken away beside them, and that
    /// `signer` could sign as an admin on their path, newest first; as many as [`Constitution::proposals`], which has none
    /// of them.
    #[must_use]
    pub fn answers(&self, signer: &PeerId) -> Vec<Proposal> {
        shown(self.open_answers(signer))
    }

    /// All of them, newest first.
    pub fn open_answers(&self, signer: &PeerId) -> impl Iterator<Item = Proposal> {
        self.graph.in_order().rev().filter_map(move |node| self.answer(node, signer))
    }

    fn answer(&self, node: Node, signer: &PeerId) -> Option<Proposal> {
        let held = self.graph.held(node)?;
        let statement = &held.statement;
        let removes = matches!(statement.body().act, Act::RemoveAdmin { .. } | Act::Revoke { .. });
        if !removes || !self.view.void.contains(&statement.id()) {
            return None;
        }
        let path = self.evaluator.known_path(held.set)?;
        let need = path.need(&statement.body().act);
        let signers: Vec<PeerId> =
            statement.signers().filter(|signer| path.admins.contains_key(*signer)).copied().collect();
        let can_sign = path.admins.contains_key(signer) && statement.signature(signer).is_none();
        let lacks = (1..need).contains(&signers.len()) && need <= path.admins.len();
        if !can_sign || !lacks || self.proposal(node).is_some() {
            return None;
        }
        Some(Proposal { statement: Arc::clone(statement), have: signers.len(), need, alone: alone(&signers) })
    }

    /// How many admins of its path have signed a statement, and how many must; whether they count is another question.
    #[must_use]
    pub fn tally(&self, id: &StatementId) -> Option<(usize, usize)> {
        let held = self.graph.held(self.graph.node(id)?)?;
        let path = self.evaluator.known_path(held.set)?;
        let have = held.statement.signers().filter(|signer| path.admins.contains_key(*signer)).count();
        Some((have, path.need(&held.statement.body().act)))
    }

    /// What a statement beside `avoid` stands on: at most 16 tips, the newest first.
    fn tips_beside(&self, avoid: &[StatementId]) -> Vec<Node> {
        let avoided: Vec<Node> = avoid.iter().filter_map(|id| self.graph.node(id)).collect();
        let place = |node: &Node| {
            self.graph.held(*node).map(|held| (u64::MAX - held.statement.body().seq, held.statement.id()))
        };
        let mut tips: Vec<Node> = self.graph.tips_beside(&avoided).collect();
        tips.sort_by_key(place);
        tips.truncate(MAX_PARENTS);
        tips
    }
}
