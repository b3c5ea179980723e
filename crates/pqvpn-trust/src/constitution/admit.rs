// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has any business in the constitution: place, signatures, room.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use pqvpn_crypto::identity::PublicIdentity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, MAX_SIGNERS, Statement, StatementId};
use sha2::{Digest, Sha256};

use super::{Constitution, Inserted};
use crate::counters::Counters;
use crate::fold::Fold;
use crate::graph::{ActSet, Node, is_authority_act, own_key};
use crate::refusal::Refusal;
use crate::verify::StatementVerifier;
use crate::{
    MAX_AUTHORITY_ACTS, MAX_AUTHORITY_ACTS_ALONE, MAX_OWN_ACTS, MAX_PARENTS, MAX_STATEMENTS, MAX_STATEMENTS_ALONE,
    MAX_VOID,
};

impl Constitution {
    /// Takes in a statement, and what waited for it.
    pub(super) fn admit_all_ready(
        &mut self,
        statement: Statement,
        verifier: &dyn StatementVerifier,
    ) -> Result<Inserted, Refusal> {
        let id = statement.id();
        let mut answer = self.admit(statement, verifier);
        match &mut answer {
            Ok(Inserted::New { adopted }) => *adopted = self.admit_waiting_for(id, verifier),
            Ok(Inserted::Waiting { missing, adopted }) => {
                *adopted = self.admit_vouched(id, verifier);
                missing.retain(|parent| !self.contains(parent));
                if self.contains(&id) {
                    adopted.retain(|adopted| *adopted != id);
                    let adopted = std::mem::take(adopted);
                    answer = Ok(Inserted::New { adopted });
                }
            }
            // Not of what waited: others offered that.
            Err(Refusal::NoAuthority) => verifier.unfounded(),
            Ok(_) | Err(_) => {}
        }
        answer
    }

    /// Takes in what waited for a statement, and what waited for that.
    pub(super) fn admit_waiting_for(
        &mut self,
        statement: StatementId,
        verifier: &dyn StatementVerifier,
    ) -> Vec<StatementId> {
        let (mut adopted, mut arrived) = (Vec::new(), vec![statement]);
        while let Some(parent) = arrived.pop() {
            for ready in self.waiting.take_ready(&parent) {
                let id = ready.id();
                if matches!(self.admit(ready, verifier), Ok(Inserted::New { .. })) {
                    adopted.push(id);
                    arrived.push(id);
                }
            }
        }
        adopted
    }

    pub(super) fn admit(
        &mut self,
        statement: Statement,
        verifier: &dyn StatementVerifier,
    ) -> Result<Inserted, Refusal> {
        self.try_admit(statement, verifier).map_err(|refusal| self.counters.refuse(refusal))
    }

    fn try_admit(&mut self, statement: Statement, verifier: &dyn StatementVerifier) -> Result<Inserted, Refusal> {
        if let Some(node) = self.graph.node(&statement.id()) {
            return self.merge(node, statement, verifier);
        }
        self.check_place(&statement)?;
        let Some(parents) = self.parents(&statement) else {
            let missing: BTreeSet<_> =
                statement.body().parents.iter().filter(|parent| !self.contains(parent)).copied().collect();
            self.counters.waited += 1;
            self.counters.waiting_evicted += self.waiting.enter(statement, missing.clone());
            return Ok(Inserted::Waiting { missing: missing.into_iter().collect(), adopted: Vec::new() });
        };
        self.check_seq(&statement, &parents)?;
        let (_, set) = self.graph.act_set(&parents);
        let statement = self.check_signers(statement, &set, &parents, verifier)?;
        let payer = self.find_room(&statement, &set, verifier)?;
        self.waiting.forget_refused(&statement.id());
        self.take_in(statement, parents);
        if let Some(payer) = payer {
            self.graph.charge(&payer);
            self.counters.vouched += 1;
        }
        Ok(Inserted::New { adopted: Vec::new() })
    }

    fn check_place(&self, statement: &Statement) -> Result<(), Refusal> {
        let body = statement.body();
        if matches!(body.act, Act::Genesis(_)) {
            return Err(Refusal::SecondGenesis);
        }
        if body.network != self.id {
            return Err(Refusal::ForeignNetwork);
        }
        if body.parents.is_empty() || body.parents.len() > MAX_PARENTS {
            return Err(Refusal::NoParents);
        }
        if !is_signed(statement) {
            return Err(Refusal::NoAuthority);
        }
        // Before it waits: without a signature anybody makes as many as there is room for.
        if matches!(&body.act, Act::Disable { secret } if self.disable != Some(Sha256::digest(secret).into())) {
            return Err(Refusal::BadSecret);
        }
        if self.graph.len() >= MAX_STATEMENTS { Err(Refusal::Full) } else { Ok(()) }
    }

    fn parents(&self, statement: &Statement) -> Option<Vec<Node>> {
        statement.body().parents.iter().map(|parent| self.graph.node(parent)).collect()
    }

