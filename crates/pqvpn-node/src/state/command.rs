// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands in the state task.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::control::CloseReason;
use tokio::sync::oneshot;

use super::{State, peer::Peer};
use crate::{
    config::Config,
    dht::{
        Order, Wanted,
        report::{DhtError, DhtReport, LookupTarget, RecordRef},
    },
    handle::{Command, DhtCommand, Farewell, NodeError, PeerRef, SetOutcome},
    membership::{self, RelayReport},
    node,
    snapshot::NodeState,
};

/// How long closed links may take to tell their peers at shutdown.
const DRAIN: Duration = Duration::from_millis(300);

impl State {
    pub(super) async fn on_command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Alive(answer) => send(answer, ()),
            Command::Snapshot(answer) => send(answer, self.snapshot(now)),
            Command::Up(answer) => {
                let outcome = self.up(now).await;
                send(answer, outcome);
            }
            Command::Down(answer) => {
                let outcome = self.down().await;
                send(answer, outcome);
            }
            Command::Ping(peer, timeout, answer) => self.ping(now, &peer, timeout, answer),
            Command::Rekey(peer, answer) => send(answer, self.rekey(now, &peer)),
            #[cfg(test)]
            Command::SayEnd(peer, code, answer) => {
                let peer = self.peers.find(&peer).ok().and_then(|slot| self.peers.get(slot));
                for &id in peer.map(|peer| &peer.sessions).into_iter().flatten() {
                    self.control.send_end(id, code).expect("a session is there");
                }
                send(answer, ());
            }
            #[cfg(test)]
            Command::Sleep(answer) => {
                self.clocks = self.clocks.before_a_night();
                self.context.door.set_clocks(self.clocks);
                send(answer, ());
            }
            Command::Disconnect(peer, answer) => send(answer, self.disconnect(now, &peer)),
            Command::Set(key, value, answer) => send(answer, self.set(&key, &value).await),
            Command::Dht(command) => self.dht(command),
            Command::Network(command) => self.network(command),
            Command::Relaying(answer) => {
                let context = Arc::clone(&self.context);
                let (listen, visitors) = (self.listening.at(), self.listening.counts());
                tokio::spawn(async move {
                    let report = context.networks.relaying().await;
                    send(answer, report.map(|report| RelayReport { listen, visitors, ..report }));
                });
            }
            Command::NetCheck(answer) => self.netcheck(now, answer),
            Command::Dns(answer) => send(answer, self.dns.report()),
            // Whoever is started without a supervisor has no keystore either.
            Command::RotateKeys(_, answer) => send(answer, Err(membership::RotationError::NotKept.into())),
            // The run loop has taken this one already.
            Command::Shutdown(_, done) => send(done, ()),
        }
    }

    async fn up(&mut self, now: Instant) -> Result<(), NodeError> {
        self.peers.iter_mut().for_each(Peer::lift_quarantine);
        self.context.door.lift_quarantines();
        if self.running == NodeState::Up {
            return Ok(());
        }
        self.forget_who_is_ready(now);
        self.host.plan(&self.mesh);
        if let Err(error) = self.host.apply().await {
            // Who is not up keeps nobody's addresses closed.
            if let Err(error) = self.host.undo().await {
                tracing::warn!(%error, "not all was taken back; the next up or down tries again");
            }
            return Err(NodeError::Host(error.to_string()));
        }
        self.dns.follow(&self.views, &self.mesh, self.own).await;
        self.control.pause(false);
        self.context.door.set_down(false);
        self.portmap.want(true);
        self.listening.change(&self.carriers, self.own, node::listens(&self.config.relay)).await;
        self.running = NodeState::Up;
        self.pause_discovery();
        self.look_at_peers(now);
        tracing::info!("up");
        Ok(())
    }

    async fn down(&mut self) -> Result<(), NodeError> {
        if self.running == NodeState::Down && !self.host.is_left() {
            return Ok(());
        }
        self.rest().await;
        self.close_all(CloseReason::Shutdown);
        self.dns.undo().await;
        self.host.undo().await.map_err(|error| NodeError::Host(error.to_string()))?;
        tracing::info!("down");
        Ok(())
    }

    /// Takes part in nothing from now on.
    pub(super) async fn rest(&mut self) {
        self.running = NodeState::Down;
        self.downs += 1;
        self.context.door.set_down(true);
        self.context.end_unkept();
        self.portmap.want(false);
        std::mem::take(&mut self.listening).close().await;
        self.pause_discovery();
        self.control.pause(true);
    }

    /// Ends everything and leaves the host as it was, but for what the farewell says.
    pub(crate) async fn stop(mut self, farewell: Farewell) {
        self.context.door.set_down(true);
        self.close_all(CloseReason::Shutdown);
        let Self { context, carriers, listening, mut host, mut dns, underlay, accepting, lan, portmap, .. } = self;
        drop(lan);
        listening.close().await;
        dns.undo().await;
        tokio::join!(context.networks.stop(), portmap.stop());
        if let Some(dht) = &context.dht {
            dht.stop().await;
        }
        context.endpoint.close();
        let _peers_may_be_gone = tokio::time::timeout(DRAIN, context.endpoint.drained()).await;
        accepting.abort();
        let _aborted = accepting.await;
        // QUIC lets go of its socket before the packet threads close it.
        carriers.stop();
        drop(carriers);
        drop(context);
        let undone = match farewell {
            Farewell::Final => host.undo().await,
            Farewell::Restart => host.close().await,
        };
        if let Err(error) = undone {
            tracing::warn!(%error, "the host was not wholly restored; the next start tries again");
        }
        underlay.shut_down().await;
        tracing::info!("stopped");
    }

    fn close_all(&mut self, reason: CloseReason) {
        for slot in self.peers.slots() {
            self.close_peer(slot, reason);
            self.fail_pings(slot, reason.as_str());
        }
        self.peers.iter_mut().for_each(|peer| peer.life.stop());
    }

    fn rekey(&mut self, now: Instant, peer: &PeerRef) -> Result<(), NodeError> {
        let slot = self.peers.find(peer)?;
        let newest = self.peers.get(slot).and_then(|peer| peer.sessions.last().copied());
        let session = newest.ok_or_else(|| NodeError::NoSession(self.peers.label(slot)))?;
        self.request_step(now, session);
        Ok(())
    }

    fn disconnect(&mut self, now: Instant, peer: &PeerRef) -> Result<(), NodeError> {
        let slot = self.peers.find(peer)?;
        if self.peers.get(slot).is_none_or(|peer| peer.sessions.is_empty()) {
            return Err(NodeError::NoSession(self.peers.label(slot)));
        }
        self.close_peer(slot, CloseReason::Replaced);
        if let Some(peer) = self.peers.get_mut(slot) {
            peer.life.on_session_gone(now);
        }
        Ok(())
    }

    fn pause_discovery(&mut self) {
        (self.rounds.untold.networks, self.rounds.untold.dht) = (true, self.context.dht.is_some());
        self.tell_discovery();
    }

    /// Tells who was too busy to be told that the node rests, or no longer does, or who was put out.
    pub(super) fn tell_discovery(&mut self) {
        let pause = self.running == NodeState::Down;
        if self.rounds.untold.networks {
            let order = if pause { membership::Order::Pause } else { membership::Order::Resume(self.downs) };
            self.rounds.untold.networks = !self.context.networks.order(order);
        }
        let networks = &self.context.networks;
        self.rounds.untold.tell_put_out(|peer, at| networks.order(membership::Order::HadSession(peer, at)));
        if let Some(dht) = self.context.dht.as_ref().filter(|_| self.rounds.untold.dht) {
            self.rounds.untold.dht = !dht.order(Order::Pause(pause));
        }
        if self.rounds.untold.is_any() {
            tracing::debug!(pause, "the networks or the DHT are too busy to be told");
        }
    }

    /// Passes a command on to the DHT, names resolved.
    fn dht(&self, command: DhtCommand) {
        let Some(dht) = &self.context.dht else { return off(command, &self.dht_off) };
        let order = match command {
            DhtCommand::Status(answer) => Order::Status(answer),
            DhtCommand::Table(answer) => Order::Table(answer),
            DhtCommand::Doors(answer) => Order::Doors(answer),
            DhtCommand::AddDoors(doors, answer) => Order::AddDoors(doors, answer),
            DhtCommand::RemoveDoors(doors, answer) => Order::RemoveDoors(doors, answer),
            DhtCommand::Put(name, value, answer) => Order::Put(name, value, answer),
            DhtCommand::Get(what, answer) => match self.wanted(what) {
                Ok(wanted) => Order::Get(wanted, answer),
                Err(error) => return send(answer, Err(error)),
            },
            DhtCommand::Lookup(target, answer) => match self.target(target) {
                Ok(wanted) => Order::Lookup(wanted, answer),
                Err(error) => return send(answer, Err(error)),
            },
        };
        // With no room the answer is dropped, and whoever asked is told that the node has stopped: so is the DHT, nearly.
        dht.order(order);
    }

    fn wanted(&self, what: RecordRef) -> Result<Wanted, NodeError> {
        Ok(match what {
            RecordRef::Peer(peer) => Wanted::Peer(self.anybody(&peer)?),
            RecordRef::Value { owner: None, name } => Wanted::Value(self.own, name),
            RecordRef::Value { owner: Some(owner), name } => Wanted::Value(self.anybody(&owner)?, name),
            RecordRef::Key(key) => Wanted::Key(key),
        })
    }

    fn target(&self, target: LookupTarget) -> Result<Wanted, NodeError> {
        Ok(match target {
            LookupTarget::Point(point) => Wanted::Key(point),
            LookupTarget::Peer(peer) => Wanted::Peer(self.anybody(&peer)?),
        })
    }

    /// A peer by any of its names, or anybody by whole PeerID.
    fn anybody(&self, peer: &PeerRef) -> Result<PeerId, NodeError> {
        if let Ok(id) = peer.0.to_ascii_lowercase().parse() {
            return Ok(id);
        }
        let slot = self.peers.find(peer)?;
        self.peers.get(slot).map(|peer| peer.id).ok_or_else(|| NodeError::UnknownPeer(peer.0.clone()))
    }

    /// Every other setting is read at the start; the file has been written by the caller.
    async fn set(&mut self, key: &str, value: &str) -> Result<SetOutcome, NodeError> {
        if !set_live(&mut self.config, key, value)? {
            return Ok(SetOutcome::AfterRestart);
        }
        if key == "relay.enabled" && self.running == NodeState::Up {
            self.listening.change(&self.carriers, self.own, node::listens(&self.config.relay)).await;
        }
        let told = self.context.networks.order(membership::Order::Willing(node::willing(&self.config.relay)));
        Ok(if told { SetOutcome::Applied } else { SetOutcome::AfterRestart })
    }
}

