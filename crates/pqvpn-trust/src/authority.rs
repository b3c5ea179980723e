// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose signatures count: admins and quorum after a set of statements, and what removals make void.
//!
//! A statement's *path* is what its ancestors evaluate to; its signers must be admins there. Against the whole set a
//! signature counts only while the grant it stands on is in force and no removal of the signer that knows that grant
//! is in force, unless the removal knows the statement. Removals that contradict each other are looked at in the order
//! of [`Claim`]; one found in force stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Params, Statement, StatementId};

use crate::MAX_ADMINS;
use crate::bits::Bits;
use crate::graph::{ActNo, Graph, Held, Node, SetNo, granted_by};

/// How long somebody has been an admin: place of the grant it goes back to. Smaller is longer.
pub(crate) type Seniority = (u64, StatementId);

/// One admin as a set of acts leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The acts in force that gave it authority.
    pub(crate) grants: Vec<ActNo>,
    pub(crate) seniority: Seniority,
}

/// What a set of authority acts evaluates to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) admins: BTreeMap<PeerId, Standing>,
    pub(crate) params: Option<Params>,
    /// The acts in force.
    in_force: Bits,
    /// The removals in force, by whom they remove.
    removals: BTreeMap<PeerId, Vec<ActNo>>,
}

/// What an act is worth on its path.
#[derive(Debug)]
struct Facts {
    counted: Vec<(PeerId, Vec<ActNo>)>,
    need: usize,
    removes: Option<PeerId>,
    grants: Option<(PeerId, Seniority)>,
    rotates: bool,
    claim: Claim,
}

/// Which of two contradicting removals is looked at first: longest-standing signers, then the place.
///
/// Nobody can make himself senior by dating a statement back, and helpers he adds himself are junior to him.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    seniority: Vec<Seniority>,
    seq: u64,
    id: StatementId,
}

/// Evaluations so far; forgotten when an authority act gets another signer.
#[derive(Debug, Default)]
pub(crate) struct Evaluator {
    sets: BTreeMap<SetNo, Arc<Authority>>,
    facts: BTreeMap<ActNo, Arc<Facts>>,
    whole: Option<Arc<Authority>>,
}

impl Evaluator {
    /// An authority act came in: what was found of the others' paths stays.
    pub(crate) fn act_added(&mut self) {
        self.whole = None;
    }

    /// An authority act got another signer.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What all acts held evaluate to.
    pub(crate) fn whole(&mut self, graph: &Graph) -> Arc<Authority> {
        if let Some(whole) = &self.whole {
            return Arc::clone(whole);
        }
        let mut all = Bits::default();
        (0..u32::try_from(graph.act_count()).unwrap_or(u32::MAX)).for_each(|act| all.insert(act));
        self.prepare(graph, &all);
        let whole = Arc::new(self.evaluate(graph, &all));
        self.whole = Some(Arc::clone(&whole));
        whole
    }

    /// What the authority acts among the ancestors of a statement evaluate to.
    pub(crate) fn path(&mut self, graph: &Graph, set: SetNo) -> Arc<Authority> {
        if let Some(found) = self.sets.get(&set) {
            return Arc::clone(found);
        }
        let Some(acts) = graph.set(set).cloned() else { return Arc::default() };
        self.prepare(graph, &acts.bits);
        let authority = Arc::new(self.evaluate(graph, &acts.bits));
        self.sets.insert(set, Arc::clone(&authority));
        authority
    }

    /// What any acts closed under ancestry evaluate to; not kept.
    pub(crate) fn of_acts(&mut self, graph: &Graph, acts: &Bits) -> Authority {
        self.prepare(graph, acts);
        self.evaluate(graph, acts)
    }

    /// What [`Evaluator::path`] found before.
    pub(crate) fn known_path(&self, set: SetNo) -> Option<Arc<Authority>> {
        self.sets.get(&set).cloned()
    }

    /// What [`Evaluator::whole`] found before.
    pub(crate) fn known_whole(&self) -> Option<Arc<Authority>> {
        self.whole.clone()
    }

    /// Finds out what each act is worth on its own path; smaller numbers first, so that no path is missing.
    fn prepare(&mut self, graph: &Graph, acts: &Bits) {
        for act in acts.iter() {
            if self.facts.contains_key(&act) {
                continue;
            }
            let Some(held) = graph.act(act) else { continue };
            let path = match self.sets.get(&held.set) {
                Some(path) => Arc::clone(path),
                None => {
                    let Some(set) = graph.set(held.set).cloned() else { continue };
                    let path = Arc::new(self.evaluate(graph, &set.bits));
                    self.sets.insert(held.set, Arc::clone(&path));
                    path
                }
            };
            self.facts.insert(act, Arc::new(facts(held, &path)));
        }
    }

    fn evaluate(&self, graph: &Graph, acts: &Bits) -> Authority {
        let acts: Vec<Considered> = acts
            .iter()
            .filter_map(|act| {
                let held = graph.act(act)?;
                let facts = Arc::clone(self.facts.get(&act)?);
                let knows = Arc::clone(graph.set(held.set)?);
                Some(Considered { act, facts, knows, statement: Arc::clone(&held.statement) })
            })
            .collect();
        Evaluation::of(&acts).finish()
    }
}

