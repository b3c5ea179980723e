// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which addresses may be dialled on another's word, and which addresses belong together.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The unit that one customer of a provider gets: /24 in IPv4, /48 in IPv6 (security.md 7.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    network: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The subnet of an address; IPv4 inside IPv6 counts as IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self::masked(address, 24, 48)
    }

    /// The unit that limits of use are counted for: the subnet of a public address, a private address alone.
    ///
    /// Inside a site a whole company may share one /24; its addresses are not what an attacker has to buy there.
    #[must_use]
    pub fn billed(address: IpAddr) -> Self {
        if class_of(address) == Class::Public { Self::of(address) } else { Self::masked(address, 32, 128) }
    }

    fn masked(address: IpAddr, v4: u8, v6: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(v4)).unwrap_or(0);
                Self { network: Ipv4Addr::from_bits(ip.to_bits() & mask).into(), prefix: v4 }
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(v6)).unwrap_or(0);
                Self { network: Ipv6Addr::from_bits(ip.to_bits() & mask).into(), prefix: v6 }
            }
        }
    }

    /// Family, network and prefix length, the one way to write a subnet into a hash.
    pub(crate) fn to_bytes(self) -> [u8; 18] {
        let mut bytes = [0; 18];
        let (family, network) = match self.network {
            IpAddr::V4(ip) => (4, ip.to_ipv6_mapped()),
            IpAddr::V6(ip) => (6, ip),
        };
        bytes[0] = family;
        bytes[1] = self.prefix;
        bytes[2..].copy_from_slice(&network.octets());
        bytes
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subnet({self})")
    }
}

/// The unit that one provider gets: /16 in IPv4, /32 in IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wide(Subnet);

impl Wide {
    /// The wide subnet of an address; IPv4 inside IPv6 counts as IPv4.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(Subnet::masked(address, 16, 32))
    }
}

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wide({self})")
    }
}

/// Who can reach an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Everybody on the internet.
    Public,
    /// Who is at the same site (RFC 1918, RFC 4193) or behind the same provider (RFC 6598).
    Private,
    /// Nobody, or only this machine or this wire.
    Refused(Why),
}

/// Why an address is never dialled on another's word (RFC 6890, RFC 8190 and the registries they set up).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// Port 0.
    #[error("port 0")]
    PortZero,
    /// 0.0.0.0/8 or `::`.
    #[error("unspecified")]
    Unspecified,
    /// 127.0.0.0/8 or `::1`.
    #[error("loopback")]
    Loopback,
    /// 169.254.0.0/16 or `fe80::/10`.
    #[error("link-local")]
    LinkLocal,
    /// 224.0.0.0/4 or `ff00::/8`.
    #[error("multicast")]
    Multicast,
    /// 255.255.255.255.
    #[error("broadcast")]
    Broadcast,
    /// Written in books only: RFC 5737, RFC 3849, RFC 9637.
    #[error("documentation")]
    Documentation,
    /// 198.18.0.0/15 or `2001:2::/48`.
    #[error("benchmarking")]
    Benchmarking,
    /// Means something to a translator only: NAT64, 6to4, Teredo.
    #[error("translation")]
    Translation,
    /// Not given to anybody.
    #[error("reserved")]
    Reserved,
}

/// Classifies an address for dialling.
#[must_use]
pub fn class(address: &SocketAddr) -> Class {
    if address.port() == 0 { Class::Refused(Why::PortZero) } else { class_of(address.ip()) }
}

/// Classifies an IP address; IPv4 inside IPv6 counts as IPv4.
#[must_use]
pub fn class_of(address: IpAddr) -> Class {
    match address.to_canonical() {
        IpAddr::V4(ip) => class_v4(ip),
        IpAddr::V6(ip) => class_v6(ip),
    }
}

fn class_v4(ip: Ipv4Addr) -> Class {
    let refused = match ip.octets() {
        [0, ..] => Why::Unspecified,
        [127, ..] => Why::Loopback,
        [169, 254, ..] => Why::LinkLocal,
        [255, 255, 255, 255] => Why::Broadcast,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Why::Documentation,
        [198, 18 | 19, ..] => Why::Benchmarking,
        [192, 88, 99, _] => Why::Translation,
        [192, 0, 0, _] | [240..=255, ..] => Why::Reserved,
        [224..=239, ..] => Why::Multicast,
        _ if scope(ip.into()).is_some() => return Class::Private,
        _ => return Class::Public,
    };
    Class::Refused(refused)
}

