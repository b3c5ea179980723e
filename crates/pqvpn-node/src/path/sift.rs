// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which of the addresses that a peer names are worth a check: nobody is made to send to a place of the peer's choosing
//! that no peer can have.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pqvpn_dataplane::way::WayId;
use pqvpn_wire::control::MAX_CANDIDATES;

/// What is left of a list of candidates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sifted {
    /// Those that may be tried, in the order given.
    pub(crate) usable: Vec<SocketAddr>,
    /// How many were refused.
    pub(crate) refused: u64,
}

/// Sifts candidates. `inside`: whether an address belongs to the overlay or to this host itself; `lab`: this node listens
/// on loopback only, so its peers do as well.
pub(crate) fn sift(told: &[SocketAddr], lab: bool, inside: impl Fn(IpAddr) -> bool) -> Sifted {
    let mut sifted = Sifted::default();
    for &at in told {
        let fits = is_possible(at, lab) && !inside(at.ip());
        if fits && sifted.usable.len() < MAX_CANDIDATES && !sifted.usable.contains(&at) {
            sifted.usable.push(at);
        } else {
            sifted.refused += 1;
        }
    }
    sifted
}

fn is_possible(at: SocketAddr, lab: bool) -> bool {
    is_place(at) && at.ip().to_canonical().is_loopback() == lab
}

/// Whether a peer can be there at all, on this host or another.
pub(crate) fn is_place(at: SocketAddr) -> bool {
    let ip = at.ip().to_canonical();
    let nowhere = match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        // Without its scope a link-local address is of no use, and whose scope would it be?
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    at.port() != 0 && WayId::of(at).is_none() && !nowhere && !ip.is_unspecified() && !ip.is_multicast()
}

/// Whether an address is one of the internet, and not of a network behind some router.
pub(crate) fn is_outside(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    let shared = first == 100 && (64..128).contains(&second);
    let nowhere = ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || first == 0 || first >= 240;
    !ip.is_private() && !shared && !ip.is_loopback() && !ip.is_link_local() && !nowhere
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_that_no_peer_can_have_are_refused_and_counted() {
        let good = all(&["192.0.2.1:7", "[2001:db8::1]:7", "192.168.1.5:41641", "100.64.0.9:1"]);
        let bad = all(&[
            "0.0.0.0:7",
            "0.1.2.3:7",
            "127.0.0.1:7",
            "[::1]:7",
            "[::]:7",
            "224.0.0.1:7",
            "[ff02::1]:7",
            "255.255.255.255:7",
            "250.0.0.1:7",
            "169.254.1.1:7",
            "[fe80::1]:7",
            "192.0.2.1:0",
            "[100::5]:1",
            "[::ffff:127.0.0.1]:7",
            "10.100.0.1:7",
        ]);
        let inside = |ip: IpAddr| ip == "10.100.0.1".parse::<IpAddr>().unwrap();
        let sifted = sift(&[bad.clone(), good.clone()].concat(), false, inside);
        assert_eq!(sifted, Sifted { usable: good, refused: bad.len() as u64 });
    }

    #[test]
    fn a_peer_that_names_ten_thousand_addresses_gets_sixteen_of_them() {
        let told: Vec<SocketAddr> = (1..=10_000).map(|port| SocketAddr::from(([192, 0, 2, 1], port))).collect();
        let sifted = sift(&told, false, |_| false);
        assert_eq!((sifted.usable.len(), sifted.refused), (MAX_CANDIDATES, 9_984));
    }

    #[test]
    fn in_a_laboratory_only_loopback_is_possible() {
        let told = all(&["127.0.0.1:7", "192.0.2.1:7"]);
        assert_eq!(sift(&told, true, |_| false).usable, all(&["127.0.0.1:7"]));
    }
}
