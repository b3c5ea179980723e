// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ratchet's state machine: when to step, what to send, when to give up (security.md 1.8).
//!
//! ```text
//! STABLE --due / forced / RATCHET_REQ--> LEADING: R1 out
//! LEADING --R2 ok--> stage rx, R3 out, start tx --> STABLE
//! STABLE --R1--> STAGED: stage rx, R2 out --R3 or first packet of the epoch--> start tx --> STABLE
//! LEADING, STAGED or asking --10 s without progress--> same bytes again, three times --> reconnect
//! any --MAC failure, epoch gap, second R1 that differs--> DEAD: abort
//! ```
//! The handshake initiator leads the odd steps, the responder the even ones, so two offers never cross; a follower
//! that waits longer than 1.5 epoch times asks with RATCHET_REQ. A sender switches only when the peer showed that it
//! can decrypt the new epoch. A session that carried nothing since its last step does not step by time.
//!
//! Sans-IO: inputs are `handle_*`, `on_*`, `note_traffic` and `request_step`; drain [`Ratchet::poll_output`] after
//! each and call [`Ratchet::handle_timeout`] at [`Ratchet::poll_timeout`]. Messages travel on the link's ordered,
//! authenticated control stream; repeated ones are answered alike, those of past steps are ignored.

use super::EpochChain;
use super::message::{self, Answer, Message, Offer, WORD_LEN};
use super::state::{LastStep, Leading, Stable, Staged};
use super::timing::jittered;
use crate::schedule::{Psk, RatchetSeed, Role};
use std::collections::VecDeque;
use std::time::Instant;
use subtle::ConstantTimeEq;

pub use super::timing::{EPOCH_HARD, EpochTime, REQUEST_GAP, RETRIES, RETRY_TIME};
pub use message::{R1_LEN, R2_LEN, R3_LEN, REQUEST_LEN};

/// Why a session ends: the peer, or somebody with its link, broke the protocol. A fresh full handshake follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum RatchetAbort {
    /// A confirmation does not match: the two sides do not hold the same secrets.
    #[error("ratchet confirmation failed")]
    MacFailure,
    /// A message names an epoch beyond the next one.
    #[error("ratchet message skips an epoch")]
    EpochGap,
    /// A second R1 or R2 of a step differs from the first.
    #[error("ratchet message repeated with other content")]
    Conflict,
    /// R1 or a request from the side whose turn it is not.
    #[error("ratchet step led by the wrong side")]
    WrongLeader,
    /// A message that no state of ours can have caused.
    #[error("unexpected ratchet message")]
    Unexpected,
    /// Unknown kind or wrong length.
    #[error("malformed ratchet message")]
    Malformed,
    /// A key share that X25519 or ML-KEM refuses, or an all-zero shared secret.
    #[error("invalid key share in ratchet message")]
    BadShare,
    /// This machine cannot draw a fresh key.
    #[error("no entropy for a ratchet step")]
    Entropy,
}

/// What the owner of a ratchet has to do, in order.
#[derive(Debug)]
pub enum RatchetOutput {
    /// Send these bytes on the control stream.
    Send(Vec<u8>),
    /// Make this epoch receivable beside the current one.
    StageRx(EpochChain),
    /// Send packets under this epoch from now on.
    StartTx(EpochChain),
    /// The control stream makes no progress: reconnect and run a full handshake, resuming with `resume_psk`.
    Reconnect,
    /// Close the session, tell the audit log, and run a full handshake.
    Abort(RatchetAbort),
}

/// The ratchet of one session.
pub struct Ratchet {
    role: Role,
    pub(super) state: State,
    epoch_time: EpochTime,
    jitter_seed: u64,
    /// When the current epoch began on this side.
    entered: Instant,
    /// Whether data passed since.
    traffic: bool,
    /// A step is wanted at this time, traffic or not.
    forced: Option<Instant>,
    /// Whether RATCHET_REQ was sent in this epoch.
    asked: bool,
    /// Whether [`RatchetOutput::Reconnect`] was given in this epoch.
    reconnecting: bool,
    pub(super) retry: Option<Retry>,
    outputs: VecDeque<RatchetOutput>,
}

/// One typed state; only the machine holds them together.
#[expect(clippy::large_enum_variant, reason = "one per session; a box would copy the secrets once more")]
pub(super) enum State {
    Stable(Stable),
    Leading(Leading),
    Staged(Staged),
    Dead(RatchetAbort),
}

/// The message that waits for progress.
pub(super) struct Retry {
    message: Vec<u8>,
    at: Instant,
    pub(super) left: u8,
}

