// SPDX-License-Identifier: MIT OR Apache-2.0
//! An answer to a coup: a removal signed beside statements that took authority away.

use std::collections::BTreeSet;

use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_wire::network::{Act, Statement, StatementId};

use super::{
    Network,
    names::{find_member, is_prefix},
};
use crate::membership::error::NetworkError;

impl Network {
    /// Signs, beside these statements and all that stands on them, that an admin may sign no more: `who`, else the one
    /// that signed them.
    ///
    /// # Errors
    /// No such statements, it is not clear who is meant, or this node is no admin beside them.
    pub(in crate::membership) fn contest(
        &mut self,
        identity: &Identity,
        now_ms: u64,
        statements: &[String],
        who: Option<&str>,
    ) -> Result<StatementId, NetworkError> {
        let mut beside = Vec::new();
        for text in statements {
            beside.push(self.find_statement(text)?);
        }
        let peer = self.contested(&beside, who)?;
        let own = self.own;
        if let Err(why) = self.constitution.allowed_beside(&own, &peer, &beside) {
            return Err(self.not_allowed(&why));
        }
        let body = self.constitution.draft_beside(now_ms, Act::RemoveAdmin { peer }, &beside);
        let internal = |error: &dyn std::fmt::Display| NetworkError::Internal(error.to_string());
        let mut statement = Statement::draft(body).map_err(|error| internal(&error))?;
        statement.sign(identity).map_err(|error| internal(&error))?;
        let (id, network) = (statement.id(), self.head.name.clone());
        self.author(statement).map_err(|refusal| NetworkError::NotAllowed { network, why: refusal.to_string() })?;
        Ok(id)
    }

    fn find_statement(&self, text: &str) -> Result<StatementId, NetworkError> {
        let held = self.constitution.log(usize::MAX).into_iter().map(|entry| entry.statement.id());
        let fitting: Vec<StatementId> = held.filter(|id| is_prefix(text, &id.to_string())).collect();
        match fitting.as_slice() {
            [id] => Ok(*id),
            _ => Err(NetworkError::NoSuchStatement { network: self.head.name.clone(), id: text.to_owned() }),
        }
    }

    /// Whose say is to be taken away.
    fn contested(&self, beside: &[StatementId], who: Option<&str>) -> Result<PeerId, NetworkError> {
        let statements = beside.iter().filter_map(|id| self.constitution.get(id));
        let signers: BTreeSet<PeerId> = statements
            .flat_map(|statement| statement.signers().copied().collect::<Vec<_>>())
            .filter(|signer| *signer != self.own)
            .collect();
        let fits = |text: &str| signers.iter().filter(|peer| is_prefix(text, &peer.to_string())).collect::<Vec<_>>();
        match (who, signers.first()) {
            (Some(who), _) => match (find_member(self, who), fits(who).as_slice()) {
                (Ok(found), _) => Ok(found.peer),
                // A helper of a thief need not be a member.
                (Err(_), [peer]) => Ok(**peer),
                (Err(error), _) => Err(error),
            },
            (None, Some(peer)) if signers.len() == 1 => Ok(*peer),
            (None, None) => {
                Err(NetworkError::BadOption("nobody but this node signed it; say who with --remove".into()))
            }
            (None, Some(_)) => Err(NetworkError::BadOption("several signed it; say who with --remove".into())),
        }
    }
}
