// SPDX-License-Identifier: MIT OR Apache-2.0
//! This node's key is rotated in all its networks at once; and those that have not heard of a rotation meet each other.
//!
//! Whoever dials a member that knows it by an earlier key shows the rotations in between. Whoever dials a member and finds
//! somebody else in its place asks that one to do so, and says nothing of networks meanwhile.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::{
    control::CloseReason,
    network::{MAX_LINE, NetRequest, NetResponse, NetworkId, Statement, SyncState},
};
use tokio::{sync::oneshot, time::timeout};

use super::{
    super::{
        event::Rotating,
        links::LinkId,
        network::{Lacks, Moment},
        report::RotatedNetwork,
        rotation::{Decided, RotationError, decide},
    },
    Call, Driver, TaskDone,
    dialing::DIAL_LIMIT,
    gossip::CALL_LIMIT,
    orders::HEARD,
};
use crate::{clock, dht, link::Connection};

/// In place of a network's id where none is said: who asks does not know yet whom it asks.
pub(super) const NOT_SAID: NetworkId = NetworkId::from_bytes([0; 32]);
/// The same member is shown our earlier keys at most so often.
const INTRODUCE_AGAIN: Duration = Duration::from_secs(2);
/// Whoever answers at one address in a member's place is asked at most so often.
const GREET_AGAIN: Duration = Duration::from_secs(10);
/// Addresses remembered as asked.
const MAX_GREETED: usize = 256;

/// A rotation that is decided and that members are being told of.
pub(super) struct UnderWay {
    left: usize,
    reports: Vec<RotatedNetwork>,
    reply: oneshot::Sender<Result<Vec<RotatedNetwork>, RotationError>>,
}

impl Driver {
    // ---- our own key ----------------------------------------------------------------------------------------------

    /// Signs every membership over to the next identity and writes that down, all or nothing; then tells members.
    pub(super) async fn rotate(&mut self, rotating: Rotating) {
        let Rotating { next, file, reply } = rotating;
        if self.retired {
            return drop(reply.send(Err(RotationError::Busy)));
        }
        // It would keep the key before, which is erased one day.
        if let Some(why) = self.unread.values().next() {
            return drop(reply.send(Err(RotationError::Unread(why.clone()))));
        }
        // What waits otherwise is not part of it.
        if !self.save().await
            && let Some(refusing) = &self.refusing
        {
            return drop(reply.send(Err(RotationError::Store(refusing.why.clone()))));
        }
        let (identity, now) = (Arc::clone(&self.shared.identity), Moment::now());
        let decided = decide(&mut self.networks, &self.store, (&identity, &next), (file, now.unix_ms)).await;
        match decided {
            Ok(Decided { told, fact }) => {
                tracing::info!(old = %self.shared.own.short(), new = %next.peer_id().short(), "the key is rotated");
                self.retired = true;
                if let Some(dht) = &self.dht {
                    let _said_again_after_the_start = dht.order(dht::Order::Announce(Arc::new(fact)));
                }
                self.tell_rotation(told, reply);
            }
            Err(error) => {
                if matches!(error, RotationError::Store(_) | RotationError::Undecided) {
                    self.refuse(error.to_string());
                }
                drop(reply.send(Err(error)));
            }
        }
    }

    fn tell_rotation(
        &mut self,
        told: Vec<(NetworkId, RotatedNetwork)>,
        reply: oneshot::Sender<Result<Vec<RotatedNetwork>, RotationError>>,
    ) {
        self.rotation = Some(UnderWay { left: told.len() + 1, reports: Vec::new(), reply });
        for (id, report) in told {
            self.push_and_wait(id, HEARD, move |driver, told| {
                driver.rotation_told(Some(RotatedNetwork { told, ..report }));
            });
        }
        self.rotation_told(None);
    }

    fn rotation_told(&mut self, report: Option<RotatedNetwork>) {
        let Some(mut under_way) = self.rotation.take() else { return };
        under_way.left -= 1;
        under_way.reports.extend(report);
        if under_way.left == 0 {
            under_way.reports.sort_by(|a, b| a.network.cmp(&b.network));
            return drop(under_way.reply.send(Ok(under_way.reports)));
        }
        self.rotation = Some(under_way);
    }

