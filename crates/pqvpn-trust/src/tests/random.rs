// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random sequences of statements by honest and dishonest hands, in any order of arrival, against the reference model.

use std::collections::BTreeSet;

use pqvpn_wire::network::{Act, NetworkId, Params, Serial, Statement, StatementBody, StatementId};

use super::support::{
    Fake, add, add_admin, crowded, genesis, key, leave, new_member, params, peer, remove_admin, revoke, rotate,
    signature, signed,
};
use crate::Constitution;
use crate::reference::{Model, ModelMember, Outcome};

/// Sequences where nobody asks for another number.
const SEQUENCES: u64 = 20_000;
/// Names that are fought over; one so long that a number must cut it.
const LONG: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk";

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// What nodes say who do not hear of everything the others say.
struct Story {
    dice: Dice,
    network: NetworkId,
    all: Vec<Statement>,
    /// What each of three nodes has heard of, by number in `all`.
    heard: [BTreeSet<usize>; 3],
    /// Statements made to be refused.
    junk: Vec<Statement>,
}

impl Story {
    fn tell(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let quorum = 1 + dice.below(3) as u8;
        let pool = ["10.100.0.0/29", "10.100.0.0/28", "10.100.0.0/30"][dice.below(3)];
        let genesis = genesis(quorum, pool);
        let heard = [(); 3].map(|()| BTreeSet::from([0]));
        let mut story = Self { dice, network: genesis.network(), all: vec![genesis], heard, junk: Vec::new() };
        let partitioned = story.dice.chance(60);
        // Mostly the founder makes two admins first: the rest is about their quarrels.
        if story.dice.chance(70) {
            for number in 1..=2 {
                story.state(0, add_admin(number), &[(0, true), (1, true)], false);
            }
            for node in 1..3 {
                story.heard[node] = story.heard[0].clone();
            }
        }
        for _ in 0..4 + story.dice.below(14) {
            let node = story.dice.below(3);
            story.turn(node);
            if !partitioned || story.dice.chance(25) {
                let other = story.dice.below(3);
                let both: BTreeSet<usize> = story.heard[node].union(&story.heard[other]).copied().collect();
                (story.heard[node], story.heard[other]) = (both.clone(), both);
            }
        }
        story
    }

    fn turn(&mut self, node: usize) {
        let act = self.act();
        let dishonest = self.dice.chance(20);
        let signers = self.signers(&act);
        self.state(node, act, &signers, dishonest);
        if self.dice.chance(10) {
            self.co_sign();
        }
        if self.dice.chance(10) {
            self.spoil();
        }
    }

    /// Somebody says something, on what its node has heard of, or, dishonestly, on whatever suits.
    fn state(&mut self, node: usize, act: Act, signers: &[(usize, bool)], dishonest: bool) {
        let mut under: Vec<usize> = self.tips(node);
        if dishonest {
            let heard: Vec<usize> = self.heard[node].iter().copied().collect();
            under = (0..1 + self.dice.below(2)).map(|_| heard[self.dice.below(heard.len())]).collect();
        }
        let parents: Vec<StatementId> = under.iter().map(|at| self.all[*at].id()).collect();
        let seq = under.iter().map(|at| self.all[*at].body().seq).max().unwrap() + 1;
        let at_ms = self.dice.below(100) as u64;
        let act = self.sealed(node, act, &parents);
        let statement = signed(StatementBody { network: self.network, seq, parents, at_ms, act }, signers);
        if self.all.iter().any(|held| held.id() == statement.id()) {
            return;
        }
        self.heard[node].insert(self.all.len());
        self.all.push(statement);
    }

    /// Most checkpoints seal what the node has heard of; the others something else.
    fn sealed(&mut self, node: usize, act: Act, parents: &[StatementId]) -> Act {
        if !matches!(act, Act::Checkpoint { .. }) || self.dice.chance(20) {
            return act;
        }
        let heard: Vec<Statement> = self.heard[node].iter().skip(1).map(|at| self.all[*at].clone()).collect();
        let constitution = deliver(&self.all[0], &heard);
        let mut parents = parents.to_vec();
        parents.sort_unstable();
        parents.dedup();
        let nodes: Vec<_> = parents.iter().filter_map(|parent| constitution.graph.node(parent)).collect();
        Act::Checkpoint { seal: constitution.graph.seal_of(&nodes) }
    }

