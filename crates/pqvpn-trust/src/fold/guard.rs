// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is put out by no fewer keys than the quorum: admins, also where whoever revokes them did not know them for such.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::Act;

use crate::authority::{Authority, Evaluator};
use crate::bits::Bits;
use crate::graph::{ActNo, Graph, Node};

/// The keys of all admins. A revocation dated back to where its subject was none needs one signature on its path; that
/// must not be a way around the quorum.
pub(super) struct Guards(Vec<Line>);

/// One admin.
struct Line {
    /// The acts its authority goes back to. Whoever made it one and knew of a revocation let that stand.
    roots: Vec<ActNo>,
    keys: Vec<Key>,
}

/// A key of an admin, now or before.
struct Key {
    peer: PeerId,
    /// The rotation away from it. For whoever knows of that, the key is another's if somebody is let in under it again.
    left: Option<Node>,
    /// What knows of that; looked for when it is asked for.
    after: OnceCell<Bits>,
}

impl Key {
    fn new(peer: PeerId, left: Option<Node>) -> Self {
        Self { peer, left, after: OnceCell::new() }
    }

    fn is_its(&self, graph: &Graph, statement: Node, peer: &PeerId) -> bool {
        let is_after = |left| self.after.get_or_init(|| graph.descendants(left)).contains(statement);
        self.peer == *peer && !self.left.is_some_and(is_after)
    }
}

impl Guards {
    pub(super) fn of(graph: &Graph, evaluator: &mut Evaluator, whole: &Authority) -> Self {
        let admins = whole.admins.iter();
        Self(admins.map(|(admin, standing)| Line::of(graph, evaluator, *admin, &standing.grants)).collect())
    }

    /// Says whether a statement about `peer` is about an admin.
    pub(super) fn cover(&self, graph: &Graph, statement: Node, peer: &PeerId) -> bool {
        self.lines(graph, statement, peer).next().is_some()
    }

    /// Says whether it is one that lies beside one of the acts the admin owes that to.
    pub(super) fn meet(&self, graph: &Graph, statement: Node, peer: &PeerId) -> bool {
        self.lines(graph, statement, peer).any(|line| line.roots.iter().any(|root| !graph.before_act(statement, *root)))
    }

    fn lines(&self, graph: &Graph, statement: Node, peer: &PeerId) -> impl Iterator<Item = &Line> {
        let is_of = move |line: &&Line| line.keys.iter().any(|key| key.is_its(graph, statement, peer));
        self.0.iter().filter(is_of)
    }
}

impl Line {
    fn of(graph: &Graph, evaluator: &mut Evaluator, admin: PeerId, grants: &[ActNo]) -> Self {
        let mut line = Self { roots: Vec::new(), keys: vec![Key::new(admin, None)] };
        let (mut seen, mut open) = (BTreeSet::new(), grants.to_vec());
        while let Some(grant) = open.pop() {
            let Some((node, held)) = graph.act_node(grant).zip(graph.act(grant)) else { continue };
            if !seen.insert(grant) {
                continue;
            }
            let act = &held.statement.body().act;
            if let Act::Rotate { old, .. } = act {
                let old = old.peer_id();
                line.keys.push(Key::new(old, Some(node)));
                let path = evaluator.path(graph, held.set);
                open.extend(path.admins.get(&old).into_iter().flat_map(|standing| &standing.grants));
                continue;
            }
            line.roots.push(grant);
            if let Act::AddAdmin { key } = act {
                line.add_former(graph, key.peer_id(), grant);
            }
        }
        line
    }

    /// Adds the keys that `key` had before `root` made it an admin.
    fn add_former(&mut self, graph: &Graph, key: PeerId, root: ActNo) {
        let (mut seen, mut open) = (BTreeSet::from([key]), vec![key]);
        while let Some(key) = open.pop() {
            for node in graph.entries(&key).iter().filter(|node| graph.before_act(**node, root)) {
                let Some(held) = graph.held(*node) else { continue };
                let Act::Rotate { old, .. } = &held.statement.body().act else { continue };
                let old = old.peer_id();
                self.keys.push(Key::new(old, Some(*node)));
                if seen.insert(old) {
                    open.push(old);
                }
            }
        }
    }
}
