// SPDX-License-Identifier: MIT OR Apache-2.0
//! The subnet a contact is counted under, packed into one word.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use pqvpn_wire::dht::Contact;

/// Marks IPv4; IPv6 keeps its top 48 bits below it.
const V4: u64 = 1 << 63;
/// An address nobody on the open network can have: no subnet cap, but a cap of its own.
const PRIVATE: u64 = 1 << 62;

/// A /24 of IPv4 or a /48 of IPv6, or "private".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Net(u64);

impl Net {
    /// The subnet of the contact's first address; a contact without one counts as private.
    pub(crate) fn of(contact: &Contact) -> Self {
        contact.addresses().first().map_or(Self(PRIVATE), Self::of_address)
    }

    fn of_address(address: &SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) if ip.is_private() || ip.is_loopback() || ip.is_link_local() => Self(PRIVATE),
            IpAddr::V4(ip) => Self(V4 | u64::from(u32::from(ip) >> 8)),
            IpAddr::V6(ip) if is_private_v6(&ip) => Self(PRIVATE),
            IpAddr::V6(ip) => Self(top_48(&ip)),
        }
    }

    /// Whether only a private network can have this address.
    pub(crate) const fn is_private(self) -> bool {
        self.0 == PRIVATE
    }

    /// The /16 of IPv4 or the /32 of IPv6 around it.
    pub(crate) const fn wide(self) -> Self {
        if self.0 & V4 == 0 { Self(self.0 >> 16) } else { Self(V4 | (self.0 & !V4) >> 8) }
    }
}

const fn is_private_v6(ip: &Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
}

fn top_48(ip: &Ipv6Addr) -> u64 {
    let [a, b, c, ..] = ip.segments();
    u64::from(a) << 32 | u64::from(b) << 16 | u64::from(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Net {
        Net::of_address(&text.parse().expect("an address"))
    }

    #[test]
    fn neighbours_share_a_subnet_and_strangers_do_not() {
        assert_eq!(net("198.51.100.1:1"), net("198.51.100.254:9"));
        assert_ne!(net("198.51.100.1:1"), net("198.51.101.1:1"));
        assert_eq!(net("198.51.100.1:1").wide(), net("198.51.7.1:1").wide());
        assert_ne!(net("198.51.100.1:1").wide(), net("198.50.100.1:1").wide());
        assert_eq!(net("[2a00:1:2:3::1]:1"), net("[2a00:1:2:ffff::9]:1"));
        assert_ne!(net("[2a00:1:2::1]:1"), net("[2a00:1:3::1]:1"));
        assert_eq!(net("[2a00:1:2::1]:1").wide(), net("[2a00:1:3::1]:1").wide());
        assert_ne!(net("[2a00:1:2::1]:1").wide(), net("[2a00:2:3::1]:1").wide());
        assert_eq!(net("[::ffff:198.51.100.1]:1"), net("198.51.100.7:1"), "a mapped address is an IPv4 address");
        for private in ["10.1.2.3:1", "192.168.0.1:1", "172.16.0.1:1", "127.0.0.1:1", "[fd00::1]:1", "[fe80::1]:1"] {
            assert!(net(private).is_private(), "{private}");
        }
        assert!(!net("100.128.0.1:1").is_private());
    }
}