    fn tips(&self, node: usize) -> Vec<usize> {
        let heard = &self.heard[node];
        let stood_on: BTreeSet<StatementId> =
            heard.iter().flat_map(|at| self.all[*at].body().parents.iter().copied()).collect();
        let mut tips: Vec<usize> = heard.iter().copied().filter(|at| !stood_on.contains(&self.all[*at].id())).collect();
        tips.truncate(16);
        tips
    }

    fn act(&mut self) -> Act {
        let who = self.dice.below(8);
        let admin = self.dice.below(5);
        match self.dice.below(100) {
            0..30 => self.add_member(who),
            30..42 => revoke(who),
            42..54 => remove_admin(admin),
            54..68 => add_admin(admin),
            68..74 => rotate(who, 8 + self.dice.below(4)),
            74..79 => leave(who),
            79..83 => Act::CancelInvite { serial: Serial::from_bytes([self.dice.below(3) as u8; 16]) },
            83..90 => Act::SetParams(self.params()),
            90..92 => Act::SetPolicy { hash: [self.dice.below(9) as u8; 32], schema: 1 },
            92..98 => Act::Checkpoint { seal: [self.dice.below(9) as u8; 32] },
            98 => rotate(8 + self.dice.below(2), 10 + self.dice.below(2)),
            _ => Act::Disable { secret: [5; 32] },
        }
    }

    fn params(&mut self) -> Params {
        let pool = ["10.100.0.0/29", "10.100.0.0/28", "10.200.0.0/24"][self.dice.below(3)];
        params(1 + self.dice.below(3) as u8, pool)
    }

    fn add_member(&mut self, who: usize) -> Act {
        let name = ["nas", "nas-2", "phone", LONG][self.dice.below(4)];
        let Act::AddMember(mut new) = (match self.dice.chance(40) {
            true => super::support::add_by_invite(who, name, self.dice.below(3) as u8, 1 + self.dice.below(2) as u32),
            false => add(who, name),
        }) else {
            return Act::AddMember(new_member(who, name));
        };
        new.level_cap = self.dice.below(5) as u8;
        new.expires_ms = self.dice.chance(30).then(|| self.dice.below(100) as u64);
        new.ephemeral_s = self.dice.chance(30).then_some(60);
        Act::AddMember(new)
    }

    fn signers(&mut self, act: &Act) -> Vec<(usize, bool)> {
        let own = crate::graph::own_key(act);
        let own = own.and_then(|own| (0..super::support::KEYS).find(|number| key(*number) == own));
        let mut signers: Vec<(usize, bool)> =
            own.filter(|_| self.dice.chance(80)).map(|own| (own, true)).into_iter().collect();
        for number in [0, 1, 2, 3, 4, 8, 9] {
            let percent = if number < 3 { 50 } else { 15 };
            if self.dice.chance(percent) {
                signers.push((number, self.dice.chance(95)));
            }
        }
        signers
    }

    /// Somebody else signs an old statement: a second copy with other signers.
    fn co_sign(&mut self) {
        let at = 1 + self.dice.below(self.all.len());
        let Some(statement) = self.all.get(at) else { return };
        let body = statement.body().clone();
        let signer = self.dice.below(4);
        let good = self.dice.chance(90);
        self.junk.push(signed(body, &[(signer, good)]));
    }

    fn spoil(&mut self) {
        let at = self.dice.below(self.all.len());
        let mut body = self.all[at].body().clone();
        if matches!(body.act, Act::Genesis(_)) {
            let mut other = genesis(2, "10.100.0.0/24").body().clone();
            other.at_ms = 77;
            self.junk.push(signed(other, &[(0, true)]));
            return;
        }
        match self.dice.below(4) {
            0 => body.network = NetworkId::from_bytes([3; 32]),
            1 => body.seq += 1 + self.dice.next() % 3,
            2 => body.parents = vec![StatementId::from_bytes([self.dice.below(250) as u8; 32])],
            _ => {
                let Act::Rotate { old, key, .. } = body.act else { return };
                body.act = Act::Rotate { old, key, proof: signature(false) };
            }
        }
        self.junk.push(signed(body, &[(0, true), (1, true)]));
    }

