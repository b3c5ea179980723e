// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this network allows, as far as the node knows: reports for `status` and `netcheck`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dht::address::{Class, class};

use crate::carrier::Rung;

const UDP: &str = Rung::Udp.name();
const WSS: &str = Rung::Wss.name();

/// How a router was asked to let a port through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MappingProtocol {
    /// Port Control Protocol, RFC 6887.
    Pcp,
    /// NAT Port Mapping Protocol, RFC 6886.
    NatPmp,
    /// Internet Gateway Device of UPnP.
    Upnp,
}

impl MappingProtocol {
    /// As people know it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        }
    }
}

/// How the router's port mapping stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MappingState {
    /// Switched off in the configuration.
    #[default]
    Off,
    /// The node is down.
    Paused,
    /// Not needed: this host is not behind a translating router, or listens to itself only.
    NotNeeded,
    /// There is no default route with a router.
    NoRouter,
    /// The router is being asked.
    Asking,
    /// The router forwards a port to this node.
    Mapped,
    /// The router speaks none of the protocols, or refused.
    Refused,
}

impl MappingState {
    /// Stable name for scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Paused => "paused",
            Self::NotNeeded => "not-needed",
            Self::NoRouter => "no-router",
            Self::Asking => "asking",
            Self::Mapped => "mapped",
            Self::Refused => "refused",
        }
    }
}

/// The port mapping of this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MappingReport {
    /// How it stands.
    pub state: MappingState,
    /// The router that was asked.
    pub router: Option<IpAddr>,
    /// How the router was asked, if it forwards.
    pub protocol: Option<MappingProtocol>,
    /// The outside address that the router forwards.
    pub external: Option<SocketAddr>,
    /// Whether everybody can have a use for that address: it is no private one.
    pub public: bool,
    /// How long the router keeps it without being asked again.
    pub lifetime: Option<Duration>,
    /// How long ago the router said so.
    pub age: Option<Duration>,
    /// Answers with addresses that cannot be this router's outside.
    pub lies: u64,
    /// Why there is none, for people.
    pub why: Option<String>,
}

/// A member this node has a link with, as its networks see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberLink {
    /// Who.
    pub peer: PeerId,
    /// What people call it.
    pub name: String,
    /// Where it is; none: through another member.
    pub at: Option<SocketAddr>,
    /// What carries the link: `udp`, `quic` (UDP port 443) or `wss`.
    pub carrier: &'static str,
    /// Whether it dialled us.
    pub inbound: bool,
    /// Round-trip time of the link.
    pub rtt: Duration,
    /// Since the link was used last.
    pub idle: Duration,
    /// What it said it forwards for a pair, in bytes a second, and how long ago; 0: introductions only.
    pub forwards: Option<(u64, Duration)>,
}

/// Where members see this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outside {
    /// The address.
    pub address: SocketAddr,
    /// How many see it.
    pub seen_by: usize,
    /// Since one of them said so.
    pub age: Duration,
}

/// Everything `netcheck` is made of.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether the node is up.
    pub up: bool,
    /// Whether it is in a network.
    pub in_network: bool,
    /// Sockets it listens on.
    pub listen: Vec<SocketAddr>,
    /// Addresses of this host's interfaces that others may try.
    pub interfaces: Vec<SocketAddr>,
    /// Where members see it.
    pub outside: Vec<Outside>,
    /// Whether members at different addresses see different ports.
    pub varies: bool,
    /// The port mapping.
    pub mapping: MappingReport,
    /// Links with members.
    pub links: Vec<MemberLink>,
    /// Inner MTU, if there is a session.
    pub mtu: Option<u16>,
    /// Whether that is less than the interfaces of both ends take.
    pub narrow: bool,
}

/// Something `netcheck` found, how, and how long ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A stable word for scripts.
    pub value: &'static str,
    /// How it was learnt, or why it is not known.
    pub learnt: String,
    /// Since then.
    pub age: Option<Duration>,
}

