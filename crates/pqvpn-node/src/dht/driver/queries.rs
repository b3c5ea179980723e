// SPDX-License-Identifier: MIT OR Apache-2.0
//! Getting a request to its peer: over a warm link, or a new one within the limits on dials.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::{QueryFailure, QueryId, counters::Attack};
use pqvpn_wire::{
    control::CloseReason,
    dht::{Contact, Request, Response},
};

use super::{
    super::{
        dial::{Dial, How, Step},
        links::{LinkId, Warm, is_same},
        observed::without_ways,
        rpc::{Answer, CallError, count},
        usage::Usage,
    },
    Driver,
};
use crate::{clock, link::Connection};

/// Dials under way at once.
const MAX_DIALS: usize = 16;
/// And to addresses that others name for one peer: at most one of them is where it is.
const MAX_DIALS_OF_PEER: usize = 4;
/// Queries that may wait for a dial to begin, and for one under way: of the peer it is for, and of others whom it may meet.
const MAX_BACKLOG: usize = 256;
const MAX_JOINED: usize = 8;
/// Requests under way at once; each holds its bytes and a stream.
const MAX_TASKS: usize = 512;
/// A dial goes on for so long, also when nobody waits for it any more: the next request finds the link.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Less than this is not worth a dial.
const WORTH_DIALING: Duration = Duration::from_millis(100);

/// A request on its way.
#[derive(Debug)]
pub(in crate::dht) struct Waiting {
    pub(super) query: QueryId,
    pub(super) to: Arc<Contact>,
    pub(super) request: Request,
    pub(super) deadline: Instant,
    /// The peer must answer at this address: the one by whose network the table counts it (security.md 7.3).
    pub(super) proves: Option<SocketAddr>,
    /// A link that seemed warm did not carry it.
    pub(super) redialed: bool,
}

impl Waiting {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(clock::now())
    }

    /// Where the peer may be met.
    fn wanted(&self) -> &[SocketAddr] {
        if self.proves.is_some() { self.proves.as_slice() } else { self.to.addresses() }
    }

    fn may_be_met(&self, open: &[SocketAddr]) -> bool {
        self.wanted().iter().any(|at| open.contains(at))
    }
}

/// Whom to dial, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    peer: PeerId,
    is_door: bool,
    addresses: Vec<SocketAddr>,
}

impl Target {
    /// Whether a dial to it may also come to what a request wants: one to other addresses may be one to a liar's, and a
    /// door's is made with more effort.
    fn serves(&self, waiting: &Waiting, is_door: bool) -> bool {
        let goes_there = match waiting.proves {
            Some(at) => self.addresses == [at],
            None => waiting.to.addresses().iter().all(|at| self.addresses.contains(at)),
        };
        self.peer == *waiting.to.peer() && (self.is_door || !is_door) && goes_there
    }

    /// Whether a dial to it goes somewhere that a request wants, which may not go there itself so soon after.
    fn goes_where(&self, waiting: &Waiting) -> bool {
        let is_wanted = |at: &SocketAddr| waiting.to.addresses().contains(at);
        self.peer == *waiting.to.peer() && waiting.proves.is_none() && self.addresses.iter().any(is_wanted)
    }

    fn is_for(&self, waiting: &Waiting) -> bool {
        self.peer == *waiting.to.peer()
    }
}

/// A dial under way and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Dialing {
    pub(super) waiting: Vec<Waiting>,
    /// Nobody unknown has named the addresses.
    is_trusted: bool,
    /// Where whoever answers is met, and nobody has answered yet.
    open: Vec<SocketAddr>,
}

/// What a task of the driver came to.
pub(super) enum TaskDone {
    Dialed { target: Target, step: Box<Step> },
    Called { waiting: Box<Waiting>, link: LinkId, at: SocketAddr, answer: Result<Answer, CallError> },
    Resolved { peer: PeerId, addresses: Result<Vec<SocketAddr>, String> },
}

impl Driver {
    /// Sends a request of the machine; with `dial` the peer must answer at the contact's first address.
    pub(super) fn query(&mut self, query: QueryId, to: Arc<Contact>, request: Request, timeout: Duration, dial: bool) {
        count(&self.parts.shared.counts.sent);
        let proves = to.addresses().first().copied().filter(|_| dial);
        let waiting = Waiting { query, to, request, deadline: clock::now() + timeout, proves, redialed: false };
        if dial && proves.is_none() {
            return self.fail(&waiting, &CallError::Unreachable("it has no address".to_owned()));
        }
        self.carry(waiting);
    }

