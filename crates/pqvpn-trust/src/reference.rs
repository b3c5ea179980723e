// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of docs/networks.md by definition: sets, no caches, nothing shared with the implementation but wire types.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Params, Serial, Statement, StatementId};
use sha2::{Digest, Sha256, Sha512_256};

use crate::CandidateFn;
use crate::tests::support::is_good;

mod folding;

use folding::Folding;

/// One statement held: its ancestors and the signers with a right signature who may have a say.
struct Stated {
    statement: Statement,
    signers: BTreeSet<PeerId>,
    ancestors: BTreeSet<StatementId>,
    /// Peers ever given authority among the ancestors.
    granted: BTreeSet<PeerId>,
}

/// Who may sign after a set of statements: for each admin its grants, oldest seniority; and the parameters.
#[derive(Clone, Default)]
struct Power {
    admins: BTreeMap<PeerId, (BTreeSet<StatementId>, (u64, StatementId))>,
    params: Option<Params>,
    removals: BTreeSet<StatementId>,
}

impl Power {
    fn quorum(&self) -> usize {
        usize::from(self.params.map_or(1, |p| p.quorum)).min(self.admins.len()).max(1)
    }
}

/// A member as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelMember {
    pub(crate) name: String,
    pub(crate) wanted: String,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) terms: (Vec<String>, u8, u64, Option<u64>, Option<u32>),
    pub(crate) statement: StatementId,
}

/// Everything that is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) held: BTreeSet<StatementId>,
    pub(crate) head: [u8; 32],
    pub(crate) tips: BTreeSet<StatementId>,
    pub(crate) void: BTreeSet<StatementId>,
    pub(crate) disabled: bool,
    pub(crate) params: Params,
    pub(crate) admins: BTreeSet<PeerId>,
    pub(crate) members: BTreeMap<PeerId, ModelMember>,
    pub(crate) revoked: BTreeMap<PeerId, (StatementId, Vec<PeerId>)>,
    pub(crate) policy: Option<([u8; 32], StatementId)>,
    pub(crate) uses: BTreeMap<Serial, u32>,
    pub(crate) cancelled: BTreeSet<Serial>,
    pub(crate) checkpoint: Option<StatementId>,
}

/// The model over a bag of statements, the genesis first.
pub(crate) struct Model {
    stated: BTreeMap<StatementId, Stated>,
    power: BTreeMap<StatementId, Power>,
    candidate: CandidateFn,
}

impl Model {
    pub(crate) fn of(bag: &[Statement], candidate: CandidateFn) -> Self {
        let mut this = Self { stated: BTreeMap::new(), power: BTreeMap::new(), candidate };
        // Until a round takes nothing in.
        let mut size = usize::MAX;
        while size != this.size() {
            size = this.size();
            bag.iter().for_each(|statement| this.offer(statement));
        }
        let mut by_seq: Vec<_> = this.stated.values().map(|s| (s.statement.body().seq, s.statement.id())).collect();
        by_seq.sort();
        for (_, id) in by_seq {
            let power = this.evaluate(&this.stated[&id].ancestors.clone());
            this.power.insert(id, power);
        }
        this
    }

    /// What a checkpoint must say: a hash over everything it stands on and who signed each.
    fn seal_of(&self, x: &Stated) -> [u8; 32] {
        let mut seals: BTreeMap<StatementId, [u8; 32]> = BTreeMap::new();
        let mut below: Vec<&Stated> = x.ancestors.iter().map(|id| &self.stated[id]).collect();
        below.sort_by_key(|s| s.statement.body().seq);
        let parents = |s: &Stated| s.statement.body().parents.iter().copied().collect::<BTreeSet<_>>();
        for s in below {
            let mut text =
                [b"pqvpn seal v1".as_slice(), s.statement.id().as_bytes(), &[s.signers.len() as u8]].concat();
            s.signers.iter().for_each(|signer| text.extend(signer.as_bytes()));
            parents(s).iter().for_each(|parent| text.extend(seals[parent]));
            seals.insert(s.statement.id(), Sha512_256::digest(text).into());
        }
        let mut text = b"pqvpn seals v1".to_vec();
        parents(x).iter().for_each(|parent| text.extend(seals[parent]));
        Sha512_256::digest(text).into()
    }

