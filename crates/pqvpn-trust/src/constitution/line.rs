// SPDX-License-Identifier: MIT OR Apache-2.0
//! The line of keys of one member: which rotations led to a key, and as whom a key goes on.

use std::sync::Arc;

use pqvpn_crypto::identity::PublicIdentity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Statement, StatementId};

use super::Constitution;
use crate::bits::Bits;
use crate::graph::{Held, Node, own_key};
use crate::{MAX_OWN_ACTS, MAX_PARENTS};

impl Constitution {
    /// The newest `most` rotations with an effect that led to `peer`, oldest first: each one's new key is the old key of
    /// the next, the last one's is `peer`.
    #[must_use]
    pub fn rotations_to(&self, peer: &PeerId, most: usize) -> Vec<Arc<Statement>> {
        let (mut line, mut at) = (Vec::new(), *peer);
        while line.len() < most.min(MAX_OWN_ACTS) {
            let found = self.graph.entries(&at).iter().filter_map(|node| self.rotation(*node)).next_back();
            let Some((statement, old, _)) = found else { break };
            (at, _) = (old, line.push(statement));
        }
        line.reverse();
        line
    }

    /// The rotation by which `peer` went on under another key, if it is no member under this one.
    #[must_use]
    pub fn rotated_by(&self, peer: &PeerId) -> Option<StatementId> {
        let is_out = !self.view.members.contains_key(peer);
        let mut away =
            self.graph.rotations_from(peer).iter().filter(|_| is_out).filter_map(|node| self.rotation(*node));
        away.next_back().map(|(statement, ..)| statement.id())
    }

    /// What a member's word about itself stands on, at most 16: how its key came in and what its line said with an effect,
    /// then the newest of what admins said.
    ///
    /// Not what else members say: admins may have no room for it, only an admin's word makes some, and what stands on it would
    /// wait for ever.
    pub(super) fn own_tips(&self, own: &PeerId) -> Option<Vec<&Held>> {
        let (whole, line) = (self.known_whole()?, self.graph.first_key(own));
        // Also of who is none any more, or is one by another key: what ended that knows it, so that there is room for it.
        let has_effect = |held: &Held| !self.view.void.contains(&held.statement.id());
        let of_admin = |held: &Held| {
            held.statement.signers().any(|signer| whole.admins.contains_key(signer))
                || has_effect(held) && (held.act.is_some() || own_key(&held.statement.body().act).is_none())
        };
        let (entries, mut under, mut tips) = (self.graph.entries(own), Bits::default(), Vec::new());
        for (number, parents) in self.graph.parents().enumerate().rev() {
            let node = u32::try_from(number).ok()?;
            let held = self.graph.held(node)?;
            let of_line = |key: &PublicIdentity| self.graph.first_key(&key.peer_id()) == line;
            let is_own = entries.contains(&node) || own_key(&held.statement.body().act).is_some_and(of_line);
            let is_own = is_own && has_effect(held);
            if !under.contains(node) {
                if !is_own && !of_admin(held) {
                    continue;
                }
                tips.push((!is_own, u64::MAX - held.statement.body().seq, held));
            }
            parents.iter().for_each(|parent| under.insert(*parent));
        }
        tips.sort_by_key(|(is_other, from_end, held)| (*is_other, *from_end, held.statement.id()));
        Some(tips.into_iter().map(|(.., held)| held).take(MAX_PARENTS).collect())
    }

    /// As whom `peer` goes on, if it rotated its key and the last key of its line is a member's.
    #[must_use]
    pub fn successor(&self, peer: &PeerId) -> Option<PeerId> {
        let mut at = *peer;
        for _ in 0..MAX_OWN_ACTS {
            let next = self.graph.rotations_from(&at).iter().filter_map(|node| self.rotation(*node)).next_back();
            match next {
                Some((_, _, new)) => at = new,
                None => break,
            }
        }
        (at != *peer && self.view.members.contains_key(&at)).then_some(at)
    }

    /// A rotation that has an effect: statement, old and new key.
    fn rotation(&self, node: Node) -> Option<(Arc<Statement>, PeerId, PeerId)> {
        let statement = &self.graph.held(node)?.statement;
        let Act::Rotate { old, key, .. } = &statement.body().act else { return None };
        let effective = !self.view.void.contains(&statement.id());
        effective.then(|| (Arc::clone(statement), old.peer_id(), key.peer_id()))
    }
}
