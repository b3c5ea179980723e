// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every kind of router maps, filters and forgets as its name says.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Write;

use pqvpn_lab::impair::ImpairError;
use pqvpn_lab::nat::{
    Dependence, Guess, Kind, NatError, Options, Punch, Site, guess, hairpins, measure, poison, punch,
};
use pqvpn_lab::netns::{Namespace, NetnsError};
use pqvpn_lab::topology::{Internet, internet};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// An internet whose first `sites` hosts are yet to become routers and whose last two are servers; or a loud skip.
fn outside(sites: u8) -> Option<Internet> {
    if let Err(error @ NetnsError::Forbidden(_)) = Namespace::create("probe") {
        _ = writeln!(std::io::stderr(), "SKIP: {error}");
        return None;
    }
    Some(internet(sites + 2).unwrap())
}

/// Unwraps, or skips loudly where a program is missing.
fn or_skip<T>(outcome: Result<T, NatError>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(NatError::Rules(error @ ImpairError::Missing { .. })) => {
            _ = writeln!(std::io::stderr(), "SKIP: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_kind_maps_and_filters_as_it_should() {
    for kind in Kind::ALL {
        let Some(internet) = outside(1) else { return };
        let [gateway, one, two] = internet.hosts.as_slice() else { panic!("three hosts") };
        let Some(mut site) = or_skip(Site::behind(gateway, kind, &Options::default(), 10)) else { return };
        let host = site.host("h1").unwrap();
        let found = measure(&host, one, two).unwrap();
        assert_eq!((found.mapping, found.filtering), kind.behaviour(), "{kind}");
        assert_eq!(found.keeps_port, kind != Kind::Symmetric, "{kind}");
        // A second host behind the same router changes nothing for either.
        let second = site.host("h1b").unwrap();
        let again = measure(&second, one, two).unwrap();
        assert_eq!((again.mapping, again.filtering), kind.behaviour(), "{kind}, second host");
    }
}

#[test]
fn only_plain_masquerade_can_be_poisoned() {
    for kind in Kind::ALL {
        let Some(internet) = outside(1) else { return };
        let [gateway, one, two] = internet.hosts.as_slice() else { panic!("three hosts") };
        let Some(mut site) = or_skip(Site::behind(gateway, kind, &Options::default(), 10)) else { return };
        let host = site.host("h1").unwrap();
        let [before, stranger, after] = poison(&host, one, two).unwrap();
        match kind {
            // The new port stays, also for who comes later.
            Kind::Masquerade => assert!(before != stranger && stranger == after, "{before} {stranger} {after}"),
            Kind::Symmetric => assert!(before != stranger && stranger != after, "{before} {stranger} {after}"),
            Kind::FullCone | Kind::AddressRestricted | Kind::PortRestricted | Kind::Home | Kind::Double => {
                assert_eq!([before; 2], [stranger, after], "{kind}");
            }
        }
    }
}

#[test]
fn ranges_of_ports_are_kept_to() {
    let ports = Options { ports: Some((20_000, 29_999)), ..Options::default() };
    for (kind, mapping) in [(Kind::Home, Dependence::Endpoint), (Kind::Symmetric, Dependence::AddressAndPort)] {
        let Some(internet) = outside(1) else { return };
        let [gateway, one, two] = internet.hosts.as_slice() else { panic!("three hosts") };
        let Some(mut site) = or_skip(Site::behind(gateway, kind, &ports, 10)) else { return };
        let found = measure(&site.host("h1").unwrap(), one, two).unwrap();
        assert_eq!(found.mapping, mapping, "{kind}");
        assert!((20_000..30_000).contains(&found.port), "{kind}: {}", found.port);
    }
}

#[test]
fn hosts_of_one_lan_meet_at_their_outside_address_where_hairpins_are_made() {
    for hairpin in [true, false] {
        let Some(internet) = outside(1) else { return };
        let [gateway, one, two] = internet.hosts.as_slice() else { panic!("three hosts") };
        let options = Options { hairpin, ..Options::default() };
        let Some(mut site) = or_skip(Site::behind(gateway, Kind::FullCone, &options, 10)) else { return };
        let (first, second) = (site.host("h1").unwrap(), site.host("h1b").unwrap());
        assert_eq!(hairpins(&first, &second, one).unwrap(), hairpin);
        let found = measure(&first, one, two).unwrap();
        assert_eq!((found.mapping, found.filtering), Kind::FullCone.behaviour());
    }
}

#[test]
fn a_router_that_forgets_lets_nobody_in_until_the_inside_sends() {
    for kind in Kind::ALL {
        let Some(internet) = outside(1) else { return };
        let [gateway, one, _] = internet.hosts.as_slice() else { panic!("three hosts") };
        let Some(mut site) = or_skip(Site::behind(gateway, kind, &Options::default(), 10)) else { return };
        let host = site.host("h1").unwrap();
        let inside = host.namespace.run({
            let address = host.ipv4;
            move || std::net::UdpSocket::bind((address, 0))
        });
        let inside = inside.unwrap().unwrap();
        let server = one.namespace.run({
            let address = one.ipv4;
            move || std::net::UdpSocket::bind((address, 0))
        });
        let server = server.unwrap().unwrap();
        let limit = std::time::Duration::from_secs(5);
        inside.set_read_timeout(Some(limit)).unwrap();
        server.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 8];
        let outside = |buffer: &mut [u8; 8]| {
            inside.send_to(b"out", server.local_addr().unwrap()).unwrap();
            server.recv_from(buffer).unwrap().1
        };
        let seen = outside(&mut buffer);
        server.send_to(b"in", seen).unwrap();
        assert_eq!(inside.recv(&mut buffer).unwrap(), 2, "{kind}");
        if or_skip(site.forget().map_err(NatError::from)).is_none() {
            return;
        }
        server.send_to(b"in", seen).unwrap();
        inside.set_read_timeout(Some(limit / 25)).unwrap();
        assert!(inside.recv(&mut buffer).is_err(), "{kind}");
        let again = outside(&mut buffer);
        inside.set_read_timeout(Some(limit)).unwrap();
        server.send_to(b"in", again).unwrap();
        assert_eq!(inside.recv(&mut buffer).unwrap(), 2, "{kind}");
    }
}

#[test]
fn forgotten_flows_take_the_time_that_was_set() {
    let Some(internet) = outside(1) else { return };
    let options = Options { udp_timeout_s: Some((2, 3)), ..Options::default() };
    let Some(site) = or_skip(Site::behind(&internet.hosts[0], Kind::Home, &options, 10)) else { return };
    for (name, value) in [("nf_conntrack_udp_timeout", "2"), ("nf_conntrack_udp_timeout_stream", "3")] {
        let path = format!("/proc/sys/net/netfilter/{name}");
        let set = site.routers[0].namespace.run(move || std::fs::read_to_string(path)).unwrap().unwrap();
        assert_eq!(set.trim(), value);
    }
}

#[test]
fn a_host_that_moves_is_seen_behind_its_new_router() {
    let Some(internet) = outside(2) else { return };
    let [first, second, one, two] = internet.hosts.as_slice() else { panic!("four hosts") };
    let Some(mut old) = or_skip(Site::behind(first, Kind::Home, &Options::default(), 10)) else { return };
    let mut new = Site::behind(second, Kind::Symmetric, &Options::default(), 20).unwrap();
    let (host, port) = old.plug("h1").unwrap();
    assert_eq!(measure(&host, one, two).unwrap().mapping, Dependence::Endpoint);
    let (host, port) = new.adopt(&host, &port).unwrap();
    assert_eq!(measure(&host, one, two).unwrap().mapping, Dependence::AddressAndPort);
    let (host, _) = old.adopt(&host, &port).unwrap();
    assert_eq!(measure(&host, one, two).unwrap().mapping, Dependence::Endpoint);
}

#[test]
fn enough_guesses_find_a_way_into_a_symmetric_nat() {
    let Some(internet) = outside(2) else { return };
    let [first, second, server, _] = internet.hosts.as_slice() else { panic!("four hosts") };
    let Some(mut hard) = or_skip(Site::behind(first, Kind::Symmetric, &Options::default(), 10)) else { return };
    let mut easy = Site::behind(second, Kind::Home, &Options::default(), 20).unwrap();
    let (hard, easy) = (hard.host("h1").unwrap(), easy.host("h2").unwrap());
    let mut rng = StdRng::seed_from_u64(5);
    // One in fifty attempts fails by the numbers; that three of three do would be one in a hundred thousand.
    let attempt = Guess { hard: &hard, easy: &easy, server, sockets: 256, probes: 1024 };
    assert!((0..3).any(|_| guess(&attempt, &mut rng).unwrap()));
    let hopeless = Guess { sockets: 1, probes: 1, ..attempt };
    assert!(!guess(&hopeless, &mut rng).unwrap());
}

/// Whether hosts behind these routers meet, with first packets that open their own router's way only, or without.
fn meet(kinds: [Kind; 2], openers: bool) -> Option<bool> {
    let internet = outside(2)?;
    let [first, second, server, _] = internet.hosts.as_slice() else { panic!("four hosts") };
    let mut sites = [
        or_skip(Site::behind(first, kinds[0], &Options::default(), 10))?,
        or_skip(Site::behind(second, kinds[1], &Options::default(), 20))?,
    ];
    let ends = [sites[0].host("h1").unwrap(), sites[1].host("h2").unwrap()];
    // Past their own routers; the internet's own ends them.
    let opener = openers.then(|| kinds.map(|kind| kind.depth() + 1));
    Some(punch(&Punch { ends: [&ends[0], &ends[1]], server, opener }).unwrap())
}

#[test]
fn two_that_can_be_poisoned_meet_when_nobody_sends_too_early() {
    let kinds = [Kind::Masquerade; 2];
    let Some(met) = meet(kinds, false) else { return };
    assert!(!met, "a packet that came too early did no harm");
    assert_eq!(meet(kinds, true), Some(true));
}

#[test]
fn symmetric_routers_let_only_the_unrestricted_meet_them() {
    for (other, met) in
        [(Kind::FullCone, true), (Kind::AddressRestricted, true), (Kind::Home, false), (Kind::Symmetric, false)]
    {
        let Some(found) = meet([Kind::Symmetric, other], true) else { return };
        assert_eq!(found, met, "{other}");
    }
}
