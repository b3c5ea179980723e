// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which carrier is tried when: pure, time is an argument.
//!
//! UDP is always tried, and first or together with what worked in this network before. The other rungs get their turn only
//! to addresses of the internet while UDP has not been seen to work of late, and where they fail they rest, longer each
//! time, if UDP is there instead. That one peer is reached by a carrier says little of UDP: it counts for all only while nothing speaks against it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::address::{Class, class};
use serde::{Deserialize, Serialize};

/// Head start of UDP over UDP to port 443, and over a WebSocket.
const BEFORE_QUIC: Duration = Duration::from_millis(250);
pub(super) const BEFORE_WSS: Duration = Duration::from_secs(1);
/// UDP that worked so lately works still.
const FRESH: Duration = Duration::from_secs(60);
/// UDP that worked so lately is not blocked, whatever one peer is reached by.
const ALIVE: Duration = Duration::from_secs(120);
/// How often UDP is looked for while something else carries.
const LOOK: Duration = Duration::from_secs(30);
/// And the first time where its port 443 answered: it may only have been quicker.
const FIRST_LOOK: Duration = Duration::from_secs(2);
const LOOK_MOST: Duration = Duration::from_secs(300);
/// How long a carrier rests that was not found: doubled each time.
const REST: Duration = Duration::from_secs(20);
const REST_MOST: Duration = Duration::from_secs(1800);
/// And at most where UDP is not known to work: it may be all there is.
const REST_BLOCKED: Duration = Duration::from_secs(60);
/// Carriers remembered for that.
const MAX_RESTING: usize = 1024;
/// The port of every rung but the first.
pub(crate) const PORT: u16 = 443;

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rung {
    /// UDP to the port of the peer.
    Udp,
    /// QUIC to UDP port 443.
    Quic,
    /// A WebSocket over TLS to TCP port 443.
    Wss,
}

impl Rung {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Quic => "quic",
            Self::Wss => "wss",
        }
    }
}

/// What rests where it was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Carrier {
    /// UDP port 443 of an address.
    Quic(IpAddr),
    /// The server of a peer at an address. A server shows itself to who asks for its own peer only, and of another behind
    /// the same address it says nothing.
    Wss(IpAddr, PeerId),
}

/// After what time the rungs above the first are tried in one dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Plan {
    pub(super) quic: Option<Duration>,
    pub(super) wss: Option<Duration>,
}

/// What is known of the network this host is in.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    /// When UDP last worked to addresses of the internet, and to their port 443, which networks let out that let nothing
    /// else out.
    udp_at: Option<Instant>,
    udp_443_at: Option<Instant>,
    /// The rung that carried last where UDP did not.
    won: Option<Rung>,
    /// What worked in this network at an earlier time.
    remembered: Option<Rung>,
    /// How often one failed, and when it last did.
    resting: BTreeMap<Carrier, (u32, Instant)>,
    look_at: Option<Instant>,
    looked: u32,
}

impl Ladder {
    /// What to try to reach a peer at `at`.
    pub(super) fn plan(&self, now: Instant, at: SocketAddr, peer: PeerId) -> Plan {
        if !is_public(at) || self.udp_of(at).is_some_and(|worked| now.saturating_duration_since(worked) < FRESH) {
            return Plan::default();
        }
        let known = self.known();
        let after = |rung, pause| if known == Some(rung) { Duration::ZERO } else { pause };
        let quic = at.port() != PORT && !self.rests(now, Carrier::Quic(at.ip()));
        let wss = !self.rests(now, Carrier::Wss(at.ip(), peer));
        Plan { quic: quic.then(|| after(Rung::Quic, BEFORE_QUIC)), wss: wss.then(|| after(Rung::Wss, BEFORE_WSS)) }
    }

    /// What to try to reach somebody whom others named: by carriers only where they are needed anyway.
    pub(super) fn plan_for_stranger(&self, now: Instant, at: SocketAddr, peer: PeerId) -> Plan {
        if self.known().is_some() { self.plan(now, at, peer) } else { Plan::default() }
    }

    fn known(&self) -> Option<Rung> {
        self.won.or(self.remembered)
    }

    fn udp_of(&self, at: SocketAddr) -> Option<Instant> {
        if at.port() == PORT { self.udp_at.max(self.udp_443_at) } else { self.udp_at }
    }