    fn size(&self) -> usize {
        self.stated.values().map(|stated| 1 + stated.signers.len()).sum()
    }

    fn genesis(&self) -> &Stated {
        self.stated.values().find(|s| s.ancestors.is_empty()).unwrap()
    }

    fn offer(&mut self, statement: &Statement) {
        let body = statement.body();
        let first = self.stated.is_empty();
        let genesis = matches!(body.act, Act::Genesis(_));
        if genesis && !first && !self.stated.contains_key(&statement.id()) {
            return;
        }
        if !genesis {
            let foreign = body.network != self.genesis().statement.network();
            let orphan = body.parents.iter().any(|parent| !self.stated.contains_key(parent));
            if foreign || orphan {
                return;
            }
            let highest = body.parents.iter().map(|p| self.stated[p].statement.body().seq).max().unwrap();
            if body.seq != highest + 1 {
                return;
            }
        }
        let ancestors: BTreeSet<StatementId> =
            body.parents.iter().flat_map(|p| self.stated[p].ancestors.iter().chain([p])).copied().collect();
        let granted: BTreeSet<PeerId> = ancestors.iter().filter_map(|a| self.gives(a)).collect();
        let signers: BTreeSet<PeerId> = statement
            .signers()
            .filter(|signer| is_good(statement.signature(signer).unwrap()))
            .filter(|signer| self.may_say(&body.act, signer, &ancestors, &granted))
            .copied()
            .collect();
        let by_secret = match &body.act {
            Act::Disable { secret } => {
                let Act::Genesis(genesis) = &self.genesis().statement.body().act else { panic!() };
                genesis.disable == Some(Sha256::digest(secret).into())
            }
            _ => false,
        };
        let consent = match &body.act {
            Act::Rotate { proof, .. } => is_good(proof),
            _ => true,
        };
        if (signers.is_empty() && !by_secret) || !consent {
            return;
        }
        let entry = self.stated.entry(statement.id()).or_insert_with(|| Stated {
            statement: statement.clone(),
            signers: BTreeSet::new(),
            ancestors,
            granted,
        });
        if !by_secret {
            entry.signers.extend(signers);
        }
    }

    /// Whom a held statement ever gave authority to.
    fn gives(&self, id: &StatementId) -> Option<PeerId> {
        let stated = &self.stated[id];
        match &stated.statement.body().act {
            Act::Genesis(genesis) => Some(genesis.founder.peer_id()),
            Act::AddAdmin { key } => Some(key.peer_id()),
            Act::Rotate { old, key, .. } if stated.granted.contains(&old.peer_id()) => Some(key.peer_id()),
            _ => None,
        }
    }

    fn may_say(&self, act: &Act, signer: &PeerId, under: &BTreeSet<StatementId>, granted: &BTreeSet<PeerId>) -> bool {
        let was_in = || {
            under.iter().any(|id| match &self.stated[id].statement.body().act {
                Act::Genesis(genesis) => genesis.founder.peer_id() == *signer,
                Act::AddMember(new) => new.peer == *signer,
                Act::Rotate { key, .. } => key.peer_id() == *signer,
                _ => false,
            })
        };
        match act {
            Act::Genesis(genesis) => genesis.founder.peer_id() == *signer,
            Act::Rotate { old, .. } => old.peer_id() == *signer && (granted.contains(signer) || was_in()),
            Act::Leave { key } if key.peer_id() == *signer && was_in() => true,
            Act::Disable { .. } => false,
            _ => granted.contains(signer),
        }
    }

    // Authority.

    fn is_authority_act(&self, x: &Stated) -> bool {
        match &x.statement.body().act {
            Act::Genesis(_) | Act::AddAdmin { .. } | Act::RemoveAdmin { .. } | Act::SetParams(_) => true,
            Act::Revoke { peer, .. } => x.granted.contains(peer),
            Act::Rotate { old, .. } => x.granted.contains(&old.peer_id()),
            _ => false,
        }
    }

