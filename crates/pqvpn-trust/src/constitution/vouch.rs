// SPDX-License-Identifier: MIT OR Apache-2.0
//! Room for what admins stand on.
//!
//! What one key may say is bounded, and who holds other statements of it than another would refuse what the other stands on:
//! whoever tells one half of a network so much, and the other half as much besides, would split it for good. So what was
//! refused for want of room is let in once a statement of an admin that waits here stands on it. That admin pays: with what
//! it stands on so, it fills no more than it could by itself.

use std::collections::BTreeMap;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Statement, StatementId};

use super::{Constitution, Inserted};
use crate::graph::{ActSet, Node, own_key};
use crate::refusal::Refusal;
use crate::verify::StatementVerifier;
use crate::waiting::Key;
use crate::{MAX_OWN_ACTS, MAX_STATEMENTS_ALONE, MAX_VOID};

impl Constitution {
    /// Whether there is room for a statement, and who pays for it if there is none of its own.
    pub(super) fn find_room(
        &mut self,
        statement: &Statement,
        set: &ActSet,
        verifier: &dyn StatementVerifier,
    ) -> Result<Option<PeerId>, Refusal> {
        let Err(refusal) = self.check_room(statement, set) else { return Ok(None) };
        // There was room for it when it came.
        if self.loading.is_some() {
            return Ok(None);
        }
        if !matches!(refusal, Refusal::OwnFull | Refusal::VoidFull) {
            return Err(refusal);
        }
        let above = self.waiting.above(&statement.id());
        let voucher = self.voucher(above, Some(statement), verifier);
        if voucher.is_none() {
            self.waiting.refuse(statement.clone());
        }
        voucher.map(Some).ok_or(refusal)
    }

    /// Lets in what was refused and what `arrived`, which waits, stands on, if an admin says that or something that stands on it.
    pub(super) fn admit_vouched(&mut self, arrived: StatementId, verifier: &dyn StatementVerifier) -> Vec<StatementId> {
        let refused = self.waiting.refused_under(&arrived);
        // Signatures are looked at only where that decides about something.
        if refused.is_empty() {
            return Vec::new();
        }
        let mut above = self.waiting.copies(&arrived);
        above.extend(self.waiting.above(&arrived));
        if self.voucher(above, None, verifier).is_none() {
            return Vec::new();
        }
        let mut adopted = Vec::new();
        for key in refused {
            let above = self.waiting.above(&key.0);
            let Some(statement) = self.waiting.statement(&key).cloned() else { continue };
            if self.voucher(above, Some(&statement), verifier).is_none() {
                continue;
            }
            self.waiting.remove(&key);
            if matches!(self.admit(statement, verifier), Ok(Inserted::New { .. })) {
                adopted.push(key.0);
                adopted.extend(self.admit_waiting_for(key.0, verifier));
            }
        }
        adopted
    }

    /// The first admin that signed one of these, and that can pay for a statement, which must not be its own.
    fn voucher(
        &mut self,
        waiters: Vec<Key>,
        of: Option<&Statement>,
        verifier: &dyn StatementVerifier,
    ) -> Option<PeerId> {
        let whole = self.evaluator.whole(&self.graph);
        for waiter in waiters {
            let Some(statement) = self.waiting.statement(&waiter) else { continue };
            let can_pay = |signer: &&PeerId| whole.admins.contains_key(*signer) && self.can_pay(signer, of);
            let signers: Vec<PeerId> = statement.signers().filter(can_pay).copied().collect();
            for signer in signers {
                let Some(key) = self.graph.key(&signer) else { continue };
                let looks = self.waiting.statement(&waiter).is_some_and(|statement| verifier.looks(statement));
                if self.waiting.is_right(&waiter, &signer, |statement| verifier.signature(statement, &signer, key)) {
                    return Some(signer);
                }
                // Members pass on nothing false: so it is looked at once.
                if looks {
                    self.counters.waiting_evicted += u64::from(self.waiting.remove(&waiter).is_some());
                }
                break;
            }
        }
        None
    }

    fn can_pay(&self, admin: &PeerId, of: Option<&Statement>) -> bool {
        let line = self.graph.first_key(admin);
        let is_own = of.is_some_and(|of| of.signers().any(|author| self.graph.first_key(author) == line));
        !is_own && self.graph.alone(admin).0 < MAX_STATEMENTS_ALONE
    }

    /// Has the nearest admins that stand on what is over the bounds pay for it, as when it came; `late`: of all that was held,
    /// what nobody signed who was an admin when it came.
    pub(super) fn charge_all(&mut self, late: Vec<Node>) {
        let mut lines: BTreeMap<PeerId, Vec<Node>> = BTreeMap::new();
        for node in 0..u32::try_from(self.graph.len()).unwrap_or(u32::MAX) {
            let key = self.graph.held(node).and_then(|held| own_key(&held.statement.body().act));
            if let Some(key) = key {
                lines.entry(self.graph.first_key(&key.peer_id())).or_default().push(node);
            }
        }
        let bounded = lines.into_values().map(|nodes| (nodes, MAX_OWN_ACTS)).chain([(late, MAX_VOID)]);
        let bounded: Vec<_> = bounded.filter(|(nodes, bound)| nodes.len() > *bound).collect();
        if bounded.is_empty() {
            return;
        }
        let payers = self.payers();
        for (nodes, bound) in bounded {
            let payers = nodes.iter().filter_map(|node| payers.get(*node as usize).copied().flatten());
            payers.take(nodes.len() - bound).for_each(|payer| self.graph.charge(&payer));
        }
    }

    /// Of each statement the admin that stands on it most nearly.
    fn payers(&mut self) -> Vec<Option<PeerId>> {
        let whole = self.evaluator.whole(&self.graph);
        let mut payers: Vec<Option<PeerId>> = vec![None; self.graph.len()];
        for (node, parents) in self.graph.parents().enumerate().rev() {
            let held = u32::try_from(node).ok().and_then(|node| self.graph.held(node));
            let mut signers = held.into_iter().flat_map(|held| held.statement.signers());
            let own = signers.find(|signer| whole.admins.contains_key(*signer)).copied();
            let Some(payer) = own.or(payers.get(node).copied().flatten()) else { continue };
            for parent in parents {
                if let Some(of_parent) = payers.get_mut(*parent as usize) {
                    *of_parent = Some(payer);
                }
            }
        }
        payers
    }
}
