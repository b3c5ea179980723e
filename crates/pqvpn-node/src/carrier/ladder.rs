// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which carrier is tried when: pure, time is an argument.
//!
//! UDP is always tried, and first or together with what worked in this network before. The other rungs get their turn only
//! while UDP has not been seen to work of late, and where they fail they rest, longer each time.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use pqvpn_dht::address::{Class, class};
use serde::{Deserialize, Serialize};

/// Head start of UDP over UDP to port 443, and over a WebSocket.
const BEFORE_QUIC: Duration = Duration::from_millis(250);
const BEFORE_WSS: Duration = Duration::from_secs(1);
/// UDP that worked so lately works still.
const FRESH: Duration = Duration::from_secs(60);
/// How often UDP is looked for while something else carries.
const LOOK: Duration = Duration::from_secs(30);
const LOOK_MOST: Duration = Duration::from_secs(300);
/// How long an address rests where no carrier was found: doubled each time.
const REST: Duration = Duration::from_secs(20);
const REST_MOST: Duration = Duration::from_secs(1800);
/// Addresses remembered for that.
const MAX_RESTING: usize = 1024;
/// The port of every rung but the first.
pub(crate) const PORT: u16 = 443;

/// A rung of the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

/// After what time the rungs above the first are tried in one dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Plan {
    pub(super) quic: Option<Duration>,
    pub(super) wss: Option<Duration>,
}

/// What is known of the network this host is in.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    /// When UDP last worked, to addresses of the internet and to others.
    udp_at: [Option<Instant>; 2],
    /// The rung that carried last where UDP did not.
    won: Option<Rung>,
    /// What worked in this network at an earlier time.
    remembered: Option<Rung>,
    resting: BTreeMap<IpAddr, (u32, Instant)>,
    look_at: Option<Instant>,
    looked: u32,
}

impl Ladder {
    /// What to try to reach `at`.
    pub(super) fn plan(&self, now: Instant, at: SocketAddr) -> Plan {
        if self.udp_at[kind(at)].is_some_and(|worked| now.saturating_duration_since(worked) < FRESH) {
            return Plan::default();
        }
        let known = self.won.or(self.remembered);
        let after = |rung, pause| if known == Some(rung) { Duration::ZERO } else { pause };
        let rests = self.resting.get(&at.ip()).is_some_and(|(_, until)| now < *until);
        Plan {
            quic: (at.port() != PORT).then(|| after(Rung::Quic, BEFORE_QUIC)),
            wss: (!rests).then(|| after(Rung::Wss, BEFORE_WSS)),
        }
    }

    /// A link was made on a rung; whether that is news to be remembered.
    pub(super) fn on_worked(&mut self, now: Instant, rung: Rung, at: SocketAddr) -> bool {
        self.resting.remove(&at.ip());
        let before = self.won.or(self.remembered);
        if rung == Rung::Udp {
            self.udp_at[kind(at)] = Some(now);
            // That a neighbour is reached says nothing of the internet.
            if kind(at) == 0 {
                (self.won, self.remembered, self.look_at, self.looked) = (None, None, None, 0);
            }
            return kind(at) == 0 && before.is_some();
        }
        if self.won.is_none() {
            (self.look_at, self.looked) = (Some(now + LOOK), 0);
        }
        self.won = Some(rung);
        before != Some(rung)
    }

    /// No WebSocket to an address.
    pub(super) fn on_failed(&mut self, now: Instant, at: IpAddr) {
        if self.resting.len() >= MAX_RESTING && !self.resting.contains_key(&at) {
            self.resting.retain(|_, (_, until)| *until > now);
            if self.resting.len() >= MAX_RESTING {
                return;
            }
        }
        let (times, until) = self.resting.entry(at).or_insert((0, now));
        *until = now + REST.saturating_mul(1 << (*times).min(8)).min(REST_MOST);
        *times += 1;
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
        let due = self.is_udp_blocked() && self.look_at.is_none_or(|at| now >= at);
        if due {
            self.look_at = Some(now + LOOK.saturating_mul(1 << self.looked.min(4)).min(LOOK_MOST));
            self.looked = self.looked.saturating_add(1);
        }
        due
    }

