// SPDX-License-Identifier: MIT OR Apache-2.0
//! From plan to plan on a running host: nothing too little, nothing too much, whatever happens in between.

use std::net::IpAddr;

use super::{
    netns::{LAN, Net, TUN, in_namespace},
    *,
};

/// A plan with these addresses, and routes with the preferred sources they name after an `@`.
fn plan(addresses: &[&str], routes: &[&str]) -> Plan {
    let route = |text: &&str| {
        let (net, source) = text.split_once('@').unwrap_or((text, ""));
        PlannedRoute { source: source.parse().ok(), ..net.parse::<IpNet>().unwrap().into() }
    };
    Plan {
        interface: TUN.to_owned(),
        owns_device: false,
        mtu: 1400,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        routes: routes.iter().map(route).collect(),
    }
}

/// One network; then a second one as well; then the second one alone, with another address of its own.
fn plans() -> [Plan; 3] {
    let (one, two) = (["fd01::7/128", "10.100.3.7/32"], ["fd02::7/128", "10.101.3.7/32"]);
    let moved = ["fd02::7/128", "10.101.200.9/32"];
    [
        plan(&one, &["fd01::/48", "10.100.0.0/16@10.100.3.7"]),
        plan(&[one, two].concat(), &["fd01::/48", "10.100.0.0/16@10.100.3.7", "fd02::/48", "10.101.0.0/16@10.101.3.7"]),
        plan(&moved, &["fd02::/48", "10.101.0.0/16@10.101.200.9"]),
    ]
}

/// The host as a plan makes it from nothing.
async fn as_applied(net: &Net, plan: &Plan) -> Vec<String> {
    let change = HostChange::apply(net.state(), plan).await.unwrap();
    let dump = net.dump().await;
    change.undo().await.unwrap();
    dump
}

#[test]
fn each_plan_is_reached_from_each_other_one_and_all_is_undone_at_the_end() {
    in_namespace(async |net| {
        let before = net.dump().await;
        for from in &plans() {
            for to in &plans() {
                let wanted = as_applied(&net, to).await;
                let mut change = HostChange::apply(net.state(), from).await.unwrap();
                change.change_to(to).await.unwrap();
                assert_eq!(net.dump().await, wanted, "{from:?} -> {to:?}");
                change.undo().await.unwrap();
                assert_eq!(net.dump().await, before);
                assert!(!journal::path(net.state()).exists());
            }
        }
    });
}

#[test]
fn packets_to_each_network_have_the_source_of_that_network() {
    in_namespace(async |net| {
        let [one, both, moved] = plans();
        let mut change = HostChange::apply(net.state(), &one).await.unwrap();
        assert_eq!(source_to("10.100.9.9"), ip("10.100.3.7"));
        change.change_to(&both).await.unwrap();
        assert_eq!((source_to("10.100.9.9"), source_to("10.101.9.9")), (ip("10.100.3.7"), ip("10.101.3.7")));
        assert_eq!((source_to("fd01::9"), source_to("fd02::9")), (ip("fd01::7"), ip("fd02::7")));
        change.change_to(&moved).await.unwrap();
        assert_eq!((source_to("10.101.9.9"), source_to("fd02::9")), (ip("10.101.200.9"), ip("fd02::7")));
        change.undo().await.unwrap();
    });
}

#[test]
fn a_failure_at_any_new_step_leaves_the_plan_before_and_at_any_old_one_the_new_plan() {
    in_namespace(async |net| {
        let before = net.dump().await;
        let [one, both, moved] = plans();
        for (from, to, new, old) in [(&one, &both, 4, 0), (&both, &moved, 2, 5), (&moved, &one, 4, 4)] {
            let was = as_applied(&net, from).await;
            let wanted = as_applied(&net, to).await;
            for at in 0..new {
                let mut change = HostChange::apply(net.state(), from).await.unwrap();
                change.change_until(to, Stop::Fail(at)).await.unwrap_err();
                assert_eq!(net.dump().await, was, "failed at {at}");
                change.change_to(to).await.unwrap();
                assert_eq!(net.dump().await, wanted, "and can be tried again");
                change.undo().await.unwrap();
                assert_eq!(net.dump().await, before);
            }
            for at in new..new + old {
                let mut change = HostChange::apply(net.state(), from).await.unwrap();
                let error = change.change_until(to, Stop::Fail(at)).await.unwrap_err();
                assert!(matches!(error, HostError::Undo { .. }), "{error}");
                change.undo().await.unwrap();
                assert_eq!(net.dump().await, before, "what was left over is undone with the rest");
            }
            let mut change = HostChange::apply(net.state(), from).await.unwrap();
            change.change_until(to, Stop::Fail(new + old)).await.expect("there are no more steps");
            change.undo().await.unwrap();
        }
    });
}

