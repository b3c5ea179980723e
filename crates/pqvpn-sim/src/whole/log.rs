// SPDX-License-Identifier: MIT OR Apache-2.0
//! What everybody saw, judged as it happens: the invariants that hold at every moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use pqvpn_crypto::{kdf::Sid, peer_id::PeerId, schedule::Direction};
use pqvpn_node::membership::NetworkView;
use sha2::{Digest, Sha256};

/// A view that was shown so lately may not be in force yet.
const IN_FORCE: Duration = Duration::from_millis(20);

/// Length of the packets that nodes of a world send each other.
const PACKET_LEN: usize = 64;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Log {
    /// What must not be.
    pub(super) violations: Vec<Violation>,
    /// Packets that came out of a tunnel.
    pub(super) delivered: u64,
    /// Packets that were put into one.
    pub(super) sent: u64,
    /// Datagrams on the wire.
    pub(super) datagrams: u64,
    /// Packets sealed.
    pub(super) seals: u64,
    /// Sessions installed.
    pub(super) sessions: u64,
    /// Links made, and those of them that fell asleep.
    pub(super) links: u64,
    pub(super) slept: u64,
    /// Most ways of a node.
    pub(super) ways: usize,
    counters: HashMap<(Sid, Direction), (usize, u64)>,
    /// Packets on their way or lost: number, by whom, to whom.
    under_way: HashMap<u64, (usize, usize)>,
    seen: BTreeSet<u64>,
    next: u64,
    /// Who is out, as each node was shown it, and since when.
    out: Vec<BTreeMap<PeerId, Instant>>,
    /// Who is a member, as each node was shown it.
    members: Vec<BTreeMap<PeerId, Instant>>,
    trace: Sha256,
    /// Everything is told as it happens.
    tells: bool,
}

impl Log {
    pub(super) fn new(hosts: usize) -> Self {
        Self {
            violations: Vec::new(),
            delivered: 0,
            sent: 0,
            datagrams: 0,
            seals: 0,
            sessions: 0,
            links: 0,
            slept: 0,
            ways: 0,
            counters: HashMap::new(),
            under_way: HashMap::new(),
            seen: BTreeSet::new(),
            next: 0,
            out: vec![BTreeMap::new(); hosts],
            members: vec![BTreeMap::new(); hosts],
            trace: Sha256::new(),
            tells: std::env::var_os("PQVPN_SIM_TRACE").is_some(),
        }
    }

    /// Notes that something must not be.
    pub(super) fn violate(&mut self, rule: &'static str, what: String) {
        self.violations.push(Violation { rule, what });
    }

    /// Adds something to what two runs of one seed are compared by.
    pub(super) fn trace(&mut self, what: &str) {
        if self.tells {
            tell(what);
        }
        self.trace.update(what.as_bytes());
    }

    /// Tells two runs apart.
    #[must_use]
    pub(super) fn hash(&self) -> u64 {
        let bytes: [u8; 32] = self.trace.clone().finalize().into();
        bytes.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// A packet for the tunnel, that nobody else makes.
    pub(super) fn packet(&mut self, from: usize, to: usize) -> Vec<u8> {
        let number = self.next;
        self.next += 1;
        self.sent += 1;
        self.under_way.insert(number, (from, to));
        let mut packet = vec![0; PACKET_LEN];
        packet[0] = 0x60;
        packet[8..16].copy_from_slice(&number.to_be_bytes());
        packet
    }

    pub(super) fn sealed(&mut self, by: usize, keys: (Sid, Direction), counter: u64) {
        self.seals += 1;
        match self.counters.get_mut(&keys) {
            Some((owner, last)) if *owner == by && counter > *last => *last = counter,
            Some((owner, last)) => {
                let what =
                    format!("node {by} sealed counter {counter} under keys of node {owner}, which was at {last}");
                self.violate("no-nonce-twice", what);
            }
            None => drop(self.counters.insert(keys, (by, counter))),
        }
    }

    pub(super) fn delivered(
        &mut self,
        at: usize,
        sender: Option<usize>,
        peer: &PeerId,
        packet: &[u8],
        views: &[NetworkView],
    ) {
        self.delivered += 1;
        self.trace(&format!("delivered {at} {sender:?} {}", hex(packet.get(8..16).unwrap_or_default())));
        let number = packet.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        let Some(number) = number.filter(|_| packet.len() == PACKET_LEN) else {
            return self.violate("only-what-was-sent", format!("node {at} got a packet that nobody sent"));
        };
        match self.under_way.get(&number) {
            Some(&(from, to)) if Some(from) == sender && to == at => {}
            Some(&(from, to)) => {
                let what = format!("packet {number} from {from} to {to} came to {at} as one of {sender:?}");
                self.violate("right-sender-right-receiver", what);
            }
            None => self.violate("only-what-was-sent", format!("node {at} got packet {number}, which nobody sent")),
        }
        if !self.seen.insert(number) {
            self.violate("no-packet-twice", format!("packet {number} came to node {at} again"));
        }
        self.judge_member("no-packet-of-outsiders", at, peer, views);
    }

    pub(super) fn installed(&mut self, at: usize, peer: &PeerId, views: &[NetworkView]) {
        self.sessions += 1;
        self.trace(&format!("session {at} {}", peer.short()));
        self.judge_member("no-session-with-outsiders", at, peer, views);
    }

    /// Whether a node has known for a moment that somebody is no member.
    fn judge_member(&mut self, rule: &'static str, at: usize, peer: &PeerId, views: &[NetworkView]) {
        self.look(at, views);
        let now = tokio::time::Instant::now().into_std();
        let is_member = self.members[at].contains_key(peer);
        let long = |since: &Instant| now.saturating_duration_since(*since) > IN_FORCE;
        match self.out[at].get(peer) {
            Some(since) if !is_member && long(since) => {
                self.violate(
                    rule,
                    format!("node {at} has dealt with {} although it knows that it is out", peer.short()),
                );
            }
            Some(_) => {}
            None if !is_member => {
                self.violate(rule, format!("node {at} has dealt with {}, who never was a member", peer.short()));
            }
            None => {}
        }
    }

    /// Takes notice of what a node was shown.
    pub(super) fn look(&mut self, at: usize, views: &[NetworkView]) {
        let now = tokio::time::Instant::now().into_std();
        let members: BTreeSet<PeerId> =
            views.iter().filter(|view| view.enabled).flat_map(|view| &view.members).map(|member| member.peer).collect();
        let gone: Vec<PeerId> = self.members[at].keys().filter(|peer| !members.contains(peer)).copied().collect();
        for peer in gone {
            self.members[at].remove(&peer);
            self.out[at].insert(peer, now);
        }
        for peer in members {
            self.members[at].entry(peer).or_insert(now);
        }
    }

    /// What a node knew of members is judged anew after a restart, when it was shown its networks again.
    pub(super) fn restarted(&mut self, at: usize) {
        let now = tokio::time::Instant::now().into_std();
        for peer in std::mem::take(&mut self.members[at]).into_keys() {
            self.out[at].insert(peer, now);
        }
    }
}

fn tell(what: &str) {
    use std::io::Write as _;
    let now = tokio::time::Instant::now();
    _ = writeln!(std::io::stderr(), "{now:?} {what}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
