// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands in the state task.

use std::time::{Duration, Instant};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::control::CloseReason;
use tokio::sync::oneshot;

use super::{
    State,
    peer::{self, Ping},
};
use crate::{
    dht::{
        Order, Wanted,
        report::{DhtError, DhtReport, LookupTarget, RecordRef},
    },
    handle::{Command, DhtCommand, NodeError, PeerRef, PingReply, SetOutcome},
    snapshot::NodeState,
};

/// How long closed links may take to tell their peers at shutdown.
const DRAIN: Duration = Duration::from_millis(300);
/// Pings that may wait for one peer.
const MAX_PINGS: usize = 64;

impl State {
    pub(super) async fn on_command(&mut self, now: Instant, command: Command) {
        match command {
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
            Command::Disconnect(peer, answer) => send(answer, self.disconnect(now, &peer)),
            Command::Set(key, value, answer) => send(answer, Self::set(&key, &value)),
            Command::Dht(command) => self.dht(command),
            // The run loop has taken this one already.
            Command::Shutdown(done) => send(done, ()),
        }
    }

    async fn up(&mut self, now: Instant) -> Result<(), NodeError> {
        for peer in &mut self.peers {
            peer.lift_quarantine();
        }
        self.context.door.lift_quarantines();
        if self.running == NodeState::Up {
            return Ok(());
        }
        self.host.apply().await.map_err(|error| NodeError::Host(error.to_string()))?;
        self.control.pause(false);
        self.context.door.set_down(false);
        self.pause_dht(false);
        self.running = NodeState::Up;
        for slot in 0..self.peers.len() {
            let activity = self.activity(slot);
            self.peers[slot].life.handle_timeout(now, activity);
        }
        tracing::info!("up");
        Ok(())
    }

    async fn down(&mut self) -> Result<(), NodeError> {
        if self.running == NodeState::Down {
            return Ok(());
        }
        self.running = NodeState::Down;
        self.context.door.set_down(true);
        self.pause_dht(true);
        self.control.pause(true);
        self.close_all(CloseReason::Shutdown);
        self.host.undo().await.map_err(|error| NodeError::Host(error.to_string()))?;
        tracing::info!("down");
        Ok(())
    }

    /// Ends everything and leaves the host as it was.
    pub(super) async fn stop(mut self) {
        self.context.door.set_down(true);
        self.close_all(CloseReason::Shutdown);
        let Self { context, mut host, underlay, accepting, lan, .. } = self;
        if let Some(lan) = lan {
            lan.abort();
        }
        if let Some(dht) = &context.dht {
            dht.stop().await;
        }
        context.endpoint.close();
        let _peers_may_be_gone = tokio::time::timeout(DRAIN, context.endpoint.drained()).await;
        accepting.abort();
        let _aborted = accepting.await;
        // QUIC lets go of its socket before the packet threads close it.
        drop(context);
        if let Err(error) = host.undo().await {
            tracing::warn!(%error, "the host was not wholly restored; the next start tries again");
        }
        underlay.shut_down().await;
        tracing::info!("stopped");
    }

    fn close_all(&mut self, reason: CloseReason) {
        for slot in 0..self.peers.len() {
            self.close_peer(slot, reason);
            self.fail_pings(slot, reason.as_str());
            self.peers[slot].life.stop();
        }
    }

