// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every order of events the state machine can meet: two peers, lost, repeated and late messages, timers, crashes.
//!
//! Secrets cannot be copied, so a state is named by the events that lead to it and rebuilt by replaying them. States
//! that look alike (see [`World::look`]) are explored once.

use super::super::machine::{Ratchet, RatchetOutput, State};
use crate::schedule::{Exporter, Role, SessionSecrets, Transcript};
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

const SIDES: [usize; 2] = [0, 1];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// This side is asked for a step.
    Want(usize),
    /// The first message on the way to this side arrives, is lost, or arrives and stays (a repetition).
    Deliver(usize),
    Lose(usize),
    Repeat(usize),
    /// This side's timer fires.
    Timer(usize),
    /// A packet under this side's newest epoch reaches the peer.
    Packet(usize),
    /// This side stops for ever.
    Crash(usize),
}

/// How many of each disturbance one run may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Budget {
    wants: u8,
    losses: u8,
    repeats: u8,
    timers: u8,
    crashes: u8,
}

const BUDGET: Budget = Budget { wants: 3, losses: 2, repeats: 2, timers: 2, crashes: 1 };

struct Side {
    ratchet: Ratchet,
    /// Messages on their way to this side, in order.
    inbox: VecDeque<Vec<u8>>,
    tx_epoch: u32,
    /// Newest epoch this side can receive; the one before it is receivable too.
    rx_epoch: u32,
    crashed: bool,
    reconnect: bool,
}

struct World {
    now: Instant,
    sides: [Side; 2],
    budget: Budget,
}

impl World {
    fn new(start: Instant) -> Self {
        let side = |role| {
            let secrets = SessionSecrets::derive(Exporter::from_bytes([1; 64]), Transcript::from_bytes([2; 64]), None);
            let ratchet = Ratchet::new(role, secrets.into_parts(role).ratchet, start, 1);
            Side { ratchet, inbox: VecDeque::new(), tx_epoch: 0, rx_epoch: 0, crashed: false, reconnect: false }
        };
        Self { now: start, sides: [side(Role::Initiator), side(Role::Responder)], budget: BUDGET }
    }

    /// The world after `events`, checked after each of them.
    fn replay(start: Instant, events: &[Event]) -> Self {
        let mut world = Self::new(start);
        for event in events {
            world.apply(*event);
            world.check(events);
        }
        world
    }

    fn choices(&self) -> Vec<Event> {
        let Budget { wants, losses, repeats, timers, crashes } = self.budget;
        let mut events = Vec::new();
        for side in SIDES {
            let (here, there) = (&self.sides[side], &self.sides[1 - side]);
            if here.crashed {
                continue;
            }
            let waiting = !here.inbox.is_empty();
            let possible = [
                (waiting, Event::Deliver(side)),
                (waiting && losses > 0, Event::Lose(side)),
                (waiting && repeats > 0, Event::Repeat(side)),
                (wants > 0, Event::Want(side)),
                (timers > 0 && here.ratchet.poll_timeout().is_some(), Event::Timer(side)),
                (!there.crashed && here.tx_epoch > 0, Event::Packet(side)),
                (crashes > 0, Event::Crash(side)),
            ];
            events.extend(possible.iter().filter(|(possible, _)| *possible).map(|(_, event)| *event));
        }
        events
    }

