// SPDX-License-Identifier: MIT OR Apache-2.0
//! The invariants that are looked at between operations, and those that must hold once everything is mended.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_node::{
    dht::{DhtState, RecordRef},
    handle::PeerRef,
    sim::SimNode,
};
use tokio::time::{sleep, timeout};

use super::{
    fabric::CALM,
    world::{PATIENCE, World},
};

/// Within so long after the last fault all members hold the same.
const CONVERGES: Duration = Duration::from_secs(600);
/// And after that each reaches each within so long.
const REACHES: Duration = Duration::from_secs(60);
/// And each finds each in the DHT within so long.
const FINDS: Duration = Duration::from_secs(900);
/// Wake-ups of the tasks of an idle node, a second in the mean.
const IDLE_WAKES: u64 = 40;
/// How long a node is watched for that.
const IDLE: Duration = Duration::from_secs(60);
/// Sessions of a node with one peer, once everything has settled.
const SESSIONS_PER_PEER: usize = 8;
/// Receiver indices of a session.
const INDICES: usize = 16;
/// Packets that may wait, each peer.
const PARKED: usize = 32;
/// Ways and forwards of a node in so small a world.
const RELAYING: usize = 256;
/// Tasks of one node, with those of its links.
const TASKS: usize = 400;

impl World {
    /// What holds after every operation.
    pub(super) fn check(&mut self) {
        let nodes = self.residents.len();
        for number in 0..nodes {
            self.check_bounds(number);
            self.check_memory(number);
        }
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        if tasks > TASKS * nodes {
            self.violate("bounded-tasks", format!("{tasks} tasks for {nodes} nodes"));
        }
    }

    pub(super) fn violate(&self, rule: &'static str, what: String) {
        self.fabric.lock().log.violate(rule, what);
    }

    fn check_bounds(&self, number: usize) {
        let Some(node) = self.node(number) else { return };
        let nodes = self.residents.len();
        let [peers, sessions, indices, parked] = node.sizes();
        let (ways, forwards) = self.fabric.lock().relaying(number);
        let within = peers <= nodes
            && sessions <= SESSIONS_PER_PEER * nodes
            && indices <= sessions * INDICES
            && parked <= PARKED * nodes
            && ways <= RELAYING
            && forwards <= RELAYING;
        if !within {
            let what = format!(
                "node {number}: {peers} peers, {sessions} sessions, {indices} indices, {parked} parked, {ways} ways, \
                 {forwards} forwards"
            );
            self.violate("bounded-tables", what);
        }
        if node.is_over() {
            self.violate("runs-until-told", format!("node {number} has ended by itself"));
        }
    }

    /// Nobody that a node knows to be revoked is a member again there, whatever happens to the node.
    fn check_memory(&mut self, number: usize) {
        if self.residents[number].node.is_none() {
            return;
        }
        let views = self.fabric.lock().places[number].host.views();
        self.fabric.lock().log.look(number, &views);
        // A node without a view of its network says nothing about it.
        let Some(view) = views.first() else { return };
        let resident = &mut self.residents[number];
        let members: BTreeSet<PeerId> = view.members.iter().map(|member| member.peer).collect();
        let back: Vec<PeerId> = resident.knows_revoked.intersection(&members).copied().collect();
        resident.knows_revoked.extend(view.revoked.iter().copied());
        for peer in back {
            let what = format!("node {number} takes {} for a member that it knew to be revoked", peer.short());
            self.violate("no-way-back-before-a-revocation", what);
        }
    }

    /// Mends everything and looks at what must be true then.
    pub(super) async fn settle(&mut self) {
        {
            let mut inner = self.fabric.lock();
            inner.cut.clear();
            inner.weather = CALM;
        }
        for number in 0..self.residents.len() {
            self.set_clock(number, 0);
            if let Err(error) = self.start(number).await {
                self.violate("starts-with-what-it-kept", error);
            }
            if let Some(node) = self.node(number) {
                let _stopped = timeout(Duration::from_secs(60), node.handle().up()).await;
                self.residents[number].down = false;
                node.network_changed();
            }
        }
        // What people had asked for before has ended by then.
        sleep(Duration::from_secs(45)).await;
        self.check();
        self.join_again().await;
        let began = now();
        while let Err(why) = self.agree().await {
            if now().saturating_duration_since(began) > CONVERGES {
                return self.violate("converges", why);
            }
            sleep(Duration::from_secs(5)).await;
        }
        self.trace_settled("agreed", began);
        self.check_revoked();
        self.reach_each_other().await;
        self.find_each_other().await;
        self.rest().await;
    }