/// An act with everything that decides about it.
struct Considered {
    act: ActNo,
    facts: Arc<Facts>,
    knows: Arc<crate::graph::ActSet>,
    statement: Arc<Statement>,
}

/// The search for the removals in force.
struct Evaluation<'a> {
    acts: &'a [Considered],
    by_number: BTreeMap<ActNo, &'a Considered>,
    in_force: Bits,
    decreed: Bits,
    removals: BTreeMap<PeerId, Vec<ActNo>>,
}

impl<'a> Evaluation<'a> {
    fn of(acts: &'a [Considered]) -> Self {
        let mut this = Self {
            acts,
            by_number: acts.iter().map(|considered| (considered.act, considered)).collect(),
            in_force: Bits::default(),
            decreed: Bits::default(),
            removals: BTreeMap::new(),
        };
        this.refresh();
        for removal in this.removals_by_claim() {
            this.decree(removal);
        }
        for rotation in this.rotations_by_place() {
            this.decree(rotation);
        }
        this
    }

    /// Puts a removal into force if it still has its signers.
    fn decree(&mut self, removal: &'a Considered) {
        let Some(peer) = removal.facts.removes else { return };
        if !self.in_force.contains(removal.act) {
            return;
        }
        // Only what still stands on a grant the removal knows can fall, unless the removal knows it too.
        let falls = |on: &Considered| {
            let carried = |signer: &PeerId, grant: &ActNo| {
                *signer == peer && removal.knows.bits.contains(*grant) && self.stands(signer, *grant, on)
            };
            on.act != removal.act
                && !removal.knows.bits.contains(on.act)
                && on.facts.counted.iter().any(|(signer, grants)| grants.iter().any(|grant| carried(signer, grant)))
        };
        let changes = self.acts.iter().any(falls);
        self.decreed.insert(removal.act);
        self.removals.entry(peer).or_default().push(removal.act);
        if changes {
            self.refresh();
        }
    }

    /// Says of every act whether it is in force under the removals found so far; ancestors first.
    fn refresh(&mut self) {
        self.in_force = Bits::default();
        for considered in self.acts {
            let counting = considered
                .facts
                .counted
                .iter()
                .filter(|(signer, grants)| grants.iter().any(|grant| self.stands(signer, *grant, considered)));
            if self.decreed.contains(considered.act) || counting.count() >= considered.facts.need {
                self.in_force.insert(considered.act);
            }
        }
    }

    /// Says whether the grant still carries a signature of `signer` on `on`.
    fn stands(&self, signer: &PeerId, grant: ActNo, on: &Considered) -> bool {
        self.in_force.contains(grant)
            && !self
                .removals
                .get(signer)
                .into_iter()
                .flatten()
                .any(|removal| self.knows(*removal, grant) && *removal != on.act && !self.knows(*removal, on.act))
    }

    fn knows(&self, descendant: ActNo, ancestor: ActNo) -> bool {
        self.by_number.get(&descendant).is_some_and(|considered| considered.knows.bits.contains(ancestor))
    }

    fn removals_by_claim(&self) -> Vec<&'a Considered> {
        let doubted = self.equivocators();
        let mut found: Vec<_> = self
            .acts
            .iter()
            .filter(|considered| considered.facts.removes.is_some() && !considered.facts.rotates)
            .map(|considered| {
                let doubtful = considered.facts.counted.iter().any(|(signer, _)| doubted.contains(signer));
                (doubtful, &considered.facts.claim, considered)
            })
            .collect();
        found.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        found.into_iter().map(|(_, _, considered)| considered).collect()
    }

    fn rotations_by_place(&self) -> Vec<&'a Considered> {
        let mut found: Vec<_> = self.acts.iter().filter(|considered| considered.facts.rotates).collect();
        found.sort_by_key(|considered| (considered.statement.body().seq, considered.statement.id()));
        found
    }

    /// Keys that alone signed two acts neither of which knows the other: one key, two hands.
    fn equivocators(&self) -> BTreeSet<PeerId> {
        let mut last: BTreeMap<PeerId, &Considered> = BTreeMap::new();
        let mut found = BTreeSet::new();
        for considered in self.acts {
            let [(signer, _)] = considered.facts.counted.as_slice() else { continue };
            if let Some(before) = last.insert(*signer, considered)
                && !considered.knows.bits.contains(before.act)
            {
                found.insert(*signer);
            }
        }
        found
    }

    fn finish(self) -> Authority {
        let mut authority = Authority::default();
        let mut params_place = None;
        for considered in self.acts.iter().filter(|considered| self.in_force.contains(considered.act)) {
            let place = (considered.statement.body().seq, considered.statement.id());
            if let Some(params) = params_of(&considered.statement.body().act)
                && params_place < Some(place)
            {
                params_place = Some(place);
                authority.params = Some(*params);
            }
            let Some((peer, seniority)) = considered.facts.grants else { continue };
            let removals = self.removals.get(&peer).into_iter().flatten();
            if removals.copied().any(|removal| self.knows(removal, considered.act)) {
                continue;
            }
            let standing = authority.admins.entry(peer).or_insert_with(|| Standing { grants: Vec::new(), seniority });
            standing.grants.push(considered.act);
            standing.seniority = standing.seniority.min(seniority);
        }
        Authority { in_force: self.in_force, removals: self.removals, ..authority }
    }
}