/// Changes a setting that a running node follows; `false`: it is none of those.
pub(crate) fn set_live(config: &mut Config, key: &str, value: &str) -> Result<bool, NodeError> {
    let relay = &mut config.relay;
    let wrong = |expected: &str| NodeError::BadSetting(format!("{key}: {expected}, found {value:?}"));
    match key {
        "relay.enabled" => relay.enabled = value.parse().map_err(|_| wrong("expected true or false"))?,
        "relay.limit" if value.is_empty() => relay.limit = None,
        "relay.limit" => relay.limit = Some(value.parse().map_err(NodeError::BadSetting)?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Answers for a DHT that does not run.
fn off(command: DhtCommand, report: &DhtReport) {
    let error = || NodeError::Dht(DhtError::Off);
    match command {
        DhtCommand::Status(answer) => send(answer, report.clone()),
        DhtCommand::Get(_, answer) => send(answer, Err(error())),
        DhtCommand::Put(_, _, answer) => send(answer, Err(error())),
        DhtCommand::Lookup(_, answer) => send(answer, Err(error())),
        DhtCommand::Table(answer) => send(answer, Err(error())),
        DhtCommand::Doors(answer) => send(answer, Err(error())),
        DhtCommand::AddDoors(_, answer) => send(answer, Err(error())),
        DhtCommand::RemoveDoors(_, answer) => send(answer, Err(error())),
    }
}

/// Whoever asked may have gone meanwhile.
pub(super) fn send<T>(answer: oneshot::Sender<T>, value: T) {
    let _nobody_waits = answer.send(value);
}
