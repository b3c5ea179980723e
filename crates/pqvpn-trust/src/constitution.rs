// SPDX-License-Identifier: MIT OR Apache-2.0
//! The statements of one network, and the one place where they come in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use pqvpn_crypto::identity::PublicIdentity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, NetworkId, Statement, StatementBody, StatementId};
use sha2::{Digest, Sha512_256};

use crate::authority::{Authority, Evaluator};
use crate::counters::Counters;
use crate::fold::Fold;
use crate::graph::{Graph, Held, Node, own_key};
use crate::refusal::Refusal;
use crate::verify::StatementVerifier;
use crate::view::View;
use crate::waiting::WaitingRoom;
use crate::{CandidateFn, MAX_PARENTS, MAX_PROPOSALS, MAX_PROPOSALS_ALONE};

mod admit;
mod allowed;
mod answer;
mod checkpoint;
mod line;
mod shed;
mod vouch;

use admit::only_good;

/// What became of a statement that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    /// It was taken in, and with it these of the waiting room, which are to be kept and passed on too.
    New {
        /// In the order they came in.
        adopted: Vec<StatementId>,
    },
    /// It was held, with fewer signers.
    Merged,
    /// It was held without the bytes of its signatures, and has them again: to be kept, but no news.
    Restored,
    /// It was held as it is.
    Known,
    /// It waits for parents that are not held.
    Waiting {
        /// Ask for these.
        missing: Vec<StatementId>,
        /// Taken in because it stands on them: to be kept and passed on.
        adopted: Vec<StatementId>,
    },
}

/// An act of the quorum that does not have its signatures yet.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Sign this and insert it again.
    pub statement: Arc<Statement>,
    /// Signatures that count.
    pub have: usize,
    /// Signatures it needs.
    pub need: usize,
    /// Who has signed it, if that is one admin.
    alone: Option<PeerId>,
}

/// The one of one.
fn alone(signers: &[PeerId]) -> Option<PeerId> {
    if let [signer] = signers { Some(*signer) } else { None }
}

/// As many as people are shown.
fn shown(open: impl Iterator<Item = Proposal>) -> Vec<Proposal> {
    let mut of: BTreeMap<PeerId, usize> = BTreeMap::new();
    let has_room = |proposal: &Proposal| {
        let Some(signer) = proposal.alone else { return true };
        let count = of.entry(signer).or_default();
        *count += 1;
        *count <= MAX_PROPOSALS_ALONE
    };
    open.filter(has_room).take(MAX_PROPOSALS).collect()
}

/// A statement and what it came to.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// The statement.
    pub statement: Arc<Statement>,
    /// It has an effect.
    pub effective: bool,
}

/// All statements of one network and what they evaluate to.
pub struct Constitution {
    id: NetworkId,
    disable: Option<[u8; 32]>,
    candidate: CandidateFn,
    pub(crate) graph: Graph,
    evaluator: Evaluator,
    waiting: WaitingRoom,
    counters: Counters,
    /// Statements that came in when none of their signers was an admin.
    late: usize,
    view: View,
    stale: bool,
    head: OnceLock<[u8; 32]>,
    keeps_all: bool,
    /// While what was held before is taken in again: the late of it.
    loading: Option<Vec<Node>>,
}

impl Constitution {
    /// Begins with the genesis; `candidate` gives the IPv4 addresses a peer may take.
    ///
    /// # Errors
    /// [`Refusal::NotGenesis`], [`Refusal::BadSignature`].
    pub fn found(
        genesis: Statement,
        verifier: &dyn StatementVerifier,
        candidate: CandidateFn,
    ) -> Result<Self, Refusal> {
        let Act::Genesis(act) = &genesis.body().act else { return Err(Refusal::NotGenesis) };
        let disable = act.disable;
        let founder = act.founder.clone();
        let mut counters = Counters::default();
        let genesis =
            only_good(genesis, verifier, &mut counters, |peer| (*peer == founder.peer_id()).then_some(&founder))?;
        let view = View::of_genesis(&genesis).ok_or(Refusal::NotGenesis)?;
        let mut graph = Graph::default();
        let id = genesis.network();
        graph.push(Arc::new(genesis), Vec::new());
        counters.inserted = 1;
        let mut this = Self {
            id,
            disable,
            candidate,
            graph,
            evaluator: Evaluator::default(),
            waiting: WaitingRoom::default(),
            counters,
            late: 0,
            view,
            stale: true,
            head: OnceLock::new(),
            keeps_all: false,
            loading: None,
        };
        this.refold();
        Ok(this)
    }