    /// Whom a statement removes from the admins, if it has the signatures.
    fn removes(&self, x: &Stated) -> Option<PeerId> {
        let path = &self.power[&x.statement.id()];
        let peer = match &x.statement.body().act {
            Act::RemoveAdmin { peer } | Act::Revoke { peer, .. } => *peer,
            Act::Rotate { old, .. } => old.peer_id(),
            _ => return None,
        };
        path.admins.contains_key(&peer).then_some(peer)
    }

    fn need(&self, x: &Stated) -> Option<usize> {
        let path = &self.power[&x.statement.id()];
        let quorum = path.quorum();
        let keeps_one = |peer: &PeerId| !(path.admins.len() == 1 && path.admins.contains_key(peer));
        match &x.statement.body().act {
            Act::Genesis(_) | Act::Disable { .. } => Some(0),
            Act::AddAdmin { key } => {
                (path.admins.len() < 16 || path.admins.contains_key(&key.peer_id())).then_some(quorum)
            }
            Act::RemoveAdmin { peer } => keeps_one(peer).then_some(quorum),
            Act::Revoke { peer, .. } if path.admins.contains_key(peer) => keeps_one(peer).then_some(quorum),
            Act::SetParams(_) | Act::SetPolicy { .. } | Act::Checkpoint { .. } => Some(quorum),
            _ => Some(1),
        }
    }

    /// The signers that are admins on the statement's path; of a rotation only the old key.
    fn path_signers(&self, x: &Stated) -> BTreeSet<PeerId> {
        let path = &self.power[&x.statement.id()];
        let fits = |signer: &PeerId| match &x.statement.body().act {
            Act::Rotate { old, .. } => old.peer_id() == *signer,
            _ => true,
        };
        x.signers.iter().filter(|s| path.admins.contains_key(s) && fits(s)).copied().collect()
    }

    /// The signers whose signatures count under these removals.
    fn counting(&self, x: &Stated, removals: &BTreeSet<StatementId>) -> Vec<PeerId> {
        let path = &self.power[&x.statement.id()];
        let id = x.statement.id();
        let carried = |signer: &PeerId, grant: &StatementId| {
            self.in_force(grant, removals)
                && removals.iter().map(|r| &self.stated[r]).all(|r| {
                    let about_it = self.removes(r) == Some(*signer) && r.ancestors.contains(grant);
                    !about_it || r.statement.id() == id || r.ancestors.contains(&id)
                })
        };
        self.path_signers(x)
            .into_iter()
            .filter(|signer| path.admins[signer].0.iter().any(|grant| carried(signer, grant)))
            .collect()
    }

    fn in_force(&self, id: &StatementId, removals: &BTreeSet<StatementId>) -> bool {
        let x = &self.stated[id];
        removals.contains(id) || self.need(x).is_some_and(|need| self.counting(x, removals).len() >= need)
    }

    fn evaluate(&self, set: &BTreeSet<StatementId>) -> Power {
        let acts: Vec<&Stated> = set.iter().map(|id| &self.stated[id]).filter(|x| self.is_authority_act(x)).collect();
        let mut removals = BTreeSet::new();
        let mut claims: Vec<_> = acts
            .iter()
            .filter(|x| !matches!(x.statement.body().act, Act::Rotate { .. }) && self.removes(x).is_some())
            .map(|x| (self.claim(x, &acts), x.statement.id()))
            .collect();
        claims.sort();
        let mut rotations: Vec<_> = acts
            .iter()
            .filter(|x| matches!(x.statement.body().act, Act::Rotate { .. }) && self.removes(x).is_some())
            .map(|x| (x.statement.body().seq, x.statement.id()))
            .collect();
        rotations.sort();
        for id in claims.into_iter().map(|c| c.1).chain(rotations.into_iter().map(|r| r.1)) {
            if self.in_force(&id, &removals) {
                removals.insert(id);
            }
        }
        let mut power = Power { removals, ..Power::default() };
        let mut newest = None;
        for x in acts.iter().filter(|x| self.in_force(&x.statement.id(), &power.removals)) {
            let place = (x.statement.body().seq, x.statement.id());
            let (gets, seniority) = match &x.statement.body().act {
                Act::Genesis(genesis) => (genesis.founder.peer_id(), place),
                Act::AddAdmin { key } => (key.peer_id(), place),
                Act::Rotate { old, key, .. } => match self.power[&place.1].admins.get(&old.peer_id()) {
                    Some((_, seniority)) => (key.peer_id(), *seniority),
                    None => continue,
                },
                Act::SetParams(params) => {
                    if newest < Some(place) {
                        newest = Some(place);
                        power.params = Some(*params);
                    }
                    continue;
                }
                _ => continue,
            };
            if let Act::Genesis(genesis) = &x.statement.body().act
                && newest.is_none()
            {
                newest = Some(place);
                power.params = Some(genesis.params);
            }
            let removed = power
                .removals
                .iter()
                .map(|r| &self.stated[r])
                .any(|r| self.removes(r) == Some(gets) && r.ancestors.contains(&place.1));
            if !removed {
                let entry = power.admins.entry(gets).or_insert((BTreeSet::new(), seniority));
                entry.0.insert(place.1);
                entry.1 = entry.1.min(seniority);
            }
        }
        power
    }