impl Ratchet {
    /// Starts in epoch 0. `jitter_seed` spreads the step times of a node's sessions; it need not be secret.
    #[must_use]
    pub fn new(role: Role, seed: RatchetSeed, now: Instant, jitter_seed: u64) -> Self {
        Self {
            role,
            state: State::Stable(Stable { seed, last: LastStep::None }),
            epoch_time: EpochTime::default(),
            jitter_seed,
            entered: now,
            traffic: false,
            forced: None,
            asked: false,
            reconnecting: false,
            retry: None,
            outputs: VecDeque::new(),
        }
    }

    /// Sets the mean time between steps; counts from the beginning of the current epoch.
    pub fn set_epoch_time(&mut self, time: EpochTime) {
        self.epoch_time = time;
    }

    /// Takes a message from the control stream.
    ///
    /// # Errors
    /// [`RatchetAbort`]: the session is over, every secret of this ratchet is erased; the same reason is an output.
    pub fn handle_message(&mut self, now: Instant, bytes: &[u8]) -> Result<(), RatchetAbort> {
        if let State::Dead(reason) = self.state {
            return Err(reason);
        }
        let handled = Message::decode(bytes).and_then(|message| self.dispatch(now, &message));
        handled.inspect_err(|reason| self.abort(*reason))
    }