    // ---- members that know us by an earlier key -------------------------------------------------------------------

    /// Shows a member which keys we had before, if we had any.
    pub(super) fn introduce(&mut self, now: Instant, id: NetworkId, peer: PeerId, link: LinkId) {
        let Some(network) = self.networks.get(&id) else { return };
        let line = network.own_line();
        self.introduced.retain(|_, at| now < *at + INTRODUCE_AGAIN);
        if line.is_empty() || self.introduced.contains_key(&(id, peer)) {
            return;
        }
        self.introduced.insert((id, peer), now);
        self.call(id, link, NetRequest::Introduce { line }, Call::Introduce, CALL_LIMIT);
    }

    /// Somebody met us where it expected somebody else. If it is a member, it may have meant us.
    pub(super) fn introduce_everywhere(&mut self, now: Moment, peer: PeerId, link: LinkId) {
        for id in self.shared_networks(now.unix_ms, &peer) {
            self.introduce(now.mono, id, peer, link);
        }
    }

    // ---- members that we know by an earlier key -------------------------------------------------------------------

    /// Somebody says that it is a member under another key. If the rotations hold it is asked for what we missed; what
    /// it is then is for the statements to say.
    pub(super) fn on_introduced(
        &mut self,
        now: Moment,
        id: NetworkId,
        from: PeerId,
        link: LinkId,
        line: &[Arc<Statement>],
    ) -> NetResponse {
        let network = self.networks.get_mut(&id).filter(|network| network.is_enabled(now.unix_ms));
        let Some(network) = network else { return NetResponse::UnknownNetwork };
        if network.is_member(now.unix_ms, &from) {
            return NetResponse::Done;
        }
        let may = line.len() <= MAX_LINE
            && network.could_lead_to(now.unix_ms, &from, line)
            // Each costs up to eight signature checks. Who brings bad ones uses up its own, not those of others.
            && network.introductions.take(now.mono, &from)
            && network.leads_to(now.unix_ms, &from, line);
        if !may {
            network.counters.bad_introductions += 1;
            return NetResponse::UnknownNetwork;
        }
        tracing::info!(peer = %from.short(), network = %network.head.name, "a member shows another key");
        let lacks = Lacks { statements: true, records: true, ..Lacks::default() };
        self.pull(id, from, link, SyncState::default(), lacks);
        NetResponse::Done
    }

    /// Somebody else answered where a member was expected: it may be that member under another key.
    pub(super) fn ask_stranger(&mut self, now: Instant, at: SocketAddr) {
        self.greeted.retain(|_, asked| now < *asked + GREET_AGAIN);
        if self.greeted.contains_key(&at) || self.greeted.len() >= MAX_GREETED {
            return;
        }
        self.greeted.insert(at, now);
        let dialed = self.shared.endpoint.connect_anybody(at);
        self.tasks.spawn(async move {
            let link = match timeout(DIAL_LIMIT, dialed).await {
                Ok(Ok(link)) => Ok(Arc::from(link)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_elapsed) => Err("no answer in time".to_owned()),
            };
            TaskDone::Stranger { link }
        });
    }

    pub(super) fn on_stranger(&mut self, link: Result<Arc<dyn Connection>, String>) {
        let connection = match link {
            Ok(connection) => connection,
            Err(why) => return tracing::debug!(%why, "whoever is in a member's place is not reached"),
        };
        if self.paused || connection.peer() == self.shared.own {
            return connection.close(CloseReason::Idle.code(), CloseReason::Idle.as_str());
        }
        tracing::debug!(peer = %connection.peer().short(), "asked who is in a member's place");
        let Some(link) = self.adopt_dialed(connection) else { return };
        // It closes when it has rested. Should it be a member it comes into use.
        if let Some(link) = self.links.get_mut(link) {
            link.speak_at = clock::now() + GREET_AGAIN;
        }
        self.call(NOT_SAID, link, NetRequest::Ping, Call::Greet, CALL_LIMIT);
    }
}