    fn carry(&mut self, waiting: Waiting) {
        match self.links.warm(clock::now(), waiting.to.peer(), waiting.proves) {
            Some(Warm { id, connection, usage, is_fresh }) => {
                // A link that rested may be dead without anybody knowing: leave time for a new one.
                let limit = if is_fresh || waiting.redialed { waiting.left() } else { waiting.left() / 2 };
                self.call(waiting, id, connection, &usage, limit);
            }
            None => self.dial(waiting),
        }
    }

    fn call(
        &mut self,
        waiting: Waiting,
        link: LinkId,
        connection: Arc<dyn Connection>,
        usage: &Arc<Usage>,
        limit: Duration,
    ) {
        if self.tasks.len() >= MAX_TASKS {
            return self.fail(&waiting, &CallError::Busy);
        }
        let (shared, using) = (Arc::clone(&self.parts.shared), usage.begin(clock::now()));
        self.tasks.spawn(async move {
            let answer = shared.call(&*connection, &waiting.request, limit).await;
            drop(using);
            TaskDone::Called { waiting: Box::new(waiting), link, at: connection.remote(), answer }
        });
    }

    /// Whether a contact is a door where somebody we trust named it, or where it was met: anybody may name other addresses
    /// for it.
    fn is_door(&self, to: &Contact) -> bool {
        self.parts.doors.contains(to.peer()) && (!to.is_proven() || self.parts.dht.remembers(to))
    }

    fn dial(&mut self, waiting: Waiting) {
        let (peer, is_door) = (*waiting.to.peer(), self.is_door(&waiting.to));
        let Some(waiting) = self.join(waiting, |target, _, waiting| target.serves(waiting, is_door)) else { return };
        if self.dialing.len() >= MAX_DIALS {
            return self.put_off(waiting);
        }
        // A contact we had is our own memory; what neither that nor a door is was named by a responder, who may mean harm
        // to whoever is there.
        let trusted = is_door || self.parts.dht.remembers(&waiting.to);
        if self.tasks.len() >= MAX_TASKS || waiting.left() < WORTH_DIALING {
            return self.fail(&waiting, &CallError::Busy);
        }
        if !trusted && self.untrusted_dials_of(&peer) >= MAX_DIALS_OF_PEER {
            return self.put_off(waiting);
        }
        let (now, limiter) = (self.now(), &mut self.dial_limiter);
        let may_dial = |at: &&SocketAddr| trusted || limiter.allow(now, &peer, **at);
        let addresses: Vec<SocketAddr> = waiting.wanted().iter().filter(may_dial).copied().collect();
        if addresses.is_empty() {
            return self.wait_beside(waiting);
        }
        let is_met = trusted || addresses.iter().all(|at| limiter.is_met(&peer, *at));
        let how = if is_door {
            How::Door
        } else if is_met {
            How::Met
        } else {
            How::Named
        };
        let strangers = &self.parts.shared.endpoints[1];
        let is_open = |at: &&SocketAddr| how == How::Named && strangers.meets_anybody(**at, peer);
        let open = addresses.iter().filter(is_open).copied().collect();
        let target = Target { peer, is_door, addresses: addresses.clone() };
        let dialing = self.dialing.entry(target.clone()).or_default();
        (dialing.is_trusted, dialing.open) = (trusted, open);
        dialing.waiting.push(waiting);
        self.go_on(target, Dial::new(&self.parts.shared, peer, addresses, how, DIAL_LIMIT));
    }

    fn go_on(&mut self, target: Target, dial: Dial) {
        self.tasks.spawn(async move { TaskDone::Dialed { target, step: Box::new(dial.go_on().await) } });
    }

    /// Another dial took the turn of the request's addresses: two requests to one honest peer are no attack, and what is
    /// dialled there for another name may meet the peer all the same.
    fn wait_beside(&mut self, waiting: Waiting) {
        let Some(waiting) = self.join(waiting, |target, _, waiting| target.goes_where(waiting)) else { return };
        let may_meet = |target: &Target, dialing: &Dialing, waiting: &Waiting| {
            !target.is_for(waiting) && waiting.may_be_met(&dialing.open)
        };
        let Some(waiting) = self.join(waiting, may_meet) else { return };
        self.turn_away(&waiting);
    }