    fn rests(&self, now: Instant, carrier: Carrier) -> bool {
        self.resting.get(&carrier).is_some_and(|rest| now < until(rest, self.longest_rest()))
    }

    fn longest_rest(&self) -> Duration {
        let is_udp_there = self.udp_at.is_some() && self.known() != Some(Rung::Wss);
        if is_udp_there { REST_MOST } else { REST_BLOCKED }
    }

    /// A link was made on a rung, or UDP was seen to work; whether that is news to be remembered.
    pub(super) fn on_worked(&mut self, now: Instant, rung: Rung, at: SocketAddr) -> bool {
        let before = self.known();
        if rung == Rung::Udp {
            // That a neighbour is reached says nothing of the internet, and port 443 nothing of others.
            if !is_public(at) {
                return false;
            }
            if at.port() == PORT {
                self.udp_443_at = Some(now);
                return false;
            }
            self.udp_at = Some(now);
            if self.won.is_some() {
                // What else is carried may move too.
                (self.look_at, self.looked) = (self.look_at.map(|_| now), 0);
            }
            (self.won, self.remembered) = (None, None);
            return before.is_some();
        }
        if self.look_at.is_none() {
            let pause = if rung == Rung::Quic { FIRST_LOOK } else { LOOK };
            (self.look_at, self.looked) = (Some(now + pause), 0);
        }
        if self.udp_at.is_some_and(|worked| now.saturating_duration_since(worked) < ALIVE) {
            return false;
        }
        self.won = Some(rung);
        before != Some(rung)
    }

    /// A carrier was found.
    pub(super) fn on_found(&mut self, carrier: Carrier) {
        self.resting.remove(&carrier);
    }

    /// A carrier was not found.
    pub(super) fn on_failed(&mut self, now: Instant, carrier: Carrier) {
        if self.resting.len() >= MAX_RESTING && !self.resting.contains_key(&carrier) {
            let most = self.longest_rest();
            self.resting.retain(|_, rest| until(rest, most) > now);
            if self.resting.len() >= MAX_RESTING {
                return;
            }
        }
        let (times, failed) = self.resting.entry(carrier).or_insert((0, now));
        (*times, *failed) = (times.saturating_add(1), now);
    }

    #[cfg(test)]
    pub(super) fn is_resting(&self, carrier: Carrier) -> Option<u32> {
        self.resting.get(&carrier).map(|(times, _)| *times)
    }

    /// Whether the last links needed something else than UDP.
    pub(super) const fn is_udp_blocked(&self) -> bool {
        matches!(self.won, Some(Rung::Wss | Rung::Quic))
    }

    pub(super) const fn won(&self) -> Option<Rung> {
        self.won
    }

    /// Whether it is time to see whether UDP works by now.
    pub(super) fn is_look_due(&mut self, now: Instant) -> bool {
        let due = self.look_at.is_some_and(|at| now >= at);
        if due {
            self.look_at = Some(now + LOOK.saturating_mul(1 << self.looked.min(4)).min(LOOK_MOST));
            self.looked = self.looked.saturating_add(1);
        }
        due
    }

    /// When that is next.
    pub(super) const fn next_look(&self) -> Option<Instant> {
        self.look_at
    }

    /// Nothing is carried any more.
    pub(super) fn on_nothing_carried(&mut self) {
        (self.look_at, self.looked) = (None, 0);
    }

    /// The host is in a network, maybe another one, where `remembered` worked at an earlier time.
    pub(super) fn on_network(&mut self, now: Instant, remembered: Option<Rung>) {
        // Links that go on over a carrier look for UDP at once.
        let look_at = self.look_at.map(|_| now);
        *self = Self { remembered, look_at, ..Self::default() };
    }
}

/// Until when a carrier rests.
fn until(&(times, failed): &(u32, Instant), most: Duration) -> Instant {
    failed + REST.saturating_mul(1 << times.saturating_sub(1).min(8)).min(most)
}

