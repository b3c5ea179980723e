// SPDX-License-Identifier: MIT OR Apache-2.0
//! The set of statements held: who stands on whom, and in which order they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pqvpn_crypto::identity::PublicIdentity;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Serial, Statement, StatementId};
use sha2::{Digest as _, Sha512_256};

use crate::bits::Bits;

mod shares;

use shares::Shares;

/// Number of a statement in the order of arrival: parents always have smaller ones.
pub(crate) type Node = u32;
/// Number of an authority act among those, in the order of arrival. The genesis is 0.
pub(crate) type ActNo = u32;
/// Number of a set of authority acts.
pub(crate) type SetNo = u32;

/// The order of the fold: ancestors first, then what takes away, then by id.
pub(crate) type OrderKey = (u64, u8, StatementId);

/// One statement held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) statement: Arc<Statement>,
    pub(crate) parents: Vec<Node>,
    /// The authority acts among its ancestors.
    pub(crate) set: SetNo,
    /// Its own number, if it is one.
    pub(crate) act: Option<ActNo>,
    /// Hash over its id and signers and those of everything it stands on, up to [`Graph::unsealed`].
    seal: [u8; 32],
}

/// The authority acts among the ancestors of a statement, and the keys they ever gave authority to.
#[derive(Debug)]
pub(crate) struct ActSet {
    pub(crate) bits: Bits,
    pub(crate) granted: BTreeSet<PeerId>,
}

/// What statements are about: only those about one peer or invite can beat each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// Takes this peer in (genesis, AddMember, the new key of a rotation).
    Enters(PeerId),
    /// Revokes this peer, or rotates away from it.
    Revokes(PeerId),
    /// Takes somebody in by this invite.
    Uses(Serial),
    /// Cancels this invite.
    Cancels(Serial),
    /// Rotates away from this peer.
    RotatesFrom(PeerId),
}

/// All statements held. Nothing is ever taken out.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    nodes: Vec<Held>,
    index: BTreeMap<StatementId, Node>,
    tips: BTreeSet<Node>,
    order: BTreeMap<OrderKey, Node>,
    acts: Vec<Node>,
    sets: Vec<Arc<ActSet>>,
    set_numbers: BTreeMap<Bits, SetNo>,
    keys: BTreeMap<PeerId, PublicIdentity>,
    subjects: BTreeMap<Subject, Vec<Node>>,
    /// Ancestors of the acts that make or remove an admin.
    act_ancestors: BTreeMap<ActNo, Bits>,
    bytes: usize,
    shares: Shares,
    /// The first statement that got other signers since the last [`Graph::reseal`]: seals from there on are out of date.
    unsealed: Option<Node>,
    /// How often the ancestors of something were walked through.
    #[cfg(test)]
    pub(crate) walks: std::sync::atomic::AtomicUsize,
    /// How many statements were visited for that, or looked at to compare some.
    #[cfg(test)]
    pub(crate) work: std::sync::atomic::AtomicUsize,
}

impl Graph {
    /// Statements and authority acts held that came in with this one signer.
    pub(crate) fn alone(&self, signer: &PeerId) -> (usize, usize) {
        self.shares.alone.get(signer).copied().unwrap_or_default()
    }

    /// What members said of themselves in the line of this act's subject, or how often the network was switched off.
    pub(crate) fn own_acts(&self, act: &Act) -> usize {
        if matches!(act, Act::Disable { .. }) {
            return self.shares.disabling;
        }
        let line = own_key(act).map(|key| self.shares.first_key(&key.peer_id()));
        line.and_then(|line| self.shares.lines.get(&line)).copied().unwrap_or(0)
    }

    /// The key that the line of rotations to this one began with.
    pub(crate) fn first_key(&self, peer: &PeerId) -> PeerId {
        self.shares.first_key(peer)
    }