    fn turn_away(&mut self, waiting: &Waiting) {
        self.parts.dht.count(Attack::DialLimit);
        self.fail(waiting, &CallError::Busy);
    }

    /// Has a request wait for a dial under way; gives it back where there is none for it.
    fn join(&mut self, waiting: Waiting, suits: impl Fn(&Target, &Dialing, &Waiting) -> bool) -> Option<Waiting> {
        let fitting = self.dialing.iter_mut().find(|(target, dialing)| suits(target, dialing, &waiting));
        let Some((target, dialing)) = fitting else { return Some(waiting) };
        let is_for = |waiting: &Waiting| *waiting.to.peer() == target.peer;
        let alike = dialing.waiting.iter().filter(|other| is_for(other) == is_for(&waiting));
        if alike.count() < MAX_JOINED {
            dialing.waiting.push(waiting);
        } else {
            self.fail(&waiting, &CallError::Busy);
        }
        None
    }

    /// Has a request wait for another dial to end.
    fn put_off(&mut self, waiting: Waiting) {
        if self.backlog.len() < MAX_BACKLOG {
            self.backlog.push_back(waiting);
        } else {
            self.fail(&waiting, &CallError::Busy);
        }
    }

    fn untrusted_dials_of(&self, peer: &PeerId) -> usize {
        self.dialing.iter().filter(|(target, dialing)| target.peer == *peer && !dialing.is_trusted).count()
    }

    /// Gives up on requests whose time is over before there was a link for them.
    pub(super) fn expire_waiting(&mut self, now: Instant) {
        let mut over: Vec<Waiting> = Vec::new();
        for dialing in self.dialing.values_mut() {
            over.extend(dialing.waiting.extract_if(.., |waiting| waiting.deadline <= now));
        }
        for waiting in over {
            self.fail(&waiting, &CallError::Timeout);
        }
    }

    pub(super) fn next_waiting(&self) -> Option<Instant> {
        self.dialing.values().flat_map(|dialing| dialing.waiting.iter().map(|waiting| waiting.deadline)).min()
    }

    pub(super) fn on_task(&mut self, done: TaskDone) {
        match done {
            TaskDone::Dialed { target, step } => match *step {
                Step::Instead { at, link, rest } => {
                    self.on_instead(&target, at, link);
                    self.go_on(target, rest);
                }
                Step::Over(link) => self.on_dialed(&target, link),
            },
            TaskDone::Called { waiting, link, at, answer } => self.on_called(*waiting, link, at, answer),
            TaskDone::Resolved { peer, addresses } => self.on_resolved(peer, addresses),
        }
    }

    fn on_dialed(&mut self, target: &Target, link: Result<Arc<dyn Connection>, String>) {
        let all = self.dialing.remove(target).map(|dialing| dialing.waiting).unwrap_or_default();
        let (waiting, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|waiting| target.is_for(waiting));
        match link {
            Ok(connection) => self.on_met(connection, waiting),
            Err(why) => {
                if target.is_door {
                    self.parts.doors.unreachable(clock::now(), &target.peer, why.clone());
                }
                let error = CallError::Unreachable(why);
                waiting.iter().for_each(|waiting| self.fail(waiting, &error));
            }
        }
        others.iter().for_each(|other| self.turn_away(other));
        self.next_of_backlog();
    }

    /// Somebody answered at an address in another's place, while the dial goes on at others: who is there is known from now
    /// on, and nobody else is waited for there.
    fn on_instead(&mut self, target: &Target, at: SocketAddr, link: Option<Arc<dyn Connection>>) {
        match link {
            Some(connection) => self.on_other(connection),
            None => self.dial_limiter.met_another(&target.peer, at),
        }
        let Some(Dialing { waiting, open, .. }) = self.dialing.get_mut(target) else { return };
        open.retain(|open| *open != at);
        let others: Vec<Waiting> = waiting.extract_if(.., |one| !target.is_for(one) && !one.may_be_met(open)).collect();
        others.iter().for_each(|other| self.turn_away(other));
    }

    /// A link to somebody for whom the dial was not made is for those who ask for it; where nobody does it is closed.
    fn on_other(&mut self, connection: Arc<dyn Connection>) {
        let (peer, at) = (connection.peer(), connection.remote());
        if peer != self.parts.shared.own && !self.paused {
            self.dial_limiter.met(peer, at);
            let waiting = self.waiting_for(&peer, at);
            if !waiting.is_empty() {
                return self.on_met(connection, waiting);
            }
        }
        connection.close(CloseReason::Idle.code(), CloseReason::Idle.as_str());
    }

