// SPDX-License-Identifier: MIT OR Apache-2.0
//! The task that owns the DHT: messages, proofs, timers and orders come in one at a time; nothing of it is shared.

mod facts;
mod orders;
mod queries;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::pending,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::{Dht, LookupId, Notice, Now, Output, address::Realm};
use pqvpn_wire::{
    control::CloseReason,
    dht::{Point, Response},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep_until,
};

use super::{
    doors::Doors,
    event::{Event, Incoming, Order},
    files::Files,
    links::{DhtLink, LinkId, Links},
    observed::Observed,
    places::Places,
    position::Position,
    records::OwnRecords,
    report::{DhtState, EclipseReport, NewDoor},
    rpc::{Asked, Shared},
    usage::Usage,
    work::Work,
};
use crate::{clock, config::DhtMode, link::Connection, overlay::OwnAddresses, snapshot::HealthItem};
use orders::Waiter;
use pqvpn_dht::limit::DialLimiter;
use queries::{Dialing, Target, TaskDone, Waiting};
use upkeep::Upkeep;

pub(super) use upkeep::remembered_door;

/// What the driver is made of at its start.
pub(super) struct Parts {
    pub(super) dht: Dht,
    pub(super) clock: clock::Origin,
    pub(super) shared: Arc<Shared>,
    pub(super) places: Arc<Places>,
    pub(super) files: Files,
    pub(super) doors: Doors,
    pub(super) position: Position,
    pub(super) records: OwnRecords,
    pub(super) work: Work,
    pub(super) mode: DhtMode,
    pub(super) realm: Realm,
    pub(super) difficulty: u32,
    pub(super) listen: Vec<SocketAddr>,
    pub(super) overlay: OwnAddresses,
    pub(super) standing: Vec<HealthItem>,
    /// Whose rotations the node wants to know of.
    pub(super) watched: BTreeSet<PeerId>,
    /// As whom those go on who rotated their key.
    pub(super) successors: Arc<Mutex<BTreeMap<PeerId, PeerId>>>,
}

/// What feeds the driver.
pub(super) struct Inputs {
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) found: mpsc::Receiver<NewDoor>,
}

/// The DHT of a running node.
pub(super) struct Driver {
    parts: Parts,
    links: Links,
    tasks: JoinSet<TaskDone>,
    dialing: BTreeMap<Target, Dialing>,
    /// Queries that wait for another dial to end.
    backlog: VecDeque<Waiting>,
    dial_limiter: DialLimiter,
    waiters: BTreeMap<LookupId, Waiter>,
    /// Peers looked for, and what came of it.
    sought: BTreeMap<PeerId, orders::Sought>,
    observed: Observed,
    /// The host's network changed while the DHT was paused.
    moved_meanwhile: bool,
    upkeep: Upkeep,
    /// The worst verdict of late, and when it came.
    eclipse: (EclipseReport, Option<Instant>),
    paused: bool,
    /// Somebody has answered us, or asked us, since the start.
    met: bool,
    health: Arc<Mutex<Vec<HealthItem>>>,
    /// Facts about keys of our own.
    own_facts: facts::OwnFacts,
}

impl Driver {
    pub(super) fn new(parts: Parts, health: Arc<Mutex<Vec<HealthItem>>>) -> Self {
        let now = clock::now();
        Self {
            parts,
            links: Links::default(),
            tasks: JoinSet::new(),
            dialing: BTreeMap::new(),
            backlog: VecDeque::new(),
            dial_limiter: DialLimiter::default(),
            waiters: BTreeMap::new(),
            sought: BTreeMap::new(),
            observed: Observed::default(),
            moved_meanwhile: false,
            upkeep: Upkeep::new(now),
            eclipse: (EclipseReport::Normal, None),
            paused: false,
            met: false,
            health,
            own_facts: facts::OwnFacts::default(),
        }
    }

    /// Runs until it is told to stop, or the node has gone.
    pub(super) async fn run(mut self, mut inputs: Inputs) {
        let stopped = self.drive(&mut inputs).await;
        // Threads that want to tell something must not wait for who does not listen any more.
        drop(inputs);
        self.stop().await;
        if let Some(done) = stopped {
            let _nobody_waits = done.send(());
        }
    }