    /// Who was let in by an admin that died before it said so was told that nobody answered: its owner tries again, with a
    /// new code.
    async fn join_again(&self) {
        let mut outside = Vec::new();
        for number in self.members() {
            let Some(node) = self.node(number) else { continue };
            let listed = timeout(Duration::from_secs(60), node.handle().net_list()).await;
            if matches!(listed, Ok(Ok(networks)) if networks.is_empty()) {
                outside.push(number);
            }
        }
        for &number in &outside {
            self.join(number, 0);
        }
        if !outside.is_empty() {
            sleep(PATIENCE).await;
        }
    }

    fn trace_settled(&self, what: &str, since: Instant) {
        let took = now().saturating_duration_since(since).as_secs();
        self.fabric.lock().log.trace(&format!("{what} after {took} s"));
    }

    /// Whether all members hold the same.
    async fn agree(&self) -> Result<(), String> {
        let members = self.members();
        let mut heads = Vec::new();
        for &number in &members {
            let Some(node) = self.node(number) else { continue };
            let listed = timeout(Duration::from_secs(60), node.handle().net_list()).await;
            let networks = listed.map_err(|_| format!("node {number} does not answer"))?;
            let networks = networks.map_err(|error| format!("node {number}: {error}"))?;
            let head = networks.first().map(|network| network.head.clone());
            heads.push((number, head.ok_or_else(|| format!("node {number} has no network"))?, self.views_of(number)));
        }
        let Some((_, head, view)) = heads.first() else { return Ok(()) };
        for (number, other, seen) in &heads[1..] {
            if other != head {
                return Err(format!("node {number} holds {other}, node 0 holds {head}"));
            }
            let of_others = |seen: &std::collections::BTreeMap<PeerId, bool>, own: &PeerId| {
                seen.iter()
                    .filter(|(peer, _)| *peer != own && **peer != self.residents[0].peer)
                    .map(|(p, m)| (*p, *m))
                    .collect::<Vec<_>>()
            };
            let own = self.residents[*number].peer;
            if of_others(view, &own) != of_others(seen, &own) {
                return Err(format!("node {number} sees other members than node 0"));
            }
        }
        Ok(())
    }

    /// Who was revoked, and confirmed so, is no member for anybody; unless whoever did it was to be removed itself: beside its removal
    /// what it says does not count (docs/networks.md 2.2).
    fn check_revoked(&self) {
        let revoked = self.lock_removals().stand();
        for &number in &self.members() {
            for (peer, _) in self.views_of(number).into_iter().filter(|(_, is_member)| *is_member) {
                if revoked.contains(&peer) {
                    let what = format!("{} is a member for node {number} although it was revoked", peer.short());
                    self.violate("revoked-for-all", what);
                }
            }
        }
        self.lock_removals().settle();
    }

    /// Every member pings every other.
    async fn reach_each_other(&self) {
        let members = self.members();
        let pairs = members.iter().flat_map(|a| members.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b);
        let pings = pairs.filter_map(|(a, b)| {
            let (node, peer) = (self.node(a)?, PeerRef(self.residents[b].peer.to_string()));
            Some(async move {
                let pinged = timeout(REACHES * 2, node.handle().ping(peer, REACHES)).await;
                match pinged {
                    Ok(Ok(_)) => None,
                    Ok(Err(error)) => Some(format!("node {a} does not reach node {b}: {error}")),
                    Err(_) => Some(format!("node {a} does not answer about node {b}")),
                }
            })
        });
        for what in join_all(pings).await.into_iter().flatten() {
            self.violate("reachable-once-mended", what);
        }
    }

    /// Every node that serves the DHT is found there by the others.
    async fn find_each_other(&self) {
        let began = now();
        loop {
            let Some(missing) = self.not_found().await else { break };
            if now().saturating_duration_since(began) > FINDS {
                return self.violate("found-in-the-dht", missing);
            }
            sleep(Duration::from_secs(20)).await;
        }
        self.trace_settled("found", began);
    }

    async fn not_found(&self) -> Option<String> {
        let nodes = self.residents.len();
        let mut serving = BTreeSet::new();
        for number in 0..nodes {
            let Some(node) = self.node(number) else { continue };
            let status = timeout(Duration::from_secs(60), node.handle().dht_status()).await;
            let Ok(Ok(status)) = status else { return Some(format!("the DHT of node {number} does not answer")) };
            if status.state != DhtState::Joined {
                return Some(format!("node {number} is {} in the DHT", status.state.as_str()));
            }
            let open = !self.fabric.lock().places[number].behind_router;
            if open && !status.own_records.is_empty() {
                serving.insert(number);
            }
        }
        let pairs = (0..nodes).flat_map(|a| serving.iter().map(move |b| (a, *b))).filter(|(a, b)| a != b);
        let lookups = pairs.filter_map(|(a, b)| {
            let (node, peer) = (self.node(a)?, self.residents[b].peer);
            let (at, owner) = (self.fabric.lock().places[b].at, self.node(b)?);
            Some(async move {
                let what = RecordRef::Peer(PeerRef(peer.to_string()));
                let got = timeout(Duration::from_secs(120), node.handle().dht_get(what)).await;
                let record = got.ok().and_then(Result::ok).and_then(|report| report.record);
                if format!("{record:?}").contains(&at.to_string()) {
                    return None;
                }
                let (asker, owner) = (in_the_dht(node).await, in_the_dht(owner).await);
                Some(format!("node {a} ({asker}) does not find node {b} ({owner}) at {at}: {record:?}"))
            })
        });
        join_all(lookups).await.into_iter().flatten().next()
    }