    /// Doubtful signers last; then whose signers have been admins for longest; then the earlier.
    fn claim(&self, x: &Stated, acts: &[&Stated]) -> (bool, Vec<(u64, StatementId)>, u64) {
        let path = &self.power[&x.statement.id()];
        let mut seniority: Vec<_> = self.path_signers(x).iter().map(|s| path.admins[s].1).collect();
        seniority.sort();
        seniority.push((u64::MAX, StatementId::from_bytes([0xff; 32])));
        let two_hands = |signer: &PeerId| {
            let alone: Vec<_> = acts.iter().filter(|a| self.path_signers(a) == BTreeSet::from([*signer])).collect();
            alone.iter().any(|a| {
                alone.iter().any(|b| {
                    let (p, q) = (a.statement.id(), b.statement.id());
                    p != q && !a.ancestors.contains(&q) && !b.ancestors.contains(&p)
                })
            })
        };
        let doubtful = self.path_signers(x).iter().any(two_hands);
        (doubtful, seniority, x.statement.body().seq)
    }

    // The fold.

    pub(crate) fn outcome(&self) -> Outcome {
        let all: BTreeSet<StatementId> = self.stated.keys().copied().collect();
        let power = self.evaluate(&all);
        let Act::Genesis(genesis) = &self.genesis().statement.body().act else { panic!() };
        let mut hash = Sha512_256::new_with_prefix(b"pqvpn head v1");
        for (id, stated) in &self.stated {
            hash.update(id.as_bytes());
            hash.update([stated.signers.len() as u8]);
            stated.signers.iter().for_each(|signer| hash.update(signer.as_bytes()));
        }
        let mut fold = Folding {
            model: self,
            power: &power,
            removals: &power.removals,
            pool: power.params.unwrap().ipv4_pool,
            members: Vec::new(),
            addresses: Vec::new(),
            past: Vec::new(),
            invited: BTreeSet::new(),
            ever_revoked: BTreeSet::new(),
            out: Outcome {
                held: all.clone(),
                head: hash.finalize().into(),
                tips: all
                    .iter()
                    .filter(|id| !self.stated.values().any(|s| s.ancestors.contains(id)))
                    .copied()
                    .collect(),
                void: BTreeSet::new(),
                disabled: false,
                params: power.params.unwrap_or(genesis.params),
                admins: power.admins.keys().copied().collect(),
                members: BTreeMap::new(),
                revoked: BTreeMap::new(),
                policy: None,
                uses: BTreeMap::new(),
                cancelled: BTreeSet::new(),
                checkpoint: None,
            },
        };
        let mut order: Vec<&Stated> = self.stated.values().collect();
        order.sort_by_key(|s| {
            let gentle = !matches!(s.statement.body().act, Act::Revoke { .. } | Act::RemoveAdmin { .. });
            (s.statement.body().seq, gentle, s.statement.id())
        });
        for stated in order {
            if !fold.step(stated) {
                fold.out.void.insert(stated.statement.id());
            }
        }
        fold.out.members = fold
            .members
            .iter()
            .map(|(peer, member)| {
                let ipv4 = fold.addresses.iter().find(|(_, holder)| holder == peer).map(|(address, _)| *address);
                (*peer, ModelMember { ipv4, ..member.clone() })
            })
            .collect();
        fold.out
    }
}