/// What this network allows.
#[derive(Debug, Clone)]
pub struct NetReport {
    /// Whether UDP gets through: `yes`, `no` or `unknown`.
    pub udp: Finding,
    /// Whether TCP to port 443 leads to a member: `yes` or `unknown`.
    pub tcp443: Finding,
    /// Whether the NAT keeps one port for all: `none`, `same`, `varies` or `unknown`.
    pub nat: Finding,
    /// Who is let in: `open` or `unknown`.
    pub filtering: Finding,
    /// Whether IPv6 works: `yes`, `address-only` or `no`.
    pub ipv6: Finding,
    /// What the inner MTU rests on: `session` or `unknown`.
    pub mtu: Finding,
    /// What all of that was found from.
    pub facts: Facts,
    /// What would help, one line each.
    pub hints: Vec<String>,
}

impl NetReport {
    /// Draws conclusions, and says of each how.
    #[must_use]
    pub fn of(facts: Facts) -> Self {
        let (udp, nat, filtering) = (facts.udp(), facts.nat(), facts.filtering());
        let hints = facts.hints(nat.value);
        Self { udp, tcp443: facts.tcp443(), nat, filtering, ipv6: facts.ipv6(), mtu: facts.mtu(), facts, hints }
    }
}

fn unknown(learnt: &str) -> Finding {
    Finding { value: "unknown", learnt: learnt.to_owned(), age: None }
}

impl Facts {
    /// Links by UDP, through nobody.
    fn direct(&self) -> impl Iterator<Item = (&MemberLink, SocketAddr)> {
        let by_udp = self.links.iter().filter(|link| link.carrier == UDP);
        by_udp.filter_map(|link| Some((link, link.at?)))
    }

    /// The links that we dialled by a carrier.
    fn carried(&self) -> impl Iterator<Item = (&MemberLink, SocketAddr)> {
        let carried = self.links.iter().filter(|link| link.carrier != UDP && !link.inbound);
        carried.filter_map(|link| Some((link, link.at?)))
    }

    fn tcp443(&self) -> Finding {
        match self.carried().find(|(link, _)| link.carrier == WSS) {
            Some((link, at)) => {
                let learnt = format!("{} answers by a WebSocket at {at}", link.name);
                Finding { value: "yes", learnt, age: Some(link.idle) }
            }
            None => unknown("not tried: it is where UDP does not get through"),
        }
    }

    fn udp(&self) -> Finding {
        match self.direct().min_by_key(|(link, _)| link.idle) {
            Some((link, at)) => {
                let learnt = format!("{} answers at {at}", link.name);
                Finding { value: "yes", learnt, age: Some(link.idle) }
            }
            None => match self.carried().next() {
                Some((link, at)) => {
                    let learnt = format!("{} is reached by {} alone, at {at}", link.name, link.carrier);
                    Finding { value: "no", learnt, age: Some(link.idle) }
                }
                None => unknown("no member is linked directly: nobody answers who could tell"),
            },
        }
    }

    /// Sights of the IPv4 outside, by members that are not on the same wire.
    fn sights(&self) -> impl Iterator<Item = &Outside> {
        self.outside.iter().filter(|seen| seen.address.is_ipv4() && class(&seen.address) == Class::Public)
    }

    fn nat(&self) -> Finding {
        let age = self.sights().map(|seen| seen.age).min();
        let observers: usize = self.sights().map(|seen| seen.seen_by).sum();
        if let Some(own) = self.sights().find(|seen| self.interfaces.contains(&seen.address)) {
            let learnt = format!("members see {}, which is an address of this host", own.address);
            return Finding { value: "none", learnt, age };
        }
        match observers {
            _ if self.varies => {
                let learnt = format!("{observers} members see different ports: each peer gets another one");
                Finding { value: "varies", learnt, age }
            }
            0 => unknown("no member on the internet has said where it sees this node"),
            1 => Finding { age, ..unknown("one member alone has said where it sees this node; it takes two") },
            _ => Finding { value: "same", learnt: format!("{observers} members see the same port"), age },
        }
    }

