// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the host has of a mesh when not all of it can be set: members' packets still go nowhere else.

use std::net::UdpSocket;

use super::{
    super::tests::netns::{LAN, Net, TUN, in_namespace},
    *,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// One network with one member, 10.100.9.2, and us, 10.100.3.7.
fn mesh() -> Mesh {
    let part = |own: &str, route: &str, source: Option<IpAddr>| HostPart {
        network: Some("home".to_owned()),
        addresses: vec![ip(own)],
        routes: vec![(net(route), source)],
    };
    Mesh {
        host: vec![part("fd01::7", "fd01::/48", None), part("10.100.3.7", "10.100.0.0/16", Some(ip("10.100.3.7")))],
        guarded: [net("fd01::/48"), net("10.100.9.2/32")].into(),
        ..Mesh::default()
    }
}

async fn applied(namespace: &Net) -> HostSide {
    let mut side = HostSide::new(1400, namespace.state().to_owned());
    side.interface = Some(TUN.to_owned());
    side.plan(&mesh());
    side.apply().await.unwrap();
    side
}

/// The source a packet to the member would get; none: it goes nowhere.
fn to_member() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("10.100.9.2:7").ok().and_then(|()| socket.local_addr().ok()).map(|local| local.ip())
}

/// What an operator is told, but for a kernel without nftables.
fn codes(side: &HostSide) -> Vec<&'static str> {
    side.health().into_iter().map(|item| item.code).filter(|code| *code != "weak-host").collect()
}

#[test]
fn all_is_set_and_all_is_gone_after_it() {
    in_namespace(async |namespace| {
        let before = namespace.dump().await;
        let mut side = applied(&namespace).await;
        assert_eq!((to_member(), codes(&side)), (Some(ip("10.100.3.7")), Vec::new()));
        side.look_again(clock::now()).await;
        assert_eq!(codes(&side), Vec::<&str>::new());
        side.undo().await.unwrap();
        assert_eq!(namespace.dump().await, before);
    });
}

#[test]
fn where_our_address_is_somebody_else_s_members_packets_go_nowhere() {
    in_namespace(async |namespace| {
        namespace.address(LAN, "10.100.3.7/16").await;
        let before = namespace.dump().await;
        let mut side = applied(&namespace).await;
        assert_eq!((to_member(), codes(&side)), (None, vec!["pool-taken"]));
        side.undo().await.unwrap();
        assert_eq!((namespace.dump().await, to_member()), (before, Some(ip("10.100.3.7"))));
    });
}

#[test]
fn a_lan_with_our_range_that_comes_and_goes_never_has_members_packets() {
    in_namespace(async |namespace| {
        let mut side = applied(&namespace).await;
        namespace.address(LAN, "10.100.77.1/16").await;
        assert_eq!(to_member(), Some(ip("10.100.3.7")), "before it is noticed");
        side.look_again(clock::now()).await;
        assert_eq!((to_member(), codes(&side)), (Some(ip("10.100.3.7")), vec!["lan-collides"]));
        assert!(side.is_connected(ip("10.100.9.9")), "the rest is the LAN's");
        let gone = Mesh { guarded: [net("fd01::/48")].into(), ..mesh() };
        side.follow(&gone).await;
        assert_eq!(to_member(), Some(ip("10.100.77.1")), "no member has it any more");
        side.undo().await.unwrap();
    });
}

#[test]
fn a_rule_that_was_taken_away_is_set_again() {
    in_namespace(async |namespace| {
        let mut side = applied(&namespace).await;
        namespace.address(LAN, "10.100.77.1/16").await;
        side.look_again(clock::now()).await;
        let kernel = Kernel::open().unwrap();
        guard::clear(&kernel, namespace.index(TUN).await.unwrap()).await.unwrap();
        assert_eq!(to_member(), Some(ip("10.100.77.1")));
        side.look_again(clock::now()).await;
        assert_eq!(to_member(), Some(ip("10.100.3.7")));
        side.undo().await.unwrap();
    });
}

#[test]
fn what_somebody_did_to_our_interface_is_mended() {
    in_namespace(async |namespace| {
        let mut side = applied(&namespace).await;
        let planned = namespace.dump().await;
        let index = namespace.index(TUN).await.unwrap();
        Kernel::open().unwrap().revert(index, &super::super::Change::Up).await.unwrap();
        assert_eq!(to_member(), None);
        side.look_again(clock::now()).await;
        assert_eq!((namespace.dump().await, codes(&side)), (planned, Vec::new()));
        assert_eq!(to_member(), Some(ip("10.100.3.7")));
        side.undo().await.unwrap();
    });
}

#[test]
fn who_starts_again_leaves_members_packets_nowhere_to_go_and_nothing_else() {
    in_namespace(async |namespace| {
        namespace.address(LAN, "10.100.77.1/16").await;
        let before = namespace.dump().await;
        let mut side = applied(&namespace).await;
        side.close().await.unwrap();
        assert_eq!(to_member(), None);
        namespace.delete(TUN).await;
        assert_eq!(to_member(), None, "its interface is gone");
        // The next run has another interface.
        namespace.add_pair(TUN, "other").await;
        namespace.up("other").await;
        let mut next = applied(&namespace).await;
        assert_eq!(to_member(), Some(ip("10.100.3.7")));
        next.undo().await.unwrap();
        assert_eq!(to_member(), Some(ip("10.100.77.1")), "after a clean end");
        let ours = |line: &&String| line.contains("41641");
        assert_eq!(namespace.dump().await.iter().find(ours), before.iter().find(ours));
    });
}

#[test]
fn who_was_down_leaves_nothing_also_when_it_starts_again() {
    in_namespace(async |namespace| {
        let before = namespace.dump().await;
        let mut side = applied(&namespace).await;
        side.undo().await.unwrap();
        side.close().await.unwrap();
        assert_eq!(namespace.dump().await, before);
    });
}

#[test]
fn a_guard_that_is_not_whole_is_tried_again_and_news_wait_for_nobody_who_is_down() {
    in_namespace(async |namespace| {
        let mut side = applied(&namespace).await;
        assert_eq!(side.due(), None);
        side.unguarded.push(told::unguarded(&HostError::NoInterface { name: TUN.to_owned() }));
        // The same plan as before.
        side.follow(&mesh()).await;
        assert_eq!((codes(&side), side.due()), (Vec::new(), None));
        side.on_news(clock::now());
        assert!(side.due().is_some());
        side.undo().await.unwrap();
        assert_eq!(side.due(), None);
        side.on_news(clock::now());
        assert_eq!(side.due(), None);
    });
}

#[test]
fn what_could_not_be_taken_back_is_tried_again() {
    in_namespace(async |namespace| {
        let before = namespace.dump().await;
        let mut side = applied(&namespace).await;
        let journal = namespace.state().join("host-journal");
        let kept = std::fs::read(&journal).unwrap();
        let fails = async |side: &mut HostSide| {
            std::fs::remove_file(&journal).unwrap();
            std::fs::create_dir(&journal).unwrap();
            side.undo().await.unwrap_err();
            side.undo().await.unwrap_err();
            std::fs::remove_dir(&journal).unwrap();
            std::fs::write(&journal, &kept).unwrap();
            assert!(side.is_left());
        };
        fails(&mut side).await;
        side.undo().await.unwrap();
        assert_eq!((namespace.dump().await, side.is_left(), journal.exists()), (before, false, false));
        side.apply().await.unwrap();
        fails(&mut side).await;
        side.apply().await.unwrap();
        assert_eq!((to_member(), side.is_left()), (Some(ip("10.100.3.7")), false));
        side.undo().await.unwrap();
    });
}
