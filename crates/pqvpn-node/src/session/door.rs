// SPDX-License-Identifier: MIT OR Apache-2.0
//! The door to sessions: shut while the node is down, to quarantined and revoked peers, to members of networks whose
//! newest statements may not have been heard yet, and to who already stands in it too often.
//!
//! A listening session receives before it is confirmed, so the door is asked before anything is installed; what the
//! state task says of a finished session would come too late.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::control::CloseReason;
use thiserror::Error;

use crate::clock::Reading;

/// Negotiations one peer may have under way: one is usual, a crossed or repeated one happens.
const MAX_NEGOTIATIONS: usize = 4;

/// Why there is no session now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Shut {
    /// This node is down.
    #[error("this node is down")]
    Down,
    /// The peer's ratchet failed twice.
    #[error("the peer is quarantined")]
    Quarantined,
    /// The peer was revoked in a network and is in no other one with us.
    #[error("the peer was revoked")]
    Revoked,
    /// The peer is a member of networks only that are not up to date yet: it may have been revoked meanwhile.
    #[error("its network has not been heard since the start")]
    NotReady,
    /// The peer negotiates too many sessions at a time.
    #[error("the peer negotiates too many sessions at a time")]
    TooMany,
    /// The node was down, or slept, while the session was made.
    #[error("this node was down, or slept, meanwhile")]
    Meanwhile,
}

impl Shut {
    /// What the peer is told.
    pub(crate) const fn reason(self) -> CloseReason {
        match self {
            Self::Down => CloseReason::Shutdown,
            Self::Quarantined => CloseReason::Ratchet,
            Self::Revoked => CloseReason::Revoked,
            Self::NotReady | Self::Meanwhile => CloseReason::Busy,
            Self::TooMany => CloseReason::Duplicate,
        }
    }
}

/// Shared by the state task, which opens and shuts it, and the link tasks, which go through it.
#[derive(Debug, Default)]
pub(crate) struct Door(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    down: bool,
    quarantined: HashSet<PeerId>,
    revoked: HashSet<PeerId>,
    not_ready: HashSet<PeerId>,
    /// Who is a peer by its networks only.
    by_network: HashSet<PeerId>,
    /// The clocks as the state task has found them last.
    clocks: Option<Reading>,
    negotiating: HashMap<PeerId, usize>,
}

/// A negotiation under way; its place is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Entered<'d> {
    door: &'d Door,
    peer: PeerId,
}

impl Door {
    /// Shuts or opens it for everybody.
    pub(crate) fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// Shuts it for one peer.
    pub(crate) fn quarantine(&self, peer: PeerId) {
        self.lock().quarantined.insert(peer);
    }

    /// Opens it for every quarantined peer again.
    pub(crate) fn lift_quarantines(&self) {
        self.lock().quarantined.clear();
    }

    /// Shuts it for those who were revoked and those whose networks are not ready, and opens it for the others;
    /// `by_network`: for whom it is shut by itself once the machine has slept.
    pub(crate) fn set_members(
        &self,
        revoked: HashSet<PeerId>,
        not_ready: HashSet<PeerId>,
        by_network: HashSet<PeerId>,
    ) {
        let mut inner = self.lock();
        (inner.revoked, inner.not_ready, inner.by_network) = (revoked, not_ready, by_network);
    }

    /// How the state task has found the clocks. Where they have jumped it has told who is ready now.
    pub(crate) fn set_clocks(&self, clocks: Reading) {
        self.lock().clocks = Some(clocks);
    }

    /// Whether a link with the peer may be made, whatever for.
    ///
    /// # Errors
    /// [`Shut::Down`] or [`Shut::Quarantined`].
    pub(crate) fn check(&self, peer: PeerId) -> Result<(), Shut> {
        self.lock().check(peer)
    }

    /// Whether a session with the peer may be made.
    ///
    /// # Errors
    /// [`Shut`], but for [`Shut::TooMany`] and [`Shut::Meanwhile`].
    pub(crate) fn check_session(&self, peer: PeerId) -> Result<(), Shut> {
        self.lock().check_session(peer)
    }

