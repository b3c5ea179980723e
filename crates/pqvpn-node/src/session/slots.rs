// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may have sessions, and under which number the data plane knows it; changes while the node runs.
//!
//! The state task writes, link tasks read. A session is installed while the map is held: whoever is taken out of it has
//! no session afterwards that the state task does not know of.

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use pqvpn_crypto::{
    identity::PublicIdentity,
    peer_id::PeerId,
    tls::{Admission, Refusal, Side},
};
use pqvpn_dataplane::PeerSlot;

/// The peers of this node, shared by the state task, the link tasks and TLS.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    peers: RwLock<HashMap<PeerId, PeerSlot>>,
    /// Whether strangers may hold a link: the DHT or a network needs them.
    strangers: AtomicBool,
}

impl Slots {
    /// Of a node that does not know its peers yet: a link of whoever comes waits until it does, and is judged then.
    pub(crate) fn starting() -> Self {
        Self { strangers: AtomicBool::new(true), ..Self::default() }
    }

    /// The slot of a peer, `None` for whoever is no peer of ours.
    pub(crate) fn of(&self, peer: &PeerId) -> Option<PeerSlot> {
        self.read().get(peer).copied()
    }

    /// Who has a slot.
    #[cfg(feature = "sim")]
    pub(crate) fn peer(&self, slot: PeerSlot) -> Option<PeerId> {
        self.read().iter().find(|(_, held)| **held == slot).map(|(peer, _)| *peer)
    }

    /// Makes somebody a peer.
    pub(crate) fn insert(&self, peer: PeerId, slot: PeerSlot) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).insert(peer, slot);
    }

    /// Takes a peer out; no session with it is installed after this returns.
    pub(crate) fn remove(&self, peer: &PeerId) {
        self.peers.write().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// Runs `install` while the peer surely holds `slot`; `None` when it does not any more.
    pub(crate) fn while_held<T>(&self, peer: &PeerId, slot: PeerSlot, install: impl FnOnce() -> T) -> Option<T> {
        let peers = self.read();
        (peers.get(peer) == Some(&slot)).then(install)
    }

    /// Lets links of strangers in, or not.
    pub(crate) fn let_strangers_in(&self, let_in: bool) {
        self.strangers.store(let_in, Ordering::Relaxed);
    }

    /// Whether links of strangers are let in.
    pub(crate) fn strangers_welcome(&self) -> bool {
        self.strangers.load(Ordering::Relaxed)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<PeerId, PeerSlot>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our peers may hold a link with us; with the DHT on or in a network everybody whose identity is proven. What a link is
/// for, its first frame says, and sessions are made with peers only (`session.rs`). Whom we dial we have chosen
/// ourselves, and TLS proves that it is the one.
impl Admission for Slots {
    fn admit(&self, peer: &PeerId, _key: &PublicIdentity, side: Side) -> Result<(), Refusal> {
        match side {
            Side::Dialer => Ok(()),
            Side::Listener if self.strangers_welcome() || self.of(peer).is_some() => Ok(()),
            Side::Listener => Err(Refusal::UnknownPeer),
        }
    }
}

#[cfg(test)]
mod tests {
    use pqvpn_crypto::identity::Identity;

    use super::*;

    #[test]
    fn whoever_was_taken_out_or_has_another_slot_by_now_installs_nothing() {
        let (slots, peer) = (Slots::default(), PeerId::from_bytes([1; 32]));
        assert_eq!(slots.while_held(&peer, 0, || ()), None);
        slots.insert(peer, 0);
        assert_eq!(slots.while_held(&peer, 0, || "installed"), Some("installed"));
        slots.remove(&peer);
        assert_eq!(slots.while_held(&peer, 0, || ()), None);
        slots.insert(peer, 1);
        assert_eq!(slots.while_held(&peer, 0, || ()), None, "the negotiation is of the time before");
        assert_eq!(slots.of(&peer), Some(1));
    }

    #[test]
    fn a_node_that_starts_refuses_nobody_before_it_knows_whom() {
        let (slots, peer) = (Slots::starting(), Identity::generate().unwrap());
        let admit = || slots.admit(&peer.peer_id(), peer.public(), Side::Listener);
        assert_eq!(admit(), Ok(()));
        slots.let_strangers_in(false);
        assert_eq!(admit(), Err(Refusal::UnknownPeer));
    }

    #[test]
    fn strangers_are_let_in_only_while_somebody_needs_them() {
        let (slots, stranger) = (Slots::default(), Identity::generate().unwrap());
        let admit = |side| slots.admit(&stranger.peer_id(), stranger.public(), side);
        assert_eq!((admit(Side::Listener), admit(Side::Dialer)), (Err(Refusal::UnknownPeer), Ok(())));
        slots.let_strangers_in(true);
        assert_eq!(admit(Side::Listener), Ok(()));
        slots.let_strangers_in(false);
        slots.insert(stranger.peer_id(), 7);
        assert_eq!(admit(Side::Listener), Ok(()));
    }
}