    /// Nobody has anything to do: nobody does much.
    async fn rest(&self) {
        let members = self.members();
        // Sessions in use are looked at more often; these are not any more after that.
        sleep(Duration::from_secs(40)).await;
        let wakes: Vec<u64> = self.fabric.lock().places.iter().map(|place| place.host.wakes()).collect();
        sleep(IDLE).await;
        let after: Vec<u64> = self.fabric.lock().places.iter().map(|place| place.host.wakes()).collect();
        for (number, (before, after)) in wakes.into_iter().zip(after).enumerate() {
            let mean = (after - before) / IDLE.as_secs();
            if mean > IDLE_WAKES {
                self.violate("idle-when-idle", format!("node {number} wakes up {mean} times a second"));
            }
            if after == before && members.contains(&number) {
                self.violate("timers-go-on", format!("node {number} did nothing for {} s", IDLE.as_secs()));
            }
        }
    }
}

/// How a node stands in the DHT: contacts, records kept, its own and where they are kept, and what it counted.
async fn in_the_dht(node: Arc<SimNode>) -> String {
    let status = timeout(Duration::from_secs(60), node.handle().dht_status()).await;
    let Ok(Ok(status)) = status else { return "no answer".to_owned() };
    let own: Vec<_> = status.own_records.iter().map(|own| (own.record.seq, own.stored)).collect();
    let counted: Vec<_> = status.counters.iter().filter(|(_, count)| *count > 0).collect();
    let (contacts, kept) = (status.contacts, status.stored_records);
    format!("{contacts} contacts, {kept} records, own {own:?}, {counted:?}")
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use pqvpn_node::sim::VirtualTime;

    use super::{super::op::Op, *};
    use crate::{seed::Seed, world::BEGIN_UNIX_MS};

    /// The rules that a world says were broken, in which that happens.
    fn broken(what: impl AsyncFnOnce(&mut World)) -> Vec<&'static str> {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let rules = runtime.block_on(async {
            let _virtual = VirtualTime::begin(7, BEGIN_UNIX_MS);
            let mut world = World::begin(Seed(7), 4).await.unwrap();
            what(&mut world).await;
            let rules = world.fabric.lock().log.violations.iter().map(|violation| violation.rule).collect();
            for number in 0..world.residents.len() {
                world.kill(number).await;
            }
            rules
        });
        runtime.shutdown_background();
        rules
    }

    #[test]
    fn whoever_is_a_member_although_its_revocation_stands_is_found() {
        let revoked = async |world: &mut World| {
            world.perform(&Op::Revoke { by: 0, who: 1 }).await;
            world.perform(&Op::Settle).await;
            assert!(!world.views_of(0)[&world.residents[1].peer], "it is revoked");
        };
        assert_eq!(broken(revoked), [""; 0]);
        let forgotten = async |world: &mut World| {
            let [founder, member] = [0, 1].map(|number| world.residents[number].peer);
            world.lock_removals().note_revoked(member, founder);
            world.check_revoked();
        };
        assert_eq!(broken(forgotten), ["revoked-for-all"; 2], "for both other members");
    }

    #[test]
    fn a_member_whose_timers_stand_still_is_found() {
        assert_eq!(broken(async |world| world.rest().await), [""; 0]);
        let stands_still = async |world: &mut World| {
            let host = Arc::clone(&world.fabric.lock().places[1].host);
            host.kill();
            world.rest().await;
        };
        assert_eq!(broken(stands_still), ["timers-go-on"]);
    }

    #[test]
    fn a_node_that_does_not_start_with_what_it_kept_is_found() {
        let starts = async |world: &mut World, op: Op| {
            world.perform(&Op::Kill { node: 1 }).await;
            world.perform(&op).await;
        };
        assert_eq!(broken(async |world| starts(world, Op::Start { node: 1 }).await), [""; 0]);
        for op in [Op::Start { node: 1 }, Op::Settle] {
            let without = async |world: &mut World| {
                world.residents[1].dir = "/dev/null/kept".into();
                starts(world, op).await;
            };
            // What follows of it is found after that.
            assert_eq!(broken(without).first(), Some(&"starts-with-what-it-kept"));
        }
    }
}
