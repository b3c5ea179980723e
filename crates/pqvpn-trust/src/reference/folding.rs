// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fold of the model: who is a member after all statements, under which name and address.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, NewMember, Serial, StatementId};

use super::{Model, ModelMember, Outcome, Power, Stated};

/// How far the fold has come.
pub(super) struct Folding<'a> {
    pub(super) model: &'a Model,
    pub(super) power: &'a Power,
    pub(super) removals: &'a BTreeSet<StatementId>,
    pub(super) pool: ipnet::Ipv4Net,
    pub(super) members: Vec<(PeerId, ModelMember)>,
    pub(super) addresses: Vec<(Ipv4Addr, PeerId)>,
    /// Rotations that moved a membership: (key, key before it).
    pub(super) past: Vec<(PeerId, PeerId)>,
    pub(super) invited: BTreeSet<(Serial, PeerId)>,
    pub(super) ever_revoked: BTreeSet<PeerId>,
    pub(super) out: Outcome,
}

impl Folding<'_> {
    pub(super) fn step(&mut self, x: &Stated) -> bool {
        let id = x.statement.id();
        let in_force = self.in_force(x);
        match &x.statement.body().act {
            Act::Rotate { old, key, .. } => {
                let admin = self.model.power[&id].admins.contains_key(&old.peer_id());
                if admin && !in_force {
                    return false;
                }
                self.rotate(x, old.peer_id(), key.peer_id()) || in_force
            }
            Act::Leave { key } => {
                let Some((peer, member)) = self.members.iter().find(|m| m.0 == key.peer_id()).cloned() else {
                    return false;
                };
                let allowed = x.signers.contains(&peer) || (in_force && member.terms.4.is_some());
                if allowed {
                    self.let_go(peer);
                }
                allowed
            }
            _ if !in_force => false,
            Act::Genesis(genesis) => {
                let (peer, name) = (genesis.founder.peer_id(), genesis.founder_name.clone());
                let terms = (Vec::new(), 4, x.statement.body().at_ms, None, None);
                self.admit(x, peer, &name, terms);
                true
            }
            Act::AddMember(new) => self.add(x, new),
            Act::Revoke { peer, .. } => {
                self.members.retain(|m| m.0 != *peer);
                self.out.revoked.insert(*peer, (id, self.model.counting(x, self.removals)));
                self.ever_revoked.insert(*peer);
                true
            }
            Act::CancelInvite { serial } => {
                self.out.cancelled.insert(*serial);
                true
            }
            Act::SetPolicy { hash, .. } => {
                self.out.policy = Some((*hash, id));
                true
            }
            Act::Checkpoint { seal } => {
                if *seal != self.model.seal_of(x) {
                    return false;
                }
                self.out.checkpoint = Some(id);
                true
            }
            Act::Disable { .. } => {
                self.out.disabled = true;
                true
            }
            _ => true,
        }
    }

    /// Statements in force with this property.
    fn any(&self, holds: impl Fn(&Stated) -> bool) -> bool {
        self.model.stated.values().any(|s| holds(s) && self.in_force(s))
    }

    /// A revocation of an admin that was none on its path needs the quorum of all, unless all that made it one know it.
    fn in_force(&self, x: &Stated) -> bool {
        let id = x.statement.id();
        if let Act::Revoke { peer, .. } = &x.statement.body().act
            && !self.model.power[&id].admins.contains_key(peer)
            && self.guards(x, *peer).1
        {
            return self.model.counting(x, self.removals).len() >= self.power.quorum();
        }
        self.model.in_force(&id, self.removals)
    }

    /// Whether `peer` is an admin's key, or one it rotated away from unknown to `x`; and `x` unknown to what made it one.
    fn guards(&self, x: &Stated, peer: PeerId) -> (bool, bool) {
        let guards = self.power.admins.keys().filter_map(|admin| self.guard(admin, x, peer));
        guards.fold((false, false), |so_far, beside| (true, so_far.1 || beside))
    }

    fn guard(&self, admin: &PeerId, x: &Stated, peer: PeerId) -> Option<bool> {
        let (mut open, mut roots) = (self.power.admins[admin].0.clone(), BTreeSet::new());
        let mut keys = BTreeSet::from([(*admin, None)]);
        while let Some(grant) = open.pop_first() {
            if let Act::Rotate { old, .. } = &self.model.stated[&grant].statement.body().act {
                keys.insert((old.peer_id(), Some(grant)));
                open.extend(&self.model.power[&grant].admins[&old.peer_id()].0);
            } else {
                roots.insert(grant);
            }
        }
        for root in roots.iter().map(|root| &self.model.stated[root]) {
            let Act::AddAdmin { key } = &root.statement.body().act else { continue };
            let mut line = BTreeSet::from([key.peer_id()]);
            for _ in 0..root.ancestors.len() {
                for id in &root.ancestors {
                    if let Act::Rotate { old, key, .. } = &self.model.stated[id].statement.body().act
                        && line.contains(&key.peer_id())
                    {
                        line.insert(old.peer_id());
                        keys.insert((old.peer_id(), Some(*id)));
                    }
                }
            }
        }
        let id = x.statement.id();
        let is_its = keys.iter().any(|(key, by)| *key == peer && by.is_none_or(|by| !x.ancestors.contains(&by)));
        is_its.then(|| roots.iter().any(|root| !self.model.stated[root].ancestors.contains(&id)))
    }

    fn revoked_beside(&self, x: &Stated, peer: PeerId) -> bool {
        let id = x.statement.id();
        self.any(|s| {
            matches!(&s.statement.body().act, Act::Revoke { peer: p, .. } if *p == peer)
                && !s.ancestors.contains(&id)
                && !x.ancestors.contains(&s.statement.id())
        })
    }

    fn add(&mut self, x: &Stated, new: &NewMember) -> bool {
        let alone = self.model.counting(x, self.removals) == [new.peer];
        if (alone && self.ever_revoked.contains(&new.peer)) || self.revoked_beside(x, new.peer) {
            return false;
        }
        let (is_admins, beside) = if self.power.quorum() > 1 { self.guards(x, new.peer) } else { (false, false) };
        if let Some(usage) = &new.invite {
            let id = x.statement.id();
            let cancelled = self.any(|s| {
                matches!(&s.statement.body().act, Act::CancelInvite { serial } if *serial == usage.serial)
                    && !s.ancestors.contains(&id)
            });
            if cancelled && !is_admins {
                return false;
            }
            if !cancelled && !self.invited.contains(&(usage.serial, new.peer)) {
                let uses = self.out.uses.get(&usage.serial).copied().unwrap_or(0);
                if uses < usage.max_uses {
                    self.out.uses.insert(usage.serial, uses + 1);
                    self.invited.insert((usage.serial, new.peer));
                } else if !is_admins {
                    return false;
                }
            }
        }
        self.out.revoked.remove(&new.peer);
        let at_ms = x.statement.body().at_ms;
        let mut terms = (new.tags.clone(), new.level_cap, at_ms, new.expires_ms, new.ephemeral_s);
        if beside && self.model.counting(x, self.removals).len() < self.power.quorum() {
            // Fewer than the quorum: an admin's membership ends no sooner.
            let now = self.members.iter().find(|m| m.0 == new.peer).map(|m| &m.1.terms);
            terms.3 = now.and_then(|now| Some(now.3?.max(terms.3?)));
            terms.4 = now.and_then(|now| Some(now.4?.max(terms.4?)));
        }
        match self.members.iter().position(|m| m.0 == new.peer) {
            None => self.admit(x, new.peer, &new.name, terms),
            Some(at) => {
                let mut member = self.members[at].1.clone();
                if member.wanted != new.name {
                    // The old name is free for its holder, who stays a member: letting another go must not cost its address.
                    self.members[at].1.name.clear();
                    member.name = self.name_for(&new.name, at_ms);
                    member.wanted.clone_from(&new.name);
                }
                self.members.retain(|m| m.0 != new.peer);
                self.members.push((new.peer, ModelMember { terms, statement: x.statement.id(), ..member }));
            }
        }
        true
    }

    fn admit(
        &mut self,
        x: &Stated,
        peer: PeerId,
        wanted: &str,
        terms: (Vec<String>, u8, u64, Option<u64>, Option<u32>),
    ) {
        let at_ms = x.statement.body().at_ms;
        let name = self.name_for(wanted, at_ms);
        self.address_for(peer, at_ms);
        let member = ModelMember { name, wanted: wanted.into(), ipv4: None, terms, statement: x.statement.id() };
        self.members.push((peer, member));
    }

    fn rotate(&mut self, x: &Stated, old: PeerId, new: PeerId) -> bool {
        let id = x.statement.id();
        let new_revoked = self.any(|s| {
            matches!(&s.statement.body().act, Act::Revoke { peer: p, .. } if *p == new) && !s.ancestors.contains(&id)
        });
        let new_is_in = self.members.iter().any(|m| m.0 == new);
        let Some(at) = self.members.iter().position(|m| m.0 == old) else { return false };
        let mut line = BTreeSet::from([old]);
        for _ in 0..self.model.stated.len() {
            for s in self.model.stated.values() {
                if let Act::Rotate { old, key, .. } = &s.statement.body().act
                    && line.contains(&old.peer_id())
                {
                    line.insert(key.peer_id());
                }
            }
        }
        if new_revoked || new_is_in || line.into_iter().any(|key| self.revoked_beside(x, key)) {
            return false;
        }
        let member = self.members.remove(at).1;
        let older: Vec<PeerId> = self.past.iter().filter(|p| p.0 == old && p.1 != new).map(|p| p.1).collect();
        self.past.retain(|p| p.0 != old && p.0 != new);
        self.past.push((new, old));
        self.forget_addresses(&older);
        self.members.push((new, ModelMember { statement: id, ..member }));
        self.address_for(new, x.statement.body().at_ms);
        true
    }

    fn let_go(&mut self, peer: PeerId) {
        self.members.retain(|m| m.0 != peer);
        let older: Vec<PeerId> = self.past.iter().filter(|p| p.0 == peer).map(|p| p.1).chain([peer]).collect();
        self.past.retain(|p| p.0 != peer);
        self.forget_addresses(&older);
    }

    fn forget_addresses(&mut self, peers: &[PeerId]) {
        let members = &self.members;
        self.addresses.retain(|a| !peers.contains(&a.1) || members.iter().any(|m| m.0 == a.1));
    }

    fn name_for(&mut self, wanted: &str, at_ms: u64) -> String {
        let holder = self.members.iter().find(|m| m.1.name == wanted).cloned();
        if let Some((peer, member)) = holder
            && member.terms.3.is_some_and(|end| end <= at_ms)
        {
            self.let_go(peer);
        }
        let taken = |name: &str| self.members.iter().any(|m| m.1.name == name);
        let numbered = (2..).map(|n| {
            let suffix = format!("-{n}");
            format!("{}{suffix}", wanted[..wanted.len().min(63 - suffix.len())].trim_end_matches('-'))
        });
        [wanted.to_owned()].into_iter().chain(numbered).find(|name| !taken(name)).unwrap()
    }

    fn address_for(&mut self, peer: PeerId, at_ms: u64) {
        if self.addresses.iter().any(|a| a.1 == peer) {
            return;
        }
        let tried = (0..256).map(|i| (self.model.candidate)(self.pool, peer.as_bytes(), i));
        for address in tried.chain(self.pool.hosts()) {
            let holder = self.addresses.iter().find(|a| a.0 == address).map(|a| a.1);
            if let Some(holder) = holder {
                let over = self.members.iter().find(|m| m.0 == holder).and_then(|m| m.1.terms.3);
                if over.is_none_or(|end| end > at_ms) {
                    continue;
                }
                self.let_go(holder);
            }
            self.addresses.push((address, peer));
            return;
        }
    }
}