fn class_v6(ip: Ipv6Addr) -> Class {
    let refused = match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Why::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Why::Loopback,
        [0xff00..=0xffff, ..] => Why::Multicast,
        [0xfe80..=0xfebf, ..] => Why::LinkLocal,
        [0xfc00..=0xfdff, ..] => return Class::Private,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Why::Documentation,
        [0x2001, 2, 0, ..] => Why::Benchmarking,
        [0x2001, 0, ..] | [0x2002, ..] | [0x64, 0xff9b, ..] => Why::Translation,
        [0x2001, 1..=0x1ff, ..] => Why::Reserved,
        [0x2000..=0x3fff, ..] => return Class::Public,
        _ => Why::Reserved,
    };
    Class::Refused(refused)
}

/// How far a private address means the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// One site: RFC 1918 and RFC 4193.
    Site,
    /// The customers of one provider's address sharing: RFC 6598.
    Provider,
}

fn scope(address: IpAddr) -> Option<Scope> {
    match address.to_canonical() {
        IpAddr::V4(ip) => match ip.octets() {
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(Scope::Site),
            [100, 64..=127, ..] => Some(Scope::Provider),
            _ => None,
        },
        IpAddr::V6(ip) => matches!(ip.segments(), [0xfc00..=0xfdff, ..]).then_some(Scope::Site),
    }
}

/// What kind of underlay the DHT runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Realm {
    /// The internet: private addresses count only from somebody at one.
    #[default]
    Open,
    /// A network of one's own: private addresses count from everybody.
    Private,
    /// One machine, or a laboratory: loopback, documentation and benchmarking addresses count as well.
    Lab,
}

/// Where a claim about addresses comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// The underlay.
    pub realm: Realm,
    /// The address of whoever says so, as this node sees it; `None`: unknown, trusted least.
    pub told_by: Option<IpAddr>,
}

/// The word of somebody at this address, on the open DHT.
impl From<Option<IpAddr>> for Origin {
    fn from(told_by: Option<IpAddr>) -> Self {
        Self { realm: Realm::Open, told_by }
    }
}

impl Origin {
    /// Judges one address.
    ///
    /// # Errors
    /// [`AddressRefusal`]: it must not be dialled on this one's word.
    pub fn judge(&self, address: &SocketAddr) -> Result<(), AddressRefusal> {
        match class(address) {
            Class::Public => Ok(()),
            Class::Private => {
                let told = self.told_by.and_then(scope);
                let known = self.realm != Realm::Open || (told.is_some() && told == scope(address.ip()));
                if known { Ok(()) } else { Err(AddressRefusal::Private) }
            }
            Class::Refused(Why::Loopback | Why::Documentation | Why::Benchmarking) if self.realm == Realm::Lab => {
                Ok(())
            }
            Class::Refused(why) => Err(AddressRefusal::Bogon(why)),
        }
    }

    /// Judges a list: one bad address spoils it.
    ///
    /// # Errors
    /// The refusal of the first bad address.
    pub fn judge_all(&self, addresses: &[SocketAddr]) -> Result<(), AddressRefusal> {
        addresses.iter().try_for_each(|address| self.judge(address))
    }
}

/// Why an address must not be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AddressRefusal {
    /// A private address from somebody who is not at one of the same kind.
    #[error("a private address, told from elsewhere")]
    Private,
    /// An address that nobody else can be reached at.
    #[error("an address that is not dialled: {0}")]
    Bogon(Why),
}

/// Judges the addresses of a contact on the open DHT; private ones count only from somebody at a private address.
///
/// # Errors
/// The refusal of the first bad address.
pub fn acceptable(addresses: &[SocketAddr], told_by: Option<IpAddr>) -> Result<(), AddressRefusal> {
    Origin::from(told_by).judge_all(addresses)
}

#[cfg(test)]
mod tests;
