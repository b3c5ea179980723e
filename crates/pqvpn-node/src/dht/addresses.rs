// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where others may dial this node: the addresses of its interfaces that are of use elsewhere.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use pqvpn_dht::address::{Class, Origin, Realm, class};

/// What kind of underlay a node that listens there takes part in. `private`: the DHT is not the open one.
pub(crate) fn realm(listen: &[SocketAddr], private: bool) -> Realm {
    // Who listens on loopback only speaks to nobody but this machine.
    if private && !listen.is_empty() && listen.iter().all(|at| at.ip().is_loopback()) {
        Realm::Lab
    } else if private {
        Realm::Private
    } else {
        Realm::Open
    }
}

/// Every address others may try, public ones first, without those of the overlay.
pub(crate) fn dialable(listen: &[SocketAddr], realm: Realm, overlay: &[IpAddr]) -> Vec<SocketAddr> {
    let interfaces = if listen.iter().any(|at| at.ip().is_unspecified()) { interface_addresses() } else { Vec::new() };
    expand(listen, &interfaces, realm, overlay)
}

fn expand(listen: &[SocketAddr], interfaces: &[IpAddr], realm: Realm, overlay: &[IpAddr]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for at in listen {
        let of_family = interfaces.iter().filter(|ip| ip.is_ipv4() == at.is_ipv4());
        let ips: Vec<IpAddr> = if at.ip().is_unspecified() { of_family.copied().collect() } else { vec![at.ip()] };
        addresses.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, at.port())));
    }
    let usable = |at: &SocketAddr| Origin { realm, told_by: Some(at.ip()) }.judge(at).is_ok();
    addresses.retain(|at| usable(at) && !overlay.contains(&at.ip()));
    addresses.sort_by_key(|at| (class(at) != Class::Public, *at));
    addresses.dedup();
    addresses
}

/// Addresses of the interfaces that are up.
fn interface_addresses() -> Vec<IpAddr> {
    #[cfg(feature = "sim")]
    if let Some(addresses) = crate::sim::addresses() {
        return addresses;
    }
    let Ok(interfaces) = getifaddrs().inspect_err(|error| tracing::debug!(%error, "interfaces not listed")) else {
        return Vec::new();
    };
    let up = interfaces.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    let address = up.filter_map(|interface| interface.address);
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    address.filter_map(ip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_addresses_of_use_elsewhere_are_told() {
        let listen = addresses(&["0.0.0.0:5", "[::]:6"]);
        let interfaces =
            ips(&["127.0.0.1", "::1", "192.168.1.7", "8.8.4.4", "fe80::1", "2600::7", "169.254.1.1", "10.100.3.7"]);
        let overlay = ips(&["10.100.3.7"]);
        let expected = addresses(&["8.8.4.4:5", "[2600::7]:6", "192.168.1.7:5"]);
        assert_eq!(expand(&listen, &interfaces, Realm::Open, &overlay), expected);
        assert_eq!(expand(&addresses(&["127.0.0.1:5"]), &[], Realm::Open, &[]), []);
        assert_eq!(expand(&addresses(&["127.0.0.1:5"]), &[], Realm::Lab, &[]).len(), 1);
        assert_eq!(expand(&addresses(&["8.8.8.8:0"]), &[], Realm::Open, &[]), [], "port 0 is no address");
    }

    #[test]
    fn loopback_alone_is_a_laboratory_but_never_on_the_open_dht() {
        let loopback = addresses(&["127.0.0.1:5", "[::1]:5"]);
        assert_eq!(realm(&loopback, true), Realm::Lab);
        assert_eq!(realm(&loopback, false), Realm::Open);
        assert_eq!(realm(&addresses(&["127.0.0.1:5", "10.0.0.1:5"]), true), Realm::Private);
    }
}