#[test]
fn a_death_at_any_step_is_undone_at_the_next_start() {
    in_namespace(async |net| {
        let before = net.dump().await;
        let [one, both, moved] = plans();
        for (from, to, steps) in [(&one, &both, 4), (&both, &moved, 7), (&moved, &one, 8)] {
            for at in 0..steps {
                let mut change = HostChange::apply(net.state(), from).await.unwrap();
                change.change_until(to, Stop::Crash(at)).await.unwrap_err();
                std::mem::forget(change);
                recover(net.state()).await.unwrap();
                assert_eq!(net.dump().await, before, "died at {at} of {from:?} -> {to:?}");
            }
            let mut change = HostChange::apply(net.state(), from).await.unwrap();
            change.change_to(to).await.unwrap();
            std::mem::forget(change);
            recover(net.state()).await.unwrap();
            assert_eq!(net.dump().await, before, "died afterwards");
        }
    });
}

#[test]
fn a_route_is_given_up_when_a_lan_takes_its_place() {
    in_namespace(async |net| {
        let before = net.dump().await;
        let wanted = plan(&["10.100.3.7/32"], &["10.100.0.0/16@10.100.3.7", "192.168.0.0/16"]);
        let mut change = HostChange::apply(net.state(), &wanted).await.unwrap();
        assert_eq!(change.report().shadowed.len(), 1);
        net.address(LAN, "10.100.77.1/16").await;
        change.change_to(&wanted).await.unwrap();
        assert_eq!(change.report().skipped.len(), 1);
        let ours = net.dump().await.iter().filter(|line| line.contains("Other(174)")).count();
        assert_eq!(ours, 1, "only the way to 192.168.0.0/16 is left");
        change.undo().await.unwrap();
        assert_ne!(net.dump().await, before, "the address of the LAN stays");
    });
}

#[test]
fn a_plan_that_cannot_be_changes_nothing() {
    in_namespace(async |net| {
        let [one, ..] = plans();
        let mut change = HostChange::apply(net.state(), &one).await.unwrap();
        let was = net.dump().await;
        let taken = plan(&["10.100.3.7/32", "192.168.7.2/32"], &[]);
        let error = change.change_to(&taken).await.unwrap_err();
        assert!(matches!(error, HostError::AddressTaken { .. }), "{error}");
        assert_eq!(net.dump().await, was);
        change.undo().await.unwrap();
    });
}

#[test]
fn a_pool_is_chosen_that_neither_host_nor_networks_use() {
    in_namespace(async |net| {
        let pools = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Ipv4Net>>();
        let wanted = pools(&["10.100.0.0/16", "10.101.0.0/16", "10.102.0.0/16"]);
        assert_eq!(free_pool(Some(TUN), &wanted, &[]).await.unwrap(), Some(wanted[0]));
        net.address(LAN, "10.100.77.1/24").await;
        assert_eq!(free_pool(Some(TUN), &wanted, &[]).await.unwrap(), Some(wanted[1]));
        let taken = pools(&["10.101.128.0/17"]);
        assert_eq!(free_pool(Some(TUN), &wanted, &taken).await.unwrap(), Some(wanted[2]));
        assert_eq!(free_pool(Some(TUN), &wanted[..2], &taken).await.unwrap(), None);
    });
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The source the kernel gives a packet to `to`; nothing is sent.
fn source_to(to: &str) -> IpAddr {
    let any = if ip(to).is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = std::net::UdpSocket::bind(any).unwrap();
    socket.connect((ip(to), 9)).unwrap();
    socket.local_addr().unwrap().ip()
}
