// SPDX-License-Identifier: MIT OR Apache-2.0
//! The peers of a running node: they come and go, and no slot is ever given to another one.

use std::{collections::BTreeMap, time::Instant};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::PeerSlot;

use super::{peer::Peer, timed::Timed};
use crate::{
    handle::{NodeError, PeerRef},
    names::bare,
};

/// All peers by slot. A slot is never used again: an event, a link or a packet under way may still name it.
#[derive(Default)]
pub(crate) struct Peers {
    all: Timed<PeerSlot, Peer>,
    by_id: BTreeMap<PeerId, PeerSlot>,
    next: PeerSlot,
}

impl Peers {
    /// Adds a peer made for a slot of its own; `None` when four thousand million have been used.
    pub(crate) fn add(&mut self, make: impl FnOnce(PeerSlot) -> Peer) -> Option<PeerSlot> {
        let slot = self.next;
        self.next = slot.checked_add(1)?;
        let peer = make(slot);
        self.by_id.insert(peer.id, slot);
        self.all.insert(slot, peer);
        Some(slot)
    }

    /// Takes a peer out.
    pub(crate) fn remove(&mut self, slot: PeerSlot) -> Option<Peer> {
        let peer = self.all.remove(&slot)?;
        self.by_id.remove(&peer.id);
        Some(peer)
    }

    pub(crate) fn get(&self, slot: PeerSlot) -> Option<&Peer> {
        self.all.get(&slot)
    }

    pub(crate) fn get_mut(&mut self, slot: PeerSlot) -> Option<&mut Peer> {
        self.all.get_mut(&slot)
    }

    /// Which of them were touched, and when they have something to do.
    pub(crate) fn timed(&mut self) -> &mut Timed<PeerSlot, Peer> {
        &mut self.all
    }

