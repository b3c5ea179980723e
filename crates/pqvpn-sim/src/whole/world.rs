// SPDX-License-Identifier: MIT OR Apache-2.0
//! A world of whole nodes: how it begins, and what each operation does to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_node::{
    config::{Config, DhtMode},
    handle::PeerRef,
    membership::{CreateNetwork, InviteOptions, NetRef},
    sim::{Setup, SimNode},
};
use rand::{RngExt, rngs::SmallRng};
use tokio::time::{sleep, timeout};

use super::{
    fabric::{CALM, Fabric, HostWire, PORT, Weather},
    link::SimEndpoint,
    op::Op,
    removals::Removals,
};
use crate::seed::Seed;

/// How long what a person asks may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// How long a node that is told to stop may take.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// The first nodes keep their addresses, and everybody begins with them.
const DOORS: usize = 2;
/// Time between two steps: mostly short, so that links sleep and keys grow old within a run.
const REKEY_SECONDS: [u32; 4] = [6, 6, 15, 60];
/// The only network.
const ANY: NetRef = NetRef(None);

/// One node, running or not.
pub(super) struct Resident {
    pub(super) peer: PeerId,
    pub(super) dir: PathBuf,
    pub(super) node: Option<Arc<SimNode>>,
    /// Whom it knows to be revoked, and must never take for a member again.
    pub(super) knows_revoked: BTreeSet<PeerId>,
    pub(super) ahead_s: i32,
    pub(super) down: bool,
}

/// A world.
pub struct World {
    pub(super) fabric: Fabric,
    pub(super) residents: Vec<Resident>,
    pub(super) dice: SmallRng,
    /// Who was to be removed, and by whom.
    pub(super) removals: Arc<std::sync::Mutex<Removals>>,
    /// Nodes that are founders and first members.
    pub(super) doors: Vec<(PeerId, SocketAddr)>,
    /// How often new keys are made.
    rekey_seconds: u32,
    dir: tempfile::TempDir,
}

impl World {
    /// A world in which the first node has founded a network, and all but the last have joined it.
    ///
    /// # Errors
    /// What did not work without any fault.
    pub async fn begin(seed: Seed, nodes: usize) -> Result<Self, String> {
        let shm = PathBuf::from("/dev/shm");
        let parent = if shm.is_dir() { shm } else { std::env::temp_dir() };
        let dir =
            tempfile::Builder::new().prefix("pqvpn-sim-").tempdir_in(parent).map_err(|error| error.to_string())?;
        let fabric = Fabric::new(seed, nodes);
        let residents = (0..nodes).map(|number| {
            let state = dir.path().join(number.to_string());
            std::fs::create_dir(&state).map_err(|error| error.to_string())?;
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(&state, permissions).map_err(|error| error.to_string())?;
            Ok(Resident {
                peer: fabric.lock().places[number].peer,
                dir: state,
                node: None,
                knows_revoked: BTreeSet::new(),
                ahead_s: 0,
                down: false,
            })
        });
        let residents = residents.collect::<Result<Vec<_>, String>>()?;
        let doors = (0..DOORS).map(|number| (residents[number].peer, fabric.lock().places[number].at)).collect();
        let removals = Arc::default();
        let rekey_seconds =
            *REKEY_SECONDS.get(seed.rng("rekey", 0).random_range(0..REKEY_SECONDS.len())).unwrap_or(&60);
        let dice = seed.rng("world", 0);
        let mut world = Self { fabric, residents, dice, removals, doors, rekey_seconds, dir };
        for number in 0..nodes {
            world.start(number).await?;
        }
        world.found().await?;
        Ok(world)
    }

