// SPDX-License-Identifier: MIT OR Apache-2.0
//! Routers that translate addresses, of every kind that matters, as `nft` rules (testing.md 3).
//!
//! Terms are RFC 4787's: *mapping* says on what the outside port depends that an inside socket gets, *filtering* says
//! from whom a packet to that port comes through.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

use crate::impair::ImpairError;
use crate::netns::NetnsError;
use crate::process::ProcessError;
use crate::topology::TopologyError;

mod forwarding;
mod guess;
mod measure;
mod punch;
mod site;

pub use forwarding::{Asking, Forwarding};
pub use guess::{Guess, guess};
pub use measure::{Behaviour, Dependence, hairpins, measure, poison};
pub use punch::{Punch, punch};
pub use site::{Router, Site};

/// Name of a router's interface to the outside.
pub const WAN: &str = "eth0";
/// Name of a router's interface to the inside.
pub const LAN: &str = "lan0";

/// Why there is no such router.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatError {
    /// A kind nobody knows.
    #[error("no NAT kind {0:?}; there are: {all}", all = Kind::ALL.map(Kind::name).join(", "))]
    UnknownKind(String),
    /// A way to ask routers that nobody knows.
    #[error("routers are not asked by {0:?}, but by {all}", all = Asking::ALL.map(Asking::name).join(", "))]
    UnknownAsking(String),
    /// A process of a router.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// An option that this kind cannot have.
    #[error("a {kind} NAT cannot have {option}")]
    Option {
        /// The kind asked for.
        kind: Kind,
        /// The option asked for.
        option: &'static str,
    },
    /// The namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Links, addresses or routes.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The rules.
    #[error(transparent)]
    Rules(#[from] ImpairError),
    /// A socket of a measurement.
    #[error("measuring: {0}")]
    Socket(#[from] std::io::Error),
    /// What a measurement needs did not come.
    #[error("measuring: no answer to {0}")]
    Silent(&'static str),
}

/// A kind of router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One outside port per inside socket, open to everybody.
    FullCone,
    /// The same, open to addresses that were sent to.
    AddressRestricted,
    /// The same, open to sockets that were sent to; packets from others change nothing.
    PortRestricted,
    /// Plain `masquerade`: port-restricted, but a packet that comes too early takes the outside port away.
    Masquerade,
    /// `masquerade` as home routers have it, dropping what comes uninvited.
    Home,
    /// Another random outside port for each destination.
    Symmetric,
    /// A home router behind the provider's own translation (CGNAT).
    Double,
}

impl Kind {
    /// All of them, easiest first.
    pub const ALL: [Self; 7] = [
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Masquerade,
        Self::Home,
        Self::Symmetric,
        Self::Double,
    ];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Masquerade => "masquerade",
            Self::Home => "home",
            Self::Symmetric => "symmetric",
            Self::Double => "double",
        }
    }

    /// How it maps and filters, unless poisoned.
    #[must_use]
    pub const fn behaviour(self) -> (Dependence, Dependence) {
        match self {
            Self::FullCone => (Dependence::Endpoint, Dependence::Endpoint),
            Self::AddressRestricted => (Dependence::Endpoint, Dependence::Address),
            Self::PortRestricted | Self::Masquerade | Self::Home | Self::Double => {
                (Dependence::Endpoint, Dependence::AddressAndPort)
            }
            Self::Symmetric => (Dependence::AddressAndPort, Dependence::AddressAndPort),
        }
    }

    /// How many routers stand between a host and the internet.
    #[must_use]
    pub const fn depth(self) -> u32 {
        match self {
            Self::Double => 2,
            Self::FullCone
            | Self::AddressRestricted
            | Self::PortRestricted
            | Self::Masquerade
            | Self::Home
            | Self::Symmetric => 1,
        }
    }

    /// Whether one map of ports, and not connection tracking, decides.
    const fn has_map(self) -> bool {
        matches!(self, Self::FullCone | Self::AddressRestricted | Self::PortRestricted)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = NatError;

    fn from_str(text: &str) -> Result<Self, NatError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| NatError::UnknownKind(text.to_owned()))
    }
}

/// What a router may have beside its kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether inside hosts reach each other at their outside addresses; only where one map decides.
    pub hairpin: bool,
    /// Seconds that a UDP flow is remembered, unanswered and answered; the kernel's without.
    pub udp_timeout_s: Option<(u32, u32)>,
    /// The outside ports of UDP; only where connection tracking decides.
    pub ports: Option<(u16, u16)>,
}

