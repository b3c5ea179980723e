// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel holds of the wall, as `nft` reads it. That it keeps packets out, real daemons show.

use std::process::Command;

use super::{
    super::tests::netns::{TUN, in_namespace, skip},
    *,
};

/// The rules in force; `None`: `nft` is not installed.
fn rules() -> Option<String> {
    let listed = Command::new("nft").args(["list", "ruleset"]).output().ok()?;
    Some(String::from_utf8_lossy(&listed.stdout).into_owned())
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn the_wall_follows_our_addresses_and_is_gone_with_whoever_set_it() {
    in_namespace(async |net| {
        let Some(before) = rules() else { return skip("nft is not installed") };
        assert_eq!(before, "");
        let index = net.index(TUN).await.unwrap();
        let mut wall = Wall::default();
        for own in [&["fd01::7", "10.100.3.7"][..], &["fd01::7", "10.100.3.7"], &["fd02::9"]] {
            wall.stand(TUN, index, &addresses(own)).await.unwrap();
            let during = rules().unwrap();
            let drops = during.lines().filter(|line| line.ends_with("drop")).count();
            let v4 = own.iter().filter(|own| own.contains('.')).count();
            assert_eq!(drops, own.len() + v4, "each by its own rule, and ARP for those of IPv4:\n{during}");
            for own in own {
                let rule = format!(r#"daddr {own} iif != "pqvpn0" iif != "lo" drop"#);
                assert!(during.contains(&rule), "{own}:\n{during}");
            }
        }
        wall.remove().await;
        assert_eq!(rules().unwrap(), "");
        wall.stand(TUN, index, &addresses(&["10.100.3.7"])).await.unwrap();
        assert!(rules().unwrap().contains("10.100.3.7"));
        // As after a kill: the kernel closes the sockets.
        drop(wall);
        for _ in 0..1000 {
            if rules().unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{}", rules().unwrap());
    });
}

#[test]
fn what_an_older_kernel_has_kept_of_a_killed_node_is_replaced() {
    in_namespace(async |net| {
        if rules().is_none() {
            return skip("nft is not installed");
        }
        let old = Command::new("nft").args(["add", "table", "inet", "pqvpn-pqvpn0"]).status().unwrap();
        let other = Command::new("nft").args(["add", "table", "inet", "somebody-else"]).status().unwrap();
        assert!(old.success() && other.success());
        let mut wall = Wall::default();
        wall.stand(TUN, net.index(TUN).await.unwrap(), &addresses(&["10.100.3.7"])).await.unwrap();
        assert!(rules().unwrap().contains("10.100.3.7"));
        wall.remove().await;
        let left = rules().unwrap();
        assert!(left.contains("somebody-else") && !left.contains("pqvpn"), "{left}");
    });
}

#[test]
fn without_the_right_nothing_is_set_and_it_is_an_error() {
    in_namespace(async |net| {
        let index = net.index(TUN).await.unwrap();
        // A name longer than the kernel takes: the batch is refused as a whole.
        let mut wall = Wall::default();
        wall.stand(&"x".repeat(300), index, &addresses(&["10.100.3.7"])).await.unwrap_err();
        if let Some(rules) = rules() {
            assert_eq!(rules, "");
        }
        wall.remove().await;
    });
}

#[test]
fn answers_are_read_in_order_and_cut_ones_are_none() {
    let answer = |code: i32, asked: u16| {
        let mut bytes = 36_u32.to_ne_bytes().to_vec();
        bytes.extend([2_u16.to_ne_bytes(), 0_u16.to_ne_bytes()].concat());
        bytes.extend([0; 8]);
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(asked.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes
    };
    let to_rule = |code| Answer { code, is_last: false };
    let both = [answer(0, 0xa06), answer(-17, 0xa06)].concat();
    assert_eq!(answers(&both), [to_rule(0), to_rule(17)]);
    assert_eq!(answers(&answer(-95, 16)), [Answer { code: 95, is_last: true }], "nothing of nftables here");
    assert_eq!((answers(&both[..40]), answers(&both[..18]), answers(&[0; 7])), (vec![to_rule(0)], vec![], vec![]));
    assert_eq!(answers(&[0; 64]), [], "a length of nothing comes to an end");
}