    fn ping(
        &mut self,
        now: Instant,
        peer: &PeerRef,
        waited: Duration,
        answer: oneshot::Sender<Result<PingReply, NodeError>>,
    ) {
        if self.running != NodeState::Up {
            return send(answer, Err(NodeError::Down));
        }
        let slot = match peer::find(&self.peers, peer) {
            Ok(slot) => slot,
            Err(error) => return send(answer, Err(error)),
        };
        let peer = &mut self.peers[slot as usize];
        if peer.quarantined {
            let why = "its ratchet failed twice within a day; `pqvpn up` lifts the quarantine".to_owned();
            return send(answer, Err(NodeError::Refused { peer: peer.label(), why }));
        }
        if peer.pings.len() >= MAX_PINGS {
            let why = "too many pings wait for it already".to_owned();
            return send(answer, Err(NodeError::NoAnswer { peer: peer.label(), waited: Duration::ZERO, why }));
        }
        peer.pings.push(Ping { answer, deadline: now + waited, waited, probe: None });
        if let Some(dht) = &self.context.dht {
            // A person does not wait for the pause after a search that found nothing.
            dht.order(Order::Retry(peer.id));
        }
        peer.life.ask(now);
        self.probe_for_pings(now, slot as usize);
    }

    /// Gives every waiting ping its probe, once there is a session to send it through.
    pub(super) fn probe_for_pings(&mut self, now: Instant, slot: usize) {
        let peer = &mut self.peers[slot];
        if peer.life.is_up() {
            for ping in peer.pings.iter_mut().filter(|ping| ping.probe.is_none()) {
                ping.probe = Some(peer.life.probe(now));
            }
        }
    }

    pub(super) fn expire_pings(&mut self, now: Instant) {
        for peer in &mut self.peers {
            let why = peer.last_error.clone().unwrap_or_else(|| match peer.life.is_up() {
                true => "the session is up, but the probe did not come back".to_owned(),
                false => "no session could be made yet".to_owned(),
            });
            let label = peer.label();
            for ping in peer.pings.extract_if(.., |ping| ping.deadline <= now) {
                let error = NodeError::NoAnswer { peer: label.clone(), waited: ping.waited, why: why.clone() };
                send(ping.answer, Err(error));
            }
        }
    }

    /// Ends the pings that wait for a session there will not be.
    pub(super) fn fail_pings(&mut self, slot: usize, why: &str) {
        let peer = &mut self.peers[slot];
        let label = peer.label();
        for ping in peer.pings.drain(..) {
            send(ping.answer, Err(NodeError::Refused { peer: label.clone(), why: why.to_owned() }));
        }
    }

    fn rekey(&mut self, now: Instant, peer: &PeerRef) -> Result<(), NodeError> {
        let slot = peer::find(&self.peers, peer)? as usize;
        let newest = self.peers[slot].sessions.last().copied();
        let session = newest.ok_or_else(|| NodeError::NoSession(self.peers[slot].label()))?;
        self.request_step(now, session);
        Ok(())
    }

    fn disconnect(&mut self, now: Instant, peer: &PeerRef) -> Result<(), NodeError> {
        let slot = peer::find(&self.peers, peer)? as usize;
        if self.peers[slot].sessions.is_empty() {
            return Err(NodeError::NoSession(self.peers[slot].label()));
        }
        self.close_peer(slot, CloseReason::Replaced);
        self.peers[slot].life.on_session_gone(now);
        Ok(())
    }

    fn pause_dht(&self, pause: bool) {
        if let Some(dht) = &self.context.dht
            && !dht.order(Order::Pause(pause))
        {
            tracing::warn!(pause, "the DHT is too busy to be told");
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

    /// A configured peer by any of its names, or anybody by whole PeerID.
    fn anybody(&self, peer: &PeerRef) -> Result<PeerId, NodeError> {
        if let Ok(id) = peer.0.to_ascii_lowercase().parse() {
            return Ok(id);
        }
        peer::find(&self.peers, peer).map(|slot| self.peers[slot as usize].id)
    }

    /// Every other setting is read at the start; the file has been written by the caller.
    fn set(_key: &str, _value: &str) -> Result<SetOutcome, NodeError> {
        Ok(SetOutcome::AfterRestart)
    }
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
    }
}

/// Whoever asked may have gone meanwhile.
fn send<T>(answer: oneshot::Sender<T>, value: T) {
    let _nobody_waits = answer.send(value);
}