    async fn drive(&mut self, inputs: &mut Inputs) -> Option<oneshot::Sender<()>> {
        loop {
            self.settle();
            let deadline = self.deadline();
            crate::select! {
                order = inputs.orders.recv() => match order {
                    Some(Order::Stop(done)) => return Some(done),
                    Some(order) => self.on_order(order),
                    None => return None,
                },
                Some(event) = inputs.events.recv() => self.on_event(event),
                Some(door) = inputs.found.recv() => self.parts.doors.hint(clock::now(), door),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(done) = done {
                        self.on_task(done);
                    }
                }
                () = wait_until(deadline) => self.on_timeout(),
            }
        }
    }

    fn now(&self) -> Now {
        self.parts.clock.now()
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Asked(asked) => self.on_asked(*asked),
            Event::Ended(link) => self.links.remove(link),
            Event::Checked { contact, valid } => {
                let now = self.now();
                self.parts.dht.on_admission(now, &contact, valid);
            }
            Event::Solved(admission) => self.on_solved(admission),
        }
    }

    fn on_asked(&mut self, asked: Asked) {
        let Asked { from, observed, sender, request, answer } = asked;
        if self.paused {
            // The link is being closed; nobody is told more.
            return;
        }
        self.met = true;
        let now = self.now();
        let response: Response = self.parts.dht.on_request(now, &from, observed, sender, request);
        let _link_gone = answer.send(response);
    }

    /// Takes a link in and serves its peer on it.
    fn adopt(&mut self, link: DhtLink, first: Option<super::event::FirstStream>) -> Option<LinkId> {
        let (connection, usage) = (Arc::clone(&link.connection), Arc::clone(&link.usage));
        let id = self.links.insert(link)?;
        let shared = Arc::clone(&self.parts.shared);
        let server = tokio::spawn(async move {
            Arc::clone(&shared).serve(connection, usage, first).await;
            let _stopped = shared.events.send(Event::Ended(id)).await;
        });
        self.links.set_server(id, server.abort_handle());
        Some(id)
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        let Incoming { connection, usage, place, first } = incoming;
        if self.paused {
            connection.close(CloseReason::Shutdown.code(), CloseReason::Shutdown.as_str());
            return;
        }
        let _always_room = self.adopt(DhtLink::new(connection, usage, Some(place)), Some(first));
    }

    fn adopt_dialed(&mut self, connection: Arc<dyn Connection>) -> Option<(LinkId, Arc<Usage>)> {
        let usage = Usage::new(clock::now());
        let id = self.adopt(DhtLink::new(connection, Arc::clone(&usage), None), None)?;
        Some((id, usage))
    }

    /// Does what the DHT asks for, until it asks for nothing more.
    fn settle(&mut self) {
        if self.paused {
            return;
        }
        self.keep_up();
        while let Some(output) = self.parts.dht.poll_output() {
            match output {
                Output::Query { id, to, request, timeout, dial } => {
                    self.query(id, to, request, timeout, dial);
                }
                // The machine has no more under way than fit in the queue.
                Output::VerifyAdmission { contact } if !self.parts.work.check(Arc::clone(&contact)) => {
                    tracing::warn!(peer = %contact.peer().short(), "a proof of work could not be checked");
                }
                Output::VerifyAdmission { .. } => {}
                Output::Found { id, record } => self.on_found(id, &record),
                Output::Done(finished) => self.on_done(*finished),
                Output::Notice(notice) => self.on_notice(notice),
                _ => {}
            }
        }
        self.tell_health();
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Joined => {
                tracing::info!("the DHT answers");
                self.met = true;
                self.parts.doors.rest();
                self.upkeep.joined();
                self.seek_parked();
                self.repeat_facts();
            }
            Notice::Lonely => {
                tracing::warn!("no node of the DHT answers any more");
                self.parts.doors.knock_at_once(clock::now());
            }
            Notice::Eclipse { target, verdict } => {
                tracing::warn!(%target, ?verdict, "the nodes around a point of the DHT stand too close together");
            }
            Notice::Quarantined { peer, period } => {
                tracing::info!(peer = %peer.short(), ?period, "a node of the DHT is not asked for a while");
            }
            Notice::Renew { key } => self.renew(&key),
            Notice::Fact(fact) => self.on_fact(&fact),
            _ => {}
        }
    }

    fn on_timeout(&mut self) {
        let now = self.now();
        if !self.paused && self.parts.dht.next_timeout().is_some_and(|at| at <= now.mono) {
            self.parts.dht.on_timeout(now);
        }
        self.links.close_idle(clock::now());
        self.expire_sought(clock::now());
        self.expire_waiting(clock::now());
    }

    fn deadline(&self) -> Option<Instant> {
        let now = clock::now();
        let machine = self.parts.dht.next_timeout().filter(|_| !self.paused).map(|at| self.parts.clock.instant(at));
        let upkeep = if self.paused { None } else { self.next_upkeep() };
        [machine, upkeep, self.links.next_idle(now), self.next_sought(), self.next_waiting()]
            .into_iter()
            .flatten()
            .min()
    }

    /// How the node stands with the others.
    fn state(&self) -> DhtState {
        if !self.parts.dht.table().is_empty() {
            DhtState::Joined
        } else if self.parts.doors.is_empty() {
            if self.met { DhtState::Joining } else { DhtState::Alone }
        } else if self.upkeep.is_patient(clock::now()) {
            DhtState::Joining
        } else {
            DhtState::Unreachable
        }
    }

    /// Whether there is anybody to ask.
    fn is_alone(&self) -> bool {
        self.parts.dht.table().is_empty() && self.parts.doors.is_empty()
    }

    fn pause(&mut self, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        if paused {
            self.links.close_all(CloseReason::Shutdown);
            return;
        }
        if std::mem::take(&mut self.moved_meanwhile) {
            return self.on_network_change();
        }
        self.upkeep.addresses_may_have_changed();
        if self.parts.dht.table().is_empty() {
            self.parts.doors.knock_at_once(clock::now());
        }
    }

    /// Where others saw us was another place, and who could not be reached from there may be from here.
    fn on_network_change(&mut self) {
        if self.paused {
            self.moved_meanwhile = true;
            return;
        }
        let now = clock::now();
        self.observed.on_network(now);
        self.upkeep.addresses_may_have_changed();
        let moment = self.now();
        self.parts.dht.on_network(moment);
        if self.parts.dht.table().is_empty() {
            self.parts.doors.knock_at_once(now);
        }
    }

    /// Writes down what is worth it and closes everything.
    async fn stop(mut self) {
        self.save_table_now().await;
        self.links.close_all(CloseReason::Shutdown);
        self.tasks.abort_all();
        let threads = self.parts.work.stop();
        let joined = crate::blocking::run(move || {
            for thread in threads {
                drop(thread.join());
            }
        });
        let _joined = joined.await;
    }

    fn forget(&mut self, key: &Point) {
        self.parts.dht.forget(key);
    }
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