    /// Everything but some, in any order, some of it twice.
    fn delivery(&mut self, keep: &[bool]) -> Vec<Statement> {
        let offered = self.all.iter().chain(&self.junk).skip(1);
        let mut bag: Vec<Statement> = offered.zip(keep).filter(|(_, keep)| **keep).map(|(s, _)| s.clone()).collect();
        for _ in 0..self.dice.below(4) {
            if !bag.is_empty() {
                bag.push(bag[self.dice.below(bag.len())].clone());
            }
        }
        self.dice.shuffle(&mut bag);
        bag
    }
}

fn outcome(constitution: &Constitution) -> Outcome {
    let view = constitution.view();
    let members = view.members.iter().map(|(peer, member)| {
        let m = member;
        let terms = (m.tags.clone(), m.level_cap, m.added_ms, m.expires_ms, m.ephemeral_s);
        let model = ModelMember {
            name: m.name.clone(),
            wanted: m.wanted_name.clone(),
            ipv4: m.ipv4,
            terms,
            statement: m.statement,
        };
        (*peer, model)
    });
    Outcome {
        held: constitution.after(&[], usize::MAX).statements.iter().map(|s| s.id()).collect(),
        head: constitution.head(),
        tips: constitution.tips().into_iter().collect(),
        void: view.void.clone(),
        disabled: view.disabled,
        params: view.params,
        admins: view.admins.keys().copied().collect(),
        members: members.collect(),
        revoked: view.revoked.iter().map(|(peer, r)| (*peer, (r.statement, r.by.clone()))).collect(),
        policy: view.policy.as_ref().map(|policy| (policy.hash, policy.statement)),
        uses: view.uses.clone(),
        cancelled: view.cancelled.clone(),
        checkpoint: view.checkpoint.as_ref().map(|checkpoint| checkpoint.statement),
    }
}

fn deliver(genesis: &Statement, bag: &[Statement]) -> Constitution {
    let mut constitution = Constitution::found(genesis.clone(), &Fake, crowded).unwrap();
    for statement in bag {
        let _refused = constitution.insert(statement.clone(), &Fake);
    }
    constitution
}

fn check_indices(constitution: &Constitution) {
    let view = constitution.view();
    let names: BTreeSet<&str> = view.members.values().map(|m| m.name.as_str()).collect();
    assert_eq!(names.len(), view.members.len(), "two members of one name");
    let addresses: Vec<_> = view.members.values().filter_map(|m| m.ipv4).collect();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "two members of one address");
    for member in view.members.values() {
        assert_eq!(view.by_name(&member.name).map(|m| m.peer), Some(member.peer));
        assert!(!view.revoked.contains_key(&member.peer), "a revoked member");
    }
}

fn compare(seed: u64) {
    let mut story = Story::tell(seed);
    let size = story.all.len() + story.junk.len();
    let whole = story.dice.chance(75);
    let keep: Vec<bool> = (0..size).map(|_| whole || story.dice.chance(90)).collect();
    let (one, other) = (story.delivery(&keep), story.delivery(&keep));
    let first = deliver(&story.all[0], &one);
    let second = deliver(&story.all[0], &other);
    check_indices(&first);
    let expected = Model::of(&[vec![story.all[0].clone()], one].concat(), crowded).outcome();
    assert_eq!(outcome(&first), expected, "seed {seed}: differs from the model");
    assert_eq!(first.view(), second.view(), "seed {seed}: the order of arrival decided");
    assert_eq!(first.head(), second.head(), "seed {seed}: heads differ");
    // In the order they were said, most statements stand on all tips: the incremental way.
    let mut told: Vec<Statement> = story.all.iter().chain(&story.junk).skip(1).cloned().collect();
    told.retain({
        let mut keep = keep.iter();
        move |_| *keep.next().unwrap()
    });
    let third = deliver(&story.all[0], &told);
    assert_eq!(first.view(), third.view(), "seed {seed}: the incremental view differs");
    // In bundles, each of which is evaluated and sealed once.
    let bundled = in_bundles(&mut story.dice, &story.all[0], &other);
    assert_eq!(outcome(&bundled), expected, "seed {seed}: bundles differ from the model");
    assert!(first.graph.seals_hold() && bundled.graph.seals_hold(), "seed {seed}: seals out of date");
    assert_eq!(seals(&first), seals(&bundled), "seed {seed}: seals differ");
    // A node that sheds signatures on the way, and hears most of it a second time.
    let mut fourth = Constitution::found(story.all[0].clone(), &Fake, crowded).unwrap();
    fourth.keep_all(story.dice.chance(20));
    for statement in one_and_again(&mut story.dice, told) {
        let _refused = fourth.insert(statement, &Fake);
        if story.dice.chance(30) {
            let before_ms = story.dice.below(120) as u64;
            let shed = fourth.shed(before_ms, &[]);
            assert!(shed.iter().all(|s| s.is_bare() && s.body().at_ms < before_ms), "seed {seed}");
        }
    }
    assert_eq!(outcome(&fourth), expected, "seed {seed}: what was shed is missed");
    assert_eq!(first.view(), fourth.view(), "seed {seed}: shedding changed the view");
}

