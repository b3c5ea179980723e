// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statements in order become a view: members, names, addresses, invites.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, InviteUse, NewMember, Serial, StatementBody, StatementId};

use crate::authority::{Authority, Evaluator};
use crate::graph::{Graph, Held, Node};
use crate::view::{Checkpoint, Member, Policy, Revocation, View};
use crate::{CandidateFn, MAX_MEMBERS};

mod clashes;
mod guard;

use clashes::Clashes;
use guard::Guards;

/// Candidates a peer tries before it takes the first free address of the pool.
const CANDIDATES: u32 = 256;
/// Longest name in bytes: a DNS label.
const MAX_NAME: usize = 63;

/// Applies statements to a view.
pub(crate) struct Fold<'a> {
    graph: &'a Graph,
    evaluator: &'a mut Evaluator,
    whole: Arc<Authority>,
    candidate: CandidateFn,
    /// Revocations and cancellations looked at so far, and whether they are in force.
    judged: BTreeMap<Node, bool>,
    /// Looked for only where somebody is revoked who was no admin then.
    guards: Option<Guards>,
    /// Not looked for where what is applied stands on everything held: it lies beside nothing.
    clashes: Option<Clashes>,
}

/// One statement with what its signatures are worth.
struct Judged<'a> {
    node: Node,
    id: StatementId,
    body: &'a StatementBody,
    /// Admins whose signatures count.
    signers: Vec<PeerId>,
}

impl<'a> Fold<'a> {
    pub(crate) fn new(graph: &'a Graph, evaluator: &'a mut Evaluator, candidate: CandidateFn) -> Self {
        let whole = evaluator.whole(graph);
        Self { graph, evaluator, whole, candidate, judged: BTreeMap::new(), guards: None, clashes: None }
    }

    /// The view of everything held.
    pub(crate) fn all(&mut self) -> Option<View> {
        let genesis = self.graph.held(0)?;
        let mut view = View::of_genesis(&genesis.statement)?;
        view.params = self.whole.params.unwrap_or(view.params);
        self.clashes = Some(Clashes::of(self.graph, |node| self.in_force(node)));
        for node in self.graph.in_order() {
            self.apply(&mut view, node);
        }
        view.admins =
            self.whole.admins.keys().filter_map(|peer| Some((*peer, self.graph.key(peer)?.clone()))).collect();
        Some(view)
    }

    /// Applies one statement; all before it in order are applied already, and if that is all there is, it stands on them.
    pub(crate) fn apply(&mut self, view: &mut View, node: Node) {
        let Some(held) = self.graph.held(node) else { return };
        let path = self.evaluator.path(self.graph, held.set);
        let signers = self.whole.counting(self.graph, node, held, &path);
        let body = held.statement.body();
        let judged = Judged { node, id: held.statement.id(), body, signers };
        if !self.has_effect(view, &judged, held, &path) {
            view.void.insert(judged.id);
        }
    }

    fn has_effect(&mut self, view: &mut View, judged: &Judged<'_>, held: &Held, path: &Authority) -> bool {
        let by_admins = self.is_signed(judged.node, held, path, judged.signers.len());
        match &judged.body.act {
            Act::Rotate { old, key, .. } => {
                // A former admin's rotation only moves its membership; an admin's stands or falls with its signature.
                let own = !path.admins.contains_key(&old.peer_id()) || by_admins;
                own && (self.rotate(view, judged, &old.peer_id(), &key.peer_id()) || by_admins)
            }
            Act::Leave { key } => self.leave(view, held, &key.peer_id(), by_admins),
            _ if !by_admins => false,
            Act::Genesis(genesis) => {
                let founder = NewMember {
                    peer: genesis.founder.peer_id(),
                    name: genesis.founder_name.clone(),
                    tags: Vec::new(),
                    level_cap: pqvpn_wire::network::MAX_LEVEL,
                    expires_ms: None,
                    ephemeral_s: None,
                    invite: None,
                };
                self.add(view, judged, &founder)
            }
            Act::AddMember(new) => self.add(view, judged, new),
            Act::Revoke { peer, reason } => self.revoke(view, judged, peer, reason),
            Act::CancelInvite { serial } => {
                view.cancelled.insert(*serial);
                true
            }
            Act::SetPolicy { hash, schema } => {
                view.policy = Some(Policy { hash: *hash, schema: *schema, statement: judged.id });
                true
            }
            // What its signers held is not what is held here: it says nothing.
            Act::Checkpoint { seal } if self.graph.seal_of(&held.parents) != *seal => false,
            Act::Checkpoint { seal } => {
                view.checkpoint = Some(Checkpoint { statement: judged.id, seq: judged.body.seq, seal: *seal });
                true
            }
            Act::Disable { .. } => {
                view.disabled = true;
                true
            }
            // Admins and parameters are the whole authority's, not the fold's.
            Act::AddAdmin { .. } | Act::RemoveAdmin { .. } | Act::SetParams(_) => true,
            _ => false,
        }
    }