/// The rules of one router whose outside is `wan` and whose inside is `lan`.
///
/// # Errors
/// [`NatError::Option`] for what the kind cannot have.
pub fn ruleset(kind: Kind, wan: Ipv4Addr, lan: Ipv4Net, options: &Options) -> Result<String, NatError> {
    if options.hairpin && !kind.has_map() {
        return Err(NatError::Option { kind, option: "hairpin" });
    }
    if options.ports.is_some() && kind.has_map() {
        return Err(NatError::Option { kind, option: "a range of ports" });
    }
    let nat = if kind.has_map() { mapped(wan, lan, options.hairpin) } else { masqueraded(kind, options.ports) };
    Ok(nat + &filter(kind))
}

/// Translation by a map from outside port to inside socket, made by what is sent.
fn mapped(wan: Ipv4Addr, lan: Ipv4Net, hairpin: bool) -> String {
    let learn = "meta l4proto udp update @cone { udp sport timeout 300s : ip saddr . udp sport }";
    let inside = format!("ip saddr {lan} ip daddr {lan} ct status dnat");
    let hairpin = if hairpin { format!("  {inside} {learn}\n  {inside} snat to {wan}\n") } else { String::new() };
    // A packet of an inside host to somebody else's port of the same number is not for this map.
    let inbound = if hairpin.is_empty() { format!("iifname \"{WAN}\"") } else { format!("ip daddr {wan}") };
    format!(
        "table ip nat {{\n map cone {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; \
         timeout 300s; size 65536; }}\n \
         chain pre {{\n  type nat hook prerouting priority dstnat; policy accept;\n  \
         {inbound} meta l4proto udp dnat ip to udp dport map @cone\n }}\n \
         chain post {{\n  type nat hook postrouting priority srcnat; policy accept;\n{hairpin}  \
         oifname \"{WAN}\" {learn}\n  oifname \"{WAN}\" snat to {wan}\n }}\n}}\n"
    )
}

/// Translation by connection tracking.
fn masqueraded(kind: Kind, ports: Option<(u16, u16)>) -> String {
    let random = if kind == Kind::Symmetric { " random" } else { "" };
    let udp = ports.map_or_else(String::new, |(first, last)| {
        format!("  oifname \"{WAN}\" meta l4proto udp masquerade to :{first}-{last}{random}\n")
    });
    format!(
        "table ip nat {{\n chain post {{\n  type nat hook postrouting priority srcnat; policy accept;\n{udp}  \
         oifname \"{WAN}\" masquerade{random}\n }}\n}}\n"
    )
}

/// Who is let in.
fn filter(kind: Kind) -> String {
    let (seen, forward) = match kind {
        Kind::FullCone => return String::new(),
        Kind::AddressRestricted => (
            " set seen { type ipv4_addr . inet_service . ipv4_addr; flags dynamic,timeout; timeout 300s; size 65536; }\n",
            format!(
                "  oifname \"{WAN}\" meta l4proto udp update @seen {{ ip saddr . udp sport . ip daddr }} accept\n  \
                 iifname \"{WAN}\" meta l4proto udp ip daddr . udp dport . ip saddr @seen accept\n"
            ),
        ),
        Kind::PortRestricted | Kind::Masquerade | Kind::Home | Kind::Symmetric | Kind::Double => ("", String::new()),
    };
    // Without this, a packet to a port that nobody has yet is tracked, and the port is taken when it is wanted.
    let input = match kind {
        Kind::Home | Kind::Symmetric | Kind::Double => format!(
            " chain cin {{\n  type filter hook input priority 0; policy accept;\n  \
             iifname \"{WAN}\" ct state new meta l4proto udp drop\n }}\n"
        ),
        Kind::FullCone | Kind::AddressRestricted | Kind::PortRestricted | Kind::Masquerade => String::new(),
    };
    format!(
        "table ip filter {{\n{seen} chain cfwd {{\n  type filter hook forward priority 0; policy accept;\n{forward}  \
         iifname \"{WAN}\" ct state established,related accept\n  iifname \"{WAN}\" drop\n }}\n{input}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
        }
        let error = "cone".parse::<Kind>().unwrap_err().to_string();
        assert!(error.contains("full-cone") && error.contains("double"), "{error}");
    }

    #[test]
    fn options_that_a_kind_cannot_have_are_refused() {
        let (wan, lan) = (Ipv4Addr::new(20, 7, 1, 2), "192.168.1.0/24".parse().unwrap());
        let hairpin = Options { hairpin: true, ..Options::default() };
        let ports = Options { ports: Some((20_000, 29_999)), ..Options::default() };
        for kind in Kind::ALL {
            assert_eq!(ruleset(kind, wan, lan, &hairpin).is_ok(), kind.has_map(), "{kind}");
            assert_eq!(ruleset(kind, wan, lan, &ports).is_ok(), !kind.has_map(), "{kind}");
        }
    }
}