    /// Does what is due at `now`; harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.retry.as_ref().is_some_and(|retry| retry.at <= now) {
            self.send_again(now);
        } else if self.step_due().is_some_and(|due| due <= now) {
            self.start_step(now);
        }
    }

    /// Tells that a packet of `epoch` was received and authentic; the first one confirms a staged epoch as R3 does.
    pub fn on_epoch_packet(&mut self, now: Instant, epoch: u32) {
        if matches!(&self.state, State::Staged(staged) if staged.next().epoch == epoch) {
            self.enter_staged(now);
        }
    }

    /// Asks for a step now: many packets, an operator, or a suspected compromise. Ignored while one is under way.
    pub fn request_step(&mut self, now: Instant) {
        if matches!(self.state, State::Stable(_)) && !self.asked {
            self.start_step(now);
        }
    }

    /// Tells that data passed, in either direction; at least once per epoch that carried any.
    pub fn note_traffic(&mut self, now: Instant) {
        if !self.traffic {
            self.traffic = true;
            self.handle_timeout(now);
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<RatchetOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry.as_ref().map(|retry| retry.at).or_else(|| self.step_due())
    }

    /// Whether no step is under way, asked for or given up: the control stream is not needed before the next one is due.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let still = matches!(self.state, State::Stable(_)) && self.retry.is_none() && self.outputs.is_empty();
        still && !self.asked && !self.reconnecting && self.forced.is_none()
    }

    /// The epoch whose secrets this side holds as its own: staged ones do not count.
    #[must_use]
    pub fn epoch(&self) -> Option<u32> {
        self.seed().map(|seed| seed.epoch)
    }

    /// The psk for the next handshake with this peer (`S_prev'`); `None` after an abort.
    #[must_use]
    pub fn resume_psk(&self) -> Option<Psk> {
        self.seed().map(RatchetSeed::resume_psk)
    }

    /// The psk of the epoch a follower has staged: when the link died in the middle of a step, the leader may already
    /// hold this one and not the one of [`Self::resume_psk`].
    #[must_use]
    pub fn staged_resume_psk(&self) -> Option<Psk> {
        match &self.state {
            State::Staged(staged) => Some(staged.next().resume_psk()),
            State::Stable(_) | State::Leading(_) | State::Dead(_) => None,
        }
    }

    /// MAC of a control message under `K_ctrl` of the current epoch; `None` after an abort.
    #[must_use]
    pub fn ctrl_mac(&self, message: &[u8]) -> Option<[u8; 32]> {
        self.seed().map(|seed| seed.control_mac(message))
    }

    /// Why the session ended, if it did.
    #[must_use]
    pub const fn aborted(&self) -> Option<RatchetAbort> {
        match self.state {
            State::Dead(reason) => Some(reason),
            State::Stable(_) | State::Leading(_) | State::Staged(_) => None,
        }
    }

    const fn seed(&self) -> Option<&RatchetSeed> {
        match &self.state {
            State::Stable(Stable { seed, .. }) | State::Leading(Leading { seed, .. }) => Some(seed),
            State::Staged(Staged { seed, .. }) => Some(seed),
            State::Dead(_) => None,
        }
    }

    /// Whether this side leads the step to `epoch`.
    fn leads(&self, epoch: u32) -> bool {
        (epoch % 2 == 1) == (self.role == Role::Initiator)
    }

    /// When this side starts or asks for the next step; only a stable state has such a time.
    fn step_due(&self) -> Option<Instant> {
        let State::Stable(Stable { seed, .. }) = &self.state else {
            return None;
        };
        if self.asked || self.reconnecting {
            return None;
        }
        let wait = jittered(self.epoch_time.as_duration(), self.jitter_seed ^ u64::from(seed.epoch));
        let wait = if self.leads(seed.epoch + 1) { wait } else { wait + wait / 2 };
        let by_time = self.traffic.then(|| self.entered + wait);
        self.forced.into_iter().chain(by_time).min()
    }

    /// Leads the next step or asks its leader for it.
    fn start_step(&mut self, now: Instant) {
        let Some(next) = self.epoch().and_then(|epoch| epoch.checked_add(1)) else {
            return;
        };
        self.forced = None;
        if now.saturating_duration_since(self.entered) >= EPOCH_HARD {
            // Slept, or was idle, too long: old secrets are not stepped, they are replaced.
            self.reconnect();
        } else if self.leads(next) {
            self.lead(now);
        } else {
            self.asked = true;
            self.send_with_retry(now, message::request(next));
        }
    }

    fn lead(&mut self, now: Instant) {
        let State::Stable(stable) = self.take_state() else {
            return;
        };
        match stable.lead() {
            Ok(leading) => {
                let r1 = leading.r1.clone();
                self.state = State::Leading(leading);
                self.send_with_retry(now, r1);
            }
            Err(reason) => self.abort(reason),
        }
    }

    fn send_with_retry(&mut self, now: Instant, message: Vec<u8>) {
        self.outputs.push_back(RatchetOutput::Send(message.clone()));
        self.retry = Some(Retry { message, at: now + RETRY_TIME, left: RETRIES });
    }

    fn send_again(&mut self, now: Instant) {
        let Some(retry) = &mut self.retry else { return };
        if let Some(left) = retry.left.checked_sub(1) {
            (retry.left, retry.at) = (left, now + RETRY_TIME);
            self.outputs.push_back(RatchetOutput::Send(retry.message.clone()));
        } else {
            self.retry = None;
            self.reconnect();
        }
    }

    fn reconnect(&mut self) {
        if !self.reconnecting {
            self.reconnecting = true;
            self.outputs.push_back(RatchetOutput::Reconnect);
        }
    }

    fn dispatch(&mut self, now: Instant, message: &Message<'_>) -> Result<(), RatchetAbort> {
        let Some(current) = self.epoch() else { return Ok(()) };
        let epoch = message.epoch();
        if epoch < current {
            return Ok(());
        }
        if epoch == current {
            return self.on_repeated(message);
        }
        let staged = matches!(self.state, State::Staged(_));
        if epoch - current == 2 && staged && matches!(message, Message::Request { .. }) {
            // The leader is already in the staged epoch and asks us, who lead the step after it: too early for us.
            return Ok(());
        }
        if epoch - current > 1 {
            return Err(RatchetAbort::EpochGap);
        }
        match message {
            Message::R1 { offer, .. } => self.on_r1(now, offer),
            Message::R2 { answer, .. } => self.on_r2(now, answer),
            Message::R3 { mac, .. } => self.on_r3(now, mac),
            Message::Request { epoch } => self.on_request(now, *epoch),
        }
    }

    /// A message of the step that led to the current epoch: the answer may have been lost.
    fn on_repeated(&mut self, message: &Message<'_>) -> Result<(), RatchetAbort> {
        let last = match &self.state {
            State::Stable(Stable { last, .. }) | State::Leading(Leading { last, .. }) => last,
            State::Staged(Staged { last, .. }) => last,
            State::Dead(reason) => return Err(*reason),
        };
        let reply = match (message, last) {
            (Message::Request { .. }, _) => return Ok(()),
            (Message::R1 { offer, .. }, LastStep::Followed { r1, r2, .. }) if offer.bytes[..] == r1[..] => r2.clone(),
            (Message::R2 { answer, .. }, LastStep::Led { r2, r3 }) if answer.bytes == &**r2 => r3.clone(),
            (Message::R3 { mac, .. }, LastStep::Followed { mac_a, .. }) => {
                return if mac_a.ct_eq(*mac).into() { Ok(()) } else { Err(RatchetAbort::MacFailure) };
            }
            (Message::R1 { .. }, LastStep::Followed { .. }) | (Message::R2 { .. }, LastStep::Led { .. }) => {
                return Err(RatchetAbort::Conflict);
            }
            (Message::R1 { .. }, LastStep::Led { .. }) => return Err(RatchetAbort::WrongLeader),
            (Message::R1 { .. } | Message::R2 { .. } | Message::R3 { .. }, _) => {
                return Err(RatchetAbort::Unexpected);
            }
        };
        self.outputs.push_back(RatchetOutput::Send(reply));
        Ok(())
    }

    fn on_r1(&mut self, now: Instant, offer: &Offer<'_>) -> Result<(), RatchetAbort> {
        match self.take_state() {
            State::Stable(Stable { seed, .. }) if self.leads(seed.epoch + 1) => Err(RatchetAbort::WrongLeader),
            State::Stable(stable) => {
                let staged = stable.follow(offer)?;
                let rx = self.chain(staged.next(), self.role.peer());
                self.outputs.push_back(RatchetOutput::StageRx(rx));
                self.send_with_retry(now, staged.r2.clone());
                self.state = State::Staged(staged);
                Ok(())
            }
            State::Staged(staged) if staged.r1[..] == offer.bytes[..] => {
                self.outputs.push_back(RatchetOutput::Send(staged.r2.clone()));
                self.state = State::Staged(staged);
                Ok(())
            }
            State::Staged(_) => Err(RatchetAbort::Conflict),
            State::Leading(_) => Err(RatchetAbort::WrongLeader),
            State::Dead(reason) => Err(reason),
        }
    }

    fn on_r2(&mut self, now: Instant, answer: &Answer<'_>) -> Result<(), RatchetAbort> {
        let State::Leading(leading) = self.take_state() else {
            return Err(RatchetAbort::Unexpected);
        };
        let stable = leading.finish(answer)?;
        let rx = self.chain(&stable.seed, self.role.peer());
        let tx = self.chain(&stable.seed, self.role);
        self.outputs.push_back(RatchetOutput::StageRx(rx));
        if let LastStep::Led { r3, .. } = &stable.last {
            self.outputs.push_back(RatchetOutput::Send(r3.clone()));
        }
        self.outputs.push_back(RatchetOutput::StartTx(tx));
        self.enter(now, stable);
        Ok(())
    }

    fn on_r3(&mut self, now: Instant, mac: &[u8; WORD_LEN]) -> Result<(), RatchetAbort> {
        let State::Staged(staged) = &self.state else {
            return Err(RatchetAbort::Unexpected);
        };
        if !staged.confirms(mac) {
            return Err(RatchetAbort::MacFailure);
        }
        self.enter_staged(now);
        Ok(())
    }

    fn on_request(&mut self, now: Instant, epoch: u32) -> Result<(), RatchetAbort> {
        if !self.leads(epoch) {
            return Err(RatchetAbort::WrongLeader);
        }
        if matches!(self.state, State::Stable(_)) {
            self.forced = Some(self.forced.unwrap_or(self.entered + REQUEST_GAP));
            self.handle_timeout(now);
        }
        Ok(())
    }

    /// The follower's switch: the leader is in the staged epoch, so it can decrypt it.
    fn enter_staged(&mut self, now: Instant) {
        if let State::Staged(staged) = self.take_state() {
            let stable = staged.finish();
            let tx = self.chain(&stable.seed, self.role);
            self.outputs.push_back(RatchetOutput::StartTx(tx));
            self.enter(now, stable);
        }
    }

    fn enter(&mut self, now: Instant, stable: Stable) {
        self.state = State::Stable(stable);
        self.entered = now;
        (self.traffic, self.asked, self.reconnecting) = (false, false, false);
        (self.forced, self.retry) = (None, None);
    }

    /// The chain of what `sender` sends in the epoch of `seed`.
    fn chain(&self, seed: &RatchetSeed, sender: Role) -> EpochChain {
        EpochChain::start(&seed.root, seed.sid, sender.sends(), seed.epoch)
    }

    /// Erases every secret; nothing but the reason is left to say.
    fn abort(&mut self, reason: RatchetAbort) {
        self.state = State::Dead(reason);
        (self.retry, self.forced) = (None, None);
        self.outputs.clear();
        self.outputs.push_back(RatchetOutput::Abort(reason));
    }

    /// Takes the state out; the callers put the next one in, or abort.
    fn take_state(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Dead(RatchetAbort::Unexpected))
    }
}

impl std::fmt::Debug for Ratchet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ratchet").field("role", &self.role).field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}
