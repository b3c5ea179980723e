// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults and deaths between any two changes, in a namespace of their own.

pub(crate) mod netns;
mod transition;

use self::netns::{LAN, TUN, in_namespace};
use super::*;

fn plan() -> Plan {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
    Plan {
        interface: TUN.to_owned(),
        owns_device: false,
        addresses: nets(&["fd12:3456:789a::7/48", "10.100.3.7/32"]),
        routes: nets(&["10.100.0.0/16", "192.168.9.0/24"]).into_iter().map(Into::into).collect(),
        mtu: 1400,
    }
}

async fn steps() -> usize {
    let kernel = Kernel::open().unwrap();
    let (_, changes, _) = checks::changes(&kernel, &plan()).await.unwrap();
    changes.len()
}

#[test]
fn an_interface_of_which_somebody_has_a_queue_is_not_used() {
    in_namespace(async |_| {
        let device = pqvpn_dataplane::KernelTun::open("pqq%d", 2).unwrap();
        let found = Kernel::open().unwrap().tun_queues(device.index()).await.unwrap();
        assert_eq!(found, Some((16, 2)));
        assert!(crate::node::check_queues(&device, found).is_ok());
        for (used, others) in [(17, 2), (16, 3), (17, 1)] {
            assert!(crate::node::check_queues(&device, Some((used, others))).is_err(), "{used}, {others}");
        }
    });
}

#[test]
fn a_failure_at_any_change_leaves_nothing() {
    in_namespace(async |net| {
        let before = net.dump().await;
        let steps = steps().await;
        assert_eq!(steps, 8, "link-local, MTU, up, two addresses, three routes");
        for at in 0..steps {
            let error = HostChange::apply_until(net.state(), &plan(), Stop::Fail(at)).await.unwrap_err();
            assert!(error.to_string().contains("injected"), "{error}");
            assert_eq!(net.dump().await, before, "failed at {at}");
            assert!(!journal::path(net.state()).exists());
        }
    });
}

#[test]
fn a_death_before_any_change_is_undone_at_the_next_start() {
    in_namespace(async |net| {
        let before = net.dump().await;
        for at in 0..steps().await {
            HostChange::apply_until(net.state(), &plan(), Stop::Crash(at)).await.unwrap_err();
            assert!(journal::path(net.state()).exists());
            recover(net.state()).await.unwrap();
            assert_eq!(net.dump().await, before, "died at {at}");
            assert_eq!(recover(net.state()).await.unwrap(), Recovered::default());
        }
    });
}

#[test]
fn a_death_while_up_is_undone_at_the_next_start() {
    in_namespace(async |net| {
        let before = net.dump().await;
        let change = HostChange::apply(net.state(), &plan()).await.unwrap();
        assert_ne!(net.dump().await, before);
        std::mem::forget(change);
        let recovered = recover(net.state()).await.unwrap();
        assert_eq!(recovered.undone.len(), 8, "{recovered:?}");
        assert_eq!(net.dump().await, before);
    });
}

#[test]
fn a_persistent_device_of_ours_is_deleted_on_recovery() {
    in_namespace(async |net| {
        let owned = Plan { owns_device: true, ..plan() };
        std::mem::forget(HostChange::apply(net.state(), &owned).await.unwrap());
        recover(net.state()).await.unwrap();
        assert_eq!(net.index(TUN).await, None);
        assert!(net.index(LAN).await.is_some());
    });
}

#[test]
fn a_device_of_the_same_name_made_since_is_left_alone() {
    in_namespace(async |net| {
        std::mem::forget(HostChange::apply(net.state(), &plan()).await.unwrap());
        net.delete(TUN).await;
        net.add_pair(TUN, "far2").await;
        net.up(TUN).await;
        net.address(TUN, "10.100.3.7/32").await;
        let before = net.dump().await;
        let recovered = recover(net.state()).await.unwrap();
        assert_eq!((recovered.undone.len(), net.dump().await), (0, before));
        assert!(!journal::path(net.state()).exists());
    });
}

#[test]
fn an_index_that_names_another_device_now_is_left_alone() {
    in_namespace(async |net| {
        let before = net.dump().await;
        let changes = vec![Change::Address { net: "192.168.7.2/24".parse().unwrap() }, Change::Up];
        let journal = Journal::new(TUN.to_owned(), net.index(LAN).await.unwrap(), changes);
        journal.store(net.state()).await.unwrap();
        assert_eq!(recover(net.state()).await.unwrap(), Recovered::default());
        assert_eq!(net.dump().await, before);
    });
}

#[test]
fn a_journal_of_another_boot_or_namespace_changes_nothing() {
    in_namespace(async |net| {
        let change = HostChange::apply(net.state(), &plan()).await.unwrap();
        let before = net.dump().await;
        let (mut boot, mut namespace) = (change.journal.clone(), change.journal.clone());
        boot.boot = "00000000-0000-0000-0000-000000000000".to_owned();
        namespace.namespace += 1;
        for journal in [boot, namespace] {
            journal.store(net.state()).await.unwrap();
            assert!(recover(net.state()).await.unwrap().stale);
            assert_eq!(net.dump().await, before);
        }
    });
}

#[test]
fn what_cannot_be_undone_stays_in_the_journal() {
    in_namespace(async |net| {
        let index = net.index(TUN).await.unwrap();
        let changes = vec![Change::Mtu { before: 1_000_000, after: 1500 }, Change::Up];
        let journal = Journal::new(TUN.to_owned(), index, changes);
        journal.store(net.state()).await.unwrap();
        net.up(TUN).await;
        let error = recover(net.state()).await.unwrap_err().to_string();
        assert!(error.contains("MTU 1500 of pqvpn0"), "{error}");
        let Loaded::Journal(left) = journal::load(net.state()).await.unwrap() else { panic!("no journal") };
        assert_eq!(left.changes, [Change::Mtu { before: 1_000_000, after: 1500 }]);
    });
}

#[test]
fn missing_privilege_is_told_apart() {
    let denied = HostError::kernel("set address".to_owned(), std::io::Error::from_raw_os_error(1));
    assert!(matches!(denied, HostError::NotAllowed { .. }), "{denied:?}");
    assert!(denied.to_string().contains("CAP_NET_ADMIN"));
    let other = HostError::kernel("set address".to_owned(), std::io::Error::from_raw_os_error(22));
    assert!(matches!(other, HostError::Kernel { .. }), "{other:?}");
}

#[test]
fn what_is_connected_here_is_not_in_the_tunnel_though_a_peer_has_a_route_to_it() {
    let overlap = |route: &str, subnet: &str| Overlap {
        route: route.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
        interface: "eth0".to_owned(),
    };
    let report = Report {
        skipped: vec![overlap("192.168.1.0/24", "192.168.1.0/24")],
        shadowed: vec![overlap("10.0.0.0/8", "10.7.0.0/16")],
        ..Report::default()
    };
    for (ip, stays) in [("192.168.1.9", true), ("10.7.1.1", true), ("10.8.1.1", false), ("192.168.2.9", false)] {
        assert_eq!(report.keeps(ip.parse().unwrap()), stays, "{ip}");
    }
}