    fn apply(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Want(side) => {
                self.budget.wants -= 1;
                self.sides[side].ratchet.request_step(now);
            }
            Event::Deliver(side) => {
                let message = self.sides[side].inbox.pop_front().unwrap();
                self.sides[side].ratchet.handle_message(now, &message).unwrap();
            }
            Event::Lose(side) => {
                self.budget.losses -= 1;
                self.sides[side].inbox.pop_front();
            }
            Event::Repeat(side) => {
                self.budget.repeats -= 1;
                let message = self.sides[side].inbox[0].clone();
                self.sides[side].ratchet.handle_message(now, &message).unwrap();
            }
            Event::Timer(side) => {
                self.budget.timers -= 1;
                self.fire(side);
            }
            Event::Packet(side) => {
                let epoch = self.sides[side].tx_epoch;
                self.sides[1 - side].ratchet.on_epoch_packet(now, epoch);
            }
            Event::Crash(side) => {
                self.budget.crashes -= 1;
                self.sides[side].crashed = true;
                self.sides[side].inbox.clear();
            }
        }
        SIDES.into_iter().for_each(|side| self.drain(side));
    }

    fn fire(&mut self, side: usize) {
        self.now = self.sides[side].ratchet.poll_timeout().unwrap().max(self.now);
        self.sides[side].ratchet.handle_timeout(self.now);
        self.drain(side);
    }

    fn drain(&mut self, side: usize) {
        while let Some(output) = self.sides[side].ratchet.poll_output() {
            match output {
                RatchetOutput::Send(message) if !self.sides[1 - side].crashed => {
                    self.sides[1 - side].inbox.push_back(message);
                }
                RatchetOutput::Send(_) => {}
                RatchetOutput::StageRx(chain) => {
                    assert_eq!(chain.epoch(), self.sides[side].rx_epoch + 1);
                    self.sides[side].rx_epoch = chain.epoch();
                }
                RatchetOutput::StartTx(chain) => {
                    assert_eq!(chain.epoch(), self.sides[side].tx_epoch + 1);
                    self.sides[side].tx_epoch = chain.epoch();
                }
                RatchetOutput::Reconnect => self.sides[side].reconnect = true,
                RatchetOutput::Abort(reason) => panic!("honest peers aborted: {reason}"),
            }
        }
    }

    /// What must hold after every event.
    fn check(&self, events: &[Event]) {
        let [a, b] = &self.sides;
        for (from, to) in [(a, b), (b, a)] {
            let receivable = to.rx_epoch.saturating_sub(1)..=to.rx_epoch;
            assert!(receivable.contains(&from.tx_epoch), "sends {} to {receivable:?}: {events:?}", from.tx_epoch);
        }
        let (Some(epoch_a), Some(epoch_b)) = (a.ratchet.epoch(), b.ratchet.epoch()) else {
            panic!("no epoch: {events:?}")
        };
        assert!(epoch_a.abs_diff(epoch_b) <= 1, "{events:?}");
        if epoch_a == epoch_b {
            let psk = |side: &Side| side.ratchet.resume_psk().map(|psk| *psk.expose());
            assert_eq!(psk(a), psk(b), "{events:?}");
        } else {
            let behind = if epoch_a < epoch_b { a } else { b };
            assert!(behind.ratchet.staged_resume_psk().is_some(), "{events:?}");
        }
    }

    /// From here on nothing is lost: the step completes, or a side that waits for a dead peer says so.
    fn settle(mut self, events: &[Event]) {
        for _ in 0..64 {
            if let Some(side) = SIDES.into_iter().find(|side| !self.sides[*side].inbox.is_empty()) {
                self.apply(Event::Deliver(side));
                self.check(events);
            } else if let Some(side) = SIDES.into_iter().find(|side| self.waits(*side)) {
                self.fire(side);
                self.check(events);
            } else {
                break;
            }
        }
        let done = |side: &Side| side.crashed || side.reconnect || matches!(side.ratchet.state, State::Stable(_));
        assert!(self.sides.iter().all(done), "stuck after {events:?}");
        let [a, b] = &self.sides;
        if !(a.crashed || b.crashed || a.reconnect || b.reconnect) {
            assert_eq!(a.ratchet.epoch(), b.ratchet.epoch(), "{events:?}");
            assert_eq!((a.tx_epoch, b.tx_epoch), (b.rx_epoch, a.rx_epoch), "{events:?}");
        }
    }

    fn waits(&self, side: usize) -> bool {
        !self.sides[side].crashed && self.sides[side].ratchet.poll_timeout().is_some()
    }

    /// What distinguishes this world from others for all that can still happen.
    fn look(&self) -> impl Eq + std::hash::Hash + use<> {
        let side = |side: &Side| {
            let state = match &side.ratchet.state {
                State::Stable(_) => 0,
                State::Leading(_) => 1,
                State::Staged(_) => 2,
                State::Dead(_) => 3,
            };
            let inbox: Vec<[u8; 5]> = side.inbox.iter().map(|m| *m.first_chunk().unwrap()).collect();
            let epochs = (side.ratchet.epoch(), side.tx_epoch, side.rx_epoch);
            let wait = side.ratchet.poll_timeout().map(|at| at.saturating_duration_since(self.now).as_secs());
            (state, inbox, epochs, side.crashed, side.reconnect, wait, side.ratchet.retry_left())
        };
        let [a, b] = &self.sides;
        (side(a), side(b), self.budget)
    }
}

impl Ratchet {
    /// Repetitions left of the message that waits for progress.
    fn retry_left(&self) -> Option<u8> {
        self.retry.as_ref().map(|retry| retry.left)
    }
}

/// Explores breadth first up to `depth` events; returns how many different states were seen.
fn explore(depth: usize) -> usize {
    let start = Instant::now() + Duration::from_secs(1);
    let mut seen = HashSet::new();
    let mut frontier = vec![Vec::new()];
    for _ in 0..=depth {
        let mut next = Vec::new();
        for events in frontier {
            let world = World::replay(start, &events);
            if !seen.insert(world.look()) {
                continue;
            }
            next.extend(world.choices().into_iter().map(|event| [events.as_slice(), &[event]].concat()));
            world.settle(&events);
        }
        frontier = next;
    }
    seen.len()
}

#[test]
fn honest_peers_never_abort_never_send_undecryptable_and_never_hang() {
    let states = explore(7);
    println!("states explored: {states}");
    assert!(states > 500, "the exploration shrank to {states} states");
}
