// SPDX-License-Identifier: MIT OR Apache-2.0
//! The task that owns the node: commands, data-plane events and link events come in, one at a time; nothing is shared.

mod choice;
mod command;
mod guessing;
mod leaving;
mod mesh;
mod netcheck;
mod network;
mod paths;
pub(crate) mod peer;
mod peers;
mod ping;
mod ratchet;
mod report;
mod rounds;
mod sessions;
mod sizes;
mod sleeping;
mod timed;

use std::{
    collections::BTreeSet,
    future::pending,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::{aead::AeadId, peer_id::PeerId, ratchet::machine::Ratchet, schedule::Role};
use pqvpn_dataplane::{Event, PeerSlot, PeerStats, SessionId};
use pqvpn_wire::control::Message;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
    time::{sleep_until, timeout},
};

use crate::{
    blocking::spawn,
    carrier::{Carriers, Listening},
    clock::{self, Reading},
    config::Config,
    dht::report::DhtReport,
    events::Overflow,
    handle::{Command, Farewell},
    host::{HostSide, watch::News},
    lan::Lan,
    life::{Action, Activity},
    link::Connection,
    membership::NetworkView,
    names::DnsSide,
    overlay::{Mesh, OwnAddresses},
    path::{Mapped, Portmap, Reflexive},
    plane::PacketPlane,
    session::{self, LinkContext, LinkEvent, Wanted},
    sleep::{RENEW_AT_LEAST, Sleep},
    snapshot::{HealthItem, NodeState},
    underlay::Underlay,
};
pub(crate) use command::set_live;
pub(crate) use guessing::Guessing;
use network::Barrier;
pub(crate) use peers::Peers;
pub(crate) use rounds::Rounds;
pub(crate) use timed::Timed;

/// How often ways through other members that are in use are held.
const HOLD_EVERY: Duration = Duration::from_secs(20);

/// How often the data plane is asked what it saw of each peer, where nothing else is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Most events of a kind that are taken before the machines are driven.
const AT_ONCE: usize = 128;

/// How long a node that has stopped waits until its networks' task has let go of their store.
const LET_GO: Duration = Duration::from_secs(3);

/// The networks of this node at one moment.
pub(crate) type Views = Arc<Vec<NetworkView>>;

/// The queues that feed the task.
pub(crate) struct Inputs {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) packets: mpsc::Receiver<Event>,
    pub(crate) links: mpsc::Receiver<LinkEvent>,
    pub(crate) views: mpsc::Receiver<Views>,
    pub(crate) barriers: mpsc::Receiver<Barrier>,
    /// The host's network has changed.
    pub(crate) changes: mpsc::Receiver<News>,
    /// The task that owns the networks.
    pub(crate) driver: JoinHandle<()>,
}

/// Everything the node knows.
pub(crate) struct State {
    pub(crate) own: PeerId,
    pub(crate) name: String,
    pub(crate) running: NodeState,
    pub(crate) started: Instant,
    pub(crate) clocks: Reading,
    pub(crate) config: Config,
    pub(crate) peers: Peers,
    pub(crate) views: Views,
    /// How often this node has been down, or has slept: what was heard of its networks before says nothing of now.
    pub(crate) downs: u64,
    /// Where answers wait until views are in force.
    pub(crate) barriers: mpsc::Sender<Barrier>,
    /// Our overlay addresses, for whoever publishes addresses.
    pub(crate) addresses: OwnAddresses,
    /// What config and views amount to.
    pub(crate) mesh: Mesh,
    pub(crate) live: Timed<SessionId, Live>,
    pub(crate) context: Arc<LinkContext>,
    pub(crate) control: Arc<dyn PacketPlane>,
    /// What takes datagrams where UDP does not pass.
    pub(crate) carriers: Carriers,
    /// Where members come in by it.
    pub(crate) listening: Listening,
    pub(crate) host: HostSide,
    /// Names of the networks' members.
    pub(crate) dns: DnsSide,
    pub(crate) underlay: Underlay,
    /// MTU of the interface.
    pub(crate) inner_mtu: u16,
    /// What is wrong since the start and stays so.
    pub(crate) standing: Vec<HealthItem>,
    /// Events of the packet threads that found the queue full.
    pub(crate) overflow: Arc<Overflow>,
    pub(crate) refused: Refused,
    pub(crate) accepting: JoinHandle<()>,
    /// Where members see this node.
    pub(crate) reflexive: Reflexive,
    /// Asks the router to let our port through.
    pub(crate) portmap: Portmap,
    /// What came of it.
    pub(crate) mapped: Mapped,
    /// Port guessing.
    pub(crate) guessing: Guessing,
    pub(crate) rounds: Rounds,
    /// Finds nodes in the local network.
    pub(crate) lan: Lan,
    /// Links from nodes with our own identity: how many, and where the last one came from.
    pub(crate) twins: Option<(u64, SocketAddr)>,
    /// When a peer last gave a session of ours to another, as it seems, after it had done so before.
    pub(crate) taken_over: Option<Instant>,
    /// What is said of the DHT when it does not run.
    pub(crate) dht_off: Box<DhtReport>,
}