    /// There is a link to a peer for those who wait for it.
    fn on_met(&mut self, connection: Arc<dyn Connection>, mut waiting: Vec<Waiting>) {
        if self.paused {
            return connection.close(CloseReason::Shutdown.code(), "");
        }
        let (peer, at) = (connection.peer(), connection.remote());
        self.dial_limiter.met(peer, at);
        self.parts.doors.verified(&peer, at, clock::unix_millis());
        waiting.extend(self.waiting_for(&peer, at));
        let Some((id, usage)) = self.adopt_dialed(Arc::clone(&connection)) else {
            return waiting.iter().for_each(|waiting| self.fail(waiting, &CallError::Busy));
        };
        for waiting in waiting {
            let limit = waiting.left();
            self.call(waiting, id, Arc::clone(&connection), &usage, limit);
        }
    }

    /// Those who wait for a dial, and may meet there a peer that was met now.
    fn waiting_for(&mut self, peer: &PeerId, at: SocketAddr) -> Vec<Waiting> {
        let dials = self.dialing.values_mut();
        dials.flat_map(|dialing| dialing.waiting.extract_if(.., |waiting| may_meet(waiting, peer, at))).collect()
    }

    fn next_of_backlog(&mut self) {
        // Once each: those of a peer that has its dials already are put off again.
        for _ in 0..self.backlog.len() {
            if self.dialing.len() >= MAX_DIALS {
                return;
            }
            let Some(waiting) = self.backlog.pop_front() else { return };
            if waiting.left().is_zero() {
                self.fail(&waiting, &CallError::Busy);
            } else {
                self.carry(waiting);
            }
        }
    }

    fn on_called(&mut self, waiting: Waiting, link: LinkId, at: SocketAddr, answer: Result<Answer, CallError>) {
        let peer = *waiting.to.peer();
        match answer {
            // The peer moved meanwhile.
            Ok(_) if waiting.proves.is_some_and(|first| !is_same(first, at)) => {
                self.fail(&waiting, &CallError::Unreachable(format!("it answers at {at}")));
            }
            Ok(Answer { sender, response, rtt }) => {
                count(&self.parts.shared.counts.answered);
                self.met = true;
                self.parts.doors.answered(clock::now(), &peer);
                let response = without_ways(response, at);
                if let Response::Pong { observed } = &response {
                    self.observed.note(peer, at, *observed);
                }
                let now = self.now();
                self.parts.dht.on_response(now, waiting.query, at, sender, response, rtt);
            }
            Err(error) => {
                let failure = error.failure();
                if matches!(failure, QueryFailure::Timeout | QueryFailure::Unreachable) {
                    // While others wait on it too, it may only be slow.
                    self.links.close_unless_used(link, failure == QueryFailure::Unreachable);
                    if !waiting.redialed && !waiting.to.addresses().is_empty() && waiting.left() > WORTH_DIALING {
                        return self.carry(Waiting { redialed: true, ..waiting });
                    }
                }
                self.fail(&waiting, &error);
            }
        }
    }

    fn fail(&mut self, waiting: &Waiting, error: &CallError) {
        let peer = waiting.to.peer();
        count(&self.parts.shared.counts.failed);
        tracing::debug!(peer = %peer.short(), %error, request = name(&waiting.request), "no answer");
        let (now, failure) = (self.now(), error.failure());
        if failure != QueryFailure::Local && self.is_door(&waiting.to) {
            self.parts.doors.failed(clock::now(), peer, error.to_string());
        }
        self.parts.dht.on_failure(now, waiting.query, failure);
    }
}

/// Whether a request is for a peer, and may meet it at an address.
fn may_meet(waiting: &Waiting, peer: &PeerId, at: SocketAddr) -> bool {
    waiting.to.peer() == peer && waiting.proves.is_none_or(|first| is_same(first, at))
}

const fn name(request: &Request) -> &'static str {
    match request {
        Request::Ping => "ping",
        Request::FindNode { .. } => "find-node",
        Request::FindValue { .. } => "find-value",
        Request::Store { .. } => "store",
        Request::Beat { .. } => "beat",
        Request::Exchange => "exchange",
        Request::Announce(_) => "announce",
        Request::Facts { .. } => "facts",
        _ => "other",
    }
}