    fn filtering(&self) -> Finding {
        let public = |at: &SocketAddr| class(at) == Class::Public;
        let mut inbound = self.direct().filter(|(link, at)| link.inbound && public(at));
        match inbound.next() {
            Some((link, at)) => {
                let learnt = format!("{} dialled in from {at}", link.name);
                Finding { value: "open", learnt, age: Some(link.idle) }
            }
            None => unknown("no member on the internet has dialled in; that tells nothing about the rest"),
        }
    }

    fn ipv6(&self) -> Finding {
        let has = self.interfaces.iter().any(|at| at.is_ipv6() && class(at) == Class::Public);
        let linked = self.direct().find(|(_, at)| at.is_ipv6() && class(at) == Class::Public);
        match (has, linked) {
            (_, Some((link, at))) => {
                let learnt = format!("{} answers at {at}", link.name);
                Finding { value: "yes", learnt, age: Some(link.idle) }
            }
            (true, None) => {
                let learnt = "this host has a global address; no member is linked over IPv6".to_owned();
                Finding { value: "address-only", learnt, age: Some(Duration::ZERO) }
            }
            (false, None) => {
                let learnt = "no interface of this host has a global address".to_owned();
                Finding { value: "no", learnt, age: Some(Duration::ZERO) }
            }
        }
    }

    fn mtu(&self) -> Finding {
        match self.mtu {
            Some(mtu) => {
                let learnt = if self.narrow {
                    format!(
                        "a path carries packets of {mtu} bytes whole, as probes found out; longer ones go in pieces"
                    )
                } else {
                    format!("paths carry packets of {mtu} bytes whole, which needs {} outside", u32::from(mtu) + 80)
                };
                Finding { value: "session", learnt, age: Some(Duration::ZERO) }
            }
            None => unknown("there is no session"),
        }
    }

