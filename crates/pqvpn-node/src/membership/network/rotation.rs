// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members that go on under another key: how they show it to who has not heard, and where they are found then.

use std::sync::Arc;

use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_trust::{CompositeVerifier, Event, StatementVerifier as _, View};
use pqvpn_wire::network::{Act, Bundle, MAX_LINE, NetworkId, Statement, StatementId};

use super::{Network, constitution_kept};
use crate::membership::{error::NetworkError, report::RotatedNetwork, store::Change};

impl Network {
    /// Whether this node can rotate its key here: it is a member, or may sign, and the network is not at its end.
    pub(in crate::membership) fn rotates(&self) -> bool {
        let view = self.constitution.view();
        !view.disabled && (view.members.contains_key(&self.own) || view.is_admin(&self.own))
    }

    /// Signs over membership and rights of this node to the next identity, and takes that in.
    ///
    /// # Errors
    /// The constitution does not allow it, or it cannot be signed.
    pub(in crate::membership) fn rotate(
        &mut self,
        now_ms: u64,
        own: &Identity,
        next: &Identity,
    ) -> Result<(StatementId, RotatedNetwork), NetworkError> {
        let view = self.constitution.view();
        let report = RotatedNetwork {
            network: self.head.name.clone(),
            name: view.members.get(&self.own).map_or_else(String::new, |own| own.name.clone()),
            told: 0,
            others: self.others(now_ms).len(),
            admin: view.is_admin(&self.own),
            invites: self.invites.values().filter(|invite| invite.invite().issuer == self.own).count(),
        };
        let act = Act::rotate(&self.id, own.public().clone(), next);
        let act = act.map_err(|error| NetworkError::Internal(error.to_string()))?;
        Ok((self.act(own, now_ms, act)?, report))
    }

    /// Undoes what [`Self::rotate`] did, where nobody has heard of it yet.
    pub(in crate::membership) fn take_back(&mut self, rotation: &StatementId) {
        let is_it = |change: &Change| matches!(change, Change::Statement(_, id, _) if id == rotation.as_bytes());
        self.changes.retain(|change| !is_it(change));
        self.news.bundle.statements.retain(|statement| statement.id() != *rotation);
        let held = self.constitution.after(&[], usize::MAX).statements.into_iter();
        let before = held.filter(|statement| statement.id() != *rotation).map(Arc::unwrap_or_clone);
        match constitution_kept(&self.id, before) {
            Ok(before) => self.constitution = before,
            Err(why) => tracing::error!(why, network = %self.head.name, "a rotation is not taken back"),
        }
        (self.dirty, self.covers.stale) = (true, true);
    }

    /// The rotations that led to our own key, as we show them to members that know us by an earlier one.
    pub(in crate::membership) fn own_line(&self) -> Vec<Arc<Statement>> {
        let mut line = self.constitution.rotations_to(&self.own, MAX_LINE);
        // From what was shed on nobody would believe the line; the rest may be enough.
        let shown = line.iter().rposition(|rotation| rotation.is_bare()).map_or(0, |bare| bare + 1);
        line.split_off(shown)
    }

    /// Whether these rotations lead from a member of now to `peer`, each signed by its old key and its new one.
    ///
    /// That makes `peer` nothing but somebody worth asking: whether it is the member follows from all statements.
    pub(in crate::membership) fn leads_to(&self, now_ms: u64, peer: &PeerId, line: &[Arc<Statement>]) -> bool {
        self.leading(now_ms, peer, line).is_some_and(|line| line.iter().all(|statement| is_signed(statement)))
    }

    /// The same without a look at any signature, which costs nothing.
    pub(in crate::membership) fn could_lead_to(&self, now_ms: u64, peer: &PeerId, line: &[Arc<Statement>]) -> bool {
        self.leading(now_ms, peer, line).is_some()
    }

    /// The part of a line from a member of now to `peer`.
    fn leading<'l>(&self, now_ms: u64, peer: &PeerId, line: &'l [Arc<Statement>]) -> Option<&'l [Arc<Statement>]> {
        let known = |statement: &Arc<Statement>| {
            keys_of(&self.id, statement).is_some_and(|(old, _)| self.is_member(now_ms, &old))
        };
        let leading = line.get(line.iter().rposition(known)?..)?;
        let mut at = None;
        for statement in leading {
            let (old, new) = keys_of(&self.id, statement)?;
            if at.is_some_and(|at| at != old) {
                return None;
            }
            at = Some(new);
        }
        (at == Some(*peer)).then_some(leading)
    }

    /// Who is who, where what comes may change it: that is a copy of all members, and most of what comes is records.
    pub(super) fn view_before(&self, bundle: &Bundle) -> Option<View> {
        (!bundle.statements.is_empty()).then(|| self.constitution.view().clone())
    }

    /// Takes note of what statements have changed, and says what that is.
    pub(super) fn on_change(&mut self, before: &View) -> Vec<Event> {
        self.inherit_places(before);
        self.constitution.view().changes_since(before)
    }

    /// Who has another key is where it was, until it says more.
    fn inherit_places(&mut self, before: &View) {
        let view = self.constitution.view();
        let fresh: Vec<PeerId> =
            view.members.keys().filter(|peer| !before.members.contains_key(*peer)).copied().collect();
        for new in fresh {
            let line = self.constitution.rotations_to(&new, 1);
            let Some((old, _)) = line.first().and_then(|statement| keys_of(&self.id, statement)) else { continue };
            let places = self.endpoints(&old);
            if new != self.own && !places.is_empty() {
                self.hints.insert(new, places);
            }
        }
    }
}

/// Old and new key of a rotation of this network.
fn keys_of(network: &NetworkId, statement: &Statement) -> Option<(PeerId, PeerId)> {
    let Act::Rotate { old, key, .. } = &statement.body().act else { return None };
    (statement.network() == *network).then(|| (old.peer_id(), key.peer_id()))
}

fn is_signed(statement: &Statement) -> bool {
    let Act::Rotate { old, .. } = &statement.body().act else { return false };
    CompositeVerifier.rotation(statement) && CompositeVerifier.signature(statement, &old.peer_id(), old)
}
