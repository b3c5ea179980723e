// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pings in the state task: waiting for a session, then for their probe.

use std::time::{Duration, Instant};

use pqvpn_dataplane::PeerSlot;
use tokio::sync::oneshot;

use super::{State, command::send, peer::Ping};
use crate::{
    dht::Order,
    handle::{NodeError, PeerRef, PingReply},
    snapshot::NodeState,
};

/// Pings that may wait for one peer.
const MAX_PINGS: usize = 64;

impl State {
    pub(super) fn ping(
        &mut self,
        now: Instant,
        peer: &PeerRef,
        waited: Duration,
        answer: oneshot::Sender<Result<PingReply, NodeError>>,
    ) {
        if self.running != NodeState::Up {
            return send(answer, Err(NodeError::Down));
        }
        let slot = match self.peers.find(peer) {
            Ok(slot) => slot,
            Err(error) => return send(answer, Err(error)),
        };
        let Some(peer) = self.peers.get_mut(slot) else { return };
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
        self.probe_for_pings(now, slot);
    }

    /// Gives every waiting ping its probe, once there is a session to send it through.
    pub(super) fn probe_for_pings(&mut self, now: Instant, slot: PeerSlot) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        if peer.life.is_up() {
            for ping in peer.pings.iter_mut().filter(|ping| ping.probe.is_none()) {
                ping.probe = Some(peer.life.probe(now));
            }
        }
    }

    /// Ends the pings of these peers that waited for long enough.
    pub(super) fn expire_pings(&mut self, now: Instant, slots: &[PeerSlot]) {
        for &slot in slots {
            let Some(peer) = self.peers.get_mut(slot) else { continue };
            if peer.pings.iter().all(|ping| ping.deadline > now) {
                continue;
            }
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
    pub(super) fn fail_pings(&mut self, slot: PeerSlot, why: &str) {
        let Some(peer) = self.peers.get_mut(slot) else { return };
        let label = peer.label();
        for ping in peer.pings.drain(..) {
            send(ping.answer, Err(NodeError::Refused { peer: label.clone(), why: why.to_owned() }));
        }
    }
}