    /// Counts somebody else's statement as one that came in with this signer alone.
    pub(crate) fn charge(&mut self, signer: &PeerId) {
        self.shares.alone.entry(*signer).or_default().0 += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Encoded size of everything held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn node(&self, id: &StatementId) -> Option<Node> {
        self.index.get(id).copied()
    }

    pub(crate) fn held(&self, node: Node) -> Option<&Held> {
        self.nodes.get(node as usize)
    }

    /// The parents of each statement, in the order of arrival.
    pub(crate) fn parents(&self) -> impl DoubleEndedIterator<Item = &[Node]> + ExactSizeIterator {
        #[cfg(test)]
        self.work.fetch_add(self.nodes.len(), std::sync::atomic::Ordering::Relaxed);
        self.nodes.iter().map(|held| held.parents.as_slice())
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = (&StatementId, &Held)> {
        self.index.iter().filter_map(|(id, node)| Some((id, self.held(*node)?)))
    }

    pub(crate) fn in_order(&self) -> impl DoubleEndedIterator<Item = Node> {
        self.order.values().copied()
    }

    pub(crate) fn tips(&self) -> &BTreeSet<Node> {
        &self.tips
    }

    /// The statements nobody stands on if those of `avoided` and all that stands on them were not there.
    pub(crate) fn tips_beside(&self, avoided: &[Node]) -> impl Iterator<Item = Node> {
        let mut out = Bits::default();
        let mut stood_on = Bits::default();
        for (node, held) in (0_u32..).zip(&self.nodes) {
            if avoided.contains(&node) || held.parents.iter().any(|parent| out.contains(*parent)) {
                out.insert(node);
            } else {
                held.parents.iter().for_each(|parent| stood_on.insert(*parent));
            }
        }
        (0..self.nodes.len())
            .filter_map(|node| u32::try_from(node).ok())
            .filter(move |node| !out.contains(*node) && !stood_on.contains(*node))
    }

    pub(crate) fn act_count(&self) -> usize {
        self.acts.len()
    }

    /// The statement that is this authority act.
    pub(crate) fn act(&self, act: ActNo) -> Option<&Held> {
        self.acts.get(act as usize).and_then(|node| self.held(*node))
    }

    pub(crate) fn act_node(&self, act: ActNo) -> Option<Node> {
        self.acts.get(act as usize).copied()
    }

    pub(crate) fn set(&self, set: SetNo) -> Option<&Arc<ActSet>> {
        self.sets.get(set as usize)
    }

    /// The key of a peer that ever had authority.
    pub(crate) fn key(&self, peer: &PeerId) -> Option<&PublicIdentity> {
        self.keys.get(peer)
    }

    /// Revocations of peers that ever came in, and cancellations of invites that were ever used, those of one together.
    pub(crate) fn takes_away(&self) -> impl Iterator<Item = Node> {
        let matters = |subject: &Subject| match subject {
            Subject::Revokes(peer) => !self.entries(peer).is_empty() || !self.rotations_from(peer).is_empty(),
            Subject::Cancels(serial) => !self.uses(serial).is_empty(),
            Subject::Enters(_) | Subject::Uses(_) | Subject::RotatesFrom(_) => false,
        };
        self.subjects.iter().filter(move |(subject, _)| matters(subject)).flat_map(|(_, nodes)| nodes.iter().copied())
    }

    /// Statements that take `peer` in.
    pub(crate) fn entries(&self, peer: &PeerId) -> &[Node] {
        self.about(Subject::Enters(*peer))
    }

    /// Rotations away from `peer`.
    pub(crate) fn rotations_from(&self, peer: &PeerId) -> &[Node] {
        self.about(Subject::RotatesFrom(*peer))
    }

    /// Statements that take somebody in by this invite.
    pub(crate) fn uses(&self, serial: &Serial) -> &[Node] {
        self.about(Subject::Uses(*serial))
    }

    pub(crate) fn cancellations(&self, serial: &Serial) -> &[Node] {
        self.about(Subject::Cancels(*serial))
    }

    /// Says whether `node` is an ancestor of `act`, which makes or removes an admin.
    pub(crate) fn before_act(&self, node: Node, act: ActNo) -> bool {
        self.act_ancestors.get(&act).is_some_and(|bits| bits.contains(node))
    }

    fn about(&self, subject: Subject) -> &[Node] {
        self.subjects.get(&subject).map_or(&[], Vec::as_slice)
    }

    /// The authority acts among `parents` and their ancestors, with their number if it has one already.
    pub(crate) fn act_set(&self, parents: &[Node]) -> (Option<SetNo>, Arc<ActSet>) {
        let bits = self.bits_of(parents);
        if let Some((number, set)) =
            self.set_numbers.get(&bits).and_then(|number| Some((*number, Arc::clone(self.set(*number)?))))
        {
            return (Some(number), set);
        }
        let granted =
            bits.iter().filter_map(|act| Some(granted_by(&self.act(act)?.statement.body().act)?.peer_id())).collect();
        (None, Arc::new(ActSet { bits, granted }))
    }

    fn number_set(&mut self, parents: &[Node]) -> SetNo {
        let (number, set) = self.act_set(parents);
        number.unwrap_or_else(|| {
            let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
            self.set_numbers.insert(set.bits.clone(), number);
            self.sets.push(set);
            number
        })
    }

    fn bits_of(&self, parents: &[Node]) -> Bits {
        let mut bits = Bits::default();
        let mut last = None;
        for held in parents.iter().filter_map(|parent| self.held(*parent)) {
            if last != Some(held.set) {
                last = Some(held.set);
                if let Some(set) = self.set(held.set) {
                    bits.union_with(&set.bits);
                }
            }
            if let Some(act) = held.act {
                bits.insert(act);
            }
        }
        bits
    }

    /// Says whether a peer was taken in by anything `parents` stand on.
    pub(crate) fn entered(&self, peer: &PeerId, parents: &[Node]) -> bool {
        let entries = self.about(Subject::Enters(*peer));
        !entries.is_empty() && !self.ancestors_among(parents, entries).is_empty()
    }

    /// Takes a statement in whose parents are held.
    pub(crate) fn push(&mut self, statement: Arc<Statement>, parents: Vec<Node>) -> Node {
        let node = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let set = self.number_set(&parents);
        let act = self.number_act(&statement, set, node, &parents);
        for subject in subjects(&statement.body().act) {
            self.subjects.entry(subject).or_default().push(node);
        }
        for parent in &parents {
            self.tips.remove(parent);
        }
        self.tips.insert(node);
        self.order.insert(order_key(&statement), node);
        self.index.insert(statement.id(), node);
        self.bytes += statement.encoded_len();
        self.shares.count(&statement, act.is_some());
        // What comes after an outdated seal is sealed with it.
        let seal = if self.unsealed.is_none() { self.seal_at(&statement, &parents) } else { [0; 32] };
        self.nodes.push(Held { statement, parents, set, act, seal });
        node
    }

    /// Puts a statement with more signers in the place of the same with fewer; [`Graph::reseal`] is due.
    pub(crate) fn replace(&mut self, node: Node, statement: Arc<Statement>) {
        if let Some(held) = self.nodes.get_mut(node as usize) {
            self.bytes = self.bytes.saturating_sub(held.statement.encoded_len()) + statement.encoded_len();
            held.statement = statement;
        }
        self.unsealed = Some(self.unsealed.map_or(node, |first| first.min(node)));
    }

    /// Brings all seals up to date, once for however many got other signers; says how many were made anew.
    pub(crate) fn reseal(&mut self) -> usize {
        let Some(first) = self.unsealed.take() else { return 0 };
        // Parents come first, so one pass is enough.
        for later in first as usize..self.nodes.len() {
            let Some(held) = self.nodes.get(later) else { break };
            let seal = self.seal_at(&held.statement, &held.parents);
            if let Some(held) = self.nodes.get_mut(later) {
                held.seal = seal;
            }
        }
        self.nodes.len().saturating_sub(first as usize)
    }

    /// Whether every seal is what its statement and the seals before say.
    #[cfg(test)]
    pub(crate) fn seals_hold(&self) -> bool {
        self.unsealed.is_none()
            && self.nodes.iter().all(|held| held.seal == self.seal_at(&held.statement, &held.parents))
    }

    /// Puts a statement in the place of the same with other bytes of its signatures: nothing depends on those.
    pub(crate) fn exchange(&mut self, node: Node, statement: Statement) {
        if let Some(held) = self.nodes.get_mut(node as usize) {
            self.bytes = self.bytes.saturating_sub(held.statement.encoded_len()) + statement.encoded_len();
            held.statement = Arc::new(statement);
        }
    }

    fn seal_at(&self, statement: &Statement, parents: &[Node]) -> [u8; 32] {
        let signers = statement.signers();
        let mut hash = Sha512_256::new_with_prefix(b"pqvpn seal v1");
        hash.update(statement.id().as_bytes());
        hash.update([u8::try_from(signers.len()).unwrap_or(u8::MAX)]);
        signers.for_each(|signer| hash.update(signer.as_bytes()));
        self.add_seals(hash, parents)
    }

    /// Hash over the ids and signers of `parents`, as a statement names them, and of everything they stand on.
    pub(crate) fn seal_of(&self, parents: &[Node]) -> [u8; 32] {
        debug_assert!(self.unsealed.is_none(), "seals are asked for when a bundle is in");
        self.add_seals(Sha512_256::new_with_prefix(b"pqvpn seals v1"), parents)
    }

    fn add_seals(&self, mut hash: Sha512_256, parents: &[Node]) -> [u8; 32] {
        for held in parents.iter().filter_map(|parent| self.held(*parent)) {
            hash.update(held.seal);
        }
        hash.finalize().into()
    }

    fn number_act(&mut self, statement: &Statement, set: SetNo, node: Node, parents: &[Node]) -> Option<ActNo> {
        let act = &statement.body().act;
        let granted = self.set(set).is_some_and(|set| is_authority_act(act, &set.granted));
        if !granted {
            return None;
        }
        let number = u32::try_from(self.acts.len()).unwrap_or(u32::MAX);
        self.acts.push(node);
        if let Some(key) = granted_by(act) {
            self.keys.insert(key.peer_id(), key.clone());
        }
        if !matches!(act, Act::SetParams(_)) {
            let ancestors = self.ancestors(parents);
            self.act_ancestors.insert(number, ancestors);
        }
        Some(number)
    }

    /// `parents` and everything they stand on.
    pub(crate) fn ancestors(&self, parents: &[Node]) -> Bits {
        let mut seen = Bits::default();
        self.walk(parents, 0, |node| seen.insert(node));
        seen
    }

    /// Everything that stands on `node`.
    pub(crate) fn descendants(&self, node: Node) -> Bits {
        let mut found = Bits::default();
        for (later, held) in (0_u32..).zip(&self.nodes).skip(node as usize + 1) {
            if held.parents.iter().any(|parent| *parent == node || found.contains(*parent)) {
                found.insert(later);
            }
        }
        found
    }

    /// Those of `wanted` that are among `parents` and their ancestors.
    fn ancestors_among(&self, parents: &[Node], wanted: &[Node]) -> Vec<Node> {
        let wanted: BTreeSet<Node> = wanted.iter().copied().collect();
        let Some(lowest) = wanted.first().copied() else { return Vec::new() };
        let mut found = Vec::new();
        self.walk(parents, lowest, |node| {
            if wanted.contains(&node) {
                found.push(node);
            }
        });
        found
    }

    /// Visits `parents` and their ancestors once each; numbers below `lowest` are left out (ancestors are smaller).
    fn walk(&self, parents: &[Node], lowest: Node, mut visit: impl FnMut(Node)) {
        #[cfg(test)]
        self.walks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut seen = Bits::default();
        let mut open: Vec<Node> = parents.to_vec();
        while let Some(node) = open.pop() {
            if node < lowest || seen.contains(node) {
                continue;
            }
            seen.insert(node);
            #[cfg(test)]
            self.work.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            visit(node);
            if let Some(held) = self.held(node) {
                open.extend_from_slice(&held.parents);
            }
        }
    }
}

/// The key of the member that speaks for itself in an act.
pub(crate) fn own_key(act: &Act) -> Option<&PublicIdentity> {
    if let Act::Rotate { old: key, .. } | Act::Leave { key } = act { Some(key) } else { None }
}

/// The key an act gives authority to, if it is an authority act.
pub(crate) fn granted_by(act: &Act) -> Option<&PublicIdentity> {
    if let Act::Genesis(genesis) = act {
        return Some(&genesis.founder);
    }
    if let Act::AddAdmin { key } | Act::Rotate { key, .. } = act { Some(key) } else { None }
}

/// Says whether an act can change who may sign, given the keys its ancestors ever gave authority to.
pub(crate) fn is_authority_act(act: &Act, granted: &BTreeSet<PeerId>) -> bool {
    if let Act::Revoke { peer, .. } = act {
        return granted.contains(peer);
    }
    if let Act::Rotate { old, .. } = act {
        return granted.contains(&old.peer_id());
    }
    matches!(act, Act::Genesis(_) | Act::AddAdmin { .. } | Act::RemoveAdmin { .. } | Act::SetParams(_))
}

pub(crate) fn order_key(statement: &Statement) -> OrderKey {
    let later = !matches!(statement.body().act, Act::RemoveAdmin { .. } | Act::Revoke { .. });
    (statement.body().seq, u8::from(later), statement.id())
}

fn subjects(act: &Act) -> Vec<Subject> {
    let mut subjects = Vec::new();
    if let Act::Genesis(genesis) = act {
        subjects.push(Subject::Enters(genesis.founder.peer_id()));
    }
    if let Act::AddMember(member) = act {
        subjects.push(Subject::Enters(member.peer));
        subjects.extend(member.invite.map(|usage| Subject::Uses(usage.serial)));
    }
    if let Act::Revoke { peer, .. } = act {
        subjects.push(Subject::Revokes(*peer));
    }
    if let Act::CancelInvite { serial } = act {
        subjects.push(Subject::Cancels(*serial));
    }
    if let Act::Rotate { old, key, .. } = act {
        subjects.extend([Subject::Enters(key.peer_id()), Subject::RotatesFrom(old.peer_id())]);
    }
    subjects
}