/// What came from peers and was not taken, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Refused {
    /// Incoming links refused or failed.
    links: u64,
    /// Candidates that were not tried.
    candidates: u64,
    /// Answers to probes that were not sent, or long ago.
    answers: u64,
}

/// A session in use or on its way out, and the link that feeds its ratchet.
pub(crate) struct Live {
    slot: PeerSlot,
    role: Role,
    aead: AeadId,
    inner_mtu: u16,
    /// `None`: it sleeps.
    link: Option<LiveLink>,
    sleep: Sleep,
    /// The handshake under way that is to wake it.
    waking: Option<Waking>,
    /// Where the link was made.
    remote: SocketAddr,
    established: Instant,
    rekeyed: Instant,
    handshake: Duration,
    continuity_lost: bool,
}

/// A handshake that is to wake a link.
pub(crate) struct Waking {
    at: SocketAddr,
    begun: Instant,
    wanted: Arc<Wanted>,
}

/// What of a session needs its link.
pub(crate) struct LiveLink {
    ratchet: Ratchet,
    connection: Arc<dyn Connection>,
    outbox: mpsc::Sender<Message>,
}

impl State {
    /// Runs until it is told to shut down or every handle is gone; or until the task of the networks fails, because who
    /// was put out would stay in if nobody said so any more.
    ///
    /// # Errors
    /// The networks' task panicked.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> Result<(), JoinError> {
        self.drive(clock::now());
        let mut udp_back = self.carriers.udp_back();
        loop {
            let deadline = self.deadline();
            let stop = crate::select! {
                command = inputs.commands.recv() => match command {
                    Some(Command::Shutdown(farewell, done)) => Some((farewell, Some(done))),
                    Some(command) => { self.on_command(clock::now(), command).await; None }
                    None => Some((Farewell::Final, None)),
                },
                Some(event) = inputs.packets.recv() => {
                    self.on_packet_event(clock::now(), event);
                    self.take_waiting(&mut inputs);
                    None
                }
                Some(event) = inputs.links.recv() => {
                    self.on_link_event(clock::now(), event);
                    self.take_waiting(&mut inputs);
                    None
                }
                Some(views) = inputs.views.recv() => { self.on_views(clock::now(), views).await; None }
                Some(barrier) = inputs.barriers.recv() => {
                    while let Ok(views) = inputs.views.try_recv() {
                        self.on_views(clock::now(), views).await;
                    }
                    let _nobody_waits = barrier.send(());
                    None
                }
                Some(news) = inputs.changes.recv() => { self.on_host_news(clock::now(), news); None }
                () = wait_until(self.host.due()) => { self.host.look_again(clock::now()).await; None }
                Ok(()) = udp_back.changed() => { self.on_udp_back(clock::now()); None }
                () = self.mapped.changed() => { self.on_mapping(clock::now()); None }
                ended = &mut inputs.driver => {
                    tracing::error!("the networks' task failed: the node stops");
                    self.stop(Farewell::Final).await;
                    return ended;
                }
                () = wait_until(deadline) => { self.on_timeout(clock::now()); None }
            };
            if let Some((farewell, done)) = stop {
                self.stop(farewell).await;
                if let Some(done) = done {
                    let _nobody_waits = done.send(());
                }
                return timeout(LET_GO, inputs.driver).await.unwrap_or(Ok(()));
            }
            self.drive(clock::now());
        }
    }

    /// Takes what else has come. To drive the machines means to ask every peer: where thousands of events come at once, once
    /// for many of them.
    fn take_waiting(&mut self, inputs: &mut Inputs) {
        for _ in 0..AT_ONCE {
            let (packet, link) = (inputs.packets.try_recv().ok(), inputs.links.try_recv().ok());
            if packet.is_none() && link.is_none() {
                return;
            }
            packet.into_iter().for_each(|event| self.on_packet_event(clock::now(), event));
            link.into_iter().for_each(|event| self.on_link_event(clock::now(), event));
        }
    }

    fn on_packet_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::NeedSession { peer } => {
                self.rounds.parks = true;
                self.want(now, peer);
            }
            Event::FirstPacket { session } => tracing::debug!(session = session.0, "first packet"),
            Event::EpochSeen { session, epoch } => self.on_epoch_seen(now, session, epoch),
            Event::StepWanted { session } => self.request_step(now, session),
            Event::SealRefused { session } | Event::ForgeryLimit { session } => self.replace_session(now, session),
            Event::Roamed { peer, from, to } => self.on_roamed(now, peer, from, to),
            Event::Heard { peer, from } => self.on_heard(now, peer, from),
            Event::ProbeAck { peer, id, from, at } => self.on_probe_ack(now, peer, id, from, at),
            Event::Ended { session, reason } => self.on_ended(now, session, reason),
            Event::LongInUse { peer } => self.on_long_in_use(now, peer),
            Event::TooLong { peer } => self.on_too_long(now, peer),
            Event::Failed { what, error } => self.on_failed(what, &error),
            other => tracing::debug!(?other, "unknown data-plane event"),
        }
    }

    fn on_timeout(&mut self, now: Instant) {
        self.look_at_clocks(now);
        if now.saturating_duration_since(self.rounds.held_at) >= HOLD_EVERY {
            self.rounds.held_at = now;
            self.hold_ways(now);
        }
        self.end_guess_in_time(now);
        let due = self.peers.timed().take_due(now);
        self.expire_pings(now, &due);
        if self.running == NodeState::Up {
            self.look_at(now, &due);
        }
        if now.saturating_duration_since(self.rounds.looked_at) >= LOOK_EVERY {
            self.look_at_peers(now);
        }
        for id in self.live.take_due(now) {
            self.step_ratchet(now, id);
            self.look_at_sleep(now, id);
        }
        self.let_go_of_replaced(now);
    }

    /// Does what the machines ask for, until they ask for nothing more. Only those that were touched are asked.
    fn drive(&mut self, now: Instant) {
        loop {
            let (slots, sessions) = (self.peers.timed().take_touched(), self.live.take_touched());
            if slots.is_empty() && sessions.is_empty() {
                return;
            }
            // Ratchets first: one that gives up leaves a dial to do.
            for &id in &sessions {
                self.drive_ratchet(now, id);
            }
            let (mut actions, mut on_paths) = (Vec::new(), Vec::new());
            for &slot in &slots {
                self.act_on_size(now, slot);
                let Some(peer) = self.peers.timed().peek_mut(&slot) else { continue };
                while let Some(action) = peer.paths.poll_action() {
                    on_paths.push((slot, action));
                }
                while let Some(action) = peer.life.poll_action() {
                    actions.push((slot, action));
                }
            }
            for (slot, action) in on_paths {
                self.act_on_path(now, slot, action);
            }
            for (slot, action) in actions {
                self.act(now, slot, action);
            }
            self.set_deadlines(now, &slots, &sessions);
        }
    }

    fn set_deadlines(&mut self, now: Instant, slots: &BTreeSet<PeerSlot>, sessions: &BTreeSet<SessionId>) {
        for &slot in slots {
            if let Some(peer) = self.peers.timed().peek_mut(&slot) {
                peer.take_back_links();
            }
            let due = self.peers.get(slot).and_then(|peer| peer.poll_timeout(now, self.running == NodeState::Up));
            self.peers.timed().set_due(slot, due);
        }
        for &id in sessions {
            let due = self.live.get(&id).map(|live| {
                let step = live.link.as_ref().and_then(|link| link.ratchet.poll_timeout());
                let sleep = live.sleep.poll_timeout(now, self.seen_of(live));
                step.map_or(sleep, |step| step.min(sleep))
            });
            self.live.set_due(id, due);
        }
    }

    /// Asks the data plane what it saw of each peer, and lets those do what is due that it saw something new of.
    fn look_at_peers(&mut self, now: Instant) {
        self.rounds.looked_at = now;
        self.overflow.take().into_iter().for_each(|event| self.on_packet_event(now, event));
        let control = &self.control;
        let up = self.peers.timed().peek_all().filter(|peer| !peer.sessions.is_empty());
        let awake = up.filter(|peer| activity(&control.peer_stats(peer.slot)) != peer.seen || !peer.rests(now));
        let awake: Vec<PeerSlot> = awake.map(|peer| peer.slot).collect();
        if self.running == NodeState::Up {
            self.look_at(now, &awake);
        }
        // Those whose links are up and whose keys are old step although nothing was seen of them.
        let old = |live: &Live| live.link.is_some() && now.saturating_duration_since(live.rekeyed) >= RENEW_AT_LEAST;
        let old: Vec<SessionId> = self.live.iter().filter(|(_, live)| old(live)).map(|(id, _)| id).collect();
        old.into_iter().for_each(|id| self.step_ratchet(now, id));
        self.control.retire_keys();
        if self.rounds.parks {
            self.rounds.parks = self.control.expire_parked();
        }
        self.give_back(now);
        self.tell_discovery();
    }

    /// Lets these peers look at the clock and at what the data plane saw.
    fn look_at(&mut self, now: Instant, awake: &[PeerSlot]) {
        self.follow_paths(now, awake);
        for &slot in awake {
            let stats = self.control.peer_stats(slot);
            let Some(peer) = self.peers.get_mut(slot) else { continue };
            peer.seen = activity(&stats);
            peer.life.handle_timeout(now, peer.seen);
            if peer.life.is_suspicious() {
                peer.paths.on_suspect(now);
            }
            debug_assert!(!peer.sessions.is_empty() || peer.paths.is_gone(), "nobody is asked after without a session");
            peer.paths.handle_timeout(now);
            peer.mtu.handle_timeout(now);
            peer.quality.on_bytes(now, [stats.tx_bytes, stats.rx_bytes]);
            for id in peer.sessions.clone() {
                self.step_ratchet(now, id);
            }
        }
        for (slot, path) in self.paths_in_use(awake) {
            self.search_size(now, slot, path, false);
            if let Some((from, at)) = self.control.path_heard(slot)
                && let Some(peer) = self.peers.get_mut(slot)
            {
                peer.mtu.on_heard(now, from, at);
            }
        }
    }

    /// Makes up for moves whose events were lost. Before the machines choose anything: the data plane does not know of it yet.
    fn follow_paths(&mut self, now: Instant, awake: &[PeerSlot]) {
        for (slot, path) in self.paths_in_use(awake) {
            let from = self.peers.get_mut(slot).and_then(|peer| peer.paths.on_seen(now, path));
            if let Some(from) = from {
                self.on_roamed(now, slot, from, path);
            }
        }
    }

    fn paths_in_use(&self, of: &[PeerSlot]) -> Vec<(PeerSlot, SocketAddr)> {
        let of = of.iter().filter_map(|slot| self.peers.get(*slot));
        let up = of.filter(|peer| !peer.sessions.is_empty());
        up.filter_map(|peer| Some((peer.slot, self.control.path(peer.slot)?))).collect()
    }

    fn act(&mut self, now: Instant, slot: PeerSlot, action: Action) {
        match action {
            Action::Dial => self.dial(slot),
            Action::Probe(id) => {
                if let Err(error) = self.control.send_probe(slot, id) {
                    tracing::debug!(%error, peer = %self.peers.label(slot), "probe not sent");
                }
            }
            Action::CloseIdle => self.close_peer(slot, pqvpn_wire::control::CloseReason::Idle),
            Action::Dead => self.on_dead(now, slot),
        }
    }

    fn dial(&mut self, slot: PeerSlot) {
        let Some(peer) = self.peers.get(slot) else { return };
        let mut endpoints = peer.endpoints.clone();
        // Where the peer was last seen is a candidate too: it may have called us from there.
        endpoints
            .extend(peer.last_remote.map(|remote| remote.to_string()).filter(|last| !peer.endpoints.contains(last)));
        tracing::debug!(peer = %peer.label(), ?endpoints, "dialing");
        spawn(session::dial(Arc::clone(&self.context), peer.slot, peer.id, endpoints));
    }

    fn deadline(&self) -> Option<Instant> {
        let rounds = &self.rounds;
        let asked = rounds.gone.is_any() || rounds.untold.is_any() || rounds.parks || self.overflow.is_any();
        let looks = asked || !self.live.is_empty();
        let look = looks.then(|| self.rounds.looked_at + LOOK_EVERY);
        let leaving = self.rounds.leaving.next();
        let all = [self.peers.next_due(), self.live.next_due(), look, leaving, self.guessing.deadline()];
        all.into_iter().flatten().min()
    }
}

/// What a peer's life depends on of what the data plane counts.
fn activity(stats: &PeerStats) -> Activity {
    Activity {
        last_rx: stats.last_rx,
        last_tx: stats.last_tx,
        last_data_rx: stats.last_data_rx,
        last_data_tx: stats.last_data_tx,
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}