    fn check_seq(&self, statement: &Statement, parents: &[Node]) -> Result<(), Refusal> {
        let greatest =
            parents.iter().filter_map(|parent| self.graph.held(*parent)).map(|held| held.statement.body().seq).max();
        let follows = greatest.and_then(|seq| seq.checked_add(1)) == Some(statement.body().seq);
        if follows { Ok(()) } else { Err(Refusal::BadSeq) }
    }

    /// Keeps the signatures of those that may have a say, if they hold.
    fn check_signers(
        &mut self,
        statement: Statement,
        set: &ActSet,
        parents: &[Node],
        verifier: &dyn StatementVerifier,
    ) -> Result<Statement, Refusal> {
        if matches!(statement.body().act, Act::Disable { .. }) {
            return Ok(without_signers(statement));
        }
        let rotates = matches!(statement.body().act, Act::Rotate { .. });
        let own = own_key(&statement.body().act).cloned().filter(|key| self.may_have_entered(&key.peer_id(), set));
        if rotates && own.is_none() {
            return Err(Refusal::NoAuthority);
        }
        if !verifier.rotation(&statement) {
            return Err(Refusal::BadRotation);
        }
        let key_of = |peer: &PeerId| {
            if let Some(own) = own.as_ref().filter(|own| own.peer_id() == *peer) {
                return Some(own);
            }
            (!rotates && set.granted.contains(peer)).then(|| self.graph.key(peer)).flatten()
        };
        let good = only_good(statement, verifier, &mut self.counters, key_of)?;
        match own {
            Some(own) => self.check_entered(good, &own.peer_id(), set, parents),
            None => Ok(good),
        }
    }

    /// Whether anything held took the peer in or gave it authority; whether the statement stands on that is not asked.
    fn may_have_entered(&self, peer: &PeerId, set: &ActSet) -> bool {
        set.granted.contains(peer) || !self.graph.entries(peer).is_empty()
    }

    /// Keeps the right signature of the subject itself if what the statement stands on took it in.
    ///
    /// That walks the graph, so a signature must hold before: whoever is made to walk for nothing knows whose key did it.
    fn check_entered(
        &mut self,
        mut good: Statement,
        own: &PeerId,
        set: &ActSet,
        parents: &[Node],
    ) -> Result<Statement, Refusal> {
        let is_in = || set.granted.contains(own) || self.graph.entered(own, parents);
        if !good.signers().any(|signer| signer == own) || is_in() {
            return Ok(good);
        }
        good.remove_signature(own);
        self.counters.signatures_dropped += 1;
        if good.signers().len() == 0 { Err(Refusal::NoAuthority) } else { Ok(good) }
    }

    pub(super) fn check_room(&mut self, statement: &Statement, set: &ActSet) -> Result<(), Refusal> {
        let is_act = is_authority_act(&statement.body().act, &set.granted);
        let mut signers = statement.signers();
        let alone = match (signers.next(), signers.next()) {
            (Some(signer), None) => self.graph.alone(signer),
            _ => (0, 0),
        };
        if is_act && (self.graph.act_count() >= MAX_AUTHORITY_ACTS || alone.1 >= MAX_AUTHORITY_ACTS_ALONE) {
            return Err(Refusal::AuthorityFull);
        }
        if alone.0 >= MAX_STATEMENTS_ALONE {
            return Err(Refusal::Full);
        }
        if self.graph.own_acts(&statement.body().act) >= MAX_OWN_ACTS {
            return Err(Refusal::OwnFull);
        }
        if self.is_late(statement) && self.late >= MAX_VOID { Err(Refusal::VoidFull) } else { Ok(()) }
    }

    /// Says whether nobody who signed is an admin now; what members say of themselves is never late.
    ///
    /// Asks the acts held, not the view, which is behind while many statements come in at once.
    fn is_late(&mut self, statement: &Statement) -> bool {
        if own_key(&statement.body().act).is_some() || matches!(statement.body().act, Act::Disable { .. }) {
            return false;
        }
        let whole = self.evaluator.whole(&self.graph);
        !statement.signers().any(|signer| whole.admins.contains_key(signer))
    }

    fn take_in(&mut self, statement: Statement, parents: Vec<Node>) {
        let is_late = self.is_late(&statement);
        self.late += usize::from(is_late);
        let on_all_tips = parents.iter().copied().collect::<BTreeSet<_>>() == *self.graph.tips();
        let node = self.graph.push(Arc::new(statement), parents);
        if let Some(late) = self.loading.as_mut().filter(|_| is_late) {
            late.push(node);
        }
        self.counters.inserted += 1;
        self.head = OnceLock::new();
        let is_act = self.graph.held(node).is_some_and(|held| held.act.is_some());
        if is_act {
            self.evaluator.act_added();
        }
        // A rotation gives keys a past in common, which may decide about earlier ones.
        let rotates = self.graph.held(node).is_some_and(|held| matches!(held.statement.body().act, Act::Rotate { .. }));
        if on_all_tips && !is_act && !rotates && !self.stale {
            Fold::new(&self.graph, &mut self.evaluator, self.candidate).apply(&mut self.view, node);
        } else {
            self.stale = true;
        }
    }

