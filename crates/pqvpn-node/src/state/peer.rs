// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the node holds of one peer.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::{PeerSlot, SessionId};
use tokio::sync::oneshot;

use crate::{
    carrier::Hush,
    handle::{NodeError, PingReply},
    life::{Activity, PeerLife},
    overlay::MeshPeer,
    path::{Mtu, Paths, Quality},
    session::Wanted,
};

/// Two ratchet failures within this time quarantine a peer (security.md 1.8).
const ABORT_MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Fewest digits of a PeerID that name a peer.
const MIN_PREFIX: usize = 4;

/// One peer: pinned by the config, or a member of a network of ours, or both.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    /// The name given here or that of the first network, if there is one.
    pub(crate) name: String,
    /// Whether the name was given here.
    pub(crate) named: bool,
    /// Its names in networks: network, name.
    pub(crate) names: Vec<(String, String)>,
    pub(crate) pinned: bool,
    /// Whether sessions may start.
    pub(crate) ready: bool,
    pub(crate) slot: PeerSlot,
    /// Overlay addresses, IPv6 first.
    pub(crate) addresses: Vec<IpAddr>,
    /// Every prefix whose packets belong to the peer.
    pub(crate) prefixes: Vec<IpNet>,
    /// `host:port`, in order of preference.
    pub(crate) endpoints: Vec<String>,
    pub(crate) life: PeerLife,
    /// What the data plane had seen when it was last asked.
    pub(crate) seen: Activity,
    pub(crate) paths: Paths,
    /// Links beside the one there is, while they are wanted.
    pub(crate) link_wanted: Option<Arc<Wanted>>,
    pub(crate) mtu: Mtu,
    /// When the data plane last heard that the path is narrow.
    pub(crate) size_told: Option<Instant>,
    pub(crate) quality: Quality,
    /// Sessions with the peer, oldest first.
    pub(crate) sessions: Vec<SessionId>,
    /// Where the peer was last seen.
    pub(crate) last_remote: Option<SocketAddr>,
    /// Why packets take the path they take.
    pub(crate) why: String,
    /// Whether its NAT gives every peer another port, once it has said so.
    pub(crate) varies: Option<bool>,
    /// How seldom direct paths to it are tried where no UDP seems to pass.
    pub(crate) hush: Hush,
    pub(crate) last_error: Option<String>,
    pub(crate) counts: Counts,
    /// Pings that wait for a session, then for their probe.
    pub(crate) pings: Vec<Ping>,
    aborts: Vec<Instant>,
    /// Sessions that it gave to another with our identity, so it seems: how many in a row, and when the last.
    pub(crate) taken: Option<(u32, Instant)>,
    pub(crate) quarantined: bool,
}