    fn add(&mut self, view: &mut View, judged: &Judged<'_>, new: &NewMember) -> bool {
        let again_by_itself = judged.signers.as_slice() == [new.peer] && view.was_revoked.contains(&new.peer);
        if again_by_itself || self.is_beaten(judged.node) {
            return false;
        }
        let graph = self.graph;
        let is_admins = self.guards().is_some_and(|guards| guards.cover(graph, judged.node, &new.peer));
        let held = view.members.contains_key(&new.peer);
        if !held && !is_admins && view.members.len() >= MAX_MEMBERS {
            view.drop_expired(judged.body.at_ms);
            if view.members.len() >= MAX_MEMBERS {
                return false;
            }
        }
        if let Some(usage) = new.invite
            && !self.spend(view, judged, &usage, new.peer)
            && !is_admins
        {
            return false;
        }
        let lasting = self.shortens(judged, &new.peer).then(|| lasting(new, view.members.get(&new.peer)));
        let new = lasting.as_ref().unwrap_or(new);
        view.revoked.remove(&new.peer);
        if held {
            self.change(view, judged, new)
        } else {
            self.enter(view, judged, new)
        }
        true
    }

    fn is_beaten(&self, node: Node) -> bool {
        self.clashes.as_ref().is_some_and(|clashes| clashes.is_beaten(node))
    }

    /// Says whether a cancellation in force of the invite does not know the statement.
    fn is_cancelled(&mut self, node: Node, serial: &Serial) -> bool {
        match &self.clashes {
            Some(clashes) => clashes.is_cancelled(node),
            None => self.graph.cancellations(serial).iter().any(|cancellation| self.in_force(*cancellation)),
        }
    }

    /// Uses an invite once, unless it is cancelled or used up; the same peer uses it once however often it is added.
    fn spend(&mut self, view: &mut View, judged: &Judged<'_>, usage: &InviteUse, peer: PeerId) -> bool {
        if self.is_cancelled(judged.node, &usage.serial) {
            return false;
        }
        if view.invited.contains(&(usage.serial, peer)) {
            return true;
        }
        let uses = view.uses.get(&usage.serial).copied().unwrap_or(0);
        if uses >= usage.max_uses {
            return false;
        }
        view.uses.insert(usage.serial, uses + 1);
        view.invited.insert((usage.serial, peer));
        true
    }

    /// Says whether an addition could end the membership of an admin without the quorum.
    fn shortens(&mut self, judged: &Judged<'_>, peer: &PeerId) -> bool {
        judged.signers.len() < self.whole.quorum() && self.is_guarded(judged.node, peer)
    }

    fn enter(&self, view: &mut View, judged: &Judged<'_>, new: &NewMember) {
        let at_ms = judged.body.at_ms;
        let name = view.claim_name(&new.name, new.peer, at_ms);
        let ipv4 = self.claim_address(view, new.peer, at_ms);
        let order = view.admitted;
        view.admitted += 1;
        let member = Member {
            peer: new.peer,
            name,
            wanted_name: new.name.clone(),
            ipv4,
            tags: new.tags.clone(),
            level_cap: new.level_cap,
            added_ms: at_ms,
            expires_ms: new.expires_ms,
            ephemeral_s: new.ephemeral_s,
            statement: judged.id,
            order,
        };
        view.members.insert(new.peer, member);
    }

