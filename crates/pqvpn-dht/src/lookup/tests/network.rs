// SPDX-License-Identifier: MIT OR Apache-2.0
//! A static random network whose nodes answer at once: honest tables, and colluders that name only colluders.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::{Admission, Contact, Distance, NetworkId, Payload, Point, Record, RecordDraft, Token};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    Now,
    lookup::{Goal, Lookup, LookupConfig, LookupId, LookupOutcome, LookupReply, Step},
    table::{Table, TableConfig},
};

pub(super) const START: Now = Now { mono: Duration::from_secs(1000), unix_ms: 1_760_000_000_000 };

pub(super) fn contact_at(address: SocketAddr, seed: u64) -> Arc<Contact> {
    let mut rng = StdRng::seed_from_u64(seed);
    let admission = Admission { week: 1, nonce: seed, out: rng.random() };
    Arc::new(Contact::new(PeerId::from_bytes(rng.random()), admission, vec![address]))
}

pub(super) fn contact(seed: u64) -> Arc<Contact> {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5a5a);
    let ip: [u8; 4] = [rng.random_range(11..=126), rng.random(), rng.random(), rng.random()];
    contact_at(SocketAddr::from((ip, 4242)), seed)
}

/// A record and its key.
pub(super) fn record(seed: u64, seq: u64) -> Arc<Record> {
    let mut rng = StdRng::seed_from_u64(seed);
    Arc::new(Record::assemble(
        RecordDraft {
            network: NetworkId::OPEN,
            owner: PeerId::from_bytes(rng.random()),
            week: 1,
            seq,
            not_before_ms: START.unix_ms,
            not_after_ms: START.unix_ms + 1000,
            payload: Payload::Peer(pqvpn_wire::dht::Endpoints::default()),
            heartbeat_anchor: [0; 32],
        },
        vec![],
        vec![],
    ))
}

pub(super) struct Network {
    pub(super) nodes: Vec<Arc<Contact>>,
    tables: Vec<Table>,
    by_peer: HashMap<PeerId, usize>,
    /// Positions in order, for "the m nearest of all".
    sorted: Vec<(Point, usize)>,
    bad: Vec<bool>,
    bad_sorted: Vec<(Point, usize)>,
}

impl Network {
    /// `n` nodes, each of which met all others in a random order (what a network looks like that ran for long).
    pub(super) fn new(n: usize, seed: u64) -> Self {
        Self::of(Self::positions(n, seed), seed)
    }

    fn positions(n: usize, seed: u64) -> Vec<Arc<Contact>> {
        (0..n).map(|at| contact(seed << 32 | at as u64)).collect()
    }

    fn of(nodes: Vec<Arc<Contact>>, seed: u64) -> Self {
        let n = nodes.len();
        let by_peer = nodes.iter().enumerate().map(|(at, node)| (*node.peer(), at)).collect();
        let mut sorted: Vec<_> = nodes.iter().enumerate().map(|(at, node)| (*node.node_id(), at)).collect();
        sorted.sort_unstable();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut this = Self { nodes, tables: Vec::new(), by_peer, sorted, bad: vec![false; n], bad_sorted: Vec::new() };
        for at in 0..n {
            let own = *this.nodes[at].node_id();
            let mut table = Table::new(own, TableConfig::default());
            // Each bucket is a range of the sorted positions: pick from it at random instead of trying all n nodes.
            for depth in 0..256 {
                let (from, to) = this.range(&own, depth);
                if from == to {
                    if this.count_sharing(&own, depth) <= 1 {
                        break;
                    }
                    continue;
                }
                let picks = if to - from <= 30 {
                    (from..to).collect::<Vec<_>>()
                } else {
                    (0..26).map(|_| rng.random_range(from..to)).collect()
                };
                for pick in picks {
                    table.insert(START, Arc::clone(&this.nodes[this.sorted[pick].1]));
                }
            }
            this.tables.push(table);
        }
        this
    }

