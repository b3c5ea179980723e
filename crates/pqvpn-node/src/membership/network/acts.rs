// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this node says as an admin or a member: drafted on everything held, signed, taken in.

use std::sync::Arc;

use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_trust::{CompositeVerifier, Refusal};
use pqvpn_wire::network::{Act, Statement, StatementId};

use super::Network;
use crate::membership::error::NetworkError;

impl Network {
    /// Takes a statement in that was just made here.
    ///
    /// # Errors
    /// The constitution refuses it.
    pub(in crate::membership) fn author(&mut self, statement: Statement) -> Result<(), Refusal> {
        self.insert(statement, &CompositeVerifier).map(drop)
    }

    /// Drafts an act on everything held, signs it and takes it in.
    ///
    /// # Errors
    /// The constitution does not allow it, or it cannot be signed.
    pub(in crate::membership) fn act(
        &mut self,
        identity: &Identity,
        now_ms: u64,
        act: Act,
    ) -> Result<StatementId, NetworkError> {
        let name = || self.head.name.clone();
        if let Err(why) = self.constitution.allowed(&self.own, &act) {
            return Err(self.not_allowed(&why));
        }
        let gives_up = matches!(&act, Act::RemoveAdmin { peer } | Act::Revoke { peer, .. } if *peer == self.own);
        if gives_up && self.is_too_few_without_me(now_ms, true) {
            return Err(NetworkError::LastAdmin { network: name() });
        }
        let body = if matches!(act, Act::Checkpoint { .. }) {
            self.constitution.draft_checkpoint(now_ms)
        } else {
            self.constitution.draft(now_ms, act)
        };
        let internal = |error: &dyn std::fmt::Display| NetworkError::Internal(error.to_string());
        let mut statement = Statement::draft(body).map_err(|error| NetworkError::BadOption(error.to_string()))?;
        if !matches!(statement.body().act, Act::Disable { .. }) {
            statement.sign(identity).map_err(|error| internal(&error))?;
        }
        let id = statement.id();
        let network = name();
        self.author(statement).map_err(|refusal| NetworkError::NotAllowed { network, why: refusal.to_string() })?;
        Ok(id)
    }

    /// Whether the admins that stay would be fewer than must sign together, for the others, when this node leaves, or
    /// `gives_up` its say. One that has left can still sign, and is reached by nobody. Who leaves when they are too few
    /// with it as well takes nothing away: that one could not make another admin either.
    pub(in crate::membership) fn is_too_few_without_me(&self, now_ms: u64, gives_up: bool) -> bool {
        let view = self.constitution.view();
        if !self.am_admin() || self.others(now_ms).is_empty() {
            return false;
        }
        let stay = view.admins.keys().filter(|peer| **peer != self.own && self.is_member(now_ms, peer)).count();
        if gives_up {
            // Its key is no admin then: of fewer not more must sign.
            return stay < view.quorum().min(view.admins.len().saturating_sub(1)).max(1);
        }
        stay + 1 == view.quorum()
    }

    /// Puts somebody out. A proposal to do so that is open is signed instead of making another, if it would put out who
    /// is a member now: one of before its membership takes effect before that, and one that needs more signatures than a
    /// new one does keeps it in.
    ///
    /// # Errors
    /// The constitution does not allow it, or it cannot be signed.
    pub(in crate::membership) fn revoke(
        &mut self,
        identity: &Identity,
        now_ms: u64,
        peer: PeerId,
        reason: String,
    ) -> Result<StatementId, NetworkError> {
        let Some(open) = self.open_revocation(&peer).filter(|_| self.am_admin()) else {
            return self.act(identity, now_ms, Act::Revoke { peer, reason });
        };
        if open.signature(&self.own).is_none() {
            self.co_sign(identity, &open.id())?;
        }
        Ok(open.id())
    }

    /// A proposal to put out the admin `peer` that does as much as a new one.
    fn open_revocation(&self, peer: &PeerId) -> Option<Arc<Statement>> {
        let view = self.constitution.view();
        if !view.is_admin(peer) {
            return None;
        }
        let same = |act: &Act| matches!(act, Act::Revoke { peer: of, .. } if of == peer);
        let came_later = |open: &StatementId| {
            let member = view.members.get(peer);
            member.is_some_and(|member| self.constitution.are_under(&[*open], &[member.statement]))
        };
        let mut open = self.constitution.open(same).filter(|proposal| proposal.need <= view.quorum());
        open.find(|proposal| !came_later(&proposal.statement.id())).map(|proposal| proposal.statement)
    }

    /// Signs what is held.
    ///
    /// # Errors
    /// It is not held, cannot be signed, or the constitution refuses it.
    pub(in crate::membership) fn co_sign(&mut self, identity: &Identity, id: &StatementId) -> Result<(), NetworkError> {
        let mut statement = Statement::clone(&*self.constitution.get(id).ok_or(NetworkError::NoNetwork)?);
        statement.sign(identity).map_err(|error| NetworkError::Internal(error.to_string()))?;
        let network = self.head.name.clone();
        self.author(statement).map_err(|refusal| NetworkError::NotAllowed { network, why: refusal.to_string() })
    }
}
