// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is not checked again: what is on the own disk, and what a copy holds that was checked as it was made.

use std::sync::Arc;

use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId};
use pqvpn_packet::addr::ipv4_candidate;
use pqvpn_trust::{CompositeVerifier, Constitution, Inserted, Refusal, StatementVerifier};
use pqvpn_wire::network::{NetworkId, Statement};

use super::Network;

/// Believes what this node has checked before: what is on its own disk.
struct OwnDisk;

impl StatementVerifier for OwnDisk {
    fn signature(&self, _statement: &Statement, _signer: &PeerId, _key: &PublicIdentity) -> bool {
        true
    }

    fn rotation(&self, _statement: &Statement) -> bool {
        true
    }
}

/// Believes what another copy holds, which was checked on its way into that; all else, as what waits in either, is checked.
struct Checked<'c>(&'c Constitution);

impl StatementVerifier for Checked<'_> {
    fn signature(&self, statement: &Statement, signer: &PeerId, key: &PublicIdentity) -> bool {
        let held = self.0.get(&statement.id());
        // By its bytes: the same statement may come under a false one.
        let known = held.as_ref().and_then(|held| held.signature(signer));
        known.is_some_and(|known| statement.signature(signer) == Some(known))
            || CompositeVerifier.signature(statement, signer, key)
    }

    fn rotation(&self, statement: &Statement) -> bool {
        self.0.contains(&statement.id()) || CompositeVerifier.rotation(statement)
    }
}

impl Network {
    /// What was held here, and what another's copy adds to it. Of what waits there for others nothing is taken.
    pub(in crate::membership) fn united_with(self, other: &Constitution) -> Constitution {
        let mut held = self.constitution;
        // What was shed here and comes whole is kept whole.
        held.keep_all(true);
        let added = other.after(&[], usize::MAX).statements.into_iter().map(Arc::unwrap_or_clone);
        let _refusals_are_counted = held.insert_all(added, &Checked(other));
        held
    }
}

/// A constitution out of statements that others sent, ancestors first.
///
/// # Errors
/// They do not begin with the genesis of this network.
pub(in crate::membership) fn constitution(
    id: &NetworkId,
    statements: impl IntoIterator<Item = Statement>,
    verifier: &dyn StatementVerifier,
) -> Result<Constitution, String> {
    let mut statements = statements.into_iter();
    let mut constitution = founded(id, statements.next(), verifier)?;
    // Evaluated once: each that does not stand on all tips would have all evaluated again.
    say_refused(constitution.insert_all(statements, verifier));
    Ok(constitution)
}

/// A constitution out of what was held here before, all of it, ancestors first.
///
/// # Errors
/// They do not begin with the genesis of this network.
pub(super) fn constitution_kept(
    id: &NetworkId,
    statements: impl IntoIterator<Item = Statement>,
) -> Result<Constitution, String> {
    let mut statements = statements.into_iter();
    let mut constitution = founded(id, statements.next(), &OwnDisk)?;
    say_refused(constitution.insert_kept(statements, &OwnDisk));
    Ok(constitution)
}

fn founded(
    id: &NetworkId,
    genesis: Option<Statement>,
    verifier: &dyn StatementVerifier,
) -> Result<Constitution, String> {
    let genesis = genesis.ok_or("nothing was sent")?;
    if genesis.id().network() != *id {
        return Err("its first statement is another network's".to_owned());
    }
    Constitution::found(genesis, verifier, ipv4_candidate).map_err(|refusal| refusal.to_string())
}

/// One that does not hold does not take the others with it.
fn say_refused(answers: Vec<Result<Inserted, Refusal>>) {
    for refusal in answers.into_iter().filter_map(Result::err) {
        tracing::debug!(%refusal, "a statement is not taken in");
    }
}