    /// The positions that share exactly `depth` leading bits with `own`.
    fn range(&self, own: &Point, depth: usize) -> (usize, usize) {
        let mut low = *own.as_bytes();
        low[depth / 8] ^= 0x80 >> (depth % 8);
        let mut high = low;
        for bit in depth + 1..256 {
            low[bit / 8] &= !(0x80 >> (bit % 8));
            high[bit / 8] |= 0x80 >> (bit % 8);
        }
        let from = self.sorted.partition_point(|(id, _)| id.as_bytes() < &low);
        let to = self.sorted.partition_point(|(id, _)| id.as_bytes() <= &high);
        (from, to)
    }

    fn count_sharing(&self, own: &Point, depth: usize) -> usize {
        let at = self.sorted.partition_point(|(id, _)| id < own);
        let near = [at.wrapping_sub(1), at, at + 1];
        near.iter()
            .filter_map(|at| self.sorted.get(*at))
            .filter(|(id, _)| id.distance(own).leading_zeros() as usize >= depth)
            .count()
    }

    /// Makes a random share of the nodes collude.
    pub(super) fn corrupt(&mut self, share: f64, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        for bad in &mut self.bad {
            *bad = rng.random_bool(share);
        }
        self.bad_sorted = self.sorted.iter().copied().filter(|(_, at)| self.bad[*at]).collect();
    }

    pub(super) fn is_bad(&self, peer: &PeerId) -> bool {
        self.by_peer.get(peer).is_none_or(|at| self.bad[*at])
    }

    pub(super) fn nearest(sorted: &[(Point, usize)], target: &Point, n: usize) -> Vec<usize> {
        // Of the nodes sharing the longest prefix with the target, widen until there are n, then sort.
        let mut bits = 256;
        let at = sorted.partition_point(|(id, _)| id < target);
        let (mut low, mut high) = (at, at);
        while bits > 0 && high - low < n {
            bits -= 1;
            while low > 0 && sorted[low - 1].0.distance(target).leading_zeros() >= bits {
                low -= 1;
            }
            while high < sorted.len() && sorted[high].0.distance(target).leading_zeros() >= bits {
                high += 1;
            }
        }
        let mut found: Vec<_> = sorted[low..high].to_vec();
        found.sort_by_key(|(id, _)| id.distance(target));
        found.into_iter().take(n).map(|(_, at)| at).collect()
    }

    pub(super) fn k_nearest(&self, target: &Point, n: usize) -> Vec<usize> {
        Self::nearest(&self.sorted, target, n)
    }

    pub(super) fn radius(&self) -> Distance {
        Distance::from_fraction(30.0 / self.nodes.len() as f64)
    }

    pub(super) fn seeds(&self, from: usize, target: &Point, n: usize) -> Vec<Arc<Contact>> {
        self.tables[from].closest(target, n)
    }

    pub(super) fn honest(&self, seed: u64) -> usize {
        let mut rng = StdRng::seed_from_u64(seed);
        loop {
            let at = rng.random_range(0..self.nodes.len());
            if !self.bad[at] {
                return at;
            }
        }
    }

    pub(super) fn answer(&self, who: &PeerId, target: &Point) -> Vec<Arc<Contact>> {
        let Some(at) = self.by_peer.get(who) else { return Vec::new() };
        if self.bad[*at] {
            let near = Self::nearest(&self.bad_sorted, target, 20);
            return near.into_iter().map(|at| Arc::clone(&self.nodes[at])).collect();
        }
        self.tables[*at].closest(target, 20)
    }

    /// Adds nodes that collude and sit nearer to `key` than any honest node; all know them from the start.
    pub(super) fn with_sybils(n: usize, seed: u64, key: &Point, sybils: usize) -> Self {
        let plain = Self::positions(n, seed);
        let nearest = plain.iter().map(|node| node.node_id().distance(key)).min().expect("nodes");
        let mut nodes = plain;
        nodes.extend(near(key, &nearest, sybils, seed ^ 0x51b1));
        let mut this = Self::of(nodes, seed);
        for at in n..n + sybils {
            this.bad[at] = true;
        }
        this.bad_sorted = this.sorted.iter().copied().filter(|(_, at)| this.bad[*at]).collect();
        this
    }

    pub(super) fn holders(&self, key: &Point) -> BTreeSet<PeerId> {
        let radius = self.radius();
        let inside = self.nodes.iter().filter(|node| node.node_id().distance(key) < radius);
        inside.filter(|node| !self.is_bad(node.peer())).map(|node| *node.peer()).collect()
    }