/// What happened with a peer since it was first known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Sessions that came up: handshakes that succeeded, whoever dialed.
    pub(crate) sessions: u64,
    /// Dials that came to nothing.
    pub(crate) dials_failed: u64,
    /// Steps of the post-quantum ratchet.
    pub(crate) rekeys: u64,
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
    pub(crate) fn new(id: PeerId, slot: PeerSlot, life: PeerLife, paths: Paths) -> Self {
        Self {
            id,
            name: String::new(),
            named: false,
            names: Vec::new(),
            pinned: false,
            ready: true,
            slot,
            addresses: Vec::new(),
            prefixes: Vec::new(),
            endpoints: Vec::new(),
            life,
            seen: Activity::default(),
            paths,
            link_wanted: None,
            mtu: Mtu::new(&[0; 32]),
            size_told: None,
            quality: Quality::default(),
            sessions: Vec::new(),
            last_remote: None,
            why: String::new(),
            varies: None,
            hush: Hush::default(),
            last_error: None,
            counts: Counts::default(),
            pings: Vec::new(),
            aborts: Vec::new(),
            taken: None,
            quarantined: false,
        }
    }

    /// The name for people: the configured one, or the short PeerID.
    pub(crate) fn label(&self) -> String {
        if self.name.is_empty() { self.id.short() } else { self.name.clone() }
    }

    /// Takes over what the configuration and the networks say of the peer.
    pub(crate) fn take(&mut self, plan: &MeshPeer) {
        self.name.clone_from(&plan.name);
        self.names.clone_from(&plan.names);
        (self.pinned, self.named, self.ready) = (plan.pinned, plan.named, plan.ready);
        self.addresses.clone_from(&plan.addresses);
        self.prefixes.clone_from(&plan.prefixes);
        self.endpoints.clone_from(&plan.endpoints);
    }

    /// Its names in networks: `name.network` and `name`.
    pub(crate) fn full_names(&self) -> impl Iterator<Item = (String, &str)> {
        self.names.iter().map(|(network, name)| (format!("{name}.{network}"), name.as_str()))
    }

    /// How to tell it from others that are called `what` too.
    pub(crate) fn described(&self, what: &str) -> String {
        let named = self.full_names().find(|(_, name)| *name == what);
        named.map_or_else(|| format!("{} ({})", self.label(), self.id.short()), |(full, _)| full)
    }

    /// Takes back links that wait for their turn, or are being made, once nobody wants them any more.
    pub(crate) fn take_back_links(&mut self) {
        if !self.paths.wants_link()
            && let Some(wanted) = self.link_wanted.take()
        {
            wanted.end(!self.paths.is_gone());
        }
    }

    /// When one of its machines has something to do; `up`: whether the node is.
    pub(crate) fn poll_timeout(&self, now: Instant, up: bool) -> Option<Instant> {
        let machines = [self.life.poll_timeout(now), self.paths.poll_timeout(), self.mtu.poll_timeout()];
        let machines = machines.into_iter().flatten().filter(|_| up);
        machines.chain(self.pings.iter().map(|ping| ping.deadline)).min()
    }

    /// Whether its machines have nothing to do, given that the data plane has seen nothing new.
    pub(crate) fn rests(&self, now: Instant) -> bool {
        let later = |at: Option<Instant>| at.is_none_or(|at| at > now);
        let sized = later(self.mtu.poll_timeout()) && self.mtu.narrow().is_none();
        self.life.rests(now) && sized && self.paths.is_at_rest() && later(self.paths.poll_timeout())
    }

    /// Whether packets to an address are its own.
    pub(crate) fn is_behind(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip) || self.prefixes.iter().any(|prefix| prefix.contains(&ip))
    }

    /// Whether packets of the node itself to an address would go into the tunnel; `stays`: a subnet of this host has it, as
    /// it may have what is behind the peer, but never the peer's own addresses.
    pub(crate) fn leads_in(&self, ip: IpAddr, stays: bool) -> bool {
        if stays { self.addresses.contains(&ip) } else { self.is_behind(ip) }
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

    /// Whether `what` is the beginning of its PeerID or one of its addresses.
    pub(crate) fn is_called(&self, what: &str) -> bool {
        let id = self.id.to_string();
        let by_prefix = what.len() >= MIN_PREFIX && id.starts_with(&what.to_ascii_lowercase());
        let by_address = what.parse::<IpAddr>().is_ok_and(|address| self.addresses.contains(&address));
        by_prefix || by_address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ratchet_failures_in_a_day_quarantine_and_an_operator_lifts_it() {
        let now = Instant::now();
        let mut peer = Peer::new(PeerId::from_bytes([1; 32]), 0, PeerLife::new(None, 0), Paths::new(true, &[7; 32]));
        peer.on_ratchet_abort(now);
        assert!(!peer.quarantined);
        peer.on_ratchet_abort(now + ABORT_MEMORY);
        assert!(!peer.quarantined, "the first is forgotten by now");
        peer.on_ratchet_abort(now + ABORT_MEMORY + Duration::from_secs(1));
        assert!(peer.quarantined);
        peer.lift_quarantine();
        assert!(!peer.quarantined);
    }

    #[test]
    fn what_is_routed_to_a_peer_is_behind_it_as_its_addresses_are() {
        let mut peer = Peer::new(PeerId::from_bytes([1; 32]), 0, PeerLife::new(None, 0), Paths::new(true, &[7; 32]));
        peer.addresses = vec!["10.100.3.7".parse().unwrap()];
        peer.prefixes = vec!["192.168.5.0/24".parse().unwrap(), "fd00:7::/32".parse().unwrap()];
        for (ip, inside) in [
            ("10.100.3.7", true),
            ("192.168.5.2", true),
            ("fd00:7::9", true),
            ("192.168.6.2", false),
            ("10.100.3.8", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(peer.is_behind(ip.parse().unwrap()), inside, "{ip}");
        }
        let leads_in = |ip: &str, stays: bool| peer.leads_in(ip.parse().unwrap(), stays);
        assert!(leads_in("192.168.5.2", false) && !leads_in("192.168.5.2", true), "a LAN of this host");
        assert!(leads_in("10.100.3.7", true), "a LAN has no address of a member");
    }
}