impl Authority {
    /// Signatures an act of the quorum needs.
    pub(crate) fn quorum(&self) -> usize {
        let wanted = self.params.map_or(1, |params| usize::from(params.quorum));
        wanted.min(self.admins.len()).max(1)
    }

    /// The signers of `statement` that are admins here, with the grants they stand on.
    fn counted(&self, statement: &Statement) -> Vec<(PeerId, Vec<ActNo>)> {
        statement.signers().filter_map(|signer| Some((*signer, self.admins.get(signer)?.grants.clone()))).collect()
    }

    /// Signatures of admins an act needs where this is its path; more than anybody can have if it is never allowed.
    pub(crate) fn need(&self, act: &Act) -> usize {
        match act {
            Act::AddAdmin { key } => {
                let room = self.admins.len() < MAX_ADMINS || self.admins.contains_key(&key.peer_id());
                if room { self.quorum() } else { usize::MAX }
            }
            Act::RemoveAdmin { peer } => self.need_to_remove(peer),
            Act::Revoke { peer, .. } if self.admins.contains_key(peer) => self.need_to_remove(peer),
            Act::SetParams(_) | Act::SetPolicy { .. } | Act::Checkpoint { .. } => self.quorum(),
            Act::Genesis(_) | Act::Disable { .. } => 0,
            Act::AddMember(_)
            | Act::Revoke { .. }
            | Act::CancelInvite { .. }
            | Act::Rotate { .. }
            | Act::Leave { .. } => 1,
            // An act this version does not know.
            _ => usize::MAX,
        }
    }

    /// A network keeps at least one admin.
    fn need_to_remove(&self, peer: &PeerId) -> usize {
        let last = self.admins.len() == 1 && self.admins.contains_key(peer);
        if last { usize::MAX } else { self.quorum() }
    }

    /// Says whether an authority act is in force here.
    pub(crate) fn act_in_force(&self, act: ActNo) -> bool {
        self.in_force.contains(act)
    }

    /// The signers of a statement whose signatures count, where `path` is what its ancestors evaluate to and `self`
    /// what everything evaluates to.
    pub(crate) fn counting(&self, graph: &Graph, node: Node, held: &Held, path: &Self) -> Vec<PeerId> {
        let stands = |signer: &PeerId, grant: ActNo| {
            self.in_force.contains(grant)
                && !self.removals.get(signer).into_iter().flatten().any(|removal| {
                    let knows_grant = graph
                        .act(*removal)
                        .and_then(|removal| graph.set(removal.set))
                        .is_some_and(|set| set.bits.contains(grant));
                    knows_grant && graph.act_node(*removal) != Some(node) && !graph.before_act(node, *removal)
                })
        };
        path.counted(&held.statement)
            .into_iter()
            .filter(|(signer, grants)| grants.iter().any(|grant| stands(signer, *grant)))
            .map(|(signer, _)| signer)
            .collect()
    }
}

fn facts(held: &Held, path: &Authority) -> Facts {
    let body = held.statement.body();
    let mut counted = path.counted(&held.statement);
    let place = (body.seq, held.statement.id());
    let mut removes = removed_by(&body.act).filter(|peer| path.admins.contains_key(peer));
    let mut grants = granted_by(&body.act).map(|key| (key.peer_id(), place));
    let mut rotates = false;
    if let Act::Rotate { old, .. } = &body.act {
        let old = old.peer_id();
        counted.retain(|(signer, _)| *signer == old);
        let standing = path.admins.get(&old);
        (removes, rotates) = (standing.map(|_| old), standing.is_some());
        grants = standing.and_then(|standing| Some((grants?.0, standing.seniority)));
    }
    let mut seniority: Vec<_> =
        counted.iter().filter_map(|(signer, _)| Some(path.admins.get(signer)?.seniority)).collect();
    seniority.sort_unstable();
    // Of two lists with an equal beginning the longer one comes first.
    seniority.push((u64::MAX, StatementId::from_bytes([0xff; 32])));
    let claim = Claim { seniority, seq: body.seq, id: held.statement.id() };
    Facts { counted, need: path.need(&body.act), removes, grants, rotates, claim }
}

fn params_of(act: &Act) -> Option<&Params> {
    if let Act::Genesis(genesis) = act {
        return Some(&genesis.params);
    }
    if let Act::SetParams(params) = act { Some(params) } else { None }
}

fn removed_by(act: &Act) -> Option<PeerId> {
    if let Act::RemoveAdmin { peer } | Act::Revoke { peer, .. } = act { Some(*peer) } else { None }
}