    /// Begins a negotiation that the peer asked for.
    ///
    /// # Errors
    /// [`Shut`].
    pub(crate) fn enter(&self, peer: PeerId) -> Result<Entered<'_>, Shut> {
        let mut inner = self.lock();
        inner.check_session(peer)?;
        let under_way = inner.negotiating.entry(peer).or_default();
        if *under_way >= MAX_NEGOTIATIONS {
            return Err(Shut::TooMany);
        }
        *under_way += 1;
        Ok(Entered { door: self, peer })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn check(&self, peer: PeerId) -> Result<(), Shut> {
        match (self.down, self.quarantined.contains(&peer)) {
            (true, _) => Err(Shut::Down),
            (false, true) => Err(Shut::Quarantined),
            (false, false) => Ok(()),
        }
    }

    fn check_session(&self, peer: PeerId) -> Result<(), Shut> {
        self.check(peer)?;
        // Whoever dials a machine that has just woken up is faster than its state task.
        let waits = self.not_ready.contains(&peer) || self.by_network.contains(&peer) && self.has_slept();
        match (self.revoked.contains(&peer), waits) {
            (true, _) => Err(Shut::Revoked),
            (false, true) => Err(Shut::NotReady),
            (false, false) => Ok(()),
        }
    }
}

impl Inner {
    fn has_slept(&self) -> bool {
        // In a simulation an incoming link is on no host, whose clock may be another.
        #[cfg(feature = "sim")]
        if crate::sim::now().is_some() && crate::sim::addresses().is_none() {
            return false;
        }
        self.clocks.is_some_and(|before| Reading::take().jumped_since(&before))
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut inner = self.door.lock();
        if let Some(under_way) = inner.negotiating.get_mut(&self.peer) {
            *under_way -= 1;
            if *under_way == 0 {
                inner.negotiating.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerId = PeerId::from_bytes([1; 32]);
    const TWO: PeerId = PeerId::from_bytes([2; 32]);

    #[test]
    fn a_peer_gets_a_few_negotiations_at_a_time_and_nobody_else_pays_for_it() {
        let door = Door::default();
        let mut inside: Vec<_> = (0..MAX_NEGOTIATIONS).map(|_| door.enter(ONE).expect("room")).collect();
        assert_eq!(door.enter(ONE).err(), Some(Shut::TooMany));
        assert!(door.enter(TWO).is_ok());
        inside.pop();
        assert!(door.enter(ONE).is_ok());
        drop(inside);
        assert!(door.lock().negotiating.is_empty(), "nothing is remembered of who has left");
    }

    #[test]
    fn a_quarantined_peer_and_a_node_that_is_down_make_no_session() {
        let door = Door::default();
        door.quarantine(ONE);
        assert_eq!((door.enter(ONE).err(), door.check(ONE)), (Some(Shut::Quarantined), Err(Shut::Quarantined)));
        assert!(door.enter(TWO).is_ok());
        door.set_down(true);
        assert_eq!((door.enter(TWO).err(), door.check(TWO)), (Some(Shut::Down), Err(Shut::Down)));
        door.set_down(false);
        door.lift_quarantines();
        assert!(door.enter(ONE).is_ok());
    }

    #[test]
    fn a_revoked_peer_may_hold_a_link_but_no_session_until_it_is_a_member_again() {
        let door = Door::default();
        door.set_members(HashSet::from([ONE]), HashSet::from([TWO]), HashSet::from([TWO]));
        assert_eq!(door.check(ONE), Ok(()), "how else would it hear of it");
        assert_eq!((door.enter(ONE).err(), door.check_session(ONE)), (Some(Shut::Revoked), Err(Shut::Revoked)));
        assert_eq!(door.enter(TWO).err(), Some(Shut::NotReady));
        door.set_members(HashSet::new(), HashSet::new(), HashSet::new());
        assert!(door.enter(ONE).is_ok() && door.enter(TWO).is_ok());
    }

    #[test]
    fn a_machine_that_wakes_up_takes_no_member_before_it_knows_that_it_slept() {
        let door = Door::default();
        door.set_members(HashSet::new(), HashSet::new(), HashSet::from([ONE]));
        door.set_clocks(Reading::take());
        assert!(door.enter(ONE).is_ok());
        door.set_clocks(Reading::take().before_a_night());
        assert_eq!(door.enter(ONE).err(), Some(Shut::NotReady));
        assert!(door.enter(TWO).is_ok(), "a pinned peer");
        door.set_clocks(Reading::take());
        assert!(door.enter(ONE).is_ok());
    }
}
