// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host is as planned while the node is up, and as before afterwards; each conflict is one clear error.

#[path = "../src/host/tests/netns.rs"]
mod netns;

use std::{fs, net::IpAddr};

use ipnet::IpNet;
use netns::{LAN, Net, TUN, in_namespace};
use pqvpn_node::host::{ConflictKind, HostChange, HostError, Plan, PlannedRoute, pool_conflicts, recover};
use rtnetlink::RouteMessageBuilder;

fn plan(addresses: &[&str], routes: &[&str]) -> Plan {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("prefix")).collect::<Vec<IpNet>>();
    let routes = nets(routes).into_iter().map(Into::into).collect();
    Plan { interface: TUN.to_owned(), owns_device: false, addresses: nets(addresses), routes, mtu: 1420 }
}

fn usual() -> Plan {
    plan(&["fd12:3456:789a::7/48", "10.100.3.7/16"], &["192.168.9.0/24"])
}

async fn route(net: &Net, to: &str, via: &str) {
    let to: IpNet = to.parse().expect("prefix");
    let via: IpAddr = via.parse().expect("gateway");
    let route = RouteMessageBuilder::<IpAddr>::new().destination_prefix(to.addr(), to.prefix_len());
    let message = route.expect("prefix").gateway(via).expect("gateway").build();
    net.handle.route().add(message).execute().await.expect("route");
}

async fn refused(net: &Net, plan: &Plan) -> HostError {
    let before = net.dump().await;
    let error = HostChange::apply(net.state(), plan).await.expect_err("refused");
    assert_eq!(net.dump().await, before, "nothing half-set after {error}");
    assert_eq!(fs::read_dir(net.state()).expect("dir").count(), 0, "no journal after {error}");
    error
}

#[test]
fn apply_sets_everything_and_undo_leaves_the_host_as_before() {
    in_namespace(async |net| {
        let before = net.dump().await;
        for _ in 0..2 {
            let change = HostChange::apply(net.state(), &usual()).await.expect("applied");
            assert_eq!(*change.report(), Default::default());
            let during = net.dump().await.join("\n");
            for needle in [
                "10.100.3.7",
                "192.168.9.0",
                "10.100.0.0",
                "fd12:3456:789a::7",
                "fd12:3456:789a::)",
                "Mtu(1420)",
                "Other(174)",
                "AddrGenMode(None)",
            ] {
                assert!(during.contains(needle), "{needle} is not in\n{during}");
            }
            change.undo().await.expect("undone");
            assert_eq!(net.dump().await, before);
            assert_eq!(fs::read_dir(net.state()).expect("dir").count(), 0);
        }
    });
}

#[test]
fn undo_is_content_with_what_is_gone_already() {
    in_namespace(async |net| {
        let change = HostChange::apply(net.state(), &usual()).await.expect("applied");
        net.delete(TUN).await;
        change.undo().await.expect("nothing left to undo");
    });
}

#[test]
fn what_was_there_before_stays_after_undo() {
    in_namespace(async |net| {
        net.up(TUN).await;
        net.address(TUN, "10.100.3.7/32").await;
        let before = net.dump().await;
        let change = HostChange::apply(net.state(), &usual()).await.expect("applied");
        change.undo().await.expect("undone");
        assert_eq!(net.dump().await, before);
    });
}

#[test]
fn an_address_of_another_interface_is_refused_by_name() {
    in_namespace(async |net| {
        net.address(LAN, "10.100.3.7/30").await;
        let error = refused(&net, &usual()).await;
        assert!(matches!(&error, HostError::AddressTaken { interface, .. } if interface == LAN), "{error:?}");
        assert!(error.to_string().contains("interface lan0 has it"), "{error}");
    });
}

#[test]
fn a_route_through_another_interface_is_refused_by_name() {
    in_namespace(async |net| {
        route(&net, "10.100.0.0/16", "192.168.7.1").await;
        let error = refused(&net, &usual()).await;
        assert!(matches!(&error, HostError::RouteTaken { interface, .. } if interface == LAN), "{error:?}");
        assert!(error.to_string().contains("10.100.0.0/16 is there already, via lan0"), "{error}");
    });
}

#[test]
fn where_members_have_routes_of_their_own_somebody_else_s_route_to_the_prefix_is_only_told() {
    in_namespace(async |net| {
        route(&net, "10.100.0.0/16", "192.168.7.1").await;
        let guarded = |net: &str| PlannedRoute { guarded: true, ..net.parse::<IpNet>().expect("prefix").into() };
        let pool = Plan { routes: vec![guarded("10.100.0.0/16")], ..plan(&["10.100.3.7/32"], &[]) };
        let change = HostChange::apply(net.state(), &pool).await.expect("applied");
        let taken: Vec<_> =
            change.report().taken.iter().map(|it| (it.route.to_string(), it.interface.clone())).collect();
        assert_eq!(taken, [("10.100.0.0/16".to_owned(), LAN.to_owned())]);
        change.undo().await.expect("undone");
    });
}

#[test]
fn routes_by_a_router_inside_one_of_ours_are_told() {
    in_namespace(async |net| {
        route(&net, "192.168.9.128/25", "192.168.7.1").await;
        route(&net, "192.168.10.0/24", "192.168.7.1").await;
        let change =
            HostChange::apply(net.state(), &plan(&["10.100.3.7/32"], &["192.168.9.0/24"])).await.expect("applied");
        let narrower: Vec<String> = change.report().narrower.iter().map(|it| it.subnet.to_string()).collect();
        assert_eq!(narrower, ["192.168.9.128/25"]);
        change.undo().await.expect("undone");
    });
}