    /// Runs a lookup to its end on a virtual clock.
    pub(super) fn run(&self, from: usize, run: &Run<'_>) -> LookupOutcome {
        let seeds = self.seeds(from, &run.target, run.seeds);
        let config = LookupConfig { own: Some(*self.nodes[from].peer()), region: Some(self.radius()), ..run.config };
        let mut lookup = Lookup::new(START, LookupId(1), run.target, run.goal, seeds, config, run.seed);
        let mut rng = StdRng::seed_from_u64(run.seed);
        let mut events = BTreeMap::new();
        let mut now = START;
        loop {
            match lookup.next(now) {
                Step::Ask { to, ask, timeout } => {
                    let silent = !self.by_peer.contains_key(to.peer()) || run.silent.contains(to.peer());
                    let after = if silent { timeout } else { run.rtt.mul_f64(rng.random_range(1.0..1.0 + run.jitter)) };
                    events.insert((now.mono + after, events.len(), rng.random::<u32>()), (to, ask, silent));
                }
                Step::Wait { until } => {
                    assert!(until > now.mono, "a wait must lead on");
                    let due = events.first_key_value().map(|((time, ..), _)| *time).filter(|time| *time <= until);
                    now.mono = due.unwrap_or(until);
                    if due.is_none() {
                        continue;
                    }
                    let (_, (to, ask, silent)) = events.pop_first().expect("an event is due");
                    if silent {
                        lookup.on_failure(now, to.peer());
                        continue;
                    }
                    let holds = ask.value && run.holders.contains(to.peer()) && !self.is_bad(to.peer());
                    let lies = self.is_bad(to.peer()) && !run.lies.is_empty();
                    let contacts = if lies {
                        (0..20).map(|_| Arc::clone(&run.lies[rng.random_range(0..run.lies.len())])).collect()
                    } else {
                        self.answer(to.peer(), &ask.target)
                    };
                    let record = run.record.filter(|_| holds).cloned();
                    lookup.on_reply(now, to.peer(), LookupReply { contacts, record, token: Some(Token([0; 16])) });
                }
                Step::Done => return lookup.finish(),
            }
        }
    }
}

/// One lookup and its circumstances.
#[derive(Debug, Clone)]
pub(super) struct Run<'a> {
    pub(super) target: Point,
    pub(super) goal: Goal,
    pub(super) config: LookupConfig,
    pub(super) seeds: usize,
    pub(super) holders: BTreeSet<PeerId>,
    pub(super) record: Option<&'a Arc<Record>>,
    pub(super) silent: BTreeSet<PeerId>,
    /// Contacts that do not exist, for liars to name.
    pub(super) lies: Vec<Arc<Contact>>,
    pub(super) rtt: Duration,
    /// A round trip takes up to this share longer.
    pub(super) jitter: f64,
    pub(super) seed: u64,
}

impl Run<'_> {
    pub(super) fn new(target: Point, goal: Goal, seed: u64) -> Self {
        Self {
            target,
            goal,
            config: LookupConfig::default(),
            seeds: 24,
            holders: BTreeSet::new(),
            record: None,
            silent: BTreeSet::new(),
            lies: Vec::new(),
            rtt: Duration::from_millis(50),
            jitter: 1e-9,
            seed,
        }
    }
}

/// Contacts nearer to a point than a distance, found by trying.
pub(super) fn near(key: &Point, within: &Distance, n: usize, seed: u64) -> Vec<Arc<Contact>> {
    let mut found = Vec::new();
    let mut out = [0; 32];
    for at in 0..n {
        let node = contact(seed.wrapping_mul(0x9e37_79b9).wrapping_add(at as u64) | 1 << 63);
        let mut nonce = 0_u64;
        loop {
            nonce += 1;
            out[..8].copy_from_slice(&nonce.to_be_bytes());
            let admission = Admission { week: 1, nonce, out };
            let try_this = Contact::new(*node.peer(), admission, vec![]);
            if try_this.node_id().distance(key) < *within {
                found.push(Arc::new(Contact::new(*node.peer(), admission, node.addresses().to_vec())));
                break;
            }
        }
    }
    found
}