    async fn found(&mut self) -> Result<(), String> {
        let founder = self.node(0).ok_or("the founder does not run")?;
        let create = CreateNetwork {
            name: "home".to_owned(),
            pool: "10.100.0.0/16".parse().ok(),
            quorum: 1,
            ..CreateNetwork::default()
        };
        founder.handle().net_create(create).await.map_err(|error| error.to_string())?;
        let last = self.residents.len() - 1;
        for number in 1..last.max(2) {
            let options = InviteOptions { uses: 64, preapproved: true, ..InviteOptions::default() };
            let invite = founder.handle().invite_create(ANY, options).await.map_err(|error| error.to_string())?;
            let node = self.node(number).ok_or("a node does not run")?;
            let code = invite.code.ok_or("an invite without a code")?;
            node.handle().join(code, None, PATIENCE).await.map_err(|error| format!("node {number}: {error}"))?;
        }
        sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    pub(super) fn node(&self, number: usize) -> Option<Arc<SimNode>> {
        self.residents.get(number)?.node.clone()
    }

    fn config(&self, number: usize) -> Config {
        let mut config = Config::default();
        config.node.listen = vec![SocketAddr::from(([0, 0, 0, 0], PORT))];
        config.node.name = Some(format!("node-{number}"));
        config.node.port_mapping = false;
        config.node.port_guessing = false;
        config.bootstrap.lan = false;
        (config.dht.network, config.dht.difficulty, config.dht.mode) = (Some([7; 32]), Some(1), DhtMode::Auto);
        // Links sleep after a sixth of that.
        config.crypto.rekey_seconds = self.rekey_seconds;
        let others = self.doors.iter().filter(|(peer, _)| *peer != self.residents[number].peer);
        config.bootstrap.nodes = others.filter_map(|(peer, at)| format!("pqvpn://{peer}@{at}").parse().ok()).collect();
        config
    }

    /// Starts a node with what it kept.
    pub(super) async fn start(&mut self, number: usize) -> Result<(), String> {
        if self.residents[number].node.is_some() {
            return Ok(());
        }
        let (fabric, config) = (self.fabric.clone(), self.config(number));
        let (identity, host, boot) = {
            let inner = fabric.lock();
            let place = &inner.places[number];
            (Arc::clone(&place.identity), Arc::clone(&place.host), place.boot)
        };
        let wire = HostWire { fabric: fabric.clone(), number, boot };
        let under = fabric.clone();
        let setup = Setup {
            config,
            identity,
            state_dir: self.residents[number].dir.clone(),
            host,
            wire: Arc::new(wire),
            endpoint: Box::new(move |admission| Arc::new(SimEndpoint::open(&under, number, boot, admission))),
        };
        fabric.lock().log.restarted(number);
        let node = SimNode::start(setup).await.map_err(|error| format!("node {number} does not start: {error}"))?;
        let node = Arc::new(node);
        fabric.lock().places[number].node = Some(Arc::clone(&node));
        (self.residents[number].node, self.residents[number].down) = (Some(node), false);
        Ok(())
    }

    /// Ends a node at once.
    pub(super) async fn kill(&mut self, number: usize) {
        let Some(node) = self.residents[number].node.take() else { return };
        let (boot, links, place) = {
            let mut inner = self.fabric.lock();
            let boot = inner.places[number].boot;
            let links: Vec<_> = inner.links.values().filter_map(Weak::upgrade).collect();
            (boot, links, inner.forget(number))
        };
        node.kill();
        links.iter().for_each(|link| link.forget(number, boot));
        drop((links, place));
        drop(node);
        // Until its tasks are gone: the next start needs its files.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    async fn stop(&mut self, number: usize) {
        let Some(node) = self.node(number) else { return };
        if timeout(STOPS_WITHIN, node.stop()).await.is_err() {
            self.fabric.lock().log.violate("stops-when-told", format!("node {number} did not stop in time"));
        }
        self.kill(number).await;
    }

    /// Does one operation.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are the network's")]
    pub(super) async fn perform(&mut self, op: &Op) {
        match *op {
            Op::Send { from, to, count } => (0..count).for_each(|_| self.send(from, to)),
            Op::SendAll => {
                let nodes = self.residents.len();
                (0..nodes * nodes).for_each(|pair| self.send(pair / nodes, pair % nodes));
            }
            Op::Ping { from, to } => self.ask(from, to, |node, peer| {
                Box::pin(async move { drop(node.handle().ping(peer, Duration::from_secs(10)).await) })
            }),
            Op::Rekey { from, to } => {
                self.ask(from, to, |node, peer| Box::pin(async move { drop(node.handle().rekey(peer).await) }));
            }
            Op::Disconnect { from, to } => {
                self.ask(from, to, |node, peer| Box::pin(async move { drop(node.handle().disconnect(peer).await) }));
            }
            Op::Revoke { by, who } => self.revoke(by, who),
            Op::AdminAdd { by, who } => {
                self.ask(by, who, |node, peer| Box::pin(async move { drop(node.handle().admin_add(ANY, peer).await) }))
            }
            Op::AdminRemove { by, who } if who != 0 => {
                if let Some(who) = self.residents.get(who) {
                    self.lock_removals().note_asked(who.peer);
                }
                self.ask(by, who, |node, peer| {
                    Box::pin(async move { drop(node.handle().admin_remove(ANY, peer).await) })
                });
            }
            Op::AdminRemove { .. } => {}
            Op::Join { node, by } => self.join(node, by),
            Op::Kill { node } => self.kill(node).await,
            Op::Stop { node } => self.stop(node).await,
            Op::Start { node } => {
                if let Err(error) = self.start(node).await {
                    self.fabric.lock().log.violate("starts-with-what-it-kept", error);
                }
            }
            Op::Down { node } => self.set_down(node, true),
            Op::Up { node } => self.set_down(node, false),
            Op::Clock { node, ahead_s } => self.set_clock(node, ahead_s),
            Op::Wait { ms } => sleep(Duration::from_millis(ms.into())).await,
            Op::Settle => self.settle().await,
            ref other => self.disturb(other),
        }
    }

    /// What the network does by itself, or somebody who owns a part of it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are people's")]
    fn disturb(&mut self, op: &Op) {
        match *op {
            Op::Break { pick } => {
                let links: Vec<_> = self.fabric.lock().links.values().filter_map(Weak::upgrade).collect();
                let open: Vec<_> = links.iter().filter(|link| !link.is_over()).collect();
                if let Some(link) = open.get(pick as usize % open.len().max(1)) {
                    link.break_off();
                }
            }
            Op::Weather { loss_percent, twice_percent, jitter_ms } => {
                self.fabric.lock().weather = Weather {
                    loss: f64::from(loss_percent) / 100.0,
                    twice: f64::from(twice_percent) / 100.0,
                    jitter_ms: jitter_ms.into(),
                };
            }
            Op::Cut { a, b } if a != b => drop(self.fabric.lock().cut.insert((a.min(b), a.max(b)))),
            Op::Mend { a, b } => drop(self.fabric.lock().cut.remove(&(a.min(b), a.max(b)))),
            Op::Partition { side } => {
                let nodes = self.residents.len();
                let is_on = |node: usize| side >> node & 1 == 1;
                let pairs = (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b)));
                let parted = pairs.filter(|(a, b)| is_on(*a) != is_on(*b));
                self.fabric.lock().cut.extend(parted);
            }
            Op::Heal => {
                let mut inner = self.fabric.lock();
                inner.cut.clear();
                inner.weather = CALM;
            }
            // Somebody has to stay where all can find it.
            Op::Roam { node, told } if node >= DOORS => self.fabric.roam(node, told),
            Op::Rebind { node } if node >= DOORS => self.fabric.rebind(node),
            Op::Replay { pick, to } => self.replay(pick, to, None),
            Op::Forge { pick, bit } => self.replay(pick, None, Some(bit)),
            Op::Garbage { to, dice } => {
                let mut bytes = Seed(dice).bytes("garbage", 0).to_vec();
                bytes.extend_from_within(..);
                bytes[0] = 0x20 | bytes[0] & 0x1f;
                let from = self.stranger();
                self.fabric.inject(to, from, bytes);
            }
            _ => {}
        }
    }

    fn stranger(&mut self) -> SocketAddr {
        SocketAddr::from(([99, 1, 2, self.dice.random()], self.dice.random_range(1..u16::MAX)))
    }

    fn replay(&mut self, pick: u32, to: Option<usize>, bit: Option<u16>) {
        let recorded = {
            let inner = self.fabric.lock();
            let count = inner.recorded.len();
            if count == 0 {
                return;
            }
            inner.recorded[pick as usize % count].clone()
        };
        let mut bytes = recorded.bytes;
        if let Some(bit) = bit {
            let at = usize::from(bit) % (bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
        }
        let from = self.stranger();
        self.fabric.inject(to.unwrap_or(recorded.to), from, bytes);
    }

    fn send(&mut self, from: usize, to: usize) {
        let (Some(node), Some(peer)) = (self.node(from), self.residents.get(to).map(|to| to.peer)) else { return };
        if from != to {
            let packet = self.fabric.lock().log.packet(from, to);
            let _sent = node.send(peer, packet);
        }
    }

    /// Something that a person asks of a node about another one; nobody waits for the answer.
    fn ask(
        &self,
        of: usize,
        about: usize,
        ask: impl FnOnce(Arc<SimNode>, PeerRef) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    ) {
        let (Some(node), Some(about)) = (self.node(of), self.residents.get(about)) else { return };
        let asking = ask(node, PeerRef(about.peer.to_string()));
        tokio::spawn(async move { drop(timeout(PATIENCE, asking).await) });
    }

    pub(super) fn lock_removals(&self) -> std::sync::MutexGuard<'_, Removals> {
        self.removals.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn revoke(&self, by: usize, who: usize) {
        // The founder stays: without an admin nothing could go on.
        if who == 0 || by == who {
            return;
        }
        let Some(revoker) = self.residents.get(by).map(|by| by.peer) else { return };
        let (removals, peer) = (Arc::clone(&self.removals), self.residents[who].peer);
        self.lock_removals().note_asked(peer);
        self.ask(by, who, move |node, about| {
            Box::pin(async move {
                let done = node.handle().revoke(ANY, about, "lost".to_owned()).await;
                if done.is_ok_and(|report| report.act.in_force) {
                    let mut removals = removals.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    removals.note_revoked(peer, revoker);
                }
            })
        });
    }

    pub(super) fn join(&self, number: usize, by: usize) {
        let (Some(node), Some(admin)) = (self.node(number), self.node(by)) else { return };
        let is_member = self.fabric.lock().places[number].host.views().iter().any(|view| view.enabled);
        if number == by || is_member {
            return;
        }
        tokio::spawn(async move {
            let joining = async {
                let options = InviteOptions { uses: 4, preapproved: true, ..InviteOptions::default() };
                let Ok(invite) = admin.handle().invite_create(ANY, options).await else { return };
                if let Some(code) = invite.code {
                    let _refused = node.handle().join(code, None, PATIENCE).await;
                }
            };
            drop(timeout(PATIENCE * 2, joining).await);
        });
    }

    fn set_down(&mut self, number: usize, down: bool) {
        let Some(node) = self.node(number) else { return };
        self.residents[number].down = down;
        tokio::spawn(async move {
            let set = async { if down { node.handle().down().await } else { node.handle().up().await } };
            drop(timeout(PATIENCE, set).await);
        });
    }

    pub(super) fn set_clock(&mut self, number: usize, ahead_s: i32) {
        self.residents[number].ahead_s = ahead_s;
        self.fabric.lock().places[number].host.set_ahead(i64::from(ahead_s) * 1000);
    }

    /// Which nodes are members, as the founder knows it.
    pub(super) fn members(&self) -> BTreeSet<usize> {
        let inner = self.fabric.lock();
        let views = inner.places[0].host.views();
        let members = views.iter().flat_map(|view| view.members.iter().map(|member| member.peer));
        members.filter_map(|peer| inner.of_peer(&peer)).chain([0]).collect()
    }

    /// By what the members were shown: heads are compared apart.
    pub(super) fn views_of(&self, number: usize) -> BTreeMap<PeerId, bool> {
        let views = self.fabric.lock().places[number].host.views();
        let members = views.iter().flat_map(|view| view.members.iter().map(|member| (member.peer, true)));
        let revoked = views.iter().flat_map(|view| view.revoked.iter().map(|peer| (*peer, false)));
        members.chain(revoked).collect()
    }

    /// The files of this world, for whoever looks at a failure.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}