    /// When the first of them has something to do.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.all.next_due()
    }

    pub(crate) fn of(&self, id: &PeerId) -> Option<PeerSlot> {
        self.by_id.get(id).copied()
    }

    /// Every slot in use, to change peers one after the other.
    pub(crate) fn slots(&self) -> Vec<PeerSlot> {
        self.all.keys()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.all.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.all.values_mut()
    }

    /// The name of a peer for people and logs.
    pub(crate) fn label(&self, slot: PeerSlot) -> String {
        self.get(slot).map_or_else(|| format!("peer {slot}"), Peer::label)
    }

    /// Finds the one peer that `what` names: a name given here, then `name.network`, then a name in any network, then
    /// addresses and prefixes of PeerIDs; the zone behind a name may be said too. Names given here come first, so that nobody's network can take them over.
    ///
    /// # Errors
    /// [`NodeError::UnknownPeer`], or [`NodeError::AmbiguousPeer`] with everybody that fits.
    pub(crate) fn find(&self, what: &PeerRef) -> Result<PeerSlot, NodeError> {
        let PeerRef(what) = what;
        if let Some(peer) = self.iter().find(|peer| peer.named && peer.name == *what) {
            return Ok(peer.slot);
        }
        let lower = bare(what).to_ascii_lowercase();
        let named = |peer: &&Peer| peer.full_names().any(|(full, name)| full == lower || name == lower);
        let mut fits: Vec<&Peer> = self.iter().filter(named).collect();
        if fits.is_empty() {
            fits = self.iter().filter(|peer| peer.is_called(what)).collect();
        }
        match fits.as_slice() {
            [] => Err(NodeError::UnknownPeer(what.clone())),
            [one] => Ok(one.slot),
            several => {
                let names: Vec<String> = several.iter().map(|peer| peer.described(&lower)).collect();
                Err(NodeError::AmbiguousPeer(what.clone(), names.join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{life::PeerLife, path::Paths};

    /// First byte of the PeerID, given name, names by network.
    type Entry<'a> = (u8, &'a str, &'a [(&'a str, &'a str)]);

    fn peers(all: &[Entry<'_>]) -> Peers {
        let mut peers = Peers::default();
        for (first_byte, name, names) in all {
            peers.add(|slot| {
                let mut id = [u8::try_from(slot).unwrap(); 32];
                id[0] = *first_byte;
                let mut peer =
                    Peer::new(PeerId::from_bytes(id), slot, PeerLife::new(None, 0), Paths::new(true, &[7; 32]));
                peer.name = (*name).to_owned();
                (peer.pinned, peer.named) = (names.is_empty(), names.is_empty() && !name.is_empty());
                peer.names = names.iter().map(|(net, name)| ((*net).to_owned(), (*name).to_owned())).collect();
                peer.addresses = vec![format!("10.100.0.{}", slot + 1).parse().unwrap()];
                peer
            });
        }
        peers
    }

    fn lookup(peers: &Peers, what: &str) -> Result<PeerSlot, NodeError> {
        peers.find(&PeerRef(what.to_owned()))
    }

    #[test]
    fn a_peer_answers_to_name_id_prefix_and_address() {
        let peers = peers(&[(0xaa, "nas", &[]), (0xbb, "", &[]), (0xaa, "laptop", &[])]);
        assert_eq!(lookup(&peers, "nas").ok(), Some(0));
        assert_eq!(lookup(&peers, "BB01").ok(), Some(1));
        assert_eq!(lookup(&peers, &peers.get(2).unwrap().id.to_string()).ok(), Some(2));
        assert_eq!(lookup(&peers, "10.100.0.2").ok(), Some(1));
        assert!(matches!(lookup(&peers, "bb0"), Err(NodeError::UnknownPeer(_))), "too short to mean anything");
        assert!(matches!(lookup(&peers, "nobody"), Err(NodeError::UnknownPeer(_))));
    }

    #[test]
    fn a_prefix_of_two_peers_is_ambiguous() {
        let mut two = peers(&[(0xaa, "a", &[]), (0xaa, "b", &[])]);
        let mut twin = *two.get(0).unwrap().id.as_bytes();
        twin[31] ^= 1;
        two.get_mut(1).unwrap().id = PeerId::from_bytes(twin);
        assert!(matches!(lookup(&two, "aa00"), Err(NodeError::AmbiguousPeer(..))));
    }

    #[test]
    fn a_name_in_two_networks_needs_the_network_unless_it_is_one_peer() {
        let peers = peers(&[
            (1, "nas", &[("home", "nas")]),
            (2, "nas", &[("work", "nas")]),
            (3, "box", &[("home", "box"), ("work", "box")]),
        ]);
        let Err(NodeError::AmbiguousPeer(_, names)) = lookup(&peers, "nas") else { panic!("not ambiguous") };
        assert_eq!(names, "nas.home, nas.work");
        assert_eq!(lookup(&peers, "nas.home").ok(), Some(0));
        assert_eq!(lookup(&peers, "NAS.work").ok(), Some(1));
        for what in ["nas.work.", "nas.work.pqvpn", "nas.Work.PQVPN."] {
            assert_eq!(lookup(&peers, what).ok(), Some(1), "{what}");
        }
        assert!(lookup(&peers, "pqvpn").is_err() && lookup(&peers, ".").is_err());
        assert_eq!(lookup(&peers, "box").ok(), Some(2));
    }

    #[test]
    fn a_network_cannot_take_over_a_name_given_here() {
        let peers = peers(&[(1, "nas", &[("home", "nas")]), (2, "nas", &[])]);
        assert_eq!(lookup(&peers, "nas").ok(), Some(1));
        assert_eq!(lookup(&peers, "nas.home").ok(), Some(0));
    }

    #[test]
    fn a_slot_is_never_used_again() {
        let mut peers = peers(&[(1, "a", &[]), (2, "b", &[])]);
        let gone = peers.remove(1).unwrap();
        assert_eq!(peers.of(&gone.id), None);
        let back = peers.add(|slot| Peer::new(gone.id, slot, PeerLife::new(None, 0), Paths::new(true, &[7; 32])));
        assert_eq!(back, Some(2));
        assert!(peers.get(1).is_none());
    }
}