fn in_bundles(dice: &mut Dice, genesis: &Statement, bag: &[Statement]) -> Constitution {
    let mut constitution = Constitution::found(genesis.clone(), &Fake, crowded).unwrap();
    for bundle in bag.chunks(1 + dice.below(8)) {
        let _refused = constitution.insert_all(bundle.to_vec(), &Fake);
    }
    constitution
}

fn seals(constitution: &Constitution) -> Vec<(StatementId, [u8; 32])> {
    let seal = |id: &StatementId| constitution.graph.seal_of(constitution.graph.node(id).as_slice());
    constitution.graph.ids().map(|(id, _)| (*id, seal(id))).collect()
}

fn one_and_again(dice: &mut Dice, told: Vec<Statement>) -> Vec<Statement> {
    let again: Vec<Statement> = told.iter().filter(|_| dice.chance(60)).cloned().collect();
    [told, again].concat()
}

fn sequences() -> u64 {
    std::env::var("PQVPN_TRUST_SEQUENCES").ok().and_then(|text| text.parse().ok()).unwrap_or(SEQUENCES)
}

#[test]
fn random_sequences_evaluate_as_the_reference_model_says() {
    let offset: u64 = std::env::var("PQVPN_TRUST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let threads: u64 = std::env::var("PQVPN_TRUST_THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let count = sequences();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (thread..count).step_by(threads as usize).for_each(|seed| compare(offset + seed)));
        }
    });
}

/// Seeds that once differed.
#[test]
fn sequences_that_differed_evaluate_as_the_reference_model_says() {
    // 2169608: the model took its address from a member whose new name cost an expired successor its membership.
    [2_169_608].into_iter().for_each(compare);
}

#[test]
fn the_sequences_do_quarrel() {
    let mut seen = [0_usize; 11];
    for seed in 0..2_000 {
        let story = Story::tell(seed);
        let mut constitution = deliver(&story.all[0], &story.all[1..]);
        let shed = !constitution.shed(50, &[]).is_empty();
        let view = constitution.view();
        let checkpoints = story.all.iter().filter(|s| matches!(s.body().act, Act::Checkpoint { .. }));
        let mut checkpoints = checkpoints.map(|s| (constitution.seals_truly(&s.id()), view.void.contains(&s.id())));
        let quarrels = [
            !view.void.is_empty(),
            !view.revoked.is_empty(),
            view.members.values().any(|m| m.name != m.wanted_name),
            view.members.values().any(|m| m.ipv4.is_none()),
            view.admins.len() > 1,
            !view.admins.contains_key(&peer(0)),
            constitution.tips().len() > 1,
            constitution.counters().refused("bad_signature") > 0,
            shed,
            view.checkpoint.is_some(),
            checkpoints.any(|(true_seal, void)| !true_seal && void),
        ];
        seen.iter_mut().zip(quarrels).for_each(|(count, quarrel)| *count += usize::from(quarrel));
    }
    assert!(seen.iter().all(|count| *count >= 20), "{seen:?}");
}