    fn hints(&self, nat: &str) -> Vec<String> {
        let mut hints = Vec::new();
        let mut say = |text: &str| hints.push(text.to_owned());
        if !self.up {
            say("the node is down: `pqvpn up`");
        } else if !self.in_network {
            say(
                "this node is in no network, so nobody tells where it is seen: `pqvpn join CODE` or `pqvpn net create`",
            );
        } else if self.links.is_empty() {
            say(
                "no member is linked: all others are off, or this network lets no UDP out (a captive portal, a firewall); \
                 look whether a browser gets to a page of your choice, and try another network",
            );
        }
        let port = self.listen.iter().find(|at| at.is_ipv4()).map_or(0, SocketAddr::port);
        let mapped = self.mapping.state == MappingState::Mapped;
        if mapped && !self.mapping.public {
            say(
                "the router has a private address outside: another NAT is before it (the provider's, or a second router)",
            );
        }
        if self.mapping.lies > 0 {
            say("a device claimed outside addresses that cannot be; none of them is used");
        }
        if nat == "varies" && !mapped {
            hints.push(format!(
                "this NAT gives every peer another port: enable UPnP, NAT-PMP or PCP on the router, or forward UDP {port}"
            ));
        }
        hints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(n: u8, at: &str, inbound: bool) -> MemberLink {
        MemberLink {
            peer: PeerId::from_bytes([n; 32]),
            name: format!("m{n}"),
            at: at.parse().ok(),
            carrier: "udp",
            inbound,
            rtt: Duration::from_millis(10),
            idle: Duration::from_secs(u64::from(n)),
            forwards: None,
        }
    }

    fn seen(address: &str, seen_by: usize) -> Outside {
        Outside { address: address.parse().expect("an address"), seen_by, age: Duration::from_secs(3) }
    }

    fn up() -> Facts {
        Facts { up: true, in_network: true, listen: vec!["0.0.0.0:41641".parse().expect("it")], ..Facts::default() }
    }

    #[test]
    fn without_a_member_nothing_is_claimed_and_what_helps_is_said() {
        let report = NetReport::of(up());
        for finding in [&report.udp, &report.nat, &report.filtering, &report.mtu] {
            assert_eq!((finding.value, finding.age), ("unknown", None), "{finding:?}");
        }
        assert!(report.hints[0].contains("captive portal"), "{:?}", report.hints);
        let alone = NetReport::of(Facts { in_network: false, ..up() });
        assert!(alone.hints[0].contains("pqvpn join"), "{:?}", alone.hints);
    }

    #[test]
    fn one_observer_does_not_tell_what_a_nat_does() {
        let facts = |outside, varies| Facts { outside, varies, links: vec![link(1, "20.1.1.1:5", false)], ..up() };
        assert_eq!(NetReport::of(facts(vec![seen("20.9.9.9:7", 1)], false)).nat.value, "unknown");
        assert_eq!(NetReport::of(facts(vec![seen("20.9.9.9:7", 2)], false)).nat.value, "same");
        let varies = NetReport::of(facts(vec![seen("20.9.9.9:7", 1), seen("20.9.9.9:8", 1)], true));
        assert_eq!(varies.nat.value, "varies");
        assert!(varies.hints.iter().any(|hint| hint.contains("forward UDP 41641")), "{:?}", varies.hints);
        // Who is on the same wire sees no outside.
        assert_eq!(NetReport::of(facts(vec![seen("192.168.1.5:7", 2)], false)).nat.value, "unknown");
    }

    #[test]
    fn a_host_that_is_seen_at_its_own_address_has_no_nat() {
        let own: SocketAddr = "20.9.9.9:41641".parse().expect("an address");
        let facts = Facts { interfaces: vec![own], outside: vec![seen("20.9.9.9:41641", 1)], ..up() };
        assert_eq!(NetReport::of(facts).nat.value, "none");
    }

    #[test]
    fn only_who_dialled_in_from_outside_proves_that_the_door_is_open() {
        let facts = |links| Facts { links, ..up() };
        let report = NetReport::of(facts(vec![link(1, "20.1.1.1:5", false), link(2, "192.168.1.3:5", true)]));
        assert_eq!((report.udp.value, report.filtering.value), ("yes", "unknown"));
        let report = NetReport::of(facts(vec![link(3, "20.1.1.1:5", true)]));
        assert_eq!(report.filtering.value, "open");
        assert!(report.filtering.learnt.contains("m3 dialled in from 20.1.1.1:5"));
        // A link through another member proves nothing of this network.
        let relayed = NetReport::of(facts(vec![link(4, "", true)]));
        assert_eq!((relayed.udp.value, relayed.filtering.value), ("unknown", "unknown"));
    }

    #[test]
    fn who_is_reached_by_a_carrier_says_that_udp_does_not_get_through() {
        let carried = |inbound| MemberLink { carrier: "wss", ..link(1, "20.1.1.1:443", inbound) };
        let report = NetReport::of(Facts { links: vec![carried(false)], ..up() });
        assert_eq!((report.udp.value, report.tcp443.value, report.filtering.value), ("no", "yes", "unknown"));
        // That the other end's network lets no UDP out says nothing of this one.
        let report = NetReport::of(Facts { links: vec![carried(true)], ..up() });
        assert_eq!((report.udp.value, report.tcp443.value, report.filtering.value), ("unknown", "unknown", "unknown"));
        let report = NetReport::of(Facts { links: vec![carried(false), link(2, "20.1.1.1:5", false)], ..up() });
        assert_eq!((report.udp.value, report.tcp443.value), ("yes", "yes"));
    }

    #[test]
    fn a_private_outside_and_a_lying_device_are_named() {
        let mapping = MappingReport { state: MappingState::Mapped, lies: 1, ..MappingReport::default() };
        let hints = NetReport::of(Facts { mapping, links: vec![link(1, "20.1.1.1:5", false)], ..up() }).hints;
        assert!(hints[0].contains("another NAT") && hints[1].contains("cannot be"), "{hints:?}");
    }
}
