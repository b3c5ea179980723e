// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the node holds of one peer, and how people name it.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::{PeerSlot, SessionId};
use tokio::sync::oneshot;

use crate::{
    handle::{NodeError, PeerRef, PingReply},
    life::PeerLife,
};

/// Two ratchet failures within this time quarantine a peer (security.md 1.8).
const ABORT_MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Fewest digits of a PeerID that name a peer.
const MIN_PREFIX: usize = 4;

/// One configured peer.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) name: String,
    pub(crate) slot: PeerSlot,
    /// Overlay addresses, IPv6 first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Further prefixes that belong to the peer.
    pub(crate) routes: Vec<IpNet>,
    /// `host:port` from the config, in order of preference.
    pub(crate) endpoints: Vec<String>,
    pub(crate) life: PeerLife,
    /// Sessions with the peer, oldest first.
    pub(crate) sessions: Vec<SessionId>,
    /// Where the peer was last seen.
    pub(crate) last_remote: Option<SocketAddr>,
    /// Why packets take the path they take.
    pub(crate) why: String,
    pub(crate) last_error: Option<String>,
    /// Pings that wait for a session, then for their probe.
    pub(crate) pings: Vec<Ping>,
    aborts: Vec<Instant>,
    pub(crate) quarantined: bool,
}

/// One ping on its way.
pub(crate) struct Ping {
    pub(crate) answer: oneshot::Sender<Result<PingReply, NodeError>>,
    pub(crate) deadline: Instant,
    pub(crate) waited: Duration,
    /// Set once the probe is in the tunnel.
    pub(crate) probe: Option<u64>,
}

impl Peer {
    pub(crate) fn new(id: PeerId, name: String, slot: PeerSlot, life: PeerLife) -> Self {
        Self {
            id,
            name,
            slot,
            addresses: Vec::new(),
            routes: Vec::new(),
            endpoints: Vec::new(),
            life,
            sessions: Vec::new(),
            last_remote: None,
            why: String::new(),
            last_error: None,
            pings: Vec::new(),
            aborts: Vec::new(),
            quarantined: false,
        }
    }

    /// The name for people: the configured one, or the short PeerID.
    pub(crate) fn label(&self) -> String {
        if self.name.is_empty() { self.id.short() } else { self.name.clone() }
    }

    /// Every prefix whose packets belong to the peer.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses.iter().map(|&address| IpNet::from(address)).chain(self.routes.iter().copied())
    }

    /// Counts a ratchet failure; the second within a day quarantines the peer.
    pub(crate) fn on_ratchet_abort(&mut self, now: Instant) {
        self.aborts.retain(|&at| now.saturating_duration_since(at) < ABORT_MEMORY);
        self.aborts.push(now);
        self.quarantined |= self.aborts.len() >= 2;
    }

    /// An operator lifts the quarantine.
    pub(crate) fn lift_quarantine(&mut self) {
        self.aborts.clear();
        self.quarantined = false;
    }

    fn is_called(&self, what: &str) -> bool {
        let id = self.id.to_string();
        let by_prefix = what.len() >= MIN_PREFIX && id.starts_with(&what.to_ascii_lowercase());
        let by_address = what.parse::<IpAddr>().is_ok_and(|address| self.addresses.contains(&address));
        by_prefix || by_address
    }
}

/// Finds the one peer that `what` names: an exact name wins over prefixes of PeerIDs.
pub(crate) fn find(peers: &[Peer], what: &PeerRef) -> Result<PeerSlot, NodeError> {
    let PeerRef(what) = what;
    if let Some(peer) = peers.iter().find(|peer| !peer.name.is_empty() && peer.name == *what) {
        return Ok(peer.slot);
    }
    let fits: Vec<&Peer> = peers.iter().filter(|peer| peer.is_called(what)).collect();
    match fits.as_slice() {
        [] => Err(NodeError::UnknownPeer(what.clone())),
        [one] => Ok(one.slot),
        several => {
            let names = several.iter().map(|peer| peer.label()).collect::<Vec<_>>().join(", ");
            Err(NodeError::AmbiguousPeer(what.clone(), names))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(slot: PeerSlot, first_byte: u8, name: &str) -> Peer {
        let mut id = [slot as u8; 32];
        id[0] = first_byte;
        let mut peer = Peer::new(PeerId::from_bytes(id), name.to_owned(), slot, PeerLife::new(None, 0));
        peer.addresses = vec![format!("10.100.0.{}", slot + 1).parse().expect("address")];
        peer
    }

    fn lookup(peers: &[Peer], what: &str) -> Result<PeerSlot, NodeError> {
        find(peers, &PeerRef(what.to_owned()))
    }

    #[test]
    fn a_peer_answers_to_name_id_prefix_and_address() {
        let peers = [peer(0, 0xaa, "nas"), peer(1, 0xbb, ""), peer(2, 0xaa, "laptop")];
        assert_eq!(lookup(&peers, "nas").ok(), Some(0));
        assert_eq!(lookup(&peers, "BB01").ok(), Some(1));
        assert_eq!(lookup(&peers, &peers[2].id.to_string()).ok(), Some(2));
        assert_eq!(lookup(&peers, "10.100.0.2").ok(), Some(1));
        assert!(matches!(lookup(&peers, "bb0"), Err(NodeError::UnknownPeer(_))), "too short to mean anything");
        assert!(matches!(lookup(&peers, "nobody"), Err(NodeError::UnknownPeer(_))));
    }

    #[test]
    fn a_prefix_of_two_peers_is_ambiguous() {
        let peers = [peer(7, 0xaa, "a"), peer(7, 0xaa, "b")];
        assert!(matches!(lookup(&peers, "aa07"), Err(NodeError::AmbiguousPeer(..))));
    }

    #[test]
    fn two_ratchet_failures_in_a_day_quarantine_and_an_operator_lifts_it() {
        let now = Instant::now();
        let mut peer = peer(0, 1, "x");
        peer.on_ratchet_abort(now);
        assert!(!peer.quarantined);
        peer.on_ratchet_abort(now + ABORT_MEMORY);
        assert!(!peer.quarantined, "the first is forgotten by now");
        peer.on_ratchet_abort(now + ABORT_MEMORY + Duration::from_secs(1));
        assert!(peer.quarantined);
        peer.lift_quarantine();
        assert!(!peer.quarantined);
    }
}