    /// When that is next.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.look_at.filter(|_| self.is_udp_blocked())
    }

    /// The host is in a network, maybe another one, where `remembered` worked at an earlier time.
    pub(super) fn on_network(&mut self, now: Instant, remembered: Option<Rung>) {
        // Links that go on over a carrier look for UDP at once.
        let won = self.won;
        *self = Self { remembered, won, look_at: won.map(|_| now), ..Self::default() };
    }
}

/// Which of the two kinds of places an address is at: what lets UDP out to a neighbour may not let it out further.
fn kind(at: SocketAddr) -> usize {
    usize::from(class(&at) != Class::Public)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn relay() -> SocketAddr {
        "8.8.4.4:41641".parse().unwrap()
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
        assert_eq!(ladder.plan(now, relay()), plan(250, 1000));
        assert_eq!(ladder.plan(now, "8.8.4.4:443".parse().unwrap()).quic, None, "that is the first rung");
        assert!(!ladder.on_worked(now, Rung::Udp, relay()), "no news");
        assert_eq!(ladder.plan(now + FRESH - MS, relay()), Plan::default());
        assert_eq!(ladder.plan(now + FRESH, relay()), plan(250, 1000));
    }

    #[test]
    fn udp_to_a_neighbour_says_nothing_of_the_internet() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        ladder.on_worked(now, Rung::Wss, relay());
        ladder.on_worked(now, Rung::Udp, near());
        assert_eq!(ladder.plan(now, near()), Plan::default());
        assert_eq!(ladder.plan(now, relay()), plan(250, 0));
        assert!(ladder.is_udp_blocked());
    }

    #[test]
    fn what_worked_before_is_tried_at_once_and_udp_takes_over_where_it_works() {
        let (mut ladder, now) = (Ladder::default(), Instant::now());
        ladder.on_network(now, Some(Rung::Wss));
        assert_eq!(ladder.plan(now, relay()), plan(250, 0));
        assert!(!ladder.is_udp_blocked(), "remembered is not known");
        assert!(!ladder.on_worked(now, Rung::Wss, relay()), "as remembered");
        assert!(ladder.is_udp_blocked());
        assert!(ladder.on_worked(now, Rung::Udp, relay()), "news");
        assert!(!ladder.is_udp_blocked() && ladder.won().is_none());
        assert_eq!(ladder.plan(now + FRESH, relay()), plan(250, 1000), "no longer remembered");
    }

    #[test]
    fn udp_is_looked_for_while_something_else_carries_less_and_less_often() {
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        assert!(!ladder.is_look_due(now), "nothing to get away from");
        ladder.on_worked(now, Rung::Wss, relay());
        let mut looks = Vec::new();
        for _ in 0..6 {
            let next = ladder.next_look().unwrap();
            assert!(!ladder.is_look_due(next - MS));
            looks.push(next.duration_since(now).as_secs());
            now = next;
            assert!(ladder.is_look_due(now));
        }
        assert_eq!(looks, [30, 30, 60, 120, 240, 300]);
        ladder.on_network(now, None);
        assert!(ladder.is_look_due(now), "another network, another chance");
        ladder.on_worked(now, Rung::Udp, relay());
        assert!(ladder.next_look().is_none() && !ladder.is_look_due(now + LOOK_MOST));
    }

    #[test]
    fn an_address_without_a_carrier_rests_longer_each_time_and_they_are_bounded() {
        let (mut ladder, mut now) = (Ladder::default(), Instant::now());
        for rest in [20, 40, 80, 160, 320, 640, 1280, 1800, 1800] {
            ladder.on_failed(now, relay().ip());
            let rest = Duration::from_secs(rest);
            assert!(ladder.plan(now + rest - MS, relay()).wss.is_none());
            now += rest;
            assert!(ladder.plan(now, relay()).wss.is_some());
        }
        ladder.on_worked(now, Rung::Wss, relay());
        assert!(ladder.resting.is_empty());
        for n in 0..5000u32 {
            ladder.on_failed(now, IpAddr::V4(n.into()));
        }
        assert_eq!(ladder.resting.len(), MAX_RESTING);
        ladder.on_failed(now + REST, relay().ip());
        assert_eq!(ladder.resting.len(), 1, "who has rested makes room");
    }
}