#[test]
fn a_missing_interface_is_refused() {
    in_namespace(async |net| {
        let error = refused(&net, &Plan { interface: "nope0".to_owned(), ..usual() }).await;
        assert_eq!(error.to_string(), "there is no interface nope0");
    });
}

#[test]
fn a_connected_subnet_wins_over_a_route() {
    in_namespace(async |net| {
        let wanted =
            plan(&["10.100.3.7/32"], &["192.168.7.0/24", "192.168.7.128/25", "192.168.0.0/16", "10.100.0.0/16"]);
        let change = HostChange::apply(net.state(), &wanted).await.expect("applied");
        let skipped: Vec<String> = change.report().skipped.iter().map(|skip| skip.route.to_string()).collect();
        assert_eq!(skipped, ["192.168.7.0/24", "192.168.7.128/25"]);
        let shadowed = &change.report().shadowed;
        assert_eq!(shadowed.len(), 1, "{shadowed:?}");
        assert_eq!((shadowed[0].route.to_string().as_str(), shadowed[0].interface.as_str()), ("192.168.0.0/16", LAN));
        change.undo().await.expect("undone");
    });
}

#[test]
fn what_the_kernel_refuses_half_way_leaves_nothing() {
    in_namespace(async |net| {
        // The second address is one no interface can have.
        let error = refused(&net, &plan(&["10.100.3.7/32", "::/128"], &["10.100.0.0/16"])).await;
        assert!(matches!(error, HostError::Kernel { .. }), "{error:?}");
        let error = refused(&net, &Plan { mtu: 10, ..usual() }).await;
        assert!(error.to_string().contains("MTU 10 "), "{error}");
    });
}

#[test]
fn ipv6_switched_off_leaves_ipv4_working() {
    in_namespace(async |net| {
        if let Err(error) = fs::write(format!("/proc/sys/net/ipv6/conf/{TUN}/disable_ipv6"), "1") {
            return netns::skip(&format!("cannot switch IPv6 off: {error}"));
        }
        let before = net.dump().await;
        let change = HostChange::apply(net.state(), &usual()).await.expect("applied");
        assert!(change.report().ipv6_missing);
        assert!(net.dump().await.join("\n").contains("10.100.3.7"));
        change.undo().await.expect("undone");
        assert_eq!(net.dump().await, before);
        let only_v6 = plan(&["fd12:3456:789a::7/128"], &[]);
        assert!(matches!(refused(&net, &only_v6).await, HostError::NoFamily));
    });
}

#[test]
fn changes_that_are_not_undone_yet_block_new_ones() {
    in_namespace(async |net| {
        let first = HostChange::apply(net.state(), &usual()).await.expect("applied");
        let before = net.dump().await;
        let error = HostChange::apply(net.state(), &usual()).await.expect_err("pending");
        assert!(matches!(error, HostError::JournalPending { .. }), "{error:?}");
        assert_eq!(net.dump().await, before);
        first.undo().await.expect("undone");
    });
}

#[test]
fn a_damaged_journal_is_set_aside_and_never_acted_on() {
    in_namespace(async |net| {
        let change = HostChange::apply(net.state(), &usual()).await.expect("applied");
        let path = net.state().join("host-journal");
        let good = fs::read(&path).expect("journal");
        let before = net.dump().await;
        let mut damaged: Vec<Vec<u8>> = (0..good.len()).step_by(7).map(|end| good[..end].to_vec()).collect();
        damaged.extend((0..good.len()).step_by(5).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x41;
            bytes
        }));
        damaged.push(b"\xff\xfe".to_vec());
        for bytes in damaged {
            fs::write(&path, &bytes).expect("write");
            match recover(net.state()).await {
                Ok(recovered) => {
                    assert!(recovered.unreadable.is_some_and(|why| why.contains("host-journal.unreadable")));
                    assert!(recovered.undone.is_empty());
                }
                Err(HostError::JournalVersion { version, .. }) => assert_ne!(version, 1),
                Err(error) => panic!("{error}"),
            }
            assert_eq!(net.dump().await, before);
        }
        fs::write(&path, good).expect("write");
        change.undo().await.expect("undone");
    });
}

#[test]
fn a_journal_of_a_newer_version_is_kept() {
    in_namespace(async |net| {
        let path = net.state().join("host-journal");
        fs::write(&path, "pqvpn-host-journal 2 00\n{}\n").expect("write");
        let error = recover(net.state()).await.expect_err("newer");
        assert!(matches!(error, HostError::JournalVersion { version: 2, .. }), "{error:?}");
        assert!(path.exists());
    });
}

#[test]
fn conflicts_of_the_pool_are_named() {
    in_namespace(async |net| {
        let pool = "10.100.0.0/16".parse().expect("pool");
        assert_eq!(pool_conflicts(pool, Some(TUN)).await.expect("answer"), []);
        route(&net, "0.0.0.0/0", "192.168.7.1").await;
        let change = HostChange::apply(net.state(), &usual()).await.expect("applied");
        assert_eq!(pool_conflicts(pool, Some(TUN)).await.expect("answer"), []);
        route(&net, "10.0.0.0/8", "192.168.7.1").await;
        net.address(LAN, "10.100.200.1/32").await;
        let conflicts = pool_conflicts(pool, Some(TUN)).await.expect("answer");
        let found: Vec<_> =
            conflicts.iter().map(|it| (it.prefix.to_string(), it.interface.as_deref(), it.kind)).collect();
        let expected = [("10.100.200.1/32", ConflictKind::Address), ("10.0.0.0/8", ConflictKind::Route)];
        assert_eq!(found, expected.map(|(prefix, kind)| (prefix.to_owned(), Some(LAN), kind)));
        change.undo().await.expect("undone");
    });
}