/// Whether an address is one of the internet: what lets UDP out to a neighbour may not let it out further, and a neighbour
/// needs no carrier.
fn is_public(at: SocketAddr) -> bool {
    class(&at) == Class::Public
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn relay() -> SocketAddr {
        "8.8.4.4:41641".parse().unwrap()
    }

    const PEER: PeerId = PeerId::from_bytes([7; 32]);

    /// Its server.
    fn wss() -> Carrier {
        Carrier::Wss(relay().ip(), PEER)
    }

    fn near() -> SocketAddr {
        "192.168.1.7:41641".parse().unwrap()
    }

    fn plan(quic: u64, wss: u64) -> Plan {
        Plan { quic: Some(Duration::from_millis(quic)), wss: Some(Duration::from_millis(wss)) }
    }

    #[test]
    fn rungs_follow_one_another_until_udp_has_worked() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        assert_eq!(ladder.plan(now, relay(), PEER), plan(250, 1000));
        assert_eq!(ladder.plan(now, "8.8.4.4:443".parse().unwrap(), PEER).quic, None, "that is the first rung");
        assert!(!ladder.on_worked(now, Rung::Udp, relay()), "no news");
        assert_eq!(ladder.plan(now + FRESH - MS, relay(), PEER), Plan::default());
        assert_eq!(ladder.plan(now + FRESH, relay(), PEER), plan(250, 1000));
    }

    #[test]
    fn udp_to_a_neighbour_says_nothing_of_the_internet() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        ladder.on_worked(now, Rung::Wss, relay());
        ladder.on_worked(now, Rung::Udp, near());
        assert_eq!(ladder.plan(now + LOOK_MOST, near(), PEER), Plan::default(), "no carrier goes to a neighbour");
        assert_eq!(ladder.plan(now, relay(), PEER), plan(250, 0));
        assert!(ladder.is_udp_blocked());
    }

    #[test]
    fn what_worked_before_is_tried_at_once_and_udp_takes_over_where_it_works() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        ladder.on_network(now, Some(Rung::Wss));
        assert_eq!(ladder.plan(now, relay(), PEER), plan(250, 0));
        assert!(!ladder.is_udp_blocked(), "remembered is not known");
        assert!(!ladder.on_worked(now, Rung::Wss, relay()), "as remembered");
        assert!(ladder.is_udp_blocked());
        assert!(ladder.on_worked(now, Rung::Udp, relay()), "news");
        assert!(!ladder.is_udp_blocked() && ladder.won().is_none());
        assert_eq!(ladder.plan(now + FRESH, relay(), PEER), plan(250, 1000), "no longer remembered");
    }

    #[test]
    fn a_peer_that_is_reached_by_a_carrier_alone_does_not_hush_the_node() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        ladder.on_worked(now, Rung::Udp, relay());
        let other = "9.9.9.9:41641".parse().unwrap();
        for rung in [Rung::Wss, Rung::Quic] {
            assert!(!ladder.on_worked(now + ALIVE - MS, rung, other));
            assert_eq!((ladder.won(), ladder.is_udp_blocked()), (None, false));
        }
        assert!(ladder.next_look().is_some(), "that peer's link may go back to UDP later");
        assert!(ladder.on_worked(now + ALIVE, Rung::Wss, other));
        assert!(ladder.is_udp_blocked());
        ladder.on_worked(now + ALIVE, Rung::Udp, relay());
        assert_eq!(ladder.won(), None, "the next that answers by UDP ends it");
        ladder.on_worked(now + ALIVE * 2, Rung::Wss, other);
        ladder.on_network(now + ALIVE * 2, None);
        assert_eq!(ladder.won(), None, "and so does another network");
    }

    #[test]
    fn udp_to_port_443_says_nothing_of_other_ports() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        let web = "8.8.4.4:443".parse().unwrap();
        ladder.on_worked(now, Rung::Wss, relay());
        assert!(!ladder.on_worked(now, Rung::Udp, web));
        assert!(ladder.is_udp_blocked());
        assert_eq!((ladder.plan(now, relay(), PEER), ladder.plan(now, web, PEER)), (plan(250, 0), Plan::default()));
    }

    #[test]
    fn strangers_are_tried_by_carriers_only_where_udp_is_blocked() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        assert_eq!(ladder.plan_for_stranger(now, relay(), PEER), Plan::default());
        ladder.on_worked(now, Rung::Wss, relay());
        assert_eq!(ladder.plan_for_stranger(now, relay(), PEER), plan(250, 0));
    }

    /// The next pauses of a ladder, in seconds.
    fn looks<const N: usize>(ladder: &mut Ladder, now: &mut Instant) -> [u64; N] {
        [(); N].map(|()| {
            let next = ladder.next_look().unwrap();
            assert!(!ladder.is_look_due(next - MS));
            let pause = next.duration_since(*now).as_secs();
            *now = next;
            assert!(ladder.is_look_due(*now));
            pause
        })
    }

    #[test]
    fn where_port_443_was_quicker_udp_is_looked_for_soon() {
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        ladder.on_worked(now, Rung::Quic, relay());
        assert_eq!(looks(&mut ladder, &mut now), [2, 30, 60]);
        ladder.on_worked(now, Rung::Udp, relay());
        assert!(!ladder.is_udp_blocked());
    }

    #[test]
    fn udp_is_looked_for_while_something_else_carries_less_and_less_often() {
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        assert!(!ladder.is_look_due(now), "nothing to get away from");
        ladder.on_worked(now, Rung::Wss, relay());
        assert_eq!(looks(&mut ladder, &mut now), [30, 30, 60, 120, 240, 300]);
        ladder.on_network(now, None);
        assert!(ladder.is_look_due(now), "another network, another chance");
        ladder.on_worked(now, Rung::Udp, relay());
        assert!(ladder.next_look().is_some(), "until nothing is carried");
        ladder.on_nothing_carried();
        assert!(ladder.next_look().is_none() && !ladder.is_look_due(now + LOOK_MOST));
    }

    #[test]
    fn where_udp_is_there_what_was_not_found_rests_longer_each_time() {
        let mut now = Instant::now();
        for carrier in [Carrier::Quic(relay().ip()), wss()] {
            let mut ladder = Ladder::default();
            ladder.on_worked(now, Rung::Udp, relay());
            now += FRESH;
            for rest in [20, 40, 80, 160, 320, 640, 1280, 1800, 1800] {
                ladder.on_failed(now, carrier);
                let rest = Duration::from_secs(rest);
                assert!(!is_tried(&ladder, now + rest - MS, carrier));
                now += rest;
                assert!(is_tried(&ladder, now, carrier));
            }
            ladder.on_failed(now, carrier);
            ladder.on_found(carrier);
            assert!(is_tried(&ladder, now, carrier));
        }
    }

    fn is_tried(ladder: &Ladder, now: Instant, carrier: Carrier) -> bool {
        let plan = ladder.plan(now, relay(), PEER);
        match carrier {
            Carrier::Quic(_) => plan.quic.is_some(),
            Carrier::Wss(..) => plan.wss.is_some(),
        }
    }

    #[test]
    fn where_udp_is_not_known_to_work_nothing_rests_for_long() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        let fails = |ladder: &mut Ladder| (0..9).for_each(|_| ladder.on_failed(now, wss()));
        let rests_till = |ladder: &Ladder, rest: Duration| {
            !is_tried(ladder, now + rest - MS, wss()) && is_tried(ladder, now + rest, wss())
        };
        fails(&mut ladder);
        assert!(rests_till(&ladder, REST_BLOCKED), "it may be all there is");
        ladder.on_network(now, Some(Rung::Wss));
        fails(&mut ladder);
        assert!(rests_till(&ladder, REST_BLOCKED), "it is all there was");
        ladder.on_worked(now, Rung::Udp, relay());
        assert!(rests_till(&ladder, REST_MOST));
        ladder.on_worked(now + ALIVE, Rung::Wss, relay());
        assert!(rests_till(&ladder, REST_BLOCKED), "UDP is gone again");
    }

    #[test]
    fn one_peer_s_server_that_is_not_there_lets_another_s_be_tried() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        ladder.on_failed(now, Carrier::Wss(relay().ip(), PeerId::from_bytes([8; 32])));
        assert!(is_tried(&ladder, now, wss()));
        ladder.on_failed(now, wss());
        assert!(!is_tried(&ladder, now, wss()) && is_tried(&ladder, now, Carrier::Quic(relay().ip())));
    }

    #[test]
    fn those_that_rest_are_bounded() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        for n in 0..5000u32 {
            ladder.on_failed(now, Carrier::Wss(IpAddr::V4(n.into()), PEER));
        }
        assert_eq!(ladder.resting.len(), MAX_RESTING);
        ladder.on_failed(now + REST, wss());
        assert_eq!(ladder.resting.len(), 1, "who has rested makes room");
    }
}