    /// The network.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        self.id
    }

    /// Statements held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.graph.len()
    }

    /// Never: there is always the genesis.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Encoded size of all statements held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.graph.bytes()
    }

    /// Says whether a statement is held.
    #[must_use]
    pub fn contains(&self, id: &StatementId) -> bool {
        self.graph.node(id).is_some()
    }

    /// A statement held.
    #[must_use]
    pub fn get(&self, id: &StatementId) -> Option<Arc<Statement>> {
        self.graph.node(id).and_then(|node| self.graph.held(node)).map(|held| Arc::clone(&held.statement))
    }

    /// Statements waiting for their parents.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Says whether a statement waits, for its parents or for room.
    #[must_use]
    pub fn waits(&self, id: &StatementId) -> bool {
        self.waiting.has(id)
    }

    /// What is not here of these: of what waits, what it waits for.
    #[must_use]
    pub fn lacking(&self, these: &[StatementId]) -> Vec<StatementId> {
        self.waiting.lacking(these).into_iter().filter(|id| !self.contains(id)).collect()
    }

    /// The last of those of `these` that wait on nothing but each other and what is held: whoever sent these has sent all that
    /// they stand on.
    #[must_use]
    pub fn waiting_tops(&self, these: &BTreeSet<StatementId>) -> Vec<StatementId> {
        self.waiting.tops(these).into_iter().collect()
    }

    /// Encoded size of the statements waiting, in bytes.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.bytes()
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What everything held evaluates to.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// SHA-512/256 over all statements held and their signers, by id: equal heads, equal sets.
    #[must_use]
    pub fn head(&self) -> [u8; 32] {
        *self.head.get_or_init(|| {
            let mut hash = Sha512_256::new();
            hash.update(b"pqvpn head v1");
            for (id, held) in self.graph.ids() {
                hash.update(id.as_bytes());
                let signers = held.statement.signers();
                hash.update([u8::try_from(signers.len()).unwrap_or(u8::MAX)]);
                signers.for_each(|signer| hash.update(signer.as_bytes()));
            }
            hash.finalize().into()
        })
    }

    /// The statements nobody stands on yet, by id.
    #[must_use]
    pub fn tips(&self) -> Vec<StatementId> {
        let held = self.graph.tips().iter().filter_map(|tip| self.graph.held(*tip));
        let mut tips: Vec<_> = held.map(|held| held.statement.id()).collect();
        tips.sort_unstable();
        tips
    }

    /// At most `most` of them, those with an effect first, then the newest; by id.
    #[must_use]
    pub fn tips_within(&self, most: usize) -> Vec<StatementId> {
        let mut tips: Vec<_> = self.first_tips(most).into_iter().map(|held| held.statement.id()).collect();
        tips.sort_unstable();
        tips
    }

    /// Takes a statement in if it has any business here; whether it has an effect is for the view to say.
    ///
    /// # Errors
    /// [`Refusal`]; counted.
    pub fn insert(&mut self, statement: Statement, verifier: &dyn StatementVerifier) -> Result<Inserted, Refusal> {
        let answer = self.admit_all_ready(statement, verifier);
        self.settle();
        answer
    }

    /// Takes many statements in and evaluates once; the answers are in the order given.
    pub fn insert_all(
        &mut self,
        statements: impl IntoIterator<Item = Statement>,
        verifier: &dyn StatementVerifier,
    ) -> Vec<Result<Inserted, Refusal>> {
        let answers = statements.into_iter().map(|statement| self.admit_all_ready(statement, verifier)).collect();
        self.settle();
        answers
    }

    /// Takes in again what was held here before, however much it is, and evaluates once.
    pub fn insert_kept(
        &mut self,
        statements: impl IntoIterator<Item = Statement>,
        verifier: &dyn StatementVerifier,
    ) -> Vec<Result<Inserted, Refusal>> {
        self.loading = Some(Vec::new());
        let answers = self.insert_all(statements, verifier);
        let late = self.loading.take().unwrap_or_default();
        self.charge_all(late);
        answers
    }

    /// Whether signatures that were shed are taken back when they come: an admin's node has to convince others.
    pub fn keep_all(&mut self, keeps_all: bool) {
        self.keeps_all = keeps_all;
    }

    /// A body for `act` that stands on everything held; at most 16 tips, those with an effect first. What a member says of
    /// itself does not stand on what others say of themselves.
    #[must_use]
    pub fn draft(&self, now_ms: u64, act: Act) -> StatementBody {
        let own = own_key(&act).map(PublicIdentity::peer_id).filter(|own| !self.view.is_admin(own));
        if let Some(tips) = own.and_then(|own| self.own_tips(&own)) {
            return self.body_on(&tips, now_ms, act);
        }
        self.body_on(&self.first_tips(MAX_PARENTS), now_ms, act)
    }

    /// At most `most` tips, those with an effect first, then the newest: whoever makes many without effect hides none.
    fn first_tips(&self, most: usize) -> Vec<&Held> {
        let mut tips: Vec<_> = self.graph.tips().iter().filter_map(|tip| self.graph.held(*tip)).collect();
        tips.sort_by_key(|held| {
            let id = held.statement.id();
            (self.view.void.contains(&id), u64::MAX - held.statement.body().seq, id)
        });
        tips.truncate(most);
        tips
    }

    fn body_on(&self, tips: &[&Held], now_ms: u64, act: Act) -> StatementBody {
        let seq = tips.iter().map(|held| held.statement.body().seq).max().unwrap_or(0) + 1;
        let mut parents: Vec<_> = tips.iter().map(|held| held.statement.id()).collect();
        parents.sort_unstable();
        StatementBody { network: self.id, seq, parents, at_ms: now_ms, act }
    }

    /// Acts of the quorum that lack signatures, newest first: at most [`MAX_PROPOSALS`], and of each admin alone at most
    /// [`MAX_PROPOSALS_ALONE`], so that a stolen key hides none of the others'.
    #[must_use]
    pub fn proposals(&self) -> Vec<Proposal> {
        shown(self.open(|_| true))
    }

    /// All of them whose act is of this kind, newest first.
    pub fn open(&self, kind: impl Fn(&Act) -> bool) -> impl Iterator<Item = Proposal> {
        let of_kind = move |node: &Node| {
            let held = self.graph.held(*node);
            held.is_some_and(|held| kind(&held.statement.body().act) && self.view.void.contains(&held.statement.id()))
        };
        self.graph.in_order().rev().filter(of_kind).filter_map(move |node| self.proposal(node))
    }

    /// The statement as a proposal, if it is one.
    #[must_use]
    pub fn as_proposal(&self, id: &StatementId) -> Option<Proposal> {
        let is_void = self.view.void.contains(id);
        self.graph.node(id).filter(|_| is_void).and_then(|node| self.proposal(node))
    }

    fn proposal(&self, node: Node) -> Option<Proposal> {
        let held = self.graph.held(node)?;
        let quorum_act = matches!(
            held.statement.body().act,
            Act::AddAdmin { .. }
                | Act::RemoveAdmin { .. }
                | Act::SetParams(_)
                | Act::SetPolicy { .. }
                | Act::Checkpoint { .. }
                | Act::Revoke { .. }
        );
        if !quorum_act {
            return None;
        }
        let path = self.evaluator.known_path(held.set)?;
        let need = path.need(&held.statement.body().act);
        let signers = self.evaluator.known_whole()?.counting(&self.graph, node, held, &path);
        let possible = (1..need).contains(&signers.len()) && need <= path.admins.len();
        possible.then(|| Proposal {
            statement: Arc::clone(&held.statement),
            have: signers.len(),
            need,
            alone: alone(&signers),
        })
    }

    /// The newest `limit` statements in order, newest first.
    #[must_use]
    pub fn log(&self, limit: usize) -> Vec<LogEntry> {
        let newest = self.graph.in_order().rev().filter_map(|node| self.graph.held(node)).take(limit);
        newest
            .map(|held| LogEntry {
                statement: Arc::clone(&held.statement),
                effective: !self.view.void.contains(&held.statement.id()),
            })
            .collect()
    }

    pub(crate) fn known_whole(&self) -> Option<Arc<Authority>> {
        self.evaluator.known_whole()
    }

    fn settle(&mut self) {
        if self.stale {
            self.refold();
        }
    }

    fn refold(&mut self) {
        self.counters.refolds += 1;
        self.counters.resealed += self.graph.reseal() as u64;
        if let Some(view) = Fold::new(&self.graph, &mut self.evaluator, self.candidate).all() {
            self.view = view;
        }
        self.stale = false;
    }
}