    fn change(&self, view: &mut View, judged: &Judged<'_>, new: &NewMember) {
        let Some(mut member) = view.members.get(&new.peer).cloned() else { return };
        if member.wanted_name != new.name {
            view.names.remove(&member.name);
            member.name = view.claim_name(&new.name, new.peer, judged.body.at_ms);
            member.wanted_name.clone_from(&new.name);
        }
        member.tags.clone_from(&new.tags);
        member.level_cap = new.level_cap;
        member.added_ms = judged.body.at_ms;
        member.expires_ms = new.expires_ms;
        member.ephemeral_s = new.ephemeral_s;
        member.statement = judged.id;
        view.members.insert(new.peer, member);
    }

    /// The first candidate that nobody before has, else the first free address of the pool.
    fn claim_address(&self, view: &mut View, peer: PeerId, at_ms: u64) -> Option<Ipv4Addr> {
        let pool = view.params.ipv4_pool;
        let own = view.reserved.get(&peer).copied();
        let candidates = (0..CANDIDATES).map(|i| (self.candidate)(pool, peer.as_bytes(), i));
        let address = own
            .into_iter()
            .chain(candidates)
            .find(|address| view.address_is_free(*address, &peer, at_ms))
            .or_else(|| hosts(pool).find(|address| view.address_is_free(*address, &peer, at_ms)))?;
        view.addresses.insert(address, peer);
        view.reserved.insert(peer, address);
        Some(address)
    }

    fn revoke(&self, view: &mut View, judged: &Judged<'_>, peer: &PeerId, reason: &str) -> bool {
        if let Some(member) = view.members.remove(peer) {
            view.names.remove(&member.name);
        }
        let revocation = Revocation {
            at_ms: judged.body.at_ms,
            by: judged.signers.clone(),
            reason: reason.to_owned(),
            statement: judged.id,
        };
        view.revoked.insert(*peer, revocation);
        view.was_revoked.insert(*peer);
        true
    }

    fn rotate(&self, view: &mut View, judged: &Judged<'_>, old: &PeerId, new: &PeerId) -> bool {
        if self.is_beaten(judged.node) || view.members.contains_key(new) {
            return false;
        }
        let Some(member) = view.members.remove(old) else { return false };
        // The old address stays reserved: nobody else shall be taken for this member. That of the key before it does not,
        // or one member would fill the pool with its past.
        if let Some(older) = view.former.remove(old).filter(|older| older != new) {
            view.free_address(&older);
        }
        view.former.insert(*new, *old);
        view.names.insert(member.name.clone(), *new);
        let ipv4 = self.claim_address(view, *new, judged.body.at_ms);
        view.members.insert(*new, Member { peer: *new, ipv4, statement: judged.id, ..member });
        true
    }

    /// The member itself may go; an admin may say of an ephemeral member that it is gone.
    fn leave(&self, view: &mut View, held: &Held, peer: &PeerId, by_admins: bool) -> bool {
        let Some(member) = view.members.get(peer) else { return false };
        let itself = held.statement.signers().any(|signer| signer == peer);
        let cleared_away = by_admins && member.ephemeral_s.is_some();
        if !itself && !cleared_away {
            return false;
        }
        view.release(peer);
        true
    }

    /// Says whether a revocation or cancellation has the signatures it needs.
    fn in_force(&mut self, node: Node) -> bool {
        if let Some(known) = self.judged.get(&node) {
            return *known;
        }
        let Some(held) = self.graph.held(node) else { return false };
        let path = self.evaluator.path(self.graph, held.set);
        let signers = self.whole.counting(self.graph, node, held, &path).len();
        let in_force = self.is_signed(node, held, &path, signers);
        self.judged.insert(node, in_force);
        in_force
    }