    fn merge(&mut self, node: Node, other: Statement, verifier: &dyn StatementVerifier) -> Result<Inserted, Refusal> {
        let is_bare = self.graph.held(node).is_some_and(|held| held.statement.is_bare());
        let restored = self.keeps_all && is_bare && self.restore(node, &other, verifier);
        let merged = self.unite(node, other, verifier);
        if merged {
            return Ok(Inserted::Merged);
        }
        self.counters.known += u64::from(!restored);
        Ok(if restored { Inserted::Restored } else { Inserted::Known })
    }

    /// Adds signers that are new here; `false`: there are none.
    fn unite(&mut self, node: Node, other: Statement, verifier: &dyn StatementVerifier) -> bool {
        let Some(held) = self.graph.held(node) else { return false };
        let (before, set, parents) = (Arc::clone(&held.statement), held.set, held.parents.clone());
        let is_act = held.act.is_some();
        let mut fresh = other;
        let known: Vec<PeerId> = before.signers().copied().collect();
        for signer in &known {
            fresh.remove_signature(signer);
        }
        if fresh.signers().len() == 0 || matches!(fresh.body().act, Act::Disable { .. } | Act::Genesis(_)) {
            return false;
        }
        let Some(set) = self.graph.set(set).cloned() else { return false };
        let Ok(fresh) = self.check_signers(fresh, &set, &parents, verifier) else { return false };
        let merged = self.united(node, &before, &fresh);
        if merged.signers().eq(before.signers()) {
            return false;
        }
        self.graph.replace(node, Arc::new(merged));
        self.counters.merged += 1;
        self.head = OnceLock::new();
        if is_act {
            self.evaluator.forget();
        }
        self.stale = true;
        true
    }

    /// Takes back right signatures that were shed here: whoever becomes an admin must convince others again.
    fn restore(&mut self, node: Node, other: &Statement, verifier: &dyn StatementVerifier) -> bool {
        let Some(held) = self.graph.held(node) else { return false };
        let (mut statement, own) = (Statement::clone(&held.statement), own_key(&other.body().act));
        let mut restored = false;
        for signer in held.statement.signers() {
            let own = own.filter(|own| own.peer_id() == *signer);
            let key = own.or_else(|| self.graph.key(signer));
            let Some((key, signature)) = key.zip(other.signature(signer)) else { continue };
            let is_shed = held.statement.signature(signer).is_none();
            restored |= is_shed
                && verifier.signature(other, signer, key)
                && statement.restore_signature(signer, signature.clone());
        }
        if restored {
            self.counters.restored += 1;
            self.graph.exchange(node, statement);
        }
        restored
    }

    /// The signers of both; if they are too many, those that are admins on the path first, then the smallest: helpers
    /// without authority must not crowd out a signature that counts.
    fn united(&mut self, node: Node, before: &Statement, fresh: &Statement) -> Statement {
        let path = self.graph.held(node).map(|held| self.evaluator.path(&self.graph, held.set));
        let mut signers: Vec<PeerId> = before.signers().chain(fresh.signers()).copied().collect();
        signers.sort_by_key(|signer| (!path.as_ref().is_some_and(|path| path.admins.contains_key(signer)), *signer));
        let mut united = before.clone();
        for crowded_out in signers.iter().skip(MAX_SIGNERS) {
            united.remove_signature(crowded_out);
        }
        for signer in signers.iter().take(MAX_SIGNERS) {
            if let Some(signature) = fresh.signature(signer) {
                united.add_signature(*signer, signature.clone());
            }
        }
        united
    }
}

/// Whether somebody signed who may have a say, as far as the statement alone tells.
fn is_signed(statement: &Statement) -> bool {
    if let Act::Rotate { old, .. } = &statement.body().act {
        let old = old.peer_id();
        return statement.signers().any(|signer| *signer == old);
    }
    statement.signers().len() > 0 || matches!(statement.body().act, Act::Disable { .. })
}

fn without_signers(mut statement: Statement) -> Statement {
    let signers: Vec<PeerId> = statement.signers().copied().collect();
    for signer in &signers {
        statement.remove_signature(signer);
    }
    statement
}

/// Takes away signatures that are wrong or of somebody without a key in this matter.
pub(super) fn only_good<'k>(
    mut statement: Statement,
    verifier: &dyn StatementVerifier,
    counters: &mut Counters,
    key_of: impl Fn(&PeerId) -> Option<&'k PublicIdentity>,
) -> Result<Statement, Refusal> {
    let signers: Vec<PeerId> = statement.signers().copied().collect();
    let mut refusal = Refusal::NoAuthority;
    for signer in &signers {
        let good = match key_of(signer) {
            None => false,
            Some(key) => {
                let good = verifier.signature(&statement, signer, key);
                if !good {
                    refusal = Refusal::BadSignature;
                }
                good
            }
        };
        if !good {
            statement.remove_signature(signer);
            counters.signatures_dropped += 1;
        }
    }
    if statement.signers().len() == 0 { Err(refusal) } else { Ok(statement) }
}