    /// Says whether so many signatures that count are as many as a statement needs.
    fn is_signed(&mut self, node: Node, held: &Held, path: &Authority, signers: usize) -> bool {
        let act = &held.statement.body().act;
        if let Act::Revoke { peer, .. } = act
            && !path.admins.contains_key(peer)
            && self.is_guarded(node, peer)
        {
            return signers >= self.whole.quorum();
        }
        held.act.map_or_else(|| signers >= path.need(act), |act| self.whole.act_in_force(act))
    }

    fn is_guarded(&mut self, statement: Node, peer: &PeerId) -> bool {
        let graph = self.graph;
        self.guards().is_some_and(|guards| guards.meet(graph, statement, peer))
    }

    /// `None` where one signature is as many as the quorum.
    fn guards(&mut self) -> Option<&Guards> {
        if self.whole.quorum() == 1 {
            return None;
        }
        let guards = self.guards.take().unwrap_or_else(|| Guards::of(self.graph, self.evaluator, &self.whole));
        Some(self.guards.insert(guards))
    }
}

/// The terms of an admin's membership in the words of fewer than the quorum: it ends no sooner than it would.
fn lasting(new: &NewMember, member: Option<&Member>) -> NewMember {
    let expires_ms = member.and_then(|member| later(member.expires_ms, new.expires_ms));
    let ephemeral_s = member.and_then(|member| later(member.ephemeral_s, new.ephemeral_s));
    NewMember { expires_ms, ephemeral_s, ..new.clone() }
}

/// The later of two ends; no end is the latest.
fn later<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    one.zip(other).map(|(one, other)| one.max(other))
}

/// The addresses of a pool that can be used, at most the first 65,536.
fn hosts(pool: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    pool.hosts().take(1 << 16)
}

/// The first of `name`, `name-2`, `name-3`, … that is not taken, cut so that it stays a label.
pub(crate) fn free_name(name: &str, taken: impl Fn(&str) -> bool) -> String {
    if !taken(name) {
        return name.to_owned();
    }
    let mut number = 2_u32;
    loop {
        let suffix = format!("-{number}");
        let stem: String = name.chars().take(MAX_NAME - suffix.len()).collect();
        let candidate = format!("{}{suffix}", stem.trim_end_matches('-'));
        if !taken(&candidate) {
            return candidate;
        }
        number += 1;
    }
}

impl View {
    pub(crate) fn drop_expired(&mut self, at_ms: u64) {
        let expired: Vec<PeerId> =
            self.members.values().filter(|member| member.expired(at_ms)).map(|member| member.peer).collect();
        expired.iter().for_each(|peer| self.release(peer));
    }

    /// Ends a membership in peace: name and address are free again.
    pub(crate) fn release(&mut self, peer: &PeerId) {
        if let Some(member) = self.members.remove(peer) {
            self.names.remove(&member.name);
        }
        self.free_address(peer);
        if let Some(older) = self.former.remove(peer) {
            self.free_address(&older);
        }
    }

    /// Nobody keeps the address of this peer for it any longer, unless it is a member.
    fn free_address(&mut self, peer: &PeerId) {
        if !self.members.contains_key(peer)
            && let Some(address) = self.reserved.remove(peer)
        {
            self.addresses.remove(&address);
        }
    }

    fn claim_name(&mut self, wanted: &str, peer: PeerId, at_ms: u64) -> String {
        if let Some(holder) = self.names.get(wanted).copied()
            && holder != peer
            && self.members.get(&holder).is_some_and(|member| member.expired(at_ms))
        {
            self.release(&holder);
        }
        let name = self.free_name(wanted);
        self.names.insert(name.clone(), peer);
        name
    }

    /// Says whether `peer` can have an address; that of a member that has expired by then is taken from it.
    fn address_is_free(&mut self, address: Ipv4Addr, peer: &PeerId, at_ms: u64) -> bool {
        let Some(holder) = self.addresses.get(&address).copied() else { return true };
        if holder == *peer {
            return true;
        }
        let expired = self.members.get(&holder).is_some_and(|member| member.expired(at_ms));
        if expired {
            self.release(&holder);
        }
        expired
    }

    /// How often this invite was used.
    #[must_use]
    pub fn uses_of(&self, serial: &Serial) -> u32 {
        self.uses.get(serial).copied().unwrap_or(0)
    }
}
